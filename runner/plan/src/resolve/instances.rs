//! Axes, their product, and everything that each instance has of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use hotcell_schema::digest::Digest;
use hotcell_schema::job::GuestLimits;
use hotcell_schema::manifest::{Axis, Limits, Span};
use hotcell_schema::stage::StageType;
use indexmap::IndexMap;
use serde_json::Value as Json;

use super::Shared;
use super::allowance::{too_long, too_much};
use super::graph::{self, Graph, Reference, Wired};
use super::settings::{Settings, Settled};
use super::sysroots::Wanted;
use crate::diagnostics::{Code, Diagnostic};
use crate::naming;
use crate::plan::{
    self, After, AskedLimits, AxisValue, Instance, Late, Plan, PlannedLimits, PlannedStage, When, Wire,
    literal_text,
};
use crate::sources::Sources;
use crate::with::With;

/// Greatest number of instances of a plan.
const MAX_INSTANCES: usize = 1_000_000;
/// Items of a point where the manifest does not say how many.
const DEFAULT_ITEMS: u32 = 100;
/// Levels of an axis that goes over its own stage's outputs, where the manifest does not say how many.
const DEFAULT_DEPTH: u8 = 3;

/// Instances of a stage by the values of its axes.
struct Found {
    /// Axes whose values the plan knows.
    axes: Vec<String>,
    /// The axis that is expanded at run time.
    expansion: Option<String>,
    by_values: HashMap<String, usize>,
}

pub(super) fn all(
    shared: &Shared<'_>,
    graph: &Graph<'_>,
    sets: &IndexMap<String, Vec<usize>>,
    plan: &mut Plan,
    sources: &mut Sources,
    problems: &mut Vec<Diagnostic>,
) -> Wanted {
    let mut found: HashMap<&str, Found> = HashMap::with_capacity(graph.stages.len());
    let mut settings = Settings::new(shared);
    for (before, wired) in graph.stages.iter().enumerate() {
        let judged = !shared.tainted("with", wired.name);
        if shared.tainted("for-each", wired.name) {
            continue;
        }
        let Some(axes) = axes(shared, wired, sets, plan, problems) else {
            continue;
        };
        let count = axes
            .values()
            .try_fold(1usize, |product, values| product.checked_mul(values.len()));
        let total = count.and_then(|count| count.checked_add(plan.instances.len()));
        let Some(count) = count.filter(|_| total.is_some_and(|total| total <= MAX_INSTANCES)) else {
            let span = shared.tree.key_span(&["stages", wired.name, "for-each"]);
            problems.push(Diagnostic::error(
                Code::TooMany,
                span,
                format!("the plan has more than {MAX_INSTANCES} instances"),
            ));
            return Wanted::default();
        };
        // Without its wires, an instance can still be looked at for mistakes of its own.
        let wirable = !wired.broken && axes_fit(shared, wired, &axes, &found, problems);
        let first = plan.instances.len();
        // Exactly: growing doubles what may be megabytes. Every stage has an instance at least, as a rule.
        plan.instances
            .reserve_exact(count + graph.stages.len().saturating_sub(before + 1));
        let mut by_values = HashMap::with_capacity(count);
        let mut slugs = HashSet::with_capacity(count);
        let mut missing = BTreeSet::new();
        let mut settled = match judged {
            true => settings.stage(wired, sources, problems),
            false => None,
        };
        if let Some(title) = too_much(wired.name, &axes, count, settled.as_ref()) {
            let span = shared.tree.key_span(&["stages", wired.name, "for-each"]);
            let help = "let fewer values, or shorter ones, stand on its axes, or put what is long in a file";
            problems.push(Diagnostic::error(Code::TooMany, span, title).help(help));
            continue;
        }
        let mut untrue = Untrue::default();
        for index in 0..count {
            let axes = combination(&axes, index);
            let mut instance = bare(shared, plan, wired, axes, &mut slugs);
            let own = values_key(plan, &instance, instance.axes.keys());
            if wirable {
                wires(plan, wired, &found, &mut instance, &mut missing, problems);
                condition(shared, plan, wired, &mut instance, &mut untrue);
            }
            if let Some(settled) = settled.as_mut() {
                fill(
                    shared,
                    &mut settings,
                    wired,
                    settled,
                    &mut instance,
                    plan,
                    sources,
                    problems,
                );
            }
            by_values.insert(own, plan.instances.len());
            plan.instances.push(instance);
        }
        untrue.tell(wired, problems);
        if let Some(settled) = settled {
            settled.tell_more(problems);
        }
        let names: Vec<String> = axes.keys().cloned().collect();
        let mut all: Vec<String> = wired.stage.for_each.keys().cloned().collect();
        all.sort_unstable();
        plan.stages.insert(
            wired.name.to_owned(),
            PlannedStage {
                uses: wired.stage.uses.value.clone(),
                axes: all,
                first,
                count,
                outputs: graph::outputs(wired.stage),
                limits: limits(&wired.stage.limits, wired.stage_type),
                retries: wired.stage.retries,
                expansion: wired.expansion.as_ref().map(|expansion| plan::Expansion {
                    axis: expansion.axis.clone(),
                    own: expansion.own.clone(),
                    max_items: wired.stage.max_items.unwrap_or(DEFAULT_ITEMS),
                    max_depth: match expansion.own {
                        Some(_) => wired.stage.max_depth.unwrap_or(DEFAULT_DEPTH),
                        None => 1,
                    },
                }),
            },
        );
        if wirable {
            found.insert(
                wired.name,
                Found {
                    axes: names,
                    expansion: wired.expansion.as_ref().map(|expansion| expansion.axis.clone()),
                    by_values,
                },
            );
        }
    }
    settings.finish(plan)
}

/// The values of all axes of a stage.
fn axes(
    shared: &Shared<'_>,
    wired: &Wired<'_>,
    sets: &IndexMap<String, Vec<usize>>,
    plan: &Plan,
    problems: &mut Vec<Diagnostic>,
) -> Option<IndexMap<String, Vec<AxisValue>>> {
    let mut axes = IndexMap::new();
    let before = problems.len();
    let point = wired.expansion.as_ref().map(|expansion| &expansion.axis);
    for (name, axis) in wired
        .stage
        .for_each
        .iter()
        .filter(|(name, _)| Some(*name) != point)
    {
        let set = |reference: &str| {
            let indexes = reference.strip_prefix("samples.").and_then(|set| sets.get(set));
            indexes
                .into_iter()
                .flatten()
                .map(|index| AxisValue::Sample(*index))
                .collect::<Vec<_>>()
        };
        let values: Vec<AxisValue> = match &axis.value {
            Axis::Reference(reference) => set(reference),
            Axis::Over(references) => references.iter().flat_map(|reference| set(reference)).collect(),
            Axis::Values(values) => values.iter().cloned().map(AxisValue::Literal).collect(),
        };
        if let Some(problem) = too_long(shared, wired.name, name, axis.span, &values) {
            problems.push(problem);
            continue;
        }
        let mut seen = HashSet::with_capacity(values.len());
        let mut once = Vec::with_capacity(values.len());
        let mut twice: Option<(usize, usize)> = None;
        for (index, value) in values.into_iter().enumerate() {
            if seen.insert(plan.axis_text(&value)) {
                once.push(value);
                continue;
            }
            match &value {
                AxisValue::Sample(sample) => {
                    twice.get_or_insert((*sample, 0usize)).1 += 1;
                }
                AxisValue::Literal(literal) => {
                    let list = shared.tree.at(&["stages", wired.name, "for-each", name]);
                    let span = list.and_then(|list| match &list.value {
                        crate::tree::Value::List(items) => items.get(index).map(|item| item.span),
                        _ => None,
                    });
                    problems.push(
                        Diagnostic::error(
                            Code::DuplicateValue,
                            span.unwrap_or(axis.span),
                            format!(
                                "the value {} stands twice on the axis `{name}`",
                                literal_text(literal)
                            ),
                        )
                        .help("an instance is named by its values; tables are named by their key `name`"),
                    );
                }
                // Items are found at run time.
                AxisValue::Item(_) => {}
            }
        }
        if let Some((sample, count)) = twice {
            let sample = plan
                .samples
                .get(sample)
                .map_or_else(String::new, |sample| sample.origin.shown(&plan.archives));
            let more = match count {
                1 => String::new(),
                _ => format!(", and those of {} more", count - 1),
            };
            let title = format!("the bytes of {sample} stand twice on the axis `{name}`{more}");
            problems.push(
                Diagnostic::warning(Code::DuplicateValue, axis.span, title)
                    .help("a sample is named by its bytes; the first set is taken"),
            );
        }
        axes.insert(name.clone(), once);
    }
    // An instance is named by its values, never by the order in which its axes are written.
    axes.sort_unstable_keys();
    let failed = problems
        .iter()
        .skip(before)
        .any(|problem| problem.severity == crate::Severity::Error);
    (!failed).then_some(axes)
}

/// Whether every stage that is referred to without `[*]` has only axes that this stage has too.
fn axes_fit(
    shared: &Shared<'_>,
    wired: &Wired<'_>,
    axes: &IndexMap<String, Vec<AxisValue>>,
    found: &HashMap<&str, Found>,
    problems: &mut Vec<Diagnostic>,
) -> bool {
    let when = wired.when_span();
    let named = |reference: &'_ Reference| match reference {
        Reference::Stage {
            stage,
            all: false,
            span,
            ..
        } => Some((stage.clone(), *span)),
        _ => None,
    };
    let inputs = wired
        .inputs
        .iter()
        .flat_map(|(_, references)| references)
        .filter_map(named);
    let reads = wired.reads.iter().map(|name| (name.clone(), when));
    let late = wired.late.iter().map(|(name, span)| (name.clone(), *span));
    let own = wired.expansion.as_ref().map(|expansion| &expansion.axis);
    let mut fit = true;
    let mut check = |name: &str, span: Span, expanded: bool| {
        // A stage that is not there has mistakes of its own.
        let Some(target) = found.get(name) else {
            fit = false;
            return;
        };
        let missing = target.axes.iter().find(|axis| !axes.contains_key(*axis));
        let open = target
            .expansion
            .as_ref()
            .filter(|axis| expanded && Some(*axis) != own);
        if let Some(axis) = missing.or(open) {
            fit = false;
            let there = shared.tree.key_span(&["stages", name, "for-each", axis]);
            problems.push(
                Diagnostic::error(
                    Code::Axes,
                    span,
                    format!(
                        "`{name}` is done for each `{axis}`, and `{}` is not: which instance is meant?",
                        wired.name
                    ),
                )
                .also(there, format!("`{name}` has the axis `{axis}`"))
                .help(format!(
                    "give `{}` the same `for-each.{axis}`, or mean all instances: `stages.{name}[*]`",
                    wired.name
                )),
            );
        }
    };
    for (name, span) in inputs.chain(reads).chain(late) {
        check(&name, span, true);
    }
    let over = wired.expansion.iter().flat_map(|expansion| &expansion.over);
    for (name, span) in over.filter_map(named) {
        check(&name, span, false);
    }
    fit
}

/// The combination of that number: the last axis turns fastest.
fn combination(axes: &IndexMap<String, Vec<AxisValue>>, index: usize) -> IndexMap<String, AxisValue> {
    let mut rest = index;
    let mut values: Vec<(String, AxisValue)> = Vec::with_capacity(axes.len());
    for (name, all) in axes.iter().rev() {
        let count = all.len().max(1);
        if let Some(value) = all.get(rest % count) {
            values.push((name.clone(), value.clone()));
        }
        rest /= count;
    }
    values.into_iter().rev().collect()
}

/// An instance that has no settings and no wires yet.
fn bare(
    shared: &Shared<'_>,
    plan: &Plan,
    wired: &Wired<'_>,
    axes: IndexMap<String, AxisValue>,
    slugs: &mut HashSet<String>,
) -> Instance {
    let point = wired.expansion.as_ref().map(|expansion| expansion.axis.as_str());
    let name = naming::name(plan, wired.name, &axes, point);
    let mut slug = naming::slug(plan, &axes);
    if !slugs.insert(slug.clone()) {
        // Whoever made two samples of one cut digest has not made two whole ones.
        slug = Digest::of(name.as_bytes()).to_string();
        slugs.insert(slug.clone());
    }
    Instance {
        seed: naming::seed(plan, shared.manifest.seed, wired.name, &axes),
        name,
        slug,
        stage: wired.name.to_owned(),
        uses: wired.stage.uses.value.clone(),
        axes,
        with: With::default(),
        late: None,
        inputs: IndexMap::new(),
        needs: Vec::new(),
        when: None,
        arch: None,
        persona: None,
        rules: None,
        files: None,
        sysroot: None,
        web: None,
        expands: Vec::new(),
    }
}

fn limits(limits: &Limits, stage_type: &StageType) -> PlannedLimits {
    let default = GuestLimits::default();
    PlannedLimits {
        guest: GuestLimits {
            virtual_time: limits.virtual_time.map_or(default.virtual_time, |time| time.0),
            events: limits.events.unwrap_or(default.events),
            syscalls: limits.syscalls.unwrap_or(default.syscalls),
            instructions: limits.instructions.or(default.instructions),
            memory: limits.memory.map_or(default.memory, |size| size.0),
            tasks: limits.tasks.unwrap_or(default.tasks),
            file_bytes: limits.file_bytes.map_or(default.file_bytes, |size| size.0),
        },
        wall: limits.wall.map(|time| time.0),
        cpu: limits.cpu.map(|time| time.0),
        asked: match stage_type.open {
            true => AskedLimits {
                memory: limits.memory.map(|size| size.0),
                tasks: limits.tasks,
                file_bytes: limits.file_bytes.map(|size| size.0),
            },
            false => AskedLimits::default(),
        },
    }
}

/// The values of the named axes as one text: each with its length before it, since a value may hold any character.
fn values_key<'a>(plan: &Plan, instance: &Instance, names: impl IntoIterator<Item = &'a String>) -> String {
    let mut key = String::new();
    for name in names {
        if let Some(value) = instance.axes.get(name) {
            let text = plan.axis_text(value);
            key.push_str(&text.len().to_string());
            key.push(':');
            key.push_str(&text);
        }
        key.push(';');
    }
    key
}

/// The instance of a stage that has the same values on its axes.
fn same(plan: &Plan, found: &HashMap<&str, Found>, stage: &str, instance: &Instance) -> Option<usize> {
    let target = found.get(stage)?;
    target
        .by_values
        .get(&values_key(plan, instance, &target.axes))
        .copied()
}

/// Whether the instances of a stage in the plan are points.
fn is_point(found: &HashMap<&str, Found>, stage: &str) -> bool {
    found.get(stage).is_some_and(|found| found.expansion.is_some())
}

fn wires(
    plan: &Plan,
    wired: &Wired<'_>,
    found: &HashMap<&str, Found>,
    instance: &mut Instance,
    missing: &mut BTreeSet<String>,
    problems: &mut Vec<Diagnostic>,
) {
    // The same mistake in each of a thousand instances is one mistake.
    let mut once = |what: &str, diagnostic: &dyn Fn() -> Diagnostic| {
        if missing.insert(what.to_owned()) {
            problems.push(diagnostic());
        }
    };
    let absent = |stage: &str, span: Span, instance: &Instance| {
        Diagnostic::error(
            Code::Axes,
            span,
            format!("`{stage}` has no instance for the values of `{}`", instance.name),
        )
        .help(format!("let `{stage}` go over the same values"))
    };
    for (port, references) in &wired.inputs {
        let mut out = Vec::with_capacity(references.len());
        for reference in references {
            match reference {
                Reference::Axis(axis) => match instance.axes.get(axis) {
                    Some(AxisValue::Sample(index)) => out.push(Wire::Sample(*index)),
                    None if wired
                        .expansion
                        .as_ref()
                        .is_some_and(|expansion| expansion.axis == *axis) =>
                    {
                        out.push(Wire::Item)
                    }
                    _ => once(&format!("{axis}.file"), &|| {
                        let span = wired
                            .stage
                            .inputs
                            .get(*port)
                            .and_then(|wanted| wanted.0.first())
                            .map(|text| text.span);
                        let title =
                            format!("the values of the axis `{axis}` are no samples and have no file");
                        Diagnostic::error(Code::WrongReference, span.unwrap_or_default(), title)
                            .help("let the axis go over `samples.<set>`")
                    }),
                },
                Reference::Stage {
                    stage,
                    port,
                    all: true,
                    ..
                } => {
                    out.push(Wire::All {
                        stage: stage.clone(),
                        port: port.clone(),
                    });
                }
                Reference::Stage {
                    stage, port, span, ..
                } => match same(plan, found, stage, instance) {
                    Some(index) => out.push(match is_point(found, stage) {
                        true => Wire::Same {
                            point: index,
                            port: port.clone(),
                        },
                        false => Wire::Output {
                            instance: index,
                            port: port.clone(),
                        },
                    }),
                    None => once(stage, &|| absent(stage, *span, instance)),
                },
            }
        }
        instance.inputs.insert((*port).to_owned(), out);
    }
    for reference in wired.expansion.iter().flat_map(|expansion| &expansion.over) {
        let Reference::Stage {
            stage,
            port,
            all,
            span,
        } = reference
        else {
            continue;
        };
        let port = port.clone();
        match same(plan, found, stage, instance).filter(|_| !all) {
            Some(point) if is_point(found, stage) => instance.expands.push(Wire::Point { point, port }),
            Some(index) => instance.expands.push(Wire::Output {
                instance: index,
                port,
            }),
            None if *all => instance.expands.push(Wire::All {
                stage: stage.clone(),
                port,
            }),
            None => once(stage, &|| absent(stage, *span, instance)),
        }
    }
    if !wired.late.is_empty() {
        let mut reads = BTreeMap::new();
        for (stage, span) in &wired.late {
            match same(plan, found, stage, instance) {
                Some(index) => _ = reads.insert(stage.clone(), index),
                None => once(stage, &|| absent(stage, *span, instance)),
            }
        }
        instance.late = Some(Late { reads });
    }
    for (stage, _) in &wired.needs {
        let fits = found
            .get(stage.as_str())
            .is_some_and(|target| target.axes.iter().all(|axis| instance.axes.contains_key(axis)));
        let after = match same(plan, found, stage, instance).filter(|_| fits) {
            Some(index) => After::Instance(index),
            None => After::Stage(stage.clone()),
        };
        instance.needs.push(after);
    }
    if let Some(when) = &wired.stage.when {
        let mut reads = BTreeMap::new();
        for stage in &wired.reads {
            match same(plan, found, stage, instance) {
                Some(index) => _ = reads.insert(stage.clone(), index),
                None => once(stage, &|| absent(stage, when.span, instance)),
            }
        }
        instance.when = Some(When {
            expression: when.value.clone(),
            reads,
            value: None,
        });
    }
}

/// Reasons why the condition of a stage cannot be evaluated that are told apart.
const MAX_REASONS: usize = 4;

/// Why the condition of a stage cannot be evaluated, and for how many of its instances: told once for each reason.
#[derive(Debug, Default)]
struct Untrue {
    reasons: IndexMap<String, usize>,
    /// Instances with further reasons.
    more: usize,
}

impl Untrue {
    fn add(&mut self, reason: String) {
        let known = self.reasons.len();
        match self.reasons.get_mut(&reason) {
            Some(count) => *count += 1,
            None if known < MAX_REASONS => _ = self.reasons.insert(reason, 1),
            None => self.more += 1,
        }
    }

    fn tell(self, wired: &Wired<'_>, problems: &mut Vec<Diagnostic>) {
        let Some(written) = &wired.stage.when else { return };
        for (reason, count) in self.reasons {
            let of = match count {
                1 => String::new(),
                _ => format!(" for {count} instances"),
            };
            let title = format!("the condition cannot be evaluated{of}: {reason}");
            problems.push(Diagnostic::error(Code::Expression, written.span, title));
        }
        if self.more > 0 {
            let title = format!(
                "the condition cannot be evaluated for {} more instances, for other reasons",
                self.more
            );
            problems.push(Diagnostic::error(Code::Expression, written.span, title));
        }
    }
}

/// A condition that reads no results is known now.
fn condition(
    shared: &Shared<'_>,
    plan: &Plan,
    wired: &Wired<'_>,
    instance: &mut Instance,
    untrue: &mut Untrue,
) {
    // What a point's items are is known at run time.
    if instance.when.is_none() || !wired.reads.is_empty() || wired.expansion.is_some() {
        return;
    }
    let context = plan.context(instance);
    if let Some(when) = &mut instance.when {
        match shared.evaluator.truth(&when.expression, &context) {
            Ok(value) => when.value = Some(value),
            Err(error) => untrue.add(error.to_string()),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "it joins the steps that know these")]
fn fill(
    shared: &Shared<'_>,
    settings: &mut Settings<'_>,
    wired: &Wired<'_>,
    settled: &mut Settled<'_>,
    instance: &mut Instance,
    plan: &Plan,
    sources: &mut Sources,
    problems: &mut Vec<Diagnostic>,
) {
    let context = settled.needs_context().then(|| {
        let mut context = plan.context(instance);
        if let (Json::Object(names), true) = (&mut context, wired.stage_type.open) {
            names.insert(
                "outputs".into(),
                naming::paths("outputs", graph::outputs(wired.stage).keys()),
            );
        }
        context
    });
    let Some(read) = settings.read(wired, settled, context.as_ref(), sources, problems) else {
        return;
    };
    instance.with = read.with;
    if read.late {
        instance.late.get_or_insert_default();
    }
    instance.persona = read.persona;
    instance.rules = read.rules;
    instance.files = read.files;
    instance.sysroot = read.sysroot;
    instance.web = read.web;
    if !read.runs {
        return;
    }
    instance.arch = read.arch.or_else(
        || match instance.inputs.get("file").and_then(|wires| wires.first()) {
            Some(Wire::Sample(index)) => plan.samples.get(*index).and_then(|sample| sample.arch.clone()),
            _ => None,
        },
    );
    if let Some(profile) = instance.arch.as_ref().and_then(|name| shared.profiles.find(name)) {
        settings
            .profiles
            .entry(profile.name.clone())
            .or_insert_with(|| profile.clone());
    }
}
