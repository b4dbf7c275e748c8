//! Out of a store.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

use hotcell_schema::digest::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{ArchiveError, END, HEADER, LEVEL, OBJECT, RECORD};
use crate::walk::{Progress, Tell};
use crate::{Kind, Record, Store, StoreError, Stored, form, trouble};

/// Progress is told once for so many entries.
const TOLD_EVERY: usize = 64;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Exported {
    /// How many records.
    pub records: u64,
    /// How many objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Keys that were asked for and for which the store has nothing whole.
    pub absent: Vec<Digest>,
}

/// Writes the records with the given keys, or all that are whole, and the objects they name.
pub fn export<W: Write>(
    store: &Store,
    keys: Option<&BTreeSet<Digest>>,
    out: W,
    tell: Tell<'_>,
) -> Result<Exported, ArchiveError> {
    let mut exported = Exported::default();
    let all;
    let wanted = match keys {
        Some(keys) => keys,
        None => {
            all = store.list(Kind::Records)?.digests.into_iter().collect();
            &all
        }
    };
    let mut objects: BTreeSet<(Digest, u64)> = BTreeSet::new();
    let mut found = Vec::new();
    for (index, key) in wanted.iter().enumerate() {
        tell_of(tell, "reading records", index, wanted.len());
        match whole(store, key)? {
            Some(record) => {
                objects.extend(record.all_objects().map(|object| (object.digest, object.length)));
                found.push(*key);
            }
            None if keys.is_some() => exported.absent.push(*key),
            None => {}
        }
    }
    let mut writer = Writer::new(out)?;
    for (index, (digest, length)) in objects.iter().enumerate() {
        tell_of(tell, "writing objects", index, objects.len());
        let object = Stored {
            digest: *digest,
            length: *length,
        };
        writer.object(store, &object)?;
        exported.objects += 1;
        exported.bytes += length;
    }
    for key in &found {
        // Read again: all of them at once may be more than memory has room for.
        let record = store.sole_record(key)?.ok_or(ArchiveError::Changed(*key))?;
        let body = serde_json::to_vec(&record).map_err(StoreError::from)?;
        writer.head(RECORD, key, body.len() as u64)?;
        writer.bytes(&body)?;
        exported.records += 1;
    }
    writer.end()?;
    Ok(exported)
}

fn tell_of(tell: Tell<'_>, doing: &'static str, done: usize, of: usize) {
    if done.is_multiple_of(TOLD_EVERY) {
        tell(Progress {
            doing,
            done: done as u64,
            of: of as u64,
        });
    }
}

/// A record whose key is made of its components and whose objects are all there and right.
fn whole(store: &Store, key: &Digest) -> Result<Option<Record>, StoreError> {
    let Some(record) = store.sole_record(key)? else {
        return Ok(None);
    };
    if crate::records::key_of(&record.components) != *key {
        return Ok(None);
    }
    for object in record.all_objects() {
        if !store.check(object)? {
            return Ok(None);
        }
    }
    Ok(Some(record))
}

struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    hash: Sha256,
}

impl<W: Write> Writer<W> {
    fn new(mut out: W) -> Result<Self, ArchiveError> {
        writeln!(out, "{HEADER}").map_err(ArchiveError::Write)?;
        let mut out = zstd::Encoder::new(out, LEVEL).map_err(ArchiveError::Write)?;
        out.include_checksum(true).map_err(ArchiveError::Write)?;
        Ok(Self {
            out,
            hash: Sha256::new(),
        })
    }

    fn head(&mut self, kind: u8, digest: &Digest, length: u64) -> Result<(), ArchiveError> {
        self.bytes(&[kind])?;
        self.bytes(digest.as_bytes())?;
        self.bytes(&length.to_le_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(ArchiveError::Write)
    }

    fn object(&mut self, store: &Store, object: &Stored) -> Result<(), ArchiveError> {
        self.head(OBJECT, &object.digest, object.length)?;
        let path = store.path(Kind::Objects, &object.digest);
        let file = File::open(&path).map_err(|error| trouble("open", &path, &error))?;
        let mut taken = Taken {
            writer: self,
            hash: Sha256::new(),
            length: 0,
            error: None,
        };
        let copied = form::copy(&file, object.length, &mut taken);
        if let Some(error) = taken.error {
            return Err(error);
        }
        let (length, digest) = (taken.length, Digest::from_bytes(taken.hash.finalize().into()));
        copied.map_err(|error| form::unreadable(&path, &error))?;
        match length == object.length && digest == object.digest {
            true => Ok(()),
            false => Err(ArchiveError::Changed(object.digest)),
        }
    }

    fn end(mut self) -> Result<(), ArchiveError> {
        let digest = Digest::from_bytes(self.hash.finalize_reset().into());
        self.head(END, &digest, 0)?;
        let mut out = self.out.finish().map_err(ArchiveError::Write)?;
        out.flush().map_err(ArchiveError::Write)
    }
}

/// An object's bytes on their way out, which are compared with its name once more.
struct Taken<'a, W: Write> {
    writer: &'a mut Writer<W>,
    hash: Sha256,
    length: u64,
    error: Option<ArchiveError>,
}

impl<W: Write> Write for Taken<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.writer.bytes(bytes) {
            self.error = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
