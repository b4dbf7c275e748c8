//! Everything that is printed goes through here: results to standard output, everything else to standard error.

use std::borrow::Cow;
use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anstyle::{AnsiColor, Style};
use hotcell_run::Secrets;

use crate::args::Color;
use crate::exit::{Exit, Failure};
use crate::log;

/// Bold.
pub(crate) const BOLD: Style = Style::new().bold();
/// Dimmed.
pub(crate) const DIM: Style = Style::new().dimmed();
/// All well.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
/// Look here.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Wrong.
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
/// Neutral information.
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();

/// Decides once, for both streams, whether colours are written.
pub(crate) fn set_color(color: Color) {
    match color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// Whether standard error shows colours.
pub(crate) fn stderr_is_colored() -> bool {
    !matches!(anstream::stderr().current_choice(), anstream::ColorChoice::Never)
}

/// Whether standard output shows colours.
pub(crate) fn stdout_is_colored() -> bool {
    !matches!(anstream::stdout().current_choice(), anstream::ColorChoice::Never)
}

/// Whether the reader of standard output went away (`| head`): nothing more is written, and the command goes on to its
/// own exit code.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// The secrets whose values nothing that is printed may hold.
static SECRETS: OnceLock<Arc<Secrets>> = OnceLock::new();

/// From now on the values of these secrets are printed as their names.
pub(crate) fn redact(secrets: &Arc<Secrets>) {
    // A command has one manifest.
    let _ = SECRETS.set(Arc::clone(secrets));
}

/// A text without the values of secrets.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    match SECRETS.get() {
        Some(secrets) => secrets.redact(text),
        None => Cow::Borrowed(text),
    }
}

/// A piece of the result, to standard output.
pub(crate) fn out(text: &str) {
    let text = &redacted(text);
    if UNHEARD.load(Ordering::Relaxed) {
        return;
    }
    let mut stdout = anstream::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => UNHEARD.store(true, Ordering::Relaxed),
        Err(error) => {
            failure(&Failure::host(format!(
                "standard output cannot be written: {error}"
            )));
            std::process::exit(Exit::Host as i32);
        }
    }
}

/// A line about what goes on, to standard error.
pub(crate) fn say(text: &str) {
    let text = &redacted(text);
    if log::is_json() {
        return log::message(text);
    }
    // Nowhere is left to complain when standard error is closed.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Text in a style.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A command's failure.
pub(crate) fn failure(failure: &Failure) {
    if log::is_json() {
        return log::failure(failure);
    }
    let lines = |text: &str| text.lines().map(plain).collect::<Vec<_>>().join("\n");
    say(&format!("{} {}", styled(RED, "error:"), lines(&failure.message)));
    if let Some(help) = &failure.help {
        say(&format!("{} {}", styled(CYAN, " help:"), lines(help)));
    }
}

/// Text that a sample or a manifest may have had a hand in: control characters (a terminal would obey them) and
/// characters that turn the writing direction or hide are shown by a mark, as in reports and pages.
pub(crate) fn plain(text: &str) -> String {
    hotcell_report::visible(text).into_owned()
}

/// Text of several lines, each with this before it; what a terminal would obey is shown by a mark.
pub(crate) fn indented(text: &str, before: &str) -> String {
    let shown = hotcell_report::visible_block(text);
    let lines: Vec<String> = shown.lines().map(|line| format!("{before}{line}")).collect();
    lines.join("\n")
}

/// `1 run`, `2 runs`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        many => format!("{many} {noun}s"),
    }
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::host(format!("cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{count, indented, plain};

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        assert_eq!(plain("a\u{1b}[2Jb\r\u{202e}c"), "a␛[2Jb␍⟨U+202E⟩c");
        assert_eq!(plain("grüß dich"), "grüß dich");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(indented("one\n\ttwo\u{1b}[2J\r\n", "  "), "  one\n  \ttwo␛[2J␍");
        assert_eq!([count(1, "run"), count(0, "run")], ["1 run", "0 runs"]);
    }
}
