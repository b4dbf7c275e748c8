//! Two runs side by side.

use hotcell_schema::report::{InstanceReport, Report};
use indexmap::IndexMap;
use serde::Serialize;

use crate::change::{self, Change};
use crate::facts::{self, Facts};

/// What differs between two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunDiff {
    /// Always `hotcell-diff`.
    pub format: &'static str,
    /// Version of the format: 1.
    pub version: u32,
    /// Differences of the runs as wholes: name, manifest, seed, engines, samples.
    pub run: Vec<Change>,
    /// Differences by instance.
    pub instances: IndexMap<String, Vec<Change>>,
}

impl RunDiff {
    /// Whether both runs gave the same.
    pub fn is_empty(&self) -> bool {
        self.run.is_empty() && self.instances.is_empty()
    }

    /// What differs from `old` to `new`.
    pub fn between(old: &Report, new: &Report) -> Self {
        let mut run = Vec::new();
        change::value(&mut run, "name", Some(&old.name), Some(&new.name), String::clone);
        change::value(
            &mut run,
            "manifest",
            Some(&old.manifest),
            Some(&new.manifest),
            ToString::to_string,
        );
        change::value(
            &mut run,
            "seed",
            Some(&old.seed),
            Some(&new.seed),
            ToString::to_string,
        );
        change::value(
            &mut run,
            "hotcell",
            Some(&old.hotcell),
            Some(&new.hotcell),
            String::clone,
        );
        for engine in union(&old.engines, &new.engines) {
            let what = format!("engines.{engine}");
            change::value(
                &mut run,
                &what,
                old.engines.get(engine),
                new.engines.get(engine),
                String::clone,
            );
        }
        let samples = |report: &Report| -> Vec<String> {
            report
                .samples
                .values()
                .map(|sample| format!("{} ({})", sample.name, sample.digest.short()))
                .collect()
        };
        change::set(&mut run, "samples", &samples(old), &samples(new));

        let by_name = |report: &Report| -> IndexMap<String, InstanceReport> {
            report
                .instances
                .iter()
                .map(|instance| (instance.name.clone(), instance.clone()))
                .collect()
        };
        let (before, after) = (by_name(old), by_name(new));
        let mut instances = IndexMap::new();
        for name in union(&before, &after) {
            let changes = between_instances(before.get(name), after.get(name));
            if !changes.is_empty() {
                instances.insert(name.clone(), changes);
            }
        }
        Self {
            format: "hotcell-diff",
            version: 1,
            run,
            instances,
        }
    }
}

fn union<'a, T, U>(
    old: &'a IndexMap<String, T>,
    new: &'a IndexMap<String, U>,
) -> impl Iterator<Item = &'a String> {
    old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)))
}

fn between_instances(old: Option<&InstanceReport>, new: Option<&InstanceReport>) -> Vec<Change> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (Some(_), None) => return vec![Change::removed("instance", "is not planned any more")],
        (None, Some(_)) => return vec![Change::added("instance", "is new")],
        (None, None) => return Vec::new(),
    };
    let mut changes = Vec::new();
    change::value(
        &mut changes,
        "status",
        Some(&old.status),
        Some(&new.status),
        |status| {
            serde_json::to_string(status)
                .unwrap_or_default()
                .trim_matches('"')
                .to_owned()
        },
    );
    let of = |instance| Facts::of(instance, &facts::ALL).unwrap_or_default();
    changes.extend(of(new).changes_since(&of(old)));
    changes
}
