//! Any bytes through static inspection: no panic (caught ones included), no unbounded work, the same answer twice.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use hotcell_inspect::{Options, inspect};
use hotcell_schema::arch::ArchProfile;
use libfuzzer_sys::fuzz_target;

static PROFILES: LazyLock<Vec<ArchProfile>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../arch-profiles");
    let mut profiles: Vec<ArchProfile> = std::fs::read_dir(folder)
        .expect("the shipped profiles")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| toml::from_str(&text).ok())
        .collect();
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    profiles
});

fuzz_target!(|bytes: &[u8]| {
    let options = Options {
        max_strings: 20,
        disassemble: bytes.len() % 2 == 0,
    };
    let first = inspect(bytes, &PROFILES, &options);
    assert!(
        first
            .findings
            .iter()
            .all(|finding| finding.rule != "inspect/parser-panic")
    );
    assert_eq!(first, inspect(bytes, &PROFILES, &options));
});
