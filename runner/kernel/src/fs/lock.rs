//! Locks on files: those of open files (`flock(2)`, OFD) and those of processes (`fcntl(2)`, "Advisory record locking").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::fs::open::FileId;
use crate::fs::tree::Ino;

/// Locks at once.
const MAX_LOCKS: usize = 8_192;
/// Processes that are looked at for one that waits for itself (`MAX_DEADLK_ITERATIONS`).
const MAX_CHAIN: usize = 10;
/// The last byte there can be.
pub(crate) const LAST: u64 = i64::MAX as u64;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Holder {
    /// An open file, of the whole file (flock).
    Whole(FileId),
    /// An open file (OFD).
    File(FileId),
    /// A process.
    Process(u32),
}

impl Holder {
    /// Locks of flock know nothing of the others.
    fn meets(self, other: Self) -> bool {
        matches!(self, Self::Whole(_)) == matches!(other, Self::Whole(_))
    }
}

/// A lock that is held or wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    pub(crate) holder: Holder,
    /// Nobody else may have it, not even to read.
    pub(crate) exclusive: bool,
    /// First and last byte.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Lock {
    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.holder != other.holder
            && self.holder.meets(other.holder)
            && (self.exclusive || other.exclusive)
            && self.overlaps(other)
    }
}

/// All locks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Locks {
    held: BTreeMap<Ino, Vec<Lock>>,
    count: usize,
    /// Tasks that wait, each with its process and the process that it waits for.
    waiting: BTreeMap<u32, (u32, u32)>,
}

impl Locks {
    /// The lock that is in the way of another.
    pub(crate) fn conflict(&self, ino: Ino, wanted: &Lock) -> Option<Lock> {
        let held = self.held.get(&ino)?;
        held.iter().find(|lock| lock.conflicts(wanted)).copied()
    }

    /// Gives up what a holder has of a range. Whether there was anything.
    pub(crate) fn release(&mut self, ino: Ino, holder: Holder, start: u64, end: u64) -> Result<bool, Errno> {
        let range = Lock {
            holder,
            exclusive: false,
            start,
            end,
        };
        let Some(held) = self.held.get_mut(&ino) else {
            return Ok(false);
        };
        let is_met = |lock: &Lock| lock.holder == holder && lock.overlaps(&range);
        let mut left = Vec::new();
        for lock in held.iter().filter(|lock| is_met(lock)) {
            if let Some(end) = start.checked_sub(1).filter(|end| lock.start <= *end) {
                left.push(Lock { end, ..*lock });
            }
            if end < lock.end {
                let start = end.saturating_add(1);
                left.push(Lock { start, ..*lock });
            }
        }
        let before = held.len();
        let met = held.iter().filter(|lock| is_met(lock)).count();
        // One lock may become two.
        if self.count.saturating_add(left.len()).saturating_sub(met) > MAX_LOCKS {
            return Err(Errno::ENOLCK);
        }
        held.retain(|lock| !is_met(lock));
        held.extend(left);
        held.sort_by_key(|lock| lock.start);
        self.count = self.count.saturating_sub(before).saturating_add(held.len());
        if held.is_empty() {
            self.held.remove(&ino);
        }
        Ok(met > 0)
    }

    /// Takes a lock that nothing is in the way of, over what its holder had there. Whether that was something.
    pub(crate) fn take(&mut self, ino: Ino, mut lock: Lock) -> Result<bool, Errno> {
        if self.count >= MAX_LOCKS {
            return Err(Errno::ENOLCK);
        }
        let had = self.release(ino, lock.holder, lock.start, lock.end)?;
        let held = self.held.entry(ino).or_default();
        // Neighbours of one kind are one lock.
        held.retain(|other| {
            let joins = other.holder == lock.holder
                && other.exclusive == lock.exclusive
                && other.start <= lock.end.saturating_add(1)
                && lock.start <= other.end.saturating_add(1);
            if joins {
                lock.start = lock.start.min(other.start);
                lock.end = lock.end.max(other.end);
                self.count = self.count.saturating_sub(1);
            }
            !joins
        });
        held.push(lock);
        held.sort_by_key(|lock| lock.start);
        self.count += 1;
        Ok(had)
    }

    /// Whether a holder has anything of a file.
    pub(crate) fn has(&self, ino: Ino, holder: Holder) -> bool {
        let held = self.held.get(&ino);
        held.is_some_and(|held| held.iter().any(|lock| lock.holder == holder))
    }

    /// Gives up all that a holder has of a file. Whether there was anything.
    pub(crate) fn drop_all(&mut self, ino: Ino, holder: Holder) -> bool {
        // Nothing becomes two.
        self.has(ino, holder) && self.release(ino, holder, 0, LAST).unwrap_or(false)
    }

    /// A task waits for another process. `Err`: which waits for it, perhaps through others. `still_waits` says of a task
    /// whether it does.
    pub(crate) fn wait(
        &mut self,
        task: u32,
        own: u32,
        other: u32,
        still_waits: impl Fn(u32) -> bool,
    ) -> Result<(), Errno> {
        self.waiting.retain(|task, _| still_waits(*task));
        let mut at = other;
        for _ in 0..MAX_CHAIN {
            if at == own {
                return Err(Errno::EDEADLK);
            }
            match self.waiting.values().find(|(waits, _)| *waits == at) {
                Some((_, next)) => at = *next,
                None => break,
            }
        }
        self.waiting.insert(task, (own, other));
        Ok(())
    }

    /// A task waits no more.
    pub(crate) fn waits_no_more(&mut self, task: u32) {
        self.waiting.remove(&task);
    }
}
