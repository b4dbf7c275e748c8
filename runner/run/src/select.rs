//! What of a plan runs: what is wanted, with everything it needs.

use hotcell_plan::{Instance, Plan};
use hotcell_schema::report;

use crate::schedule::{Dependency, dependencies};

/// A part of a plan that can run by itself: with an instance, everything it waits for is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    chosen: Vec<bool>,
    /// What was asked for, for the report.
    pub asked: report::Selection,
}

impl Selection {
    /// The instances that are wanted, and everything they need. A point is chosen with all that it becomes.
    pub fn new(plan: &Plan, wanted: &dyn Fn(usize, &Instance) -> bool, mut asked: report::Selection) -> Self {
        let mut chosen: Vec<bool> = plan
            .instances
            .iter()
            .enumerate()
            .map(|(index, instance)| wanted(index, instance))
            .collect();
        needed(plan, &mut chosen);
        asked.left_out = chosen.iter().filter(|chosen| !**chosen).count() as u64;
        Self { chosen, asked }
    }

    /// Whether an instance is in it. What a point becomes counts on after the plan's instances and always is.
    pub fn has(&self, index: usize) -> bool {
        self.chosen.get(index).copied().unwrap_or(true)
    }

    /// Indexes of the plan's instances that are in it, as pairs of a first one and the one after the last.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let chosen = self.chosen.iter().zip(0u64..).filter(|(chosen, _)| **chosen);
        for (_, index) in chosen {
            match ranges.last_mut() {
                Some((_, end)) if *end == index => *end += 1,
                _ => ranges.push((index, index + 1)),
            }
        }
        ranges
    }

    /// How many of the plan's instances are in it.
    pub fn len(&self) -> usize {
        self.chosen.iter().filter(|chosen| **chosen).count()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Adds what the chosen ones need. Every instance stands after what it waits for: once from the end is enough.
fn needed(plan: &Plan, chosen: &mut [bool]) {
    let mut whole = std::collections::HashSet::new();
    for index in (0..plan.instances.len()).rev() {
        let Some(instance) = plan
            .instances
            .get(index)
            .filter(|_| chosen.get(index) == Some(&true))
        else {
            continue;
        };
        for dependency in dependencies(instance) {
            match dependency {
                Dependency::Instance(before) => {
                    if let Some(before) = chosen.get_mut(before) {
                        *before = true;
                    }
                }
                Dependency::Stage(stage) => {
                    let range = plan.stages.get(stage).map(|stage| stage.instances());
                    if let Some(all) = range
                        .filter(|_| whole.insert(stage))
                        .and_then(|range| chosen.get_mut(range))
                    {
                        all.fill(true);
                    }
                }
            }
        }
    }
}

/// Instances that did not end well, and those that wait for one of them: what is to be run again. `ended` says how an
/// instance ended; `None` where it never did.
pub fn not_well(plan: &Plan, ended: &dyn Fn(usize, &Instance) -> Ended) -> Vec<bool> {
    let mut again = vec![false; plan.instances.len()];
    for (index, instance) in plan.instances.iter().enumerate() {
        let of = |index: usize| again.get(index).copied().unwrap_or(false);
        let is = match ended(index, instance) {
            Ended::Well => false,
            Ended::Badly => true,
            Ended::Skipped => dependencies(instance)
                .into_iter()
                .any(|dependency| match dependency {
                    Dependency::Instance(before) => of(before),
                    Dependency::Stage(stage) => {
                        let range = plan.stages.get(stage).map(|stage| stage.instances());
                        range.unwrap_or_default().any(of)
                    }
                }),
        };
        if let Some(again) = again.get_mut(index) {
            *again = is;
        }
    }
    again
}

/// How an instance ended in an earlier run, as far as running it again is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is to be done.
    Well,
    /// It is to be run again.
    Badly,
    /// It was not wanted, or what it waits for did not end well.
    Skipped,
}
