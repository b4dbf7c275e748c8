//! Reads what the loader needs of an ELF file: identity, entry and the segments to map. (System V ABI, chapters 4, 5.)
//!
//! The file is hostile: every offset, size and sum is checked, counts are bounded, and overlaps are refused.

use hotcell_schema::arch::{ArchProfile, ByteOrder};
use serde::{Deserialize, Serialize};

use crate::abi::Abi;
use crate::machine::Protection;

/// Why a file cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF magic number.
    #[error("not an ELF file")]
    NotElf,
    /// The file ends inside a header or segment.
    #[error("the file ends inside its {0}")]
    Truncated(&'static str),
    /// Made for another architecture.
    #[error(
        "made for another architecture (e_machine {machine}, {class} bits, {order}-endian) than `{profile}`"
    )]
    WrongArchitecture {
        /// `e_machine`.
        machine: u16,
        /// ELF class in bits.
        class: u8,
        /// Byte order.
        order: &'static str,
        /// The profile's name.
        profile: String,
    },
    /// Neither executable nor position independent executable.
    #[error("ELF type {0} is not an executable")]
    NotExecutable(u16),
    /// What is to load a dynamically linked program is not there, or is no loader.
    #[error("it is dynamically linked, and its loader {path} {fault}")]
    Interpreter {
        /// The loader's path.
        path: String,
        /// What is the matter with it.
        fault: String,
    },
    /// A header says something impossible.
    #[error("bad program header: {0}")]
    BadHeader(&'static str),
}

/// One part to map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Address, not yet relocated.
    pub(crate) address: u64,
    pub(crate) memory: u64,
    pub(crate) offset: u64,
    pub(crate) file: u64,
    pub(crate) protection: Protection,
}

/// A program that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) entry: u64,
    /// Position independent: all addresses count from a base to be chosen.
    pub(crate) relocatable: bool,
    pub(crate) segments: Vec<Segment>,
    /// Address of the program headers in memory, as far as a segment holds them.
    pub(crate) headers: u64,
    pub(crate) header_size: u16,
    pub(crate) header_count: u16,
    pub(crate) flags: u32,
    /// The path of the loader that is to link it at run time.
    pub(crate) interpreter: Option<Vec<u8>>,
    /// PT_GNU_STACK asks for an executable stack (or is absent on architectures whose default that is: taken as no).
    pub(crate) executable_stack: bool,
}

/// Greatest number of program headers: those that fit in 64 KiB, as in Linux.
const MAX_HEADERS: u16 = 1024;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;

struct Reader<'a> {
    bytes: &'a [u8],
    /// Bytes of the whole file.
    length: u64,
    big: bool,
    wide: bool,
}

impl Reader<'_> {
    fn array<const N: usize>(&self, at: u64, part: &'static str) -> Result<[u8; N], ElfError> {
        let start = usize::try_from(at).map_err(|_| ElfError::Truncated(part))?;
        let end = start.checked_add(N).ok_or(ElfError::Truncated(part))?;
        let bytes = self.bytes.get(start..end).ok_or(ElfError::Truncated(part))?;
        bytes.try_into().map_err(|_| ElfError::Truncated(part))
    }

    fn u16(&self, at: u64, part: &'static str) -> Result<u16, ElfError> {
        self.array(at, part).map(|b| {
            if self.big {
                u16::from_be_bytes(b)
            } else {
                u16::from_le_bytes(b)
            }
        })
    }

    fn u32(&self, at: u64, part: &'static str) -> Result<u32, ElfError> {
        self.array(at, part).map(|b| {
            if self.big {
                u32::from_be_bytes(b)
            } else {
                u32::from_le_bytes(b)
            }
        })
    }

    fn word(&self, at: u64, part: &'static str) -> Result<u64, ElfError> {
        if self.wide {
            self.array(at, part).map(|b| {
                if self.big {
                    u64::from_be_bytes(b)
                } else {
                    u64::from_le_bytes(b)
                }
            })
        } else {
            self.u32(at, part).map(u64::from)
        }
    }
}

/// Reads a program made for this profile.
pub(crate) fn parse(bytes: &[u8], profile: &ArchProfile, abi: &Abi) -> Result<Program, ElfError> {
    parse_headers(bytes, bytes.len() as u64, profile, abi)
}

/// Takes back what a header says of sections: the file has none.
pub(crate) fn forget_sections(file: &mut [u8]) {
    // e_shoff; e_shentsize, e_shnum, e_shstrndx.
    let (offset, counts) = match file.get(4) {
        Some(2) => (40..48, 58..64),
        _ => (32..36, 46..52),
    };
    for range in [offset, counts] {
        if let Some(field) = file.get_mut(range) {
            field.fill(0);
        }
    }
}

/// The same from the first bytes of a file of so many bytes: headers, and the name of its loader, must be among them.
pub(crate) fn parse_headers(
    bytes: &[u8],
    length: u64,
    profile: &ArchProfile,
    abi: &Abi,
) -> Result<Program, ElfError> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let header = "header";
    let class = match bytes.get(4) {
        Some(1) => 32,
        Some(2) => 64,
        Some(_) => return Err(ElfError::BadHeader("ELF class is neither 32 nor 64 bits")),
        None => return Err(ElfError::Truncated(header)),
    };
    let big = match bytes.get(5) {
        Some(1) => false,
        Some(2) => true,
        Some(_) => return Err(ElfError::BadHeader("unknown byte order")),
        None => return Err(ElfError::Truncated(header)),
    };
    let reader = Reader {
        bytes,
        length,
        big,
        wide: class == 64,
    };
    let machine = reader.u16(18, header)?;
    let (flags_at, sizes_at) = if reader.wide { (48, 54) } else { (36, 42) };
    let flags = reader.u32(flags_at, header)?;
    let want = &profile.elf;
    let fits = want.machine.contains(&machine)
        && want.class == class
        && (want.byte_order == ByteOrder::Big) == big
        && want
            .flags
            .is_none_or(|wanted| flags & wanted.mask == wanted.value);
    if !fits {
        let order = if big { "big" } else { "little" };
        return Err(ElfError::WrongArchitecture {
            machine,
            class,
            order,
            profile: profile.name.clone(),
        });
    }
    let relocatable = match reader.u16(16, header)? {
        2 => false,
        3 => true,
        other => return Err(ElfError::NotExecutable(other)),
    };
    let entry = reader.word(24, header)?;
    let table = reader.word(if reader.wide { 32 } else { 28 }, header)?;
    let header_size = reader.u16(sizes_at, header)?;
    let header_count = reader.u16(sizes_at + 2, header)?;
    if header_size != if reader.wide { 56 } else { 32 } {
        return Err(ElfError::BadHeader("unexpected size of a program header"));
    }
    if header_count == 0 || header_count > MAX_HEADERS {
        return Err(ElfError::BadHeader("no program headers, or too many"));
    }
    let mut program = Program {
        entry,
        relocatable,
        segments: Vec::new(),
        headers: 0,
        header_size,
        header_count,
        flags,
        interpreter: None,
        executable_stack: false,
    };
    let mut headers = None;
    for index in 0..u64::from(header_count) {
        let at = index
            .checked_mul(u64::from(header_size))
            .and_then(|offset| table.checked_add(offset))
            .ok_or(ElfError::BadHeader("program headers beyond the end of memory"))?;
        read_header(&reader, at, &mut program, &mut headers)?;
    }
    check(&mut program, abi)?;
    program.headers = headers.or_else(|| headers_in(&program, table)).unwrap_or(0);
    Ok(program)
}

fn read_header(
    reader: &Reader<'_>,
    at: u64,
    program: &mut Program,
    headers: &mut Option<u64>,
) -> Result<(), ElfError> {
    let part = "program headers";
    reader.word(at, part)?;
    let kind = reader.u32(at, part)?;
    let (flags, offset, address, file, memory) = if reader.wide {
        (4, 8, 16, 32, 40)
    } else {
        (24, 4, 8, 16, 20)
    };
    let field = |offset: u64| at.checked_add(offset).ok_or(ElfError::Truncated(part));
    let flags = reader.u32(field(flags)?, part)?;
    let offset = reader.word(field(offset)?, part)?;
    let address = reader.word(field(address)?, part)?;
    let file = reader.word(field(file)?, part)?;
    let memory = reader.word(field(memory)?, part)?;
    let inside = offset.checked_add(file).is_some_and(|end| end <= reader.length);
    match kind {
        PT_LOAD if memory == 0 => {}
        PT_LOAD => {
            if file > memory {
                return Err(ElfError::BadHeader(
                    "a segment has more bytes in the file than in memory",
                ));
            }
            if !inside {
                return Err(ElfError::Truncated("segments"));
            }
            // ELF has read as 4 and execute as 1; mmap has it the other way round.
            let protection = Protection(((flags & 4) >> 2 | (flags & 2) | (flags & 1) << 2) as u8);
            program.segments.push(Segment {
                address,
                memory,
                offset,
                file,
                protection,
            });
        }
        PT_INTERP => {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            // PATH_MAX with the zero (limits.h).
            let count = usize::try_from(file).unwrap_or(0).min(4096);
            let end = start
                .checked_add(count)
                .filter(|_| inside)
                .ok_or(ElfError::Truncated("interpreter's name"))?;
            let name = reader.bytes.get(start..end).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if name.is_empty() {
                return Err(ElfError::BadHeader("an interpreter without a name"));
            }
            // As Linux does: the first one counts.
            program.interpreter.get_or_insert_with(|| name.to_vec());
        }
        PT_PHDR => *headers = Some(address),
        PT_GNU_STACK => program.executable_stack = flags & 1 != 0,
        _ => {}
    }
    Ok(())
}

/// Where the program headers are in memory, by the segment that holds their file offset.
fn headers_in(program: &Program, table: u64) -> Option<u64> {
    let segment = program
        .segments
        .iter()
        .find(|segment| segment.offset <= table && table - segment.offset < segment.file)?;
    segment.address.checked_add(table - segment.offset)
}

/// Checks that the segments can be mapped: page arithmetic, order, no overlap of pages with different content.
fn check(program: &mut Program, abi: &Abi) -> Result<(), ElfError> {
    if program.segments.is_empty() {
        return Err(ElfError::BadHeader("nothing to load"));
    }
    program.segments.sort_by_key(|segment| segment.address);
    let mut reached = 0;
    for (index, segment) in program.segments.iter().enumerate() {
        let end = segment
            .address
            .checked_add(segment.memory)
            .filter(|end| *end <= abi.task_size)
            .ok_or(ElfError::BadHeader("a segment lies beyond user memory"))?;
        if index > 0 && segment.address < reached {
            return Err(ElfError::BadHeader("segments overlap"));
        }
        if !program.relocatable && segment.address < crate::space::LOWEST {
            return Err(ElfError::BadHeader("a segment lies at the bottom of memory"));
        }
        reached = end;
    }
    Ok(())
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
