//! What is kept: objects under their digests, records under their keys, runs in their folders.
//!
//! In: bytes and facts about finished work. Out: the same, or nothing: whatever was damaged, torn or half-written is as if
//! it had never been stored. Several runners can use one store at once: every file is written apart and renamed into place,
//! and two writers of one name write the same bytes.
//!
//! | module | what is there |
//! |---|---|
//! | [`objects`] | bytes by their SHA-256, compressed, verified on every read |
//! | [`records`] | what an instance with a given cache key gave |
//! | [`journal`] | what a run did, line by line; survives `kill -9` at any moment |
//! | [`runs`] | a run's folder, and how its `result/` comes into being at once |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod journal;
pub mod objects;
pub mod records;
pub mod runs;

use std::path::{Path, PathBuf};

pub use journal::{Entry, Journal};
pub use objects::{ObjectWriter, Stored};
pub use records::Record;
pub use runs::RunFolder;

/// A store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The folder holds a store of another version.
    #[error("{path} holds `{found}`, and this version of hotcell reads `{VERSION}`")]
    Version {
        /// The store's version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A record cannot be written as JSON.
    #[error("a record cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Name and version of the store's layout, in its file `version`.
pub const VERSION: &str = "hotcell-store 1";

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the store in a folder, and makes it where there is none.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        for part in ["objects", "records", "incoming"] {
            fs_err::create_dir_all(folder.join(part))?;
        }
        let path = folder.join("version");
        match fs_err::read_to_string(&path) {
            Ok(found) if found.trim() == VERSION => {}
            // An empty file is what a power cut leaves of a new store.
            Ok(found) if found.is_empty() => {
                let store = Self {
                    folder: folder.to_owned(),
                };
                store.place(format!("{VERSION}\n").as_bytes(), &path)?;
            }
            Ok(found) => {
                let found = found.trim().chars().take(80).collect();
                return Err(StoreError::Version { path, found });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let store = Self {
                    folder: folder.to_owned(),
                };
                store.place(format!("{VERSION}\n").as_bytes(), &path)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// A file that is being written; nobody sees it before it is renamed.
    fn incoming(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        Ok(tempfile::Builder::new()
            .prefix("part-")
            .tempfile_in(self.folder.join("incoming"))?)
    }

    /// Writes a small file so that it is there whole or not at all.
    fn place(&self, bytes: &[u8], path: &Path) -> Result<(), StoreError> {
        use std::io::Write as _;
        let mut file = self.incoming()?;
        file.write_all(bytes)?;
        self.rename(file, path)
    }

    fn rename(&self, file: tempfile::NamedTempFile, path: &Path) -> Result<(), StoreError> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Where something with a digest stands: spread over 256 folders.
    fn path(&self, part: &str, digest: &hotcell_schema::digest::Digest) -> PathBuf {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        self.folder.join(part).join(shard).join(rest)
    }
}
