use proptest::prelude::*;

use super::*;
use crate::tests::{profile, profiles, tiny_elf};

fn read(bytes: &[u8], profile: &ArchProfile) -> Result<Program, ElfError> {
    parse(bytes, profile, &Abi::new(profile))
}

#[test]
fn a_program_of_every_architecture_is_read() {
    for profile in profiles() {
        let program = read(&tiny_elf(&profile), &profile).unwrap();
        assert_eq!(program.entry, 0x40_0200, "{}", profile.name);
        assert_eq!(program.segments.len(), 1);
        assert_eq!(program.segments[0].memory, 8192);
        assert_eq!(program.segments[0].protection, Protection(7));
        assert_eq!(
            program.headers,
            0x40_0000 + if profile.elf.class == 64 { 64 } else { 52 }
        );
    }
}

#[test]
fn a_truncated_program_is_refused_wherever_it_ends() {
    for name in ["x86_64", "mips"] {
        let profile = profile(name);
        let whole = tiny_elf(&profile);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &profile).is_err(), "{name} {length}");
        }
    }
}

#[test]
fn another_architecture_is_named() {
    let error = read(&tiny_elf(&profile("mips")), &profile("mipsel")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "made for another architecture (e_machine 8, 32 bits, big-endian) than `mipsel`"
    );
    assert_eq!(read(b"#!/bin/sh\n", &profile("mips")), Err(ElfError::NotElf));
}

/// x86_64: places of the fields of the only program header.
const OFFSET: usize = 64 + 8;
const ADDRESS: usize = 64 + 16;
const FILE: usize = 64 + 32;
const MEMORY: usize = 64 + 40;

#[test]
fn lying_headers_are_refused() {
    let profile = profile("x86_64");
    let with = |at: usize, value: u64| {
        let mut bytes = tiny_elf(&profile);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        read(&bytes, &profile)
    };
    assert_eq!(with(FILE, 4097), Err(ElfError::Truncated("segments")));
    assert_eq!(
        with(FILE, 9000),
        Err(ElfError::BadHeader(
            "a segment has more bytes in the file than in memory"
        ))
    );
    assert_eq!(with(OFFSET, u64::MAX), Err(ElfError::Truncated("segments")));
    assert_eq!(
        with(ADDRESS, u64::MAX - 100),
        Err(ElfError::BadHeader("a segment lies beyond user memory"))
    );
    assert_eq!(
        with(MEMORY, u64::MAX),
        Err(ElfError::BadHeader("a segment lies beyond user memory"))
    );
    assert_eq!(
        with(ADDRESS, 0),
        Err(ElfError::BadHeader("a segment lies at the bottom of memory"))
    );
    assert_eq!(
        with(32, u64::MAX - 4),
        Err(ElfError::Truncated("program headers"))
    );
}

#[test]
fn overlapping_segments_are_refused() {
    let profile = profile("x86_64");
    let mut bytes = tiny_elf(&profile);
    bytes[56] = 2;
    bytes.copy_within(64..120, 120);
    assert_eq!(
        read(&bytes, &profile),
        Err(ElfError::BadHeader("segments overlap"))
    );
}

#[test]
fn an_interpreter_is_named() {
    let profile = profile("x86_64");
    let mut bytes = tiny_elf(&profile);
    bytes[64] = 3;
    bytes[OFFSET..OFFSET + 8].copy_from_slice(&0x800u64.to_le_bytes());
    bytes[FILE..FILE + 8].copy_from_slice(&20u64.to_le_bytes());
    bytes[0x800..0x80e].copy_from_slice(b"/lib/ld-x.so.1");
    // The only segment was made its name.
    assert_eq!(
        read(&bytes, &profile),
        Err(ElfError::BadHeader("nothing to load"))
    );
    let mut two = tiny_elf(&profile);
    two[56] = 2;
    two.copy_within(64..120, 120);
    two[64..120].copy_from_slice(&bytes[64..120]);
    two[0x800..0x80e].copy_from_slice(b"/lib/ld-x.so.1");
    let program = read(&two, &profile).unwrap();
    assert_eq!(program.interpreter.as_deref(), Some(&b"/lib/ld-x.so.1"[..]));
    two[0x800] = 0;
    let nameless = ElfError::BadHeader("an interpreter without a name");
    assert_eq!(read(&two, &profile), Err(nameless));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_header_breaks_the_reader(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0usize..160, any::<u8>()), 0..12),
        length in 0usize..4096,
    ) {
        let profiles = profiles();
        let profile = &profiles[which.index(profiles.len())];
        let mut bytes = tiny_elf(profile);
        for (at, value) in changes {
            bytes[at] = value;
        }
        if length % 3 == 0 {
            bytes.truncate(length);
        }
        if let Ok(program) = read(&bytes, profile) {
            for segment in &program.segments {
                prop_assert!(segment.file <= segment.memory);
                prop_assert!(segment.offset + segment.file <= bytes.len() as u64);
                prop_assert!(segment.address + segment.memory <= profile.abi.task_size);
            }
        }
    }
}
