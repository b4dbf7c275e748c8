//! Flag words that differ between architectures, converted once at the border, and the names they have in events.

use hotcell_schema::arch::AbiFamily;

use super::Abi;

/// `open(2)` flags, with the kernel's generic values.
pub(crate) mod open {
    pub(crate) const WRITE_ONLY: u64 = 1;
    pub(crate) const ACCESS: u64 = 3;
    pub(crate) const CREATE: u64 = 0o100;
    pub(crate) const EXCLUSIVE: u64 = 0o200;
    pub(crate) const TRUNCATE: u64 = 0o1000;
    pub(crate) const APPEND: u64 = 0o2000;
    pub(crate) const NONBLOCK: u64 = 0o4000;
    pub(crate) const DIRECT: u64 = 0o40000;
    pub(crate) const DIRECTORY: u64 = 0o200_000;
    pub(crate) const NO_FOLLOW: u64 = 0o400_000;
    pub(crate) const CLOSE_ON_EXEC: u64 = 0o2_000_000;
    pub(crate) const PATH: u64 = 0o10_000_000;
    pub(crate) const TEMPORARY: u64 = 0o20_000_000;
}

/// Generic value, arm's (and aarch64's), powerpc's, mips', name.
const OPEN: &[(u64, u64, u64, u64, &str)] = &[
    (0o100, 0o100, 0o100, 0x100, "O_CREAT"),
    (0o200, 0o200, 0o200, 0x400, "O_EXCL"),
    (0o400, 0o400, 0o400, 0x800, "O_NOCTTY"),
    (0o1000, 0o1000, 0o1000, 0x200, "O_TRUNC"),
    (0o2000, 0o2000, 0o2000, 0x8, "O_APPEND"),
    (0o4000, 0o4000, 0o4000, 0x80, "O_NONBLOCK"),
    (0o10000, 0o10000, 0o10000, 0x10, "O_DSYNC"),
    (0o20000, 0o20000, 0o20000, 0x1000, "FASYNC"),
    (0o40000, 0o200_000, 0o400_000, 0x8000, "O_DIRECT"),
    (0o100_000, 0o400_000, 0o200_000, 0x2000, "O_LARGEFILE"),
    (0o200_000, 0o40000, 0o40000, 0x10000, "O_DIRECTORY"),
    (0o400_000, 0o100_000, 0o100_000, 0x20000, "O_NOFOLLOW"),
    (0o1_000_000, 0o1_000_000, 0o1_000_000, 0x40000, "O_NOATIME"),
    (0o2_000_000, 0o2_000_000, 0o2_000_000, 0x80000, "O_CLOEXEC"),
    (0o4_000_000, 0o4_000_000, 0o4_000_000, 0x4000, "__O_SYNC"),
    (0o10_000_000, 0o10_000_000, 0o10_000_000, 0x20_0000, "O_PATH"),
    (0o20_000_000, 0o20_000_000, 0o20_000_000, 0x40_0000, "__O_TMPFILE"),
];

fn open_column(abi: &Abi, row: &(u64, u64, u64, u64, &str)) -> u64 {
    if abi.is_mips() {
        row.3
    } else if abi.is_ppc() {
        row.2
    } else if abi.arm_open_flags {
        row.1
    } else {
        row.0
    }
}

/// Open flags of the guest as generic ones. Unknown bits are dropped, as Linux does for open.
pub(crate) fn open_in(abi: &Abi, flags: u64) -> u64 {
    let known = OPEN
        .iter()
        .filter(|row| flags & open_column(abi, row) != 0)
        .map(|row| row.0);
    known.fold(flags & open::ACCESS, |all, bit| all | bit)
}

/// Generic open flags as the guest's.
pub(crate) fn open_out(abi: &Abi, flags: u64) -> u64 {
    let known = OPEN
        .iter()
        .filter(|row| flags & row.0 != 0)
        .map(|row| open_column(abi, row));
    known.fold(flags & open::ACCESS, |all, bit| all | bit)
}

/// Names of the guest's open flags.
pub(crate) fn open_names(abi: &Abi, flags: u64) -> Vec<String> {
    let access = match flags & open::ACCESS {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    let mut names = vec![access.to_owned()];
    let mut rest = flags & !open::ACCESS;
    for row in OPEN {
        let bit = open_column(abi, row);
        if rest & bit != 0 {
            rest &= !bit;
            names.push(row.4.to_owned());
        }
    }
    leftover(names, rest)
}

fn leftover(mut names: Vec<String>, rest: u64) -> Vec<String> {
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names
}

/// Names of the bits that are set.
pub(crate) fn names(table: &[(u64, &str)], value: u64) -> Vec<String> {
    let mut rest = value;
    let mut found = Vec::new();
    for (bit, name) in table {
        if *bit != 0 && rest & bit == *bit {
            rest &= !bit;
            found.push((*name).to_owned());
        }
    }
    leftover(found, rest)
}

/// `mmap` protection bits.
pub(crate) const PROTECTION: &[(u64, &str)] = &[
    (1, "PROT_READ"),
    (2, "PROT_WRITE"),
    (4, "PROT_EXEC"),
    (0x0100_0000, "PROT_GROWSDOWN"),
    (0x0200_0000, "PROT_GROWSUP"),
];

const MAP: &[(u64, &str)] = &[
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];

const MAP_MIPS: &[(u64, &str)] = &[
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (0x10, "MAP_FIXED"),
    (0x400, "MAP_NORESERVE"),
    (0x800, "MAP_ANONYMOUS"),
    (0x1000, "MAP_GROWSDOWN"),
    (0x2000, "MAP_DENYWRITE"),
    (0x4000, "MAP_EXECUTABLE"),
    (0x8000, "MAP_LOCKED"),
    (0x1_0000, "MAP_POPULATE"),
    (0x4_0000, "MAP_STACK"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];

/// Names of the guest's mmap flags.
pub(crate) fn map_names(abi: &Abi, flags: u64) -> Vec<String> {
    names(if abi.is_mips() { MAP_MIPS } else { MAP }, flags)
}

/// MAP_32BIT, which x86_64 alone has (arch/x86/include/uapi/asm/mman.h).
pub(crate) fn map_low(abi: &Abi) -> u64 {
    match abi.family {
        AbiFamily::X86_64 => 0x40,
        _ => 0,
    }
}

/// The guest's MAP_ANONYMOUS.
pub(crate) fn map_anonymous(abi: &Abi) -> u64 {
    if abi.is_mips() { 0x800 } else { 0x20 }
}

/// The guest's MAP_NORESERVE.
pub(crate) fn map_no_reserve(abi: &Abi) -> u64 {
    match () {
        () if abi.is_mips() => 0x400,
        () if abi.is_ppc() => 0x40,
        () => 0x4000,
    }
}

/// `clone` flags.
pub(crate) const CLONE: &[(u64, &str)] = &[
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"),
    (0x4000, "CLONE_VFORK"),
    (0x8000, "CLONE_PARENT"),
    (0x1_0000, "CLONE_THREAD"),
    (0x2_0000, "CLONE_NEWNS"),
    (0x4_0000, "CLONE_SYSVSEM"),
    (0x8_0000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x40_0000, "CLONE_DETACHED"),
    (0x80_0000, "CLONE_UNTRACED"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
    (0x200_0000, "CLONE_NEWCGROUP"),
    (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
];

/// `AT_*` flags of the calls that take a directory descriptor.
pub(crate) const AT: &[(u64, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
];

/// `access` modes.
pub(crate) const ACCESS: &[(u64, &str)] = &[(4, "R_OK"), (2, "W_OK"), (1, "X_OK")];

/// `wait4` options.
pub(crate) const WAIT: &[(u64, &str)] = &[
    (1, "WNOHANG"),
    (2, "WUNTRACED"),
    (4, "WEXITED"),
    (8, "WCONTINUED"),
    (0x100_0000, "WNOWAIT"),
    (0x2000_0000, "__WNOTHREAD"),
    (0x4000_0000, "__WALL"),
    (0x8000_0000, "__WCLONE"),
];

/// `AF_*` numbers, the same everywhere.
pub(crate) const FAMILIES: &[(u64, &str)] = &[
    (0, "AF_UNSPEC"),
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (10, "AF_INET6"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
];

/// Socket types; mips swaps the first two.
pub(crate) fn socket_type(abi: &Abi, value: u64) -> &'static str {
    match (value & 0xf, abi.is_mips()) {
        (1, false) | (2, true) => "SOCK_STREAM",
        (2, false) | (1, true) => "SOCK_DGRAM",
        (3, _) => "SOCK_RAW",
        (4, _) => "SOCK_RDM",
        (5, _) => "SOCK_SEQPACKET",
        (10, _) => "SOCK_PACKET",
        _ => "SOCK_UNKNOWN",
    }
}

/// Clock numbers.
pub(crate) const CLOCKS: &[(u64, &str)] = &[
    (0, "CLOCK_REALTIME"),
    (1, "CLOCK_MONOTONIC"),
    (2, "CLOCK_PROCESS_CPUTIME_ID"),
    (3, "CLOCK_THREAD_CPUTIME_ID"),
    (4, "CLOCK_MONOTONIC_RAW"),
    (5, "CLOCK_REALTIME_COARSE"),
    (6, "CLOCK_MONOTONIC_COARSE"),
    (7, "CLOCK_BOOTTIME"),
];

/// `lseek` origins.
pub(crate) const WHENCE: &[(u64, &str)] = &[
    (0, "SEEK_SET"),
    (1, "SEEK_CUR"),
    (2, "SEEK_END"),
    (3, "SEEK_DATA"),
    (4, "SEEK_HOLE"),
];

/// `fcntl` commands that are the same everywhere.
pub(crate) const FCNTL: &[(u64, &str)] = &[
    (0, "F_DUPFD"),
    (1, "F_GETFD"),
    (2, "F_SETFD"),
    (3, "F_GETFL"),
    (4, "F_SETFL"),
    (1030, "F_DUPFD_CLOEXEC"),
    (1031, "F_SETPIPE_SZ"),
    (1032, "F_GETPIPE_SZ"),
];

/// The name of one value of a set.
pub(crate) fn name(table: &[(u64, &str)], value: u64) -> Option<String> {
    table
        .iter()
        .find(|(number, _)| *number == value)
        .map(|(_, name)| (*name).to_owned())
}

/// Requests of `ptrace(2)` that mean the same everywhere (uapi/linux/ptrace.h), and those that many have.
pub(crate) const PTRACE: &[(u64, &str)] = &[
    (0, "PTRACE_TRACEME"),
    (1, "PTRACE_PEEKTEXT"),
    (2, "PTRACE_PEEKDATA"),
    (3, "PTRACE_PEEKUSER"),
    (4, "PTRACE_POKETEXT"),
    (5, "PTRACE_POKEDATA"),
    (6, "PTRACE_POKEUSER"),
    (7, "PTRACE_CONT"),
    (8, "PTRACE_KILL"),
    (9, "PTRACE_SINGLESTEP"),
    (12, "PTRACE_GETREGS"),
    (13, "PTRACE_SETREGS"),
    (16, "PTRACE_ATTACH"),
    (17, "PTRACE_DETACH"),
    (24, "PTRACE_SYSCALL"),
    (0x4200, "PTRACE_SETOPTIONS"),
    (0x4201, "PTRACE_GETEVENTMSG"),
    (0x4202, "PTRACE_GETSIGINFO"),
    (0x4203, "PTRACE_SETSIGINFO"),
    (0x4204, "PTRACE_GETREGSET"),
    (0x4205, "PTRACE_SETREGSET"),
    (0x4206, "PTRACE_SEIZE"),
    (0x4207, "PTRACE_INTERRUPT"),
    (0x4208, "PTRACE_LISTEN"),
    (0x4209, "PTRACE_PEEKSIGINFO"),
    (0x420a, "PTRACE_GETSIGMASK"),
    (0x420b, "PTRACE_SETSIGMASK"),
    (0x420e, "PTRACE_GET_SYSCALL_INFO"),
];

/// Flags of timers and sleeps (uapi/linux/time.h).
pub(crate) const TIMER: &[(u64, &str)] = &[(1, "TIMER_ABSTIME")];
