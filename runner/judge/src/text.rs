//! A change in lines of plain text: for terminals (which add colours by [`Tone`]) and for JUnit.

use hotcell_render::visible;
use hotcell_schema::diff::{Change, How, Line, Sign};
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
    /// Greatest number of characters of a line; what is longer is cut, around what differs, and shows `…` where.
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
        let from = differences(&change.lines);
        for (line, from) in change.lines.iter().zip(from).take(room) {
            let (tone, sign) = match line.sign {
                Sign::Same => (Tone::Dim, ' '),
                Sign::Removed => (Tone::Removed, '-'),
                Sign::Added => (Tone::Added, '+'),
                Sign::Skipped => (Tone::Dim, '…'),
            };
            out.push_around(tone, &format!("  {sign} "), &visible(&line.text), from);
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
                let from = common(&old, &new);
                out.push_around(Tone::Removed, "  - ", &old, from);
                out.push_around(Tone::Added, "  + ", &new, from);
            }
        }
        (_, Some(old), None) => out.push(Tone::Removed, format!("- {path}: {old}")),
        (_, None, Some(new)) => out.push(Tone::Added, format!("+ {path}: {new}")),
        (_, None, None) => out.push(Tone::Name, path),
    }
}

/// For each line, how many of its first characters are those of the line that stands in its place on the other side: of some
/// that are gone and as many that came, the first goes with the first.
fn differences(lines: &[Line]) -> Vec<usize> {
    let mut all = vec![0; lines.len()];
    let run = |from: usize, sign: Sign| {
        let rest = lines.iter().skip(from);
        from..from + rest.take_while(|line| line.sign == sign).count()
    };
    let mut at = 0;
    while at < lines.len() {
        let gone = run(at, Sign::Removed);
        let came = run(gone.end, Sign::Added);
        at = came.end.max(at + 1);
        for (old, new) in gone.zip(came) {
            let text = |at: usize| lines.get(at).map_or("", |line| line.text.as_str());
            let same = common(&visible(text(old)), &visible(text(new)));
            for at in [old, new] {
                if let Some(place) = all.get_mut(at) {
                    *place = same;
                }
            }
        }
    }
    all
}

/// How many first characters two texts share.
fn common(old: &str, new: &str) -> usize {
    old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count()
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

    /// A line whose text differs from its other side from a character on: that character is shown.
    fn push_around(&mut self, tone: Tone, sign: &str, text: &str, from: usize) {
        let room = self.style.width.saturating_sub(sign.chars().count());
        // A third of the room is for what stands before it.
        let start = match from >= room.saturating_sub(room / 3) && text.chars().nth(room).is_some() {
            true => from.saturating_sub(room / 3),
            false => 0,
        };
        self.push(
            tone,
            match text.char_indices().nth(start) {
                Some((at, _)) if start > 0 => format!("{sign}…{}", &text[at..]),
                _ => format!("{sign}{text}"),
            },
        );
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
    fn long_lines_are_cut_around_what_differs() {
        let long = |end: &str| format!("{}{end}{}", "a".repeat(300), "z".repeat(300));
        let lines = vec![
            Line::new(Sign::Same, long("")),
            Line::new(Sign::Removed, long("old")),
            Line::new(Sign::Removed, "gone"),
            Line::new(Sign::Added, long("new")),
        ];
        let style = Style { width: 40, lines: 9 };
        let told: Vec<String> = super::lines(&Change::lines("t", lines), style)
            .into_iter()
            .map(|line| line.text)
            .collect();
        assert!(told.iter().all(|line| line.chars().count() <= 40), "{told:?}");
        assert!(
            told[1].starts_with("    aaa") && told[1].ends_with("a…"),
            "{told:?}"
        );
        assert!(
            told[2].starts_with("  - …a") && told[2].contains("aoldz"),
            "{told:?}"
        );
        assert_eq!(told[3], "  - gone");
        assert!(
            told[4].starts_with("  + …a") && told[4].contains("anewz"),
            "{told:?}"
        );
        // Values too; and one that only goes on where the other ends.
        let told = all(&Change::changed("a", "x".repeat(500), "x".repeat(501)));
        assert!(
            told[1].starts_with("  - …x") && told[2].starts_with("  + …x"),
            "{told:?}"
        );
        assert_ne!(told[1][4..], told[2][4..]);
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
