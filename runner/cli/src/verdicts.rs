//! Checks and changes as lines for a terminal.

use hotcell_judge::change::Change;
use hotcell_judge::{Check, Tally, Verdict};

use crate::exit::Exit;
use crate::ui;

/// A change in a line: what is gone in red, what came in green.
pub(crate) fn change(change: &Change) -> String {
    let what = ui::plain(&change.what);
    let old = change
        .old
        .as_deref()
        .map(|old| ui::styled(ui::RED, format!("- {}", ui::plain(old))));
    let new = change
        .new
        .as_deref()
        .map(|new| ui::styled(ui::GREEN, format!("+ {}", ui::plain(new))));
    match (old, new) {
        (Some(old), Some(new)) => format!("{what}\n    {old}\n    {new}"),
        (Some(one), None) | (None, Some(one)) => format!("{what} {one}"),
        (None, None) => what,
    }
}

/// All checks that are not met, and the tally.
pub(crate) fn print(checks: &[Check]) -> Exit {
    for check in checks {
        let subject = if check.subject.is_empty() {
            String::new()
        } else {
            format!(" {}", ui::plain(&check.subject))
        };
        match &check.verdict {
            Verdict::Met => {}
            Verdict::NotMet(changes) => {
                ui::out(&format!(
                    "{} {}{}",
                    ui::styled(ui::RED, "not met"),
                    ui::plain(&check.name),
                    ui::styled(ui::DIM, subject)
                ));
                for one in changes {
                    ui::out(&format!("  {}", change(one)));
                }
            }
            Verdict::NotJudged(reason) => ui::out(&format!(
                "{} {}{}: {}",
                ui::styled(ui::YELLOW, "not judged"),
                ui::plain(&check.name),
                ui::styled(ui::DIM, subject),
                ui::plain(reason)
            )),
        }
    }
    let tally = Tally::of(checks);
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
        assert_eq!(
            exit(Tally {
                met: 3,
                not_met: 0,
                not_judged: 1
            }),
            Exit::NotJudged
        );
        assert_eq!(exit(Tally::default()), Exit::NotJudged);
        assert_eq!(
            exit(Tally {
                met: 3,
                not_met: 1,
                not_judged: 1
            }),
            Exit::NotMet
        );
        assert_eq!(
            exit(Tally {
                met: 3,
                not_met: 0,
                not_judged: 0
            }),
            Exit::Ok
        );
    }
}
