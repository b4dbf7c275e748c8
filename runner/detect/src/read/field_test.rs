//! The test of one field: a value, a list of values, or a table of operators.

use regex::RegexBuilder;

use super::pattern::MAX_DEPTH;
use super::table::{self, Table};
use crate::fields::Sort;
use crate::source::{Node, Problems, Value};
use crate::value::{Check, Constant, Order, Test};

/// Greatest size of one compiled regular expression, in bytes.
const REGEX_SIZE: usize = 512 * 1024;
/// Greatest cache of one regular expression while it runs, in bytes.
const REGEX_CACHE: usize = 1024 * 1024;
/// Deepest nesting in a regular expression.
const REGEX_DEPTH: u32 = 32;
/// Most items of a list of values.
pub(crate) const MAX_VALUES: usize = 512;
/// Most tests of fields in one rule.
pub(crate) const MAX_FIELD_TESTS: usize = 512;
/// Most regular expressions in one rule (a list counts as one).
pub(crate) const MAX_REGEXES: usize = 32;
/// Keys of a test that only make sense at the top of a pattern.
pub(crate) const EVENT_OPERATORS: &[&str] = &["same-field", "capture", "same-as"];
/// What one rule has used up.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    tests: usize,
    regexes: usize,
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
