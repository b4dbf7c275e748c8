//! Objects: bytes by their SHA-256, whose file holds them raw or as one zstd frame.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hotcell_schema::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::Part;
use crate::form::{self, Found};
use crate::{Kind, Store, StoreError, trouble};

/// A writer holds this much in memory; what is longer is compressed on its way to the disk.
const IN_MEMORY: usize = 64 << 10;

/// An object that is stored: enough to read it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Digest of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub length: u64,
}

/// Takes the bytes of one object, of whatever length, without holding more than a few of them in memory.
pub struct ObjectWriter {
    store: Store,
    hash: Sha256,
    length: u64,
    body: Body,
}

enum Body {
    Small(Vec<u8>),
    Large(Box<zstd::Encoder<'static, Part>>),
}

impl std::fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWriter")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl ObjectWriter {
    /// The object is complete: from now on it can be read.
    pub fn finish(mut self) -> Result<Stored, StoreError> {
        let stored = self.stored();
        self.place(&stored)?;
        Ok(stored)
    }

    /// The same where the bytes have this digest; else nothing is stored.
    pub fn finish_as(mut self, digest: &Digest) -> Result<Option<Stored>, StoreError> {
        let stored = self.stored();
        if stored.digest != *digest {
            return Ok(None);
        }
        self.place(&stored)?;
        Ok(Some(stored))
    }

    fn stored(&mut self) -> Stored {
        Stored {
            digest: Digest::from_bytes(self.hash.finalize_reset().into()),
            length: self.length,
        }
    }

    fn place(self, stored: &Stored) -> Result<(), StoreError> {
        if self.store.knows(&stored.digest) {
            return Ok(());
        }
        let path = self.store.path(Kind::Objects, &stored.digest);
        match self.body {
            Body::Small(bytes) => form::encode(&bytes, |pieces| self.store.place(pieces, &path))?,
            Body::Large(encoder) => encoder.finish()?.place(&path)?,
        }
        self.store.learn(stored.digest);
        Ok(())
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Body::Small(small) = &mut self.body
            && small.len() + bytes.len() > IN_MEMORY
        {
            let part = self.store.part().map_err(io::Error::other)?;
            let mut encoder = zstd::Encoder::new(part, form::LEVEL)?;
            encoder.write_all(small)?;
            self.body = Body::Large(Box::new(encoder));
        }
        let written = match &mut self.body {
            Body::Small(small) => small.write(bytes)?,
            Body::Large(encoder) => encoder.write(bytes)?,
        };
        let bytes = bytes.get(..written).unwrap_or(bytes);
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Small(_) => Ok(()),
            Body::Large(encoder) => encoder.flush(),
        }
    }
}

impl Store {
    /// Begins an object.
    pub fn writer(&self) -> Result<ObjectWriter, StoreError> {
        self.incoming()?;
        Ok(ObjectWriter {
            store: self.clone(),
            hash: Sha256::new(),
            length: 0,
            body: Body::Small(Vec::new()),
        })
    }

    /// Stores bytes. What this process has stored or read already is not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<Stored, StoreError> {
        let stored = Stored {
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
        };
        if !self.knows(&stored.digest) {
            let path = self.path(Kind::Objects, &stored.digest);
            form::encode(bytes, |pieces| self.place(pieces, &path))?;
            self.learn(stored.digest);
        }
        Ok(stored)
    }

    /// Reads an object back. `None` where it is not there, or is damaged: then it is removed, so that it is made again,
    /// unless the store is open for reading only.
    pub fn get(&self, object: &Stored) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = Vec::new();
        let whole = self.read(object, Some(&mut bytes))?;
        Ok(whole.then_some(bytes))
    }

    /// Writes an object's bytes as they are decoded, without holding them in memory; returns whether it is there. Whether
    /// they are right is known only when all of them were compared with the digest, which is left to the one who takes them.
    pub fn copy_to(&self, object: &Stored, out: &mut dyn Write) -> Result<bool, StoreError> {
        let path = self.path(Kind::Objects, &object.digest);
        match File::open(&path) {
            Ok(file) => {
                form::copy(&file, object.length, out).map_err(|error| form::unreadable(&path, &error))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(form::unreadable(&path, &error)),
        }
    }

    /// Whether an object is there and whole: it is read to its end without being kept, unless this process has written or
    /// read it before. A damaged one is removed, unless the store is open for reading only.
    pub fn check(&self, object: &Stored) -> Result<bool, StoreError> {
        if self.knows(&object.digest) {
            return Ok(true);
        }
        self.read(object, None)
    }

    /// The same, for objects whose names may be wrong: whatever is found stays, and nothing is taken from memory.
    pub(crate) fn is_whole(&self, object: &Stored) -> Result<bool, StoreError> {
        let path = self.path(Kind::Objects, &object.digest);
        match File::open(&path) {
            Ok(file) => Ok(form::read(&file, &path, &object.digest, object.length, None)? == Found::Whole),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(form::unreadable(&path, &error)),
        }
    }

    /// Whether there is a file for an object. Whether its bytes are right is known only when they are read.
    pub fn has(&self, object: &Stored) -> bool {
        self.knows(&object.digest) || self.path(Kind::Objects, &object.digest).is_file()
    }

    fn read(&self, object: &Stored, keep: Option<&mut Vec<u8>>) -> Result<bool, StoreError> {
        let path = self.path(Kind::Objects, &object.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(&object.digest);
                return Ok(false);
            }
            Err(error) => return Err(form::unreadable(&path, &error)),
        };
        match form::read(&file, &path, &object.digest, object.length, keep)? {
            Found::Whole => {
                self.learn(object.digest);
                Ok(true)
            }
            Found::Damaged => {
                self.forget(&object.digest);
                if self.0.incoming.is_some() {
                    self.remark()?;
                    remove_same(&path, &file)?;
                }
                Ok(false)
            }
        }
    }
}

/// Removes a damaged file, unless another has put a new one in its place meanwhile.
pub(crate) fn remove_same(path: &Path, file: &File) -> Result<(), StoreError> {
    let damaged = file
        .metadata()
        .map_err(|error| trouble("look at", path, &error))?;
    match std::fs::metadata(path) {
        Ok(now) if (now.dev(), now.ino()) != (damaged.dev(), damaged.ino()) => return Ok(()),
        _ => {}
    }
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (_folder, store) = store();
        for bytes in [
            &b""[..],
            b"x",
            &[7; 4095],
            &[7; 4096],
            &[7; 300_000],
            &[7; 3_000_000],
        ] {
            let stored = store.put(bytes).unwrap();
            assert_eq!(stored.digest, Digest::of(bytes));
            assert_eq!(store.get(&stored).unwrap().as_deref(), Some(bytes));
        }
        let absent = Stored {
            digest: Digest::of(b"never stored"),
            length: 12,
        };
        assert_eq!(store.get(&absent).unwrap(), None);
    }

    #[test]
    fn every_damaged_byte_is_noticed_and_the_object_made_again() {
        let (_folder, store) = store();
        let bytes: Vec<u8> = (0..2000u32).flat_map(|n| n.to_le_bytes()).collect();
        let stored = store.put(&bytes).unwrap();
        let path = store.path(Kind::Objects, &stored.digest);
        let whole = fs_err::read(&path).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            fs_err::write(&path, &damaged).unwrap();
            // zstd ignores a few bits of its header; then the bytes are right all the same.
            store.read_afresh();
            let whole = store.check(&stored).unwrap();
            assert_eq!(whole, path.exists(), "byte {at}");
            match store.get(&stored).unwrap() {
                Some(read) => assert_eq!(read, bytes),
                None => assert!(!path.exists()),
            }
        }
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs_err::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.get(&stored).unwrap(), None, "cut to {length}");
        }
        assert_eq!(store.put(&bytes).unwrap(), stored);
        assert_eq!(store.get(&stored).unwrap(), Some(bytes));
    }

    #[test]
    fn raw_and_long_objects_are_verified_too() {
        let (_folder, store) = store();
        for length in [0, 1, 300, 2 << 20] {
            let bytes: Vec<u8> = (0..length).map(|at: usize| ((at * at) >> 7) as u8).collect();
            let stored = store.put(&bytes).unwrap();
            let path = store.path(Kind::Objects, &stored.digest);
            let whole = fs_err::read(&path).unwrap();
            let mut longer = whole.clone();
            longer.push(0);
            let mut changed = whole.clone();
            *changed.last_mut().unwrap() ^= 1;
            for damaged in [&whole[..whole.len() - 1], &changed, b"", b"\x28\xb5\x2f\xfd"] {
                fs_err::write(&path, damaged).unwrap();
                store.read_afresh();
                assert!(!store.check(&stored).unwrap(), "{length}");
                assert!(!path.exists());
            }
            // What follows the promised bytes is never looked at, or makes the object a damaged one.
            fs_err::write(&path, &longer).unwrap();
            if let Some(read) = store.get(&stored).unwrap() {
                assert_eq!(read, bytes);
            }
            store.put(&bytes).unwrap();
        }
    }

    #[test]
    fn a_frame_that_grows_is_not_followed() {
        let (_folder, store) = store();
        let stored = store.put(b"small").unwrap();
        let bomb = zstd::encode_all(io::repeat(0).take(100 << 20), 1).unwrap();
        fs_err::write(store.path(Kind::Objects, &stored.digest), bomb).unwrap();
        assert_eq!(store.get(&stored).unwrap(), None);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (folder, store) = store();
        let count = |part: &str| files(&folder.path().join(part));
        for length in [4, 3 * IN_MEMORY] {
            let mut writer = store.writer().unwrap();
            writer.write_all(&vec![7; length]).unwrap();
            drop(writer);
            assert_eq!(count("incoming"), ["lock"]);
            assert_eq!(count("objects"), [""; 0]);
        }
        drop(store);
        assert_eq!(count("incoming"), [""; 0]);
    }

    /// Names of the files below a folder.
    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => found.extend(files(&path)),
                false => found.push(path.file_name().unwrap().to_string_lossy().into_owned()),
            }
        }
        found
    }

    #[test]
    fn what_dead_writers_left_is_removed_and_what_living_ones_write_is_not() {
        let (folder, store) = store();
        let mut living = store.writer().unwrap();
        living.write_all(&[7; 2 * IN_MEMORY]).unwrap();
        let dead = folder.path().join("incoming/writer-dead");
        fs_err::create_dir(&dead).unwrap();
        for name in ["lock", "0", "1"] {
            fs_err::write(dead.join(name), "half of it").unwrap();
        }
        // Killed while a folder or the store's version was being made, by this version or the one before.
        let incoming = folder.path().join("incoming");
        let unmade = ["writer-x", "new-x", "version-x", "new-file"].map(|name| incoming.join(name));
        unmade
            .iter()
            .take(2)
            .for_each(|path| fs_err::create_dir(path).unwrap());
        unmade
            .iter()
            .skip(2)
            .for_each(|path| fs_err::write(path, "hotc").unwrap());
        // Held by someone who lives, whatever its name.
        let held = incoming.join("new-held");
        fs_err::create_dir(&held).unwrap();
        let lock = std::fs::File::create(held.join("lock")).unwrap();
        lock.lock().unwrap();
        let other = Store::open(folder.path()).unwrap();
        assert!(!dead.exists());
        assert!(unmade.iter().all(|path| !path.exists()));
        assert!(held.exists());
        let stored = living.finish().unwrap();
        assert!(other.check(&stored).unwrap());
    }

    #[test]
    fn a_store_that_is_only_read_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Store::open_existing(folder.path()).unwrap().is_none());
        assert_eq!(files(folder.path()), [""; 0]);
        let store = Store::open(folder.path()).unwrap();
        let stored = store.put(b"whole").unwrap();
        let path = store.path(Kind::Objects, &stored.digest);
        drop(store);
        fs_err::write(&path, b"damaged").unwrap();
        let store = Store::open_existing(folder.path()).unwrap().unwrap();
        assert_eq!(store.get(&stored).unwrap(), None);
        assert!(!store.check(&stored).unwrap());
        assert!(path.exists());
        assert!(matches!(store.put(b"new"), Err(StoreError::ReadOnly(_))));
        assert!(store.writer().is_err());
    }

    #[test]
    fn objects_of_the_version_before_are_read() {
        let (folder, store) = store();
        drop(store);
        fs_err::write(folder.path().join("version"), "hotcell-store 1\n").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(
            fs_err::read_to_string(folder.path().join("version")).unwrap(),
            format!("{}\n", crate::VERSION)
        );
        for bytes in [&b""[..], b"small", &[9; 100_000]] {
            let stored = Stored {
                digest: Digest::of(bytes),
                length: bytes.len() as u64,
            };
            let path = store.path(Kind::Objects, &stored.digest);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(bytes).unwrap();
            fs_err::write(&path, encoder.finish().unwrap()).unwrap();
            assert!(store.check(&stored).unwrap());
            assert_eq!(store.get(&stored).unwrap().as_deref(), Some(bytes));
        }
    }
}
