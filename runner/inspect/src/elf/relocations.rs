//! Relocations: how many of each type in each section, and the first of them.

use std::collections::BTreeMap;

use goblin::elf::dynamic as dt;
use goblin::elf::header as eh;
use goblin::elf::reloc::{Reloc, r_to_str};
use goblin::elf::section_header::SectionHeader;
use goblin::elf::sym::Sym;
use hotcell_schema::elf::{Named, Relocation, RelocationCount, Relocations};
use hotcell_schema::guest::Address;
use scroll::Pread;

use super::dynamic::Dynamic;
use super::symbols::linked;
use super::tables::Tables;
use crate::bytes::{c_text, clip, fits};
use crate::findings::{self as rule, Collector};

/// Greatest number of relocations listed.
const MAX_LISTED: usize = 500;
/// Greatest number of relocations counted.
const MAX_COUNTED: u64 = 1 << 20;
/// Greatest number of rows of the summary.
const MAX_SUMMARY: usize = 256;

/// Where relocations and their symbols stand.
struct Source<'a> {
    name: String,
    offset: u64,
    size: u64,
    addends: bool,
    symbols: &'a [u8],
    strings: &'a [u8],
}

/// Reads the relocations of a file.
pub(crate) fn read(tables: &Tables<'_>, dynamic: &Dynamic, findings: &mut Collector) -> Relocations {
    let mut counted = 0;
    let mut counts: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    let mut found = Relocations::default();
    let sources = sources(tables, dynamic);
    for (place, source) in sources.iter().enumerate() {
        let entry = match (tables.wide(), source.addends) {
            (false, false) => 8,
            (false, true) => 12,
            (true, false) => 16,
            (true, true) => 24,
        };
        let table = clip(tables.bytes, source.offset, source.size);
        let room = table.len() as u64 / entry;
        found.total = found.total.saturating_add(room);
        let left = MAX_COUNTED.saturating_sub(counted);
        if room > left {
            findings.add(
                rule::TOO_MANY,
                Some(source.offset),
                format!("{room} relocations in {}, {left} are looked at", source.name),
            );
        }
        for index in 0..room.min(left) {
            let Ok(mut relocation) =
                table.pread_with::<Reloc>((index * entry) as usize, (source.addends, tables.ctx))
            else {
                break;
            };
            counted += 1;
            mips64_little(tables, &mut relocation);
            let key = (place, relocation.r_type);
            if counts.len() < MAX_SUMMARY || counts.contains_key(&key) {
                *counts.entry(key).or_default() += 1;
            }
            if found.list.len() < MAX_LISTED {
                found.list.push(Relocation {
                    address: Address(relocation.r_offset),
                    kind: relocation.r_type,
                    symbol: symbol_name(tables, source, relocation.r_sym as u64),
                    addend: relocation.r_addend.filter(|_| source.addends),
                });
            }
        }
    }
    found.summary = counts
        .into_iter()
        .map(|((place, kind), count)| RelocationCount {
            section: sources
                .get(place)
                .map_or_else(String::new, |source| source.name.clone()),
            kind: kind_name(kind, tables.header.e_machine),
            count,
        })
        .collect();
    found
}

/// The 64-bit MIPS ABI splits `r_info` into a 32-bit symbol and four bytes; little-endian files need it put together.
fn mips64_little(tables: &Tables<'_>, relocation: &mut Reloc) {
    if !tables.wide() || tables.header.e_machine != eh::EM_MIPS {
        return;
    }
    if !tables.big() {
        let info = ((relocation.r_sym as u64) << 32) | u64::from(relocation.r_type);
        let fixed = goblin::elf::reloc::reloc64::mips64el_r_info(info);
        relocation.r_sym = (fixed >> 32) as usize;
        relocation.r_type = fixed as u32;
    }
    // Three types stand together; the first is the one that names it.
    relocation.r_type &= 0xff;
}

fn kind_name(kind: u32, machine: u16) -> Named {
    let known = r_to_str(kind, machine);
    let name = if known.is_empty() || known.contains("UNKNOWN") {
        "unknown"
    } else {
        known
    };
    Named {
        value: kind.into(),
        name: name.into(),
        title: String::new(),
    }
}

fn symbol_name(tables: &Tables<'_>, source: &Source<'_>, index: u64) -> String {
    let entry: u64 = if tables.wide() { 24 } else { 16 };
    let Some(offset) = index.checked_mul(entry).filter(|_| index != 0) else {
        return String::new();
    };
    if !fits(source.symbols.len() as u64, offset, entry) {
        return String::new();
    }
    match source.symbols.pread_with::<Sym>(offset as usize, tables.ctx) {
        Ok(symbol) if symbol.st_name != 0 => c_text(source.strings, symbol.st_name as u64).0,
        _ => String::new(),
    }
}

fn sources<'a>(tables: &Tables<'a>, dynamic: &Dynamic) -> Vec<Source<'a>> {
    let by_section = |(name, section): &(String, SectionHeader)| {
        let symbols = tables
            .sections
            .get(section.sh_link as usize)
            .map(|(_, symbols)| symbols);
        Source {
            name: name.clone(),
            offset: section.sh_offset,
            size: section.sh_size,
            addends: section.sh_type == 4,
            symbols: symbols.map_or(&[], |symbols| tables.content(symbols)),
            strings: symbols.map_or(&[], |symbols| linked(tables, symbols)),
        }
    };
    let found: Vec<_> = tables
        .sections
        .iter()
        .filter(|(_, section)| matches!(section.sh_type, 4 | 9))
        .map(by_section)
        .collect();
    if !found.is_empty() || !tables.sections.is_empty() {
        return found;
    }
    let symbols = dynamic
        .symbols
        .map_or(&[][..], |(offset, size)| clip(tables.bytes, offset, size));
    let plt_addends = dynamic.value(dt::DT_PLTREL) == Some(dt::DT_RELA);
    [
        (dt::DT_RELA, dt::DT_RELASZ, true),
        (dt::DT_REL, dt::DT_RELSZ, false),
        (dt::DT_JMPREL, dt::DT_PLTRELSZ, plt_addends),
    ]
    .into_iter()
    .filter_map(|(address, size, addends)| {
        let (offset, size) = dynamic.table(tables, address, size)?;
        Some(Source {
            name: "dynamic".into(),
            offset,
            size,
            addends,
            symbols,
            strings: dynamic.strings(tables),
        })
    })
    .collect()
}
