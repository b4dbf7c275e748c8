//! Documents in their usual form, and in the other language (`hotcell fmt`). Meaning, the order of keys and comments are kept.
//!
//! | module | what it does |
//! |---|---|
//! | [`comments`] | where comments stand, and what each belongs to |
//! | [`toml`], [`yaml`] | a tree as text |

mod comments;
mod toml;
mod yaml;

use camino::Utf8Path;
use hotcell_schema::manifest::Span;

use crate::diagnostics::{Code, Diagnostic};
use crate::sources::Sources;
use crate::tree::{self, Node, Value};
use comments::Comments;

/// Lines are kept shorter than this where they can be.
const WIDTH: usize = 100;

/// A language of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Language {
    /// The language that the ending of a file's name says.
    pub fn of(path: &Utf8Path) -> Option<Self> {
        match path.extension() {
            Some("toml") => Some(Self::Toml),
            Some("yaml" | "yml") => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The ending of names of files in it.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Yaml => "yaml",
        }
    }

    fn parse(self, file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
        match self {
            Self::Toml => tree::toml::parse(file, text, problems),
            Self::Yaml => tree::yaml::parse(file, text, problems),
        }
    }
}

/// A document's text in a language. What keeps it from being written is told.
pub fn format(
    path: &Utf8Path,
    text: &str,
    to: Option<Language>,
    sources: &mut Sources,
) -> Result<String, Vec<Diagnostic>> {
    let file = sources.add(path, text.to_owned());
    let nowhere = Span {
        file,
        start: 0,
        end: 0,
    };
    let Some(from) = Language::of(path) else {
        return Err(vec![
            Diagnostic::error(
                Code::UnknownLanguage,
                nowhere,
                "the file's name says neither TOML nor YAML",
            )
            .help("name it *.toml, *.yaml or *.yml"),
        ]);
    };
    let mut problems = Vec::new();
    let root = from.parse(file, text, &mut problems);
    let Some(root) = root.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let mut comments = Comments::find(from, text, &root);
    let to = to.unwrap_or(from);
    if to == from {
        comments.keep_numbers(text, &root);
    }
    let out = match to {
        Language::Toml => {
            if let Some(span) = first_null(&root) {
                return Err(vec![
                    Diagnostic::error(Code::Unwritable, span, "TOML has no word for nothing (null)")
                        .help("leave the key out"),
                ]);
            }
            toml::write(&root, &mut comments)
        }
        Language::Yaml => yaml::write(&root, &mut comments),
    };
    // Whatever is wrong with the writing, no document is written that means something else.
    let mut again = Vec::new();
    let same = to
        .parse(0, &out, &mut again)
        .is_some_and(|read| same(&read, &root));
    if same && again.is_empty() {
        Ok(out)
    } else {
        Err(vec![
            Diagnostic::error(
                Code::Unwritable,
                nowhere,
                "the document would mean something else after it was written",
            )
            .help("this is a mistake of hotcell: please report the document"),
        ])
    }
}

/// Whether two trees have the same values; the order of keys may differ.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Table(a), Value::Table(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(&a.node, &b.node)))
        }
        (a, b) => a == b,
    }
}

fn first_null(node: &Node) -> Option<Span> {
    match &node.value {
        Value::Null => Some(node.span),
        Value::List(items) => items.iter().find_map(first_null),
        Value::Table(table) => table.values().find_map(|entry| first_null(&entry.node)),
        _ => None,
    }
}

/// Characters that are written as escapes in both languages: those that a terminal or an editor would act on, or not show.
fn hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// A text in double quotes, with the escapes that both languages have.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            hidden_one if hidden(hidden_one) => out.push_str(&format!("\\u{:04X}", hidden_one as u32)),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// A number with a fraction, such that it is read as one.
fn float(value: f64) -> String {
    format!("{value:?}")
}
