//! Records: what an instance with a given cache key gave.
//!
//! A record's first line is its format and the digest of its key and the rest; a record that does not fit is a miss. So a
//! record that came under another's name, torn or changed in any byte, says nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use hotcell_schema::digest::Digest;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::objects::Stored;
use crate::{Kind, Store, StoreError, form};

/// Format and version, at the start of the first line.
const HEAD: &str = "hotcell-record 2";
/// The version before: its digest is of the rest alone.
const HEAD_BEFORE: &str = "hotcell-record 1";
/// No record is larger: a record names outputs, it does not hold them.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
/// Longest name of a port.
const MAX_PORT: usize = 200;
/// Version of the way keys are made.
const KEY_VERSION: &str = "hotcell-key 1";
/// When something is used, its time is written anew, unless that was done less than this ago.
const TOUCHED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The parts of a cache key by name, each as a digest or a short text.
pub type Components = BTreeMap<String, String>;

/// The cache key of an instance, made of its components.
pub fn key_of(components: &Components) -> Digest {
    key_of_sorted(
        components
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// The same of components that stand in no map: sorted by their names, each once.
pub fn key_of_sorted<'a>(components: impl Iterator<Item = (&'a str, &'a str)>) -> Digest {
    let parts = components.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    Digest::of_parts(std::iter::once(KEY_VERSION.as_bytes()).chain(parts))
}

/// What an instance gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The cache key's components, for `explain`.
    pub components: Components,
    /// Outputs by port.
    pub outputs: IndexMap<String, Stored>,
    /// Objects that outputs name in turn (the files of a `files` output).
    #[serde(default)]
    pub objects: Vec<Stored>,
}

impl Record {
    /// Every object that it names.
    pub fn all_objects(&self) -> impl Iterator<Item = &Stored> {
        self.outputs.values().chain(&self.objects)
    }

    /// Whether ports have names that can stand in paths: a record may come from another machine.
    pub(crate) fn is_sound(&self) -> bool {
        self.outputs.keys().all(|port| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=MAX_PORT).contains(&port.len()) && !port.starts_with('.') && port.bytes().all(plain)
        })
    }
}

impl Store {
    /// What the instance with this key gave; `None` where nothing is stored, or anything it names is gone.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let record = self.sole_record(key)?;
        Ok(record.filter(|record| record.all_objects().all(|object| self.has(object))))
    }

    /// What the instance with this key gave, with every byte of it read and found right; for those who will use it.
    pub fn whole_record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let Some(record) = self.sole_record(key)? else {
            return Ok(None);
        };
        for object in record.all_objects() {
            if !self.check(object)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// The record alone, whatever became of what it names.
    pub(crate) fn sole_record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let bytes = self.sealed(Kind::Records, key, MAX_BYTES)?;
        Ok(bytes.and_then(|bytes| parse(key, &bytes)))
    }

    /// Stores what the instance with this key gave. Its objects are stored before. Where something else was stored, the store
    /// has a new mark: who noted what was here must look again.
    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        let body = serde_json::to_vec(record)?;
        let head = format!("{HEAD} {}\n", seal(key, &body));
        let before = self.sole_record(key).unwrap_or_default();
        let is_other =
            before.is_some_and(|before| before.outputs != record.outputs || before.objects != record.objects);
        // Before and after: whoever is killed, or looks, between the two finds a mark that is not the old one.
        if is_other {
            self.remark()?;
        }
        self.place(&[head.as_bytes(), &body], &self.path(Kind::Records, key))?;
        if is_other {
            self.remark()?;
        }
        Ok(())
    }

    /// The file under a key, and notes that it was used. `None` where there is none, or it is larger than allowed.
    pub(crate) fn sealed(&self, kind: Kind, key: &Digest, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(kind, key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(form::unreadable(&path, &error)),
        };
        let bytes = contents(&file, &path, most)?;
        if bytes.is_some() {
            self.touch(&file);
        }
        Ok(bytes)
    }

    /// Notes that something was used, for those who collect what was not.
    fn touch(&self, file: &File) {
        let Some(incoming) = &self.0.incoming else { return };
        let now = incoming.opened();
        let Ok(used) = file.metadata().and_then(|facts| facts.modified()) else {
            return;
        };
        if now.duration_since(used).is_ok_and(|ago| ago >= TOUCHED_EVERY) {
            // A time that cannot be written makes this look older than it is, which costs a run, not a result.
            let _ = file.set_modified(now);
        }
    }
}

/// All of a small file, or `None` where it is larger than allowed.
pub(crate) fn contents(file: &File, path: &Path, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::with_capacity(4096);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| form::unreadable(path, &error))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Binds what stands under a key to that key.
pub(crate) fn seal(key: &Digest, body: &[u8]) -> Digest {
    Digest::of_parts([key.as_bytes(), body])
}

/// What stands behind the first line, where that line is right.
pub(crate) fn unseal<'a>(head: &str, key: &Digest, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (digest, body) = split(head, bytes)?;
    (seal(key, body) == digest).then_some(body)
}

fn split<'a>(head: &str, bytes: &'a [u8]) -> Option<(Digest, &'a [u8])> {
    let rest = bytes.strip_prefix(head.as_bytes())?.strip_prefix(b" ")?;
    let (digest, body) = rest.split_at_checked(64)?;
    let digest = std::str::from_utf8(digest).ok()?.parse().ok()?;
    Some((digest, body.strip_prefix(b"\n")?))
}

pub(crate) fn parse(key: &Digest, bytes: &[u8]) -> Option<Record> {
    let body = match split(HEAD_BEFORE, bytes) {
        Some((digest, body)) => (Digest::of(body) == digest).then_some(body),
        None => unseal(HEAD, key, bytes),
    }?;
    let record: Record = serde_json::from_slice(body).ok()?;
    record.is_sound().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(store: &Store) -> Record {
        Record {
            components: [("seed".to_owned(), "7".to_owned())].into(),
            outputs: [("stdout".to_owned(), store.put(b"hello").unwrap())]
                .into_iter()
                .collect(),
            objects: vec![store.put(b"dropped").unwrap()],
        }
    }

    #[test]
    fn a_record_comes_back_only_with_all_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        assert_eq!(store.record(&key).unwrap(), None);
        let record = record(&store);
        store.put_record(&key, &record).unwrap();
        assert_eq!(store.record(&key).unwrap(), Some(record.clone()));
        fs_err::remove_file(store.path(Kind::Objects, &record.objects[0].digest)).unwrap();
        store.read_afresh();
        assert_eq!(store.record(&key).unwrap(), None);
    }

    #[test]
    fn any_change_of_a_record_makes_it_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        store.put_record(&key, &record(&store)).unwrap();
        let path = store.path(Kind::Records, &key);
        let whole = fs_err::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs_err::write(&path, &damaged).unwrap();
            assert_eq!(store.record(&key).unwrap(), None, "byte {at}");
            fs_err::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.record(&key).unwrap(), None, "cut to {at}");
        }
    }

    #[test]
    fn a_record_under_another_key_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        let record = record(&store);
        store.put_record(&key, &record).unwrap();
        store.put_record(&other, &record).unwrap();
        let bytes = fs_err::read(store.path(Kind::Records, &key)).unwrap();
        fs_err::write(store.path(Kind::Records, &other), &bytes).unwrap();
        assert_eq!(store.record(&other).unwrap(), None);
        assert_eq!(store.record(&key).unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_the_version_before_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let record = record(&store);
        store.put_record(&key, &record).unwrap();
        let body = serde_json::to_vec(&record).unwrap();
        let mut bytes = format!("hotcell-record 1 {}\n", Digest::of(&body)).into_bytes();
        bytes.extend(&body);
        fs_err::write(store.path(Kind::Records, &key), &bytes).unwrap();
        assert_eq!(store.record(&key).unwrap(), Some(record));
    }

    #[test]
    fn a_port_never_leads_out_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        for port in ["../x", "/etc/x", "a/b", "", ".", "a\0"] {
            let mut record = record(&store);
            let stored = store.put(b"hello").unwrap();
            record.outputs.insert(port.to_owned(), stored);
            store.put_record(&key, &record).unwrap();
            assert_eq!(store.record(&key).unwrap(), None, "{port:?}");
        }
    }

    #[test]
    fn what_is_used_is_marked_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        store.put_record(&key, &record(&store)).unwrap();
        let path = store.path(Kind::Records, &key);
        let age = |hours: u64| {
            let used = store.incoming().unwrap().opened() - Duration::from_secs(hours * 3600);
            File::open(&path).unwrap().set_modified(used).unwrap();
            store.record(&key).unwrap();
            fs_err::metadata(&path).unwrap().modified().unwrap() != used
        };
        assert!(!age(23));
        assert!(age(25));
    }

    #[test]
    fn a_store_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap();
        fs_err::write(folder.path().join("version"), "hotcell-store 9\n").unwrap();
        assert!(matches!(
            Store::open(folder.path()),
            Err(StoreError::Version { .. })
        ));
    }
}
