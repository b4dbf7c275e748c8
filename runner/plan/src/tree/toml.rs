//! TOML text to tree. The parser goes on after a mistake, so all of them are told.

use std::ops::Range;

use hotcell_schema::manifest::Span;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entry, MAX_DEPTH, Node, Table, Value};
use crate::diagnostics::{Code, Diagnostic};

/// Reads a TOML document.
pub fn parse(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let failed = !errors.is_empty();
    let mut told = std::collections::BTreeSet::new();
    for error in errors.into_iter().take(100) {
        let span = error.span().map_or(
            Span {
                file,
                start: 0,
                end: 0,
            },
            |range| place(file, &range),
        );
        let message = error.message().to_owned();
        // A mistake often breaks several rules of the grammar at once; the first one of a line says most.
        let before = text.as_bytes().get(..span.start as usize).unwrap_or_default();
        let line = before.iter().rposition(|byte| *byte == b'\n');
        if told.insert(line) {
            let code = if message.contains("duplicate key") {
                Code::DuplicateKey
            } else {
                Code::Syntax
            };
            problems.push(Diagnostic::error(code, span, message));
        }
    }
    if failed {
        return None;
    }
    let before = problems.len();
    let span = place(file, &document.span());
    let table = table(file, document.into_inner(), 1, problems);
    (problems.len() == before).then_some(Node {
        span,
        value: Value::Table(table),
    })
}

fn place(file: u32, range: &Range<usize>) -> Span {
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Span {
        file,
        start: at(range.start),
        end: at(range.end),
    }
}

fn table(file: u32, document: DeTable<'_>, depth: usize, problems: &mut Vec<Diagnostic>) -> Table {
    document
        .into_iter()
        .map(|(key, value)| {
            let span = place(file, &key.span());
            (
                key.into_inner().into_owned(),
                Entry {
                    key: span,
                    node: node(file, value, depth, problems),
                },
            )
        })
        .collect()
}

fn node(file: u32, value: Spanned<DeValue<'_>>, depth: usize, problems: &mut Vec<Diagnostic>) -> Node {
    let span = place(file, &value.span());
    if depth > MAX_DEPTH {
        problems.push(Diagnostic::error(
            Code::TooLarge,
            span,
            format!("tables and lists are nested deeper than {MAX_DEPTH}"),
        ));
        return Node {
            span,
            value: Value::Null,
        };
    }
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
            match i64::from_str_radix(&digits, number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    problems.push(Diagnostic::error(
                        Code::OutOfRange,
                        span,
                        "the number does not fit into 64 bits",
                    ));
                    Value::Null
                }
            }
        }
        DeValue::Float(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
            match digits.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => {
                    problems.push(Diagnostic::error(
                        Code::OutOfRange,
                        span,
                        "infinite numbers and NaN have no meaning here",
                    ));
                    Value::Null
                }
            }
        }
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|item| node(file, item, depth + 1, problems))
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(file, inner, depth + 1, problems)),
    };
    Node { span, value }
}
