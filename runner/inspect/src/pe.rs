//! PE files (Windows, UEFI): headers by goblin, sections and imports by a walk that bounds everything.
//!
//! Numbers: Microsoft, "PE Format".

use std::collections::BTreeSet;

use goblin::pe::header::{CoffHeader, Header as PeHeader};
use hotcell_schema::arch::{ArchProfile, ByteOrder};
use hotcell_schema::elf::{ElfInfo, Flags, Header, Named, Section};
use hotcell_schema::guest::{self, Address};

use crate::bytes::{c_text, clip, fits, u16_at, u32_at, u64_at};
use crate::code::{Code, Part};
use crate::elf::names::{bits, named};
use crate::entropy::Budget;
use crate::findings::{self as rule, Collector};
use crate::packer;

/// Greatest number of sections read (Windows loads at most 96).
const MAX_SECTIONS: u64 = 256;
/// Greatest number of libraries read.
const MAX_LIBRARIES: u64 = 256;
/// Greatest number of imported functions read.
const MAX_IMPORTS: usize = 4096;

/// Machine of the COFF header: number, name, what it is, and the ELF machine and class of the same processor.
const MACHINES: &[(u16, &str, &str, u16, u8)] = &[
    (0x014c, "I386", "Intel 386 and later", 3, 32),
    (0x8664, "AMD64", "x86-64", 62, 64),
    (0x01c0, "ARM", "ARM", 40, 32),
    (0x01c2, "THUMB", "ARM Thumb", 40, 32),
    (0x01c4, "ARMNT", "ARM Thumb-2", 40, 32),
    (0xaa64, "ARM64", "ARM, 64 bits", 183, 64),
    (0x0166, "R4000", "MIPS, little-endian", 8, 32),
    (0x0169, "WCEMIPSV2", "MIPS, little-endian, WCE v2", 8, 32),
    (0x0266, "MIPS16", "MIPS16", 8, 32),
    (0x0366, "MIPSFPU", "MIPS with FPU", 8, 32),
    (0x01f0, "POWERPC", "PowerPC, little-endian", 0, 0),
    (0x01f1, "POWERPCFP", "PowerPC with floating point", 0, 0),
    (0x5032, "RISCV32", "RISC-V, 32 bits", 243, 32),
    (0x5064, "RISCV64", "RISC-V, 64 bits", 243, 64),
    (0x5128, "RISCV128", "RISC-V, 128 bits", 0, 0),
    (0x6232, "LOONGARCH32", "LoongArch, 32 bits", 258, 32),
    (0x6264, "LOONGARCH64", "LoongArch, 64 bits", 258, 64),
    (0x0200, "IA64", "Intel Itanium", 50, 64),
    (0x0284, "ALPHA64", "Alpha, 64 bits", 0, 0),
    (0x0184, "ALPHA", "Alpha", 0, 0),
    (0x01a2, "SH3", "Hitachi SH3", 42, 32),
    (0x01a6, "SH4", "Hitachi SH4", 42, 32),
    (0x0ebc, "EBC", "EFI byte code", 0, 0),
    (0x9041, "M32R", "Mitsubishi M32R", 88, 32),
];

/// Characteristics of the COFF header.
const CHARACTERISTICS: &[(u64, &str)] = &[
    (1, "relocs-stripped"),
    (2, "executable"),
    (4, "line-nums-stripped"),
    (8, "local-syms-stripped"),
    (0x20, "large-address-aware"),
    (0x80, "bytes-reversed-lo"),
    (0x100, "32bit-machine"),
    (0x200, "debug-stripped"),
    (0x400, "removable-run-from-swap"),
    (0x800, "net-run-from-swap"),
    (0x1000, "system"),
    (0x2000, "dll"),
    (0x4000, "up-system-only"),
    (0x8000, "bytes-reversed-hi"),
];

/// What a reader of a PE file needs.
struct Image<'a> {
    bytes: &'a [u8],
    wide: bool,
    base: u64,
    headers: u64,
    sections: Vec<Row>,
}

/// A row of the section table.
struct Row {
    name: String,
    memory: u64,
    address: u64,
    size: u64,
    offset: u64,
    flags: u32,
}

impl Image<'_> {
    /// Where a relative virtual address stands in the file.
    fn offset_of(&self, rva: u64) -> Option<u64> {
        if rva < self.headers {
            return Some(rva);
        }
        self.sections
            .iter()
            .find(|row| rva >= row.address && rva - row.address < row.size.max(row.memory))
            .and_then(|row| {
                let inside = rva - row.address;
                (inside < row.size)
                    .then(|| row.offset.checked_add(inside))
                    .flatten()
            })
            .filter(|&offset| offset < self.bytes.len() as u64)
    }
}

/// Reads a PE file into `info`.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    profiles: &[ArchProfile],
    info: &mut ElfInfo,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Option<Code<'a>> {
    let at = u64::from(u32_at(bytes, 0x3c, false)?);
    // goblin checks the whole header; where it gives up the COFF part alone is read.
    let coff = match PeHeader::parse(bytes) {
        Ok(header) => header.coff_header,
        Err(error) => {
            findings.add(rule::PE_BAD_HEADER, Some(at), error.to_string());
            let mut offset = usize::try_from(at.checked_add(4)?).ok()?;
            CoffHeader::parse(bytes, &mut offset).ok()?
        }
    };
    let optional = at.checked_add(24)?;
    let wide = u16_at(bytes, optional, false) == Some(0x20b);
    let word = |place: u64| u32_at(bytes, optional.saturating_add(place), false).map(u64::from);
    let base = match wide {
        true => u64_at(bytes, optional.saturating_add(24), false),
        false => word(28),
    }
    .unwrap_or(0);
    let entry = word(16).unwrap_or(0);
    let table = optional.saturating_add(u64::from(coff.size_of_optional_header));
    let mut image = Image {
        bytes,
        wide,
        base,
        headers: word(60).unwrap_or(0),
        sections: Vec::new(),
    };
    read_sections(&mut image, table, u64::from(coff.number_of_sections), findings);

    let machine = MACHINES.iter().find(|row| row.0 == coff.machine);
    let profile = machine.and_then(|row| find_profile(profiles, row.3, row.4));
    info.arch = profile.map(|profile| profile.name.clone());
    let subsystem = u16_at(bytes, optional.saturating_add(68), false).unwrap_or(0);
    info.header = Some(Header {
        class: if wide { 64 } else { 32 },
        byte_order: ByteOrder::Little,
        file_type: Named {
            value: u64::from(coff.characteristics),
            name: match coff.characteristics {
                flags if flags & 0x2000 != 0 => "dll",
                flags if flags & 2 != 0 => "executable",
                _ => "object",
            }
            .into(),
            title: String::new(),
        },
        machine: named(coff.machine.into(), machine.map(|row| (row.1, row.2))),
        os_abi: subsystem_name(subsystem),
        abi_version: 0,
        entry: Address(if entry == 0 { 0 } else { base.wrapping_add(entry) }),
        entry_offset: (entry != 0).then(|| image.offset_of(entry)).flatten(),
        flags: Flags {
            value: Address(coff.characteristics.into()),
            names: bits(coff.characteristics.into(), CHARACTERISTICS),
        },
        section_count: coff.number_of_sections.into(),
        segment_count: 0,
        timestamp: Some(coff.time_date_stamp),
    });
    describe_sections(&image, info, budget);
    check_entry(&image, entry, optional, findings);
    let directories = optional.saturating_add(if wide { 112 } else { 96 });
    let imports = u32_at(bytes, directories.saturating_add(8), false).map_or(0, u64::from);
    read_imports(&image, imports, info, findings);
    info.packer = packer::sections(bytes, info);

    let mut parts: Vec<Part<'a>> = Vec::new();
    let mut maps: Vec<Part<'a>> = Vec::new();
    for row in &image.sections {
        let part = Part {
            address: base.wrapping_add(row.address),
            bytes: clip(bytes, row.offset, row.size),
        };
        if !part.bytes.is_empty() {
            maps.push(part);
            if row.flags & 0x2000_0000 != 0 {
                parts.push(part);
            }
        }
    }
    maps.sort_by_key(|part| part.address);
    parts.sort_by_key(|part| part.address);
    // Windows on ARM runs Thumb code only.
    let thumb = u64::from(matches!(coff.machine, 0x01c2 | 0x01c4));
    Some(Code {
        entry: (entry != 0).then(|| base.wrapping_add(entry) | thumb),
        parts,
        maps,
        ..Code::default()
    })
}

/// The first profile of a processor, little-endian.
pub(crate) fn find_profile(profiles: &[ArchProfile], machine: u16, class: u8) -> Option<&ArchProfile> {
    profiles.iter().find(|profile| {
        machine != 0
            && profile.elf.machine.contains(&machine)
            && profile.elf.class == class
            && profile.elf.byte_order == ByteOrder::Little
    })
}

fn read_sections(image: &mut Image<'_>, table: u64, count: u64, findings: &mut Collector) {
    let length = image.bytes.len() as u64;
    let room = length.saturating_sub(table) / 40;
    if count > room {
        findings.add(
            rule::PE_BAD_HEADER,
            Some(table),
            format!("{count} sections, room for {room}"),
        );
    }
    if count.min(room) > MAX_SECTIONS {
        findings.add(
            rule::TOO_MANY,
            Some(table),
            format!("{count} sections, {MAX_SECTIONS} are looked at"),
        );
    }
    for index in 0..count.min(room).min(MAX_SECTIONS) {
        let at = table + index * 40;
        let word = |place: u64| u32_at(image.bytes, at + place, false).map_or(0, u64::from);
        let name = clip(image.bytes, at, 8);
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let row = Row {
            name: guest::text(name),
            memory: word(8),
            address: word(12),
            size: word(16),
            offset: word(20),
            flags: word(36) as u32,
        };
        if row.size > 0 && !fits(length, row.offset, row.size) {
            findings.add(
                rule::PE_SECTION_PAST_END,
                Some(row.offset.min(length)),
                format!(
                    "section {index} {}: {:#x} bytes at {:#x}",
                    row.name, row.size, row.offset
                ),
            );
        }
        if row.flags & 0xa000_0000 == 0xa000_0000 {
            findings.add(
                rule::PE_WRITABLE_CODE,
                Some(row.offset.min(length)),
                format!("section {index} {}", row.name),
            );
        }
        image.sections.push(row);
    }
}

fn describe_sections(image: &Image<'_>, info: &mut ElfInfo, budget: &mut Budget) {
    const FLAGS: &[(u64, &str)] = &[
        (0x20, "code"),
        (0x40, "data"),
        (0x80, "zeros"),
        (0x200_0000, "discard"),
        (0x1000_0000, "shared"),
        (0x2000_0000, "exec"),
        (0x4000_0000, "read"),
        (0x8000_0000, "write"),
    ];
    info.sections = image
        .sections
        .iter()
        .enumerate()
        .map(|(index, row)| Section {
            index: index as u32,
            name: row.name.clone(),
            kind: "SECTION".into(),
            flags: bits(u64::from(row.flags) & 0xf200_00e0, FLAGS),
            address: Address(image.base.wrapping_add(row.address)),
            offset: row.offset,
            size: row.size,
            entropy: budget.entropy(clip(image.bytes, row.offset, row.size)),
        })
        .collect();
}

fn check_entry(image: &Image<'_>, entry: u64, optional: u64, findings: &mut Collector) {
    if entry == 0 {
        return;
    }
    let inside = image
        .sections
        .iter()
        .find(|row| entry >= row.address && entry - row.address < row.size.max(row.memory));
    if inside.is_none_or(|row| row.flags & 0x2000_0000 == 0) {
        findings.add(
            rule::PE_ENTRY_OUTSIDE_CODE,
            Some(optional.saturating_add(16)),
            format!("entry {entry:#x}"),
        );
    }
}

/// The import directory: a row of 20 bytes for each library, each with a list of names or numbers.
fn read_imports(image: &Image<'_>, directory: u64, info: &mut ElfInfo, findings: &mut Collector) {
    if directory == 0 {
        return;
    }
    let Some(at) = image.offset_of(directory) else {
        findings.add(
            rule::PE_BAD_IMPORTS,
            None,
            format!("no import table at {directory:#x}"),
        );
        return;
    };
    let mut functions = BTreeSet::new();
    let mut total = 0u64;
    for index in 0..MAX_LIBRARIES {
        let row = at.saturating_add(index * 20);
        let word = |place: u64| u32_at(image.bytes, row.saturating_add(place), false).map(u64::from);
        let (Some(lookup), Some(name), Some(addresses)) = (word(0), word(12), word(16)) else {
            findings.add(rule::PE_BAD_IMPORTS, Some(row), "the import table is cut off");
            break;
        };
        if name == 0 && addresses == 0 {
            break;
        }
        let Some((library, true)) = image.offset_of(name).map(|place| c_text(image.bytes, place)) else {
            findings.add(
                rule::PE_BAD_IMPORTS,
                Some(row),
                format!("no name of a library at {name:#x}"),
            );
            continue;
        };
        let list = if lookup != 0 { lookup } else { addresses };
        total = total.saturating_add(read_names(image, list, &library, &mut functions));
        if !info.imports.libraries.contains(&library) {
            info.imports.libraries.push(library);
        }
    }
    info.imports.total = total;
    info.imports.functions = functions
        .into_iter()
        .take(crate::elf::symbols::MAX_IMPORTS)
        .collect();
}

fn read_names(image: &Image<'_>, list: u64, library: &str, functions: &mut BTreeSet<String>) -> u64 {
    let Some(at) = image.offset_of(list) else {
        return 0;
    };
    let size = if image.wide { 8 } else { 4 };
    let mut count = 0;
    while functions.len() < MAX_IMPORTS && count < MAX_IMPORTS as u64 {
        let place = at.saturating_add(count * size);
        let value = match image.wide {
            true => u64_at(image.bytes, place, false),
            false => u32_at(image.bytes, place, false).map(u64::from),
        };
        let Some(value) = value.filter(|&value| value != 0) else {
            break;
        };
        count += 1;
        let numbered = value >> (size * 8 - 1) == 1;
        let name = match image.offset_of(value & 0x7fff_ffff) {
            _ if numbered => format!("#{}", value & 0xffff),
            // Two bytes of hint stand before the name.
            Some(place) => c_text(image.bytes, place.saturating_add(2)).0,
            None => continue,
        };
        functions.insert(format!("{library}!{name}"));
    }
    count
}

fn subsystem_name(value: u16) -> Named {
    let row = match value {
        1 => ("NATIVE", "Windows driver"),
        2 => ("WINDOWS_GUI", "Windows with windows"),
        3 => ("WINDOWS_CUI", "Windows console"),
        5 => ("OS2_CUI", "OS/2 console"),
        7 => ("POSIX_CUI", "POSIX console"),
        9 => ("WINDOWS_CE_GUI", "Windows CE"),
        10 => ("EFI_APPLICATION", "UEFI application"),
        11 => ("EFI_BOOT_SERVICE_DRIVER", "UEFI boot driver"),
        12 => ("EFI_RUNTIME_DRIVER", "UEFI runtime driver"),
        13 => ("EFI_ROM", "UEFI ROM"),
        14 => ("XBOX", "Xbox"),
        16 => ("WINDOWS_BOOT_APPLICATION", "Windows boot application"),
        _ => return named(value.into(), None),
    };
    named(value.into(), Some(row))
}
