//! The engine `unicorn/payload`: raw code, registers and memory in; registers, memory and a trace out.
//!
//! There is no kernel here: a system call, like any other exception, ends the run as a fault. Every executed
//! instruction is counted by a code hook, which also records the trace; raw code is small, so its cost is accepted.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use hotcell_cells::cell_side::{CellError, Connection};
use hotcell_kernel::{
    Bytes, Core,
    machine::{Machine, MachineError, Protection, SpaceId, Trap},
};
use hotcell_schema::{
    guest::{Address, Hex},
    job::{JobResult, MemoryIn, PayloadJob, PayloadResult},
    outcome::{Fault, FaultKind, Outcome},
};
use unicorn_engine::{Arch, X86Insn};

use self::trace::{MAX_INSTRUCTION, Trace};
use crate::{
    clocks_unsafe::{self, Source},
    context::{Area, Beginning, Run},
    machine::{Ended, UnicornMachine, failed},
    memory_unsafe::PAGE,
    nudge_unsafe,
    operate::{Operator, Resume, Stopped},
    pool::Pool,
    quirks::{Privilege, Quirk},
    registers,
    shape::{Shape, ShapeError},
    sources::Sources,
    traps,
};

mod trace;

/// The number of the only machine.
const ONLY: SpaceId = SpaceId(0);

/// Greatest length of one memory area.
const MAX_AREA: u64 = 256 << 20;
/// Greatest number of memory areas, in and out.
const MAX_AREAS: usize = 1024;
/// Greatest length of a memory area read afterwards (as the manifest's schema says).
const MAX_OUT: u64 = 1 << 20;

/// The job cannot be begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    /// The profile.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The emulator.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The job asks for something impossible.
    #[error("{0}")]
    Job(String),
    /// The runner, or the way to it.
    #[error(transparent)]
    Cell(#[from] CellError),
}

impl PayloadError {
    fn into_cell_error(self) -> CellError {
        match self {
            Self::Cell(error) => error,
            other => CellError::Job(other.to_string()),
        }
    }
}

impl From<Stopped> for PayloadError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Machine(error) => Self::Machine(error),
            Stopped::Cell(error) => Self::Cell(error),
        }
    }
}

fn page_range(address: u64, length: u64) -> Option<(u64, u64)> {
    let start = address & !(PAGE - 1);
    let end = address.checked_add(length.max(1))?.checked_add(PAGE - 1)? & !(PAGE - 1);
    Some((start, end))
}

/// Pages to map, as disjoint ranges with their protection; executable ones first.
fn plan_pages(
    code: (u64, u64),
    areas: &[MemoryIn],
) -> Result<BTreeMap<u64, (u64, Protection)>, PayloadError> {
    let all = Protection(7);
    let mut pages: Vec<(u64, u64, Protection)> = vec![(code.0, code.1, all)];
    for area in areas {
        let length = area.length.max(area.bytes.0.len() as u64);
        if length > MAX_AREA {
            return Err(PayloadError::Job(format!(
                "memory at {} is longer than {MAX_AREA} bytes",
                area.address
            )));
        }
        let (start, end) = page_range(area.address.0, length)
            .ok_or_else(|| PayloadError::Job(format!("memory at {} runs past the end", area.address)))?;
        pages.push((start, end, Protection::READ_WRITE));
    }
    // Overlaps join; code's protection wins over data's, being the wider one.
    pages.sort_by_key(|(start, end, _)| (*start, *end));
    let mut joined: Vec<(u64, u64, Protection)> = Vec::new();
    for (start, end, protection) in pages {
        match joined.last_mut() {
            Some((_, last, held)) if start < *last => {
                *last = end.max(*last);
                *held = Protection(held.0 | protection.0);
            }
            _ => joined.push((start, end, protection)),
        }
    }
    Ok(joined
        .into_iter()
        .map(|(start, end, protection)| (start, (end, protection)))
        .collect())
}

/// What a job is, as long as it runs.
struct Task<'a> {
    job: &'a PayloadJob,
    shape: Rc<Shape>,
    /// Where the code is, and where its run ends.
    start: u64,
    until: u64,
    /// Pages to map: start, end and protection.
    pages: BTreeMap<u64, (u64, Protection)>,
    trace: Rc<Trace>,
    operator: Rc<Operator>,
    /// Whether the host's time for it is over.
    over: Cell<bool>,
}

impl Resume for Task<'_> {
    fn save(&self) -> Result<(Run, u64), MachineError> {
        Ok((Run::new(self.trace.save()?), 0))
    }

    fn become_run(&self, pool: &mut Pool, run: &Run) -> Result<(), Stopped> {
        let mut machines = pool.machines();
        let only = machines.next().is_some_and(|(space, machine)| {
            let guest = machine.uc.get_data();
            space == ONLY && !guest.counting
        });
        if !only || machines.next().is_some() {
            return Err(MachineError("the saved context: not of raw code".to_owned()).into());
        }
        Ok(self.trace.restore(&run.state)?)
    }

    fn cores(&self, pool: &mut Pool) -> Result<Vec<Core>, MachineError> {
        let machine = pool.machine(ONLY)?;
        let ranges = self.pages.iter();
        let ranges = ranges.map(|(start, (end, protection))| (*start, end - start, *protection));
        Ok(vec![Core::of_machine(&self.job.arch, ONLY, &machine, ranges)?])
    }

    fn finish(&self) -> Result<(), MachineError> {
        self.over.set(true);
        Ok(())
    }

    fn memory(&self) -> u64 {
        let lengths = self.pages.iter().map(|(start, (end, _))| end - start);
        lengths.fold(0, u64::saturating_add)
    }
}

/// Runs the code of a connection's job.
pub(crate) fn serve(connection: &mut Connection, job: &PayloadJob) -> Result<JobResult, CellError> {
    nudge_unsafe::listen().map_err(|error| CellError::Job(format!("hearing the runner: {error}")))?;
    let code = Bytes::of(connection.blob(job.code)?);
    let mut sources = Sources::default();
    sources.add(job.code.index, &code, || connection.blob_file(job.code))?;
    let beginning = Beginning::of(connection)?;
    let area = connection.area()?.map(|(file, length)| Area::new(file, length));
    let operator = Operator::new(Box::new(connection.clone()), area);
    let result = run(operator, job, &code, sources, beginning).map_err(PayloadError::into_cell_error)?;
    Ok(JobResult::Payload(result))
}

/// Runs the code to its end, whatever that is.
pub(crate) fn run(
    operator: Operator,
    job: &PayloadJob,
    code: &[u8],
    sources: Sources,
    beginning: Beginning,
) -> Result<PayloadResult, PayloadError> {
    let task = Task::new(operator, job, code.len() as u64)?;
    let trace = &task.trace;
    let (shape, theirs, operator) = (&task.shape, Rc::clone(trace), &task.operator);
    let (until, for_hooks, for_machines) = (task.until, Rc::clone(operator), Rc::clone(shape));
    let sources = Rc::new(sources);
    let mut pool = Pool::new(move || machine(&for_machines, until, &theirs, &for_hooks, &sources));
    match beginning {
        Beginning::Program => {
            let mut machine = pool.make()?;
            task.lay_out(&mut machine, code)?;
            pool.put(ONLY, machine);
        }
        Beginning::Context(context, length) => {
            let run = Run::read(&mut pool, &context, 0, length, task.memory())?;
            operator.take_over(&task, &mut pool, &run)?;
        }
    }
    let _clocks = clocks_unsafe::activate(Rc::clone(trace) as Rc<dyn Source>);
    let ended = loop {
        // Also where a run goes on: a pause may wait for it.
        operator.between(&task, &mut pool, Some(ONLY))?;
        if task.over.get() {
            break Ended::Break;
        }
        match pool.machine(ONLY)?.run() {
            Ended::Break => operator.check()?,
            ended => break ended,
        }
    };
    let machine = pool.machine(ONLY)?;
    // In the delay slot of a MIPS branch, or where Unicorn does not keep it, the program counter is not to be had:
    // the last instruction that the hook saw is.
    let last = trace.last.get();
    let unknown = Trap {
        kind: FaultKind::Exception,
        address: None,
    };
    let outcome = match ended {
        _ if task.over.get() => Outcome::wall_time(),
        _ if trace.limited.get() => Outcome::Limit("instructions".to_owned()),
        Ended::Halted if at_end(&machine, trace, until) => Outcome::Completed,
        Ended::Trap(trap) => faulted(&machine, trap, last, shape.arch),
        _ => faulted(&machine, trace.trap.take().unwrap_or(unknown), last, shape.arch),
    };
    report(job, &machine, shape, trace, outcome, until)
}

impl<'a> Task<'a> {
    fn new(operator: Operator, job: &'a PayloadJob, length: u64) -> Result<Self, PayloadError> {
        let mut shape = Shape::new(&job.arch)?;
        let start = match shape.arch {
            Arch::ARM => job.address.0 & !1,
            _ => job.address.0,
        };
        if start % PAGE != 0 {
            return Err(PayloadError::Job(format!(
                "the code's address {} is not a multiple of {PAGE}",
                job.address
            )));
        }
        if job.memory.len() > MAX_AREAS || job.want_memory.len() > MAX_AREAS {
            return Err(PayloadError::Job(format!("more than {MAX_AREAS} memory areas")));
        }
        // Raw code brings its own memory: what Linux would map is not there.
        shape.quirks.retain(|quirk| *quirk != Quirk::ArmKuser);
        let code = page_range(start, length)
            .ok_or_else(|| PayloadError::Job(format!("the code at {} runs past the end", job.address)))?;
        let thumb = begin(&shape, job) & 1;
        Ok(Self {
            job,
            start,
            until: job
                .until
                .map_or_else(|| start.wrapping_add(length), |until| until.0 & !thumb),
            pages: plan_pages(code, &job.memory)?,
            trace: Rc::new(Trace::new(job, &shape, start)),
            shape: Rc::new(shape),
            operator: Rc::new(operator),
            over: Cell::new(false),
        })
    }

    /// Memory and registers as the job wants them.
    fn lay_out(&self, machine: &mut UnicornMachine<'static>, code: &[u8]) -> Result<(), PayloadError> {
        let (job, start) = (self.job, self.start);
        for (begin, (end, protection)) in &self.pages {
            machine.map(*begin, end - begin, *protection)?;
        }
        for area in &job.memory {
            let unwritable = |_| PayloadError::Job(format!("memory at {} cannot be written", area.address));
            machine.write(area.address.0, &area.bytes.0).map_err(unwritable)?;
        }
        let unwritable = |_| PayloadError::Job(format!("the code at {} cannot be written", job.address));
        // Raw code that changes itself is no finding: what it was at first need not be known.
        machine.fill(start, code).map_err(unwritable)?;
        for (name, value) in &job.registers {
            let register = machine
                .register(name)
                .ok_or_else(|| PayloadError::Job(format!("`{name}` is no register of {}", job.arch.name)))?;
            machine.set(register, value.0);
        }
        machine.jump(begin(&self.shape, job));
        Ok(())
    }
}

/// Where the code begins, with the Thumb bit on ARM.
fn begin(shape: &Shape, job: &PayloadJob) -> u64 {
    let thumb = u64::from(shape.arch == Arch::ARM && job.address.0 & 1 == 1);
    job.address.0 & !1 | thumb
}

/// A new machine with its hooks: no system call, and no exception, comes back.
fn machine(
    shape: &Rc<Shape>,
    until: u64,
    trace: &Rc<Trace>,
    operator: &Rc<Operator>,
    sources: &Rc<Sources>,
) -> Result<UnicornMachine<'static>, MachineError> {
    let mut machine = UnicornMachine::new(shape, Rc::clone(&operator.counts), Privilege::Kernel)?;
    machine.hook_blocks()?;
    machine.uc.get_data_mut().sources = Rc::clone(sources);
    let uc = &mut machine.uc;
    let (theirs, heard) = (Rc::clone(trace), Rc::clone(operator));
    uc.add_code_hook(1, 0, move |uc, address, size| {
        heard.instruction(uc, address);
        if uc.get_data().stop.is_none() {
            theirs.instruction(uc, address, size);
        }
    })
    .map_err(failed("hooking instructions"))?;
    let theirs = Rc::clone(trace);
    let arch = shape.arch;
    uc.add_intr_hook(move |uc, number| {
        let kind = traps::from_interrupt(arch, number);
        theirs.end(uc, Trap { kind, address: None });
    })
    .map_err(failed("hooking exceptions"))?;
    if arch == Arch::X86 {
        // No exceptions for the C library: unhooked, it passes over them.
        for instruction in [X86Insn::SYSCALL, X86Insn::SYSENTER] {
            let theirs = Rc::clone(trace);
            uc.add_insn_sys_hook(instruction, 1, 0, move |uc| {
                let kind = FaultKind::Exception;
                theirs.end(uc, Trap { kind, address: None });
            })
            .map_err(failed("hooking system calls"))?;
        }
    }
    uc.ctl_exits_disable()
        .map_err(failed("switching the end address on"))?;
    uc.get_data_mut().until = until;
    Ok(machine)
}

/// Whether the run stopped at its end address, and not at an instruction that halts.
fn at_end(machine: &UnicornMachine<'_>, trace: &Trace, until: u64) -> bool {
    if machine.program_counter() == until {
        return true;
    }
    // MIPS leaves the program counter behind when the end lies inside a block: then the last instruction is the one
    // before the end.
    machine.uc.get_arch() == Arch::MIPS && trace.last.get().wrapping_add(4) == until
}

fn faulted(machine: &UnicornMachine<'_>, trap: Trap, last: u64, arch: Arch) -> Outcome {
    // A fetch that fails never reached the hook: there the program counter is the target.
    let fetch = matches!(trap.kind, FaultKind::FetchUnmapped | FaultKind::FetchProtected);
    let pc = match trap.address {
        Some(address) if fetch => address,
        _ => last,
    };
    let mut bytes = vec![
        0;
        if arch == Arch::X86 {
            MAX_INSTRUCTION as usize
        } else {
            4
        }
    ];
    let readable = (1..=bytes.len()).rev().find(|length| {
        bytes
            .get_mut(..*length)
            .is_some_and(|part| machine.read(pc, part).is_ok())
    });
    bytes.truncate(readable.unwrap_or(0));
    Outcome::Faulted(Fault {
        kind: trap.kind,
        pc: Address(pc),
        address: trap.address.map(Address),
        code: (!bytes.is_empty()).then_some(Hex(bytes)),
    })
}

fn report(
    job: &PayloadJob,
    machine: &UnicornMachine<'_>,
    shape: &Shape,
    trace: &Trace,
    outcome: Outcome,
    until: u64,
) -> Result<PayloadResult, PayloadError> {
    let names = match job.want_registers.as_slice() {
        [] => registers::general(shape.arch, shape.bits),
        wanted => wanted.to_vec(),
    };
    let mut values = BTreeMap::new();
    for name in names {
        let register = machine
            .register(&name)
            .ok_or_else(|| PayloadError::Job(format!("`{name}` is no register of {}", job.arch.name)))?;
        let is_pc = i32::try_from(register.0) == Ok(shape.pc);
        let value = match &outcome {
            Outcome::Completed if is_pc => until,
            Outcome::Faulted(fault) if is_pc => fault.pc.0,
            Outcome::Limit(_) if is_pc => trace.last.get(),
            _ => machine.get(register),
        };
        values.insert(name, Address(value));
    }
    let mut memory = Vec::new();
    for wanted in &job.want_memory {
        if wanted.length > MAX_OUT {
            return Err(PayloadError::Job(format!(
                "more than {MAX_OUT} bytes wanted at {}",
                wanted.address
            )));
        }
        let mut bytes = vec![0; wanted.length as usize];
        machine
            .read(wanted.address.0, &mut bytes)
            .map_err(|_| PayloadError::Job(format!("memory wanted at {} is not mapped", wanted.address)))?;
        memory.push(MemoryIn {
            address: wanted.address,
            length: wanted.length,
            bytes: Hex(bytes),
        });
    }
    Ok(PayloadResult {
        outcome,
        arch: job.arch.name.clone(),
        instructions: trace.executed.get(),
        registers: values,
        memory,
        trace: trace.instructions.take(),
        disagreements: trace.disagreements.get(),
    })
}
