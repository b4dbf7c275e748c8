//! One tree for both languages: every value and every key knows its file and its bytes.
//!
//! | module | what it does |
//! |---|---|
//! | [`toml`] | TOML text to tree |
//! | [`yaml`] | YAML text to tree |
//! | [`origins`] | trees on top of each other, and where what was replaced stands |
//! | [`read`] | tree to typed values, places kept |

pub mod origins;
pub mod read;
pub mod toml;
pub mod yaml;

use hotcell_schema::manifest::Span;
use indexmap::IndexMap;
use serde_json::Value as Json;

/// Greatest length of one document in bytes.
pub const MAX_LENGTH: usize = 32 << 20;
/// Greatest number of values that aliases or variables may add to what is written.
pub const MAX_ADDED: usize = 1_000_000;
/// Greatest depth of tables and lists.
pub const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing (YAML only).
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Keys and values, in the order they are written.
pub type Table = IndexMap<String, Entry>;

/// A value in a table, with the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub key: Span,
    /// The value.
    pub node: Node,
}

impl Value {
    /// The kind of value in words, for diagnostics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing (null)",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// An empty table at a place.
    pub fn table(span: Span) -> Self {
        Self {
            span,
            value: Value::Table(Table::new()),
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_table()?.get(key).map(|entry| &entry.node)
    }

    /// The value of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Where the key of a path stands; the nearest that exists where the path ends early.
    pub fn key_span(&self, path: &[&str]) -> Span {
        let mut span = self.span;
        let mut node = self;
        for key in path {
            match node.as_table().and_then(|table| table.get(*key)) {
                Some(entry) => {
                    span = entry.key;
                    node = &entry.node;
                }
                None => break,
            }
        }
        span
    }

    /// JSON as a tree: everything stands at one place.
    pub fn from_json(value: &Json, span: Span) -> Self {
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Boolean(*value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Integer(whole),
                (None, Some(number)) => Value::Float(number),
                (None, None) => Value::Null,
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(|item| Self::from_json(item, span)).collect()),
            Json::Object(table) => {
                let entry = |value| Entry {
                    key: span,
                    node: Self::from_json(value, span),
                };
                Value::Table(
                    table
                        .iter()
                        .map(|(key, value)| (key.clone(), entry(value)))
                        .collect(),
                )
            }
        };
        Self { span, value }
    }

    /// The same value as JSON, without places.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Boolean(value) => Json::Bool(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(list) => Json::Array(list.iter().map(Self::to_json).collect()),
            Value::Table(table) => Json::Object(
                table
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.node.to_json()))
                    .collect(),
            ),
        }
    }
}
