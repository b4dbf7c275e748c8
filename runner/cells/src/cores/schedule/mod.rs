//! Whose turn it is on which core.
//!
//! A state machine without clock, threads or processes: it is told what happens and when, and answers what is to be done. The
//! same calls give the same answers, so that fairness can be proved by simulation.
//!
//! # Rules
//! - A cell takes its k cores all or none. No core is held by two.
//! - **Turns.** Cells that share run for a slice, first come, first served within their level. A slice that ends while nobody
//!   waits for the core goes on. Who is first in the line and needs more cores than are free gets those that become free,
//!   and nobody behind it takes them: so no wide cell waits for ever behind narrow ones.
//! - **Ageing.** A waiting cell rises one level each [`Rules::ageing`]; within a level who waits longer is first. So a ready
//!   cell that shares waits at most [`Schedule::longest_wait`].
//! - **Exclusive** cells hold their cores until they end. Together they hold at most [`Rules::exclusive`] cores, and what one
//!   user may. How many they may take *now* follows the demand: their part of all cores that are asked for. One that has
//!   waited for [`Rules::ageing`] may use the whole bound. It waits for others like it to end, so no bound is given.
//! - A stopped cell goes to the end of the line. Its cores are free only when it is known to stand still
//!   ([`Schedule::stopped`]).

mod cell;
mod decide;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::Priority;
use serde::{Deserialize, Serialize};

use cell::{Entry, State};
use waits::Waits;

/// Nanoseconds since some moment that stays the same.
pub type Nanos = u64;

/// A cell, by a number that is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub u64);

/// How a cell holds its cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// In turns with others.
    Turns,
    /// Until it ends.
    Exclusive {
        /// The core that it wants; absent: any. Of several cores the first one.
        core: Option<u32>,
    },
}

/// What a cell asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// Whose it is: a user id of the host.
    pub user: u32,
    /// How many cores.
    pub cores: NonZeroUsize,
    /// How it holds them.
    pub hold: Hold,
    /// How urgent it is.
    pub priority: Priority,
    /// Length of its slices in percent of the common one: slow architectures get more.
    pub weight: NonZeroU32,
    /// Bytes of memory that it may use at most.
    pub memory: u64,
    /// Whether it makes processes, which have its turns with it.
    #[serde(default)]
    pub processes: bool,
}

impl Request {
    /// One core in turns, of usual urgency and weight.
    pub fn of(user: u32) -> Self {
        Self {
            user,
            cores: NonZeroUsize::MIN,
            hold: Hold::Turns,
            priority: Priority::Normal,
            weight: WHOLE,
            memory: 0,
            processes: false,
        }
    }
}

/// The usual weight: a hundred percent.
pub const WHOLE: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// Greatest weight in percent.
pub const MOST_WEIGHT: u32 = 1_000;

/// What a user may take at once. Absent: no bound but the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Cells at once; what is more waits to be admitted.
    pub cells: Option<NonZeroUsize>,
    /// Cores held exclusively at once.
    pub exclusive: Option<usize>,
    /// Bytes of memory that all cells at once may use; what is more waits to be admitted.
    pub memory: Option<u64>,
}

/// The rules of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The cores for guests.
    pub pool: CoreSet,
    /// How long a turn is, in nanoseconds.
    pub slice: NonZeroU64,
    /// How long a waiting cell stays in its level, in nanoseconds.
    pub ageing: NonZeroU64,
    /// How many cores may be held exclusively at once; at most half of the pool.
    pub exclusive: usize,
    /// Cells at once on the whole host.
    pub cells: NonZeroUsize,
    /// What single users may take.
    pub users: BTreeMap<u32, Allowance>,
}

/// Why a cell can never run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More cores than there can be for it.
    #[error("it asks for {wanted} core(s) at once, and at most {most} of the pool {pool} can be {how}")]
    TooWide {
        /// How many it asks for.
        wanted: usize,
        /// How many there can be.
        most: usize,
        /// The pool.
        pool: CoreSet,
        /// In which way.
        how: &'static str,
    },
    /// A core that is none of the pool.
    #[error("core {core} is not in the pool {pool}")]
    NotInPool {
        /// The core.
        core: u32,
        /// The pool.
        pool: CoreSet,
    },
    /// More exclusive cores than the user may hold.
    #[error("it asks for {wanted} exclusive core(s), and user {user} may hold {most}")]
    Quota {
        /// The user.
        user: u32,
        /// How many it asks for.
        wanted: usize,
        /// How many the user may hold.
        most: usize,
    },
    /// More memory than all cells of the user together may use.
    #[error("it asks for {wanted} bytes of memory, and all cells of user {user} together may use {most}")]
    Memory {
        /// The user.
        user: u32,
        /// How many bytes it asks for.
        wanted: u64,
        /// How many the user's cells may use.
        most: u64,
    },
    /// The cell is already known.
    #[error("cell {} is already known", .0.0)]
    Known(CellId),
}

/// Who may want a cell to stand still. One does not lift what the other wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pauser {
    /// A person.
    Person,
    /// The cell's runner: the cell has nothing to do.
    Runner,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let a cell run on these cores; it stands still now.
    Run {
        /// The cell.
        cell: CellId,
        /// Its cores.
        cores: CoreSet,
    },
    /// Make a cell stand still, then say so with [`Schedule::stopped`].
    Stop {
        /// The cell.
        cell: CellId,
    },
}

/// What a cell is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// It waits until it is admitted: its user, or the host, has as many cells as may be.
    Held,
    /// It waits for its turn.
    Ready,
    /// It runs.
    Running(CoreSet),
    /// It was told to stand still.
    Stopping(CoreSet),
    /// Somebody paused it.
    Paused,
}

/// Everything that is known of the cells of a host, and who holds which core.
#[derive(Debug)]
pub struct Schedule {
    rules: Rules,
    cells: BTreeMap<CellId, Entry>,
    /// Cores of the pool that somebody holds.
    held: BTreeMap<u32, CellId>,
    /// Cores that an administrator took out of exclusive use.
    reclaimed: BTreeSet<u32>,
    /// Number of the next place in the line.
    place: u64,
    waits: Waits,
}

impl Schedule {
    /// No cells. Of [`Rules::exclusive`] never more than half of the pool counts.
    pub fn new(mut rules: Rules) -> Self {
        rules.exclusive = rules.exclusive.min(rules.pool.len() / 2);
        Self {
            rules,
            cells: BTreeMap::new(),
            held: BTreeMap::new(),
            reclaimed: BTreeSet::new(),
            place: 0,
            waits: Waits::default(),
        }
    }

    /// The rules, as they are now.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A new cell that is ready to run.
    ///
    /// # Errors
    ///
    /// If it can never run here; nothing is changed then.
    pub fn submit(&mut self, now: Nanos, cell: CellId, request: Request) -> Result<(), Refusal> {
        self.judge(&request)?;
        if self.cells.contains_key(&cell) {
            return Err(Refusal::Known(cell));
        }
        let place = self.next_place();
        self.cells.insert(cell, Entry::new(request, now, place));
        self.waits.met(self.cells.len(), self.slice_of(&request));
        Ok(())
    }

    /// Whether such a cell could ever run here.
    ///
    /// # Errors
    ///
    /// If it never could.
    pub fn judge(&self, request: &Request) -> Result<(), Refusal> {
        let wanted = request.cores.get();
        let pool = &self.rules.pool;
        let (most, how) = match request.hold {
            // Exclusive cells may hold their part as long as they like.
            Hold::Turns => (pool.len() - self.rules.exclusive, "shared in turns"),
            Hold::Exclusive { .. } => (self.rules.exclusive, "exclusive"),
        };
        if wanted > most {
            return Err(Refusal::TooWide {
                wanted,
                most,
                pool: pool.clone(),
                how,
            });
        }
        let allowance = self.allowance(request.user);
        if let Some(most) = allowance.memory.filter(|most| request.memory > *most) {
            return Err(Refusal::Memory {
                user: request.user,
                wanted: request.memory,
                most,
            });
        }
        let Hold::Exclusive { core } = request.hold else {
            return Ok(());
        };
        if let Some(core) = core.filter(|core| !pool.contains(*core)) {
            return Err(Refusal::NotInPool {
                core,
                pool: pool.clone(),
            });
        }
        match allowance.exclusive {
            Some(most) if wanted > most => Err(Refusal::Quota {
                user: request.user,
                wanted,
                most,
            }),
            _ => Ok(()),
        }
    }

    /// A cell is gone, whatever it did; its cores are free.
    pub fn gone(&mut self, cell: CellId) {
        self.cells.remove(&cell);
        self.held.retain(|_, holder| *holder != cell);
    }

    /// A cell that was let run does so from now on: its slice begins here.
    pub fn began(&mut self, now: Nanos, cell: CellId) {
        if let Some(entry) = self.cells.get_mut(&cell) {
            entry.began(now);
        }
    }

    /// A cell that was told to stop stands still.
    pub fn stopped(&mut self, now: Nanos, cell: CellId) {
        let place = self.next_place();
        let Some(entry) = self.cells.get_mut(&cell) else {
            return;
        };
        if !entry.has_stopped(now, place) {
            return;
        }
        self.held.retain(|_, holder| *holder != cell);
    }

    /// Somebody wants a cell to stand still. What runs is told to stop with the next [`Schedule::decide`].
    pub fn pause(&mut self, cell: CellId, by: Pauser) {
        if let Some(entry) = self.cells.get_mut(&cell) {
            *entry.paused.by(by) = true;
        }
    }

    /// Who paused a cell lets it go; when nobody else has, it may run again, from the end of the line.
    pub fn resume(&mut self, now: Nanos, cell: CellId, by: Pauser) {
        let place = self.next_place();
        if let Some(entry) = self.cells.get_mut(&cell) {
            entry.resume(by, now, place);
        }
    }

    /// Another length of slices, in nanoseconds. What runs ends its slice as it began it.
    pub fn set_slice(&mut self, slice: NonZeroU64) {
        self.rules.slice = slice;
        let longest = self
            .cells
            .values()
            .map(|entry| self.slice_of(&entry.request))
            .max();
        self.waits.met(self.cells.len(), longest.unwrap_or(0));
    }

    /// Takes a core out of exclusive use. Who holds it exclusively is told to stop with the next [`Schedule::decide`], and
    /// waits again. `false`: it is no core of the pool.
    pub fn reclaim(&mut self, core: u32) -> bool {
        let known = self.rules.pool.contains(core);
        if known {
            self.reclaimed.insert(core);
        }
        known
    }

    /// Gives a core back to exclusive use. `false`: it was not taken out.
    pub fn give_back(&mut self, core: u32) -> bool {
        self.reclaimed.remove(&core)
    }

    /// The cores that were taken out of exclusive use.
    pub fn reclaimed(&self) -> CoreSet {
        self.reclaimed.iter().copied().collect()
    }

    /// What a cell is doing.
    pub fn doing(&self, cell: CellId) -> Option<Doing> {
        self.cells.get(&cell).map(|entry| match &entry.state {
            State::Held => Doing::Held,
            State::Waiting if entry.paused.by_any() => Doing::Paused,
            State::Waiting => Doing::Ready,
            State::Running { cores, .. } => Doing::Running(cores.clone()),
            State::Stopping { cores, .. } => Doing::Stopping(cores.clone()),
        })
    }

    /// Who holds a core.
    pub fn holder(&self, core: u32) -> Option<CellId> {
        self.held.get(&core).copied()
    }

    /// How long a cell has run in all, in nanoseconds, each core counted once.
    pub fn ran(&self, now: Nanos, cell: CellId) -> Nanos {
        self.cells.get(&cell).map_or(0, |entry| entry.ran(now))
    }

    /// The longest time in nanoseconds that a ready cell that shares can wait, with the cells there are now and if each
    /// loses at most `change` nanoseconds of a turn until it runs, and until it stands still: until it has risen to the top, and then for everyone
    /// before it once, who may have to wait until cores are free and then has a turn.
    pub fn longest_wait(&self, change: Nanos) -> Nanos {
        let slices = self.cells.values().map(|entry| self.slice_of(&entry.request));
        let longest = slices.max().unwrap_or(0);
        waits::bound(self.cells.len(), longest, self.rules.ageing.get(), change)
    }

    /// The longest time in nanoseconds that a ready cell that shares did wait; of waits that have ended.
    pub fn waited(&self) -> Nanos {
        self.waits.longest
    }

    /// The greatest of all bounds that there were: [`Schedule::longest_wait`] with most cells and the longest slices.
    pub fn promised(&self, change: Nanos) -> Nanos {
        self.waits.promised(self.rules.ageing.get(), change)
    }

    fn allowance(&self, user: u32) -> Allowance {
        self.rules.users.get(&user).copied().unwrap_or_default()
    }

    fn slice_of(&self, request: &Request) -> Nanos {
        let weight = u64::from(request.weight.get().min(MOST_WEIGHT));
        (self.rules.slice.get() / 100).saturating_mul(weight).max(1)
    }

    fn next_place(&mut self) -> u64 {
        let place = self.place;
        self.place = place.wrapping_add(1);
        place
    }
}
