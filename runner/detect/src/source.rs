//! A rule file as a plain tree that knows where each part stands. TOML and YAML end in the same tree.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_yaml::{Location, Spanned};
use toml::de::{DeTable, DeValue};

use crate::RuleError;

/// Longest list of errors that one file gives.
const MAX_ERRORS: usize = 100;
/// Longest source line quoted in an error, in characters.
const MAX_SOURCE_LINE: usize = 200;

/// Deepest nesting of tables and lists in a file.
const MAX_NESTING: usize = 40;
const TOO_DEEP: &str = "tables and lists are nested deeper than 40";
/// Most values in a YAML file, aliases followed.
const MAX_YAML_NODES: usize = 100_000;

/// A place in a file: line and column (in characters), both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// A date, or a number that does not fit; holds what it is.
    Other(&'static str),
}

/// One `key = value`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Place,
    pub(crate) node: Node,
}

impl Node {
    /// What the value is, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(what) => what,
        }
    }

    /// The value as JSON, without places.
    pub(crate) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null | Value::Other(_) => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(value) => Json::from(value.as_str()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => {
                let pairs = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_json()));
                Json::Object(pairs.collect())
            }
        }
    }
}

/// Collects what is wrong with one file.
pub(crate) struct Problems<'t> {
    file: &'t str,
    text: &'t str,
    starts: Vec<usize>,
    errors: Vec<RuleError>,
}

impl<'t> Problems<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(newlines).collect();
        Self {
            file,
            text,
            starts,
            errors: Vec::new(),
        }
    }

    /// The place of a byte offset.
    fn place(&self, offset: usize) -> Place {
        let after = self.starts.partition_point(|start| *start <= offset);
        let start = after
            .checked_sub(1)
            .and_then(|line| self.starts.get(line))
            .copied()
            .unwrap_or(0);
        let before = self
            .text
            .get(start..offset)
            .map_or(0, |head| head.chars().count());
        Place {
            line: u32::try_from(after).unwrap_or(u32::MAX),
            column: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    /// Note an error. Past [`MAX_ERRORS`] nothing more is kept.
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        at: Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let line = self.text.lines().nth(at.line.saturating_sub(1) as usize);
        self.errors.push(RuleError {
            code,
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            source_line: line.unwrap_or_default().chars().take(MAX_SOURCE_LINE).collect(),
            message: message.into(),
            help,
        });
    }

    /// Number of errors so far.
    pub(crate) fn count(&self) -> usize {
        self.errors.len()
    }

    /// The errors, by place.
    pub(crate) fn into_errors(mut self) -> Vec<RuleError> {
        self.errors.sort_by_key(|error| (error.line, error.column));
        self.errors
    }
}

/// Read a file into a tree. Syntax errors go to `problems`; a tree may come back all the same.
pub(crate) fn parse(problems: &mut Problems<'_>) -> Option<Node> {
    if problems.file.ends_with(".yaml") || problems.file.ends_with(".yml") {
        parse_yaml(problems)
    } else {
        parse_toml(problems)
    }
}

fn parse_toml(problems: &mut Problems<'_>) -> Option<Node> {
    let (table, errors) = DeTable::parse_recoverable(problems.text);
    for error in &errors {
        let at = problems.place(error.span().map_or(0, |span| span.start));
        problems.add("rules/syntax", at, error.message().trim(), None);
    }
    let mut deep = Vec::new();
    let value = toml_table(table.into_inner(), 0, &mut deep, problems);
    if let Some((at, _)) = deep.first() {
        problems.add("rules/too-deep", *at, TOO_DEEP, None);
    }
    // Dotted keys nest without any bound of the parser's: what is too deep is taken apart here, not by recursion.
    let mut rest: Vec<DeValue<'_>> = deep.into_iter().map(|(_, value)| value).collect();
    while let Some(value) = rest.pop() {
        match value {
            DeValue::Array(items) => rest.extend(items.into_iter().map(toml::Spanned::into_inner)),
            DeValue::Table(table) => rest.extend(table.into_iter().map(|(_, value)| value.into_inner())),
            _ => {}
        }
    }
    errors.is_empty().then_some(Node {
        at: Place { line: 1, column: 1 },
        value,
    })
}

/// Values that are nested too deep, with their places.
type Deep<'i> = Vec<(Place, DeValue<'i>)>;

fn toml_table<'i>(table: DeTable<'i>, depth: usize, deep: &mut Deep<'i>, problems: &Problems<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            at: problems.place(key.span().start),
            key: key.into_inner().into_owned(),
            node: toml_node(value, depth + 1, deep, problems),
        })
        .collect();
    entries.sort_by_key(|entry| entry.at);
    Value::Table(entries)
}

fn toml_node<'i>(
    value: toml::Spanned<DeValue<'i>>,
    depth: usize,
    deep: &mut Deep<'i>,
    problems: &Problems<'_>,
) -> Node {
    let at = problems.place(value.span().start);
    let value = match value.into_inner() {
        value @ (DeValue::Array(_) | DeValue::Table(_)) if depth > MAX_NESTING => {
            deep.push((at, value));
            Value::Null
        }
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number past 64 bits"), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or(Value::Other("a number that cannot be read"), Value::Float),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| toml_node(item, depth + 1, deep, problems))
                .collect(),
        ),
        DeValue::Table(table) => toml_table(table, depth, deep, problems),
    };
    Node { at, value }
}

fn parse_yaml(problems: &mut Problems<'_>) -> Option<Node> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        budget: serde_yaml::budget! {
            max_depth: MAX_NESTING,
            max_nodes: MAX_YAML_NODES,
            max_events: 4 * MAX_YAML_NODES,
            max_documents: 1,
        },
    };
    match serde_yaml::from_str_with_options::<Spanned<Value>>(problems.text, options) {
        Ok(spanned) => Some(yaml_node(spanned)),
        Err(error) => {
            let at = error.location().map_or(Place { line: 1, column: 1 }, yaml_place);
            let message = error.without_snippet().to_string();
            problems.add("rules/syntax", at, message, None);
            None
        }
    }
}

fn yaml_node(spanned: Spanned<Value>) -> Node {
    Node {
        at: yaml_place(spanned.referenced),
        value: spanned.value,
    }
}

fn yaml_place(location: Location) -> Place {
    Place {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or(Value::Other("a number past 64 bits"), Value::Integer))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Spanned<Value>>()? {
                    items.push(yaml_node(item));
                }
                Ok(Value::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Value>>()? {
                    entries.push(Entry {
                        at: yaml_place(key.referenced),
                        key: key.value,
                        node: yaml_node(value),
                    });
                }
                Ok(Value::Table(entries))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
