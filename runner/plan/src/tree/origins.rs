//! Trees on top of each other. Where a value was replaced, the place of the older one is kept, so that a diagnostic can say
//! "set here, overrides this".

use std::collections::HashMap;

use hotcell_schema::manifest::Span;

use super::{Node, Value};
use crate::diagnostics::Diagnostic;

/// How many older places of one value are told.
const MAX_TOLD: usize = 4;

/// For the place of a value (or key), where its meaning comes from beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    older: HashMap<Span, Older>,
}

/// An older place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Older {
    span: Span,
    how: How,
}

/// What became of what stood there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// Something else counts instead.
    Replaced,
    /// Both count.
    Merged,
    /// It is the variable of that name.
    Variable(String),
}

impl Origins {
    fn note(&mut self, newer: Span, older: Span, how: How) {
        if newer != older {
            self.older.insert(newer, Older { span: older, how });
        }
    }

    /// A value that a variable gave.
    pub fn filled(&mut self, place: Span, variable: Span, name: &str) {
        self.note(place, variable, How::Variable(name.to_owned()));
    }

    /// Lets one place have the older place of another.
    pub fn also(&mut self, place: Span, known: Span) {
        if let Some(older) = self.older.get(&known).cloned() {
            self.older.insert(place, older);
        }
    }

    /// Adds to each diagnostic where the value that it is about comes from. What was added before is not added again.
    pub fn trace(&self, diagnostics: &mut [Diagnostic]) {
        if self.older.is_empty() {
            return;
        }
        for diagnostic in diagnostics {
            let Some(mut place) = diagnostic.span() else {
                continue;
            };
            for step in 0..MAX_TOLD {
                let Some(older) = self.older.get(&place) else {
                    break;
                };
                if diagnostic.labels.iter().any(|label| label.span == older.span) {
                    break;
                }
                let text = match &older.how {
                    How::Replaced if step == 0 => "overrides this".to_owned(),
                    How::Replaced => "which overrides this".to_owned(),
                    How::Merged => "merged with this".to_owned(),
                    How::Variable(name) => format!("`vars.{name}` is set here"),
                };
                if let Some(first) = diagnostic.labels.first_mut()
                    && first.text.is_empty()
                    && older.how == How::Replaced
                {
                    first.text = "set here".into();
                }
                place = older.span;
                diagnostic
                    .labels
                    .push(crate::diagnostics::Label { span: place, text });
            }
        }
    }
}

/// Puts `over` on top of `base`: tables merge deeply, anything else replaces.
pub fn merge(base: &mut Node, over: Node, origins: &mut Origins) {
    match (&mut base.value, over.value) {
        (Value::Table(table), Value::Table(changes)) => {
            base.span = over.span;
            for (key, change) in changes {
                match table.entry(key) {
                    indexmap::map::Entry::Occupied(mut old) => {
                        let old = old.get_mut();
                        let both = matches!(
                            (&old.node.value, &change.node.value),
                            (Value::Table(_), Value::Table(_))
                        );
                        let how = if both { How::Merged } else { How::Replaced };
                        origins.note(change.key, old.key, how);
                        old.key = change.key;
                        merge(&mut old.node, change.node, origins);
                    }
                    indexmap::map::Entry::Vacant(free) => {
                        free.insert(change);
                    }
                }
            }
        }
        (_, value) => {
            origins.note(over.span, base.span, How::Replaced);
            *base = Node {
                span: over.span,
                value,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Code;

    fn tree(file: u32, text: &str) -> Node {
        crate::tree::toml::parse(file, text, &mut Vec::new()).unwrap_or_else(|| Node::table(Span::default()))
    }

    #[test]
    fn what_was_replaced_is_remembered() {
        let mut origins = Origins::default();
        let mut base = tree(0, "a.b = 1\na.c = 2\n");
        merge(&mut base, tree(1, "a.b = 3\n"), &mut origins);
        merge(&mut base, tree(2, "a.b = 4\n"), &mut origins);
        assert_eq!(base.to_json(), serde_json::json!({"a": {"b": 4, "c": 2}}));
        let place = base.at(&["a", "b"]).map(|node| node.span).unwrap_or_default();
        let mut told = vec![Diagnostic::error(Code::WrongValue, place, "wrong")];
        origins.trace(&mut told);
        origins.trace(&mut told);
        let labels: Vec<(u32, &str)> = told[0]
            .labels
            .iter()
            .map(|label| (label.span.file, label.text.as_str()))
            .collect();
        assert_eq!(
            labels,
            [
                (2, "set here"),
                (1, "overrides this"),
                (0, "which overrides this")
            ]
        );
    }
}
