//! What somebody would do who wants to write a table of locks.
#![allow(unsafe_code)]

use std::fs::File;
use std::num::NonZeroUsize;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};

/// Maps the file, shared, and lets go of it again; says what the kernel said.
pub(crate) fn map(file: &File, length: NonZeroUsize, access: ProtFlags) -> Result<(), Errno> {
    // SAFETY: a new mapping at an address the kernel chooses, which nobody reads or writes.
    unsafe {
        let start = mmap(None, length, access, MapFlags::MAP_SHARED, file, 0)?;
        munmap(start, length.get())
    }
}

/// Maps the file read-only, shared, and tries to make the map writable; says what the kernel said to that.
pub(crate) fn map_and_make_writable(file: &File, length: NonZeroUsize) -> Result<(), Errno> {
    // SAFETY: as above; the protection changed is that of the new mapping.
    unsafe {
        let start = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0)?;
        let said = mprotect(start, length.get(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
        munmap(start, length.get())?;
        said
    }
}
