//! How long cells wait for their turns, and how long they can have to.

use super::Nanos;
use super::cell::TOP;

/// How long cells that share waited, and what the rules promised them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waits {
    /// The longest time that one was ready and did not run, in nanoseconds; of waits that have ended.
    pub(super) longest: Nanos,
    /// Most cells there were at once.
    cells: usize,
    /// The longest slice of any.
    slice: Nanos,
}

impl Waits {
    /// The greatest bound there was: see [`Schedule::longest_wait`](super::Schedule::longest_wait).
    pub(super) fn promised(&self, ageing: Nanos, change: Nanos) -> Nanos {
        bound(self.cells, self.slice, ageing, change)
    }

    pub(super) fn ended(&mut self, waited: Nanos) {
        self.longest = self.longest.max(waited);
    }

    pub(super) fn met(&mut self, cells: usize, slice: Nanos) {
        self.cells = self.cells.max(cells);
        self.slice = self.slice.max(slice);
    }
}

/// Until a cell has risen to the top, and then for everyone before it once, who may have to wait until cores are free and then
/// has a turn.
pub(super) fn bound(cells: usize, slice: Nanos, ageing: Nanos, change: Nanos) -> Nanos {
    let everyone = u64::try_from(cells).unwrap_or(u64::MAX);
    let turn = slice.saturating_add(change);
    let risen = TOP.saturating_mul(ageing);
    risen.saturating_add(everyone.saturating_mul(2).saturating_mul(turn))
}
