//! Whether the latest run of an experiment still says what a new one would.
//!
//! A run in which everything ended well leaves `stored.json` in its folder: a fingerprint of its plan and of everything else
//! that cache keys are made of, and what it gave. A later run whose fingerprint is the same would make the same keys, find the
//! same outputs, and has nothing to do: it reads one file instead of a record for each instance, and writes nothing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotcell_plan::with::With;
use hotcell_plan::{Instance, Plan};
use hotcell_report::Summary;
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::Report;
use hotcell_store::{RunFolder, Store, StoreError};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::execute::Options;
use crate::finish::{file_name, folder_of, object_name};
use crate::forecast::{Detail, Forecast, Forecasts};
use crate::work::{Done, Shared};

/// Name of the file in a run's folder.
const FILE: &str = "stored.json";
/// Name and version of its form.
const FORMAT: &str = "hotcell-stored 4";
/// No such file is larger.
const MAX_BYTES: u64 = 1 << 30;
/// How long nothing is told to the store of what a run stands on.
const KEPT_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Hexadecimal digits of a key, and what stands for none.
const KEY: usize = 64;
const NO_KEY: char = '-';

/// What a run gave. What many instances have alike is said once.
#[derive(Debug, Serialize, Deserialize)]
struct Given {
    format: String,
    /// Of everything that keys and report are made of, but programs of this host.
    fingerprint: Digest,
    /// Programs that commands ran.
    programs: Vec<Ran>,
    /// The mark of the store: nothing was removed from it since.
    store: String,
    /// What is told of the run.
    summary: Summary,
    /// How many instances are in its report, and how many of these were not wanted.
    told: usize,
    skipped: usize,
    /// Files of the run's folder that are neither outputs nor pages about samples, and their lengths: what was changed and
    /// kept its length is not seen, here and of outputs.
    files: IndexMap<String, u64>,
    /// How many pages about samples there are.
    pages: usize,
    /// How instances ended.
    endings: IndexSet<Ending>,
    /// Place of each instance's ending, in the plan's order.
    instances: Vec<usize>,
    /// What points became: folder, and place of its ending.
    found: Vec<(String, usize)>,
    /// Keys of the plan's instances and of what points became, one after the other: 64 digits each, or as many `-`.
    keys: String,
}

/// A program as a stage names it, beside the stage's own files; and who it was.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub name: String,
    /// Key of the stage's own files.
    pub files: Option<String>,
    pub identity: String,
}

/// How an instance ended.
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Ending {
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its files: name in its folder, and length.
    files: Vec<(String, u64)>,
}

/// The latest run of an experiment, when a new one would give the same.
#[derive(Debug)]
pub struct Current {
    /// Its folder.
    pub folder: RunFolder,
    /// How many instances it has.
    pub instances: usize,
    /// How many of these were not wanted.
    pub skipped: usize,
    /// What is told of it.
    pub summary: Summary,
    /// Keys of what it stands on.
    keys: String,
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
        let keys: IndexSet<Digest> = keys(&self.keys).flatten().collect();
        for key in &keys {
            store.record(key)?;
        }
        Ok(File::open(self.folder.path().join(FILE))?.set_modified(now)?)
    }
}

/// The keys in a text of them.
fn keys(text: &str) -> impl Iterator<Item = Option<Digest>> {
    let pieces = text.as_bytes().chunks(KEY);
    pieces.map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}

/// How many pages about samples a run has.
fn pages(folder: &RunFolder) -> usize {
    fs_err::read_dir(folder.path().join("samples")).map_or(0, Iterator::count)
}

/// Length of a file in a run's folder.
fn length(folder: &RunFolder, name: &str) -> io::Result<u64> {
    let facts = fs_err::symlink_metadata(folder.path().join(name))?;
    match facts.is_file() {
        true => Ok(facts.len()),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// The files of a run's result, as they are now.
struct Files<'a> {
    folder: &'a RunFolder,
    /// The folder of a stage: its instances follow each other.
    stage: Option<(String, OwnedFd)>,
    /// A path in it.
    path: String,
}

impl Files<'_> {
    /// Whether all files of an instance are there, by the folder of the instance. What was changed and has the length that it
    /// had is not seen.
    fn have(&mut self, instance: &str, ending: &Ending) -> bool {
        let mut files = ending.files.iter();
        files.all(|(name, length)| self.has(instance, name, *length) == Some(true))
    }

    fn has(&mut self, instance: &str, name: &str, length: u64) -> Option<bool> {
        // `stages/<stage>/` is looked up once: paths are long, and files many.
        let (stage, slug) = instance.rsplit_once('/')?;
        if self.stage.as_ref().is_none_or(|(known, _)| known != stage) {
            let folder = File::open(self.folder.result().join(stage)).ok()?;
            self.stage = Some((stage.to_owned(), folder.into()));
        }
        let (_, stage) = self.stage.as_ref()?;
        self.path.clear();
        self.path.extend([slug, "/", name]);
        let nofollow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        let facts = nix::sys::stat::fstatat(stage, self.path.as_str(), nofollow).ok()?;
        let is_file = facts.st_mode & nix::libc::S_IFMT == nix::libc::S_IFREG;
        Some(is_file && u64::try_from(facts.st_size) == Ok(length))
    }
}

/// Where the name of an experiment's latest good run stands: beside the folder of the runs.
fn pointer(runs: &Path, experiment: &str) -> Option<PathBuf> {
    Some(runs.parent()?.join("latest").join(experiment))
}

/// Everything that keys and report are made of: the manifest and all that is read beside it, and which of that each instance
/// is given. What else is in an instance follows from these, for one build. What programs of this host are is known only when
/// they are asked for.
fn fingerprint(plan: &Plan, options: &Options<'_>) -> Option<Digest> {
    let engines = options.engines.keys(plan, options.profiles).into_values();
    let engines = engines.map(Result::ok).collect::<Option<Vec<_>>>()?;
    let mut hash = io::BufWriter::with_capacity(64 << 10, Hash(Sha256::new()));
    put(
        &mut hash,
        &(
            FORMAT,
            options.hotcell,
            options.build,
            options.place,
            options.variants,
            engines,
            options.profiles,
        ),
    )?;
    put(&mut hash, &(&plan.name, plan.manifest, plan.seed, &plan.stages))?;
    put(&mut hash, &(&plan.samples, &plan.archives, &plan.packages))?;
    put(
        &mut hash,
        &(
            &plan.profiles,
            &plan.personas,
            &plan.rule_sets,
            &plan.file_sets,
            &plan.sysroots,
        ),
    )?;
    let mut with = None;
    for instance in &plan.instances {
        // Most instances of a stage share their settings.
        if with.is_none_or(|with: &With| !with.is_clone_of(&instance.with)) {
            with = Some(&instance.with);
            put(&mut hash, &instance.with)?;
        }
        let given = (
            &instance.arch,
            &instance.persona,
            &instance.rules,
            &instance.files,
            &instance.sysroot,
            &instance.web,
        );
        put(&mut hash, &(&instance.name, given))?;
    }
    let hash = hash.into_inner().ok()?;
    Some(Digest::from_bytes(hash.0.finalize().into()))
}

fn put(hash: &mut impl io::Write, value: &impl Serialize) -> Option<()> {
    serde_json::to_writer(hash, value).ok()
}

/// What is written to it is digested.
struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes what a run gave, where all of it is as good as a new run of the same.
pub(crate) fn note(shared: &Shared<'_>, folder: &RunFolder, report: &Report) -> Result<(), StoreError> {
    let (plan, options) = (shared.plan, shared.options);
    let whole = options.selection.is_none() && options.again.is_empty() && !options.build.is_empty();
    if !whole {
        return Ok(());
    }
    let Some((store, fingerprint)) = options.store.mark().zip(fingerprint(plan, options)) else {
        return Ok(());
    };
    let mut files = IndexMap::new();
    for name in ["result/report.json", "report.html", "run.json"] {
        files.insert(name.to_owned(), length(folder, name)?);
    }
    let skipped = report.instances.iter();
    let skipped = skipped.filter(|instance| instance.status == Status::Skipped);
    let mut given = Given {
        format: FORMAT.to_owned(),
        fingerprint,
        programs: options.engines.programs().ran(),
        store,
        summary: Summary::of(report, None),
        told: report.instances.len(),
        skipped: skipped.count(),
        files,
        pages: pages(folder),
        endings: IndexSet::new(),
        instances: Vec::with_capacity(plan.instances.len()),
        found: Vec::new(),
        keys: String::with_capacity(KEY * plan.instances.len()),
    };
    let mut keys_of_found = String::new();
    for (index, instance) in shared.table.in_order() {
        let Some(done) = shared
            .of(index)
            .filter(|done| !done.status.is_bad() && !done.is_cut_short())
        else {
            return Ok(());
        };
        let (ending, _) = given.endings.insert_full(Ending::of(plan, instance, done));
        let keys = match index < plan.instances.len() {
            true => {
                given.instances.push(ending);
                &mut given.keys
            }
            false => {
                given.found.push((folder_of(instance), ending));
                &mut keys_of_found
            }
        };
        match done.key {
            Some(key) => keys.push_str(&key.to_string()),
            None => keys.extend([NO_KEY; KEY]),
        }
    }
    given.keys.push_str(&keys_of_found);
    folder.write_with(FILE, |file| {
        Ok::<_, StoreError>(serde_json::to_writer(file, &given)?)
    })?;
    let Some(pointer) = folder.path().parent().and_then(|runs| pointer(runs, &plan.name)) else {
        return Ok(());
    };
    if let Some(parent) = pointer.parent() {
        fs_err::create_dir_all(parent)?;
        RunFolder::at(parent).write(&plan.name, folder.id().as_bytes())?;
    }
    Ok(())
}

impl Ending {
    fn of(plan: &Plan, instance: &Instance, done: &Done) -> Self {
        let outputs = done.outputs.iter();
        let outputs = outputs.map(|(port, stored)| (file_name(plan, instance, port), stored.length));
        let objects = done.objects.iter();
        let objects = objects.map(|stored| (object_name(&stored.digest), stored.length));
        Self {
            status: match done.status {
                Status::Cached => Status::Ok,
                other => other,
            },
            reason: done.reason.clone(),
            files: outputs.chain(objects).collect(),
        }
    }
}

/// The latest run of a plan's experiment, when a new run would run nothing and give the same. Whatever cannot be read is as
/// if it was not there: then everything is looked at one by one.
pub fn current(plan: &Plan, options: &Options<'_>) -> Option<Current> {
    let (folder, given) = latest(plan, options)?;
    let mut files = Files {
        folder: &folder,
        stage: None,
        path: String::new(),
    };
    let mut planned = plan.instances.iter().zip(&given.instances);
    let mut found = given.found.iter();
    let mut left = given.files.iter();
    let whole = given.pages == pages(&folder)
        && left.all(|(name, known)| length(&folder, name).is_ok_and(|length| length == *known))
        && planned.all(|(instance, ending)| {
            let ending = given.endings.get_index(*ending);
            ending.is_some_and(|ending| ending.files.is_empty() || files.have(&folder_of(instance), ending))
        })
        && found.all(|(instance, ending)| {
            let ending = given.endings.get_index(*ending);
            ending.is_some_and(|ending| files.have(instance, ending))
        });
    whole.then_some(Current {
        folder,
        instances: given.told,
        skipped: given.skipped,
        summary: given.summary,
        keys: given.keys,
    })
}

/// The same for a forecast: what a run would do with each instance of the plan. `None` where more than the plan and its keys
/// is to be told.
pub(crate) fn foreseen(plan: &Plan, options: &Options<'_>, detail: Detail) -> Option<Forecasts> {
    let expands = plan.stages.values().any(|stage| stage.expansion.is_some());
    if detail == Detail::Components || expands {
        return None;
    }
    let (_, given) = latest(plan, options)?;
    let mut keys = keys(&given.keys);
    let forecasts = given.instances.iter().enumerate().map(|(index, ending)| {
        let (ending, key) = (given.endings.get_index(*ending)?, keys.next()?);
        let forecast = match ending.status {
            Status::Ok => Forecast::Cached {
                key: key?,
                components: None,
            },
            status => Forecast::Ends {
                status,
                reason: ending.reason.clone().unwrap_or_default(),
            },
        };
        Some((index, forecast))
    });
    forecasts.collect()
}

/// The folder of the latest good run and what it gave, where a new run would give the same.
fn latest(plan: &Plan, options: &Options<'_>) -> Option<(RunFolder, Given)> {
    if options.force || !options.again.is_empty() || options.selection.is_some() || options.build.is_empty() {
        return None;
    }
    let runs = options.runs?;
    let id = fs_err::read_to_string(pointer(runs, &plan.name)?).ok()?;
    let plain = !id.is_empty() && id.len() <= 255 && !id.contains('/') && !id.starts_with('.');
    let folder = RunFolder::at(&runs.join(plain.then_some(id)?));
    let path = folder.path().join(FILE);
    if fs_err::metadata(&path).ok()?.len() > MAX_BYTES {
        return None;
    }
    let given: Given = serde_json::from_slice(&fs_err::read(&path).ok()?).ok()?;
    let programs = options.engines.programs();
    let same = given.format == FORMAT
        && given.instances.len() == plan.instances.len()
        && Some(&given.store) == options.store.mark().as_ref()
        && Some(given.fingerprint) == fingerprint(plan, options)
        && given.programs.iter().all(|ran| programs.is_still(plan, ran));
    same.then_some((folder, given))
}
