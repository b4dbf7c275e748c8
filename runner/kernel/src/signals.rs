//! Signals on their way: where they wait, who takes them, what they interrupt.
//!
//! A signal waits for one task, or for a whole process: then the first of its tasks that does not block it acts on it, and any
//! that asks (sigtimedwait, signalfd) may take it. `deliver` acts on it.

use std::collections::{BTreeMap, VecDeque};

use hotcell_schema::event::{Signal as SignalEvent, What};
use serde::{Deserialize, Serialize};

use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::{DefaultAction, Sig};
use crate::kernel::Kernel;
use crate::task::{Action, Change, Process, Task};

/// Number of RLIMIT_SIGPENDING (uapi/asm-generic/resource.h).
pub(crate) const LIMIT: u64 = 11;
/// What it is where nobody has set it.
pub(crate) const DEFAULT_LIMIT: u64 = 7824;
/// Signals of a user that are queued at most, however high the limit.
const MOST: u64 = 1 << 16;
/// First of the real-time signals, which queue.
const REAL_TIME: Sig = Sig(32);
/// What a task does itself (SYNCHRONOUS_MASK of kernel/signal.c): before what others send.
const OWN: u64 =
    Sig::SEGV.bit() | Sig::BUS.bit() | Sig::ILL.bit() | Sig::TRAP.bit() | Sig::FPE.bit() | Sig::SYS.bit();
/// Those that make a process stand still.
const STOPS: u64 = Sig::STOP.bit() | Sig::TSTP.bit() | Sig::TTIN.bit() | Sig::TTOU.bit();

/// Signals that wait to be acted upon, with what is told of each: real-time signals in the order of their arrival, of the others
/// the first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Arrived(BTreeMap<Sig, VecDeque<SignalInfo>>);

impl Arrived {
    /// Which there are.
    pub(crate) fn set(&self) -> u64 {
        self.0.keys().fold(0, |set, signal| set | signal.bit())
    }

    /// How many there are.
    fn count(&self) -> u64 {
        self.0.values().map(|infos| infos.len() as u64).sum()
    }

    /// Another one.
    pub(crate) fn add(&mut self, signal: Sig, info: SignalInfo) {
        let infos = self.0.entry(signal).or_default();
        if infos.is_empty() || signal >= REAL_TIME {
            infos.push_back(info);
        }
    }

    /// Takes the first of a set (next_signal of kernel/signal.c).
    fn take(&mut self, set: u64) -> Option<(Sig, SignalInfo)> {
        let there = self.set() & set;
        let first = [there & OWN, there].into_iter().find(|set| *set != 0)?;
        let signal = Sig(first.trailing_zeros() as u8 + 1);
        let infos = self.0.get_mut(&signal)?;
        let info = infos.pop_front().unwrap_or_default();
        if infos.is_empty() {
            self.0.remove(&signal);
        }
        Some((signal, info))
    }

    /// Forgets those of a set.
    fn drop_all(&mut self, set: u64) {
        self.0.retain(|signal, _| signal.bit() & set == 0);
    }

    /// The overruns of a timer whose signal waits.
    pub(crate) fn overruns_of(&mut self, signal: Sig, timer: u32) -> Option<&mut u32> {
        let infos = self.0.get_mut(&signal)?;
        infos.iter_mut().find_map(|info| match &mut info.told {
            Told::Timer(id, overruns, _) if *id == timer => Some(overruns),
            _ => None,
        })
    }
}

/// How a signal interrupts a waiting call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// A handler runs, or the process ends.
    ByHandler {
        /// The handler wants the call made again (SA_RESTART).
        restarts: bool,
    },
    /// The process stands still, and goes on later.
    ByStop,
}

impl Action {
    /// Whether nothing comes of a signal.
    pub(crate) fn ignores(&self, signal: Sig) -> bool {
        match (self.handler, signal.default_action()) {
            (0, DefaultAction::Ignore | DefaultAction::Continue) => true,
            (handler, _) => handler == 1,
        }
    }
}

impl Process {
    /// What it does on a signal.
    pub(crate) fn action(&self, signal: Sig) -> Action {
        self.actions.get(&signal).copied().unwrap_or_default()
    }
}

impl Task {
    /// Signals for this task alone that it is to act on.
    fn own_ready(&self) -> u64 {
        let passed = self.trace.as_ref().and_then(|trace| trace.passed);
        let passed = passed.map_or(0, |(signal, _)| signal.bit());
        (self.arrived.set() | passed) & !self.mask
    }
}

impl Kernel {
    /// Signals that a task is to act on.
    pub(crate) fn ready(&self, tid: u32) -> u64 {
        let Some(task) = self.tasks.get(&tid) else {
            return 0;
        };
        let Some(process) = self.processes.get(&task.pid) else {
            return 0;
        };
        let open = process.arrived.set() & !task.mask;
        if open == 0 {
            return task.own_ready();
        }
        let before = process.tasks.range(..tid).filter_map(|tid| self.tasks.get(tid));
        let left = before
            .filter(|task| !task.is_held())
            .fold(open, |open, task| open & task.mask);
        task.own_ready() | left
    }

    /// Signals that have come to a task and to its process.
    pub(crate) fn arrived(&self, tid: u32) -> u64 {
        let task = self.tasks.get(&tid);
        let process = task.and_then(|task| self.processes.get(&task.pid));
        task.map_or(0, |task| task.arrived.set()) | process.map_or(0, |process| process.arrived.set())
    }

    /// A task takes the first signal of a set that came to it; else the first that came to its process.
    pub(crate) fn take_signal(&mut self, tid: u32, set: u64) -> Option<(Sig, SignalInfo)> {
        let task = self.tasks.get_mut(&tid)?;
        let process = self.processes.get_mut(&task.pid)?;
        task.arrived.take(set).or_else(|| process.arrived.take(set))
    }

    /// Forgets signals of a set that came to a process and its tasks.
    pub(crate) fn drop_signals(&mut self, pid: u32, set: u64) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.arrived.drop_all(set);
        for tid in &process.tasks {
            if let Some(task) = self.tasks.get_mut(tid) {
                task.arrived.drop_all(set);
            }
        }
    }

    /// How many signals are queued for the user of a process, and how many may be.
    pub(crate) fn queued(&self, process: &Process) -> (u64, u64) {
        let same = |other: &&Process| other.uid[0] == process.uid[0];
        let waiting = |other: &Process| {
            let tasks = other.tasks.iter().filter_map(|tid| self.tasks.get(tid));
            other.arrived.count() + tasks.map(|task| task.arrived.count()).sum::<u64>()
        };
        let limit = process
            .limits
            .get(&LIMIT)
            .map_or(DEFAULT_LIMIT, |(soft, _)| *soft);
        (self.processes.values().filter(same).map(waiting).sum(), limit)
    }

    /// The lines of `/proc/PID/status` about signals: as many digits as a set has of the guest's.
    pub(crate) fn signal_lines(&self, process: &Process) -> String {
        let family = self.abi.family;
        let digits = if self.abi.is_mips() { 32 } else { 16 };
        let first = self.tasks.get(&process.pid);
        let (queued, limit) = self.queued(process);
        let acts = |wanted: fn(&Action) -> bool| {
            let actions = process.actions.iter().filter(|(_, action)| wanted(action));
            actions.fold(0, |set, (signal, _)| set | signal.bit())
        };
        let sets = [
            ("SigPnd", first.map_or(0, |task| task.arrived.set())),
            ("ShdPnd", process.arrived.set()),
            ("SigBlk", first.map_or(0, |task| task.mask)),
            ("SigIgn", acts(|action| action.handler == 1)),
            ("SigCgt", acts(|action| action.handler > 1)),
        ];
        let lines =
            sets.map(|(name, set)| format!("{name}:\t{:0digits$x}\n", Sig::set_of_guest(set, family)));
        format!("SigQ:\t{queued}/{limit}\n{}", lines.concat())
    }

    /// Tells of a signal that one process sends to another.
    pub(crate) fn tell_signal(&mut self, from: (u32, u32), to: u32, signal: Sig) {
        let task = self.event_task(from.0, from.1);
        let what = SignalEvent {
            signal: signal.name(),
            to: i32::try_from(to).unwrap_or(i32::MAX),
        };
        self.later.push((task, What::Signal(what)));
    }

    /// A signal of the kernel comes to a process: acted upon when one of its tasks runs next.
    pub(crate) fn post(&mut self, pid: u32, signal: Sig) {
        self.post_told(pid, None, signal, SignalInfo::default());
    }

    /// A signal comes to a process, or to one of its tasks alone, with what is told of it. Whether there was room for it.
    pub(crate) fn post_told(&mut self, pid: u32, tid: Option<u32>, signal: Sig, info: SignalInfo) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else {
            return true;
        };
        // The task that it is sent to: of a process the first.
        let Some(target) = tid.or_else(|| process.tasks.first().copied()) else {
            return true;
        };
        if process.ended.is_some() || !self.tasks.contains_key(&target) {
            return true;
        }
        self.wake += 1;
        let mut continued = false;
        match signal {
            Sig::CONT => {
                continued = std::mem::replace(&mut process.stopped, false);
                self.drop_signals(pid, STOPS);
            }
            Sig::KILL => {
                process.stopped = false;
                for tid in &process.tasks {
                    let task = self.tasks.get_mut(tid);
                    if let Some(trace) = task.and_then(|task| task.trace.as_mut()) {
                        trace.stop = None;
                    }
                }
                self.settle(pid);
            }
            _ if signal.bit() & STOPS != 0 => self.drop_signals(pid, Sig::CONT.bit()),
            _ => {}
        }
        let room = self.arrive(pid, target, tid.is_none() || signal == Sig::KILL, (signal, info));
        if continued {
            self.notify_listeners(pid);
            self.tell_parent(pid, Change::Continued);
        }
        room
    }

    /// A signal is put where it waits: for the whole process, or for one task.
    fn arrive(&mut self, pid: u32, tid: u32, whole: bool, (signal, info): (Sig, SignalInfo)) -> bool {
        let Some(process) = self.processes.get(&pid) else {
            return true;
        };
        let (queued, limit) = self.queued(process);
        let full = queued >= limit.min(MOST);
        let (Some(process), Some(task)) = (self.processes.get_mut(&pid), self.tasks.get_mut(&tid)) else {
            return true;
        };
        // A tracer sees also what is ignored; whoever blocks a signal may want it later (sig_ignored).
        if process.action(signal).ignores(signal) && task.trace.is_none() && task.mask & signal.bit() == 0 {
            return true;
        }
        let there = if whole {
            &mut process.arrived
        } else {
            &mut task.arrived
        };
        if !full || signal < REAL_TIME || info.code == code::TIMER {
            there.add(signal, info);
        } else if !matches!(info.code, code::USER | code::KERNEL) {
            return false;
        } else if there.set() & signal.bit() == 0 {
            // That it came is known, and nothing else (TRACE_SIGNAL_LOSE_INFO).
            there.add(
                signal,
                SignalInfo {
                    code: code::USER,
                    told: Told::Sender(0, 0, 0),
                },
            );
        }
        true
    }

    /// Whether an arrived signal interrupts a waiting call, and how.
    pub(crate) fn interrupts(&self, tid: u32) -> Option<Interruption> {
        const RESTART: u64 = 0x1000_0000;
        let ready = self.ready(tid);
        let process = self.processes.get(&self.tasks.get(&tid)?.pid)?;
        let ready = (1..=64u8).map(Sig).filter(|signal| ready & signal.bit() != 0);
        ready.into_iter().find_map(|signal| {
            let action = process.action(signal);
            match (action.handler, signal.default_action()) {
                (0, DefaultAction::Terminate) => Some(Interruption::ByHandler { restarts: false }),
                (0, DefaultAction::Stop) => Some(Interruption::ByStop),
                (0 | 1, _) => None,
                _ => Some(Interruption::ByHandler {
                    restarts: action.flags & RESTART != 0,
                }),
            }
        })
    }

    /// A fault's signal comes to the task that caused it; blocked or ignored, it kills.
    pub(crate) fn fault_signal(&mut self, tid: u32, signal: Sig, info: SignalInfo) {
        let pid = self.pid_of(tid);
        let process = self.processes.get(&pid);
        let handled = process.is_some_and(|process| process.action(signal).handler > 1);
        let traced = self.traced(tid).is_some();
        match self.tasks.get_mut(&tid) {
            Some(task) if traced => {
                task.mask &= !signal.bit();
                task.arrived.add(signal, info);
            }
            Some(task) if handled && task.mask & signal.bit() == 0 => task.arrived.add(signal, info),
            _ => self.kill_process(pid, signal),
        }
    }

    /// Alarms whose time has come.
    pub(crate) fn fire_alarms(&mut self) {
        let now = self.time.now;
        let mut due = Vec::new();
        for process in self.processes.values_mut() {
            let clocks = [now, process.used.user, process.used.total()];
            let signals = [Sig::ALRM, Sig::VTALRM, Sig::PROF];
            for ((timer, clock), signal) in process.intervals.iter_mut().zip(clocks).zip(signals) {
                if timer.expire(clock).is_some() {
                    due.push((process.pid, signal));
                }
            }
        }
        for (pid, signal) in due {
            self.tell_signal((pid, pid), pid, signal);
            self.post(pid, signal);
            self.tell_later();
        }
        self.fire_timers();
    }
}
