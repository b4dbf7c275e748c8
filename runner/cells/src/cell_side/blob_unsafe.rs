//! Takes over inherited descriptors and maps blobs read-only.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that the runner handed over, mapped read-only and shared by every cell that got them.
#[derive(Debug)]
pub struct MappedBlob {
    start: Option<NonNull<libc::c_void>>,
    length: usize,
}

// SAFETY: the mapping is read-only, of a sealed file, and lives as long as the value: no thread can change it.
unsafe impl Send for MappedBlob {}
// SAFETY: as above; shared reads of memory that never changes.
unsafe impl Sync for MappedBlob {}

impl MappedBlob {
    /// Maps the first `length` bytes of `file`, which must be at least that long.
    pub(super) fn new(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let Some(size) = NonZeroUsize::new(length) else {
            return Ok(Self {
                start: None,
                length: 0,
            });
        };
        // SAFETY: a new mapping at an address the kernel chooses; it does not touch memory in use.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self {
            start: Some(start),
            length,
        })
    }
}

impl Deref for MappedBlob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.start {
            // SAFETY: the mapping is `length` bytes long, readable until drop; the file is sealed against writing and
            // shrinking (checked by the caller of `new`), so the bytes do not change under the reference.
            Some(start) => unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), self.length) },
            None => &[],
        }
    }
}

impl AsRef<[u8]> for MappedBlob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for MappedBlob {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            // SAFETY: the mapping was made by `new` with this length, and no reference outlives the value.
            let _ = unsafe { munmap(start, self.length) };
        }
    }
}

/// Takes descriptor 3 over as the control socket; once in a process.
pub(super) fn take_control_socket() -> Option<UnixStream> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) || !is_open(3) {
        return None;
    }
    // SAFETY: the descriptor is open, was inherited for this purpose, and nothing else in this process owns it: the
    // runner hands it over and the flag lets it be taken once.
    let socket = unsafe { UnixStream::from_raw_fd(3) };
    let stream = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SockType);
    if matches!(stream, Ok(nix::sys::socket::SockType::Stream)) {
        return Some(socket);
    }
    // Not ours: leave it open for whoever owns it.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(socket);
    None
}

/// An own descriptor of the blob with this index (descriptor `4 + index`), or `None` when it is not open.
pub(super) fn duplicate_blob(index: u32) -> Option<File> {
    let number = i32::try_from(index).ok()?.checked_add(4)?;
    if !is_open(number) {
        return None;
    }
    // SAFETY: the descriptor is open and is borrowed only for the call that duplicates it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let owned: OwnedFd = borrowed.as_fd().try_clone_to_owned().ok()?;
    Some(owned.into())
}

fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD reads a flag of a descriptor number and touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}
