//! The header, segment and section tables of an ELF file, read as far as they can be read.
//!
//! Records are decoded by goblin; the walk over them is ours, because every count, size and offset may lie.

use goblin::container::{Container, Ctx};
use goblin::elf::header::{Header, header32, header64};
use goblin::elf::program_header::ProgramHeader;
use goblin::elf::section_header::SectionHeader;
use scroll::{Endian, Pread};

use crate::bytes::{c_text, clip, fits, u16_at};
use crate::findings::{self as rule, Collector};

/// Greatest number of segments looked at.
const MAX_SEGMENTS: u64 = 1024;
/// Greatest number of sections looked at.
const MAX_SECTIONS: u64 = 8192;

/// `PT_LOAD`.
pub(crate) const LOAD: u32 = 1;
/// `SHT_NULL`.
pub(crate) const NULL: u32 = 0;
/// `SHT_NOBITS`.
pub(crate) const NOBITS: u32 = 8;

/// The tables of an ELF file.
pub(crate) struct Tables<'a> {
    /// All bytes of the file.
    pub(crate) bytes: &'a [u8],
    /// Word size and byte order, as the body of the file has them.
    pub(crate) ctx: Ctx,
    /// The header.
    pub(crate) header: Header,
    /// Segments, in table order.
    pub(crate) segments: Vec<ProgramHeader>,
    /// Sections with their names, in table order.
    pub(crate) sections: Vec<(String, SectionHeader)>,
    /// Number of segments that the header says.
    pub(crate) segment_count: u64,
    /// Number of sections that the header says.
    pub(crate) section_count: u64,
    /// Where the section table ends in the file.
    pub(crate) section_table_end: u64,
    /// Where the segment table ends in the file.
    pub(crate) segment_table_end: u64,
    /// Indices of the PT_LOAD segments in the order of their addresses, for [`Tables::offset_of`].
    loads: Vec<usize>,
}

impl<'a> Tables<'a> {
    /// Reads what can be read. None only where there is no header at all.
    pub(crate) fn read(bytes: &'a [u8], findings: &mut Collector) -> Option<Self> {
        let (header, ctx) = read_header(bytes, findings)?;
        let mut tables = Self {
            bytes,
            ctx,
            header,
            segments: Vec::new(),
            sections: Vec::new(),
            segment_count: u64::from(header.e_phnum),
            section_count: u64::from(header.e_shnum),
            section_table_end: 0,
            segment_table_end: 0,
            loads: Vec::new(),
        };
        tables.read_sections(findings);
        tables.read_segments(findings);
        tables.loads = (0..tables.segments.len())
            .filter(|&index| tables.segments.get(index).is_some_and(|s| s.p_type == LOAD))
            .collect();
        let segments = &tables.segments;
        tables
            .loads
            .sort_by_key(|&index| segments.get(index).map(|segment| segment.p_vaddr));
        Some(tables)
    }

    /// Whether words are 64 bits wide.
    pub(crate) fn wide(&self) -> bool {
        self.ctx.container == Container::Big
    }

    /// Whether the most significant byte is first.
    pub(crate) fn big(&self) -> bool {
        self.ctx.le == Endian::Big
    }

    /// The first section of a type.
    pub(crate) fn section_of_type(&self, kind: u32) -> Option<&SectionHeader> {
        self.sections
            .iter()
            .map(|(_, section)| section)
            .find(|section| section.sh_type == kind)
    }

    /// The first segment of a type.
    pub(crate) fn segment_of_type(&self, kind: u32) -> Option<&ProgramHeader> {
        self.segments.iter().find(|segment| segment.p_type == kind)
    }

    /// The loaded segment that holds an address.
    pub(crate) fn segment_at(&self, address: u64) -> Option<&ProgramHeader> {
        let after = self.loads.partition_point(|&index| {
            self.segments
                .get(index)
                .is_some_and(|segment| segment.p_vaddr <= address)
        });
        // Overlapping segments: the nearest few that start before are enough.
        self.loads
            .get(after.saturating_sub(4)..after)?
            .iter()
            .rev()
            .filter_map(|&index| self.segments.get(index))
            .find(|segment| address - segment.p_vaddr < segment.p_memsz)
    }

    /// Where an address stands in the file, and how many bytes of its segment follow there.
    pub(crate) fn offset_of(&self, address: u64) -> Option<(u64, u64)> {
        let segment = self.segment_at(address)?;
        let inside = address.checked_sub(segment.p_vaddr)?;
        let left = segment.p_filesz.checked_sub(inside).filter(|&left| left > 0)?;
        let offset = segment.p_offset.checked_add(inside)?;
        (offset < self.bytes.len() as u64).then(|| (offset, left.min(self.bytes.len() as u64 - offset)))
    }

    /// The bytes of a section that are in the file.
    pub(crate) fn content(&self, section: &SectionHeader) -> &'a [u8] {
        match section.sh_type {
            NOBITS | NULL => &[],
            _ => clip(self.bytes, section.sh_offset, section.sh_size),
        }
    }

    fn read_sections(&mut self, findings: &mut Collector) {
        let at = self.header.e_shoff;
        let length = self.bytes.len() as u64;
        if at == 0 {
            if self.section_count != 0 {
                findings.add(
                    rule::LYING_COUNT,
                    None,
                    format!("{} sections, but no section table", self.section_count),
                );
            }
            return;
        }
        let size = if self.wide() { 64u64 } else { 40 };
        let stride = entry_size(self.header.e_shentsize, size, "section", findings);
        let first: Option<SectionHeader> = self.record(at, size);
        // gABI: a count or index that does not fit stands in the first section.
        if self.section_count == 0
            && let Some(first) = &first
        {
            self.section_count = first.sh_size;
        }
        let room = length.saturating_sub(at) / stride;
        self.section_table_end = at
            .saturating_add(self.section_count.saturating_mul(stride))
            .min(length);
        let count = bounded(
            self.section_count,
            room,
            MAX_SECTIONS,
            at,
            "sections",
            rule::SECTION_TABLE_PAST_END,
            findings,
        );
        let headers: Vec<SectionHeader> = (0..count)
            .map_while(|index| self.record(at.checked_add(index.checked_mul(stride)?)?, size))
            .collect();
        let names_index = match self.header.e_shstrndx {
            0xffff => first.map_or(0, |first| u64::from(first.sh_link)),
            index => u64::from(index),
        };
        let names: &[u8] = match headers.get(names_index as usize) {
            Some(section) if section.sh_type != NULL && section.sh_type != NOBITS => {
                clip(self.bytes, section.sh_offset, section.sh_size)
            }
            _ => &[],
        };
        if names.is_empty() && names_index != 0 && count > 0 {
            findings.add(
                rule::BAD_NAME_TABLE,
                None,
                format!("section {names_index} of {count} should hold the names of sections"),
            );
        }
        for (index, header) in headers.into_iter().enumerate() {
            let (name, whole) = c_text(names, header.sh_name as u64);
            if !whole && !names.is_empty() {
                let offset = at.saturating_add((index as u64).saturating_mul(stride));
                findings.add(rule::BAD_NAME, Some(offset), format!("name of section {index}"));
            }
            self.sections.push((name, header));
        }
    }

    fn read_segments(&mut self, findings: &mut Collector) {
        let at = self.header.e_phoff;
        let length = self.bytes.len() as u64;
        if self.header.e_phnum == 0xffff
            && let Some((_, first)) = self.sections.first()
            && first.sh_info != 0
        {
            self.segment_count = u64::from(first.sh_info);
        }
        if at == 0 || self.segment_count == 0 {
            return;
        }
        let size = if self.wide() { 56u64 } else { 32 };
        let stride = entry_size(self.header.e_phentsize, size, "segment", findings);
        let room = length.saturating_sub(at) / stride;
        self.segment_table_end = at
            .saturating_add(self.segment_count.saturating_mul(stride))
            .min(length);
        let count = bounded(
            self.segment_count,
            room,
            MAX_SEGMENTS,
            at,
            "segments",
            rule::SEGMENT_TABLE_PAST_END,
            findings,
        );
        self.segments = (0..count)
            .map_while(|index| self.record(at.checked_add(index.checked_mul(stride)?)?, size))
            .collect();
    }

    /// A record of `size` bytes, decoded by goblin.
    pub(crate) fn record<T>(&self, offset: u64, size: u64) -> Option<T>
    where
        T: scroll::ctx::TryFromCtx<'a, Ctx, Error = goblin::error::Error>,
    {
        fits(self.bytes.len() as u64, offset, size)
            .then(|| clip(self.bytes, offset, size).pread_with(0, self.ctx).ok())
            .flatten()
    }
}

/// The stride of a table: what the header says, if a record fits into it.
fn entry_size(said: u16, size: u64, what: &str, findings: &mut Collector) -> u64 {
    let said = u64::from(said);
    if said != size {
        findings.add(
            rule::BAD_ENTRY_SIZE,
            None,
            format!("entries of the {what} table have {said} bytes, expected {size}"),
        );
    }
    said.max(size)
}

/// How many entries of a table are read.
fn bounded(
    said: u64,
    room: u64,
    limit: u64,
    at: u64,
    what: &str,
    past_end: rule::Rule,
    findings: &mut Collector,
) -> u64 {
    if said > room {
        findings.add(past_end, Some(at), format!("{said} {what}, room for {room}"));
        if room == 0 || said > room.saturating_mul(4) {
            findings.add(
                rule::LYING_COUNT,
                Some(at),
                format!("{said} {what}, room for {room}"),
            );
        }
    }
    if said.min(room) > limit {
        findings.add(
            rule::TOO_MANY,
            Some(at),
            format!("{said} {what}, {limit} are looked at"),
        );
    }
    said.min(room).min(limit)
}

/// The header, and the word size and byte order that its body really has. (Linux ignores class and byte order in the
/// identification, so samples lie there to mislead tools.)
fn read_header(bytes: &[u8], findings: &mut Collector) -> Option<(Header, Ctx)> {
    let mut head = [0u8; 64];
    let there = bytes.get(..bytes.len().min(64))?;
    head.get_mut(..there.len())?.copy_from_slice(there);

    let version = |big: bool| clip(&head, 20, 4) == if big { [0, 0, 0, 1] } else { [1, 0, 0, 0] };
    let said_big = match head[5] {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    };
    let big = match said_big {
        Some(big) if version(big) || !version(!big) => big,
        _ => version(true),
    };
    let body_size = |offset: u64, size: u16| u16_at(&head, offset, big) == Some(size);
    let (is_32, is_64) = (body_size(40, 52), body_size(52, 64));
    let said_wide = match head[4] {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    };
    let wide = match said_wide {
        Some(true) => is_64 || !is_32,
        Some(false) => is_64 && !is_32,
        None => is_64,
    };
    if said_wide.is_none() {
        findings.add(rule::BAD_CLASS, Some(4), format!("class {}", head[4]));
    } else if said_wide != Some(wide) {
        findings.add(
            rule::LYING_IDENT,
            Some(4),
            format!("class {} in a body of the other", head[4]),
        );
    }
    if said_big != Some(big) {
        findings.add(
            rule::LYING_IDENT,
            Some(5),
            format!(
                "byte order {} in a body that is {}",
                head[5],
                if big { "big-endian" } else { "little-endian" }
            ),
        );
    }
    let whole = if wide {
        header64::SIZEOF_EHDR
    } else {
        header32::SIZEOF_EHDR
    };
    if bytes.len() < whole {
        findings.add(
            rule::TRUNCATED_HEADER,
            Some(bytes.len() as u64),
            format!("{} of {whole} bytes", bytes.len()),
        );
    }
    if head[6] != 1 {
        findings.add(rule::BAD_HEADER_VERSION, Some(6), format!("version {}", head[6]));
    }
    if bytes.len() >= 24 && !version(big) {
        findings.add(rule::BAD_HEADER_VERSION, Some(20), "e_version");
    }
    // goblin decodes by the identification: give it the true one.
    let ident = (head[4], head[5]);
    head[4] = if wide { 2 } else { 1 };
    head[5] = if big { 2 } else { 1 };
    let mut header: Header = head.pread(0).ok()?;
    (header.e_ident[4], header.e_ident[5]) = ident;
    let container = if wide { Container::Big } else { Container::Little };
    Some((
        header,
        Ctx::new(container, if big { Endian::Big } else { Endian::Little }),
    ))
}
