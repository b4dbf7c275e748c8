//! `keys.json` in a run's folder: the components of every instance's cache key, so that two runs can be compared when
//! nothing but their folders is left, also on another machine.
//!
//! Most components have the same value in many instances, and the instances of a stage the same names of components: each
//! stands in the file once.

use std::io::Write;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::records::Components;

/// Name of the file in a run's folder.
pub const FILE: &str = "keys.json";
const FORMAT: &str = "hotcell-keys";
const VERSION: u32 = 1;

/// The components of the keys of a run's instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    names: Vec<Vec<String>>,
    values: IndexSet<String>,
    instances: IndexMap<String, Parts>,
}

/// An instance's components: which names, and which value for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    names: usize,
    values: Vec<usize>,
}

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    version: u32,
    names: &'a [Vec<String>],
    values: &'a IndexSet<String>,
    instances: &'a IndexMap<String, Parts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: String,
    version: u32,
    names: Vec<Vec<String>>,
    values: IndexSet<String>,
    instances: IndexMap<String, Parts>,
}

impl Keys {
    /// Notes the components of an instance's key.
    pub fn note(&mut self, instance: &str, components: &Components) {
        let same = |names: &Vec<String>| names.iter().eq(components.keys());
        let names = self.names.iter().rposition(same).unwrap_or_else(|| {
            self.names.push(components.keys().cloned().collect());
            self.names.len() - 1
        });
        let values = components
            .values()
            .map(|value| match self.values.get_index_of(value) {
                Some(index) => index,
                None => self.values.insert_full(value.clone()).0,
            });
        let parts = Parts {
            names,
            values: values.collect(),
        };
        self.instances.insert(instance.to_owned(), parts);
    }

    /// The components of an instance's key, where the instance came so far as to have one.
    pub fn of(&self, instance: &str) -> Option<Components> {
        let parts = self.instances.get(instance)?;
        let names = self.names.get(parts.names)?;
        let values = parts.values.iter().map(|index| self.values.get_index(*index));
        names
            .iter()
            .zip(values)
            .map(|(name, value)| Some((name.clone(), value?.clone())))
            .collect()
    }

    /// Names of all instances, in the order they were noted.
    pub fn instances(&self) -> impl Iterator<Item = &str> {
        self.instances.keys().map(String::as_str)
    }

    /// The file.
    pub fn write(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        let written = Written {
            format: FORMAT,
            version: VERSION,
            names: &self.names,
            values: &self.values,
            instances: &self.instances,
        };
        serde_json::to_writer(&mut *to, &written)?;
        Ok(to.write_all(b"\n")?)
    }

    /// Reads the file. `None` where it is another format or version, or says nothing that can be understood.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let read: Read = serde_json::from_slice(json).ok()?;
        (read.format == FORMAT && read.version == VERSION).then_some(Self {
            names: read.names,
            values: read.values,
            instances: read.instances,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(instance: usize) -> Components {
        let digest = |number: usize| hotcell_schema::digest::Digest::of(&number.to_le_bytes()).to_string();
        let mut components: Components = [
            (
                "engine".to_owned(),
                format!("hotcell-unicorn 0.1.0 {}", digest(0)),
            ),
            ("with".to_owned(), digest(1)),
            ("limits".to_owned(), digest(2)),
            ("in.file.0".to_owned(), digest(100 + instance)),
        ]
        .into();
        if instance.is_multiple_of(3) {
            components.insert("persona".to_owned(), digest(instance % 7));
        }
        components
    }

    #[test]
    fn what_was_noted_comes_back_and_takes_little_room() {
        let mut keys = Keys::default();
        let name = |instance: usize| format!("run[sample={instance:012}]");
        for instance in 0..10_000 {
            keys.note(&name(instance), &components(instance));
        }
        let mut json = Vec::new();
        keys.write(&mut json).unwrap();
        assert!(json.len() < 2 << 20, "{}", json.len());
        let read = Keys::parse(&json).unwrap();
        assert_eq!(read, keys);
        assert_eq!(read.instances().count(), 10_000);
        for instance in 0..10_000 {
            assert_eq!(read.of(&name(instance)), Some(components(instance)));
        }
        assert_eq!(read.of("other"), None);
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for json in [
            "",
            "{}",
            r#"{"format":"hotcell-keys","version":2,"names":[],"values":[],"instances":{}}"#,
        ] {
            assert_eq!(Keys::parse(json.as_bytes()), None);
        }
        let json = r#"{"format":"hotcell-keys","version":1,"names":[["a"]],"values":["x"],
            "instances":{"far":{"names":9,"values":[0]},"further":{"names":0,"values":[7]}}}"#;
        let keys = Keys::parse(json.as_bytes()).unwrap();
        assert_eq!((keys.of("far"), keys.of("further")), (None, None));
    }
}
