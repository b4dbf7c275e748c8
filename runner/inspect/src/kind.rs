//! What kind of file it is, by its first bytes. A table of magic numbers, each from its format's own specification.

use hotcell_schema::elf::FileKind;

use crate::bytes::{clip, u16_at, u32_at};

/// Magic bytes at an offset, and what they mean.
const MAGIC: &[(u64, &[u8], FileKind, &str)] = &[
    (0, b"\x7fELF", FileKind::Elf, ""),
    (0, b"\xfe\xed\xfa\xce", FileKind::MachO, "32-bit"),
    (0, b"\xce\xfa\xed\xfe", FileKind::MachO, "32-bit"),
    (0, b"\xfe\xed\xfa\xcf", FileKind::MachO, "64-bit"),
    (0, b"\xcf\xfa\xed\xfe", FileKind::MachO, "64-bit"),
    (0, b"\xca\xfe\xba\xbf", FileKind::MachO, "fat"),
    (0, b"PK\x03\x04", FileKind::Archive, "zip"),
    (0, b"PK\x05\x06", FileKind::Archive, "zip"),
    (0, b"\x1f\x8b", FileKind::Archive, "gzip"),
    (0, b"BZh", FileKind::Archive, "bzip2"),
    (0, b"\xfd7zXZ\0", FileKind::Archive, "xz"),
    (0, b"\x28\xb5\x2f\xfd", FileKind::Archive, "zstd"),
    (0, b"\x04\x22\x4d\x18", FileKind::Archive, "lz4"),
    (0, b"\x5d\0\0", FileKind::Archive, "lzma"),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind::Archive, "7z"),
    (0, b"Rar!\x1a\x07", FileKind::Archive, "rar"),
    (0, b"MSCF\0\0\0\0", FileKind::Archive, "cab"),
    (0, b"070701", FileKind::Archive, "cpio"),
    (0, b"070702", FileKind::Archive, "cpio"),
    (0, b"070707", FileKind::Archive, "cpio"),
    (0, b"\xed\xab\xee\xdb", FileKind::Archive, "rpm"),
    (0, b"!<arch>\ndebian-binary", FileKind::Archive, "deb"),
    (0, b"!<arch>\n", FileKind::Archive, "ar"),
    (0, b"!<thin>\n", FileKind::Archive, "ar"),
    (257, b"ustar", FileKind::Archive, "tar"),
    (0, b"hsqs", FileKind::Archive, "squashfs"),
    (0, b"sqsh", FileKind::Archive, "squashfs"),
    (0, b"\x45\x3d\xcd\x28", FileKind::Archive, "cramfs"),
    (0, b"\x28\xcd\x3d\x45", FileKind::Archive, "cramfs"),
    (0, b"UBI#", FileKind::Archive, "ubi"),
    (0, b"\x31\x18\x10\x06", FileKind::Archive, "ubifs"),
    (0, b"\x27\x05\x19\x56", FileKind::Archive, "uimage"),
    (0, b"HDR0", FileKind::Archive, "trx"),
    (0x8001, b"CD001", FileKind::Archive, "iso9660"),
    (0, b"\0asm", FileKind::Raw, "wasm"),
    (0, b"dex\n", FileKind::Raw, "dex"),
    (0, b"%PDF-", FileKind::Raw, "pdf"),
];

/// Greatest length of a script's first line that is read.
const FIRST_LINE: u64 = 256;

/// Kind and variant of a file.
pub(crate) fn of(bytes: &[u8]) -> (FileKind, &'static str) {
    if bytes.is_empty() {
        return (FileKind::Raw, "empty");
    }
    if bytes.starts_with(b"#!") {
        return (FileKind::Script, "");
    }
    if bytes.starts_with(b"\xca\xfe\xba\xbe") {
        // Java classes have the same magic; what follows is a version of at least 45 there, a small count here.
        return match u32_at(bytes, 4, true) {
            Some(count) if count < 40 => (FileKind::MachO, "fat"),
            _ => (FileKind::Raw, "java-class"),
        };
    }
    if bytes.starts_with(b"MZ") {
        let header = u32_at(bytes, 0x3c, false).map(u64::from);
        return match header {
            Some(at) if clip(bytes, at, 4) == b"PE\0\0" => {
                match u16_at(bytes, at.saturating_add(24), false) {
                    Some(0x20b) => (FileKind::Pe, "pe32+"),
                    Some(0x107) => (FileKind::Pe, "rom"),
                    _ => (FileKind::Pe, "pe32"),
                }
            }
            _ => (FileKind::Raw, "dos"),
        };
    }
    let known = MAGIC
        .iter()
        .find(|(offset, magic, _, _)| clip(bytes, *offset, magic.len() as u64) == *magic);
    if let Some(&(_, _, kind, variant)) = known {
        return (kind, variant);
    }
    let head = clip(bytes, 0, 4096);
    let text = head
        .iter()
        .all(|&byte| byte >= 0x20 && byte != 0x7f || matches!(byte, b'\n' | b'\r' | b'\t' | 0x0c | 0x1b));
    (FileKind::Raw, if text { "text" } else { "" })
}

/// The interpreter that a script's first line names, with its arguments.
pub(crate) fn script_interpreter(bytes: &[u8]) -> Option<String> {
    let line = clip(bytes, 2, FIRST_LINE).split(|&byte| byte == b'\n').next()?;
    let text = hotcell_schema::guest::text(line.trim_ascii());
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_their_first_bytes() {
        assert_eq!(of(b""), (FileKind::Raw, "empty"));
        assert_eq!(of(b"#!/bin/sh -e\n"), (FileKind::Script, ""));
        assert_eq!(
            script_interpreter(b"#! /bin/sh -e\nexit"),
            Some("/bin/sh -e".into())
        );
        assert_eq!(of(b"\xca\xfe\xba\xbe\0\0\0\x02"), (FileKind::MachO, "fat"));
        assert_eq!(of(b"\xca\xfe\xba\xbe\0\0\0\x34"), (FileKind::Raw, "java-class"));
        assert_eq!(of(b"!<arch>\ndebian-binary   "), (FileKind::Archive, "deb"));
        assert_eq!(of(b"MZ\x90"), (FileKind::Raw, "dos"));
        assert_eq!(of(b"hello\n"), (FileKind::Raw, "text"));
        assert_eq!(of(b"\x7fELF"), (FileKind::Elf, ""));
        assert_eq!(of(&[0, 1, 2]), (FileKind::Raw, ""));
    }
}
