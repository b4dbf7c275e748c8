//! YAML 1.2 text to tree: one document, the core schema, no merge keys. Aliases are copied, within a bound. A tree comes
//! back wherever there is one, with whatever is wrong with it among the problems.

use std::borrow::Cow;
use std::collections::HashMap;

use hotcell_schema::manifest::Span;
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as ParserSpan, Tag};

use super::{Entry, MAX_ADDED, MAX_DEPTH, Node, Table, Value};
use crate::diagnostics::{Code, Diagnostic};

/// Reads a YAML document.
pub fn parse(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut options = serde_yaml::granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.emit_comments = false;
    let mut builder = Builder {
        file,
        offsets: Offsets::of(text),
        stack: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        added: 0,
        problems,
    };
    let mut whole = true;
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                if builder.event(event, span).is_err() {
                    whole = false;
                    break;
                }
            }
            Err(error) => {
                builder.syntax(&error, text);
                whole = false;
                break;
            }
        }
    }
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let root = builder.root.take();
    // What is only wrong in itself (a key that stands twice, a number that is too large) does not hide what else is wrong.
    if !whole {
        return None;
    }
    match root {
        // An empty document is an empty table, as in TOML.
        None
        | Some(Node {
            value: Value::Null, ..
        }) => Some(Node::table(Span { file, start: 0, end })),
        Some(node) if matches!(node.value, Value::Table(_)) => Some(node),
        Some(node) => {
            problems.push(
                Diagnostic::error(
                    Code::Syntax,
                    node.span,
                    format!("the document is {}, not a table", node.value.kind()),
                )
                .help("begin with `hotcell: 1`"),
            );
            None
        }
    }
}

/// Byte offsets of characters. The parser counts characters, spans count bytes.
pub(crate) struct Offsets {
    /// Byte offset of every 64th character; empty when all characters are single bytes.
    marks: Vec<u32>,
    text: Box<[u8]>,
}

impl Offsets {
    const STEP: usize = 64;

    pub(crate) fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self {
                marks: Vec::new(),
                text: Box::default(),
            };
        }
        let marks = text
            .char_indices()
            .step_by(Self::STEP)
            .map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX))
            .collect();
        Self {
            marks,
            text: text.as_bytes().into(),
        }
    }

    pub(crate) fn byte(&self, character: usize) -> u32 {
        if self.marks.is_empty() {
            return u32::try_from(character).unwrap_or(u32::MAX);
        }
        let Some(mark) = self.marks.get(character / Self::STEP) else {
            return u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        };
        let rest = self.text.get(*mark as usize..).unwrap_or(&[]);
        let within = rest
            .iter()
            .enumerate()
            .filter(|(_, byte)| (**byte & 0xc0) != 0x80)
            .nth(character % Self::STEP)
            .map_or(rest.len(), |(at, _)| at);
        mark.saturating_add(u32::try_from(within).unwrap_or(u32::MAX))
    }
}

/// A collection that is not complete yet.
enum Open {
    List {
        span: Span,
        anchor: usize,
        items: Vec<Node>,
    },
    Table {
        span: Span,
        anchor: usize,
        table: Table,
        key: Option<(String, Span)>,
        duplicate: bool,
    },
}

/// Too much is wrong to go on; the reason is among the problems.
struct Stop;

struct Builder<'a> {
    file: u32,
    offsets: Offsets,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    /// Values that aliases added.
    added: usize,
    problems: &'a mut Vec<Diagnostic>,
}

impl Builder<'_> {
    fn place(&self, span: ParserSpan) -> Span {
        Span {
            file: self.file,
            start: self.offsets.byte(span.start.index()),
            end: self.offsets.byte(span.end.index()),
        }
    }

    fn syntax(&mut self, error: &ScanError, text: &str) {
        let info = error.info();
        let at = self.offsets.byte(error.marker().index());
        let at = match info.contains("tab") {
            true => tab(text, at as usize).map_or(at, |tab| u32::try_from(tab).unwrap_or(u32::MAX)),
            false => at,
        };
        let span = Span {
            file: self.file,
            start: at,
            end: at,
        };
        let problem = if info.contains("recursion limit") {
            let title = format!("tables and lists are nested deeper than {MAX_DEPTH}");
            Diagnostic::error(Code::TooLarge, span, title)
        } else {
            let problem = Diagnostic::error(Code::Syntax, span, info.clone());
            if info.contains("tab") {
                problem.help("indentation is made of spaces")
            } else if info.contains("unknown anchor") {
                problem.help("an alias `*name` needs an anchor `&name` before it")
            } else {
                problem
            }
        };
        self.problems.push(problem);
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Stop> {
        self.added = self.added.saturating_add(more);
        if self.added <= MAX_ADDED {
            return Ok(());
        }
        self.problems.push(
            Diagnostic::error(
                Code::TooLarge,
                span,
                format!("aliases add more than {MAX_ADDED} values to the document"),
            )
            .help("an alias counts as often as it is used"),
        );
        Err(Stop)
    }

    fn event(&mut self, event: Event<'_>, span: ParserSpan) -> Result<(), Stop> {
        let place = self.place(span);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.problems.push(
                    Diagnostic::error(Code::Syntax, place, "a second document begins here")
                        .help("keep one document in a file"),
                );
                Err(Stop)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), place);
                self.push(Node { span: place, value }, anchor, 1)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    self.problems.push(Diagnostic::error(
                        Code::Syntax,
                        place,
                        "an alias stands inside of what it names",
                    ));
                    return Err(Stop);
                };
                self.count(size, place)?;
                self.push(node, 0, size)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(place, tag.as_deref(), "seq")?;
                self.stack.push(Open::List {
                    span: place,
                    anchor,
                    items: Vec::new(),
                });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(place, tag.as_deref(), "map")?;
                self.stack.push(Open::Table {
                    span: place,
                    anchor,
                    table: Table::new(),
                    key: None,
                    duplicate: false,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            _ => Ok(()),
        }
    }

    fn open(&mut self, place: Span, tag: Option<&Tag>, own: &str) -> Result<(), Stop> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag(own)) {
            self.unknown_tag(tag, place);
        }
        if self.stack.len() < MAX_DEPTH {
            return Ok(());
        }
        self.problems.push(Diagnostic::error(
            Code::TooLarge,
            place,
            format!("tables and lists are nested deeper than {MAX_DEPTH}"),
        ));
        Err(Stop)
    }

    fn unknown_tag(&mut self, tag: &Tag, place: Span) {
        self.problems.push(
            Diagnostic::error(
                Code::Syntax,
                place,
                format!("the tag `{}` has no meaning here", tag.original()),
            )
            .help("remove the tag"),
        );
    }

    fn close(&mut self, end: Span) -> Result<(), Stop> {
        let (node, anchor) = match self.stack.pop() {
            Some(Open::List { span, anchor, items }) => (
                Node {
                    span: Span {
                        end: end.end.max(span.end),
                        ..span
                    },
                    value: Value::List(items),
                },
                anchor,
            ),
            Some(Open::Table {
                span, anchor, table, ..
            }) => (
                Node {
                    span: Span {
                        end: end.end.max(span.end),
                        ..span
                    },
                    value: Value::Table(table),
                },
                anchor,
            ),
            None => return Err(Stop),
        };
        let size = if anchor == 0 { 1 } else { size_of(&node) };
        self.push(node, anchor, size)
    }

    fn push(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
            // The copy that aliases are made from takes memory too.
            self.count(size, node.span)?;
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Table {
                table,
                key,
                duplicate,
                ..
            }) => match key.take() {
                Some((name, span)) if !*duplicate => {
                    table.insert(name, Entry { key: span, node });
                }
                Some(_) => *duplicate = false,
                None => {
                    let name = match &node.value {
                        Value::Text(text) => text.clone(),
                        Value::Integer(number) => number.to_string(),
                        Value::Boolean(value) => value.to_string(),
                        other => {
                            let message = format!("a key must be a text, not {}", other.kind());
                            self.problems
                                .push(Diagnostic::error(Code::Syntax, node.span, message));
                            return Err(Stop);
                        }
                    };
                    if let Some(first) = table.get(&name) {
                        self.problems.push(
                            Diagnostic::error(
                                Code::DuplicateKey,
                                node.span,
                                format!("the key `{name}` stands twice"),
                            )
                            .also(first.key, "first here"),
                        );
                        *duplicate = true;
                    }
                    *key = Some((name, node.span));
                }
            },
        }
        Ok(())
    }

    fn scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, place: Span) -> Value {
        match tag {
            None if style == ScalarStyle::Plain => plain(&text).unwrap_or_else(|| {
                if looks_like_number(&text) {
                    self.problems.push(Diagnostic::error(
                        Code::OutOfRange,
                        place,
                        "the number does not fit into 64 bits",
                    ));
                }
                Value::Text(text.into_owned())
            }),
            None => Value::Text(text.into_owned()),
            Some(tag) if tag.is_yaml_core_schema_tag("str") => Value::Text(text.into_owned()),
            Some(tag) if tag.is_yaml_core_schema_tag("float") => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => Value::Text(text.into_owned()),
            },
            Some(tag) if tag.is_yaml_core_schema() => match plain(&text) {
                Some(value) => value,
                None => Value::Text(text.into_owned()),
            },
            Some(tag) => {
                self.unknown_tag(tag, place);
                Value::Null
            }
        }
    }
}

/// The tab that indents a line: that of the place, or the next one that has any. The parser points behind it, or at the value
/// that it takes the line for a part of.
fn tab(text: &str, at: usize) -> Option<usize> {
    let start = text.get(..at)?.rfind(['\n', '\r']).map_or(0, |end| end + 1);
    let mut from = start;
    loop {
        let rest = text.get(from..)?;
        let indent = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = rest.get(..indent)?.find('\t') {
            return Some(from + tab);
        }
        from += rest.find(['\n', '\r'])? + 1;
    }
}

fn size_of(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => items.iter().map(size_of).sum::<usize>() + 1,
        Value::Table(table) => {
            table
                .values()
                .map(|entry| size_of(&entry.node) + 1)
                .sum::<usize>()
                + 1
        }
        _ => 1,
    }
}

/// The core schema of YAML 1.2 (chapter 10.3.2); nothing when the text is a text.
fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Boolean(true)),
        "false" | "False" | "FALSE" => return Some(Value::Boolean(false)),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| i64::from_str_radix(digits, 16).ok())?
            .map(Value::Integer);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| i64::from_str_radix(digits, 8).ok())?
            .map(Value::Integer);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Integer);
    }
    let begins = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let numeric = unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if begins && numeric && unsigned.bytes().any(|byte| byte.is_ascii_digit()) {
        return text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(Value::Float);
    }
    None
}

/// Whether a text without quotes is read as a text.
pub(crate) fn is_plain_text(text: &str) -> bool {
    plain(text).is_none() && !looks_like_number(text)
}

fn looks_like_number(text: &str) -> bool {
    let all = |digits: &str, is: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(is);
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |digit| (b'0'..=b'7').contains(digit));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let numeric = all(unsigned, |byte| byte.is_ascii_digit() || b".eE+-".contains(byte));
    all(unsigned, u8::is_ascii_digit)
        || numeric
            && unsigned.starts_with(|c: char| c.is_ascii_digit())
            && text.parse::<f64>().is_ok_and(f64::is_infinite)
}
