//! Lists of samples: CSV with a header line, and JSON lines. Each row knows its place.

use hotcell_schema::manifest::Span;
use serde::Deserialize;

use crate::diagnostics::{Code, Diagnostic};

/// One row of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Row {
    pub path: Option<String>,
    pub sha256: Option<String>,
    pub family: Option<String>,
    pub variant: Option<String>,
    pub label: Option<String>,
}

const COLUMNS: [&str; 5] = ["path", "sha256", "family", "variant", "label"];

pub(super) fn csv_rows(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Span, Row)> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let top = Span {
        file,
        start: 0,
        end: 0,
    };
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => {
            problems.push(Diagnostic::error(Code::SampleList, top, error.to_string()));
            return Vec::new();
        }
    };
    let before = problems.len();
    for name in &headers {
        if !COLUMNS.contains(&name) {
            let text = format!("a list has no column `{name}`");
            let diagnostic = Diagnostic::error(Code::SampleList, top, text).did_you_mean(name, COLUMNS);
            problems.push(match diagnostic.help {
                Some(_) => diagnostic,
                None => diagnostic.help(format!(
                    "the first line names the columns: {}",
                    COLUMNS.join(", ")
                )),
            });
        }
    }
    if problems.len() != before {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let start = record.position().map_or(0, csv::Position::byte);
                let start = u32::try_from(start).unwrap_or(u32::MAX);
                let field = |name: &str| {
                    let index = headers.iter().position(|header| header == name)?;
                    record
                        .get(index)
                        .filter(|text| !text.is_empty())
                        .map(str::to_owned)
                };
                let row = Row {
                    path: field("path"),
                    sha256: field("sha256"),
                    family: field("family"),
                    variant: field("variant"),
                    label: field("label"),
                };
                rows.push((
                    Span {
                        file,
                        start,
                        end: start,
                    },
                    row,
                ));
            }
            Err(error) => {
                let start = error.position().map_or(0, csv::Position::byte);
                let start = u32::try_from(start).unwrap_or(u32::MAX);
                let text = match error.kind() {
                    csv::ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => {
                        format!("the row has {len} fields, the first line has {expected_len}")
                    }
                    _ => error.to_string(),
                };
                problems.push(Diagnostic::error(
                    Code::SampleList,
                    Span {
                        file,
                        start,
                        end: start,
                    },
                    text,
                ));
            }
        }
    }
    rows
}

pub(super) fn json_rows(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Span, Row)> {
    let mut rows = Vec::new();
    // What editors on other systems put before a text is no row.
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut start = text.len() - body.len();
    for line in body.split_inclusive('\n') {
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let span = Span {
            file,
            start: at(start),
            end: at(start + line.trim_end().len()),
        };
        start += line.len();
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Row>(line) {
            Ok(row) => rows.push((span, row)),
            Err(error) => {
                // The parser saw one line, and counts it as the first.
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                problems.push(Diagnostic::error(
                    Code::SampleList,
                    span,
                    format!("this is no row: {text}"),
                ));
            }
        }
    }
    rows
}
