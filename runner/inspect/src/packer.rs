//! Signs of packing: each is weak, together they are strong.

use hotcell_schema::elf::{ElfInfo, Linkage, Packer, PackerSign};

use crate::bytes::find;
use crate::elf::code_address;
use crate::elf::dynamic::Dynamic;
use crate::elf::tables::{LOAD, Tables};

/// Code above this entropy (bits per byte) is compressed or encrypted. Measured on Debian's busybox: 6.0 (mips), 6.1
/// (arm), 6.5 (x86_64), 7.2 (thumb, the densest); what UPX writes is above 7.8.
const HIGH: f64 = 7.6;
/// Less code than this tells nothing by its entropy.
const ENOUGH: u64 = 1024;

/// Signs in an ELF file.
pub(crate) fn elf(tables: &Tables<'_>, info: &ElfInfo, dynamic: &Dynamic) -> Packer {
    let mut signs = Signs::default();
    signs.upx_magic(tables.bytes);
    let program = info.linkage.is_some();
    if !program {
        return signs.conclude();
    }
    signs.upx_names(info);
    let entry = code_address(&tables.header, tables.header.e_entry);
    let loads = || tables.segments.iter().filter(|segment| segment.p_type == LOAD);
    let mut dense = false;
    // The segments of `info` are those of the table, with their entropies already counted within the file's budget.
    for (segment, described) in tables.segments.iter().zip(&info.segments) {
        if segment.p_type != LOAD {
            continue;
        }
        let executable = segment.p_flags & 1 != 0;
        let entropy = described.entropy.unwrap_or(0.0);
        if executable && segment.p_filesz >= ENOUGH && entropy >= HIGH {
            dense = true;
            signs.add(
                "high-entropy-code",
                Some(segment.p_offset),
                format!("an executable segment of {entropy:.3} bits per byte"),
            );
        }
        if executable && segment.p_filesz == 0 && segment.p_memsz > 0 {
            signs.add(
                "empty-in-file",
                None,
                "an executable segment without bytes in the file",
            );
        }
    }
    if tables.sections.is_empty() {
        signs.add("no-section-headers", None, "no section headers");
        // A first segment that only makes room, and one dense segment with the entry near its end.
        let room = loads().any(|segment| segment.p_memsz / 4 > segment.p_filesz && segment.p_memsz > 0x4000);
        if dense && room && loads().count() <= 3 {
            signs.add("upx-segments", None, "segments laid out as UPX lays them out");
        }
    } else if tables.header.e_entry != 0
        && !tables.sections.iter().any(|(_, section)| {
            section.sh_flags & 4 != 0 && entry >= section.sh_addr && entry - section.sh_addr < section.sh_size
        })
    {
        // ELFv1 of PowerPC 64 enters through a descriptor in data.
        let descriptor = tables.header.e_machine == goblin::elf::header::EM_PPC64;
        if !descriptor {
            signs.add(
                "entry-outside-sections",
                tables.offset_of(entry).map(|(offset, _)| offset),
                format!("entry {entry:#x} is in no executable section"),
            );
        }
    }
    if tables
        .segment_at(entry)
        .is_some_and(|segment| segment.p_flags & 3 == 3)
    {
        signs.add(
            "entry-in-writable",
            None,
            format!("entry {entry:#x} is in a writable segment"),
        );
    }
    if dense && info.linkage == Some(Linkage::Dynamic) && dynamic.present && info.imports.total <= 4 {
        signs.add("few-imports", None, "dynamically linked, with hardly any imports");
    }
    signs.conclude()
}

/// Signs in a file whose sections say what they are: PE.
pub(crate) fn sections(bytes: &[u8], info: &ElfInfo) -> Packer {
    let mut signs = Signs::default();
    signs.upx_magic(bytes);
    signs.upx_names(info);
    let entry = info.header.as_ref().map_or(0, |header| header.entry.0);
    for section in &info.sections {
        let has = |flag: &str| section.flags.iter().any(|name| name == flag);
        let entropy = section.entropy.unwrap_or(0.0);
        if has("exec") && section.size >= ENOUGH && entropy >= HIGH {
            signs.add(
                "high-entropy-code",
                Some(section.offset),
                format!("{} has {entropy:.3} bits per byte", section.name),
            );
        }
        if has("exec") && section.size == 0 {
            signs.add(
                "empty-in-file",
                None,
                format!("{} has no bytes in the file", section.name),
            );
        }
        let inside = entry >= section.address.0 && entry - section.address.0 < section.size;
        if inside && has("write") && has("exec") {
            signs.add(
                "entry-in-writable",
                None,
                format!("the entry is in writable {}", section.name),
            );
        }
    }
    if info.imports.total > 0 && info.imports.total < 10 && signs.has("high-entropy-code") {
        signs.add("few-imports", None, format!("{} imports", info.imports.total));
    }
    signs.conclude()
}

#[derive(Default)]
struct Signs {
    signs: Vec<PackerSign>,
}

impl Signs {
    fn add(&mut self, sign: &str, offset: Option<u64>, text: impl Into<String>) {
        if self.signs.len() < 32 {
            self.signs.push(PackerSign {
                sign: sign.into(),
                offset,
                text: text.into(),
            });
        }
    }

    fn has(&self, sign: &str) -> bool {
        self.signs.iter().any(|found| found.sign == sign)
    }

    /// UPX writes its magic behind the headers and at the end; its notice stands in the stub.
    fn upx_magic(&mut self, bytes: &[u8]) {
        for magic in [&b"UPX!"[..], b"$Info: This file is packed with the UPX"] {
            if let Some(place) = find(bytes, magic, 0) {
                self.add(
                    "upx-magic",
                    Some(place as u64),
                    String::from_utf8_lossy(magic).into_owned(),
                );
            }
        }
    }

    fn upx_names(&mut self, info: &ElfInfo) {
        for section in &info.sections {
            if matches!(section.name.as_str(), "UPX0" | "UPX1" | "UPX2" | ".upx" | "upx") {
                self.add("upx-sections", Some(section.offset), section.name.clone());
            }
        }
    }

    fn conclude(self) -> Packer {
        let upx = self.has("upx-sections")
            || (self.has("upx-magic") && (self.has("no-section-headers") || self.has("upx-segments")));
        let shape = [
            "no-section-headers",
            "entry-outside-sections",
            "entry-in-writable",
            "empty-in-file",
            "few-imports",
        ];
        let dense = self.has("high-entropy-code") && shape.iter().any(|sign| self.has(sign));
        Packer {
            packed: upx || dense,
            name: upx.then(|| "upx".into()),
            signs: self.signs,
        }
    }
}
