//! Tree to typed values: a serde reader that hands places to [`Spanned`](hotcell_schema::manifest::Spanned) and puts a
//! place on each mistake.

use std::fmt;

use hotcell_schema::manifest::{Span, Spanned};
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Entry, Node, Value};
use crate::diagnostics::nearest;

/// A value that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// What is wrong.
    pub message: String,
    /// Where, once it is known.
    pub span: Option<Span>,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            span: None,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}, found {}", wanted(expected), what(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!(
            "{} is not allowed here: expected {}",
            what(found),
            wanted(expected)
        ))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}, found {length} values", wanted(expected)))
    }

    fn unknown_variant(wrong: &str, known: &'static [&'static str]) -> Self {
        Self::custom(match nearest(wrong, known.iter().copied()) {
            Some(near) => format!("`{}` is not allowed here: did you mean `{near}`?", cut(wrong)),
            None => format!(
                "`{}` is not among the allowed values: {}",
                cut(wrong),
                known.join(", ")
            ),
        })
    }

    fn unknown_field(wrong: &str, known: &'static [&'static str]) -> Self {
        Self::custom(match nearest(wrong, known.iter().copied()) {
            Some(near) => format!("unknown key `{}`: did you mean `{near}`?", cut(wrong)),
            None => format!("unknown key `{}`; known here: {}", cut(wrong), known.join(", ")),
        })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::custom(format!("the key `{key}` is missing"))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What was found, in the words of documents.
fn what(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("the boolean {value}"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("the text `{}`", cut(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// What was expected, in the words of documents instead of Rust's.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number that is not negative".into(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a string" => "a text".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        struct_or_enum if struct_or_enum.starts_with("struct ") => "a table".into(),
        struct_or_enum if struct_or_enum.starts_with("enum ") || struct_or_enum == "variant identifier" => {
            "a text".into()
        }
        _ => text,
    }
}

impl ReadError {
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

/// Reads a typed value.
pub fn read<'de, T: serde::Deserialize<'de>>(node: &'de Node) -> Result<T, ReadError> {
    T::deserialize(Reader(node))
}

/// `1.0` is a whole number, as JSON schemas have it.
macro_rules! whole_numbers {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.0.value {
                Value::Float(value) => match whole(value) {
                    Some(value) => match u64::try_from(value) {
                        Ok(value) => visitor.visit_u64(value),
                        Err(_) => visitor.visit_i64(value),
                    }
                    .map_err(|error: ReadError| error.at(self.0.span)),
                    None => self.deserialize_any(visitor),
                },
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

/// The whole number that a number with a fraction of nothing is.
#[expect(clippy::cast_possible_truncation, reason = "the bounds were looked at")]
pub(crate) fn whole(value: f64) -> Option<i64> {
    // ±2^63: what fits into 64 bits, and is exact.
    let bound = 9_223_372_036_854_775_808.0;
    (value.fract() == 0.0 && value >= -bound && value < bound).then_some(value as i64)
}

#[derive(Clone, Copy)]
struct Reader<'de>(&'de Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Table(table) => visitor.visit_map(Entries {
                entries: table.iter(),
                value: None,
            }),
        }
        .map_err(|error| error.at(self.0.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self).map_err(|error| error.at(self.0.span)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name == Spanned::NAME {
            visitor.visit_seq(Placed {
                node: self.0,
                step: 0,
            })
        } else {
            visitor.visit_newtype_struct(self)
        }
        .map_err(|error| error.at(self.0.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Text(text) => {
                let text: StrDeserializer<'_, ReadError> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            Value::Table(table) => match table.first() {
                Some((key, entry)) if table.len() == 1 => visitor.visit_enum(Variant { key, entry }),
                _ => Err(ReadError::custom("expected a table with one key")),
            },
            other => Err(ReadError::custom(format!(
                "expected a text, found {}",
                other.kind()
            ))),
        }
        .map_err(|error| error.at(self.0.span))
    }

    /// serde would read a list as a struct, field by field; in a document that is a mistake.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Table(_) => self.deserialize_any(visitor),
            other => {
                Err(ReadError::custom(format!("expected a table, found {}", other.kind())).at(self.0.span))
            }
        }
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.0
            .next()
            .map(|node| seed.deserialize(Reader(node)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'de> {
    entries: indexmap::map::Iter<'de, String, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((key, entry)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.node);
        let text: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(text)
            .map(Some)
            .map_err(|error| error.at(entry.key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        match self.value.take() {
            Some(node) => seed.deserialize(Reader(node)),
            None => Err(ReadError::custom("a value was asked for before its key")),
        }
    }
}

/// A span and a value: what [`Spanned`] asks for.
struct Placed<'de> {
    node: &'de Node,
    step: u8,
}

impl<'de> SeqAccess<'de> for Placed<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.step = self.step.saturating_add(1);
        match self.step {
            1 => {
                let span = self.node.span;
                seed.deserialize(Numbers([span.file, span.start, span.end]))
                    .map(Some)
            }
            2 => seed.deserialize(Reader(self.node)).map(Some),
            _ => Ok(None),
        }
    }
}

/// Three numbers.
struct Numbers([u32; 3]);

impl<'de> Deserializer<'de> for Numbers {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let numbers = self
            .0
            .into_iter()
            .map(IntoDeserializer::<ReadError>::into_deserializer);
        visitor.visit_seq(serde::de::value::SeqDeserializer::<_, ReadError>::new(
            numbers.map(Number),
        ))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A number as an element of a list.
struct Number(U32Deserializer<ReadError>);

impl<'de> IntoDeserializer<'de, ReadError> for Number {
    type Deserializer = U32Deserializer<ReadError>;

    fn into_deserializer(self) -> Self::Deserializer {
        self.0
    }
}

/// An enum value written as a table with one key.
struct Variant<'de> {
    key: &'de str,
    entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let text: StrDeserializer<'_, ReadError> = self.key.into_deserializer();
        let value = seed
            .deserialize(text)
            .map_err(|error: ReadError| error.at(self.entry.key))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Err(ReadError::custom("expected a text, found a table").at(self.entry.key))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(Reader(&self.entry.node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        Reader(&self.entry.node).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        Reader(&self.entry.node).deserialize_any(visitor)
    }
}
