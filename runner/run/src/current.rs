//! Whether the latest run of an experiment still says what a new one would.
//!
//! A run in which everything ended well leaves `stored.json` in its folder: the fingerprint of its plan, and for each
//! instance its cache key and what is stored under it. A later run makes the keys again, finds nothing changed, and has
//! nothing to do: it reads one file instead of a record for each instance, and writes nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotcell_plan::{Instance, Plan};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_store::{RunFolder, Store, StoreError, Stored};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use crate::execute::Options;
use crate::finish::{object_path, output_path};
use crate::forecast::{Detail, Forecast, Forecasts};
use crate::key::digest_of;
use crate::work::{Done, Shared, prepare};

/// Name of the file in a run's folder.
const FILE: &str = "stored.json";
/// Name and version of its form.
const FORMAT: &str = "hotcell-stored 2";
/// No such file is larger.
const MAX_BYTES: u64 = 1 << 30;
/// How long nothing is told to the store of what a run stands on.
const KEPT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a run gave, each object and each port named once.
#[derive(Debug, Serialize, Deserialize)]
struct Given {
    format: String,
    /// Of everything but the cache keys that decides what is in a report.
    fingerprint: Digest,
    /// The mark of the store: nothing was removed from it since.
    store: String,
    /// Of `result/report.json`.
    report: Digest,
    /// How many pages about samples there are.
    pages: usize,
    ports: IndexSet<String>,
    objects: Vec<(Digest, u64)>,
    /// In the plan's order.
    instances: Vec<Row>,
}

/// One instance: how it ended, its key, its outputs as pairs of port and object, and the objects that these name.
#[derive(Debug, Serialize, Deserialize)]
struct Row(Status, Option<Digest>, Vec<(u32, u32)>, Vec<u32>);

/// The latest run of an experiment, when a new one would give the same.
#[derive(Debug)]
pub struct Current {
    /// Its folder.
    pub folder: RunFolder,
    /// How many instances it has.
    pub instances: usize,
    /// How many of these were not wanted.
    pub skipped: usize,
    /// Keys of what it stands on.
    keys: HashSet<Digest>,
}

impl Current {
    /// Whether the store should be told again that what the run stands on is still used.
    pub fn is_to_be_kept(&self, now: SystemTime) -> bool {
        let noted = fs_err::metadata(self.folder.path().join(FILE)).and_then(|facts| facts.modified());
        noted.is_ok_and(|noted| now.duration_since(noted).is_ok_and(|ago| ago >= KEPT_EVERY))
    }

    /// Tells a store that what the run stands on is still used, so that a collection keeps it: a run that does nothing reads
    /// no record.
    pub fn keep(&self, store: &Store, now: SystemTime) -> Result<(), StoreError> {
        for key in &self.keys {
            store.record(key)?;
        }
        Ok(File::open(self.folder.path().join(FILE))?.set_modified(now)?)
    }
}

/// How many pages about samples a run has.
fn pages(folder: &RunFolder) -> usize {
    fs_err::read_dir(folder.path().join("samples")).map_or(0, Iterator::count)
}

/// The files of a run's result, as they are now.
struct Files<'a> {
    folder: &'a RunFolder,
    /// The folder of a stage: its instances follow each other.
    stage: Option<(String, OwnedFd)>,
}

impl Files<'_> {
    /// Whether there is a file of that length under a path within `result/`.
    fn has(&mut self, path: &str, length: u64) -> Option<bool> {
        // `stages/<stage>/` is looked up once: paths are long, and files many.
        let at = path.match_indices('/').nth(1)?.0;
        let (stage, rest) = (path.get(..at)?, path.get(at + 1..)?);
        if self.stage.as_ref().is_none_or(|(known, _)| known != stage) {
            let folder = File::open(self.folder.result().join(stage)).ok()?;
            self.stage = Some((stage.to_owned(), folder.into()));
        }
        let (_, stage) = self.stage.as_ref()?;
        let facts = nix::sys::stat::fstatat(stage, rest, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let is_file = facts.st_mode & nix::libc::S_IFMT == nix::libc::S_IFREG;
        Some(is_file && u64::try_from(facts.st_size) == Ok(length))
    }

    /// Whether all that an instance gave is there.
    fn have(&mut self, plan: &Plan, instance: &Instance, done: &Done) -> bool {
        let outputs = done.outputs.iter();
        let outputs = outputs.map(|(port, stored)| (output_path(plan, instance, port), stored.length));
        let objects = done.objects.iter();
        let objects = objects.map(|stored| (object_path(instance, &stored.digest), stored.length));
        let mut all = outputs.chain(objects);
        all.all(|(path, length)| self.has(&path, length) == Some(true))
    }
}

/// Where the name of an experiment's latest good run stands: beside the folder of the runs.
fn pointer(runs: &Path, experiment: &str) -> Option<PathBuf> {
    Some(runs.parent()?.join("latest").join(experiment))
}

/// Everything that a report is made of beside what instances gave.
fn fingerprint(plan: &Plan, options: &Options<'_>) -> Digest {
    let parts = [
        FORMAT.to_owned(),
        options.build.to_owned(),
        plan.name.clone(),
        plan.manifest.to_string(),
        plan.seed.to_string(),
        digest_of(&options.variants),
        digest_of(&plan.samples),
        digest_of(&plan.archives),
        digest_of(&plan.packages),
    ];
    Digest::of_parts(parts.iter().map(String::as_bytes))
}

/// Notes what a run gave, where all of it is as good as a new run of the same.
pub(crate) fn note(shared: &Shared<'_>, folder: &RunFolder, report: Digest) -> Result<(), StoreError> {
    let (plan, options) = (shared.plan, shared.options);
    let Some(store) = options.store.mark() else {
        return Ok(());
    };
    let expands = plan.stages.values().any(|stage| stage.expansion.is_some());
    let again = !options.again.is_empty();
    if expands || again || options.selection.is_some() || options.build.is_empty() {
        return Ok(());
    }
    let mut given = Given {
        format: FORMAT.to_owned(),
        fingerprint: fingerprint(plan, options),
        store,
        report,
        pages: pages(folder),
        ports: IndexSet::new(),
        objects: Vec::new(),
        instances: Vec::with_capacity(plan.instances.len()),
    };
    let mut places: HashMap<Digest, u32> = HashMap::new();
    let mut place = |stored: &Stored, objects: &mut Vec<(Digest, u64)>| {
        *places.entry(stored.digest).or_insert_with(|| {
            objects.push((stored.digest, stored.length));
            u32::try_from(objects.len() - 1).unwrap_or(u32::MAX)
        })
    };
    for index in 0..plan.instances.len() {
        let Some(done) = shared.of(index).filter(|done| !done.status.is_bad()) else {
            return Ok(());
        };
        let mut outputs = Vec::with_capacity(done.outputs.len());
        for (port, stored) in &done.outputs {
            let (port, _) = given.ports.insert_full(port.clone());
            let port = u32::try_from(port).unwrap_or(u32::MAX);
            outputs.push((port, place(stored, &mut given.objects)));
        }
        let objects = done
            .objects
            .iter()
            .map(|stored| place(stored, &mut given.objects))
            .collect();
        let status = match done.status {
            Status::Cached => Status::Ok,
            other => other,
        };
        given.instances.push(Row(status, done.key, outputs, objects));
    }
    folder.write(FILE, &serde_json::to_vec(&given)?)?;
    let Some(pointer) = folder.path().parent().and_then(|runs| pointer(runs, &plan.name)) else {
        return Ok(());
    };
    if let Some(parent) = pointer.parent() {
        fs_err::create_dir_all(parent)?;
        RunFolder::at(parent).write(&plan.name, folder.id().as_bytes())?;
    }
    Ok(())
}

/// The latest run of a plan's experiment, when a new run would run nothing and give the same. Whatever cannot be read is as
/// if it was not there: then everything is looked at one by one.
pub fn current(plan: &Plan, options: &Options<'_>) -> Option<Current> {
    let mut current = Current {
        folder: latest(plan, options)?,
        instances: plan.instances.len(),
        skipped: 0,
        keys: HashSet::new(),
    };
    let shared = Shared::new(plan, options);
    let folder = current.folder.clone();
    let given = each(&shared, &folder, Detail::Keys, |_, forecast| match forecast {
        Forecast::Cached { key, .. } => _ = current.keys.insert(key),
        _ => current.skipped += 1,
    })?;
    is_whole(&shared, &folder, &given).then_some(current)
}

/// Whether everything that the run left is there: files of the result with their lengths, and the pages. What was changed
/// and has the length that it had is not seen.
fn is_whole(shared: &Shared<'_>, folder: &RunFolder, given: &Given) -> bool {
    let there = |name: &str| folder.path().join(name).is_file();
    let mut files = Files { folder, stage: None };
    let mut results = shared.plan.instances.iter().enumerate();
    given.pages == pages(folder)
        && ["report.html", "run.json"].into_iter().all(there)
        && results.all(|(index, instance)| {
            shared
                .of(index)
                .is_none_or(|done| files.have(shared.plan, instance, done))
        })
}

/// The same for a forecast: what a run would do with each instance of the plan.
pub(crate) fn foreseen(shared: &Shared<'_>, detail: Detail) -> Option<Forecasts> {
    let folder = latest(shared.plan, shared.options)?;
    let mut forecasts = Forecasts::with_capacity(shared.plan.instances.len());
    each(shared, &folder, detail, |index, forecast| {
        forecasts.insert(index, forecast);
    })?;
    Some(forecasts)
}

/// The folder of the latest good run, where it may count at all.
fn latest(plan: &Plan, options: &Options<'_>) -> Option<RunFolder> {
    if options.force || !options.again.is_empty() || options.selection.is_some() || options.build.is_empty() {
        return None;
    }
    let runs = options.runs?;
    let id = fs_err::read_to_string(pointer(runs, &plan.name)?).ok()?;
    let plain = !id.is_empty() && id.len() <= 255 && !id.contains('/') && !id.starts_with('.');
    Some(RunFolder::at(&runs.join(plain.then_some(id)?)))
}

/// Goes through a run's instances as long as each is what it would be now; `None` at the first that is not. Gives what the
/// run noted.
fn each(
    shared: &Shared<'_>,
    folder: &RunFolder,
    detail: Detail,
    mut tell: impl FnMut(usize, Forecast),
) -> Option<Given> {
    let plan = shared.plan;
    let path = folder.path().join(FILE);
    if fs_err::metadata(&path).ok()?.len() > MAX_BYTES {
        return None;
    }
    let given: Given = serde_json::from_slice(&fs_err::read(&path).ok()?).ok()?;
    if given.format != FORMAT
        || given.instances.len() != plan.instances.len()
        || given.fingerprint != fingerprint(plan, shared.options)
        || Some(&given.store) != shared.options.store.mark().as_ref()
        || Digest::of(&fs_err::read(folder.result().join("report.json")).ok()?) != given.report
    {
        return None;
    }
    for (index, (instance, row)) in plan.instances.iter().zip(&given.instances).enumerate() {
        let (done, forecast) = match prepare(shared, instance) {
            Ok(ready) if row.0 == Status::Ok && row.1 == Some(ready.key) => {
                let key = ready.key;
                let components = (detail == Detail::Components).then(|| ready.components.into());
                (row.done(&given)?, Forecast::Cached { key, components })
            }
            Err(done) if row.0 == Status::Skipped && done.status == Status::Skipped => {
                let reason = done.reason.clone().unwrap_or_default();
                let status = done.status;
                (done, Forecast::Ends { status, reason })
            }
            _ => return None,
        };
        shared.table.set(index, done);
        tell(index, forecast);
    }
    Some(given)
}

impl Row {
    fn done(&self, given: &Given) -> Option<Done> {
        let stored = |place: &u32| {
            let (digest, length) = given.objects.get(*place as usize)?;
            Some(Stored {
                digest: *digest,
                length: *length,
            })
        };
        let outputs = self.2.iter().map(|(port, place)| {
            let port = given.ports.get_index(*port as usize)?;
            Some((port.clone(), stored(place)?))
        });
        Some(Done {
            status: Status::Cached,
            key: self.1,
            ..Done::ok(
                outputs.collect::<Option<IndexMap<_, _>>>()?,
                self.3.iter().map(stored).collect::<Option<Vec<_>>>()?,
            )
        })
    }
}
