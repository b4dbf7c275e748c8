//! What a signal tells beside its number: `siginfo_t` (uapi/asm-generic/siginfo.h), 128 bytes everywhere.

use hotcell_schema::outcome::FaultKind;
use serde::{Deserialize, Serialize};

use super::Abi;
use super::layout::Layout;
use super::signal::Sig;

/// Bytes of a `siginfo_t`.
pub(crate) const SIZE: usize = 128;

/// Values of `si_code`.
pub(crate) mod code {
    /// By kill.
    pub(crate) const USER: i32 = 0;
    /// By a timer of timer_create.
    pub(crate) const TIMER: i32 = -2;
    /// By tkill and tgkill.
    pub(crate) const THREAD: i32 = -6;
    /// By the kernel itself.
    pub(crate) const KERNEL: i32 = 0x80;
    /// SIGCHLD: it exited, was killed, stands still for its tracer, stands still, goes on.
    pub(crate) const EXITED: i32 = 1;
    pub(crate) const KILLED: i32 = 2;
    pub(crate) const TRAPPED: i32 = 4;
    pub(crate) const STOPPED: i32 = 5;
    pub(crate) const CONTINUED: i32 = 6;
    /// SIGSEGV: nothing is there; something is, and the access is not allowed.
    pub(crate) const NOT_MAPPED: i32 = 1;
    pub(crate) const NOT_ALLOWED: i32 = 2;
}

/// A signal's `si_code` and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalInfo {
    pub(crate) code: i32,
    pub(crate) told: Told,
}

/// The part of a `siginfo_t` that is not the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    Nothing,
    /// Process and user that sent it, and the value of sigqueue.
    Sender(u32, u32, u64),
    /// Process and user of a child, and its exit code or signal.
    Child(u32, u32, u32),
    /// Where memory was not as it should be, or the instruction is.
    Address(u64),
    /// Number of a timer, how many times it expired unheard, and its value.
    Timer(u32, u32, u64),
}

impl Default for SignalInfo {
    fn default() -> Self {
        Self {
            code: code::KERNEL,
            told: Told::Nothing,
        }
    }
}

impl SignalInfo {
    /// What a fault tells.
    pub(crate) fn of_fault(kind: FaultKind, pc: u64, address: Option<u64>) -> Self {
        let code = match kind {
            FaultKind::ReadUnmapped | FaultKind::WriteUnmapped | FaultKind::FetchUnmapped => code::NOT_MAPPED,
            FaultKind::ReadProtected | FaultKind::WriteProtected | FaultKind::FetchProtected => {
                code::NOT_ALLOWED
            }
            // ILL_ILLOPC, TRAP_BRKPT, FPE_INTDIV, BUS_ADRALN
            FaultKind::IllegalInstruction
            | FaultKind::Breakpoint
            | FaultKind::Arithmetic
            | FaultKind::Unaligned => 1,
            _ => code::KERNEL,
        };
        Self {
            code,
            told: Told::Address(address.unwrap_or(pc)),
        }
    }

    /// The same on x86 (arch/x86/kernel/traps.c): a general protection fault and INT3 tell nothing, another trap whether
    /// it was a single step. `code`: what stands at the program counter.
    pub(crate) fn of_x86_fault(kind: FaultKind, pc: u64, address: Option<u64>, code: &[u8]) -> Self {
        const ILLEGAL_OPERAND: i32 = 2;
        const SINGLE_STEP: i32 = 2;
        let told = Told::Address(pc);
        match (kind, code) {
            (FaultKind::Exception, _) | (FaultKind::Breakpoint, [0xcc, ..] | [0xcd, 3, ..]) => {
                Self::default()
            }
            (FaultKind::IllegalInstruction, _) => Self {
                code: ILLEGAL_OPERAND,
                told,
            },
            (FaultKind::Breakpoint, [0xf1, ..]) => Self::of_fault(kind, pc.wrapping_add(1), address),
            (FaultKind::Breakpoint, _) => Self {
                code: SINGLE_STEP,
                told,
            },
            _ => Self::of_fault(kind, pc, address),
        }
    }

    /// The address that it tells.
    pub(crate) fn address(&self) -> Option<u64> {
        match self.told {
            Told::Address(address) => Some(address),
            _ => None,
        }
    }

    /// The structure.
    pub(crate) fn bytes(&self, abi: &Abi, signal: Sig) -> Vec<u8> {
        let code = self.code.cast_unsigned();
        let layout = Layout::new(abi).low(signal.number(abi.family));
        // mips has si_code before si_errno (__ARCH_HAS_SWAPPED_SIGINFO).
        let layout = if abi.is_mips() {
            layout.u32(code).u32(0)
        } else {
            layout.u32(0).u32(code)
        };
        let layout = layout.align(abi.word() as usize);
        let mut bytes = match self.told {
            Told::Nothing => layout,
            Told::Sender(pid, uid, value) => layout.u32(pid).u32(uid).word(value),
            Told::Child(pid, uid, status) => layout.u32(pid).u32(uid).u32(status),
            Told::Address(address) => layout.word(address),
            Told::Timer(id, overrun, value) => layout.u32(id).u32(overrun).word(value),
        }
        .bytes;
        bytes.resize(SIZE, 0);
        bytes
    }
}
