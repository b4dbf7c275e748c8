//! How everything but results is told: as text for people, or as JSON lines for programs (`--log-format json`).

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use hotcell_plan::{Diagnostic, Severity, Sources};
use hotcell_schema::log::{FORMAT, LogKind, LogLine, VERSION};

use crate::args::LogFormat;
use crate::exit::Failure;
use crate::ui;

static JSON: AtomicBool = AtomicBool::new(false);

/// Decides once how things are told.
pub(crate) fn set_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Whether JSON lines are wanted.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// A line of a kind, with the time.
pub(crate) fn line(kind: LogKind) -> LogLine {
    LogLine {
        format: FORMAT.into(),
        version: VERSION,
        time: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
            .to_string(),
        kind,
        ..LogLine::default()
    }
}

/// Writes a line to standard error, in one piece.
pub(crate) fn write(line: &LogLine) {
    let mut line = line.clone();
    for text in [&mut line.message, &mut line.help, &mut line.reason]
        .into_iter()
        .flatten()
    {
        *text = ui::redacted(text).into_owned();
    }
    if let Ok(mut json) = serde_json::to_vec(&line) {
        json.push(b'\n');
        // Nowhere is left to complain when standard error is closed.
        let _ = std::io::stderr().lock().write_all(&json);
    }
}

/// Something to know; styles are taken off.
pub(crate) fn message(text: &str) {
    let text = anstream::adapter::strip_str(text).to_string();
    if !text.trim().is_empty() {
        write(&LogLine {
            message: Some(text),
            ..line(LogKind::Message)
        });
    }
}

/// A command's failure.
pub(crate) fn failure(failure: &Failure) {
    write(&LogLine {
        message: Some(failure.message.clone()),
        help: failure.help.clone(),
        exit: Some(failure.exit as u8),
        ..line(LogKind::Error)
    });
}

/// What is wrong with a document.
pub(crate) fn diagnostic(diagnostic: &Diagnostic, sources: &Sources) {
    let place = diagnostic.span();
    let position = place.map(|span| sources.position(span));
    write(&LogLine {
        severity: Some(
            match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            }
            .into(),
        ),
        code: Some(diagnostic.code.to_string()),
        file: place.map(|span| sources.path(span.file).to_string()),
        line: position.map(|position| position.line),
        column: position.map(|position| position.column),
        message: Some(diagnostic.title.clone()),
        help: diagnostic.help.clone(),
        ..line(LogKind::Diagnostic)
    });
}
