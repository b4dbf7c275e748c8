//! Memory as an ELF file (System V ABI, chapters 4 and 5; `elf.h`).

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{EI_CLASS, EI_DATA, EI_VERSION, ELFMAG, EV_CURRENT, Header};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE, ProgramHeader};
use hotcell_schema::arch::{ArchProfile, ByteOrder};
use scroll::Pwrite;
use scroll::ctx::SizeWith;

use crate::machine::Protection;

/// Parts begin at multiples of this in the file, as they do in memory.
const ALIGN: u64 = 4096;

/// A piece of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// First address.
    pub(crate) address: u64,
    /// Length in memory; behind the file's bytes are zeros.
    pub(crate) memory: u64,
    /// How many bytes the file has of it.
    pub(crate) file: u64,
    pub(crate) protection: Protection,
}

impl Segment {
    /// A range without the whole pages of zeros at its beginning and end, where `used` says whether a page, by address and
    /// length, has others; `None`: there is nothing else.
    pub(crate) fn of(
        start: u64,
        length: u64,
        protection: Protection,
        mut used: impl FnMut(u64, u64) -> bool,
    ) -> Option<Self> {
        let pages = length.div_ceil(ALIGN);
        let mut is_used = |page: &u64| {
            let at = page * ALIGN;
            used(start.saturating_add(at), ALIGN.min(length - at))
        };
        let first = (0..pages).find(&mut is_used)?;
        let last = (first..pages).rev().find(&mut is_used)?;
        Some(Self {
            address: start.saturating_add(first * ALIGN),
            memory: length - first * ALIGN,
            file: length.min((last + 1) * ALIGN) - first * ALIGN,
            protection,
        })
    }
}

/// A piece of memory with its bytes.
pub(crate) struct Part {
    segment: Segment,
    bytes: Vec<u8>,
}

impl Part {
    /// Bytes of a range, as [`Segment::of`] has it.
    pub(crate) fn of(start: u64, bytes: &[u8], protection: Protection) -> Option<Self> {
        let range = |at: u64, length: u64| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            bytes.get(from..from.checked_add(usize::try_from(length).ok()?)?)
        };
        let used = |at, length| range(at, length).is_some_and(|page| page.iter().any(|byte| *byte != 0));
        let segment = Segment::of(start, bytes.len() as u64, protection, used)?;
        Some(Self {
            segment,
            bytes: range(segment.address, segment.file)?.to_vec(),
        })
    }
}

/// What stands in a file's header.
pub(crate) struct Head {
    /// `e_type`.
    pub(crate) kind: u16,
    /// `e_entry`.
    pub(crate) entry: u64,
    /// `e_flags`.
    pub(crate) flags: u32,
}

/// Writes a file of the profile's class and byte order with a segment for each part.
pub(crate) fn write(profile: &ArchProfile, head: &Head, parts: &[Part]) -> Option<Vec<u8>> {
    let segments: Vec<Segment> = parts.iter().map(|part| part.segment).collect();
    let (mut file, offsets) = begin(profile, head, &[], &segments)?;
    for (part, offset) in parts.iter().zip(offsets) {
        file.resize(usize::try_from(offset).ok()?, 0);
        file.extend_from_slice(&part.bytes);
    }
    Some(file)
}

/// What stands in a file before the bytes of its segments (headers, and notes if there are any), and where these begin.
pub(crate) fn begin(
    profile: &ArchProfile,
    head: &Head,
    notes: &[u8],
    parts: &[Segment],
) -> Option<(Vec<u8>, Vec<u64>)> {
    let container = if profile.elf.class == 64 {
        Container::Big
    } else {
        Container::Little
    };
    let endian = match profile.elf.byte_order {
        ByteOrder::Big => Endian::Big,
        ByteOrder::Little => Endian::Little,
    };
    let ctx = Ctx::new(container, endian);
    let mut header = Header::new(ctx);
    header.e_ident.get_mut(..4)?.copy_from_slice(ELFMAG);
    *header.e_ident.get_mut(EI_CLASS)? = if container.is_big() { 2 } else { 1 };
    *header.e_ident.get_mut(EI_DATA)? = if endian.is_little() { 1 } else { 2 };
    *header.e_ident.get_mut(EI_VERSION)? = EV_CURRENT;
    header.e_type = head.kind;
    header.e_machine = profile.elf.machine.first().copied()?;
    header.e_version = u32::from(EV_CURRENT);
    header.e_entry = head.entry;
    header.e_flags = head.flags;
    let header_size = Header::size(ctx);
    header.e_phoff = header_size as u64;
    header.e_ehsize = u16::try_from(header_size).ok()?;
    header.e_phentsize = u16::try_from(ProgramHeader::size_with(&ctx)).ok()?;
    let segments = parts.len() + usize::from(!notes.is_empty());
    header.e_phnum = u16::try_from(segments).ok()?;
    // There are no sections, and none has their names.
    header.e_shoff = 0;
    header.e_shnum = 0;
    header.e_shentsize = 0;
    header.e_shstrndx = 0;

    let table = usize::from(header.e_phentsize).checked_mul(segments)?;
    let mut file = vec![0; header_size.checked_add(table)?];
    file.pwrite_with(header, 0, endian).ok()?;
    let mut at = header_size;
    if !notes.is_empty() {
        let segment = ProgramHeader {
            p_type: PT_NOTE,
            p_offset: file.len() as u64,
            p_filesz: notes.len() as u64,
            p_align: 4,
            ..ProgramHeader::default()
        };
        at += file.pwrite_with(segment, at, ctx).ok()?;
        file.extend_from_slice(notes);
    }
    let mut end = file.len() as u64;
    let mut offsets = Vec::with_capacity(parts.len());
    for part in parts {
        let offset = end.checked_next_multiple_of(ALIGN)?;
        end = offset.checked_add(part.file)?;
        offsets.push(offset);
        let segment = ProgramHeader {
            p_type: PT_LOAD,
            // ELF has read as 4 and execute as 1; mmap has it the other way round.
            p_flags: u32::from(
                (part.protection.0 & 1) << 2 | (part.protection.0 & 2) | (part.protection.0 & 4) >> 2,
            ),
            p_offset: offset,
            p_vaddr: part.address,
            p_paddr: part.address,
            p_filesz: part.file,
            p_memsz: part.memory,
            p_align: ALIGN,
        };
        at += file.pwrite_with(segment, at, ctx).ok()?;
    }
    Some((file, offsets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::profile;

    #[test]
    fn what_is_written_is_read_back() {
        for name in ["x86_64", "mips", "s390x", "arm"] {
            let profile = profile(name);
            let parts = [
                Part::of(0x40_0000, &[1; 5000], Protection(5)).unwrap(),
                Part::of(
                    0x50_0000,
                    &[[0; 4096], [2; 4096], [0; 4096]].concat(),
                    Protection(3),
                )
                .unwrap(),
            ];
            let head = Head {
                kind: 2,
                entry: 0x40_0010,
                flags: 7,
            };
            let file = write(&profile, &head, &parts).unwrap();
            let read = goblin::elf::Elf::parse(&file).unwrap();
            assert_eq!(read.header.e_entry, 0x40_0010, "{name}");
            assert_eq!(read.header.e_flags, 7);
            assert_eq!(read.header.e_machine, profile.elf.machine[0]);
            let [first, second] = &read.program_headers[..] else {
                panic!("two segments");
            };
            assert!(first.is_executable() && !first.is_write() && second.is_write());
            assert_eq!(&file[first.file_range()], [1; 5000]);
            assert_eq!((second.p_vaddr, second.p_memsz), (0x50_1000, 0x2000));
            assert_eq!(&file[second.file_range()], [2; 4096]);
        }
        assert!(Part::of(0, &[0; 9000], Protection(3)).is_none());
    }
}
