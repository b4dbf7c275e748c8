//! The journal: what a run did, one JSON line after another.
//!
//! A line is written with a single call to a file opened for appending, so that `kill -9` leaves whole lines and at most one
//! torn one at the end, which a reader drops. The writer holds a lock on the file as long as it lives, so that others can tell
//! a run that goes on from one that was killed.

use std::io::{self, Write as _};
use std::path::Path;

use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// Name of the format, in the first line.
pub const FORMAT: &str = "hotcell-journal";
/// Version of the format.
pub const VERSION: u32 = 3;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The first line.
    Journal {
        /// Always [`FORMAT`].
        format: String,
        /// [`VERSION`] of the writer.
        version: u32,
        /// The run's id.
        run: String,
        /// Digest of the manifest.
        manifest: Digest,
    },
    /// Not all of the plan is run; the second line, if it is there.
    Chosen {
        /// Indexes of the plan's instances that are, as pairs of a first one and the one after the last.
        instances: Vec<(u64, u64)>,
    },
    /// An instance began.
    Started {
        /// Its name.
        instance: String,
    },
    /// An instance ended; of a point: all that it becomes is known.
    Ended {
        /// Its name.
        instance: String,
        /// How.
        status: Status,
        /// Its cache key, where it came so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        /// How often it was tried, where that was more than once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
    },
    /// One level of a point, an axis that is expanded at run time.
    Expanded {
        /// The point's name.
        instance: String,
        /// The level, from 1.
        level: u8,
        /// Digests of the items that are new.
        items: Vec<Digest>,
        /// How many items were over the limits, all levels together.
        left_out: u64,
    },
    /// A person asked to stop.
    StopRequested,
    /// The result is complete and in place.
    Finished,
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: fs_err::File,
}

impl Journal {
    /// Begins the journal of a run; the file must not be there yet.
    pub fn begin(path: &Path, run: &str, manifest: Digest) -> Result<Self, StoreError> {
        let file = fs_err::OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        // A file system without locks makes runs that go on look as if they were killed, no more.
        let _ = file.file().lock();
        let mut journal = Self { file };
        journal.write(&Entry::Journal {
            format: FORMAT.into(),
            version: VERSION,
            run: run.into(),
            manifest,
        })?;
        Ok(journal)
    }

    /// Writes one line.
    pub fn write(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        Ok(self.file.write_all(&line)?)
    }

    /// Whether the writer of a journal is still at work.
    pub fn is_live(path: &Path) -> bool {
        let Ok(file) = std::fs::File::open(path) else {
            return false;
        };
        let locked = file.try_lock_shared();
        // Closing alone would leave it to a child that another thread is just starting.
        let _ = file.unlock();
        matches!(locked, Err(std::fs::TryLockError::WouldBlock))
    }

    /// Reads a journal, up to the first line that is torn or unknown. A file of another format or version gives nothing.
    pub fn read(path: &Path) -> Result<Vec<Entry>, StoreError> {
        let bytes = match fs_err::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            match serde_json::from_slice(line) {
                Ok(entry) => entries.push(entry),
                Err(_) => break,
            }
        }
        let known = matches!(entries.first(), Some(Entry::Journal { format, version, .. }) if format == FORMAT && (1..=VERSION).contains(version));
        Ok(if known { entries } else { Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_cut_anywhere_gives_its_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::begin(&path, "run-1", Digest::of(b"m")).unwrap();
        journal
            .write(&Entry::Started {
                instance: "a[x=1]".into(),
            })
            .unwrap();
        journal
            .write(&Entry::Ended {
                instance: "a[x=1]".into(),
                status: Status::Ok,
                key: Some(Digest::of(b"k")),
                attempts: Some(2),
            })
            .unwrap();
        journal.write(&Entry::Finished).unwrap();
        assert!(Journal::is_live(&path));
        drop(journal);
        assert!(!Journal::is_live(&path));
        let entries = Journal::read(&path).unwrap();
        assert_eq!(entries.len(), 4);
        let bytes = fs_err::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs_err::write(&path, &bytes[..cut]).unwrap();
            let lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(Journal::read(&path).unwrap(), entries[..lines], "cut to {cut}");
        }
    }
}
