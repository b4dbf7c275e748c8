//! A machine without a processor, for tests and for fuzzing: memory, and registers by name.

use std::collections::BTreeMap;

use hotcell_schema::arch::ArchProfile;

use crate::machine::{
    AccessError, Context, Lent, Machine, MachineError, Machines, Protection, Reg, Snapshot, SpaceId,
};

const PAGE: u64 = 4096;

/// The parts of a range by page: page number, offset inside it, and where the part stands in the range.
fn each_page(address: u64, length: usize, mut work: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < length {
        let at = address + done as u64;
        let size = ((PAGE - at % PAGE) as usize).min(length - done);
        work(at / PAGE, (at % PAGE) as usize, done..done + size);
        done += size;
    }
}

/// Memory pages and registers by name.
pub struct FakeMachine {
    names: Vec<String>,
    registers: Vec<u64>,
    /// Ranges that are mapped: first address and the one past the end.
    ranges: Vec<(u64, u64)>,
    /// Pages that were written.
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    pc: u64,
}

impl FakeMachine {
    fn new(names: Vec<String>) -> Self {
        Self {
            registers: vec![0; names.len()],
            names,
            ranges: Vec::new(),
            pages: BTreeMap::new(),
            pc: 0,
        }
    }

    fn check(&self, address: u64, length: usize) -> Result<(), AccessError> {
        let end = address
            .checked_add(length as u64)
            .ok_or(AccessError { address })?;
        let mut at = address;
        while at < end {
            let range = self.ranges.iter().find(|(from, to)| *from <= at && at < *to);
            at = range.ok_or(AccessError { address: at })?.1;
        }
        Ok(())
    }

    /// The value of a register of this name; of none, 0.
    pub fn named(&self, name: &str) -> u64 {
        self.register(name).map_or(0, |register| self.get(register))
    }

    fn set_named(&mut self, name: &str, value: u64) {
        if let Some(register) = self.register(name) {
            self.set(register, value);
        }
    }

    /// Registers (and stack) as a guest has them when it makes a call.
    pub fn set_call(&mut self, profile: &ArchProfile, number: u64, args: &[u64]) {
        let abi = &profile.abi;
        for (index, value) in args.iter().enumerate() {
            match abi.arguments.get(index) {
                Some(name) => self.set_named(name, *value),
                None => {
                    let offset = u64::from(abi.stack_arguments.unwrap_or(0))
                        + 4 * (index - abi.arguments.len()) as u64;
                    let at = self.named(&abi.stack_pointer).wrapping_add(offset);
                    let value = *value as u32;
                    let big = profile.elf.byte_order == hotcell_schema::arch::ByteOrder::Big;
                    let _ = self.write(
                        at,
                        &if big {
                            value.to_be_bytes()
                        } else {
                            value.to_le_bytes()
                        },
                    );
                }
            }
        }
        self.set_named(&abi.number, number);
    }
}

/// Saved registers.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Kept(Vec<u64>, u64);

impl Snapshot for Kept {
    fn bytes(&self) -> Result<Vec<u8>, MachineError> {
        postcard::to_stdvec(self).map_err(|error| MachineError(error.to_string()))
    }
}

impl Machine for FakeMachine {
    fn register(&self, name: &str) -> Option<Reg> {
        self.names
            .iter()
            .position(|one| one == name)
            .map(|index| Reg(index as u32))
    }

    fn get(&self, register: Reg) -> u64 {
        self.registers[register.0 as usize]
    }

    fn set(&mut self, register: Reg, value: u64) {
        self.registers[register.0 as usize] = value;
    }

    fn jump(&mut self, address: u64) {
        self.pc = address;
    }

    fn program_counter(&self) -> u64 {
        self.pc
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError> {
        self.check(address, into.len())?;
        each_page(address, into.len(), |page, inside, range| {
            let part = &mut into[range];
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[inside..inside + part.len()]),
                None => part.fill(0),
            }
        });
        Ok(())
    }

    fn look(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError> {
        self.read(address, into)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        self.check(address, from.len())?;
        each_page(address, from.len(), |page, inside, range| {
            let bytes = self
                .pages
                .entry(page)
                .or_insert_with(|| Box::new([0; PAGE as usize]));
            bytes[inside..inside + range.len()].copy_from_slice(&from[range]);
        });
        Ok(())
    }

    fn map(&mut self, start: u64, length: u64, _: Protection) -> Result<(), MachineError> {
        let end = start + length;
        if self.ranges.iter().any(|(from, to)| *from < end && start < *to) {
            return Err(MachineError(format!("{start:#x} is mapped twice")));
        }
        self.ranges.push((start, end));
        Ok(())
    }

    /// A copy: here nobody writes to what was lent.
    fn lend(&mut self, start: u64, length: u64) -> Result<Lent, MachineError> {
        let mut bytes = vec![0; length as usize];
        self.read(start, &mut bytes)
            .map_err(|error| MachineError(error.to_string()))?;
        Ok(Lent {
            memory: Box::new(bytes),
            regions: vec![length],
        })
    }

    fn borrow(&mut self, start: u64, protection: Protection, lent: Lent) -> Result<(), MachineError> {
        let bytes = lent.memory.downcast::<Vec<u8>>().expect("bytes");
        self.map(start, bytes.len() as u64, protection)?;
        self.write(start, &bytes)
            .map_err(|error| MachineError(error.to_string()))
    }

    fn is_copied(&mut self) {}

    fn unmap(&mut self, start: u64, length: u64) -> Result<(), MachineError> {
        self.protect(start, length, Protection::NONE)?;
        let end = start + length;
        let old = std::mem::take(&mut self.ranges);
        for (from, to) in old {
            for (from, to) in [(from, to.min(start)), (from.max(end), to)] {
                if from < to {
                    self.ranges.push((from, to));
                }
            }
        }
        self.pages
            .retain(|page, _| !(start / PAGE..end / PAGE).contains(page));
        Ok(())
    }

    fn protect(&mut self, start: u64, length: u64, _: Protection) -> Result<(), MachineError> {
        self.check(start, length as usize)
            .map_err(|_| MachineError(format!("{start:#x} is not mapped throughout")))
    }

    fn save(&self) -> Result<Context, MachineError> {
        Ok(Context::Live(Box::new(Kept(self.registers.clone(), self.pc))))
    }

    fn restore(&mut self, context: &Context) -> Result<(), MachineError> {
        let Kept(registers, pc) = match context {
            Context::Bytes(bytes) => {
                postcard::from_bytes(bytes).map_err(|error| MachineError(error.to_string()))?
            }
            live => live.live::<Kept>().cloned().expect("a machine of this kind"),
        };
        self.registers = registers;
        self.pc = pc;
        Ok(())
    }

    fn reset_registers(&mut self) -> Result<(), MachineError> {
        self.registers.fill(0);
        Ok(())
    }

    fn set_thread_pointer(&mut self, _: u64) {}
}

/// Machines with the registers that a profile names.
pub struct FakeMachines {
    names: Vec<String>,
    machines: BTreeMap<SpaceId, FakeMachine>,
}

impl FakeMachines {
    /// No machines yet; those to come have the registers that a profile names.
    pub fn new(profile: &ArchProfile) -> Self {
        let abi = &profile.abi;
        let mut names: Vec<String> = abi.arguments.clone();
        names.extend(abi.compat.iter().flat_map(|compat| compat.arguments.clone()));
        names.extend([
            abi.number.clone(),
            abi.result.clone(),
            abi.stack_pointer.clone(),
            abi.program_counter.clone(),
        ]);
        names.extend(abi.second_result.clone());
        names.extend(abi.at_start.keys().cloned());
        if let Some(functions) = &profile.functions {
            names.extend(functions.arguments.iter().chain(&functions.link).cloned());
        }
        names.extend(["a3", "cr0", "r2", "lr", "x30", "ra", "r12", "r14", "t9"].map(String::from));
        Self {
            names,
            machines: BTreeMap::new(),
        }
    }

    /// The machine of an address space that there is.
    pub fn machine(&mut self, space: SpaceId) -> &mut FakeMachine {
        self.machines.get_mut(&space).expect("the machine is there")
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.machines.len()
    }
}

impl Machines for FakeMachines {
    fn create(&mut self, space: SpaceId, _: Option<SpaceId>) -> Result<(), MachineError> {
        match self.machines.insert(space, FakeMachine::new(self.names.clone())) {
            None => Ok(()),
            Some(_) => Err(MachineError("a machine was made twice".into())),
        }
    }

    fn destroy(&mut self, space: SpaceId) {
        self.machines.remove(&space);
    }

    fn get(&mut self, space: SpaceId) -> Option<&mut dyn Machine> {
        self.machines
            .get_mut(&space)
            .map(|machine| machine as &mut dyn Machine)
    }
}

/// A minimal static program for a profile: one segment with 4 KiB of zeroes.
pub fn tiny_elf(profile: &ArchProfile) -> Vec<u8> {
    let big = profile.elf.byte_order == hotcell_schema::arch::ByteOrder::Big;
    let wide = profile.elf.class == 64;
    let mut out = b"\x7fELF".to_vec();
    out.extend([if wide { 2 } else { 1 }, if big { 2 } else { 1 }, 1, 0]);
    out.resize(16, 0);
    let half = |out: &mut Vec<u8>, v: u16| out.extend(if big { v.to_be_bytes() } else { v.to_le_bytes() });
    let word = |out: &mut Vec<u8>, v: u32| out.extend(if big { v.to_be_bytes() } else { v.to_le_bytes() });
    let long = |out: &mut Vec<u8>, v: u64| {
        if wide {
            out.extend(if big { v.to_be_bytes() } else { v.to_le_bytes() });
        } else {
            word(out, v as u32);
        }
    };
    let base = 0x40_0000u64;
    half(&mut out, 2);
    half(&mut out, profile.elf.machine[0]);
    word(&mut out, 1);
    long(&mut out, base + 0x200);
    long(&mut out, if wide { 64 } else { 52 });
    long(&mut out, 0);
    word(&mut out, if profile.name.starts_with("ppc64") { 2 } else { 0 });
    half(&mut out, if wide { 64 } else { 52 });
    half(&mut out, if wide { 56 } else { 32 });
    half(&mut out, 1);
    half(&mut out, 0);
    half(&mut out, 0);
    half(&mut out, 0);
    word(&mut out, 1);
    if wide {
        word(&mut out, 7);
        for value in [0, base, base, 4096, 8192, 4096] {
            long(&mut out, value);
        }
    } else {
        for value in [0, base, base, 4096, 8192] {
            long(&mut out, value);
        }
        word(&mut out, 7);
        long(&mut out, 4096);
    }
    out.resize(4096, 0);
    out
}
