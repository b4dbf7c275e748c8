//! What the tests share: the shipped profiles, samples that may be there, and a small well-formed ELF file to spoil.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

pub mod fixtures;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hotcell_inspect::{Options, inspect};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::job::InspectResult;

/// The shipped profiles, by name.
pub fn profiles() -> Vec<ArchProfile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../arch-profiles");
    let mut profiles: Vec<ArchProfile> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect();
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(profiles.len() >= 10, "the shipped profiles");
    profiles
}

/// Inspects with the shipped profiles and the default options.
pub fn look(bytes: &[u8]) -> InspectResult {
    static PROFILES: LazyLock<Vec<ArchProfile>> = LazyLock::new(profiles);
    inspect(bytes, &PROFILES, &Options::default())
}

/// Ids of the findings.
pub fn rules(result: &InspectResult) -> Vec<&str> {
    result
        .findings
        .iter()
        .map(|finding| finding.rule.as_str())
        .collect()
}

/// A folder of the project's cache.
pub fn cache(folder: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| home.join(".cache"))
        .join("hotcell")
        .join(folder)
}

/// Debian's busybox for a Debian architecture; none (said aloud) where it was not fetched.
pub fn busybox(arch: &str) -> Option<Vec<u8>> {
    let path = cache("samples/debian-12").join(arch).join("busybox");
    std::fs::read(&path)
        .inspect_err(|error| eprintln!("SKIPPED: {}: {error} (make samples)", path.display()))
        .ok()
}

/// The guest programs named `name`, with their architecture's folder name; empty (said aloud) where none were built.
pub fn guests(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for build in std::fs::read_dir(cache("guests")).into_iter().flatten().flatten() {
        if build.path().extension().is_some() {
            continue;
        }
        for arch in std::fs::read_dir(build.path()).into_iter().flatten().flatten() {
            if let Ok(bytes) = std::fs::read(arch.path().join(name)) {
                found.push((arch.file_name().to_string_lossy().into_owned(), bytes));
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        eprintln!(
            "SKIPPED: no guest programs in {} (make guests)",
            cache("guests").display()
        );
    }
    found.sort();
    found
}

/// Where things are in [`elf64`].
pub mod at {
    /// Program header 0, LOAD.
    pub const LOAD: usize = 0x40;
    /// Program header 1, GNU_STACK.
    pub const STACK: usize = 0x78;
    /// The code.
    pub const CODE: usize = 0xb0;
    /// The section names.
    pub const NAMES: usize = 0xc0;
    /// Section headers: null, .text, .shstrtab.
    pub const SECTIONS: usize = 0xe0;
    /// The section header of `.text`.
    pub const TEXT: usize = SECTIONS + 64;
    /// The section header of `.shstrtab`.
    pub const SHSTRTAB: usize = SECTIONS + 128;
}

/// Overwrites bytes.
pub fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A well-formed x86_64 program that exits: one segment, `.text`, `.shstrtab`, entry 0x4000b0.
pub fn elf64() -> Vec<u8> {
    let mut file = vec![0u8; at::SECTIONS + 3 * 64];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    let half = |file: &mut Vec<u8>, offset: usize, value: u16| put(file, offset, &value.to_le_bytes());
    let word = |file: &mut Vec<u8>, offset: usize, value: u32| put(file, offset, &value.to_le_bytes());
    let long = |file: &mut Vec<u8>, offset: usize, value: u64| put(file, offset, &value.to_le_bytes());
    half(&mut file, 16, 2);
    half(&mut file, 18, 62);
    word(&mut file, 20, 1);
    long(&mut file, 24, 0x40_00b0);
    long(&mut file, 32, 0x40);
    long(&mut file, 40, at::SECTIONS as u64);
    half(&mut file, 52, 64);
    half(&mut file, 54, 56);
    half(&mut file, 56, 2);
    half(&mut file, 58, 64);
    half(&mut file, 60, 3);
    half(&mut file, 62, 2);
    word(&mut file, at::LOAD, 1);
    word(&mut file, at::LOAD + 4, 5);
    long(&mut file, at::LOAD + 16, 0x40_0000);
    long(&mut file, at::LOAD + 32, 0xc0);
    long(&mut file, at::LOAD + 40, 0xc0);
    long(&mut file, at::LOAD + 48, 0x1000);
    word(&mut file, at::STACK, 0x6474_e551);
    word(&mut file, at::STACK + 4, 6);
    // mov eax, 60; xor edi, edi; syscall; nop
    put(
        &mut file,
        at::CODE,
        b"\xb8\x3c\0\0\0\x31\xff\x0f\x05\x90\x90\x90\x90\x90\x90\x90",
    );
    put(&mut file, at::NAMES, b"\0.text\0.shstrtab\0");
    word(&mut file, at::TEXT, 1);
    word(&mut file, at::TEXT + 4, 1);
    long(&mut file, at::TEXT + 8, 6);
    long(&mut file, at::TEXT + 16, 0x40_00b0);
    long(&mut file, at::TEXT + 24, at::CODE as u64);
    long(&mut file, at::TEXT + 32, 16);
    word(&mut file, at::SHSTRTAB, 7);
    word(&mut file, at::SHSTRTAB + 4, 3);
    long(&mut file, at::SHSTRTAB + 24, at::NAMES as u64);
    long(&mut file, at::SHSTRTAB + 32, 17);
    file
}
