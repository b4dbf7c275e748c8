//! A system call: from registers to a handler, and back to a result and events.

use std::collections::HashMap;

use hotcell_schema::event::{Arg, File, FileOp, Process as ProcessEvent, ProcessOp, Support, Syscall, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::{Abi, quirks};
use crate::exec::Image;
use crate::fs::open::{Descriptor, FileId, OpenFile};
use crate::fs::tree::{Ino, StoreError};
use crate::fs::walk::{self, Place};
use crate::kernel::Kernel;
use crate::machine::{Flow, Machine, MachineError, Machines};
use crate::space::{AddressSpace, MapError};
use crate::table::{Effect, Kind, Level, Row};
use crate::task::{Pending, Process, State, Task};

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

/// What a call wants done with the machines.
#[derive(Debug)]
pub(crate) enum Deferred {
    Fork(Fork),
    Exec(Box<Image>),
    /// Back from a signal handler.
    SignalReturn,
}

/// What fork, vfork and clone ask for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fork {
    pub(crate) flags: u64,
    pub(crate) stack: u64,
    pub(crate) thread_pointer: u64,
    pub(crate) parent_tid: u64,
    pub(crate) child_tid: u64,
}

/// One call as its handler sees it.
pub(crate) struct Call<'a> {
    pub(crate) k: &'a mut Kernel,
    pub(crate) machine: &'a mut dyn Machine,
    pub(crate) tid: u32,
    pub(crate) pid: u32,
    pub(crate) pending: &'a mut Pending,
}

impl Kernel {
    /// The running task's call, for the first time.
    pub(crate) fn system_call(&mut self, machine: &mut dyn Machine) -> Flow {
        let Some(registers) = &self.registers else {
            return Flow::Stop;
        };
        let number = self.abi.cut(registers.number(machine));
        let raw = registers.arguments(machine, &self.abi);
        let tid = self.current;
        let Some(row) = crate::table::table().find(self.abi.family, number) else {
            return self.unknown_call(machine, number);
        };
        let words = row.words(&self.abi, &raw);
        let mut pending = Pending {
            row,
            number,
            words,
            args: Vec::new(),
            progress: 0,
            deadline: None,
        };
        let pid = self.pid_of(tid);
        let call = Call {
            k: self,
            machine,
            tid,
            pid,
            pending: &mut pending,
        };
        let args = call.known_args();
        pending.args = args;
        let counting = self.time.counting;
        let flow = self.attempt(machine, tid, pending);
        // Another task may have become able to run: the driver must begin to count, or give it its turn.
        if flow == Flow::Stop || self.someone_woke() || self.time.counting != counting {
            Flow::Stop
        } else {
            flow
        }
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
            || self
                .tasks
                .get(&self.current)
                .is_some_and(|task| task.arrived & !task.mask != 0)
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
        if self.over() { Flow::Stop } else { Flow::Continue }
    }

    /// A waiting task's call, once more.
    pub(crate) fn try_again(&mut self, tid: u32, machine: &mut dyn Machine) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let Some(pending) = task.pending.take() else {
            return;
        };
        if task.arrived & !task.mask != 0 && self.interrupts(tid) {
            self.finish_call(machine, tid, pending, Err(Errno::EINTR));
            return;
        }
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = State::Runnable;
        }
        let flow_to = self.current;
        self.current = tid;
        self.attempt(machine, tid, pending);
        self.current = flow_to;
    }

    fn attempt(&mut self, machine: &mut dyn Machine, tid: u32, mut pending: Pending) -> Flow {
        let pid = self.pid_of(tid);
        let answer = match (&pending.row.level, pending.row.handler) {
            (Level::Refused(errno, _), _) => Err(Fail::Errno(*errno)),
            (Level::Missing, _) | (_, None) => Err(Fail::Errno(Errno::ENOSYS)),
            (_, Some(handler)) => {
                let mut call = Call {
                    k: self,
                    machine,
                    tid,
                    pid,
                    pending: &mut pending,
                };
                handler(&mut call)
            }
        };
        match answer {
            Ok(value) => self.finish_call(machine, tid, pending, Ok(value)),
            Err(Fail::Errno(errno)) => self.finish_call(machine, tid, pending, Err(errno)),
            Err(Fail::Wait) => {
                let state = State::Waiting {
                    tried_at: self.wake,
                    deadline: pending.deadline,
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
    fn finish_call(
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
        }
        let pid = self.pid_of(tid);
        let mut call = Call {
            k: self,
            machine,
            tid,
            pid,
            pending: &mut pending,
        };
        call.fill_results(result);
        self.tell_call(tid, pending, Some(result));
        if self.over() { Flow::Stop } else { Flow::Continue }
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
        if let Some(what) = self.effect(pid, &pending, errno) {
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
    fn effect(&self, pid: u32, pending: &Pending, errno: Option<Errno>) -> Option<What> {
        let op = match pending.row.effect {
            Effect::None => return None,
            Effect::Network(op) => {
                return Some(What::Network(crate::sys::net::network_event(
                    &self.abi, op, pending, errno,
                )));
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
            let full = walk::absolute(text(&base(name)).as_bytes(), path.as_bytes());
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

    /// Carries out what stopped tasks want done with the machines.
    pub(crate) fn do_deferred(&mut self, machines: &mut dyn Machines) -> Result<(), MachineError> {
        while let Some((tid, deferred)) = self.deferred.pop_first() {
            self.tree.now = self.time.real();
            let Some(pending) = self.tasks.get_mut(&tid).and_then(|task| task.pending.take()) else {
                continue;
            };
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.state = State::Runnable;
            }
            match deferred {
                Deferred::Fork(fork) => self.do_fork(machines, tid, pending, fork)?,
                Deferred::Exec(image) => self.do_exec(machines, tid, pending, *image)?,
                Deferred::SignalReturn => self.do_signal_return(machines, tid, pending)?,
            }
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
        // Other threads end; the one that called becomes the first.
        let others: Vec<u32> = self
            .tasks
            .values()
            .filter(|task| task.pid == pid && task.tid != tid)
            .map(|task| task.tid)
            .collect();
        for other in others {
            self.tasks.remove(&other);
            self.deferred.remove(&other);
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
            process.actions.retain(|_, action| action.handler == 1);
            process.executed = true;
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
            path: Some(text(&image.path)),
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
        // Now, so that its memory does not count twice.
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.space = id;
        }
        for id in std::mem::take(&mut self.doomed) {
            if !self.tasks.values().any(|task| task.space == id) {
                self.spaces.remove(&id);
                machines.destroy(id);
            }
        }
        self.load(machines, id, pid, image)
    }
}

/// AT_FDCWD.
pub(crate) fn is_at_cwd(word: u64) -> bool {
    (word as u32).cast_signed() == -100
}

impl Call<'_> {
    /// The call's N-th word.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.pending.words.get(index).copied().unwrap_or(0)
    }

    /// The N-th word as an `int`.
    pub(crate) fn int(&self, index: usize) -> i32 {
        (self.word(index) as u32).cast_signed()
    }

    /// The N-th word as a `long`.
    pub(crate) fn long(&self, index: usize) -> i64 {
        self.k.abi.signed(self.word(index))
    }

    pub(crate) fn abi(&self) -> &Abi {
        &self.k.abi
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        let pid = self.pid;
        let root = self.k.tree.root;
        self.k
            .processes
            .entry(pid)
            .or_insert_with(|| Process::new(pid, 0, root, [0; 3], [0; 3]))
    }

    pub(crate) fn task(&mut self) -> &mut Task {
        let (tid, pid) = (self.tid, self.pid);
        self.k
            .tasks
            .entry(tid)
            .or_insert_with(|| Task::new(tid, pid, crate::machine::SpaceId(0)))
    }

    // Memory.

    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if into.is_empty() {
            return Ok(());
        }
        address.checked_add(into.len() as u64).ok_or(Errno::EFAULT)?;
        self.machine.read(address, into).map_err(|_| Errno::EFAULT)
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        address.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
        self.machine.write(address, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Bytes of a bounded length.
    pub(crate) fn bytes(&self, address: u64, length: u64) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(length.min(MAX_TRANSFER)).map_err(|_| Errno::EINVAL)?;
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A text that ends with a zero byte.
    pub(crate) fn text(&self, address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        let mut at = address;
        let mut chunk = [0; 64];
        loop {
            let size = (64 - at % 64) as usize;
            let part = chunk.get_mut(..size).ok_or(Errno::EFAULT)?;
            self.read(at, part)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend(part.get(..end).unwrap_or_default());
                return if text.len() < limit {
                    Ok(text)
                } else {
                    Err(Errno::ENAMETOOLONG)
                };
            }
            text.extend_from_slice(part);
            if text.len() >= limit {
                return Err(Errno::ENAMETOOLONG);
            }
            at = at.checked_add(size as u64).ok_or(Errno::EFAULT)?;
        }
    }

    /// A path.
    pub(crate) fn path(&self, index: usize) -> Result<Vec<u8>, Errno> {
        self.text(self.word(index), walk::PATH_MAX)
    }

    pub(crate) fn get_u32(&self, address: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(self.abi().get_u32(bytes))
    }

    pub(crate) fn get_u64(&self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(self.abi().get_u64(bytes))
    }

    /// A `long`, unsigned.
    pub(crate) fn get_word(&self, address: u64) -> Result<u64, Errno> {
        if self.abi().wide {
            self.get_u64(address)
        } else {
            self.get_u32(address).map(u64::from)
        }
    }

    pub(crate) fn put_u32(&mut self, address: u64, value: u32) -> Result<(), Errno> {
        let bytes = if self.abi().big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.write(address, &bytes)
    }

    pub(crate) fn put_u64(&mut self, address: u64, value: u64) -> Result<(), Errno> {
        let bytes = if self.abi().big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.write(address, &bytes)
    }

    pub(crate) fn put_word(&mut self, address: u64, value: u64) -> Result<(), Errno> {
        if self.abi().wide {
            self.put_u64(address, value)
        } else {
            self.put_u32(address, value as u32)
        }
    }

    /// A list of texts ended by a null pointer.
    pub(crate) fn texts(&self, address: u64) -> Result<Vec<Vec<u8>>, Errno> {
        const MAX_BYTES: usize = 2 << 20;
        let mut list = Vec::new();
        let mut total = 0;
        let mut at = address;
        while at != 0 {
            let pointer = self.get_word(at)?;
            if pointer == 0 {
                break;
            }
            let one = self.text(pointer, 128 << 10).map_err(|errno| match errno {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                other => other,
            })?;
            total += one.len() + 9;
            if total > MAX_BYTES {
                return Err(Errno::E2BIG);
            }
            list.push(one);
            at = at.checked_add(self.abi().word()).ok_or(Errno::EFAULT)?;
        }
        Ok(list)
    }

    // Files.

    /// Walks a path from the directory descriptor at `at` (`None`: the working directory).
    pub(crate) fn walk(&mut self, at: Option<usize>, path: &[u8], follow: bool) -> Result<Place, Errno> {
        let from = self.base(at, path)?;
        walk::walk(&self.k.tree, &self.k.magic(self.pid), from, path, follow)
    }

    /// The directory that a path counts from.
    fn base(&mut self, at: Option<usize>, path: &[u8]) -> Result<Ino, Errno> {
        let cwd = self.process().cwd;
        match at {
            Some(index) if path.first() != Some(&b'/') && !is_at_cwd(self.word(index)) => {
                self.file(index)?.inode().ok_or(Errno::ENOTDIR)
            }
            _ => Ok(cwd),
        }
    }

    /// The absolute path that a path means, links not followed.
    pub(crate) fn absolute(&mut self, at: Option<usize>, path: &[u8]) -> Vec<u8> {
        let base = match self.base(at, path) {
            Ok(ino) => self.k.tree.path_of(ino),
            Err(_) => Vec::new(),
        };
        walk::absolute(&base, path)
    }

    pub(crate) fn descriptor(&mut self, index: usize) -> Result<Descriptor, Errno> {
        let fd = self.word(index);
        self.process().files.get(fd)
    }

    pub(crate) fn file_id(&mut self, index: usize) -> Result<FileId, Errno> {
        Ok(self.descriptor(index)?.file)
    }

    /// The open file of the descriptor in the N-th word.
    pub(crate) fn file(&mut self, index: usize) -> Result<&mut OpenFile, Errno> {
        let id = self.file_id(index)?;
        self.k.open.get_mut(id).ok_or(Errno::EBADF)
    }

    /// A typed event that follows the call.
    pub(crate) fn tell(&mut self, what: What) {
        let task = self.k.event_task(self.pid, self.tid);
        self.k.later.push((task, what));
    }

    /// Gives up: what is stored would be more than the job allows.
    pub(crate) fn stored<T>(&mut self, result: Result<T, StoreError>) -> Result<T, Fail> {
        result.map_err(|error| match error {
            StoreError::Errno(errno) => Fail::Errno(errno),
            StoreError::Limit => {
                let limit = self.k.limits.file_bytes;
                self.k.limit("file-bytes", limit);
                Fail::End
            }
        })
    }

    /// The same for memory.
    pub(crate) fn mapped<T>(&mut self, result: Result<T, MapError>) -> Result<T, Fail> {
        result.map_err(|error| match error {
            MapError::Errno(errno) => Fail::Errno(errno),
            MapError::Limit => {
                let limit = self.k.limits.memory;
                self.k.limit("memory", limit);
                Fail::End
            }
            MapError::Machine(error) => {
                self.k.failure = Some(error);
                Fail::End
            }
        })
    }

    /// Works on the address space and its machine at once.
    pub(crate) fn with_space<T>(
        &mut self,
        work: impl FnOnce(&mut AddressSpace, &mut dyn Machine, u64) -> Result<T, MapError>,
    ) -> Result<T, Fail> {
        let room = self.k.memory_room();
        let id = self.task().space;
        let result = match self.k.spaces.get_mut(&id) {
            Some(space) => work(space, &mut *self.machine, room),
            None => Err(MapError::Errno(Errno::ESRCH)),
        };
        self.mapped(result)
    }

    /// Sets the thread pointer by the architecture's means.
    pub(crate) fn set_thread_pointer(&mut self, value: u64) {
        self.machine.set_thread_pointer(value);
    }

    /// Redirects to the handler of another name: for calls that carry another call's number.
    pub(crate) fn become_call(&mut self, name: &str, words: [u64; 8]) -> Answer {
        let row = crate::table::table().by_name(name).ok_or(Errno::ENOSYS)?;
        self.pending.row = row;
        self.pending.words = words;
        self.pending.args = self.known_args();
        match (&row.level, row.handler) {
            (Level::Refused(errno, _), _) => Err(Fail::Errno(*errno)),
            (_, Some(handler)) => handler(self),
            _ => Err(Fail::Errno(Errno::ENOSYS)),
        }
    }

    /// The call of i386 `socketcall`.
    pub(crate) fn socket_call(&mut self) -> Answer {
        let index = (self.word(0) as usize).checked_sub(1).ok_or(Errno::EINVAL)?;
        let name = quirks::SOCKETCALLS.get(index).ok_or(Errno::EINVAL)?;
        let block = self.word(1);
        let mut words = [0; 8];
        let count = crate::table::table()
            .by_name(name)
            .map_or(0, |row| row.params.len());
        for (place, word) in words.iter_mut().take(count).enumerate() {
            *word = self.get_word(block.wrapping_add(place as u64 * self.abi().word()))?;
        }
        self.become_call(name, words)
    }
}

/// Most bytes that one call moves.
pub(crate) const MAX_TRANSFER: u64 = 64 << 20;

/// Names to rows, for tests and redirections.
pub(crate) type Names = HashMap<&'static str, usize>;

impl Row {
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
