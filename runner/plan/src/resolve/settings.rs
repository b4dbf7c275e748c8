//! `with`, in its second pass: `${}` is filled in, and the values are read into the stage type's own struct.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Span, Spanned};
use hotcell_schema::persona::Persona;
use hotcell_schema::stage::{InspectWith, LinuxWith, NetworkMode, PayloadWith, RulesWith};
use serde::Serialize;
use serde_json::Value as Json;

use super::Shared;
use super::graph::Wired;
use crate::diagnostics::{Code, Diagnostic};
use crate::expression::{self, Piece};
use crate::files;
use crate::load;
use crate::plan::{Plan, RuleFile, RuleSet};
use crate::shipped;
use crate::sources::Sources;
use crate::tree::read::{ReadError, read};
use crate::tree::{self, Entry, Node, Value};

/// What `with` of an instance says.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    /// The struct, with every default.
    pub json: Json,
    /// Whether the stage type runs code of some architecture.
    pub runs: bool,
    /// Name of the arch profile that is asked for.
    pub arch: Option<String>,
    /// Key of the persona.
    pub persona: Option<String>,
    /// Key of the rule set.
    pub rules: Option<String>,
}

/// `with` of a stage, as far as it is the same for all of its instances.
pub(super) struct Settled<'a> {
    node: std::borrow::Cow<'a, Node>,
    /// Whether it has `${}`.
    open: bool,
    /// What was read, when it has none.
    read: Option<Read>,
    /// Mistakes that were told already.
    told: BTreeSet<(Span, String)>,
}

impl Settled<'_> {
    /// Whether it has to be read for each instance.
    pub(super) fn needs_context(&self) -> bool {
        self.open
    }
}

/// Everything that settings name: profiles, personas, rule sets, each once.
pub(super) struct Settings<'a> {
    shared: &'a Shared<'a>,
    pub profiles: BTreeMap<String, ArchProfile>,
    personas: BTreeMap<String, Persona>,
    rule_sets: BTreeMap<String, RuleSet>,
}

/// The typed struct of a stage type, and what all stage types have in common.
fn typed(uses: &str, node: &Node) -> Result<(Json, Names), ReadError> {
    fn json(value: &impl Serialize) -> Result<Json, ReadError> {
        serde_json::to_value(value).map_err(|error| ReadError {
            message: error.to_string(),
            span: None,
        })
    }
    let mut names = Names::default();
    let json = match uses {
        "inspect/elf" => json(&read::<InspectWith>(node)?)?,
        "unicorn/payload" => {
            let with: PayloadWith = read(node)?;
            names.arch = Some(with.arch.clone());
            names.runs = true;
            names.code = with.code.is_some();
            json(&with)?
        }
        "unicorn/linux" => {
            let with: LinuxWith = read(node)?;
            names.arch = with.arch.clone();
            names.runs = true;
            names.persona = Some(with.persona.clone().unwrap_or_else(|| "server".into()));
            names.sink = with.network == NetworkMode::Sink;
            json(&with)?
        }
        "detect/rules" => {
            let with: RulesWith = read(node)?;
            names.rules = Some(with.rules.clone());
            json(&with)?
        }
        other => {
            return Err(ReadError {
                message: format!("nothing reads the settings of `{other}`"),
                span: None,
            });
        }
    };
    Ok((json, names))
}

#[derive(Debug, Default)]
struct Names {
    runs: bool,
    arch: Option<String>,
    persona: Option<String>,
    rules: Option<Vec<String>>,
    sink: bool,
    code: bool,
}

impl<'a> Settings<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            profiles: BTreeMap::new(),
            personas: BTreeMap::new(),
            rule_sets: BTreeMap::new(),
        }
    }

    /// Puts everything that was named into the plan.
    pub(super) fn finish(self, plan: &mut Plan) {
        plan.profiles = self.profiles;
        plan.personas = self.personas;
        plan.rule_sets = self.rule_sets;
    }

    /// Looks at the settings of a stage.
    pub(super) fn stage(
        &mut self,
        wired: &Wired<'_>,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Settled<'a>> {
        let node = match self.shared.tree.at(&["stages", wired.name, "with"]) {
            Some(node) => std::borrow::Cow::Borrowed(node),
            None => std::borrow::Cow::Owned(Node::table(self.shared.tree.key_span(&["stages", wired.name]))),
        };
        let mut settled = Settled {
            open: has_expression(&node),
            node,
            read: None,
            told: BTreeSet::new(),
        };
        if !settled.open {
            settled.read = Some(self.read(wired, &mut settled, None, sources, problems)?);
        }
        Some(settled)
    }

    /// Reads the settings of an instance.
    pub(super) fn read(
        &mut self,
        wired: &Wired<'_>,
        settled: &mut Settled<'_>,
        context: Option<&Json>,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Read> {
        if let Some(read) = &settled.read {
            return Some(read.clone());
        }
        let mut mistakes = Vec::new();
        let filled = match context {
            Some(context) => self.filled(&settled.node, context, &mut mistakes),
            None => None,
        };
        let node: &Node = filled.as_ref().unwrap_or(&settled.node);
        let read = if mistakes.is_empty() {
            self.typed(wired, node, sources, &mut mistakes)
        } else {
            None
        };
        // The same mistake in each of a thousand instances is one mistake.
        mistakes.retain(|mistake| {
            settled
                .told
                .insert((mistake.span().unwrap_or_default(), mistake.title.clone()))
        });
        problems.append(&mut mistakes);
        read
    }

    fn typed(
        &mut self,
        wired: &Wired<'_>,
        node: &Node,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Read> {
        let (json, names) = match typed(wired.stage_type.name, node) {
            Ok(read) => read,
            Err(error) => {
                let span = error.span.unwrap_or(node.span);
                problems.push(Diagnostic::error(
                    Code::WrongType,
                    span,
                    format!("`with` of `{}`: {error}", wired.name),
                ));
                return None;
            }
        };
        let at = |key: &str| node.get(key).map_or(node.span, |value| value.span);
        let before = problems.len();
        let mut read = Read {
            json,
            runs: names.runs,
            ..Read::default()
        };
        if let Some(name) = names.arch {
            match self.shared.profiles.find(&name) {
                Some(profile) => read.arch = Some(profile.name.clone()),
                None if name.is_empty() => problems.push(
                    Diagnostic::error(
                        Code::UnknownProfile,
                        node.span,
                        format!("`with` of `{}` does not say the architecture", wired.name),
                    )
                    .help("write `with.arch = \"<arch profile>\"`, for instance \"mipsel\""),
                ),
                None => {
                    let diagnostic = Diagnostic::error(
                        Code::UnknownProfile,
                        at("arch"),
                        format!("there is no arch profile `{name}`"),
                    )
                    .did_you_mean(&name, self.shared.profiles.names());
                    let all: Vec<&str> = self
                        .shared
                        .profiles
                        .all()
                        .iter()
                        .map(|profile| profile.name.as_str())
                        .collect();
                    problems.push(match diagnostic.help {
                        Some(_) => diagnostic,
                        None => diagnostic.help(format!("arch profiles: {}", all.join(", "))),
                    });
                }
            }
        }
        if names.sink {
            problems.push(
                Diagnostic::error(
                    Code::NotYet,
                    at("network"),
                    "the simulated internet is not there yet",
                )
                .help("leave `network` out: sockets are then refused"),
            );
        }
        if wired.stage_type.name == "unicorn/payload" && names.code == wired.stage.inputs.contains_key("code")
        {
            let text = if names.code {
                "both `with.code` and `in.code` hold the code"
            } else {
                "neither `with.code` nor `in.code` holds the code"
            };
            problems.push(
                Diagnostic::error(Code::MissingInput, node.span, text).help("give it in one of the two ways"),
            );
        }
        if let Some(name) = names.persona {
            read.persona = self.persona(&name, at("persona"), sources, problems);
        }
        if let Some(globs) = names.rules {
            read.rules = self.rules(&globs, node.get("rules"), sources, problems);
        }
        (problems.len() == before).then_some(read)
    }

    /// A copy of the tree with every `${}` filled in.
    fn filled(&self, node: &Node, context: &Json, problems: &mut Vec<Diagnostic>) -> Option<Node> {
        let value = match &node.value {
            Value::Text(text) if text.contains("${") => {
                let pieces = match expression::pieces(text) {
                    Ok(pieces) => pieces,
                    Err(error) => {
                        problems.push(
                            Diagnostic::error(Code::Expression, node.span, error.to_string())
                                .help("write `$${` for the characters `${`"),
                        );
                        return None;
                    }
                };
                let later = pieces.iter().any(
                    |piece| matches!(piece, Piece::Expression(text) if !expression::reads(text).is_empty()),
                );
                if later {
                    problems.push(
                        Diagnostic::error(
                            Code::NotYet,
                            node.span,
                            "settings cannot use the results of other stages yet",
                        )
                        .help("`when` can; settings can use the axes of their stage"),
                    );
                    return None;
                }
                return match self.shared.evaluator.fill(&pieces, context) {
                    Ok(value) => Some(from_json(&value, node.span)),
                    Err(error) => {
                        let known: Vec<&str> = context
                            .as_object()
                            .into_iter()
                            .flat_map(|names| names.keys())
                            .map(String::as_str)
                            .collect();
                        problems.push(
                            Diagnostic::error(
                                Code::Expression,
                                node.span,
                                format!("this cannot be filled in: {error}"),
                            )
                            .help(format!("known here: {}", known.join(", "))),
                        );
                        None
                    }
                };
            }
            Value::List(items) => Value::List(
                items
                    .iter()
                    .filter_map(|item| self.filled(item, context, problems))
                    .collect(),
            ),
            Value::Table(table) => Value::Table(
                table
                    .iter()
                    .filter_map(|(key, entry)| {
                        let node = self.filled(&entry.node, context, problems)?;
                        Some((key.clone(), Entry { key: entry.key, node }))
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Some(Node {
            span: node.span,
            value,
        })
    }

    fn persona(
        &mut self,
        name: &str,
        span: Span,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let is_file = name.contains('/') || name.ends_with(".toml");
        // Paths count from the file that names them, so the same text can mean two files.
        let key = if is_file {
            load::join(sources.folder(span.file), Utf8Path::new(name)).into_string()
        } else {
            name.to_owned()
        };
        if self.personas.contains_key(&key) {
            return Some(key);
        }
        let (file, text) = if is_file {
            let path = load::inside(sources.folder(span.file), name)
                .map_err(|text| problems.push(Diagnostic::error(Code::OutsideFolder, span, text)))
                .ok()?;
            let text = load::read_text(&path)
                .map_err(|problem| {
                    problems.push(Diagnostic::error(Code::UnknownPersona, span, problem.title))
                })
                .ok()?;
            (sources.add(path, text.clone()), text)
        } else {
            let all = shipped::personas();
            let Some(found) = all.iter().find(|file| file.name == name) else {
                let known: Vec<&str> = all.iter().map(|file| file.name).collect();
                let diagnostic = Diagnostic::error(
                    Code::UnknownPersona,
                    span,
                    format!("there is no persona `{name}`"),
                )
                .did_you_mean(name, known.iter().copied());
                problems.push(match diagnostic.help {
                    Some(_) => diagnostic,
                    None => diagnostic.help(format!(
                        "shipped personas: {}; a file ends in .toml",
                        known.join(", ")
                    )),
                });
                return None;
            };
            (
                sources.add(format!("shipped:{}", found.path), found.text.into()),
                found.text.to_owned(),
            )
        };
        let node = tree::toml::parse(file, &text, problems)?;
        match read::<Persona>(&node) {
            Ok(persona) => {
                self.personas.insert(key.clone(), persona);
                Some(key)
            }
            Err(error) => {
                let span = error.span.unwrap_or(node.span);
                problems.push(Diagnostic::error(
                    Code::WrongType,
                    span,
                    format!("this is no persona: {error}"),
                ));
                None
            }
        }
    }

    fn rules(
        &mut self,
        own: &[String],
        node: Option<&Node>,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let behaviour = &self.shared.manifest.rules.behaviour;
        let globs: Vec<Spanned<String>> = if own.is_empty() {
            behaviour.clone()
        } else {
            let places = node.and_then(|node| match &node.value {
                Value::List(items) => Some(items.iter().map(|item| item.span).collect::<Vec<_>>()),
                _ => None,
            });
            let place = |index: usize| {
                let list = node.map(|node| node.span).unwrap_or_default();
                places
                    .as_ref()
                    .and_then(|places| places.get(index))
                    .copied()
                    .unwrap_or(list)
            };
            own.iter()
                .enumerate()
                .map(|(index, glob)| Spanned::new(glob.clone(), place(index)))
                .collect()
        };
        if globs.is_empty() {
            if !self.rule_sets.contains_key("shipped") {
                let files = shipped::rules()
                    .into_iter()
                    .map(|file| rule_file(format!("shipped:{}", file.name), file.text.to_owned()));
                self.rule_sets.insert("shipped".into(), rule_set(files.collect()));
            }
            return Some("shipped".into());
        }
        let key = globs
            .iter()
            .map(|glob| load::join(sources.folder(glob.span.file), Utf8Path::new(&glob.value)).into_string())
            .collect::<Vec<_>>()
            .join(", ");
        if self.rule_sets.contains_key(&key) {
            return Some(key);
        }
        let before = problems.len();
        let mut files: Vec<RuleFile> = Vec::new();
        for glob in &globs {
            let folder = sources.folder(glob.span.file).to_owned();
            let found = match files::matching(&folder, glob) {
                Ok(found) => found,
                Err(error) => {
                    let code = match error {
                        files::FileError::Pattern { .. } => Code::WrongPattern,
                        files::FileError::Outside(_) => Code::OutsideFolder,
                        _ => Code::CannotRead,
                    };
                    problems.push(Diagnostic::error(code, glob.span, error.to_string()));
                    continue;
                }
            };
            if found.is_empty() {
                problems.push(
                    Diagnostic::error(Code::NoMatch, glob.span, format!("no rule file fits `{glob}`"))
                        .help("patterns count from the folder of the document that names them"),
                );
            }
            for path in found {
                let shown = path
                    .strip_prefix(&self.shared.loaded.folder)
                    .unwrap_or(&path)
                    .to_string();
                if files.iter().any(|file| file.path == shown) {
                    continue;
                }
                match load::read_text(&path) {
                    Ok(text) => files.push(rule_file(shown, text)),
                    Err(problem) => {
                        problems.push(Diagnostic::error(Code::CannotRead, glob.span, problem.title))
                    }
                }
            }
        }
        if problems.len() != before {
            return None;
        }
        self.rule_sets.insert(key.clone(), rule_set(files));
        Some(key)
    }
}

fn rule_file(path: String, text: String) -> RuleFile {
    RuleFile {
        path,
        digest: Digest::of(text.as_bytes()),
        text,
    }
}

fn rule_set(files: Vec<RuleFile>) -> RuleSet {
    let parts = files
        .iter()
        .flat_map(|file| [file.path.as_bytes(), file.digest.as_bytes().as_slice()]);
    RuleSet {
        digest: Digest::of_parts(parts),
        files,
    }
}

fn has_expression(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => text.contains("${"),
        Value::List(items) => items.iter().any(has_expression),
        Value::Table(table) => table.values().any(|entry| has_expression(&entry.node)),
        _ => false,
    }
}

/// JSON as a tree: everything stands where the expression stands.
fn from_json(value: &Json, span: Span) -> Node {
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(number)) => Value::Float(number),
            (None, None) => Value::Null,
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(|item| from_json(item, span)).collect()),
        Json::Object(table) => Value::Table(
            table
                .iter()
                .map(|(key, value)| {
                    (
                        key.clone(),
                        Entry {
                            key: span,
                            node: from_json(value, span),
                        },
                    )
                })
                .collect(),
        ),
    };
    Node { span, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotcell_schema::stage::STAGE_TYPES;

    #[test]
    fn every_stage_type_has_a_reader() {
        for stage_type in STAGE_TYPES {
            let node = Node::table(Span::default());
            assert!(typed(stage_type.name, &node).is_ok(), "{}", stage_type.name);
        }
    }
}
