//! `hotcell explain --between OLD NEW`: which component of the cache keys changed from one run to another. It reads the
//! runs' folders alone, so that they can come from two machines; folders of older versions are helped out by the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use hotcell_schema::names;
use hotcell_schema::report::RunFacts;
use hotcell_store::Store;
use hotcell_store::keys::{self, Keys};
use hotcell_store::records::Components;
use serde::Serialize;
use serde_json::json;

use crate::args::{ExplainArgs, Global};
use crate::commands::diff::read_report;
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::settings::{self, Settings};
use crate::ui;

/// Lines shown; the rest is counted.
const SHOWN: usize = 200;

/// What became of one instance's key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Change {
    instance: String,
    /// Which run has a key of it: `both`, `old`, `new`.
    keys: &'static str,
    /// Components that differ: what they were and what they are.
    changed: BTreeMap<String, Sides>,
    /// Settings that differ, where the runs' plans say so: `run.1: "a" -> "b"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<String>,
    /// The name for people.
    short: String,
}

/// A component in the two runs; absent where a run has none of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Sides {
    old: Option<String>,
    new: Option<String>,
}

pub(crate) fn run(args: &ExplainArgs, global: &Global, old: &str, new: &str) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let folders = [places.run(Some(old))?, places.run(Some(new))?];
    let [old, new] = [0, 1].map(|side: usize| Keyed::read(&folders[side], &places.store));
    let (old, new) = (old?, new?);
    let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    let wanted = |name: &&&String| args.instance.as_ref().is_none_or(|start| name.starts_with(start));
    let chosen: Vec<&String> = names.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        let name = args.instance.as_deref().unwrap_or_default();
        return Err(Failure::usage(format!(
            "neither run has a key of an instance whose name begins with `{name}`"
        ))
        .help("without -i all instances are compared"));
    }
    let mut changes: Vec<Change> = chosen
        .iter()
        .map(|name| change(name, old.0.get(*name), new.0.get(*name)))
        .collect();
    tell_settings(&mut changes, &folders);
    shorten(&mut changes, &folders);
    if args.json {
        let differ: Vec<&Change> = changes.iter().filter(|change| change.differs()).collect();
        ui::out(&ui::json(&json!({
            "format": "hotcell-explain-between", "version": 1,
            "compared": changes.len(), "instances": differ
        }))?);
        return Ok(Exit::Ok);
    }
    print(&changes, args.instance.is_some());
    Ok(Exit::Ok)
}

/// The components of a run's keys by instance.
struct Keyed(BTreeMap<String, Components>);

impl Keyed {
    fn read(run: &Path, store: &Path) -> Result<Self, Failure> {
        let path = run.join(keys::FILE);
        match fs_err::read(&path) {
            Ok(json) => {
                let keys = Keys::parse(&json).ok_or_else(|| {
                    Failure::usage(format!("{} cannot be understood", path.display()))
                        .help("was it made by another version of hotcell?")
                })?;
                let all = keys.instances();
                Ok(Self(
                    all.filter_map(|name| Some((name.to_owned(), keys.of(name)?)))
                        .collect(),
                ))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::from_store(run, store),
            Err(error) => Err(error.into()),
        }
    }

    /// Older runs name their keys only; what these are made of the store may know.
    fn from_store(run: &Path, store: &Path) -> Result<Self, Failure> {
        let path = run.join("run.json");
        let facts: RunFacts = serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let store = Store::open_to_read(store).map_err(|error| super::super::store::unusable(&error))?;
        let mut all = BTreeMap::new();
        for (name, facts) in facts.instances {
            let record = facts.key.and_then(|key| store.record(&key).ok()?);
            if let Some(record) = record {
                all.insert(name, record.components);
            }
        }
        if all.is_empty() {
            return Err(Failure::usage(format!(
                "{} does not say what its keys are made of",
                run.display()
            ))
            .help(
                "it was made by an older version, or stopped before its end, and the store has nothing of it",
            ));
        }
        Ok(Self(all))
    }
}

impl Change {
    fn differs(&self) -> bool {
        self.keys != "both" || !self.changed.is_empty()
    }
}

/// Names the settings that differ, where any do.
fn tell_settings(changes: &mut [Change], folders: &[PathBuf; 2]) {
    if !changes.iter().any(|change| change.changed.contains_key("with")) {
        return;
    }
    let [old, new] = [0, 1].map(|side: usize| Settings::of(&folders[side]));
    for change in changes
        .iter_mut()
        .filter(|change| change.changed.contains_key("with"))
    {
        if let (Some(old), Some(new)) = (old.get(&change.instance), new.get(&change.instance)) {
            change.with = settings::differences(old, new);
        }
    }
}

/// Gives instances the names that they have elsewhere, as far as the runs still have their reports.
fn shorten(changes: &mut [Change], folders: &[PathBuf; 2]) {
    let reports = folders.iter().filter_map(|folder| read_report(folder).ok());
    let samples: HashMap<String, String> = reports
        .flat_map(|report| report.samples)
        .map(|(id, sample)| (id, sample.name))
        .collect();
    for change in changes {
        change.short = names::shorten(&change.instance, |id| samples.get(id).map(String::as_str));
    }
}

fn change(instance: &str, old: Option<&Components>, new: Option<&Components>) -> Change {
    let keys = match (old, new) {
        (Some(_), None) => "old",
        (None, Some(_)) => "new",
        _ => "both",
    };
    let mut changed = BTreeMap::new();
    if let (Some(old), Some(new)) = (old, new) {
        for name in old.keys().chain(new.keys()) {
            let sides = Sides {
                old: old.get(name).cloned(),
                new: new.get(name).cloned(),
            };
            if sides.old != sides.new {
                changed.insert(name.clone(), sides);
            }
        }
    }
    Change {
        instance: instance.to_owned(),
        keys,
        changed,
        with: Vec::new(),
        short: instance.to_owned(),
    }
}

fn print(changes: &[Change], in_full: bool) {
    let differ: Vec<&Change> = changes.iter().filter(|change| change.differs()).collect();
    for change in differ.iter().take(SHOWN) {
        let name = ui::styled(ui::BOLD, ui::plain(&change.short));
        match change.keys {
            "old" => ui::out(&format!("{name} has a key in the old run only")),
            "new" => ui::out(&format!("{name} has a key in the new run only")),
            _ => {
                let names: Vec<&str> = change.changed.keys().map(String::as_str).collect();
                ui::out(&format!("{name} {}", ui::plain(&names.join(", "))));
            }
        }
        for setting in &change.with {
            ui::out(&format!("  with.{}", ui::plain(setting)));
        }
        for (name, sides) in change.changed.iter().filter(|_| in_full) {
            ui::out(&side(name, sides));
        }
    }
    if differ.len() > SHOWN {
        ui::out(&format!("… and {} more; --json shows all", differ.len() - SHOWN));
    }
    // What is the same change everywhere is told once with its values: a new engine, another limit.
    let mut common: BTreeMap<(&String, &Sides), usize> = BTreeMap::new();
    for (name, sides) in differ.iter().flat_map(|change| &change.changed) {
        *common.entry((name, sides)).or_default() += 1;
    }
    if !in_full {
        for ((name, sides), count) in common.iter().filter(|(_, count)| **count > 1) {
            ui::out(&format!(
                "{} in {count} instances",
                side(name, sides).trim_start()
            ));
        }
    }
    ui::out(&format!("{} of {} keys differ", differ.len(), changes.len()));
}

fn side(name: &str, sides: &Sides) -> String {
    let text = |side: &Option<String>| match side {
        Some(value) => ui::plain(value),
        None => "(none)".to_owned(),
    };
    format!(
        "  {} {} -> {}",
        ui::styled(ui::DIM, format!("{:12}", ui::plain(name))),
        text(&sides.old),
        text(&sides.new)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_came_or_went_or_changed_is_named() {
        let components = |parts: &[(&str, &str)]| -> Components {
            parts
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let old = components(&[("engine", "1"), ("with", "a"), ("gone", "x")]);
        let new = components(&[("engine", "2"), ("with", "a"), ("came", "y")]);
        let found = change("run[a=1]", Some(&old), Some(&new));
        assert_eq!(
            found.changed.keys().collect::<Vec<_>>(),
            ["came", "engine", "gone"]
        );
        assert!(!change("run[a=1]", Some(&old), Some(&old)).differs());
        assert_eq!(change("run[a=1]", None, Some(&new)).keys, "new");
    }
}
