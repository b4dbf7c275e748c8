//! Golden files: what an instance's facts were when a person accepted them.
//!
//! `golden/<manifest>/<stage>/<instance>.<engine>.json`, beside the manifest. In git, read by people in a review.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hotcell_schema::manifest::GoldenPart;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{InstanceReport, Report};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::facts::Facts;
use crate::{Check, Verdict};

/// Name of the format.
pub const FORMAT: &str = "hotcell-golden";
/// Version of the format.
pub const VERSION: u32 = 1;
/// No golden file is larger.
const MAX_BYTES: u64 = 64 << 20;

/// A golden file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    format: String,
    version: u32,
    instance: String,
    engine: String,
    facts: Facts,
}

/// Golden files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The facts cannot be written as JSON.
    #[error("{path}: {source}")]
    Json {
        /// The golden file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The goldens of one manifest.
#[derive(Debug)]
pub struct Goldens {
    folder: PathBuf,
    select: Vec<GoldenPart>,
    stages: Vec<String>,
}

impl Goldens {
    /// The goldens in `folder` (`golden/<manifest>`). Of each instance of `stages` (empty: of all), the parts `select`
    /// (empty: all) are compared.
    pub fn new(folder: PathBuf, select: Vec<GoldenPart>, stages: Vec<String>) -> Self {
        let select = if select.is_empty() {
            crate::facts::ALL.to_vec()
        } else {
            select
        };
        Self {
            folder,
            select,
            stages,
        }
    }

    /// Compares every instance with its golden. `slug` names an instance in file names.
    pub fn check(
        &self,
        report: &Report,
        slug: &dyn Fn(&InstanceReport) -> String,
    ) -> Result<Vec<Check>, GoldenError> {
        let mut checks = Vec::new();
        let mut stale = self.files()?;
        for instance in report.instances.iter().filter(|instance| self.covers(instance)) {
            let path = self.path(instance, slug);
            let known = stale.remove(&path);
            let verdict = match Facts::of(instance, &self.select) {
                None if !known && instance.status == Status::Ok => continue,
                None if instance.status == Status::Ok => Verdict::NotMet(vec![Change::removed(
                    "golden",
                    "the stage has none of the selected facts any more",
                )]),
                None => Verdict::NotJudged(reason(instance)),
                Some(_) if !known => Verdict::NotMet(vec![Change::added(
                    "golden",
                    "there is none yet; --accept writes it",
                )]),
                Some(facts) => compare(&path, &facts, instance)?,
            };
            checks.push(Check {
                name: self.name(&path),
                subject: instance.name.clone(),
                verdict,
            });
        }
        for path in stale {
            let gone = Change::removed(
                "golden",
                "no instance of this name is planned; --accept removes the file",
            );
            checks.push(Check {
                name: self.name(&path),
                subject: String::new(),
                verdict: Verdict::NotMet(vec![gone]),
            });
        }
        Ok(checks)
    }

    /// Makes what came out the new goldens: writes those that differ, removes those of instances that are no longer
    /// planned, unless this is not the `whole` experiment. Instances that did not run to their end keep theirs. Answers with the paths that changed.
    pub fn accept(
        &self,
        report: &Report,
        slug: &dyn Fn(&InstanceReport) -> String,
        whole: bool,
    ) -> Result<Vec<PathBuf>, GoldenError> {
        let mut changed = Vec::new();
        let mut stale = self.files()?;
        for instance in report.instances.iter().filter(|instance| self.covers(instance)) {
            let path = self.path(instance, slug);
            let Some(facts) = Facts::of(instance, &self.select) else {
                if instance.status != Status::Ok {
                    stale.remove(&path);
                }
                continue;
            };
            stale.remove(&path);
            let golden = Golden {
                format: FORMAT.into(),
                version: VERSION,
                instance: instance.name.clone(),
                engine: instance.uses.clone(),
                facts,
            };
            let mut text = serde_json::to_string_pretty(&golden).map_err(|source| GoldenError::Json {
                path: path.clone(),
                source,
            })?;
            text.push('\n');
            if fs_err::read_to_string(&path).ok().as_deref() != Some(&text) {
                if let Some(folder) = path.parent() {
                    fs_err::create_dir_all(folder)?;
                }
                fs_err::write(&path, text)?;
                changed.push(path);
            }
        }
        for path in stale.into_iter().filter(|_| whole) {
            fs_err::remove_file(&path)?;
            changed.push(path);
        }
        Ok(changed)
    }

    fn covers(&self, instance: &InstanceReport) -> bool {
        self.has_stage(&instance.stage)
    }

    fn has_stage(&self, stage: &str) -> bool {
        self.stages.is_empty() || self.stages.iter().any(|one| one == stage)
    }

    fn path(&self, instance: &InstanceReport, slug: &dyn Fn(&InstanceReport) -> String) -> PathBuf {
        let engine = instance.uses.replace('/', "-");
        self.folder
            .join(&instance.stage)
            .join(format!("{}.{engine}.json", slug(instance)))
    }

    /// The path as people know it: from the folder of all goldens on.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Every golden file there is: two levels, `<stage>/<file>.json`.
    fn files(&self) -> Result<BTreeSet<PathBuf>, GoldenError> {
        let mut files = BTreeSet::new();
        if !self.folder.is_dir() {
            return Ok(files);
        }
        for stage in fs_err::read_dir(&self.folder)? {
            let stage = stage?.path();
            let name = stage
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !stage.is_dir() || !self.has_stage(name) {
                continue;
            }
            for file in fs_err::read_dir(stage)? {
                let file = file?.path();
                if file.extension().is_some_and(|extension| extension == "json") {
                    files.insert(file);
                }
            }
        }
        Ok(files)
    }
}

fn reason(instance: &InstanceReport) -> String {
    let status = serde_json::to_value(instance.status).ok();
    let status = status
        .as_ref()
        .and_then(serde_json::Value::as_str)
        .unwrap_or("not run")
        .to_owned();
    match &instance.reason {
        Some(reason) => format!("{status}: {reason}"),
        None => status,
    }
}

fn compare(path: &Path, facts: &Facts, instance: &InstanceReport) -> Result<Verdict, GoldenError> {
    let damaged = |why: String| Ok(Verdict::NotMet(vec![Change::removed("golden", why)]));
    if fs_err::metadata(path)?.len() > MAX_BYTES {
        return damaged(format!("{} is larger than {MAX_BYTES} bytes", path.display()));
    }
    let golden: Golden = match serde_json::from_slice(&fs_err::read(path)?) {
        Ok(golden) => golden,
        Err(error) => return damaged(format!("{} cannot be read: {error}", path.display())),
    };
    if golden.format != FORMAT || golden.version != VERSION {
        return damaged(format!(
            "{} is {} {}, not {FORMAT} {VERSION}",
            path.display(),
            golden.format,
            golden.version
        ));
    }
    let mut changes = facts.changes_since(&golden.facts);
    for (what, old, new) in [
        ("instance", &golden.instance, &instance.name),
        ("engine", &golden.engine, &instance.uses),
    ] {
        if old != new {
            changes.push(Change {
                what: what.into(),
                old: Some(old.clone()),
                new: Some(new.clone()),
            });
        }
    }
    Ok(if changes.is_empty() {
        Verdict::Met
    } else {
        Verdict::NotMet(changes)
    })
}
