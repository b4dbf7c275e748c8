//! Roots of guests: made once in a run, and the same sealed bytes for all its cells.
//!
//! Unpacking packages takes seconds, so what they hold is kept in the store as one object, under the root's digest.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use hotcell_cells::supervise::SealedBlob;
use hotcell_plan::{Origin, RootKind, SourceError, Sysroot};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::sysroot::{self, RootEntry};
use hotcell_store::records::{Components, key_of};
use hotcell_store::{Record, Stored};

use crate::work::{Done, Shared, store_failed};

/// Name and version of what is kept of a root.
const KEY: &str = "hotcell-sysroot 1";
/// The output of its record that holds the content.
const FIELD: &str = "content";

/// A root as cells are given it.
#[derive(Debug)]
pub(crate) struct Root {
    pub index: Arc<SealedBlob>,
    pub content: Arc<SealedBlob>,
}

/// The roots that were made.
#[derive(Debug, Default)]
pub(crate) struct Sysroots(Mutex<HashMap<String, Arc<Root>>>);

impl Sysroots {
    /// A root of the plan. One is made at a time, and whoever wants the same one waits for it.
    pub(crate) fn get(&self, shared: &Shared<'_>, name: &str) -> Result<Arc<Root>, Done> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = made.get(name) {
            return Ok(Arc::clone(root));
        }
        let Some(root) = shared.plan.sysroots.get(name) else {
            let reason = "the packages of its root were not fetched";
            return Err(Done::without_outputs(Status::Refused, reason));
        };
        let root = Arc::new(make(shared, root)?);
        made.insert(name.to_owned(), Arc::clone(&root));
        Ok(root)
    }
}

/// Where each file's bytes stand in the content, each once, and how long that is.
fn layout(root: &Sysroot) -> (BTreeMap<Digest, (u64, u64, &Origin)>, u64) {
    let mut places = BTreeMap::new();
    let mut end = 0u64;
    for name in root.entries.values() {
        if let RootKind::File {
            digest,
            length,
            origin,
        } = &name.kind
        {
            places.entry(*digest).or_insert_with(|| {
                let start = end;
                end = start
                    .saturating_add(*length)
                    .next_multiple_of(sysroot::Sysroot::ALIGNMENT);
                (start, *length, origin)
            });
        }
    }
    (places, end)
}

fn index(root: &Sysroot, places: &BTreeMap<Digest, (u64, u64, &Origin)>) -> Vec<RootEntry> {
    let entry = |(path, name): (&String, &hotcell_plan::RootName)| {
        let kind = match &name.kind {
            RootKind::Directory => sysroot::RootKind::Directory(name.mode),
            RootKind::Link(target) => sysroot::RootKind::Link(target.clone()),
            RootKind::File { digest, length, .. } => sysroot::RootKind::File {
                mode: name.mode,
                offset: places.get(digest).map_or(0, |(start, ..)| *start),
                length: *length,
            },
        };
        RootEntry {
            path: path.clone(),
            kind,
        }
    };
    root.entries.iter().map(entry).collect()
}

fn make(shared: &Shared<'_>, root: &Sysroot) -> Result<Root, Done> {
    let failed = |error: String| Done::failed("the guest's root cannot be made", error);
    let (places, total) = layout(root);
    let index = serde_json::to_vec(&index(root, &places)).map_err(|error| failed(error.to_string()))?;
    if index.len() as u64 > sysroot::Sysroot::MAX_INDEX {
        return Err(failed("its names are too long, all together".to_owned()));
    }
    let index = SealedBlob::of(&index).map_err(|error| failed(error.to_string()))?;
    let of_archives = places
        .values()
        .any(|(.., origin)| matches!(origin, Origin::Member { .. }));
    let components: Components = [
        ("kind".to_owned(), KEY.to_owned()),
        ("sysroot".to_owned(), root.digest.to_string()),
    ]
    .into();
    let key = key_of(&components);
    let store = shared.options.store;
    let kept = match of_archives {
        true => store
            .record(&key)
            .map_err(store_failed)?
            .and_then(|record| record.outputs.get(FIELD).copied())
            .filter(|stored| stored.length == total),
        false => None,
    };
    if let Some(content) = kept.and_then(|stored| from_store(shared, &stored)) {
        return Ok(Root {
            index: Arc::new(index),
            content: Arc::new(content),
        });
    }
    let mut wrong = None;
    let content = SealedBlob::written(|file| {
        file.set_len(total)?;
        write(shared, &places, file).map_err(|error| {
            wrong = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    let content = content.map_err(|error| failed(wrong.unwrap_or_else(|| error.to_string())))?;
    if of_archives {
        let mut writer = store.writer().map_err(store_failed)?;
        io::copy(&mut content.reader(), &mut writer).map_err(|error| failed(error.to_string()))?;
        let stored = writer.finish().map_err(store_failed)?;
        let record = Record {
            components,
            outputs: [(FIELD.to_owned(), stored)].into_iter().collect(),
            objects: Vec::new(),
        };
        store.put_record(&key, &record).map_err(store_failed)?;
    }
    Ok(Root {
        index: Arc::new(index),
        content: Arc::new(content),
    })
}

/// What was kept; `None`: it is not there any more, or damaged.
fn from_store(shared: &Shared<'_>, stored: &Stored) -> Option<SealedBlob> {
    let mut whole = false;
    let blob = SealedBlob::written(|file| {
        let copied = shared.options.store.copy_to(stored, file);
        whole = copied.map_err(io::Error::other)?;
        Ok(())
    });
    blob.ok().filter(|_| whole)
}

/// Writes all files at their places.
fn write(
    shared: &Shared<'_>,
    places: &BTreeMap<Digest, (u64, u64, &Origin)>,
    file: &File,
) -> Result<(), String> {
    let mut of_archives: BTreeMap<usize, BTreeMap<Digest, u64>> = BTreeMap::new();
    for (digest, (start, length, origin)) in places {
        match origin {
            Origin::Member { archive, .. } => {
                of_archives.entry(*archive).or_default().insert(*digest, *start);
            }
            Origin::File(path) => {
                let path = shared.plan.path(path);
                let bytes = fs_err::read(path.as_std_path()).map_err(|error| error.to_string())?;
                if bytes.len() as u64 != *length || Digest::of(&bytes) != *digest {
                    return Err(format!(
                        "{path} is not what it was when the run was planned; run again"
                    ));
                }
                file.write_all_at(&bytes, *start)
                    .map_err(|error| error.to_string())?;
            }
            Origin::Object | Origin::Absent => return Err(format!("{digest} stands nowhere")),
        }
    }
    for (archive, wanted) in of_archives {
        let written = match shared.options.archives {
            Some(archives) => archives.write_members(shared.plan, archive, &wanted, file),
            None => Err(SourceError::NoReader),
        };
        written.map_err(|error| {
            let shown = shared.plan.archives.get(archive);
            let shown = shown.map_or("?", |archive| archive.name.as_str());
            format!("{shown}: {error}")
        })?;
    }
    Ok(())
}
