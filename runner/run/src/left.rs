//! What programs left that did not end well: `failed/<stage>/<instance>/` in the run's folder, for a person to look at. It is
//! no part of the result: nothing reads it, and it is not compared.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use hotcell_plan::Instance;
use hotcell_store::RunFolder;

/// Most of one file, in bytes: its beginning.
pub(crate) const MAX_FILE: usize = 1 << 20;
/// Most files of one output.
pub(crate) const MAX_FILES: usize = 64;
/// Most of all that a run's programs leave, in bytes.
const MAX_RUN: u64 = 256 << 20;

/// The folder, and how much may still be put there.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    run: &'a RunFolder,
    room: AtomicU64,
}

impl<'a> Left<'a> {
    pub(crate) fn new(run: &'a RunFolder) -> Self {
        Self {
            run,
            room: AtomicU64::new(MAX_RUN),
        }
    }

    /// Where an instance leaves its files: a path from the run's folder.
    pub(crate) fn place(instance: &Instance) -> String {
        format!("failed/{}/{}", instance.stage, instance.slug)
    }

    /// Removes what an attempt before left.
    pub(crate) fn forget(&self, instance: &Instance) {
        // Mostly there is none; one that cannot be removed misleads nobody who was not told of it.
        let _ = fs_err::remove_dir_all(self.run.path().join(Self::place(instance)));
    }

    /// Writes a file, and tells whether there was room. `path` is made of names without `/`, `.` and `..`.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> bool {
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(bytes.len() as u64)
            });
        // Whoever cannot be shown what went wrong is still told; nothing hangs on it.
        taken.is_ok() && self.run.write(path, bytes).is_ok()
    }
}

/// Takes the beginning of what is written, and ends the writing then.
#[derive(Debug)]
pub(crate) struct Beginning {
    bytes: Vec<u8>,
    most: usize,
}

impl Beginning {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
        }
    }

    /// What was taken, and whether that may not be all.
    pub(crate) fn taken(self) -> (Vec<u8>, bool) {
        let cut = self.bytes.len() >= self.most;
        (self.bytes, cut)
    }
}

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.most - self.bytes.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.bytes.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_no_more_than_it_may() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "x").unwrap();
        let left = Left::new(&run);
        left.room.store(5, Ordering::Relaxed);
        assert!(left.write("failed/a/only/stdout", b"abc"));
        assert!(!left.write("failed/a/only/stderr", b"abc"));
        assert!(left.write("failed/a/only/outputs/x", b"ab"));
        assert!(!run.path().join("failed/a/only/stderr").exists());
    }

    #[test]
    fn a_beginning_is_all_or_cut() {
        let mut beginning = Beginning::new(4);
        beginning.write_all(b"abc").unwrap();
        assert!(beginning.write_all(b"def").is_err());
        assert_eq!(beginning.taken(), (b"abcd".to_vec(), true));
        assert_eq!(Beginning::new(4).taken(), (Vec::new(), false));
    }
}
