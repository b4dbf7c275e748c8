//! Guest memory: mappings of this process that the emulator is lent.
//!
//! So memory can come from a file without a copy: pages of a saved context or of a payload are mapped privately, shared by
//! every cell until the guest writes them. What the guest maps otherwise is anonymous. The mappings belong to an instance's
//! [`Memory`] and go after the instance. What processes of a guest share is one mapping in several instances, and goes after the
//! last of them.
#![allow(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    rc::Rc,
};

use hotcell_kernel::machine::MachineError;
use unicorn_engine::{Prot, Unicorn};

use crate::machine::{Guest, failed};

/// Bytes of a page of the host and, here, of every guest.
pub(crate) const PAGE: u64 = 0x1000;

/// Fewer pages than these are copied: a mapping of its own costs about as much as copying so many.
pub(crate) const MAPPED_FROM: u64 = 16;

/// One mapping, or a part of one: its length and where it stands in this process.
#[derive(Clone)]
struct Block {
    length: u64,
    host: NonNull<u8>,
    /// The mapping that it is a part of, where other instances have it too.
    whole: Option<Rc<Shared>>,
}

/// A mapping that several instances have.
struct Shared {
    length: u64,
    host: NonNull<u8>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: a mapping of our own of this length; the last block that is a part of it has gone.
        unsafe { libc::munmap(self.host.as_ptr().cast(), self.length as usize) };
    }
}

/// Memory that one instance lends to another, or to itself: blocks, one behind the other.
pub(crate) struct Blocks(Vec<Block>);

impl Blocks {
    /// Bytes in all.
    pub(crate) fn length(&self) -> u64 {
        self.lengths().sum()
    }

    /// Bytes of each.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|block| block.length)
    }
}

/// What a saved context says of memory that several instances have: which it is, where in it a block begins, and its length.
pub(crate) type SharedPart = (u32, u64, u64);

/// The shared memory of all instances of a run, in the order of its numbers.
#[derive(Default)]
pub(crate) struct AllShared {
    all: Vec<Rc<Shared>>,
    numbers: BTreeMap<*const Shared, u32>,
    /// Pages that were told: of which, and where in it.
    told: BTreeSet<(u32, u64)>,
}

impl AllShared {
    /// Whether a page of a part, so far behind its beginning, is told the first time.
    pub(crate) fn tell(&mut self, (number, offset, _): SharedPart, behind: u64) -> bool {
        self.told.insert((number, offset.saturating_add(behind)))
    }
}

/// All of an instance's memory, by guest address.
#[derive(Default)]
pub(crate) struct Memory(BTreeMap<u64, Block>);

fn cannot(what: &str) -> MachineError {
    MachineError(format!("{what}: {}", io::Error::last_os_error()))
}

fn size(length: u64) -> Result<usize, MachineError> {
    usize::try_from(length).map_err(|_| MachineError("memory beyond this host's".to_owned()))
}

/// Maps zeroed memory into an instance.
pub(crate) fn map(
    uc: &mut Unicorn<'_, Guest>,
    start: u64,
    length: u64,
    protection: Prot,
) -> Result<(), MachineError> {
    let host = anonymous(length)?;
    let whole = None;
    put(uc, start, protection, Block { length, host, whole })
}

/// Zeroed memory of this process.
fn anonymous(length: u64) -> Result<NonNull<u8>, MachineError> {
    // SAFETY: a new anonymous mapping at a place that the kernel chooses.
    let host = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size(length)?,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if host == libc::MAP_FAILED {
        return Err(cannot("memory for the guest"));
    }
    NonNull::new(host.cast::<u8>()).ok_or_else(|| cannot("memory for the guest"))
}

/// Gives a block to an instance.
fn put(uc: &mut Unicorn<'_, Guest>, start: u64, protection: Prot, block: Block) -> Result<(), MachineError> {
    let Block { length, host, .. } = block;
    let overlaps = uc.get_data().memory.overlaps(start, length);
    if length == 0 || overlaps {
        return Err(MachineError("memory where there is some already".to_owned()));
    }
    // The block owns its mapping from here on, also when the emulator refuses it.
    uc.get_data_mut().memory.0.insert(start, block);
    // SAFETY: the mapping is `length` bytes long, and stays until the emulator has been told to unmap it or is gone.
    let mapped = unsafe { uc.mem_map_ptr(start, length, protection, host.as_ptr().cast()) };
    if mapped.is_err() {
        uc.get_data_mut().memory.remove(start, length);
    }
    mapped.map_err(failed("mapping memory"))
}

/// Maps what another instance lent.
pub(crate) fn borrow(
    uc: &mut Unicorn<'_, Guest>,
    start: u64,
    protection: Prot,
    lent: Blocks,
) -> Result<(), MachineError> {
    let mut at = start;
    for block in lent.0 {
        let length = block.length;
        put(uc, at, protection, block)?;
        at = at.saturating_add(length);
    }
    Ok(())
}

/// Maps a part of memory that several instances of a saved context have. The first of them makes it, and takes of
/// `room` what is more than its own part.
pub(crate) fn map_shared(
    uc: &mut Unicorn<'_, Guest>,
    (start, length): (u64, u64),
    protection: Prot,
    (number, offset, whole): SharedPart,
    all: &mut AllShared,
    room: &mut u64,
) -> Result<(), MachineError> {
    let wrong = || MachineError("shared memory that is not as it says".to_owned());
    let number = number as usize;
    if number == all.all.len() {
        *room = room.checked_sub(whole.saturating_sub(length)).ok_or_else(wrong)?;
        let host = anonymous(whole)?;
        all.all.push(Rc::new(Shared { length: whole, host }));
    }
    let shared = all.all.get(number).ok_or_else(wrong)?;
    let end = offset.checked_add(length).ok_or_else(wrong)?;
    if shared.length != whole || end > whole || !offset.is_multiple_of(PAGE) {
        return Err(wrong());
    }
    // SAFETY: checked to lie within the mapping.
    let host = unsafe { shared.host.add(size(offset)?) };
    let whole = Some(Rc::clone(shared));
    put(uc, start, protection, Block { length, host, whole })
}

/// Unmaps a range of an instance.
pub(crate) fn unmap(uc: &mut Unicorn<'_, Guest>, start: u64, length: u64) -> Result<(), MachineError> {
    uc.mem_unmap(start, length).map_err(failed("unmapping memory"))?;
    uc.get_data_mut().memory.remove(start, length);
    Ok(())
}

/// Unmaps everything that [`map`] mapped.
pub(crate) fn unmap_all(uc: &mut Unicorn<'_, Guest>) -> Result<(), MachineError> {
    let all: Vec<(u64, u64)> = uc.get_data().memory.blocks().collect();
    for (start, length) in all {
        unmap(uc, start, length)?;
    }
    Ok(())
}

impl Memory {
    /// All blocks: start and length.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(start, block)| (*start, block.length))
    }

    /// Lends a range that blocks hold without a gap: from now on they are shared.
    pub(crate) fn lend(&mut self, start: u64, length: u64) -> Option<Blocks> {
        let end = start.checked_add(length)?;
        let mut lent = Vec::new();
        let mut at = start;
        while at < end {
            let (first, block) = self.0.range_mut(..=at).next_back()?;
            let (length, host) = (block.length, block.host);
            let inside = at.checked_sub(*first).filter(|inside| *inside < length)?;
            let shared = || Rc::new(Shared { length, host });
            let whole = Some(Rc::clone(block.whole.get_or_insert_with(shared)));
            let length = (length - inside).min(end - at);
            // SAFETY: checked to lie within the block.
            let host = unsafe { host.add(inside as usize) };
            lent.push(Block { length, host, whole });
            at += length;
        }
        Some(Blocks(lent))
    }

    /// At which other addresses an instance shows parts of a range too: start and end. `None`: at too many to say.
    pub(crate) fn views(&self, start: u64, end: u64) -> Option<Vec<(u64, u64)>> {
        /// More blocks of a range than these, and more places, are not worth to be told one by one.
        const FEW: usize = 64;
        let before = self.0.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let parts: Vec<_> = self
            .0
            .range(before..end)
            .filter_map(|(at, block)| {
                let whole = block.whole.as_ref()?;
                let (first, last) = (start.max(*at), end.min(at.saturating_add(block.length)));
                let host = block.host.as_ptr() as u64;
                (first < last).then(|| (*at, whole, host + (first - at), host + (last - at)))
            })
            .take(FEW + 1)
            .collect();
        let mut views = Vec::new();
        if parts.len() > FEW {
            return None;
        }
        for (at, whole, from, to) in parts {
            for (other, view) in self.0.iter().filter(|(other, _)| **other != at) {
                let base = view.host.as_ptr() as u64;
                let (from, to) = (from.max(base), to.min(base.saturating_add(view.length)));
                if from < to && view.whole.as_ref().is_some_and(|other| Rc::ptr_eq(other, whole)) {
                    views.push((other + (from - base), other + (to - base)));
                }
            }
            if views.len() > FEW {
                return None;
            }
        }
        Some(views)
    }

    /// Which shared memory a block is a part of, if it is: it gets a number when it is first met.
    pub(crate) fn shared_part(&self, start: u64, all: &mut AllShared) -> Option<SharedPart> {
        let (first, block) = self.0.range(..=start).next_back()?;
        let whole = block.whole.as_ref()?;
        let next = u32::try_from(all.all.len()).ok()?;
        let number = *all.numbers.entry(Rc::as_ptr(whole)).or_insert(next);
        if number == next {
            all.all.push(Rc::clone(whole));
        }
        let offset = (block.host.as_ptr() as u64).checked_sub(whole.host.as_ptr() as u64)?;
        Some((number, offset + (start - first), whole.length))
    }

    /// Whether other instances may have some of it too.
    pub(crate) fn has_lent(&self) -> bool {
        self.0.values().any(|block| block.whole.is_some())
    }

    /// Whether other instances may have an address too.
    pub(crate) fn is_lent(&self, address: u64) -> bool {
        let block = self.0.range(..=address).next_back();
        block.is_some_and(|(start, block)| address - start < block.length && block.whole.is_some())
    }

    /// How many blocks are parts of each mapping that other instances may have too.
    fn parts(&self) -> BTreeMap<*const Shared, usize> {
        let mut parts = BTreeMap::new();
        for whole in self.0.values().filter_map(|block| block.whole.as_ref()) {
            *parts.entry(Rc::as_ptr(whole)).or_default() += 1;
        }
        parts
    }

    fn overlaps(&self, start: u64, length: u64) -> bool {
        let before = self.0.range(..start.saturating_add(length)).next_back();
        before.is_some_and(|(at, block)| at.saturating_add(block.length) > start)
    }

    fn remove(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        let touched: Vec<u64> = self
            .0
            .range(..end)
            .rev()
            .take_while(|(at, block)| at.saturating_add(block.length) > start)
            .map(|(at, _)| *at)
            .collect();
        let lent = touched
            .iter()
            .any(|at| self.0.get(at).is_some_and(|block| block.whole.is_some()));
        let mut parts = if lent { self.parts() } else { BTreeMap::new() };
        for at in touched {
            let Some(block) = self.0.remove(&at) else { continue };
            let block_end = at.saturating_add(block.length);
            let (first, last) = (at.max(start), block_end.min(end));
            let rests = usize::from(at < first) + usize::from(last < block_end);
            let alone = block.whole.as_ref().is_some_and(|whole| {
                let own = parts.entry(Rc::as_ptr(whole)).or_default();
                let elsewhere = self.shows(whole, &block, first - at, last - first);
                let alone = Rc::strong_count(whole) == *own && !elsewhere;
                *own = (*own + rests).saturating_sub(1);
                alone
            });
            if alone {
                // SAFETY: no other instance has the mapping, and of this one's blocks none holds this part.
                unsafe {
                    let part = block.host.as_ptr().add((first - at) as usize);
                    libc::madvise(part.cast(), (last - first) as usize, libc::MADV_DONTNEED);
                }
            }
            if block.whole.is_none() {
                // SAFETY: the part lies within the block, which nothing uses any more: the emulator has unmapped the range.
                unsafe {
                    let part = block.host.as_ptr().add((first - at) as usize);
                    libc::munmap(part.cast(), (last - first) as usize);
                }
            }
            if at < first {
                let length = first - at;
                self.0.insert(
                    at,
                    Block {
                        length,
                        ..block.clone()
                    },
                );
            }
            if last < block_end {
                // SAFETY: the rest begins within the same mapping.
                let host = unsafe { block.host.add((last - at) as usize) };
                let length = block_end - last;
                self.0.insert(
                    last,
                    Block {
                        length,
                        host,
                        ..block
                    },
                );
            }
        }
    }

    /// Whether another block shows some of a part of this one.
    fn shows(&self, whole: &Rc<Shared>, block: &Block, offset: u64, length: u64) -> bool {
        let from = block.host.as_ptr() as u64 + offset;
        self.0.values().any(|other| {
            let start = other.host.as_ptr() as u64;
            start < from + length
                && from < start.saturating_add(other.length)
                && other.whole.as_ref().is_some_and(|other| Rc::ptr_eq(other, whole))
        })
    }

    /// Where a range stands, if one block holds all of it.
    fn place(&self, start: u64, length: u64) -> Option<NonNull<u8>> {
        let (at, block) = self.0.range(..=start).next_back()?;
        let inside = start.checked_sub(*at)?;
        let end = inside.checked_add(length)?;
        // SAFETY: checked to lie within the block.
        (end <= block.length).then(|| unsafe { block.host.add(inside as usize) })
    }

    /// Whether one block holds all of a range.
    pub(crate) fn holds(&self, start: u64, length: u64) -> bool {
        self.place(start, length).is_some()
    }

    /// The bytes of a range that one block holds. The guest must not run meanwhile.
    pub(crate) fn bytes(&self, start: u64, length: u64) -> Option<&[u8]> {
        let place = self.place(start, length)?;
        // SAFETY: mapped readable for as long as the block is there; only the emulator writes it, and it does not run while
        // its data is borrowed.
        Some(unsafe { std::slice::from_raw_parts(place.as_ptr(), usize::try_from(length).ok()?) })
    }

    /// Makes pages of one block be those of a file, until they are written. The file must not change or shrink.
    pub(crate) fn share(
        &mut self,
        start: u64,
        length: u64,
        file: &File,
        offset: u64,
    ) -> Result<(), MachineError> {
        let outside = || MachineError("pages outside of the guest's memory".to_owned());
        let place = self.place(start, length).ok_or_else(outside)?;
        if !(place.as_ptr() as u64 | length | offset).is_multiple_of(PAGE) {
            return Err(outside());
        }
        let offset = libc::off_t::try_from(offset).map_err(|_| outside())?;
        // SAFETY: replaces pages of a block of our own by as many others of the same access; the emulator knows them by
        // their address alone.
        let mapped = unsafe {
            libc::mmap(
                place.as_ptr().cast(),
                size(length)?,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        match mapped {
            libc::MAP_FAILED => Err(cannot("mapping pages of a file")),
            _ => Ok(()),
        }
    }

    /// Fills a range of one block from a file.
    pub(crate) fn fill(
        &mut self,
        start: u64,
        length: u64,
        file: &File,
        offset: u64,
    ) -> Result<(), MachineError> {
        let place = self
            .place(start, length)
            .ok_or_else(|| MachineError("bytes outside of the guest's memory".to_owned()))?;
        // SAFETY: `length` writable bytes of a block of our own; the borrow of `self` is unique.
        let into = unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), size(length)?) };
        std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
            .map_err(|error| MachineError(format!("reading pages: {error}")))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for block in self.0.values().filter(|block| block.whole.is_none()) {
            // SAFETY: the instance went before its data (`UnicornInner::drop`); the blocks are our own mappings.
            unsafe { libc::munmap(block.host.as_ptr().cast(), block.length as usize) };
        }
    }
}

/// A part of a file, mapped to be written where all who have the file see it.
pub(crate) struct Window {
    start: NonNull<u8>,
    length: usize,
}

impl Window {
    /// Maps a part that begins at a page.
    pub(crate) fn new(file: &File, offset: u64, length: u64) -> Result<Self, MachineError> {
        let offset = libc::off_t::try_from(offset).map_err(|_| cannot("a window"))?;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size(length)?,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(place) if start != libc::MAP_FAILED => Ok(Self {
                start: place,
                length: size(length)?,
            }),
            _ => Err(cannot("mapping room for a context")),
        }
    }

    /// Writes bytes at an offset within; `None` if they do not fit.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> Option<()> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(bytes.len())?;
        if end > self.length {
            return None;
        }
        // SAFETY: checked to lie within the mapping; raw writes, because the other side may read meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len()) };
        Some(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; no reference to it is ever given out.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
