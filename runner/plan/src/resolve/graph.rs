//! References between stages, and the types of their ports.

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::manifest::{Axis, Span, Spanned, Stage};
use hotcell_schema::stage::{PortType, StageType};
use indexmap::IndexMap;

use super::order::order;
use super::{Shared, names};
use crate::diagnostics::{Code, Diagnostic};
use crate::expression::{self, Piece};
use crate::tree::{Node, Value};

/// Stages and how they hang together.
pub(super) struct Graph<'a> {
    /// Stages in order.
    pub stages: Vec<Wired<'a>>,
}

/// A stage with its references read.
pub(super) struct Wired<'a> {
    pub name: &'a str,
    pub stage: &'a Stage,
    pub stage_type: &'static StageType,
    /// Port and what is wired to it.
    pub inputs: Vec<(&'a str, Vec<Reference>)>,
    /// Stages of `needs`.
    pub needs: Vec<(String, Span)>,
    /// Stages that `when` reads.
    pub reads: BTreeSet<String>,
    /// Stages whose results `with` reads, and where it first does.
    pub late: BTreeMap<String, Span>,
    /// The axis that is expanded at run time.
    pub expansion: Option<Expanding>,
    /// A reference of it has a mistake: its instances are looked at, but not wired.
    pub broken: bool,
}

impl Wired<'_> {
    /// Where its condition stands.
    pub(super) fn when_span(&self) -> Span {
        self.stage.when.as_ref().map(|when| when.span).unwrap_or_default()
    }
}

/// An axis that goes over files which other stages give.
pub(super) struct Expanding {
    pub axis: String,
    pub over: Vec<Reference>,
    /// Output of the stage itself that it goes over too.
    pub own: Option<String>,
}

/// What is wired to an input.
#[derive(Debug, Clone)]
pub(super) enum Reference {
    /// The file of the sample on an axis.
    Axis(String),
    /// An output of a stage: of the instance with the same axes, or of all.
    Stage {
        stage: String,
        port: String,
        all: bool,
        span: Span,
    },
}

const FORMS: &str = "write `stages.<stage>.out.<port>`, `stages.<stage>[*].out.<port>`, or `${<axis>.file}`";

pub(super) fn build<'a>(shared: &Shared<'a>, problems: &mut Vec<Diagnostic>) -> Graph<'a> {
    let mut stages = Vec::with_capacity(shared.manifest.stages.len());
    for (name, stage) in &shared.manifest.stages {
        // The schema has told of unknown stage types.
        let Some(stage_type) = StageType::find(&stage.uses) else {
            continue;
        };
        stages.push(wire(shared, name, stage, stage_type, problems));
    }
    let order = order(&stages, problems);
    let mut places: Vec<Option<Wired<'a>>> = stages.into_iter().map(Some).collect();
    let mut stages: Vec<Wired<'a>> = order
        .into_iter()
        .filter_map(|index| places.get_mut(index)?.take())
        .collect();
    // What is in a circle, or waits for one, has no place in the order.
    stages.extend(places.into_iter().flatten().map(|wired| Wired {
        broken: true,
        ..wired
    }));
    Graph { stages }
}

fn wire<'a>(
    shared: &Shared<'a>,
    name: &'a str,
    stage: &'a Stage,
    stage_type: &'static StageType,
    problems: &mut Vec<Diagnostic>,
) -> Wired<'a> {
    let before = problems.len();
    let mut inputs = Vec::new();
    for (port, wanted) in &stage.inputs {
        // The schema has told of unknown inputs.
        let Some(input) = stage_type.input(port) else {
            continue;
        };
        let mut references = Vec::new();
        let mut several = wanted.0.len() > 1;
        for text in &wanted.0 {
            if let Some((reference, gives)) = read_reference(shared, name, stage, text, problems) {
                several |= matches!(reference, Reference::Stage { all: true, .. });
                if gives.is_some_and(|gives| !input.port.takes(gives)) {
                    let gives = gives.map(|gives| gives.to_string()).unwrap_or_default();
                    let mut diagnostic = Diagnostic::error(
                        Code::PortType,
                        text.span,
                        format!("the input `{port}` takes {}, and this gives {gives}", input.port),
                    );
                    if let Some(fitting) = fitting(shared, &reference, input.port) {
                        diagnostic = diagnostic.help(format!("`{fitting}` gives {}", input.port));
                    }
                    problems.push(diagnostic);
                }
                references.push(reference);
            }
        }
        if let (true, false, Some(first)) = (several, input.many, wanted.0.first()) {
            problems.push(
                Diagnostic::error(
                    Code::Axes,
                    first.span,
                    format!(
                        "the input `{port}` of `{}` takes one value, and several are wired to it",
                        stage.uses
                    ),
                )
                .help("name the stage without `[*]`: it then means the instance with the same axes"),
            );
        }
        inputs.push((port.as_str(), references));
    }
    let mut needs = Vec::new();
    for need in &stage.needs {
        let wanted = need.strip_prefix("stages.").unwrap_or(need);
        if let Some(all) = wanted.strip_suffix("[*]") {
            let title = format!("`needs` names stages, and `{}` names instances", short(need));
            problems.push(
                Diagnostic::error(Code::WrongReference, need.span, title).help(format!(
                    "write `needs = [\"{all}\"]`: where the axes differ, all instances are waited for"
                )),
            );
            continue;
        }
        if known(shared, wanted, need.span, problems) {
            needs.push((wanted.to_owned(), need.span));
        }
    }
    let reads = stage
        .when
        .as_ref()
        .map(|when| condition(shared, name, stage, when, problems))
        .unwrap_or_default();
    let late = settings_reads(shared, name, problems);
    let expansion = expansion(shared, name, stage, problems);
    Wired {
        name,
        stage,
        stage_type,
        inputs,
        needs,
        reads,
        late,
        expansion,
        broken: problems.len() != before || shared.tainted("stages", name),
    }
}

fn known(shared: &Shared<'_>, name: &str, span: Span, problems: &mut Vec<Diagnostic>) -> bool {
    if shared.manifest.stages.contains_key(name) {
        return true;
    }
    if !shared.tainted("stages", name) {
        let diagnostic = Diagnostic::error(
            Code::UnknownStage,
            span,
            format!("there is no stage `{}`", short(name)),
        );
        let known = shared.manifest.stages.keys().map(String::as_str);
        problems.push(shared.near.hint(diagnostic, name, known));
    }
    false
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Reads a reference; with it comes the type of what it gives, where that is known.
fn read_reference(
    shared: &Shared<'_>,
    own: &str,
    stage: &Stage,
    text: &Spanned<String>,
    problems: &mut Vec<Diagnostic>,
) -> Option<(Reference, Option<PortType>)> {
    let wrong = |title: String| Diagnostic::error(Code::WrongReference, text.span, title);
    let lone = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if let Some(axis) = lone.and_then(|inner| inner.trim().strip_suffix(".file")) {
        if !stage.for_each.contains_key(axis) {
            if shared.tainted("for-each", own) {
                return None;
            }
            let title = format!("the stage has no axis `{}`", short(axis));
            let diagnostic = Diagnostic::error(Code::Axes, text.span, title);
            let known = stage.for_each.keys().map(String::as_str);
            let diagnostic = shared.near.hint(diagnostic, axis, known);
            problems.push(match diagnostic.help {
                Some(_) => diagnostic,
                None => diagnostic.help(format!(
                    "write `for-each.{axis} = \"samples.<set>\"` in the stage"
                )),
            });
            return None;
        }
        return Some((Reference::Axis(axis.to_owned()), Some(PortType::File)));
    }
    let Some(rest) = text.strip_prefix("stages.") else {
        let diagnostic = wrong(format!("`{}` is no reference to an output", short(text)));
        problems.push(if text.starts_with("samples.") {
            diagnostic.help(
                "put the set on an axis, `for-each.sample = \"samples.<set>\"`, and wire `${sample.file}`",
            )
        } else {
            diagnostic.help(FORMS)
        });
        return None;
    };
    let parts = rest
        .split_once(".out.")
        .map(|(name, port)| match name.strip_suffix("[*]") {
            Some(name) => (name, port, true),
            None => (name, port, false),
        });
    let Some((name, port, all)) = parts.filter(|(name, port, _)| !name.is_empty() && !port.is_empty()) else {
        problems.push(wrong(format!("`{}` is no reference to an output", short(text))).help(FORMS));
        return None;
    };
    if !known(shared, name, text.span, problems) {
        return None;
    }
    let target = shared.manifest.stages.get(name)?;
    StageType::find(&target.uses)?;
    let reference = Reference::Stage {
        stage: name.to_owned(),
        port: port.to_owned(),
        all,
        span: text.span,
    };
    let Some(gives) = output(target, port) else {
        // It may have been declared where there is a mistake.
        if !shared.tainted("with", name) {
            problems.push(no_output(shared, target, port, text.span));
        }
        return None;
    };
    Some((reference, Some(gives)))
}

/// The type of a stage's output, whether its stage type or its settings declare it.
fn output(stage: &Stage, port: &str) -> Option<PortType> {
    let stage_type = StageType::find(&stage.uses)?;
    if let Some(output) = stage_type.output(port) {
        return Some(output.port);
    }
    let declared = stage.with.get("outputs").filter(|_| stage_type.open)?.get(port)?;
    match declared.get("type") {
        None => Some(PortType::File),
        Some(name) => PortType::parse(name.as_str()?),
    }
}

/// All outputs of a stage: those of its stage type, and those that its settings declare.
pub(super) fn outputs(stage: &Stage) -> IndexMap<String, PortType> {
    let Some(stage_type) = StageType::find(&stage.uses) else {
        return IndexMap::new();
    };
    let listed = stage_type.outputs.iter().map(|output| output.name);
    let declared = stage
        .with
        .get("outputs")
        .filter(|_| stage_type.open)
        .and_then(serde_json::Value::as_object);
    let declared = declared
        .into_iter()
        .flat_map(|table| table.keys())
        .map(String::as_str);
    listed
        .chain(declared)
        .filter_map(|name| Some((name.to_owned(), output(stage, name)?)))
        .collect()
}

fn no_output(shared: &Shared<'_>, target: &Stage, port: &str, span: Span) -> Diagnostic {
    let all = outputs(target);
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    let title = format!("`{}` has no output `{}`", target.uses.value, short(port));
    let diagnostic = Diagnostic::error(Code::UnknownPort, span, title);
    let diagnostic = shared.near.hint(diagnostic, port, names.iter().copied());
    match diagnostic.help {
        Some(_) => diagnostic,
        None => diagnostic.help(format!(
            "outputs of `{}`: {}",
            target.uses.value,
            names.join(", ")
        )),
    }
}

/// An output of the same stage that has the wanted type.
fn fitting(shared: &Shared<'_>, reference: &Reference, wanted: PortType) -> Option<String> {
    let Reference::Stage { stage, all, .. } = reference else {
        return None;
    };
    let outputs = outputs(shared.manifest.stages.get(stage)?);
    let (name, _) = outputs.iter().find(|(_, port)| wanted.takes(**port))?;
    Some(format!(
        "stages.{stage}{}.out.{name}",
        if *all { "[*]" } else { "" }
    ))
}

fn condition(
    shared: &Shared<'_>,
    name: &str,
    stage: &Stage,
    when: &Spanned<String>,
    problems: &mut Vec<Diagnostic>,
) -> BTreeSet<String> {
    if let Err(error) = shared.evaluator.check(when) {
        problems.push(
            Diagnostic::error(
                Code::Expression,
                when.span,
                format!("the condition cannot be read: {error}"),
            )
            .help("for instance: \"stages.triage.out.info.linkage == 'static'\""),
        );
        return BTreeSet::new();
    }
    // Without its axes, nobody knows what it can name.
    if !shared.tainted("for-each", name) {
        names::condition(shared, stage, when, problems);
    }
    results(shared, when, when.span, problems)
}

/// The stages whose results an expression reads. What it reads must be there, and be JSON.
fn results(
    shared: &Shared<'_>,
    expression: &str,
    span: Span,
    problems: &mut Vec<Diagnostic>,
) -> BTreeSet<String> {
    let mut stages = BTreeSet::new();
    for read in expression::reads(expression) {
        if !known(shared, &read.stage, span, problems) {
            continue;
        }
        let target = shared.manifest.stages.get(&read.stage);
        let target = target.filter(|target| StageType::find(&target.uses).is_some());
        if let (Some(port), Some(target)) = (&read.port, target) {
            match output(target, port) {
                None if shared.tainted("with", &read.stage) => {}
                None => problems.push(no_output(shared, target, port, span)),
                Some(gives) if !gives.is_readable() => problems.push(
                    Diagnostic::error(
                        Code::PortType,
                        span,
                        format!("an expression cannot read `{port}`: it is {gives}"),
                    )
                    .help("expressions read outputs that are JSON, findings or files"),
                ),
                Some(_) => {}
            }
        }
        stages.insert(read.stage);
    }
    stages
}

/// The stages whose results the settings of a stage read.
fn settings_reads(shared: &Shared<'_>, name: &str, problems: &mut Vec<Diagnostic>) -> BTreeMap<String, Span> {
    fn each(node: &Node, found: &mut impl FnMut(&str, Span)) {
        match &node.value {
            Value::Text(text) if text.contains("stages.") => {
                // A text that cannot be split is told when the settings are read.
                for piece in expression::pieces(text).unwrap_or_default() {
                    if let Piece::Expression(expression) = piece {
                        found(&expression, node.span);
                    }
                }
            }
            Value::List(items) => items.iter().for_each(|item| each(item, found)),
            Value::Table(table) => table.values().for_each(|entry| each(&entry.node, found)),
            _ => {}
        }
    }
    let mut stages = BTreeMap::new();
    if let Some(with) = shared.tree.at(&["stages", name, "with"]) {
        each(with, &mut |expression, span| {
            for stage in results(shared, expression, span, problems) {
                stages.entry(stage).or_insert(span);
            }
        });
    }
    stages
}

/// Looks at all axes of a stage; at most one of them goes over what other stages give.
fn expansion(
    shared: &Shared<'_>,
    name: &str,
    stage: &Stage,
    problems: &mut Vec<Diagnostic>,
) -> Option<Expanding> {
    let mut found: Option<Expanding> = None;
    let mut told = shared.tainted("for-each", name);
    for (axis, value) in &stage.for_each {
        let references: Vec<Spanned<String>> = match &value.value {
            Axis::Reference(reference) => vec![Spanned::new(reference.clone(), value.span)],
            Axis::Over(references) => references.clone(),
            Axis::Values(_) => continue,
        };
        let at_run_time = references
            .iter()
            .filter(|text| text.starts_with("stages."))
            .count();
        if at_run_time == 0 {
            references
                .iter()
                .for_each(|text| axis_reference(shared, text, text.span, problems));
            continue;
        }
        let mut refuse = |title: String, help: &str| {
            problems.push(Diagnostic::error(Code::Axes, value.span, title).help(help));
            told = true;
        };
        if at_run_time < references.len() {
            refuse(
                format!("the axis `{axis}` goes over samples and over outputs"),
                "make two stages, or two axes, of it",
            );
        } else if found.is_some() {
            refuse(
                format!("the axis `{axis}` is the second one of `{name}` that is expanded at run time"),
                "a stage can have one; let another stage go over the outputs of this one",
            );
        } else {
            found = expanding(shared, name, stage, axis, &references, problems);
            told |= found.is_none();
        }
    }
    let own = found.as_ref().is_some_and(|found| found.own.is_some());
    let meaningless = [
        (
            "max-items",
            stage.max_items.is_some() && found.is_none(),
            "no axis of this stage is expanded at run time",
        ),
        (
            "max-depth",
            stage.max_depth.is_some() && !own,
            "no axis of this stage goes over its own outputs",
        ),
    ];
    for (key, _, why) in meaningless.iter().filter(|(_, there, _)| *there && !told) {
        let span = shared.tree.key_span(&["stages", name, key]);
        let title = format!("`{key}` has no meaning here: {why}");
        problems.push(Diagnostic::error(Code::Axes, span, title).help("remove it"));
    }
    found
}

fn expanding(
    shared: &Shared<'_>,
    name: &str,
    stage: &Stage,
    axis: &str,
    references: &[Spanned<String>],
    problems: &mut Vec<Diagnostic>,
) -> Option<Expanding> {
    let mut expanding = Expanding {
        axis: axis.to_owned(),
        over: Vec::new(),
        own: None,
    };
    for text in references {
        let (reference, gives) = read_reference(shared, name, stage, text, problems)?;
        if let Some(gives) = gives.filter(|gives| *gives != PortType::Files) {
            problems.push(
                Diagnostic::error(
                    Code::PortType,
                    text.span,
                    format!("the axis `{axis}` goes over files, and this gives {gives}"),
                )
                .help("an axis goes over an output of the type `files`"),
            );
            return None;
        }
        match reference {
            Reference::Stage { stage, port, all, .. } if stage == name => {
                if all || expanding.own.is_some() {
                    let title = "a stage goes over its own outputs once, and without `[*]`";
                    problems.push(Diagnostic::error(Code::Axes, text.span, title));
                    return None;
                }
                expanding.own = Some(port);
            }
            other => expanding.over.push(other),
        }
    }
    if expanding.over.is_empty() {
        let span = references.first().map(|text| text.span).unwrap_or_default();
        problems.push(
            Diagnostic::error(
                Code::Axes,
                span,
                format!("the axis `{axis}` goes over nothing but its own stage's outputs"),
            )
            .help(
                "name the outputs with which it begins too: `{ over = [\"stages.<first>.out.<port>\", …] }`",
            ),
        );
        return None;
    }
    Some(expanding)
}

/// What an axis goes over before anything runs.
fn axis_reference(shared: &Shared<'_>, reference: &str, span: Span, problems: &mut Vec<Diagnostic>) {
    let Some(set) = reference.strip_prefix("samples.") else {
        problems.push(
            Diagnostic::error(
                Code::WrongReference,
                span,
                format!("`{}` names nothing that an axis can go over", short(reference)),
            )
            .help(
                "write `samples.<set>`, `stages.<stage>.out.<port>`, `{ over = [\"samples.<set>\", …] }`, or a list of \
                 values",
            ),
        );
        return;
    };
    let given = shared.loaded.samples.iter().any(|(given, _)| given == set);
    if !given && !shared.manifest.samples.contains_key(set) && !shared.tainted("samples", set) {
        let diagnostic = Diagnostic::error(
            Code::UnknownSamples,
            span,
            format!("there is no sample set `{}`", short(set)),
        );
        let known = shared.manifest.samples.keys().map(String::as_str);
        problems.push(shared.near.hint(diagnostic, set, known));
    }
}
