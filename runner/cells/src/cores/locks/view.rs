//! Everybody else's side of the locks: they see, and cannot change.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use super::header::{HEADER, Header};
use super::map_unsafe::ReadOnlyMap;
use super::table::SEALS;
use super::{CoreIndex, Holder, MAX_CORES};

/// Why a descriptor is no table of locks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewFault {
    /// It is no sealed memory, or lacks a seal.
    #[error(
        "this is no table of core locks: it is not memory that is sealed against other lengths and writers"
    )]
    NotSealed,
    /// It is longer or shorter than its header says.
    #[error("this table of core locks is damaged: {found} bytes instead of {expected}")]
    Length {
        /// Bytes that the header makes it.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// It does not begin with the name of the format.
    #[error("this is no table of core locks: it does not begin with `hotcell-core-locks`")]
    Name,
    /// It is of another version.
    #[error(
        "this table of core locks has version {found}, known is {known}: arbiter and reader are of different releases"
    )]
    Version {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It says that it has so many cores.
    #[error("this table of core locks is damaged: it is for 1 to {MAX_CORES} cores, not for {found}")]
    Cores {
        /// The number it says.
        found: u32,
    },
    /// It names an arbiter that is no process.
    #[error("this table of core locks is damaged: no arbiter has the pid {found}")]
    Arbiter {
        /// The pid it says.
        found: u32,
    },
    /// The host does not let us.
    #[error("{doing} failed: {source}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// The locks of all cores, as everybody but the arbiter has them.
///
/// Any descriptor may be tried: one that is no table is an error, and whatever is written to one that looks like a table is
/// some answer, at once. Whether the answers are true is up to who gave the descriptor.
#[derive(Debug)]
pub struct LockView {
    map: ReadOnlyMap,
    header: Header,
}

impl LockView {
    /// Maps the table behind a descriptor, which is not needed any more after that.
    pub fn open(table: impl AsFd) -> Result<Self, ViewFault> {
        let host = |doing| move |source: io::Error| ViewFault::Host { doing, source };
        // First of all: nothing else can be asked for seals, and without them nothing that is read stays so.
        let seals = match fcntl(&table, FcntlArg::F_GET_SEALS) {
            Ok(seals) => SealFlag::from_bits_retain(seals),
            Err(Errno::EINVAL) => return Err(ViewFault::NotSealed),
            Err(error) => return Err(host("looking at a table's seals")(error.into())),
        };
        if !seals.contains(SEALS) {
            return Err(ViewFault::NotSealed);
        }
        let file = table.as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(host("taking over a table"))?;
        let found = file.metadata().map_err(host("measuring a table"))?.len();
        if found < HEADER as u64 {
            let expected = HEADER as u64;
            return Err(ViewFault::Length { expected, found });
        }
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0)
            .map_err(host("reading a table"))?;
        let header = Header::read(&bytes)?;
        let expected = header.length() as u64;
        if found != expected {
            return Err(ViewFault::Length { expected, found });
        }
        let map = ReadOnlyMap::new(file.as_fd(), header).map_err(host("mapping a table"))?;
        Ok(Self { map, header })
    }

    /// How many cores there are.
    pub fn cores(&self) -> u16 {
        self.header.cores
    }

    /// Who writes the table. When it is gone, nothing in the table changes any more.
    pub fn arbiter(&self) -> Holder {
        self.header.arbiter
    }

    /// Who holds the core. `None` when nobody does, and for a core that is not in the table.
    pub fn query(&self, core: CoreIndex) -> Option<Holder> {
        self.map.tenure(core).map(|tenure| tenure.holder)
    }

    /// All cores that are held, ascending, and by whom.
    pub fn holders(&self) -> Vec<(CoreIndex, Holder)> {
        (0..self.cores())
            .map(CoreIndex::new)
            .filter_map(|core| Some((core, self.query(core)?)))
            .collect()
    }
}
