//! A tree as YAML: block style, with short tables and lists in a line of their own.

use super::comments::Comments;
use super::{WIDTH, float, hidden, quoted};
use crate::tree::yaml::is_plain_text;
use crate::tree::{Node, Table, Value};

pub(super) fn write(root: &Node, comments: &mut Comments) -> String {
    let mut writer = Writer {
        out: String::new(),
        comments,
    };
    if let Value::Table(table) = &root.value {
        writer.table(table, 0);
    }
    let rest = writer.comments.rest();
    if !rest.is_empty() && !writer.out.is_empty() {
        writer.out.push('\n');
    }
    for line in rest {
        writer.out.push_str(&line);
        writer.out.push('\n');
    }
    writer.out
}

struct Writer<'a> {
    out: String,
    comments: &'a mut Comments,
}

impl Writer<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        self.out.push_str(&" ".repeat(indent));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn comment_lines(&mut self, at: u32, indent: usize) {
        for line in self.comments.above(at) {
            self.line(indent, &line);
        }
    }

    fn table(&mut self, table: &Table, indent: usize) {
        for (index, (key, entry)) in table.iter().enumerate() {
            // `[[expect]]` of TOML begins before its key: what stands above it is about the whole list.
            let header = match &entry.node.value {
                Value::List(items) => items
                    .first()
                    .map(|item| item.span.start)
                    .filter(|start| *start < entry.key.start),
                _ => None,
            };
            let apart = self.comments.apart(entry.key.start)
                || header.is_some_and(|start| self.comments.apart(start));
            if index > 0 && apart && !self.out.ends_with("\n\n") {
                self.out.push('\n');
            }
            if let Some(start) = header {
                self.comment_lines(start, indent);
            }
            self.comment_lines(entry.key.start, indent);
            let head = format!("{}:", scalar(key, true));
            self.value(&head, &entry.node, entry.key.start, indent, true);
        }
    }

    /// A value after `key:` or `-`. Under a key, a block is indented; under a dash it begins beside it.
    fn value(&mut self, head: &str, node: &Node, key: u32, indent: usize, under_key: bool) {
        let plain = !self.comments.has(node);
        let short = flow(node, self.comments);
        let fits = indent + head.chars().count() + 1 + short.chars().count() <= WIDTH;
        match &node.value {
            Value::Table(table) if !table.is_empty() => {
                // A section is always a block; what is in it, when it is flat and short, is not.
                if plain && fits && is_flat(table) && (indent > 0 || !under_key) {
                    let own = self.comments.beside(&[key]);
                    self.line(indent, &format!("{head} {short}{own}"));
                } else if under_key {
                    let own = self.comments.beside(&[key]);
                    self.line(indent, &format!("{head}{own}"));
                    self.table(table, indent + 2);
                } else {
                    // Above the dash: beside it, it would seem to belong to what stands before.
                    if let Some(first) = table.values().next() {
                        self.comment_lines(first.key.start, indent);
                    }
                    let mut inner = Writer {
                        out: String::new(),
                        comments: self.comments,
                    };
                    inner.table(table, indent + 2);
                    let body = inner.out;
                    self.out.push_str(&" ".repeat(indent));
                    self.out.push_str("- ");
                    self.out.push_str(body.get(indent + 2..).unwrap_or_default());
                }
            }
            Value::List(items) if !items.is_empty() && under_key => {
                let simple = items.iter().all(|item| !matches!(item.value, Value::Table(_)));
                if plain && fits && simple {
                    let own = self.comments.beside(&[key]);
                    self.line(indent, &format!("{head} {short}{own}"));
                    return;
                }
                let own = self.comments.beside(&[key]);
                self.line(indent, &format!("{head}{own}"));
                for item in items {
                    self.comment_lines(item.span.start, indent + 2);
                    self.value("-", item, item.span.start, indent + 2, false);
                }
            }
            Value::List(_) => {
                for line in self.comments.within(node) {
                    self.line(indent, &line);
                }
                let own = self.comments.beside(&[key]);
                self.line(indent, &format!("{head} {short}{own}"));
            }
            Value::Text(text) if is_block(text) => {
                let own = self.comments.beside(&[key, node.span.start]);
                let end = if text.ends_with('\n') { "" } else { "-" };
                self.line(indent, &format!("{head} |{end}{own}"));
                for line in text.lines() {
                    let indent = if line.is_empty() { 0 } else { indent + 2 };
                    self.line(indent, line);
                }
            }
            _ => {
                let own = self.comments.beside(&[key, node.span.start]);
                self.line(indent, &format!("{head} {short}{own}"));
            }
        }
    }
}

/// Whether a table holds only values, and lists of values.
fn is_flat(table: &Table) -> bool {
    let holds_tables = |node: &Node| match &node.value {
        Value::Table(inner) => !inner.is_empty(),
        Value::Text(text) => is_block(text),
        Value::List(items) => items
            .iter()
            .any(|item| matches!(item.value, Value::Table(_) | Value::List(_))),
        _ => false,
    };
    !table.values().any(|entry| holds_tables(&entry.node))
}

fn written(node: &Node, comments: &Comments) -> Option<String> {
    comments.number(node).map(str::to_owned)
}

/// A value in one line.
fn flow(node: &Node, comments: &Comments) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => written(node, comments).unwrap_or_else(|| value.to_string()),
        Value::Float(value) => written(node, comments).unwrap_or_else(|| float(*value)),
        Value::Text(text) => scalar(text, false),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| flow(item, comments)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".into(),
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, entry)| format!("{}: {}", scalar(key, true), flow(&entry.node, comments)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// What other readers of YAML take for something else than a text.
const TAKEN: &[&str] = &[
    "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "-.inf", "+.inf",
];

/// A text that readers of older YAML take for a point in time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

/// A text, without quotes where nobody could read it otherwise.
fn scalar(text: &str, key: bool) -> String {
    let begins = |c: char| c.is_alphanumeric() || "_./".contains(c);
    let allowed = |c: char| c.is_alphanumeric() || " _./+-*=@~()<>;?!$'|&%^".contains(c);
    let mut characters = text.chars().peekable();
    let mut plain = text.chars().next().is_some_and(begins)
        && !text.ends_with(' ')
        && !text.starts_with("...")
        && text.len() < 500
        && !TAKEN.contains(&text.to_ascii_lowercase().as_str())
        && !is_date(text)
        && is_plain_text(text);
    while let Some(character) = characters.next() {
        let inner_colon = character == ':'
            && !key
            && characters
                .peek()
                .is_some_and(|next| next.is_alphanumeric() || *next == '/');
        plain &= (allowed(character) || inner_colon) && !hidden(character);
    }
    if plain { text.to_owned() } else { quoted(text) }
}

/// Whether a text can be written as a block of lines (`|`), each of which is read as it is written.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !text.chars().any(|c| c != '\n' && hidden(c))
        && body.lines().next().is_some_and(|first| !first.is_empty())
        && body
            .split('\n')
            .all(|line| !line.starts_with([' ', '\t']) && (line.is_empty() || !line.trim().is_empty()))
}
