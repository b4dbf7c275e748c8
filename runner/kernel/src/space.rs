//! Address spaces: mappings are the truth (also of `/proc/PID/maps`), and the machine is told of every change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::machine::{Lent, Machine, MachineError, Protection};
use crate::mapping::{Backing, MapError, Mapping, Part, Wanted};

/// Greatest number of mappings (`vm.max_map_count`).
const MAX_MAPPINGS: usize = 65_530;
/// Greatest number of regions of a machine. An emulator numbers them with 16 bits, some more than once.
const MAX_REGIONS: usize = 16_000;
/// Lowest address given (`vm.mmap_min_addr`).
pub(crate) const LOWEST: u64 = 0x1_0000;

/// One address space.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AddressSpace {
    page: u64,
    top: u64,
    mappings: BTreeMap<u64, Mapping>,
    /// The machine's regions, start to end. They are cut where a change begins or ends, and never join again.
    regions: BTreeMap<u64, u64>,
    /// First address of the program break's area, and the break itself.
    pub(crate) heap: (u64, u64),
    /// Whether a file was ever mapped shared here.
    pub(crate) shares_files: bool,
    /// Where the search for free addresses starts, downwards.
    pub(crate) search_from: u64,
    /// Greatest size in bytes (RLIMIT_AS).
    pub(crate) most: u64,
    /// Bytes that the machine has memory for, and those that the kernel needs to know of the mappings.
    backed: u64,
    known: u64,
    /// Which task's registers the machine holds.
    pub(crate) loaded: Option<u32>,
    /// `e_flags` of its program.
    pub(crate) elf_flags: u32,
    /// The process that it was made for.
    pub(crate) pid: u32,
    /// Where handlers of signals return to that bring no code of their own: in the kernel's shared object.
    pub(crate) signal_return: u64,
}

impl AddressSpace {
    /// An empty space of `top` bytes, for a process.
    pub(crate) fn new(page: u64, top: u64, pid: u32) -> Self {
        Self {
            page,
            top,
            mappings: BTreeMap::new(),
            regions: BTreeMap::new(),
            heap: (0, 0),
            shares_files: false,
            search_from: top,
            most: u64::MAX,
            backed: 0,
            known: 0,
            loaded: None,
            elf_flags: 0,
            pid,
            signal_return: 0,
        }
    }

    /// The same mappings, for fork.
    pub(crate) fn duplicate(&self, pid: u32) -> Self {
        // The copy's machine has one region for each mapping, but of what is shared as many as this one.
        let mut regions = BTreeMap::new();
        for (start, mapping) in self.mappings.iter().filter(|(_, mapping)| mapping.backed) {
            match mapping.shared {
                true => regions.extend(self.regions.range(start..&mapping.end)),
                false => {
                    regions.insert(*start, mapping.end);
                }
            }
        }
        Self {
            loaded: None,
            pid,
            regions,
            ..self.clone()
        }
    }

    /// Whether mappings and regions are ranges one behind the other, below the top. For what was read from outside; counts
    /// what is backed anew.
    pub(crate) fn is_sound(&mut self) -> bool {
        let in_order = |mut ranges: &mut dyn Iterator<Item = (u64, u64)>, top: u64| {
            let mut end = 0;
            Iterator::all(&mut ranges, |(start, past)| {
                let well = end <= start && start < past && past <= top;
                end = past;
                well
            })
        };
        let backed = self.mappings.iter().filter(|(_, mapping)| mapping.backed);
        let sizes = backed.map(|(start, mapping)| mapping.end.saturating_sub(*start));
        self.backed = sizes.fold(0, u64::saturating_add);
        self.known = self.mappings.values().map(Mapping::weight).sum();
        self.page.is_power_of_two()
            && in_order(
                &mut self.mappings.iter().map(|(start, mapping)| (*start, mapping.end)),
                self.top,
            )
            && in_order(
                &mut self.regions.iter().map(|(start, end)| (*start, *end)),
                self.top,
            )
    }

    /// Bytes that it takes of the job's memory: what the machine has memory for, and what the kernel knows of the mappings.
    pub(crate) fn used(&self) -> u64 {
        self.backed.saturating_add(self.known)
    }

    fn put(&mut self, start: u64, mapping: Mapping) {
        self.known += mapping.weight();
        if let Some(before) = self.mappings.insert(start, mapping) {
            self.known -= before.weight();
        }
    }

    fn take(&mut self, start: u64) -> Option<Mapping> {
        let mapping = self.mappings.remove(&start)?;
        self.known -= mapping.weight();
        Some(mapping)
    }

    /// Bytes mapped at all.
    pub(crate) fn size(&self) -> u64 {
        self.mappings
            .iter()
            .map(|(start, mapping)| mapping.end - start)
            .sum()
    }

    /// All mappings in order of address.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, &Mapping)> {
        self.mappings.iter().map(|(start, mapping)| (*start, mapping))
    }

    /// The mapping an address is in.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        (address < mapping.end).then_some((*start, mapping))
    }

    /// The mapping an address is in, or the next one.
    pub(crate) fn find_from(&self, address: u64) -> Option<(u64, &Mapping)> {
        let next = || self.mappings.range(address..).next();
        self.find(address)
            .or_else(|| next().map(|(start, mapping)| (*start, mapping)))
    }

    /// The mapping an address is in or behind, and those below it, downwards.
    pub(crate) fn mappings_down(&self, address: u64) -> impl Iterator<Item = (u64, &Mapping)> {
        let down = self.mappings.range(..=address).rev();
        down.map(|(start, mapping)| (*start, mapping))
    }

    /// The mappings of one file around an address, one behind the other, as far as there are not too many; of memory without a
    /// file, the mapping.
    pub(crate) fn of_one_file(&self, at: u64) -> (u64, u64) {
        const MOST: usize = 64;
        let Some((mut start, mapping)) = self.find(at) else {
            return (at, at.saturating_add(1));
        };
        let mut end = mapping.end;
        if let Backing::File { path, .. } = &mapping.backing {
            let same = |other: &Mapping| matches!(&other.backing, Backing::File { path: other, .. } if other == path);
            for (below, mapping) in self.mappings.range(..start).rev().take(MOST) {
                if mapping.end != start || !same(mapping) {
                    break;
                }
                start = *below;
            }
            for (above, mapping) in self.mappings.range(end..).take(MOST) {
                if *above != end || !same(mapping) {
                    break;
                }
                end = mapping.end;
            }
        }
        (start, end)
    }

    /// Whether any of the range is mapped.
    pub(crate) fn overlaps(&self, start: u64, length: u64) -> bool {
        let end = start.saturating_add(length);
        self.mappings
            .range(..end)
            .next_back()
            .is_some_and(|(_, mapping)| mapping.end > start)
    }

    /// Whether all of the range is mapped.
    pub(crate) fn covers(&self, start: u64, length: u64) -> bool {
        let Some(end) = start.checked_add(length) else {
            return false;
        };
        let mut at = start;
        while at < end {
            let Some((_, mapping)) = self.find(at) else {
                return false;
            };
            at = mapping.end;
        }
        true
    }

    /// Whether the kernel may read or write the range for the guest. As on most processors, memory with any access
    /// at all can be read.
    pub(crate) fn allows(&self, start: u64, length: u64, write: bool) -> bool {
        let Some(end) = start.checked_add(length) else {
            return false;
        };
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some((_, mapping)) if write && mapping.protection.has(Protection::WRITE) => at = mapping.end,
                Some((_, mapping)) if !write && mapping.protection != Protection::NONE => at = mapping.end,
                _ => return false,
            }
        }
        true
    }

    /// A free range that ends at `limit` or lower, from the top downwards; tries `hint` first.
    pub(crate) fn free_range(&self, hint: u64, length: u64, limit: u64) -> Option<u64> {
        let hint = hint & !(self.page - 1);
        let top = self.top.min(limit);
        let fits = |start: u64| {
            start >= LOWEST
                && start.checked_add(length).is_some_and(|end| end <= top)
                && !self.overlaps(start, length)
        };
        if hint != 0 && fits(hint) {
            return Some(hint);
        }
        let mut end = self.search_from.min(top);
        for (start, mapping) in self.mappings.iter().rev() {
            if *start >= end {
                continue;
            }
            if mapping.end < end && end - mapping.end >= length {
                break;
            }
            end = *start;
        }
        let start = end.checked_sub(length)?;
        (start >= LOWEST && !self.overlaps(start, length)).then_some(start)
    }

    /// Splits the mapping that `address` is inside of, so that one begins there.
    fn split(&mut self, address: u64) {
        let Some((start, mapping)) = self.find(address) else {
            return;
        };
        if start == address {
            return;
        }
        let mut upper = mapping.clone();
        upper.backing = mapping.backing.after(address - start);
        if let Some(lower) = self.mappings.get_mut(&start) {
            lower.end = address;
        }
        self.put(address, upper);
    }

    /// Cuts the machine's regions where a change of the range will cut them.
    fn cut_regions(&mut self, start: u64, end: u64) {
        for at in [start, end] {
            if let Some((_, until)) = self.regions.range_mut(..at).next_back()
                && *until > at
            {
                let rest = std::mem::replace(until, at);
                self.regions.insert(at, rest);
            }
        }
    }

    fn is_inside_region(&self, address: u64) -> bool {
        self.regions
            .range(..address)
            .next_back()
            .is_some_and(|(_, until)| *until > address)
    }

    /// Refuses a change that makes up to `more` regions when there are too many.
    fn regions_left(&self, more: usize) -> Result<(), MapError> {
        if self.regions.len().saturating_add(more) > MAX_REGIONS {
            return Err(Errno::ENOMEM.into());
        }
        Ok(())
    }

    fn starts(&self, start: u64, end: u64) -> Vec<u64> {
        self.mappings.range(start..end).map(|(start, _)| *start).collect()
    }

    /// Where a range ends that begins and ends with a page and is the process's.
    pub(crate) fn check(&self, start: u64, length: u64) -> Result<u64, MapError> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.top)
            .ok_or(Errno::ENOMEM)?;
        if length == 0 || start & (self.page - 1) != 0 || end & (self.page - 1) != 0 {
            return Err(Errno::EINVAL.into());
        }
        Ok(end)
    }

    /// Whether its limit allows so much in place of what is in a range.
    fn may_grow(&self, start: u64, length: u64) -> bool {
        if self.most == u64::MAX {
            return true;
        }
        let end = start.saturating_add(length);
        let inside = |(at, mapping): (&u64, &Mapping)| mapping.end.min(end).saturating_sub(start.max(*at));
        let before: u64 = self.mappings.range(..end).map(inside).sum();
        self.size().saturating_sub(before).saturating_add(length) <= self.most
    }

    /// Maps memory, zeroed where nothing was lent, in place of whatever was there. `room` is how many more bytes may get
    /// memory. Answers which parts are new.
    pub(crate) fn map(
        &mut self,
        machine: &mut dyn Machine,
        room: u64,
        wanted: Wanted,
    ) -> Result<Vec<(u64, u64)>, MapError> {
        let (start, length, protection) = (wanted.start, wanted.length, wanted.protection);
        let end = self.check(start, length)?;
        if self.mappings.len() >= MAX_MAPPINGS || !self.may_grow(start, length) {
            return Err(Errno::ENOMEM.into());
        }
        let backed = match wanted.backing {
            Backing::Beyond => false,
            // What a file holds must be there when the guest is given access later.
            Backing::File { .. } => true,
            _ => protection != Protection::NONE || !wanted.lent.is_empty(),
        };
        let gaps = wanted.gaps();
        let mapping = Mapping {
            end,
            protection,
            shared: wanted.shared,
            backed,
            backing: wanted.backing,
        };
        let needed = mapping.weight() + if backed { length } else { 0 };
        if needed > room {
            return Err(MapError::Limit);
        }
        let lent: usize = wanted.lent.iter().map(|part| part.lent.regions.len() + 1).sum();
        self.regions_left(lent.saturating_add(3))?;
        self.unmap(machine, start, length)?;
        if backed {
            for (from, to) in &gaps {
                machine.map(*from, to - from, protection)?;
                self.regions.insert(*from, *to);
            }
            for Part { start, length, lent } in wanted.lent {
                let mut at = start;
                for region in &lent.regions {
                    let end = at.saturating_add(*region);
                    self.regions.insert(at, end);
                    at = end;
                }
                debug_assert_eq!(
                    at,
                    start.saturating_add(length),
                    "regions are all of what is lent"
                );
                machine.borrow(start, protection, lent)?;
            }
            self.backed += length;
        }
        self.put(start, mapping);
        self.merge(start);
        Ok(gaps)
    }

    /// Shows the first bytes of a range that lies in one shared mapping at another place, and unmaps the range unless it
    /// `stays`: whoever shares the memory still does.
    pub(crate) fn relocate(
        &mut self,
        machine: &mut dyn Machine,
        room: u64,
        (old, old_length): (u64, u64),
        (start, length): (u64, u64),
        stays: bool,
    ) -> Result<(), MapError> {
        let (first, mapping) = self.find(old).ok_or(Errno::EFAULT)?;
        let mapping = mapping.clone();
        self.check(start, length)?;
        if self.mappings.len() + 2 >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM.into());
        }
        self.regions_left(6)?;
        let mut lent = Vec::new();
        if mapping.backed {
            let part = machine.lend(old, length)?;
            lent.push(Part {
                start,
                length,
                lent: part,
            });
        }
        let mut room = room;
        if !stays {
            let before = self.used();
            self.unmap(machine, old, old_length)?;
            room = room.saturating_add(before.saturating_sub(self.used()));
        }
        let backing = mapping.backing.after(old - first);
        let shared = mapping.shared;
        let wanted = Wanted {
            shared,
            lent,
            ..Wanted::private(start, length, mapping.protection, backing)
        };
        self.map(machine, room, wanted)?;
        Ok(())
    }

    /// Joins the mapping that begins at `start` with equal neighbours.
    fn merge(&mut self, start: u64) {
        let Some(mut this) = self.mappings.get(&start).cloned() else {
            return;
        };
        let alike = |a: &Mapping, b: &Mapping, distance: u64| {
            let backing = match (&a.backing, &b.backing) {
                (
                    Backing::File { path, offset, .. },
                    Backing::File {
                        path: other,
                        offset: other_offset,
                        ..
                    },
                ) => path == other && offset.checked_add(distance) == Some(*other_offset),
                (a, b) => a == b && *a != Backing::Stack,
            };
            backing && a.protection == b.protection && a.shared == b.shared && a.backed == b.backed
        };
        let after = self.mappings.get(&this.end).cloned();
        if let Some(next) = after.filter(|next| alike(&this, next, this.end - start)) {
            self.take(this.end);
            this.end = next.end;
            self.put(start, this.clone());
        }
        let before = self
            .mappings
            .range(..start)
            .next_back()
            .map(|(at, mapping)| (*at, mapping.clone()));
        if let Some((at, previous)) = before
            && previous.end == start
            && alike(&previous, &this, start - at)
        {
            self.take(start);
            if let Some(previous) = self.mappings.get_mut(&at) {
                previous.end = this.end;
            }
        }
    }

    /// Unmaps what is mapped in the range.
    pub(crate) fn unmap(
        &mut self,
        machine: &mut dyn Machine,
        start: u64,
        length: u64,
    ) -> Result<(), MapError> {
        let end = self.check(start, length)?;
        let hole = |(at, mapping): (u64, &Mapping)| at < start && end < mapping.end;
        if self.find(start).is_some_and(hole) && self.mappings.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM.into());
        }
        let cuts = [start, end]
            .iter()
            .filter(|at| self.is_inside_region(**at))
            .count();
        if cuts > 0 {
            self.regions_left(cuts)?;
        }
        self.cut_regions(start, end);
        let gone: Vec<u64> = self.regions.range(start..end).map(|(at, _)| *at).collect();
        for at in gone {
            self.regions.remove(&at);
        }
        self.split(start);
        self.split(end);
        for at in self.starts(start, end) {
            if let Some(mapping) = self.take(at)
                && mapping.backed
            {
                machine.unmap(at, mapping.end - at)?;
                self.backed -= mapping.end - at;
            }
        }
        Ok(())
    }

    /// Changes the protection of a range that is mapped throughout.
    pub(crate) fn protect(
        &mut self,
        machine: &mut dyn Machine,
        room: u64,
        start: u64,
        length: u64,
        protection: Protection,
    ) -> Result<(), MapError> {
        let end = self.check(start, length)?;
        if !self.covers(start, length) {
            return Err(Errno::ENOMEM.into());
        }
        self.regions_left(self.starts(start, end).len() + 3)?;
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM.into());
        }
        let split = |at| {
            self.find(at)
                .filter(|(start, _)| *start != at)
                .map_or(0, |(_, mapping)| mapping.weight())
        };
        let mut room = room
            .checked_sub(split(start) + split(end))
            .ok_or(MapError::Limit)?;
        self.cut_regions(start, end);
        self.split(start);
        self.split(end);
        for at in self.starts(start, end) {
            let Some(mapping) = self.mappings.get_mut(&at) else {
                continue;
            };
            let size = mapping.end - at;
            if mapping.backed {
                machine.protect(at, size, protection)?;
            } else if protection != Protection::NONE && mapping.backing != Backing::Beyond {
                room = room.checked_sub(size).ok_or(MapError::Limit)?;
                machine.map(at, size, protection)?;
                self.regions.insert(at, mapping.end);
                mapping.backed = true;
                self.backed += size;
            }
            mapping.protection = protection;
        }
        for at in self.starts(start, end) {
            self.merge(at);
        }
        self.merge(end);
        Ok(())
    }

    /// The memory of a machine as another gets it by fork: what is mapped shared is lent, of the rest a copy is made.
    pub(crate) fn copy(&self, from: &mut dyn Machine) -> Result<Pages, MachineError> {
        let mut pages = Pages::default();
        for (start, mapping) in self.mappings().filter(|(_, mapping)| mapping.backed) {
            let length = mapping.end - start;
            if mapping.shared {
                let lent = from.lend(start, length)?;
                pages.lent.push((start, mapping.protection, lent));
                continue;
            }
            pages.ranges.push((start, length, mapping.protection));
            let mut page = vec![0; CHUNK as usize];
            for at in (start..mapping.end).step_by(CHUNK as usize) {
                from.read(at, &mut page)
                    .map_err(|error| MachineError(error.to_string()))?;
                if page.iter().any(|byte| *byte != 0) {
                    pages.content.push((at, page.clone()));
                }
            }
        }
        Ok(pages)
    }

    /// The text of `/proc/PID/maps`.
    pub(crate) fn maps_text(&self, device: &str) -> String {
        let mut text = String::new();
        for (start, mapping) in self.mappings() {
            let (offset, inode, name) = match &mapping.backing {
                Backing::Anonymous | Backing::Beyond => (0, 0, ""),
                Backing::Heap => (0, 0, "[heap]"),
                Backing::Stack => (0, 0, "[stack]"),
                Backing::File { path, offset, inode } => (*offset, *inode, &**path),
            };
            let device = if inode == 0 { "00:00" } else { device };
            let kind = if mapping.shared { 's' } else { 'p' };
            let mut line = format!(
                "{start:08x}-{end:08x} {}{kind} {offset:08x} {device} {inode} ",
                mapping.protection.letters(),
                end = mapping.end
            );
            if !name.is_empty() {
                while line.len() < 73 {
                    line.push(' ');
                }
                line.push_str(name);
            }
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

const CHUNK: u64 = 4096;

/// Memory of one machine, to be given to another: only one machine can be borrowed at a time.
#[derive(Default)]
pub(crate) struct Pages {
    ranges: Vec<(u64, u64, Protection)>,
    content: Vec<(u64, Vec<u8>)>,
    lent: Vec<(u64, Protection, Lent)>,
}

impl Pages {
    /// Gives all to a machine without memory.
    pub(crate) fn give(self, machine: &mut dyn Machine) -> Result<(), MachineError> {
        for (start, length, protection) in self.ranges {
            machine.map(start, length, protection)?;
        }
        for (start, protection, lent) in self.lent {
            machine.borrow(start, protection, lent)?;
        }
        for (at, bytes) in self.content {
            machine
                .write(at, &bytes)
                .map_err(|error| MachineError(error.to_string()))?;
        }
        machine.is_copied();
        Ok(())
    }
}
