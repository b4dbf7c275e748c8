//! The real exceptions among architectures: what no table can say. Each converts and calls what is shared.

use hotcell_schema::arch::AbiFamily;

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
