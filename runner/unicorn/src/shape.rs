//! What Unicorn must be told about an architecture, made once from the `[unicorn]` part of its profile.

use hotcell_schema::arch::{ArchProfile, ByteOrder, SyscallTrap};
use unicorn_engine::{Arch, Mode};

use crate::{quirks::Quirk, registers};

/// A profile that this engine cannot use: a mistake in the profile, not in the sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    /// The profile has no `[unicorn]` part.
    #[error("architecture `{0}` has no [unicorn] part in its profile")]
    NotEmulated(String),
    /// A name in the profile means nothing to Unicorn.
    #[error("architecture `{arch}`: {what} `{name}` is not known")]
    Unknown {
        /// The profile.
        arch: String,
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// One register set before start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Unicorn's number.
    pub(crate) register: i32,
    /// Bits set in what is there.
    pub(crate) or: u64,
    /// The whole value instead.
    pub(crate) value: Option<u64>,
}

/// An architecture, ready to make instances of.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// `UC_ARCH_*`.
    pub(crate) arch: Arch,
    /// `UC_MODE_*`.
    pub(crate) mode: Mode,
    /// Number for `uc_ctl_set_cpu_model`.
    pub(crate) cpu: Option<i32>,
    /// 32 or 64.
    pub(crate) bits: u8,
    /// Byte order of guest data.
    pub(crate) order: ByteOrder,
    /// Program counter.
    pub(crate) pc: i32,
    /// Thread pointer, where it is a register that Unicorn can set.
    pub(crate) thread_pointer: Option<i32>,
    /// How a system call arrives.
    pub(crate) syscall: SyscallTrap,
    /// The interrupt of calls that are another ABI's.
    pub(crate) compat: Option<u32>,
    /// Whether the virtual TLB is needed.
    pub(crate) virtual_tlb: bool,
    /// Registers set before start.
    pub(crate) setup: Vec<Setup>,
    /// Named exceptions.
    pub(crate) quirks: Vec<Quirk>,
}

impl Shape {
    /// Reads the profile.
    pub(crate) fn new(profile: &ArchProfile) -> Result<Self, ShapeError> {
        let unknown = |what: &'static str, name: &str| ShapeError::Unknown {
            arch: profile.name.clone(),
            what,
            name: name.to_owned(),
        };
        let unicorn = profile
            .unicorn
            .as_ref()
            .ok_or_else(|| ShapeError::NotEmulated(profile.name.clone()))?;
        let arch = arch(&unicorn.arch).ok_or_else(|| unknown("unicorn.arch", &unicorn.arch))?;
        let mut bits = Mode::LITTLE_ENDIAN;
        for name in &unicorn.mode {
            bits |= mode(name).ok_or_else(|| unknown("unicorn.mode", name))?;
        }
        let register = |name: &str| registers::number(arch, name).ok_or_else(|| unknown("register", name));
        let mut setup = Vec::new();
        for one in &unicorn.setup {
            setup.push(Setup {
                register: register(&one.register)?,
                or: one.or.unwrap_or(0),
                value: one.value,
            });
        }
        let mut quirks = Vec::new();
        for name in &unicorn.quirks {
            quirks.push(Quirk::from_name(name).ok_or_else(|| unknown("quirk", name))?);
        }
        let cpu = match unicorn.cpu {
            None => None,
            Some(number) => {
                Some(i32::try_from(number).map_err(|_| unknown("unicorn.cpu", &number.to_string()))?)
            }
        };
        let thread_pointer = match &profile.abi.thread_pointer {
            // The x86 quirk sets a segment descriptor instead.
            Some(_) if quirks.contains(&Quirk::X86Gdt) => None,
            Some(name) => Some(register(name)?),
            None => None,
        };
        Ok(Self {
            arch,
            mode: bits,
            cpu,
            bits: profile.elf.class,
            order: profile.elf.byte_order,
            pc: register(&profile.abi.program_counter)?,
            thread_pointer,
            syscall: unicorn.syscall,
            compat: profile.abi.compat.as_ref().map(|compat| compat.interrupt),
            virtual_tlb: unicorn.virtual_tlb,
            setup,
            quirks,
        })
    }
}

fn arch(name: &str) -> Option<Arch> {
    Some(match name {
        "x86" => Arch::X86,
        "arm" => Arch::ARM,
        "arm64" => Arch::ARM64,
        "mips" => Arch::MIPS,
        "ppc" => Arch::PPC,
        "riscv" => Arch::RISCV,
        "s390x" => Arch::S390X,
        _ => return None,
    })
}

fn mode(name: &str) -> Option<Mode> {
    Some(match name {
        "little-endian" => Mode::LITTLE_ENDIAN,
        "big-endian" => Mode::BIG_ENDIAN,
        "arm" => Mode::ARM,
        "thumb" => Mode::THUMB,
        "armbe8" => Mode::ARMBE8,
        "16" => Mode::MODE_16,
        "32" => Mode::MODE_32,
        "64" => Mode::MODE_64,
        "mips32" => Mode::MIPS32,
        "mips64" => Mode::MIPS64,
        "ppc32" => Mode::PPC32,
        "ppc64" => Mode::PPC64,
        "riscv64" => Mode::RISCV64,
        _ => return None,
    })
}
