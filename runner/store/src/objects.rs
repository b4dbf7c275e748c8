//! Objects: bytes by their SHA-256. Each file is one zstd frame of the bytes.

use std::io::{self, Read, Write};

use hotcell_schema::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Store, StoreError};

/// zstd's level: 1 compresses event streams to a tenth at several hundred MB/s.
const LEVEL: i32 = 1;

/// An object that is stored: enough to read it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Digest of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub length: u64,
}

/// Takes the bytes of one object, of whatever length, without holding them in memory.
pub struct ObjectWriter {
    store: Store,
    hash: Sha256,
    length: u64,
    encoder: zstd::Encoder<'static, tempfile::NamedTempFile>,
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
    pub fn finish(self) -> Result<Stored, StoreError> {
        let stored = Stored {
            digest: Digest::from_bytes(self.hash.finalize().into()),
            length: self.length,
        };
        let file = self.encoder.finish()?;
        let path = self.store.path("objects", &stored.digest);
        self.store.rename(file, &path)?;
        Ok(stored)
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        let bytes = bytes.get(..written).unwrap_or(bytes);
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// Takes bytes into a digest.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Begins an object.
    pub fn writer(&self) -> Result<ObjectWriter, StoreError> {
        let encoder = zstd::Encoder::new(self.incoming()?, LEVEL)?;
        Ok(ObjectWriter {
            store: self.clone(),
            hash: Sha256::new(),
            length: 0,
            encoder,
        })
    }

    /// Stores bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Stored, StoreError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// Reads an object back. `None` where it is not there, or is damaged: then it is removed, so that it is made again.
    pub fn get(&self, object: &Stored) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path("objects", &object.digest);
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Never more than was promised, whatever the file says of itself; capacity grows with what is really there.
        let mut bytes = Vec::new();
        let read = zstd::Decoder::new(file).and_then(|decoder| {
            decoder
                .take(object.length.saturating_add(1))
                .read_to_end(&mut bytes)
        });
        if read.is_ok() && bytes.len() as u64 == object.length && Digest::of(&bytes) == object.digest {
            return Ok(Some(bytes));
        }
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(None),
        }
    }

    /// Reads an object to its end without keeping it: whether it is there and whole. A damaged one is removed.
    pub fn check(&self, object: &Stored) -> Result<bool, StoreError> {
        let path = self.path("objects", &object.digest);
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut hash = Hasher(Sha256::new());
        let read = zstd::Decoder::new(file)
            .and_then(|decoder| io::copy(&mut decoder.take(object.length.saturating_add(1)), &mut hash));
        if matches!(read, Ok(length) if length == object.length)
            && Digest::from_bytes(hash.0.finalize().into()) == object.digest
        {
            return Ok(true);
        }
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(false),
        }
    }

    /// Whether there is a file for an object. Whether its bytes are right is known only when they are read.
    pub fn has(&self, object: &Stored) -> bool {
        self.path("objects", &object.digest).is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (_folder, store) = store();
        for bytes in [&b""[..], b"x", &[7; 300_000]] {
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
        let path = store.path("objects", &stored.digest);
        let whole = fs_err::read(&path).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            fs_err::write(&path, &damaged).unwrap();
            // zstd ignores a few bits of its header; then the bytes are right all the same.
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
    fn a_frame_that_grows_is_not_followed() {
        let (_folder, store) = store();
        let stored = store.put(b"small").unwrap();
        let bomb = zstd::encode_all(io::repeat(0).take(100 << 20), 1).unwrap();
        fs_err::write(store.path("objects", &stored.digest), bomb).unwrap();
        assert_eq!(store.get(&stored).unwrap(), None);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (folder, store) = store();
        store.writer().unwrap().write_all(b"half").unwrap();
        assert_eq!(
            fs_err::read_dir(folder.path().join("incoming")).unwrap().count(),
            0
        );
        assert_eq!(
            fs_err::read_dir(folder.path().join("objects")).unwrap().count(),
            0
        );
    }
}
