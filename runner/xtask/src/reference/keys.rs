//! Tables of keys: what a schema says, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::Result;
use super::examples::{Examples, with_schema};

/// Longest example that stands in a table.
const SHOWN: usize = 90;

/// What a type that is a text of a certain form is called, and where the page explains it.
const TEXTS: &[(&str, &str)] = &[
    ("Address", "[address](#values)"),
    ("Digest", "[digest](#values)"),
    ("Hex", "[hexadecimal](#values)"),
    ("Size", "[size](#values)"),
    ("Time", "[duration](#values)"),
    ("Axis", "[axis](#axes)"),
    ("SecretRef", "[secret](#secrets)"),
    ("EnvValue", "text, or [secret](#secrets)"),
];

/// Writes tables of keys.
pub(super) struct Keys<'a> {
    schema: &'a Json,
    examples: &'a Examples,
    /// Types that the page has a mark for, and the heading above it.
    headings: BTreeMap<&'a str, String>,
    shown: BTreeSet<String>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(schema: &'a Json, examples: &'a Examples, template: &'a str) -> Self {
        let mut headings = BTreeMap::new();
        let mut heading = "";
        for line in template.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim();
            } else if let Some(name) = line.strip_prefix("{{keys ") {
                headings.insert(name.trim_end_matches('}'), anchor(heading));
            }
        }
        Self {
            schema,
            examples,
            headings,
            shown: BTreeSet::new(),
        }
    }

    /// The type of a stage type's `with`.
    pub(super) fn with_of(&self, uses: &str) -> Result<String> {
        with_schema(self.schema, uses)
            .and_then(target)
            .map(str::to_owned)
            .ok_or_else(|| format!("the schema has no `with` for `{uses}`").into())
    }

    /// A table of the keys of a type, and of the types it is made of that the page has no mark for.
    pub(super) fn table(&mut self, name: &str, out: &mut String) -> Result<()> {
        let (schema, examples) = (self.schema, self.examples);
        let of = definition(schema, name).ok_or_else(|| format!("there is no type {name}"))?;
        self.shown.insert(name.to_owned());
        let properties = of.get("properties").and_then(Json::as_object);
        let properties = properties.ok_or_else(|| format!("{name} has no keys"))?;
        let required: Vec<&str> = of
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        out.push_str("| key | type | default | example | |\n|---|---|---|---|---|\n");
        let mut inner = Vec::new();
        let mut choices = Vec::new();
        for (key, value) in properties {
            let default = match value.get("default") {
                _ if required.contains(&key.as_str()) => "**required**".into(),
                None | Some(Json::Null) => String::new(),
                Some(default) if is_empty(default) => String::new(),
                Some(default) => code(&inline(default)),
            };
            let example = match examples.of(name, key)? {
                long if long.len() > SHOWN => "below".into(),
                short => code(short),
            };
            let about = value
                .get("description")
                .or_else(|| self.pointed_at(value)?.get("description"))
                .and_then(Json::as_str)
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "| `{key}` | {} | {default} | {example} | {} |",
                self.words(value, &mut inner),
                cell(about)
            );
            choices.extend(self.choices(key, value));
        }
        if !choices.is_empty() {
            out.push('\n');
            choices.iter().for_each(|line| out.push_str(line));
        }
        for name in inner {
            if !self.headings.contains_key(name) && !self.shown.contains(name) {
                let about = definition(schema, name).and_then(|of| of.get("description")?.as_str());
                let _ = writeln!(out, "\n#### {name}\n\n{}\n", about.unwrap_or_default());
                self.table(name, out)?;
            }
        }
        Ok(())
    }

    /// Whether every type with keys stands on the page.
    pub(super) fn all_shown(&self) -> Result<()> {
        let all = self.schema.get("$defs").and_then(Json::as_object);
        let left: Vec<&str> = all
            .into_iter()
            .flatten()
            .filter(|(name, of)| of.get("properties").is_some() && !self.shown.contains(*name))
            .map(|(name, _)| name.as_str())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("page.md has no mark for {}", left.join(", ")).into())
        }
    }

    /// The one type that a value has, where it is a type of its own.
    fn pointed_at(&self, value: &Json) -> Option<&'a Json> {
        let forms = forms(value);
        let [only] = forms.as_slice() else { return None };
        definition(self.schema, target(only)?)
    }

    /// A type in words. Types with keys that it is made of are added to `inner`.
    fn words(&self, value: &Json, inner: &mut Vec<&'a str>) -> String {
        let all: Vec<String> = forms(value)
            .into_iter()
            .map(|form| self.form(form, inner))
            .collect();
        all.join(", or ")
    }

    fn form(&self, form: &Json, inner: &mut Vec<&'a str>) -> String {
        if let Some(name) = target(form) {
            let defined = self.schema.pointer("/$defs").and_then(Json::as_object);
            let found = defined.and_then(|all| all.get_key_value(name));
            let Some((name, of)) = found else {
                return name.to_owned();
            };
            if let Some((_, words)) = TEXTS.iter().find(|(known, _)| known == name) {
                return (*words).to_owned();
            }
            if of.get("properties").is_some() {
                inner.push(name);
                let own = anchor(name);
                let place = self.headings.get(name.as_str()).unwrap_or(&own);
                return format!("[table](#{place})");
            }
            return self.words(of, inner);
        }
        if let Some(allowed) = values(form) {
            let all: Vec<String> = allowed.iter().map(|value| code(value)).collect();
            return all.join(", ");
        }
        let kind = match form.get("type") {
            Some(Json::Array(kinds)) => kinds.first().and_then(Json::as_str),
            kind => kind.and_then(Json::as_str),
        };
        match kind {
            Some("string") => "text".into(),
            Some("boolean") => "`true`, `false`".into(),
            Some("integer") => {
                let bound = |key| form.get(key).and_then(Json::as_f64);
                match (bound("minimum"), bound("maximum")) {
                    (Some(only), Some(most)) if only == most => only.to_string(),
                    (Some(least), Some(most)) if most < 4_000_000_000.0 => format!("{least} to {most}"),
                    _ => "whole number".into(),
                }
            }
            Some("array") => match form.get("items") {
                Some(items) => format!("list of: {}", self.words(items, inner)),
                None => "list".into(),
            },
            Some("object") => match form.get("additionalProperties") {
                Some(each @ Json::Object(_)) => format!("name to: {}", self.words(each, inner)),
                _ => "table".into(),
            },
            _ => "any value".into(),
        }
    }

    /// What the values of a key mean, where they are explained.
    fn choices(&self, key: &str, value: &Json) -> Vec<String> {
        let mut all = Vec::new();
        let mut left: Vec<&Json> = forms(value);
        while let Some(form) = left.pop() {
            if let Some(items) = form.get("items") {
                left.extend(forms(items));
            }
            let Some(of) = target(form).and_then(|name| definition(self.schema, name)) else {
                continue;
            };
            let each = of.get("oneOf").and_then(Json::as_array).into_iter().flatten();
            for one in each {
                let text = |key| one.get(key).and_then(Json::as_str);
                if let (Some(name), Some(about)) = (text("const"), text("description")) {
                    all.push(format!("- `{key} = \"{name}\"`: {}\n", cell(about)));
                }
            }
        }
        all
    }
}

/// The forms that a value can have, without `${}` and without nothing.
pub(super) fn forms(schema: &Json) -> Vec<&Json> {
    let all = schema.get("anyOf").or_else(|| {
        // Values of an enum with a meaning each are one form.
        schema.get("oneOf").filter(|_| values(schema).is_none())
    });
    match all.and_then(Json::as_array) {
        Some(all) => all
            .iter()
            .filter(|one| {
                target(one) != Some("Expression") && one.get("type").and_then(Json::as_str) != Some("null")
            })
            .flat_map(forms)
            .collect(),
        None => vec![schema],
    }
}

/// The name of the type that a schema refers to.
pub(super) fn target(schema: &Json) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// A type by its name; `Manifest` is the whole.
pub(super) fn definition<'a>(schema: &'a Json, name: &str) -> Option<&'a Json> {
    match name {
        "Manifest" => Some(schema),
        _ => schema.get("$defs")?.get(name),
    }
}

/// The texts that an enum has.
fn values(form: &Json) -> Option<Vec<&str>> {
    let each: Vec<Option<&str>> = match (form.get("enum"), form.get("oneOf")) {
        (Some(all), _) => all.as_array()?.iter().map(Json::as_str).collect(),
        (_, Some(all)) => all
            .as_array()?
            .iter()
            .map(|one| one.get("const").and_then(Json::as_str))
            .collect(),
        _ => return None,
    };
    each.into_iter().collect()
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.is_empty(),
        Json::Object(table) => table.is_empty(),
        Json::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A value as TOML in one line.
pub(super) fn inline(value: &Json) -> String {
    match value {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(table) => {
            let bare = |key: &str| {
                !key.is_empty()
                    && key
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            };
            let entries: Vec<String> = table
                .iter()
                .map(|(key, value)| {
                    let key = if bare(key) {
                        key.clone()
                    } else {
                        Json::from(key.as_str()).to_string()
                    };
                    format!("{key} = {}", inline(value))
                })
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text that stands in one cell of a table.
pub(super) fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

/// Where a heading is found.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
