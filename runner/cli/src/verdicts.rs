//! Checks and changes as lines for a terminal.

use hotcell_judge::text::{self, Style, Tone};
use hotcell_schema::diff::Change;
use hotcell_schema::verdict::{Check, Tally, Verdict};

use crate::exit::Exit;
use crate::ui;

/// Lines of one change that are shown unless all are asked for.
const LINES: usize = 40;
/// Changes of one instance that are shown unless all are asked for.
const CHANGES: usize = 50;
/// Width of lines that go nowhere with a width of its own.
const NO_TERMINAL: usize = 200;

/// How changes are shown on standard output: as wide as the terminal, unless in full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    width: usize,
    full: bool,
}

impl View {
    pub(crate) fn new(full: bool) -> Self {
        let width = console::Term::stdout()
            .size_checked()
            .map_or(NO_TERMINAL, |(_, columns)| usize::from(columns).clamp(40, 240));
        Self { width, full }
    }

    /// Changes, indented, what is gone in red, what came in green.
    pub(crate) fn changes(self, changes: &[Change], indent: usize) -> Vec<String> {
        let style = match self.full {
            true => Style::FULL,
            false => Style {
                width: self.width.saturating_sub(indent),
                lines: LINES,
            },
        };
        let shown = if self.full { changes.len() } else { CHANGES };
        let mut out: Vec<String> = changes
            .iter()
            .take(shown)
            .flat_map(|change| text::lines(change, style))
            .map(|line| {
                let colour = match line.tone {
                    Tone::Name => anstyle::Style::new(),
                    Tone::Removed => ui::RED.bold(),
                    Tone::Added => ui::GREEN,
                    Tone::Moved => ui::CYAN,
                    Tone::Dim => ui::DIM,
                };
                format!("{:indent$}{}", "", ui::styled(colour, line.text))
            })
            .collect();
        if changes.len() > shown {
            let left = changes.len() - shown;
            out.push(format!("{:indent$}… {left} more changes; --full shows them", ""));
        }
        out
    }

    /// The line that says what a check is about.
    pub(crate) fn head(self, word: String, check: &Check) -> String {
        let name = ui::plain(&check.name);
        let short = ui::plain(&check.short);
        if short.is_empty() {
            return format!("{word} {name}");
        }
        // The name of a golden file says little more than that of its instance: it comes second, where there is room.
        let used = console::measure_text_width(&word) + short.chars().count() + name.chars().count() + 3;
        let gap = if used <= self.width || self.full {
            " "
        } else {
            "\n  "
        };
        format!(
            "{word} {}{gap}{}",
            ui::styled(ui::BOLD, short),
            ui::styled(ui::DIM, name)
        )
    }
}

/// All checks that are not met, and the tally.
pub(crate) fn print(checks: &[Check], view: View) -> Exit {
    for check in checks {
        match &check.verdict {
            Verdict::Met => {}
            Verdict::NotMet(changes) => {
                ui::out(&view.head(ui::styled(ui::RED, "not met"), check));
                for line in view.changes(changes, 2) {
                    ui::out(&line);
                }
            }
            Verdict::NotJudged(reason) => {
                ui::out(&view.head(ui::styled(ui::YELLOW, "not judged"), check));
                ui::out(&format!("  {}", ui::plain(reason)));
            }
        }
    }
    self::tally(Tally::of(checks))
}

/// How many checks came out how.
pub(crate) fn tally(tally: Tally) -> Exit {
    ui::out(&format!(
        "{} met, {} not met, {} not judged",
        tally.met, tally.not_met, tally.not_judged
    ));
    exit(tally)
}

/// The exit code for a tally. Nothing judged at all is not a success either.
pub(crate) fn exit(tally: Tally) -> Exit {
    match tally {
        Tally { not_met: 1.., .. } => Exit::NotMet,
        Tally { not_judged: 1.., .. } | Tally { met: 0, .. } => Exit::NotJudged,
        _ => Exit::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_run_is_never_passed() {
        let tally = |met, not_met, not_judged| Tally {
            met,
            not_met,
            not_judged,
        };
        assert_eq!(exit(tally(3, 0, 1)), Exit::NotJudged);
        assert_eq!(exit(Tally::default()), Exit::NotJudged);
        assert_eq!(exit(tally(3, 1, 1)), Exit::NotMet);
        assert_eq!(exit(tally(3, 0, 0)), Exit::Ok);
    }

    #[test]
    fn changes_fit_the_terminal() {
        let view = View {
            width: 60,
            full: false,
        };
        let changes: Vec<Change> = (0..70).map(|n| Change::added("x".repeat(100), n)).collect();
        let lines = view.changes(&changes, 2);
        assert_eq!(lines.len(), CHANGES + 1);
        for line in &lines {
            assert!(console::measure_text_width(line) <= 60, "{line}");
        }
        let full = View { full: true, ..view };
        assert_eq!(full.changes(&changes, 2).len(), 70);
    }
}
