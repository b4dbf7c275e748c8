//! ELF files: tolerant reading of everything, and what is wrong with it.

pub(crate) mod checks;
pub(crate) mod dynamic;
pub(crate) mod hardening;
pub(crate) mod machines;
pub(crate) mod names;
pub(crate) mod notes;
pub(crate) mod relocations;
pub(crate) mod symbols;
pub(crate) mod tables;

use goblin::elf::header as eh;
use hotcell_schema::arch::{ArchProfile, ByteOrder};
use hotcell_schema::elf::{ElfInfo, Flags, Header, Section, Segment};
use hotcell_schema::guest::Address;

use self::dynamic::Dynamic;
use self::symbols::Known;
use self::tables::Tables;
use crate::bytes::{c_text, clip, u64_at};
use crate::code::{Code, Function, Part};
use crate::entropy::Budget;
use crate::findings::{self as rule, Collector};
use crate::packer;

/// Reads an ELF file into `info`, and says what is executable in it.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    profiles: &[ArchProfile],
    info: &mut ElfInfo,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Option<Code<'a>> {
    let tables = Tables::read(bytes, findings)?;
    let header = &tables.header;
    let profile = profile(&tables, profiles);
    info.arch = profile.map(|profile| profile.name.clone());
    info.header = Some(describe_header(&tables, findings));

    checks::segments(&tables, findings);
    checks::sections(&tables, findings);
    checks::trailing(&tables, findings);

    let dynamic = Dynamic::read(&tables, findings);
    let known = Known::read(&tables, &dynamic, findings);
    info.sections = describe_sections(&tables, budget);
    info.segments = describe_segments(&tables, budget);
    info.interpreter = interpreter(&tables, findings);
    info.linkage = hardening::linkage(&tables, &dynamic);
    info.hardening = hardening::hardening(&tables, &dynamic, &known);
    info.relocations = relocations::read(&tables, &dynamic, findings);
    info.notes = notes::read(&tables, findings);
    info.build_id = notes::build_id(&info.notes);
    info.toolchains = notes::toolchains(&tables);
    info.imports = known.imports(dynamic.libraries.clone());
    info.packer = packer::elf(&tables, info, &dynamic);
    info.symbols = known.symbols.clone();

    let mut code = Code {
        entry: (header.e_entry != 0 || header.e_type == 2).then_some(header.e_entry),
        parts: code_parts(&tables),
        maps: maps(&tables),
        functions: Vec::new(),
        functions_total: known.functions_total,
        mapping: known.mapping,
        // ARM BE8: data is big-endian, code is little-endian.
        little_code: header.e_machine == eh::EM_ARM && header.e_flags & 0x80_0000 != 0,
    };
    code.functions = known
        .functions
        .into_iter()
        .map(|(address, (name, size))| Function { address, name, size })
        .collect();
    // ELFv1 of PowerPC 64: what symbols and the entry name are descriptors in data.
    if header.e_machine == eh::EM_PPC64 && header.e_flags & 3 != 2 {
        let through = |address: u64| {
            let outside = tables
                .segment_at(address)
                .is_none_or(|segment| segment.p_flags & 1 == 0)
                || in_data_section(&tables, address);
            match tables.offset_of(address) {
                Some((offset, _)) if outside => u64_at(bytes, offset, tables.big()).unwrap_or(address),
                _ => address,
            }
        };
        code.entry = code.entry.map(through);
        for function in &mut code.functions {
            function.address = through(function.address);
        }
        code.functions.sort_by_key(|function| function.address);
    }
    Some(code)
}

/// The address of code behind an address that may carry the Thumb bit.
pub(crate) fn code_address(header: &eh::Header, address: u64) -> u64 {
    match header.e_machine {
        // ARM: Thumb; MIPS: microMIPS and MIPS16.
        eh::EM_ARM | eh::EM_MIPS => address & !1,
        _ => address,
    }
}

/// Whether an address is in a section that is loaded and not executable.
fn in_data_section(tables: &Tables<'_>, address: u64) -> bool {
    tables.sections.iter().any(|(_, section)| {
        section.sh_flags & 6 == 2 && address >= section.sh_addr && address - section.sh_addr < section.sh_size
    })
}

/// The profile that fits best: one that asks for flags before one that does not.
fn profile<'p>(tables: &Tables<'_>, profiles: &'p [ArchProfile]) -> Option<&'p ArchProfile> {
    let header = &tables.header;
    let order = if tables.big() {
        ByteOrder::Big
    } else {
        ByteOrder::Little
    };
    let class = if tables.wide() { 64 } else { 32 };
    profiles
        .iter()
        .filter(|profile| {
            let elf = &profile.elf;
            elf.machine.contains(&header.e_machine)
                && elf.class == class
                && elf.byte_order == order
                && elf
                    .flags
                    .is_none_or(|flags| header.e_flags & flags.mask == flags.value)
        })
        // max_by_key takes the last of equals: reversed, the first profile in the given order wins.
        .rev()
        .max_by_key(|profile| profile.elf.flags.is_some())
}

fn describe_header(tables: &Tables<'_>, findings: &mut Collector) -> Header {
    let header = &tables.header;
    let machine = machines::machine(header.e_machine);
    if machine.is_none() || header.e_machine == 0 {
        findings.add(
            rule::UNKNOWN_MACHINE,
            Some(18),
            format!("e_machine {}", header.e_machine),
        );
    }
    Header {
        class: if tables.wide() { 64 } else { 32 },
        byte_order: if tables.big() {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        },
        file_type: names::file_type(header.e_type),
        machine: names::named(header.e_machine.into(), machine),
        os_abi: names::os_abi(header.e_ident[7]),
        abi_version: header.e_ident[8],
        entry: Address(header.e_entry),
        entry_offset: tables
            .offset_of(code_address(header, header.e_entry))
            .map(|(offset, _)| offset),
        flags: Flags {
            value: Address(header.e_flags.into()),
            names: names::header_flags(header.e_flags, header.e_machine),
        },
        section_count: tables.section_count,
        segment_count: tables.segment_count,
        timestamp: None,
    }
}

fn describe_sections(tables: &Tables<'_>, budget: &mut Budget) -> Vec<Section> {
    tables
        .sections
        .iter()
        .enumerate()
        .map(|(index, (name, section))| Section {
            index: index as u32,
            name: name.clone(),
            kind: names::section_type(section.sh_type, tables.header.e_machine),
            flags: names::section_flags(section.sh_flags),
            address: Address(section.sh_addr),
            offset: section.sh_offset,
            size: section.sh_size,
            entropy: budget.entropy(tables.content(section)),
        })
        .collect()
}

fn describe_segments(tables: &Tables<'_>, budget: &mut Budget) -> Vec<Segment> {
    tables
        .segments
        .iter()
        .enumerate()
        .map(|(index, segment)| Segment {
            index: index as u32,
            kind: names::segment_type(segment.p_type, tables.header.e_machine),
            permissions: names::permissions(segment.p_flags),
            address: Address(segment.p_vaddr),
            offset: segment.p_offset,
            file_size: segment.p_filesz,
            memory_size: segment.p_memsz,
            align: segment.p_align,
            entropy: budget.entropy(clip(tables.bytes, segment.p_offset, segment.p_filesz)),
        })
        .collect()
}

fn interpreter(tables: &Tables<'_>, findings: &mut Collector) -> Option<String> {
    let segment = tables.segment_of_type(3)?;
    let (text, whole) = c_text(clip(tables.bytes, segment.p_offset, segment.p_filesz), 0);
    if !whole || text.is_empty() {
        findings.add(
            rule::BAD_INTERPRETER,
            Some(segment.p_offset),
            "not a path that ends with a NUL",
        );
    }
    (!text.is_empty()).then_some(text)
}

/// What is executable: sections where they tell, else segments; by address.
fn code_parts<'a>(tables: &Tables<'a>) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = tables
        .sections
        .iter()
        .filter(|(_, section)| {
            section.sh_flags & 6 == 6 || (tables.header.e_type == 1 && section.sh_flags & 4 != 0)
        })
        .map(|(_, section)| Part {
            // Sections of an object file have no address yet: their offset stands for it.
            address: if tables.header.e_type == 1 {
                section.sh_offset
            } else {
                section.sh_addr
            },
            bytes: tables.content(section),
        })
        .filter(|part| !part.bytes.is_empty())
        .collect();
    if parts.is_empty() {
        parts = tables
            .segments
            .iter()
            .filter(|segment| segment.p_type == tables::LOAD && segment.p_flags & 1 != 0)
            .map(|segment| Part {
                address: segment.p_vaddr,
                bytes: clip(tables.bytes, segment.p_offset, segment.p_filesz),
            })
            .filter(|part| !part.bytes.is_empty())
            .collect();
    }
    parts.sort_by_key(|part| part.address);
    parts
}

/// Where addresses are looked up: loaded segments, or the sections of an object file.
fn maps<'a>(tables: &Tables<'a>) -> Vec<Part<'a>> {
    if tables.header.e_type == 1 {
        return code_parts(tables);
    }
    let mut maps: Vec<Part<'a>> = tables
        .segments
        .iter()
        .filter(|segment| segment.p_type == tables::LOAD)
        .map(|segment| Part {
            address: segment.p_vaddr,
            bytes: clip(tables.bytes, segment.p_offset, segment.p_filesz),
        })
        .filter(|part| !part.bytes.is_empty())
        .collect();
    maps.sort_by_key(|part| part.address);
    maps
}
