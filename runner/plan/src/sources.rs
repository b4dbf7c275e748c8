//! The texts that a manifest is made of.

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::manifest::Span;

/// One file, or a text that stands for one.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path as diagnostics show it.
    pub path: Utf8PathBuf,
    /// Its text.
    pub text: String,
    /// Where each line begins, in bytes.
    lines: Vec<u32>,
}

/// All texts by their number ([`Span::file`]).
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

/// A place for people: both numbers count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

impl Sources {
    /// Takes in a text and gives its number.
    pub fn add(&mut self, path: impl Into<Utf8PathBuf>, text: String) -> u32 {
        let mut lines = vec![0];
        // YAML breaks lines at a lone carriage return too; in TOML there can be none.
        let bytes = text.as_bytes();
        let breaks =
            |at: usize, byte: u8| byte == b'\n' || byte == b'\r' && bytes.get(at + 1) != Some(&b'\n');
        lines.extend(
            text.bytes()
                .enumerate()
                .filter(|(at, byte)| breaks(*at, *byte))
                .filter_map(|(at, _)| u32::try_from(at + 1).ok()),
        );
        self.files.push(Source {
            path: path.into(),
            text,
            lines,
        });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The text of that number.
    pub fn get(&self, file: u32) -> Option<&Source> {
        self.files.get(usize::try_from(file).ok()?)
    }

    /// The path of that number; empty when there is none.
    pub fn path(&self, file: u32) -> &Utf8Path {
        self.get(file)
            .map_or(Utf8Path::new(""), |source| source.path.as_path())
    }

    /// The folder of that file: what its paths count from.
    pub fn folder(&self, file: u32) -> &Utf8Path {
        match self.path(file).parent() {
            Some(parent) if !parent.as_str().is_empty() => parent,
            _ => Utf8Path::new("."),
        }
    }

    /// Line and column of a span's start.
    pub fn position(&self, span: Span) -> Position {
        let Some(source) = self.get(span.file) else {
            return Position { line: 1, column: 1 };
        };
        let line = source.lines.partition_point(|start| *start <= span.start).max(1);
        let start = source.lines.get(line - 1).copied().unwrap_or(0);
        let before = source
            .text
            .as_bytes()
            .get(start as usize..span.start as usize)
            .unwrap_or(&[]);
        let column = before.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
        Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// The line of that number (from 1), without its end.
    pub fn line(&self, file: u32, line: u32) -> &str {
        let Some(source) = self.get(file) else { return "" };
        let at = |line: usize| source.lines.get(line).map(|start| *start as usize);
        let Some(start) = (line as usize).checked_sub(1).and_then(at) else {
            return "";
        };
        let end = at(line as usize).unwrap_or(source.text.len());
        source
            .text
            .get(start..end)
            .unwrap_or("")
            .trim_end_matches(['\n', '\r'])
    }

    /// Makes what stands at a place unreadable: secrets are not shown.
    pub fn hide(&mut self, span: Span) {
        let file = usize::try_from(span.file).ok();
        let Some(source) = file.and_then(|file| self.files.get_mut(file)) else {
            return;
        };
        let place = span.start as usize..span.end as usize;
        if let Some(text) = source.text.get(place.clone()) {
            let stars: String = text
                .chars()
                .flat_map(|c| std::iter::repeat_n(if c == '\n' { '\n' } else { '*' }, c.len_utf8()))
                .collect();
            source.text.replace_range(place, &stars);
        }
    }

    /// Where a piece of a span's text stands; the whole span where it does not stand there as it is.
    pub fn within(&self, span: Span, piece: &str) -> Span {
        let found = self.get(span.file).and_then(|source| {
            let text = source.text.get(span.start as usize..span.end as usize)?;
            let start = span.start.checked_add(u32::try_from(text.find(piece)?).ok()?)?;
            let end = start.checked_add(u32::try_from(piece.len()).ok()?)?;
            Some(Span { start, end, ..span })
        });
        found.unwrap_or(span)
    }

    /// All texts in the order they were taken in.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("a/b.toml", "α = 1\r\nβγ = 2\n".into());
        let at = |start| {
            sources.position(Span {
                file,
                start,
                end: start,
            })
        };
        assert_eq!(at(0), Position { line: 1, column: 1 });
        assert_eq!(at(3), Position { line: 1, column: 3 });
        assert_eq!(at(12), Position { line: 2, column: 3 });
        assert_eq!(at(9999), Position { line: 3, column: 1 });
        assert_eq!(sources.line(file, 1), "α = 1");
        assert_eq!(sources.line(file, 2), "βγ = 2");
        assert_eq!(sources.line(file, 9), "");
        assert_eq!(sources.folder(file), "a");
        let old = sources.add("old.yaml", "a: 1\rb: 2\r\nc: 3".into());
        assert_eq!(sources.line(old, 2), "b: 2");
        assert_eq!(sources.line(old, 3), "c: 3");
        assert_eq!(
            sources.position(Span {
                file: 7,
                start: 0,
                end: 0
            }),
            Position { line: 1, column: 1 }
        );
    }
}
