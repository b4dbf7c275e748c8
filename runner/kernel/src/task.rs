//! Processes and tasks (threads).

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::arch::AbiFamily;
use hotcell_schema::event::Arg;
use serde::{Deserialize, Serialize};

use crate::abi::signal::Sig;
use crate::exec::Image;
use crate::fs::open::FileTable;
use crate::fs::tree::Ino;
use crate::load::stack::Placed;
use crate::machine::{Context, SpaceId};
use crate::processor::Probes;
use crate::signals::Arrived;
use crate::sys::posix_timer::PosixTimer;
use crate::table::Row;
use crate::time::{Expiry, Used};
use crate::trace::Trace;

/// How a process ended, as `wait` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    Exited(u8),
    Killed(Sig),
}

impl Ended {
    /// The status word of wait (`wait(2)`).
    pub(crate) fn status(self, family: AbiFamily) -> u32 {
        match self {
            Self::Exited(code) => u32::from(code) << 8,
            Self::Killed(signal) => signal.number(family) as u32 & 0x7f,
        }
    }
}

/// Tasks of a process end, once their tracers let them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// The process ends so.
    All(Ended),
    /// All but this one, which then executes a program.
    But(u32, Box<Image>),
}

/// What became of a process that has not ended, as `wait` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Stopped(Sig),
    Continued,
}

/// A thread group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Real, effective and saved user and group.
    pub(crate) uid: [u32; 3],
    pub(crate) gid: [u32; 3],
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    /// `personality(2)`.
    pub(crate) personality: u32,
    /// Working directory.
    pub(crate) cwd: Ino,
    /// What it takes for the root, after `chroot`.
    pub(crate) root: Option<Ino>,
    pub(crate) files: FileTable,
    pub(crate) space: SpaceId,
    /// Path of the executable.
    pub(crate) image: Vec<u8>,
    pub(crate) image_ino: Option<Ino>,
    /// `/proc/PID/comm`.
    pub(crate) comm: Vec<u8>,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
    /// Where these stand in its memory, and what it was told beside them.
    pub(crate) placed: Placed,
    /// What was asked for by sigaction, by signal: the structure as the guest gave it.
    pub(crate) actions: BTreeMap<Sig, Action>,
    /// Signals that came to it as a whole.
    pub(crate) arrived: Arrived,
    pub(crate) tasks: BTreeSet<u32>,
    /// Set when it ended and nobody has waited for it yet.
    pub(crate) ended: Option<Ended>,
    /// Set while tasks that are to end stand still for their tracers.
    pub(crate) ending: Option<Ending>,
    /// How its first task ended, when that one was not the last, and who traced it.
    pub(crate) first_gone: Option<(Ended, Option<u32>)>,
    /// Virtual time at which it started.
    pub(crate) started: u64,
    /// Virtual time that it ran.
    pub(crate) used: Used,
    /// Timers of setitimer, by their numbers: of time as such, of its own code's, of its own code's and calls'.
    pub(crate) intervals: [Expiry; 3],
    /// Timers of timer_create, by their numbers.
    pub(crate) timers: BTreeMap<u32, PosixTimer>,
    /// Soft and hard resource limits that were set, by number.
    pub(crate) limits: BTreeMap<u64, (u64, u64)>,
    /// It has executed a program or ended since vfork.
    pub(crate) released: bool,
    /// It did execve, so that setpgid by its parent fails.
    pub(crate) executed: bool,
    /// Whether it stands still (SIGSTOP).
    pub(crate) stopped: bool,
    /// What a parent that asks for it (WUNTRACED, WCONTINUED) has not heard yet.
    pub(crate) change: Option<Change>,
    /// How willingly it lets others run, from -20 to 19.
    pub(crate) nice: i8,
    pub(crate) dumpable: u64,
    pub(crate) no_new_privileges: bool,
    /// What it asked its processor.
    pub(crate) probes: Probes,
    /// Tasks of others that it traced and that have ended, and that it has not waited for.
    pub(crate) gone: Vec<(u32, Ended)>,
}

/// What to do on a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Action {
    /// 0: default, 1: ignore, else the handler's address.
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
}

/// A thread.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) tid: u32,
    pub(crate) pid: u32,
    pub(crate) space: SpaceId,
    /// Its registers, while the machine holds another task's.
    pub(crate) context: Option<Context>,
    /// The call it waits in.
    pub(crate) pending: Option<Pending>,
    pub(crate) state: State,
    /// Virtual time that it ran.
    pub(crate) used: Used,
    /// `set_tid_address`.
    pub(crate) clear_tid: u64,
    /// Blocked signals: bit N-1 for generic signal N.
    pub(crate) mask: u64,
    /// Signals that came to it alone.
    pub(crate) arrived: Arrived,
    /// The mask before a call that waits with another one, until a handler or the call has ended.
    pub(crate) former_mask: Option<u64>,
    /// A call that a signal interrupted, to be made again.
    pub(crate) restart: Option<Pending>,
    /// What the running handlers interrupted.
    pub(crate) interrupted: Vec<Interrupted>,
    pub(crate) alternate_stack: (u64, u64, u64),
    /// `set_robust_list`: head and length.
    pub(crate) robust_list: (u64, u64),
    /// Who traces it, and how.
    pub(crate) trace: Option<Trace>,
}

impl Process {
    /// When the first of its timers expires.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        let timers = self.timers.values().filter_map(PosixTimer::wakes_at);
        timers.chain(self.intervals[0].next).min()
    }
}

impl Task {
    /// Waits with another mask, from its first attempt on.
    pub(crate) fn wait_with(&mut self, mask: u64) {
        if self.former_mask.is_none() {
            self.former_mask = Some(std::mem::replace(&mut self.mask, mask));
        }
    }

    /// The mask is what it was.
    pub(crate) fn mask_again(&mut self) {
        if let Some(mask) = self.former_mask.take() {
            self.mask = mask;
        }
    }
}

/// What a signal handler interrupted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Interrupted {
    pub(crate) context: Context,
    /// A call to be made again after it.
    pub(crate) restart: Option<Pending>,
    /// Where the `ucontext_t` of the handler's frame stands, and whether on the alternate stack.
    pub(crate) frame: (u64, bool),
}

/// Whether a task can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Runnable,
    /// Its pending call is tried again when the kernel's wake count is past this, or at the deadline.
    Waiting {
        tried_at: u64,
        deadline: Option<u64>,
    },
    /// Its pending call needs more than its own machine; done by the next `next`.
    Deferred,
}

/// A call that has not come back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    #[serde(with = "crate::state::row")]
    pub(crate) row: &'static Row,
    /// Number as the guest gave it, for the event.
    pub(crate) number: u64,
    /// It is made in the second way, by another ABI.
    pub(crate) compat: bool,
    /// Words by the row's shape.
    pub(crate) words: [u64; 8],
    /// What the event will say of the arguments that were known before the call.
    #[serde(with = "crate::state::json")]
    pub(crate) args: Vec<Arg>,
    /// How far a call that does its work in parts has come.
    pub(crate) progress: u64,
    /// Messages that a call of several has moved.
    pub(crate) messages: u64,
    /// What other processes have in shared mappings of files was put into them for it.
    pub(crate) settled: bool,
    /// It is to say what it has done, and wait no more.
    pub(crate) is_cut: bool,
    /// Until when it waits.
    pub(crate) deadline: Option<u64>,
    /// When it is tried again though nothing woke it.
    pub(crate) wake_at: Option<u64>,
}
