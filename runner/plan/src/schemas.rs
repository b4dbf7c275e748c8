//! JSON schemas of everything people write and everything they may read: generated here, committed under `schema/`.

use std::collections::BTreeSet;

use hotcell_schema::manifest::Manifest;
use hotcell_schema::stage::STAGE_TYPES;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

/// Where a schema is published, relative to the project.
const BASE: &str = "https://hotcell.example.invalid/schema/";

/// Name of the definition that stands for `${…}`.
const EXPRESSION: &str = "#/$defs/Expression";
/// Name of the definition that stands for `${vars.…}`: what is outside of settings knows nothing else.
const VARIABLE: &str = "#/$defs/Variable";

/// A schema.
#[derive(Debug, Clone)]
pub struct PublishedSchema {
    /// Its name, for instance `manifest`.
    pub name: &'static str,
    /// Its content.
    pub json: Json,
}

impl PublishedSchema {
    /// Name of its file under `schema/`.
    pub fn file_name(&self) -> String {
        format!("{}.schema.json", self.name)
    }

    /// Its text as it is committed.
    pub fn text(&self) -> String {
        // `Json` has only string keys, so this cannot fail.
        let mut text = serde_json::to_string_pretty(&self.json).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Every schema.
pub fn all() -> Vec<PublishedSchema> {
    vec![
        PublishedSchema {
            name: "manifest",
            json: manifest(),
        },
        of::<hotcell_schema::diagnostic::Diagnostics>("diagnostics", "hotcell diagnostics"),
        of::<hotcell_schema::arch::ArchProfile>("arch-profile", "hotcell arch profile"),
        of::<hotcell_schema::persona::Persona>("persona", "hotcell persona"),
        of::<hotcell_schema::event::Event>("event", "hotcell event"),
        of::<hotcell_schema::event::Header>("event-header", "hotcell event stream header"),
        of::<hotcell_schema::finding::Findings>("findings", "hotcell findings"),
        of::<hotcell_schema::comparison::Comparison>("comparison", "hotcell comparison of behaviours"),
        of::<hotcell_schema::elf::ElfInfo>("elf-info", "hotcell file inspection"),
        of::<hotcell_schema::job::LinuxResult>("linux-result", "hotcell Linux result"),
        of::<hotcell_schema::job::PayloadResult>("payload-result", "hotcell payload result"),
        of::<hotcell_schema::command::InputList>("inputs", "hotcell inputs of a command"),
        of::<hotcell_schema::report::Report>("report", "hotcell report"),
        of::<hotcell_schema::report::RunFacts>("run", "hotcell run facts"),
        of::<hotcell_schema::turns::Header>("turns-header", "hotcell turns header"),
        of::<hotcell_schema::turns::Line>("turns", "hotcell turns line"),
        of::<hotcell_schema::fault::FaultRecord>("fault", "hotcell fault"),
        of::<hotcell_schema::forecast::Forecast>("forecast", "hotcell forecast"),
        of::<hotcell_schema::log::LogLine>("log", "hotcell log line"),
        of::<hotcell_schema::lock::LockFile>("lock", "hotcell lock file"),
        of::<hotcell_schema::golden::GoldenFile>("golden", "hotcell golden file"),
        of::<hotcell_schema::diff::RunDiff>("diff", "hotcell diff"),
        of::<hotcell_schema::verdict::Verdicts>("test", "hotcell verdicts"),
    ]
}

fn of<T: JsonSchema>(name: &'static str, title: &str) -> PublishedSchema {
    let mut json = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    finish(&mut json, name, title);
    PublishedSchema { name, json }
}

fn finish(schema: &mut Json, name: &str, title: &str) {
    if let Some(root) = schema.as_object_mut() {
        root.insert("$id".into(), format!("{BASE}{name}.schema.json").into());
        root.insert("title".into(), title.into());
    }
    tidy(schema);
}

/// Makes what the reader knows known to the schema: the bounds of 32-bit numbers.
fn tidy(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            if object.get("format").and_then(Json::as_str) == Some("uint32")
                && !object.contains_key("maximum")
            {
                object.insert("maximum".into(), u32::MAX.into());
            }
            if object.get("format").and_then(Json::as_str) == Some("int32") {
                object.entry("minimum").or_insert(i32::MIN.into());
                object.entry("maximum").or_insert(i32::MAX.into());
            }
            object.values_mut().for_each(tidy);
        }
        Json::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The schema of manifests for editors: as [`filled_manifest`], and a text with `${…}` may stand for every value.
pub fn manifest() -> Json {
    let mut schema = filled_manifest();
    let fixed = ["hotcell", "kind", "include", "vars", "variants"];
    let mut roots = Vec::new();
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for (_, value) in properties
            .iter_mut()
            .filter(|(key, _)| !fixed.contains(&key.as_str()))
        {
            // A whole section is written out; what is in it need not be.
            if value.get("additionalProperties").is_some() {
                inside(value, VARIABLE, &mut roots);
            } else {
                widen(value, VARIABLE, &mut roots);
            }
        }
    }
    allow(&mut schema, VARIABLE, roots);
    schema
}

/// The schema of manifests after variables were filled in, with the ports and settings of each stage type.
pub fn filled_manifest() -> Json {
    let mut generator = SchemaGenerator::default();
    let mut conditions = Vec::new();
    let mut roots = Vec::new();
    for stage_type in STAGE_TYPES {
        let with = (stage_type.with_schema)(&mut generator).to_value();
        roots.extend(reference(&with));
        let inputs: Map<String, Json> = stage_type
            .inputs
            .iter()
            .map(|input| {
                (
                    input.name.to_owned(),
                    json!({"description": format!("{} ({})", input.about, input.port)}),
                )
            })
            .collect();
        let required: Vec<&str> = stage_type
            .inputs
            .iter()
            .filter(|input| input.required)
            .map(|input| input.name)
            .collect();
        let mut then = json!({
            "properties": {
                "with": &with,
                "in": {"properties": inputs, "required": required, "additionalProperties": stage_type.open},
            },
        });
        if let (true, Some(inputs)) = (
            stage_type.open,
            then.pointer_mut("/properties/in").and_then(Json::as_object_mut),
        ) {
            inputs.insert(
                "propertyNames".into(),
                json!({"pattern": "^[a-z][a-z0-9_-]{0,63}$"}),
            );
        }
        let settings = reference(&with)
            .and_then(|name| generator.definitions().get(&name)?.get("required")?.as_array())
            .is_some_and(|required| !required.is_empty());
        let keys = [("in", !required.is_empty()), ("with", settings)];
        let keys: Vec<&str> = keys
            .into_iter()
            .filter(|(_, needed)| *needed)
            .map(|(key, _)| key)
            .collect();
        if let (false, Some(then)) = (keys.is_empty(), then.as_object_mut()) {
            then.insert("required".into(), json!(keys));
        }
        conditions.push(json!({
            "if": {"properties": {"uses": {"const": stage_type.name}}, "required": ["uses"]},
            "then": then,
        }));
    }
    let mut schema = generator.into_root_schema_for::<Manifest>().to_value();
    allow(&mut schema, EXPRESSION, roots);
    let names: Vec<&str> = STAGE_TYPES.iter().map(|stage_type| stage_type.name).collect();
    if let Some(uses) = schema
        .pointer_mut("/$defs/Stage/properties/uses")
        .and_then(Json::as_object_mut)
    {
        uses.insert("enum".into(), json!(names));
    }
    if let Some(stage) = schema.pointer_mut("/$defs/Stage").and_then(Json::as_object_mut) {
        stage.insert("allOf".into(), Json::Array(conditions));
    }
    finish(&mut schema, "manifest", "hotcell manifest");
    signed(&mut schema);
    schema
}

/// Documents hold whole numbers of 64 bits with a sign.
fn signed(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            if object.get("format").and_then(Json::as_str) == Some("uint64") {
                object.entry("maximum").or_insert(i64::MAX.into());
            }
            object.values_mut().for_each(signed);
        }
        Json::Array(list) => list.iter_mut().for_each(signed),
        _ => {}
    }
}

fn reference(schema: &Json) -> Option<String> {
    Some(schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?.to_owned())
}

/// Lets `${…}` stand for every value below the given definitions that is not a free text already.
fn allow(schema: &mut Json, what: &'static str, roots: Vec<String>) {
    let Some(definitions) = schema.get_mut("$defs").and_then(Json::as_object_mut) else {
        return;
    };
    let mut done = BTreeSet::new();
    let mut left = roots;
    while let Some(name) = left.pop() {
        if !["Expression", "Variable"].contains(&name.as_str())
            && done.insert(name.clone())
            && let Some(definition) = definitions.get_mut(&name)
        {
            inside(definition, what, &mut left);
        }
    }
    let (name, definition) = match what {
        EXPRESSION => (
            "Expression",
            json!({"type": "string", "pattern": "\\$\\{", "description": "a text with ${expression}; alone, the expression keeps its type"}),
        ),
        _ => (
            "Variable",
            json!({"type": "string", "pattern": "\\$\\{.*vars\\.", "description": "a text with ${vars.<name>}; alone, it has the variable's type"}),
        ),
    };
    definitions.insert(name.into(), definition);
}

/// Widens the values inside of a table's or list's schema.
fn inside(schema: &mut Json, what: &'static str, left: &mut Vec<String>) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(properties) = object.get_mut("properties").and_then(Json::as_object_mut) {
        properties.values_mut().for_each(|value| widen(value, what, left));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(value) = object.get_mut(key).filter(|value| value.is_object()) {
            widen(value, what, left);
        }
    }
}

fn is_expression(schema: &Json) -> bool {
    let reference = schema.get("$ref").and_then(Json::as_str);
    reference.is_some_and(|reference| [EXPRESSION, VARIABLE].contains(&reference))
}

fn widen(value: &mut Json, what: &'static str, left: &mut Vec<String>) {
    left.extend(reference(value));
    for key in ["anyOf", "oneOf"] {
        let forms = value.get(key).and_then(Json::as_array).into_iter().flatten();
        left.extend(forms.filter_map(reference));
    }
    inside(value, what, left);
    let free_text = {
        let is_text = match value.get("type") {
            Some(Json::String(name)) => name == "string",
            Some(Json::Array(names)) => names.iter().any(|name| name == "string"),
            _ => false,
        };
        is_text
            && ["pattern", "enum", "const", "format"]
                .iter()
                .all(|key| value.get(key).is_none())
    };
    let wide_already = value
        .get("anyOf")
        .and_then(Json::as_array)
        .is_some_and(|forms| forms.iter().any(is_expression));
    if free_text || wide_already || is_expression(value) {
        return;
    }
    let mut inner = value.take();
    let mut wide = Map::new();
    if let Some(object) = inner.as_object_mut() {
        for key in ["description", "default"] {
            if let Some(moved) = object.shift_remove(key) {
                wide.insert(key.into(), moved);
            }
        }
    }
    wide.insert("anyOf".into(), json!([inner, {"$ref": what}]));
    *value = Json::Object(wide);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_a_schema() {
        for PublishedSchema { name, json } in all() {
            assert!(jsonschema::meta::is_valid(&json), "{name}");
            assert!(jsonschema::validator_for(&json).is_ok(), "{name}");
        }
    }
}
