//! What differs in an output: JSON by its meaning, text by its lines, anything else by its digest.

use std::borrow::Cow;

use hotcell_schema::diff::{Change, Line, Sign};
use hotcell_schema::digest::Digest;
use serde_json::Value as Json;

use crate::{lines, structure};

/// Larger outputs are told by their digest alone.
pub const MAX_BYTES: u64 = 4 << 20;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    /// Digest of the bytes.
    pub digest: Digest,
    /// How many, where it is known.
    pub length: Option<u64>,
    /// The bytes, where they are at hand.
    pub bytes: Option<Cow<'a, [u8]>>,
}

impl Side<'_> {
    fn shown(&self) -> String {
        match self.length {
            Some(length) => format!("{} ({length} bytes)", self.digest.short()),
            None => self.digest.short(),
        }
    }
}

/// What differs between two outputs whose digests do. `file` is the path in the result: its ending says what it holds.
pub fn compare(path: &str, file: &str, old: &Side<'_>, new: &Side<'_>) -> Vec<Change> {
    let whole = || vec![Change::changed(path, old.shown(), new.shown())];
    let (Some(before), Some(after)) = (&old.bytes, &new.bytes) else {
        return whole();
    };
    let changes = if file.ends_with(".jsonl") {
        streams(path, before, after)
    } else if file.ends_with(".json") {
        documents(path, before, after)
    } else {
        texts(path, before, after)
    };
    match changes {
        Some(changes) if !changes.is_empty() => changes,
        Some(_) => {
            let only = "the bytes differ, what they say is the same".to_owned();
            vec![Change::lines(path, vec![Line::new(Sign::Skipped, only)])]
        }
        None => whole(),
    }
}

fn documents(path: &str, old: &[u8], new: &[u8]) -> Option<Vec<Change>> {
    let read = |bytes| serde_json::from_slice::<Json>(bytes).ok();
    Some(structure::compare(path, &read(old)?, &read(new)?))
}

/// Events, without their numbers and times: one event more shifts those of all that follow.
fn streams(path: &str, old: &[u8], new: &[u8]) -> Option<Vec<Change>> {
    let (old, new) = (steady(old)?, steady(new)?);
    let (old, new): (Vec<&str>, Vec<&str>) = (
        old.iter().map(String::as_str).collect(),
        new.iter().map(String::as_str).collect(),
    );
    Some(text_change(path, &old, &new))
}

fn steady(bytes: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = |line: &str| match serde_json::from_str::<Json>(line) {
        Ok(Json::Object(mut event)) => {
            event.shift_remove("seq");
            event.shift_remove("time");
            Json::Object(event).to_string()
        }
        _ => line.to_owned(),
    };
    Some(text.lines().map(line).collect())
}

fn texts(path: &str, old: &[u8], new: &[u8]) -> Option<Vec<Change>> {
    let (old, new) = (as_text(old)?, as_text(new)?);
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    Some(text_change(path, &old, &new))
}

fn text_change(path: &str, old: &[&str], new: &[&str]) -> Vec<Change> {
    match lines::between(old, new) {
        lines if lines.is_empty() => Vec::new(),
        lines => vec![Change::lines(path, lines)],
    }
}

/// Bytes that people can read: UTF-8 without zero bytes.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(bytes: &[u8]) -> Side<'_> {
        Side {
            digest: Digest::of(bytes),
            length: Some(bytes.len() as u64),
            bytes: Some(Cow::Borrowed(bytes)),
        }
    }

    fn paths(file: &str, old: &[u8], new: &[u8]) -> Vec<(String, usize)> {
        compare("outputs.x", file, &side(old), &side(new))
            .into_iter()
            .map(|change| (change.path, change.lines.len()))
            .collect()
    }

    #[test]
    fn each_kind_is_told_in_its_way() {
        let at = |path: &str, lines| vec![(path.to_owned(), lines)];
        assert_eq!(paths("x", b"a\nb\n", b"a\nc\n"), at("outputs.x", 4));
        assert_eq!(paths("x.json", b"{\"a\":1}", b"{\"a\":2}"), at("outputs.x.a", 0));
        assert_eq!(paths("x.json", b"{\"a\":1}", b"{ \"a\": 1 }"), at("outputs.x", 1));
        assert_eq!(
            paths(
                "x.jsonl",
                b"{\"seq\":0,\"w\":1}\n",
                b"{\"seq\":7,\"time\":1,\"w\":1}\n"
            ),
            at("outputs.x", 1)
        );
        // What cannot be read as what it should be is told by its digest.
        for (file, old, new) in [
            ("x", &b"\xff"[..], &b"a"[..]),
            ("x", b"a\0", b"b\0"),
            ("x.json", b"{", b"{}"),
        ] {
            let change = compare("outputs.x", file, &side(old), &side(new)).remove(0);
            assert!(change.old.is_some() && change.new.is_some(), "{change:?}");
        }
    }
}
