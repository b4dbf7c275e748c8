//! Values that may be written in a short and a long form: axes, and lists of one.
//!
//! Each has a reader of its own instead of serde's `untagged`, which loses places.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::span::Spanned;

/// One value, or a list of values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OneOrMany<T>(pub Vec<Spanned<T>>);

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A string or a list of strings, without places.
        struct Strings(Vec<Spanned<String>>, bool);

        impl<'de> Deserialize<'de> for Strings {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct StringsVisitor(PhantomData<()>);

                impl<'de> Visitor<'de> for StringsVisitor {
                    type Value = Strings;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string or a list of strings")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Strings, E> {
                        Ok(Strings(vec![Spanned::new(text.into(), Default::default())], true))
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Strings, A::Error> {
                        Deserialize::deserialize(SeqAccessDeserializer::new(list))
                            .map(|list| Strings(list, false))
                    }
                }

                deserializer.deserialize_any(StringsVisitor(PhantomData))
            }
        }

        let Spanned {
            value: Strings(mut list, single),
            span,
        } = Spanned::deserialize(deserializer)?;
        if let (true, Some(only)) = (single, list.first_mut()) {
            only.span = span;
        }
        Ok(Self(list))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]})
    }
}

/// One axis of `for-each`.
#[derive(Debug, Clone, PartialEq)]
pub enum Axis {
    /// What a reference names: `samples.<set>`, or `stages.<stage>.out.<port>` (expanded at run time).
    Reference(String),
    /// Several references, one after the other.
    Over(Vec<Spanned<String>>),
    /// Values written out: strings, numbers, booleans, or tables. A table is named by its key `name`.
    Values(Vec<Json>),
}

/// The long form `{ over = [...] }`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Over {
    /// References, one after the other.
    #[schemars(length(min = 1))]
    over: Vec<Spanned<String>>,
}

impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Reference(reference) => serializer.serialize_str(reference),
            Self::Over(over) => Over { over: over.clone() }.serialize(serializer),
            Self::Values(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AxisVisitor;

        impl<'de> Visitor<'de> for AxisVisitor {
            type Value = Axis;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference, `{ over = [references] }` or a list of values")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Axis, E> {
                Ok(Axis::Reference(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Axis, A::Error> {
                Over::deserialize(MapAccessDeserializer::new(map)).map(|over| Axis::Over(over.over))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Axis, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Axis::Values)
            }
        }

        deserializer.deserialize_any(AxisVisitor)
    }
}

impl JsonSchema for Axis {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Axis".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let over = generator.subschema_for::<Over>();
        json_schema!({
            "description": "a reference (samples.<set>), { over = [references] }, or a list of values",
            "anyOf": [
                {"type": "string"},
                over,
                {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "number", "boolean", "object"]}}
            ]
        })
    }
}
