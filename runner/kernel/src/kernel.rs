//! The kernel's door: what the driver calls, and the scheduler behind [`Kernel::next`].

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::{self, Event, Process as ProcessEvent, ProcessOp, What};
use hotcell_schema::guest::text;
use hotcell_schema::job::{Blob, GuestLimits, LeftFile, LinuxJob, LinuxResult, UnsupportedCall, Watch};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::persona::Persona;

use crate::abi::{Abi, Registers};
use crate::bytes::Bytes;
use crate::chance::Chance;
use crate::deferred::Deferred;
use crate::exec::Image;
use crate::fs::open::OpenFiles;
use crate::fs::tree::{Ino, Tree};
use crate::fs::{root, sysroot};
use crate::library::Library;
use crate::load::elf::ElfError;
use crate::machine::{Clock, Flow, Machine, MachineError, Machines, SpaceId, Step};
use crate::made::{Made, Outputs};
use crate::net::Sockets;
use crate::net::outside::{Outside, World};
use crate::processor::{Probes, Processor};
use crate::space::AddressSpace;
use crate::task::{Process, State, Task};
use crate::time::{self, Time, Used};

/// Takes events as they happen, in order.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: Event);
}

impl<F: FnMut(Event)> EventSink for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}

/// The program cannot be run. The job's outcome is then `Outcome::Unsupported(error.to_string())`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A blob of the job was not handed over.
    #[error("blob {0} of the job is missing")]
    MissingBlob(u32),
    /// The program is not an ELF file that this architecture runs.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It is a script, and what its first line names cannot be run: path and error.
    #[error("it is a script, and its interpreter {0} cannot be run: {1}")]
    Interpreter(String, &'static str),
    /// Memory is to be dumped at what is no system call.
    #[error("`dump` names `{0}`, which is no system call of Linux: `hotcell syscalls` lists them")]
    Dump(String),
    /// A guest file or a file of the persona cannot be placed.
    #[error("cannot place {0}")]
    File(String),
}

/// All that is left when a run is over.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub result: LinuxResult,
    /// What was written to standard output.
    pub stdout: Vec<u8>,
    /// What was written to standard error.
    pub stderr: Vec<u8>,
    /// What went to the simulated internet and came from it, as a pcap; empty: nothing.
    pub capture: Vec<u8>,
    /// Texts that the guest gave to system calls, a line each.
    pub strings: Vec<u8>,
    /// Content of the files that the result names.
    pub outputs: Outputs,
}

/// Blocks that a task runs before another has its turn.
const SLICE: u64 = 20_000;
/// Number of the first process.
pub(crate) const FIRST_PID: u32 = 1000;

/// One emulated Linux with all its processes.
pub struct Kernel {
    pub(crate) sink: Box<dyn EventSink>,
    pub(crate) sequence: u64,
    /// Bytes of closed files that were digested.
    pub(crate) digested: u64,
    /// Bytes of the events sent, as [`weight`] has it.
    pub(crate) event_bytes: u64,
    pub(crate) profile: ArchProfile,
    pub(crate) abi: Abi,
    /// That of calls made in the second way, where there is one.
    pub(crate) compat: Option<Abi>,
    pub(crate) registers: Option<Registers>,
    pub(crate) persona: Persona,
    pub(crate) limits: GuestLimits,
    /// What is written down beside events.
    pub(crate) watch: Watch,
    pub(crate) made: Made,
    /// Programs whose calls of libraries are told.
    pub(crate) libraries: BTreeMap<SpaceId, Library>,
    pub(crate) time: Time,
    pub(crate) chance: Chance,
    pub(crate) tree: Tree,
    pub(crate) open: OpenFiles,
    pub(crate) sockets: Sockets,
    /// The simulated internet, as it was declared; absent: there is none.
    pub(crate) world: Option<World>,
    pub(crate) outside: Outside,
    pub(crate) spaces: BTreeMap<SpaceId, AddressSpace>,
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// The task that runs, or ran last.
    pub(crate) current: u32,
    /// Blocks left of its turn.
    pub(crate) slice: u64,
    pub(crate) next_pid: u32,
    pub(crate) next_space: u32,
    /// Counts what may let a waiting call go on.
    pub(crate) wake: u64,
    /// What a stopped task wants done with the machines.
    pub(crate) deferred: BTreeMap<u32, Deferred>,
    /// Spaces whose last process has gone.
    pub(crate) doomed: BTreeSet<SpaceId>,
    /// Robust futexes of tasks that have ended.
    pub(crate) robust_left: Vec<crate::sys::robust::Left>,
    /// What the call that is being made wrote to files that others have in memory: file, offset, length.
    pub(crate) through: Vec<(Ino, u64, u64)>,
    /// Typed events of the call that is being made: told after it.
    pub(crate) later: Vec<(event::Task, What)>,
    pub(crate) stdin: Option<Bytes>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) syscalls: u64,
    pub(crate) instructions: u64,
    pub(crate) tasks_ever: u32,
    pub(crate) unsupported: BTreeMap<String, UnsupportedCall>,
    /// The program to start with; taken by the first `next`.
    pub(crate) boot: Option<Image>,
    pub(crate) first: u32,
    pub(crate) first_outcome: Option<Outcome>,
    /// Set when the run must end now.
    pub(crate) end: Option<Outcome>,
    /// The emulator failed inside a callback; told by the next `next`.
    pub(crate) failure: Option<MachineError>,
}

/// Times that waiting calls are tried again in a row before time passes.
const MAX_ROUNDS: u32 = 1_000;

impl Kernel {
    /// A kernel ready to run the job; `blobs` gives the bytes of a blob of the job. The program is parsed here; it is
    /// mapped by the first [`Kernel::next`].
    pub fn new(
        job: &LinuxJob,
        blobs: &dyn Fn(Blob) -> Option<Bytes>,
        sink: Box<dyn EventSink>,
    ) -> Result<Self, LoadError> {
        let blob = |blob: Blob| {
            let bytes = blobs(blob).ok_or(LoadError::MissingBlob(blob.index))?;
            Ok::<_, LoadError>(bytes.named(blob.index))
        };
        let known = |name: &str| name == Watch::END || crate::table::table().by_name(name).is_some();
        if let Some(name) = job.watch.dump.iter().find(|name| !known(name)) {
            return Err(LoadError::Dump(name.clone()));
        }
        let program = blob(job.program)?;
        let persona = &job.persona;
        let time = Time::new(
            persona.uptime_s,
            persona.epoch_s,
            job.limits.instructions.is_some(),
        );
        let abi = Abi::new(&job.arch);
        // The built-in files were there since boot.
        let mut tree = Tree::new(
            persona
                .epoch_s
                .saturating_sub(86_400)
                .saturating_mul(1_000_000_000),
            job.limits.file_bytes,
        );
        root::build(&mut tree, persona, &job.arch).map_err(LoadError::File)?;
        if let Some(sysroot) = &job.sysroot {
            let (index, content) = (blob(sysroot.index)?, blob(sysroot.content)?);
            sysroot::place(&mut tree, &index, &content).map_err(LoadError::File)?;
        }
        let sockets = Sockets::new(job.internet.is_some());
        root::plug_in(&mut tree, sockets.links()).map_err(LoadError::File)?;
        root::furnish(&mut tree, persona).map_err(LoadError::File)?;
        for file in &job.files {
            root::file(&mut tree, &file.path, blob(file.content)?, file.mode)
                .map_err(|errno| LoadError::File(format!("{}: {}", file.path, errno.name())))?;
        }
        root::file(&mut tree, &job.path, program, 0o755)
            .map_err(|errno| LoadError::File(format!("{}: {}", job.path, errno.name())))?;
        let cwd = job.cwd.as_deref().unwrap_or(&persona.cwd);
        root::directories(&mut tree, cwd, 0o755)
            .map_err(|errno| LoadError::File(format!("{cwd}: {}", errno.name())))?;
        tree.settle();
        tree.now = time.real();
        let stdin = job.stdin.map(blob).transpose()?;
        let world = match &job.internet {
            None => None,
            Some(internet) => Some(World::new(internet, blob)?.map_err(LoadError::File)?),
        };
        let mut kernel = Self {
            sink,
            sequence: 0,
            digested: 0,
            event_bytes: 0,
            profile: job.arch.clone(),
            abi,
            compat: Abi::compat(&job.arch),
            registers: None,
            persona: persona.clone(),
            limits: job.limits.clone(),
            watch: job.watch.clone(),
            made: Made::default(),
            libraries: BTreeMap::new(),
            time,
            chance: Chance::new(&job.seed),
            tree,
            open: OpenFiles::default(),
            sockets,
            world,
            outside: Outside::default(),
            spaces: BTreeMap::new(),
            processes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            current: FIRST_PID,
            slice: SLICE,
            next_pid: FIRST_PID,
            next_space: 1,
            wake: 0,
            deferred: BTreeMap::new(),
            doomed: BTreeSet::new(),
            robust_left: Vec::new(),
            through: Vec::new(),
            later: Vec::new(),
            stdin,
            stdout: Vec::new(),
            stderr: Vec::new(),
            syscalls: 0,
            instructions: 0,
            tasks_ever: 0,
            unsupported: BTreeMap::new(),
            boot: None,
            first: FIRST_PID,
            first_outcome: None,
            end: None,
            failure: None,
        };
        let env = job.env.as_ref().unwrap_or(&persona.env);
        let env = env
            .iter()
            .map(|(name, value)| format!("{name}={value}").into_bytes())
            .collect();
        let argv = job.argv.iter().map(|arg| arg.clone().into_bytes()).collect();
        let image = kernel.first_image(job.path.as_bytes(), argv, env)?;
        kernel.make_first(cwd, &image);
        kernel.boot = Some(image);
        Ok(kernel)
    }

    /// What to run next. An error is the emulator's failure and ends the run.
    pub fn next(&mut self, machines: &mut dyn Machines) -> Result<Step, MachineError> {
        if let Some(image) = self.boot.take() {
            self.boot(machines, image)?;
        }
        let mut rounds = 0;
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            self.do_deferred(machines)?;
            self.end_killed();
            self.drop_doomed(machines)?;
            if self.end.is_some() || self.tasks.is_empty() {
                let left: Vec<SpaceId> = self.spaces.keys().copied().collect();
                for id in &left {
                    self.put_back_all(*id, machines);
                }
                self.tell_later();
                self.bound_left();
                self.dump_ending(&left, machines)?;
                self.spaces.clear();
                left.into_iter().for_each(|id| machines.destroy(id));
                return Ok(Step::Finished);
            }
            self.fire_alarms();
            self.retry_waiting(machines)?;
            if self.end.is_some() || !self.deferred.is_empty() || self.failure.is_some() {
                continue;
            }
            let Some(tid) = self.choose() else {
                // Who was tried before another moved something is tried again first.
                if self.is_any_stale() && rounds < MAX_ROUNDS {
                    rounds += 1;
                    continue;
                }
                rounds = 0;
                self.wait_for_time();
                continue;
            };
            if self.deliver(tid, machines)? {
                continue;
            }
            return self.run(tid, machines);
        }
    }

    /// The running task made a system call. The program counter stands after the instruction; the result registers
    /// are written before this returns, or before the task runs again.
    pub fn syscall(&mut self, machine: &mut dyn Machine) -> Flow {
        self.make_call(machine, false)
    }

    /// The same in the architecture's second way (x86_64: `int $0x80`).
    pub fn compat_syscall(&mut self, machine: &mut dyn Machine) -> Flow {
        self.make_call(machine, true)
    }

    fn make_call(&mut self, machine: &mut dyn Machine, compat: bool) -> Flow {
        self.syscalls += 1;
        self.ran(Used {
            user: 0,
            system: time::SYSCALL,
        });
        if self.syscalls > self.limits.syscalls {
            self.limit("syscalls", self.limits.syscalls);
        }
        self.check_time();
        if self.end.is_some() {
            return Flow::Stop;
        }
        self.tree.now = self.time.real();
        self.system_call(machine, compat)
    }

    /// Answers an instruction that reads a clock or source of chance. Such an instruction takes time: ask
    /// [`Kernel::is_over`] afterwards, so that a loop of them ends with the time allowed.
    pub fn clock(&mut self, clock: Clock) -> u64 {
        self.ran(Used {
            user: time::CLOCK_READ,
            system: 0,
        });
        self.check_time();
        if clock != Clock::Random {
            self.probe(Probes::read);
        }
        match clock {
            Clock::Cycles => self.time.cycles(),
            Clock::Timer { hertz } => self.time.ticks(hertz),
            Clock::Random => self.chance.processor.number(),
        }
    }

    /// Tells of what the running program asks its processor, where that is worth it.
    fn probe(&mut self, ask: impl FnOnce(&mut Probes, u64) -> Option<ProcessOp>) {
        let pid = self.pid_of(self.current);
        let calls = self.syscalls;
        let told = self
            .processes
            .get_mut(&pid)
            .and_then(|process| ask(&mut process.probes, calls));
        if let Some(op) = told {
            let task = self.event_task(pid, self.current);
            self.emit(task, What::Process(event::Process::new(op)));
        }
    }

    /// Answers CPUID: EAX, EBX, ECX and EDX of a leaf. `library` is what the emulator's own model of a processor says of one.
    pub fn identify(&mut self, leaf: u32, index: u32, library: &dyn Fn(u32, u32) -> [u32; 4]) -> [u32; 4] {
        self.probe(|probes, calls| probes.identify(leaf, calls));
        Processor::of(&self.persona, &self.profile).leaf(leaf, index, library)
    }

    /// Blocks and instructions that ran since the last call of this, told before every `next`, `syscall`, `trap` and
    /// `clock` while the step's `blocks` is `Some`. Never called otherwise.
    pub fn counted(&mut self, blocks: u64, instructions: u64) {
        self.ran(Used {
            user: blocks.saturating_mul(time::BLOCK),
            system: 0,
        });
        self.slice = self.slice.saturating_sub(blocks);
        self.instructions = self.instructions.saturating_add(instructions);
        if let Some(limit) = self.limits.instructions
            && self.instructions >= limit
        {
            self.limit("instructions", limit);
        }
        self.check_time();
    }

    /// The running task ran for some time.
    fn ran(&mut self, used: Used) {
        self.time.advance(used.total());
        if let Some(task) = self.tasks.get_mut(&self.current) {
            task.used.add(used);
            if let Some(process) = self.processes.get_mut(&task.pid) {
                process.used.add(used);
            }
        }
    }

    /// What is left, once `next` said `Finished` (or earlier, when the host ends the run).
    pub fn finish(self) -> Finished {
        let mut outputs = Outputs::default();
        let mut files = Vec::<LeftFile>::new();
        // A file with many names is read once.
        let mut known = BTreeMap::new();
        for (path, ino) in self.left_within().0 {
            let Some((inode, bytes)) = self.tree.get(ino).zip(self.tree.bytes(ino)) else {
                continue;
            };
            let first = known.get(&ino).and_then(|at: &usize| files.get(*at)).cloned();
            known.entry(ino).or_insert(files.len());
            files.push(match first {
                Some(first) => LeftFile { path, ..first },
                None => outputs.add("files", path, inode.mode, bytes),
            });
        }
        let made = self.made.give(&mut outputs);
        let unfinished = || Outcome::Unsupported("the run was ended before the program ended".into());
        let result = LinuxResult {
            outcome: self.end.or(self.first_outcome).unwrap_or_else(unfinished),
            arch: self.profile.name,
            virtual_time: self.time.now,
            syscalls: self.syscalls,
            events: self.sequence,
            tasks: self.tasks_ever,
            unsupported: self.unsupported.into_values().collect(),
            files,
            left_out: 0,
            layers: made.layers,
            dumps: made.dumps,
            coverage: made.coverage,
            responses: Vec::new(),
        };
        Finished {
            result,
            stdout: self.stdout,
            stderr: self.stderr,
            capture: self.outside.capture.file().to_vec(),
            strings: made.strings,
            outputs,
        }
    }

    // Scheduling.

    fn boot(&mut self, machines: &mut dyn Machines, image: Image) -> Result<(), MachineError> {
        let id = SpaceId(self.next_space);
        self.next_space += 1;
        let pid = self.first;
        let argv = image.argv.iter().map(|arg| text(arg)).collect();
        let path = Some(text(&image.asked));
        let task = self.event_task(pid, pid);
        self.emit(
            task,
            What::Process(ProcessEvent {
                path,
                argv,
                ..ProcessEvent::new(ProcessOp::Start)
            }),
        );
        self.load(machines, id, pid, image)
    }

    pub(crate) fn drop_doomed(&mut self, machines: &mut dyn Machines) -> Result<(), MachineError> {
        self.mark_left(machines);
        for id in std::mem::take(&mut self.doomed) {
            if !self.tasks.values().any(|task| task.space == id) {
                self.put_back_all(id, machines);
                self.dump_ending(&[id], machines)?;
                self.spaces.remove(&id);
                self.libraries.remove(&id);
                machines.destroy(id);
            }
        }
        Ok(())
    }

    /// Whether something has happened since the call of a waiting task was tried.
    fn is_any_stale(&self) -> bool {
        self.tasks.values().any(|task| {
            matches!(task.state, State::Waiting { tried_at, .. } if tried_at != self.wake) && !task.is_held()
        })
    }

    /// Tries again the calls of waiting tasks that may be able to go on.
    fn retry_waiting(&mut self, machines: &mut dyn Machines) -> Result<(), MachineError> {
        let waiting: Vec<u32> = self
            .tasks
            .values()
            .filter(|task| match task.state {
                State::Waiting { tried_at, deadline } => {
                    !task.is_held()
                        && (tried_at != self.wake
                            || deadline.is_some_and(|at| at <= self.time.now)
                            || self.ready(task.tid) != 0)
                }
                _ => false,
            })
            .map(|task| task.tid)
            .collect();
        for tid in waiting {
            self.load_registers(tid, machines)?;
            let Some(space) = self.tasks.get(&tid).map(|task| task.space) else {
                continue;
            };
            let Some(machine) = machines.get(space) else {
                continue;
            };
            self.tree.now = self.time.real();
            self.try_again(tid, machine);
        }
        Ok(())
    }

    /// The task to run: the last one until its turn is over, then the next in order.
    fn choose(&mut self) -> Option<u32> {
        let runnable = |task: &Task, kernel: &Self| {
            task.state == State::Runnable
                && !task.is_held()
                && kernel
                    .processes
                    .get(&task.pid)
                    .is_some_and(|process| !process.stopped)
        };
        let all: Vec<u32> = self
            .tasks
            .values()
            .filter(|task| runnable(task, self))
            .map(|task| task.tid)
            .collect();
        if all.len() > 1 {
            self.time.counting = true;
        }
        if all.contains(&self.current) && (self.slice > 0 || all.len() == 1) {
            if self.slice == 0 {
                self.slice = SLICE;
            }
            return Some(self.current);
        }
        let next = all
            .iter()
            .find(|tid| **tid > self.current)
            .or_else(|| all.first())
            .copied()?;
        self.slice = SLICE;
        Some(next)
    }

    /// Nothing can run: time passes until the next deadline.
    fn wait_for_time(&mut self) {
        let deadlines = self.tasks.values().filter_map(|task| match task.state {
            State::Waiting { deadline, .. } if !task.is_held() => deadline,
            _ => None,
        });
        let alarms = self.processes.values().filter_map(Process::next_timer);
        match deadlines.chain(alarms).min() {
            Some(at) => {
                // What is past was tried already: time goes on all the same.
                self.time.now = at.max(self.time.now.saturating_add(1));
                self.check_time();
            }
            // Nothing will ever happen again: the time allowed passes.
            None => {
                self.time.now = self.time.now.max(self.limits.virtual_time);
                self.limit("virtual-time", self.limits.virtual_time);
            }
        }
    }

    /// Makes the machine of the task's space hold the task's registers.
    pub(crate) fn load_registers(
        &mut self,
        tid: u32,
        machines: &mut dyn Machines,
    ) -> Result<(), MachineError> {
        let Some(id) = self.tasks.get(&tid).map(|task| task.space) else {
            return Ok(());
        };
        let (Some(space), Some(machine)) = (self.spaces.get_mut(&id), machines.get(id)) else {
            return Ok(());
        };
        if space.loaded == Some(tid) {
            return Ok(());
        }
        if let Some(other) = space.loaded.replace(tid)
            && let Some(other) = self.tasks.get_mut(&other)
        {
            other.context = Some(machine.save()?);
        }
        if let Some(task) = self.tasks.get_mut(&tid)
            && let Some(context) = task.context.take()
        {
            machine.restore(&context)?;
        }
        Ok(())
    }

    fn run(&mut self, tid: u32, machines: &mut dyn Machines) -> Result<Step, MachineError> {
        self.load_registers(tid, machines)?;
        self.current = tid;
        let space = self.tasks.get(&tid).map(|task| task.space).unwrap_or(SpaceId(0));
        let blocks = self.time.counting.then(|| self.slice.max(1));
        Ok(Step::Run { space, blocks })
    }

    pub(crate) fn pid_of(&self, tid: u32) -> u32 {
        self.tasks.get(&tid).map_or(tid, |task| task.pid)
    }

    pub(crate) fn event_task(&self, pid: u32, tid: u32) -> event::Task {
        let process = self.processes.get(&pid);
        event::Task {
            pid,
            tid,
            parent: process.map_or(0, |process| process.parent),
            image: process.map(|process| text(&process.image)).unwrap_or_default(),
        }
    }

    /// The address space of a task.
    pub(crate) fn task_space(&self, tid: u32) -> Option<&AddressSpace> {
        self.spaces.get(&self.tasks.get(&tid)?.space)
    }

    /// How many more bytes of memory the guest may have.
    pub(crate) fn memory_room(&self) -> u64 {
        let used = self
            .spaces
            .values()
            .map(AddressSpace::used)
            .fold(0u64, u64::saturating_add);
        self.limits.memory.saturating_sub(used)
    }
}
