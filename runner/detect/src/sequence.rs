//! The state of a `sequence`: matches that wait for their next step. Bounded.

use std::collections::BTreeMap;

use hotcell_schema::event::Event;

use crate::condition::{By, Sequence};
use crate::describe;
use crate::evaluate::{Family, Moment, group};
use crate::fields;
use crate::pattern::{Pattern, as_text, first_text};

/// Most matches that wait at a time; past it, the older half is forgotten.
const MAX_WAITING: usize = 2048;
/// Most matches that wait for the same step with the same value; past it, the oldest is forgotten.
const MAX_ALIKE: usize = 256;
/// Longest value that is kept, in bytes; an event with a longer one does not match.
const MAX_KEPT: usize = 4096;
/// Most values of one field that are looked up.
const MAX_LOOKUPS: usize = 64;

/// Evidence for one complete sequence.
type Proof = Vec<(u64, String)>;

/// Where a match waits: for which step, in which group, with which value of the step's join variable.
type Spot = (usize, u64, String);

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    spots: BTreeMap<Spot, Vec<Partial>>,
    count: usize,
}

/// A match of the first steps.
#[derive(Debug, Clone)]
struct Partial {
    /// Values of the variables.
    kept: Vec<Option<String>>,
    /// Process of the last step.
    pid: u32,
    /// Virtual time of the first step.
    start: u64,
    /// Number of the event that made it.
    born: u64,
    proof: Proof,
}

impl Waiting {
    /// Take an event for one step and one of its alternatives. Sequences that it completes come back.
    pub(crate) fn take(
        &mut self,
        sequence: &Sequence,
        (step, place): (usize, usize),
        event: &Event,
        now: Moment,
        family: &Family,
    ) -> Vec<Proof> {
        let Some(stage) = sequence.steps.get(step) else {
            return Vec::new();
        };
        let Some(pattern) = stage.patterns.get(place) else {
            return Vec::new();
        };
        if (step > 0 && self.count == 0) || !pattern.fits(event) {
            return Vec::new();
        }
        let Some(captured) = capture(pattern, event) else {
            return Vec::new();
        };
        let group = group(sequence.by, event);
        let mut advanced = Vec::new();
        if step == 0 {
            advanced.push(Partial {
                kept: vec![None; sequence.variables],
                pid: event.task.pid,
                start: now.time,
                born: now.number,
                proof: Vec::new(),
            });
        } else {
            let last = step + 1 == sequence.steps.len();
            for value in lookups(pattern, stage.join, event) {
                let Some(spot) = self.spots.get_mut(&(step, group, value)) else {
                    continue;
                };
                let before = spot.len();
                if let Some(within) = sequence.within {
                    spot.retain(|partial| now.time.saturating_sub(partial.start) <= within);
                }
                let fits = |partial: &Partial| {
                    let related = sequence.by != By::Lineage || family.descends(event.task.pid, partial.pid);
                    // A match that this very event made is not old enough.
                    related && partial.born < now.number && same(pattern, partial, event)
                };
                if last {
                    advanced.extend(spot.extract_if(.., |partial| fits(partial)));
                } else {
                    advanced.extend(spot.iter().filter(|partial| fits(partial)).cloned());
                }
                self.count = (self.count + spot.len()).saturating_sub(before);
            }
        }
        if advanced.is_empty() {
            return Vec::new();
        }
        let text = describe::event(event);
        let mut complete = Vec::new();
        for mut partial in advanced {
            for (variable, value) in &captured {
                if let Some(place) = partial.kept.get_mut(*variable) {
                    *place = Some(value.clone());
                }
            }
            partial.pid = event.task.pid;
            partial.born = now.number;
            partial.proof.push((event.seq, text.clone()));
            match sequence.steps.get(step + 1) {
                None => complete.push(partial.proof),
                Some(next) => {
                    let value = next
                        .join
                        .and_then(|variable| partial.kept.get(variable).cloned().flatten());
                    self.wait((step + 1, group, value.unwrap_or_default()), partial);
                }
            }
        }
        complete
    }

    fn wait(&mut self, spot: Spot, partial: Partial) {
        let alike = self.spots.entry(spot).or_default();
        let same = alike
            .iter_mut()
            .find(|known| known.kept == partial.kept && known.pid == partial.pid);
        match same {
            // Whatever can follow the older one can follow the newer one, and for longer.
            Some(known) => {
                if partial.start >= known.start {
                    *known = partial;
                }
            }
            None => {
                if alike.len() >= MAX_ALIKE {
                    alike.remove(0);
                } else {
                    self.count += 1;
                }
                alike.push(partial);
            }
        }
        if self.count > MAX_WAITING {
            self.forget_older_half();
        }
    }

    fn forget_older_half(&mut self) {
        let mut births: Vec<u64> = self
            .spots
            .values()
            .flatten()
            .map(|partial| partial.born)
            .collect();
        births.sort_unstable();
        let middle = births.get(births.len() / 2).copied().unwrap_or(0);
        for alike in self.spots.values_mut() {
            alike.retain(|partial| partial.born >= middle);
        }
        self.spots.retain(|_, alike| !alike.is_empty());
        self.count = self.spots.values().map(Vec::len).sum();
    }
}

/// The values that the pattern captures; nothing, when one is absent or too long.
fn capture(pattern: &Pattern, event: &Event) -> Option<Vec<(usize, String)>> {
    let mut captured = Vec::new();
    for (variable, field) in &pattern.captures {
        let value = first_text(event, field).filter(|value| value.len() <= MAX_KEPT)?;
        captured.push((*variable, value));
    }
    Some(captured)
}

/// Whether the event has all the values that the earlier steps kept.
fn same(pattern: &Pattern, partial: &Partial, event: &Event) -> bool {
    pattern.same.iter().all(|(variable, field)| {
        let kept = partial.kept.get(*variable).and_then(Option::as_deref);
        kept.is_some_and(|kept| Pattern::has(event, field, kept))
    })
}

/// The values under which matches wait that this event can advance.
fn lookups(pattern: &Pattern, join: Option<usize>, event: &Event) -> Vec<String> {
    let Some(join) = join else {
        return vec![String::new()];
    };
    let mut values: Vec<String> = Vec::new();
    for (variable, field) in &pattern.same {
        if *variable != join {
            continue;
        }
        fields::any_value(event, field, &mut |value| {
            values.push(as_text(value));
            values.len() >= MAX_LOOKUPS
        });
        break;
    }
    values.sort_unstable();
    values.dedup();
    values
}
