//! Bytes for cells: sealed memory files, opened read-only.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};

/// Bytes that nobody can change any more. Every cell that gets them shares the same pages.
#[derive(Debug)]
pub struct SealedBlob {
    file: File,
    length: u64,
}

impl SealedBlob {
    /// Seals a copy of `bytes`.
    pub fn of(bytes: &[u8]) -> io::Result<Self> {
        Self::from_reader(bytes)
    }

    /// Seals everything that `bytes` gives.
    pub fn from_reader(mut bytes: impl Read) -> io::Result<Self> {
        Self::written(|blob| io::copy(&mut bytes, blob).map(|_| ()))
    }

    /// Seals everything that is written. An error leaves nothing.
    pub fn written(write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut writable = File::from(memfd_create(c"hotcell-blob", flags)?);
        write(&mut writable)?;
        writable.flush()?;
        let length = writable.metadata()?.len();
        fchmod(&writable, Mode::from_bits_truncate(0o444))?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&writable, FcntlArg::F_ADD_SEALS(seals))?;
        // A second open gives a description without the right to write, whatever the seals.
        let file = File::open(format!("/proc/self/fd/{}", writable.as_raw_fd()))?;
        Ok(Self { file, length })
    }

    /// Another open file of the same bytes, with an offset of its own.
    pub(super) fn opened_again(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// How many bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes, from the first on, for one reader at a time.
    pub fn reader(&self) -> impl Read + '_ {
        Reader {
            file: &self.file,
            at: 0,
            end: self.length,
        }
    }

    /// Another handle of the same bytes.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            length: self.length,
        })
    }
}

/// A memory file that a cell writes and the runner reads: where saved contexts and core files go. Its length is fixed and takes no memory;
/// what the cell writes into it counts as the cell's own.
#[derive(Debug)]
pub struct Area {
    file: File,
    length: u64,
}

impl Area {
    /// An empty one.
    pub(crate) fn new(length: u64) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"hotcell-contexts", flags)?);
        file.set_len(length)?;
        // Neither side can take the other's pages away.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file, length })
    }

    /// How many bytes it has room for.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Gives back the memory of a range that nobody needs any more.
    pub(crate) fn forget(&self, start: u64, length: u64) {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if let (Ok(start), Ok(length)) = (start.try_into(), length.try_into()) {
            // Where it fails, the memory is the cell's until it ends.
            let _ = fallocate(&self.file, mode, start, length);
        }
    }

    /// The bytes of a range; `None` if it does not lie within.
    pub(crate) fn range(&self, start: u64, length: u64) -> Option<impl Read + '_> {
        let end = start.checked_add(length).filter(|end| *end <= self.length)?;
        Some(Reader {
            file: &self.file,
            at: start,
            end,
        })
    }
}

impl AsFd for Area {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Reads a range of a file without moving its offset, which others share.
struct Reader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = into.len().min(left);
        let read = self
            .file
            .read_at(into.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

/// A sealed copy of an executable that every user may run.
pub(super) fn runnable_copy(mut executable: &File) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag, and need it not (memfd_create(2)).
    let made = memfd_create(
        c"hotcell-cell",
        flags | MFdFlags::from_bits_retain(libc::MFD_EXEC),
    );
    let mut copy = File::from(made.or_else(|_| memfd_create(c"hotcell-cell", flags))?);
    io::copy(&mut executable, &mut copy)?;
    fchmod(&copy, Mode::from_bits_truncate(0o555))?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    // What is open for writing cannot be executed.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))
}

impl AsFd for SealedBlob {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_is_forgotten_takes_no_memory_and_the_rest_stays() {
        let area = Area::new(1 << 20).unwrap();
        let bytes = vec![7; 1 << 16];
        area.file.write_all_at(&bytes, 0).unwrap();
        area.file.write_all_at(&bytes, 1 << 18).unwrap();
        let blocks = |area: &Area| area.file.metadata().unwrap().blocks();
        let before = blocks(&area);
        area.forget(1 << 18, 1 << 16);
        assert_eq!(blocks(&area), before / 2);
        let mut rest = Vec::new();
        area.range(0, 1 << 20).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 1 << 20);
        assert_eq!(rest[..1 << 16], bytes);
        assert!(rest[1 << 16..].iter().all(|byte| *byte == 0));
        // Beyond its end there is nothing to forget.
        area.forget(u64::MAX, u64::MAX);
        assert!(area.range(u64::MAX, 2).is_none());
    }
}
