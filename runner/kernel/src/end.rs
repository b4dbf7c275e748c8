//! Tasks and processes end.

use hotcell_schema::event::{Process as ProcessEvent, ProcessOp, What};
use hotcell_schema::outcome::Outcome;

use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::fs::tree::Ino;
use crate::kernel::{FIRST_PID, Kernel};
use crate::task::{Ended, Ending, Process};

impl Kernel {
    /// A process ends: at once, or when tracers that want to see its tasks before have let them go. Its call, if it made one, has
    /// been told.
    pub(crate) fn end_process(&mut self, pid: u32, ended: Ended) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if process.ended.is_some() {
            return;
        }
        let again = matches!(process.ending, Some(Ending::All(_)));
        if !again {
            process.ending = Some(Ending::All(ended));
            // Nobody looks at who is killed (ptrace(2), "Death under ptrace").
            if ended != Ended::Killed(Sig::KILL) {
                self.hold_for_end(pid, None, ended);
            }
        }
        self.settle(pid);
    }

    /// Ends the processes that SIGKILL has come to, whatever they wait for. Their calls do not come back.
    pub(crate) fn end_killed(&mut self) {
        let is_killed =
            |process: &&Process| process.arrived.set() & Sig::KILL.bit() != 0 && process.ended.is_none();
        let killed: Vec<u32> = self
            .processes
            .values()
            .filter(is_killed)
            .map(|process| process.pid)
            .collect();
        for pid in killed {
            let tasks = self.processes.get(&pid).map(|process| process.tasks.clone());
            for tid in tasks.unwrap_or_default() {
                if let Some(pending) = self.tasks.get_mut(&tid).and_then(|task| task.pending.take()) {
                    self.tell_call(tid, pending, None);
                }
            }
            self.kill_process(pid, Sig::KILL);
            self.tell_later();
        }
    }

    /// All tasks of a process but one stand still before they end, where their tracers want that.
    pub(crate) fn hold_for_end(&mut self, pid: u32, but: Option<u32>, ended: Ended) {
        let tasks = self.processes.get(&pid).map(|process| process.tasks.clone());
        let status = u64::from(ended.status(self.abi.family));
        for tid in tasks.unwrap_or_default() {
            if Some(tid) != but {
                self.deferred.remove(&tid);
                self.held_for_end(tid, status);
            }
        }
    }

    /// Ends those tasks of a process that ends which nobody holds any more; then the process, or it executes its program.
    pub(crate) fn settle(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let (but, ended) = match &process.ending {
            Some(Ending::All(ended)) => (None, *ended),
            // The others end as if they had asked for it (ptrace(2), "execve(2) under ptrace").
            Some(Ending::But(tid, _)) => (Some(*tid), Ended::Exited(0)),
            None => return,
        };
        let mut left = false;
        for tid in process.tasks.clone() {
            let held = self.tasks.get(&tid).is_some_and(|task| task.is_held());
            if Some(tid) == but {
                continue;
            } else if held {
                left = true;
            } else {
                self.end_task(tid, ended);
            }
        }
        let Some(process) = self.processes.get_mut(&pid).filter(|_| !left) else {
            return;
        };
        match process.ending.take() {
            Some(Ending::But(tid, image)) => {
                self.deferred.insert(tid, crate::deferred::Deferred::Exec(image));
            }
            Some(Ending::All(ended)) => self.finish_process(pid, ended),
            None => {}
        }
    }

    /// A task ends. Of a process's first one nobody hears before the process has ended.
    pub(crate) fn end_task(&mut self, tid: u32, ended: Ended) {
        let tracer = self.traced(tid).map(|trace| trace.tracer);
        self.leave_robust(tid);
        let Some(task) = self.tasks.remove(&tid) else {
            return;
        };
        self.deferred.remove(&tid);
        if let Some(process) = self.processes.get_mut(&task.pid) {
            process.tasks.remove(&tid);
            if tid == task.pid {
                process.first_gone = Some((ended, tracer));
            } else if let Some(tracer) = tracer {
                self.tell_tracer(tracer, task.pid, tid, ended);
            }
        }
        self.wake += 1;
    }

    /// What the parent of a process that has ended is told, or the tracer of a task.
    fn end_info(&self, pid: u32, tid: u32, ended: Ended) -> SignalInfo {
        let (code, status) = match ended {
            Ended::Exited(code) => (code::EXITED, u32::from(code)),
            Ended::Killed(signal) => (code::KILLED, signal.number(self.abi.family) as u32),
        };
        let uid = self.processes.get(&pid).map_or(0, |process| process.uid[0]);
        let told = Told::Child(tid, uid, status);
        SignalInfo { code, told }
    }

    /// A task has ended that this process traced, and may wait for.
    fn tell_tracer(&mut self, tracer: u32, pid: u32, tid: u32, ended: Ended) {
        let info = self.end_info(pid, tid, ended);
        if let Some(process) = self.processes.get_mut(&tracer) {
            process.gone.push((tid, ended));
            self.post_told(tracer, None, Sig::CHLD, info);
            self.wake += 1;
        }
    }

    /// The last task of a process has ended.
    fn finish_process(&mut self, pid: u32, ended: Ended) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.ended = Some(ended);
        process.released = true;
        process.intervals = Default::default();
        process.timers.clear();
        process.argv = Vec::new();
        process.env = Vec::new();
        process.placed = Default::default();
        let held: Vec<Ino> = process.holds().collect();
        (process.root, process.image_ino) = (None, None);
        let parent = process.parent;
        let space = process.space;
        let tracer = process.first_gone.take().and_then(|(_, tracer)| tracer);
        let descriptors = process.files.drain();
        let mut what = ProcessEvent::new(ProcessOp::Exit);
        match ended {
            Ended::Exited(code) => what.code = Some(i32::from(code)),
            Ended::Killed(signal) => {
                what.op = ProcessOp::Killed;
                what.signal = Some(signal.name());
            }
        }
        let task = self.event_task(pid, pid);
        self.later.push((task, What::Process(what)));
        for descriptor in descriptors {
            self.close_file(pid, descriptor.file);
        }
        for held in held {
            self.tree.release(held);
            self.notice_gone(held);
        }
        self.end_traces(pid);
        // A tracer that is the parent hears of it as such.
        if let Some(tracer) = tracer.filter(|tracer| *tracer != parent) {
            self.tell_tracer(tracer, pid, pid, ended);
        }
        self.doomed.insert(space);
        if pid == FIRST_PID {
            self.first_outcome = Some(match ended {
                Ended::Exited(code) => Outcome::Exited(i32::from(code)),
                Ended::Killed(signal) => Outcome::Signalled(signal.name()),
            });
        }
        // Its children have another parent now: the first process of the system, which waits for all.
        let orphans: Vec<u32> = self
            .processes
            .values()
            .filter(|process| process.parent == pid)
            .map(|process| process.pid)
            .collect();
        for orphan in orphans {
            if let Some(process) = self.processes.get_mut(&orphan) {
                process.parent = 1;
                if process.ended.is_some() {
                    self.reap(orphan);
                }
            }
        }
        let info = self.end_info(pid, pid, ended);
        // SA_NOCLDWAIT (asm/signal.h)
        let no_wait = if self.abi.is_mips() { 0x1_0000 } else { 2 };
        let ignored = self
            .processes
            .get(&parent)
            .and_then(|process| process.actions.get(&Sig::CHLD))
            .is_some_and(|action| action.handler == 1 || action.flags & no_wait != 0);
        if !self.processes.contains_key(&parent) || ignored {
            self.reap(pid);
        }
        self.post_told(parent, None, Sig::CHLD, info);
        self.wake += 1;
    }

    /// Forgets a process that has ended.
    pub(crate) fn reap(&mut self, pid: u32) {
        self.processes.remove(&pid);
        for ino in crate::fs::root::remove_process(&mut self.tree, pid) {
            self.open.watches.lose(ino);
        }
    }

    /// A signal ends a process.
    pub(crate) fn kill_process(&mut self, pid: u32, signal: Sig) {
        self.end_process(pid, Ended::Killed(signal));
    }
}
