//! What is kept: objects under their digests, records and memos under their keys, runs in their folders.
//!
//! In: bytes and facts about finished work. Out: the same, or nothing: whatever was damaged, torn or half-written is as if
//! it had never been stored. Several runners can use one store at once: every file is written apart and renamed into place,
//! and two writers of one name write the same bytes.
//!
//! | module | what is there |
//! |---|---|
//! | [`objects`] | bytes by their SHA-256, verified on every read |
//! | [`records`] | what an instance with a given cache key gave; how a key is made of its components |
//! | [`memos`] | small things that can be made again at any time |
//! | [`gc`] | what is removed, and what is kept |
//! | [`verify`](mod@verify) | every file of the store, read and judged |
//! | [`archive`] | records and their objects as one file, out and in |
//! | [`audit`] | what administrators of a host did; chained by digests, so that changes are found |
//! | [`journal`] | what a run did, line by line; survives `kill -9` at any moment |
//! | [`keys`] | the components of a run's cache keys, in its folder |
//! | [`runs`] | a run's folder, and how its `result/` comes into being at once |
//! | `access` | the store's lock; files that are being written |
//! | `form` | how bytes stand in a file |
//! | `walk` | what stands in the store's folders |
//!
//! ```text
//! store/version                 name and version of this layout
//!       lock                    runners hold it together, `gc` alone
//!       opening                 held for a moment by whoever makes or tidies something in `incoming/`
//!       objects/ab/cdef…        bytes, raw or one zstd frame
//!       records/ab/cdef…        JSON, bound to its key by a digest
//!       memos/ab/cdef…          bytes, bound to their key by a digest
//!       incoming/writer-x/      what one process is writing; removed with it, or by the next one when it was killed
//! ```
//!
//! # What a crash costs
//! `kill -9` at any moment costs what was being written. Nothing is flushed to the disk file by file, which would cost more
//! than the stages; whoever runs a plan asks the file system to write everything about once a second, and at the end. After
//! a power cut, files of the last second or two may be absent, empty or torn. Every read is verified, so each of them is a
//! miss and is made again; none is ever a wrong result.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
pub mod archive;
pub mod audit;
mod form;
pub mod gc;
pub mod journal;
pub mod keys;
pub mod memos;
pub mod objects;
pub mod records;
pub mod runs;
pub mod verify;
mod walk;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hotcell_schema::digest::Digest;

use access::{Hold, Incoming, Opening, Part};

pub use audit::Audit;
pub use journal::{Entry, Journal};
pub use objects::{ObjectWriter, Stored};
pub use records::Record;
pub use runs::RunFolder;
pub use walk::{Progress, Tell};

/// A store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The folder holds a store of another version.
    #[error("{path} holds `{found}`, and this version of hotcell reads `{VERSION}`")]
    Version {
        /// The store's version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Others hold the store's lock.
    #[error("{path} is locked: {by}")]
    Busy {
        /// The lock.
        path: PathBuf,
        /// Who holds it.
        by: &'static str,
    },
    /// The store was opened for reading only.
    #[error("the store {0} was opened for reading only")]
    ReadOnly(PathBuf),
    /// A record cannot be written as JSON.
    #[error("a record cannot be written: {0}")]
    Json(#[source] serde_json::Error),
    /// An audit journal is not what it should be.
    #[error("{path}: {fault}")]
    Audit {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: audit::AuditFault,
    },
}

impl From<serde_json::Error> for StoreError {
    /// What the disk says while JSON is written is the disk's.
    fn from(error: serde_json::Error) -> Self {
        match error.is_io() {
            true => Self::Io(error.into()),
            false => Self::Json(error),
        }
    }
}

/// Name and version of the store's layout, in its file `version`.
pub const VERSION: &str = "hotcell-store 2";
/// The version before: its files are read as they are.
const VERSION_BEFORE: &str = "hotcell-store 1";

/// The folders of a store that hold files by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes by their digest.
    Objects,
    /// What instances gave, by cache key.
    Records,
    /// What can be made again, by key.
    Memos,
}

impl Kind {
    /// Name of the folder.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Records => "records",
            Self::Memos => "memos",
        }
    }
}

/// A store in a folder. Clones are the same open store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Objects that this process has written, or read and found right. They are not read again to be checked.
    known: Mutex<HashSet<Digest>>,
    /// Where files are written; absent where the store is only read. Before the lock: it is dropped first.
    incoming: Option<Incoming>,
    /// The store's lock.
    _hold: Option<Hold>,
}

impl Store {
    /// Opens the store in a folder to work with it, and makes it where there is none. While it is open nothing is
    /// collected. Fails with [`StoreError::Busy`] where `hotcell store gc` is at work.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::make(folder)?;
        Self::working(folder, Hold::shared(folder, false)?)
    }

    /// The same, but waits for a collection to end.
    pub fn open_waiting(folder: &Path) -> Result<Self, StoreError> {
        Self::make(folder)?;
        Self::working(folder, Hold::shared(folder, true)?)
    }

    /// Opens the store in a folder to read it; `None` where there is none. Nothing whatever is written, and what is found
    /// damaged stays. Nothing is collected meanwhile, unless it is being collected already.
    pub fn open_existing(folder: &Path) -> Result<Option<Self>, StoreError> {
        match version(folder)? {
            Some(_) => Self::open_to_read(folder).map(Some),
            None => Ok(None),
        }
    }

    /// The same; where there is no store, it is as an empty one.
    pub fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        version(folder)?;
        let hold = match Hold::existing(folder) {
            Ok(hold) => hold,
            Err(StoreError::Busy { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self::new(folder, hold, None))
    }

    fn new(folder: &Path, hold: Option<Hold>, incoming: Option<Incoming>) -> Self {
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            known: Mutex::default(),
            incoming,
            _hold: hold,
        }))
    }

    /// The folders and the version, unless they are there. A store of the version before becomes one of this version:
    /// its files are read as they are.
    fn make(folder: &Path) -> Result<(), StoreError> {
        if version(folder)? == Some(VERSION) {
            return Ok(());
        }
        for part in ["objects", "records", "memos", "incoming"] {
            fs_err::create_dir_all(folder.join(part))?;
        }
        Self::write_version(folder)
    }

    fn write_version(folder: &Path) -> Result<(), StoreError> {
        let opening = Opening::of(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix("version-")
            .tempfile_in(opening.incoming())?;
        io::Write::write_all(&mut file, format!("{VERSION}\n").as_bytes())?;
        file.persist(folder.join("version"))
            .map_err(|error| error.error)?;
        Ok(())
    }

    /// Tells this store from any other, and from itself before something was removed or replaced in it: as long as the mark is
    /// the same, what was stored still is. `None` where there is no store.
    pub fn mark(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt as _;
        let facts = fs_err::metadata(self.0.folder.join("version")).ok()?;
        Some(format!(
            "{} {} {}",
            facts.ino(),
            facts.mtime(),
            facts.mtime_nsec()
        ))
    }

    /// Something is removed, or replaced: the store has a new mark.
    fn remark(&self) -> Result<(), StoreError> {
        Self::write_version(&self.0.folder)
    }

    fn working(folder: &Path, hold: Hold) -> Result<Self, StoreError> {
        fs_err::create_dir_all(folder.join("incoming"))?;
        let incoming = Incoming::begin(folder)?;
        Ok(Self::new(folder, Some(hold), Some(incoming)))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    fn incoming(&self) -> Result<&Incoming, StoreError> {
        let incoming = self.0.incoming.as_ref();
        incoming.ok_or_else(|| StoreError::ReadOnly(self.0.folder.clone()))
    }

    /// A file that is being written; nobody sees it before it is placed.
    fn part(&self) -> Result<Part, StoreError> {
        Ok(self.incoming()?.part()?)
    }

    /// Writes a file so that it is there whole or not at all.
    fn place(&self, pieces: &[&[u8]], path: &Path) -> Result<(), StoreError> {
        let mut part = self.part()?;
        for piece in pieces {
            io::Write::write_all(&mut part, piece)?;
        }
        Ok(part.place(path)?)
    }

    /// Where something with a digest stands: spread over 256 folders.
    fn path(&self, kind: Kind, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        let mut path = OsString::with_capacity(self.0.folder.as_os_str().len() + 80);
        path.push(&self.0.folder);
        for part in ["/", kind.folder(), "/", shard, "/", rest] {
            path.push(part);
        }
        path.into()
    }

    /// Trusts no object any more that was written or read before: each is read again when it is first checked. For the
    /// beginning of a run.
    pub fn read_afresh(&self) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }

    fn knows(&self, digest: &Digest) -> bool {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(digest)
    }

    fn learn(&self, digest: Digest) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(digest);
    }

    fn forget(&self, digest: &Digest) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(digest);
    }
}

/// The version of the store in a folder, where there is one; an error where this version of hotcell cannot read it.
fn version(folder: &Path) -> Result<Option<&'static str>, StoreError> {
    let path = folder.join("version");
    let found = match fs_err::read(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // An empty file is what a power cut leaves of a new store.
    if found.is_empty() {
        return Ok(None);
    }
    let known = [VERSION, VERSION_BEFORE];
    let known = known
        .into_iter()
        .find(|known| known.as_bytes() == found.trim_ascii());
    known.map(Some).ok_or_else(|| {
        let found = String::from_utf8_lossy(&found).trim().chars().take(80).collect();
        StoreError::Version { path, found }
    })
}

/// The host refused something about a path.
fn trouble(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    let text = format!("failed to {doing} `{}`: {error}", path.display());
    StoreError::Io(io::Error::new(error.kind(), text))
}
