//! What goes on while stages run: a bar with counts on a terminal, a line for each instance elsewhere, JSON lines for
//! programs.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hotcell_plan::{Instance, Plan};
use hotcell_run::{Done, Observer, Selection};
use hotcell_schema::log::{Counts, LogKind, LogLine};
use hotcell_schema::outcome::{Outcome, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};

use crate::args::ProgressStyle;
use crate::names::Names;
use crate::{log, ui};

/// Running instances that the bar names.
const NAMED: usize = 2;

/// Shows progress on standard error.
pub(crate) struct Progress<'a> {
    names: Names<'a>,
    bar: Option<ProgressBar>,
    lines: bool,
    json: bool,
    counts: Mutex<Counts>,
    /// Short names of what runs just now, for the bar.
    running: Mutex<Vec<(usize, String)>>,
    /// The run's folder.
    run: PathBuf,
}

impl<'a> Progress<'a> {
    /// Progress in the wanted style.
    pub(crate) fn new(
        plan: &'a Plan,
        selection: Option<&Selection>,
        style: ProgressStyle,
        run: &Path,
    ) -> Self {
        let json = log::is_json();
        let terminal = std::io::stderr().is_terminal();
        let with_bar = style == ProgressStyle::Auto && terminal && !json;
        let count = selection.map_or(plan.instances.len(), Selection::len);
        let bar = with_bar.then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr_with_hz(10));
            let style = BarStyle::with_template("{bar:30.cyan/dim} {pos}/{len} {elapsed:>4}  {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| BarStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let lines = bar.is_none() && style != ProgressStyle::None && !json;
        Self {
            names: Names::new(plan),
            bar,
            lines,
            json: json && style != ProgressStyle::None,
            counts: Mutex::default(),
            running: Mutex::default(),
            run: run.to_owned(),
        }
    }

    /// All is over: the bar goes away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if log::is_json() {
            let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            log::write(&LogLine {
                counts: Some(counts),
                run: Some(self.run.display().to_string()),
                ..log::line(LogKind::Summary)
            });
        }
    }

    /// What the bar says beside its length: counts, and what runs just now.
    fn message(&self) -> String {
        let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let words = counts.words();
        let words = words.iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<String> = words.map(|(count, word)| format!("{count} {word}")).collect();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let named = running.iter().take(NAMED).map(|(_, name)| name.clone());
        let mut names: Vec<String> = named.collect();
        if running.len() > NAMED {
            names.push(format!("{} more", running.len() - NAMED));
        }
        if !names.is_empty() {
            parts.push(format!("running {}", names.join(" ")));
        }
        parts.join(", ")
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| ui::say(text)),
            None => ui::say(text),
        }
    }

    fn about(&self, kind: LogKind, instance: &Instance) -> LogLine {
        LogLine {
            instance: Some(instance.name.clone()),
            short: Some(self.names.of(instance)),
            ..log::line(kind)
        }
    }
}

impl Observer for Progress<'_> {
    fn started(&self, index: usize, instance: &Instance) {
        if let Some(bar) = &self.bar {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.push((index, self.names.plain(instance)));
            drop(running);
            bar.set_message(self.message());
        }
        if self.json {
            log::write(&self.about(LogKind::Started, instance));
        }
    }

    fn ended(&self, index: usize, instance: &Instance, done: &Done) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(done.status);
        drop(counts);
        if self.json {
            log::write(&LogLine {
                status: Some(done.status),
                outcome: done.outcome.as_ref().map(ToString::to_string),
                reason: done.reason.clone(),
                message: done.error.clone(),
                attempts: Some(done.attempts).filter(|attempts| *attempts > 1),
                left: done.left.clone(),
                fault: done.fault.clone(),
                wall_s: Some(done.wall_s),
                ..self.about(LogKind::Ended, instance)
            });
        }
        let bad = done.status.is_bad();
        if self.lines || (bad && self.bar.is_some()) {
            let (style, word) = word(done);
            let outcome = match &done.outcome {
                // That it ended by itself and well is what everyone expects.
                None | Some(Outcome::Exited(0) | Outcome::Completed) => String::new(),
                Some(outcome) => format!("  {}", ui::plain(&outcome.to_string())),
            };
            let reason = done.reason.as_deref();
            let reason = reason.map(|reason| format!("  {}", ui::plain(&self.names.shorten(reason))));
            let error = match (&done.error, bad) {
                (Some(error), true) => format!("\n{}", ui::indented(error, "    ")),
                _ => String::new(),
            };
            let left = match &done.left {
                Some(left) => format!("\n    what it left: {}", self.run.join(left).display()),
                None => String::new(),
            };
            let fault = match &done.fault {
                Some(fault) => format!("\n    what is known of it: {}", self.run.join(fault).display()),
                None => String::new(),
            };
            let tried = match done.attempts {
                0 | 1 => String::new(),
                many => format!("  after {many} attempts"),
            };
            let time = if done.wall_s >= 0.1 {
                format!("  {:.1} s", done.wall_s)
            } else {
                String::new()
            };
            self.line(&format!(
                "{} {}{outcome}{}{tried}{}{error}{left}{fault}",
                ui::styled(style, format!("{word:11}")),
                self.names.plain(instance),
                reason.unwrap_or_default(),
                ui::styled(ui::DIM, time)
            ));
        }
        if let Some(bar) = &self.bar {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|(other, _)| *other != index);
            drop(running);
            bar.inc(1);
            bar.set_message(self.message());
        }
    }

    fn expanded(&self, point: &Instance, added: usize) {
        if let Some(bar) = &self.bar {
            bar.inc_length(added as u64);
        }
        if self.json {
            log::write(&LogLine {
                added: Some(added as u64),
                ..self.about(LogKind::Expanded, point)
            });
        }
    }
}

/// How an instance ended, in a word. That a sample could not be run is a result, and must not look like one that ran.
fn word(done: &Done) -> (anstyle::Style, &'static str) {
    match (done.status, &done.outcome) {
        (Status::Ok, Some(Outcome::Unsupported(_))) => (ui::YELLOW, "unsupported"),
        (Status::Ok, _) => (ui::GREEN, "ok"),
        (Status::Cached, _) => (ui::DIM, "cached"),
        (Status::Failed, _) => (ui::RED, "failed"),
        (Status::Interrupted, _) => (ui::YELLOW, "interrupted"),
        (Status::Skipped, _) => (ui::DIM, "skipped"),
        (Status::Refused, _) => (ui::YELLOW, "refused"),
    }
}
