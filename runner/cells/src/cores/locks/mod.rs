//! Core locks: one lock for each core, in shared memory that the arbiter alone writes and all may map read-only.
//!
//! ```text
//! arbiter: LockTable ── acquire, release, free_the_dead ──> sealed memfd <── query, holders ── LockView: everybody else
//!              └── Processes: who lives, from /proc
//! ```
//!
//! # The table
//! A memfd of 64 bytes for the header and 64 bytes, a cache line, for each core, all in the host's own byte order:
//!
//! | place | bytes | what |
//! |---|---|---|
//! | 0 | 32 | `hotcell-core-locks`, filled up with zeros |
//! | 32 | 4 | version of this format: 1 |
//! | 36 | 4 | number of cores |
//! | 40 | 4 | the arbiter's pid |
//! | 48 | 8 | the arbiter's start time |
//! | 64 + 64 n | 8 | the word of core n: the holder's pid in the lower half, a generation in the upper |
//! | 72 + 64 n | 8 | the start time of the latest holder of core n |
//!
//! It is sealed against shrinking and growing, and against every writer but the mapping that the arbiter had before
//! (`F_SEAL_FUTURE_WRITE`, fcntl(2), since Linux 5.1): no descriptor of it can be written or mapped writable, also not by
//! root, and not by an arbiter that starts anew, which makes a table of its own. The header names the arbiter, so that
//! whoever has a map can tell that nobody writes it any more. The arbiter's map does not reach its children
//! (`MADV_DONTFORK`).
//!
//! # The protocol of a slot
//! The pid's half of a word says which state the core is in: 0 is *free*, all ones is *claimed*, anything else is *held*
//! by this process. A word goes round in one direction only, except that a claim can be taken back:
//!
//! ```text
//! free (g, 0) ── claim ──> claimed (g+1, !0) ── publish ──> held (g+1, pid) ── release ──> free (g+2, 0)
//!                                   └────────────── take back ────────────────────────────────┘
//! ```
//!
//! - **Claim** is a compare-and-swap of a free word: of two who try, one succeeds, whichever threads they are. Who has claimed is
//!   the only one who changes the slot until it publishes or takes back: it writes the start time, then publishes.
//! - **Taking k cores** claims them in ascending order and publishes only after the last was claimed; when one is not free, the
//!   others are taken back. So what reads as held was granted, and of several who want free cores at once one gets what it asks for;
//!   another may be refused a core that is only claimed.
//! - **Release** is a compare-and-swap of the exact word that was published. A generation counts every claim and every release, so
//!   whoever comes too late (a grant whose holder was found dead, two who free the same dead holder) changes nothing.
//! - **Reading** loads the word, the start time, and the word again. The start time is stored with release and loaded with acquire
//!   order, and before it is stored the word was claimed: who sees a start time also sees the claim before it. So when both words
//!   are the same, the start time between them belongs to this holder. When they differ, the holder of the first word has released
//!   in between: there was a moment at which the core was free, and that is the answer. No reader ever waits or tries again,
//!   whatever is done to the table.
//!
//! A claimed core reads as free: nobody has been granted it yet. The answers for two cores are of two moments. A generation
//! comes again after 2^31 grants of one core: a reader would have to sleep between two loads through all of them, and meet the same pid.
//!
//! # Lives
//! A lock belongs to a process: (pid, start time). It ends with its release, or when [`LockTable::free_the_dead`] finds the holder
//! gone. A lock whose grant is dropped is held until its holder ends. [`Processes`] says who lives, and gives a descriptor that
//! becomes readable when a holder ends, so that nobody needs to look again and again.

mod header;
mod life;
mod map_unsafe;
mod table;
mod view;
mod word;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use life::{ProcessFault, Processes};
pub use table::{Freed, Grant, LockTable, Refused, TableFault};
pub use view::{LockView, ViewFault};

/// The most cores a table can have: the most that Linux can have CPUs (`NR_CPUS` in arch/x86/Kconfig).
pub const MAX_CORES: u16 = 8192;

/// The number of a core in a table, from 0 on. Which CPUs of the host it stands for is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreIndex(u16);

impl CoreIndex {
    /// The core with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn place(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CoreIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process that holds cores. A pid is used again, a pid with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "(u32, u64)", try_from = "(u32, u64)")]
pub struct Holder {
    pid: u32,
    started: u64,
}

impl Holder {
    /// The process with this pid that started at this time: clock ticks after the boot, field 22 of `/proc/PID/stat` (proc(5)).
    /// `None` where no process can have the pid: 0, and all that are no positive `pid_t`.
    pub fn new(pid: u32, started: u64) -> Option<Self> {
        (1..=i32::MAX.unsigned_abs())
            .contains(&pid)
            .then_some(Self { pid, started })
    }

    /// Its pid, as the arbiter sees it.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// When it started: clock ticks after the boot.
    pub fn started(self) -> u64 {
        self.started
    }
}

impl From<Holder> for (u32, u64) {
    fn from(holder: Holder) -> Self {
        (holder.pid, holder.started)
    }
}

impl TryFrom<(u32, u64)> for Holder {
    type Error = &'static str;

    fn try_from((pid, started): (u32, u64)) -> Result<Self, Self::Error> {
        Self::new(pid, started).ok_or("no process can have this pid")
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} (started at tick {})", self.pid, self.started)
    }
}
