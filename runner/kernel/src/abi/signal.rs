//! Signal numbers: asm-generic/signal.h, and mips' own (arch/mips/include/uapi/asm/signal.h).

use hotcell_schema::arch::AbiFamily;
use serde::{Deserialize, Serialize};

/// A signal by its generic number, 1 to 64. 7 on mips (SIGEMT) is held as [`Sig::EMT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sig(pub(crate) u8);

/// Name, generic number, number on mips (0: none).
const SIGNALS: &[(&str, u8, u8)] = &[
    ("SIGHUP", 1, 1),
    ("SIGINT", 2, 2),
    ("SIGQUIT", 3, 3),
    ("SIGILL", 4, 4),
    ("SIGTRAP", 5, 5),
    ("SIGABRT", 6, 6),
    ("SIGBUS", 7, 10),
    ("SIGFPE", 8, 8),
    ("SIGKILL", 9, 9),
    ("SIGUSR1", 10, 16),
    ("SIGSEGV", 11, 11),
    ("SIGUSR2", 12, 17),
    ("SIGPIPE", 13, 13),
    ("SIGALRM", 14, 14),
    ("SIGTERM", 15, 15),
    ("SIGSTKFLT", 16, 7),
    ("SIGCHLD", 17, 18),
    ("SIGCONT", 18, 25),
    ("SIGSTOP", 19, 23),
    ("SIGTSTP", 20, 24),
    ("SIGTTIN", 21, 26),
    ("SIGTTOU", 22, 27),
    ("SIGURG", 23, 21),
    ("SIGXCPU", 24, 30),
    ("SIGXFSZ", 25, 31),
    ("SIGVTALRM", 26, 28),
    ("SIGPROF", 27, 29),
    ("SIGWINCH", 28, 20),
    ("SIGIO", 29, 22),
    ("SIGPWR", 30, 19),
    ("SIGSYS", 31, 12),
];

fn is_mips(family: AbiFamily) -> bool {
    matches!(family, AbiFamily::MipsO32 | AbiFamily::MipsN64)
}

/// What a signal does to a process that has not asked for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultAction {
    /// The process ends.
    Terminate,
    /// Nothing happens.
    Ignore,
    /// The process stands still.
    Stop,
    /// A process that stands still goes on.
    Continue,
}

impl Sig {
    pub(crate) const ILL: Self = Self(4);
    pub(crate) const TRAP: Self = Self(5);
    pub(crate) const BUS: Self = Self(7);
    pub(crate) const FPE: Self = Self(8);
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const SEGV: Self = Self(11);
    pub(crate) const PIPE: Self = Self(13);
    pub(crate) const ALRM: Self = Self(14);
    pub(crate) const CHLD: Self = Self(17);
    pub(crate) const CONT: Self = Self(18);
    pub(crate) const STOP: Self = Self(19);
    pub(crate) const TSTP: Self = Self(20);
    pub(crate) const TTIN: Self = Self(21);
    pub(crate) const TTOU: Self = Self(22);
    pub(crate) const XFSZ: Self = Self(25);
    pub(crate) const VTALRM: Self = Self(26);
    pub(crate) const PROF: Self = Self(27);
    pub(crate) const SYS: Self = Self(31);

    /// Its bit in a set of generic signals.
    pub(crate) const fn bit(self) -> u64 {
        match self.0 {
            1..=64 => 1 << (self.0 - 1),
            _ => 0,
        }
    }

    /// A set as the guest has it: its numbers, not the generic ones.
    pub(crate) fn set_of_guest(set: u64, family: AbiFamily) -> u64 {
        let signals = (1..=64).map(Self).filter(|signal| set & signal.bit() != 0);
        signals.fold(0, |raw, signal| {
            raw | 1 << (signal.number(family).saturating_sub(1) & 63)
        })
    }

    /// The same the other way round: what the guest says, as bits of generic signals.
    pub(crate) fn set_from_guest(raw: u64, family: AbiFamily) -> u64 {
        let numbers = (1..=64u64).filter(|number| raw & 1 << (number - 1) != 0);
        let signals = numbers.filter_map(|number| Self::from_number(number, family));
        signals.fold(0, |set, signal| set | signal.bit())
    }

    /// From a number of the guest's ABI.
    pub(crate) fn from_number(number: u64, family: AbiFamily) -> Option<Self> {
        let number = u8::try_from(number).ok().filter(|n| (1..=64).contains(n))?;
        if number >= 32 {
            return Some(Self(number));
        }
        let column = |row: &(&str, u8, u8)| if is_mips(family) { row.2 } else { row.1 };
        SIGNALS
            .iter()
            .find(|row| column(row) == number)
            .map(|row| Self(row.1))
    }

    /// The number in the guest's ABI.
    pub(crate) fn number(self, family: AbiFamily) -> u64 {
        let row = SIGNALS.iter().find(|row| row.1 == self.0);
        u64::from(row.map_or(self.0, |row| if is_mips(family) { row.2 } else { row.1 }))
    }

    /// The name, for events.
    pub(crate) fn name(self) -> String {
        match SIGNALS.iter().find(|row| row.1 == self.0) {
            Some(row) => row.0.to_owned(),
            None => format!("SIGRT_{}", self.0.saturating_sub(32)),
        }
    }

    /// `signal(7)`, "Standard signals".
    pub(crate) fn default_action(self) -> DefaultAction {
        match self.0 {
            17 | 23 | 28 => DefaultAction::Ignore,
            18 => DefaultAction::Continue,
            19..=22 => DefaultAction::Stop,
            _ => DefaultAction::Terminate,
        }
    }
}
