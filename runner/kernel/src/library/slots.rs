//! Where a dynamically linked program keeps the addresses of the functions that it calls in its libraries: slots that its
//! loader fills, at the start or when a function is first called. (System V ABI, chapter 5; MIPS supplement, "Global Offset
//! Table".)

use goblin::elf::Elf;
use goblin::elf::dynamic::{DT_PLTGOT, Dyn};
use goblin::elf::header::EM_MIPS;
use goblin::elf::section_header::SHN_UNDEF;
use goblin::elf::sym::STT_OBJECT;
use hotcell_schema::guest::text_up_to;
use serde::{Deserialize, Serialize};

/// Greatest number of slots of a program.
const MAX_SLOTS: usize = 20_000;
/// Greatest length of a name, in bytes.
const MAX_NAME: usize = 256;
/// `DT_MIPS_LOCAL_GOTNO`, `DT_MIPS_SYMTABNO`, `DT_MIPS_GOTSYM` (`elf.h`).
const MIPS_LOCAL_GOT: u64 = 0x7000_000a;
const MIPS_SYMBOLS: u64 = 0x7000_0011;
const MIPS_FIRST_GOT_SYMBOL: u64 = 0x7000_0013;

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// Its address, not yet relocated.
    pub(super) address: u64,
    /// The function's name.
    pub(super) name: String,
}

/// The slots of a program; none of one that is not dynamically linked, or whose tables are not to be understood.
pub(super) fn slots(file: &[u8]) -> Vec<Slot> {
    let Ok(elf) = Elf::parse(file) else {
        return Vec::new();
    };
    let is_mips = elf.header.e_machine == EM_MIPS;
    let mut found = if is_mips { mips(&elf) } else { Vec::new() };
    // MIPS of 64 bits writes relocations in a way of its own, and needs none for functions.
    if !(is_mips && elf.is_64) {
        let relocations = elf.pltrelocs.iter().chain(&elf.dynrelas).chain(&elf.dynrels);
        for relocation in relocations.take(MAX_SLOTS) {
            if let Some(name) = function(&elf, relocation.r_sym) {
                let address = relocation.r_offset;
                found.push(Slot { address, name });
            }
        }
    }
    found.truncate(MAX_SLOTS);
    found
}

/// Name of a symbol that a library has to give, unless it is data.
fn function(elf: &Elf<'_>, index: usize) -> Option<String> {
    let symbol = elf.dynsyms.get(index).filter(|_| index != 0)?;
    if symbol.st_shndx != SHN_UNDEF as usize || symbol.st_type() == STT_OBJECT {
        return None;
    }
    let name = elf.dynstrtab.get_at(symbol.st_name)?;
    (!name.is_empty()).then(|| text_up_to(name.as_bytes(), MAX_NAME))
}

/// The part of a MIPS program's table that has a slot for each of the last symbols.
fn mips(elf: &Elf<'_>) -> Vec<Slot> {
    let Some(dynamic) = &elf.dynamic else {
        return Vec::new();
    };
    let value = |tag: u64| {
        dynamic
            .dyns
            .iter()
            .find(|dy: &&Dyn| dy.d_tag == tag)
            .map(|dy| dy.d_val)
    };
    let (Some(table), Some(local), Some(symbols), Some(first)) = (
        value(DT_PLTGOT),
        value(MIPS_LOCAL_GOT),
        value(MIPS_SYMBOLS),
        value(MIPS_FIRST_GOT_SYMBOL),
    ) else {
        return Vec::new();
    };
    let word = if elf.is_64 { 8 } else { 4 };
    (first..symbols)
        .take(MAX_SLOTS)
        .filter_map(|index| {
            let place = local.checked_add(index - first)?.checked_mul(word)?;
            Some(Slot {
                address: table.checked_add(place)?,
                name: function(elf, usize::try_from(index).ok()?)?,
            })
        })
        .collect()
}
