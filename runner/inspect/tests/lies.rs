//! Headers that are cut off, overlap or lie: each is a finding, and everything else is still read.
#![allow(clippy::unwrap_used)]

mod common;

use common::{at, elf64, look, put, rules};
use hotcell_schema::elf::{FileKind, InstructionClass, Linkage, Relro};

#[test]
fn a_well_formed_file_has_no_findings() {
    let result = look(&elf64());
    assert_eq!(rules(&result), [""; 0]);
    let info = result.info;
    assert_eq!((info.kind, info.linkage), (FileKind::Elf, Some(Linkage::Static)));
    assert_eq!(info.arch.as_deref(), Some("x86_64"));
    assert_eq!(info.sections[1].name, ".text");
    assert_eq!(info.sections[1].flags, ["alloc", "exec"]);
    let hardening = info.hardening.unwrap();
    assert_eq!(
        (hardening.nx, hardening.relro, hardening.canary),
        (Some(true), Relro::None, None)
    );
    assert!(hardening.stripped && !hardening.pie);
    let header = info.header.unwrap();
    assert_eq!(header.entry_offset, Some(at::CODE as u64));
    let disassembly = info.disassembly.unwrap();
    let texts: Vec<_> = disassembly.entry.as_ref().unwrap().instructions[..3]
        .iter()
        .map(|instruction| (instruction.text.as_str(), instruction.class))
        .collect();
    assert_eq!(
        texts,
        [
            ("mov eax, 0x3c", InstructionClass::Move),
            ("xor edi, edi", InstructionClass::Logic),
            ("syscall", InstructionClass::Syscall)
        ]
    );
    assert_eq!(disassembly.statistics.bytes, 16);
    assert_eq!(disassembly.statistics.classes[&InstructionClass::Nop], 7);
}

/// Offsets and what is written there.
type Changes = Vec<(usize, Vec<u8>)>;

/// Each case: what is overwritten, and findings that must be among the answer's.
#[test]
fn every_lie_is_a_finding() {
    let long = |value: u64| value.to_le_bytes().to_vec();
    let cases: Vec<(&str, Changes, Vec<&str>)> = vec![
        ("class 9", vec![(4, vec![9])], vec!["elf/bad-class"]),
        (
            "class 32 in a 64-bit body",
            vec![(4, vec![1])],
            vec!["elf/lying-ident"],
        ),
        (
            "big-endian in a little-endian body",
            vec![(5, vec![2])],
            vec!["elf/lying-ident"],
        ),
        ("version 7", vec![(6, vec![7])], vec!["elf/bad-header-version"]),
        ("machine 230", vec![(18, vec![230])], vec!["elf/unknown-machine"]),
        (
            "entry outside",
            vec![(24, long(0x1234))],
            vec!["elf/entry-outside-code"],
        ),
        ("phentsize 57", vec![(54, vec![57])], vec!["elf/bad-entry-size"]),
        (
            "65000 segments",
            vec![(56, vec![0xe8, 0xfd])],
            vec!["elf/segment-table-past-end", "elf/lying-count"],
        ),
        ("shentsize 0", vec![(58, vec![0])], vec!["elf/bad-entry-size"]),
        (
            "60000 sections",
            vec![(60, vec![0x60, 0xea])],
            vec!["elf/section-table-past-end", "elf/lying-count"],
        ),
        (
            "shoff past the end",
            vec![(40, long(1 << 40))],
            vec!["elf/section-table-past-end"],
        ),
        (
            "shoff at the top",
            vec![(40, long(u64::MAX - 8))],
            vec!["elf/section-table-past-end"],
        ),
        ("shstrndx 77", vec![(62, vec![77])], vec!["elf/bad-name-table"]),
        (
            "name outside",
            vec![(at::TEXT, vec![0xff, 0xff])],
            vec!["elf/bad-name"],
        ),
        (
            "segment past the end",
            vec![(at::LOAD + 32, long(1 << 33))],
            vec!["elf/segment-past-end", "elf/segment-sizes"],
        ),
        (
            "huge memory",
            vec![(at::LOAD + 40, long(1 << 40))],
            vec!["elf/huge-segment"],
        ),
        (
            "wrapping segment",
            vec![(at::LOAD + 16, long(u64::MAX - 0xf))],
            vec!["elf/segment-wraps"],
        ),
        (
            "writable code",
            vec![(at::LOAD + 4, vec![7])],
            vec!["elf/writable-executable-segment"],
        ),
        (
            "entry not executable",
            vec![(at::LOAD + 4, vec![4])],
            vec!["elf/entry-outside-code", "elf/lying-section-header"],
        ),
        (
            "no load segment",
            vec![(at::LOAD, vec![4])],
            vec!["elf/no-loaded-segment"],
        ),
        (
            "odd alignment",
            vec![(at::LOAD + 48, vec![3])],
            vec!["elf/misaligned-segment"],
        ),
        (
            "executable stack",
            vec![(at::STACK + 4, vec![7])],
            vec!["elf/executable-stack"],
        ),
        (
            "overlapping segments",
            vec![
                (at::STACK, vec![1, 0, 0, 0]),
                (at::STACK + 16, long(0x40_0010)),
                (at::STACK + 40, long(16)),
            ],
            vec!["elf/overlapping-segments"],
        ),
        (
            "segments in disorder",
            vec![
                (at::STACK, vec![1, 0, 0, 0]),
                (at::STACK + 16, long(0x1000)),
                (at::STACK + 40, long(16)),
            ],
            vec!["elf/segment-order"],
        ),
        (
            "empty segment",
            vec![(at::STACK, vec![1, 0, 0, 0])],
            vec!["elf/empty-segment"],
        ),
        (
            "second stack",
            vec![(at::LOAD, vec![0x51, 0xe5, 0x74, 0x64])],
            vec!["elf/duplicate-segment"],
        ),
        (
            "interpreter without end",
            vec![
                (at::STACK, vec![3, 0, 0, 0]),
                (at::STACK + 8, long(at::CODE as u64)),
                (at::STACK + 32, long(2)),
            ],
            vec!["elf/bad-interpreter"],
        ),
        (
            "dynamic table without end",
            vec![
                (at::STACK, vec![2, 0, 0, 0]),
                (at::STACK + 8, long(at::CODE as u64)),
                (at::STACK + 32, long(16)),
            ],
            vec!["elf/bad-dynamic-section"],
        ),
        (
            "note without end",
            vec![
                (at::STACK, vec![4, 0, 0, 0]),
                (at::STACK + 8, long(at::CODE as u64)),
                (at::STACK + 32, long(16)),
            ],
            vec!["elf/bad-note"],
        ),
        (
            "section past the end",
            vec![(at::TEXT + 32, long(1 << 50))],
            vec!["elf/section-past-end"],
        ),
        (
            "section over the header",
            vec![(at::TEXT + 24, long(0))],
            vec!["elf/section-over-header", "elf/lying-section-header"],
        ),
        (
            "section elsewhere",
            vec![(at::TEXT + 24, long(0xa0))],
            vec!["elf/lying-section-header"],
        ),
        (
            "section in no segment",
            vec![(at::TEXT + 16, long(0x99_0000))],
            vec!["elf/section-outside-segments"],
        ),
        (
            "overlapping sections",
            vec![(at::TEXT + 32, long(20))],
            vec!["elf/overlapping-sections"],
        ),
        (
            "names without end",
            vec![(at::SHSTRTAB + 32, long(15))],
            vec!["elf/unterminated-string-table"],
        ),
        (
            "same name twice",
            vec![(at::SHSTRTAB, vec![1])],
            vec!["elf/duplicate-section-name"],
        ),
        (
            "link to nowhere",
            vec![(at::TEXT + 4, vec![2]), (at::TEXT + 40, vec![9])],
            vec!["elf/bad-section-link", "elf/bad-entry-size"],
        ),
        (
            "no sections",
            vec![(40, long(0)), (60, vec![0])],
            vec!["elf/no-section-headers"],
        ),
    ];
    for (name, changes, expected) in cases {
        let mut file = elf64();
        for (offset, bytes) in changes {
            put(&mut file, offset, &bytes);
        }
        let result = look(&file);
        let found = rules(&result);
        for rule in expected {
            assert!(found.contains(&rule), "{name}: {rule} is not in {found:?}");
        }
        assert!(!found.contains(&"inspect/parser-panic"), "{name}: {found:?}");
        assert_eq!(result.info.kind, FileKind::Elf);
        for finding in &result.findings {
            assert!(!finding.evidence.is_empty(), "{name}: {}", finding.rule);
        }
    }
}

#[test]
fn a_lying_identification_does_not_blind() {
    let mut file = elf64();
    put(&mut file, 4, &[1, 2]);
    let info = look(&file).info;
    assert_eq!(info.arch.as_deref(), Some("x86_64"));
    assert_eq!(info.header.unwrap().class, 64);
    assert_eq!(info.sections[1].name, ".text");
}

#[test]
fn cut_off_anywhere() {
    let file = elf64();
    for length in 0..file.len() {
        let result = look(&file[..length]);
        assert_eq!(result.info.length, length as u64);
        assert!(!rules(&result).contains(&"inspect/parser-panic"), "{length}");
        if (4..64).contains(&length) {
            assert!(rules(&result).contains(&"elf/truncated-header"), "{length}");
        }
    }
}

#[test]
fn trailing_bytes_are_told() {
    let mut file = elf64();
    let end = file.len() as u64;
    file.extend([7; 100]);
    let result = look(&file);
    assert_eq!(rules(&result), ["elf/trailing-data"]);
    assert_eq!(result.findings[0].evidence[0].offset, Some(end));
}

#[test]
fn a_packed_shape_is_packed() {
    // No sections, dense executable segment with room before it, UPX's magic.
    let mut file = elf64();
    put(&mut file, 40, &[0; 8]);
    put(&mut file, 60, &[0]);
    let mut state = 1u32;
    file.extend((0..8192).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    let length = file.len() as u64;
    put(&mut file, at::LOAD + 32, &length.to_le_bytes());
    put(&mut file, at::LOAD + 40, &length.to_le_bytes());
    let dense = look(&file);
    assert!(dense.info.packer.packed && dense.info.packer.name.is_none());
    put(&mut file, at::NAMES, b"UPX!");
    let upx = look(&file);
    assert_eq!(upx.info.packer.name.as_deref(), Some("upx"));
    let finding = upx
        .findings
        .iter()
        .find(|finding| finding.rule == "packer/packed")
        .unwrap();
    assert_eq!(finding.attack, ["T1027.002"]);
    assert_eq!(finding.evidence[0].offset, Some(at::NAMES as u64));
}
