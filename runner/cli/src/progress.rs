//! What goes on while stages run: bars on a terminal, a line for each instance elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use hotcell_plan::{Instance, Plan};
use hotcell_run::{Done, Observer};
use hotcell_schema::outcome::Status;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};

use crate::args::ProgressStyle;
use crate::ui;

/// Shows progress on standard error.
pub(crate) struct Progress<'a> {
    plan: &'a Plan,
    bar: Option<ProgressBar>,
    lines: bool,
}

impl<'a> Progress<'a> {
    /// Progress in the wanted style.
    pub(crate) fn new(plan: &'a Plan, style: ProgressStyle) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let with_bar = style == ProgressStyle::Auto && terminal;
        let bar = with_bar.then(|| {
            let bar = ProgressBar::with_draw_target(
                Some(plan.instances.len() as u64),
                ProgressDrawTarget::stderr_with_hz(10),
            );
            let style = BarStyle::with_template("{bar:30.cyan/dim} {pos}/{len} {elapsed:>4} {msg}");
            bar.set_style(style.unwrap_or_else(|_| BarStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let lines = bar.is_none() && style != ProgressStyle::None;
        Self { plan, bar, lines }
    }

    /// All is over: the bar goes away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| ui::say(text)),
            None => ui::say(text),
        }
    }

    /// An instance as people know it: its stage, the sample's name and the other values.
    fn title(&self, instance: &Instance) -> String {
        ui::plain(&title(self.plan, instance))
    }
}

/// An instance in few words: `run busybox 3b1f… sh`.
pub(crate) fn title(plan: &Plan, instance: &Instance) -> String {
    let mut words = vec![instance.stage.clone()];
    for value in instance.axes.values() {
        words.push(match value {
            hotcell_plan::AxisValue::Sample(index) => match plan.samples.get(*index) {
                Some(sample) => format!("{} {}", sample.name, sample.digest.short()),
                None => String::new(),
            },
            literal => plan.axis_text(literal),
        });
    }
    words.join(" ")
}

impl Observer for Progress<'_> {
    fn started(&self, _: usize, instance: &Instance) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.title(instance));
        }
    }

    fn ended(&self, _: usize, instance: &Instance, done: &Done) {
        let bad = done.status.is_bad();
        if self.lines || (bad && self.bar.is_some()) {
            let (style, word) = status(done.status);
            let reason = done
                .reason
                .as_deref()
                .map(|reason| format!(": {}", ui::plain(reason)))
                .unwrap_or_default();
            let error = match (&done.error, bad) {
                (Some(error), true) => format!("\n    {}", ui::plain(error)),
                _ => String::new(),
            };
            let time = if done.wall_s >= 0.1 {
                format!(" {:.1} s", done.wall_s)
            } else {
                String::new()
            };
            let title = self.title(instance);
            self.line(&format!(
                "{} {title}{}{reason}{error}",
                ui::styled(style, word),
                ui::styled(ui::DIM, time)
            ));
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn expanded(&self, _: &Instance, added: usize) {
        if let Some(bar) = &self.bar {
            bar.inc_length(added as u64);
        }
    }
}

/// A status as a word of even width.
fn status(status: Status) -> (anstyle::Style, &'static str) {
    match status {
        Status::Ok => (ui::GREEN, "ok         "),
        Status::Cached => (ui::DIM, "cached     "),
        Status::Failed => (ui::RED, "failed     "),
        Status::Interrupted => (ui::YELLOW, "interrupted"),
        Status::Skipped => (ui::DIM, "skipped    "),
        Status::Refused => (ui::YELLOW, "refused    "),
    }
}
