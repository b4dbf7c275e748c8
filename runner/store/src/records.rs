//! Records: what an instance with a given cache key gave.
//!
//! A record's first line is its format and the digest of the rest; a record that does not fit its digest is a miss.

use std::collections::BTreeMap;
use std::io;

use hotcell_schema::digest::Digest;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::objects::Stored;
use crate::{Store, StoreError};

/// Format and version, at the start of the first line.
const HEAD: &str = "hotcell-record 1";
/// No record is larger: a record names outputs, it does not hold them.
const MAX_BYTES: u64 = 16 << 20;

/// What an instance gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The cache key's components, for `explain`.
    pub components: BTreeMap<String, String>,
    /// Outputs by port.
    pub outputs: IndexMap<String, Stored>,
    /// Objects that outputs name in turn (the files of a `files` output).
    #[serde(default)]
    pub objects: Vec<Stored>,
}

impl Store {
    /// What the instance with this key gave; `None` where nothing is stored, or anything it names is gone or damaged.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.path("records", key);
        match fs_err::metadata(&path) {
            Ok(facts) if facts.len() <= MAX_BYTES => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(record) = parse(&bytes) else {
            return Ok(None);
        };
        let whole = record
            .outputs
            .values()
            .chain(&record.objects)
            .all(|object| self.has(object));
        Ok(whole.then_some(record))
    }

    /// What the instance with this key gave, with every byte of it read and found right; for those who will use it.
    pub fn whole_record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let Some(record) = self.record(key)? else {
            return Ok(None);
        };
        for object in record.outputs.values().chain(&record.objects) {
            if !self.check(object)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// Stores what the instance with this key gave. Its objects are stored before.
    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        let body = serde_json::to_vec(record)?;
        let mut bytes = format!("{HEAD} {}\n", Digest::of(&body)).into_bytes();
        bytes.extend(body);
        self.place(&bytes, &self.path("records", key))
    }
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let digest: Digest = std::str::from_utf8(head)
        .ok()?
        .strip_prefix(HEAD)?
        .trim_start()
        .parse()
        .ok()?;
    if Digest::of(body) != digest {
        return None;
    }
    serde_json::from_slice(body).ok()
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
        fs_err::remove_file(store.path("objects", &record.objects[0].digest)).unwrap();
        assert_eq!(store.record(&key).unwrap(), None);
    }

    #[test]
    fn any_change_of_a_record_makes_it_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        store.put_record(&key, &record(&store)).unwrap();
        let path = store.path("records", &key);
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
