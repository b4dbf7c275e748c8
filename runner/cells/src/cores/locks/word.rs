//! The slot of a core, and the only ways to change and to read it: the protocol of [`super`].
//!
//! Over any atomic type, so that the same code runs under a model checker.

#[cfg(test)]
mod model_tests;

use std::sync::atomic::{AtomicU64, Ordering};

use super::{CoreIndex, Holder};

/// The pid's half of a word whose core is claimed. No process has this pid.
const CLAIMED: u32 = u32::MAX;

/// What the protocol needs of an atomic.
pub(super) trait Atomic {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, not: Ordering) -> Result<u64, u64>;
}

impl Atomic for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, not: Ordering) -> Result<u64, u64> {
        self.compare_exchange(current, new, ok, not)
    }
}

/// One core: a cache line of its own, so that cores do not slow each other down.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot<A> {
    word: A,
    started: A,
}

/// A word, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    generation: u32,
    pid: u32,
}

impl Word {
    fn of(raw: u64) -> Self {
        Self {
            generation: (raw >> 32) as u32,
            pid: raw as u32,
        }
    }

    fn raw(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.pid)
    }

    fn next(self, pid: u32) -> Self {
        Self {
            generation: self.generation.wrapping_add(1),
            pid,
        }
    }
}

/// One grant of one core: whose, and which of all that this core ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) holder: Holder,
    generation: u32,
}

impl<A: Atomic> Slot<A> {
    /// Claims a free core for the caller alone. `None` when it is claimed or held.
    fn claim(&self) -> Option<Claim<'_, A>> {
        let mut word = Word::of(self.word.load(Ordering::Relaxed));
        loop {
            if word.pid != 0 {
                return None;
            }
            let claimed = word.next(CLAIMED);
            // Acquire: what the holder before did on the core came before.
            match self
                .word
                .compare_exchange(word.raw(), claimed.raw(), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => {
                    return Some(Claim {
                        slot: self,
                        word: claimed,
                    });
                }
                // Somebody was faster: claimed then, or free once more and worth another try.
                Err(now) => word = Word::of(now),
            }
        }
    }

    /// Ends this tenure. `false`, and nothing changed, when it has ended before.
    pub(super) fn release(&self, tenure: Tenure) -> bool {
        let held = Word {
            generation: tenure.generation,
            pid: tenure.holder.pid(),
        };
        self.word
            .compare_exchange(
                held.raw(),
                held.next(0).raw(),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Whose the core is. `None` when it was free at a moment of the call.
    pub(super) fn tenure(&self) -> Option<Tenure> {
        let word = Word::of(self.word.load(Ordering::Acquire));
        let started = self.started.load(Ordering::Acquire);
        let again = Word::of(self.word.load(Ordering::Relaxed));
        if word != again {
            return None;
        }
        // Neither 0 nor `CLAIMED` is the pid of a holder.
        Some(Tenure {
            holder: Holder::new(word.pid, started)?,
            generation: word.generation,
        })
    }
}

/// A core that is the caller's to publish. Dropped, it is free again.
struct Claim<'a, A: Atomic> {
    slot: &'a Slot<A>,
    word: Word,
}

impl<A: Atomic> Claim<'_, A> {
    fn publish(self, holder: Holder) -> Tenure {
        let claim = std::mem::ManuallyDrop::new(self);
        // Release: whoever reads this start time also sees the claim that came before it.
        claim.slot.started.store(holder.started(), Ordering::Release);
        let held = Word {
            pid: holder.pid(),
            ..claim.word
        };
        claim.slot.word.store(held.raw(), Ordering::Release);
        Tenure {
            holder,
            generation: held.generation,
        }
    }
}

impl<A: Atomic> Drop for Claim<'_, A> {
    fn drop(&mut self) {
        self.slot.word.store(self.word.next(0).raw(), Ordering::Release);
    }
}

/// Takes all of `cores`, which ascend, or none. `Err` holds the first that is not free, or is not in `slots`.
pub(super) fn acquire<A: Atomic>(
    slots: &[Slot<A>],
    cores: &[CoreIndex],
    holder: Holder,
) -> Result<Vec<(CoreIndex, Tenure)>, CoreIndex> {
    let mut claims = Vec::with_capacity(cores.len());
    for &core in cores {
        let claim = slots.get(core.place()).and_then(Slot::claim).ok_or(core)?;
        claims.push((core, claim));
    }
    // Nothing fails from here on.
    Ok(claims
        .into_iter()
        .map(|(core, claim)| (core, claim.publish(holder)))
        .collect())
}
