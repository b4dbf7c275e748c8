//! `with` of an instance: settings of its stage type, as text.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// `with` of an instance, read into the stage type's own struct and written again with every default.
///
/// It is kept as JSON text: there is one for each instance that has settings of its own, and a tree takes five times the
/// memory. Clones share it.
#[derive(Clone, Deserialize)]
#[serde(from = "Box<RawValue>")]
pub struct With(Arc<RawValue>);

impl With {
    /// Settings that are these.
    ///
    /// # Errors
    ///
    /// If they cannot be written as JSON: a table has keys that are no texts.
    pub fn of(settings: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::value::to_raw_value(settings)?.into()))
    }

    /// The settings as the struct of their stage type, or as much of them as another type names.
    ///
    /// # Errors
    ///
    /// If they are no such struct: those of an instance that is [`late`](crate::plan::Late) need not be.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// The settings as a tree.
    pub fn json(&self) -> Json {
        // What holds it was made by reading or writing JSON.
        self.read().unwrap_or_default()
    }

    /// The settings as JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether both are clones of one, which tells at no cost that they are equal.
    pub fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for With {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }
}

impl From<&Json> for With {
    fn from(settings: &Json) -> Self {
        // A tree of JSON can always be written.
        Self::of(settings).unwrap_or_default()
    }
}

impl From<Box<RawValue>> for With {
    fn from(text: Box<RawValue>) -> Self {
        Self(text.into())
    }
}

impl PartialEq for With {
    fn eq(&self, other: &Self) -> bool {
        self.is_clone_of(other) || self.as_str() == other.as_str()
    }
}

impl Serialize for With {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Debug for With {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
