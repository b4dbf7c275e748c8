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
/// characters that turn the writing direction are shown, not written.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::host(format!("cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        assert_eq!(plain("a\u{1b}[2Jb\r\u{202e}c"), "a\\u{1b}[2Jb\\u{d}\\u{202e}c");
        assert_eq!(plain("grüß dich"), "grüß dich");
    }
}
