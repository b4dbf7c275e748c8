//! What is wrong with a manifest, with the lines it stands in.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use hotcell_plan::{Diagnostic, Severity, Sources};
use hotcell_schema::manifest::Span;

use crate::{log, ui};

/// More than these are counted, not shown.
const SHOWN: usize = 100;
/// More warnings than these are counted where they are not what was asked for.
const BRIEF: usize = 5;

/// The same for those who want to go on: warnings alone are a line each, `hotcell validate` shows them in full.
pub(crate) fn print_briefly(diagnostics: &[Diagnostic], sources: &Sources) {
    let warning = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Warning;
    if log::is_json() || !diagnostics.iter().all(warning) {
        return print(diagnostics, sources);
    }
    for diagnostic in diagnostics.iter().take(BRIEF) {
        let place = diagnostic.span().map(|span| {
            let at = sources.position(span);
            format!(" ({}:{}:{})", sources.path(span.file), at.line, at.column)
        });
        ui::say(&format!(
            "{} {}{}",
            ui::styled(ui::YELLOW, format!("warning[{}]:", diagnostic.code)),
            ui::plain(&diagnostic.title),
            ui::styled(ui::DIM, ui::plain(&place.unwrap_or_default()))
        ));
    }
    if let Some(more) = diagnostics.len().checked_sub(BRIEF).filter(|more| *more > 0) {
        ui::say(&format!(
            "… and {}; `hotcell validate` shows all",
            ui::count(more, "more warning")
        ));
    }
}

/// Shows all diagnostics on standard error, and a closing line.
pub(crate) fn print(diagnostics: &[Diagnostic], sources: &Sources) {
    if log::is_json() {
        return diagnostics
            .iter()
            .for_each(|diagnostic| log::diagnostic(diagnostic, sources));
    }
    let renderer = if ui::stderr_is_colored() {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    for diagnostic in diagnostics.iter().take(SHOWN) {
        ui::say(&render(diagnostic, sources, &renderer));
        ui::say("");
    }
    if let Some(hint) = hint(diagnostics) {
        ui::say(&hint);
    }
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let hidden = diagnostics.len().saturating_sub(SHOWN);
    let more = if hidden > 0 {
        format!(" ({hidden} more are not shown)")
    } else {
        String::new()
    };
    let plural = |number: usize, word: &str| ui::count(number, word);
    match (errors, warnings) {
        (0, 0) => {}
        (0, warnings) => ui::say(&format!("{}{more}", plural(warnings, "warning"))),
        (errors, 0) => ui::say(&format!("{}{more}", plural(errors, "error"))),
        (errors, warnings) => ui::say(&format!(
            "{}, {}{more}",
            plural(errors, "error"),
            plural(warnings, "warning")
        )),
    }
}

/// Where more is said about the codes.
fn hint(diagnostics: &[Diagnostic]) -> Option<String> {
    let mut codes: Vec<&str> = Vec::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        if !codes.contains(&diagnostic.code) {
            codes.push(diagnostic.code);
        }
    }
    let (first, others) = codes.split_first()?;
    let others = match others {
        [] => String::new(),
        few if few.len() <= 4 => format!(" {}", few.join(" ")),
        many => format!(" {} (and {} more)", many[..4].join(" "), many.len() - 4),
    };
    Some(format!(
        "{} hotcell help {first}{others}",
        ui::styled(ui::CYAN, "explained by:")
    ))
}

fn render(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = ui::plain(&diagnostic.title);
    let mut group = Group::with_title(level.primary_title(title).id(diagnostic.code));
    for (index, label) in diagnostic.labels.iter().enumerate() {
        let Some(source) = sources.get(label.span.file) else {
            continue;
        };
        let kind = if index == 0 {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        let (text, first, span) = around(&source.text, range(label.span, &source.text));
        let annotation = kind.span(span);
        let annotation = if label.text.is_empty() {
            annotation
        } else {
            annotation.label(ui::plain(&label.text))
        };
        group = group.element(
            Snippet::source(text)
                .line_start(first)
                .path(source.path.as_str())
                .annotation(annotation),
        );
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(ui::plain(help)));
    }
    renderer.render(&[group]).to_string()
}

/// Texts up to this length are given to the renderer as they are.
const SMALL: usize = 64 << 10;

/// The lines that a span stands on, the number of the first, and the span within them: the renderer goes through all of the
/// text that it is given, for each diagnostic anew.
fn around(text: &str, span: Range<usize>) -> (&str, usize, Range<usize>) {
    let (before, from) = text.split_at(span.start);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let rest = from.get(span.end - span.start..).unwrap_or_default();
    let end = rest.find('\n').map_or(text.len(), |at| span.end + at);
    match text.get(start..end) {
        Some(lines) if text.len() > SMALL && !lines.is_empty() => {
            let first = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            (lines, first, span.start - start..span.end - start)
        }
        _ => (text, 1, span),
    }
}

/// The span's bytes, within the text and at the borders of characters.
fn range(span: Span, text: &str) -> Range<usize> {
    let border = |at: u32| {
        let at = (at as usize).min(text.len());
        (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    };
    let start = border(span.start);
    start..border(span.end).max(start)
}
