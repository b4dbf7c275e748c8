//! Mach-O files (Apple), single and universal: headers and load commands by goblin, the walk over them bounded.
//!
//! Numbers: Apple, `mach-o/loader.h`, `mach-o/nlist.h`, `mach-o/fat.h`, `mach/machine.h`.

use std::collections::BTreeSet;

use goblin::container::Ctx;
use goblin::mach::header::{Header as MachHeader, filetype_to_str};
use goblin::mach::load_command::{CommandVariant, LoadCommand, SymtabCommand};
use goblin::mach::parse_magic_and_ctx;
use hotcell_schema::arch::{ArchProfile, ByteOrder};
use hotcell_schema::digest::Digest;
use hotcell_schema::elf::{ElfInfo, Flags, Header, Linkage, Named, Section, Segment, Slice, Symbol};
use hotcell_schema::guest::{self, Address, Hex};
use scroll::Pread;

use crate::bytes::{c_text, clip, fits, u32_at, u64_at};
use crate::code::{Code, Function, Part};
use crate::elf::names::{bits, named};
use crate::elf::symbols::{MAX_FUNCTIONS, MAX_IMPORTS};
use crate::entropy::Budget;
use crate::findings::{self as rule, Collector};

/// Greatest number of programs in a universal file.
const MAX_SLICES: u64 = 32;
/// Greatest number of load commands read.
const MAX_COMMANDS: usize = 4096;
/// Greatest number of sections read.
const MAX_SECTIONS: usize = 4096;
/// Greatest number of symbols looked at.
const MAX_SYMBOLS: u64 = 1 << 18;
/// Greatest number of symbols listed.
const MAX_LISTED: usize = 2000;

/// CPU type: number, name, what it is, and the ELF machine and class of the same processor.
const MACHINES: &[(u32, &str, &str, u16, u8)] = &[
    (1, "VAX", "DEC VAX", 75, 32),
    (6, "MC680X0", "Motorola 68000", 4, 32),
    (7, "X86", "Intel 386 and later", 3, 32),
    (8, "MIPS", "MIPS", 8, 32),
    (10, "MC98000", "Motorola 98000", 0, 0),
    (11, "HPPA", "HP PA-RISC", 15, 32),
    (12, "ARM", "ARM, 32 bits", 40, 32),
    (13, "MC88000", "Motorola 88000", 5, 32),
    (14, "SPARC", "SPARC", 2, 32),
    (15, "I860", "Intel 860", 7, 32),
    (16, "ALPHA", "Alpha", 0, 0),
    (18, "POWERPC", "PowerPC, 32 bits", 20, 32),
    (0x0100_0007, "X86_64", "x86-64", 62, 64),
    (0x0100_000c, "ARM64", "ARM, 64 bits", 183, 64),
    (
        0x0200_000c,
        "ARM64_32",
        "ARM, 64 bits with 32-bit pointers",
        183,
        32,
    ),
    (0x0100_0012, "POWERPC64", "PowerPC, 64 bits", 21, 64),
];

/// Flags of the Mach-O header.
const FLAGS: &[(u64, &str)] = &[
    (1, "noundefs"),
    (2, "incrlink"),
    (4, "dyldlink"),
    (8, "bindatload"),
    (0x10, "prebound"),
    (0x20, "split-segs"),
    (0x80, "twolevel"),
    (0x100, "force-flat"),
    (0x2000, "subsections-via-symbols"),
    (0x8000, "weak-defines"),
    (0x1_0000, "binds-to-weak"),
    (0x2_0000, "allow-stack-execution"),
    (0x20_0000, "pie"),
    (0x80_0000, "has-tlv-descriptors"),
    (0x100_0000, "no-heap-execution"),
    (0x200_0000, "app-extension-safe"),
];

/// Reads a Mach-O file into `info`; of a universal file the list of its programs and the first readable one.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    profiles: &[ArchProfile],
    info: &mut ElfInfo,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Option<Code<'a>> {
    if info.variant != "fat" {
        return program(bytes, 0, profiles, info, findings, budget);
    }
    let count = u32_at(bytes, 4, true).map_or(0, u64::from);
    let wide = u32_at(bytes, 0, true) == Some(0xcafe_babf);
    let size = if wide { 32 } else { 20 };
    let mut ranges = Vec::new();
    for index in 0..count.min(MAX_SLICES) {
        let at = 8 + index * size;
        let word = |place: u64| u32_at(bytes, at + place, true).map(u64::from);
        let long = |place: u64| u64_at(bytes, at + place, true);
        let range = if wide {
            (long(8), long(16))
        } else {
            (word(8), word(12))
        };
        let (Some(machine), (Some(offset), Some(length))) = (word(0), range) else {
            findings.add(
                rule::MACHO_BAD_HEADER,
                Some(at),
                "the list of programs is cut off",
            );
            break;
        };
        if !fits(bytes.len() as u64, offset, length) {
            findings.add(
                rule::MACHO_SLICE_PAST_END,
                Some(at),
                format!("program {index}: {length:#x} bytes at {offset:#x}"),
            );
        }
        ranges.push((machine as u32, offset, length));
    }
    // Programs may overlap: hash each byte once at most twice over.
    let mut left = (bytes.len() as u64).saturating_mul(2);
    for &(machine, offset, size) in &ranges {
        let part = clip(bytes, offset, size);
        let Some(rest) = left.checked_sub(part.len() as u64) else {
            findings.add(
                rule::MACHO_BAD_HEADER,
                Some(offset),
                "programs overlap again and again",
            );
            break;
        };
        left = rest;
        info.slices.push(Slice {
            machine: machine_name(machine),
            offset,
            size,
            sha256: Digest::of(part),
        });
    }
    for &(_, offset, size) in &ranges {
        let found = program(
            clip(bytes, offset, size),
            offset,
            profiles,
            info,
            findings,
            budget,
        );
        if found.is_some() {
            return found;
        }
    }
    None
}

fn machine_name(value: u32) -> Named {
    let row = MACHINES.iter().find(|row| row.0 == value);
    named(value.into(), row.map(|row| (row.1, row.2)))
}

/// What the load commands of one program say.
#[derive(Default)]
struct Commands {
    symbols: Option<SymtabCommand>,
    entry: Option<u64>,
    entry_offset: Option<u64>,
    encrypted: bool,
}

/// Reads one program, which begins at `base` in the file.
fn program<'a>(
    bytes: &'a [u8],
    base: u64,
    profiles: &[ArchProfile],
    info: &mut ElfInfo,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Option<Code<'a>> {
    let bad = |findings: &mut Collector, text: String| findings.add(rule::MACHO_BAD_HEADER, Some(base), text);
    let (_, Some(ctx)) = parse_magic_and_ctx(bytes, 0).ok()? else {
        bad(findings, "no Mach-O magic".into());
        return None;
    };
    // goblin wants 32 bytes even of the shorter header.
    let mut head = [0u8; 32];
    let there = clip(bytes, 0, 32);
    head.get_mut(..there.len())?.copy_from_slice(there);
    let header: MachHeader = head.pread_with(0, ctx).ok()?;
    let size = if ctx.container.is_big() { 32 } else { 28 };
    if bytes.len() < size {
        bad(findings, format!("{} of {size} bytes", bytes.len()));
    }
    let machine = MACHINES.iter().find(|row| row.0 == header.cputype);
    let order = if ctx.le.is_little() {
        ByteOrder::Little
    } else {
        ByteOrder::Big
    };
    info.arch = machine
        .and_then(|row| {
            profiles.iter().find(|profile| {
                row.3 != 0
                    && profile.elf.machine.contains(&row.3)
                    && profile.elf.class == row.4
                    && profile.elf.byte_order == order
            })
        })
        .map(|profile| profile.name.clone());
    let mut code = Code::default();
    let commands = load_commands(bytes, base, &header, ctx, size, info, &mut code, findings, budget);
    code.maps.sort_by_key(|part| part.address);
    code.parts.sort_by_key(|part| part.address);
    code.entry = commands.entry.or_else(|| {
        // LC_MAIN counts from the file's start: find the segment that has those bytes.
        let offset = commands.entry_offset?;
        let text = info
            .segments
            .iter()
            .find(|segment| offset >= segment.offset - base.min(segment.offset) && segment.file_size > 0)?;
        Some(
            text.address
                .0
                .wrapping_add(offset.wrapping_sub(text.offset.saturating_sub(base))),
        )
    });
    if header.filetype == 2 {
        info.linkage = Some(
            match info.imports.libraries.is_empty() && info.interpreter.is_none() {
                true => Linkage::Static,
                false => Linkage::Dynamic,
            },
        );
    }
    info.header = Some(Header {
        class: if ctx.container.is_big() { 64 } else { 32 },
        byte_order: order,
        file_type: Named {
            value: header.filetype.into(),
            name: filetype_to_str(header.filetype)
                .trim_start_matches("MH_")
                .to_ascii_lowercase(),
            title: String::new(),
        },
        machine: machine_name(header.cputype),
        os_abi: named(0, Some(("DARWIN", "Apple"))),
        abi_version: 0,
        entry: Address(code.entry.unwrap_or(0)),
        entry_offset: commands.entry_offset.map(|offset| base.saturating_add(offset)),
        flags: Flags {
            value: Address(header.flags.into()),
            names: bits(header.flags.into(), FLAGS),
        },
        section_count: info.sections.len() as u64,
        segment_count: info.segments.len() as u64,
        timestamp: None,
    });
    if let Some(table) = commands.symbols {
        symbols(bytes, base, &table, ctx, info, &mut code, findings);
    }
    if commands.encrypted {
        info.packer.packed = true;
        info.packer.name = Some("fairplay".into());
    }
    Some(code)
}

#[allow(clippy::too_many_arguments)]
fn load_commands<'a>(
    bytes: &'a [u8],
    base: u64,
    header: &MachHeader,
    ctx: Ctx,
    size: usize,
    info: &mut ElfInfo,
    code: &mut Code<'a>,
    findings: &mut Collector,
    budget: &mut Budget,
) -> Commands {
    let mut commands = Commands::default();
    let mut offset = size;
    if header.ncmds > MAX_COMMANDS {
        findings.add(
            rule::TOO_MANY,
            Some(base),
            format!("{} load commands, {MAX_COMMANDS} are looked at", header.ncmds),
        );
    }
    for index in 0..header.ncmds.min(MAX_COMMANDS) {
        let at = offset;
        let place = base.saturating_add(at as u64);
        let parsed = match bytes.get(at..) {
            Some(rest) if rest.len() >= 8 => LoadCommand::parse(bytes, &mut offset, ctx.le).ok(),
            _ => None,
        };
        let (Some(command), true) = (parsed, offset >= at.saturating_add(8) && offset <= bytes.len()) else {
            findings.add(
                rule::MACHO_BAD_COMMAND,
                Some(place),
                format!("load command {index} of {}", header.ncmds),
            );
            break;
        };
        let text = |inside: u32| c_text(clip(bytes, at as u64, (offset - at) as u64), inside.into()).0;
        match command.command {
            CommandVariant::Segment32(segment) => {
                let row = SegmentRow {
                    name: segment.segname,
                    address: segment.vmaddr.into(),
                    memory: segment.vmsize.into(),
                    offset: segment.fileoff.into(),
                    size: segment.filesize.into(),
                    protection: segment.initprot,
                    sections: segment.nsects,
                    sections_at: at as u64 + 56,
                };
                add_segment(bytes, base, &row, ctx, info, code, findings, budget);
            }
            CommandVariant::Segment64(segment) => {
                let row = SegmentRow {
                    name: segment.segname,
                    address: segment.vmaddr,
                    memory: segment.vmsize,
                    offset: segment.fileoff,
                    size: segment.filesize,
                    protection: segment.initprot,
                    sections: segment.nsects,
                    sections_at: at as u64 + 72,
                };
                add_segment(bytes, base, &row, ctx, info, code, findings, budget);
            }
            CommandVariant::Symtab(table) => commands.symbols = Some(table),
            CommandVariant::LoadDylib(library)
            | CommandVariant::LoadWeakDylib(library)
            | CommandVariant::LoadUpwardDylib(library)
            | CommandVariant::ReexportDylib(library)
            | CommandVariant::LazyLoadDylib(library) => info.imports.libraries.push(text(library.dylib.name)),
            CommandVariant::LoadDylinker(linker) => info.interpreter = Some(text(linker.name)),
            CommandVariant::Main(main) => commands.entry_offset = Some(main.entryoff),
            CommandVariant::Unixthread(thread) => {
                commands.entry = thread.instruction_pointer(header.cputype).ok();
            }
            CommandVariant::Uuid(uuid) => info.build_id = Some(Hex(uuid.uuid.to_vec())),
            CommandVariant::EncryptionInfo32(encryption) => commands.encrypted |= encryption.cryptid != 0,
            CommandVariant::EncryptionInfo64(encryption) => commands.encrypted |= encryption.cryptid != 0,
            _ => {}
        }
    }
    commands
}

struct SegmentRow {
    name: [u8; 16],
    address: u64,
    memory: u64,
    offset: u64,
    size: u64,
    protection: u32,
    sections: u32,
    sections_at: u64,
}

fn fixed_name(name: &[u8]) -> String {
    guest::text(name.split(|&byte| byte == 0).next().unwrap_or_default())
}

#[allow(clippy::too_many_arguments)]
fn add_segment<'a>(
    bytes: &'a [u8],
    base: u64,
    row: &SegmentRow,
    ctx: Ctx,
    info: &mut ElfInfo,
    code: &mut Code<'a>,
    findings: &mut Collector,
    budget: &mut Budget,
) {
    let index = info.segments.len();
    let name = fixed_name(&row.name);
    let place = base.saturating_add(row.offset);
    if !fits(bytes.len() as u64, row.offset, row.size) {
        findings.add(
            rule::MACHO_SEGMENT_PAST_END,
            Some(place),
            format!(
                "segment {index} {name}: {:#x} bytes at {:#x}",
                row.size, row.offset
            ),
        );
    }
    if row.protection & 6 == 6 {
        findings.add(
            rule::MACHO_WRITABLE_CODE,
            Some(place),
            format!("segment {index} {name}"),
        );
    }
    let content = clip(bytes, row.offset, row.size);
    if !content.is_empty() {
        let part = Part {
            address: row.address,
            bytes: content,
        };
        code.maps.push(part);
        if row.protection & 4 != 0 {
            code.parts.push(part);
        }
    }
    // Protections are numbered the other way round: 1 read, 2 write, 4 execute.
    let permissions = [(1, 'r'), (2, 'w'), (4, 'x')]
        .into_iter()
        .map(|(bit, letter)| if row.protection & bit != 0 { letter } else { '-' })
        .collect();
    info.segments.push(Segment {
        index: index as u32,
        kind: name,
        permissions,
        address: Address(row.address),
        offset: place,
        file_size: row.size,
        memory_size: row.memory,
        align: 0,
        entropy: budget.entropy(content),
    });
    let (wide, big) = (ctx.container.is_big(), !ctx.le.is_little());
    let size = if wide { 80 } else { 68 };
    for number in 0..u64::from(row.sections) {
        let at = row.sections_at + number * size;
        if info.sections.len() >= MAX_SECTIONS || !fits(bytes.len() as u64, at, size) {
            findings.add(
                rule::MACHO_BAD_COMMAND,
                Some(base.saturating_add(at)),
                format!("{} sections of segment {index}", row.sections),
            );
            break;
        }
        let word = |place: u64| u32_at(bytes, at + place, big).map_or(0, u64::from);
        let long = |place: u64| u64_at(bytes, at + place, big).unwrap_or(0);
        let (address, length, offset, flags) = match wide {
            true => (long(32), long(40), word(48), word(64)),
            false => (word(32), word(36), word(40), word(56)),
        };
        // Types 1, 12 and 18: zeros that are not in the file.
        let zeros = matches!(flags & 0xff, 1 | 12 | 18);
        let content = if zeros {
            &[][..]
        } else {
            clip(bytes, offset, length)
        };
        info.sections.push(Section {
            index: info.sections.len() as u32,
            name: format!(
                "{},{}",
                fixed_name(clip(bytes, at + 16, 16)),
                fixed_name(clip(bytes, at, 16))
            ),
            kind: if zeros {
                "ZEROFILL".into()
            } else {
                "REGULAR".into()
            },
            flags: bits(
                flags & 0x8000_0400,
                &[(0x400, "some-instructions"), (0x8000_0000, "exec")],
            ),
            address: Address(address),
            offset: base.saturating_add(offset),
            size: length,
            entropy: budget.entropy(content),
        });
    }
}

fn symbols(
    bytes: &[u8],
    base: u64,
    table: &SymtabCommand,
    ctx: Ctx,
    info: &mut ElfInfo,
    code: &mut Code<'_>,
    findings: &mut Collector,
) {
    let (wide, big) = (ctx.container.is_big(), !ctx.le.is_little());
    let size = if wide { 16 } else { 12 };
    let at = u64::from(table.symoff);
    let names = clip(bytes, table.stroff.into(), table.strsize.into());
    let room = (bytes.len() as u64).saturating_sub(at) / size;
    let count = u64::from(table.nsyms);
    if count > room || count > MAX_SYMBOLS {
        findings.add(
            rule::MACHO_BAD_COMMAND,
            Some(base.saturating_add(at)),
            format!("{count} symbols, room for {room}"),
        );
    }
    let mut imports = BTreeSet::new();
    for index in 0..count.min(room).min(MAX_SYMBOLS) {
        let entry = clip(bytes, at + index * size, size);
        let (Some(name), Some(&kind)) = (u32_at(entry, 0, big), entry.get(4)) else {
            break;
        };
        let value = match wide {
            true => u64_at(entry, 8, big),
            false => u32_at(entry, 8, big).map(u64::from),
        };
        let (name, address) = (c_text(names, name.into()).0, value.unwrap_or(0));
        // Debugging entries are no symbols.
        if kind & 0xe0 != 0 {
            continue;
        }
        let defined = kind & 0x0e != 0;
        info.symbols.total += 1;
        if defined {
            info.symbols.defined += 1;
        } else {
            info.symbols.imported += 1;
            info.imports.total += 1;
            imports.insert(name.clone());
            if imports.len() > MAX_IMPORTS {
                imports.pop_last();
            }
        }
        let function = defined && code.executable(address);
        if function {
            info.symbols.functions += 1;
            code.functions_total += 1;
            code.functions.push(Function {
                address,
                name: name.clone(),
                size: 0,
            });
            if code.functions.len() > 2 * MAX_FUNCTIONS {
                keep_first(&mut code.functions);
            }
        }
        if info.symbols.list.len() < MAX_LISTED {
            info.symbols.list.push(Symbol {
                name,
                kind: if function { "function" } else { "none" }.into(),
                binding: if kind & 1 != 0 { "global" } else { "local" }.into(),
                table: "symtab".into(),
                defined,
                address: Address(address),
                size: 0,
            });
        }
    }
    keep_first(&mut code.functions);
    info.imports.functions = imports.into_iter().collect();
}

/// The first functions by address, each address once.
fn keep_first(functions: &mut Vec<Function>) {
    functions.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    functions.dedup_by_key(|function| function.address);
    functions.truncate(MAX_FUNCTIONS);
}
