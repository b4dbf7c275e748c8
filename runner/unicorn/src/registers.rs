//! Register names of the arch profiles and Unicorn's numbers for them.
//!
//! A name is the one that assemblers and debuggers use, in lower case. Families with consecutive numbers in
//! Unicorn's headers are computed; the rest is listed.

use unicorn_engine::{
    Arch, RegisterARM, RegisterARM64, RegisterMIPS, RegisterPPC, RegisterRISCV, RegisterS390X, RegisterX86,
};

/// Unicorn's number of the register with this name, or `None`.
pub(crate) fn number(arch: Arch, name: &str) -> Option<i32> {
    match arch {
        Arch::X86 => x86(name),
        Arch::ARM => arm(name),
        Arch::ARM64 => arm64(name),
        Arch::MIPS => mips(name),
        Arch::PPC => ppc(name),
        Arch::RISCV => riscv(name),
        Arch::S390X => s390x(name),
        _ => None,
    }
}

/// Names of the general registers, the program counter included: what a payload reports when it was not told which.
pub(crate) fn general(arch: Arch, bits: u8) -> Vec<String> {
    let row = |prefix: &str, count: usize| (0..count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    match (arch, bits) {
        (Arch::X86, 64) => {
            let mut names = list(&["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"]);
            names.extend((8..16).map(|n| format!("r{n}")));
            names.extend(list(&["rip", "rflags"]));
            names
        }
        (Arch::X86, _) => list(&[
            "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", "eflags",
        ]),
        (Arch::ARM, _) => [row("r", 13), list(&["sp", "lr", "pc", "cpsr"])].concat(),
        (Arch::ARM64, _) => [row("x", 31), list(&["sp", "pc"])].concat(),
        (Arch::MIPS, _) => [
            list(MIPS_NAMES.get(1..).unwrap_or_default()),
            list(&["hi", "lo", "pc"]),
        ]
        .concat(),
        (Arch::PPC, _) => [row("r", 32), list(&["lr", "ctr", "cr", "xer", "pc"])].concat(),
        (Arch::RISCV, _) => [list(RISCV_NAMES.get(1..).unwrap_or_default()), list(&["pc"])].concat(),
        (Arch::S390X, _) => [row("r", 16), list(&["pc"])].concat(),
        _ => Vec::new(),
    }
}

/// The number in `<prefix><number>`, if it is below `limit` and written without leading zeros.
fn index(name: &str, prefix: &str, limit: i32) -> Option<i32> {
    let digits = name.strip_prefix(prefix)?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    digits.parse().ok().filter(|number| (0..limit).contains(number))
}

fn named(name: &str, names: &[&str]) -> Option<i32> {
    names
        .iter()
        .position(|known| *known == name)
        .and_then(|at| i32::try_from(at).ok())
}

fn x86(name: &str) -> Option<i32> {
    use RegisterX86 as R;
    if let Some(n) = index(name, "xmm", 16) {
        return Some(R::XMM0 as i32 + n);
    }
    if let Some(n) = index(name, "st", 8) {
        return Some(R::ST0 as i32 + n);
    }
    if let Some(n) = index(name, "r", 16).filter(|n| *n >= 8) {
        return Some(R::R8 as i32 + n - 8);
    }
    let register = match name {
        "rax" => R::RAX,
        "rbx" => R::RBX,
        "rcx" => R::RCX,
        "rdx" => R::RDX,
        "rsi" => R::RSI,
        "rdi" => R::RDI,
        "rbp" => R::RBP,
        "rsp" => R::RSP,
        "rip" => R::RIP,
        "rflags" => R::RFLAGS,
        "eax" => R::EAX,
        "ebx" => R::EBX,
        "ecx" => R::ECX,
        "edx" => R::EDX,
        "esi" => R::ESI,
        "edi" => R::EDI,
        "ebp" => R::EBP,
        "esp" => R::ESP,
        "eip" => R::EIP,
        "eflags" => R::EFLAGS,
        "cs" => R::CS,
        "ds" => R::DS,
        "es" => R::ES,
        "fs" => R::FS,
        "gs" => R::GS,
        "ss" => R::SS,
        "fs_base" => R::FS_BASE,
        "gs_base" => R::GS_BASE,
        "fpcw" => R::FPCW,
        "fpsw" => R::FPSW,
        "fptag" => R::FPTAG,
        "mxcsr" => R::MXCSR,
        "cr0" => R::CR0,
        "cr2" => R::CR2,
        "cr3" => R::CR3,
        "cr4" => R::CR4,
        "gdtr" => R::GDTR,
        _ => return None,
    };
    Some(register as i32)
}

fn arm(name: &str) -> Option<i32> {
    use RegisterARM as R;
    if let Some(n) = index(name, "r", 13) {
        return Some(R::R0 as i32 + n);
    }
    if let Some(n) = index(name, "d", 32) {
        return Some(R::D0 as i32 + n);
    }
    let register = match name {
        "fp" => R::R11,
        "ip" => R::R12,
        "sp" | "r13" => R::SP,
        "lr" | "r14" => R::LR,
        "pc" | "r15" => R::PC,
        "cpsr" => R::CPSR,
        "fpscr" => R::FPSCR,
        "fpexc" => R::FPEXC,
        "c1_c0_2" | "cpacr" => R::C1_C0_2,
        "c13_c0_2" | "tpidrurw" => R::C13_C0_2,
        "c13_c0_3" | "tpidruro" => R::C13_C0_3,
        _ => return None,
    };
    Some(register as i32)
}

fn arm64(name: &str) -> Option<i32> {
    use RegisterARM64 as R;
    if let Some(n) = index(name, "x", 29) {
        return Some(R::X0 as i32 + n);
    }
    if let Some(n) = index(name, "d", 32) {
        return Some(R::D0 as i32 + n);
    }
    let register = match name {
        "x29" | "fp" => R::X29,
        "x30" | "lr" => R::X30,
        "sp" => R::SP,
        "pc" => R::PC,
        "pstate" => R::PSTATE,
        "fpcr" => R::FPCR,
        "fpsr" => R::FPSR,
        "cpacr_el1" => R::CPACR_EL1,
        "tpidr_el0" => R::TPIDR_EL0,
        "tpidrro_el0" => R::TPIDRRO_EL0,
        _ => return None,
    };
    Some(register as i32)
}

/// Names of the MIPS general registers in the o32 convention, by number.
const MIPS_NAMES: [&str; 32] = [
    "zero", "at", "v0", "v1", "a0", "a1", "a2", "a3", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "s0",
    "s1", "s2", "s3", "s4", "s5", "s6", "s7", "t8", "t9", "k0", "k1", "gp", "sp", "fp", "ra",
];

fn mips(name: &str) -> Option<i32> {
    use RegisterMIPS as R;
    if let Some(n) = named(name, &MIPS_NAMES).or_else(|| index(name, "r", 32)) {
        return Some(R::R0 as i32 + n);
    }
    // n64 calls registers 8 to 11 a4 to a7.
    if let Some(n) = index(name, "a", 8).filter(|n| *n >= 4) {
        return Some(R::R0 as i32 + 4 + n);
    }
    if let Some(n) = index(name, "f", 32) {
        return Some(R::F0 as i32 + n);
    }
    let register = match name {
        "s8" => R::R30,
        "pc" => R::PC,
        "hi" => R::HI,
        "lo" => R::LO,
        "status" | "cp0_status" => R::CP0_STATUS,
        "userlocal" | "cp0_userlocal" => R::CP0_USERLOCAL,
        "config3" | "cp0_config3" => R::CP0_CONFIG3,
        "fcsr" => R::FCSR,
        _ => return None,
    };
    Some(register as i32)
}

fn ppc(name: &str) -> Option<i32> {
    use RegisterPPC as R;
    if let Some(n) = index(name, "r", 32) {
        return Some(R::R0 as i32 + n);
    }
    if let Some(n) = index(name, "f", 32) {
        return Some(R::FPR0 as i32 + n);
    }
    if let Some(n) = index(name, "cr", 8) {
        return Some(R::CR0 as i32 + n);
    }
    let register = match name {
        "sp" => R::R1,
        "pc" | "nip" => R::PC,
        "lr" => R::LR,
        "ctr" => R::CTR,
        "cr" => R::CR,
        "xer" => R::XER,
        "msr" => R::MSR,
        "fpscr" => R::FPSCR,
        _ => return None,
    };
    Some(register as i32)
}

/// Names of the RISC-V general registers in the standard calling convention, by number.
const RISCV_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

fn riscv(name: &str) -> Option<i32> {
    use RegisterRISCV as R;
    if let Some(n) = named(name, &RISCV_NAMES).or_else(|| index(name, "x", 32)) {
        return Some(R::X0 as i32 + n);
    }
    if let Some(n) = index(name, "f", 32) {
        return Some(R::F0 as i32 + n);
    }
    let register = match name {
        "fp" => R::X8,
        "pc" => R::PC,
        "mstatus" => R::MSTATUS,
        "fcsr" => R::FCSR,
        _ => return None,
    };
    Some(register as i32)
}

fn s390x(name: &str) -> Option<i32> {
    use RegisterS390X as R;
    if let Some(n) = index(name, "r", 16) {
        return Some(R::R0 as i32 + n);
    }
    if let Some(n) = index(name, "a", 16) {
        return Some(R::A0 as i32 + n);
    }
    if let Some(n) = index(name, "f", 16) {
        return Some(R::F0 as i32 + n);
    }
    if let Some(n) = index(name, "cr", 16) {
        return Some(R::CR0 as i32 + n);
    }
    let register = match name {
        "sp" => R::R15,
        "pc" => R::PC,
        "pswm" => R::PSWM,
        "fpc" => R::FPC,
        _ => return None,
    };
    Some(register as i32)
}
