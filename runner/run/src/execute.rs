//! A plan's instances on worker threads.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use hotcell_cells::cores::arbiter::GiveCores;
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::isolation::Isolation;
use hotcell_cells::cores::schedule::Request;
use hotcell_cells::cores::service::policy::Quota;
use hotcell_cells::cores::verify::Verifier;
use hotcell_cells::roster::Roster;
use hotcell_cells::stop::{StopSignal, Urgency};
use hotcell_cells::supervise::Sandbox;
use hotcell_plan::{Instance, Plan};
use hotcell_schema::arch::{ArchProfile, Weight};
use hotcell_schema::cores::CoreSet;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{Report, RunFacts};
use hotcell_store::{Entry, Journal, RunFolder, Store};

use crate::RunError;
use crate::engines::Engines;
use crate::expand::{self, Level};
use crate::faults::Faults;
use crate::finish;
use crate::flush;
use crate::left::Left;
use crate::schedule::{Schedule, Task};
use crate::secrets::Secrets;
use crate::select::Selection;
use crate::sources::Archives;
use crate::work::{Done, Shared, work};

/// The cores of a run.
#[derive(Debug)]
pub struct Cores {
    /// Gives the pool's cores to guests.
    pub arbiter: Arc<dyn GiveCores>,
    /// The processors for chores: what reads files in cells runs there.
    pub chores: CoreSet,
    /// Whose run it is: a user id of the host.
    pub user: u32,
    /// What the user may take on this host; without an arbiter of the host there is no bound.
    pub quota: Quota,
    /// What each core is for.
    pub duties: Duties,
    /// What stages ask for that want other than one core in turns, by their names.
    pub requests: BTreeMap<String, Request>,
    /// What else must be told of them, for instance that a core has two duties.
    pub fallbacks: Vec<String>,
    /// Walls for cells of the pool.
    pub sandbox: Sandbox,
    /// Looks whether cells are where they should be; runs under the arbiter of a host have none, because it looks itself.
    pub verifier: Option<Verifier>,
    /// How strictly cores are kept apart, in the manifest's word.
    pub level: String,
    /// What keeps them apart, where this run does it. Last, because groups go when all who are in them have.
    pub isolation: Option<Isolation>,
}

impl Cores {
    /// What an instance of a stage asks for.
    pub(crate) fn request(&self, stage: &str, weight: Weight) -> Request {
        let asked = self.requests.get(stage).copied();
        Request {
            weight: weight.percent(),
            ..asked.unwrap_or(Request::of(self.user))
        }
    }
}

/// How a plan is run. Whatever a library must not find out by itself (clock, folders, host) is given here.
#[derive(Debug)]
pub struct Options<'a> {
    /// Cells at once; at least 1.
    pub jobs: usize,
    /// What of the plan is run; absent: all of it. What is left out is not in the report.
    pub selection: Option<&'a Selection>,
    /// Begin nothing more after the first failure.
    pub fail_fast: bool,
    /// Run everything, whatever is stored.
    pub force: bool,
    /// Run these stages, whatever is stored: those whose results differ from run to run, when several are wanted.
    pub again: &'a BTreeSet<String>,
    /// The stop request that cells and workers obey.
    pub stop: StopSignal,
    /// The store.
    pub store: &'a Store,
    /// The cell executables.
    pub engines: &'a Engines,
    /// Reads samples that stand in archives; absent: there are none.
    pub archives: Option<&'a Archives>,
    /// The secrets of the manifest, for stages that name them; absent: there are none.
    pub secrets: Option<&'a Secrets>,
    /// All arch profiles, for inspection.
    pub profiles: &'a [ArchProfile],
    /// Version of hotcell, for the report.
    pub hotcell: &'a str,
    /// Where earlier runs stand: beside them is told which is the latest good one of an experiment. Absent: none counts.
    pub runs: Option<&'a Path>,
    /// The manifest's own place: a run of another one is another run, however alike they are. Absent: it has none.
    pub place: Option<&'a str>,
    /// What tells this build of hotcell from any other; empty: unknown, and no run is taken for another.
    pub build: &'a str,
    /// Variants that were chosen.
    pub variants: &'a [String],
    /// How hotcell was called, for those who look at the run later.
    pub called: &'a [String],
    /// When the run starts, RFC 3339.
    pub started: &'a str,
    /// The host in a line.
    pub host: &'a str,
    /// Who gives cores to cells; absent: they run where and when the kernel lets them.
    pub cores: Option<&'a Cores>,
    /// Lists the cells while they run.
    pub roster: Roster,
}

/// No stage at all, for [`Options::again`].
static NONE: BTreeSet<String> = BTreeSet::new();

impl<'a> Options<'a> {
    /// Whether what is stored does not count for an instance.
    pub(crate) fn forces(&self, instance: &Instance) -> bool {
        self.force || self.again.contains(&instance.stage)
    }

    /// One cell at once, everything that is stored is used, and nothing is said of the host.
    pub fn new(store: &'a Store, engines: &'a Engines, stop: StopSignal) -> Self {
        Self {
            jobs: 1,
            selection: None,
            fail_fast: false,
            force: false,
            again: &NONE,
            stop,
            store,
            engines,
            archives: None,
            secrets: None,
            profiles: &[],
            hotcell: "",
            runs: None,
            place: None,
            build: "",
            variants: &[],
            called: &[],
            started: "",
            host: "",
            cores: None,
            roster: Roster::default(),
        }
    }
}

impl Options<'_> {
    /// Whether an instance of the plan is to run.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.selection.is_none_or(|selection| selection.has(index))
    }
}

/// Reason of what another instance's failure kept from beginning.
pub const NOT_BEGUN: &str = "another instance failed before it began (--fail-fast)";

/// Is told what goes on, from several threads.
pub trait Observer: Sync {
    /// An instance begins.
    fn started(&self, index: usize, instance: &Instance);
    /// An instance ended.
    fn ended(&self, index: usize, instance: &Instance, done: &Done);
    /// A point has become so many instances more.
    fn expanded(&self, point: &Instance, added: usize);
}

/// A finished run.
#[derive(Debug)]
pub struct RunOutcome {
    /// The result.
    pub report: Report,
    /// What the host has to say.
    pub facts: RunFacts,
    /// Whether a person stopped it.
    pub stopped: bool,
}

impl RunOutcome {
    /// How many instances ended in each of the given ways.
    pub fn count(&self, statuses: &[Status]) -> usize {
        self.facts
            .instances
            .values()
            .filter(|facts| statuses.contains(&facts.status))
            .count()
    }
}

struct State {
    schedule: Schedule,
    journal: Journal,
    /// Begin nothing more: someone failed under `fail_fast`, or the journal cannot be written.
    closed: bool,
    trouble: Option<RunError>,
}

/// Runs a plan into a run's folder. Every instance ends with a status; the result is written in any case.
pub fn execute(
    plan: &Plan,
    options: &Options<'_>,
    folder: &RunFolder,
    observer: &dyn Observer,
) -> Result<RunOutcome, RunError> {
    let began = Instant::now();
    options.store.read_afresh();
    folder.write_with("plan.json", |file| Ok(serde_json::to_writer(file, plan)?))?;
    let mut shared = Shared::new(plan, options);
    shared.left = Some(Left::new(folder));
    shared.faults = Some(Faults::new(folder));
    let shared = shared;
    let mut journal = Journal::begin(&folder.journal(), &folder.id(), plan.manifest)?;
    if let Some(selection) = options.selection {
        journal.write(&Entry::Chosen {
            instances: selection.ranges(),
        })?;
    }
    let state = Mutex::new(State {
        schedule: Schedule::new(plan, &|index| options.has(index)),
        journal,
        closed: false,
        trouble: None,
    });
    let changed = Condvar::new();
    let workers = options.jobs.clamp(1, most_at_once(plan));
    flush::while_working(&folder.journal(), options.store.folder(), || {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| worker(&shared, &state, &changed, observer));
            }
        });
    });
    let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(trouble) = state.trouble {
        return Err(trouble);
    }
    // A request that came when everything was done stopped nothing.
    let stopped = options.stop.urgency() != Urgency::None
        && shared.table.in_order().any(|(index, _)| {
            let done = shared.of(index);
            options.has(index) && done.is_none_or(|done| done.status == Status::Interrupted)
        });
    close(&shared, stopped, observer);
    if stopped {
        state.journal.write(&Entry::StopRequested)?;
    }
    let (report, facts) = finish::finish(&shared, folder, began.elapsed().as_secs_f64(), workers)?;
    state.journal.write(&Entry::Finished)?;
    flush::flush(&[folder.path(), options.store.folder()]);
    Ok(RunOutcome {
        report,
        facts,
        stopped,
    })
}

/// More than this can never run at once: what a point becomes counts too.
fn most_at_once(plan: &Plan) -> usize {
    let of = |instance| {
        plan.expansion_of(instance)
            .map_or(1, |point| point.max_items as usize)
    };
    let all = plan.instances.iter().map(of);
    all.fold(0usize, usize::saturating_add).max(1)
}

fn worker(shared: &Shared<'_>, state: &Mutex<State>, changed: &Condvar, observer: &dyn Observer) {
    let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        for index in shared.flights.woken() {
            guard.schedule.again(index);
        }
        // Whoever is parked is woken by someone who works, and who has not ended then.
        let idle = guard.schedule.is_empty() && shared.flights.is_quiet();
        if guard.closed || idle || shared.options.stop.urgency() != Urgency::None {
            changed.notify_all();
            return;
        }
        let Some(task) = guard.schedule.take() else {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if let Task::Run(index) = task
            && let Some(instance) = shared.table.instance(index)
        {
            let instance = instance.name.clone();
            note(&mut guard, &Entry::Started { instance });
        }
        drop(guard);
        let ended = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Run(index) => Ended::Instance(index, run(shared, index, true, observer)),
            Task::Resume(index) => Ended::Instance(index, run(shared, index, false, observer)),
            Task::Expand(point, level) => Ended::Level(point, level, expand::expand(shared, point, level)),
        }));
        guard = state.lock().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Ok(Ended::Instance(_, None)) => {}
            Ok(Ended::Instance(index, Some(done))) => instance_ended(shared, &mut guard, index, done),
            Ok(Ended::Level(point, level, found)) => {
                level_ended(shared, &mut guard, point, level, found, observer);
            }
            Err(panic) => {
                // The others must not wait for this thread.
                guard.closed = true;
                drop(guard);
                changed.notify_all();
                resume_unwind(panic);
            }
        }
        changed.notify_all();
    }
}

/// How a task ended.
enum Ended {
    /// Nothing: the instance is parked.
    Instance(usize, Option<Done>),
    Level(usize, u8, Level),
}

fn run(shared: &Shared<'_>, index: usize, begins: bool, observer: &dyn Observer) -> Option<Done> {
    let Some(instance) = shared.table.instance(index) else {
        return Some(Done::failed(
            "the schedule names an instance that is not there",
            format!("instance {index}"),
        ));
    };
    if begins {
        observer.started(index, instance);
    }
    let done = catch_unwind(AssertUnwindSafe(|| work(shared, index, instance))).unwrap_or_else(|panic| {
        Some(Done::failed(
            "the runner met an error of its own",
            panic_text(&*panic).to_owned(),
        ))
    })?;
    observer.ended(index, instance, &done);
    Some(done)
}

fn instance_ended(shared: &Shared<'_>, state: &mut State, index: usize, done: Done) {
    if let Some(instance) = shared.table.instance(index) {
        let entry = Entry::Ended {
            instance: instance.name.clone(),
            status: done.status,
            key: done.key,
            attempts: Some(done.attempts).filter(|attempts| *attempts > 1),
        };
        note(state, &entry);
    }
    close_after(shared, state, &done);
    shared.table.set(index, done);
    state.schedule.done(index);
}

fn level_ended(
    shared: &Shared<'_>,
    state: &mut State,
    point: usize,
    level: u8,
    found: Level,
    observer: &dyn Observer,
) {
    if let Some(instance) = shared.table.instance(point) {
        let entry = Entry::Expanded {
            instance: instance.name.clone(),
            level,
            items: found.items,
            left_out: shared.table.left_out(point) + shared.table.too_deep(point),
        };
        note(state, &entry);
        observer.expanded(instance, found.children.len());
        if let Some(done) = found.done {
            let entry = Entry::Ended {
                instance: instance.name.clone(),
                status: done.status,
                key: None,
                attempts: None,
            };
            note(state, &entry);
            observer.ended(point, instance, &done);
            close_after(shared, state, &done);
            shared.table.set(point, done);
        }
    }
    state
        .schedule
        .expanded(point, level, &found.children, found.deeper);
}

/// Whether anything more begins after this. Where the store cannot be written, a full disk say, each further instance would
/// fail for the same reason, and none of it could be kept: that is told once, and the run ends.
fn close_after(shared: &Shared<'_>, state: &mut State, done: &Done) {
    if done.host_refuses {
        state.closed = true;
        state.trouble.get_or_insert_with(|| RunError::Host {
            doing: "using the store".into(),
            source: std::io::Error::other(done.error.clone().unwrap_or_default()),
        });
    }
    state.closed |= done.status.is_bad() && shared.options.fail_fast;
    shared.closed.fetch_or(state.closed, Ordering::Relaxed);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
}

/// A journal that cannot be written ends the run: what cannot be told must not go on.
fn note(state: &mut State, entry: &Entry) {
    if let Err(error) = state.journal.write(entry) {
        state.closed = true;
        state.trouble.get_or_insert(error.into());
    }
}

/// Gives a status to everything that never began.
fn close(shared: &Shared<'_>, stopped: bool, observer: &dyn Observer) {
    let (status, reason) = match stopped {
        true => (Status::Interrupted, "the run was stopped before it began"),
        false => (Status::Skipped, NOT_BEGUN),
    };
    let all = shared.table.in_order().map(|(index, _)| index);
    let open: Vec<usize> = all.filter(|index| shared.options.has(*index)).collect();
    for index in open.into_iter().filter(|index| shared.of(*index).is_none()) {
        if let Some(instance) = shared.table.instance(index) {
            let done = Done::without_outputs(status, reason);
            observer.ended(index, instance, &done);
            shared.table.set(index, done);
        }
    }
}
