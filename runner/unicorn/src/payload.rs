//! The engine `unicorn/payload`: raw code, registers and memory in; registers, memory and a trace out.
//!
//! There is no kernel here: a system call, like any other exception, ends the run as a fault. Every executed
//! instruction is counted by a code hook, which also records the trace; raw code is small, so its cost is accepted.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::File,
    rc::Rc,
};

use hotcell_kernel::machine::{Clock, Machine, MachineError, Protection, Trap};
use hotcell_schema::{
    arch::ByteOrder,
    guest::{Address, Hex},
    job::{MemoryIn, PayloadJob, PayloadResult, TracedInstruction},
    outcome::{Fault, FaultKind, Outcome},
};
use unicorn_engine::{Arch, Mode, Unicorn, X86Insn};

use crate::{
    clocks_unsafe::{self, Source},
    disassembly::Disassembler,
    machine::{Counts, Guest, Stop, UnicornMachine, failed},
    registers,
    shape::{Shape, ShapeError},
    traps,
};

const PAGE: u64 = 0x1000;
/// Greatest length of one memory area.
const MAX_AREA: u64 = 256 << 20;
/// Greatest number of memory areas, in and out.
const MAX_AREAS: usize = 1024;
/// Greatest length of a memory area read afterwards (as the manifest's schema says).
const MAX_OUT: u64 = 1 << 20;
/// The longest instruction of any architecture here (Intel SDM volume 2A, section 2.3.11).
const MAX_INSTRUCTION: u32 = 15;

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
}

/// Clocks of raw code count its instructions. Chance (RDRAND and its like) is one fixed sequence for every job, from
/// zero: raw code has no seed, so that the same job always gives the same result.
struct Counted {
    instructions: Rc<Cell<u64>>,
    random: Cell<u64>,
}

impl Source for Counted {
    fn read(&self, clock: Clock) -> u64 {
        // One instruction takes one nanosecond.
        let now = self.instructions.get();
        match clock {
            Clock::Cycles => now,
            Clock::Timer { hertz } => (u128::from(now) * u128::from(hertz) / 1_000_000_000) as u64,
            Clock::Random => {
                // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
                let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
                self.random.set(state);
                let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ mixed >> 31
            }
        }
    }
}

/// What the code hook gathers.
struct Trace {
    wanted: u32,
    limit: u64,
    executed: Rc<Cell<u64>>,
    /// Whether the limit ended the run.
    limited: Cell<bool>,
    last: Cell<u64>,
    disassembler: Option<Disassembler>,
    /// ARM's other instruction set.
    thumb: Option<Disassembler>,
    instructions: RefCell<Vec<TracedInstruction>>,
    disagreements: Cell<u64>,
}

impl Trace {
    fn instruction(&self, uc: &mut Unicorn<'_, Guest>, address: u64, size: u32) {
        self.last.set(address);
        let executed = self.executed.get();
        if executed >= self.limit {
            self.limited.set(true);
            uc.get_data_mut().resume = Some(address);
            UnicornMachine::of(uc).stop(Stop::Asked);
            return;
        }
        self.executed.set(executed + 1);
        if executed < u64::from(self.wanted) {
            // Unicorn gives a size beyond any instruction where it could not decode one.
            let length = if size <= MAX_INSTRUCTION { size } else { 4 };
            let mut bytes = vec![0; length as usize];
            if uc.mem_read(address, &mut bytes).is_err() {
                bytes.clear();
            }
            let disassembler = if UnicornMachine::of(uc).thumb() {
                self.thumb.as_ref()
            } else {
                self.disassembler.as_ref()
            };
            let decoded = disassembler.and_then(|one| one.one(&bytes, address));
            if disassembler.is_some()
                && decoded.as_ref().map(|(length, _)| *length as u64) != Some(u64::from(size))
            {
                self.disagreements.set(self.disagreements.get() + 1);
            }
            let text = decoded.map(|(_, text)| text).unwrap_or_default();
            let address = Address(address);
            self.instructions.borrow_mut().push(TracedInstruction {
                address,
                bytes: Hex(bytes),
                text,
            });
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

/// Runs the code to its end, whatever that is. `file`: where the code stands, sealed, from its first byte on; its pages are
/// then shared until they are written.
pub(crate) fn run(job: &PayloadJob, code: &[u8], file: Option<&File>) -> Result<PayloadResult, PayloadError> {
    let mut shape = Shape::new(&job.arch)?;
    let thumb = shape.arch == Arch::ARM && job.address.0 & 1 == 1;
    let start = if shape.arch == Arch::ARM {
        job.address.0 & !1
    } else {
        job.address.0
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
    shape
        .quirks
        .retain(|quirk| *quirk != crate::quirks::Quirk::ArmKuser);
    let shape = Rc::new(shape);
    let mut machine = UnicornMachine::new(&shape, Rc::<Counts>::default())?;

    let length = code.len() as u64;
    let code_pages = page_range(start, length)
        .ok_or_else(|| PayloadError::Job(format!("the code at {} runs past the end", job.address)))?;
    for (begin, (end, protection)) in plan_pages(code_pages, &job.memory)? {
        machine.map(begin, end - begin, protection)?;
    }
    for area in &job.memory {
        let unwritable = |_| PayloadError::Job(format!("memory at {} cannot be written", area.address));
        machine.write(area.address.0, &area.bytes.0).map_err(unwritable)?;
    }
    let unwritable = |_| PayloadError::Job(format!("the code at {} cannot be written", job.address));
    let whole = match file {
        Some(file) => {
            let whole = length & !(PAGE - 1);
            let memory = &mut machine.uc.get_data_mut().memory;
            if whole > 0 {
                memory.share(start, whole, file, 0)?;
            }
            whole
        }
        None => 0,
    };
    let rest = code.get(whole as usize..).unwrap_or_default();
    machine
        .write(start.wrapping_add(whole), rest)
        .map_err(unwritable)?;
    for (name, value) in &job.registers {
        let register = machine
            .register(name)
            .ok_or_else(|| PayloadError::Job(format!("`{name}` is no register of {}", job.arch.name)))?;
        machine.set(register, value.0);
    }

    let executed = Rc::new(Cell::new(0));
    // BE8 keeps code little-endian while data is big-endian.
    let big_endian_code = shape.order == ByteOrder::Big && shape.mode & Mode::ARMBE8 != Mode::ARMBE8;
    let trace = Rc::new(Trace {
        wanted: job.trace,
        limit: job.instructions,
        executed: Rc::clone(&executed),
        limited: Cell::new(false),
        last: Cell::new(start),
        disassembler: Disassembler::new(&job.arch, false, big_endian_code),
        thumb: (shape.arch == Arch::ARM)
            .then(|| Disassembler::new(&job.arch, true, big_endian_code))
            .flatten(),
        instructions: RefCell::default(),
        disagreements: Cell::new(0),
    });
    let hook = Rc::clone(&trace);
    let uc = &mut machine.uc;
    uc.add_code_hook(1, 0, move |uc, address, size| hook.instruction(uc, address, size))
        .map_err(failed("hooking instructions"))?;
    let ended: Rc<Cell<Option<Trap>>> = Rc::default();
    let seen = Rc::clone(&ended);
    let arch = shape.arch;
    uc.add_intr_hook(move |uc, number| {
        seen.set(Some(Trap {
            kind: traps::from_interrupt(arch, number),
            address: None,
        }));
        UnicornMachine::of(uc).stop(Stop::Asked);
    })
    .map_err(failed("hooking exceptions"))?;
    if arch == Arch::X86 {
        // No exceptions for the C library: unhooked, it passes over them.
        for instruction in [X86Insn::SYSCALL, X86Insn::SYSENTER] {
            let seen = Rc::clone(&ended);
            uc.add_insn_sys_hook(instruction, 1, 0, move |uc| {
                seen.set(Some(Trap {
                    kind: FaultKind::Exception,
                    address: None,
                }));
                UnicornMachine::of(uc).stop(Stop::Asked);
            })
            .map_err(failed("hooking system calls"))?;
        }
    }
    uc.ctl_exits_disable()
        .map_err(failed("switching the end address on"))?;

    let until = job
        .until
        .map_or_else(|| start.wrapping_add(length), |until| until.0 & !u64::from(thumb));
    let begin = if thumb { start | 1 } else { start };
    let _clocks = clocks_unsafe::activate(Rc::new(Counted {
        instructions: executed,
        random: Cell::new(0),
    }));
    let result = uc.emu_start(begin, until, 0, 0);
    // In the delay slot of a MIPS branch, or where Unicorn does not keep it, the program counter is not to be had:
    // the last instruction that the hook saw is.
    let last = trace.last.get();
    let access = machine.uc.get_data_mut().access.take();
    let trap = ended.take().or(access);
    let outcome = match (trap, result) {
        _ if trace.limited.get() => Outcome::Limit("instructions".to_owned()),
        (Some(trap), _) => faulted(&machine, trap, last, arch),
        (None, Err(error)) => faulted(&machine, traps::from_error(arch, error), last, arch),
        (None, Ok(())) if at_end(&machine, &trace, until) => Outcome::Completed,
        (None, Ok(())) => faulted(
            &machine,
            Trap {
                kind: FaultKind::Exception,
                address: None,
            },
            last,
            arch,
        ),
    };
    report(job, &machine, &shape, &trace, outcome, until)
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
