//! Patterns over events, predicates over inspection facts.

use std::collections::BTreeSet;

use super::field_test::{Budget, EVENT_OPERATORS, MAX_VALUES, test, test_any};
use super::table::{self, Table, clip, did_you_mean};
use crate::condition::{FactPart, FactPath};
use crate::facts;
use crate::fields::{self, FIELDS, Field, KindInfo, Plain, Sort};
use crate::pattern::{Pattern, Predicate, Reach};
use crate::source::{Entry, Node, Place, Problems, Value};
use crate::value::{Check, Constant, Test};

/// Deepest nesting of `any`, `all`, `not` in a pattern, and of `not` in a test.
pub(crate) const MAX_DEPTH: usize = 6;
/// Most variables in one sequence.
pub(crate) const MAX_VARIABLES: usize = 8;
/// Most parts of a path into inspection facts.
const MAX_PATH: usize = 16;

/// Names of the variables of a sequence, by their number.
pub(crate) type Variables = Vec<String>;

/// One pattern or a list of them.
pub(crate) fn patterns(
    node: &Node,
    max: usize,
    variables: &mut Option<&mut Variables>,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Vec<Pattern> {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            problems.add("rules/empty", node.at, "the list of patterns is empty", None);
            Vec::new()
        }
        Value::List(_) => table::list(node, "patterns", max, problems)
            .iter()
            .filter_map(|item| pattern(item, variables, budget, problems))
            .collect(),
        _ => pattern(node, variables, budget, problems).into_iter().collect(),
    }
}

fn pattern(
    node: &Node,
    variables: &mut Option<&mut Variables>,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Option<Pattern> {
    let mut top = Table::of(node, "a pattern", problems)?;
    let names: Vec<&str> = FIELDS.iter().map(|kind| kind.name).collect();
    let kind_node = top.require("kind", problems)?;
    let name = table::name_of(kind_node, "kind", &names, problems)?;
    let place = FIELDS.iter().position(|kind| kind.name == name)?;
    let kind = FIELDS.get(place)?;
    let mut reader = EventFields {
        kind,
        links: Links::default(),
        variables,
    };
    let predicate = predicate(&mut reader, &mut top, 0, budget, problems);
    let links = reader.links;
    let reach = reach(place, kind, &predicate);
    Some(Pattern {
        reach,
        predicate,
        twins: links.twins,
        captures: links.captures,
        same: links.same,
    })
}

/// Which events a predicate lets through at all.
fn reach(place: usize, kind: &KindInfo, predicate: &Predicate<Field>) -> Reach {
    let op = |field: &Field, test: &Test| match field {
        Field::Plain(Plain::NewPath) if !test.checks.is_empty() => {
            Some(fields::NEW_PATH_OPS.iter().map(|op| *op as usize).collect())
        }
        Field::Plain(Plain::Op) => {
            let places = |text: &str| kind.ops.iter().position(|op| *op == text);
            Some(wanted_texts(test)?.into_iter().filter_map(places).collect())
        }
        _ => None,
    };
    let name = |field: &Field, test: &Test| match field {
        Field::Plain(Plain::Name) if kind.name == "syscall" => {
            Some(wanted_texts(test)?.into_iter().map(str::to_owned).collect())
        }
        _ => None,
    };
    let list = |set: BTreeSet<usize>| set.into_iter().collect();
    Reach {
        kind: place,
        ops: bound(predicate, &op).map(list),
        syscalls: bound(predicate, &name).map(|set| set.into_iter().collect()),
    }
}

/// The texts of which a field must have one.
fn wanted_texts(test: &Test) -> Option<Vec<&str>> {
    test.checks.iter().find_map(|check| match check {
        Check::Equals(constants) => constants
            .iter()
            .map(|constant| match constant {
                Constant::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        _ => None,
    })
}

/// What every event that fits must have: from a bound for each test of a field. Nothing, when there is no bound.
fn bound<T: Ord + Clone>(
    predicate: &Predicate<Field>,
    of_test: &dyn Fn(&Field, &Test) -> Option<BTreeSet<T>>,
) -> Option<BTreeSet<T>> {
    match predicate {
        Predicate::Field(field, test) => of_test(field, test),
        Predicate::All(parts) => parts
            .iter()
            .filter_map(|part| bound(part, of_test))
            .reduce(|one, other| one.intersection(&other).cloned().collect()),
        Predicate::Any(parts) => parts.iter().try_fold(BTreeSet::new(), |mut all, part| {
            all.extend(bound(part, of_test)?);
            Some(all)
        }),
        Predicate::Not(_) => None,
    }
}

/// How the keys of a predicate are read: fields of an event, or paths into facts.
pub(crate) trait Keys {
    /// What a key names.
    type Field;
    /// Read `key = …`. Nothing, when it is wrong or fully dealt with.
    fn field(
        &mut self,
        entry: &Entry,
        depth: usize,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) -> Vec<(Self::Field, Test)>;
}

/// The keys of a table that nobody took yet, with `any`, `all` and `not`: all must hold.
pub(crate) fn predicate<K: Keys>(
    keys: &mut K,
    top: &mut Table<'_>,
    depth: usize,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Predicate<K::Field> {
    let mut parts = Vec::new();
    let (any, all, not) = (top.take("any"), top.take("all"), top.take("not"));
    for entry in top.rest() {
        let tests = keys.field(entry, depth, budget, problems);
        parts.extend(
            tests
                .into_iter()
                .map(|(field, test)| Predicate::Field(field, test)),
        );
    }
    for (node, key) in [(any, "any"), (all, "all"), (not, "not")] {
        let Some(node) = node else { continue };
        if depth >= MAX_DEPTH {
            let message = format!("patterns are nested deeper than {MAX_DEPTH}");
            problems.add("rules/too-deep", node.at, message, None);
            continue;
        }
        let mut nested = |node: &Node, problems: &mut Problems<'_>| {
            let mut table = Table::of(node, &format!("a part of `{key}`"), problems)?;
            Some(predicate(keys, &mut table, depth + 1, budget, problems))
        };
        if key == "not" {
            parts.extend(nested(node, problems).map(|part| Predicate::Not(Box::new(part))));
            continue;
        }
        let items = table::list(node, key, MAX_VALUES, problems);
        let items: Vec<_> = items.iter().filter_map(|item| nested(item, problems)).collect();
        parts.push(if key == "any" {
            Predicate::Any(items)
        } else {
            Predicate::All(items)
        });
    }
    Predicate::All(parts)
}

/// What ties fields to one another.
#[derive(Default)]
struct Links {
    twins: Vec<(Field, Field)>,
    captures: Vec<(usize, Field)>,
    same: Vec<(usize, Field)>,
}

struct EventFields<'k, 'v, 'w> {
    kind: &'k KindInfo,
    links: Links,
    variables: &'w mut Option<&'v mut Variables>,
}

impl EventFields<'_, '_, '_> {
    /// Find a field by its name; `args` and `args.NAME` are dealt with elsewhere.
    fn find(&self, name: &str, at: Place, problems: &mut Problems<'_>) -> Option<(Field, Sort)> {
        if let Some(argument) = name.strip_prefix("args.")
            && self.kind.name == "syscall"
        {
            return Some((Field::Arg(argument.to_owned()), Sort::Text));
        }
        let found = fields::find(self.kind, name);
        if found.is_none() {
            let mut known: Vec<&str> = self
                .kind
                .fields
                .iter()
                .chain(fields::COMMON)
                .map(|row| row.0)
                .collect();
            if self.kind.name == "syscall" {
                known.push("args");
            }
            let help = did_you_mean(name, known.iter().copied().chain(["any", "all", "not"]))
                .or_else(|| Some(format!("known: {}", known.join(", "))));
            let message = format!(
                "an event of kind `{}` has no field `{}`",
                self.kind.name,
                clip(name)
            );
            problems.add("rules/unknown-field", at, message, help);
        }
        found.map(|(field, sort)| (Field::Plain(field), sort))
    }

    /// Take `same-field`, `capture` and `same-as` out of a field's test. Whether something else is left.
    fn links(&mut self, field: &Field, node: &Node, depth: usize, problems: &mut Problems<'_>) -> bool {
        let Value::Table(entries) = &node.value else {
            return true;
        };
        for entry in entries {
            let key = entry.key.as_str();
            if !EVENT_OPERATORS.contains(&key) {
                continue;
            }
            let Some(name) = table::text(&entry.node, key, problems) else {
                continue;
            };
            if depth > 0 {
                let message = format!("`{key}` stands at the top of a pattern only");
                problems.add("rules/link", entry.at, message, None);
            } else if key == "same-field" {
                if let Some((other, _)) = self.find(name, entry.node.at, problems) {
                    self.links.twins.push((field.clone(), other));
                }
            } else {
                self.variable(field, key, name, entry, problems);
            }
        }
        let left = |entry: &Entry| !EVENT_OPERATORS.contains(&entry.key.as_str());
        entries.is_empty() || entries.iter().any(left)
    }

    fn variable(&mut self, field: &Field, key: &str, name: &str, entry: &Entry, problems: &mut Problems<'_>) {
        let Some(variables) = self.variables else {
            let message = format!("`{key}` stands in the steps of a sequence only");
            problems.add("rules/link", entry.at, message, None);
            return;
        };
        let known = variables.iter().position(|variable| variable == name);
        let index = match (key, known) {
            ("capture", None) if variables.len() >= MAX_VARIABLES => {
                let message = format!("a sequence keeps at most {MAX_VARIABLES} values");
                problems.add("rules/too-large", entry.at, message, None);
                return;
            }
            ("capture", None) => {
                variables.push(name.to_owned());
                variables.len() - 1
            }
            (_, Some(index)) => index,
            (_, None) => {
                let message = format!("no earlier step captures `{}`", clip(name));
                let help = did_you_mean(name, variables.iter().map(String::as_str));
                problems.add("rules/link", entry.node.at, message, help);
                return;
            }
        };
        if key == "capture" {
            self.links.captures.push((index, field.clone()));
        } else {
            self.links.same.push((index, field.clone()));
        }
    }
}

impl Keys for EventFields<'_, '_, '_> {
    type Field = Field;

    fn field(
        &mut self,
        entry: &Entry,
        depth: usize,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) -> Vec<(Field, Test)> {
        if entry.key == "args" && self.kind.name == "syscall" {
            let Value::Table(arguments) = &entry.node.value else {
                let message = "`args` is a table: argument name to what it must be";
                problems.add("rules/type", entry.node.at, message, None);
                return Vec::new();
            };
            let mut tests = Vec::new();
            for argument in arguments {
                let field = Field::Arg(argument.key.clone());
                if self.links(&field, &argument.node, depth, problems) {
                    let test = test_any(&argument.node, &argument.key, budget, problems);
                    tests.extend(test.map(|test| (field, test)));
                }
            }
            return tests;
        }
        let Some((field, sort)) = self.find(&entry.key, entry.at, problems) else {
            return Vec::new();
        };
        if !self.links(&field, &entry.node, depth, problems) {
            return Vec::new();
        }
        let test = test(&entry.node, &entry.key, sort, 0, budget, problems);
        test.map(|test| (field, test)).into_iter().collect()
    }
}

/// Keys that are paths into the facts of inspection.
pub(crate) struct FactKeys {
    /// Where the items are; paths count from there.
    pub(crate) base: Option<FactPath>,
}

impl Keys for FactKeys {
    type Field = FactPath;

    fn field(
        &mut self,
        entry: &Entry,
        _: usize,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) -> Vec<(FactPath, Test)> {
        let Some(path) = fact_path(&entry.key, entry.at, problems) else {
            return Vec::new();
        };
        if let Some(base) = &self.base {
            facts::check_path(&path, &base.parts, entry.at, problems);
        }
        let test = test_any(&entry.node, &entry.key, budget, problems);
        test.map(|test| (path, test)).into_iter().collect()
    }
}

/// Read `sections[].entropy`.
pub(crate) fn fact_path(text: &str, at: Place, problems: &mut Problems<'_>) -> Option<FactPath> {
    let mut parts = Vec::new();
    for piece in text.split('.') {
        let name = piece.trim_end_matches("[]");
        let lists = (piece.len() - name.len()) / 2;
        let odd = |character: char| !(character.is_alphanumeric() || matches!(character, '-' | '_'));
        if (name.is_empty() && !(parts.is_empty() && lists > 0)) || name.contains(odd) {
            let help = "names with dots between, `[]` for every item of a list: \"sections[].entropy\"";
            let message = format!("`{}` is not a path", clip(text));
            problems.add("rules/path", at, message, Some(help.into()));
            return None;
        }
        if !name.is_empty() {
            parts.push(FactPart::Key(name.to_owned()));
        }
        parts.extend(std::iter::repeat_n(FactPart::Each, lists.min(MAX_PATH)));
    }
    if parts.len() > MAX_PATH {
        let message = format!("the path has more than {MAX_PATH} parts");
        problems.add("rules/path", at, message, None);
        return None;
    }
    Some(FactPath {
        text: text.to_owned(),
        parts,
    })
}
