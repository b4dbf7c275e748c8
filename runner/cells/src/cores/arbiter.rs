//! The arbiter: gives cores to cell processes by the [`Schedule`]'s rules.
//!
//! One thread decides and acts. A cell hands itself in when it is ready to begin ([`Arbiter::admit`]): it stands still from
//! then on, but when it is its turn. Its [`Place`] ends its claim when it is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotcell_schema::cores::CoreSet;

use super::locks::{CoreIndex, Grant, Holder, LockTable, LockView, Processes};
use super::process::{Process, Still, bind_this_thread};
use super::real_time_unsafe::make_real_time;
use super::schedule::{Action, CellId, Doing, Nanos, Refusal, Request, Rules, Schedule};
use super::topology::Topology;
use super::verify::Watched;

/// How often is looked whether those who have cores are still there.
const LOOK: Duration = Duration::from_millis(500);
/// Turns that are kept for those who look; of more, the oldest go.
const TURNS_KEPT: usize = 100_000;

/// Why a cell was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It could never run here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host refused a step.
    #[error("{doing}: {source}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// One turn of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The cell.
    pub cell: CellId,
    /// The cores that it had.
    pub cores: CoreSet,
    /// When it began, in nanoseconds since the arbiter did.
    pub from: Nanos,
    /// When it ended.
    pub until: Nanos,
}

/// What one cell is doing, for those who look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The cell.
    pub cell: CellId,
    /// Its process id.
    pub pid: i32,
    /// What it is doing.
    pub doing: Doing,
    /// How long it has run, in nanoseconds.
    pub ran: Nanos,
}

/// Gives cores to cells.
#[derive(Debug)]
pub struct Arbiter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The claim of one cell: gone when it is dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    cell: CellId,
    admitted: Nanos,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    began: Instant,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    topology: Topology,
    /// Who holds which core, for all to see.
    locks: LockTable,
    processes: Processes,
    cells: BTreeMap<CellId, Held>,
    next: u64,
    turns: VecDeque<Turn>,
    /// How many turns were not kept.
    forgotten: u64,
    closing: bool,
}

/// A cell's process and its turn.
#[derive(Debug)]
struct Held {
    process: Process,
    holder: Holder,
    turn: Option<Running>,
    /// Why the host could not do what was decided; the cell was ended then.
    fault: Option<String>,
}

/// A turn that goes on.
#[derive(Debug)]
struct Running {
    cores: CoreSet,
    from: Nanos,
    grant: Grant,
}

impl Arbiter {
    /// Begins with no cells. `control` are the processors that the arbiter itself runs on; absent: any.
    ///
    /// # Errors
    ///
    /// If no thread or no shared memory can be made, or `/proc` does not show processes.
    pub fn start(rules: Rules, topology: Topology, control: Option<CoreSet>) -> io::Result<Self> {
        let processes = Processes::open(Path::new("/proc")).map_err(io::Error::other)?;
        let this = processes.find(std::process::id()).map_err(io::Error::other)?;
        let this = this.ok_or_else(|| io::Error::other("/proc does not show this process"))?;
        let last = rules.pool.iter().next_back().unwrap_or(0);
        let cores = u16::try_from(last.saturating_add(1)).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                schedule: Schedule::new(rules),
                topology,
                locks: LockTable::new(cores, this).map_err(io::Error::other)?,
                processes,
                cells: BTreeMap::new(),
                next: 0,
                turns: VecDeque::new(),
                forgotten: 0,
                closing: false,
            }),
            changed: Condvar::new(),
            began: Instant::now(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                if let Some(cpus) = control {
                    // Where it may not be bound it runs anywhere: cells are bound all the same.
                    let _ = bind_this_thread(&cpus);
                }
                theirs.work();
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes over a child process: it stands still from now on, but when it is its turn.
    ///
    /// # Errors
    ///
    /// If it could never run here, or does not stand still.
    pub fn admit(&self, request: Request, pid: i32) -> Result<Place, AdmitError> {
        let host = |doing| move |source| AdmitError::Host { doing, source };
        self.shared.lock().schedule.judge(&request)?;
        let process = Process::open(pid).map_err(host("opening a cell's process"))?;
        if process.stop().map_err(host("making a cell stand still"))? == Still::Ended {
            return Err(host("making a cell stand still")(io::Error::other(
                "it has ended",
            )));
        }
        let mut state = self.shared.lock();
        let found = u32::try_from(pid).map_err(io::Error::other);
        let found = found.and_then(|pid| state.processes.find(pid).map_err(io::Error::other));
        let found = found.and_then(|found| found.ok_or_else(|| io::Error::other("it has ended")));
        let holder = found.map_err(host("looking at a cell's process"))?;
        let cell = CellId(state.next);
        let now = self.shared.now();
        state.schedule.submit(now, cell, request)?;
        state.next = state.next.saturating_add(1);
        let held = Held {
            process,
            holder,
            turn: None,
            fault: None,
        };
        state.cells.insert(cell, held);
        drop(state);
        self.shared.changed.notify_all();
        Ok(Place {
            shared: Arc::clone(&self.shared),
            cell,
            admitted: now,
        })
    }

    /// All cells, oldest first.
    pub fn cells(&self) -> Vec<Seen> {
        let state = self.shared.lock();
        let now = self.shared.now();
        let cells = state.cells.iter().filter_map(|(cell, held)| {
            Some(Seen {
                cell: *cell,
                pid: held.process.pid(),
                doing: state.schedule.doing(*cell)?,
                ran: state.schedule.ran(now, *cell),
            })
        });
        cells.collect()
    }

    /// Which process is where by now, for whoever checks that it is ([`super::verify`]).
    pub fn watched(&self) -> Vec<Watched> {
        let state = self.shared.lock();
        let there = state
            .cells
            .iter()
            .filter(|(cell, _)| state.schedule.doing(**cell).is_some());
        let watched = there.map(|(_, held)| Watched {
            pid: held.process.pid(),
            turn: held
                .turn
                .as_ref()
                .map(|turn| (turn.from, state.processors(&turn.cores))),
        });
        watched.collect()
    }

    /// Lets the arbiter's own thread run before all that is not real-time ([`super::real_time_unsafe`]).
    ///
    /// # Errors
    ///
    /// If this process may not.
    pub fn make_real_time(&self) -> io::Result<()> {
        self.thread.as_ref().map_or(Ok(()), make_real_time)
    }

    /// The locks of the cores, as everybody may see them.
    ///
    /// # Errors
    ///
    /// If the table cannot be mapped once more.
    pub fn locks(&self) -> io::Result<LockView> {
        LockView::open(&self.shared.lock().locks).map_err(io::Error::other)
    }

    /// The turns that have ended, and how many more there were before them.
    pub fn turns(&self) -> (Vec<Turn>, u64) {
        let state = self.shared.lock();
        (state.turns.iter().cloned().collect(), state.forgotten)
    }

    /// Lets a person hold a cell, or let it go.
    pub fn hold(&self, cell: CellId, holds: bool) {
        let mut state = self.shared.lock();
        match holds {
            true => state.schedule.pause(cell),
            false => state.schedule.resume(self.shared.now(), cell),
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Place {
    /// The cell.
    pub fn cell(&self) -> CellId {
        self.cell
    }

    /// How long the cell has waited for its turns until now, in all: time that it could not use.
    pub fn waited(&self) -> Duration {
        let state = self.shared.lock();
        let now = self.shared.now();
        let here = now.saturating_sub(self.admitted);
        Duration::from_nanos(here.saturating_sub(state.schedule.ran(now, self.cell)))
    }

    /// Why the arbiter had to end the cell, where it had to.
    pub fn fault(&self) -> Option<String> {
        let state = self.shared.lock();
        state.cells.get(&self.cell)?.fault.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let now = self.shared.now();
        if let Some(mut held) = state.cells.remove(&self.cell) {
            if let Some(turn) = held.turn.take() {
                state.keep(self.cell, turn, now);
            }
            // Whoever waits for its end must not wait for one that stands still.
            let _ = held.process.go_on();
        }
        state.schedule.gone(self.cell);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The arbiter's thread.
    fn work(&self) {
        let mut state = self.lock();
        let mut looked = Instant::now();
        while !state.closing {
            let now = self.now();
            let actions = state.schedule.decide(now);
            let mut stopped = false;
            for action in actions {
                match action {
                    Action::Run { cell, cores } => state.run(self.now(), cell, cores),
                    Action::Stop { cell } => {
                        state.stop(cell, || self.now());
                        stopped = true;
                    }
                }
            }
            // What stands still makes room for others.
            if stopped {
                continue;
            }
            let now = self.now();
            let next = state.schedule.next(now);
            let next = next.map(|at| Duration::from_nanos(at.saturating_sub(now)));
            if state.cells.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let wait = next.map_or(LOOK, |next| next.min(LOOK));
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                state.end_the_dead(self.now());
            }
        }
    }
}

impl State {
    fn processors(&self, cores: &CoreSet) -> CoreSet {
        let cpus = cores.iter().map(|core| self.topology.usable(core));
        cpus.fold(CoreSet::default(), |all, cpus| all.or(&cpus))
    }

    fn run(&mut self, now: Nanos, cell: CellId, cores: CoreSet) {
        let cpus = self.processors(&cores);
        let Some(held) = self.cells.get_mut(&cell) else {
            return;
        };
        let locks = cores.iter().map(|core| u16::try_from(core).map(CoreIndex::new));
        let locks: Result<Vec<CoreIndex>, _> = locks.collect();
        let grant = locks
            .map_err(io::Error::other)
            .and_then(|locks| self.locks.acquire(&locks, held.holder).map_err(io::Error::other));
        match grant {
            Ok(grant) => {
                held.turn = Some(Running {
                    cores,
                    from: now,
                    grant,
                });
            }
            Err(error) => {
                held.end(format!("its core could not be locked: {error}"));
                return self.end_turn(cell, now, true);
            }
        }
        match held.process.bind(&cpus).and_then(|()| held.process.go_on()) {
            Ok(true) => {}
            // Its owner has not noticed yet.
            Ok(false) => self.end_turn(cell, now, true),
            Err(error) => {
                held.end(format!("it could not be bound to its core: {error}"));
                self.end_turn(cell, now, true);
            }
        }
    }

    fn stop(&mut self, cell: CellId, now: impl Fn() -> Nanos) {
        let Some(held) = self.cells.get_mut(&cell) else {
            return;
        };
        let ended = match held.process.stop() {
            Ok(still) => still == Still::Ended,
            Err(error) => {
                held.end(format!("it did not stand still when its turn was over: {error}"));
                true
            }
        };
        self.end_turn(cell, now(), ended);
    }

    fn end_turn(&mut self, cell: CellId, at: Nanos, ended: bool) {
        let turn = self.cells.get_mut(&cell).and_then(|held| held.turn.take());
        if let Some(turn) = turn {
            self.keep(cell, turn, at);
        }
        match ended {
            true => self.schedule.gone(cell),
            false => self.schedule.stopped(at, cell),
        }
    }

    /// Takes the cores back from those whose process has ended, and whose owner has not noticed yet.
    fn end_the_dead(&mut self, now: Nanos) {
        let running = self.cells.iter().filter(|(_, held)| held.turn.is_some());
        // Who cannot be looked at is taken for alive.
        let dead = running.filter(|(_, held)| !self.processes.lives(held.holder).unwrap_or(true));
        let dead: Vec<CellId> = dead.map(|(cell, _)| *cell).collect();
        for cell in dead {
            self.end_turn(cell, now, true);
        }
    }

    fn keep(&mut self, cell: CellId, turn: Running, until: Nanos) {
        let Running { cores, from, grant } = turn;
        self.locks.release(grant);
        if self.turns.len() >= TURNS_KEPT {
            self.turns.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.turns.push_back(Turn {
            cell,
            cores,
            from,
            until,
        });
    }
}

impl Held {
    fn end(&mut self, why: String) {
        self.fault.get_or_insert(why);
        let _ = self.process.kill();
    }
}
