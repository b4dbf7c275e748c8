//! Unicorn's exception numbers and error codes as typed faults.
//!
//! Numbers are those of QEMU's `target/<arch>/cpu.h`, which Unicorn hands to its interrupt hook.

use hotcell_kernel::machine::Trap;
use hotcell_schema::outcome::FaultKind;
use unicorn_engine::{Arch, MemType, uc_error};

/// What an exception that is not a system call means.
pub(crate) fn from_interrupt(arch: Arch, number: u32) -> FaultKind {
    match (arch, number) {
        // Intel SDM volume 3A, table 6-1.
        (Arch::X86, 0 | 16 | 19) => FaultKind::Arithmetic,
        (Arch::X86, 1 | 3) => FaultKind::Breakpoint,
        (Arch::X86, 6) => FaultKind::IllegalInstruction,
        (Arch::X86, 17) => FaultKind::Unaligned,
        // target/arm/cpu.h: EXCP_UDEF 1, EXCP_PREFETCH_ABORT 3, EXCP_DATA_ABORT 4, EXCP_BKPT 7, EXCP_INVSTATE 18.
        (Arch::ARM | Arch::ARM64, 1 | 18) => FaultKind::IllegalInstruction,
        (Arch::ARM | Arch::ARM64, 4) => FaultKind::Unaligned,
        (Arch::ARM | Arch::ARM64, 7) => FaultKind::Breakpoint,
        // target/mips/cpu.h: EXCP_AdEL 12, EXCP_AdES 13, EXCP_DBE 15, EXCP_BREAK 18, EXCP_CpU 19, EXCP_RI 20,
        // EXCP_OVERFLOW 21, EXCP_TRAP 22, EXCP_FPE 23.
        (Arch::MIPS, 12 | 13) => FaultKind::Unaligned,
        (Arch::MIPS, 18 | 22) => FaultKind::Breakpoint,
        (Arch::MIPS, 19 | 20) => FaultKind::IllegalInstruction,
        (Arch::MIPS, 21 | 23) => FaultKind::Arithmetic,
        // target/ppc/cpu.h: POWERPC_EXCP_ALIGN 5, PROGRAM 6 (privileged or trap), FPU 7, VPU 73, HV_EMU 96 (illegal).
        (Arch::PPC, 5) => FaultKind::Unaligned,
        (Arch::PPC, 6 | 7 | 73 | 96) => FaultKind::IllegalInstruction,
        // RISC-V privileged specification, table of mcause.
        (Arch::RISCV, 2) => FaultKind::IllegalInstruction,
        (Arch::RISCV, 3) => FaultKind::Breakpoint,
        (Arch::RISCV, 4 | 6) => FaultKind::Unaligned,
        // target/s390x/cpu.h: EXCP_PGM 3.
        (Arch::S390X, 3) => FaultKind::IllegalInstruction,
        _ => FaultKind::Exception,
    }
}

/// x86: what an interrupt means that an instruction raised, and how far behind it the program counter stands. `before`: the bytes
/// in front of there. A program may raise 3 and 4; others are refused it (Intel SDM volume 3A, section 6.12.1.2). What a
/// program's own instructions cause too is taken for that: the bytes may be the end of any instruction. `stepped`: the trap
/// flag is set.
pub(crate) fn raised(arch: Arch, number: u32, before: [u8; 2], stepped: bool) -> Option<(FaultKind, u64)> {
    const INT3: u8 = 0xcc;
    const INT: u8 = 0xcd;
    match (arch, number, before) {
        (Arch::X86, 3, [_, INT3]) => Some((FaultKind::Breakpoint, 1)),
        (Arch::X86, 3, [INT, 3]) => Some((FaultKind::Breakpoint, 2)),
        (Arch::X86, 0 | 4 | 6 | 13, _) => None,
        (Arch::X86, 1, _) if stepped => None,
        (Arch::X86, number, [INT, raised]) if number == u32::from(raised) => Some((FaultKind::Exception, 2)),
        _ => None,
    }
}

/// The address of an invalid access as the guest names it: on x86_64 the C library knows its lower 52 bits.
pub(crate) fn address(arch: Arch, bits: u8, address: u64) -> u64 {
    const UNKNOWN: u32 = 64 - 52;
    match (arch, bits) {
        (Arch::X86, 64) => (address << UNKNOWN)
            .cast_signed()
            .wrapping_shr(UNKNOWN)
            .cast_unsigned(),
        _ => address,
    }
}

/// What an invalid memory access means.
pub(crate) fn from_access(kind: MemType) -> FaultKind {
    match kind {
        MemType::READ_UNMAPPED => FaultKind::ReadUnmapped,
        MemType::WRITE_UNMAPPED => FaultKind::WriteUnmapped,
        MemType::FETCH_UNMAPPED => FaultKind::FetchUnmapped,
        MemType::READ_PROT => FaultKind::ReadProtected,
        MemType::WRITE_PROT => FaultKind::WriteProtected,
        MemType::FETCH_PROT => FaultKind::FetchProtected,
        _ => FaultKind::Exception,
    }
}

/// What an error of `uc_emu_start` means, where no hook told more.
pub(crate) fn from_error(arch: Arch, error: uc_error) -> Trap {
    let kind = match error {
        // The only exception that the C library makes an error of there.
        uc_error::INSN_INVALID if arch == Arch::RISCV => FaultKind::Breakpoint,
        uc_error::READ_UNMAPPED => FaultKind::ReadUnmapped,
        uc_error::WRITE_UNMAPPED => FaultKind::WriteUnmapped,
        uc_error::FETCH_UNMAPPED => FaultKind::FetchUnmapped,
        uc_error::READ_PROT => FaultKind::ReadProtected,
        uc_error::WRITE_PROT => FaultKind::WriteProtected,
        uc_error::FETCH_PROT => FaultKind::FetchProtected,
        uc_error::READ_UNALIGNED | uc_error::WRITE_UNALIGNED | uc_error::FETCH_UNALIGNED => {
            FaultKind::Unaligned
        }
        uc_error::INSN_INVALID => FaultKind::IllegalInstruction,
        _ => FaultKind::Exception,
    };
    Trap { kind, address: None }
}

/// How far past the instruction Unicorn's program counter stands in the interrupt hook when the exception is not
/// a system call: it adds four on these architectures whatever the exception was.
pub(crate) fn overshoot(arch: Arch) -> u64 {
    match arch {
        Arch::PPC | Arch::RISCV => 4,
        _ => 0,
    }
}
