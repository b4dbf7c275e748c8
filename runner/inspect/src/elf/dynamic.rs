//! The dynamic table: needed libraries, paths, flags, and where symbols are when there are no sections.

use std::collections::BTreeMap;

use goblin::elf::dynamic as dt;
use goblin::elf::dynamic::Dyn;

use super::tables::Tables;
use crate::bytes::{c_text, clip, u32_at};
use crate::findings::{self as rule, Collector};

/// Greatest number of entries read.
const MAX_ENTRIES: u64 = 4096;
/// Greatest number of libraries kept.
const MAX_LIBRARIES: usize = 256;
/// Greatest number of words of a hash table read to count symbols.
const MAX_CHAIN: u64 = 1 << 20;

/// What the dynamic table says.
#[derive(Default)]
pub(crate) struct Dynamic {
    /// Whether there is one.
    pub(crate) present: bool,
    /// The first value of each tag.
    values: BTreeMap<u64, u64>,
    /// DT_NEEDED.
    pub(crate) libraries: Vec<String>,
    /// DT_SONAME.
    pub(crate) soname: Option<String>,
    /// DT_RPATH.
    pub(crate) rpath: Option<String>,
    /// DT_RUNPATH.
    pub(crate) runpath: Option<String>,
    /// Offset and size of the symbol table in the file.
    pub(crate) symbols: Option<(u64, u64)>,
    /// Offset and size of the string table in the file.
    string_table: Option<(u64, u64)>,
}

impl Dynamic {
    /// Reads the dynamic table, if there is one.
    pub(crate) fn read(tables: &Tables<'_>, findings: &mut Collector) -> Self {
        let mut dynamic = Self::default();
        let place = tables
            .segment_of_type(2)
            .map(|segment| (segment.p_offset, segment.p_filesz))
            .or_else(|| {
                tables
                    .section_of_type(6)
                    .map(|section| (section.sh_offset, section.sh_size))
            });
        let Some((offset, size)) = place else {
            return dynamic;
        };
        dynamic.present = true;
        let entry = if tables.wide() { 16u64 } else { 8 };
        let room = clip(tables.bytes, offset, size).len() as u64 / entry;
        let mut needed = Vec::new();
        let mut ended = false;
        for index in 0..room.min(MAX_ENTRIES) {
            let Some(row) = offset
                .checked_add(index * entry)
                .and_then(|at| tables.record::<Dyn>(at, entry))
            else {
                break;
            };
            if row.d_tag == dt::DT_NULL {
                ended = true;
                break;
            }
            dynamic.values.entry(row.d_tag).or_insert(row.d_val);
            if row.d_tag == dt::DT_NEEDED && needed.len() < MAX_LIBRARIES {
                needed.push(row.d_val);
            }
        }
        if !ended {
            findings.add(rule::BAD_DYNAMIC, Some(offset), "the table has no end");
        }
        dynamic.find_tables(tables, findings);
        let strings = dynamic.strings(tables);
        let mut text = |place: u64, what: &str| {
            let (text, whole) = c_text(strings, place);
            if !whole {
                findings.add(
                    rule::BAD_DYNAMIC,
                    Some(offset),
                    format!("{what} is outside the string table"),
                );
            }
            whole.then_some(text)
        };
        dynamic.libraries = needed
            .into_iter()
            .filter_map(|place| text(place, "a library"))
            .collect();
        dynamic.soname = dynamic
            .value(dt::DT_SONAME)
            .and_then(|place| text(place, "DT_SONAME"));
        dynamic.rpath = dynamic
            .value(dt::DT_RPATH)
            .and_then(|place| text(place, "DT_RPATH"));
        dynamic.runpath = dynamic
            .value(dt::DT_RUNPATH)
            .and_then(|place| text(place, "DT_RUNPATH"));
        dynamic
    }

    /// The first value of a tag.
    pub(crate) fn value(&self, tag: u64) -> Option<u64> {
        self.values.get(&tag).copied()
    }

    /// Whether all symbols are bound at start.
    pub(crate) fn binds_now(&self) -> bool {
        self.value(dt::DT_BIND_NOW).is_some()
            || self
                .value(dt::DT_FLAGS)
                .is_some_and(|flags| flags & dt::DF_BIND_NOW != 0)
            || self
                .value(dt::DT_FLAGS_1)
                .is_some_and(|flags| flags & dt::DF_1_NOW != 0)
    }

    /// Whether DF_1_PIE is set.
    pub(crate) fn says_pie(&self) -> bool {
        self.value(dt::DT_FLAGS_1)
            .is_some_and(|flags| flags & dt::DF_1_PIE != 0)
    }

    /// The string table.
    pub(crate) fn strings<'a>(&self, tables: &Tables<'a>) -> &'a [u8] {
        self.string_table
            .map_or(&[], |(offset, size)| clip(tables.bytes, offset, size))
    }

    /// Offset and size in the file of a table, by the tags of its address and its size.
    pub(crate) fn table(&self, tables: &Tables<'_>, address: u64, size: u64) -> Option<(u64, u64)> {
        let (offset, left) = tables.offset_of(self.value(address)?)?;
        Some((offset, self.value(size)?.min(left)))
    }

    fn find_tables(&mut self, tables: &Tables<'_>, findings: &mut Collector) {
        self.string_table = self.table(tables, dt::DT_STRTAB, dt::DT_STRSZ);
        if self.string_table.is_none()
            && let Some(address) = self.value(dt::DT_STRTAB)
        {
            findings.add(
                rule::BAD_DYNAMIC,
                None,
                format!("no string table at {address:#x}"),
            );
        }
        let Some((offset, left)) = self
            .value(dt::DT_SYMTAB)
            .and_then(|address| tables.offset_of(address))
        else {
            return;
        };
        let entry = if tables.wide() { 24 } else { 16 };
        let count = self
            .count_by_hash(tables)
            .or_else(|| self.count_by_gnu_hash(tables))
            .or_else(|| {
                // The string table mostly follows the symbols.
                let (strings, _) = self.string_table?;
                strings.checked_sub(offset).map(|size| size / entry)
            })
            .unwrap_or(0);
        self.symbols = Some((offset, count.saturating_mul(entry).min(left)));
    }

    /// DT_HASH: its second word counts the symbols. (System V ABI, chapter 5, "Hash Table".)
    fn count_by_hash(&self, tables: &Tables<'_>) -> Option<u64> {
        let (offset, _) = tables.offset_of(self.value(dt::DT_HASH)?)?;
        u32_at(tables.bytes, offset.checked_add(4)?, tables.big()).map(u64::from)
    }

    /// DT_GNU_HASH: the greatest bucket's chain ends with the last symbol.
    fn count_by_gnu_hash(&self, tables: &Tables<'_>) -> Option<u64> {
        let (offset, left) = tables.offset_of(self.value(dt::DT_GNU_HASH)?)?;
        let table = clip(tables.bytes, offset, left);
        let word = |at: u64| u32_at(table, at, tables.big()).map(u64::from);
        let (buckets, first, bloom) = (word(0)?, word(4)?, word(8)?);
        let filter = bloom.checked_mul(if tables.wide() { 8 } else { 4 })?;
        let buckets_at = filter.checked_add(16)?;
        let chains_at = buckets_at.checked_add(buckets.checked_mul(4)?)?;
        if chains_at > table.len() as u64 {
            return None;
        }
        let greatest = (0..buckets)
            .filter_map(|index| word(buckets_at + 4 * index))
            .max()?;
        if greatest < first {
            return Some(first);
        }
        (greatest..greatest.saturating_add(MAX_CHAIN))
            .find(|symbol| {
                word(chains_at.saturating_add((symbol - first).saturating_mul(4)))
                    .is_none_or(|hash| hash & 1 == 1)
            })
            .map(|last| last + 1)
    }
}
