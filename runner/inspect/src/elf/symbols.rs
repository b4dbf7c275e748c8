//! Symbol tables: counts, a bounded list, the functions to disassemble, and what symbols tell about hardening.

use std::collections::{BTreeMap, BTreeSet};

use goblin::elf::section_header::SectionHeader;
use goblin::elf::sym::Sym;
use hotcell_schema::elf::{Imports, Symbol, Symbols};
use hotcell_schema::guest::Address;

use super::dynamic::Dynamic;
use super::tables::Tables;
use crate::bytes::{c_text, clip};
use crate::findings::{self as rule, Collector};

/// Greatest number of symbols listed.
const MAX_LISTED: usize = 2000;
/// Greatest number of imported names listed.
pub(crate) const MAX_IMPORTS: usize = 2000;
/// Greatest number of symbols looked at in one table.
const MAX_SYMBOLS: u64 = 1 << 20;
/// Greatest number of functions kept for disassembly.
pub(crate) const MAX_FUNCTIONS: usize = 256;
/// Greatest number of fortified functions listed.
const MAX_FORTIFIED: usize = 64;

/// What all symbol tables together tell.
#[derive(Default)]
pub(crate) struct Known {
    /// For the document.
    pub(crate) symbols: Symbols,
    /// Functions in this file by address (as symbols say it: bit 0 is kept), with name and size.
    pub(crate) functions: BTreeMap<u64, (String, u64)>,
    /// How many functions are in this file.
    pub(crate) functions_total: u64,
    /// ARM mapping symbols: address to `a`, `t` or `d`.
    pub(crate) mapping: BTreeMap<u64, char>,
    /// Whether a stack canary's function is named.
    pub(crate) canary: bool,
    /// Fortified functions.
    pub(crate) fortified: BTreeSet<String>,
    /// Names wanted from elsewhere.
    imports: BTreeSet<String>,
    imports_total: u64,
    first: Vec<Symbol>,
    second: Vec<Symbol>,
}

impl Known {
    /// Reads the symbol tables of a file.
    pub(crate) fn read(tables: &Tables<'_>, dynamic: &Dynamic, findings: &mut Collector) -> Self {
        let mut known = Self::default();
        for (kind, table) in [(11, "dynsym"), (2, "symtab")] {
            let mut sections = tables
                .sections
                .iter()
                .filter(|(_, section)| section.sh_type == kind);
            match sections.next() {
                Some((_, section)) => {
                    let names = linked(tables, section);
                    let (offset, size) = (section.sh_offset, section.sh_size);
                    known.table(tables, table, offset, size, names, findings);
                }
                // Without sections the dynamic table knows.
                None if kind == 11 => {
                    if let Some((offset, size)) = dynamic.symbols {
                        known.table(tables, table, offset, size, dynamic.strings(tables), findings);
                    }
                }
                None => {}
            }
            if let Some((name, section)) = sections.next() {
                findings.add(
                    rule::DUPLICATE_SYMBOL_TABLE,
                    Some(section.sh_offset),
                    name.as_str(),
                );
            }
        }
        let mut list = std::mem::take(&mut known.first);
        list.append(&mut known.second);
        list.truncate(MAX_LISTED);
        known.symbols.list = list;
        known
    }

    /// The imports, with the libraries of the dynamic table.
    pub(crate) fn imports(&self, libraries: Vec<String>) -> Imports {
        Imports {
            libraries,
            total: self.imports_total,
            functions: self.imports.iter().take(MAX_IMPORTS).cloned().collect(),
        }
    }

    fn table(
        &mut self,
        tables: &Tables<'_>,
        table: &str,
        offset: u64,
        size: u64,
        names: &[u8],
        findings: &mut Collector,
    ) {
        let entry = if tables.wide() { 24 } else { 16 };
        let room = clip(tables.bytes, offset, size).len() as u64 / entry;
        if room > MAX_SYMBOLS {
            findings.add(
                rule::TOO_MANY,
                Some(offset),
                format!("{room} symbols in {table}, {MAX_SYMBOLS} are looked at"),
            );
        }
        for index in 1..room.min(MAX_SYMBOLS) {
            let Some(symbol) = offset
                .checked_add(index * entry)
                .and_then(|at| tables.record::<Sym>(at, entry))
            else {
                break;
            };
            let (name, whole) = match symbol.st_name {
                0 => (String::new(), true),
                place => c_text(names, place as u64),
            };
            if !whole && !names.is_empty() && (symbol.st_name as u64) >= names.len() as u64 {
                let at = offset + index * entry;
                findings.add(
                    rule::BAD_NAME,
                    Some(at),
                    format!("name of symbol {index} in {table}"),
                );
            }
            self.symbol(tables, table, &symbol, name);
        }
    }

    fn symbol(&mut self, tables: &Tables<'_>, table: &str, symbol: &Sym, name: String) {
        let kind = symbol_kind(symbol.st_info & 15);
        let defined = symbol.st_shndx != 0;
        let function = matches!(kind, "function" | "indirect-function");
        let arm = tables.header.e_machine == goblin::elf::header::EM_ARM;
        self.symbols.total += 1;
        if function {
            self.symbols.functions += 1;
        }
        if defined {
            self.symbols.defined += 1;
        } else if !name.is_empty() {
            self.symbols.imported += 1;
        }
        if !defined && table == "dynsym" && !name.is_empty() {
            self.imports_total += 1;
            self.imports.insert(name.clone());
            if self.imports.len() > MAX_IMPORTS {
                self.imports.pop_last();
            }
        }
        if matches!(
            name.as_str(),
            "__stack_chk_fail" | "__stack_chk_fail_local" | "__stack_chk_guard" | "__intel_security_cookie"
        ) {
            self.canary = true;
        } else if name.starts_with("__")
            && name
                .split('@')
                .next()
                .is_some_and(|plain| plain.ends_with("_chk"))
            && self.fortified.len() < MAX_FORTIFIED
        {
            self.fortified.insert(name.clone());
        }
        // In an object file a value counts from its section's start; the section's offset stands for its address.
        let object = tables.header.e_type == 1;
        let base = match tables.sections.get(symbol.st_shndx) {
            Some((_, section)) if object => section.sh_offset,
            _ => 0,
        };
        let address = symbol.st_value.wrapping_add(base);
        if arm
            && defined
            && kind == "none"
            && name.starts_with('$')
            && self.mapping.len() < MAX_SYMBOLS as usize
        {
            if let Some(state @ ('a' | 't' | 'd')) = name.chars().nth(1) {
                self.mapping.insert(address, state);
            }
            return;
        }
        if function && defined && address != 0 {
            self.functions_total += u64::from(table == "symtab" || !self.functions.contains_key(&address));
            self.functions
                .entry(address)
                .or_insert_with(|| (name.clone(), symbol.st_size));
            if self.functions.len() > MAX_FUNCTIONS {
                self.functions.pop_last();
            }
        }
        let interesting =
            !name.is_empty() && matches!(kind, "function" | "object" | "tls" | "indirect-function");
        let list = if interesting {
            &mut self.first
        } else {
            &mut self.second
        };
        if list.len() < MAX_LISTED {
            list.push(Symbol {
                name,
                kind: kind.into(),
                binding: binding(symbol.st_info >> 4).into(),
                table: table.into(),
                defined,
                address: Address(symbol.st_value),
                size: symbol.st_size,
            });
        }
    }
}

/// The string table that a section refers to.
pub(crate) fn linked<'a>(tables: &Tables<'a>, section: &SectionHeader) -> &'a [u8] {
    tables
        .sections
        .get(section.sh_link as usize)
        .map_or(&[], |(_, strings)| tables.content(strings))
}

fn symbol_kind(kind: u8) -> &'static str {
    match kind {
        0 => "none",
        1 => "object",
        2 => "function",
        3 => "section",
        4 => "file",
        5 => "common",
        6 => "tls",
        10 => "indirect-function",
        _ => "other",
    }
}

fn binding(binding: u8) -> &'static str {
    match binding {
        0 => "local",
        1 => "global",
        2 => "weak",
        10 => "unique",
        _ => "other",
    }
}
