//! Tracing (`ptrace(2)`): who traces whom, where a traced task stands still, and how it goes on.
//!
//! A traced task stands still for its tracer before it acts on a signal, at the edges of its calls when that was asked for, and
//! when it forks, executes or ends. `sys::trace` has what a tracer asks for, `reach` how memory and registers are got at.
//! A tracer that is no process of the guest (the parent of the sample itself, after `PTRACE_TRACEME`) lets everything go on
//! at once: nobody here could answer for it.

use serde::{Deserialize, Serialize};

use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::deferred::Deferred;
use crate::kernel::Kernel;
use crate::task::{Change, Pending, State, Task};

/// Options of `PTRACE_SETOPTIONS` (uapi/linux/ptrace.h).
pub(crate) mod option {
    pub(crate) const SYSTEM_CALLS: u64 = 1;
    pub(crate) const EXIT_KILL: u64 = 0x10_0000;
    /// All there are, but PTRACE_O_SUSPEND_SECCOMP. An event's own option is the bit of its number.
    pub(crate) const ALL: u64 = 0x10_00ff;
}

/// Events of `ptrace(2)` (uapi/linux/ptrace.h).
pub(crate) mod event {
    pub(crate) const FORK: u8 = 1;
    pub(crate) const VFORK: u8 = 2;
    pub(crate) const CLONE: u8 = 3;
    pub(crate) const EXEC: u8 = 4;
    pub(crate) const EXIT: u8 = 6;
    pub(crate) const STOP: u8 = 128;
}

/// A task that is traced.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// The tracing process.
    pub(crate) tracer: u32,
    pub(crate) options: u64,
    /// By PTRACE_SEIZE.
    pub(crate) seized: bool,
    /// Stands still where calls begin and end (PTRACE_SYSCALL).
    pub(crate) calls: bool,
    /// Where it stands still.
    pub(crate) stop: Option<Stop>,
    /// The call that is made next has been stopped at.
    entered: bool,
    /// Its call has ended while it stood still for something else: it stands still once more.
    owes_exit: bool,
    /// What is told of the signal that it stands still for.
    pub(crate) info: SignalInfo,
    /// A signal that the tracer let through.
    pub(crate) passed: Option<(Sig, SignalInfo)>,
    /// PTRACE_GETEVENTMSG.
    pub(crate) message: u64,
    /// Number and first argument of the latest call.
    pub(crate) call: (u64, u64),
    /// Whether it was made in the second way.
    pub(crate) compat: bool,
    /// A call that was under way where the tracer took the program counter from, and that place.
    pub(crate) parked: Option<(u64, Pending)>,
}

impl Trace {
    pub(crate) fn new(tracer: u32, options: u64, seized: bool) -> Self {
        Self {
            tracer,
            options,
            seized,
            calls: false,
            stop: None,
            entered: false,
            compat: false,
            owes_exit: false,
            info: SignalInfo::default(),
            passed: None,
            message: 0,
            call: (u64::MAX, 0),
            parked: None,
        }
    }
}

/// A task stands still for its tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) why: Why,
    /// The tracer has waited for it.
    pub(crate) told: bool,
    /// It stays there for a stop of its process, and what ends that is told (PTRACE_LISTEN).
    pub(crate) listens: bool,
}

/// Why it stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Why {
    /// A signal is about to be acted on.
    Signal(Sig),
    /// A call begins.
    Entry,
    /// A call has ended.
    Exit,
    /// By its number.
    Event(u8),
    /// The process was stopped by this signal.
    Group(Sig),
}

impl Task {
    /// Whether it stands still for its tracer.
    pub(crate) fn is_held(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.stop.is_some())
    }
}

impl Kernel {
    /// How a task is traced by a process of the guest.
    pub(crate) fn traced(&mut self, tid: u32) -> Option<&mut Trace> {
        let trace = self.tasks.get_mut(&tid)?.trace.as_mut()?;
        let tracer = self.processes.get(&trace.tracer)?;
        tracer.ended.is_none().then_some(trace)
    }

    /// `TracerPid` of `/proc/PID/status`.
    pub(crate) fn tracer_of(&self, pid: u32) -> u32 {
        let trace = self.tasks.get(&pid).and_then(|task| task.trace.as_ref());
        trace.map_or(0, |trace| trace.tracer)
    }

    /// A task stands still for its tracer, unless it is about to be killed. Whether it does.
    pub(crate) fn hold(&mut self, tid: u32, why: Why) -> bool {
        const NO_CHILD_STOP: u64 = 1;
        if self.arrived(tid) & Sig::KILL.bit() != 0 {
            return false;
        }
        let family = self.abi.family;
        let Some(trace) = self.traced(tid) else {
            return false;
        };
        let stop = Stop {
            why,
            told: false,
            listens: false,
        };
        trace.stop = Some(stop);
        let (tracer, status) = (trace.tracer, stop.status(trace, |signal| signal.number(family)));
        let code = match why {
            Why::Group(_) => code::STOPPED,
            _ => code::TRAPPED,
        };
        let wanted = self
            .processes
            .get(&tracer)
            .is_some_and(|process| process.action(Sig::CHLD).flags & NO_CHILD_STOP == 0);
        if wanted {
            let uid = self
                .processes
                .get(&self.pid_of(tid))
                .map_or(0, |process| process.uid[0]);
            let told = Told::Child(tid, uid, status & 0x7f);
            self.post_told(tracer, None, Sig::CHLD, SignalInfo { code, told });
        }
        self.wake += 1;
        true
    }

    /// A signal makes a process stand still: its tracers hear of it, and its parent, if that is none of them (ptrace_stop).
    pub(crate) fn stop_process(&mut self, pid: u32, signal: Sig) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.stopped = true;
        let (parent, tasks) = (process.parent, process.tasks.clone());
        let mut heard = false;
        for tid in tasks {
            let already = self.tasks.get(&tid).is_some_and(Task::is_held);
            let held = !already && self.hold(tid, Why::Group(signal));
            heard |= held
                && self
                    .tasks
                    .get(&tid)
                    .and_then(|task| task.trace.as_ref())
                    .is_some_and(|trace| trace.tracer == parent);
        }
        if !heard {
            self.tell_parent(pid, Change::Stopped(signal));
        }
    }

    /// A stopped process goes on: the tracers that listen for it hear of it (kernel/signal.c, ptrace_trap_notify).
    pub(crate) fn notify_listeners(&mut self, pid: u32) {
        let listens = |task: &&Task| {
            let stop = task.trace.as_ref().and_then(|trace| trace.stop);
            task.pid == pid && stop.is_some_and(|stop| stop.listens)
        };
        let listening: Vec<u32> = self.tasks.values().filter(listens).map(|task| task.tid).collect();
        for tid in listening {
            self.hold(tid, Why::Event(event::STOP));
        }
    }

    /// Whether a task is held by its tracer for a signal that has come, now or before.
    pub(crate) fn held_for_signal(&mut self, tid: u32) -> bool {
        let Some(task) = self.tasks.get(&tid) else {
            return false;
        };
        if task.is_held() {
            return true;
        }
        let ready = self.ready(tid);
        if ready == 0 || ready & Sig::KILL.bit() != 0 {
            return false;
        }
        let Some(trace) = self.traced(tid) else {
            return false;
        };
        if trace.passed.is_some_and(|(signal, _)| ready & signal.bit() != 0) {
            return false;
        }
        let Some((signal, info)) = self.take_signal(tid, ready) else {
            return false;
        };
        if let Some(trace) = self.traced(tid) {
            trace.info = info;
        }
        self.hold(tid, Why::Signal(signal))
    }

    /// Takes the signal to act on next: what the tracer let through, or the first.
    pub(crate) fn signal_for(&mut self, tid: u32) -> Option<(Sig, SignalInfo)> {
        let ready = self.ready(tid);
        let trace = self.tasks.get_mut(&tid)?.trace.as_mut();
        let passed = trace.and_then(|trace| trace.passed.take_if(|(signal, _)| ready & signal.bit() != 0));
        passed.or_else(|| self.take_signal(tid, ready))
    }

    /// Whether the running task stands still before it makes this call.
    pub(crate) fn held_at_entry(&mut self, tid: u32, call: (u64, u64), compat: bool) -> bool {
        let Some(trace) = self.traced(tid) else {
            return false;
        };
        trace.call = call;
        trace.compat = compat;
        if std::mem::take(&mut trace.entered) || !trace.calls {
            return false;
        }
        self.hold(tid, Why::Entry)
    }

    /// Whether the task stands still now that its call has ended.
    pub(crate) fn held_at_exit(&mut self, tid: u32) -> bool {
        let Some(trace) = self.traced(tid) else {
            return false;
        };
        if trace.stop.is_some() {
            trace.owes_exit = trace.calls;
            return true;
        }
        trace.calls && self.hold(tid, Why::Exit)
    }

    /// A traced task has made another: it stands still, and the new one is traced too.
    pub(crate) fn hold_for_fork(&mut self, tid: u32, child: u32, event: u8) {
        let Some(trace) = self.traced(tid) else { return };
        if trace.options & (1 << event) == 0 {
            return;
        }
        trace.message = u64::from(child);
        let new = Trace::new(trace.tracer, trace.options, trace.seized);
        let seized = new.seized;
        if let Some(task) = self.tasks.get_mut(&child) {
            task.trace = Some(new);
            if !seized {
                task.arrived.add(Sig::STOP, SignalInfo::default());
            }
        }
        if seized {
            self.hold(child, Why::Event(event::STOP));
        }
        self.hold(tid, Why::Event(event));
    }

    /// A traced process has executed a program; `from` called for it.
    pub(crate) fn hold_for_exec(&mut self, tid: u32, from: u32) {
        let Some(trace) = self.traced(tid) else { return };
        trace.parked = None;
        trace.message = u64::from(from);
        let (calls, seized) = (trace.calls, trace.seized);
        if trace.options & (1 << event::EXEC) != 0 {
            trace.owes_exit = calls;
            self.hold(tid, Why::Event(event::EXEC));
            return;
        }
        if calls {
            self.hold(tid, Why::Exit);
        }
        if !seized && let Some(task) = self.tasks.get_mut(&tid) {
            task.arrived.add(Sig::TRAP, SignalInfo::default());
        }
    }

    /// Whether a traced task stands still before it ends with this status word.
    pub(crate) fn held_for_end(&mut self, tid: u32, status: u64) -> bool {
        let Some(trace) = self.traced(tid) else {
            return false;
        };
        if trace.options & (1 << event::EXIT) == 0 {
            return false;
        }
        trace.message = status;
        self.hold(tid, Why::Event(event::EXIT))
    }

    /// Lets a task go on that stands still for its tracer, with a signal.
    pub(crate) fn release(&mut self, tid: u32, calls: bool, signal: Option<Sig>) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let pid = task.pid;
        let Some(trace) = task.trace.as_mut() else { return };
        let Some(stop) = trace.stop.take() else { return };
        let uid = self
            .processes
            .get(&trace.tracer)
            .map_or(0, |tracer| tracer.uid[0]);
        let by_tracer = SignalInfo {
            code: code::USER,
            told: Told::Sender(trace.tracer, uid, 0),
        };
        trace.calls = calls;
        let owes_exit = std::mem::take(&mut trace.owes_exit) && calls;
        match (signal, stop.why) {
            // Another stop for it comes only where it was not the reason of this one.
            (Some(signal), Why::Signal(held)) => {
                let info = if signal == held { trace.info } else { by_tracer };
                trace.passed = Some((signal, info));
            }
            (Some(signal), Why::Entry | Why::Exit) => task.arrived.add(signal, SignalInfo::default()),
            _ => {}
        }
        if stop.why == Why::Entry {
            trace.entered = true;
            let compat = trace.compat;
            task.state = State::Deferred;
            self.deferred.insert(tid, Deferred::Enter(compat));
        }
        if let Some(process) = self
            .processes
            .get_mut(&pid)
            .filter(|_| matches!(stop.why, Why::Group(_)))
        {
            process.stopped = false;
        }
        self.wake += 1;
        if owes_exit {
            self.hold(tid, Why::Exit);
        }
        self.settle(pid);
    }

    /// A task is traced no more.
    pub(crate) fn detach(&mut self, tid: u32, signal: Option<Sig>) {
        self.release(tid, false, signal);
        if let Some(task) = self.tasks.get_mut(&tid)
            && let Some(trace) = task.trace.take()
            && let Some((signal, info)) = trace.passed
        {
            task.arrived.add(signal, info);
        }
    }

    /// A process ends: those that it traced are let go, or end with it.
    pub(crate) fn end_traces(&mut self, pid: u32) {
        let traced: Vec<(u32, u32, u64)> = self
            .tasks
            .values()
            .filter_map(|task| Some((task, task.trace.as_ref()?)))
            .filter(|(_, trace)| trace.tracer == pid)
            .map(|(task, trace)| (task.tid, task.pid, trace.options))
            .collect();
        for (tid, process, options) in traced {
            self.detach(tid, None);
            if options & option::EXIT_KILL != 0 && process != pid {
                self.post(process, Sig::KILL);
            }
        }
    }
}
