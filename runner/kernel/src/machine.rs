//! The border between the emulated Linux and the processor that runs its guests.
//!
//! The kernel never names an emulator. A [`Machine`] is one guest address space with one processor; [`Machines`] makes and
//! drops them. The driver (in `hotcell-unicorn`) runs machines and calls back into [`crate::Kernel`]:
//!
//! ```text
//! loop {
//!     match kernel.next(&mut machines) {
//!         Step::Run { space, blocks } => { run the machine of `space` until a hook says Flow::Stop, or it traps;
//!                                          system calls -> kernel.syscall(machine)  (inside the hook)
//!                                          traps        -> kernel.trap(machine, trap)
//!                                          clocks       -> kernel.clock(machine, clock) }
//!         Step::Finished => break,
//!     }
//! }
//! ```
//!
//! `syscall`, `trap` and `clock` answer with a [`Flow`]: go on at once (the fast path: no stop of the emulator), or stop
//! and call `next` again, which may switch tasks, copy an address space (fork) or load a program (exec).

use hotcell_schema::outcome::FaultKind;
use serde::{Deserialize, Serialize};

/// Names an address space, and so a machine. Never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpaceId(pub u32);

/// Handle of a register, resolved once from its name in the arch profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub u32);

/// Page protection bits, with Linux's `PROT_*` values (asm-generic/mman-common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Protection(pub u8);

impl Protection {
    /// No access.
    pub const NONE: Self = Self(0);
    /// `PROT_READ`.
    pub const READ: Self = Self(1);
    /// `PROT_WRITE`.
    pub const WRITE: Self = Self(2);
    /// `PROT_EXEC`.
    pub const EXECUTE: Self = Self(4);
    /// Read and write.
    pub const READ_WRITE: Self = Self(3);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As in `/proc/PID/maps`, without the last letter: `r-x`.
    pub fn letters(self) -> String {
        [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::EXECUTE, 'x')]
            .into_iter()
            .map(|(bit, letter)| if self.has(bit) { letter } else { '-' })
            .collect()
    }
}

/// An address that the guest named cannot be read or written as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("guest memory at {address:#x} cannot be accessed")]
pub struct AccessError {
    /// The first address of the access.
    pub address: u64,
}

/// The emulator itself failed. Not the guest's doing as far as we know; ends the run as an engine failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("the emulator failed: {0}")]
pub struct MachineError(pub String);

/// All registers of a machine at one moment, as its own type has them.
pub trait Snapshot: std::any::Any {
    /// The same as bytes, from which [`Machine::restore`] of a machine in another process can go on.
    fn bytes(&self) -> Result<Vec<u8>, MachineError>;
}

/// All registers of a machine at one moment; only the machine's own type knows what is inside.
pub enum Context {
    /// As a machine of this process gave them.
    Live(Box<dyn Snapshot>),
    /// As they stood in a saved context.
    Bytes(Vec<u8>),
}

impl Context {
    /// What a machine of this process gave, if it is of this type.
    pub fn live<T: Snapshot>(&self) -> Option<&T> {
        match self {
            Self::Live(snapshot) => {
                let any: &dyn std::any::Any = snapshot.as_ref();
                any.downcast_ref()
            }
            Self::Bytes(_) => None,
        }
    }
}

impl Serialize for Context {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Live(snapshot) => {
                let bytes = snapshot.bytes().map_err(serde::ser::Error::custom)?;
                serializer.serialize_bytes(&bytes)
            }
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::state::raw::deserialize(deserializer).map(Self::Bytes)
    }
}

/// Memory that a machine lends.
pub struct Lent {
    /// What only the machine's own type knows.
    pub memory: Box<dyn std::any::Any>,
    /// Lengths of the regions that whoever borrows it gets, in order.
    pub regions: Vec<u64>,
}

/// One guest address space with one processor.
pub trait Machine {
    /// The handle of a register by its name in the arch profile; `None` if the processor has none of that name.
    fn register(&self, name: &str) -> Option<Reg>;
    /// A register's value, zero-extended.
    fn get(&self, register: Reg) -> u64;
    /// Sets a register. Not the program counter inside a hook: that is done between runs, or by [`Machine::jump`].
    fn set(&mut self, register: Reg, value: u64);
    /// Sets where execution goes on (also inside a hook), with the architecture's own conventions (Thumb bit).
    fn jump(&mut self, address: u64);
    /// The program counter, right also inside a hook.
    fn program_counter(&self) -> u64;
    /// Reads guest memory, whatever its protection.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError>;
    /// The same for who looks from outside: nothing of the machine is another afterwards.
    fn look(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError>;
    /// Writes guest memory, whatever its protection; drops translations of what is overwritten.
    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), AccessError>;
    /// Maps zeroed memory; the range is page-aligned and not mapped yet.
    fn map(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), MachineError>;
    /// Unmaps a page-aligned range, all of it mapped.
    fn unmap(&mut self, start: u64, length: u64) -> Result<(), MachineError>;
    /// Lends a page-aligned range, all of it mapped, to another machine, or to itself for another place: from then on, what
    /// one writes there the other reads.
    fn lend(&mut self, start: u64, length: u64) -> Result<Lent, MachineError>;
    /// A machine that was made to be a copy has all memory of the other now.
    fn is_copied(&mut self);
    /// Maps what was lent.
    fn borrow(&mut self, start: u64, protection: Protection, lent: Lent) -> Result<(), MachineError>;
    /// Changes the protection of a page-aligned range, all of it mapped.
    fn protect(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), MachineError>;
    /// All registers, to come back to (threads, fork, signals).
    fn save(&self) -> Result<Context, MachineError>;
    /// Puts back registers that [`Machine::save`] of this or another machine of the same architecture gave.
    fn restore(&mut self, context: &Context) -> Result<(), MachineError>;
    /// Sets all registers to what they are when a program starts (profile setup applied), for execve.
    fn reset_registers(&mut self) -> Result<(), MachineError>;
    /// Sets the thread pointer of the running task, by the architecture's own means (segment base, coprocessor register).
    fn set_thread_pointer(&mut self, value: u64);
}

/// Makes and drops machines.
pub trait Machines {
    /// Makes the machine of a new address space: no memory mapped, registers as when a program starts. `copy_of`: it is going to be
    /// given the memory of this one, until [`Machine::is_copied`].
    fn create(&mut self, space: SpaceId, copy_of: Option<SpaceId>) -> Result<(), MachineError>;
    /// Drops a machine with all its memory.
    fn destroy(&mut self, space: SpaceId);
    /// The machine of an address space that was created and not destroyed.
    fn get(&mut self, space: SpaceId) -> Option<&mut dyn Machine>;
}

/// What the driver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Run the machine of this address space from its program counter.
    Run {
        /// Which machine.
        space: SpaceId,
        /// Stop after so many blocks and call `next` again; `None`: no counting, full speed.
        blocks: Option<u64>,
    },
    /// All is over; the result can be taken.
    Finished,
}

/// What happens after a callback from inside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next instruction, without stopping the emulator.
    Continue,
    /// Stop the emulator and call `next`.
    Stop,
}

/// The processor cannot go on: an exception other than a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// What kind.
    pub kind: FaultKind,
    /// The data address of a memory fault.
    pub address: Option<u64>,
}

/// A clock or source of chance that an instruction reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// A counter of processor cycles (RDTSC, rdcycle, CP0 Count).
    Cycles,
    /// A timer of this frequency in Hz (CNTVCT_EL0, the ppc timebase, rdtime, STCK).
    Timer {
        /// Ticks per second.
        hertz: u64,
    },
    /// A random number (RDRAND, RDSEED, DARN).
    Random,
}
