//! Records and the objects they name as one file, to carry from one machine to another.
//!
//! ```text
//! hotcell-store-export 1\n           the only line that is not compressed
//! one zstd frame of entries:
//!   kind 1 byte, digest 32 bytes, length 8 bytes (little-endian), that many bytes
//!     'o'  an object, by the digest of its bytes       sorted by digest
//!     'r'  a record as JSON, by its cache key          sorted by key, after all objects
//!     'e'  the end: the digest of everything before it, and nothing behind it
//! ```
//! The same records give the same file: it holds no time, place or name.
//!
//! Who imports a file believes what its records say of programs that ran elsewhere. Everything else is checked: an object
//! is placed under the digest of its own bytes, a record under the key that its own components make, and only when every
//! object it names is there. No path comes from the file.

mod export;
mod import;

use crate::StoreError;

pub use export::{Exported, export};
pub use import::{Imported, Limits, Told, import};

/// First line of a file.
pub const HEADER: &str = "hotcell-store-export 1";

const OBJECT: u8 = b'o';
const RECORD: u8 = b'r';
const END: u8 = b'e';

/// zstd's level: a file is written once and carried about.
const LEVEL: i32 = 6;

/// A file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(std::io::Error),
    /// The file cannot be read, or ends too early, or is damaged where it is compressed.
    #[error("the export cannot be read: {0}")]
    Read(std::io::Error),
    /// It is no such file.
    #[error("this is no export of a store: it does not begin with `{HEADER}`")]
    Foreign,
    /// It is one of another version.
    #[error("this export says `{0}`, and this version of hotcell reads `{HEADER}`")]
    Version(String),
    /// It is damaged.
    #[error("the export is damaged: {0}")]
    Damaged(&'static str),
    /// It is more than is taken.
    #[error("the export is larger than is allowed: {0}")]
    TooLarge(String),
    /// An object changed while it was being read.
    #[error("object {0} changed while it was being read; run `hotcell store verify`")]
    Changed(hotcell_schema::digest::Digest),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;

    use hotcell_schema::digest::Digest;

    use super::*;
    use crate::records::key_of;
    use crate::{Kind, Record, Store};

    fn fill(store: &Store, numbers: std::ops::Range<u8>) -> Vec<Digest> {
        let mut keys = Vec::new();
        for number in numbers {
            let own = store.put(&vec![number; 1000 * usize::from(number)]).unwrap();
            let record = Record {
                components: [("number".to_owned(), number.to_string())].into(),
                outputs: [
                    ("own".to_owned(), own),
                    ("shared".to_owned(), store.put(b"shared").unwrap()),
                ]
                .into(),
                objects: vec![store.put(&[number; 3]).unwrap()],
            };
            keys.push(key_of(&record.components));
            store.put_record(keys.last().unwrap(), &record).unwrap();
        }
        keys
    }

    fn exported(store: &Store, keys: Option<&BTreeSet<Digest>>) -> (Vec<u8>, Exported) {
        let mut out = Vec::new();
        let told = export(store, keys, &mut out, &|_| {}).unwrap();
        (out, told)
    }

    fn imported(store: &Store, bytes: &[u8]) -> Result<Imported, ArchiveError> {
        import(store, bytes, Limits::default(), &|_| {})
    }

    /// Entries as a file, with a right end.
    fn archive(entries: &[(u8, Digest, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, digest, bytes) in entries {
            body.push(*kind);
            body.extend(digest.as_bytes());
            body.extend((bytes.len() as u64).to_le_bytes());
            body.extend(*bytes);
        }
        let end = Digest::of(&body);
        body.push(END);
        body.extend(end.as_bytes());
        body.extend([0; 8]);
        compressed(&body)
    }

    fn compressed(body: &[u8]) -> Vec<u8> {
        let mut file = format!("{HEADER}\n").into_bytes();
        let mut encoder = zstd::Encoder::new(&mut file, 1).unwrap();
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap();
        file
    }

    #[test]
    fn what_goes_out_comes_in_and_gives_the_same_file() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (
            Store::open(here.path()).unwrap(),
            Store::open(there.path()).unwrap(),
        );
        let keys = fill(&here, 0..20);
        here.put(b"nobody names me").unwrap();
        let (file, told) = exported(&here, None);
        assert_eq!((told.records, told.objects), (20, 41));
        let first = imported(&there, &file).unwrap();
        assert_eq!((first.objects.new, first.records.new), (41, 20));
        for key in &keys {
            assert_eq!(there.whole_record(key).unwrap(), here.whole_record(key).unwrap());
        }
        let again = imported(&there, &file).unwrap();
        assert_eq!((again.objects.known, again.records.known), (41, 20));
        assert_eq!((again.objects.new, again.records.refused), (0, 0));
        assert!(exported(&there, None).0 == file);
        // A part of it, and something that is not there.
        let some: BTreeSet<Digest> = [keys[3], keys[7], Digest::of(b"absent")].into();
        let (_, told) = exported(&here, Some(&some));
        assert_eq!(
            (told.records, told.objects, told.absent),
            (2, 5, vec![Digest::of(b"absent")])
        );
    }

    #[test]
    fn nothing_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let good = store.put(b"good").unwrap();
        let record = |port: &str, stored| Record {
            components: [("a".to_owned(), "b".to_owned())].into(),
            outputs: [(port.to_owned(), stored)].into(),
            objects: Vec::new(),
        };
        let json = |record: &Record| serde_json::to_vec(record).unwrap();
        let key = key_of(&record("x", good).components);
        let absent = crate::Stored {
            digest: Digest::of(b"absent"),
            length: 6,
        };
        let longer = crate::Stored { length: 5, ..good };
        let refused: Vec<(u8, Digest, Vec<u8>)> = vec![
            (OBJECT, Digest::of(b"else"), b"bytes".to_vec()),
            (OBJECT, good.digest, b"evil".to_vec()),
            (OBJECT, good.digest, b"longer".to_vec()),
            (RECORD, Digest::of(b"else"), json(&record("x", good))),
            (RECORD, key, json(&record("../x", good))),
            (RECORD, key, json(&record("x", absent))),
            (RECORD, key, json(&record("x", longer))),
            (RECORD, key, b"{}".to_vec()),
            (RECORD, key, b"\xff".to_vec()),
        ];
        for (index, (kind, digest, bytes)) in refused.iter().enumerate() {
            let told = imported(&store, &archive(&[(*kind, *digest, bytes)])).unwrap();
            // An object that is there already is not read from the file.
            let known = told.objects.known + told.records.known + told.objects.new + told.records.new;
            let wrong = told.objects.refused + told.records.refused;
            assert_eq!(
                (known, wrong),
                if index == 1 { (1, 0) } else { (0, 1) },
                "{index}"
            );
            store.read_afresh();
            assert_eq!(store.get(&good).unwrap().as_deref(), Some(&b"good"[..]));
            assert_eq!(store.whole_record(&key).unwrap(), None);
        }
        // What is there and whole is not replaced, not even by what is whole as well.
        store.put_record(&key, &record("first", good)).unwrap();
        let told = imported(&store, &archive(&[(RECORD, key, &json(&record("second", good)))])).unwrap();
        assert_eq!(told.records.known, 1);
        assert!(store.record(&key).unwrap().unwrap().outputs.contains_key("first"));
        // A damaged object is replaced by a whole one.
        let path = store.path(Kind::Objects, &good.digest);
        fs_err::write(&path, "damage").unwrap();
        store.read_afresh();
        let told = imported(&store, &archive(&[(OBJECT, good.digest, b"good")])).unwrap();
        assert_eq!(told.objects.new, 1);
        assert!(store.check(&good).unwrap());
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_places_nothing_wrong() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let here = Store::open(here.path()).unwrap();
        let keys = fill(&here, 0..3);
        let (file, _) = exported(&here, None);
        let there = Store::open(there.path()).unwrap();
        for at in 0..file.len() {
            assert!(imported(&there, &file[..at]).is_err(), "cut to {at}");
            let mut changed = file.clone();
            changed[at] ^= 0x11;
            // zstd ignores a few bits of its header; then all is right all the same.
            let _ = imported(&there, &changed);
        }
        there.read_afresh();
        let verified = crate::verify::verify(&there, false, &|_| {}).unwrap();
        assert_eq!(verified.wrong(), 0);
        for key in &keys {
            let found = there.whole_record(key).unwrap();
            assert!(found.is_none_or(|found| Some(found) == here.record(key).unwrap()));
        }
    }

    #[test]
    fn a_file_is_followed_only_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut bomb = vec![OBJECT];
        bomb.extend([7; 32]);
        bomb.extend(u64::MAX.to_le_bytes());
        bomb.resize(50 << 20, 0);
        let limits = Limits {
            bytes: 1 << 20,
            entries: 2,
        };
        let read = |bytes: &[u8]| import(&store, bytes, limits, &|_| {});
        assert!(matches!(read(&compressed(&bomb)), Err(ArchiveError::TooLarge(_))));
        let one = (OBJECT, Digest::of(b""), &b""[..]);
        assert!(read(&archive(&[one, one])).is_ok());
        assert!(matches!(
            read(&archive(&[one, one, one])),
            Err(ArchiveError::TooLarge(_))
        ));
        let mut record = vec![RECORD];
        record.extend([7; 32]);
        record.extend((1u64 << 40).to_le_bytes());
        assert!(matches!(
            read(&compressed(&record)),
            Err(ArchiveError::TooLarge(_))
        ));
        let mut more = archive(&[one]);
        more.extend(b"more");
        assert!(matches!(read(&more), Err(ArchiveError::Damaged(_))));
        assert!(matches!(read(b"#!/bin/sh\n"), Err(ArchiveError::Foreign)));
        assert!(matches!(read(b""), Err(ArchiveError::Foreign)));
        assert!(matches!(
            read(b"hotcell-store-export 2\n"),
            Err(ArchiveError::Version(_))
        ));
    }
}
