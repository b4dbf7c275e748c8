//! One instance, from its inputs to its status.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hotcell_cells::cores::history::TURNS_KEPT;
use hotcell_cells::cores::schedule::CellId;
use hotcell_cells::stop::Urgency;
use hotcell_plan::{
    After, AxisValue, Instance, MAX_SAMPLE, Origin, Plan, PlannedLimits, Sample, SourceError, Wire,
};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_store::keys::Keys;
use hotcell_store::{Record, StoreError, Stored};
use indexmap::IndexMap;

use crate::documents::Documents;
use crate::execute::Options;
use crate::faults::{Broke, Faults};
use crate::flights::Flights;
use crate::given::{self, Given};
use crate::key;
use crate::left::Left;
use crate::schedule::{Dependency, dependencies};
use crate::stages::command::live;
use crate::sysroots::Sysroots;
use crate::table::Table;
use crate::{condition, late, stages};

/// Why an instance is skipped whose sample is listed and nowhere to be found.
pub(crate) const ABSENT: &str = "absent";

/// How an instance ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// For us.
    pub status: Status,
    /// Why it did not end well, the same on every machine.
    pub reason: Option<String>,
    /// Why it did not end well, with what the host knows.
    pub error: Option<String>,
    /// It was skipped because something before it did not end well, not because it was not wanted.
    pub blocked: bool,
    /// How the sample ended, where one ran just now.
    pub outcome: Option<Outcome>,
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
    /// Seconds in which its guest was made to stand still, until what it had done was read.
    pub stood_s: f64,
    /// How often it was tried; 0: it never began.
    pub attempts: u32,
    /// Where it lies what a program left that did not end well: a path from the run's folder.
    pub left: Option<String>,
    /// Where it stands what is known of a cell that broke: a path from the run's folder.
    pub fault: Option<String>,
    /// What is known of a cell that broke, until it is kept.
    pub(crate) broke: Option<Box<Broke>>,
    /// The store cannot be used: nothing after this can end well either.
    pub host_refuses: bool,
}

impl Done {
    /// An instance that ended without outputs.
    pub(crate) fn without_outputs(status: Status, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: Some(reason.into()),
            error: None,
            blocked: false,
            outcome: None,
            outputs: IndexMap::new(),
            objects: Vec::new(),
            key: None,
            wall_s: 0.0,
            cpu_s: 0.0,
            peak_kib: 0,
            stood_s: 0.0,
            attempts: 0,
            left: None,
            fault: None,
            broke: None,
            host_refuses: false,
        }
    }

    /// The machinery broke: the reason is the same everywhere, the details are the host's.
    pub(crate) fn failed(reason: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::without_outputs(Status::Failed, reason)
        }
    }

    /// Whether the host's clock ended its sample. What it gave until then is used in this run, and in no other.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_of_wall_time)
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
    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::Sample(sample) => sample.digest,
            Self::Stored(stored) => stored.digest,
        }
    }
}

/// Inputs by port.
pub(crate) type Inputs<'a> = BTreeMap<String, Vec<Input<'a>>>;

/// What held the cells and commands of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confinement {
    /// Layers that held.
    pub layers: BTreeSet<String>,
    /// What this host could not do, and what held instead.
    pub fallbacks: BTreeSet<String>,
}

/// Everything that work on one instance reads.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub plan: &'a Plan,
    pub options: &'a Options<'a>,
    /// Instances, and how they ended.
    pub table: Table<'a>,
    pub keys: key::Memory,
    /// What the keys of this run are made of.
    pub components: Mutex<Keys>,
    /// What held cells and commands.
    confinement: Mutex<Confinement>,
    /// What runs just now.
    pub flights: Flights,
    /// Results that conditions, settings, axes and rules read.
    pub documents: Documents,
    /// Stages that nobody who waits for all of them is kept back by: looked at once, not once for each who waits.
    sound: Mutex<HashSet<usize>>,
    pub rules: stages::rules::Compiled,
    /// Roots of guests that cells were given.
    pub sysroots: Sysroots,
    /// Where programs that did not end well leave what they made; absent: nowhere.
    pub left: Option<Left<'a>>,
    /// Where it is kept what is known of cells that broke; absent: nowhere.
    pub faults: Option<Faults<'a>>,
    /// What stages gave out, against the quota of the run's user.
    pub given: Given,
    /// Nothing more begins, and nothing is tried again.
    pub closed: AtomicBool,
    /// Instances by their cells that took turns on cores: the latest.
    seats: Mutex<BTreeMap<CellId, String>>,
}

impl<'a> Shared<'a> {
    /// The arch profile of a name: the plan's own, or one that came with the runner.
    pub(crate) fn profile(&self, name: &str) -> Option<&'a ArchProfile> {
        let given = || self.options.profiles.iter().find(|profile| profile.name == name);
        self.plan.profiles.get(name).or_else(given)
    }

    pub(crate) fn new(plan: &'a Plan, options: &'a Options<'a>) -> Self {
        Self {
            plan,
            options,
            table: Table::new(plan),
            keys: key::Memory::new(plan, options.profiles),
            components: Mutex::default(),
            confinement: Mutex::default(),
            flights: Flights::default(),
            documents: Documents::default(),
            sound: Mutex::default(),
            rules: stages::rules::Compiled::default(),
            sysroots: Sysroots::default(),
            left: None,
            faults: None,
            given: Given::new(options.cores.and_then(|cores| cores.quota.output)),
            closed: AtomicBool::new(false),
            seats: Mutex::default(),
        }
    }

    /// How an instance ended, if it did.
    pub(crate) fn of(&self, index: usize) -> Option<&Done> {
        self.table.of(index)
    }

    /// Notes what held a cell or a command.
    pub(crate) fn note_confinement(&self, layers: &[String], fallbacks: &[String]) {
        let mut known = self.confinement.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        for (all, new) in [(&mut known.layers, layers), (&mut known.fallbacks, fallbacks)] {
            for text in new {
                if !all.contains(text) {
                    all.insert(text.clone());
                }
            }
        }
    }

    /// What held so far.
    pub(crate) fn confinement(&self) -> Confinement {
        self.confinement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes which instance a cell on cores was. As many are kept as turns are: whoever is older has none among them but
    /// by running longer than all others.
    pub(crate) fn seated(&self, cell: Option<CellId>, instance: &Instance) {
        let Some(cell) = cell else { return };
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.insert(cell, instance.name.clone());
        if seats.len() > TURNS_KEPT {
            seats.pop_first();
        }
    }

    /// Instances by their cells.
    pub(crate) fn seats(&self) -> BTreeMap<CellId, String> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seats)
    }

    fn is_sound(&self, stage: &str) -> bool {
        let sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.plan.stages.get_index_of(stage);
        place.is_some_and(|place| sound.contains(&place))
    }

    fn note_sound(&self, stage: &str) {
        let mut sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        sound.extend(self.plan.stages.get_index_of(stage));
    }

    /// The limits of an instance.
    pub(crate) fn limits(&self, instance: &Instance) -> PlannedLimits {
        let stage = self.plan.stage_of(instance);
        stage.map(|stage| stage.limits.clone()).unwrap_or_default()
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
                Err(error) => Err(store_failed(error)),
            },
        }
    }

    fn read_sample(&self, sample: &Sample) -> Result<Vec<u8>, Done> {
        if sample.length > MAX_SAMPLE {
            return Err(Done::without_outputs(
                Status::Refused,
                format!("the sample is larger than {MAX_SAMPLE} bytes"),
            ));
        }
        let path = match &sample.origin {
            Origin::File(path) => self.plan.path(path),
            Origin::Member { .. } | Origin::Object => return self.read_from_source(sample),
            Origin::Absent => return Err(Done::without_outputs(Status::Skipped, ABSENT)),
        };
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

impl Shared<'_> {
    fn read_from_source(&self, sample: &Sample) -> Result<Vec<u8>, Done> {
        let read = match self.options.archives {
            Some(archives) => archives.sample(self.options.store, self.plan, sample),
            None => Err(SourceError::NoReader),
        };
        read.map_err(|error| {
            let shown = sample.origin.shown(&self.plan.archives);
            Done::failed(
                "the sample cannot be taken from its source",
                format!("{shown}: {error}"),
            )
        })
    }

    /// Keeps what is known of a cell that broke; gives its place.
    fn keep_fault(&self, instance: &Instance, done: &mut Done, attempt: u32) -> Option<String> {
        let broke = done.broke.take()?;
        let faults = self.faults.as_ref()?;
        faults.keep(instance, attempt, *broke, self.options.secrets)
    }

    /// Takes the values of secrets out of what is told of an instance.
    fn redacted(&self, mut done: Done) -> Done {
        if let Some(secrets) = self.options.secrets {
            for text in [&mut done.reason, &mut done.error].into_iter().flatten() {
                if let Cow::Owned(redacted) = secrets.redact(text) {
                    *text = redacted;
                }
            }
        }
        done
    }
}

/// Does one instance: from the store where it can, else by running it. `None`: another instance with the same key runs just
/// now; this one is to be tried again when that one has ended.
pub(crate) fn work(shared: &Shared<'_>, index: usize, instance: &Instance) -> Option<Done> {
    let began = Instant::now();
    let attempt = || attempt(shared, index, instance).unwrap_or_else(Some);
    let mut done = attempt()?;
    let mut fault = shared.keep_fault(instance, &mut done, 1);
    let mut retries = shared.plan.stage_of(instance).map_or(0, |stage| stage.retries);
    let mut attempts = 1;
    let may_go_on =
        || shared.options.stop.urgency() == Urgency::None && !shared.closed.load(Ordering::Relaxed);
    while (done.status == Status::Interrupted || done.is_cut_short()) && retries > 0 && may_go_on() {
        retries -= 1;
        attempts += 1;
        done = attempt()?;
        fault = shared.keep_fault(instance, &mut done, attempts).or(fault);
    }
    done.fault = fault;
    if !matches!(done.status, Status::Cached | Status::Skipped | Status::Refused) {
        done.attempts = attempts;
    }
    if let Some(left) = shared
        .left
        .as_ref()
        .filter(|_| attempts > 1 && done.left.is_none())
    {
        left.forget(instance);
    }
    done.wall_s = began.elapsed().as_secs_f64();
    Some(shared.redacted(done))
}

fn attempt(shared: &Shared<'_>, index: usize, instance: &Instance) -> Result<Option<Done>, Done> {
    let ready = prepare(shared, instance)?;
    let mut noted = shared.components.lock().unwrap_or_else(PoisonError::into_inner);
    noted.note(&instance.name, &ready.components.clone().into());
    drop(noted);
    // Who is to run whatever is stored does not share what another gives either.
    if shared.options.forces(instance) {
        return run(shared, ready).map(Some);
    }
    if let Some(done) = stored(shared, &ready.key)? {
        return Ok(Some(done));
    }
    let Some(_flight) = shared.flights.begin(ready.key, index) else {
        return Ok(None);
    };
    // Another may have stored it between the look and the begin.
    match stored(shared, &ready.key)? {
        Some(done) => Ok(Some(done)),
        None => run(shared, ready).map(Some),
    }
}

fn stored(shared: &Shared<'_>, key: &Digest) -> Result<Option<Done>, Done> {
    let record = shared.options.store.whole_record(key).map_err(store_failed)?;
    Ok(record.map(|record| Done {
        status: Status::Cached,
        key: Some(*key),
        ..Done::ok(record.outputs, record.objects)
    }))
}

fn run(shared: &Shared<'_>, ready: Ready<'_, '_>) -> Result<Done, Done> {
    shared.given.is_open()?;
    let mut done = stages::run(shared, &ready.instance, &ready.inputs).unwrap_or_else(|ended| ended);
    done.key = Some(ready.key);
    // Another run of what the host's clock ended may come further.
    if done.status == Status::Ok && !done.is_cut_short() {
        let record = Record {
            components: ready.components.into(),
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
    if let StoreError::Io(error) = &error
        && let Some(done) = given::refused(error)
    {
        return done;
    }
    Done {
        host_refuses: true,
        ..Done::failed("the store cannot be used", error.to_string())
    }
}

/// An instance that can run: what it reads, and its key.
pub(crate) struct Ready<'s, 'i> {
    /// With all that was known at run time only.
    pub instance: Cow<'i, Instance>,
    pub inputs: Inputs<'s>,
    pub components: key::Parts<'s>,
    pub key: Digest,
}

/// Looks at everything that an instance waits for and reads. The error is how it ends without having run.
pub(crate) fn prepare<'s, 'i>(shared: &'s Shared<'_>, instance: &'i Instance) -> Result<Ready<'s, 'i>, Done> {
    if shared.plan.is_absent(instance) {
        return Err(Done::without_outputs(Status::Skipped, ABSENT));
    }
    check_dependencies(shared, instance)?;
    condition::check(shared, instance)?;
    let inputs = inputs(shared, instance)?;
    let instance = late::complete(shared, instance, &inputs)?;
    let lists = lists(shared, &instance);
    let digests = inputs
        .iter()
        .map(|(port, inputs)| (port.as_str(), inputs.iter().map(Input::digest).collect()))
        .chain(lists.iter().map(|(name, digest)| (name.as_str(), vec![*digest])))
        .collect();
    let engines = shared.options.engines;
    let (engine, absent) = match instance.uses.as_str() {
        "command" => {
            let program = engines.programs().program(shared.plan, &instance);
            let identity = program.map(|program| program.identity.clone());
            (identity, "the program is not on this host")
        }
        uses => {
            let arch = instance.arch.as_deref().and_then(|name| shared.profile(name));
            // Who may act upon it is a part of what it gives.
            let engine = engines.key(uses, arch).and_then(|engine| {
                let live = live::identity(shared, &instance)?;
                Ok(live.map_or(engine.clone(), |live| format!("{engine}, beside it {live}")))
            });
            (engine, "the engine is not on this host")
        }
    };
    let engine = engine.map_err(|error| Done {
        error: Some(error),
        ..Done::without_outputs(Status::Refused, absent)
    })?;
    let components = shared.keys.components(shared.plan, &instance, &digests, engine);
    let key = components.key();
    Ok(Ready {
        instance,
        inputs,
        components,
        key,
    })
}

/// What a program finds in the index of each input that is a list: where things came from. It is a part of the key.
fn lists(shared: &Shared<'_>, instance: &Instance) -> Vec<(String, Digest)> {
    use stages::command::index;
    if instance.uses != "command" {
        return Vec::new();
    }
    let lists = instance
        .inputs
        .iter()
        .filter(|(_, wires)| !index::is_single(wires));
    lists
        .map(|(port, wires)| (format!("{port}.index"), index::digest(shared, wires)))
        .collect()
}

/// Everything before must have ended well; what was not wanted is left out where all of a stage is waited for.
pub(crate) fn check_dependencies(shared: &Shared<'_>, instance: &Instance) -> Result<(), Done> {
    let reads = instance.when.iter().flat_map(|when| when.reads.values()).copied();
    let optional: Vec<usize> = reads.collect();
    let check = |index: usize, all_of_stage: bool| -> Result<(), Done> {
        let (Some(before), Some(done)) = (shared.table.instance(index), shared.of(index)) else {
            return Err(Done::failed(
                "the plan waits for an instance that never ran",
                format!("instance {index}"),
            ));
        };
        match done.status {
            Status::Ok | Status::Cached => Ok(()),
            // What was not wanted is no gap; what could not begin is.
            Status::Skipped if all_of_stage && !done.blocked => Ok(()),
            // A condition can ask how a stage ended; it need not have ended well.
            _ if optional.contains(&index) && !feeds(instance, index) => Ok(()),
            status => {
                let reason = format!("`{}` is {}", before.name, status.as_str());
                Err(Done {
                    // Whoever waits for what was not wanted was not wanted either.
                    blocked: done.blocked || done.status.is_bad(),
                    ..Done::without_outputs(Status::Skipped, reason)
                })
            }
        }
    };
    for dependency in dependencies(instance) {
        match dependency {
            Dependency::Instance(index) => {
                check(index, false)?;
                // Of a point, everything that it became.
                let over = |wire: &Wire| matches!(wire, Wire::Point { point, .. } if *point == index);
                let needed = |after: &After| matches!(after, After::Instance(point) if *point == index);
                if instance.expands.iter().any(over) || instance.needs.iter().any(needed) {
                    let children = shared.table.children(index);
                    children.into_iter().try_for_each(|child| check(child, true))?;
                }
            }
            Dependency::Stage(stage) if shared.is_sound(stage) => {}
            Dependency::Stage(stage) => {
                let planned = shared.plan.stages.get(stage);
                let points = planned.filter(|stage| stage.expansion.is_some());
                let mut points = points.map(|stage| stage.instances()).unwrap_or_default();
                points.try_for_each(|index| check(index, true))?;
                let mut all = shared.table.of_stage(stage).into_iter();
                all.try_for_each(|index| check(index, true))?;
                // What this instance's own condition forgives, another's may not.
                if optional.is_empty() {
                    shared.note_sound(stage);
                }
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
                Wire::Item => {
                    let item = instance.axes.values().find_map(|value| match value {
                        AxisValue::Item(item) => Some(item),
                        _ => None,
                    });
                    let item = item.ok_or_else(|| {
                        Done::failed("the plan names an item it does not have", instance.name.clone())
                    })?;
                    wired.push(Input::Stored(Stored {
                        digest: item.digest,
                        length: item.length,
                    }));
                }
                Wire::All { .. } | Wire::Point { .. } => {
                    let outputs = gives(shared, wire).into_iter();
                    wired.extend(outputs.map(|(_, stored)| Input::Stored(stored)));
                }
                Wire::Same { point, .. } => {
                    let stage = shared.table.instance(*point).map_or("?", |point| &point.stage);
                    let reason = format!("`{stage}` has no instance for this item");
                    return Err(Done::without_outputs(Status::Skipped, reason));
                }
            }
        }
        inputs.insert(port.clone(), wired);
    }
    Ok(inputs)
}

/// Every output that a wire brings, and the instance that gave it.
pub(crate) fn gives(shared: &Shared<'_>, wire: &Wire) -> Vec<(usize, Stored)> {
    let (instances, port) = match wire {
        Wire::Output { instance, port } => (vec![*instance], port),
        Wire::All { stage, port } => (shared.table.of_stage(stage), port),
        Wire::Point { point, port } => (shared.table.children(*point), port),
        Wire::Sample(_) | Wire::Item | Wire::Same { .. } => return Vec::new(),
    };
    let outputs = instances.into_iter();
    outputs
        .filter_map(|index| Some((index, output(shared, index, port)?)))
        .collect()
}

pub(crate) fn output(shared: &Shared<'_>, index: usize, port: &str) -> Option<Stored> {
    shared.of(index)?.outputs.get(port).copied()
}
