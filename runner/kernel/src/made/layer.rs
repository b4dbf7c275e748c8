//! Layers: code that a guest wrote and runs, as files that other tools open.
//!
//! When a block begins that the guest wrote, the memory around it is kept at once: this is the moment when an unpacker has
//! done its work and what it unpacked has not begun. Where an ELF header stands in that memory, the file is what its
//! segments say, each byte at its offset: of an unpacked program the original, but for its sections, which are never in
//! memory. Elsewhere the file has a segment for each mapping that touches the code's. What is kept is what later code is
//! held against, so that the next layer is told too.

use std::sync::Arc;

use goblin::elf::header::ET_EXEC;
use hotcell_schema::event::{self, What};

use crate::kernel::Kernel;
use crate::load::elf;
use crate::machine::{Machine, Protection};
use crate::made::elf::{Head, Part, write};
use crate::mapping::Backing;
use crate::space::AddressSpace;

/// Greatest number of layers that are kept of a run, and of bytes in all of them.
const MAX_LAYERS: usize = 64;
const MAX_BYTES: u64 = 64 << 20;
/// Bytes that headers may take (as Linux: a page would do, tools are more generous).
const MAX_HEADERS: usize = 1 << 16;
/// Bytes of memory that are kept around code without a header.
const MAX_AROUND: u64 = 32 << 20;
/// Mappings below the code's in which a header is looked for.
const MAX_BELOW: usize = 64;

/// Memory that was kept: where it starts, and what stood there.
pub type Kept = (u64, Arc<[u8]>);

/// A layer as it is made.
struct Layer {
    file: Vec<u8>,
    kept: Vec<Kept>,
}

impl Kernel {
    /// Bytes written by the guest are about to be executed, for the first time since they were written. Gives the memory
    /// that was kept as a layer: what stands there now is known, and only what differs is to be told again. Empty: no more
    /// layers are kept.
    pub fn written_then_executed(&mut self, machine: &dyn Machine, start: u64, length: u64) -> Vec<Kept> {
        let pid = self.pid_of(self.current);
        let space = self.task_space(self.current);
        let protection = space
            .and_then(|space| space.find(start))
            .map(|(_, mapping)| mapping.protection.letters());
        let room = MAX_BYTES.saturating_sub(self.made.layers.bytes);
        let layer = space
            .filter(|_| self.made.layers.all.len() < MAX_LAYERS && room > 0)
            .and_then(|space| {
                self.program_around(space, machine, start, room)
                    .or_else(|| self.memory_around(space, machine, start, room))
            });
        let mut name = None;
        let mut kept = Vec::new();
        if let Some(layer) = layer {
            let this = format!("layer-{pid}-{}.elf", self.made.layers.all.len() + 1);
            self.made.layers.add(this.clone(), layer.file);
            name = Some(this);
            kept = layer.kept;
        }
        let what = event::Memory {
            protection,
            layer: name,
            ..event::Memory::new(event::MemoryOp::WrittenThenExecuted, start, length)
        };
        let task = self.event_task(pid, self.current);
        self.emit(task, What::Memory(what));
        kept
    }

    /// The program whose headers stand in memory before an address that is in the file's part of one of its segments.
    fn program_around(
        &self,
        space: &AddressSpace,
        machine: &dyn Machine,
        at: u64,
        room: u64,
    ) -> Option<Layer> {
        space
            .mappings_down(at)
            .take(MAX_BELOW)
            .find_map(|(start, _)| self.program_at(space, machine, start, at, room))
    }

    fn program_at(
        &self,
        space: &AddressSpace,
        machine: &dyn Machine,
        start: u64,
        at: u64,
        room: u64,
    ) -> Option<Layer> {
        let mut mark = [0; 4];
        machine.read(start, &mut mark).ok()?;
        if mark != *goblin::elf::header::ELFMAG {
            return None;
        }
        let headers = read(space, machine, start, MAX_HEADERS as u64);
        let program = elf::parse_headers(&headers, room, &self.profile, &self.abi).ok()?;
        let first = program.segments.first()?;
        if self.abi.page_down(first.offset) != 0 {
            return None;
        }
        let begin = self.abi.page_down(first.address);
        let base = if program.relocatable {
            start.checked_sub(begin)?
        } else {
            (start == begin).then_some(0)?
        };
        // Code may also stand behind the end of a segment, on its last page.
        let file_end = |segment: &elf::Segment| {
            let end = segment.address.saturating_add(segment.file);
            match segment.protection.has(Protection::EXECUTE) && segment.file > 0 {
                true => self.abi.page_up(end).unwrap_or(end),
                false => end,
            }
        };
        let inside = |segment: &elf::Segment| {
            (base.wrapping_add(segment.address)..base.wrapping_add(file_end(segment))).contains(&at)
        };
        if !program.segments.iter().any(inside) {
            return None;
        }
        // Segments may be of the same bytes: all of them together are bounded.
        let all = program
            .segments
            .iter()
            .map(|segment| segment.memory.max(file_end(segment) - segment.address));
        if all.fold(0u64, u64::saturating_add) > room {
            return None;
        }
        let length = program
            .segments
            .iter()
            .map(|segment| segment.offset.saturating_add(file_end(segment) - segment.address))
            .max()
            .filter(|length| *length <= room)?;
        let mut file = vec![0; usize::try_from(length).ok()?];
        let mut put = |offset: u64, address: u64, length: u64| {
            let bytes = read(space, machine, address, length);
            let from = usize::try_from(offset).ok()?;
            let into = file.get_mut(from..from.checked_add(bytes.len())?)?;
            into.copy_from_slice(&bytes);
            Some(())
        };
        // The headers may stand before the first segment, on its page.
        put(0, start, first.offset)?;
        // What is behind an end lies between segments in the file too, or under the next one.
        for segment in &program.segments {
            let address = base.checked_add(segment.address)?;
            put(segment.offset, address, file_end(segment) - segment.address)?;
        }
        let mut kept = Vec::new();
        for segment in &program.segments {
            let address = base.checked_add(segment.address)?;
            put(segment.offset, address, segment.file)?;
            let page = self.abi.page_down(address);
            let end = self.abi.page_up(address.checked_add(segment.memory)?)?;
            kept.extend(self.keep(space, machine, page, end, room));
        }
        elf::forget_sections(&mut file);
        Some(Layer { file, kept })
    }

    /// The mappings that touch that of an address, one behind the other.
    fn memory_around(
        &self,
        space: &AddressSpace,
        machine: &dyn Machine,
        at: u64,
        room: u64,
    ) -> Option<Layer> {
        let (start, mapping) = space.find(at)?;
        let own = |other: &Backing| match (&mapping.backing, other) {
            (Backing::File { path, .. }, Backing::File { path: other, .. }) => path == other,
            (Backing::Anonymous | Backing::Heap, Backing::Anonymous | Backing::Heap) => true,
            (one, other) => one == other,
        };
        // The code's own mapping, or what of it is near; then what touches it, as far as there is room.
        let most = room.min(MAX_AROUND);
        let mut from = start.max(at.saturating_sub(most / 2));
        let mut until = mapping.end.min(from.saturating_add(most));
        while from == start_of(space, from)
            && let Some((below, mapping)) = from.checked_sub(1).and_then(|last| space.find(last))
            && own(&mapping.backing)
            && until - below <= most
        {
            from = below;
        }
        while let Some((begin, mapping)) = space.find(until)
            && begin == until
            && own(&mapping.backing)
            && mapping.end - from <= most
        {
            until = mapping.end;
        }
        let mut parts = Vec::new();
        let kept = self.keep(space, machine, from, until, room);
        for (start, content) in &kept {
            let protection = space.find(*start).map(|(_, mapping)| mapping.protection);
            parts.extend(Part::of(*start, content, protection.unwrap_or_default()));
        }
        let head = Head {
            kind: ET_EXEC,
            entry: at,
            flags: space.elf_flags,
        };
        let file = write(&self.profile, &head, &parts)?;
        (!parts.is_empty()).then_some(Layer { file, kept })
    }

    /// What stands in a range, mapping by mapping.
    fn keep(
        &self,
        space: &AddressSpace,
        machine: &dyn Machine,
        start: u64,
        end: u64,
        room: u64,
    ) -> Vec<Kept> {
        let mut kept = Vec::new();
        let mut room = room;
        let mut at = start;
        while at < end {
            let Some((first, mapping)) = space.find_from(at).filter(|(first, _)| *first < end) else {
                break;
            };
            let from = at.max(first);
            let until = mapping.end.min(end);
            if mapping.protection != Protection::NONE
                && let Some(rest) = room.checked_sub(until - from)
            {
                room = rest;
                kept.push((from, read(space, machine, from, until - from).into()));
            }
            at = mapping.end;
        }
        kept
    }
}

/// Where the mapping of an address begins.
fn start_of(space: &AddressSpace, at: u64) -> u64 {
    space.find(at).map_or(at, |(start, _)| start)
}

/// Bytes of a range, page by page; zeros where nothing can be read.
fn read(space: &AddressSpace, machine: &dyn Machine, start: u64, length: u64) -> Vec<u8> {
    const PAGE: u64 = 4096;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut at = start;
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at_mut(rest.len().min((PAGE - at % PAGE) as usize));
        if space.find(at).is_some() && machine.read(at, now).is_err() {
            now.fill(0);
        }
        at = at.saturating_add(now.len() as u64);
        rest = later;
    }
    bytes
}
