//! Processes come and go: fork, exit, signals.

use hotcell_schema::digest::Digest;
use hotcell_schema::event::{File, FileOp, Process as ProcessEvent, ProcessOp, What};
use hotcell_schema::guest::text;
use std::collections::BTreeMap;

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::call::Fork;
use crate::exec::Image;
use crate::fs::open::{Closed, Descriptor, FileId, FileTable, OpenFile, Target};
use crate::fs::tree::Ino;
use crate::fs::watch::what;
use crate::kernel::Kernel;
use crate::load::stack::Placed;
use crate::machine::{MachineError, Machines, SpaceId};
use crate::signals::Arrived;
use crate::task::{Change, Pending, Process, State, Task};
use crate::time::Used;
use crate::trace;

pub(crate) const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;

/// Bytes of closed files that events tell the digests of; later events have none.
const MAX_DIGESTED: u64 = 4 << 30;

impl Process {
    pub(crate) fn new(pid: u32, parent: u32, cwd: Ino, uid: [u32; 3], gid: [u32; 3]) -> Self {
        Self {
            pid,
            parent,
            group: pid,
            session: pid,
            uid,
            gid,
            groups: vec![gid[0]],
            umask: 0o022,
            personality: 0,
            cwd,
            root: None,
            files: FileTable::default(),
            space: SpaceId(0),
            image: Vec::new(),
            image_ino: None,
            comm: Vec::new(),
            argv: Vec::new(),
            env: Vec::new(),
            placed: Placed::default(),
            actions: BTreeMap::new(),
            arrived: Arrived::default(),
            tasks: [pid].into(),
            ended: None,
            ending: None,
            first_gone: None,
            started: 0,
            used: Used::default(),
            intervals: Default::default(),
            timers: BTreeMap::new(),
            limits: BTreeMap::new(),
            released: false,
            executed: false,
            stopped: false,
            change: None,
            nice: 0,
            dumpable: 1,
            no_new_privileges: false,
            probes: Default::default(),
            gone: Vec::new(),
        }
    }

    /// Inodes that are there as long as it is.
    pub(crate) fn holds(&self) -> impl Iterator<Item = Ino> + use<> {
        let more = [self.root, self.image_ino];
        std::iter::once(self.cwd).chain(more.into_iter().flatten())
    }

    /// Takes over what an image says of itself.
    pub(crate) fn describe(&mut self, image: &Image) {
        self.image = image.file.path.clone();
        self.image_ino = Some(image.file.ino);
        let name = image
            .executed
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        self.comm = name.iter().copied().take(15).collect();
        self.argv = image.argv.clone();
        self.env = image.env.clone();
        self.probes = Default::default();
    }
}

impl Task {
    pub(crate) fn new(tid: u32, pid: u32, space: SpaceId) -> Self {
        Self {
            tid,
            pid,
            space,
            context: None,
            pending: None,
            state: State::Runnable,
            used: Used::default(),
            clear_tid: 0,
            mask: 0,
            arrived: Arrived::default(),
            former_mask: None,
            restart: None,
            interrupted: Vec::new(),
            alternate_stack: (0, 2, 0),
            robust_list: (0, 0),
            trace: None,
        }
    }
}

impl Kernel {
    /// What links of `/proc` mean for this process.
    /// Standard input, output and error of the first process.
    pub(crate) fn standard_files(&mut self, files: &mut FileTable) {
        let input = self.stdin.take().unwrap_or_default();
        let targets = [
            (Target::Input(input), 0, b"pipe:[3001]".to_vec()),
            (Target::Output { error: false }, 1, b"pipe:[3002]".to_vec()),
            (Target::Output { error: true }, 1, b"pipe:[3003]".to_vec()),
        ];
        for (fd, (target, flags, path)) in (0u32..).zip(targets) {
            let Ok(file) = self.open.add(OpenFile::new(target, flags, path)) else {
                return;
            };
            files.set(
                fd,
                Descriptor {
                    file,
                    close_on_exec: false,
                },
            );
        }
    }

    /// Drops a reference to an open file; tells of a written file that was closed.
    pub(crate) fn close_file(&mut self, pid: u32, id: FileId) {
        self.unlock_own(pid, id);
        let mut closing = vec![id];
        while let Some(id) = closing.pop() {
            if let Closed::Last(file) = self.open.close(id) {
                if let Some(seat) = &file.seat {
                    self.unlock_file(id, seat.ino);
                }
                self.closed(pid, file, &mut closing);
            }
        }
    }

    /// An open file has no reference any more. What only it referred to goes too.
    fn closed(&mut self, pid: u32, file: OpenFile, closing: &mut Vec<FileId>) {
        if file.target.is_pipe() || file.target.is_anonymous() {
            self.wake += 1;
        }
        if let Target::Socket(id) = file.target {
            // What was on its way to it has no other owner.
            closing.extend(self.sockets.close(id));
            self.pump();
        }
        if let (Some(bytes), Target::File(ino)) = (file.written, &file.target) {
            // A guest may close one large file for ever.
            let length = self.tree.bytes(*ino).map_or(0, <[u8]>::len) as u64;
            self.digested = self.digested.saturating_add(length);
            let digest = (self.digested <= MAX_DIGESTED)
                .then(|| self.tree.bytes(*ino).map(Digest::of))
                .flatten();
            let what = File {
                bytes: Some(bytes),
                digest,
                ..File::new(FileOp::Written, text(&file.path))
            };
            let task = self.event_task(pid, pid);
            self.later.push((task, What::File(what)));
        }
        if let Target::Inotify(id) = file.target {
            self.open.watches.close(id);
        }
        if let Some(seat) = file.seat.as_ref().filter(|_| file.flags & open::PATH == 0) {
            let happened = match file.flags & open::ACCESS {
                0 => what::CLOSE,
                _ => what::CLOSE_WRITTEN,
            };
            self.notice(happened, seat);
        }
        if let Some(ino) = file.inode() {
            self.tree.release(ino);
            self.notice_gone(ino);
        }
    }

    /// Closes what execve closes.
    pub(crate) fn close_on_exec(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let going: Vec<u32> = process
            .files
            .all()
            .filter(|(_, descriptor)| descriptor.close_on_exec)
            .map(|(fd, _)| fd)
            .collect();
        for fd in going {
            let gone = self
                .processes
                .get_mut(&pid)
                .and_then(|process| process.files.remove(u64::from(fd)));
            if let Some(descriptor) = gone {
                self.close_file(pid, descriptor.file);
            }
        }
    }

    /// Carries out fork, vfork and clone.
    pub(crate) fn do_fork(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        mut pending: Pending,
        fork: Fork,
    ) -> Result<(), MachineError> {
        // Children and traced tasks that nobody has waited for count too.
        let gone: usize = self.processes.values().map(|process| process.gone.len()).sum();
        let most = self.tasks.len().max(self.processes.len()).saturating_add(gone);
        if most as u64 >= u64::from(self.limits.tasks) {
            let limit = u64::from(self.limits.tasks);
            self.limit("processes", limit);
            return self.finish_deferred(machines, tid, pending, Err(Errno::EAGAIN));
        }
        self.load_registers(tid, machines)?;
        let pid = self.pid_of(tid);
        let child = self.next_pid;
        self.next_pid += 1;
        self.tasks_ever += 1;
        let Some(from) = self.tasks.get(&tid).map(|task| task.space) else {
            return Ok(());
        };
        let thread = fork.flags & CLONE_THREAD != 0;
        let missing = || MachineError("a machine is missing".into());
        let abi = self.abi.clone();
        let Some(registers) = self.registers.clone() else {
            return Ok(());
        };

        let machine = machines.get(from).ok_or_else(missing)?;
        let context = machine.save()?;
        let space = if thread {
            from
        } else {
            let id = SpaceId(self.next_space);
            self.next_space += 1;
            let Some(old) = self.spaces.get(&from) else {
                return Ok(());
            };
            if old.used() > self.memory_room() {
                let limit = self.limits.memory;
                self.limit("memory", limit);
                return Ok(());
            }
            let pages = old.copy(machine)?;
            let mut new = old.duplicate(child);
            new.loaded = Some(child);
            machines.create(id, Some(from))?;
            let machine = machines.get(id).ok_or_else(missing)?;
            pages.give(machine)?;
            self.spaces.insert(id, new);
            if let Some(library) = self.libraries.get(&from).cloned() {
                self.libraries.insert(id, library);
            }
            id
        };
        let machine = machines.get(space).ok_or_else(missing)?;
        if !thread {
            machine.restore(&context)?;
        }
        registers.answer(machine, &abi, Ok(0));
        if fork.stack != 0 {
            machine.set(registers.stack, abi.cut(fork.stack));
        }
        if fork.flags & CLONE_SETTLS != 0 {
            machine.set_thread_pointer(abi.cut(fork.thread_pointer));
        }
        let number = |value: u32| {
            if abi.big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let writable = |kernel: &Self, at: u64| {
            kernel
                .spaces
                .get(&from)
                .is_some_and(|space| space.allows(at, 4, true))
        };
        if fork.flags & CLONE_CHILD_SETTID != 0 && writable(self, fork.child_tid) {
            let _ = machine.write(fork.child_tid, &number(child));
        }
        let mut task = Task::new(child, if thread { pid } else { child }, space);
        if fork.flags & CLONE_CHILD_CLEARTID != 0 {
            task.clear_tid = fork.child_tid;
        }
        if let Some(parent) = self.tasks.get(&tid) {
            task.mask = parent.mask;
            if !thread {
                task.alternate_stack = parent.alternate_stack;
            }
        }
        if thread {
            task.context = Some(machine.save()?);
            machine.restore(&context)?;
        }
        self.tasks.insert(child, task);
        if thread {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.tasks.insert(child);
            }
        } else {
            self.duplicate_process(pid, child, space);
        }
        if fork.flags & CLONE_PARENT_SETTID != 0
            && writable(self, fork.parent_tid)
            && let Some(machine) = machines.get(from)
        {
            let _ = machine.write(fork.parent_tid, &number(child));
        }
        if fork.flags & CLONE_PIDFD != 0
            && let Some(fd) = self.child_descriptor(pid, child)
            && writable(self, fork.pidfd)
            && let Some(machine) = machines.get(from)
        {
            let _ = machine.write(fork.pidfd, &number(fd));
        }
        let event = self.event_task(pid, tid);
        let what = ProcessEvent {
            child: Some(child),
            ..ProcessEvent::new(ProcessOp::Fork)
        };
        if fork.flags & CLONE_VFORK != 0 {
            // The parent waits in the same call until the child has executed a program or ended.
            self.emit(event, What::Process(what));
            pending.progress = u64::from(child);
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.pending = Some(pending);
                task.state = State::Waiting {
                    tried_at: self.wake,
                    deadline: None,
                };
            }
            self.hold_for_fork(tid, child, trace::event::VFORK);
            return Ok(());
        }
        self.later.push((event, What::Process(what)));
        let event = if thread {
            trace::event::CLONE
        } else {
            trace::event::FORK
        };
        self.hold_for_fork(tid, child, event);
        self.finish_deferred(machines, tid, pending, Ok(u64::from(child)))
    }

    fn duplicate_process(&mut self, pid: u32, child: u32, space: SpaceId) {
        let Some(parent) = self.processes.get(&pid) else {
            return;
        };
        let mut process = Process::new(child, pid, parent.cwd, parent.uid, parent.gid);
        process.root = parent.root;
        process.group = parent.group;
        process.session = parent.session;
        process.groups.clone_from(&parent.groups);
        process.umask = parent.umask;
        process.personality = parent.personality;
        process.nice = parent.nice;
        process.files = parent.files.clone();
        process.space = space;
        process.image.clone_from(&parent.image);
        process.image_ino = parent.image_ino;
        process.comm.clone_from(&parent.comm);
        process.argv.clone_from(&parent.argv);
        process.env.clone_from(&parent.env);
        process.placed.clone_from(&parent.placed);
        process.actions.clone_from(&parent.actions);
        process.limits.clone_from(&parent.limits);
        process.dumpable = parent.dumpable;
        process.probes = parent.probes;
        process.no_new_privileges = parent.no_new_privileges;
        process.started = self.time.now;
        let owner = (process.uid[1], process.gid[1]);
        for (_, descriptor) in process.files.all() {
            self.open.share(descriptor.file);
        }
        for held in process.holds() {
            self.tree.hold(held);
        }
        self.processes.insert(child, process);
        let _ = crate::fs::root::add_process(&mut self.tree, child, owner);
    }

    /// A process stands still or goes on: its parent may wait for that, and gets a signal unless it does not want it.
    pub(crate) fn tell_parent(&mut self, pid: u32, change: Change) {
        const NO_CHILD_STOP: u64 = 1;
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.change = Some(change);
        let (how, signal) = match change {
            Change::Stopped(signal) => (code::STOPPED, signal),
            Change::Continued => (code::CONTINUED, Sig::CONT),
        };
        let status = signal.number(self.abi.family) as u32;
        let info = SignalInfo {
            code: how,
            told: Told::Child(pid, process.uid[0], status),
        };
        let parent = process.parent;
        let wanted = self
            .processes
            .get(&parent)
            .and_then(|parent| parent.actions.get(&Sig::CHLD))
            .is_none_or(|action| action.flags & NO_CHILD_STOP == 0);
        if wanted {
            self.post_told(parent, None, Sig::CHLD, info);
        }
        self.wake += 1;
    }
}
