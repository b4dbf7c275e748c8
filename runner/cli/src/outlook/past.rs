//! Why an instance would run: what it was in earlier runs, and which part of its key is another now.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use hotcell_plan::Instance;
use hotcell_run::key::Components;
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::InstanceFacts;
use hotcell_store::Store;
use hotcell_store::keys::{self, Keys};

use crate::history::Earlier;
use crate::session::Planned;
use crate::settings::{self, Settings};

/// Earlier runs of an experiment, and what is left of their keys.
pub(crate) struct Past {
    earlier: Option<Earlier>,
    /// Folder of the runs.
    runs: PathBuf,
    store: Option<Store>,
    /// What the keys of a run were made of; absent: its folder does not say.
    keys: RefCell<HashMap<String, Option<Keys>>>,
    /// The settings of a run's instances.
    settings: RefCell<HashMap<String, Settings>>,
}

/// Why an instance would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    /// In a line.
    pub text: String,
    /// The components of its key that changed, where that is known.
    pub changed: Vec<String>,
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        let changed = Vec::new();
        Self { text, changed }
    }
}

impl Past {
    pub(crate) fn of(planned: &Planned) -> Self {
        let runs = planned.places.runs();
        let earlier = Earlier::of(&runs, planned.subject());
        let store = earlier
            .as_ref()
            .map(|_| Store::open_to_read(&planned.places.store));
        Self {
            earlier,
            runs,
            store: store.and_then(Result::ok),
            keys: RefCell::default(),
            settings: RefCell::default(),
        }
    }

    /// The latest run.
    pub(crate) fn latest(&self) -> Option<&str> {
        self.earlier.as_ref().map(Earlier::latest)
    }

    /// How an instance ended when it last did, and in which run.
    pub(crate) fn ending(&self, name: &str) -> Option<(&str, &InstanceFacts)> {
        self.earlier.as_ref()?.ending(name)
    }

    /// Why an instance would run whose key is now made of these components.
    pub(crate) fn why(&self, name: &str, key: &Digest, components: &Components) -> Why {
        let Some(latest) = self.latest() else {
            return "it never ran".to_owned().into();
        };
        let Some((run, before)) = self.ending(name) else {
            return format!("it was not in {latest}").into();
        };
        let ended_so = || format!("it {} in {run}", ended(before.status)).into();
        let Some(old) = before.key else {
            return ended_so();
        };
        if old == *key {
            return match before.status.has_outputs() {
                true => "its outputs are not in the store any more".to_owned().into(),
                false => ended_so(),
            };
        }
        let changed = self
            .components(run, name, &old)
            .map(|old| changed(&old, components))
            .unwrap_or_default();
        if changed.is_empty() {
            return format!(
                "something it reads changed since {run}; what, neither that run nor the store can tell"
            )
            .into();
        }
        let shown: Vec<String> = changed.iter().map(|name| format!("`{name}`")).collect();
        Why {
            text: format!("{} changed since {run}", shown.join(", ")),
            changed,
        }
    }

    /// Which settings of an instance are others than when it last ended.
    pub(crate) fn settings(&self, instance: &Instance) -> Vec<String> {
        let Some((run, _)) = self.ending(&instance.name) else {
            return Vec::new();
        };
        let mut known = self.settings.borrow_mut();
        let then = known
            .entry(run.to_owned())
            .or_insert_with(|| Settings::of(&self.runs.join(run)));
        let then = then.get(&instance.name);
        then.map(|then| settings::differences(then, &instance.with.json()))
            .unwrap_or_default()
    }

    /// What the key of an instance was made of in a run: its folder says so, or else the store still knows.
    fn components(&self, run: &str, name: &str, key: &Digest) -> Option<Components> {
        let mut keys = self.keys.borrow_mut();
        let noted = keys.entry(run.to_owned()).or_insert_with(|| {
            let json = fs_err::read(self.runs.join(run).join(keys::FILE)).ok()?;
            Keys::parse(&json)
        });
        let noted = noted.as_ref().and_then(|keys| keys.of(name));
        let stored = || Some(self.store.as_ref()?.record(key).ok()??.components);
        noted.or_else(stored)
    }
}

/// A status as the end of a sentence.
fn ended(status: Status) -> &'static str {
    match status {
        Status::Ok | Status::Cached => "ran",
        Status::Failed => "failed",
        Status::Interrupted => "was interrupted",
        Status::Skipped => "was skipped",
        Status::Refused => "was refused",
    }
}

/// Names of the components that differ.
fn changed(old: &Components, new: &Components) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .cloned()
        .collect()
}
