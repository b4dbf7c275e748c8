//! One instance, from its inputs to its status.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use hotcell_cells::stop::Urgency;
use hotcell_plan::{Instance, Origin, Plan, Sample, Wire};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_store::{Record, StoreError, Stored};
use indexmap::IndexMap;

use crate::execute::Options;
use crate::key::{self, Components};
use crate::schedule::{Dependency, dependencies};
use crate::{condition, stages};

/// Why an instance is skipped whose sample is listed and nowhere to be found.
const ABSENT: &str = "absent";
/// No sample is larger.
const MAX_SAMPLE: u64 = 1 << 30;

/// How an instance ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// For us.
    pub status: Status,
    /// Why it did not end well, the same on every machine.
    pub reason: Option<String>,
    /// Why it did not end well, with what the host knows.
    pub error: Option<String>,
    /// Outputs by port.
    pub outputs: IndexMap<String, Stored>,
    /// Objects that outputs name in turn.
    pub objects: Vec<Stored>,
    /// The cache key, where it came so far.
    pub key: Option<Digest>,
    /// Wall seconds.
    pub wall_s: f64,
    /// CPU seconds of the cell.
    pub cpu_s: f64,
    /// Peak memory of the cell in KiB.
    pub peak_kib: u64,
    /// Layers of confinement that held.
    pub layers: Vec<String>,
    /// What this host could not do, and what held instead.
    pub fallbacks: Vec<String>,
}

impl Done {
    /// An instance that ended without outputs.
    pub(crate) fn without_outputs(status: Status, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: Some(reason.into()),
            error: None,
            outputs: IndexMap::new(),
            objects: Vec::new(),
            key: None,
            wall_s: 0.0,
            cpu_s: 0.0,
            peak_kib: 0,
            layers: Vec::new(),
            fallbacks: Vec::new(),
        }
    }

    /// The machinery broke: the reason is the same everywhere, the details are the host's.
    pub(crate) fn failed(reason: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::without_outputs(Status::Failed, reason)
        }
    }

    /// An instance with outputs.
    pub(crate) fn ok(outputs: IndexMap<String, Stored>, objects: Vec<Stored>) -> Self {
        Self {
            reason: None,
            outputs,
            objects,
            ..Self::without_outputs(Status::Ok, "")
        }
    }
}

/// What is wired to an input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// A sample's file.
    Sample(&'a Sample),
    /// A stored output.
    Stored(Stored),
}

impl Input<'_> {
    fn digest(&self) -> Digest {
        match self {
            Self::Sample(sample) => sample.digest,
            Self::Stored(stored) => stored.digest,
        }
    }
}

/// Inputs by port.
pub(crate) type Inputs<'a> = BTreeMap<String, Vec<Input<'a>>>;

/// Everything that work on one instance reads.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub plan: &'a Plan,
    pub options: &'a Options<'a>,
    /// How instances ended, by index.
    pub done: Vec<OnceLock<Done>>,
    pub rules: stages::rules::Compiled,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(plan: &'a Plan, options: &'a Options<'a>) -> Self {
        let done = plan.instances.iter().map(|_| OnceLock::new()).collect();
        Self {
            plan,
            options,
            done,
            rules: stages::rules::Compiled::default(),
        }
    }

    /// How an instance ended, if it did.
    pub(crate) fn of(&self, index: usize) -> Option<&Done> {
        self.done.get(index)?.get()
    }

    /// Bytes of an input. The error is a status.
    pub(crate) fn read(&self, input: &Input<'_>) -> Result<Vec<u8>, Done> {
        match input {
            Input::Sample(sample) => self.read_sample(sample),
            Input::Stored(stored) => match self.options.store.get(stored) {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => Err(Done::failed(
                    "a stored input is gone or damaged",
                    format!(
                        "object {} was removed from the store; run again, and it is made again",
                        stored.digest
                    ),
                )),
                Err(error) => Err(Done::failed("the store cannot be read", error.to_string())),
            },
        }
    }

    fn read_sample(&self, sample: &Sample) -> Result<Vec<u8>, Done> {
        let path = match &sample.origin {
            Origin::File(path) => self.plan.path(path),
            Origin::Member { .. } | Origin::Object => {
                return Err(Done::without_outputs(
                    Status::Refused,
                    "samples in archives are not read yet",
                ));
            }
            Origin::Absent => return Err(Done::without_outputs(Status::Skipped, ABSENT)),
        };
        if sample.length > MAX_SAMPLE {
            return Err(Done::without_outputs(
                Status::Refused,
                format!("the sample is larger than {MAX_SAMPLE} bytes"),
            ));
        }
        let bytes = fs_err::read(path.as_std_path())
            .map_err(|error| Done::failed("the sample's file cannot be read", error.to_string()))?;
        if Digest::of(&bytes) != sample.digest {
            let error = format!("{path} is not what it was when the run was planned; run again");
            return Err(Done::failed(
                "the sample's file changed while the run went on",
                error,
            ));
        }
        Ok(bytes)
    }
}

/// Does one instance: from the store where it can, else by running it.
pub(crate) fn work(shared: &Shared<'_>, instance: &Instance) -> Done {
    let began = Instant::now();
    let mut done = attempt(shared, instance).unwrap_or_else(|ended| ended);
    let mut retries = instance.retries;
    while done.status == Status::Interrupted && retries > 0 && shared.options.stop.urgency() == Urgency::None
    {
        retries -= 1;
        done = attempt(shared, instance).unwrap_or_else(|ended| ended);
    }
    done.wall_s = began.elapsed().as_secs_f64();
    done
}

fn attempt(shared: &Shared<'_>, instance: &Instance) -> Result<Done, Done> {
    let ready = prepare(shared, instance)?;
    if !shared.options.force
        && let Some(record) = shared
            .options
            .store
            .whole_record(&ready.key)
            .map_err(store_failed)?
    {
        return Ok(Done {
            status: Status::Cached,
            key: Some(ready.key),
            ..Done::ok(record.outputs, record.objects)
        });
    }
    let mut done = stages::run(shared, instance, &ready.inputs).unwrap_or_else(|ended| ended);
    done.key = Some(ready.key);
    if done.status == Status::Ok {
        let record = Record {
            components: ready.components,
            outputs: done.outputs.clone(),
            objects: done.objects.clone(),
        };
        shared
            .options
            .store
            .put_record(&ready.key, &record)
            .map_err(store_failed)?;
    }
    Ok(done)
}

pub(crate) fn store_failed(error: StoreError) -> Done {
    Done::failed("the store cannot be used", error.to_string())
}

/// An instance that can run: what it reads, and its key.
struct Ready<'a> {
    inputs: Inputs<'a>,
    components: Components,
    key: Digest,
}

fn prepare<'a>(shared: &Shared<'a>, instance: &Instance) -> Result<Ready<'a>, Done> {
    if shared.plan.is_absent(instance) {
        return Err(Done::without_outputs(Status::Skipped, ABSENT));
    }
    check_dependencies(shared, instance)?;
    condition::check(shared, instance)?;
    let inputs = inputs(shared, instance)?;
    let digests = inputs
        .iter()
        .map(|(port, inputs)| (port.clone(), inputs.iter().map(Input::digest).collect()))
        .collect();
    let engine = shared.options.engines.key(&instance.uses).map_err(|error| Done {
        error: Some(error),
        ..Done::without_outputs(Status::Refused, "the engine is not on this host")
    })?;
    let mut components = key::components(shared.plan, instance, &digests, &engine);
    if instance.uses == "inspect/elf" {
        // Inspection is given all profiles: it names the architecture itself.
        components.insert("profiles".into(), key::digest_of(&shared.options.profiles));
    }
    let key = key::key(&components);
    Ok(Ready {
        inputs,
        components,
        key,
    })
}

/// Everything before must have ended well; what was not wanted is left out where all of a stage is waited for.
fn check_dependencies(shared: &Shared<'_>, instance: &Instance) -> Result<(), Done> {
    let reads = instance.when.iter().flat_map(|when| when.reads.values()).copied();
    let optional: Vec<usize> = reads.collect();
    let check = |index: usize, all_of_stage: bool| -> Result<(), Done> {
        let (Some(before), Some(done)) = (shared.plan.instances.get(index), shared.of(index)) else {
            return Err(Done::failed(
                "the plan waits for an instance that never ran",
                format!("instance {index}"),
            ));
        };
        match done.status {
            Status::Ok | Status::Cached => Ok(()),
            Status::Skipped if all_of_stage => Ok(()),
            // A condition can ask how a stage ended; it need not have ended well.
            _ if optional.contains(&index) && !feeds(instance, index) => Ok(()),
            status => {
                let status = serde_json::to_string(&status).unwrap_or_default();
                Err(Done::without_outputs(
                    Status::Skipped,
                    format!("`{}` is {}", before.name, status.trim_matches('"')),
                ))
            }
        }
    };
    for dependency in dependencies(instance) {
        match dependency {
            Dependency::Instance(index) => check(index, false)?,
            Dependency::Stage(stage) => {
                let range = shared
                    .plan
                    .stages
                    .get(stage)
                    .map(|stage| stage.instances())
                    .unwrap_or_default();
                range.clone().try_for_each(|index| check(index, true))?;
            }
        }
    }
    Ok(())
}

fn feeds(instance: &Instance, index: usize) -> bool {
    let wired = instance.inputs.values().flatten();
    wired
        .into_iter()
        .any(|wire| matches!(wire, Wire::Output { instance, .. } if *instance == index))
}

fn inputs<'a>(shared: &Shared<'a>, instance: &Instance) -> Result<Inputs<'a>, Done> {
    let mut inputs = Inputs::new();
    for (port, wires) in &instance.inputs {
        let mut wired = Vec::new();
        for wire in wires {
            match wire {
                Wire::Sample(index) => match shared.plan.samples.get(*index) {
                    Some(sample) => wired.push(Input::Sample(sample)),
                    None => {
                        return Err(Done::failed(
                            "the plan names a sample it does not have",
                            format!("sample {index}"),
                        ));
                    }
                },
                Wire::Output { instance, port } => match output(shared, *instance, port) {
                    Some(stored) => wired.push(Input::Stored(stored)),
                    None => {
                        let reason = format!("an output `{port}` that it reads was not given");
                        return Err(Done::without_outputs(Status::Skipped, reason));
                    }
                },
                Wire::All { stage, port } => {
                    let range = shared
                        .plan
                        .stages
                        .get(stage)
                        .map(|stage| stage.instances())
                        .unwrap_or_default();
                    wired.extend(
                        range
                            .filter_map(|index| output(shared, index, port))
                            .map(Input::Stored),
                    );
                }
            }
        }
        inputs.insert(port.clone(), wired);
    }
    Ok(inputs)
}

fn output(shared: &Shared<'_>, index: usize, port: &str) -> Option<Stored> {
    shared.of(index)?.outputs.get(port).copied()
}

/// What a run would do with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// It is stored.
    Cached {
        /// The cache key.
        key: Digest,
        /// What the key is made of.
        components: Components,
    },
    /// It would run.
    Runs {
        /// The cache key.
        key: Digest,
        /// What the key is made of.
        components: Components,
    },
    /// What it reads is not there before something else has run.
    Later {
        /// The first instance that must run before.
        after: String,
    },
    /// It would end at once, with this status.
    Ends {
        /// The status.
        status: Status,
        /// Why.
        reason: String,
    },
}

/// Says for every instance, in the plan's order, what a run would do. Writes nothing.
pub fn forecast(plan: &Plan, options: &Options<'_>) -> Result<Vec<Forecast>, StoreError> {
    let shared = Shared::new(plan, options);
    let mut forecasts = Vec::with_capacity(plan.instances.len());
    for (index, instance) in plan.instances.iter().enumerate() {
        let forecast = foresee(&shared, instance)?;
        let done = match &forecast {
            Forecast::Cached { key, .. } => match options.store.record(key)? {
                Some(record) => Some(Done {
                    status: Status::Cached,
                    ..Done::ok(record.outputs, record.objects)
                }),
                None => None,
            },
            Forecast::Ends { status, reason } => Some(Done::without_outputs(*status, reason.clone())),
            Forecast::Runs { .. } | Forecast::Later { .. } => None,
        };
        if let (Some(done), Some(slot)) = (done, shared.done.get(index)) {
            let _ = slot.set(done);
        }
        forecasts.push(forecast);
    }
    Ok(forecasts)
}

fn foresee(shared: &Shared<'_>, instance: &Instance) -> Result<Forecast, StoreError> {
    let missing = dependencies(instance)
        .into_iter()
        .find_map(|dependency| match dependency {
            Dependency::Instance(index) => shared.of(index).is_none().then_some(index),
            Dependency::Stage(stage) => {
                let mut range = shared
                    .plan
                    .stages
                    .get(stage)
                    .map(|stage| stage.instances())
                    .unwrap_or_default();
                range.find(|index| shared.of(*index).is_none())
            }
        });
    if let Some(before) = missing.and_then(|index| shared.plan.instances.get(index)) {
        return Ok(Forecast::Later {
            after: before.name.clone(),
        });
    }
    Ok(match prepare(shared, instance) {
        Err(done) => Forecast::Ends {
            status: done.status,
            reason: done.error.or(done.reason).unwrap_or_default(),
        },
        Ok(ready) => {
            let stored = !shared.options.force && shared.options.store.record(&ready.key)?.is_some();
            match stored {
                true => Forecast::Cached {
                    key: ready.key,
                    components: ready.components,
                },
                false => Forecast::Runs {
                    key: ready.key,
                    components: ready.components,
                },
            }
        }
    })
}
