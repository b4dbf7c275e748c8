//! JSON schema of rule files, built from the same tables that the reader uses.

use hotcell_schema::finding::Severity;
use hotcell_schema::respond::Action;
use schemars::Schema;
use serde_json::{Map, Value as Json, json};

use crate::attack;
use crate::fields::{COMMON, FIELDS, KindInfo, Row, Sort};
use crate::read::condition::{BY, MAX_COUNT, MAX_LEAVES, MAX_PARTS, MAX_PATTERNS, MAX_STEPS};
use crate::read::field_test::MAX_VALUES;
use crate::read::table::MAX_LENGTH;
use crate::read::{FORMAT_KEY, MAX_ATTACK, MAX_ID, MAX_TEST_EVENTS, MAX_TESTS, MAX_TEXTS, VERSION};

/// The JSON schema of a rule file (TOML or YAML).
pub fn rule_schema() -> Schema {
    let mut definitions = Map::new();
    definitions.insert("condition".into(), condition());
    definitions.insert(
        "duration".into(),
        json!({"type": "string", "pattern": "^[0-9]+(ns|us|ms|s|m|h)$"}),
    );
    definitions.insert(
        "by".into(),
        json!({"enum": BY, "description": "what must be the same for events to belong together"}),
    );
    definitions.insert(
        "facts".into(),
        object(&[], predicate("facts", Map::new(), Some(test(None, false)))),
    );
    definitions.insert("pattern".into(), json!({
        "oneOf": FIELDS.iter().map(|kind| reference(&format!("pattern-{}", kind.name))).collect::<Vec<_>>(),
    }));
    definitions.insert(
        "patterns".into(),
        json!({
            "anyOf": [
                reference("pattern"),
                {"type": "array", "minItems": 1, "maxItems": MAX_PATTERNS, "items": reference("pattern")},
            ],
        }),
    );
    for (name, sort) in [
        ("text", Some(Sort::Text)),
        ("number", Some(Sort::Number)),
        ("bool", Some(Sort::Bool)),
        ("any", None),
    ] {
        definitions.insert(format!("test-{name}"), test(sort, false));
        definitions.insert(format!("test-{name}-top"), test(sort, true));
    }
    for kind in &FIELDS {
        let name = format!("part-{}", kind.name);
        let mut top = predicate(&name, fields(kind, true), None);
        top.insert("kind".into(), json!({"const": kind.name}));
        definitions.insert(format!("pattern-{}", kind.name), object(&["kind"], top));
        definitions.insert(
            name.clone(),
            object(&[], predicate(&name, fields(kind, false), None)),
        );
    }
    definitions.insert("test-event".into(), test_event());
    let mut root = object(
        &[FORMAT_KEY, "id", "title", "description", "severity", "when"],
        rule_properties(),
    );
    if let Some(map) = root.as_object_mut() {
        map.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        map.insert("title".into(), "hotcell rule".into());
        map.insert(
            "description".into(),
            "A behaviour rule over events and inspection facts, with inline tests.".into(),
        );
        map.insert("$defs".into(), Json::Object(definitions));
    }
    match root {
        Json::Object(map) => map.into(),
        _ => Schema::default(),
    }
}

fn rule_properties() -> Map<String, Json> {
    let techniques: Vec<&str> = attack::techniques().map(|technique| technique.id).collect();
    let texts = json!({"type": "array", "maxItems": MAX_TEXTS, "items": text()});
    let scope = json!({"os": test_reference("text"), "arch": test_reference("text"), "engine": test_reference("text")});
    let test = json!({
        "name": text(),
        "expect": {"enum": ["hit", "miss"]},
        "events": {"type": "array", "maxItems": MAX_TEST_EVENTS, "items": reference("test-event")},
        "info": {"type": "object", "description": "inspection facts, in short"},
        "evidence": {"type": "array", "maxItems": MAX_TEXTS, "items": text(), "description": "texts that pieces of evidence must hold"},
        "arch": text(),
        "engine": text(),
    });
    map(json!({
        FORMAT_KEY: {"const": VERSION, "description": "format and version"},
        "id": {"type": "string", "pattern": format!("^[a-z0-9_./-]{{1,{MAX_ID}}}$"), "description": "stable id"},
        "title": described(text(), "a sentence for people"),
        "description": described(text(), "what it sees, and why that matters"),
        "severity": {"enum": Severity::ALL.map(Severity::as_str)},
        "respond": {"enum": Action::ALL.map(Action::as_str), "description": "what is done about a guest that it holds of, while the guest runs (`with.respond` of a stage)"},
        "attack": {"type": "array", "maxItems": MAX_ATTACK, "uniqueItems": true, "items": {"enum": techniques}},
        "references": texts,
        "false-positives": texts,
        "only": described(object(&[], map(scope)), "to which streams the rule applies"),
        "when": reference("condition"),
        "tests": {"type": "array", "maxItems": MAX_TESTS, "items": object(&["name", "expect"], map(test))},
    }))
}

fn condition() -> Json {
    let parts = json!({"type": "array", "minItems": 1, "maxItems": MAX_PARTS.min(MAX_LEAVES), "items": reference("condition")});
    let count = json!({
        "of": reference("patterns"),
        "at-least": {"type": "integer", "minimum": 2, "maximum": MAX_COUNT},
        "distinct": described(text(), "count only different values of this field"),
        "within": reference("duration"),
        "by": {"enum": BY.iter().filter(|by| **by != "lineage").collect::<Vec<_>>()},
    });
    let sequence = json!({
        "steps": {"type": "array", "minItems": 2, "maxItems": MAX_STEPS, "items": reference("patterns")},
        "within": reference("duration"),
        "by": reference("by"),
    });
    let inspect = json!({
        "at": described(text(), "path into the facts, for instance sections[].entropy"),
        "is": test_reference("any"),
        "where": reference("facts"),
        "at-least": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
    });
    let mut inspect = object(&["at"], map(inspect));
    if let Some(map) = inspect.as_object_mut() {
        map.insert(
            "oneOf".into(),
            json!([{"required": ["is"]}, {"required": ["where"]}]),
        );
    }
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
        "properties": {
            "match": reference("patterns"),
            "count": object(&["of", "at-least"], map(count)),
            "sequence": object(&["steps"], map(sequence)),
            "inspect": inspect,
            "any": parts,
            "all": parts,
            "not": reference("condition"),
        },
    })
}

/// The fields of a kind, each with its test.
fn fields(kind: &KindInfo, top: bool) -> Map<String, Json> {
    let suffix = if top { "-top" } else { "" };
    let rows = kind.fields.iter().chain(COMMON);
    let mut fields: Map<String, Json> = rows
        .map(|row: &Row| {
            let test = match row.2 {
                Sort::Names(_) => test(Some(row.2), top),
                Sort::Text => test_reference(&format!("text{suffix}")),
                Sort::Number => test_reference(&format!("number{suffix}")),
                Sort::Bool => test_reference(&format!("bool{suffix}")),
            };
            (row.0.to_owned(), described(test, row.3))
        })
        .collect();
    if kind.name == "syscall" {
        let args = json!({"type": "object", "additionalProperties": test_reference(&format!("any{suffix}"))});
        fields.insert("args".into(), described(args, "arguments by name"));
    }
    fields
}

/// Keys of a predicate: `fields`, `any`, `all`, `not`.
fn predicate(part: &str, fields: Map<String, Json>, others: Option<Json>) -> Map<String, Json> {
    let mut properties = fields;
    let parts = json!({"type": "array", "maxItems": MAX_VALUES, "items": reference(part)});
    properties.insert("any".into(), parts.clone());
    properties.insert("all".into(), parts);
    properties.insert("not".into(), reference(part));
    if let Some(others) = others {
        properties.insert(OTHERS.into(), others);
    }
    properties
}

/// Stands for every key that is not named.
const OTHERS: &str = "*";

fn test(sort: Option<Sort>, top: bool) -> Json {
    let value = match sort {
        None => json!({"type": ["string", "number", "boolean"]}),
        Some(Sort::Text) => text(),
        Some(Sort::Names(names)) => json!({"enum": names}),
        Some(Sort::Number) => json!({"type": "number"}),
        Some(Sort::Bool) => json!({"type": "boolean"}),
    };
    let values =
        json!({"anyOf": [value, {"type": "array", "minItems": 1, "maxItems": MAX_VALUES, "items": value}]});
    let mut operators =
        map(json!({"equals": values, "exists": {"type": "boolean"}, "nocase": {"type": "boolean"}}));
    if matches!(sort, None | Some(Sort::Text | Sort::Names(_))) {
        let one = json!({"type": "string", "minLength": 1, "maxLength": MAX_LENGTH});
        let texts =
            json!({"anyOf": [one, {"type": "array", "minItems": 1, "maxItems": MAX_VALUES, "items": one}]});
        for operator in ["contains", "contains-all", "startswith", "endswith", "regex"] {
            operators.insert(operator.into(), texts.clone());
        }
    }
    if matches!(sort, None | Some(Sort::Number)) {
        for operator in ["gt", "ge", "lt", "le"] {
            operators.insert(operator.into(), json!({"type": "number"}));
        }
        operators.insert("any-bit".into(), json!({"type": "integer", "minimum": 1}));
    }
    if top {
        for operator in crate::read::field_test::EVENT_OPERATORS {
            operators.insert((*operator).into(), text());
        }
    }
    let inner = match sort {
        None => test_reference("any"),
        Some(Sort::Text) => test_reference("text"),
        Some(Sort::Number) => test_reference("number"),
        Some(Sort::Bool) => test_reference("bool"),
        Some(Sort::Names(_)) => values.clone(),
    };
    operators.insert("not".into(), inner);
    json!({"anyOf": [values, object(&[], operators)]})
}

fn test_event() -> Json {
    let mut properties = map(json!({
        "pid": {"type": "integer", "minimum": 0},
        "tid": {"type": "integer", "minimum": 0},
        "parent": {"type": "integer", "minimum": 0},
        "image": text(),
        "time": reference("duration"),
    }));
    for kind in &FIELDS {
        properties.insert(kind.name.into(), json!({"type": "object"}));
    }
    let kinds: Vec<Json> = FIELDS
        .iter()
        .map(|kind| json!({"required": [kind.name]}))
        .collect();
    let mut event = object(&[], properties);
    if let Some(map) = event.as_object_mut() {
        map.insert("oneOf".into(), Json::Array(kinds));
    }
    event
}

fn text() -> Json {
    json!({"type": "string", "maxLength": MAX_LENGTH})
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn test_reference(name: &str) -> Json {
    reference(&format!("test-{name}"))
}

fn described(mut schema: Json, text: &str) -> Json {
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".into(), text.into());
    }
    schema
}

fn map(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// An object with these properties and no others.
fn object(required: &[&str], mut properties: Map<String, Json>) -> Json {
    let others = properties.remove(OTHERS).unwrap_or(Json::Bool(false));
    let mut schema = map(json!({"type": "object", "additionalProperties": others, "properties": properties}));
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    Json::Object(schema)
}
