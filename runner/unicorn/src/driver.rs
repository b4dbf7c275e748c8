//! Runs a Linux job: the kernel decides, this moves the machines.
//!
//! In: a [`LinuxJob`] with its blobs. Out: events and outputs over the cell's connection, and the result. System calls
//! are handled inside Unicorn's hook, so that most cost about a microsecond; the emulator stops and starts again only
//! when the kernel says so, when many events wait to be sent, or now and then to hear the runner.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use hotcell_cells::cell_side::{CellError, Connection};
use hotcell_kernel::{
    Bytes, Core, Finished, Kernel,
    machine::{Clock, Flow, Machine, MachineError, SpaceId, Step, Trap},
};
use hotcell_schema::{
    arch::SyscallTrap,
    job::{Blob, JobResult, LinuxJob, LinuxResult},
    outcome::{FaultKind, Outcome},
};
use unicorn_engine::{Arch, RegisterS390X, RegisterX86, TranslationBlock, Unicorn, X86Insn};

use crate::{
    clocks_unsafe::{self, Source},
    context::{Area, Beginning, Run},
    machine::{Ended, Guest, Stop, UnicornMachine, failed},
    nudge_unsafe,
    operate::{Next, Operator, Resume, Stopped, busy},
    pool::Pool,
    quirks::{Privilege, Quirk},
    shape::Shape,
    sources::Sources,
    traps,
};

/// Events that may wait before they are sent.
const EVENTS_WAITING: usize = 1024;
/// System calls between two looks at what the runner says.
const CALLS_BETWEEN_LOOKS: u32 = 4096;

/// What hooks and driver share.
pub(crate) struct Shared {
    kernel: RefCell<Kernel>,
    operator: Rc<Operator>,
    /// Whether the kernel wants to hear of every block.
    coverage: bool,
    /// Where calls of libraries are told: the range in which none can begin, of the task that runs.
    quiet: Cell<(u64, u64)>,
    /// Whether the running step counts blocks.
    counting: Cell<bool>,
    calls: Cell<u32>,
    /// The machine that runs now: what reads a clock must be able to stop it.
    running: RefCell<Option<UnicornMachine<'static>>>,
}

/// What a job is, as long as it runs.
struct Task<'a> {
    job: &'a LinuxJob,
    find: &'a dyn Fn(Blob) -> Option<Bytes>,
    shared: &'a Shared,
}

impl Resume for Task<'_> {
    fn save(&self) -> Result<(Run, u64), MachineError> {
        let shared = self.shared;
        let kernel = shared.kernel.try_borrow().map_err(|_| busy("the kernel"))?;
        let state = kernel.save().map_err(|error| MachineError(error.to_string()))?;
        let counts = &shared.operator.counts;
        let mut run = Run::new(state);
        run.counting = shared.counting.get();
        run.blocks = counts.blocks.get();
        run.instructions = counts.instructions.get();
        run.budget = counts.budget.get();
        Ok((run, kernel.events()))
    }

    fn become_run(&self, pool: &mut Pool, run: &Run) -> Result<(), Stopped> {
        let shared = self.shared;
        let kernel = Kernel::restore(self.job, self.find, shared.operator.sink(), pool, &run.state)
            .map_err(|error| CellError::Job(error.to_string()))?;
        *shared.kernel.try_borrow_mut().map_err(|_| busy("the kernel"))? = kernel;
        shared.counting.set(run.counting);
        let counts = &shared.operator.counts;
        counts.blocks.set(run.blocks);
        counts.instructions.set(run.instructions);
        counts.budget.set(run.budget);
        Ok(())
    }

    fn cores(&self, pool: &mut Pool) -> Result<Vec<Core>, MachineError> {
        // As long as the kernel is held, no clock that the C library reads moves on.
        let kernel = self.shared.kernel.try_borrow().map_err(|_| busy("the kernel"))?;
        kernel.cores(pool)
    }

    fn finish(&self) -> Result<(), MachineError> {
        let mut kernel = self
            .shared
            .kernel
            .try_borrow_mut()
            .map_err(|_| busy("the kernel"))?;
        self.shared.tell(&mut kernel);
        kernel.out_of_wall_time();
        Ok(())
    }

    fn memory(&self) -> u64 {
        self.job.limits.memory
    }
}

impl Shared {
    /// Runs a machine until the kernel must be asked, or the run is another.
    fn run(&self, task: &Task<'_>, pool: &mut Pool, space: SpaceId) -> Result<Next, Stopped> {
        let mut machine = pool.machine(space)?;
        // Hooks hold this structure: a handle left in it would keep the instance alive for ever.
        self.running.replace(Some(machine.clone()));
        // Another task, or other mappings. What only stops between two blocks changes neither.
        self.quiet.take();
        let result = self.run_on(task, pool, space, &mut machine);
        self.running.replace(None);
        result
    }

    fn run_on(
        &self,
        task: &Task<'_>,
        pool: &mut Pool,
        space: SpaceId,
        machine: &mut UnicornMachine<'static>,
    ) -> Result<Next, Stopped> {
        loop {
            self.operator.attend(machine)?;
            self.report_first(machine);
            match machine.run() {
                Ended::Asked | Ended::Budget => return Ok(Next::GoOn),
                Ended::Break => {
                    self.operator.check()?;
                    let next = self.operator.between(task, pool, Some(space))?;
                    if next != Next::GoOn {
                        return Ok(next);
                    }
                }
                ended @ (Ended::Trap(_) | Ended::Halted) => {
                    let trap = match ended {
                        Ended::Trap(trap) => trap,
                        _ => Trap {
                            kind: FaultKind::Exception,
                            address: None,
                        },
                    };
                    let mut kernel = self.kernel.try_borrow_mut().map_err(|_| busy("the kernel"))?;
                    self.tell(&mut kernel);
                    if kernel.trap(machine, trap) == Flow::Stop {
                        return Ok(Next::GoOn);
                    }
                }
            }
        }
    }

    /// Tells the kernel what ran, where it wants to know.
    pub(crate) fn tell(&self, kernel: &mut Kernel) {
        if self.counting.get() {
            let counts = &self.operator.counts;
            kernel.counted(counts.blocks.take(), counts.instructions.take());
        }
    }

    /// The guest makes a call; `compat`: in its second way.
    fn syscall(&self, uc: &mut Unicorn<'_, Guest>, compat: bool) {
        let _held = nudge_unsafe::held();
        let shape = Rc::clone(&uc.get_data().shape);
        let svc = shape.quirks.contains(&Quirk::S390xSvc);
        let at = uc.reg_read(shape.pc).unwrap_or(0);
        let after = match compat {
            true => at,
            false => after_call(uc),
        };
        uc.get_data_mut().after = Some(after);
        if shape.syscall == SyscallTrap::Instruction && !compat {
            // SYSCALL keeps where it came from (Intel SDM volume 2B).
            let flags = uc.reg_read(RegisterX86::RFLAGS).unwrap_or(0);
            let _ = uc.reg_write(RegisterX86::RCX, after);
            let _ = uc.reg_write(RegisterX86::R11, flags | 2);
        }
        let lent = if svc { lend_number(uc, at) } else { None };
        uc.get_data_mut().written.get_mut().guest_ran();
        self.quiet.take();
        let flow = match self.kernel.try_borrow_mut() {
            Ok(mut kernel) => {
                self.tell(&mut kernel);
                let mut machine = UnicornMachine::of(uc);
                match compat {
                    true => kernel.compat_syscall(&mut machine),
                    false => kernel.syscall(&mut machine),
                }
            }
            Err(_) => Flow::Stop,
        };
        if let Some((number, kept)) = lent
            && uc.reg_read(RegisterS390X::R1 as i32) == Ok(number)
        {
            let _ = uc.reg_write(RegisterS390X::R1 as i32, kept);
        }
        let calls = self.calls.get().wrapping_add(1);
        self.calls.set(calls);
        let full = self
            .operator
            .events
            .try_borrow()
            .is_ok_and(|events| events.len() >= EVENTS_WAITING);
        let why = match flow {
            Flow::Stop => Some(Stop::Asked),
            Flow::Continue if full || nudge_unsafe::asked() || calls.is_multiple_of(CALLS_BETWEEN_LOOKS) => {
                Some(Stop::Break)
            }
            // The program counter stands at the instruction; only a new start moves it past.
            Flow::Continue if svc && uc.get_data().stop.is_none() => Some(Stop::Jump),
            Flow::Continue => None,
        };
        let after = uc.get_data_mut().after.take();
        if let Some(why) = why {
            uc.get_data_mut().resume = after;
            UnicornMachine::of(uc).stop(why);
        }
    }

    /// A block was translated and is about to run for the first time.
    pub(crate) fn block(&self, uc: &mut Unicorn<'_, Guest>, address: u64, size: u64) {
        uc.get_data_mut().lengths.forget(address);
        if self.coverage
            && let Ok(mut kernel) = self.kernel.try_borrow_mut()
        {
            kernel.translated(address, size);
        }
        if !uc.get_data().written.borrow().asks(address, size) {
            return;
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if uc.mem_read(address, &mut bytes).is_err() || !uc.get_data_mut().is_first(address, &bytes) {
            return;
        }
        if let Ok(mut kernel) = self.kernel.try_borrow_mut() {
            self.tell(&mut kernel);
            let kept = kernel.written_then_executed(&UnicornMachine::of(uc), address, size);
            let written = uc.get_data_mut().written.get_mut();
            for (start, bytes) in kept {
                written.replaced(start, &bytes);
            }
        }
    }

    /// A block begins, where calls of libraries are told.
    fn begins(&self, uc: &mut Unicorn<'_, Guest>, at: u64) {
        let (start, end) = self.quiet.get();
        if start <= at && at < end {
            return;
        }
        if let Ok(mut kernel) = self.kernel.try_borrow_mut() {
            self.tell(&mut kernel);
            self.quiet.set(kernel.entered(&mut UnicornMachine::of(uc), at));
        }
    }

    /// The first block of a machine, where it may be told of: Unicorn does not report what an instance runs first.
    fn report_first(&self, machine: &mut UnicornMachine<'static>) {
        if !std::mem::take(&mut machine.uc.get_data_mut().unreported) {
            return;
        }
        let at = machine.program_counter();
        if !self.coverage && !machine.uc.get_data().written.borrow().asks(at, 1) {
            return;
        }
        let mut block = TranslationBlock {
            pc: 0,
            icount: 0,
            size: 0,
        };
        if machine.uc.ctl_request_cache(at, Some(&mut block)).is_ok() {
            self.block(&mut machine.uc, at, u64::from(block.size));
        }
    }

    fn interrupt(&self, uc: &mut Unicorn<'_, Guest>, number: u32) {
        let shape = &uc.get_data().shape;
        if shape.syscall == SyscallTrap::Interrupt(number) {
            return self.syscall(uc, false);
        }
        if shape.compat == Some(number) {
            return self.syscall(uc, true);
        }
        let _held = nudge_unsafe::held();
        let trap = trap_of(uc, number);
        UnicornMachine::of(uc).stop(Stop::Trap(trap));
    }
}

impl Source for Shared {
    fn read(&self, clock: Clock) -> u64 {
        // While the kernel itself works, no guest instruction runs: what reads a clock then is a register access
        // inside the C library, which nothing of the guest sees.
        let (value, over) = match self.kernel.try_borrow_mut() {
            Ok(mut kernel) => {
                self.tell(&mut kernel);
                (kernel.clock(clock), kernel.is_over())
            }
            Err(_) => return 0,
        };
        // A program that waits in a loop of such reads makes no system call that would end it.
        if over
            && let Ok(mut running) = self.running.try_borrow_mut()
            && let Some(machine) = running.as_mut()
            && machine.uc.get_data().stop.is_none()
        {
            machine.stop(Stop::Asked);
        }
        value
    }

    fn identify(&self, leaf: u32, index: u32, library: &dyn Fn(u32, u32) -> [u32; 4]) -> [u32; 4] {
        match self.kernel.try_borrow_mut() {
            Ok(mut kernel) => kernel.identify(leaf, index, library),
            Err(_) => library(leaf, index),
        }
    }
}

/// In the hook of another exception: what it means. The program counter is put back on the instruction.
fn trap_of(uc: &mut Unicorn<'_, Guest>, number: u32) -> Trap {
    let shape = Rc::clone(&uc.get_data().shape);
    let at = uc.reg_read(shape.pc).unwrap_or(0);
    let mut before = [0; 2];
    let raised = match uc.mem_read(at.wrapping_sub(2), &mut before) {
        Ok(()) => traps::raised(shape.arch, number, before, is_stepped(uc, shape.arch)),
        Err(_) => None,
    };
    let (kind, behind) = raised.unwrap_or_else(|| {
        (
            traps::from_interrupt(shape.arch, number),
            traps::overshoot(shape.arch),
        )
    });
    uc.get_data_mut().resume = Some(at.wrapping_sub(behind));
    Trap { kind, address: None }
}

/// x86: whether the trap flag is set.
fn is_stepped(uc: &Unicorn<'_, Guest>, arch: Arch) -> bool {
    const TRAP: u64 = 1 << 8;
    arch == Arch::X86
        && uc
            .reg_read(RegisterX86::EFLAGS)
            .is_ok_and(|flags| flags & TRAP != 0)
}

/// In the hook of an instruction for system calls that this architecture's Linux programs do not make.
fn refuse(uc: &mut Unicorn<'_, Guest>) {
    let at = uc.reg_read(uc.get_data().shape.pc).unwrap_or(0);
    uc.get_data_mut().resume = Some(at);
    UnicornMachine::of(uc).stop(Stop::Trap(Trap {
        kind: FaultKind::IllegalInstruction,
        address: None,
    }));
}

/// In the hook of a system call: the address behind the instruction.
fn after_call(uc: &Unicorn<'_, Guest>) -> u64 {
    let shape = &uc.get_data().shape;
    let length = match shape.syscall {
        SyscallTrap::Instruction => 2,
        SyscallTrap::Interrupt(_) if shape.quirks.contains(&Quirk::S390xSvc) => 2,
        SyscallTrap::Interrupt(_) => 0,
    };
    uc.reg_read(shape.pc).unwrap_or(0).wrapping_add(length)
}

/// s390x: `svc n` with n above zero names the call itself. The kernel looks into r1, so it is put there for the
/// time of the call.
fn lend_number(uc: &mut Unicorn<'_, Guest>, at: u64) -> Option<(u64, u64)> {
    let mut code = [0u8; 2];
    uc.mem_read(at, &mut code).ok()?;
    let number = u64::from(code[1]);
    if number == 0 {
        return None;
    }
    let kept = uc.reg_read(RegisterS390X::R1 as i32).ok()?;
    uc.reg_write(RegisterS390X::R1 as i32, number).ok()?;
    Some((number, kept))
}

/// A new machine with its hooks.
fn make(
    shape: &Rc<Shape>,
    shared: &Rc<Shared>,
    sources: &Rc<Sources>,
    library_calls: bool,
) -> Result<UnicornMachine<'static>, MachineError> {
    let mut machine = UnicornMachine::new(shape, Rc::clone(&shared.operator.counts), Privilege::User)?;
    machine.uc.get_data_mut().sources = Rc::clone(sources);
    machine.uc.get_data_mut().unreported = shared.coverage;
    let uc = &mut machine.uc;
    if shape.syscall == SyscallTrap::Instruction {
        let shared = Rc::clone(shared);
        uc.add_insn_sys_hook(X86Insn::SYSCALL, 1, 0, move |uc| shared.syscall(uc, false))
            .map_err(failed("hooking system calls"))?;
    }
    if shape.arch == Arch::X86 {
        // Unhooked, the C library passes over these two. A real processor refuses `syscall` in 32-bit code
        // (Intel SDM volume 2B); Linux programs of 64 bits do not use `sysenter`, those of 32 only in the vDSO.
        for (instruction, own) in [
            (X86Insn::SYSCALL, shape.syscall == SyscallTrap::Instruction),
            (X86Insn::SYSENTER, false),
        ] {
            if !own {
                uc.add_insn_sys_hook(instruction, 1, 0, refuse)
                    .map_err(failed("hooking foreign system calls"))?;
            }
        }
    }
    let theirs = Rc::clone(shared);
    uc.add_intr_hook(move |uc, number| theirs.interrupt(uc, number))
        .map_err(failed("hooking exceptions"))?;
    let theirs = Rc::clone(shared);
    uc.add_edge_gen_hook(1, 0, move |uc, block, _| {
        theirs.block(uc, block.pc, u64::from(block.size));
    })
    .map_err(failed("hooking new blocks"))?;
    if library_calls {
        let shared = Rc::clone(shared);
        uc.get_data_mut().begins = Some(Rc::new(move |uc, at| shared.begins(uc, at)));
        machine.hook_blocks()?;
    }
    Ok(machine)
}

/// Runs the job of a connection to its end.
pub(crate) fn run(connection: &mut Connection, job: &LinuxJob) -> Result<JobResult, CellError> {
    nudge_unsafe::listen().map_err(|error| CellError::Job(format!("hearing the runner: {error}")))?;
    let mut blobs: BTreeMap<u32, Bytes> = BTreeMap::new();
    let mut sources = Sources::default();
    for blob in job.blobs() {
        let bytes = Bytes::of(connection.blob(blob)?);
        sources.add(blob.index, &bytes, || connection.blob_file(blob))?;
        blobs.insert(blob.index, bytes);
    }
    let find = |blob: Blob| blobs.get(&blob.index).cloned();
    let beginning = Beginning::of(connection)?;
    let area = connection.area()?.map(|(file, length)| Area::new(file, length));
    let operator = Operator::new(Box::new(connection.clone()), area);
    let finished = match execute(operator, job, &find, sources, beginning)? {
        Ok(finished) => finished,
        Err(reason) => return Ok(unsupported(job, reason)),
    };
    connection.send_output("pcap", "", &finished.capture)?;
    connection.send_output("stdout", "", &finished.stdout)?;
    connection.send_output("stderr", "", &finished.stderr)?;
    connection.send_output("strings", "", &finished.strings)?;
    for ((port, digest), content) in &finished.outputs.0 {
        connection.send_output(port, &digest.to_string(), content)?;
    }
    Ok(JobResult::Linux(finished.result))
}

/// Runs a job to its end. The inner error says why this engine cannot begin it.
pub(crate) fn execute(
    operator: Operator,
    job: &LinuxJob,
    find: &dyn Fn(Blob) -> Option<Bytes>,
    sources: Sources,
    beginning: Beginning,
) -> Result<Result<Finished, String>, CellError> {
    let shape = match Shape::new(&job.arch) {
        Ok(shape) => Rc::new(shape),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let operator = Rc::new(operator);
    let sink = operator.sink();
    let kernel = match Kernel::new(job, find, sink) {
        Ok(kernel) => kernel,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let shared = Rc::new(Shared {
        coverage: job.watch.coverage,
        quiet: Cell::default(),
        kernel: RefCell::new(kernel),
        operator: Rc::clone(&operator),
        counting: Cell::new(false),
        calls: Cell::new(0),
        running: RefCell::new(None),
    });
    {
        let theirs = Rc::clone(&shared);
        let sources = Rc::new(sources);
        let library_calls = job.watch.library_calls;
        let mut pool = Pool::new(move || make(&shape, &theirs, &sources, library_calls));
        let _clocks = clocks_unsafe::activate(Rc::clone(&shared) as Rc<dyn Source>);
        let task = Task {
            job,
            find,
            shared: &shared,
        };
        drive(&task, &mut pool, beginning).map_err(Stopped::into_cell_error)?;
    }
    let shared =
        Rc::into_inner(shared).ok_or_else(|| CellError::Job("a machine outlived its run".to_owned()))?;
    let finished = shared.kernel.into_inner().finish();
    operator.send_events()?;
    Ok(Ok(finished))
}

/// The result of a job that this engine cannot begin.
fn unsupported(job: &LinuxJob, reason: String) -> JobResult {
    JobResult::Linux(LinuxResult::new(Outcome::Unsupported(reason), &job.arch.name))
}

fn drive(task: &Task<'_>, pool: &mut Pool, beginning: Beginning) -> Result<(), Stopped> {
    let shared = task.shared;
    let operator = &shared.operator;
    let mut running = match beginning {
        Beginning::Program => None,
        Beginning::Context(file, length) => {
            let run = Run::read(pool, &file, 0, length, task.job.limits.memory)?;
            operator.take_over(task, pool, &run)?
        }
    };
    loop {
        // Also where a run goes on: a pause may wait for it.
        if let Next::Elsewhere(elsewhere) = operator.between(task, pool, running)? {
            running = elsewhere;
        }
        let space = match running.take() {
            // In the middle of a step.
            Some(space) => space,
            None => {
                let step = {
                    let mut kernel = shared.kernel.try_borrow_mut().map_err(|_| busy("the kernel"))?;
                    shared.tell(&mut kernel);
                    kernel.next(pool)?
                };
                let Step::Run { space, blocks } = step else {
                    return Ok(());
                };
                shared.counting.set(blocks.is_some());
                if blocks.is_some() {
                    pool.machine(space)?.count_blocks()?;
                }
                // An instance that counts keeps its hook; without a budget it must not stop.
                operator.counts.budget.set(blocks.unwrap_or(u64::MAX));
                if pool.last.replace(space) != Some(space) {
                    pool.machine(space)?.drop_shared_translations();
                }
                space
            }
        };
        if let Next::Elsewhere(space) = shared.run(task, pool, space)? {
            running = space;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! The path of a system call without a kernel behind it.

    use super::*;

    /// Makes a machine stop at every system call, behind the instruction, as [`Shared::syscall`] does on `Flow::Stop`.
    pub(crate) fn stop_at_calls(machine: &mut UnicornMachine<'static>) {
        let shape = Rc::clone(&machine.uc.get_data().shape);
        let stop = |uc: &mut Unicorn<'_, Guest>| {
            let after = after_call(uc);
            uc.get_data_mut().resume = Some(after);
            UnicornMachine::of(uc).stop(Stop::Asked);
        };
        if shape.syscall == SyscallTrap::Instruction {
            machine
                .uc
                .add_insn_sys_hook(X86Insn::SYSCALL, 1, 0, move |uc| stop(uc))
                .expect("hooked");
        }
        let number = shape.syscall;
        machine
            .uc
            .add_intr_hook(move |uc, seen| match number {
                SyscallTrap::Interrupt(wanted) if wanted == seen => stop(uc),
                _ => UnicornMachine::of(uc).stop(Stop::Trap(trap_of(uc, seen))),
            })
            .expect("hooked");
    }
}
