//! Which engine this is, for cache keys: everything outside a job that decides a result.

use hotcell_schema::digest::Digest;

/// Lowest byte of `uc_version()` in a library built with our patches (`patches/0004-…`).
const PATCHED: u32 = 103;

/// The patches of this version, in the order in which they are applied.
const PATCHES: [&str; 12] = [
    include_str!("../patches/0001-mips-free-delay-slot-temporary.patch"),
    include_str!("../patches/0002-mips-reset-delay-slot-flag-before-each-block.patch"),
    include_str!("../patches/0003-mips-clear-branch-bits-in-generated-code.patch"),
    include_str!("../patches/0004-mark-the-patched-library.patch"),
    include_str!("../patches/0005-mips-keep-the-program-counter-of-exceptions.patch"),
    include_str!("../patches/0006-s390x-leave-missing-memory-to-unicorn.patch"),
    include_str!("../patches/0007-s390x-rotate-bits-of-half-registers.patch"),
    include_str!("../patches/0008-s390x-overflow-to-zero.patch"),
    include_str!("../patches/0009-stores-are-fast-where-no-code-is.patch"),
    include_str!("../patches/0010-code-written-at-another-address.patch"),
    include_str!("../patches/0011-x86-what-a-program-is-refused.patch"),
    include_str!("../patches/0012-many-pieces-of-memory.patch"),
];

/// Whether the C library that was linked carries the patches.
pub(crate) fn is_patched() -> bool {
    version() & 0xff == PATCHED
}

fn version() -> u32 {
    crate::ffi::unicorn_version()
}

/// For instance `hotcell-unicorn 0.1.0, unicorn 2.1.4 patched 0123456789ab, capstone 5.0`.
pub(crate) fn text() -> String {
    let number = version();
    let (major, minor, patch) = (number >> 24 & 0xff, number >> 16 & 0xff, number >> 8 & 0xff);
    let library = if is_patched() {
        let digest = Digest::of_parts(PATCHES.iter().map(|patch| patch.as_bytes()));
        format!("patched {}", digest.short())
    } else {
        "plain".to_owned()
    };
    let (capstone_major, capstone_minor) = capstone::Capstone::lib_version();
    format!(
        "hotcell-unicorn {}, unicorn {major}.{minor}.{patch} {library}, capstone {capstone_major}.{capstone_minor}",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_counts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/patches");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("patches")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        let texts: Vec<String> = files
            .iter()
            .map(|file| std::fs::read_to_string(file).expect("a patch"))
            .collect();
        assert_eq!(texts, PATCHES);
    }
}
