//! Conditions over inspection facts, which are JSON of the schema `elf-info`.

use std::sync::LazyLock;

use hotcell_schema::elf::ElfInfo;
use hotcell_schema::finding::Evidence;
use serde_json::Value as Json;

use crate::condition::{FactPart, FactPath, Facts};
use crate::describe::{MAX_EVIDENCE, clean};
use crate::read::table::did_you_mean;
use crate::source::{Place, Problems};
use crate::value::Value;

/// Most items that one condition looks at.
const MAX_ITEMS: usize = 1 << 20;

/// Judge the facts; the evidence, when the condition holds.
pub(crate) fn judge(facts: &Facts, info: &Json) -> Option<Vec<Evidence>> {
    let mut found = 0usize;
    let mut evidence = Vec::new();
    let mut left = MAX_ITEMS;
    let mut route = Vec::new();
    walk(
        info,
        &facts.at.parts,
        &mut route,
        &mut left,
        &mut |item, route| {
            let fits = facts
                .predicate
                .holds(&|path, callback| any_fact(item, path, callback));
            if fits {
                found = found.saturating_add(1);
                if evidence.len() < MAX_EVIDENCE {
                    evidence.push(Evidence {
                        event: None,
                        offset: item.get("offset").and_then(offset),
                        text: describe(route, item),
                    });
                }
            }
            false
        },
    );
    (found >= facts.at_least).then_some(evidence)
}

/// An offset as inspection writes it: a number or `0x…`.
fn offset(value: &Json) -> Option<u64> {
    value.as_u64().or_else(|| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    })
}

/// Visit every value at the path, until `visit` answers true.
fn walk<'j, 'p>(
    json: &'j Json,
    parts: &'p [FactPart],
    route: &mut Vec<Step<'p>>,
    left: &mut usize,
    visit: &mut dyn FnMut(&'j Json, &[Step<'p>]) -> bool,
) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        *left = left.saturating_sub(1);
        return visit(json, route);
    };
    match part {
        FactPart::Key(key) => {
            let Some(value) = json.get(key) else { return false };
            route.push(Step::Key(key));
            let stop = walk(value, rest, route, left, visit);
            route.pop();
            stop
        }
        FactPart::Each => {
            let Some(items) = json.as_array() else {
                return false;
            };
            for (index, item) in items.iter().enumerate() {
                if *left == 0 {
                    return true;
                }
                route.push(Step::Item(index));
                let stop = walk(item, rest, route, left, visit);
                route.pop();
                if stop {
                    return true;
                }
            }
            false
        }
    }
}

/// A step on the way to a value.
#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Item(usize),
}

fn any_fact(item: &Json, path: &FactPath, callback: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
    let mut left = MAX_ITEMS;
    walk(
        item,
        &path.parts,
        &mut Vec::new(),
        &mut left,
        &mut |json, _| match json {
            Json::String(text) => callback(Value::Text(text)),
            Json::Bool(value) => callback(Value::Bool(*value)),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => callback(Value::Number(number.into())),
                (None, Some(number)) => callback(Value::Number(number.into())),
                (None, None) => number.as_f64().is_some_and(|float| callback(Value::Float(float))),
            },
            Json::Array(items) => items
                .iter()
                .filter_map(Json::as_str)
                .any(|text| callback(Value::Text(text))),
            Json::Null | Json::Object(_) => false,
        },
    )
}

/// `sections[2]: name .text, entropy 7.91`: where it stands, and its plain parts.
fn describe(route: &[Step<'_>], item: &Json) -> String {
    let mut text = String::new();
    for step in route {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    let parts = match item {
        Json::Object(fields) => {
            let plain = fields.iter().filter(|(_, value)| {
                matches!(value, Json::String(text) if text.len() <= 80)
                    || matches!(value, Json::Bool(_) | Json::Number(_))
            });
            let parts: Vec<String> = plain
                .map(|(key, value)| format!("{key} {}", plain_text(value)))
                .collect();
            format!(": {}", parts.join(", "))
        }
        Json::Array(items) => format!(": {} items", items.len()),
        other => format!(" is {}", plain_text(other)),
    };
    text.push_str(&parts);
    clean(&text)
}

fn plain_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

static SCHEMA: LazyLock<Json> = LazyLock::new(|| schemars::schema_for!(ElfInfo).to_value());

/// Say when the facts cannot have such a path. `base` stands before it.
pub(crate) fn check_path(path: &FactPath, base: &[FactPart], at: Place, problems: &mut Problems<'_>) {
    let mut here: &Json = &SCHEMA;
    for part in base.iter().chain(&path.parts) {
        let Some(schema) = resolve(here) else { return };
        match part {
            FactPart::Each => match schema.get("items") {
                Some(items) => here = items,
                None => {
                    let message = format!("`{}`: there is no list where `[]` stands", path.text);
                    problems.add("rules/unknown-fact", at, message, None);
                    return;
                }
            },
            FactPart::Key(key) => {
                let properties = schema.get("properties").and_then(Json::as_object);
                if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                    here = property;
                } else if let Some(additional) = schema
                    .get("additionalProperties")
                    .filter(|schema| schema.is_object())
                {
                    here = additional;
                } else {
                    let list = schema
                        .get("items")
                        .map(|_| "a list stands before it: write `[]`".to_owned());
                    let known = || properties.into_iter().flat_map(|properties| properties.keys());
                    let help = list
                        .or_else(|| did_you_mean(key, known().map(String::as_str)))
                        .or_else(|| {
                            Some(format!(
                                "known: {}",
                                known().cloned().collect::<Vec<_>>().join(", ")
                            ))
                        });
                    let message = format!("inspection has no fact `{key}` in `{}`", path.text);
                    problems.add("rules/unknown-fact", at, message, help);
                    return;
                }
            }
        }
    }
}

/// The schema that says something about objects or lists: behind `$ref`, and what is not `null` in `anyOf`. Nothing,
/// when anything may stand there.
fn resolve(schema: &'static Json) -> Option<&'static Json> {
    let mut here = schema;
    for _ in 0..16 {
        if let Some(reference) = here.get("$ref").and_then(Json::as_str) {
            here = SCHEMA.pointer(reference.strip_prefix('#')?)?;
        } else if let Some(options) = here.get("anyOf").and_then(Json::as_array) {
            let mut real = options
                .iter()
                .filter(|option| option.get("type").and_then(Json::as_str) != Some("null"));
            here = match (real.next(), real.next()) {
                (Some(only), None) => only,
                _ => return None,
            };
        } else if here.get("type").is_some() && here.get("oneOf").is_none() || is_names(here) {
            return Some(here);
        } else {
            return None;
        }
    }
    None
}

/// Whether a schema is a list of names, which has neither keys nor items.
fn is_names(schema: &Json) -> bool {
    let options = schema.get("oneOf").and_then(Json::as_array);
    options.is_some_and(|options| options.iter().all(|option| option.get("const").is_some()))
}
