//! The runs of a state folder: which there are, how far they came, which is the latest.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hotcell_schema::log::Counts;
use hotcell_schema::report::RunFacts;
use hotcell_store::{Entry, Journal};
use serde::Deserialize;

/// Largest `run.json` or `plan.json` that is read.
const MAX_FILE: u64 = 2 << 30;

/// Files and folders of a run, one of which tells what is left of it from a folder that is no run.
const LEFT: [&str; 5] = ["run.json", "plan.json", "keys.json", "result", "result.partial"];

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its result is there.
    Finished,
    /// It goes on.
    Running,
    /// It ended before its result was written: it was killed, or the host refused something.
    Interrupted,
    /// Files of it were removed: what is left says too little.
    Incomplete,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A run's folder.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Name of the folder.
    pub id: String,
    /// The folder.
    pub folder: PathBuf,
    /// How far it came.
    pub state: State,
    /// When its result, or else the end of its journal, was written.
    pub written: SystemTime,
}

/// How far a run came that has no result.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Instances by how they ended.
    pub counts: Counts,
    /// Instances that ended.
    pub ended: u64,
    /// Instances that began and did not end.
    pub open: u64,
}

/// The beginning of a plan, and how much there is of it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PlanHead {
    /// The experiment.
    #[serde(default)]
    pub name: String,
    /// Its instances.
    #[serde(default)]
    pub instances: Vec<serde::de::IgnoredAny>,
}

impl Run {
    /// The run in a folder; `None` where there is none. Links are no runs: nothing outside is ever taken for one.
    pub(crate) fn at(folder: &Path) -> Option<Self> {
        let is_folder = folder
            .symlink_metadata()
            .is_ok_and(|facts| facts.file_type().is_dir());
        if !is_folder {
            return None;
        }
        let written = |path: PathBuf| path.metadata().ok()?.modified().ok();
        let journal = folder.join("journal.jsonl");
        let (state, written) = match written(folder.join("result/report.json")) {
            // `run.json` and the pages come after the result: the writer is at work until it lets go of its journal.
            Some(when) if !Journal::is_live(&journal) => (State::Finished, when),
            _ => {
                match written(journal.clone()) {
                    Some(when) if Journal::is_live(&journal) => (State::Running, when),
                    Some(when) => (State::Interrupted, when),
                    // Removed by half: by hand, or by someone who was killed at it.
                    None if LEFT.iter().any(|name| folder.join(name).exists()) => {
                        (State::Incomplete, written(folder.to_owned())?)
                    }
                    None => return None,
                }
            }
        };
        Some(Self {
            id: folder.file_name()?.to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            state,
            written,
        })
    }

    /// What the host has to say of a finished run.
    pub(crate) fn facts(&self) -> Option<RunFacts> {
        read(&self.folder.join("run.json"))
    }

    /// Its plan, as far as a list of runs needs it.
    pub(crate) fn plan(&self) -> Option<PlanHead> {
        read(&self.folder.join("plan.json"))
    }

    /// The experiment's name and those of its instances.
    pub(crate) fn names(&self) -> Option<(String, Vec<String>)> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        #[derive(Deserialize)]
        struct Names {
            name: String,
            instances: Vec<Named>,
        }
        let plan: Names = read(&self.folder.join("plan.json"))?;
        let names = plan.instances.into_iter().map(|instance| instance.name);
        Some((plan.name, names.collect()))
    }

    /// What its journal says.
    pub(crate) fn journal(&self) -> Vec<Entry> {
        Journal::read(&self.folder.join("journal.jsonl")).unwrap_or_default()
    }

    /// How far it came, by its journal.
    pub(crate) fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        let mut open = std::collections::HashSet::new();
        for entry in self.journal() {
            match entry {
                Entry::Started { instance } => _ = open.insert(instance),
                Entry::Ended { instance, status, .. } => {
                    open.remove(&instance);
                    progress.ended += 1;
                    progress.counts.add(status);
                }
                _ => {}
            }
        }
        progress.open = open.len() as u64;
        progress
    }

    /// Bytes of all its files.
    pub(crate) fn size(&self) -> u64 {
        let mut size = 0;
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(facts) if facts.is_dir() => folders.push(entry.path()),
                    Ok(facts) => size += facts.len(),
                    Err(_) => {}
                }
            }
        }
        size
    }

    /// A line about a run that came to no result.
    pub(crate) fn how_far(&self) -> String {
        let progress = self.progress();
        let all = self.plan().map_or(0, |plan| plan.instances.len() as u64);
        // What points became is not in the plan.
        let all = all.max(progress.ended + progress.open);
        format!("{} after {} of {all}", self.state.word(), progress.ended)
    }
}

/// All runs in a folder of runs, the oldest first.
pub(crate) fn all(runs: &Path) -> Vec<Run> {
    let entries = fs_err::read_dir(runs).into_iter().flatten().flatten();
    let mut all: Vec<Run> = entries.filter_map(|entry| Run::at(&entry.path())).collect();
    all.sort_by(|a, b| (a.written, &a.id).cmp(&(b.written, &b.id)));
    all
}

/// Whether a run is of an experiment. Before `run.json` said so, the report did.
pub(crate) fn is_of(facts: &RunFacts, run: &Run, experiment: &str) -> bool {
    #[derive(Deserialize)]
    struct Head {
        name: String,
    }
    match facts.experiment.as_str() {
        "" => {
            read::<Head>(&run.folder.join("result/report.json")).is_some_and(|head| head.name == experiment)
        }
        name => name == experiment,
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let file = std::fs::File::open(path).ok()?;
    if file.metadata().ok()?.len() > MAX_FILE {
        return None;
    }
    serde_json::from_slice(&fs_err::read(path).ok()?).ok()
}
