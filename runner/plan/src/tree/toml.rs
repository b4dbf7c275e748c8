//! TOML text to tree. The parser goes on after a mistake, so all of them are told.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use hotcell_schema::manifest::Span;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entry, MAX_DEPTH, Node, Table, Value};
use crate::diagnostics::{Code, Diagnostic};

/// Reads a TOML document. A key that stands twice, or a number that is too large, does not hide what else is wrong: a tree
/// comes back all the same.
pub fn parse(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut whole = true;
    let mut told = BTreeSet::new();
    let mut twice = Vec::new();
    for error in errors.into_iter().take(100) {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        // A mistake often breaks several rules of the grammar at once; the first one of a line says most.
        let before = text.as_bytes().get(..span.start).unwrap_or_default();
        let line = before.iter().rposition(|byte| *byte == b'\n');
        let duplicate = message.contains("duplicate key");
        // After a second header of the same name, the parser has only one of the two tables.
        let header = duplicate && line_of(text, span.start).starts_with('[');
        whole &= duplicate && !header;
        if !told.insert(line) {
            continue;
        }
        if duplicate {
            twice.push(span);
        } else {
            problems.push(syntax(place(file, &span), message));
        }
    }
    for span in twice {
        problems.push(duplicate(file, text, &document, span));
    }
    if !whole {
        return None;
    }
    let span = place(file, &document.span());
    let mut deep = false;
    let table = table(file, document.into_inner(), 1, problems, &mut deep);
    (!deep).then_some(Node {
        span,
        value: Value::Table(table),
    })
}

fn syntax(span: Span, message: &str) -> Diagnostic {
    if message.contains("recurs") {
        return Diagnostic::error(
            Code::TooLarge,
            span,
            format!("tables and lists are nested deeper than {MAX_DEPTH}"),
        );
    }
    let diagnostic = Diagnostic::error(Code::Syntax, span, message);
    if message.contains("unquoted key") {
        diagnostic.help("a key with other characters stands in quotes: \"größe\" = 1")
    } else if message.contains("basic string") && message.contains("visible") {
        diagnostic.help("control characters are written as escapes: \\u001B")
    } else if message.contains("must be quoted") || message.contains("string, expected") {
        diagnostic.help("a text stands in quotes: key = \"text\"")
    } else if message.contains("table") {
        diagnostic.help("a table begins with `[name]` on a line of its own")
    } else {
        diagnostic.help("in TOML each `key = value` is a line of its own")
    }
}

/// A key that stands twice, with the place where it stands first: the nearest one before it, in a table's header if this is
/// one.
fn duplicate(file: u32, text: &str, document: &Spanned<DeTable<'_>>, span: Range<usize>) -> Diagnostic {
    let written = text.get(span.clone()).unwrap_or_default();
    let name = written.trim_matches(['"', '\'']);
    let header = line_of(text, span.start).starts_with('[');
    let mut places = Vec::new();
    keys(document.get_ref(), name, 0, &mut places);
    let same_header = header.then(|| first_header(text, span.start)).flatten();
    let found = places
        .into_iter()
        .filter(|at| at.start < span.start && line_of(text, at.start).starts_with('[') == header)
        .max_by_key(|at| at.start);
    let first = same_header.or(found);
    let diagnostic = Diagnostic::error(
        Code::DuplicateKey,
        place(file, &span),
        format!("the key `{name}` stands twice"),
    );
    match first {
        Some(first) => diagnostic.also(place(file, &first), "first here"),
        None => diagnostic,
    }
}

/// The line from its first visible character.
fn line_of(text: &str, at: usize) -> &str {
    let start = text
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default().trim_start()
}

/// The first line that is the same header as that of a place.
fn first_header(text: &str, at: usize) -> Option<Range<usize>> {
    let wanted = line_of(text, at).lines().next()?.trim_end();
    let start = text
        .split_inclusive('\n')
        .scan(0, |next, line| {
            let start = *next;
            *next += line.len();
            Some((start, line))
        })
        .find(|(_, line)| line.trim() == wanted)
        .map(|(start, line)| start + (line.len() - line.trim_start().len()))?;
    (start < at && start + wanted.len() <= at).then_some(start..start + wanted.len())
}

/// Where a key of that name stands, in all tables.
fn keys(table: &DeTable<'_>, name: &str, depth: usize, places: &mut Vec<Range<usize>>) {
    if depth > MAX_DEPTH {
        return;
    }
    for (key, value) in table {
        if key.get_ref().as_ref() == name {
            places.push(key.span());
        }
        match value.get_ref() {
            DeValue::Table(inner) => keys(inner, name, depth + 1, places),
            DeValue::Array(items) => {
                for item in items.iter() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        keys(inner, name, depth + 1, places);
                    }
                }
            }
            _ => {}
        }
    }
}

fn place(file: u32, range: &Range<usize>) -> Span {
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Span {
        file,
        start: at(range.start),
        end: at(range.end),
    }
}

fn table(
    file: u32,
    document: DeTable<'_>,
    depth: usize,
    problems: &mut Vec<Diagnostic>,
    deep: &mut bool,
) -> Table {
    document
        .into_iter()
        .map(|(key, value)| {
            let span = place(file, &key.span());
            (
                key.into_inner().into_owned(),
                Entry {
                    key: span,
                    node: node(file, value, depth, problems, deep),
                },
            )
        })
        .collect()
}

fn node(
    file: u32,
    value: Spanned<DeValue<'_>>,
    depth: usize,
    problems: &mut Vec<Diagnostic>,
    deep: &mut bool,
) -> Node {
    let span = place(file, &value.span());
    if depth > MAX_DEPTH {
        if !*deep {
            problems.push(Diagnostic::error(
                Code::TooLarge,
                span,
                format!("tables and lists are nested deeper than {MAX_DEPTH}"),
            ));
        }
        *deep = true;
        return Node {
            span,
            value: Value::Null,
        };
    }
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(&digits(number.as_str()), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                problems.push(Diagnostic::error(
                    Code::OutOfRange,
                    span,
                    "the number does not fit into 64 bits",
                ));
                Value::Null
            }
        },
        DeValue::Float(number) => match digits(number.as_str()).parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => {
                problems.push(Diagnostic::error(
                    Code::OutOfRange,
                    span,
                    "infinite numbers and NaN have no meaning here",
                ));
                Value::Null
            }
        },
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|item| node(file, item, depth + 1, problems, deep))
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(file, inner, depth + 1, problems, deep)),
    };
    Node { span, value }
}

/// The digits of a number without the `_` between them.
fn digits(text: &str) -> Cow<'_, str> {
    if text.contains('_') {
        Cow::Owned(text.chars().filter(|c| *c != '_').collect())
    } else {
        Cow::Borrowed(text)
    }
}
