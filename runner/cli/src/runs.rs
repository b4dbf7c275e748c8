//! The runs of a state folder: which there are, how far they came, which is the latest.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hotcell_schema::log::Counts;
use hotcell_schema::report::RunFacts;
use hotcell_store::{Entry, Journal};
use serde::Deserialize;

use crate::exit::Failure;

/// Largest `run.json` or `plan.json` that is read.
const MAX_FILE: u64 = 2 << 30;
/// Longest path of a manifest that is read.
const MAX_PATH: u64 = 16 << 10;

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

/// What runs are of: an experiment's name alone is that of every manifest that someone copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The experiment's name.
    pub experiment: &'a str,
    /// The manifest, as [`MANIFEST`] names it; absent where there is none.
    pub manifest: Option<&'a str>,
}

/// The file in a run's folder that says which manifest was run: by its name where it stands beside the state folder, else by
/// its whole path. Runs of before have none.
pub(crate) const MANIFEST: &str = "manifest";

/// What [`MANIFEST`] says of a manifest; `None` where its path is no text.
pub(crate) fn manifest(path: &Path, state: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let beside = match state.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        Some(folder) => folder.canonicalize().ok(),
        None => None,
    };
    // A folder that is carried elsewhere with its runs keeps its history.
    let told = match real
        .parent()
        .is_some_and(|folder| beside.as_deref() == Some(folder))
    {
        true => Path::new(real.file_name()?),
        false => &real,
    };
    told.to_str().map(str::to_owned)
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

    /// Whether it is of the same manifest, as far as it says which.
    fn is_of_manifest(&self, subject: Subject<'_>) -> bool {
        let path = self.folder.join(MANIFEST);
        let small = path.metadata().is_ok_and(|facts| facts.len() <= MAX_PATH);
        let told = small.then(|| fs_err::read_to_string(path).ok()).flatten();
        match (told, subject.manifest) {
            (Some(told), Some(manifest)) => told == manifest,
            _ => true,
        }
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

/// A run by its id, or by the start of it that fits only one.
pub(crate) fn find(runs: &Path, name: &str) -> Result<Run, Failure> {
    let all = all(runs);
    if let Some(run) = all.iter().find(|run| run.id == name) {
        return Ok(run.clone());
    }
    let fitting: Vec<&Run> = all
        .iter()
        .filter(|run| !name.is_empty() && run.id.starts_with(name))
        .collect();
    match fitting.as_slice() {
        [run] => Ok((*run).clone()),
        [] => Err(
            Failure::usage(format!("there is no run `{name}` in {}", runs.display()))
                .help("`hotcell runs` lists them; say where with --state DIR"),
        ),
        many => Err(
            Failure::usage(format!("`{name}` is the start of {} runs", many.len()))
                .help(format!("the first are {} and {}", many[0].id, many[1].id)),
        ),
    }
}

/// Whether a run that came to no result, and whose plan has this name, is of an experiment.
pub(crate) fn is_named(name: &str, run: &Run, subject: Subject<'_>) -> bool {
    name == subject.experiment && run.is_of_manifest(subject)
}

/// Whether a run is of an experiment. Before `run.json` said so, the report did.
pub(crate) fn is_of(facts: &RunFacts, run: &Run, subject: Subject<'_>) -> bool {
    #[derive(Deserialize)]
    struct Head {
        name: String,
    }
    match facts.experiment.as_str() {
        "" => read::<Head>(&run.folder.join("result/report.json"))
            .is_some_and(|head| is_named(&head.name, run, subject)),
        name => is_named(name, run, subject),
    }
}

/// Reads a JSON file of a run; nothing where it is not there, too large, or something else.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let file = std::fs::File::open(path).ok()?;
    if file.metadata().ok()?.len() > MAX_FILE {
        return None;
    }
    serde_json::from_slice(&fs_err::read(path).ok()?).ok()
}
