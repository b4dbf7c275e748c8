//! Lists of samples: CSV with a header line, and JSON lines. Each row knows its place.

use std::collections::BTreeSet;

use hotcell_schema::manifest::Span;
use serde_json::{Map, Value as Json};

use crate::diagnostics::{Code, Diagnostic};

/// One row of a list.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub path: Option<String>,
    pub sha256: Option<String>,
    pub family: Option<String>,
    pub variant: Option<String>,
    pub label: Option<String>,
}

const COLUMNS: [&str; 5] = ["path", "sha256", "family", "variant", "label"];

impl Row {
    fn of(mut field: impl FnMut(&str) -> Option<String>) -> Self {
        Self {
            path: field("path"),
            sha256: field("sha256"),
            family: field("family"),
            variant: field("variant"),
            label: field("label"),
        }
    }
}

fn unknown(span: Span, title: String, name: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error(Code::SampleList, span, title).did_you_mean(name, COLUMNS);
    match diagnostic.help {
        Some(_) => diagnostic,
        None => diagnostic.help(format!("there are: {}", COLUMNS.join(", "))),
    }
}

/// The line of a row: the reader says where the one before it ended, and empty lines and comments stand between them.
fn line(file: u32, text: &str, from: u64) -> Span {
    let mut start = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let this = rest.get(..length).unwrap_or_default();
        if rest.is_empty() || !(this.trim_end_matches(['\r', '\n']).is_empty() || this.starts_with('#')) {
            let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            return Span {
                file,
                start: place(start),
                end: place(start + this.trim_end().len()),
            };
        }
        start += length;
    }
}

pub(super) fn csv_rows(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Span, Row)> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::Headers)
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
    let mut seen = BTreeSet::new();
    for name in &headers {
        if !COLUMNS.contains(&name) {
            let title = format!("a list has no column `{name}`, and its first line names the columns");
            problems.push(unknown(line(file, text, 0), title, name));
        } else if !seen.insert(name) {
            let title = format!("the column `{name}` stands twice");
            let place = line(file, text, 0);
            problems.push(Diagnostic::error(Code::SampleList, place, title).help("take one of them out"));
        }
    }
    if problems.len() != before {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let place = line(file, text, record.position().map_or(0, csv::Position::byte));
                let written = text
                    .get(place.start as usize..place.end as usize)
                    .unwrap_or_default();
                let row = Row::of(|name| {
                    let index = headers.iter().position(|header| header == name)?;
                    let field = record.get(index)?;
                    // Spaces around a field are no part of it, unless it stands in quotes.
                    let plain = field.trim();
                    let field = match plain != field
                        && written.contains(&format!("\"{}\"", field.replace('"', "\"\"")))
                    {
                        true => field,
                        false => plain,
                    };
                    (!field.is_empty()).then(|| field.to_owned())
                });
                rows.push((place, row));
            }
            Err(error) => {
                let place = line(file, text, error.position().map_or(0, csv::Position::byte));
                let title = match error.kind() {
                    csv::ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => {
                        format!("the row has {len} fields, the first line has {expected_len}")
                    }
                    _ => error.to_string(),
                };
                problems.push(Diagnostic::error(Code::SampleList, place, title));
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
        match serde_json::from_str::<Json>(line) {
            Ok(Json::Object(table)) => rows.extend(json_row(span, table, problems).map(|row| (span, row))),
            Ok(_) => problems.push(
                Diagnostic::error(Code::SampleList, span, "this is no row: a row is a table")
                    .help("write `{\"path\": \"bin/one\", \"family\": \"mirai\"}`"),
            ),
            Err(error) => {
                // The parser saw one line, and counts it as the first.
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                let title = format!("this line is no JSON: {text}");
                problems.push(
                    Diagnostic::error(Code::SampleList, span, title).help("each line is a table of its own"),
                );
            }
        }
    }
    rows
}

fn json_row(span: Span, mut table: Map<String, Json>, problems: &mut Vec<Diagnostic>) -> Option<Row> {
    let before = problems.len();
    for (name, value) in &table {
        if !COLUMNS.contains(&name.as_str()) {
            let shown: String = name.chars().take(60).collect();
            problems.push(unknown(span, format!("a row has no `{shown}`"), name));
        } else if !(value.is_string() || value.is_null()) {
            let title = format!("`{name}` of a row is a text");
            problems.push(Diagnostic::error(Code::SampleList, span, title));
        }
    }
    if problems.len() != before {
        return None;
    }
    Some(Row::of(|name| match table.shift_remove(name) {
        Some(Json::String(text)) => Some(text),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    type OnLine<T> = (u32, T);

    /// Lines of the rows with their paths; lines and titles of what is wrong.
    fn read(name: &str, text: &str) -> (Vec<OnLine<Option<String>>>, Vec<OnLine<String>>) {
        let mut sources = Sources::default();
        let file = sources.add(name, text.into());
        let mut problems = Vec::new();
        let rows = match name.ends_with("csv") {
            true => csv_rows(file, text, &mut problems),
            false => json_rows(file, text, &mut problems),
        };
        let at = |span: Span| sources.position(span).line;
        (
            rows.into_iter().map(|(span, row)| (at(span), row.path)).collect(),
            problems
                .into_iter()
                .map(|problem| {
                    (
                        at(problem.span().unwrap_or_default()),
                        format!("{} {}", problem.title, problem.help.unwrap_or_default()),
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn rows_of_a_table_know_their_lines() {
        let text = "# samples\r\n\r\npath,label\r\none,x\r\n\r\n# a comment\r\n\r\ntwo , y\r\n\" three\",z\r\n\r\nfour\r\n";
        let (rows, problems) = read("l.csv", text);
        let rows: Vec<_> = rows
            .iter()
            .map(|(line, path)| (*line, path.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(rows, [(4, "one"), (8, "two"), (9, " three")]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].0, 11, "{problems:?}");
        let (rows, problems) = read("l.csv", "path,label,path\none,x,two\n");
        assert!(
            rows.is_empty() && problems[0].1.contains("stands twice"),
            "{problems:?}"
        );
    }

    #[test]
    fn rows_of_json_are_tables() {
        let (rows, problems) = read(
            "l.jsonl",
            "\u{feff}{\"path\": \"one\"}\n[\"two\"]\n{\"pth\": \"x\"}\n{\"path\": 5}\nnothing\n",
        );
        assert_eq!(rows, [(1, Some("one".into()))]);
        let lines: Vec<u32> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        assert!(problems[1].1.contains("did you mean `path`?"), "{problems:?}");
        assert!(
            problems.iter().all(|(_, text)| !text.contains("struct")),
            "{problems:?}"
        );
    }
}
