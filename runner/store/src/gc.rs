//! Collecting what is not wanted any more.
//!
//! Records and memos are wanted as long as they were used lately and there is room; objects as long as a record that is
//! kept names them. Runs' folders are no part of the store and are never touched. Records go before the objects they name:
//! whatever stops a collection, no record is left that names an object which it took away.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hotcell_schema::digest::Digest;
use serde::Serialize;

use crate::access::{Hold, Opening, is_dead};
use crate::walk::{Progress, Tell};
use crate::{Kind, Store, StoreError, memos};

/// A file takes whole blocks of the disk.
const BLOCK: u64 = 4096;
/// Progress is told once for so many files.
const TOLD_EVERY: usize = 256;

/// What is kept.
#[derive(Debug, Clone)]
pub struct Keep {
    /// What was used no longer ago than this; without it: everything.
    pub used_within: Option<Duration>,
    /// What fits into so many bytes, the latest used first; without it: everything.
    pub max_bytes: Option<u64>,
    /// The time now.
    pub now: SystemTime,
}

/// What became of one kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Files that stay.
    pub kept: u64,
    /// Their size on disk.
    pub kept_bytes: u64,
    /// Files that go.
    pub removed: u64,
    /// Their size on disk.
    pub removed_bytes: u64,
}

impl Tally {
    fn keep(&mut self, bytes: u64) {
        self.kept += 1;
        self.kept_bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.removed += 1;
        self.removed_bytes += bytes;
    }
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Collected {
    /// What instances gave.
    pub records: Tally,
    /// Their bytes.
    pub objects: Tally,
    /// What can be made again.
    pub memos: Tally,
    /// Files that killed processes left half-written.
    pub leftovers: u64,
}

impl Collected {
    /// Files that go, and their size on disk.
    pub fn removed(&self) -> (u64, u64) {
        let all = [self.records, self.objects, self.memos];
        let files = all.iter().map(|tally| tally.removed).sum::<u64>() + self.leftovers;
        (files, all.iter().map(|tally| tally.removed_bytes).sum())
    }

    /// Files that stay, and their size on disk.
    pub fn kept(&self) -> (u64, u64) {
        let all = [self.records, self.objects, self.memos];
        (
            all.iter().map(|tally| tally.kept).sum(),
            all.iter().map(|tally| tally.kept_bytes).sum(),
        )
    }
}

/// A store that nobody else works with.
#[derive(Debug)]
pub struct Collector(Store);

impl Collector {
    /// Opens a store to collect in it; `None` where there is none. Where others work with it: waits for them, or fails with
    /// [`StoreError::Busy`].
    pub fn open(folder: &Path, wait: bool) -> Result<Option<Self>, StoreError> {
        if crate::version(folder)?.is_none() {
            return Ok(None);
        }
        let hold = Hold::alone(folder, wait)?;
        Ok(Some(Self(Store::new(folder, Some(hold), None))))
    }

    /// Removes what is not kept.
    pub fn collect(&self, keep: &Keep, tell: Tell<'_>) -> Result<Collected, StoreError> {
        let survey = look(&self.0, keep, tell)?;
        let of = survey.remove.len() as u64;
        if of > 0 {
            self.0.remark()?;
        }
        for (index, (kind, digest)) in survey.remove.iter().enumerate() {
            if index % TOLD_EVERY == 0 {
                tell(Progress {
                    doing: "removing",
                    done: index as u64,
                    of,
                });
            }
            remove(&self.0.path(*kind, digest))?;
        }
        let folder = self.0.folder();
        if folder.join("incoming").is_dir() {
            Opening::of(folder)?.remove_dead()?;
        }
        Ok(survey.collected)
    }
}

/// What a collection would do now. Nothing is written.
pub fn survey(store: &Store, keep: &Keep, tell: Tell<'_>) -> Result<Collected, StoreError> {
    Ok(look(store, keep, tell)?.collected)
}

struct Survey {
    collected: Collected,
    /// Records and memos first, then objects.
    remove: Vec<(Kind, Digest)>,
}

/// A record or memo that could be kept.
struct Root {
    kind: Kind,
    digest: Digest,
    bytes: u64,
    used: SystemTime,
    /// What it names, each once.
    objects: Vec<Digest>,
}

/// An object and how many records that are kept name it.
struct Object {
    bytes: u64,
    named: u64,
}

fn look(store: &Store, keep: &Keep, tell: Tell<'_>) -> Result<Survey, StoreError> {
    let mut collected = Collected {
        leftovers: leftovers(store)?,
        ..Collected::default()
    };
    let mut objects = HashMap::new();
    for digest in store.list(Kind::Objects)?.digests {
        if let Some((bytes, _)) = facts(&store.path(Kind::Objects, &digest))? {
            objects.insert(digest, Object { bytes, named: 0 });
        }
    }
    let mut remove = Vec::new();
    let mut roots = Vec::new();
    for kind in [Kind::Records, Kind::Memos] {
        let digests = store.list(kind)?.digests;
        let of = digests.len() as u64;
        for (index, digest) in digests.into_iter().enumerate() {
            if index % TOLD_EVERY == 0 {
                tell(Progress {
                    doing: "looking",
                    done: index as u64,
                    of,
                });
            }
            let Some((bytes, used)) = facts(&store.path(kind, &digest))? else {
                continue;
            };
            let lately = keep.used_within.is_none_or(|within| {
                // What was used in the future was used lately.
                keep.now.duration_since(used).map_or(true, |ago| ago <= within)
            });
            let named = match lately {
                true => names(store, kind, &digest, &objects)?,
                false => None,
            };
            match named {
                Some(objects) => roots.push(Root {
                    kind,
                    digest,
                    bytes,
                    used,
                    objects,
                }),
                None => {
                    collected.of(kind).remove(bytes);
                    remove.push((kind, digest));
                }
            }
        }
    }
    for root in &roots {
        for object in &root.objects {
            if let Some(object) = objects.get_mut(object) {
                object.named += 1;
            }
        }
    }
    let named: u64 = objects
        .values()
        .filter(|object| object.named > 0)
        .map(|object| object.bytes)
        .sum();
    let mut total = named + roots.iter().map(|root| root.bytes).sum::<u64>();
    // Least recently used first; the digest makes the order one, whatever the clock's steps.
    roots.sort_by_key(|root| (root.used, root.digest));
    for root in &roots {
        if keep.max_bytes.is_none_or(|most| total <= most) {
            collected.of(root.kind).keep(root.bytes);
            continue;
        }
        total -= root.bytes;
        for object in &root.objects {
            if let Some(object) = objects.get_mut(object) {
                object.named -= 1;
                if object.named == 0 {
                    total -= object.bytes;
                }
            }
        }
        collected.of(root.kind).remove(root.bytes);
        remove.push((root.kind, root.digest));
    }
    for (digest, object) in &objects {
        match object.named {
            0 => {
                collected.objects.remove(object.bytes);
                remove.push((Kind::Objects, *digest));
            }
            _ => collected.objects.keep(object.bytes),
        }
    }
    Ok(Survey { collected, remove })
}

impl Collected {
    fn of(&mut self, kind: Kind) -> &mut Tally {
        match kind {
            Kind::Objects => &mut self.objects,
            Kind::Records => &mut self.records,
            Kind::Memos => &mut self.memos,
        }
    }
}

/// The objects that a record or memo names, each once; `None` where it is worth nothing: damaged, or a record that names
/// what is not there.
fn names(
    store: &Store,
    kind: Kind,
    digest: &Digest,
    objects: &HashMap<Digest, Object>,
) -> Result<Option<Vec<Digest>>, StoreError> {
    if kind == Kind::Memos {
        let bytes = store.sealed(kind, digest, memos::MAX_BYTES)?;
        return Ok(bytes
            .and_then(|bytes| memos::open(digest, bytes))
            .map(|_| Vec::new()));
    }
    let Some(record) = store.sole_record(digest)? else {
        return Ok(None);
    };
    let mut named: Vec<Digest> = record.all_objects().map(|object| object.digest).collect();
    named.sort_unstable();
    named.dedup();
    let whole = named.iter().all(|digest| objects.contains_key(digest));
    Ok(whole.then_some(named))
}

/// Size on disk and time of last use; `None` where the file has gone.
fn facts(path: &Path) -> Result<Option<(u64, SystemTime)>, StoreError> {
    match fs_err::metadata(path) {
        Ok(facts) => Ok(Some((facts.len().next_multiple_of(BLOCK), facts.modified()?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// What stands in `incoming/`.
fn incoming(store: &Store) -> Result<Vec<std::path::PathBuf>, StoreError> {
    let folder = match fs_err::read_dir(store.folder().join("incoming")) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(folder
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?)
}

/// Half-written files of processes that are no more.
fn leftovers(store: &Store) -> Result<u64, StoreError> {
    let mut count = 0;
    for path in incoming(store)? {
        if !path.is_dir() {
            count += 1;
            continue;
        }
        if is_dead(&path) {
            let files = fs_err::read_dir(&path).map(Iterator::count).unwrap_or_default();
            count += files.saturating_sub(1) as u64;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, records};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A store with records `0..records`: each names an object of its own and one that all name.
    fn store(records: u8, now: SystemTime) -> (tempfile::TempDir, Vec<Digest>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut keys = Vec::new();
        for number in 0..records {
            let own = store.put(&[number; 5000]).unwrap();
            let shared = store.put(b"shared").unwrap();
            let record = Record {
                components: [("number".to_owned(), number.to_string())].into(),
                outputs: [("own".to_owned(), own), ("shared".to_owned(), shared)].into(),
                objects: vec![own],
            };
            let key = records::key_of(&record.components);
            store.put_record(&key, &record).unwrap();
            // The first was used longest ago.
            let used = now - DAY * u32::from(records - number);
            let file = std::fs::File::open(store.path(Kind::Records, &key)).unwrap();
            file.set_modified(used).unwrap();
            keys.push(key);
        }
        (folder, keys)
    }

    fn collect(folder: &Path, keep: &Keep) -> Collected {
        let reader = Store::open_existing(folder).unwrap().unwrap();
        let foreseen = survey(&reader, keep, &|_| {}).unwrap();
        drop(reader);
        let collector = Collector::open(folder, false).unwrap().unwrap();
        let collected = collector.collect(keep, &|_| {}).unwrap();
        assert_eq!(foreseen, collected);
        collected
    }

    fn left(folder: &Path, keys: &[Digest]) -> Vec<bool> {
        let store = Store::open_existing(folder).unwrap().unwrap();
        keys.iter()
            .map(|key| store.whole_record(key).unwrap().is_some())
            .collect()
    }

    #[test]
    fn what_no_record_names_goes_and_all_else_stays() {
        let now = SystemTime::now();
        let (folder, keys) = store(3, now);
        let store = Store::open(folder.path()).unwrap();
        store.put(b"nobody names me").unwrap();
        store.put_memo(&Digest::of(b"memo"), b"a memo").unwrap();
        drop(store);
        let broken = folder.path().join("records/ab");
        fs_err::create_dir_all(&broken).unwrap();
        fs_err::write(broken.join("0".repeat(62)), "torn").unwrap();
        fs_err::write(folder.path().join("incoming/part-old"), "half").unwrap();
        fs_err::create_dir(folder.path().join("incoming/writer-killed")).unwrap();
        let keep = Keep {
            used_within: None,
            max_bytes: None,
            now,
        };
        let collected = collect(folder.path(), &keep);
        assert_eq!((collected.objects.kept, collected.objects.removed), (4, 1));
        assert_eq!((collected.records.kept, collected.records.removed), (3, 1));
        assert_eq!((collected.memos.kept, collected.leftovers), (1, 1));
        assert_eq!(
            fs_err::read_dir(folder.path().join("incoming")).unwrap().count(),
            0
        );
        assert_eq!(left(folder.path(), &keys), [true; 3]);
        assert_eq!(collect(folder.path(), &keep).removed(), (0, 0));
    }

    #[test]
    fn what_was_not_used_lately_goes() {
        let now = SystemTime::now();
        let (folder, keys) = store(4, now);
        let keep = Keep {
            used_within: Some(DAY * 2 + DAY / 2),
            max_bytes: None,
            now,
        };
        let collected = collect(folder.path(), &keep);
        assert_eq!(left(folder.path(), &keys), [false, false, true, true]);
        assert_eq!((collected.objects.kept, collected.objects.removed), (3, 2));
    }

    #[test]
    fn what_does_not_fit_goes_the_oldest_first() {
        let now = SystemTime::now();
        let (folder, keys) = store(4, now);
        // Each record with its own object takes two blocks (5000 equal bytes are few), the shared object one.
        let keep = |max_bytes| Keep {
            used_within: None,
            max_bytes: Some(max_bytes),
            now,
        };
        assert_eq!(collect(folder.path(), &keep(9 * BLOCK)).removed(), (0, 0));
        let collected = collect(folder.path(), &keep(9 * BLOCK - 1));
        assert_eq!(left(folder.path(), &keys), [false, true, true, true]);
        assert_eq!(collected.kept(), (7, 7 * BLOCK));
        collect(folder.path(), &keep(5 * BLOCK));
        assert_eq!(left(folder.path(), &keys), [false, false, true, true]);
        let collected = collect(folder.path(), &keep(0));
        assert_eq!(collected.kept(), (0, 0));
        assert_eq!(left(folder.path(), &keys), [false; 4]);
    }

    #[test]
    fn nothing_is_collected_while_someone_works_and_nobody_begins_meanwhile() {
        let (folder, _) = store(1, SystemTime::now());
        let working = Store::open(folder.path()).unwrap();
        let busy = Collector::open(folder.path(), false).unwrap_err();
        assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
        drop(working);
        let collector = Collector::open(folder.path(), false).unwrap().unwrap();
        let busy = Store::open(folder.path()).unwrap_err();
        assert!(busy.to_string().contains("hotcell store gc"), "{busy}");
        // To look is allowed.
        assert!(Store::open_existing(folder.path()).unwrap().is_some());
        drop(collector);
        Store::open(folder.path()).unwrap();
    }
}
