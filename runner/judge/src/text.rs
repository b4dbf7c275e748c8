//! A change in lines of plain text: for terminals (which add colours by [`Tone`]) and for JUnit.

use hotcell_render::visible;
use hotcell_schema::diff::{Change, How, Sign};
use serde_json::Value as Json;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// The name of what differs.
    Name,
    /// Something that is gone.
    Removed,
    /// Something that came.
    Added,
    /// Something that is elsewhere.
    Moved,
    /// What stayed, and what is left out.
    Dim,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it is.
    pub tone: Tone,
    /// Its text, harmless to a terminal.
    pub text: String,
}

/// How changes are shown.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Greatest number of characters of a line; what is longer ends with `…`.
    pub width: usize,
    /// Greatest number of lines of one change.
    pub lines: usize,
}

impl Style {
    /// Everything, however long.
    pub const FULL: Self = Self {
        width: usize::MAX,
        lines: usize::MAX,
    };
}

/// A change, a line or more. What is gone begins with `-`, what came with `+`.
pub fn lines(change: &Change, style: Style) -> Vec<Shown> {
    let mut out = Out {
        shown: Vec::new(),
        style,
    };
    let path = visible(&change.path).into_owned();
    if change.lines.is_empty() {
        values(change, path, &mut out);
    } else {
        out.push(Tone::Name, path);
        let room = style.lines.max(2);
        for line in change.lines.iter().take(room) {
            let (tone, sign) = match line.sign {
                Sign::Same => (Tone::Dim, ' '),
                Sign::Removed => (Tone::Removed, '-'),
                Sign::Added => (Tone::Added, '+'),
                Sign::Skipped => (Tone::Dim, '…'),
            };
            out.push(tone, format!("  {sign} {}", visible(&line.text)));
        }
        let left = change.lines.len().saturating_sub(room);
        if left > 0 {
            out.push(Tone::Dim, format!("  … {left} more lines; --full shows them"));
        }
    }
    out.shown
}

fn values(change: &Change, path: String, out: &mut Out) {
    let (old, new) = shown(change.old.as_ref(), change.new.as_ref());
    match (change.how, old, new) {
        (How::Moved, _, to) => {
            let from = visible(change.from.as_deref().unwrap_or("elsewhere"));
            let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
            out.push(Tone::Moved, format!("{path}: moved from {from}{to}"));
        }
        (_, Some(old), Some(new)) => {
            let line = format!("{path}: {old} → {new}");
            if line.chars().count() <= out.style.width.min(100) {
                out.push(Tone::Name, line);
            } else {
                out.push(Tone::Name, path);
                out.push(Tone::Removed, format!("  - {old}"));
                out.push(Tone::Added, format!("  + {new}"));
            }
        }
        (_, Some(old), None) => out.push(Tone::Removed, format!("- {path}: {old}")),
        (_, None, Some(new)) => out.push(Tone::Added, format!("+ {path}: {new}")),
        (_, None, None) => out.push(Tone::Name, path),
    }
}

/// Both values as text; where the texts are the same and the values are not, as JSON.
fn shown(old: Option<&Json>, new: Option<&Json>) -> (Option<String>, Option<String>) {
    let plain = |value: &Json| match value {
        Json::String(text) => visible(text).into_owned(),
        other => visible(&other.to_string()).into_owned(),
    };
    match (old.map(plain), new.map(plain)) {
        (Some(a), Some(b)) if a == b => {
            let json = |value: &Json| visible(&value.to_string()).into_owned();
            (old.map(json), new.map(json))
        }
        other => other,
    }
}

struct Out {
    shown: Vec<Shown>,
    style: Style,
}

impl Out {
    fn push(&mut self, tone: Tone, text: String) {
        self.shown.push(Shown {
            tone,
            text: cut(text, self.style.width),
        });
    }
}

/// At most `width` characters.
fn cut(text: String, width: usize) -> String {
    match text.char_indices().nth(width.saturating_sub(1)) {
        Some((end, _)) if text.chars().nth(width).is_some() => format!("{}…", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use hotcell_schema::diff::Line;

    use super::*;

    const STYLE: Style = Style { width: 40, lines: 3 };

    fn all(change: &Change) -> Vec<String> {
        lines(change, STYLE).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn short_values_share_a_line_and_long_ones_are_cut() {
        assert_eq!(all(&Change::changed("a", 1, 2)), ["a: 1 → 2"]);
        assert_eq!(all(&Change::changed("a", 1, "1")), ["a: 1 → \"1\""]);
        let long = all(&Change::changed("a", "x".repeat(50), "y"));
        assert_eq!(long.len(), 3);
        assert!(
            long[1].ends_with('…') && long[1].chars().count() == 40,
            "{long:?}"
        );
        assert_eq!(all(&Change::moved("b", "a", None)), ["b: moved from a"]);
        assert_eq!(
            lines(&Change::changed("a", "x".repeat(500), "y"), Style::FULL)[1]
                .text
                .len(),
            504
        );
    }

    #[test]
    fn lines_are_bounded_and_harmless() {
        let line = |n: u8| Line::new(Sign::Added, format!("\x1b[31m{n}"));
        let shown = all(&Change::lines("t\x07", (0..9).map(line).collect()));
        assert_eq!(shown[0], "t␇");
        assert_eq!(shown[1], "  + ␛[31m0");
        assert_eq!(shown[4], "  … 6 more lines; --full shows them");
    }
}
