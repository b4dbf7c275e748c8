//! The end of a run: `result/`, pages and `run.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::PoisonError;

use hotcell_cells::cores::isolation::Isolation;
use hotcell_plan::{AxisValue, Instance, Plan, Wire};
use hotcell_report::{Assembly, Outputs, assemble, html, write_json};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{
    InstanceFacts, InstanceReport, OutputReport, Report, RunFacts, SampleReport, Selection,
};
use hotcell_schema::turns::{FILE, Turns};
use hotcell_store::runs::ResultWriter;
use hotcell_store::{RunFolder, Store, StoreError, Stored, keys};
use indexmap::IndexMap;

use crate::RunError;
use crate::current;
use crate::execute::NOT_BEGUN;
use crate::turns;
use crate::work::{Done, Shared};

/// Writes everything a run leaves.
pub(crate) fn finish(
    shared: &Shared<'_>,
    folder: &RunFolder,
    wall_s: f64,
    workers: usize,
) -> Result<(Report, RunFacts), RunError> {
    let plan = shared.plan;
    // First what the report does not need: of a large run it is megabytes.
    let keys = std::mem::take(&mut *shared.components.lock().unwrap_or_else(PoisonError::into_inner));
    folder.write_with(keys::FILE, |file| keys.write(file))?;
    drop(keys);
    let objects = Objects::new(shared);
    let writer = folder.begin_result()?;
    let mut instances = Vec::with_capacity(plan.instances.len());
    for (index, instance) in shared.table.in_order() {
        let Some(done) = shared.of(index).filter(|done| is_told(plan, instance, done)) else {
            continue;
        };
        write_outputs(plan, shared.options.store, &writer, instance, done)?;
        instances.push(instance_report(plan, instance, done));
    }
    let assembly = Assembly {
        name: plan.name.clone(),
        manifest: plan.manifest,
        seed: plan.seed,
        hotcell: shared.options.hotcell.to_owned(),
        variants: shared.options.variants.to_vec(),
        engines: engines(shared),
        selection: asked(shared),
        samples: samples(shared),
        instances,
    };
    let report = assemble(assembly, &objects)?;
    // Of a large run each of these is megabytes: none is held as text.
    writer.write_with("report.json", |file| Ok(write_json(&report, file)?))?;
    writer.publish()?;
    let mut facts = facts(shared, folder, wall_s, workers);
    let mut turns = Turns::default();
    if let Some(cores) = shared.options.cores {
        match turns::told(cores, shared.seats()) {
            Ok((told, each)) => (facts.cores, turns) = (Some(told), each),
            Err(error) => facts
                .fallbacks
                .push(format!("what the cores did is not known: {error}")),
        }
        folder.write_with(FILE, |file| Ok(turns::write(&turns, folder.id(), file)?))?;
    }
    let facts = facts;
    folder.write_with("run.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &facts)?;
        Ok(file.write_all(b"\n")?)
    })?;
    html::pages(&report, Some(&facts), &turns, &objects, &mut |path, page| {
        folder.write(path, page.as_bytes()).map_err(|error| match error {
            StoreError::Io(error) => error,
            other => io::Error::other(other),
        })
    })?;
    current::note(shared, folder, &report)?;
    Ok((report, facts))
}

/// Outputs of this run, read from the store.
struct Objects<'a> {
    store: &'a Store,
    /// How each instance ended, by its name.
    done: HashMap<&'a str, &'a Done>,
    named: BTreeMap<Digest, Stored>,
}

impl<'a> Objects<'a> {
    fn new(shared: &'a Shared<'_>) -> Self {
        let mut objects = Self {
            store: shared.options.store,
            done: HashMap::with_capacity(shared.plan.instances.len()),
            named: BTreeMap::new(),
        };
        for (index, instance) in shared.table.in_order() {
            let Some(done) = shared.of(index) else { continue };
            objects.done.insert(&instance.name, done);
            objects
                .named
                .extend(done.objects.iter().map(|stored| (stored.digest, *stored)));
        }
        objects
    }

    fn get(&self, stored: Option<&Stored>) -> io::Result<Option<Vec<u8>>> {
        match stored {
            None => Ok(None),
            Some(stored) => self.store.get(stored).map_err(io::Error::other),
        }
    }
}

impl Outputs for Objects<'_> {
    fn read(&self, instance: &str, port: &str) -> io::Result<Option<Vec<u8>>> {
        self.get(self.done.get(instance).and_then(|done| done.outputs.get(port)))
    }

    fn object(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.get(self.named.get(digest))
    }
}

/// Whether an instance stands in the report: a point that became what it should is no result of its own.
fn is_told(plan: &Plan, instance: &Instance, done: &Done) -> bool {
    plan.expansion_of(instance).is_none() || done.status != Status::Ok || done.reason.is_some()
}

/// Name of an output's file in the folder of its instance.
pub(crate) fn file_name(plan: &Plan, instance: &Instance, port: &str) -> String {
    let stage = plan.stage_of(instance);
    let ending = stage
        .and_then(|stage| stage.outputs.get(port))
        .map_or("", |port| port.ending());
    format!("{port}{ending}")
}

/// Name in the folder of an instance of an object that one of its outputs names.
pub(crate) fn object_name(digest: &Digest) -> String {
    format!("files/{digest}")
}

/// Folder of an instance within `result/`.
pub(crate) fn folder_of(instance: &Instance) -> String {
    format!("stages/{}/{}", instance.stage, instance.slug)
}

/// Path of an output within `result/`.
fn output_path(plan: &Plan, instance: &Instance, port: &str) -> String {
    format!("{}/{}", folder_of(instance), file_name(plan, instance, port))
}

fn write_outputs(
    plan: &Plan,
    store: &Store,
    writer: &ResultWriter,
    instance: &Instance,
    done: &Done,
) -> Result<(), RunError> {
    let gone = |stored: &Stored| RunError::Host {
        doing: format!("writing the result of {}", instance.name),
        source: io::Error::other(format!(
            "object {} was damaged in the store and has been removed; run again, and it is made again",
            stored.digest
        )),
    };
    for (port, stored) in &done.outputs {
        let bytes = store.get(stored)?.ok_or_else(|| gone(stored))?;
        writer.write(&output_path(plan, instance, port), &bytes)?;
    }
    for stored in &done.objects {
        let bytes = store.get(stored)?.ok_or_else(|| gone(stored))?;
        writer.write(
            &format!("{}/{}", folder_of(instance), object_name(&stored.digest)),
            &bytes,
        )?;
    }
    Ok(())
}

fn instance_report(plan: &Plan, instance: &Instance, done: &Done) -> InstanceReport {
    let outputs = done.outputs.iter().map(|(port, stored)| {
        let path = output_path(plan, instance, port);
        (
            port.clone(),
            OutputReport {
                path,
                digest: stored.digest,
                length: stored.length,
            },
        )
    });
    InstanceReport {
        name: instance.name.clone(),
        stage: instance.stage.clone(),
        uses: instance.uses.clone(),
        axes: plan.axis_texts(instance),
        sample: subject(plan, instance),
        arch: instance.arch.clone(),
        status: if done.status == Status::Cached {
            Status::Ok
        } else {
            done.status
        },
        reason: done.reason.clone(),
        outcome: None,
        outputs: outputs.collect(),
        findings: Vec::new(),
        responses: Vec::new(),
        unsupported: Vec::new(),
        behaviour: Vec::new(),
    }
}

/// Samples by their digest. The same bytes can stand in several sets: the first one names them, as in the plan, and all are
/// told.
/// Where not all of the plan was run, those that something is about.
fn samples(shared: &Shared<'_>) -> IndexMap<String, SampleReport> {
    let plan = shared.plan;
    let about: Option<HashSet<usize>> = shared.options.selection.map(|selection| {
        let chosen = plan.instances.iter().enumerate();
        let chosen = chosen.filter(|(index, _)| selection.has(*index));
        chosen.flat_map(|(_, instance)| about(instance)).collect()
    });
    let mut samples = IndexMap::new();
    for (index, sample) in plan.samples.iter().enumerate() {
        if about.as_ref().is_some_and(|about| !about.contains(&index)) {
            continue;
        }
        let (id, report) = sample_report(sample);
        samples.entry(id).or_insert(report);
    }
    for sample in &plan.samples {
        if let Some(report) = samples.get_mut(&sample.digest.to_string())
            && sample.set != report.set
            && !report.sets.contains(&sample.set)
        {
            if report.sets.is_empty() {
                report.sets.push(report.set.clone());
            }
            report.sets.push(sample.set.clone());
        }
    }
    samples
}

/// The sample whose file an instance takes, or whoever gave it what it reads, where its axes alone would say another.
fn subject(plan: &Plan, instance: &Instance) -> Option<String> {
    let sample = |value: &AxisValue| match value {
        AxisValue::Sample(index) => Some(*index),
        _ => None,
    };
    let said = instance.axes.get("sample").and_then(sample);
    let said = said.or_else(|| instance.axes.values().find_map(sample));
    let mut reader = instance;
    let taken = loop {
        if let Some([Wire::Sample(index)]) = reader.inputs.get("file").map(Vec::as_slice) {
            break Some(*index);
        }
        // The plan has no cycles.
        let given = reader.inputs.values().flatten().find_map(|wire| match wire {
            Wire::Output { instance, .. } => plan.instances.get(*instance),
            _ => None,
        });
        match given {
            Some(given) => reader = given,
            None => break None,
        }
    }?;
    // What is of no axis is read, and is nobody's subject.
    let is_axis = instance
        .axes
        .values()
        .filter_map(sample)
        .any(|index| index == taken);
    (is_axis && said != Some(taken)).then(|| plan.axis_text(&AxisValue::Sample(taken)))
}

/// Samples that an instance is about, or reads.
fn about(instance: &Instance) -> impl Iterator<Item = usize> {
    let axes = instance.axes.values().filter_map(|value| match value {
        AxisValue::Sample(index) => Some(*index),
        _ => None,
    });
    let wired = instance.inputs.values().flatten();
    axes.chain(wired.filter_map(|wire| match wire {
        Wire::Sample(index) => Some(*index),
        _ => None,
    }))
}

fn asked(shared: &Shared<'_>) -> Option<Selection> {
    shared.options.selection.map(|selection| selection.asked.clone())
}

fn sample_report(sample: &hotcell_plan::Sample) -> (String, SampleReport) {
    let report = SampleReport {
        digest: sample.digest,
        set: sample.set.clone(),
        sets: Vec::new(),
        name: sample.name.clone(),
        length: sample.length,
        arch: sample.arch.clone(),
        family: sample.family.clone(),
        variant: sample.variant.clone(),
        label: sample.label.clone(),
        severity: None,
    };
    (sample.digest.to_string(), report)
}

/// Who ran, by the first part of `uses`. Only what is the same on every machine with the same build.
fn engines(shared: &Shared<'_>) -> IndexMap<String, String> {
    let used: BTreeSet<&str> = shared
        .plan
        .stages
        .values()
        .map(|stage| stage.uses.as_str())
        .collect();
    let mut engines = IndexMap::new();
    for uses in used {
        if let Some(Ok(engine)) = shared.options.engines.of(uses) {
            let name = uses.split('/').next().unwrap_or(uses);
            engines.insert(name.to_owned(), engine.identity.clone());
        }
    }
    engines
}

fn facts(shared: &Shared<'_>, folder: &RunFolder, wall_s: f64, workers: usize) -> RunFacts {
    let confinement = shared.confinement();
    let mut instances = IndexMap::new();
    for (index, instance) in shared.table.in_order() {
        let Some(done) = shared
            .of(index)
            .filter(|done| is_told(shared.plan, instance, done))
        else {
            continue;
        };
        let facts = InstanceFacts {
            status: done.status,
            not_begun: done.reason.as_deref() == Some(NOT_BEGUN),
            wall_s: done.wall_s,
            cpu_s: done.cpu_s,
            peak_kib: done.peak_kib,
            stood_s: done.stood_s,
            key: done.key,
            reason: done.reason.clone(),
            error: done.error.clone(),
            attempts: done.attempts,
            left: done.left.clone(),
            fault: done.fault.clone(),
        };
        instances.insert(instance.name.clone(), facts);
    }
    RunFacts {
        format: "hotcell-run".into(),
        version: 1,
        run: folder.id(),
        experiment: shared.plan.name.clone(),
        started: shared.options.started.to_owned(),
        wall_s,
        host: shared.options.host.to_owned(),
        selection: asked(shared),
        jobs: u32::try_from(workers).unwrap_or(u32::MAX),
        called: {
            let redacted = |word: &String| match shared.options.secrets {
                Some(secrets) => secrets.redact(word).into_owned(),
                None => word.clone(),
            };
            shared.options.called.iter().map(redacted).collect()
        },
        hotcell: shared.options.hotcell.to_owned(),
        variants: shared.options.variants.to_vec(),
        isolation: match shared.options.cores {
            Some(cores) => cores.level.clone(),
            None => "none".into(),
        },
        cores: None,
        confinement: confinement.layers.into_iter().collect(),
        fallbacks: {
            let mut all: Vec<String> = confinement.fallbacks.into_iter().collect();
            if let Some(cores) = shared.options.cores {
                all.extend_from_slice(&cores.fallbacks);
                all.extend_from_slice(cores.isolation.as_ref().map_or(&[], Isolation::fallbacks));
            }
            all
        },
        instances,
    }
}
