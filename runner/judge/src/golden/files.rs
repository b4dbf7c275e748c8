//! Which golden file is that of which instance.
//!
//! A file bears a name that people can read, with the name of a sample's file in it. What an instance is called is not that:
//! it is its full name, which holds the digest of the sample and stands in the golden. So a golden is looked for under the
//! name that its file would get now, and where there is none, among those that are left, by what is in them: the golden of
//! a sample whose file was renamed, or is not on this machine, is still its golden.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use hotcell_schema::digest::Digest;
use hotcell_schema::report::{InstanceReport, Report};
use serde::Deserialize;

use super::{GoldenError, Goldens, MAX_BYTES};

/// An instance and its golden file.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The instance.
    pub instance: &'a InstanceReport,
    /// The file that it has, or would get.
    pub path: PathBuf,
    /// Whether there is one.
    pub is_there: bool,
}

/// An instance, and its names in file names.
struct Named<'a> {
    instance: &'a InstanceReport,
    name: String,
    old: String,
}

/// Whose a golden is, as it says itself.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
struct Owner {
    instance: String,
    engine: String,
}

impl Goldens {
    /// The instances whose goldens count, each with its file; and the files that are nobody's.
    pub(super) fn places<'a>(
        &self,
        report: &'a Report,
    ) -> Result<(Vec<Place<'a>>, BTreeSet<PathBuf>), GoldenError> {
        let mut left = self.files()?;
        let named = self.named(report);
        let mut places: Vec<Place<'a>> = named
            .into_iter()
            .map(|(instance, path)| Place {
                is_there: left.remove(&path),
                instance,
                path,
            })
            .collect();
        if left.is_empty() || places.iter().all(|place| place.is_there) {
            return Ok((places, left));
        }
        let mut by_owner: HashMap<Owner, PathBuf> = HashMap::new();
        for path in &left {
            if let Some(owner) = owner(path)? {
                by_owner.entry(owner).or_insert_with(|| path.clone());
            }
        }
        for place in places.iter_mut().filter(|place| !place.is_there) {
            let owner = Owner {
                instance: place.instance.name.clone(),
                engine: place.instance.uses.clone(),
            };
            if let Some(path) = by_owner.remove(&owner) {
                left.remove(&path);
                place.path = path;
                place.is_there = true;
            }
        }
        Ok((places, left))
    }

    /// Each instance that counts with the path that its name gives. Where two instances of a stage would have the same file
    /// all the same, both names get the digest of their full name: no matter which of them came first.
    ///
    /// A file that bears the shorter name of before is kept under it, as long as no other instance had that name.
    fn named<'a>(&self, report: &'a Report) -> Vec<(&'a InstanceReport, PathBuf)> {
        let named: Vec<Named<'_>> = report
            .instances
            .iter()
            .filter(|instance| self.has_stage(&instance.stage))
            .map(|instance| Named {
                instance,
                name: report.file_name(instance),
                old: report.old_file_name(instance),
            })
            .collect();
        let twice = several(named.iter().map(|named| (named.instance, named.name.as_str())));
        let twice_old = several(named.iter().map(|named| (named.instance, named.old.as_str())));
        let path = |named: &Named<'a>| {
            let instance = named.instance;
            let engine = instance.uses.replace('/', "-");
            let file = |name: &str| {
                self.folder
                    .join(&instance.stage)
                    .join(format!("{name}.{engine}.json"))
            };
            let stage = instance.stage.as_str();
            let new = match twice.contains(&(stage, named.name.as_str())) {
                true => file(&format!(
                    "{}-{}",
                    named.name,
                    Digest::of(instance.name.as_bytes())
                )),
                false => file(&named.name),
            };
            let old = file(&named.old);
            let kept = old != new && !twice_old.contains(&(stage, named.old.as_str())) && !new.is_file();
            match kept && old.is_file() {
                true => old,
                false => new,
            }
        };
        named.iter().map(|named| (named.instance, path(named))).collect()
    }

    fn has_stage(&self, stage: &str) -> bool {
        self.stages.is_empty() || self.stages.iter().any(|one| one == stage)
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

/// Whose a golden is; `None` where it cannot be read.
fn owner(path: &Path) -> Result<Option<Owner>, GoldenError> {
    if fs_err::metadata(path)?.len() > MAX_BYTES {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&fs_err::read(path)?).ok())
}

/// Names that several instances of a stage have.
fn several<'n>(named: impl Iterator<Item = (&'n InstanceReport, &'n str)>) -> HashSet<(&'n str, &'n str)> {
    let mut seen = HashSet::new();
    let keys = named.map(|(instance, name)| (instance.stage.as_str(), name));
    keys.filter(|key| !seen.insert(*key)).collect()
}
