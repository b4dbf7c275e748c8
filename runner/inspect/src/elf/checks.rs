//! Headers that are cut off, overlap or contradict each other.

use std::collections::BTreeMap;

use goblin::elf::program_header::ProgramHeader;

use super::tables::{LOAD, NOBITS, NULL, Tables};
use crate::bytes::fits;
use crate::findings::{self as rule, Collector};

/// More memory than this in one segment is a finding.
const HUGE: u64 = 1 << 30;

/// Checks segments and the entry.
pub(crate) fn segments(tables: &Tables<'_>, findings: &mut Collector) {
    let length = tables.bytes.len() as u64;
    let header = &tables.header;
    let program = matches!(header.e_type, 2 | 3);
    let mut once: BTreeMap<u32, u32> = BTreeMap::new();
    let mut previous: Option<u64> = None;
    let mut ranges = Vec::new();
    for (index, segment) in tables.segments.iter().enumerate() {
        let at = Some(segment.p_offset.min(length));
        if !fits(length, segment.p_offset, segment.p_filesz) && header.e_type != 4 {
            findings.add(
                rule::SEGMENT_PAST_END,
                at,
                format!(
                    "segment {index}: {:#x} bytes at {:#x}, the file has {length:#x}",
                    segment.p_filesz, segment.p_offset
                ),
            );
        }
        // Interpreter, dynamic table, header table, thread-local storage, stack: at most one of each.
        if matches!(segment.p_type, 2 | 3 | 6 | 7 | 0x6474_e551 | 0x6474_e552) {
            *once.entry(segment.p_type).or_default() += 1;
        }
        if segment.p_type == 0x6474_e551 && segment.p_flags & 1 != 0 {
            findings.add(
                rule::EXECUTABLE_STACK,
                None,
                format!("segment {index}, GNU_STACK"),
            );
        }
        if segment.p_type != LOAD {
            continue;
        }
        load(index, segment, tables.wide(), findings);
        if previous.is_some_and(|address| address > segment.p_vaddr) {
            findings.add(
                rule::SEGMENT_ORDER,
                at,
                format!("segment {index} at {:#x}", segment.p_vaddr),
            );
        }
        previous = Some(segment.p_vaddr);
        if segment.p_memsz > 0 {
            let end = segment.p_vaddr.saturating_add(segment.p_memsz);
            ranges.push((segment.p_vaddr, end, index));
        }
    }
    for (kind, count) in once {
        if count > 1 {
            let name = super::names::segment_type(kind, header.e_machine);
            findings.add(rule::DUPLICATE_SEGMENT, None, format!("{count} segments {name}"));
        }
    }
    overlaps(&mut ranges, |first, second, from| {
        findings.add(
            rule::OVERLAPPING_SEGMENTS,
            None,
            format!("segments {first} and {second} at {from:#x}"),
        );
    });
    if program {
        if !tables.segments.iter().any(|segment| segment.p_type == LOAD) {
            findings.add(rule::NO_LOADED_SEGMENT, None, "no segment LOAD");
        } else if header.e_entry != 0 || header.e_type == 2 {
            entry(tables, findings);
        }
    }
}

fn load(index: usize, segment: &ProgramHeader, wide: bool, findings: &mut Collector) {
    let at = Some(segment.p_offset);
    if segment.p_filesz > segment.p_memsz {
        findings.add(
            rule::SEGMENT_SIZES,
            at,
            format!(
                "segment {index}: {:#x} bytes in the file, {:#x} in memory",
                segment.p_filesz, segment.p_memsz
            ),
        );
    }
    if segment.p_memsz == 0 {
        findings.add(rule::EMPTY_SEGMENT, at, format!("segment {index}"));
    }
    if segment.p_memsz > HUGE {
        findings.add(
            rule::HUGE_SEGMENT,
            at,
            format!("segment {index}: {:#x} bytes", segment.p_memsz),
        );
    }
    let top = if wide { u64::MAX } else { u64::from(u32::MAX) };
    if segment
        .p_vaddr
        .checked_add(segment.p_memsz.saturating_sub(1))
        .is_none_or(|last| last > top)
    {
        findings.add(
            rule::SEGMENT_WRAPS,
            at,
            format!(
                "segment {index}: {:#x} bytes at {:#x}",
                segment.p_memsz, segment.p_vaddr
            ),
        );
    }
    if segment.p_flags & 3 == 3 {
        findings.add(
            rule::WRITABLE_CODE,
            at,
            format!(
                "segment {index} at {:#x}, {:#x} bytes",
                segment.p_vaddr, segment.p_memsz
            ),
        );
    }
    let align = segment.p_align;
    if align > 1
        && (!align.is_power_of_two() || segment.p_vaddr % align != segment.p_offset % align)
        && segment.p_filesz > 0
    {
        findings.add(
            rule::MISALIGNED_SEGMENT,
            at,
            format!(
                "segment {index}: address {:#x}, offset {:#x}, alignment {align:#x}",
                segment.p_vaddr, segment.p_offset
            ),
        );
    }
}

fn entry(tables: &Tables<'_>, findings: &mut Collector) {
    let address = super::code_address(&tables.header, tables.header.e_entry);
    // ELFv1 of PowerPC 64: the entry is a descriptor in data that holds the code's address.
    let descriptor =
        tables.header.e_machine == goblin::elf::header::EM_PPC64 && tables.header.e_flags & 3 != 2;
    match tables.segment_at(address) {
        Some(segment) if segment.p_flags & 1 != 0 || descriptor => {
            if tables.offset_of(address).is_none() {
                findings.add(rule::ENTRY_NOT_IN_FILE, Some(24), format!("entry {address:#x}"));
            }
        }
        Some(_) => findings.add(
            rule::ENTRY_OUTSIDE_CODE,
            Some(24),
            format!("entry {address:#x} in a segment that is not executable"),
        ),
        None => findings.add(
            rule::ENTRY_OUTSIDE_CODE,
            Some(24),
            format!("entry {address:#x} in no segment"),
        ),
    }
}

/// Checks sections against the file and against the segments.
pub(crate) fn sections(tables: &Tables<'_>, findings: &mut Collector) {
    let length = tables.bytes.len() as u64;
    let header = &tables.header;
    let program = matches!(header.e_type, 2 | 3);
    if program && tables.sections.is_empty() && tables.header.e_shoff == 0 {
        findings.add(rule::NO_SECTION_HEADERS, Some(0), "e_shoff is 0");
    }
    let header_size = if tables.wide() { 64 } else { 52 };
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ranges = Vec::new();
    for (index, (name, section)) in tables.sections.iter().enumerate() {
        if section.sh_type == NULL {
            continue;
        }
        let at = Some(section.sh_offset.min(length));
        let in_file = section.sh_type != NOBITS && section.sh_size > 0;
        if in_file {
            if !fits(length, section.sh_offset, section.sh_size) {
                findings.add(
                    rule::SECTION_PAST_END,
                    at,
                    format!(
                        "section {index} {name}: {:#x} bytes at {:#x}, the file has {length:#x}",
                        section.sh_size, section.sh_offset
                    ),
                );
            }
            if section.sh_offset < header_size {
                findings.add(rule::SECTION_OVER_HEADER, at, format!("section {index} {name}"));
            }
            let end = section.sh_offset.saturating_add(section.sh_size);
            ranges.push((section.sh_offset, end, index));
        }
        entry_size(tables, index, findings);
        // Types whose sh_link is an index of a section: symbols, relocations, hashes, dynamic table, versions.
        let links = matches!(
            section.sh_type,
            2 | 4 | 5 | 6 | 9 | 11 | 17 | 18 | 0x6fff_fff6 | 0x6fff_fffd..=0x6fff_ffff
        );
        if links && u64::from(section.sh_link) >= tables.section_count {
            findings.add(
                rule::BAD_SECTION_LINK,
                at,
                format!("section {index} {name} refers to section {}", section.sh_link),
            );
        }
        if section.sh_type == 3 && tables.content(section).last().is_some_and(|&last| last != 0) {
            findings.add(rule::UNTERMINATED_STRINGS, at, format!("section {index} {name}"));
        }
        if program && !name.is_empty() && section.sh_flags & 0x200 == 0 {
            if let Some(first) = names.get(name.as_str()) {
                findings.add(
                    rule::DUPLICATE_SECTION,
                    at,
                    format!("sections {first} and {index}: {name}"),
                );
            } else {
                names.insert(name, index);
            }
        }
        if program {
            placement(tables, index, findings);
        }
    }
    overlaps(&mut ranges, |first, second, from| {
        let name = |index: usize| tables.sections.get(index).map_or("", |section| &section.0);
        findings.add(
            rule::OVERLAPPING_SECTIONS,
            Some(from),
            format!("sections {first} {} and {second} {}", name(first), name(second)),
        );
    });
}

/// Tables in sections: the size of their entries.
fn entry_size(tables: &Tables<'_>, index: usize, findings: &mut Collector) {
    let Some((name, section)) = tables.sections.get(index) else {
        return;
    };
    let wide = tables.wide();
    let expected = match section.sh_type {
        2 | 11 => [16, 24],
        4 => [12, 24],
        9 => [8, 16],
        6 => [8, 16],
        _ => return,
    }[usize::from(wide)];
    if section.sh_entsize != expected && section.sh_size > 0 {
        findings.add(
            rule::BAD_ENTRY_SIZE,
            Some(section.sh_offset),
            format!(
                "section {index} {name}: entries of {} bytes, expected {expected}",
                section.sh_entsize
            ),
        );
    }
}

/// Where a loaded section is, as segments see it.
fn placement(tables: &Tables<'_>, index: usize, findings: &mut Collector) {
    let Some((name, section)) = tables.sections.get(index) else {
        return;
    };
    // Thread-local zeros take no place in memory.
    let alloc = section.sh_flags & 2 != 0 && section.sh_size > 0 && section.sh_flags & 0x400 == 0;
    if !alloc || tables.segments.is_empty() {
        return;
    }
    match tables.segment_at(section.sh_addr) {
        None => findings.add(
            rule::SECTION_OUTSIDE_SEGMENTS,
            Some(section.sh_offset),
            format!("section {index} {name} at {:#x}", section.sh_addr),
        ),
        Some(segment) if section.sh_type != NOBITS => {
            let there = section
                .sh_addr
                .checked_sub(segment.p_vaddr)
                .and_then(|inside| segment.p_offset.checked_add(inside));
            if there != Some(section.sh_offset) {
                findings.add(
                    rule::LYING_SECTION_HEADER,
                    Some(section.sh_offset),
                    format!(
                        "section {index} {name}: {:#x} is at offset {:#x} for the section, at {:#x} for its segment",
                        section.sh_addr,
                        section.sh_offset,
                        there.unwrap_or_default()
                    ),
                );
            } else if section.sh_flags & 4 != 0 && segment.p_flags & 1 == 0 {
                findings.add(
                    rule::LYING_SECTION_HEADER,
                    Some(section.sh_offset),
                    format!("section {index} {name} is executable, its segment is not"),
                );
            }
        }
        Some(_) => {}
    }
}

/// Calls `found` with the indices of overlapping ranges and where the second begins, in the order of the ranges. One
/// call for each range that begins before the greatest end so far.
fn overlaps(ranges: &mut [(u64, u64, usize)], mut found: impl FnMut(usize, usize, u64)) {
    ranges.sort_unstable();
    let mut last: Option<(u64, usize)> = None;
    for &(start, end, index) in ranges.iter() {
        match last {
            Some((before, first)) if start < before => {
                found(first, index, start);
                if end > before {
                    last = Some((end, index));
                }
            }
            _ => last = Some((end, index)),
        }
    }
}

/// Bytes behind everything that headers speak of.
pub(crate) fn trailing(tables: &Tables<'_>, findings: &mut Collector) {
    let length = tables.bytes.len() as u64;
    let header_size = u64::from(tables.header.e_ehsize);
    let mut end = header_size
        .max(tables.section_table_end)
        .max(tables.segment_table_end);
    for segment in &tables.segments {
        end = end.max(segment.p_offset.saturating_add(segment.p_filesz).min(length));
    }
    for (_, section) in &tables.sections {
        if section.sh_type != NOBITS && section.sh_type != NULL {
            end = end.max(section.sh_offset.saturating_add(section.sh_size).min(length));
        }
    }
    if let Some(rest) = length.checked_sub(end).filter(|&rest| rest >= 16) {
        findings.add(rule::TRAILING_DATA, Some(end), format!("{rest} bytes"));
    }
}
