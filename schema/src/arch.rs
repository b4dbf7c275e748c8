//! An architecture is data: the model of `arch-profiles/<arch>.toml`.
//!
//! A profile says what an architecture looks like in an ELF header, how Linux passes system calls on it, how Unicorn
//! and QEMU emulate it, and which guests exist for it. No other code branches on an architecture's name; what data
//! cannot say is a named quirk.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArchProfile {
    /// The name used in manifests and events, for instance `mipsel`.
    pub name: String,
    /// Other names people use for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// A line for people.
    pub title: String,
    /// How an ELF file of this architecture is recognised.
    pub elf: ElfIdentity,
    /// The Linux system call ABI.
    pub abi: Abi,
    /// How C functions call each other; absent where nobody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Functions>,
    /// How Unicorn emulates it; absent where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unicorn: Option<UnicornProfile>,
    /// How capstone disassembles it; absent where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capstone: Option<CapstoneProfile>,
    /// How QEMU emulates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<QemuProfile>,
    /// Debian's name for it (`dpkg --print-architecture`), if Debian has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<String>,
    /// Guest systems known to exist, for instance `debian-12`, `openwrt`.
    #[serde(default)]
    pub guests: Vec<String>,
}

/// How an ELF file is recognised. (System V ABI, chapter 4, and the processor supplements.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ElfIdentity {
    /// `e_machine` values.
    pub machine: Vec<u16>,
    /// 32 or 64: the ELF class.
    pub class: u8,
    /// Byte order of data.
    pub byte_order: ByteOrder,
    /// Bits of `e_flags` that must have a given value, for variants that share an `e_machine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagMatch>,
}

/// `e_flags & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FlagMatch {
    /// Which bits are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// The Linux system call ABI of an architecture. (`man 2 syscall`, tables "Arch/ABI".)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Abi {
    /// Which column of the syscall table and which structure layouts.
    pub family: AbiFamily,
    /// Word size in bits: 32 or 64.
    pub word: u8,
    /// Register with the call's number.
    pub number: String,
    /// Registers with the arguments, in order: four to six.
    pub arguments: Vec<String>,
    /// Where the fifth and further arguments stand when there are too few registers: bytes above the stack pointer of
    /// the first of them (mips o32: 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_arguments: Option<u16>,
    /// Whether a 64-bit argument on a 32-bit ABI takes an even and an odd register (arm, mips, ppc).
    #[serde(default)]
    pub aligned_pairs: bool,
    /// Register with the result.
    pub result: String,
    /// Second result register (`pipe` on mips).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_result: Option<String>,
    /// How an error is told.
    pub error: ErrorStyle,
    /// Program counter.
    pub program_counter: String,
    /// Stack pointer.
    pub stack_pointer: String,
    /// Register that holds the thread pointer, where the kernel or the guest sets it directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_pointer: Option<String>,
    /// Registers set when a program starts, beyond program counter and stack pointer: name to value. The value is a
    /// number or `entry` (the entry address).
    #[serde(default)]
    pub at_start: BTreeMap<String, StartValue>,
    /// `uname -m`, for instance `armv7l`.
    pub machine: String,
    /// AT_PLATFORM, if the architecture has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// AT_HWCAP.
    #[serde(default)]
    pub hwcap: u64,
    /// AT_HWCAP2.
    #[serde(default)]
    pub hwcap2: u64,
    /// Page size in bytes.
    pub page_size: u32,
    /// First address past user space: where the stack's top goes below.
    pub task_size: u64,
    /// Where the architecture differs from the others of its family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quirks: Vec<AbiQuirk>,
    /// A second way to make calls, which programs of this architecture have too (x86_64: `int $0x80`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compat: Option<CompatAbi>,
}

/// How programs make calls of another ABI than their own: numbers and structures are that one's, words are 32 bits. The registers
/// of number and result are their own ABI's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CompatAbi {
    /// Whose numbers and structures.
    pub family: AbiFamily,
    /// The interrupt that makes such a call.
    pub interrupt: u32,
    /// Registers with the arguments, in order.
    pub arguments: Vec<String>,
    /// First address past what such calls map.
    pub task_size: u64,
}

/// How C functions call each other, for arguments that are integers or addresses. (The psABI of each processor.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Functions {
    /// Registers with the first arguments, in order.
    pub arguments: Vec<String>,
    /// Where the others stand when a function begins: bytes above the stack pointer.
    pub stack_arguments: u16,
    /// Register with the address to return to; absent: it is on top of the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Bits of a function's address that choose an instruction set and are no part of the address (arm: 1).
    #[serde(default)]
    pub mode_bit: u8,
}

/// Where an architecture's Linux ABI differs from the others of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AbiQuirk {
    /// aarch64: `O_DIRECTORY`, `O_NOFOLLOW`, `O_DIRECT` and `O_LARGEFILE` have arm's values, not the generic ones.
    ArmOpenFlags,
    /// riscv64: `struct sigaction` has no `sa_restorer`.
    NoSignalRestorer,
}

/// Value of a register when a program starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartValue {
    /// The program's entry address.
    Entry,
    /// Zero.
    Zero,
}

/// Families of Linux ABIs that share syscall numbers and structure layouts. A column of the syscall table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AbiFamily {
    /// `arch/x86/entry/syscalls/syscall_64.tbl`.
    X86_64,
    /// `arch/x86/entry/syscalls/syscall_32.tbl`.
    I386,
    /// `arch/arm/tools/syscall.tbl`, EABI.
    ArmEabi,
    /// `include/uapi/asm-generic/unistd.h`, 64 bits (aarch64, riscv64).
    Generic64,
    /// `arch/mips/kernel/syscalls/syscall_o32.tbl` (numbers from 4000).
    MipsO32,
    /// `arch/mips/kernel/syscalls/syscall_n64.tbl` (numbers from 5000).
    MipsN64,
    /// `arch/powerpc/kernel/syscalls/syscall.tbl`, 32 bits.
    Ppc32,
    /// The same table, 64 bits.
    Ppc64,
    /// `arch/s390/kernel/syscalls/syscall.tbl`, 64 bits.
    S390x,
}

/// How a system call tells an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorStyle {
    /// The result is the negative error number.
    Negative,
    /// mips: the result is the positive error number and `a3` is 1 (else 0).
    MipsA3,
    /// ppc: the result is the positive error number and the summary overflow bit of `cr0` is set (else cleared).
    PpcSummaryOverflow,
}

/// How Unicorn emulates the architecture. Names are those of Unicorn's constants without their prefix, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UnicornProfile {
    /// `UC_ARCH_*`: `x86`, `arm`, `arm64`, `mips`, `ppc`, `riscv`, `s390x`.
    pub arch: String,
    /// `UC_MODE_*` bits, for instance `["mips32", "big-endian"]`.
    pub mode: Vec<String>,
    /// Number for `uc_ctl_set_cpu_model`; absent: Unicorn's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// How a system call arrives.
    pub syscall: SyscallTrap,
    /// Whether the virtual TLB is needed.
    #[serde(default)]
    pub virtual_tlb: bool,
    /// Bits set in registers before the first instruction, in order.
    #[serde(default)]
    pub setup: Vec<RegisterSetup>,
    /// Named exceptions that are code in `hotcell-unicorn`, for instance `x86-gdt`, `mips64-tlb`, `arm-kuser`.
    #[serde(default)]
    pub quirks: Vec<String>,
    /// Length of a cell's slices in percent of the common one: a slow architecture gets longer ones. Never written: it changes
    /// no result, so that no cache key, lock file or job holds it.
    #[serde(default, skip_serializing)]
    #[schemars(with = "u32", range(min = 10, max = 1000))]
    pub weight: Weight,
}

/// A part of the common length of slices, in percent: 10 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u32")]
pub struct Weight(NonZeroU32);

impl Weight {
    /// The smallest: a tenth of the common slice.
    pub const LEAST: u32 = 10;
    /// The greatest: ten common slices.
    pub const MOST: u32 = 1_000;

    /// The percent.
    pub fn percent(self) -> NonZeroU32 {
        self.0
    }
}

impl Default for Weight {
    /// The common slice.
    fn default() -> Self {
        const WHOLE: NonZeroU32 = NonZeroU32::new(100).unwrap();
        Self(WHOLE)
    }
}

impl TryFrom<u32> for Weight {
    type Error = String;

    fn try_from(percent: u32) -> Result<Self, String> {
        let within = NonZeroU32::new(percent).filter(|_| (Self::LEAST..=Self::MOST).contains(&percent));
        let wanted = || {
            format!(
                "a weight is {} to {} percent, not {percent}",
                Self::LEAST,
                Self::MOST
            )
        };
        within.map(Self).ok_or_else(wanted)
    }
}

/// How a system call arrives from Unicorn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyscallTrap {
    /// The `SYSCALL` instruction hook (x86_64).
    Instruction,
    /// An interrupt with this number.
    Interrupt(u32),
}

/// One register set before start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegisterSetup {
    /// The register.
    pub register: String,
    /// Bits to set in what is there (`value` then absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub or: Option<u64>,
    /// The whole value (`or` then absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// How capstone disassembles the architecture: names of its constants without prefix, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CapstoneProfile {
    /// `CS_ARCH_*`, for instance `mips`.
    pub arch: String,
    /// `CS_MODE_*` bits, for instance `["mips32", "big-endian"]`.
    pub mode: Vec<String>,
}

/// How QEMU emulates the architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QemuProfile {
    /// User-mode executable, for instance `qemu-mipsel`.
    pub user: String,
    /// System executable; absent where no system guest is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Machine type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// CPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Accelerators to try, in order.
    #[serde(default)]
    pub accelerators: Vec<String>,
    /// Kernel console, for instance `ttyS0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// Least and greatest memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_range: Option<(u32, u32)>,
    /// Disk formats.
    #[serde(default)]
    pub disk_formats: Vec<String>,
    /// Disk buses.
    #[serde(default)]
    pub disk_buses: Vec<String>,
    /// Network models.
    #[serde(default)]
    pub network_models: Vec<String>,
    /// Firmware image, where one is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Template of the firmware's variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvram: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_bounded_and_never_written() {
        let profile = |weight: &str| {
            let text = format!(r#"{{"arch":"x86","mode":[],"syscall":"instruction"{weight}}}"#);
            serde_json::from_str::<UnicornProfile>(&text)
        };
        assert_eq!(profile("").unwrap().weight.percent().get(), 100);
        let heavy = profile(r#","weight":1000"#).unwrap();
        assert_eq!(heavy.weight.percent().get(), 1000);
        assert!(!serde_json::to_string(&heavy).unwrap().contains("weight"));
        for wrong in ["0", "9", "1001", "-1", "1.5"] {
            assert!(profile(&format!(r#","weight":{wrong}"#)).is_err(), "{wrong}");
        }
    }
}
