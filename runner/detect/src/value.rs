//! One value, and the tests a rule puts to it.

use regex::Regex;

/// Longest text that a test looks at, in bytes; what is beyond is not seen.
pub(crate) const MAX_TEXT: usize = 64 * 1024;

/// A value of an event's field or of an inspection fact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'v> {
    Text(&'v str),
    Number(i128),
    Float(f64),
    Bool(bool),
}

/// Looks at one value; true ends the visit.
pub(crate) type Visit<'v> = dyn FnMut(Value<'_>) -> bool + 'v;

/// What a field is tested for. It holds when some value of the field passes every check and none of `nots` holds.
#[derive(Debug, Default)]
pub(crate) struct Test {
    /// All must pass, for one and the same value.
    pub(crate) checks: Vec<Check>,
    /// None of these may hold for the field.
    pub(crate) nots: Vec<Test>,
    /// Whether the field must be there (`true`) or must not (`false`).
    pub(crate) exists: Option<bool>,
}

/// A check of one value.
#[derive(Debug)]
pub(crate) enum Check {
    /// Is one of these.
    Equals(Vec<Constant>),
    /// Holds one of these texts.
    Contains(Vec<String>),
    /// Begins with one of these texts.
    StartsWith(Vec<String>),
    /// Ends with one of these texts.
    EndsWith(Vec<String>),
    /// Matches this regular expression somewhere.
    Regex(Box<Regex>),
    /// Compares so with a number.
    Compare(Order, f64),
    /// Has at least one of these bits.
    AnyBit(i128),
}

/// A value written in a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    Text(String),
    Number(i128),
    Float(f64),
    Bool(bool),
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    AtMost,
    AtLeast,
    More,
}

impl Test {
    /// Judge a field: `values` calls back for each of its values until one call answers true.
    pub(crate) fn holds(&self, values: &dyn Fn(&mut Visit<'_>) -> bool) -> bool {
        if let Some(expected) = self.exists
            && values(&mut |_| true) != expected
        {
            return false;
        }
        let checked = self.checks.is_empty()
            || values(&mut |value| self.checks.iter().all(|check| check.passes(value)));
        checked && !self.nots.iter().any(|not| not.holds(values))
    }
}

impl Check {
    fn passes(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Equals(constants), value) => constants.iter().any(|constant| constant.equals(value)),
            (Self::Contains(parts), Value::Text(text)) => {
                let text = head(text);
                parts.iter().any(|part| text.contains(part.as_str()))
            }
            (Self::StartsWith(parts), Value::Text(text)) => {
                parts.iter().any(|part| text.starts_with(part.as_str()))
            }
            (Self::EndsWith(parts), Value::Text(text)) => {
                parts.iter().any(|part| text.ends_with(part.as_str()))
            }
            (Self::Regex(regex), Value::Text(text)) => regex.is_match(head(text)),
            (Self::Compare(order, bound), value) => number(value).is_some_and(|number| match order {
                Order::Less => number < *bound,
                Order::AtMost => number <= *bound,
                Order::AtLeast => number >= *bound,
                Order::More => number > *bound,
            }),
            (Self::AnyBit(mask), Value::Number(number)) => number & mask != 0,
            _ => false,
        }
    }
}

impl Constant {
    fn equals(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Text(ours), Value::Text(text)) => ours == text,
            (Self::Number(ours), Value::Number(number)) => *ours == number,
            (Self::Bool(ours), Value::Bool(value)) => *ours == value,
            (Self::Number(ours), Value::Float(float)) => *ours as f64 == float,
            (Self::Float(ours), value) => number(value) == Some(*ours),
            _ => false,
        }
    }
}

/// The value as a number; guest addresses are texts like `0x1000` in inspection facts.
fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(number as f64),
        Value::Float(float) => Some(float),
        Value::Text(text) => {
            let digits = text.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok().map(|number| number as f64)
        }
        Value::Bool(_) => None,
    }
}

/// The first [`MAX_TEXT`] bytes of a text.
fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}
