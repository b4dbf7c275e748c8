//! Who had which core when, and how long others waited for it.

use std::collections::{BTreeMap, VecDeque};

use hotcell_schema::cores::CoreSet;
use serde::{Deserialize, Serialize};

use super::schedule::{CellId, Nanos};

/// Turns that are kept; of more, the oldest go.
pub const TURNS_KEPT: usize = 100_000;

/// One turn of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The cell.
    pub cell: CellId,
    /// The cores that it had.
    pub cores: CoreSet,
    /// When it began, in nanoseconds since the arbiter did.
    pub from: Nanos,
    /// When it ended.
    pub until: Nanos,
}

/// The turns that have ended. Sums count all of them, whatever was not kept.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The latest turns, in the order in which they ended.
    pub turns: VecDeque<Turn>,
    /// How many turns were not kept.
    pub forgotten: u64,
    /// How often a core went from one cell to another.
    pub switches: u64,
    /// How long each core was had, in nanoseconds.
    pub busy: BTreeMap<u32, Nanos>,
    /// The longest time from a decision until the cell ran, or stood still.
    pub slowest_change: Nanos,
    /// The longest time that a ready cell that shares waited.
    pub longest_wait: Nanos,
    /// The longest time that one could have had to wait, by the rules.
    pub promised_wait: Nanos,
    /// Who had each core last.
    last: BTreeMap<u32, CellId>,
}

impl History {
    /// Takes in a turn that has ended.
    pub fn keep(&mut self, turn: Turn) {
        let took = turn.until.saturating_sub(turn.from);
        for core in turn.cores.iter() {
            let busy = self.busy.entry(core).or_default();
            *busy = busy.saturating_add(took);
            let before = self.last.insert(core, turn.cell);
            let switched = before.is_some_and(|before| before != turn.cell);
            self.switches = self.switches.saturating_add(u64::from(switched));
        }
        if self.turns.len() >= TURNS_KEPT {
            self.turns.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.turns.push_back(turn);
    }

    /// How many turns there were.
    pub fn count(&self) -> u64 {
        let kept = u64::try_from(self.turns.len()).unwrap_or(u64::MAX);
        kept.saturating_add(self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_count_what_is_not_kept() {
        let mut history = History::default();
        let turns = TURNS_KEPT as u64 + 5;
        for index in 0..turns {
            history.keep(Turn {
                cell: CellId(index / 2 % 2),
                cores: "2-3".parse().unwrap(),
                from: index * 10,
                until: index * 10 + 7,
            });
        }
        assert_eq!((history.turns.len(), history.forgotten), (TURNS_KEPT, 5));
        assert_eq!(history.count(), turns);
        assert_eq!(history.busy, BTreeMap::from([(2, turns * 7), (3, turns * 7)]));
        // Each cell has two turns, then the other: of both cores.
        assert_eq!(history.switches, (turns - 1) / 2 * 2);
        assert_eq!(history.turns.front().map(|turn| turn.from), Some(50));
    }
}
