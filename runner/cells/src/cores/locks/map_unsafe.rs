//! Maps a table of locks: writable for the arbiter, read-only for all others.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

use super::CoreIndex;
use super::header::{HEADER, Header, SLOT};
use super::word::{Slot, Tenure};

// Memory that is mapped read-only may be read by atomic loads only where they are plain loads: up to the size of a pointer
// (documentation of `std::sync::atomic`, "Atomic accesses to read-only memory").
const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "hosts have 64 bits");
const _: () = assert!(size_of::<Slot<AtomicU64>>() == SLOT && align_of::<Slot<AtomicU64>>() == SLOT);
const _: () = assert!(HEADER.is_multiple_of(SLOT), "slots are aligned");

/// A mapped table.
#[derive(Debug)]
struct Map {
    start: NonNull<libc::c_void>,
    length: usize,
    cores: usize,
}

// SAFETY: the mapping lives as long as the value and belongs to no thread; its slots are read and written by atomics alone.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(table: BorrowedFd<'_>, header: Header, access: ProtFlags) -> io::Result<Self> {
        let length =
            NonZeroUsize::new(header.length()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new mapping at an address the kernel chooses; it does not touch memory in use.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, table, 0) }?;
        Ok(Self {
            start,
            length: length.get(),
            cores: usize::from(header.cores),
        })
    }

    fn slots(&self) -> &[Slot<AtomicU64>] {
        // SAFETY: the mapping is `HEADER + cores * SLOT` bytes long (`Header::length`), starts at a page, and is there until drop;
        // the file has that length and is sealed against shrinking (the callers of both `new`), so every page is there. Any bytes are
        // valid atomics, and other processes change them through atomics of the same size.
        unsafe {
            let first = self.start.as_ptr().cast::<u8>().add(HEADER);
            std::slice::from_raw_parts(first.cast(), self.cores)
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference outlives the value.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// The arbiter's map.
#[derive(Debug)]
pub(super) struct WritableMap(Map);

impl WritableMap {
    /// Maps a file of `header.length()` bytes, which nobody has but the caller and which the caller seals against shrinking.
    pub(super) fn new(table: BorrowedFd<'_>, header: Header) -> io::Result<Self> {
        let map = Map::new(table, header, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // SAFETY: the range is the mapping's own. It is taken from children only, none of which use it: a child that executes
        // nothing else would otherwise have a table that it can write.
        unsafe { madvise(map.start, map.length, MmapAdvise::MADV_DONTFORK) }?;
        Ok(Self(map))
    }
}

impl Deref for WritableMap {
    type Target = [Slot<AtomicU64>];

    fn deref(&self) -> &[Slot<AtomicU64>] {
        self.0.slots()
    }
}

/// A map that cannot be written: it does not give the slots out, whose methods would try.
#[derive(Debug)]
pub(super) struct ReadOnlyMap(Map);

impl ReadOnlyMap {
    /// Maps a file of `header.length()` bytes that is sealed against shrinking.
    pub(super) fn new(table: BorrowedFd<'_>, header: Header) -> io::Result<Self> {
        Map::new(table, header, ProtFlags::PROT_READ).map(Self)
    }

    /// Whose the core is; `None` also for a core that is not in the table.
    pub(super) fn tenure(&self, core: CoreIndex) -> Option<Tenure> {
        self.0.slots().get(core.place())?.tenure()
    }
}
