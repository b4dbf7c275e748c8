//! Mappings of an address space.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::machine::{Lent, MachineError, Protection};

/// What a mapping is, for `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backing {
    /// Nothing but memory.
    Anonymous,
    /// The program break.
    Heap,
    /// The first stack.
    Stack,
    /// A copy of a file from this offset.
    File {
        /// Its path.
        path: Arc<str>,
        /// Offset of the mapping's first byte.
        offset: u64,
        /// Inode number.
        inode: u64,
    },
    /// Nothing: it is past the end of memory that processes share. Whoever touches it gets SIGBUS.
    Beyond,
}

impl Backing {
    /// What stands so many bytes behind its beginning.
    pub(crate) fn after(&self, distance: u64) -> Self {
        let mut backing = self.clone();
        if let Self::File { offset, .. } = &mut backing {
            // An offset is the guest's own number: mremap may grow a mapping past the last one.
            *offset = offset.wrapping_add(distance);
        }
        backing
    }
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mapping {
    /// First address past it.
    pub(crate) end: u64,
    /// Protection.
    pub(crate) protection: Protection,
    /// MAP_SHARED.
    pub(crate) shared: bool,
    /// Whether the machine has memory there. A mapping made without any access has none until it is given some.
    pub(crate) backed: bool,
    /// What it is.
    pub(crate) backing: Backing,
}

impl Mapping {
    /// About how many bytes the kernel needs to know of it.
    pub(crate) fn weight(&self) -> u64 {
        const EACH: u64 = 256;
        EACH + match &self.backing {
            Backing::File { path, .. } => path.len() as u64,
            _ => 0,
        }
    }

    /// What stands behind it, at this distance from its beginning, when it grows: shared memory itself does not.
    pub(crate) fn grown(&self, distance: u64) -> Backing {
        match self.backing {
            Backing::Anonymous if self.shared => Backing::Beyond,
            _ => self.backing.after(distance),
        }
    }
}

/// Why a mapping could not be made.
#[derive(Debug)]
pub(crate) enum MapError {
    /// The guest's mistake, or its limit.
    Errno(Errno),
    /// The job's memory limit was met.
    Limit,
    /// The emulator failed.
    Machine(MachineError),
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<MachineError> for MapError {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

/// A mapping to be made.
pub(crate) struct Wanted {
    /// First address.
    pub(crate) start: u64,
    /// Bytes: whole pages.
    pub(crate) length: u64,
    /// Protection.
    pub(crate) protection: Protection,
    /// MAP_SHARED.
    pub(crate) shared: bool,
    /// What it is.
    pub(crate) backing: Backing,
    /// Memory that is somewhere else already, in order and without overlaps, within the range: the rest is new.
    pub(crate) lent: Vec<Part>,
}

/// Memory that is mapped at another place too.
pub(crate) struct Part {
    /// First address here.
    pub(crate) start: u64,
    /// Bytes: whole pages.
    pub(crate) length: u64,
    /// The memory.
    pub(crate) lent: Lent,
}

impl Wanted {
    /// New memory that is this process's alone.
    pub(crate) fn private(start: u64, length: u64, protection: Protection, backing: Backing) -> Self {
        Self {
            start,
            length,
            protection,
            shared: false,
            backing,
            lent: Vec::new(),
        }
    }

    /// Parts of the range that nothing was lent for: start and end.
    pub(crate) fn gaps(&self) -> Vec<(u64, u64)> {
        let mut at = self.start;
        let mut gaps = Vec::new();
        for (start, length) in self.lent.iter().map(|part| (part.start, part.length)) {
            gaps.push((at, start));
            at = start.saturating_add(length);
        }
        gaps.push((at, self.start.saturating_add(self.length)));
        gaps.retain(|(start, end)| start < end);
        gaps
    }
}
