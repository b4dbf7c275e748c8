//! `hotcell test --review`: what differs from the goldens, one change at a time, decided by a person.

use std::io::IsTerminal as _;

use console::{Key, Term};
use hotcell_judge::golden::{Goldens, Judged, Run};

use crate::exit::Failure;
use crate::verdicts::View;
use crate::{places, ui};

const HELP: &str = "  a  accept: the golden file is written at once, with this part as it came out\n  \
    r  reject: the golden stays, and the test is not met\n  \
    s  skip: not decided now\n  \
    f  show this change in full\n  \
    q  quit: what was accepted stays accepted\n  \
    ?  this help";

/// Whether a person is there to ask.
pub(super) fn check() -> Result<(), Failure> {
    if places::in_ci() {
        return Err(
            Failure::usage("--review is refused where CI is set: goldens are accepted by people")
                .help("run `hotcell test --review` on your own machine and commit the golden files"),
        );
    }
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(
            Failure::usage("--review asks a person, and this is not a terminal")
                .help("`hotcell test` shows what differs; `hotcell test --accept` accepts all of it"),
        );
    }
    Ok(())
}

/// What a person said to one change.
enum Decision {
    Accept,
    Reject,
    Skip,
    Quit,
}

/// Goes through all pending changes.
pub(super) fn review(goldens: &Goldens, run: Run<'_>, full: bool) -> Result<(), Failure> {
    let host = |error: hotcell_judge::golden::GoldenError| Failure::host(error.to_string());
    let mut pending: Vec<Judged> = goldens
        .judge(run)
        .map_err(host)?
        .into_iter()
        .filter(|judged| judged.pending.is_some())
        .collect();
    let total: usize = pending.iter().map(|judged| judged.steps().len()).sum();
    let (mut accepted, mut rejected, mut skipped, mut number) = (0, 0, 0, 0);
    let mut files = Vec::new();
    'all: for judged in &mut pending {
        for step in judged.steps() {
            number += 1;
            ui::out(&format!(
                "\n{}",
                ui::styled(ui::CYAN, format!("change {number} of {total}"))
            ));
            let word = ui::styled(ui::BOLD, ui::plain(&step.part));
            ui::out(&View::new(full).head(word, &judged.check));
            show(&step.changes, full);
            match ask(&step.changes)? {
                Decision::Accept => {
                    judged.accept_step(&step).map_err(host)?;
                    accepted += 1;
                    if !files.contains(&judged.path) {
                        files.push(judged.path.clone());
                    }
                    let did = if judged.path.exists() { "wrote" } else { "removed" };
                    ui::out(&format!("  {did} {}", judged.path.display()));
                }
                Decision::Reject => rejected += 1,
                Decision::Skip => skipped += 1,
                Decision::Quit => break 'all,
            }
        }
    }
    let left = total - accepted - rejected - skipped;
    if total == 0 {
        ui::out("nothing to review: every golden that was judged is met");
    } else {
        ui::out(&format!(
            "\n{accepted} accepted, {rejected} rejected, {skipped} skipped, {left} not looked at; {}",
            super::changed(files.len())
        ));
    }
    Ok(())
}

fn show(changes: &[hotcell_schema::diff::Change], full: bool) {
    for line in View::new(full).changes(changes, 2) {
        ui::out(&line);
    }
}

/// Asks until a key says something. The end of the input is a wish to quit.
fn ask(changes: &[hotcell_schema::diff::Change]) -> Result<Decision, Failure> {
    let terminal = Term::stdout();
    loop {
        // What was typed before the question is no answer to it.
        let _ = nix::sys::termios::tcflush(std::io::stdin(), nix::sys::termios::FlushArg::TCIFLUSH);
        ui::out("accept (a), reject (r), skip (s), full (f), quit (q), help (?)");
        match terminal.read_key() {
            Ok(Key::Char('a' | 'A')) => return Ok(Decision::Accept),
            Ok(Key::Char('r' | 'R')) => return Ok(Decision::Reject),
            Ok(Key::Char('s' | 'S')) => return Ok(Decision::Skip),
            Ok(Key::Char('f' | 'F')) => show(changes, true),
            Ok(Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC) => return Ok(Decision::Quit),
            Ok(Key::Char('?' | 'h')) => ui::out(HELP),
            Ok(Key::Unknown) => return Ok(Decision::Quit),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(Decision::Quit),
            Err(error) => return Err(Failure::host(format!("the terminal cannot be read: {error}"))),
        }
    }
}
