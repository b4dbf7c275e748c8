//! `when`: any, all, not, match, count, sequence, inspect.

use super::field_test::{self, Budget};
use super::pattern::{self, FactKeys, Variables};
use super::table::{self, Table};
use crate::condition::{By, Condition, Count, FactPath, Facts, Leaf, Sequence, Step};
use crate::facts;
use crate::fields::{self, FIELDS, Field};
use crate::pattern::{Pattern, Predicate};
use crate::source::{Entry, Node, Problems, Value};

/// Deepest nesting of `any`, `all`, `not`.
pub(crate) const MAX_DEPTH: usize = 8;
/// Most parts of one `any` or `all`.
pub(crate) const MAX_PARTS: usize = 32;
/// Most leaves (match, count, sequence, inspect) of one rule.
pub(crate) const MAX_LEAVES: usize = 64;
/// Most alternatives in one list of patterns.
pub(crate) const MAX_PATTERNS: usize = 32;
/// Most steps of a sequence.
pub(crate) const MAX_STEPS: usize = 8;
/// Greatest `at-least` of a count.
pub(crate) const MAX_COUNT: usize = 4096;

/// Keys of a condition: exactly one of them.
pub(crate) const CONDITION_KEYS: &[&str] = &["match", "count", "sequence", "inspect", "any", "all", "not"];
/// Values of `by`.
pub(crate) const BY: &[&str] = &["sample", "process", "task", "lineage"];

struct Reader {
    leaves: Vec<Leaf>,
    count: usize,
    budget: Budget,
}

/// Read `when`.
pub(crate) fn read(node: &Node, problems: &mut Problems<'_>) -> Option<(Condition, Vec<Leaf>)> {
    let mut reader = Reader {
        leaves: Vec::new(),
        count: 0,
        budget: Budget::default(),
    };
    let before = problems.count();
    let condition = reader.condition(node, 0, problems)?;
    if problems.count() == before && condition.holds_for_nothing() {
        let help = "let `not` narrow something that was seen";
        let message = "this would hit a sample that did nothing";
        problems.add("rules/always", node.at, message, Some(help.into()));
    }
    Some((condition, reader.leaves))
}

impl Reader {
    fn condition(&mut self, node: &Node, depth: usize, problems: &mut Problems<'_>) -> Option<Condition> {
        if depth > MAX_DEPTH {
            let message = format!("conditions are nested deeper than {MAX_DEPTH}");
            problems.add("rules/too-deep", node.at, message, None);
            return None;
        }
        let entry = one_entry(node, problems)?;
        match entry.key.as_str() {
            "any" => self.parts(entry, depth, problems).map(Condition::Any),
            "all" => self.parts(entry, depth, problems).map(Condition::All),
            "not" => {
                let part = self.condition(&entry.node, depth + 1, problems)?;
                Some(Condition::Not(Box::new(part)))
            }
            key => {
                self.count += 1;
                if self.count > MAX_LEAVES {
                    if self.count == MAX_LEAVES + 1 {
                        let message = format!("a rule has more than {MAX_LEAVES} conditions");
                        problems.add("rules/too-large", entry.at, message, None);
                    }
                    return None;
                }
                if key == "inspect" {
                    return self.facts(&entry.node, problems).map(Condition::Facts);
                }
                let leaf = match key {
                    "match" => {
                        let patterns = self.patterns(&entry.node, &mut None, problems);
                        (!patterns.is_empty()).then_some(Leaf::Match(patterns))
                    }
                    "count" => self.count(&entry.node, problems).map(Leaf::Count),
                    _ => self.sequence(&entry.node, problems).map(Leaf::Sequence),
                }?;
                self.leaves.push(leaf);
                Some(Condition::Events(self.leaves.len() - 1))
            }
        }
    }

    fn parts(&mut self, entry: &Entry, depth: usize, problems: &mut Problems<'_>) -> Option<Vec<Condition>> {
        let items = table::list(&entry.node, &entry.key, MAX_PARTS, problems);
        if items.is_empty() {
            problems.add(
                "rules/empty",
                entry.at,
                format!("`{}` has no parts", entry.key),
                None,
            );
        }
        let parts: Vec<Condition> = items
            .iter()
            .filter_map(|item| self.condition(item, depth + 1, problems))
            .collect();
        (parts.len() == items.len() && !items.is_empty()).then_some(parts)
    }

    fn patterns(
        &mut self,
        node: &Node,
        variables: &mut Option<&mut Variables>,
        problems: &mut Problems<'_>,
    ) -> Vec<Pattern> {
        pattern::patterns(node, MAX_PATTERNS, variables, &mut self.budget, problems)
    }

    fn count(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<Count> {
        let mut table = Table::of(node, "`count`", problems)?;
        let of_node = table.require("of", problems);
        let of = of_node.map_or_else(Vec::new, |node| self.patterns(node, &mut None, problems));
        let at_least = table
            .require("at-least", problems)
            .and_then(|node| table::whole(node, "at-least", 2, MAX_COUNT, problems));
        let distinct = table
            .take("distinct")
            .and_then(|node| distinct(node, &of, problems));
        let within = table
            .take("within")
            .and_then(|node| table::duration(node, "within", problems));
        let by = by(&mut table, problems);
        if by == By::Lineage {
            let message = "`by = \"lineage\"` is for sequences";
            problems.add("rules/unknown-name", node.at, message, None);
        }
        table.finish(problems);
        (!of.is_empty()).then_some(Count {
            of,
            at_least: at_least?,
            distinct,
            within,
            by,
        })
    }

    fn sequence(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<Sequence> {
        let mut table = Table::of(node, "`sequence`", problems)?;
        let steps_node = table.require("steps", problems);
        let items = steps_node.map_or(&[] as &[Node], |node| {
            table::list(node, "steps", MAX_STEPS, problems)
        });
        if let Some(node) = steps_node
            && items.len() < 2
        {
            let message = "a sequence has at least two steps";
            problems.add(
                "rules/empty",
                node.at,
                message,
                Some("for one step use `match`".into()),
            );
        }
        let mut variables = Variables::new();
        let mut steps = Vec::new();
        for item in items {
            let patterns = self.step(item, &mut variables, problems);
            let join = join(&patterns);
            steps.push(Step { patterns, join });
        }
        let within = table
            .take("within")
            .and_then(|node| table::duration(node, "within", problems));
        let by = by(&mut table, problems);
        table.finish(problems);
        let whole = steps.len() == items.len() && steps.iter().all(|step| !step.patterns.is_empty());
        (whole && steps.len() >= 2).then_some(Sequence {
            steps,
            variables: variables.len(),
            within,
            by,
        })
    }

    /// One step. Every alternative must keep the same values, and may ask only for those of earlier steps.
    fn step(&mut self, node: &Node, variables: &mut Variables, problems: &mut Problems<'_>) -> Vec<Pattern> {
        let earlier = variables.len();
        let mut patterns: Vec<Pattern> = Vec::new();
        let alternatives = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        patterns.extend(self.patterns(node, &mut Some(variables), problems));
        let new = |pattern: &Pattern| {
            let mut indices: Vec<usize> = pattern.captures.iter().map(|(index, _)| *index).collect();
            indices.sort_unstable();
            indices
        };
        let all: Vec<usize> = (earlier..variables.len()).collect();
        for (pattern, node) in patterns.iter().zip(alternatives) {
            let captured = new(pattern);
            if let Some(again) = captured.iter().find(|index| **index < earlier) {
                let name = variables.get(*again).map_or("", String::as_str);
                let message = format!("`{name}` was captured by an earlier step");
                problems.add(
                    "rules/link",
                    node.at,
                    message,
                    Some("use `same-as` to compare".into()),
                );
            } else if captured != all && patterns.len() == alternatives.len() {
                let message = "every alternative of a step captures the same values, once each";
                problems.add("rules/link", node.at, message, None);
            }
            if pattern.same.iter().any(|(index, _)| *index >= earlier) {
                let message = "`same-as` compares with a value of an earlier step";
                problems.add(
                    "rules/link",
                    node.at,
                    message,
                    Some("within one event use `same-field`".into()),
                );
            }
        }
        patterns
    }

    fn facts(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<Facts> {
        let mut table = Table::of(node, "`inspect`", problems)?;
        let at = table.require("at", problems).and_then(|node| {
            let text = table::text(node, "at", problems)?;
            let path = pattern::fact_path(text, node.at, problems)?;
            facts::check_path(&path, &[], node.at, problems);
            Some(path)
        });
        let is = table.take("is");
        let where_ = table.take("where");
        let at_least = table.take("at-least").map_or(Some(1), |node| {
            table::whole(node, "at-least", 1, MAX_COUNT, problems)
        });
        table.finish(problems);
        let predicate = match (is, where_) {
            (Some(node), None) => {
                let here = FactPath {
                    text: String::new(),
                    parts: Vec::new(),
                };
                field_test::test_any(node, "is", &mut self.budget, problems)
                    .map(|test| Predicate::Field(here, test))
            }
            (None, Some(node)) => {
                let mut inner = Table::of(node, "`where`", problems)?;
                let mut keys = FactKeys { base: at.clone() };
                let predicate = pattern::predicate(&mut keys, &mut inner, 0, &mut self.budget, problems);
                Some(predicate)
            }
            _ => {
                let message = "`inspect` has either `is` or `where`";
                problems.add("rules/missing", node.at, message, None);
                None
            }
        };
        Some(Facts {
            at: at?,
            predicate: predicate?,
            at_least: at_least?,
        })
    }
}

/// The only entry of a condition.
fn one_entry<'n>(node: &'n Node, problems: &mut Problems<'_>) -> Option<&'n Entry> {
    let Value::Table(entries) = &node.value else {
        let message = format!("a condition is a table, here is {}", node.type_name());
        problems.add("rules/type", node.at, message, None);
        return None;
    };
    for entry in entries {
        if !CONDITION_KEYS.contains(&entry.key.as_str()) {
            let help = table::did_you_mean(&entry.key, CONDITION_KEYS.iter().copied())
                .or_else(|| Some(format!("one of {}", CONDITION_KEYS.join(", "))));
            let message = format!("`{}` is not a condition", table::clip(&entry.key));
            problems.add("rules/unknown-key", entry.at, message, help);
            return None;
        }
    }
    match entries.as_slice() {
        [entry] => Some(entry),
        [] => {
            let help = format!("one of {}", CONDITION_KEYS.join(", "));
            problems.add("rules/empty", node.at, "the condition is empty", Some(help));
            None
        }
        [_, second, ..] => {
            let message = "a condition has one key";
            problems.add(
                "rules/condition",
                second.at,
                message,
                Some("combine with `all` or `any`".into()),
            );
            None
        }
    }
}

fn by(table: &mut Table<'_>, problems: &mut Problems<'_>) -> By {
    let name = table
        .take("by")
        .and_then(|node| table::name_of(node, "by", BY, problems));
    match name {
        Some("process") => By::Process,
        Some("task") => By::Task,
        Some("lineage") => By::Lineage,
        _ => By::Sample,
    }
}

/// The field to count by, for each pattern.
fn distinct(node: &Node, of: &[Pattern], problems: &mut Problems<'_>) -> Option<Vec<Field>> {
    let name = table::text(node, "distinct", problems)?;
    let mut found = Vec::new();
    for pattern in of {
        let kind = FIELDS.get(pattern.reach.kind)?;
        if let Some(argument) = name.strip_prefix("args.")
            && kind.name == "syscall"
        {
            found.push(Field::Arg(argument.to_owned()));
            continue;
        }
        match fields::find(kind, name) {
            Some((field, _)) => found.push(Field::Plain(field)),
            None => {
                let known = kind.fields.iter().chain(fields::COMMON).map(|row| row.0);
                let help = table::did_you_mean(name, known);
                let message = format!(
                    "an event of kind `{}` has no field `{}`",
                    kind.name,
                    table::clip(name)
                );
                problems.add("rules/unknown-field", node.at, message, help);
                return None;
            }
        }
    }
    Some(found)
}

/// A variable that every alternative asks for.
fn join(patterns: &[Pattern]) -> Option<usize> {
    let (first, others) = patterns.split_first()?;
    let asked = |pattern: &Pattern, index: usize| pattern.same.iter().any(|(same, _)| *same == index);
    first
        .same
        .iter()
        .map(|(index, _)| *index)
        .find(|index| others.iter().all(|pattern| asked(pattern, *index)))
}
