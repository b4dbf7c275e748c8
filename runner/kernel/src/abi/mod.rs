//! How this architecture's Linux passes calls and lays out structures: all that follows from the profile.
//!
//! [`Abi`] is the profile made ready; [`Registers`] are its registers on a machine, and the only place that writes a
//! call's result. [`layout`] builds structures, [`flags`] converts flag words, [`quirks`] holds the real exceptions.

pub(crate) mod errno;
pub(crate) mod flags;
pub(crate) mod frame;
pub(crate) mod layout;
pub(crate) mod quirks;
pub(crate) mod siginfo;
pub(crate) mod signal;
pub(crate) mod traced;
pub(crate) mod vdso;

use hotcell_schema::arch::{AbiFamily, AbiQuirk, ArchProfile, ByteOrder, ErrorStyle, StartValue};

use crate::load::elf::Program;
use crate::machine::{Machine, MachineError, Reg};
use errno::Errno;

/// The ABI of a profile.
#[derive(Debug, Clone)]
pub(crate) struct Abi {
    pub(crate) family: AbiFamily,
    pub(crate) big: bool,
    /// 64-bit words.
    pub(crate) wide: bool,
    pub(crate) page: u64,
    pub(crate) task_size: u64,
    pub(crate) aligned_pairs: bool,
    pub(crate) stack_arguments: Option<u16>,
    pub(crate) arm_open_flags: bool,
    pub(crate) signal_restorer: bool,
}

impl Abi {
    pub(crate) fn new(profile: &ArchProfile) -> Self {
        let abi = &profile.abi;
        Self {
            family: abi.family,
            big: profile.elf.byte_order == ByteOrder::Big,
            wide: abi.word == 64,
            page: u64::from(abi.page_size.clamp(4096, 65536).next_power_of_two()),
            task_size: abi.task_size,
            aligned_pairs: abi.aligned_pairs,
            stack_arguments: abi.stack_arguments,
            arm_open_flags: abi.family == AbiFamily::ArmEabi || abi.quirks.contains(&AbiQuirk::ArmOpenFlags),
            signal_restorer: !abi.quirks.contains(&AbiQuirk::NoSignalRestorer),
        }
    }

    /// That of calls which are another ABI's.
    pub(crate) fn compat(profile: &ArchProfile) -> Option<Self> {
        let compat = profile.abi.compat.as_ref()?;
        Some(Self {
            family: compat.family,
            wide: false,
            task_size: compat.task_size,
            aligned_pairs: false,
            stack_arguments: None,
            arm_open_flags: false,
            signal_restorer: true,
            ..Self::new(profile)
        })
    }

    /// Bytes in a word.
    pub(crate) fn word(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// Whether this is a mips ABI, whose constants differ from everyone else's.
    pub(crate) fn is_mips(&self) -> bool {
        matches!(self.family, AbiFamily::MipsO32 | AbiFamily::MipsN64)
    }

    /// Whether this is a powerpc ABI.
    pub(crate) fn is_ppc(&self) -> bool {
        matches!(self.family, AbiFamily::Ppc32 | AbiFamily::Ppc64)
    }

    /// A word cut to the guest's width.
    pub(crate) fn cut(&self, value: u64) -> u64 {
        if self.wide { value } else { value & 0xffff_ffff }
    }

    /// A word as a signed number.
    pub(crate) fn signed(&self, value: u64) -> i64 {
        if self.wide {
            value.cast_signed()
        } else {
            i64::from((value as u32).cast_signed())
        }
    }

    pub(crate) fn page_up(&self, value: u64) -> Option<u64> {
        Some(value.checked_add(self.page - 1)? & !(self.page - 1))
    }

    pub(crate) fn page_down(&self, value: u64) -> u64 {
        value & !(self.page - 1)
    }

    pub(crate) fn get_u16(&self, bytes: [u8; 2]) -> u16 {
        if self.big {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    pub(crate) fn get_u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    pub(crate) fn get_u64(&self, bytes: [u8; 8]) -> u64 {
        if self.big {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        }
    }

    /// A 64-bit number from the two words that hold it, in the order in which they are passed.
    pub(crate) fn join(&self, first: u64, second: u64) -> u64 {
        let (high, low) = if self.big {
            (first, second)
        } else {
            (second, first)
        };
        (high << 32) | (low & 0xffff_ffff)
    }
}

/// The ABI's registers on this run's machines.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    number: Reg,
    arguments: Vec<Reg>,
    /// Those of calls that are another ABI's.
    compat_arguments: Vec<Reg>,
    result: Reg,
    second: Option<Reg>,
    /// mips `a3` or ppc `cr0`.
    error: Option<Reg>,
    pub(crate) stack: Reg,
    pub(crate) start: Vec<(Reg, StartValue)>,
    /// ppc64 ELFv1: the table of contents.
    pub(crate) toc: Option<Reg>,
    style: ErrorStyle,
    family: AbiFamily,
    pub(crate) functions: Option<Functions>,
}

/// Registers of the calls of C functions.
#[derive(Debug, Clone)]
pub(crate) struct Functions {
    pub(crate) arguments: Vec<Reg>,
    pub(crate) stack_arguments: u64,
    /// Register with the return address; `None`: on top of the stack.
    pub(crate) link: Option<Reg>,
}

impl Registers {
    /// Resolves the profile's register names.
    pub(crate) fn resolve(profile: &ArchProfile, machine: &dyn Machine) -> Result<Self, MachineError> {
        let find = |name: &str| {
            machine.register(name).ok_or_else(|| {
                MachineError(format!(
                    "profile `{}` names register `{name}`, which the processor does not have",
                    profile.name
                ))
            })
        };
        let abi = &profile.abi;
        Ok(Self {
            number: find(&abi.number)?,
            arguments: abi
                .arguments
                .iter()
                .map(|name| find(name))
                .collect::<Result<_, _>>()?,
            compat_arguments: abi
                .compat
                .iter()
                .flat_map(|compat| &compat.arguments)
                .map(|name| find(name))
                .collect::<Result<_, _>>()?,
            result: find(&abi.result)?,
            second: abi.second_result.as_deref().map(find).transpose()?,
            error: match abi.error {
                ErrorStyle::Negative => None,
                ErrorStyle::MipsA3 => Some(find("a3")?),
                ErrorStyle::PpcSummaryOverflow => Some(find("cr0")?),
            },
            stack: find(&abi.stack_pointer)?,
            start: abi
                .at_start
                .iter()
                .map(|(name, value)| Ok((find(name)?, *value)))
                .collect::<Result<_, MachineError>>()?,
            toc: match abi.family {
                AbiFamily::Ppc64 => Some(find("r2")?),
                _ => None,
            },
            style: abi.error,
            family: abi.family,
            functions: match &profile.functions {
                None => None,
                Some(functions) => Some(Functions {
                    arguments: functions
                        .arguments
                        .iter()
                        .map(|name| find(name))
                        .collect::<Result<_, _>>()?,
                    stack_arguments: u64::from(functions.stack_arguments),
                    link: functions.link.as_deref().map(find).transpose()?,
                }),
            },
        })
    }

    /// Makes a register hold the number of a call, as if the program had put it there.
    pub(crate) fn set_number(&self, machine: &mut dyn Machine, number: u64) {
        machine.set(self.number, number);
    }

    /// The register with a call's number, and the one with its result.
    pub(crate) fn of_call(&self) -> (Reg, Reg) {
        (self.number, self.result)
    }

    /// Whether a failed call's result is a negative number.
    pub(crate) fn fails_negative(&self) -> bool {
        self.style == ErrorStyle::Negative
    }

    /// The number of the call being made.
    pub(crate) fn number(&self, machine: &dyn Machine) -> u64 {
        quirks::call_number(self.family, machine).unwrap_or_else(|| machine.get(self.number))
    }

    /// The same of a call that is another ABI's.
    pub(crate) fn compat_arguments(&self, machine: &dyn Machine, abi: &Abi) -> [u64; 8] {
        let mut words = [0; 8];
        for (word, register) in words.iter_mut().zip(&self.compat_arguments) {
            *word = abi.cut(machine.get(*register));
        }
        words
    }

    /// The raw argument words, as many as there are registers; the rest from the stack where the ABI says so.
    pub(crate) fn arguments(&self, machine: &dyn Machine, abi: &Abi) -> [u64; 8] {
        let mut words = [0; 8];
        for (word, register) in words.iter_mut().zip(&self.arguments) {
            *word = abi.cut(machine.get(*register));
        }
        if let Some(offset) = abi.stack_arguments {
            let top = machine.get(self.stack).wrapping_add(u64::from(offset));
            for (index, word) in words.iter_mut().skip(self.arguments.len()).take(4).enumerate() {
                let mut bytes = [0; 4];
                if machine
                    .read(abi.cut(top.wrapping_add(4 * index as u64)), &mut bytes)
                    .is_ok()
                {
                    *word = u64::from(abi.get_u32(bytes));
                }
            }
        }
        words
    }

    /// Writes a call's result: the only place that does.
    pub(crate) fn answer(&self, machine: &mut dyn Machine, abi: &Abi, result: Result<u64, Errno>) {
        let number = result.map_err(|errno| errno.number(abi.family));
        let (value, failed) = match (self.style, number) {
            (_, Ok(value)) => (value, false),
            (ErrorStyle::Negative, Err(errno)) => (errno.wrapping_neg(), true),
            (_, Err(errno)) => (errno, true),
        };
        machine.set(self.result, abi.cut(value));
        match (self.style, self.error) {
            (ErrorStyle::MipsA3, Some(register)) => machine.set(register, u64::from(failed)),
            (ErrorStyle::PpcSummaryOverflow, Some(register)) => {
                let condition = machine.get(register) & !1;
                machine.set(register, condition | u64::from(failed));
            }
            _ => {}
        }
    }

    /// Writes the second result (`pipe` on mips). Whether there is one.
    pub(crate) fn second_answer(&self, machine: &mut dyn Machine, value: u64) -> bool {
        let Some(register) = self.second else { return false };
        machine.set(register, value);
        true
    }
}

impl Registers {
    /// Registers of a program that starts; its addresses count from `base`. ppc64 ELFv1 (`e_flags` below 2): the entry is a
    /// descriptor.
    pub(crate) fn start(
        &self,
        machine: &mut dyn Machine,
        abi: &Abi,
        program: &Program,
        base: u64,
        stack: u64,
    ) {
        let mut entry = program.entry.wrapping_add(base);
        if let Some(toc) = self.toc
            && program.flags & 3 < 2
            && abi.big
        {
            let mut descriptor = [[0; 8]; 2];
            for (index, word) in descriptor.iter_mut().enumerate() {
                let _ = machine.read(entry.wrapping_add(8 * index as u64), word);
            }
            // Nobody has relocated it yet (arch/powerpc/kernel/process.c, start_thread).
            let [code, table] = descriptor.map(|word| abi.get_u64(word).wrapping_add(base));
            machine.set(toc, table);
            entry = code;
        }
        for (register, value) in &self.start {
            machine.set(*register, if *value == StartValue::Entry { entry } else { 0 });
        }
        machine.set(self.stack, stack);
        machine.jump(entry);
    }

    /// The registers of the first arguments: also those of a C function, except on i386.
    pub(crate) fn argument(&self, index: usize) -> Option<Reg> {
        self.arguments.get(index).copied()
    }
}
