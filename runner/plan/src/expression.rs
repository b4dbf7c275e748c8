//! Expressions: `when`, `where` and `${}`. One language (minijinja's), undefined names are errors, and work is bounded.
//!
//! Names of stages may hold `-`, which the language reads as minus; so `stages.<name>` is found first and its `-` become
//! `_`. Names of stages hold no `_`, so nothing is mixed up.

mod bounds;
mod compiled;

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde_json::Value as Json;

use compiled::Compiled;

/// Greatest length of an expression.
const MAX_LENGTH: usize = 4096;
/// Bytes that one evaluator may put into texts: they stay in memory with the plan.
const MAX_FILLED: u64 = 512 << 20;
/// Characters of a value or a reason that are shown.
const SHOWN: usize = 300;

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(bounds::environment);

/// An expression that cannot be read or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(pub String);

/// What an expression reads of other stages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// The stage.
    pub stage: String,
    /// The output port, where it names one.
    pub port: Option<String>,
}

/// A piece of a text with `${}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// An expression.
    Expression(String),
}

/// Evaluates expressions.
#[derive(Debug, Default)]
pub struct Evaluator {
    /// Bytes that were put into texts.
    filled: AtomicU64,
}

impl Evaluator {
    /// Whether the expression can be read.
    pub fn check(&self, expression: &str) -> Result<(), ExpressionError> {
        readable(expression, |_| ())
    }

    /// The names that an expression takes from its context.
    pub fn names(&self, expression: &str) -> Result<BTreeSet<String>, ExpressionError> {
        readable(expression, |compiled| compiled.names)
    }

    /// The same with what is asked of each: `sample.family`.
    pub fn paths(&self, expression: &str) -> Result<BTreeSet<String>, ExpressionError> {
        readable(expression, |compiled| compiled.paths)
    }

    /// Fills in every `${}` of a JSON value.
    pub fn fill_all(&self, value: &Json, context: &Json) -> Result<Json, ExpressionError> {
        Ok(match value {
            Json::String(text) if text.contains("${") => self.fill(&pieces(text)?, context)?,
            Json::Array(items) => {
                let items = items.iter().map(|item| self.fill_all(item, context));
                Json::Array(items.collect::<Result<_, _>>()?)
            }
            Json::Object(table) => {
                let table = table
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), self.fill_all(value, context)?)));
                Json::Object(table.collect::<Result<_, ExpressionError>>()?)
            }
            other => other.clone(),
        })
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str, context: &Json) -> Result<Json, ExpressionError> {
        let text = written(expression)?;
        let compiled = Compiled::of(&text).map_err(|error| told(&error))?;
        bounds::begin();
        let value = compiled
            .value(&LANGUAGE, Value::from(Serde(context)))
            .map_err(|error| told(&error))?;
        if value.is_undefined() {
            return Err(ExpressionError(format!(
                "`{}` is not defined here",
                expression.trim()
            )));
        }
        // What stands in it many times is written as often.
        bounds::pay(&value).map_err(|error| told(&error))?;
        serde_json::to_value(&value).map_err(|error| ExpressionError(error.to_string()))
    }

    /// The truth of an expression. Anything but true and false is an error: a condition that is a text is a mistake.
    pub fn truth(&self, expression: &str, context: &Json) -> Result<bool, ExpressionError> {
        match self.value(expression, context)? {
            Json::Bool(value) => Ok(value),
            other => Err(ExpressionError(format!(
                "the condition is {}, neither true nor false",
                shown(&other.to_string())
            ))),
        }
    }

    /// Puts values into a text. A lone `${x}` keeps its type; among other text, lists and tables are errors.
    pub fn fill(&self, pieces: &[Piece], context: &Json) -> Result<Json, ExpressionError> {
        if let [Piece::Expression(only)] = pieces {
            return self.value(only, context);
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.put(&mut out, text)?,
                Piece::Expression(expression) => match self.value(expression, context)? {
                    Json::String(text) => self.put(&mut out, &text)?,
                    value @ (Json::Number(_) | Json::Bool(_)) => self.put(&mut out, &value.to_string())?,
                    _ => {
                        return Err(ExpressionError(format!(
                            "`{}` is no text or number",
                            expression.trim()
                        )));
                    }
                },
            }
        }
        Ok(Json::String(out))
    }

    fn put(&self, out: &mut String, text: &str) -> Result<(), ExpressionError> {
        let bytes = text.len() as u64;
        let before = self.filled.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_FILLED {
            let most = MAX_FILLED >> 20;
            return Err(ExpressionError(format!(
                "the values that are put into texts are more than {most} MiB"
            )));
        }
        out.push_str(text);
        Ok(())
    }
}

/// An expression as the language reads it.
fn written(expression: &str) -> Result<String, ExpressionError> {
    match expression.len() > MAX_LENGTH {
        true => Err(ExpressionError(format!(
            "the expression is longer than {MAX_LENGTH} bytes"
        ))),
        false => Ok(scan(expression).0),
    }
}

fn readable<T>(expression: &str, take: impl FnOnce(Compiled<'_>) -> T) -> Result<T, ExpressionError> {
    let text = written(expression)?;
    let compiled = Compiled::of(&text).map_err(|error| told(&error))?;
    Ok(take(compiled))
}

/// Values stand in reasons, and may be long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn told(error: &minijinja::Error) -> ExpressionError {
    if error.kind() == ErrorKind::OutOfFuel {
        return ExpressionError("the expression takes too many steps".into());
    }
    let text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    ExpressionError(shown(&text))
}

/// What the expression reads of other stages.
pub fn reads(expression: &str) -> BTreeSet<Read> {
    scan(expression).1
}

/// The name under which a stage stands in an expression's context.
pub fn context_name(stage: &str) -> String {
    stage.replace('-', "_")
}

/// Finds `stages.<name>` and `stages.<name>.out.<port>` outside of quoted texts, and makes names of them that the language
/// can read.
fn scan(expression: &str) -> (String, BTreeSet<Read>) {
    let mut out = String::with_capacity(expression.len());
    let mut reads = BTreeSet::new();
    let mut rest = expression;
    let mut quote: Option<char> = None;
    let mut before = ' ';
    while let Some(character) = rest.chars().next() {
        if quote.is_none()
            && !(before.is_alphanumeric() || before == '_' || before == '.')
            && let Some((name, after)) = rest.strip_prefix("stages.").and_then(name)
        {
            let port = after
                .strip_prefix(".out.")
                .and_then(self::name)
                .map(|(port, _)| port.to_owned());
            reads.insert(Read {
                stage: name.to_owned(),
                port,
            });
            out.push_str("stages.");
            out.push_str(&context_name(name));
            before = 'x';
            rest = after;
            continue;
        }
        let mut step = character.len_utf8();
        match (quote, character) {
            (Some(_), '\\') => {
                step += rest
                    .get(step..)
                    .and_then(|rest| rest.chars().next())
                    .map_or(0, char::len_utf8)
            }
            (Some(open), closing) if open == closing => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            _ => {}
        }
        let (taken, left) = rest.split_at_checked(step).unwrap_or((rest, ""));
        out.push_str(taken);
        before = character;
        rest = left;
    }
    (out, reads)
}

/// A name at the start of a text, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let length = text
        .bytes()
        .take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        .count();
    if length == 0 {
        None
    } else {
        text.split_at_checked(length)
    }
}

/// Splits a text at its `${…}`. `$${` stands for the characters `${`, and `$$${x}` for a `$` and a value: of the signs before a
/// `{`, two stand for one.
pub fn pieces(text: &str) -> Result<Vec<Piece>, ExpressionError> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (head, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let inner = tail.strip_prefix("${").unwrap_or("");
        let text = head.trim_end_matches('$');
        let signs = head.len() - text.len() + 1;
        plain.push_str(text);
        plain.extend(std::iter::repeat_n('$', signs / 2));
        if signs.is_multiple_of(2) {
            plain.push('{');
            rest = inner;
            continue;
        }
        let end = closing(inner).ok_or_else(|| ExpressionError("`${` has no `}`".into()))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        let (expression, left) = inner.split_at_checked(end).unwrap_or((inner, ""));
        pieces.push(Piece::Expression(expression.to_owned()));
        rest = left.strip_prefix('}').unwrap_or("");
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Where the `}` that closes an expression stands.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), closing) if open == closing => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_read_stages() {
        let expression =
            "stages.first-look.out.info.linkage == 'stages.no.out.x' and stages.run.out.n-1 == 2";
        let found: Vec<_> = reads(expression).into_iter().collect();
        assert_eq!(
            found,
            [
                Read {
                    stage: "first-look".into(),
                    port: Some("info".into())
                },
                Read {
                    stage: "run".into(),
                    port: Some("n-1".into())
                },
            ]
        );
        let context = json!({"stages": {"first_look": {"out": {"info": {"linkage": "static"}}}}});
        let evaluator = Evaluator::default();
        assert_eq!(
            evaluator.truth("stages.first-look.out.info.linkage == 'static'", &context),
            Ok(true)
        );
        assert!(
            evaluator
                .truth("stages.first-look.out.info.linkag == 'static'", &context)
                .is_err()
        );
        assert!(
            evaluator
                .truth("stages.first-look.out.info.linkage", &context)
                .is_err()
        );
        assert!(evaluator.check("1 +").is_err());
    }

    #[test]
    fn a_lone_expression_keeps_its_type() {
        let evaluator = Evaluator::default();
        let context = json!({"n": 3, "list": [1, 2], "name": "x"});
        let fill = |text: &str| evaluator.fill(&pieces(text)?, &context);
        assert_eq!(fill("${n}"), Ok(json!(3)));
        assert_eq!(fill("${list}"), Ok(json!([1, 2])));
        assert_eq!(fill("a-${name}-${n + 1}"), Ok(json!("a-x-4")));
        assert_eq!(fill("$${name}"), Ok(json!("${name}")));
        assert_eq!(fill("$$${name}"), Ok(json!("$x")));
        assert_eq!(fill("a$$$${name}$"), Ok(json!("a$${name}$")));
        assert_eq!(fill("$ $$ ${n}"), Ok(json!("$ $$ 3")));
        assert_eq!(fill("${ {'a': '}'}['a'] }"), Ok(json!("}")));
        assert!(fill("a${list}").is_err());
        assert!(fill("${missing}").is_err());
        assert!(fill("${n").is_err());
    }

    #[test]
    fn work_is_bounded() {
        let evaluator = Evaluator::default();
        let long = "range(9999)|map('string')|list|length + ".repeat(50) + "1";
        assert!(evaluator.value(&long, &json!({})).is_err());
        assert!(evaluator.check(&"(".repeat(4000)).is_err());
        assert!(evaluator.check(&"1+".repeat(3000)).is_err());
        assert!(evaluator.check(&("1+".repeat(2000) + "1")).is_err(), "too deep");
        assert_eq!(
            evaluator.value(&("1+".repeat(200) + "1"), &json!({})),
            Ok(json!(201))
        );
    }

    /// Each of them would make hundreds of megabytes, or take minutes, out of one line.
    #[test]
    fn values_stay_small() {
        let big = "x".repeat(1 << 20);
        let context = json!({"v": big, "list": vec![1; 100_000]});
        let evaluator = Evaluator::default();
        let doubled = (0..20).fold("'xxxxxxxx'".to_owned(), |text, _| format!("({text} * 8)"));
        for bomb in [
            "'b' * 100000000",
            "100000000 * 'b'",
            "[1] * 100000000",
            "(['b' * 1000000] * 1000)|length",
            "[[[[1] * 999] * 999] * 999]",
            "range(1000000000)|list",
            "range(100000)|map('string')|map('replace', '', v)|list",
            "v|replace('x', v)",
            "v|replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')",
            "list|join(v)",
            "list|join(d=v)",
            "v|indent(1000000000)",
            "v|indent(width=1000000000, first=true)",
            "[1]|batch(1000000000, 0)",
            "[1]|slice(1000000000)",
            "[[[1]]]|tojson(indent=1000000000)",
            "[[[1]]]|tojson(1000000000)",
            "list|select('in', list)|list",
            "(list * 100)|sum(start='')",
            "(['abcdefgh'] * 100000)|sum(start='')",
            "[v, v]|map('split', '')|list",
            "v|list|list|list|list",
            "[v[1:], v[:-1], v[::2], v[::-1]] * 10",
            &doubled,
            &["v"; 500].join(" ~ "),
            &["v"; 100].join(" + "),
            &format!("[{}]", ["v ~ 1"; 100].join(", ")),
            &["v"; 100].join(" == "),
            &["v in v"; 100].join(" and "),
        ] {
            let started = std::time::Instant::now();
            let value = evaluator.value(bomb, &context);
            let error = match value {
                Err(error) => error.0,
                Ok(value) => panic!("{bomb:.60}: {} bytes", value.to_string().len()),
            };
            assert!(error.len() < 2000, "{error}");
            assert!(started.elapsed().as_secs() < 20, "{bomb:.60} took too long");
        }
        assert!(
            evaluator.check("'b' * 100000000").is_ok(),
            "reading it computes nothing"
        );
    }

    #[test]
    fn operators_do_what_they_did() {
        let evaluator = Evaluator::default();
        let context = json!({"n": 3, "f": 1.5, "list": [1, 2], "name": "x"});
        for (expression, value) in [
            ("n * 2", json!(6)),
            ("n * 2 + 1 * n", json!(9)),
            ("f * 2", json!(3.0)),
            ("-n * n", json!(-9)),
            ("true * 3", json!(3)),
            ("name * 3", json!("xxx")),
            ("2 * list", json!([1, 2, 1, 2])),
            ("[] * 5", json!([])),
            ("name ~ n ~ f", json!("x31.5")),
            ("name + 'y'", json!("xy")),
            ("list + [3]", json!([1, 2, 3])),
            ("list[1:]", json!([2])),
            ("name in 'xyz' and 3 not in list", json!(true)),
            ("1 < n <= 3", json!(true)),
            ("list|map('string')|join('-')|upper", json!("1-2")),
            ("list|sum", json!(3)),
            ("list|select('in', [2, 3])|list", json!([2])),
            ("'a,b'|split(',')|length", json!(2)),
            ("'aXbX'|replace('X', '--')", json!("a--b--")),
            ("[1, 2, 3]|batch(2, 0)|list", json!([[1, 2], [3, 0]])),
            ("{'a': [1]}|tojson", json!("{\"a\": [1]}")),
            ("list|length if name is startingwith('x') else 0", json!(2)),
            ("dict(a=1).a + range(4)|last", json!(4)),
        ] {
            assert_eq!(evaluator.value(expression, &context), Ok(value), "{expression}");
        }
        assert!(evaluator.value("name * name", &context).is_err());
        assert!(evaluator.value("none * 2", &context).is_err());
        assert!(evaluator.value("name * -1", &context).is_err());
    }

    #[test]
    fn names_and_paths() {
        let evaluator = Evaluator::default();
        let text = "sample.family == vars.a.b ~ x[y:z] * range(n)|map(attribute=k.l)|first";
        let names = evaluator.names(text).unwrap();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(names, ["k", "n", "range", "sample", "vars", "x", "y", "z"]);
        let paths = evaluator.paths(text).unwrap();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["k.l", "n", "range", "sample.family", "vars.a.b", "x", "y", "z"]
        );
    }

    /// Expressions made of everything that copies.
    fn any_expression() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let leaf = prop::sample::select(vec![
            "v",
            "list",
            "1",
            "1000",
            "1000000000",
            "'x'",
            "''",
            "[]",
            "range(1000)",
            "{'a': v}",
        ])
        .prop_map(str::to_owned);
        leaf.prop_recursive(6, 40, 3, |inner| {
            let operator = prop::sample::select(vec![" * ", " + ", " ~ ", " ** ", " in ", " == ", " and "]);
            let filter = prop::sample::select(vec![
                "list", "string", "join", "tojson", "reverse", "sort", "unique", "sum", "length", "upper",
                "items",
            ]);
            let with = prop::sample::select(vec![
                "join", "replace", "batch", "slice", "indent", "split", "chain", "zip", "default",
            ]);
            prop_oneof![
                (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("({a}{op}{b})")),
                (inner.clone(), filter.clone()).prop_map(|(a, filter)| format!("({a})|{filter}")),
                (inner.clone(), filter).prop_map(|(a, filter)| format!("({a})|map('{filter}')")),
                (inner.clone(), with.clone(), inner.clone())
                    .prop_map(|(a, filter, b)| format!("({a})|{filter}({b}, {b})")),
                (inner.clone(), with, inner.clone())
                    .prop_map(|(a, filter, b)| format!("({a})|map('{filter}', {b})")),
                prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            ]
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]
        #[test]
        fn whatever_is_made_is_bounded(expression in any_expression()) {
            let context = json!({"v": "x".repeat(1 << 16), "list": vec!["yy"; 1000]});
            let evaluator = Evaluator::default();
            if let Ok(value) = evaluator.value(&expression, &context) {
                let length = value.to_string().len() as u64;
                proptest::prop_assert!(length <= 6 * bounds::MAX_BYTES, "{length} bytes of {expression}");
            }
        }
    }
}
