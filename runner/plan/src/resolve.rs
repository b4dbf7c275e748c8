//! From a checked manifest to a plan: samples, the graph of stages, instances.
//!
//! | module | what it does |
//! |---|---|
//! | [`refusals`] | what the language has a place for and this version does not do |
//! | [`seats`] | what stages want of the cores |
//! | [`origins`] | sources and secrets: their keys, and what they name |
//! | [`graph`] | references, ports |
//! | [`order`] | order of stages, circles |
//! | [`names`] | names in `when` and `where` |
//! | [`filters`] | `where`, tried on what it is about |
//! | [`instances`] | axes and their product, names, seeds, wires |
//! | [`allowance`] | what a stage may multiply to |
//! | [`settings`] | `with` into the stage type's struct |
//! | [`named`] | what settings name: personas, rule files, a program's own files |

mod allowance;
mod filters;
mod graph;
mod guest;
mod instances;
mod live;
mod named;
mod names;
mod order;
mod origins;
mod refusals;
mod seats;
mod settings;
mod sysroots;

pub use filters::unknown;

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Expectation, Kind, Manifest, Span};
use hotcell_schema::stage::StageType;
use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::diagnostics::{Code, Diagnostic};
use crate::expression::Evaluator;
use crate::host;
use crate::load::Loaded;
use crate::naming;
use crate::near::Near;
use crate::plan::{self, AxisValue, Instance, Plan};
use crate::profiles::Profiles;
use crate::reader::Supply;
use crate::samples;
use crate::sources::Sources;
use crate::tree::{Node, Value};

/// Makes the plan of a loaded manifest. Nothing is given when anything is wrong; everything that is wrong, and warnings, are
/// added to the manifest's diagnostics.
pub fn plan(loaded: &mut Loaded, profiles: &Profiles) -> Option<Plan> {
    plan_with(loaded, profiles, &Supply::default())
}

/// The same, with a reader of archives and packages.
pub fn plan_with(loaded: &mut Loaded, profiles: &Profiles, supply: &Supply<'_>) -> Option<Plan> {
    let manifest = loaded.manifest.take()?;
    let mut sources = std::mem::take(&mut loaded.sources);
    let mut problems = Vec::new();
    let plan = build(&manifest, loaded, profiles, supply, &mut sources, &mut problems);
    loaded.manifest = Some(manifest);
    loaded.sources = sources;
    // What has been told of is not told again in other words.
    let told: BTreeSet<Span> = loaded.diagnostics.iter().filter_map(Diagnostic::span).collect();
    problems.retain(|problem| problem.span().is_none_or(|span| !told.contains(&span)));
    loaded.diagnostics.append(&mut problems);
    loaded.settle();
    if loaded.has_errors() { None } else { plan }
}

/// What all steps share.
struct Shared<'a> {
    manifest: &'a Manifest,
    loaded: &'a Loaded,
    tree: &'a Node,
    profiles: &'a Profiles,
    evaluator: Evaluator,
    near: Near,
}

impl Shared<'_> {
    fn tainted(&self, section: &'static str, name: &str) -> bool {
        // Nearly always there are none, and this is asked for each reference.
        !self.loaded.tainted.is_empty() && self.loaded.tainted.contains(&(section, name.to_owned()))
    }
}

fn build(
    manifest: &Manifest,
    loaded: &Loaded,
    profiles: &Profiles,
    supply: &Supply<'_>,
    sources: &mut Sources,
    problems: &mut Vec<Diagnostic>,
) -> Option<Plan> {
    if manifest.kind == Kind::Host {
        let span = loaded
            .tree
            .at(&["kind"])
            .map_or(loaded.tree.span, |kind| kind.span);
        problems.push(
            Diagnostic::error(
                Code::WrongKind,
                span,
                "this is a host manifest, and an experiment is needed",
            )
            .help("host manifests are not acted on yet"),
        );
        return None;
    }
    let shared = Shared {
        manifest,
        loaded,
        tree: &loaded.tree,
        profiles,
        evaluator: Evaluator::default(),
        near: Near::default(),
    };
    refusals::check(&shared, problems);
    origins::check(&shared, problems);
    let mut samples = samples::find(manifest, loaded, profiles, supply, sources, problems);
    samples.once_each(loaded, problems);
    let graph = graph::build(&shared, problems);
    let pool = host::cores::check(manifest.cores.as_ref(), &loaded.tree, problems);
    seats::check(&shared, pool.as_ref(), problems);
    expectations(&shared, problems);
    let mut plan = Plan {
        format: plan::FORMAT.into(),
        version: plan::VERSION,
        name: loaded.name.clone(),
        manifest: merged(&loaded.tree),
        seed: manifest.seed,
        folder: loaded.folder.clone(),
        samples: samples.list,
        archives: samples.pools.archives.clone(),
        packages: BTreeMap::new(),
        stages: IndexMap::new(),
        instances: Vec::new(),
        profiles: BTreeMap::new(),
        personas: BTreeMap::new(),
        rule_sets: BTreeMap::new(),
        file_sets: BTreeMap::new(),
        sysroots: BTreeMap::new(),
        expect: manifest.expect.clone(),
        golden: manifest.golden.clone(),
        cores: manifest.cores.clone(),
        stage_cores: seats::wanted(manifest),
    };
    let wanted = instances::all(&shared, &graph, &samples.sets, &mut plan, sources, problems);
    sysroots::find(
        &shared,
        &wanted,
        supply,
        samples.pools,
        &mut plan,
        sources,
        problems,
    );
    filters::check(&shared, &plan, problems);
    Some(plan)
}

/// The digest of the documents as they were merged.
fn merged(tree: &Node) -> Digest {
    let mut json = tree.to_json();
    if let Some(table) = json.as_object_mut() {
        table.shift_remove("variants");
        table.shift_remove("include");
        // Where and when something runs changes nothing of its result.
        table.shift_remove("cores");
        let stages = table.get_mut("stages").and_then(Json::as_object_mut);
        for stage in stages.into_iter().flat_map(Map::values_mut) {
            if let Some(stage) = stage.as_object_mut() {
                stage.shift_remove("cores");
            }
        }
    }
    Digest::of(json.to_string().as_bytes())
}

/// Checks what `expect` and `golden` name.
fn expectations(shared: &Shared<'_>, problems: &mut Vec<Diagnostic>) {
    let known = |name: &str| shared.manifest.stages.contains_key(name) || shared.tainted("stages", name);
    let golden = shared.manifest.golden.iter().flat_map(|golden| &golden.stages);
    for name in shared
        .manifest
        .expect
        .iter()
        .filter_map(|expectation| expectation.stage.as_ref())
        .chain(golden)
    {
        if !known(name) {
            let title = format!("there is no stage `{name}`");
            let problem = Diagnostic::error(Code::UnknownStage, name.span, title);
            let known = shared.manifest.stages.keys().map(String::as_str);
            problems.push(shared.near.hint(problem, name, known));
        }
    }
    let places = match shared.tree.get("expect").map(|expect| &expect.value) {
        Some(Value::List(items)) => items.iter().map(|item| item.span).collect(),
        _ => Vec::new(),
    };
    for (index, expectation) in shared.manifest.expect.iter().enumerate() {
        // Places are known as long as none was left out.
        if let Some(span) = places
            .get(index)
            .filter(|_| places.len() == shared.manifest.expect.len())
            && !says_something(expectation)
        {
            problems.push(
                Diagnostic::error(Code::MissingKey, *span, "this expects nothing")
                    .help("say what is expected: `outcome`, `hits`, `behaviour` or `stdout`"),
            );
        }
        let Some(filter) = &expectation.filter else {
            continue;
        };
        match shared.evaluator.check(filter) {
            Ok(()) => {
                let stage = expectation.stage.as_ref().map(|stage| stage.value.as_str());
                names::filter(shared, stage, filter, problems);
            }
            Err(error) => problems.push(Diagnostic::error(
                Code::Expression,
                filter.span,
                format!("the condition cannot be read: {error}"),
            )),
        }
    }
}

/// Whether an expectation can be met or not.
fn says_something(expectation: &Expectation) -> bool {
    let hits = expectation
        .hits
        .as_ref()
        .is_some_and(|hits| *hits != Default::default());
    let behaviour = &expectation.behaviour;
    let behaviour = behaviour
        .as_ref()
        .is_some_and(|lines| *lines != Default::default());
    let stdout = expectation
        .stdout
        .as_ref()
        .is_some_and(|text| *text != Default::default());
    hits || behaviour || stdout || expectation.outcome.is_some()
}

impl Plan {
    /// What expressions of an instance can name, beside the results of other stages: its axes (a sample as a table with
    /// `digest`, `set`, `name`, `family`, `variant`, `label`, `arch` and `length`), `sample` for its only sample axis,
    /// `stage` and `uses`.
    pub fn context(&self, instance: &Instance) -> Json {
        let mut context = Map::new();
        context.insert("stage".into(), instance.stage.clone().into());
        context.insert("uses".into(), instance.uses.clone().into());
        if let Some(sample) = self.sample_of(instance) {
            context.insert("sample".into(), sample.context());
        }
        for (name, value) in &instance.axes {
            let value = match value {
                AxisValue::Sample(index) => {
                    self.samples.get(*index).map_or(Json::Null, plan::Sample::context)
                }
                AxisValue::Literal(value) => value.clone(),
                AxisValue::Item(item) => item.context(),
            };
            context.insert(name.clone(), value);
        }
        if StageType::find(&instance.uses).is_some_and(|stage_type| stage_type.open) {
            context.insert("inputs".into(), naming::paths("inputs", instance.inputs.keys()));
            if let Some(stage) = self.stages.get(&instance.stage) {
                context.insert("outputs".into(), naming::paths("outputs", stage.outputs.keys()));
            }
        }
        Json::Object(context)
    }
}
