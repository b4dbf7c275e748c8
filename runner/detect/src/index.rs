//! Which patterns an event can match at all, by its kind and operation (for system calls: by name).

use std::collections::HashMap;

use hotcell_schema::event::What;

use crate::condition::Leaf;
use crate::fields::{self, FIELDS, OPS_PER_KIND, SLOTS};
use crate::pattern::Pattern;
use crate::ruleset::Compiled;

/// Where a pattern stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Place of the rule in the set.
    pub(crate) rule: usize,
    /// Place of the leaf among all leaves of the set.
    pub(crate) state: usize,
    /// Place of the leaf in the rule.
    pub(crate) leaf: usize,
    /// Step of the sequence; later steps come first, so that one event never makes two steps.
    pub(crate) step: std::cmp::Reverse<usize>,
    /// Place among the alternatives.
    pub(crate) place: usize,
}

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Vec<Vec<Entry>>,
    /// For system calls that some pattern names; those patterns, and all that name none.
    syscalls: HashMap<String, Vec<Entry>>,
    /// Number of leaves in the set.
    pub(crate) leaves: usize,
    /// Whether some sequence asks who descends from whom.
    pub(crate) lineage: bool,
}

impl Index {
    pub(crate) fn new(rules: &[Compiled]) -> Self {
        let mut index = Self {
            slots: vec![Vec::new(); SLOTS],
            syscalls: HashMap::new(),
            leaves: 0,
            lineage: false,
        };
        let mut named: Vec<(&str, Entry)> = Vec::new();
        for (rule, compiled) in rules.iter().enumerate() {
            for (leaf, condition) in compiled.leaves.iter().enumerate() {
                if let Leaf::Sequence(sequence) = condition {
                    index.lineage |= sequence.by == crate::condition::By::Lineage;
                }
                for (step, place, pattern) in condition.patterns() {
                    let entry = Entry {
                        rule,
                        state: index.leaves,
                        leaf,
                        step: std::cmp::Reverse(step),
                        place,
                    };
                    match &pattern.reach.syscalls {
                        Some(names) => named.extend(names.iter().map(|name| (name.as_str(), entry))),
                        None => index.add(pattern, entry),
                    }
                }
                index.leaves += 1;
            }
        }
        let unnamed = index.slots.first().cloned().unwrap_or_default();
        for (name, entry) in named {
            let entries = index
                .syscalls
                .entry(name.to_owned())
                .or_insert_with(|| unnamed.clone());
            entries.push(entry);
        }
        for entries in index.slots.iter_mut().chain(index.syscalls.values_mut()) {
            entries.sort_unstable();
            entries.dedup();
        }
        index
    }

    fn add(&mut self, pattern: &Pattern, entry: Entry) {
        let first = pattern.reach.kind * OPS_PER_KIND;
        let count = FIELDS
            .get(pattern.reach.kind)
            .map_or(0, |kind| kind.ops.len())
            .max(1);
        for op in 0..count {
            let wanted = pattern.reach.ops.as_ref().is_none_or(|ops| ops.contains(&op));
            if let Some(entries) = self.slots.get_mut(first + op).filter(|_| wanted) {
                entries.push(entry);
            }
        }
    }

    /// Patterns that can match such an event.
    pub(crate) fn of(&self, what: &What) -> &[Entry] {
        if let What::Syscall(call) = what
            && let Some(entries) = self.syscalls.get(&call.name)
        {
            return entries;
        }
        fields::slot(what)
            .and_then(|slot| self.slots.get(slot))
            .map_or(&[], Vec::as_slice)
    }
}
