//! The document against the schema: every mistake at once, each at its place.
//!
//! | module | what it does |
//! |---|---|
//! | [`quick`] | whether a tree fits a schema, without a copy of it and without words |

mod quick;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use hotcell_schema::manifest::stages::SIGNALS;
use hotcell_schema::manifest::units::UnitError;
use hotcell_schema::manifest::{Size, Time};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::stage::outcome_limits;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value as Json;

use crate::diagnostics::{Code, Diagnostic, nearest};
use crate::near::Near;
use crate::schemas;
use crate::tree::{Node, Value};

/// Greatest number of mistakes that are told.
const MAX_TOLD: usize = 200;

static SCHEMA: LazyLock<Json> = LazyLock::new(schemas::filled_manifest);
/// Absent only if the generated schema were not a schema, which a test refuses.
static VALIDATOR: LazyLock<Option<Validator>> = LazyLock::new(|| jsonschema::validator_for(&SCHEMA).ok());
/// Absent only if the generated schema had a keyword that is not known there, which a test refuses.
static QUICK: LazyLock<Option<quick::Schema>> = LazyLock::new(|| quick::Schema::compile(&SCHEMA));

/// A mistake and the keys that lead to it.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// What is wrong.
    pub diagnostic: Diagnostic,
    /// The path of the value.
    pub path: Vec<String>,
    /// For an unknown key: the table, and the key that was probably meant.
    meant: Option<(Vec<String>, String)>,
    /// For a missing key: the table, and the key.
    missing: Option<(Vec<String>, String)>,
}

impl Mistake {
    fn new(diagnostic: Diagnostic, path: Vec<String>) -> Self {
        Self {
            diagnostic,
            path,
            meant: None,
            missing: None,
        }
    }

    /// For an unknown key, the one that was probably meant.
    pub(crate) fn meant(&self) -> Option<&str> {
        self.meant.as_ref().map(|(_, key)| key.as_str())
    }

    /// The key that is missing.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.as_ref().map(|(_, key)| key.as_str())
    }

    /// Whether it is a key that there is not.
    pub(crate) fn is_unknown_key(&self) -> bool {
        self.diagnostic.code == Code::UnknownKey.as_str()
    }
}

/// Whether a manifest has no mistake.
pub(crate) fn fits(root: &Node) -> bool {
    QUICK.as_ref().is_some_and(|schema| schema.fits(root))
}

/// Whether an entry of a section (`stages`, `samples`, `sources`) has no mistake.
pub(crate) fn entry_fits(section: &str, name: &str, node: &Node) -> bool {
    QUICK
        .as_ref()
        .is_some_and(|schema| schema.entry_fits(section, name, node))
}

/// Checks a manifest.
pub(crate) fn manifest(root: &Node) -> Vec<Mistake> {
    let json = root.to_json();
    let Some(validator) = VALIDATOR.as_ref() else {
        return Vec::new();
    };
    let near = Near::default();
    let mut mistakes = Vec::new();
    for error in validator.iter_errors(&json).take(MAX_TOLD) {
        tell(root, &error, &near, &mut mistakes);
    }
    // A key that is misspelt is not missing too.
    let meant: BTreeSet<_> = mistakes
        .iter()
        .filter_map(|mistake| mistake.meant.clone())
        .collect();
    mistakes.retain(|mistake| {
        mistake
            .missing
            .as_ref()
            .is_none_or(|missing| !meant.contains(missing))
    });
    mistakes.sort_by_key(|mistake| mistake.diagnostic.span());
    mistakes.dedup_by(|a, b| {
        a.diagnostic.span() == b.diagnostic.span() && a.diagnostic.title == b.diagnostic.title
    });
    mistakes
}

fn path_of(error: &ValidationError<'_>) -> Vec<String> {
    error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// The value at a path, and the place to point at.
fn find<'a>(root: &'a Node, path: &[String]) -> (&'a Node, hotcell_schema::manifest::Span) {
    let mut node = root;
    let mut span = root.span;
    for key in path {
        match &node.value {
            Value::Table(table) => match table.get(key) {
                Some(entry) => {
                    node = &entry.node;
                    span = match node.value {
                        Value::Table(_) => entry.key,
                        _ => node.span,
                    };
                }
                None => break,
            },
            Value::List(items) => match key.parse::<usize>().ok().and_then(|index| items.get(index)) {
                Some(item) => {
                    node = item;
                    span = item.span;
                }
                None => break,
            },
            _ => break,
        }
    }
    (node, span)
}

/// The schema that holds the keyword which failed.
fn schema_of(error: &ValidationError<'_>) -> Option<&'static Json> {
    let path = error.schema_path().as_str();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    SCHEMA.pointer(parent)
}

fn description(error: &ValidationError<'_>) -> Option<String> {
    let text = schema_of(error)?.get("description")?.as_str()?;
    Some(text.split("\n\n").next().unwrap_or(text).replace('\n', " "))
}

/// Adds what the value is, for those who do not know the key.
fn about(diagnostic: Diagnostic, error: &ValidationError<'_>) -> Diagnostic {
    match description(error) {
        Some(about) => diagnostic.help(format!("this is: {about}")),
        None => diagnostic,
    }
}

fn tell(root: &Node, error: &ValidationError<'_>, near: &Near, mistakes: &mut Vec<Mistake>) {
    let path = path_of(error);
    let (node, span) = find(root, &path);
    let steps: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut add = |diagnostic: Diagnostic, path: Vec<String>| mistakes.push(Mistake::new(diagnostic, path));
    let found = shown(node);
    // Variables were filled in before; axes and samples are known in settings alone.
    if let (Some(text), false) = (
        node.as_text(),
        matches!(steps.as_slice(), ["stages", _, "with", ..] | ["variants", ..]),
    ) && text.contains("${")
    {
        let (why, help) = match text.contains("${vars.") {
            true => ("it has to be written out", "variables stand for values within it"),
            false => (
                "only variables are filled in outside of `with`",
                "write `${vars.<name>}`; axes and samples can stand in `with`",
            ),
        };
        let title = format!("{found} cannot stand here: {why}");
        return add(Diagnostic::error(Code::WrongForm, span, title).help(help), path);
    }
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known: Vec<&str> = schema_of(error)
                .and_then(|schema| schema.get("properties")?.as_object())
                .into_iter()
                .flat_map(|properties| properties.keys())
                .map(String::as_str)
                .collect();
            let in_port = matches!(steps.as_slice(), ["stages", _, "in"]);
            let table = path.clone();
            for key in unexpected {
                let (code, title) = if in_port {
                    (Code::UnknownPort, format!("the stage type has no input `{key}`"))
                } else {
                    (
                        Code::UnknownKey,
                        format!("unknown key `{key}`{}", place_name(&steps)),
                    )
                };
                let mut path = path.clone();
                path.push(key.clone());
                let span = node
                    .as_table()
                    .and_then(|table| table.get(key))
                    .map_or(span, |entry| entry.key);
                let meant = near.find(key, known.iter().copied());
                let diagnostic = Diagnostic::error(code, span, title);
                let diagnostic = match meant {
                    Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
                    None if known.is_empty() => diagnostic,
                    None => diagnostic.help(format!("known here: {}", known.join(", "))),
                };
                let meant = meant.map(|name| (table.clone(), name.to_owned()));
                mistakes.push(Mistake {
                    meant,
                    ..Mistake::new(diagnostic, path)
                });
            }
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let diagnostic = match steps.as_slice() {
                ["stages", name, "in"] => Diagnostic::error(
                    Code::MissingInput,
                    span,
                    format!("the input `{key}` of stage `{name}` is not wired"),
                )
                .help(format!(
                    "write `in.{key} = \"${{sample.file}}\"`, or the output of a stage"
                )),
                ["stages", name] if key == "in" => Diagnostic::error(
                    Code::MissingInput,
                    span,
                    format!("no input of stage `{name}` is wired"),
                )
                .help("write `in.file = \"${sample.file}\"`, or the output of a stage"),
                _ => {
                    let title = format!("the key `{key}` is missing{}", place_name(&steps));
                    let diagnostic = Diagnostic::error(Code::MissingKey, span, title);
                    match (steps.as_slice(), key) {
                        (["stages", _, "with"], "run") => diagnostic.help(RUN),
                        (["stages", _], "with") => diagnostic.help(format!("for a command, {}", WITH_RUN)),
                        _ => diagnostic,
                    }
                }
            };
            let missing = Some((path.clone(), key.to_owned()));
            mistakes.push(Mistake {
                missing,
                ..Mistake::new(diagnostic, path)
            });
        }
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(one) => type_words(&one.to_string()).to_owned(),
                TypeKind::Multiple(many) => {
                    let words: Vec<String> = many
                        .iter()
                        .map(|one| one.to_string())
                        .filter(|name| name != "null")
                        .map(|name| type_words(&name).to_owned())
                        .collect();
                    words.join(" or ")
                }
            };
            if is_secret(&steps) && matches!(node.value, Value::Text(_) | Value::Integer(_) | Value::Float(_))
            {
                return add(literal_secret(span, &steps), path);
            }
            let mut diagnostic = Diagnostic::error(
                Code::WrongType,
                span,
                format!("expected {expected}, found {found}"),
            );
            if let Some(about) = description(error) {
                diagnostic = diagnostic.help(format!("this is: {about}"));
            }
            add(diagnostic, path);
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<&str> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_str)
                .collect();
            let wrong = node.as_text().unwrap_or_default();
            let diagnostic = if matches!(steps.as_slice(), ["stages", _, "uses"]) {
                unknown_stage_type(span, wrong, &options)
            } else {
                one_of(span, &found, wrong, &options)
            };
            add(diagnostic, path);
        }
        ValidationErrorKind::Constant { expected_value } => {
            add(
                Diagnostic::error(
                    Code::WrongValue,
                    span,
                    format!("expected {expected_value}, found {found}"),
                ),
                path,
            );
        }
        ValidationErrorKind::Pattern { .. } if is_mirror(&steps) && found.contains('@') => {
            let title = "an address with a user or a password: whoever reads the manifest knows it";
            let help = "a mirror that asks for a password cannot be used; take its files as `path`";
            add(
                Diagnostic::error(Code::LiteralSecret, span, title).help(help),
                path.clone(),
            );
        }
        ValidationErrorKind::Pattern { .. } if matches!(steps.as_slice(), ["secrets", _, "env"]) => {
            // It may be the secret itself.
            let title = "this is not the name of an environment variable";
            let help = "a name holds letters, digits and `_`, and does not begin with a digit";
            add(
                Diagnostic::error(Code::WrongForm, span, title).help(help),
                path.clone(),
            );
        }
        ValidationErrorKind::Pattern { .. } if matches!(steps.as_slice(), ["expect", _, "outcome"]) => {
            add(outcome(span, node.as_text().unwrap_or_default()), path.clone());
        }
        ValidationErrorKind::Pattern { .. } if is_too_large(node, error) => {
            let title = format!("{found} is too large");
            add(
                about(Diagnostic::error(Code::OutOfRange, span, title), error),
                path.clone(),
            );
        }
        ValidationErrorKind::Pattern { pattern } => {
            let wanted = description(error).unwrap_or_else(|| format!("a text like {pattern}"));
            add(
                Diagnostic::error(
                    Code::WrongForm,
                    span,
                    format!("{found} does not have the needed form"),
                )
                .help(format!("expected: {wanted}")),
                path,
            );
        }
        ValidationErrorKind::PropertyNames { error: inner } => {
            let key = inner.instance().as_str().unwrap_or_default().to_owned();
            let span = node
                .as_table()
                .and_then(|table| table.get(&key))
                .map_or(span, |entry| entry.key);
            let shown: String = key.chars().take(60).collect();
            let diagnostic = Diagnostic::error(Code::WrongName, span, format!("`{shown}` is not a name{}", place_name(&steps)))
                .help(match steps.as_slice() {
                    ["stages", _, "with", "env"] => "a name of the environment is not empty, and holds neither `=` nor control characters",
                    ["stages", _, "in"] => "names of inputs begin with a lower-case letter and hold lower-case letters, digits, `-` and `_`",
                    _ => "names begin with a lower-case letter and hold lower-case letters, digits and `-` (axes and variables: `_`; sources: both)",
                });
            let mut path = path;
            path.push(key);
            add(diagnostic, path);
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            alternatives(root, error, context, path, near, mistakes);
        }
        ValidationErrorKind::Minimum { limit } | ValidationErrorKind::ExclusiveMinimum { limit } => {
            let title = format!("{found} is less than {limit}");
            add(
                about(Diagnostic::error(Code::OutOfRange, span, title), error),
                path,
            );
        }
        ValidationErrorKind::Maximum { limit } | ValidationErrorKind::ExclusiveMaximum { limit } => {
            let title = format!("{found} is more than {limit}");
            add(
                about(Diagnostic::error(Code::OutOfRange, span, title), error),
                path,
            );
        }
        ValidationErrorKind::MinItems { limit } => add(too_few(span, &steps, *limit), path),
        ValidationErrorKind::MinLength { .. } if steps.ends_with(&["with", "run", "0"]) => {
            let name = steps.get(1).copied().unwrap_or_default();
            add(no_program(span, name), path);
        }
        _ => add(Diagnostic::error(Code::Invalid, span, error.to_string()), path),
    }
}

/// No alternative fits. The one that fits best (it fails deepest) says what is wrong; else the known values are listed.
fn alternatives(
    root: &Node,
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    path: Vec<String>,
    near: &Near,
    mistakes: &mut Vec<Mistake>,
) {
    let (node, span) = find(root, &path);
    let depth =
        |errors: &[ValidationError<'_>]| errors.iter().map(|error| path_of(error).len()).max().unwrap_or(0);
    // `null` stands for "absent" in generated schemas, and `${}` for anything: neither says what was meant.
    let meant = |errors: &&Vec<ValidationError<'static>>| {
        !errors.iter().any(|error| match error.kind() {
            ValidationErrorKind::Type {
                kind: TypeKind::Single(one),
            } => one.to_string() == "null",
            ValidationErrorKind::Pattern { pattern } => pattern == "\\$\\{",
            _ => false,
        }) && !errors
            .iter()
            .all(|error| error.schema_path().as_str().starts_with("/$defs/Expression"))
    };
    let constants: Vec<String> = context
        .iter()
        .flatten()
        .filter_map(|error| match error.kind() {
            ValidationErrorKind::Constant { expected_value } => expected_value.as_str().map(str::to_owned),
            _ => None,
        })
        .collect();
    if !constants.is_empty() && constants.len() == context.len() {
        let options: Vec<&str> = constants.iter().map(String::as_str).collect();
        let diagnostic = one_of(span, &shown(node), node.as_text().unwrap_or_default(), &options);
        mistakes.push(Mistake::new(diagnostic, path));
        return;
    }
    // An empty list is a list: what it has to hold is what is wrong.
    let few = context.iter().flatten().find_map(|error| match error.kind() {
        ValidationErrorKind::MinItems { limit } if path_of(error) == path => Some(*limit),
        _ => None,
    });
    if let (Some(limit), Value::List(_)) = (few, &node.value) {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        let diagnostic = too_few(span, &steps, limit);
        mistakes.push(Mistake::new(diagnostic, path));
        return;
    }
    let candidates: Vec<&Vec<ValidationError<'static>>> = context.iter().filter(meant).collect();
    let deepest = candidates.iter().max_by_key(|errors| depth(errors));
    match (deepest, candidates.as_slice()) {
        (Some(only), [_]) => only.iter().for_each(|error| tell(root, error, near, mistakes)),
        (Some(best), _) if depth(best) > path.len() => {
            best.iter().for_each(|error| tell(root, error, near, mistakes))
        }
        _ => {
            let mut diagnostic = Diagnostic::error(
                Code::Invalid,
                span,
                format!("{} fits none of the forms this may have", shown(node)),
            );
            if let Some(about) = description(error) {
                diagnostic = diagnostic.help(format!("expected: {about}"));
            }
            mistakes.push(Mistake::new(diagnostic, path));
        }
    }
}

const RUN: &str = "write `run = [\"python3\", \"analyse.py\"]`";
const WITH_RUN: &str = "write `with.run = [\"python3\", \"analyse.py\"]`";

/// A list that is too short.
fn too_few(span: hotcell_schema::manifest::Span, steps: &[&str], least: u64) -> Diagnostic {
    match steps {
        ["stages", _, "for-each", axis] | ["stages", _, "for-each", axis, "over"] => Diagnostic::error(
            Code::OutOfRange,
            span,
            format!("the axis `{axis}` has no values, so nothing would be done"),
        )
        .help("give it values, or a set of samples: `\"samples.<set>\"`"),
        ["stages", name, "in", port] => Diagnostic::error(
            Code::MissingInput,
            span,
            format!("nothing is wired to the input `{port}` of stage `{name}`"),
        )
        .help(format!(
            "write `in.{port} = \"${{sample.file}}\"`, or the output of a stage"
        )),
        ["stages", name, "with", "run"] => no_program(span, name),
        _ => Diagnostic::error(
            Code::OutOfRange,
            span,
            format!("the list has less than {least} values"),
        ),
    }
}

/// A command without a program.
pub(crate) fn no_program(span: hotcell_schema::manifest::Span, stage: &str) -> Diagnostic {
    let title = format!("`with.run` of `{stage}` names no program");
    Diagnostic::error(Code::MissingKey, span, title).help(RUN)
}

/// Whether a duration or size has the right form, and is more than there can be.
fn is_too_large(node: &Node, error: &ValidationError<'_>) -> bool {
    let text = node.as_text().unwrap_or_default();
    let large = |error: UnitError| matches!(error, UnitError::TooLarge(_));
    match description(error) {
        Some(about) if about.starts_with("a duration") => text.parse::<Time>().is_err_and(large),
        Some(about) if about.starts_with("a size") => text.parse::<Size>().is_err_and(large),
        _ => false,
    }
}

/// An outcome that no sample can have.
fn outcome(span: hotcell_schema::manifest::Span, wrong: &str) -> Diagnostic {
    let shown: String = wrong.chars().take(60).collect();
    let diagnostic = Diagnostic::error(
        Code::WrongValue,
        span,
        format!("`{shown}` is no outcome that a sample can have"),
    );
    let (kind, rest) = wrong.split_once(' ').unwrap_or((wrong, ""));
    let known: Vec<&str> = match kind {
        "exited" => return diagnostic.help("a program exits with 0 to 255: `exited 0`"),
        "signalled" => SIGNALS.to_vec(),
        "limit" => outcome_limits().to_vec(),
        "faulted" | "unsupported" => {
            return diagnostic.help(format!(
                "write `{kind}` alone, or `{kind}: …` as a report says it"
            ));
        }
        "completed" => return diagnostic.help("write `completed` alone"),
        _ => {
            let near = nearest(kind, Outcome::KINDS);
            return diagnostic.help(match (near, rest) {
                (Some(near), "") => format!("did you mean `{near}`?"),
                (Some(near), rest) => format!("did you mean `{near} {rest}`?"),
                (None, _) => format!("it begins with one of: {}", Outcome::KINDS.join(", ")),
            });
        }
    };
    let whole = format!("SIG{rest}");
    let near = known
        .iter()
        .copied()
        .find(|name| **name == *whole || name.eq_ignore_ascii_case(rest));
    diagnostic.help(match near.or_else(|| nearest(rest, known.iter().copied())) {
        Some(near) => format!("did you mean `{kind} {near}`?"),
        None => format!("write `{kind}` alone, or one of: {}", known.join(", ")),
    })
}

fn is_mirror(steps: &[&str]) -> bool {
    matches!(steps, ["sources", _, "mirror"])
}

/// Whether a secret is named here.
fn is_secret(steps: &[&str]) -> bool {
    matches!(steps, ["secrets", _] | ["sources", _, "password", ..])
}

pub(crate) fn literal_secret(span: hotcell_schema::manifest::Span, steps: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::error(
        Code::LiteralSecret,
        span,
        "a secret is written out: whoever reads the manifest knows it",
    );
    match steps {
        ["sources", ..] => diagnostic.help(
            "name it, `{ secret = \"vault-pw\" }`, and say where it is read: `secrets.vault-pw.env = \"VAULT_PW\"`",
        ),
        _ => diagnostic.help("say where it is read: `file`, `command` or `env`"),
    }
}

fn one_of(span: hotcell_schema::manifest::Span, found: &str, wrong: &str, options: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::error(
        Code::WrongValue,
        span,
        format!("{found} is not among the allowed values"),
    );
    match nearest(wrong, options.iter().copied()) {
        Some(name) => diagnostic.help(format!("did you mean `{name}`? allowed: {}", options.join(", "))),
        None => diagnostic.help(format!("allowed: {}", options.join(", "))),
    }
}

/// Stage types that the design names and this version does not have.
const LATER: &[&str] = &[
    "qemu-system/",
    "detect/cluster",
    "inspect/pe",
    "inspect/archive",
    "report/",
];

fn unknown_stage_type(span: hotcell_schema::manifest::Span, wrong: &str, options: &[&str]) -> Diagnostic {
    if LATER.iter().any(|later| wrong.starts_with(later)) {
        return Diagnostic::error(
            Code::NotYet,
            span,
            format!("the stage type `{wrong}` is not there yet"),
        )
        .help(format!("stage types of this version: {}", options.join(", ")));
    }
    let diagnostic = Diagnostic::error(
        Code::UnknownStageType,
        span,
        format!("unknown stage type `{wrong}`"),
    );
    match nearest(wrong, options.iter().copied()) {
        Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
        None => diagnostic.help(format!("stage types: {}", options.join(", "))),
    }
}

/// ` in stages.run`, for titles.
fn place_name(steps: &[&str]) -> String {
    if steps.is_empty() {
        String::new()
    } else {
        let mut name = String::new();
        for step in steps {
            if step.bytes().all(|byte| byte.is_ascii_digit()) {
                name.push_str(&format!("[{step}]"));
            } else {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(step);
            }
        }
        format!(" in `{name}`")
    }
}

fn type_words(name: &str) -> &str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "a boolean",
        "array" => "a list",
        "object" => "a table",
        other => other,
    }
}

/// A value in a few words.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => {
            let short: String = text.chars().take(60).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("the text `{short}{more}`")
        }
        Value::Integer(value) => format!("the number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::Boolean(value) => format!("the boolean {value}"),
        other => other.kind().to_owned(),
    }
}
