//! Memos: small things by key that cost time to make and can be made again at any time, like one instance's part of a
//! report. Verified like records, and collected like them; nothing but time is lost with one.
//!
//! Whoever stores a memo makes its key of everything it depends on, beginning with a name and version of its own.

use hotcell_schema::digest::Digest;

use crate::records::{seal, unseal};
use crate::{Kind, Store, StoreError};

/// Format and version, at the start of the first line.
const HEAD: &str = "hotcell-memo 1";
/// No memo is larger.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

impl Store {
    /// What was stored under a key; `None` where there is nothing, or it is damaged.
    pub fn memo(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = self.sealed(Kind::Memos, key, MAX_BYTES)?;
        Ok(bytes.and_then(|bytes| open(key, bytes)))
    }

    /// Stores something under a key. What is larger than 64 MiB is not kept.
    pub fn put_memo(&self, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let head = format!("{HEAD} {}\n", seal(key, bytes));
        if (head.len() + bytes.len()) as u64 > MAX_BYTES {
            return Ok(());
        }
        self.place(&[head.as_bytes(), bytes], &self.path(Kind::Memos, key))
    }
}

/// The memo in a file's bytes, where it is whole.
pub(crate) fn open(key: &Digest, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let length = unseal(HEAD, key, &bytes)?.len();
    bytes.drain(..bytes.len() - length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_comes_back_whole_and_under_its_own_key_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        assert_eq!(store.memo(&key).unwrap(), None);
        store.put_memo(&key, b"part of a page").unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some(&b"part of a page"[..]));
        let path = store.path(Kind::Memos, &key);
        let whole = fs_err::read(&path).unwrap();
        store.put_memo(&other, b"").unwrap();
        assert_eq!(store.memo(&other).unwrap().as_deref(), Some(&b""[..]));
        fs_err::write(store.path(Kind::Memos, &other), &whole).unwrap();
        assert_eq!(store.memo(&other).unwrap(), None);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs_err::write(&path, &damaged).unwrap();
            assert_eq!(store.memo(&key).unwrap(), None, "byte {at}");
            fs_err::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.memo(&key).unwrap(), None, "cut to {at}");
        }
    }
}
