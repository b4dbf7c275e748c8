//! Patterns: what one event, or one item of the inspection facts, must look like.

use hotcell_schema::event::Event;

use crate::fields::{self, Field};
use crate::value::{Test, Value, Visit};

/// Tests over fields, combined. `F` says how a field is found.
#[derive(Debug)]
pub(crate) enum Predicate<F> {
    Field(F, Test),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl<F> Predicate<F> {
    /// Judge; `values` calls back for each value of a field until one call answers true.
    pub(crate) fn holds(&self, values: &dyn Fn(&F, &mut Visit<'_>) -> bool) -> bool {
        match self {
            Self::Field(field, test) => test.holds(&|callback| values(field, callback)),
            Self::All(parts) => parts.iter().all(|part| part.holds(values)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(values)),
            Self::Not(part) => !part.holds(values),
        }
    }
}

/// What one event must look like.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Where it stands in the index.
    pub(crate) reach: Reach,
    /// Over the fields.
    pub(crate) predicate: Predicate<Field>,
    /// Two fields of the event that must have a value in common.
    pub(crate) twins: Vec<(Field, Field)>,
    /// Values to keep for later steps: variable and field.
    pub(crate) captures: Vec<(usize, Field)>,
    /// Values that an earlier step kept: variable and field.
    pub(crate) same: Vec<(usize, Field)>,
}

/// Which events a pattern can match at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Place of the kind in [`fields::FIELDS`].
    pub(crate) kind: usize,
    /// Operations, by their place; absent: all of the kind.
    pub(crate) ops: Option<Vec<usize>>,
    /// Names of system calls; absent: all.
    pub(crate) syscalls: Option<Vec<String>>,
}

impl Pattern {
    /// Whether the event fits, apart from values that earlier steps kept.
    pub(crate) fn fits(&self, event: &Event) -> bool {
        self.predicate
            .holds(&|field, callback| fields::any_value(event, field, callback))
            && self.twins.iter().all(|(one, other)| {
                fields::any_value(event, one, &mut |left| {
                    fields::any_value(event, other, &mut |right| left == right)
                })
            })
    }

    /// Whether some value of `field` is the text that an earlier step kept.
    pub(crate) fn has(event: &Event, field: &Field, kept: &str) -> bool {
        fields::any_value(event, field, &mut |value| match value {
            Value::Text(text) => text == kept,
            other => as_text(other) == kept,
        })
    }
}

/// A value as text, to be kept or counted.
pub(crate) fn as_text(value: Value<'_>) -> String {
    match value {
        Value::Text(text) => text.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Float(float) => float.to_string(),
        Value::Bool(value) => value.to_string(),
    }
}

/// The first value of a field, as text.
pub(crate) fn first_text(event: &Event, field: &Field) -> Option<String> {
    let mut found = None;
    fields::any_value(event, field, &mut |value| {
        found = Some(as_text(value));
        true
    });
    found
}
