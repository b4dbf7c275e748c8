//! Every file of a store, read and judged.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use hotcell_schema::digest::Digest;
use serde::Serialize;

use crate::objects::remove_same;
use crate::walk::{Progress, Tell};
use crate::{Kind, Store, StoreError, form, memos};

/// So many problems are named; the rest is counted.
const NAMED: usize = 1000;
/// Progress is told once for so many files.
const TOLD_EVERY: usize = 64;

/// How the files of one kind are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Judged {
    /// All that it says is right.
    pub whole: u64,
    /// It is not what its name promises.
    pub damaged: u64,
    /// The disk would not give it.
    pub unreadable: u64,
    /// Whole, but names an object that is not there or not whole.
    pub incomplete: u64,
    /// Whole, and no record names it: what a killed run leaves. No harm; a collection takes it.
    pub orphaned: u64,
    /// Files that are none of the store's.
    pub strangers: u64,
    /// Of those that are wrong, how many were removed.
    pub removed: u64,
}

impl Judged {
    fn wrong(&self) -> u64 {
        self.damaged + self.unreadable + self.incomplete
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// It is not what its name promises.
    Damaged,
    /// The disk would not give it.
    Unreadable,
    /// It names an object that is not there or not whole.
    Incomplete,
}

/// A file that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its folder in the store: `objects`, `records` or `memos`.
    pub kind: &'static str,
    /// The digest that it is named by.
    pub digest: Digest,
    /// What is wrong.
    pub wrong: Wrong,
}

/// How a store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Bytes by their digest.
    pub objects: Judged,
    /// What instances gave.
    pub records: Judged,
    /// What can be made again.
    pub memos: Judged,
    /// The first thousand files that are wrong.
    pub problems: Vec<Problem>,
}

impl Verified {
    /// How many files are wrong.
    pub fn wrong(&self) -> u64 {
        self.objects.wrong() + self.records.wrong() + self.memos.wrong()
    }

    fn of(&mut self, kind: Kind) -> &mut Judged {
        match kind {
            Kind::Objects => &mut self.objects,
            Kind::Records => &mut self.records,
            Kind::Memos => &mut self.memos,
        }
    }
}

/// Reads everything in a store. What is wrong is removed where that is wanted, for which the store must be open to work
/// with; a run then makes it again.
pub fn verify(store: &Store, repair: bool, tell: Tell<'_>) -> Result<Verified, StoreError> {
    if repair {
        store.incoming()?;
        store.remark()?;
    }
    let mut judge = Judge {
        store,
        repair,
        verified: Verified::default(),
        whole: HashSet::new(),
        named: HashSet::new(),
    };
    for kind in [Kind::Objects, Kind::Records, Kind::Memos] {
        let listing = store.list(kind)?;
        judge.verified.of(kind).strangers = listing.strangers;
        let of = listing.digests.len() as u64;
        for (index, digest) in listing.digests.iter().enumerate() {
            if index % TOLD_EVERY == 0 {
                tell(Progress {
                    doing: kind.folder(),
                    done: index as u64,
                    of,
                });
            }
            judge.file(kind, digest)?;
        }
    }
    let orphaned = judge.whole.difference(&judge.named).count() as u64;
    judge.verified.objects.orphaned = orphaned;
    Ok(judge.verified)
}

struct Judge<'a> {
    store: &'a Store,
    repair: bool,
    verified: Verified,
    /// Objects that are there and right, with their lengths.
    whole: HashSet<(Digest, u64)>,
    /// Objects that records name.
    named: HashSet<(Digest, u64)>,
}

impl Judge<'_> {
    fn file(&mut self, kind: Kind, digest: &Digest) -> Result<(), StoreError> {
        let path = self.store.path(kind, digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Someone else removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => return self.wrong(kind, digest, Wrong::Unreadable, None),
        };
        let judged = match kind {
            Kind::Objects => self.object(digest, &file),
            Kind::Records => self.record(digest, &file),
            Kind::Memos => self.memo(digest, &file),
        };
        match judged {
            Ok(None) => self.verified.of(kind).whole += 1,
            Ok(Some(wrong)) => return self.wrong(kind, digest, wrong, Some(&file)),
            Err(_) => return self.wrong(kind, digest, Wrong::Unreadable, Some(&file)),
        }
        Ok(())
    }

    fn object(&mut self, digest: &Digest, file: &File) -> Result<Option<Wrong>, StoreError> {
        let path = self.store.path(Kind::Objects, digest);
        let found = form::digest_of(file, &path, u64::MAX)?;
        match found {
            Some((found, length)) if found == *digest => {
                self.whole.insert((found, length));
                Ok(None)
            }
            _ => Ok(Some(Wrong::Damaged)),
        }
    }

    fn record(&mut self, key: &Digest, file: &File) -> Result<Option<Wrong>, StoreError> {
        let path = self.store.path(Kind::Records, key);
        let bytes = crate::records::contents(file, &path, crate::records::MAX_BYTES)?;
        let Some(record) = bytes.and_then(|bytes| crate::records::parse(key, &bytes)) else {
            return Ok(Some(Wrong::Damaged));
        };
        let names = || record.all_objects().map(|object| (object.digest, object.length));
        self.named.extend(names());
        // An object may have come since objects were read.
        let complete = |name: &(Digest, u64)| {
            let object = crate::Stored {
                digest: name.0,
                length: name.1,
            };
            self.whole.contains(name) || self.store.is_whole(&object).unwrap_or(false)
        };
        Ok((!names().all(|name| complete(&name))).then_some(Wrong::Incomplete))
    }

    fn memo(&mut self, key: &Digest, file: &File) -> Result<Option<Wrong>, StoreError> {
        let path = self.store.path(Kind::Memos, key);
        let bytes = crate::records::contents(file, &path, memos::MAX_BYTES)?;
        let whole = bytes.and_then(|bytes| memos::open(key, bytes)).is_some();
        Ok((!whole).then_some(Wrong::Damaged))
    }

    fn wrong(
        &mut self,
        kind: Kind,
        digest: &Digest,
        wrong: Wrong,
        file: Option<&File>,
    ) -> Result<(), StoreError> {
        if self.verified.problems.len() < NAMED {
            self.verified.problems.push(Problem {
                kind: kind.folder(),
                digest: *digest,
                wrong,
            });
        }
        let path = self.store.path(kind, digest);
        let judged = self.verified.of(kind);
        match wrong {
            Wrong::Damaged => judged.damaged += 1,
            Wrong::Unreadable => judged.unreadable += 1,
            Wrong::Incomplete => judged.incomplete += 1,
        }
        if self.repair {
            match file {
                Some(file) => remove_same(&path, file)?,
                None => fs_err::remove_file(&path)?,
            }
            self.verified.of(kind).removed += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;
    use crate::records::key_of;

    #[test]
    fn every_kind_of_damage_is_told_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut keys = Vec::new();
        for number in 0..4u8 {
            let record = Record {
                components: [("number".to_owned(), number.to_string())].into(),
                outputs: [("own".to_owned(), store.put(&[number; 9000]).unwrap())].into(),
                objects: Vec::new(),
            };
            let key = key_of(&record.components);
            store.put_record(&key, &record).unwrap();
            keys.push((key, record.outputs["own"].digest));
        }
        store.put(b"orphan").unwrap();
        store.put_memo(&keys[0].0, b"memo").unwrap();
        let clean = verify(&store, false, &|_| {}).unwrap();
        assert_eq!(clean.wrong(), 0);
        assert_eq!((clean.objects.whole, clean.objects.orphaned), (5, 1));
        assert_eq!((clean.records.whole, clean.memos.whole), (4, 1));

        let damage = |kind, digest| fs_err::write(store.path(kind, digest), "damage").unwrap();
        damage(Kind::Objects, &keys[0].1);
        fs_err::remove_file(store.path(Kind::Objects, &keys[1].1)).unwrap();
        damage(Kind::Records, &keys[2].0);
        damage(Kind::Memos, &keys[0].0);
        fs_err::write(folder.path().join("objects/README"), "what is this").unwrap();
        let reader = Store::open_existing(folder.path()).unwrap().unwrap();
        let found = verify(&reader, false, &|_| {}).unwrap();
        assert_eq!((found.objects.damaged, found.objects.strangers), (1, 1));
        assert_eq!((found.records.damaged, found.records.incomplete), (1, 2));
        assert_eq!(
            (found.memos.damaged, found.wrong(), found.problems.len()),
            (1, 5, 5)
        );
        assert!(verify(&reader, true, &|_| {}).is_err());
        assert_eq!(verify(&reader, false, &|_| {}).unwrap(), found);

        store.read_afresh();
        let mended = verify(&store, true, &|_| {}).unwrap();
        assert_eq!(mended.wrong(), 5);
        assert_eq!(
            mended.objects.removed + mended.records.removed + mended.memos.removed,
            5
        );
        let after = verify(&store, false, &|_| {}).unwrap();
        assert_eq!((after.wrong(), after.records.whole), (0, 1));
        assert!(store.whole_record(&keys[3].0).unwrap().is_some());
    }
}
