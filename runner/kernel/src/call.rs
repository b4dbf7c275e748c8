//! A system call: from registers to a handler, and back to a result and events.

use std::collections::HashMap;

use hotcell_schema::event::{Arg, File, FileOp, Support, Syscall, What};
use hotcell_schema::guest::text;
use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::{Abi, quirks};
use crate::deferred::Deferred;
use crate::kernel::Kernel;
use crate::machine::{Flow, Machine};
use crate::signals::Interruption;
use crate::table::{Effect, Kind, Level, Row};
use crate::task::{Pending, State};

/// Why a handler gives no result.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The guest gets an error.
    Errno(Errno),
    /// The call waits: tried again when something happened, or at the pending call's deadline.
    Wait,
    /// The task is gone, or goes on elsewhere: there is nobody to give a result to.
    Gone,
    /// Needs more than the task's own machine.
    Later(Deferred),
    /// The run ends.
    End,
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What a handler gives.
pub(crate) type Answer = Result<u64, Fail>;

/// Carries out a call.
pub(crate) type Handler = fn(&mut Call<'_>) -> Answer;

/// What fork, vfork and clone ask for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Fork {
    pub(crate) flags: u64,
    pub(crate) stack: u64,
    pub(crate) thread_pointer: u64,
    pub(crate) parent_tid: u64,
    pub(crate) child_tid: u64,
    /// Where the child's descriptor goes (CLONE_PIDFD).
    pub(crate) pidfd: u64,
}

/// One call as its handler sees it.
pub(crate) struct Call<'a> {
    pub(crate) k: &'a mut Kernel,
    pub(crate) machine: &'a mut dyn Machine,
    pub(crate) tid: u32,
    pub(crate) pid: u32,
    pub(crate) pending: &'a mut Pending,
}

impl<'a> Call<'a> {
    /// A task's call.
    pub(crate) fn of(
        k: &'a mut Kernel,
        machine: &'a mut dyn Machine,
        tid: u32,
        pending: &'a mut Pending,
    ) -> Self {
        let pid = k.pid_of(tid);
        Self {
            k,
            machine,
            tid,
            pid,
            pending,
        }
    }
}

impl Kernel {
    /// The ABI that a call is made by.
    pub(crate) fn abi_of(&self, pending: &Pending) -> &Abi {
        let compat = self.compat.as_ref().filter(|_| pending.compat);
        compat.unwrap_or(&self.abi)
    }

    /// The running task's call, for the first time. `compat`: in the second way.
    pub(crate) fn system_call(&mut self, machine: &mut dyn Machine, compat: bool) -> Flow {
        let Some(registers) = &self.registers else {
            return Flow::Stop;
        };
        let (abi, raw) = match self.compat.as_ref().filter(|_| compat) {
            Some(abi) => (abi, registers.compat_arguments(machine, abi)),
            None => (&self.abi, registers.arguments(machine, &self.abi)),
        };
        let number = abi.cut(registers.number(machine));
        let found = crate::table::table().find(abi.family, number);
        let tid = self.current;
        let Some(row) = found else {
            if self.held_at_entry(tid, (number, raw[0]), compat) {
                return Flow::Stop;
            }
            return self.unknown_call(machine, number);
        };
        // Registers of other tasks are got at between two runs only.
        if self.dumps_before(row.name, self.pid_of(tid)) {
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.state = State::Deferred;
            }
            self.deferred
                .insert(tid, Deferred::Dump(row.name.to_owned(), compat));
            return Flow::Stop;
        }
        if self.held_at_entry(tid, (number, raw[0]), compat) {
            return Flow::Stop;
        }
        let pending = self.about_to(machine, row, (number, compat), &raw);
        self.made.strings.arguments(row.name, &pending.args);
        let counting = self.time.counting;
        let flow = self.attempt(machine, tid, pending);
        // Another task may have become able to run: the driver must begin to count, or give it its turn.
        if flow == Flow::Stop || self.someone_woke() || self.time.counting != counting {
            Flow::Stop
        } else {
            flow
        }
    }

    /// A call that the running task makes, and what is known of its arguments.
    pub(crate) fn about_to(
        &mut self,
        machine: &mut dyn Machine,
        row: &'static Row,
        (number, compat): (u64, bool),
        raw: &[u64; 8],
    ) -> Pending {
        let abi = self.compat.as_ref().filter(|_| compat).unwrap_or(&self.abi);
        let mut pending = Pending {
            row,
            number,
            compat,
            words: row.words(abi, raw),
            args: Vec::new(),
            progress: 0,
            settled: false,
            messages: 0,
            is_cut: false,
            deadline: None,
            wake_at: None,
        };
        pending.args = Call::of(self, machine, self.current, &mut pending).known_args();
        pending
    }

    /// The running task may have jumped to a call: it is made from where the task came from.
    pub(crate) fn enter_vsyscall(&self, machine: &mut dyn Machine, pc: u64) -> bool {
        let row = quirks::vsyscall(self.abi.family, pc).and_then(|name| crate::table::table().by_name(name));
        let number = row.and_then(|row| row.number(self.abi.family));
        let (Some(number), Some(registers)) = (number, &self.registers) else {
            return false;
        };
        let stack = machine.get(registers.stack);
        let space = self.task_space(self.current);
        let mut back = [0; 8];
        if !space.is_some_and(|space| space.allows(stack, 8, false))
            || machine.read(stack, &mut back).is_err()
        {
            return false;
        }
        registers.set_number(machine, number);
        machine.set(registers.stack, stack.wrapping_add(8));
        machine.jump(self.abi.get_u64(back));
        true
    }

    fn someone_woke(&self) -> bool {
        self.over()
            || !self.doomed.is_empty()
            || self.failure.is_some()
            || self.tasks.len() > 1
                && self.tasks.values().any(|task| match task.state {
                    State::Waiting { tried_at, .. } => tried_at != self.wake,
                    _ => false,
                })
            || self.ready(self.current) != 0
    }

    fn unknown_call(&mut self, machine: &mut dyn Machine, number: u64) -> Flow {
        let name = format!("syscall_{number}");
        self.note_unsupported(&name, Support::Missing, "");
        let event = Syscall {
            name,
            number,
            args: Vec::new(),
            result: None,
            errno: Some(Errno::ENOSYS.name().to_owned()),
            support: Support::Missing,
        };
        let task = self.event_task(self.pid_of(self.current), self.current);
        self.emit(task, What::Syscall(event));
        if let Some(registers) = &self.registers {
            registers.answer(machine, &self.abi, Err(Errno::ENOSYS));
        }
        if self.held_at_exit(self.current) || self.over() {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }

    /// A waiting task's call, once more; if it still waits, a signal may interrupt it.
    pub(crate) fn try_again(&mut self, tid: u32, machine: &mut dyn Machine) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let Some(pending) = task.pending.take() else {
            return;
        };
        task.state = State::Runnable;
        let running = std::mem::replace(&mut self.current, tid);
        self.attempt(machine, tid, pending);
        self.current = running;
        if self.held_for_signal(tid) {
            return;
        }
        let interrupted = self.interrupts(tid);
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        if !matches!(task.state, State::Waiting { .. }) {
            return;
        }
        // The parent of a vfork waits whatever comes.
        if task.pending.as_ref().is_none_or(|pending| pending.row.is_fork()) {
            return;
        }
        let Some(interrupted) = interrupted else {
            return;
        };
        let Some(mut pending) = task.pending.take() else {
            return;
        };
        let restarts = match interrupted {
            Interruption::ByHandler { restarts } => restarts && pending.row.restarts(),
            Interruption::ByStop => !pending.row.ends_by_stop(),
        };
        if pending.progress.max(pending.messages) > 0 && pending.row.moves_in_parts() {
            // Once more, for what was moved until now.
            let done = pending.progress.max(pending.messages);
            pending.is_cut = true;
            self.attempt(machine, tid, pending);
            let task = self.tasks.get_mut(&tid);
            if let Some(pending) = task.and_then(|task| task.pending.take_if(|pending| pending.is_cut)) {
                self.finish_call(machine, tid, pending, Ok(done));
            }
        } else if restarts {
            task.restart = Some(pending);
            task.state = State::Runnable;
        } else {
            // A FIFO that nobody came to is open already, and unknown to the guest.
            if let Some(fd) = pending.progress.checked_sub(1).filter(|_| pending.row.opens()) {
                let pid = self.pid_of(tid);
                let gone = self
                    .processes
                    .get_mut(&pid)
                    .and_then(|process| process.files.remove(fd & 0xffff));
                if let Some(descriptor) = gone {
                    self.close_file(pid, descriptor.file);
                }
            }
            self.finish_call(machine, tid, pending, Err(Errno::EINTR));
        }
    }

    pub(crate) fn attempt(&mut self, machine: &mut dyn Machine, tid: u32, mut pending: Pending) -> Flow {
        pending.wake_at = None;
        let answer = match (&pending.row.level, pending.row.handler) {
            (Level::Refused(errno, _), _) => Err(Fail::Errno(*errno)),
            (Level::Missing, _) | (_, None) => Err(Fail::Errno(Errno::ENOSYS)),
            (_, Some(handler)) => handler(&mut Call::of(self, machine, tid, &mut pending)),
        };
        self.answered(machine, tid, pending, answer)
    }

    /// What follows from what a handler gave.
    pub(crate) fn answered(
        &mut self,
        machine: &mut dyn Machine,
        tid: u32,
        mut pending: Pending,
        answer: Answer,
    ) -> Flow {
        match answer {
            Ok(value) => self.finish_call(machine, tid, pending, Ok(value)),
            Err(Fail::Errno(errno)) => self.finish_call(machine, tid, pending, Err(errno)),
            Err(Fail::Wait) => {
                // Others run meanwhile.
                pending.settled = false;
                let state = State::Waiting {
                    tried_at: self.wake,
                    deadline: [pending.deadline, pending.wake_at].into_iter().flatten().min(),
                };
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.pending = Some(pending);
                    task.state = state;
                }
                Flow::Stop
            }
            Err(Fail::Gone) => {
                // Already told, if it had to be.
                Flow::Stop
            }
            Err(Fail::Later(deferred)) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.pending = Some(pending);
                    task.state = State::Deferred;
                }
                self.deferred.insert(tid, deferred);
                Flow::Stop
            }
            Err(Fail::End) => Flow::Stop,
        }
    }

    /// Gives the result to the task and tells the events.
    pub(crate) fn finish_call(
        &mut self,
        machine: &mut dyn Machine,
        tid: u32,
        mut pending: Pending,
        result: Result<u64, Errno>,
    ) -> Flow {
        if let Some(registers) = &self.registers {
            registers.answer(machine, &self.abi, result);
        }
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = State::Runnable;
            // What interrupted it is delivered with the mask of the call.
            if result != Err(Errno::EINTR) {
                task.mask_again();
            }
        }
        let mut call = Call::of(self, machine, tid, &mut pending);
        if result == Err(Errno::EINTR) {
            call.tell_rest_of_sleep();
        }
        call.fill_results(result);
        self.tell_call(tid, pending, Some(result));
        if self.held_at_exit(tid) || self.over() {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }

    /// Tells a call and what followed from it. `None`: it does not come back.
    pub(crate) fn tell_call(&mut self, tid: u32, pending: Pending, result: Option<Result<u64, Errno>>) {
        let pid = self.pid_of(tid);
        let task = self.event_task(pid, tid);
        let row = pending.row;
        let (support, note) = row.level.told();
        if support != Support::Full {
            self.note_unsupported(row.name, support, note);
        }
        let errno = result.and_then(Result::err);
        if let Some(what) = self.effect(pid, &pending, result) {
            self.later.insert(0, (task.clone(), what));
        }
        let event = Syscall {
            name: row.name.to_owned(),
            number: pending.number,
            args: pending.args,
            result: result.and_then(Result::ok).map(|value| self.abi.signed(value)),
            errno: errno.map(|errno| errno.name().to_owned()),
            support,
        };
        self.emit(task, What::Syscall(event));
        self.tell_later();
    }

    /// The typed event that follows from the row's shape alone.
    fn effect(&self, pid: u32, pending: &Pending, result: Option<Result<u64, Errno>>) -> Option<What> {
        let errno = result.and_then(Result::err);
        let op = match pending.row.effect {
            Effect::None => return None,
            Effect::Network(op) => {
                return Some(What::Network(self.network_event(pid, op, pending, result)));
            }
            Effect::File(op) => op,
        };
        let mut paths = pending.args.iter().filter_map(|arg| match &arg.value {
            hotcell_schema::event::ArgValue::Path(path) => Some((arg.name.as_str(), path)),
            _ => None,
        });
        let base = |name: &str| -> Vec<u8> {
            // A path counts from the directory descriptor that stands just before it.
            let params = &pending.row.params;
            let index = params.iter().position(|param| param.name == name).unwrap_or(0);
            let before = index
                .checked_sub(1)
                .and_then(|before| Some((before, params.get(before)?)));
            let process = self.processes.get(&pid);
            let cwd = || {
                process
                    .map(|process| self.tree.path_of(process.cwd))
                    .unwrap_or_default()
            };
            match before {
                Some((at, param)) if param.kind == Kind::At => {
                    let word = pending.words.get(at).copied().unwrap_or(0);
                    let opened = process
                        .and_then(|process| process.files.get(word).ok())
                        .and_then(|descriptor| self.open.get(descriptor.file))
                        .map(|file| file.path.clone());
                    if is_at_cwd(word) {
                        cwd()
                    } else {
                        opened.unwrap_or_default()
                    }
                }
                _ => cwd(),
            }
        };
        let absolute = |name: &str, path: &str| {
            let full = self.named(pid, text(&base(name)).as_bytes(), path.as_bytes());
            String::from_utf8_lossy(&full).into_owned()
        };
        // The text of a symbolic link is not a path to resolve.
        let (path, to) = if op == FileOp::Symlink {
            let target = paths.next()?;
            let link = paths.next()?;
            (absolute(link.0, link.1), Some(target.1.clone()))
        } else {
            let first = paths.next()?;
            (
                absolute(first.0, first.1),
                paths.next().map(|second| absolute(second.0, second.1)),
            )
        };
        let mode = match op {
            FileOp::Mkdir | FileOp::Chmod | FileOp::Create => pending
                .row
                .params
                .iter()
                .position(|param| param.kind == Kind::Mode)
                .and_then(|index| pending.words.get(index))
                .map(|mode| (*mode & 0o7777) as u32),
            _ => None,
        };
        let errno = errno.map(|errno| errno.name().to_owned());
        Some(What::File(File {
            to,
            mode,
            errno,
            ..File::new(op, path)
        }))
    }
}

/// AT_FDCWD.
pub(crate) fn is_at_cwd(word: u64) -> bool {
    (word as u32).cast_signed() == -100
}

/// Most bytes that one call moves.
pub(crate) const MAX_TRANSFER: u64 = 64 << 20;

/// Names to rows, for tests and redirections.
pub(crate) type Names = HashMap<&'static str, usize>;

impl Row {
    /// Whether the call makes tasks.
    fn is_fork(&self) -> bool {
        matches!(self.name, "fork" | "vfork" | "clone" | "clone3")
    }

    /// Whether the call is made again after a handler with SA_RESTART (`signal(7)`).
    fn restarts(&self) -> bool {
        const NAMES: [&str; 10] = [
            "read", "write", "wait", "accept", "connect", "recv", "send", "open", "flock", "fcntl",
        ];
        NAMES.iter().any(|name| self.name.starts_with(name))
    }

    fn opens(&self) -> bool {
        matches!(self.name, "open" | "openat" | "openat2" | "creat")
    }

    /// Whether what it has done so far is its result when it is interrupted.
    /// Whether a stop ends it also where no handler runs (signal(7)).
    fn ends_by_stop(&self) -> bool {
        self.name.starts_with("epoll_") || self.name.contains("sigtimedwait")
    }

    fn moves_in_parts(&self) -> bool {
        self.name.contains("write") || self.name.starts_with("send") || self.name.starts_with("recv")
    }

    /// Argument names that hold values only after the call.
    pub(crate) fn has_results(&self) -> bool {
        self.params.iter().any(|param| matches!(param.kind, Kind::Out))
    }
}

impl Call<'_> {
    /// Arguments that are only known when the call came back.
    fn fill_results(&mut self, result: Result<u64, Errno>) {
        if !self.pending.row.has_results() {
            return;
        }
        let row = self.pending.row;
        for (index, param) in row.params.iter().enumerate() {
            if param.kind == Kind::Out
                && let Ok(length) = result
            {
                let shown = self
                    .bytes(self.word(index), length.min(SHOWN as u64))
                    .unwrap_or_default();
                let value = crate::table::show(&shown, length);
                if let Some(arg) = self.pending.args.get_mut(index) {
                    *arg = Arg {
                        name: arg.name.clone(),
                        value,
                    };
                }
            }
        }
    }
}

/// Bytes of a buffer or text that an event holds.
pub(crate) const SHOWN: usize = 256;
