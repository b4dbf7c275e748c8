//! One job in one cell: hand over the bytes, run, take what comes.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hotcell_cells::context::SavedContext;
use hotcell_cells::contract::{CellFault, Usage};
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::schedule::{Hold, Request};
use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, PostMortem, ProcessCell, Spec};
use hotcell_cells::supervise::{Exit, HostLimits, Met, Sandbox, SealedBlob};
use hotcell_plan::{Instance, PlannedLimits};
use hotcell_schema::arch::Weight;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::fault::{self, FaultKind, FaultLimits, FaultRecord, ProcessEnd};
use hotcell_schema::job::{Blob, Job, JobResult};
use hotcell_schema::outcome::Status;

use super::past::Past;
use crate::engines::Engine;
use crate::execute::Cores;
use crate::faults::Broke;
use crate::given;
use crate::keep::{Keeper, Kept};
use crate::work::{Done, Shared, store_failed};

/// The bytes that a job names.
#[derive(Debug, Default)]
pub(super) struct Blobs(Vec<Arc<SealedBlob>>);

impl Blobs {
    /// Seals bytes and names them.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Blob, Done> {
        let sealed = SealedBlob::of(bytes)
            .map_err(|error| Done::failed("the host cannot seal bytes", error.to_string()))?;
        self.share(&Arc::new(sealed))
    }

    /// Names bytes that other cells have too.
    pub(super) fn share(&mut self, sealed: &Arc<SealedBlob>) -> Result<Blob, Done> {
        let index = u32::try_from(self.0.len())
            .map_err(|_| Done::without_outputs(Status::Refused, "more files than a cell can be given"))?;
        self.0.push(Arc::clone(sealed));
        Ok(Blob {
            index,
            length: sealed.length(),
        })
    }
}

/// What one job is allowed to say.
pub(super) struct Allowed<'a> {
    /// Ports the cell may fill.
    pub ports: &'static [&'static str],
    /// Header of its event stream, where it has one.
    pub header: Option<&'a Header>,
    /// Bounds on all it says.
    pub bounds: Bounds,
}

/// A job that was done.
pub(super) struct Finished {
    pub result: JobResult,
    pub kept: Kept,
    /// Carries usage; its outputs are filled in by the stage type.
    pub done: Done,
    /// What is known of its cell, should what it gave turn out to be wrong.
    pub known: Known,
}

/// Who sees what a cell does.
pub(super) enum Watch<'a> {
    /// The engine itself, in its cell.
    Engine,
    /// Somebody outside.
    Outside(&'a mut dyn Watcher),
}

/// Sees what a cell does from outside of it.
pub(super) trait Watcher {
    /// The cell's process is there, and has no job yet.
    fn begins(&mut self, cell: &ProcessCell) -> Result<(), Done>;
    /// Events that the cell itself tells: given back where they are not for the watcher.
    fn told(&mut self, events: Vec<Event>) -> io::Result<Vec<Event>>;
    /// The cell has ended, with all its processes: what was seen is handed over. `met`: the limits that they met.
    fn ended(&mut self, keeper: &mut Keeper<'_>, met: Met) -> Result<(), Done>;
}

/// Runs a job in a cell of its own.
pub(super) fn run(
    shared: &Shared<'_>,
    instance: &Instance,
    job: &Job,
    blobs: &Blobs,
    allowed: &Allowed<'_>,
    watch: &mut Watch<'_>,
) -> Result<Finished, Done> {
    let engine = match shared.options.engines.of(&instance.uses) {
        Some(Ok(engine)) => engine,
        Some(Err(error)) => return Err(Done::failed("the engine is not on this host", error)),
        None => {
            return Err(Done::failed(
                "the stage type has no engine",
                instance.uses.clone(),
            ));
        }
    };
    let asked = shared.limits(instance);
    let mut limits = host_limits(&asked);
    let keeps = super::engine(instance).is_some_and(hotcell_schema::stage::Engine::keeps_processes);
    if keeps {
        // Each task of a guest has a helper of QEMU's; the keeper and its init are two more.
        limits.tasks = u64::from(asked.guest.tasks).saturating_mul(2).saturating_add(8);
        limits.file_bytes = asked.guest.file_bytes;
        // As many as a program of the emulated Linux may have (and `INR_OPEN_MAX` of include/uapi/linux/fs.h).
        limits.descriptors = 4096;
        // No emulated kernel bounds the guest's memory. Its files are memory too, and what it was given stands there.
        let given = blobs.0.iter().map(|blob| blob.length()).sum::<u64>();
        let files = asked.guest.file_bytes.saturating_add(given).saturating_mul(2);
        limits.memory = asked.guest.memory.saturating_add(files).saturating_add(EMULATORS);
        if matches!(job, Job::Linux(job) if job.internet.is_some()) {
            limits.memory = limits.memory.saturating_add(INTERNET);
        }
    }
    let sealed: Vec<&SealedBlob> = blobs.0.iter().map(Arc::as_ref).collect();
    let takes_turns = shared.options.cores.filter(|_| shared.plan.runs_code(instance));
    let sandbox = match takes_turns {
        Some(cores) => &cores.sandbox,
        None => Sandbox::of_this_host(),
    };
    let sandbox = match keeps {
        true => Cow::Owned(sandbox.for_keepers()),
        false => Cow::Borrowed(sandbox),
    };
    let seat = |cores: &Cores| {
        let mut request = Request {
            memory: limits.memory,
            processes: keeps,
            ..cores.request(&instance.stage, weight(shared, instance))
        };
        if keeps && !cores.sandbox.stand_still() {
            shared.note_confinement(&[], &[RUNS_ON.to_owned()]);
            request.processes = false;
            if request.hold == Hold::Turns {
                request.hold = Hold::Exclusive { core: None };
            }
        }
        request
    };
    let spec = Spec {
        executable: &engine.executable,
        blobs: &sealed,
        limits,
        bounds: allowed.bounds,
        sandbox: &sandbox,
        stop: &shared.options.stop,
        cores: shared
            .options
            .cores
            .map(|cores| match shared.plan.runs_code(instance) {
                true => Seat::Turns {
                    cores: &cores.arbiter,
                    request: seat(cores),
                    name: &instance.name,
                },
                false => Seat::Bound(&cores.chores),
            }),
    };
    let known = Known::new(instance, engine, &limits, spec.sandbox);
    let mut keeper = Keeper::new(shared.options.store, &shared.given, allowed.ports, allowed.header)
        .map_err(|error| store_failed(error.into()))?;
    let (ending, usage, known) = to_the_end(shared, instance, &spec, job, &mut keeper, known, watch)?;
    let with_facts = |done: Done| Done {
        cpu_s: usage.cpu_s,
        peak_kib: usage.peak_kib,
        ..done
    };
    let result = match ending {
        Ending::Done(result) => *result,
        Ending::Interrupted(why) => {
            let done = with_facts(Done::without_outputs(Status::Interrupted, why.to_string()));
            return Err(match why.fault() {
                Some(kind) => known.broke(done, kind),
                None => done,
            });
        }
        Ending::Failed(why) => {
            let kind = known.kind.unwrap_or(FaultKind::Protocol);
            return Err(known.broke(with_facts(Done::failed(FAILED, why)), kind));
        }
        Ending::Host(error) => {
            return Err(with_facts(given::refused(&error).unwrap_or_else(|| Done {
                host_refuses: true,
                ..Done::failed("what the cell said could not be kept", error.to_string())
            })));
        }
    };
    let kept = match keeper.finish().map_err(|error| with_facts(store_failed(error)))? {
        Ok(kept) => kept,
        Err(violation) => {
            let done = with_facts(Done::failed(FAILED, violation));
            return Err(known.broke(done, FaultKind::Protocol));
        }
    };
    let done = Done {
        outcome: match &result {
            JobResult::Linux(result) => Some(result.outcome.clone()),
            JobResult::Payload(result) => Some(result.outcome.clone()),
            JobResult::Inspect(_) | JobResult::Unpack(_) => None,
        },
        ..with_facts(Done::ok(indexmap::IndexMap::new(), Vec::new()))
    };
    Ok(Finished {
        result,
        kept,
        done,
        known,
    })
}

/// What the host lets a cell of such limits use.
pub fn host_limits(asked: &PlannedLimits) -> HostLimits {
    let mut limits = HostLimits::default();
    if let Some(wall) = asked.wall {
        limits.wall_ms = u64::try_from(Duration::from_nanos(wall).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
    }
    if let Some(cpu) = asked.cpu {
        limits.cpu_s = Duration::from_nanos(cpu).as_secs().max(1);
    }
    // A guest must meet its own limits, which are outcomes, before the host's, which interrupt.
    let guest = &asked.guest;
    limits.memory = limits
        .memory
        .max(guest.memory.saturating_mul(2).saturating_add(1 << 30));
    limits.address_space = limits.address_space.max(
        u64::from(guest.tasks)
            .saturating_mul(2 << 30)
            .saturating_add(limits.memory),
    );
    limits
}

/// Runs a job to its end: in one cell, or in several, one after the other, where a person moves it.
fn to_the_end(
    shared: &Shared<'_>,
    instance: &Instance,
    spec: &Spec<'_>,
    job: &Job,
    keeper: &mut Keeper<'_>,
    known: Known,
    watch: &mut Watch<'_>,
) -> Result<(Ending, Usage, Known), Done> {
    let mut context: Option<SavedContext> = None;
    let mut told = 0;
    let mut used = Usage::default();
    loop {
        let made = match &context {
            None => ProcessCell::spawn(spec),
            Some(context) => ProcessCell::restore(spec, context),
        };
        let mut cell = match made {
            Ok(cell) => cell,
            Err(fault) => return Err(known.not_started(&fault)),
        };
        let roster = &shared.options.roster;
        let listed = roster.enter(
            cell.process_id().unsigned_abs(),
            &instance.name,
            cell.engine(),
            cell.remote(),
        );
        if let Watch::Outside(watcher) = watch {
            watcher.begins(&cell)?;
        }
        let begins = context.map_or(0, |context| context.facts().events);
        let mut heard = Heard { watch, keeper };
        let mut sink = Past::new(&mut heard, begins, told);
        let ending = cell.run(job, &mut sink);
        told = sink.told();
        shared.seated(cell.seat(), instance);
        shared.note_confinement(cell.layers(), cell.fallbacks());
        let post_mortem = cell.post_mortem();
        let kept = match (&post_mortem, &shared.faults) {
            (Some(_), Some(faults)) => faults.keep_context(instance, &cell, &shared.given),
            _ => None,
        };
        let walls = (cell.layers().to_vec(), cell.fallbacks().to_vec());
        let met = cell.met();
        let usage = cell.finish();
        if let Watch::Outside(watcher) = watch {
            watcher.ended(keeper, met)?;
        }
        used.cpu_s += usage.cpu_s;
        used.peak_kib = used.peak_kib.max(usage.peak_kib);
        match (&ending, listed.next()) {
            (Ending::Interrupted(_), Some(next)) => {
                // One from further ahead than this run has come would leave a gap: it begins once more.
                context = Some(next).filter(|next| next.facts().events <= told);
            }
            _ => return Ok((ending, used, known.of(walls, post_mortem, kept).and_used(&used))),
        }
    }
}

/// What a cell says, for who keeps it; events for who watches, first.
struct Heard<'a, 'w, 'k> {
    watch: &'a mut Watch<'w>,
    keeper: &'a mut Keeper<'k>,
}

impl Sink for Heard<'_, '_, '_> {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        let events = match self.watch {
            Watch::Engine => events,
            Watch::Outside(watcher) => watcher.told(events)?,
        };
        match events.is_empty() {
            true => Ok(()),
            false => self.keeper.events(events),
        }
    }

    fn output_begins(&mut self, port: &str, name: &str, length: u64) -> io::Result<()> {
        self.keeper.output_begins(port, name, length)
    }

    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.keeper.output_bytes(bytes)
    }

    fn output_ends(&mut self) -> io::Result<()> {
        self.keeper.output_ends()
    }
}

/// The weight of an instance's architecture among those who take turns.
fn weight(shared: &Shared<'_>, instance: &Instance) -> Weight {
    let profile = super::profile(shared, instance).ok();
    let engine = profile.and_then(|profile| profile.unicorn.as_ref());
    engine.map(|engine| engine.weight).unwrap_or_default()
}

/// Memory of the emulators themselves, in bytes, and of the keeper: QEMU keeps up to 32 MiB of translated code for each process.
const EMULATORS: u64 = 512 << 20;

/// Memory of the simulated internet: what far ends have to say, what went over the wire (twice, when it is handed over), connections.
const INTERNET: u64 = 384 << 20;

/// What holds where the processes of a guest cannot be made to stand still.
const RUNS_ON: &str = "no control group makes the processes of a guest stand still: such cells take no turns, each has a core of its own";

/// The reason of every fault of a cell: the same on every machine. What happened is the host's to tell.
const FAILED: &str = "the cell failed";

/// What is known of a cell, should it turn out to be broken.
pub(super) struct Known {
    record: FaultRecord,
    log: String,
    kind: Option<FaultKind>,
}

impl Known {
    fn new(instance: &Instance, engine: &Engine, limits: &HostLimits, sandbox: &Sandbox) -> Self {
        let record = FaultRecord {
            format: fault::FORMAT.into(),
            version: fault::VERSION,
            run: String::new(),
            instance: instance.name.clone(),
            uses: instance.uses.clone(),
            attempt: 0,
            kind: FaultKind::NotStarted,
            what: String::new(),
            ended: None,
            engine: engine.identity.clone(),
            last_event: None,
            cpu_s: 0.0,
            peak_kib: 0,
            wall_s: 0.0,
            limits: FaultLimits {
                wall_ms: limits.wall_ms,
                cpu_s: limits.cpu_s,
                address_space: limits.address_space,
                memory: limits.memory,
                descriptors: limits.descriptors,
                tasks: limits.tasks,
            },
            confinement: sandbox.layers.clone(),
            fallbacks: sandbox.fallbacks.clone(),
            log: None,
            context: None,
        };
        Self {
            record,
            log: String::new(),
            kind: None,
        }
    }

    /// The same of a cell that was there.
    fn of(
        mut self,
        walls: (Vec<String>, Vec<String>),
        found: Option<PostMortem>,
        context: Option<String>,
    ) -> Self {
        self.record.context = context;
        (self.record.confinement, self.record.fallbacks) = walls;
        if let Some(found) = found {
            self.record.ended = found.exit.map(|exit| match exit {
                Exit::Code(code) => ProcessEnd::Code(code),
                Exit::Signal(number) => ProcessEnd::Signal(number),
            });
            self.record.last_event = found.events.checked_sub(1);
            self.record.wall_s = found.lived.as_secs_f64();
            self.log = found.errors;
            self.kind = Some(found.kind);
        }
        self
    }

    fn and_used(mut self, usage: &Usage) -> Self {
        self.record.cpu_s = usage.cpu_s;
        self.record.peak_kib = usage.peak_kib;
        self
    }

    /// How an instance ends whose cell could not be made. What a host lacks now it may have later: that is no failure of ours.
    fn not_started(self, fault: &CellFault) -> Done {
        let (done, kind) = match fault {
            CellFault::Interrupted(why) => {
                let done = Done::without_outputs(Status::Interrupted, why.to_string());
                match why.fault() {
                    Some(kind) => (done, kind),
                    None => return done,
                }
            }
            other => {
                let error = Some(other.to_string());
                let done = match other.lacks_room() {
                    true => Done::without_outputs(
                        Status::Interrupted,
                        "the host had no room for one more process",
                    ),
                    false => Done::without_outputs(Status::Failed, "the cell could not be started"),
                };
                (Done { error, ..done }, FaultKind::NotStarted)
            }
        };
        self.broke(done, kind)
    }

    /// Puts what is known to how an instance ended.
    fn broke(mut self, done: Done, kind: FaultKind) -> Done {
        let why = done.error.as_ref().or(done.reason.as_ref());
        self.record.kind = kind;
        self.record.what = match why {
            Some(why) => format!("the cell {}: {why}", kind.words()),
            None => format!("the cell {}", kind.words()),
        };
        let broke = Broke {
            record: self.record,
            log: self.log,
        };
        Done {
            broke: Some(Box::new(broke)),
            ..done
        }
    }

    /// How an instance ends when what its cell gave is not what was asked for.
    pub(super) fn lied(self, done: Done, why: String) -> Done {
        let done = Done {
            status: Status::Failed,
            reason: Some(FAILED.into()),
            error: Some(why),
            ..done
        };
        self.broke(done, FaultKind::Protocol)
    }

    /// It answered another question than it was asked.
    pub(super) fn wrong_result(self, done: Done) -> Done {
        self.lied(done, "it answered with the result of another kind of job".into())
    }
}
