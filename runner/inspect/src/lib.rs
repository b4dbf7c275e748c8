//! Static analysis of hostile files: what is in an executable, and what is wrong with it.
//!
//! In: the bytes of one file, the arch profiles, [`Options`]. Out: [`InspectResult`], an [`ElfInfo`] (facts, for every kind
//! of file) and findings (what is cut off, overlaps, contradicts itself or looks packed). The executable
//! `hotcell-inspect` (`main.rs`) does this in a confined process, one file a process; nothing here does I/O.
//!
//! Whatever a file says is taken for a lie until checked: offsets and counts are compared with the file's length before
//! anything is read or allocated, lists are bounded and say how many there were, every loop has a limit, and the readers
//! of other projects (goblin, capstone) get only records and slices that were cut to size. Should one of them panic all the
//! same, that is caught and becomes the finding `inspect/parser-panic`. The same bytes, profiles and options give the
//! same result on every machine.
//!
//! | module | what it does |
//! |---|---|
//! | `kind` | kind of file by its first bytes |
//! | `elf` | ELF: `tables` reads headers, `checks` compares them, one module for each further table |
//! | `pe`, `macho` | PE and Mach-O |
//! | `packer` | signs of packing |
//! | `strings` | printable strings and their kinds |
//! | `code`, [`disassembly`](Disassembler) | what is executable, and its instructions by capstone |
//! | [`unpack`](mod@unpack) | archives: what is in them, and the bytes of their members |
//! | `findings` | the checks ([`RULES`]) and the collector of evidence |
//! | `bytes`, `entropy` | looking at bytes without leaving them; entropy that is the same everywhere |

mod bytes;
mod code;
mod disassembly;
mod elf;
mod entropy;
mod findings;
mod kind;
mod macho;
mod packer;
mod pe;
mod strings;
pub mod unpack;

use std::panic::{AssertUnwindSafe, catch_unwind};

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::elf::{ElfInfo, FileKind, Imports, Packer, Relocations, Strings, Symbols};
use hotcell_schema::job::InspectResult;
use md5::{Digest as _, Md5};
use sha1::Sha1;

pub use disassembly::{Disassembler, DisassemblerError};
pub use findings::{RULES, Rule};

use crate::code::Code;
use crate::entropy::Budget;
use crate::findings::Collector;

/// What of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Greatest number of strings kept.
    pub max_strings: u32,
    /// Whether entry and symbols are disassembled.
    pub disassemble: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_strings: 2000,
            disassemble: true,
        }
    }
}

/// Looks at a file. Never fails: what cannot be read is a finding.
pub fn inspect(bytes: &[u8], profiles: &[ArchProfile], options: &Options) -> InspectResult {
    let mut findings = Collector::default();
    let mut budget = Budget::of(bytes.len());
    let mut info = facts(bytes);
    if let Some(code) = read_format(bytes, profiles, &mut info, &mut findings, &mut budget)
        && options.disassemble
    {
        disassemble(&code, profiles, &mut info, &mut findings);
    }
    if options.max_strings > 0 {
        info.strings = strings::find(bytes, options.max_strings as usize, &code_ranges(&info));
    }
    if info.packer.packed {
        let offset = info.packer.signs.iter().find_map(|sign| sign.offset);
        let name = info.packer.name.as_deref().unwrap_or("unknown packer");
        let signs: Vec<&str> = info.packer.signs.iter().map(|sign| sign.sign.as_str()).collect();
        findings.add(findings::PACKED, offset, format!("{name}: {}", signs.join(", ")));
    }
    InspectResult {
        info,
        findings: findings.finish(),
    }
}

/// What holds for any file.
fn facts(bytes: &[u8]) -> ElfInfo {
    let (kind, variant) = kind::of(bytes);
    ElfInfo {
        format: ElfInfo::FORMAT.into(),
        version: ElfInfo::VERSION,
        kind,
        variant: variant.into(),
        length: bytes.len() as u64,
        md5: hex::encode(Md5::digest(bytes)),
        sha1: hex::encode(Sha1::digest(bytes)),
        sha256: Digest::of(bytes),
        entropy: entropy::entropy(bytes),
        arch: None,
        linkage: None,
        interpreter: match kind {
            FileKind::Script => kind::script_interpreter(bytes),
            _ => None,
        },
        header: None,
        sections: Vec::new(),
        segments: Vec::new(),
        symbols: Symbols::default(),
        imports: Imports::default(),
        relocations: Relocations::default(),
        build_id: None,
        notes: Vec::new(),
        toolchains: Vec::new(),
        hardening: None,
        packer: Packer::default(),
        strings: Strings::default(),
        disassembly: None,
        slices: Vec::new(),
    }
}

/// Where sections say that instructions are, begin and end in the file, sorted. (Segments tell less: many linkers put
/// constants into the executable one.)
fn code_ranges(info: &ElfInfo) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = info
        .sections
        .iter()
        .filter(|section| section.entropy.is_some() && section.flags.iter().any(|flag| flag == "exec"))
        .map(|section| (section.offset, section.offset.saturating_add(section.size)))
        .collect();
    ranges.sort_unstable();
    ranges
}

/// Reads what the kind of file has; none where it holds no code.
fn read_format<'a>(
    bytes: &'a [u8],
    profiles: &[ArchProfile],
    info: &mut ElfInfo,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Option<Code<'a>> {
    let read = match info.kind {
        FileKind::Elf => elf::read,
        FileKind::Pe => pe::read,
        FileKind::MachO => macho::read,
        FileKind::Script | FileKind::Archive | FileKind::Raw => return None,
    };
    // What was read until then stays: `info` and `findings` are plain data, whole after every step.
    guarded(findings, "headers", |findings| {
        read(bytes, profiles, info, findings, budget)
    })
}

fn disassemble(code: &Code<'_>, profiles: &[ArchProfile], info: &mut ElfInfo, findings: &mut Collector) {
    let capstone = profiles
        .iter()
        .find(|profile| Some(&profile.name) == info.arch.as_ref())
        .and_then(|profile| profile.capstone.as_ref());
    let Some(capstone) = capstone else { return };
    info.disassembly = guarded(findings, "instructions", |_| {
        Disassembler::new(capstone, code.little_code)
            .ok()
            .map(|disassembler| disassembler.disassemble(code))
    });
}

/// Runs a reader; a panic in it is a finding.
fn guarded<T>(
    findings: &mut Collector,
    what: &str,
    read: impl FnOnce(&mut Collector) -> Option<T>,
) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(|| read(findings))) {
        Ok(found) => found,
        Err(_) => {
            findings.add(findings::PARSER_PANIC, None, format!("while reading {what}"));
            None
        }
    }
}
