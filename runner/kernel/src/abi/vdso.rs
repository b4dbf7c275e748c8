//! What Linux's shared object of calls holds on each architecture: symbols, versions and instructions (vdso(7);
//! arch/*/kernel/vdso*/*.lds.S of Linux 6.1). [`crate::load::vdso`] makes an ELF file of it.
//!
//! Code is a text of numbers in hexadecimal, each as wide as its digits say and in the order of bytes that instructions have;
//! `+N` adds the number of the system call, `+N<<S` adds it shifted.
//!
//! Linux answers most clocks from memory. Here every function makes its call: a clock is the same whoever asks.

use hotcell_schema::arch::{ArchProfile, ByteOrder};

use crate::table::table;

/// One architecture's object.
pub(crate) struct Vdso {
    /// `e_machine` and class of the programs that get it.
    elf: (u16, u8),
    /// `e_flags`, of little-endian and of big-endian ones.
    flags: [u32; 2],
    pub(crate) soname: &'static str,
    /// Versions of symbols, the first for all but those that say otherwise.
    pub(crate) versions: &'static [&'static str],
    functions: &'static [Function],
    /// Instructions are little-endian also where data is not.
    little: bool,
    /// Bytes of a word of the hash table: 8 on s390x (zSeries ELF ABI supplement), 4 elsewhere.
    pub(crate) hash: usize,
}

struct Function {
    /// Its symbols; none: nothing but the kernel knows of it.
    symbols: &'static [&'static str],
    /// Which of the object's versions they have.
    version: usize,
    code: &'static str,
    /// The system call that `N` is.
    call: &'static str,
}

const fn function(symbols: &'static [&'static str], code: &'static str, call: &'static str) -> Function {
    Function {
        symbols,
        version: 0,
        code,
        call,
    }
}

const fn of_second(one: Function) -> Function {
    Function { version: 1, ..one }
}

/// Instructions of a function, and what it is called.
pub(crate) struct Routine {
    pub(crate) symbols: &'static [&'static str],
    pub(crate) version: usize,
    pub(crate) call: &'static str,
    pub(crate) code: Vec<u8>,
}

/// The symbol that AT_SYSINFO names.
pub(crate) const SYSTEM_CALL: &str = "__kernel_vsyscall";
/// The call of the function that handlers of signals return to.
pub(crate) const SIGNAL_RETURN: &str = "rt_sigreturn";

/// mov $N, %eax; syscall; ret
const X86_64: &str = "b8 00000000+N 0f 05 c3";
/// push %ebx; mov 8(%esp), %ebx; mov 12(%esp), %ecx; mov 16(%esp), %edx; mov $N, %eax; int $0x80; pop %ebx; ret
const I386: &str = "53 8b 5c 24 08 8b 4c 24 0c 8b 54 24 10 b8 00000000+N cd 80 5b c3";
/// push {r7}; movw r7, #N; svc 0; pop {r7}; bx lr
const ARM: &str = "e52d7004 e3007000+N ef000000 e49d7004 e12fff1e";
/// mov x8, #N; svc 0; ret
const AARCH64: &str = "d2800008+N<<5 d4000001 d65f03c0";
/// li a7, N; ecall; ret
const RISCV: &str = "00000893+N<<20 00000073 00008067";
/// li v0, N; syscall; beqz a3, 1f; nop; negu v0, v0; 1: jr ra; nop
const MIPS_O32: &str = "24020000+N 0000000c 10e00002 00000000 00021023 03e00008 00000000";
/// The same with dnegu.
const MIPS_N64: &str = "24020000+N 0000000c 10e00002 00000000 0002102f 03e00008 00000000";
/// li r0, N; sc; blr. An error stays in cr0 and a positive number, as callers expect it (asm/vdso.h).
const PPC: &str = "38000000+N 44000002 4e800020";
/// lghi %r1, N; svc 0; br %r14
const S390X: &str = "a7190000+N 0a00 07fe";

static OBJECTS: [Vdso; 10] = [
    Vdso {
        elf: (62, 64),
        flags: [0; 2],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_2.6"],
        functions: &[
            function(
                &["__vdso_clock_gettime", "clock_gettime"],
                X86_64,
                "clock_gettime",
            ),
            function(&["__vdso_gettimeofday", "gettimeofday"], X86_64, "gettimeofday"),
            function(&["__vdso_clock_getres", "clock_getres"], X86_64, "clock_getres"),
            function(&["__vdso_time", "time"], X86_64, "time"),
            function(&["__vdso_getcpu", "getcpu"], X86_64, "getcpu"),
            function(&[], "b8 00000000+N 0f 05", SIGNAL_RETURN),
        ],
        little: true,
        hash: 4,
    },
    Vdso {
        elf: (3, 32),
        flags: [0; 2],
        soname: "linux-gate.so.1",
        versions: &["LINUX_2.6", "LINUX_2.5"],
        functions: &[
            function(&["__vdso_clock_gettime"], I386, "clock_gettime"),
            function(&["__vdso_clock_gettime64"], I386, "clock_gettime64"),
            function(&["__vdso_gettimeofday"], I386, "gettimeofday"),
            function(&["__vdso_clock_getres"], I386, "clock_getres"),
            function(&["__vdso_time"], I386, "time"),
            of_second(function(&[SYSTEM_CALL], "cd 80 c3", "")),
            // pop %eax; mov $N, %eax; int $0x80
            of_second(function(
                &["__kernel_sigreturn"],
                "58 b8 00000000+N cd 80",
                "sigreturn",
            )),
            of_second(function(
                &["__kernel_rt_sigreturn"],
                "b8 00000000+N cd 80",
                SIGNAL_RETURN,
            )),
        ],
        little: true,
        hash: 4,
    },
    Vdso {
        elf: (40, 32),
        // EF_ARM_EABI_VER5, EF_ARM_BE8.
        flags: [0x0500_0000, 0x0580_0000],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_2.6"],
        functions: &[
            function(&["__vdso_clock_gettime"], ARM, "clock_gettime"),
            function(&["__vdso_clock_gettime64"], ARM, "clock_gettime64"),
            function(&["__vdso_gettimeofday"], ARM, "gettimeofday"),
            function(&["__vdso_clock_getres"], ARM, "clock_getres"),
            // mov r7, #N; svc 0
            function(&[], "e3a07000+N ef000000", SIGNAL_RETURN),
        ],
        little: true,
        hash: 4,
    },
    Vdso {
        elf: (183, 64),
        flags: [0; 2],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_2.6.39"],
        functions: &[
            function(&["__kernel_clock_gettime"], AARCH64, "clock_gettime"),
            function(&["__kernel_gettimeofday"], AARCH64, "gettimeofday"),
            function(&["__kernel_clock_getres"], AARCH64, "clock_getres"),
            function(
                &["__kernel_rt_sigreturn"],
                "d2800008+N<<5 d4000001",
                SIGNAL_RETURN,
            ),
        ],
        little: true,
        hash: 4,
    },
    Vdso {
        elf: (243, 64),
        // EF_RISCV_RVC.
        flags: [1; 2],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_4.15"],
        functions: &[
            function(&["__vdso_clock_gettime"], RISCV, "clock_gettime"),
            function(&["__vdso_gettimeofday"], RISCV, "gettimeofday"),
            function(&["__vdso_clock_getres"], RISCV, "clock_getres"),
            function(&["__vdso_getcpu"], RISCV, "getcpu"),
            function(&["__vdso_flush_icache"], RISCV, "riscv_flush_icache"),
            function(&["__vdso_rt_sigreturn"], "00000893+N<<20 00000073", SIGNAL_RETURN),
        ],
        little: true,
        hash: 4,
    },
    Vdso {
        elf: (8, 32),
        // EF_MIPS_ARCH_32R2, ABI_O32, NOREORDER, PIC, CPIC.
        flags: [0x7000_1007; 2],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_2.6"],
        functions: &[
            function(&["__vdso_clock_gettime"], MIPS_O32, "clock_gettime"),
            function(&["__vdso_clock_gettime64"], MIPS_O32, "clock_gettime64"),
            function(&["__vdso_gettimeofday"], MIPS_O32, "gettimeofday"),
            function(&["__vdso_clock_getres"], MIPS_O32, "clock_getres"),
            function(&[], "24020000+N 0000000c", SIGNAL_RETURN),
        ],
        little: false,
        hash: 4,
    },
    Vdso {
        elf: (8, 64),
        // EF_MIPS_ARCH_64R2, NOREORDER, PIC, CPIC.
        flags: [0x8000_0007; 2],
        soname: "linux-vdso.so.1",
        versions: &["LINUX_2.6"],
        functions: &[
            function(&["__vdso_clock_gettime"], MIPS_N64, "clock_gettime"),
            function(&["__vdso_gettimeofday"], MIPS_N64, "gettimeofday"),
            function(&["__vdso_clock_getres"], MIPS_N64, "clock_getres"),
            function(&[], "24020000+N 0000000c", SIGNAL_RETURN),
        ],
        little: false,
        hash: 4,
    },
    Vdso {
        elf: (20, 32),
        flags: [0; 2],
        soname: "linux-vdso32.so.1",
        versions: &["LINUX_2.6.15"],
        functions: &[
            function(&["__kernel_clock_gettime"], PPC, "clock_gettime"),
            function(&["__kernel_clock_gettime64"], PPC, "clock_gettime64"),
            function(&["__kernel_clock_getres"], PPC, "clock_getres"),
            function(&["__kernel_gettimeofday"], PPC, "gettimeofday"),
            function(&["__kernel_time"], PPC, "time"),
            function(&["__kernel_sigtramp32"], "38000000+N 44000002", "sigreturn"),
            function(&["__kernel_sigtramp_rt32"], "38000000+N 44000002", SIGNAL_RETURN),
        ],
        little: false,
        hash: 4,
    },
    Vdso {
        elf: (21, 64),
        // Version 2 of the ABI where it is little-endian. Symbols are instructions in both, never descriptors.
        flags: [2, 0],
        soname: "linux-vdso64.so.1",
        versions: &["LINUX_2.6.15"],
        functions: &[
            function(&["__kernel_clock_gettime"], PPC, "clock_gettime"),
            function(&["__kernel_clock_getres"], PPC, "clock_getres"),
            function(&["__kernel_gettimeofday"], PPC, "gettimeofday"),
            function(&["__kernel_time"], PPC, "time"),
            function(&["__kernel_getcpu"], PPC, "getcpu"),
            function(&["__kernel_sigtramp_rt64"], "38000000+N 44000002", SIGNAL_RETURN),
        ],
        little: false,
        hash: 4,
    },
    Vdso {
        elf: (22, 64),
        flags: [0; 2],
        soname: "linux-vdso64.so.1",
        versions: &["LINUX_2.6.29"],
        functions: &[
            function(&["__kernel_clock_gettime"], S390X, "clock_gettime"),
            function(&["__kernel_gettimeofday"], S390X, "gettimeofday"),
            function(&["__kernel_clock_getres"], S390X, "clock_getres"),
            function(&["__kernel_getcpu"], S390X, "getcpu"),
            // svc N
            function(&["__kernel_rt_sigreturn"], "0a00+N", SIGNAL_RETURN),
            function(&["__kernel_sigreturn"], "0a00+N", "sigreturn"),
        ],
        little: false,
        hash: 8,
    },
];

impl Vdso {
    /// The object that Linux gives programs of this architecture.
    pub(crate) fn of(profile: &ArchProfile) -> Option<&'static Self> {
        OBJECTS
            .iter()
            .find(|one| one.elf.1 == profile.elf.class && profile.elf.machine.contains(&one.elf.0))
    }

    pub(crate) fn flags(&self, order: ByteOrder) -> u32 {
        let [little, big] = self.flags;
        if order == ByteOrder::Big { big } else { little }
    }

    /// Its functions, but those of calls that the architecture does not have.
    pub(crate) fn routines(&self, profile: &ArchProfile) -> Vec<Routine> {
        let big = profile.elf.byte_order == ByteOrder::Big && !self.little;
        let made = |one: &Function| {
            let row = table().by_name(one.call);
            let number = match (one.call, row) {
                ("", _) => 0,
                (_, row) => row?.number(profile.abi.family)?,
            };
            Some(Routine {
                symbols: one.symbols,
                version: one.version,
                call: one.call,
                code: assemble(one.code, number, big)?,
            })
        };
        self.functions.iter().filter_map(made).collect()
    }
}

/// The bytes of a text of code.
fn assemble(text: &str, number: u64, big: bool) -> Option<Vec<u8>> {
    let mut code = Vec::new();
    for word in text.split_whitespace() {
        let (digits, added) = match word.split_once("+N") {
            None => (word, 0),
            Some((digits, "")) => (digits, number),
            Some((digits, shift)) => (digits, number << shift.strip_prefix("<<")?.parse::<u32>().ok()?),
        };
        let value = u64::from_str_radix(digits, 16).ok()?.checked_add(added)?;
        let bytes = value.to_be_bytes();
        let bytes = bytes.get(8usize.checked_sub(digits.len() / 2)?..)?;
        if big {
            code.extend(bytes);
        } else {
            code.extend(bytes.iter().rev());
        }
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_holds_the_number_of_its_call() {
        assert_eq!(
            assemble(X86_64, 228, false).unwrap(),
            [0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0xc3]
        );
        // mov x8, #113
        assert_eq!(
            assemble("d2800008+N<<5", 113, false).unwrap(),
            0xd280_0e28_u32.to_le_bytes()
        );
        // lghi %r1, 260
        assert_eq!(
            assemble(S390X, 260, true).unwrap(),
            [0xa7, 0x19, 1, 4, 0x0a, 0, 0x07, 0xfe]
        );
        assert!(assemble("xx", 0, true).is_none());
    }
}
