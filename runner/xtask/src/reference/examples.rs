//! The values of keys in documents, found by walking documents along the schema.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::Result;
use super::keys::{definition, forms, inline, target};

/// The shortest text of each key's value, by type and key.
pub(super) struct Examples(BTreeMap<(String, String), String>);

impl Examples {
    /// Reads every TOML document of a folder.
    pub(super) fn read(folder: &Path, schema: &Json) -> Result<Self> {
        let mut found = Self(BTreeMap::new());
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let text = fs_err::read_to_string(&path)?;
                let document: Json =
                    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                found.walk(schema, schema, "Manifest", &document);
            }
        }
        Ok(found)
    }

    /// The example of a key.
    pub(super) fn of(&self, name: &str, key: &str) -> Result<&str> {
        self.0
            .get(&(name.to_owned(), key.to_owned()))
            .map(String::as_str)
            .ok_or_else(|| {
                format!(
                    "no document in {} has the key `{key}` of {name}: write one that does",
                    super::DOCUMENTS
                )
                .into()
            })
    }

    /// Looks at a value of a schema; `name` is the type that the schema defines.
    fn walk(&mut self, root: &Json, schema: &Json, name: &str, value: &Json) {
        for form in forms(schema) {
            if let Some(name) = target(form) {
                if let Some(definition) = definition(root, name) {
                    self.walk(root, definition, name, value);
                }
                continue;
            }
            match value {
                Json::Object(table) => {
                    for (key, value) in table {
                        let Some(inner) = form.pointer("/properties").and_then(|all| all.get(key)) else {
                            if let Some(inner) = form.get("additionalProperties") {
                                self.walk(root, inner, "", value);
                            }
                            continue;
                        };
                        self.keep(name, key, value);
                        let with = (name == "Stage" && key == "with")
                            .then(|| table.get("uses").and_then(Json::as_str))
                            .flatten()
                            .and_then(|uses| with_schema(root, uses));
                        self.walk(root, with.unwrap_or(inner), "", value);
                    }
                }
                Json::Array(items) => {
                    for (item, inner) in items.iter().zip(std::iter::repeat(form.get("items"))) {
                        if let Some(inner) = inner {
                            self.walk(root, inner, "", item);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, name: &str, key: &str, value: &Json) {
        let text = format!("{key} = {}", inline(value));
        let shortest = self
            .0
            .entry((name.to_owned(), key.to_owned()))
            .or_insert_with(|| text.clone());
        // The first of equally short ones must not depend on the order of files.
        if (text.len(), &text) < (shortest.len(), shortest) {
            *shortest = text;
        }
    }
}

/// The schema of `with` for a stage type.
pub(super) fn with_schema<'a>(root: &'a Json, uses: &str) -> Option<&'a Json> {
    let conditions = root.pointer("/$defs/Stage/allOf")?.as_array()?;
    conditions
        .iter()
        .find(|one| one.pointer("/if/properties/uses/const").and_then(Json::as_str) == Some(uses))?
        .pointer("/then/properties/with")
}
