//! The arbiter's side of the locks: the only one that changes them.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::header::Header;
use super::map_unsafe::WritableMap;
use super::word::{self, Tenure};
use super::{CoreIndex, Holder, MAX_CORES};

/// What a table is sealed against: other lengths, other writers, other seals.
pub(super) const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_FUTURE_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableFault {
    /// So many cores no table can have.
    #[error("a table of locks is for 1 to {MAX_CORES} cores, not for {asked}")]
    Size {
        /// The cores asked for.
        asked: u16,
    },
    /// The host does not let us.
    #[error(
        "{doing} failed: {source}; core locks need memfd_create with F_SEAL_FUTURE_WRITE (Linux 5.1) and /proc"
    )]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// Why cores were not granted. None of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No core was asked for.
    #[error("no core was asked for: a grant is for one core at least")]
    NoCores,
    /// One core was asked for twice.
    #[error("core {core} was asked for twice: name each core once")]
    Twice {
        /// The core.
        core: CoreIndex,
    },
    /// A core that is not in the table.
    #[error("there is no core {core}: the cores are 0 to {last}")]
    NoSuchCore {
        /// The core.
        core: CoreIndex,
        /// The last that there is.
        last: CoreIndex,
    },
    /// A core that is not free. Of several, the one with the least number.
    #[error("core {core} is not free{}", by(.holder))]
    Busy {
        /// The core.
        core: CoreIndex,
        /// Whose it is, where that could still be told: another thread may be about to take it, or it was just released.
        holder: Option<Holder>,
    },
}

fn by(holder: &Option<Holder>) -> String {
    holder.map_or(String::new(), |holder| format!(": it is held by {holder}"))
}

/// Cores that a holder was granted, until they are given to [`LockTable::release`]. Dropped, they stay held until the
/// holder ends.
#[derive(Debug)]
#[must_use = "cores whose grant is dropped stay held until their holder ends"]
pub struct Grant {
    holder: Holder,
    tenures: Vec<(CoreIndex, Tenure)>,
}

impl Grant {
    /// Who holds them.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// The cores, ascending.
    pub fn cores(&self) -> impl ExactSizeIterator<Item = CoreIndex> + '_ {
        self.tenures.iter().map(|&(core, _)| core)
    }
}

/// A lock whose holder was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// The core that is free now.
    pub core: CoreIndex,
    /// Whose it was.
    pub holder: Holder,
}

/// The locks of all cores, as the arbiter has them. Threads may share it.
#[derive(Debug)]
pub struct LockTable {
    map: WritableMap,
    header: Header,
    descriptor: File,
}

impl LockTable {
    /// A table for so many cores, all free, that says `arbiter` of its writer.
    pub fn new(cores: u16, arbiter: Holder) -> Result<Self, TableFault> {
        if !(1..=MAX_CORES).contains(&cores) {
            return Err(TableFault::Size { asked: cores });
        }
        let header = Header { cores, arbiter };
        let host = |doing| move |source: io::Error| TableFault::Host { doing, source };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let made = memfd_create(c"hotcell-core-locks", flags);
        let mut file = File::from(made.map_err(|error| host("making shared memory")(error.into()))?);
        let sized = file
            .write_all(&header.bytes())
            .and_then(|()| file.set_len(header.length() as u64))
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o444)));
        sized.map_err(host("filling shared memory"))?;
        let map = WritableMap::new(file.as_fd(), header).map_err(host("mapping shared memory"))?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))
            .map_err(|error| host("sealing shared memory")(error.into()))?;
        // A second open gives a description without the right to write, whatever the seals.
        let descriptor = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(host("opening shared memory read-only"))?;
        Ok(Self {
            map,
            header,
            descriptor,
        })
    }

    /// How many cores there are.
    pub fn cores(&self) -> u16 {
        self.header.cores
    }

    /// Gives all of `cores`, in any order, to `holder`, or none of them. Does not wait.
    pub fn acquire(&self, cores: &[CoreIndex], holder: Holder) -> Result<Grant, Refused> {
        if cores.is_empty() {
            return Err(Refused::NoCores);
        }
        // Before anything is copied: a list longer than the table names a core twice or one that is not there.
        if let Some(&core) = cores.iter().find(|core| core.number() >= self.cores()) {
            let last = CoreIndex::new(self.cores().saturating_sub(1));
            return Err(Refused::NoSuchCore { core, last });
        }
        let mut sorted = cores.to_vec();
        sorted.sort_unstable();
        let mut pairs = sorted.iter().zip(sorted.iter().skip(1));
        if let Some((&core, _)) = pairs.find(|(one, next)| one == next) {
            return Err(Refused::Twice { core });
        }
        match word::acquire(&self.map, &sorted, holder) {
            Ok(tenures) => Ok(Grant { holder, tenures }),
            Err(core) => Err(Refused::Busy {
                core,
                holder: self.query(core),
            }),
        }
    }

    /// Takes the cores of a grant back. Says how many of them the holder still had: the others were freed as those of a dead one.
    pub fn release(&self, grant: Grant) -> usize {
        grant
            .tenures
            .into_iter()
            .filter(|&(core, tenure)| self.end(core, tenure))
            .count()
    }

    fn end(&self, core: CoreIndex, tenure: Tenure) -> bool {
        self.map
            .get(core.place())
            .is_some_and(|slot| slot.release(tenure))
    }

    /// Who holds the core. `None` when nobody does, and for a core that is not in the table.
    pub fn query(&self, core: CoreIndex) -> Option<Holder> {
        self.map.get(core.place())?.tenure().map(|tenure| tenure.holder)
    }

    /// All cores that are held, ascending, and by whom.
    pub fn holders(&self) -> Vec<(CoreIndex, Holder)> {
        self.tenures()
            .map(|(core, tenure)| (core, tenure.holder))
            .collect()
    }

    fn tenures(&self) -> impl Iterator<Item = (CoreIndex, Tenure)> + '_ {
        let held = |(core, slot): (u16, &word::Slot<_>)| Some((CoreIndex::new(core), slot.tenure()?));
        (0..self.cores()).zip(self.map.iter()).filter_map(held)
    }

    /// Frees the locks of all holders of which `lives` says that they are gone, and says which. Each holder is asked for once.
    ///
    /// Of whom `lives` cannot tell it must say that it lives, or a core gets two holders: see [`Processes::lives`](super::Processes::lives).
    pub fn free_the_dead(&self, lives: &dyn Fn(Holder) -> bool) -> Vec<Freed> {
        let mut known = HashMap::new();
        self.tenures()
            .filter(|(_, tenure)| !*known.entry(tenure.holder).or_insert_with(|| lives(tenure.holder)))
            .filter(|&(core, tenure)| self.end(core, tenure))
            .map(|(core, tenure)| Freed {
                core,
                holder: tenure.holder,
            })
            .collect()
    }
}

/// The table's descriptor, to be given to whoever may see the locks. It can be read and mapped read-only, and nothing else.
impl AsFd for LockTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
