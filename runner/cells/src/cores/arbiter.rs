//! The arbiter: gives cores to cell processes by the [`Schedule`]'s rules.
//!
//! One thread decides and acts. A cell hands itself in when it is ready to begin ([`Arbiter::admit`]): it stands still from
//! then on, but when it is its turn. Its [`Place`] ends its claim when it is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::later::RealTime;

pub use super::claim::{AdmitError, Claim, EndedBy, GiveCores, NotRealTime, Seen};
pub use super::history::Turn;

use super::history::History;
use super::locks::{CoreIndex, Grant, Holder, LockTable, LockView, Processes};
use super::process::{Process, Still, bind_this_thread, pause_after};
use super::real_time_unsafe::make_real_time;
use super::schedule::{Action, CellId, Nanos, Pauser, Request, Rules, Schedule};
use super::topology::Topology;
use super::verify::{Should, Watched};

/// How often is looked whether those who have cores are still there.
const LOOK: Duration = Duration::from_millis(500);
/// How long a process may take to end, once nobody wants it any longer, without being taken for a stranger in the pool: 1 s.
const DYING: Nanos = 1_000_000_000;
/// How long a cell may take to stand still. It takes microseconds, but where it is deep in the kernel, or where others have its
/// core: it must run to stop. On a host with six times the load it could have, a second was not always enough.
const STILL: Nanos = 10_000_000_000;
/// Longest name of a cell in characters.
pub(super) const MOST_NAME: usize = 200;

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
    history: History,
    /// Processes of cells that have left, and when: they may yet be ending.
    leaving: VecDeque<(Holder, Nanos)>,
    /// Who was told to stop and may yet run, and when.
    stopping: BTreeMap<CellId, Nanos>,
    closing: bool,
}

/// A cell's process and its turn.
#[derive(Debug)]
struct Held {
    process: Process,
    name: String,
    request: Request,
    admitted: Nanos,
    /// When its last turn ended; else when it was admitted.
    since: Nanos,
    turn: Option<Running>,
    ended_by: Option<EndedBy>,
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
                history: History::default(),
                leaving: VecDeque::new(),
                stopping: BTreeMap::new(),
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

    /// Takes over a process: it stands still from now on, but when it is its turn.
    ///
    /// # Errors
    ///
    /// If it could never run here, or does not stand still.
    pub fn take(&self, request: Request, process: Process, name: &str) -> Result<Place, AdmitError> {
        let host = |source| AdmitError::Host {
            doing: "making a cell stand still",
            source,
        };
        self.shared.lock().schedule.judge(&request)?;
        let process = match request.processes {
            true => process.with_all().map_err(host)?,
            false => process,
        };
        if process.stop().map_err(host)? == Still::Ended {
            return Err(host(io::Error::other("it has ended")));
        }
        let mut state = self.shared.lock();
        let cell = CellId(state.next);
        let admitted = self.shared.now();
        state.schedule.submit(admitted, cell, request)?;
        state.next = state.next.saturating_add(1);
        let held = Held {
            process,
            name: name.chars().take(MOST_NAME).collect(),
            request,
            admitted,
            since: admitted,
            turn: None,
            ended_by: None,
        };
        state.cells.insert(cell, held);
        drop(state);
        self.shared.changed.notify_all();
        Ok(Place {
            shared: Arc::clone(&self.shared),
            cell,
        })
    }

    /// All cells, oldest first.
    pub fn cells(&self) -> Vec<Seen> {
        let state = self.shared.lock();
        let now = self.shared.now();
        let cells = state.cells.iter().filter_map(|(cell, held)| {
            let ran = state.schedule.ran(now, *cell);
            Some(Seen {
                cell: *cell,
                name: held.name.clone(),
                process: held.process.holder(),
                request: held.request,
                doing: state.schedule.doing(*cell)?,
                ran,
                waited: now.saturating_sub(held.admitted).saturating_sub(ran),
                ended: held.ended_by.is_some(),
            })
        });
        cells.collect()
    }

    /// Ends cells, and says how many of them there were.
    pub fn end(&self, cells: &[CellId], why: &EndedBy) -> usize {
        let mut state = self.shared.lock();
        let mut ended = 0usize;
        for cell in cells {
            if let Some(held) = state.cells.get_mut(cell) {
                held.end(why.clone());
                ended = ended.saturating_add(1);
            }
        }
        ended
    }

    /// Takes a core out of exclusive use, or gives it back. `false`: it is no core of the pool.
    pub fn reclaim(&self, core: u32, reclaimed: bool) -> bool {
        let mut state = self.shared.lock();
        let known = match reclaimed {
            true => state.schedule.reclaim(core),
            false => state.schedule.give_back(core),
        };
        drop(state);
        self.shared.changed.notify_all();
        known
    }

    /// Another length of slices, in nanoseconds; says what it was.
    pub fn set_slice(&self, slice: NonZeroU64) -> NonZeroU64 {
        let mut state = self.shared.lock();
        let was = state.schedule.rules().slice;
        state.schedule.set_slice(slice);
        drop(state);
        self.shared.changed.notify_all();
        was
    }

    /// Nanoseconds since the arbiter began.
    pub fn now(&self) -> Nanos {
        self.shared.now()
    }

    /// The rules, as they are now.
    pub fn rules(&self) -> Rules {
        self.shared.lock().schedule.rules().clone()
    }

    /// The cores that were taken out of exclusive use.
    pub fn reclaimed(&self) -> CoreSet {
        self.shared.lock().schedule.reclaimed()
    }

    /// Which process is where by now, for whoever checks that it is ([`super::verify`]).
    pub fn watched(&self) -> Vec<Watched> {
        let state = self.shared.lock();
        let there = state.cells.iter().map(|(cell, held)| {
            let should = match &held.turn {
                _ if held.ended_by.is_some() || state.schedule.doing(*cell).is_none() => Should::End,
                Some(turn) => Should::Run {
                    from: turn.from,
                    on: state.processors(&turn.cores),
                },
                None => Should::Wait { since: held.since },
            };
            (held.process.holder(), should)
        });
        let now = self.shared.now();
        let leaving = state.leaving.iter();
        let leaving = leaving.filter(|(_, left)| now.saturating_sub(*left) < DYING);
        let leaving = leaving.map(|(process, _)| (*process, Should::End));
        let watched = there.chain(leaving).map(|(process, should)| Watched {
            pid: i32::try_from(process.pid()).unwrap_or(i32::MAX),
            should,
        });
        watched.collect()
    }

    /// Lets the arbiter's own thread run before all that is not real-time (`real_time_unsafe`), as far as it is wanted
    /// and may be. Gives what holds instead.
    ///
    /// # Errors
    ///
    /// If it is required, and this process may not.
    pub fn make_real_time(&self, wanted: RealTime) -> Result<Option<String>, NotRealTime> {
        let made = match (wanted, &self.thread) {
            (RealTime::Off, _) | (_, None) => Ok(()),
            (RealTime::Try | RealTime::Require, Some(thread)) => make_real_time(thread),
        };
        match made {
            Ok(()) => Ok(None),
            Err(error) if wanted == RealTime::Require => Err(NotRealTime(error)),
            Err(error) => Ok(Some(format!(
                "the arbiter cannot be real-time ({error}): busy cores for control may delay turns"
            ))),
        }
    }

    /// The locks of the cores, as everybody may see them.
    ///
    /// # Errors
    ///
    /// If the table cannot be mapped once more.
    pub fn locks(&self) -> io::Result<LockView> {
        LockView::open(&self.shared.lock().locks).map_err(io::Error::other)
    }

    /// The descriptor of the core locks, for one who wants to map them.
    ///
    /// # Errors
    ///
    /// If there are no descriptors left.
    pub fn lock_table(&self) -> io::Result<OwnedFd> {
        self.shared.lock().locks.as_fd().try_clone_to_owned()
    }

    /// The turns that have ended, and how many more there were before them.
    pub fn turns(&self) -> (Vec<Turn>, u64) {
        let state = self.shared.lock();
        (
            state.history.turns.iter().cloned().collect(),
            state.history.forgotten,
        )
    }

    /// Everything that is known of the turns that have ended; and now, in the same time as theirs.
    pub fn history(&self) -> (History, Nanos) {
        let state = self.shared.lock();
        let mut history = state.history.clone();
        history.longest_wait = state.schedule.waited();
        history.promised_wait = state.schedule.promised(history.slowest_change.saturating_mul(2));
        (history, self.shared.now())
    }

    /// Lets a person hold a cell, or let it go.
    pub fn hold(&self, cell: CellId, holds: bool) {
        self.shared.hold(cell, holds, Pauser::Person);
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

impl GiveCores for Arbiter {
    fn admit(&self, request: Request, pid: i32, name: &str) -> Result<Box<dyn Claim>, AdmitError> {
        let process = Process::open(pid).map_err(|source| AdmitError::Host {
            doing: "opening a cell's process",
            source,
        })?;
        Ok(Box::new(self.take(request, process, name)?))
    }

    fn history(&self) -> io::Result<(History, Nanos)> {
        Ok(Self::history(self))
    }
}

impl Claim for Place {
    fn cell(&self) -> CellId {
        self.cell
    }

    fn waited(&self) -> Duration {
        let state = self.shared.lock();
        let now = self.shared.now();
        let admitted = state.cells.get(&self.cell).map_or(now, |held| held.admitted);
        let here = now.saturating_sub(admitted);
        Duration::from_nanos(here.saturating_sub(state.schedule.ran(now, self.cell)))
    }

    fn ended_by(&self) -> Option<EndedBy> {
        let state = self.shared.lock();
        state.cells.get(&self.cell)?.ended_by.clone()
    }

    fn hold(&self, holds: bool) {
        self.shared.hold(self.cell, holds, Pauser::Runner);
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
            let _ = held.process.kill();
            state
                .leaving
                .retain(|(_, left)| now.saturating_sub(*left) < DYING);
            state.leaving.push_back((held.process.holder(), now));
        }
        state.schedule.gone(self.cell);
        state.stopping.remove(&self.cell);
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

    fn hold(&self, cell: CellId, holds: bool, by: Pauser) {
        let mut state = self.lock();
        match holds {
            true => state.schedule.pause(cell, by),
            false => state.schedule.resume(self.now(), cell, by),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until one of those who were told to stop stands still, for a moment at the most.
    fn settle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let latest = state.stopping.values().max().copied().unwrap_or_default();
        while !state.settle(|| self.now()) {
            let told = Duration::from_nanos(self.now().saturating_sub(latest));
            if let Some(pause) = pause_after(told) {
                let waited = self.changed.wait_timeout(state, pause);
                return waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::hint::spin_loop();
        }
        state
    }

    /// The arbiter's thread.
    fn work(&self) {
        let mut state = self.lock();
        let mut looked = Instant::now();
        while !state.closing {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                state.end_the_dead(self.now());
            }
            let now = self.now();
            let actions = state.schedule.decide(now);
            for action in actions {
                match action {
                    Action::Run { cell, cores } => state.run(cell, cores, || self.now()),
                    Action::Stop { cell } => state.tell_to_stop(cell, self.now()),
                }
            }
            // What stands still makes room for others. Who does not at once is not waited for by everybody.
            if !state.stopping.is_empty() {
                state = self.settle(state);
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
        }
    }
}

impl State {
    fn processors(&self, cores: &CoreSet) -> CoreSet {
        let cpus = cores.iter().map(|core| self.topology.usable(core));
        cpus.fold(CoreSet::default(), |all, cpus| all.or(&cpus))
    }

    fn run(&mut self, cell: CellId, cores: CoreSet, now: impl Fn() -> Nanos) {
        let decided = now();
        let cpus = self.processors(&cores);
        let Some(held) = self.cells.get_mut(&cell) else {
            return;
        };
        let locks = cores.iter().map(|core| u16::try_from(core).map(CoreIndex::new));
        let locks: Result<Vec<CoreIndex>, _> = locks.collect();
        let grant = locks.map_err(io::Error::other).and_then(|locks| {
            self.locks
                .acquire(&locks, held.process.holder())
                .map_err(io::Error::other)
        });
        match grant {
            Ok(grant) => {
                held.turn = Some(Running {
                    cores,
                    from: decided,
                    grant,
                });
            }
            Err(error) => {
                held.end(EndedBy::Fault(format!("its core could not be locked: {error}")));
                return self.end_turn(cell, now(), true);
            }
        }
        let began = held.process.bind(&cpus).and_then(|()| held.process.go_on());
        let now = now();
        let slowest = &mut self.history.slowest_change;
        *slowest = now.saturating_sub(decided).max(*slowest);
        match began {
            // What it took to begin is not of its slice.
            Ok(true) => {
                if let Some(turn) = &mut held.turn {
                    turn.from = now;
                }
                self.schedule.began(now, cell);
            }
            // Its owner has not noticed yet.
            Ok(false) => self.end_turn(cell, now, true),
            Err(error) => {
                held.end(EndedBy::Fault(format!(
                    "it could not be bound to its core: {error}"
                )));
                self.end_turn(cell, now, true);
            }
        }
    }

    fn tell_to_stop(&mut self, cell: CellId, now: Nanos) {
        let Some(held) = self.cells.get(&cell) else {
            return;
        };
        // Whether it ended is found when it is looked for.
        let _ = held.process.tell_to_stop();
        self.stopping.insert(cell, now);
    }

    /// Looks at those who were told to stop; `false`: all of them still run.
    fn settle(&mut self, now: impl Fn() -> Nanos) -> bool {
        let mut settled = false;
        for (cell, told) in self.stopping.clone() {
            let since = Duration::from_nanos(now().saturating_sub(told));
            let held = self.cells.get(&cell);
            let still = held.map(|held| held.process.is_still(since));
            let at = now();
            let late = at.saturating_sub(told) >= STILL;
            let ended = match still {
                Some(Ok(None)) if !late => continue,
                Some(Ok(Some(Still::Stopped))) => false,
                Some(Ok(Some(Still::Ended))) | None => true,
                Some(unclear) => {
                    let why = match unclear {
                        Err(error) => error.to_string(),
                        Ok(_) => "the process does not stand still".to_owned(),
                    };
                    if let Some(held) = self.cells.get_mut(&cell) {
                        held.end(EndedBy::Fault(format!(
                            "it did not stand still when its turn was over: {why}"
                        )));
                    }
                    true
                }
            };
            settled = true;
            self.stopping.remove(&cell);
            let slowest = &mut self.history.slowest_change;
            *slowest = at.saturating_sub(told).max(*slowest);
            self.end_turn(cell, at, ended);
        }
        settled
    }

    fn end_turn(&mut self, cell: CellId, at: Nanos, ended: bool) {
        let turn = self.cells.get_mut(&cell).and_then(|held| {
            held.since = at;
            held.turn.take()
        });
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
        let dead = running.filter(|(_, held)| !self.processes.lives(held.process.holder()).unwrap_or(true));
        let dead: Vec<CellId> = dead.map(|(cell, _)| *cell).collect();
        for cell in dead {
            self.end_turn(cell, now, true);
        }
    }

    fn keep(&mut self, cell: CellId, turn: Running, until: Nanos) {
        let Running { cores, from, grant } = turn;
        self.locks.release(grant);
        self.history.keep(Turn {
            cell,
            cores,
            from,
            until,
        });
    }
}

impl Held {
    fn end(&mut self, why: EndedBy) {
        self.ended_by.get_or_insert(why);
        let _ = self.process.kill();
    }
}
