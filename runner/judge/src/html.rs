//! Changes on a page of their own, in the manner of the report's pages: nothing from outside, no script.

use hotcell_render::RenderError;
use hotcell_schema::diff::{Change, How, RunDiff, Sign};
use hotcell_schema::verdict::{Check, Tally, Verdict};
use serde::Serialize;
use serde_json::Value as Json;

/// Greatest number of instances on a page.
const MAX_SECTIONS: usize = 1_000;
/// Greatest number of changes of one instance.
const MAX_CHANGES: usize = 300;
/// Greatest number of lines of one change.
const MAX_LINES: usize = 1_000;
/// Values up to this many characters stand open; longer ones can be unfolded.
const MAX_OPEN: usize = 160;
/// Greatest number of characters of a value.
const MAX_VALUE: usize = 20_000;

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    eyebrow: &'a str,
    sub: String,
    tiles: Vec<Tile>,
    sections: Vec<Section<'a>>,
    more: usize,
    aside: Vec<Aside<'a>>,
}

#[derive(Serialize)]
struct Tile {
    label: &'static str,
    value: usize,
    tone: &'static str,
}

#[derive(Serialize)]
struct Section<'a> {
    id: String,
    title: &'a str,
    full: &'a str,
    note: &'a str,
    changes: Vec<Shown<'a>>,
    more: usize,
}

/// Something that was not judged.
#[derive(Serialize)]
struct Aside<'a> {
    title: &'a str,
    note: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    how: &'static str,
    old: Option<Value>,
    new: Option<Value>,
    from: &'a str,
    lines: Vec<Row<'a>>,
    more: usize,
}

#[derive(Serialize)]
struct Value {
    short: String,
    full: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    sign: &'static str,
    mark: &'static str,
    text: &'a str,
}

/// The page of two runs side by side.
///
/// # Errors
/// When the template fails: a defect of hotcell.
pub fn of_runs(diff: &RunDiff, title: &str, old: &str, new: &str) -> Result<String, RenderError> {
    let whole = (!diff.run.is_empty()).then(|| section("the run", "", "", &diff.run, 0));
    let sections = diff.instances.iter().zip(1..);
    let sections = whole
        .into_iter()
        .chain(sections.map(|(one, number)| section(&one.short, &one.name, "", &one.changes, number)));
    let changed = diff.instances.len();
    render(&Page {
        title,
        eyebrow: "Two runs",
        sub: format!("{old} → {new}"),
        tiles: vec![
            tile("Instances compared", diff.compared, "info"),
            tile("Differ", changed, if changed == 0 { "good" } else { "high" }),
        ],
        sections: sections.take(MAX_SECTIONS).collect(),
        more: (changed + usize::from(!diff.run.is_empty())).saturating_sub(MAX_SECTIONS),
        aside: Vec::new(),
    })
}

/// The page of a test: what is not met, and what was not judged.
///
/// # Errors
/// When the template fails: a defect of hotcell.
pub fn of_checks(title: &str, checks: &[Check]) -> Result<String, RenderError> {
    let tally = Tally::of(checks);
    let not_met = checks.iter().filter_map(|check| match &check.verdict {
        Verdict::NotMet(changes) => Some((check, changes)),
        _ => None,
    });
    let sections = not_met.zip(1..).map(|((check, changes), number)| {
        let (title, note) = heading(check);
        section(title, &check.subject, note, changes, number)
    });
    let not_judged = checks.iter().filter_map(|check| match &check.verdict {
        Verdict::NotJudged(reason) => {
            let (title, note) = heading(check);
            Some(Aside { title, note, reason })
        }
        _ => None,
    });
    render(&Page {
        title,
        eyebrow: "Test",
        sub: "what came out, against golden files and expectations".into(),
        tiles: vec![
            tile("Met", tally.met, "good"),
            tile(
                "Not met",
                tally.not_met,
                if tally.not_met == 0 { "good" } else { "high" },
            ),
            tile(
                "Not judged",
                tally.not_judged,
                if tally.not_judged == 0 { "good" } else { "medium" },
            ),
        ],
        sections: sections.take(MAX_SECTIONS).collect(),
        more: tally.not_met.saturating_sub(MAX_SECTIONS),
        aside: not_judged.take(MAX_SECTIONS).collect(),
    })
}

/// What a check is called, and what stands beside it.
fn heading(check: &Check) -> (&str, &str) {
    match check.short.is_empty() {
        true => (&check.name, ""),
        false => (&check.short, &check.name),
    }
}

fn render(page: &Page<'_>) -> Result<String, RenderError> {
    hotcell_render::html("diff.html", page, &())
}

fn tile(label: &'static str, value: usize, tone: &'static str) -> Tile {
    Tile { label, value, tone }
}

fn section<'a>(
    title: &'a str,
    full: &'a str,
    note: &'a str,
    changes: &'a [Change],
    number: usize,
) -> Section<'a> {
    Section {
        id: format!("s{number}"),
        title,
        full,
        note,
        changes: changes.iter().take(MAX_CHANGES).map(show).collect(),
        more: changes.len().saturating_sub(MAX_CHANGES),
    }
}

fn show(change: &Change) -> Shown<'_> {
    let same = match (&change.old, &change.new) {
        (Some(old), Some(new)) => plain(old) == plain(new),
        _ => false,
    };
    let value = |value: &Option<Json>| {
        value.as_ref().map(|value| match same {
            true => folded(value.to_string()),
            false => folded(plain(value)),
        })
    };
    Shown {
        path: &change.path,
        how: match change.how {
            How::Added => "added",
            How::Removed => "removed",
            How::Changed => "changed",
            How::Moved => "moved",
        },
        old: value(&change.old),
        new: value(&change.new),
        from: change.from.as_deref().unwrap_or_default(),
        lines: change
            .lines
            .iter()
            .take(MAX_LINES)
            .map(|line| {
                let (sign, mark) = match line.sign {
                    Sign::Same => ("same", " "),
                    Sign::Removed => ("removed", "-"),
                    Sign::Added => ("added", "+"),
                    Sign::Skipped => ("skipped", "…"),
                };
                Row {
                    sign,
                    mark,
                    text: &line.text,
                }
            })
            .collect(),
        more: change.lines.len().saturating_sub(MAX_LINES),
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(_) | Json::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        other => other.to_string(),
    }
}

fn folded(text: String) -> Value {
    let cut = |limit: usize| text.char_indices().nth(limit).map(|(end, _)| &text[..end]);
    match cut(MAX_OPEN) {
        Some(start) => Value {
            short: format!("{}…", start.replace('\n', " ")),
            full: Some(match cut(MAX_VALUE) {
                Some(start) => format!("{start}… ({} bytes)", text.len()),
                None => text,
            }),
        },
        None => Value {
            short: text,
            full: None,
        },
    }
}
