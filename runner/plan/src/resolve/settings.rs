//! `with`, in its second pass: `${}` is filled in, and the values are read into the stage type's own struct.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use camino::Utf8PathBuf;

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::command::{CommandWith, OutputPlace};
use hotcell_schema::digest::Digest;
use hotcell_schema::internet::{InternetWith, NetworkMode};
use hotcell_schema::manifest::{Span, Spanned};
use hotcell_schema::persona::Persona;
use hotcell_schema::stage::{
    CompareWith, InspectWith, LinuxWith, PayloadWith, PortType, QemuUserWith, RulesWith,
};
use serde::Serialize;
use serde_json::Value as Json;

use super::Shared;
use super::graph::Wired;
use super::guest;
use super::live;
use super::named::{self, OwnKey};
use super::sysroots::{self, Wanted};
use crate::check;
use crate::diagnostics::{Code, Diagnostic};
use crate::expression::{self, Piece};
use crate::files::FileError;
use crate::plan::{FileSet, Plan, RuleSet};
use crate::sources::Sources;
use crate::tree::read::{ReadError, read};
use crate::tree::{Entry, Node, Value};
use crate::with::With;
use crate::words;

/// What `with` of an instance says.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    /// The struct, with every default.
    pub with: With,
    /// Whether the stage type runs code of some architecture.
    pub runs: bool,
    /// Name of the arch profile that is asked for.
    pub arch: Option<String>,
    /// Key of the persona.
    pub persona: Option<String>,
    /// Key of the rule set.
    pub rules: Option<String>,
    /// Key of the program's own files.
    pub files: Option<String>,
    /// Key of the guest's root.
    pub sysroot: Option<String>,
    /// Key of what web servers give.
    pub web: Option<String>,
    /// Whether something in it is known at run time only: `with` is then as it is written.
    pub late: bool,
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
    /// How many different mistakes of a kind were met at a place.
    met: HashMap<(Span, &'static str), usize>,
}

/// Different mistakes of one kind at one place that are told.
const MAX_MISTAKES: usize = 4;

impl Settled<'_> {
    /// Whether it has to be read for each instance.
    pub(super) fn needs_context(&self) -> bool {
        self.open
    }

    /// How many expressions and bytes each instance has of its own.
    pub(super) fn weight(&self) -> (usize, usize) {
        fn each(node: &Node, all: &mut (usize, usize)) {
            match &node.value {
                Value::Text(text) => {
                    all.0 += text.matches("${").count();
                    all.1 += text.len();
                }
                Value::List(items) => items.iter().for_each(|item| each(item, all)),
                Value::Table(table) => table.iter().for_each(|(key, entry)| {
                    all.1 += key.len();
                    each(&entry.node, all);
                }),
                _ => {}
            }
            all.1 += 8;
        }
        let mut all = (0, 0);
        if self.open {
            each(&self.node, &mut all);
        }
        all
    }

    /// Whether a mistake is to be told: the same in each of a thousand instances is one mistake, and of a thousand that differ
    /// in a value the first few say it all.
    fn is_new(&mut self, mistake: &Diagnostic) -> bool {
        let span = mistake.span().unwrap_or_default();
        let met = self.met.entry((span, mistake.code)).or_default();
        if *met >= MAX_MISTAKES {
            *met += 1;
            return false;
        }
        let new = self.told.insert((span, mistake.title.clone()));
        *met += usize::from(new);
        new
    }

    /// Tells how many mistakes were not told one by one.
    pub(super) fn tell_more(self, problems: &mut Vec<Diagnostic>) {
        let mut more: Vec<_> = self.met.into_iter().collect();
        more.sort_unstable();
        for ((span, code), met) in more {
            let Some(more) = met.checked_sub(MAX_MISTAKES).filter(|more| *more > 0) else {
                continue;
            };
            let known = problems
                .iter()
                .rev()
                .find(|problem| problem.code == code && problem.span() == Some(span));
            if let Some(known) = known.cloned() {
                problems.push(Diagnostic {
                    title: format!("the same is wrong here {more} more times, for other values of the axes"),
                    help: None,
                    ..known
                });
            }
        }
    }
}

/// Everything that settings name: profiles, personas, rule sets, each once.
pub(super) struct Settings<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub profiles: BTreeMap<String, ArchProfile>,
    pub(super) personas: BTreeMap<String, Persona>,
    pub(super) rule_sets: BTreeMap<String, RuleSet>,
    pub(super) file_sets: BTreeMap<String, FileSet>,
    /// Names of rule sets by the patterns that lead to them.
    pub(super) rules_known: HashMap<Vec<Utf8PathBuf>, String>,
    /// Names of file sets by what is asked for.
    pub(super) own_sets: HashMap<OwnKey, String>,
    /// What patterns of own files found, by the folder that they count from.
    pub(super) globbed: HashMap<(Utf8PathBuf, String), Result<Vec<Utf8PathBuf>, FileError>>,
    /// Files that words of commands name, by the document that says them; most name none.
    pub(super) own_words: HashMap<u32, HashMap<String, Option<Utf8PathBuf>>>,
    /// Digests and lengths of own files.
    pub(super) own_known: HashMap<Utf8PathBuf, (Digest, u64)>,
    /// Roots of guests that were asked for.
    sysroots: Wanted,
}

/// The typed struct of a stage type, and what all stage types have in common.
fn typed(uses: &str, node: &Node) -> Result<(With, Names), ReadError> {
    fn written(settings: &impl Serialize) -> Result<With, ReadError> {
        With::of(settings).map_err(|error| ReadError {
            message: error.to_string(),
            span: None,
        })
    }
    let mut names = Names::default();
    let with = match uses {
        "inspect/elf" => written(&read::<InspectWith>(node)?)?,
        "unicorn/payload" => {
            let with: PayloadWith = read(node)?;
            names.arch = Some(with.arch.clone());
            names.runs = true;
            names.code = with.code.is_some();
            written(&with)?
        }
        "unicorn/linux" => {
            let with: LinuxWith = read(node)?;
            names.arch = with.arch.clone();
            names.runs = true;
            names.sysroot = with.sysroot.clone();
            names.persona = Some(with.persona.clone().unwrap_or_else(|| "server".into()));
            names.go_out(with.network, with.internet.as_ref());
            written(&with)?
        }
        "qemu-user/linux" | "native/linux" => {
            let with: QemuUserWith = read(node)?;
            names.arch = with.arch.clone();
            names.runs = true;
            names.sysroot = with.sysroot.clone();
            names.persona = Some(with.persona.clone().unwrap_or_else(|| "server".into()));
            names.rules = with.respond.as_ref().map(|respond| respond.rules.clone());
            names.go_out(with.network, with.internet.as_ref());
            written(&with)?
        }
        "compare/behaviour" => {
            let with: CompareWith = read(node)?;
            written(&with)?
        }
        "detect/rules" => {
            let with: RulesWith = read(node)?;
            names.rules = Some(with.rules.clone());
            written(&with)?
        }
        "command" => {
            let with: CommandWith = read(node)?;
            let text = written(&with)?;
            names.command = Some(with);
            text
        }
        other => {
            return Err(ReadError {
                message: format!("nothing reads the settings of `{other}`"),
                span: None,
            });
        }
    };
    Ok((with, names))
}

#[derive(Debug, Default)]
struct Names {
    runs: bool,
    arch: Option<String>,
    persona: Option<String>,
    sysroot: Vec<String>,
    rules: Option<Vec<String>>,
    web: Vec<String>,
    offline: bool,
    code: bool,
    command: Option<CommandWith>,
}

impl Names {
    /// What a guest meets beyond its own machine.
    fn go_out(&mut self, network: NetworkMode, internet: Option<&InternetWith>) {
        self.offline = internet.is_some() && network.is_none();
        self.web = internet.map(|internet| internet.web.clone()).unwrap_or_default();
    }
}

impl<'a> Settings<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            profiles: BTreeMap::new(),
            personas: BTreeMap::new(),
            rule_sets: BTreeMap::new(),
            file_sets: BTreeMap::new(),
            rules_known: HashMap::new(),
            own_sets: HashMap::new(),
            globbed: HashMap::new(),
            own_words: HashMap::new(),
            own_known: HashMap::new(),
            sysroots: Wanted::new(),
        }
    }

    /// Puts everything that was named into the plan; gives the roots, whose sources nobody looked into yet.
    pub(super) fn finish(self, plan: &mut Plan) -> Wanted {
        plan.profiles = self.profiles;
        plan.personas = self.personas;
        plan.rule_sets = self.rule_sets;
        plan.file_sets = self.file_sets;
        self.sysroots
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
            met: HashMap::new(),
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
        let mut late = Late {
            axis: wired.expansion.as_ref().map(|expansion| expansion.axis.as_str()),
            found: false,
        };
        let mut filled = match context {
            Some(context) => self.filled(&settled.node, context, &mut late, &mut mistakes),
            None => None,
        };
        if let Some(filled) = filled.as_mut().filter(|_| wired.stage_type.open) {
            words::of_tree(filled);
        }
        if late.found {
            for key in BEFORE.iter().filter_map(|key| settled.node.get(key)) {
                late.refuse(&self.shared.evaluator, key, &mut mistakes);
            }
        }
        let node: &Node = filled.as_ref().unwrap_or(&settled.node);
        let mut read = if mistakes.is_empty() {
            self.typed(wired, node, late.found, sources, &mut mistakes)
        } else {
            None
        };
        if let (Some(read), true) = (&mut read, late.found) {
            read.late = true;
            read.with = With::from(&settled.node.to_json());
        }
        mistakes.retain(|mistake| settled.is_new(mistake));
        problems.append(&mut mistakes);
        read
    }

    fn typed(
        &mut self,
        wired: &Wired<'_>,
        node: &Node,
        late: bool,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Read> {
        let (with, names) = match typed(wired.stage_type.name, node) {
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
            with,
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
                    let title = format!("there is no arch profile `{name}`");
                    let diagnostic = Diagnostic::error(Code::UnknownProfile, at("arch"), title);
                    let known = self.shared.profiles.names();
                    let diagnostic = self.shared.near.hint(diagnostic, &name, known);
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
        if names.offline {
            problems.push(
                Diagnostic::error(
                    Code::MissingKey,
                    at("internet"),
                    "`internet` says who is there, and the guest has no network",
                )
                .help("write `network = \"sink\"` beside it"),
            );
        }
        if wired.stage_type.name == "detect/rules" && wired.stage.inputs.is_empty() {
            let names: Vec<&str> = wired.stage_type.inputs.iter().map(|input| input.name).collect();
            let title = format!("nothing is wired to `{}`, so its rules judge nothing", wired.name);
            problems.push(
                Diagnostic::error(Code::MissingInput, wired.stage.uses.span, title)
                    .help(format!("wire one of its inputs: {}", names.join(", "))),
            );
        }
        if wired.stage_type.name == "unicorn/payload"
            && !late
            && names.code == wired.stage.inputs.contains_key("code")
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
        match wired.stage_type.name {
            "unicorn/linux" | "qemu-user/linux" | "native/linux" => guest::check(node, problems),
            "command" => {
                for key in ["run", "env"] {
                    node.get(key)
                        .into_iter()
                        .for_each(|texts| guest::whole(key, texts, problems));
                }
            }
            _ => {}
        }
        let web = node.get("internet").and_then(|internet| internet.get("web"));
        read.sysroot = self.root(&names.sysroot, node.get("sysroot"), node.span);
        read.web = self.root(&names.web, web, node.span);
        if let Some(name) = names.persona {
            read.persona = self.persona(&name, at("persona"), sources, problems);
        }
        if let Some(globs) = names.rules {
            let list = node.get("respond").unwrap_or(node).get("rules");
            read.rules = self.rules(&globs, list, sources, problems);
        }
        if let Some(with) = &names.command {
            command(wired, with, node, late, problems);
            if let Some(live) = &with.live {
                live::check(self.shared, wired, (with, live), node, late, problems);
            }
            read.files = self.own_files(with, node, sources, problems);
        }
        (problems.len() == before).then_some(read)
    }

    /// The key of a root that is made of these sources; `None`: of none.
    fn root(&mut self, names: &[String], list: Option<&Node>, or: Span) -> Option<String> {
        if names.is_empty() {
            return None;
        }
        let key = sysroots::key(names);
        self.sysroots.entry(key.clone()).or_insert_with(|| {
            let named = names.iter().enumerate();
            named
                .map(|(index, name)| Spanned::new(name.clone(), named::place(list, index, or)))
                .collect()
        });
        Some(key)
    }

    /// A copy of the tree with every `${}` filled in. A text that is known at run time only is left out, and noted.
    fn filled(
        &self,
        node: &Node,
        context: &Json,
        late: &mut Late<'_>,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Node> {
        let value = match &node.value {
            Value::Text(text) if text.contains("${") => {
                return self.filled_text(node, text, context, late, problems);
            }
            Value::List(items) => Value::List(
                items
                    .iter()
                    .filter_map(|item| self.filled(item, context, late, problems))
                    .collect(),
            ),
            Value::Table(table) => Value::Table(
                table
                    .iter()
                    .filter_map(|(key, entry)| {
                        let node = self.filled(&entry.node, context, late, problems)?;
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

    fn filled_text(
        &self,
        node: &Node,
        text: &str,
        context: &Json,
        late: &mut Late<'_>,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Node> {
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
        let expressions = pieces.iter().filter_map(|piece| match piece {
            Piece::Expression(text) => Some(text.as_str()),
            Piece::Text(_) => None,
        });
        if expressions
            .clone()
            .any(|text| late.needs(&self.shared.evaluator, text))
        {
            late.found = true;
            return None;
        }
        match self.shared.evaluator.fill(&pieces, context) {
            Ok(value) => Some(Node::from_json(&value, node.span)),
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
        }
    }
}

/// What is known at run time only: results of other stages, and the items of an axis that is expanded.
struct Late<'a> {
    axis: Option<&'a str>,
    /// Whether there was any.
    found: bool,
}

/// Keys that decide what is planned: what they say must be known before anything runs.
const BEFORE: [&str; 9] = [
    "arch", "persona", "rules", "respond", "sysroot", "internet", "files", "outputs", "stdin",
];

impl Late<'_> {
    /// Tells of every text that is known at run time only.
    fn refuse(&self, evaluator: &expression::Evaluator, node: &Node, problems: &mut Vec<Diagnostic>) {
        match &node.value {
            Value::Text(text) => {
                let pieces = expression::pieces(text).unwrap_or_default();
                let late = pieces.iter().any(|piece| match piece {
                    Piece::Expression(text) => self.needs(evaluator, text),
                    Piece::Text(_) => false,
                });
                if late {
                    problems.push(
                        Diagnostic::error(
                            Code::Expression,
                            node.span,
                            "this must be known before the run, and is known at run time only",
                        )
                        .help("results of stages and items of an axis that is expanded can stand in the other settings"),
                    );
                }
            }
            Value::List(items) => items
                .iter()
                .for_each(|item| self.refuse(evaluator, item, problems)),
            Value::Table(table) => {
                table
                    .values()
                    .for_each(|entry| self.refuse(evaluator, &entry.node, problems));
            }
            _ => {}
        }
    }

    fn needs(&self, evaluator: &expression::Evaluator, text: &str) -> bool {
        let item = self
            .axis
            .is_some_and(|axis| evaluator.names(text).is_ok_and(|names| names.contains(axis)));
        item || !expression::reads(text).is_empty()
    }
}

/// What cannot be said in the schema of a command's settings.
fn command(wired: &Wired<'_>, with: &CommandWith, node: &Node, late: bool, problems: &mut Vec<Diagnostic>) {
    let at = |key: &str| node.get(key).map_or(node.span, |value| value.span);
    if with.run.first().is_none_or(String::is_empty) && !late {
        problems.push(check::no_program(at("run"), wired.name));
    }
    if let Some(port) = with
        .stdin
        .as_ref()
        .filter(|port| !wired.stage.inputs.contains_key(*port))
    {
        let known = wired.stage.inputs.keys().map(String::as_str);
        problems.push(
            Diagnostic::error(
                Code::UnknownPort,
                at("stdin"),
                format!("nothing is wired to an input `{port}`"),
            )
            .did_you_mean(port, known),
        );
    }
    let mut from_stdout = 0;
    for (name, output) in &with.outputs {
        let place = node
            .get("outputs")
            .and_then(|outputs| outputs.get(name))
            .map_or(node.span, |node| node.span);
        let mut refuse = |code, title: String| problems.push(Diagnostic::error(code, place, title));
        if wired.stage_type.output(name).is_some() {
            refuse(
                Code::DuplicateValue,
                format!("the output `{name}` is always there and cannot be declared"),
            );
        }
        if output.schema.is_some() && output.port.0 != PortType::Document {
            refuse(
                Code::WrongValue,
                format!(
                    "only outputs of the type `json` have a schema, and this is {}",
                    output.port.0
                ),
            );
        }
        if output.from == OutputPlace::Stdout {
            from_stdout += 1;
            if output.port.0 == PortType::Files {
                refuse(
                    Code::WrongValue,
                    "files cannot be given on standard output".into(),
                );
            }
        }
    }
    if from_stdout > 1 {
        problems.push(Diagnostic::error(
            Code::DuplicateValue,
            at("outputs"),
            "two outputs are taken from standard output",
        ));
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
