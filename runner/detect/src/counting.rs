//! The state of a `count`: how many events, or different values, within a window of virtual time. Bounded.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use hotcell_schema::event::Event;
use hotcell_schema::finding::Evidence;

use crate::condition::Count;
use crate::describe::{self, MAX_EVIDENCE};
use crate::evaluate::{Moment, group};
use crate::pattern::first_text;

/// Most groups (processes, tasks) that are counted at a time; the one that was quiet for longest is forgotten.
const MAX_GROUPS: usize = 256;
/// Most events or values remembered over all groups.
const MAX_ENTRIES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Counter {
    groups: BTreeMap<u64, Group>,
    entries: usize,
}

#[derive(Debug, Default)]
struct Group {
    /// Number of the last event.
    touched: u64,
    /// What is in the window: by time and number, a mark of the value (or 0).
    window: BTreeMap<(u64, u64), u128>,
    /// Where each value stands in the window.
    values: BTreeMap<u128, (u64, u64)>,
    /// The last few, in words.
    recent: VecDeque<(u64, Evidence)>,
}

/// A value in 128 bits: its text need not be kept.
fn mark(text: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

impl Counter {
    /// Take an event that fits; the evidence, when that makes enough.
    pub(crate) fn take(
        &mut self,
        count: &Count,
        place: usize,
        event: &Event,
        now: Moment,
    ) -> Option<Vec<Evidence>> {
        let value = match &count.distinct {
            None => None,
            Some(fields) => Some(mark(&first_text(event, fields.get(place)?)?)),
        };
        let key = group(count.by, event);
        let group = self.groups.entry(key).or_default();
        group.touched = now.number;
        let before = group.window.len();
        let at = (now.time, now.number);
        let known = value.and_then(|value| group.values.insert(value, at));
        if let Some(old) = known {
            group.window.remove(&old);
        } else {
            let evidence = Evidence {
                event: Some(event.seq),
                offset: None,
                text: describe::event(event),
            };
            group.recent.push_back((now.time, evidence));
            if group.recent.len() > MAX_EVIDENCE {
                group.recent.pop_front();
            }
        }
        group.window.insert(at, value.unwrap_or(0));
        let oldest = count.within.map_or(0, |within| now.time.saturating_sub(within));
        while let Some(first) = group.window.first_entry().filter(|first| first.key().0 < oldest) {
            let value = first.remove();
            group.values.remove(&value);
        }
        let enough = group.window.len() >= count.at_least;
        if enough {
            return Some(group.proof(count, oldest));
        }
        self.entries = (self.entries + group.window.len()).saturating_sub(before);
        self.forget(key);
        None
    }

    /// Keep within bounds.
    fn forget(&mut self, current: u64) {
        while self.groups.len() > MAX_GROUPS || self.entries > MAX_ENTRIES {
            let quiet = self
                .groups
                .iter()
                .filter(|(key, _)| **key != current)
                .min_by_key(|(_, group)| group.touched)
                .map(|(key, _)| *key);
            let Some(group) = quiet.and_then(|key| self.groups.remove(&key)) else {
                return;
            };
            self.entries = self.entries.saturating_sub(group.window.len());
        }
    }
}

impl Group {
    fn proof(&self, count: &Count, oldest: u64) -> Vec<Evidence> {
        let what = if count.distinct.is_some() {
            "different ones"
        } else {
            "events"
        };
        let within = count.within.map_or(String::new(), |within| {
            format!(" within {} ms of virtual time", within / 1_000_000)
        });
        let shown: Vec<Evidence> = self
            .recent
            .iter()
            .filter(|(time, _)| *time >= oldest)
            .map(|(_, evidence)| evidence.clone())
            .collect();
        let summary = Evidence {
            event: None,
            offset: None,
            text: format!(
                "{} {what}{within}; the last {} are shown",
                count.at_least,
                shown.len()
            ),
        };
        std::iter::once(summary).chain(shown).collect()
    }
}
