//! Whether a tree fits a JSON schema: yes or no, in one walk, without a copy of the tree.
//!
//! It knows the keywords that our own generated schema has, and refuses to be made of a schema with any other. What is wrong
//! with a tree that does not fit is for the `jsonschema` crate to say; a property test holds the two together.

use std::collections::HashMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value as Json};

use crate::tree::read::whole;
use crate::tree::{Node, Value};

/// A schema, made for asking often.
pub(super) struct Schema {
    rules: Vec<Rule>,
    root: usize,
}

/// One schema object. Each keyword that is there must hold.
#[derive(Default)]
struct Rule {
    /// Nothing fits (the schema `false`).
    never: bool,
    types: Option<Types>,
    properties: HashMap<String, usize>,
    required: Vec<String>,
    /// For keys that are not among the properties.
    additional: Option<usize>,
    names: Option<Pattern>,
    /// For the first items, one each.
    first: Vec<usize>,
    /// For those after them.
    items: Option<usize>,
    items_between: Option<(usize, usize)>,
    length_between: Option<(usize, usize)>,
    pattern: Option<Pattern>,
    allowed: Option<Vec<Json>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    all: Vec<usize>,
    any: Vec<Vec<usize>>,
    one: Vec<Vec<usize>>,
    /// If the first fits, so must the second.
    implied: Option<(usize, usize)>,
}

/// Which types are allowed.
#[derive(Default, Clone, Copy)]
struct Types {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    text: bool,
    list: bool,
    table: bool,
}

/// Keywords that say nothing about what fits.
const SILENT: &[&str] = &[
    "$schema",
    "$id",
    "$defs",
    "title",
    "description",
    "default",
    "format",
    "examples",
    "deprecated",
    "$comment",
];

struct Compiler<'a> {
    definitions: Option<&'a Map<String, Json>>,
    rules: Vec<Rule>,
    named: HashMap<&'a str, usize>,
}

impl Schema {
    /// Makes it; nothing when the schema has a keyword that is not known here.
    pub(super) fn compile(schema: &Json) -> Option<Self> {
        let mut compiler = Compiler {
            definitions: schema.get("$defs").and_then(Json::as_object),
            rules: Vec::new(),
            named: HashMap::new(),
        };
        let root = compiler.rule(schema)?;
        Some(Self {
            rules: compiler.rules,
            root,
        })
    }

    /// Whether the whole document fits.
    pub(super) fn fits(&self, node: &Node) -> bool {
        self.holds(self.root, node)
    }

    /// Whether an entry of one of the root's tables fits, its name included.
    pub(super) fn entry_fits(&self, section: &str, name: &str, node: &Node) -> bool {
        let section = self
            .rules
            .get(self.root)
            .and_then(|root| root.properties.get(section))
            .and_then(|index| self.rules.get(*index));
        section.is_some_and(|section| {
            section.names.as_ref().is_none_or(|names| names.is_match(name))
                && section.additional.is_none_or(|entry| self.holds(entry, node))
        })
    }

    fn holds(&self, index: usize, node: &Node) -> bool {
        let Some(rule) = self.rules.get(index) else {
            return false;
        };
        if rule.never || !rule.types.is_none_or(|types| types.have(&node.value)) {
            return false;
        }
        let own = match &node.value {
            Value::Text(text) => {
                rule.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
                    && rule
                        .length_between
                        .is_none_or(|(least, most)| (least..=most).contains(&text.chars().count()))
            }
            #[expect(clippy::cast_precision_loss, reason = "bounds are small or powers of two")]
            Value::Integer(value) => rule.between(*value as f64),
            Value::Float(value) => rule.between(*value),
            Value::List(items) => {
                rule.items_between
                    .is_none_or(|(least, most)| (least..=most).contains(&items.len()))
                    && items.iter().enumerate().all(|(place, item)| {
                        let own = rule.first.get(place).copied().or(rule.items);
                        own.is_none_or(|index| self.holds(index, item))
                    })
            }
            Value::Table(table) => {
                rule.required.iter().all(|key| table.contains_key(key))
                    && table.iter().all(|(key, entry)| {
                        rule.names.as_ref().is_none_or(|names| names.is_match(key))
                            && rule
                                .properties
                                .get(key)
                                .or(rule.additional.as_ref())
                                .is_none_or(|index| self.holds(*index, &entry.node))
                    })
            }
            Value::Null | Value::Boolean(_) => true,
        };
        own && rule
            .allowed
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|value| same(value, node)))
            && rule.all.iter().all(|index| self.holds(*index, node))
            && rule
                .any
                .iter()
                .all(|forms| forms.iter().any(|index| self.holds(*index, node)))
            && rule
                .one
                .iter()
                .all(|forms| forms.iter().filter(|index| self.holds(**index, node)).count() == 1)
            && rule
                .implied
                .is_none_or(|(condition, then)| !self.holds(condition, node) || self.holds(then, node))
    }
}

/// Whether a text or number of a schema is that of the document. Nothing else is compared in our schemas.
fn same(value: &Json, node: &Node) -> bool {
    match (value, &node.value) {
        (Json::String(wanted), Value::Text(text)) => wanted == text,
        (Json::Bool(wanted), Value::Boolean(value)) => wanted == value,
        (Json::Number(wanted), Value::Integer(value)) => wanted.as_i64() == Some(*value),
        (Json::Number(wanted), Value::Float(value)) => wanted.as_f64() == Some(*value),
        (Json::Null, Value::Null) => true,
        _ => false,
    }
}

impl Rule {
    fn between(&self, value: f64) -> bool {
        self.minimum.is_none_or(|least| value >= least) && self.maximum.is_none_or(|most| value <= most)
    }
}

impl Types {
    fn add(&mut self, name: &str) -> Option<()> {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "string" => self.text = true,
            "array" => self.list = true,
            "object" => self.table = true,
            _ => return None,
        }
        Some(())
    }

    fn have(self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Boolean(_) => self.boolean,
            Value::Integer(_) => self.integer || self.number,
            Value::Float(value) => self.number || (self.integer && whole(*value).is_some()),
            Value::Text(_) => self.text,
            Value::List(_) => self.list,
            Value::Table(_) => self.table,
        }
    }
}

impl<'a> Compiler<'a> {
    fn rule(&mut self, schema: &'a Json) -> Option<usize> {
        let index = self.rules.len();
        // Its place is taken first: a definition may lead back to itself.
        self.rules.push(Rule::default());
        let rule = match schema {
            Json::Bool(fits) => Rule {
                never: !fits,
                ..Rule::default()
            },
            Json::Object(object) => self.keywords(object)?,
            _ => return None,
        };
        *self.rules.get_mut(index)? = rule;
        Some(index)
    }

    fn keywords(&mut self, object: &'a Map<String, Json>) -> Option<Rule> {
        let mut rule = Rule::default();
        let bound = |value: &Json| usize::try_from(value.as_u64()?).ok();
        for (keyword, value) in object {
            match keyword.as_str() {
                "type" => {
                    let mut types = Types::default();
                    match value {
                        Json::String(name) => types.add(name)?,
                        Json::Array(names) => names.iter().try_for_each(|name| types.add(name.as_str()?))?,
                        _ => return None,
                    }
                    rule.types = Some(types);
                }
                "properties" => {
                    for (name, schema) in value.as_object()? {
                        let index = self.rule(schema)?;
                        rule.properties.insert(name.clone(), index);
                    }
                }
                "required" => {
                    for name in value.as_array()? {
                        rule.required.push(name.as_str()?.to_owned());
                    }
                }
                "additionalProperties" => rule.additional = self.unless_true(value)?,
                "items" => rule.items = self.unless_true(value)?,
                "prefixItems" => rule.first = self.rules_of(value)?,
                "propertyNames" => {
                    let names = value.as_object()?;
                    let known = names.keys().all(|key| key == "pattern");
                    rule.names = Some(Pattern::new(names.get("pattern").filter(|_| known)?)?);
                }
                "pattern" => rule.pattern = Some(Pattern::new(value)?),
                "enum" => rule.allowed = Some(value.as_array()?.clone()),
                "const" => rule.allowed = Some(vec![value.clone()]),
                "minimum" => rule.minimum = Some(value.as_f64()?),
                "maximum" => rule.maximum = Some(value.as_f64()?),
                "minItems" => rule.items_between.get_or_insert((0, usize::MAX)).0 = bound(value)?,
                "maxItems" => rule.items_between.get_or_insert((0, usize::MAX)).1 = bound(value)?,
                "minLength" => rule.length_between.get_or_insert((0, usize::MAX)).0 = bound(value)?,
                "maxLength" => rule.length_between.get_or_insert((0, usize::MAX)).1 = bound(value)?,
                "allOf" => rule.all.extend(self.rules_of(value)?),
                "anyOf" => {
                    let forms = self.rules_of(value)?;
                    rule.any.push(forms);
                }
                "oneOf" => {
                    let forms = self.rules_of(value)?;
                    rule.one.push(forms);
                }
                "$ref" => {
                    let index = self.definition(value.as_str()?)?;
                    rule.all.push(index);
                }
                "if" => {
                    let condition = self.rule(value)?;
                    let then = self.rule(object.get("then")?)?;
                    rule.implied = Some((condition, then));
                }
                "then" if object.contains_key("if") => {}
                silent if SILENT.contains(&silent) => {}
                _ => return None,
            }
        }
        Some(rule)
    }

    fn unless_true(&mut self, value: &'a Json) -> Option<Option<usize>> {
        match value {
            Json::Bool(true) => Some(None),
            value => self.rule(value).map(Some),
        }
    }

    fn rules_of(&mut self, list: &'a Json) -> Option<Vec<usize>> {
        list.as_array()?.iter().map(|schema| self.rule(schema)).collect()
    }

    fn definition(&mut self, reference: &'a str) -> Option<usize> {
        let name = reference.strip_prefix("#/$defs/")?;
        if let Some(index) = self.named.get(name) {
            return Some(*index);
        }
        let schema = self.definitions?.get(name)?;
        // The index that `rule` will take.
        self.named.insert(name, self.rules.len());
        self.rule(schema)
    }
}

/// A pattern. Most documents meet few of them, and to compile them all took as long as to read a small document.
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(value: &Json) -> Option<Self> {
        let text = value.as_str()?.to_owned();
        let compiled = OnceLock::new();
        Some(Self { text, compiled })
    }

    /// What is no pattern fits nothing: the `jsonschema` crate is then asked.
    fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_manifest_schema_is_understood() {
        assert!(Schema::compile(&crate::schemas::filled_manifest()).is_some());
        assert!(Schema::compile(&json!({"type": "object", "unevaluatedProperties": false})).is_none());
    }

    #[test]
    fn keywords_mean_what_they_mean() {
        let schema = json!({
            "type": "object",
            "properties": {
                "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
                "t": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"const": "none"}]},
                "l": {"type": "array", "minItems": 1, "items": {"enum": ["a", "b"]}},
            },
            "required": ["n"],
            "additionalProperties": false,
            "if": {"properties": {"n": {"const": 3}}, "required": ["n"]},
            "then": {"required": ["l"]},
            "$defs": {"Tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Tree"},
                "propertyNames": {"pattern": "^[a-z]$"}}},
        });
        let quick = Schema::compile(&schema).unwrap_or_else(|| panic!("known keywords"));
        let slow = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}"));
        for (json, fits) in [
            (json!({"n": 1}), true),
            (json!({"n": 2.0}), true),
            (json!({"n": 2.5}), false),
            (json!({"n": null}), true),
            (json!({"n": 0}), false),
            (json!({"n": 6}), false),
            (json!({"n": 3}), false),
            (json!({"n": 3, "l": ["a"]}), true),
            (json!({"n": 1, "l": []}), false),
            (json!({"n": 1, "l": ["c"]}), false),
            (json!({"n": 1, "x": 1}), false),
            (json!({"n": 1, "t": {"a": {"b": {}}}}), true),
            (json!({"n": 1, "t": {"a": {"B": {}}}}), false),
            (json!({"n": 1, "t": "none"}), true),
            (json!({}), false),
            (json!([]), false),
        ] {
            let node = Node::from_json(&json, Default::default());
            assert_eq!(quick.fits(&node), fits, "{json}");
            assert_eq!(slow.is_valid(&json), fits, "{json}");
        }
    }
}
