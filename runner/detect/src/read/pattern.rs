//! Patterns over events, predicates over inspection facts, tests of one field.

use regex::RegexBuilder;

use super::table::{self, Table, clip, did_you_mean};
use crate::condition::{FactPart, FactPath};
use crate::facts;
use crate::fields::{self, FIELDS, Field, KindInfo, Sort};
use crate::pattern::{Pattern, Predicate, Reach};
use crate::source::{Entry, Node, Place, Problems, Value};
use crate::value::{Check, Constant, Order, Test};

/// Deepest nesting of `any`, `all`, `not` in a pattern, and of `not` in a test.
pub(crate) const MAX_DEPTH: usize = 6;
/// Most items of a list of values.
pub(crate) const MAX_VALUES: usize = 512;
/// Most tests of fields in one rule.
pub(crate) const MAX_FIELD_TESTS: usize = 512;
/// Most regular expressions in one rule (a list counts as one).
pub(crate) const MAX_REGEXES: usize = 32;
/// Most variables in one sequence.
pub(crate) const MAX_VARIABLES: usize = 8;
/// Greatest size of one compiled regular expression, in bytes.
const REGEX_SIZE: usize = 512 * 1024;
/// Greatest cache of one regular expression while it runs, in bytes.
const REGEX_CACHE: usize = 1024 * 1024;
/// Deepest nesting in a regular expression.
const REGEX_DEPTH: u32 = 32;
/// Most parts of a path into inspection facts.
const MAX_PATH: usize = 16;

/// Keys of a test that only make sense at the top of a pattern.
pub(crate) const EVENT_OPERATORS: &[&str] = &["same-field", "capture", "same-as"];

/// What one rule has used up.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    tests: usize,
    regexes: usize,
}

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

/// Which events the top of a predicate lets through at all.
fn reach(place: usize, kind: &KindInfo, predicate: &Predicate<Field>) -> Reach {
    let mut reach = Reach {
        kind: place,
        ops: None,
        syscalls: None,
    };
    let Predicate::All(parts) = predicate else {
        return reach;
    };
    for part in parts {
        let Predicate::Field(Field::Plain(field), test) = part else {
            continue;
        };
        for check in &test.checks {
            let Check::Equals(constants) = check else { continue };
            let texts = constants.iter().filter_map(|constant| match constant {
                Constant::Text(text) => Some(text.as_str()),
                _ => None,
            });
            match (field, kind.name) {
                (fields::Plain::Op, _) => {
                    let ops = texts.filter_map(|text| kind.ops.iter().position(|op| *op == text));
                    reach.ops = Some(ops.collect());
                }
                (fields::Plain::Name, "syscall") => reach.syscalls = Some(texts.map(str::to_owned).collect()),
                _ => {}
            }
        }
    }
    reach
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
        entries
            .iter()
            .any(|entry| !EVENT_OPERATORS.contains(&entry.key.as_str()))
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

/// A test of something whose sort is not known beforehand.
pub(crate) fn test_any(
    node: &Node,
    key: &str,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Option<Test> {
    read_test(node, key, None, 0, budget, problems)
}

/// A test of a field: a value, a list of values, or a table of operators.
pub(crate) fn test(
    node: &Node,
    key: &str,
    sort: Sort,
    depth: usize,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Option<Test> {
    read_test(node, key, Some(sort), depth, budget, problems)
}

fn read_test(
    node: &Node,
    key: &str,
    sort: Option<Sort>,
    depth: usize,
    budget: &mut Budget,
    problems: &mut Problems<'_>,
) -> Option<Test> {
    budget.tests += 1;
    if budget.tests > MAX_FIELD_TESTS {
        if budget.tests == MAX_FIELD_TESTS + 1 {
            let message = format!("a rule tests more than {MAX_FIELD_TESTS} fields");
            problems.add("rules/too-large", node.at, message, None);
        }
        return None;
    }
    let Value::Table(_) = &node.value else {
        let constants = constants(node, key, sort, problems)?;
        return Some(Test {
            checks: vec![Check::Equals(constants)],
            ..Test::default()
        });
    };
    let mut table = Table::of(node, &format!("the test of `{key}`"), problems)?;
    let nocase = table
        .take("nocase")
        .is_some_and(|node| flag(node, "nocase", problems));
    let mut result = Test::default();
    let mut texts = TextChecks { key, sort, nocase };
    if let Some(node) = table.take("equals")
        && let Some(constants) = constants(node, key, sort, problems)
    {
        result
            .checks
            .extend(texts.equals(node, constants, budget, problems));
    }
    for operator in ["contains", "contains-all", "startswith", "endswith", "regex"] {
        if let Some(node) = table.take(operator) {
            texts.read(node, operator, &mut result.checks, budget, problems);
        }
    }
    for (operator, order) in [
        ("gt", Order::More),
        ("ge", Order::AtLeast),
        ("lt", Order::Less),
        ("le", Order::AtMost),
    ] {
        let Some(node) = table.take(operator) else {
            continue;
        };
        refuse_sort(
            node,
            operator,
            key,
            sort,
            matches!(sort, None | Some(Sort::Number)),
            problems,
        );
        match node.value {
            Value::Integer(bound) => result.checks.push(Check::Compare(order, bound as f64)),
            Value::Float(bound) => result.checks.push(Check::Compare(order, bound)),
            _ => problems.add("rules/type", node.at, format!("`{operator}` is a number"), None),
        }
    }
    if let Some(node) = table.take("any-bit") {
        refuse_sort(
            node,
            "any-bit",
            key,
            sort,
            matches!(sort, None | Some(Sort::Number)),
            problems,
        );
        if let Some(mask) = table::whole(node, "any-bit", 1, usize::MAX >> 1, problems) {
            result.checks.push(Check::AnyBit(mask as i128));
        }
    }
    if let Some(node) = table.take("exists") {
        result.exists = Some(flag(node, "exists", problems));
    }
    if let Some(node) = table.take("not") {
        if depth >= MAX_DEPTH {
            let message = format!("`not` is nested deeper than {MAX_DEPTH}");
            problems.add("rules/too-deep", node.at, message, None);
        } else {
            let not = read_test(node, key, sort, depth + 1, budget, problems);
            result.nots.extend(not);
        }
    }
    for known in EVENT_OPERATORS {
        // Read by whoever knows the pattern around this test.
        table.take(known);
    }
    table.finish(problems);
    if result.checks.is_empty() && result.nots.is_empty() && result.exists.is_none() {
        problems.add(
            "rules/empty",
            node.at,
            format!("the test of `{key}` says nothing"),
            None,
        );
    }
    Some(result)
}

fn flag(node: &Node, key: &str, problems: &mut Problems<'_>) -> bool {
    match node.value {
        Value::Bool(value) => value,
        _ => {
            problems.add("rules/type", node.at, format!("`{key}` is true or false"), None);
            false
        }
    }
}

fn refuse_sort(
    node: &Node,
    operator: &str,
    key: &str,
    sort: Option<Sort>,
    fits: bool,
    problems: &mut Problems<'_>,
) {
    if !fits {
        let is = match sort {
            Some(Sort::Number) => "a number",
            Some(Sort::Bool) => "true or false",
            _ => "a text",
        };
        let message = format!("`{operator}` does not go with `{key}`, which is {is}");
        problems.add("rules/type", node.at, message, None);
    }
}

/// One value or a list of values, of the field's sort.
fn constants(
    node: &Node,
    key: &str,
    sort: Option<Sort>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Constant>> {
    let items = match &node.value {
        Value::List(items) if items.is_empty() => {
            problems.add(
                "rules/empty",
                node.at,
                format!("the list of values of `{key}` is empty"),
                None,
            );
            return None;
        }
        Value::List(_) => table::list(node, key, MAX_VALUES, problems),
        _ => std::slice::from_ref(node),
    };
    let mut constants = Vec::new();
    for item in items {
        let constant = match (&item.value, sort) {
            (Value::Text(_), Some(Sort::Names(names))) => {
                let name = table::name_of(item, key, names, problems)?;
                Constant::Text(name.to_owned())
            }
            (Value::Text(_), None | Some(Sort::Text)) => {
                Constant::Text(table::text(item, key, problems)?.to_owned())
            }
            (Value::Integer(number), None | Some(Sort::Number)) => Constant::Number((*number).into()),
            (Value::Float(number), None | Some(Sort::Number)) => Constant::Float(*number),
            (Value::Bool(value), None | Some(Sort::Bool)) => Constant::Bool(*value),
            _ => {
                let wanted = match sort {
                    Some(Sort::Number) => "a number",
                    Some(Sort::Bool) => "true or false",
                    Some(Sort::Text | Sort::Names(_)) => "a text",
                    None => "a text, a number, true or false",
                };
                let message = format!("`{key}` is {wanted}, here is {}", item.type_name());
                problems.add("rules/type", item.at, message, None);
                return None;
            }
        };
        constants.push(constant);
    }
    (!constants.is_empty()).then_some(constants)
}

/// Operators on texts. Many texts, or texts without regard to case, become one regular expression: linear time.
struct TextChecks<'k> {
    key: &'k str,
    sort: Option<Sort>,
    nocase: bool,
}

impl TextChecks<'_> {
    fn equals(
        &mut self,
        node: &Node,
        constants: Vec<Constant>,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) -> Option<Check> {
        if !self.nocase {
            return Some(Check::Equals(constants));
        }
        let texts: Vec<String> = constants
            .iter()
            .filter_map(|constant| match constant {
                Constant::Text(text) => Some(regex::escape(text)),
                _ => None,
            })
            .collect();
        if texts.len() < constants.len() {
            problems.add("rules/type", node.at, "`nocase` goes with texts only", None);
            return None;
        }
        self.regex(node, &format!("\\A(?:{})\\z", texts.join("|")), budget, problems)
    }

    fn read(
        &mut self,
        node: &Node,
        operator: &str,
        checks: &mut Vec<Check>,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) {
        let fits = matches!(self.sort, None | Some(Sort::Text | Sort::Names(_)));
        refuse_sort(node, operator, self.key, self.sort, fits, problems);
        let items = match &node.value {
            Value::List(items) if items.is_empty() => {
                problems.add(
                    "rules/empty",
                    node.at,
                    format!("the list of `{operator}` is empty"),
                    None,
                );
                return;
            }
            Value::List(_) => table::list(node, operator, MAX_VALUES, problems),
            _ => std::slice::from_ref(node),
        };
        let mut texts = Vec::new();
        for item in items {
            let Some(text) = table::text(item, operator, problems) else {
                continue;
            };
            if text.is_empty() {
                let message = format!("an empty text fits everything in `{operator}`");
                problems.add("rules/empty", item.at, message, None);
            }
            if operator == "regex" {
                // Alone first, so that the error points at the right one, and brackets cannot span two.
                if self.compile(item, text, problems).is_none() {
                    return;
                }
            }
            texts.push(text.to_owned());
        }
        if texts.is_empty() {
            return;
        }
        let one_of = |texts: &[String]| {
            let escaped: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
            format!("(?:{})", escaped.join("|"))
        };
        let check = match operator {
            "regex" => {
                let groups: Vec<String> = texts.iter().map(|text| format!("(?:{text})")).collect();
                self.regex(node, &groups.join("|"), budget, problems)
            }
            "contains-all" => {
                for text in texts {
                    let check = if self.nocase {
                        self.regex(node, &regex::escape(&text), budget, problems)
                    } else {
                        Some(Check::Contains(vec![text]))
                    };
                    checks.extend(check);
                }
                None
            }
            "contains" if self.nocase || texts.len() > 4 => {
                self.regex(node, &one_of(&texts), budget, problems)
            }
            "contains" => Some(Check::Contains(texts)),
            "startswith" if self.nocase => {
                self.regex(node, &format!("\\A{}", one_of(&texts)), budget, problems)
            }
            "startswith" => Some(Check::StartsWith(texts)),
            "endswith" if self.nocase => {
                self.regex(node, &format!("{}\\z", one_of(&texts)), budget, problems)
            }
            _ => Some(Check::EndsWith(texts)),
        };
        checks.extend(check);
    }

    fn regex(
        &self,
        node: &Node,
        source: &str,
        budget: &mut Budget,
        problems: &mut Problems<'_>,
    ) -> Option<Check> {
        budget.regexes += 1;
        if budget.regexes > MAX_REGEXES {
            if budget.regexes == MAX_REGEXES + 1 {
                let message = format!("a rule has more than {MAX_REGEXES} regular expressions");
                problems.add("rules/too-large", node.at, message, None);
            }
            return None;
        }
        self.compile(node, source, problems)
            .map(|regex| Check::Regex(Box::new(regex)))
    }

    fn compile(&self, node: &Node, source: &str, problems: &mut Problems<'_>) -> Option<regex::Regex> {
        let built = RegexBuilder::new(source)
            .case_insensitive(self.nocase)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_CACHE)
            .nest_limit(REGEX_DEPTH)
            .build();
        match built {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(limit)) => {
                let message =
                    format!("the regular expression is too large: over {limit} bytes when compiled");
                problems.add("rules/too-large", node.at, message, None);
                None
            }
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                let reason = last.strip_prefix("error: ").unwrap_or(last);
                let message = format!("not a regular expression: {reason}");
                problems.add("rules/regex", node.at, message, None);
                None
            }
        }
    }
}
