//! Two runs side by side.

use std::collections::{HashMap, HashSet};

use hotcell_schema::diff::{Change, FORMAT, InstanceDiff, RunDiff, VERSION};
use hotcell_schema::golden::Facts;
use hotcell_schema::report::{InstanceReport, Report};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::contents::Contents;
use crate::facts::{self, Known};
use crate::structure;

/// One of the two runs.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Its report.
    pub report: &'a Report,
    /// Where its outputs are read.
    pub contents: &'a dyn Contents,
}

/// What differs from `old` to `new`, of the instances that are wanted.
pub fn between(old: Side<'_>, new: Side<'_>, wanted: &dyn Fn(&Report, &InstanceReport) -> bool) -> RunDiff {
    let before: HashMap<&str, &InstanceReport> = instances(&old, wanted).collect();
    let after: HashSet<&str> = instances(&new, wanted).map(|(name, _)| name).collect();
    let mut found = Vec::new();
    let mut push = |report: &Report, instance: &InstanceReport, changes: Vec<Change>| {
        if !changes.is_empty() {
            found.push(InstanceDiff {
                name: instance.name.clone(),
                short: report.short_name(instance),
                changes,
            });
        }
    };
    // A run of a part of its plan says nothing of the rest.
    let whole_of = |side: &Side<'_>| side.report.selection.is_none();
    let mut compared = 0;
    for (name, instance) in instances(&new, wanted) {
        let changes = match before.get(name) {
            Some(was) => between_instances((was, old.contents), (instance, new.contents)),
            None if whole_of(&old) => vec![Change::added("instance", summary(instance))],
            None => continue,
        };
        compared += 1;
        push(new.report, instance, changes);
    }
    let gone = instances(&old, wanted).filter(|(name, _)| whole_of(&new) && !after.contains(name));
    for (_, instance) in gone {
        compared += 1;
        push(
            old.report,
            instance,
            vec![Change::removed("instance", summary(instance))],
        );
    }
    RunDiff {
        format: FORMAT.into(),
        version: VERSION,
        run: structure::compare("run", &whole(old.report), &whole(new.report))
            .into_iter()
            .map(|change| Change {
                path: change
                    .path
                    .strip_prefix("run.")
                    .map(str::to_owned)
                    .unwrap_or(change.path),
                ..change
            })
            .collect(),
        instances: found,
        compared,
    }
}

fn instances<'a>(
    side: &Side<'a>,
    wanted: &'a dyn Fn(&Report, &InstanceReport) -> bool,
) -> impl Iterator<Item = (&'a str, &'a InstanceReport)> {
    let report = side.report;
    report
        .instances
        .iter()
        .filter(move |instance| wanted(report, instance))
        .map(|instance| (instance.name.as_str(), instance))
}

/// What is said of a run as a whole.
fn whole(report: &Report) -> Json {
    let samples: serde_json::Map<String, Json> = report
        .samples
        .iter()
        .map(|(id, sample)| {
            let name = format!("{}-{}", sample.name, id.get(..8).unwrap_or(id));
            let json = json!({
                "set": sample.sets_in_words(), "arch": sample.arch, "family": sample.family, "variant": sample.variant,
                "label": sample.label, "digest": sample.digest,
            });
            (name, json)
        })
        .collect();
    json!({
        "name": report.name,
        "manifest": report.manifest,
        "seed": report.seed,
        "hotcell": report.hotcell,
        "variants": report.variants,
        "engines": report.engines,
        "samples": samples,
    })
}

fn word(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// How an instance ended, in a few words.
fn summary(instance: &InstanceReport) -> String {
    let status = word(&instance.status);
    let status = status.as_str().unwrap_or_default();
    match (&instance.outcome, &instance.reason) {
        (Some(outcome), _) => format!("{status}, {outcome}"),
        (None, Some(reason)) => format!("{status}: {reason}"),
        (None, None) => status.to_owned(),
    }
}

fn between_instances(
    (old, before): (&InstanceReport, &dyn Contents),
    (new, after): (&InstanceReport, &dyn Contents),
) -> Vec<Change> {
    if old == new {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let mut value = |path: &str, old: Json, new: Json| {
        if old != new {
            changes.push(match (old, new) {
                (Json::Null, new) => Change::added(path, new),
                (old, Json::Null) => Change::removed(path, old),
                (old, new) => Change::changed(path, old, new),
            });
        }
    };
    value("uses", word(&old.uses), word(&new.uses));
    value("arch", word(&old.arch), word(&new.arch));
    value("status", word(&old.status), word(&new.status));
    value("reason", word(&old.reason), word(&new.reason));
    let of = |instance| facts::of(instance, &facts::ALL).unwrap_or_default();
    let (was, is): (Facts, Facts) = (of(old), of(new));
    let known = |facts, instance, contents| Known {
        facts,
        instance: Some(instance),
        contents,
    };
    changes.extend(facts::changes(known(&was, old, before), known(&is, new, after)));
    changes
}
