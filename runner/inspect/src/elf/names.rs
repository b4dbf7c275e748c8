//! Names of the numbers in ELF headers. Tables.
//!
//! Sources: System V ABI, generic part, chapters 4 and 5; the processor supplements for ARM, MIPS, PowerPC, RISC-V.

use goblin::elf::header as eh;
use hotcell_schema::elf::Named;

/// A number with a name from a table of names and meanings.
pub(crate) fn named(value: u64, row: Option<(&str, &str)>) -> Named {
    let (name, title) = row.unwrap_or(("unknown", ""));
    Named {
        value,
        name: name.into(),
        title: title.into(),
    }
}

/// `e_type`.
pub(crate) fn file_type(value: u16) -> Named {
    let name = match value {
        0 => "none",
        1 => "relocatable",
        2 => "executable",
        3 => "shared-object",
        4 => "core",
        0xfe00..=0xfeff => "os-specific",
        0xff00..=0xffff => "processor-specific",
        _ => "unknown",
    };
    named(value.into(), Some((name, "")))
}

/// `e_ident[EI_OSABI]`.
pub(crate) fn os_abi(value: u8) -> Named {
    let row = match value {
        0 => ("SYSV", "System V"),
        1 => ("HPUX", "HP-UX"),
        2 => ("NETBSD", "NetBSD"),
        3 => ("GNU", "GNU and Linux"),
        6 => ("SOLARIS", "Solaris"),
        7 => ("AIX", "AIX"),
        8 => ("IRIX", "IRIX"),
        9 => ("FREEBSD", "FreeBSD"),
        10 => ("TRU64", "Tru64 UNIX"),
        11 => ("MODESTO", "Novell Modesto"),
        12 => ("OPENBSD", "OpenBSD"),
        13 => ("OPENVMS", "OpenVMS"),
        14 => ("NSK", "NonStop Kernel"),
        15 => ("AROS", "AROS"),
        16 => ("FENIXOS", "FenixOS"),
        17 => ("CLOUDABI", "CloudABI"),
        18 => ("OPENVOS", "OpenVOS"),
        64 => ("ARM_AEABI", "ARM EABI"),
        97 => ("ARM", "ARM"),
        255 => ("STANDALONE", "embedded, without system"),
        _ => return named(value.into(), None),
    };
    named(value.into(), Some(row))
}

/// `sh_type` without its prefix; unknown numbers as `0x…`.
pub(crate) fn section_type(value: u32, machine: u16) -> String {
    let name = match value {
        0 => "NULL",
        1 => "PROGBITS",
        2 => "SYMTAB",
        3 => "STRTAB",
        4 => "RELA",
        5 => "HASH",
        6 => "DYNAMIC",
        7 => "NOTE",
        8 => "NOBITS",
        9 => "REL",
        10 => "SHLIB",
        11 => "DYNSYM",
        14 => "INIT_ARRAY",
        15 => "FINI_ARRAY",
        16 => "PREINIT_ARRAY",
        17 => "GROUP",
        18 => "SYMTAB_SHNDX",
        19 => "RELR",
        0x6fff_fff5 => "GNU_ATTRIBUTES",
        0x6fff_fff6 => "GNU_HASH",
        0x6fff_fff7 => "GNU_LIBLIST",
        0x6fff_fff8 => "CHECKSUM",
        0x6fff_fffd => "GNU_VERDEF",
        0x6fff_fffe => "GNU_VERNEED",
        0x6fff_ffff => "GNU_VERSYM",
        0x7000_0000..=0x7fff_ffff => match (machine, value & 0xffff) {
            (eh::EM_ARM, 1) => "ARM_EXIDX",
            (eh::EM_ARM, 2) => "ARM_PREEMPTMAP",
            (eh::EM_ARM, 3) => "ARM_ATTRIBUTES",
            (eh::EM_AARCH64, 3) => "AARCH64_ATTRIBUTES",
            (eh::EM_X86_64, 1) => "X86_64_UNWIND",
            (eh::EM_RISCV, 3) => "RISCV_ATTRIBUTES",
            (eh::EM_MIPS | eh::EM_MIPS_RS3_LE, kind) => match kind {
                0 => "MIPS_LIBLIST",
                1 => "MIPS_MSYM",
                2 => "MIPS_CONFLICT",
                3 => "MIPS_GPTAB",
                4 => "MIPS_UCODE",
                5 => "MIPS_DEBUG",
                6 => "MIPS_REGINFO",
                0xd => "MIPS_OPTIONS",
                0x1e => "MIPS_DWARF",
                0x2a => "MIPS_ABIFLAGS",
                0x2b => "MIPS_XHASH",
                _ => return format!("{value:#x}"),
            },
            _ => return format!("{value:#x}"),
        },
        _ => return format!("{value:#x}"),
    };
    name.into()
}

/// `sh_flags`, lowest bit first; bits without a name as `0x…`.
pub(crate) fn section_flags(value: u64) -> Vec<String> {
    const NAMES: &[(u64, &str)] = &[
        (1, "write"),
        (1 << 1, "alloc"),
        (1 << 2, "exec"),
        (1 << 4, "merge"),
        (1 << 5, "strings"),
        (1 << 6, "info-link"),
        (1 << 7, "link-order"),
        (1 << 8, "os-nonconforming"),
        (1 << 9, "group"),
        (1 << 10, "tls"),
        (1 << 11, "compressed"),
        (1 << 21, "retain"),
    ];
    bits(value, NAMES)
}

/// Names of the set bits, lowest first, and one `0x…` for the rest.
pub(crate) fn bits(value: u64, table: &[(u64, &str)]) -> Vec<String> {
    let mut rest = value;
    let mut names = Vec::new();
    for (bit, name) in table {
        if value & bit != 0 {
            names.push((*name).into());
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names
}

/// `p_type` without its prefix; unknown numbers as `0x…`.
pub(crate) fn segment_type(value: u32, machine: u16) -> String {
    let name = match value {
        0 => "NULL",
        1 => "LOAD",
        2 => "DYNAMIC",
        3 => "INTERP",
        4 => "NOTE",
        5 => "SHLIB",
        6 => "PHDR",
        7 => "TLS",
        0x6474_e550 => "GNU_EH_FRAME",
        0x6474_e551 => "GNU_STACK",
        0x6474_e552 => "GNU_RELRO",
        0x6474_e553 => "GNU_PROPERTY",
        0x65a3_dbe6 => "OPENBSD_RANDOMIZE",
        0x65a3_dbe7 => "OPENBSD_WXNEEDED",
        0x7000_0000..=0x7fff_ffff => match (machine, value & 0xffff) {
            (eh::EM_ARM, 0) => "ARM_ARCHEXT",
            (eh::EM_ARM, 1) => "ARM_EXIDX",
            (eh::EM_AARCH64, 2) => "AARCH64_MEMTAG_MTE",
            (eh::EM_RISCV, 3) => "RISCV_ATTRIBUTES",
            (eh::EM_MIPS | eh::EM_MIPS_RS3_LE, 0) => "MIPS_REGINFO",
            (eh::EM_MIPS | eh::EM_MIPS_RS3_LE, 1) => "MIPS_RTPROC",
            (eh::EM_MIPS | eh::EM_MIPS_RS3_LE, 2) => "MIPS_OPTIONS",
            (eh::EM_MIPS | eh::EM_MIPS_RS3_LE, 3) => "MIPS_ABIFLAGS",
            _ => return format!("{value:#x}"),
        },
        _ => return format!("{value:#x}"),
    };
    name.into()
}

/// `r-x` and so on from `p_flags`.
pub(crate) fn permissions(flags: u32) -> String {
    [(4, 'r'), (2, 'w'), (1, 'x')]
        .into_iter()
        .map(|(bit, letter)| if flags & bit != 0 { letter } else { '-' })
        .collect()
}

/// `e_flags`, lowest field first.
pub(crate) fn header_flags(flags: u32, machine: u16) -> Vec<String> {
    match machine {
        eh::EM_ARM => arm_flags(flags),
        eh::EM_MIPS | eh::EM_MIPS_RS3_LE => mips_flags(flags),
        eh::EM_PPC => bits(
            flags.into(),
            &[
                (0x8000, "relocatable-lib"),
                (0x1_0000, "relocatable"),
                (0x8000_0000, "embedded"),
            ],
        ),
        eh::EM_PPC64 => {
            let mut names = match flags & 3 {
                1 => vec!["elfv1".to_owned()],
                2 => vec!["elfv2".to_owned()],
                3 => vec!["abi-3".to_owned()],
                _ => Vec::new(),
            };
            names.extend(bits(u64::from(flags & !3), &[]));
            names
        }
        eh::EM_RISCV => {
            let mut names = bits(u64::from(flags & 1), &[(1, "rvc")]);
            let float = match (flags >> 1) & 3 {
                0 => "soft-float",
                1 => "single-float",
                2 => "double-float",
                _ => "quad-float",
            };
            names.push(float.into());
            names.extend(bits(u64::from(flags & !7), &[(8, "rve"), (16, "tso")]));
            names
        }
        _ => bits(flags.into(), &[]),
    }
}

/// ELF for the ARM architecture (IHI 0044), table 4-2; the older GNU bits before EABI version 1.
fn arm_flags(flags: u32) -> Vec<String> {
    const EABI: &[(u64, &str)] = &[
        (0x200, "soft-float"),
        (0x400, "hard-float"),
        (0x40_0000, "le8"),
        (0x80_0000, "be8"),
    ];
    const GNU: &[(u64, &str)] = &[
        (1, "relexec"),
        (2, "has-entry"),
        (4, "interwork"),
        (8, "apcs-26"),
        (0x10, "apcs-float"),
        (0x20, "pic"),
        (0x40, "align8"),
        (0x80, "new-abi"),
        (0x100, "old-abi"),
        (0x200, "soft-float"),
        (0x400, "vfp-float"),
        (0x800, "maverick-float"),
    ];
    let version = flags >> 24;
    let mut names = bits(
        u64::from(flags & 0xff_ffff),
        if version == 0 { GNU } else { EABI },
    );
    if version != 0 {
        names.push(format!("eabi{version}"));
    }
    names
}

/// MIPS: low bits, ABI, machine variant, application extensions, instruction set level.
fn mips_flags(flags: u32) -> Vec<String> {
    let mut names = bits(
        u64::from(flags & 0xfff),
        &[
            (1, "noreorder"),
            (2, "pic"),
            (4, "cpic"),
            (8, "xgot"),
            (0x10, "64bit-whirl"),
            (0x20, "abi2"),
            (0x40, "abi-on32"),
            (0x80, "options-first"),
            (0x100, "32bit-mode"),
            (0x200, "fp64"),
            (0x400, "nan2008"),
        ],
    );
    match flags & 0xf000 {
        0 => {}
        0x1000 => names.push("o32".into()),
        0x2000 => names.push("o64".into()),
        0x3000 => names.push("eabi32".into()),
        0x4000 => names.push("eabi64".into()),
        other => names.push(format!("abi-{other:#x}")),
    }
    match (flags >> 16) & 0xff {
        0 => {}
        0x81 => names.push("r3900".into()),
        0x82 => names.push("r4010".into()),
        0x83 => names.push("r4100".into()),
        0x85 => names.push("r4650".into()),
        0x87 => names.push("r4120".into()),
        0x88 => names.push("r4111".into()),
        0x8a => names.push("sb1".into()),
        0x8b => names.push("octeon".into()),
        0x8c => names.push("xlr".into()),
        0x8d => names.push("octeon2".into()),
        0x8e => names.push("octeon3".into()),
        0x91 => names.push("r5400".into()),
        0x92 => names.push("r5900".into()),
        0x98 => names.push("r5500".into()),
        0x99 => names.push("rm9000".into()),
        0xa0 => names.push("loongson-2e".into()),
        0xa1 => names.push("loongson-2f".into()),
        0xa2 => names.push("loongson-3a".into()),
        other => names.push(format!("machine-{other:#x}")),
    }
    names.extend(bits(
        u64::from(flags & 0x0f00_0000),
        &[
            (0x0200_0000, "micromips"),
            (0x0400_0000, "mips16"),
            (0x0800_0000, "mdmx"),
        ],
    ));
    let level = match flags >> 28 {
        0 => "mips1",
        1 => "mips2",
        2 => "mips3",
        3 => "mips4",
        4 => "mips5",
        5 => "mips32",
        6 => "mips64",
        7 => "mips32r2",
        8 => "mips64r2",
        9 => "mips32r6",
        10 => "mips64r6",
        _ => "mips-unknown",
    };
    names.push(level.into());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_real_files() {
        // busybox of Debian's armhf, armel and mipsel, and riscv64.
        assert_eq!(header_flags(0x0500_0400, eh::EM_ARM), ["hard-float", "eabi5"]);
        assert_eq!(header_flags(0x0500_0200, eh::EM_ARM), ["soft-float", "eabi5"]);
        assert_eq!(
            header_flags(0x7000_1005, eh::EM_MIPS),
            ["noreorder", "cpic", "o32", "mips32r2"]
        );
        assert_eq!(header_flags(5, eh::EM_RISCV), ["rvc", "double-float"]);
        assert_eq!(header_flags(2, eh::EM_PPC64), ["elfv2"]);
        assert_eq!(permissions(5), "r-x");
        assert_eq!(section_flags(0x8000_0006), ["alloc", "exec", "0x80000000"]);
    }
}
