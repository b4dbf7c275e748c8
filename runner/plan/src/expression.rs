//! Expressions: `when`, `where` and `${}`. One language (minijinja's), undefined names are errors, and work is bounded.
//!
//! Names of stages may hold `-`, which the language reads as minus; so `stages.<name>` is found first and its `-` become
//! `_`. Names of stages hold no `_`, so nothing is mixed up.

use std::collections::BTreeSet;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value as Json;

/// Steps an expression may take.
const FUEL: u64 = 200_000;
/// Greatest length of an expression.
const MAX_LENGTH: usize = 4096;

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
pub struct Evaluator {
    environment: Environment<'static>,
}

impl Default for Evaluator {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(50);
        environment.remove_global("debug");
        // It makes a text of any length out of a number, and no fuel is counted for that.
        environment.remove_filter("format");
        Self { environment }
    }
}

impl Evaluator {
    /// Whether the expression can be read.
    pub fn check(&self, expression: &str) -> Result<(), ExpressionError> {
        self.compile(expression).map(|_| ())
    }

    fn compile(&self, expression: &str) -> Result<minijinja::Expression<'_, 'static>, ExpressionError> {
        if expression.len() > MAX_LENGTH {
            return Err(ExpressionError(format!(
                "the expression is longer than {MAX_LENGTH} bytes"
            )));
        }
        let (rewritten, _) = scan(expression);
        self.environment
            .compile_expression_owned(rewritten)
            .map_err(|error| told(&error))
    }

    /// The names that an expression takes from its context.
    pub fn names(&self, expression: &str) -> Result<BTreeSet<String>, ExpressionError> {
        let compiled = self.compile(expression)?;
        Ok(compiled.undeclared_variables(false).into_iter().collect())
    }

    /// The same with what is asked of each: `sample.family`.
    pub fn paths(&self, expression: &str) -> Result<BTreeSet<String>, ExpressionError> {
        let compiled = self.compile(expression)?;
        Ok(compiled.undeclared_variables(true).into_iter().collect())
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
        let value = self
            .compile(expression)?
            .eval(Value::from(Serde(context)))
            .map_err(|error| told(&error))?;
        if value.is_undefined() {
            return Err(ExpressionError(format!(
                "`{}` is not defined here",
                expression.trim()
            )));
        }
        serde_json::to_value(&value).map_err(|error| ExpressionError(error.to_string()))
    }

    /// The truth of an expression. Anything but true and false is an error: a condition that is a text is a mistake.
    pub fn truth(&self, expression: &str, context: &Json) -> Result<bool, ExpressionError> {
        match self.value(expression, context)? {
            Json::Bool(value) => Ok(value),
            other => Err(ExpressionError(format!(
                "the condition is {other}, neither true nor false"
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
                Piece::Text(text) => out.push_str(text),
                Piece::Expression(expression) => match self.value(expression, context)? {
                    Json::String(text) => out.push_str(&text),
                    value @ (Json::Number(_) | Json::Bool(_)) => out.push_str(&value.to_string()),
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
}

fn told(error: &minijinja::Error) -> ExpressionError {
    let text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    ExpressionError(text)
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

/// Splits a text at its `${…}`. `$${` stands for the characters `${`.
pub fn pieces(text: &str) -> Result<Vec<Piece>, ExpressionError> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (head, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let inner = tail.strip_prefix("${").unwrap_or("");
        if let Some(head) = head.strip_suffix('$') {
            plain.push_str(head);
            plain.push_str("${");
            rest = inner;
            continue;
        }
        plain.push_str(head);
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
        assert_eq!(fill("${ {'a': '}'}['a'] }"), Ok(json!("}")));
        assert!(fill("a${list}").is_err());
        assert!(fill("${missing}").is_err());
        assert!(fill("${n").is_err());
    }

    #[test]
    fn work_is_bounded() {
        let evaluator = Evaluator::default();
        let long = "range(9999)|map('string')|list|length + ".repeat(50) + "1";
        assert!(evaluator.value(&long, &json!({})).is_err() || long.len() <= MAX_LENGTH);
        assert!(evaluator.check(&"(".repeat(4000)).is_err());
        assert!(evaluator.check(&"1+".repeat(3000)).is_err());
    }
}
