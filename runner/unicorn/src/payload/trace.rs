//! What is kept of raw code while it runs: how much of it ran, and the first instructions as text.

use std::cell::{Cell, RefCell};

use hotcell_kernel::machine::{Clock, MachineError, Trap};
use hotcell_schema::{
    arch::ByteOrder,
    guest::{Address, Hex},
    job::{PayloadJob, TracedInstruction},
};
use serde::{Deserialize, Serialize};
use unicorn_engine::{Arch, Mode, Unicorn};

use crate::{
    clocks_unsafe::Source,
    disassembly::Disassembler,
    machine::{Guest, Stop, UnicornMachine},
    shape::Shape,
};

/// The longest instruction of any architecture here (Intel SDM volume 2A, section 2.3.11).
pub(super) const MAX_INSTRUCTION: u32 = 15;

/// What the hooks gather.
pub(super) struct Trace {
    wanted: u32,
    limit: u64,
    /// Instructions that ran.
    pub(super) executed: Cell<u64>,
    /// Whether the limit ended the run.
    pub(super) limited: Cell<bool>,
    /// The exception that ended the run.
    pub(super) trap: Cell<Option<Trap>>,
    /// The instruction that ran last, or was about to.
    pub(super) last: Cell<u64>,
    random: Cell<u64>,
    disassembler: Option<Disassembler>,
    /// ARM's other instruction set.
    thumb: Option<Disassembler>,
    pub(super) instructions: RefCell<Vec<TracedInstruction>>,
    pub(super) disagreements: Cell<u64>,
}

/// The part of a saved context that is not in the machine.
#[derive(Serialize, Deserialize)]
struct State {
    executed: u64,
    last: u64,
    random: u64,
    instructions: Vec<TracedInstruction>,
    disagreements: u64,
}

impl Trace {
    /// Nothing has run yet.
    pub(super) fn new(job: &PayloadJob, shape: &Shape, start: u64) -> Self {
        // BE8 keeps code little-endian while data is big-endian.
        let big_endian_code = shape.order == ByteOrder::Big && shape.mode & Mode::ARMBE8 != Mode::ARMBE8;
        Self {
            wanted: job.trace,
            limit: job.instructions,
            executed: Cell::new(0),
            limited: Cell::new(false),
            trap: Cell::new(None),
            last: Cell::new(start),
            random: Cell::new(0),
            disassembler: Disassembler::new(&job.arch, false, big_endian_code),
            thumb: (shape.arch == Arch::ARM)
                .then(|| Disassembler::new(&job.arch, true, big_endian_code))
                .flatten(),
            instructions: RefCell::default(),
            disagreements: Cell::new(0),
        }
    }

    /// As bytes, to go on from.
    pub(super) fn save(&self) -> Result<Vec<u8>, MachineError> {
        let state = State {
            executed: self.executed.get(),
            last: self.last.get(),
            random: self.random.get(),
            instructions: self.instructions.borrow().clone(),
            disagreements: self.disagreements.get(),
        };
        postcard::to_stdvec(&state).map_err(|error| MachineError(error.to_string()))
    }

    /// Goes on from bytes, which may be anybody's.
    pub(super) fn restore(&self, bytes: &[u8]) -> Result<(), MachineError> {
        let wrong = |what: &str| MachineError(format!("the saved context: {what}"));
        let state: State = postcard::from_bytes(bytes).map_err(|error| wrong(&error.to_string()))?;
        let traced = state.instructions.len() as u64;
        if traced != state.executed.min(u64::from(self.wanted)) {
            return Err(wrong("other instructions traced than the job wants"));
        }
        let long = |one: &TracedInstruction| one.bytes.0.len() > MAX_INSTRUCTION as usize;
        if state.disagreements > traced || state.instructions.iter().any(long) {
            return Err(wrong("a trace that no code has"));
        }
        self.executed.set(state.executed);
        self.last.set(state.last);
        self.random.set(state.random);
        self.instructions.replace(state.instructions);
        self.disagreements.set(state.disagreements);
        Ok(())
    }

    /// An exception ends the run.
    pub(super) fn end(&self, uc: &Unicorn<'_, Guest>, trap: Trap) {
        self.trap.set(Some(trap));
        UnicornMachine::of(uc).stop(Stop::Asked);
    }

    /// An instruction is about to run.
    pub(super) fn instruction(&self, uc: &mut Unicorn<'_, Guest>, address: u64, size: u32) {
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

/// Clocks of raw code count its instructions. Chance (RDRAND and its like) is one fixed sequence for every job, from
/// zero: raw code has no seed, so that the same job always gives the same result.
impl Source for Trace {
    fn read(&self, clock: Clock) -> u64 {
        // One instruction takes one nanosecond.
        let now = self.executed.get();
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
