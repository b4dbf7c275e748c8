//! Random bytes and spoiled real files: no panic, bounded time, and the same answer twice.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::{busybox, elf64, fixtures, guests, profiles};
use hotcell_inspect::{Options, inspect};
use hotcell_schema::arch::ArchProfile;
use proptest::prelude::*;

static PROFILES: LazyLock<Vec<ArchProfile>> = LazyLock::new(profiles);

/// Small real files of every kind that is at hand.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut files = vec![elf64()];
    files.extend(std::fs::read("/bin/true"));
    files.extend(guests("hello").into_iter().map(|(_, bytes)| bytes));
    files.push(fixtures::pe());
    files.push(fixtures::macho());
    files
});

/// Inspects; no panic may have been caught, and the answer must fit its own JSON.
fn check(bytes: &[u8], disassemble: bool) {
    let options = Options {
        max_strings: 50,
        disassemble,
    };
    let start = Instant::now();
    let result = inspect(bytes, &PROFILES, &options);
    let took = start.elapsed();
    let rules = common::rules(&result);
    assert!(!rules.contains(&"inspect/parser-panic"), "{rules:?}");
    // Generous: a debug build on a loaded machine. Unbounded work takes minutes.
    assert!(
        took < Duration::from_secs(20),
        "{took:?} for {} bytes",
        bytes.len()
    );
    let text = serde_json::to_string(&result).unwrap();
    let back: hotcell_schema::job::InspectResult = serde_json::from_str(&text).unwrap();
    assert_eq!(back, result);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        check(&bytes, true);
    }

    #[test]
    fn random_bytes_behind_a_magic(
        magic in prop::sample::select(vec![
            &b"\x7fELF\x01\x01\x01"[..], b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02\x01", b"\x7fELF\x02\x02\x01",
            b"MZ", b"\xfe\xed\xfa\xce", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe\0\0\0\x02",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..2048),
    ) {
        let mut file = magic.to_vec();
        file.extend(bytes);
        check(&file, true);
    }

    #[test]
    fn spoiled_headers(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0usize..1024, prop_oneof![any::<u8>(), Just(0u8), Just(0xff), Just(0x7f)]), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = file.get(&FILES).clone();
        for (offset, value) in changes {
            let place = offset % bytes.len();
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes, true);
    }

    #[test]
    fn spoiled_anywhere(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..64),
    ) {
        let mut bytes = file.get(&FILES).clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            for (offset, byte) in value.to_le_bytes().into_iter().enumerate() {
                if let Some(target) = bytes.get_mut(place + offset) {
                    *target = byte;
                }
            }
        }
        check(&bytes, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// A big file whose section table is spoiled: overlapping sections must not multiply the work.
    #[test]
    fn spoiled_busybox(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..32)) {
        let Some(mut bytes) = busybox("armhf") else { return Ok(()) };
        let table = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
        for (place, value) in changes {
            let place = table + place.index(bytes.len() - table);
            for (offset, byte) in value.to_le_bytes().into_iter().enumerate() {
                if let Some(target) = bytes.get_mut(place + offset) {
                    *target = byte;
                }
            }
        }
        check(&bytes, false);
    }
}

/// Thousands of sections that all cover the whole file.
#[test]
fn overlapping_without_end() {
    let mut file = elf64();
    let row = file[common::at::TEXT..common::at::TEXT + 64].to_vec();
    let table = file.len();
    let count = 60_000u16;
    for _ in 0..count {
        file.extend(&row);
    }
    let length = file.len() as u64;
    for index in 0..usize::from(count) {
        let at = table + 64 * index;
        // Offset 0, the whole file, and a type of everything that is read: 2 symbols, 4 relocations, 7 notes ...
        common::put(&mut file, at + 4, &[[1, 2, 3, 4, 6, 7, 9, 11][index % 8]]);
        common::put(&mut file, at + 24, &[0; 8]);
        common::put(&mut file, at + 32, &length.to_le_bytes());
    }
    common::put(&mut file, 40, &(table as u64).to_le_bytes());
    common::put(&mut file, 60, &count.to_le_bytes());
    check(&file, true);
    let result = common::look(&file);
    let rules = common::rules(&result);
    assert!(
        rules.contains(&"elf/too-many") && rules.contains(&"elf/overlapping-sections"),
        "{rules:?}"
    );
}

#[test]
fn the_same_answer_twice() {
    for file in FILES.iter() {
        let options = Options::default();
        let first = serde_json::to_string(&inspect(file, &PROFILES, &options)).unwrap();
        let second = serde_json::to_string(&inspect(file, &PROFILES, &options)).unwrap();
        assert_eq!(first, second);
    }
}
