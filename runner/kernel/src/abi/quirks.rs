//! The real exceptions among architectures: what no table can say. Each converts and calls what is shared.

use hotcell_schema::arch::AbiFamily;
use hotcell_schema::outcome::FaultKind;

use crate::machine::Machine;

/// s390x: `svc N` with N above 0 holds the number in the instruction; `svc 0` means register 1. `None`: the register.
pub(crate) fn call_number(family: AbiFamily, machine: &dyn Machine) -> Option<u64> {
    const SVC: u8 = 0x0a;
    if family != AbiFamily::S390x {
        return None;
    }
    let after = machine.program_counter();
    let mut code = [0; 2];
    machine.read(after.wrapping_sub(2), &mut code).ok()?;
    match code {
        [SVC, 0] => None,
        [SVC, number] => Some(u64::from(number)),
        _ => None,
    }
}

/// x86_64: where the oldest programs jump to for three calls (`vsyscall`; arch/x86/entry/vsyscall). As in Linux there is no
/// code that anybody could read: who jumps there makes the call of this name, and is back at where it came from.
pub(crate) fn vsyscall(family: AbiFamily, address: u64) -> Option<&'static str> {
    const PAGE: u64 = 0xffff_ffff_ff60_0000;
    match (family, address.wrapping_sub(PAGE)) {
        (AbiFamily::X86_64, 0) => Some("gettimeofday"),
        (AbiFamily::X86_64, 0x400) => Some("time"),
        (AbiFamily::X86_64, 0x800) => Some("getcpu"),
        _ => None,
    }
}

/// The line of `/proc/PID/maps` that says so.
pub(crate) const VSYSCALL_MAP: &str =
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

/// i386 `set_thread_area`: fields of `struct user_desc` (arch/x86/include/uapi/asm/ldt.h): entry number, base address.
pub(crate) const USER_DESC_ENTRY: u64 = 0;
/// Offset of the base address in `struct user_desc`.
pub(crate) const USER_DESC_BASE: u64 = 4;
/// The entry that Linux gives first: GDT_ENTRY_TLS_MIN of i386, as the guest's selector 0x63 says.
pub(crate) const FIRST_TLS_ENTRY: u32 = 12;

/// x86_64 `arch_prctl` codes (arch/x86/include/uapi/asm/prctl.h).
pub(crate) mod arch_prctl {
    pub(crate) const SET_GS: u64 = 0x1001;
    pub(crate) const SET_FS: u64 = 0x1002;
    pub(crate) const GET_FS: u64 = 0x1003;
    pub(crate) const GET_GS: u64 = 0x1004;
}

/// i386 `socketcall` numbers (linux/net.h), in order from 1, as names of the calls they stand for.
pub(crate) const SOCKETCALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// Whether an instruction that the processor calls illegal is one that Linux answers with SIGTRAP: arm's breakpoints
/// (arch/arm/kernel/ptrace.c), every trap instruction of powerpc, and for a tracer that of s390x (arch/s390/kernel/traps.c).
pub(crate) fn is_breakpoint(
    family: AbiFamily,
    big: bool,
    machine: &dyn Machine,
    code: &[u8],
    traced: bool,
) -> bool {
    let [a, b, c, d, ..] = *code else { return false };
    // Instructions of arm are little-endian in every order of data.
    let word = if big && family != AbiFamily::ArmEabi {
        u32::from_be_bytes([a, b, c, d])
    } else {
        u32::from_le_bytes([a, b, c, d])
    };
    match family {
        AbiFamily::ArmEabi if is_thumb(machine) => word as u16 == 0xde01 || word == 0xa000_f7f0,
        AbiFamily::ArmEabi => word & 0x0fff_ffff == 0x07f0_01f0,
        // tdi, twi; tw, td.
        AbiFamily::Ppc32 | AbiFamily::Ppc64 => {
            matches!(word >> 26, 2 | 3) || word >> 26 == 31 && matches!(word >> 1 & 0x3ff, 4 | 68)
        }
        AbiFamily::S390x => traced && [a, b] == [0, 1],
        // INT1, which emulators do not know.
        AbiFamily::X86_64 | AbiFamily::I386 => a == 0xf1,
        _ => false,
    }
}

/// Where the program counter stands when the signal of an instruction comes: behind a breakpoint on x86 (Intel SDM volume 3A, 6.12: INT3,
/// INT1, INT 3), and behind whatever is not executed on s390x (Principles of Operation, "Operation exception"; the first two bits say the
/// length), elsewhere at the instruction.
pub(crate) fn pass_refused(family: AbiFamily, kind: FaultKind, machine: &mut dyn Machine, code: &[u8]) {
    let length = match (family, kind, code) {
        (AbiFamily::X86_64 | AbiFamily::I386, FaultKind::Breakpoint, [0xcc | 0xf1, ..]) => 1,
        (AbiFamily::X86_64 | AbiFamily::I386, FaultKind::Breakpoint, [0xcd, 0x03, ..]) => 2,
        (AbiFamily::S390x, FaultKind::Breakpoint | FaultKind::IllegalInstruction, [first, ..]) => {
            match first >> 6 {
                0 => 2,
                3 => 6,
                _ => 4,
            }
        }
        _ => return,
    };
    let behind = machine.program_counter().wrapping_add(length);
    machine.jump(behind);
}

/// x86: a handler begins without the trap, direction and resume flags (arch/x86/kernel/signal.c).
pub(crate) fn enter_handler(family: AbiFamily, machine: &mut dyn Machine) {
    const FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 16;
    let name = match family {
        AbiFamily::X86_64 => "rflags",
        AbiFamily::I386 => "eflags",
        _ => return,
    };
    if let Some(register) = machine.register(name) {
        let flags = machine.get(register);
        if flags & FLAGS != 0 {
            machine.set(register, flags & !FLAGS);
        }
    }
}

/// arm: the T bit of CPSR.
fn is_thumb(machine: &dyn Machine) -> bool {
    const THUMB: u64 = 1 << 5;
    let status = machine
        .register("cpsr")
        .map_or(0, |register| machine.get(register));
    status & THUMB != 0
}

/// arm: an address as [`Machine::jump`] takes it; which instruction set it is in says the T bit of CPSR, not the address.
pub(crate) fn landing(family: AbiFamily, machine: &dyn Machine, address: u64) -> u64 {
    if family == AbiFamily::ArmEabi {
        address & !1 | u64::from(is_thumb(machine))
    } else {
        address
    }
}
