//! Where comments stand in a text, and which key or value each belongs to: the next one, or the one before it on its line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_yaml::granit_parser::{Event, Parser};

use super::Language;
use crate::tree::yaml::Offsets;
use crate::tree::{Entry, Node, Value};

/// Comments by the first byte of what they belong to.
#[derive(Debug, Default)]
pub(super) struct Comments {
    above: BTreeMap<u32, Vec<String>>,
    beside: BTreeMap<u32, Vec<String>>,
    /// What stands after an empty line.
    apart: BTreeSet<u32>,
    end: Vec<String>,
    /// Numbers that are written as they were: `0x10`, `2_000_000`.
    numbers: BTreeMap<u32, String>,
}

impl Comments {
    /// Finds all comments of a text.
    pub(super) fn find(language: Language, text: &str, root: &Node) -> Self {
        let mut anchors = BTreeSet::new();
        anchor(root, &mut anchors);
        let mut inline = Vec::new();
        inlines(text, root, &mut inline);
        let mut comments = Self::default();
        let places = match language {
            Language::Toml => toml(text),
            Language::Yaml => yaml(text),
        };
        for place in places {
            let Some(written) = text.get(place.clone()) else {
                continue;
            };
            let written = written.trim_end().to_owned();
            let start = u32::try_from(place.start).unwrap_or(u32::MAX);
            let line = text
                .get(..place.start)
                .and_then(|before| before.rfind('\n'))
                .map_or(0, |at| at + 1);
            // After the dash of a list, a comment is about what comes.
            let alone = text
                .get(line..place.start)
                .is_some_and(|before| before.chars().all(|c| c.is_whitespace() || c == '-'));
            let before = anchors.range(..start).next_back();
            let after = anchors.range(start..).next();
            match (alone, before, after) {
                (false, Some(before), _) => {
                    let owner = inline.iter().find(|(_, value)| {
                        let closed = text.get(value.end as usize..place.start);
                        value.contains(before) && closed.is_some_and(|closed| !closed.contains('\n'))
                    });
                    let owner = owner.map_or(*before, |(owner, _)| *owner);
                    comments.beside.entry(owner).or_default().push(written);
                }
                (_, _, Some(after)) => comments.above.entry(*after).or_default().push(written),
                _ => comments.end.push(written),
            }
        }
        comments.find_apart(text, &anchors);
        comments
    }

    /// Keeps numbers as they are written, for a document that stays in its language.
    pub(super) fn keep_numbers(&mut self, text: &str, node: &Node) {
        match &node.value {
            Value::Integer(_) | Value::Float(_) => {
                // A tag of YAML makes numbers of texts: `!!int "7"`.
                let written = text.get(node.span.start as usize..node.span.end as usize);
                if let Some(written) = written.filter(|written| !written.contains(['"', '\''])) {
                    self.numbers.insert(node.span.start, written.to_owned());
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.keep_numbers(text, item)),
            Value::Table(table) => table
                .values()
                .for_each(|entry| self.keep_numbers(text, &entry.node)),
            _ => {}
        }
    }

    /// A number as it was written, if that is kept.
    pub(super) fn number(&self, node: &Node) -> Option<&str> {
        self.numbers.get(&node.span.start).map(String::as_str)
    }

    /// An empty line above something, or above its comments, is kept.
    fn find_apart(&mut self, text: &str, anchors: &BTreeSet<u32>) {
        let mut empty = false;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let words = line.trim();
            let (start, end) = (at, at + line.len());
            at = end;
            if words.is_empty() {
                empty = true;
            } else if !words.starts_with('#') {
                let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                if let Some(first) = anchors.range(position(start)..position(end)).next()
                    && empty
                {
                    self.apart.insert(*first);
                }
                empty = false;
            }
        }
    }

    /// Whether anything in a value, or at its key, has a comment.
    pub(super) fn has(&self, node: &Node) -> bool {
        let mut anchors = BTreeSet::new();
        anchor(node, &mut anchors);
        anchors
            .iter()
            .any(|at| self.above.contains_key(at) || self.beside.contains_key(at))
    }

    /// The comments above something. They are given once.
    pub(super) fn above(&mut self, at: u32) -> Vec<String> {
        self.above.remove(&at).unwrap_or_default()
    }

    /// The comments beside something, as they follow a line. They are given once.
    pub(super) fn beside(&mut self, at: &[u32]) -> String {
        let found: Vec<String> = at
            .iter()
            .filter_map(|at| self.beside.remove(at))
            .flatten()
            .collect();
        match found.len() {
            0 => String::new(),
            _ => format!(" {}", found.join(" ")),
        }
    }

    /// Everything in a value, for where it is written in one line.
    pub(super) fn within(&mut self, node: &Node) -> Vec<String> {
        let mut anchors = BTreeSet::new();
        anchor(node, &mut anchors);
        let mut found = Vec::new();
        for at in anchors {
            found.extend(self.above.remove(&at).into_iter().flatten());
            found.extend(self.beside.remove(&at).into_iter().flatten());
        }
        found
    }

    /// Whether an empty line stands before it.
    pub(super) fn apart(&self, at: u32) -> bool {
        self.apart.contains(&at)
    }

    /// What is left: comments after everything, and any that found no place.
    pub(super) fn rest(&mut self) -> Vec<String> {
        let mut rest: Vec<String> = std::mem::take(&mut self.above).into_values().flatten().collect();
        rest.extend(std::mem::take(&mut self.beside).into_values().flatten());
        rest.append(&mut self.end);
        rest
    }
}

/// What comments can belong to: keys, values that are no tables or lists, and items of lists.
fn anchor(node: &Node, anchors: &mut BTreeSet<u32>) {
    match &node.value {
        Value::List(items) => {
            for item in items {
                anchors.insert(item.span.start);
                anchor(item, anchors);
            }
        }
        Value::Table(table) => {
            for entry in table.values() {
                anchors.insert(entry.key.start);
                anchor(&entry.node, anchors);
            }
        }
        _ => _ = anchors.insert(node.span.start),
    }
}

/// Tables and lists in brackets, and what a comment after the closing one belongs to: the key, or the item. Outer ones come first.
fn inlines(text: &str, node: &Node, found: &mut Vec<(u32, Range<u32>)>) {
    let opens = |node: &Node| {
        let bracket = match node.value {
            Value::Table(_) => '{',
            Value::List(_) => '[',
            _ => return false,
        };
        text.get(node.span.start as usize..)
            .is_some_and(|rest| rest.starts_with(bracket))
    };
    match &node.value {
        Value::List(items) => {
            for item in items {
                if opens(item) {
                    found.push((item.span.start, item.span.start..item.span.end));
                }
                inlines(text, item, found);
            }
        }
        Value::Table(table) => {
            for Entry { key, node } in table.values() {
                // The brackets of TOML's `[section]` stand around the key.
                if opens(node) && node.span.start > key.start {
                    found.push((key.start, node.span.start..node.span.end));
                }
                inlines(text, node, found);
            }
        }
        _ => {}
    }
}

fn yaml(text: &str) -> Vec<Range<usize>> {
    let options = serde_yaml::granit_parser::options! {
        emit_comments: true,
    };
    let offsets = Offsets::of(text);
    let byte = |index: usize| offsets.byte(index) as usize;
    Parser::new_from_str_with_options(text, options)
        .map_while(Result::ok)
        .filter(|(event, _)| matches!(event, Event::Comment(..)))
        .map(|(_, span)| byte(span.start.index())..byte(span.end.index()))
        .collect()
}

/// A `#` outside of quotes begins a comment.
fn toml(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let quotes = ["\"\"\"", "'''", "\"", "'"];
        if rest.starts_with('#') {
            let length = rest.find('\n').unwrap_or(rest.len());
            found.push(at..at + length);
            at += length;
        } else if let Some(quote) = quotes.into_iter().find(|quote| rest.starts_with(quote)) {
            at += quote.len() + closed(rest.get(quote.len()..).unwrap_or_default(), quote);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

/// The length of a quoted text, its closing quote included.
fn closed(text: &str, quote: &str) -> usize {
    let escapes = quote.starts_with('"');
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if escapes && rest.starts_with('\\') {
            at += 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
        } else if rest.starts_with(quote) {
            at += quote.len();
            // A text of three quotes may end in up to two more.
            let more = quote.chars().next().unwrap_or('"');
            let extra = text.get(at..).unwrap_or_default();
            return at
                + extra
                    .chars()
                    .take_while(|c| quote.len() == 3 && *c == more)
                    .take(2)
                    .count();
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}
