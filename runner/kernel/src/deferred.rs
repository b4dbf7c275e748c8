//! What calls want done between two runs, when all machines are at hand.

use hotcell_schema::event::{Process as ProcessEvent, ProcessOp, What};
use hotcell_schema::guest::text;
use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::call::Fork;
use crate::exec::Image;
use crate::kernel::Kernel;
use crate::machine::{MachineError, Machines};
use crate::reach::Reach;
use crate::task::{Ended, Ending, Pending, State};

/// What a call wants done with the machines.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Deferred {
    Fork(Fork),
    Exec(Box<Image>),
    /// Back from a signal handler.
    SignalReturn,
    /// A call whose task stood still for its tracer before it; whether it is made in the second way.
    Enter(bool),
    /// The same, after its process has been dumped for this call.
    Dump(String, bool),
    /// To another's memory or registers.
    Reach(Box<Reach>),
}

impl Kernel {
    /// Carries out what stopped tasks want done with the machines.
    pub(crate) fn do_deferred(&mut self, machines: &mut dyn Machines) -> Result<(), MachineError> {
        while let Some((tid, deferred)) = self.deferred.pop_first() {
            self.tree.now = self.time.real();
            let compat = match &deferred {
                Deferred::Dump(call, compat) => {
                    self.dump_before(tid, call, machines)?;
                    *compat
                }
                Deferred::Enter(compat) => *compat,
                _ => {
                    self.carry_out(machines, tid, deferred)?;
                    continue;
                }
            };
            self.enter(machines, tid, compat)?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        deferred: Deferred,
    ) -> Result<(), MachineError> {
        let Some(pending) = self.tasks.get_mut(&tid).and_then(|task| task.pending.take()) else {
            return Ok(());
        };
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = State::Runnable;
        }
        match deferred {
            Deferred::Fork(fork) => self.do_fork(machines, tid, pending, fork)?,
            Deferred::Exec(image) => self.do_exec(machines, tid, pending, *image)?,
            Deferred::SignalReturn => self.do_signal_return(machines, tid, pending)?,
            Deferred::Reach(reach) => self.do_reach(machines, tid, pending, *reach)?,
            Deferred::Enter(_) | Deferred::Dump(..) => {}
        }
        Ok(())
    }

    /// A task makes the call that its tracer held it before.
    fn enter(&mut self, machines: &mut dyn Machines, tid: u32, compat: bool) -> Result<(), MachineError> {
        self.load_registers(tid, machines)?;
        let Some(task) = self.tasks.get_mut(&tid) else {
            return Ok(());
        };
        task.state = State::Runnable;
        let space = task.space;
        if let Some(machine) = machines.get(space) {
            let running = std::mem::replace(&mut self.current, tid);
            self.system_call(machine, compat);
            self.current = running;
        }
        Ok(())
    }

    /// Finishes a call from outside of a run.
    pub(crate) fn finish_deferred(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: Pending,
        result: Result<u64, Errno>,
    ) -> Result<(), MachineError> {
        self.load_registers(tid, machines)?;
        let Some(space) = self.tasks.get(&tid).map(|task| task.space) else {
            return Ok(());
        };
        if let Some(machine) = machines.get(space) {
            self.finish_call(machine, tid, pending, result);
        }
        Ok(())
    }

    fn do_exec(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: Pending,
        image: Image,
    ) -> Result<(), MachineError> {
        let pid = self.pid_of(tid);
        // Other threads end first, and the one that called takes the first one's number.
        let Some(process) = self.processes.get_mut(&pid) else {
            return Ok(());
        };
        if process.tasks.len() > 1 {
            process.ending = Some(Ending::But(tid, Box::new(image)));
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.pending = Some(pending);
                task.state = State::Deferred;
            }
            self.hold_for_end(pid, Some(tid), Ended::Exited(0));
            self.settle(pid);
            return Ok(());
        }
        if tid != pid
            && let Some(mut task) = self.tasks.remove(&tid)
        {
            task.tid = pid;
            self.tasks.insert(pid, task);
            if self.current == tid {
                self.current = pid;
            }
        }
        let old = self.processes.get(&pid).map(|process| process.space);
        self.close_on_exec(pid);
        let before = self.event_task(pid, pid);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.tasks = [pid].into();
            process.first_gone = None;
            process.actions.retain(|_, action| action.handler == 1);
            process.executed = true;
            process.timers.clear();
            process.released = true;
        }
        self.wake += 1;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.interrupted.clear();
            task.clear_tid = 0;
            task.alternate_stack = (0, 2, 0);
        }
        let argv = image
            .argv
            .iter()
            .take(64)
            .map(|arg| hotcell_schema::guest::text_up_to(arg, 4096))
            .collect();
        let what = ProcessEvent {
            path: Some(text(&image.asked)),
            argv,
            ..ProcessEvent::new(ProcessOp::Exec)
        };
        self.later.push((before, What::Process(what)));
        self.tell_call(pid, pending, None);
        if let Some(old) = old {
            self.doomed.insert(old);
        }
        let id = crate::machine::SpaceId(self.next_space);
        self.next_space += 1;
        self.leave_robust(pid);
        // Now, so that its memory does not count twice.
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.space = id;
        }
        self.drop_doomed(machines)?;
        self.load(machines, id, pid, image)?;
        self.hold_for_exec(pid, tid);
        Ok(())
    }
}
