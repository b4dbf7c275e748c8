//! Results that are read as documents: each is read, verified and parsed once, however many conditions, settings, axes and
//! rules look at it.
//!
//! Bounded by an estimate of what the parsed values take; what was not used longest goes first. Event streams are not kept:
//! they are read line by line, and are larger than all else together.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hotcell_schema::digest::Digest;
use hotcell_store::Stored;
use serde::de::DeserializeOwned;

use crate::work::{Done, Input, Shared};

/// What all documents together take at most.
const MAX_BYTES: u64 = 64 << 20;
/// What a byte of JSON takes when it is parsed, in the worst of the common cases: a list of small numbers.
const GROWTH: u64 = 12;

/// By the type that it was parsed into, and the digest of its bytes.
type Key = (TypeId, Digest);
type Parsed = Arc<dyn Any + Send + Sync>;
/// Filled by the first who asks; the others wait for that one.
type Slot = Arc<OnceLock<Result<Parsed, Done>>>;

/// The documents of a run.
#[derive(Debug)]
pub(crate) struct Documents {
    max: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    slots: HashMap<Key, (Slot, u64, u64)>,
    /// Keys by when they were last asked for.
    used: BTreeMap<u64, Key>,
    clock: u64,
    bytes: u64,
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            max: MAX_BYTES,
            kept: Mutex::default(),
        }
    }
}

impl Documents {
    /// A stored document. `wrong` says how an instance ends that reads what is no such document.
    pub(crate) fn get<T>(&self, shared: &Shared<'_>, stored: &Stored, wrong: &str) -> Result<Arc<T>, Done>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.get_with(stored, || {
            let bytes = shared.read(&Input::Stored(*stored))?;
            serde_json::from_slice::<T>(&bytes).map_err(|error| Done::failed(wrong, error.to_string()))
        })
    }

    fn get_with<T>(&self, stored: &Stored, parse: impl FnOnce() -> Result<T, Done>) -> Result<Arc<T>, Done>
    where
        T: Send + Sync + 'static,
    {
        let cost = stored.length.saturating_mul(GROWTH).saturating_add(256);
        // One that fills everything would push out all others.
        if cost > self.max / 4 {
            return parse().map(Arc::new);
        }
        let slot = self.slot((TypeId::of::<T>(), stored.digest), cost);
        let parsed = slot.get_or_init(|| parse().map(|value| Arc::new(value) as Parsed));
        let parsed = parsed.clone()?;
        parsed.downcast().map_err(|_| {
            // The type is part of the key.
            Done::failed("the runner met an error of its own", "a document of another type")
        })
    }

    fn slot(&self, key: Key, cost: u64) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        kept.clock += 1;
        let (slot, used) = match kept.slots.get_mut(&key) {
            Some((slot, used, _)) => (Arc::clone(slot), Some(std::mem::replace(used, kept.clock))),
            None => {
                let slot = Slot::default();
                kept.slots.insert(key, (Arc::clone(&slot), kept.clock, cost));
                kept.bytes = kept.bytes.saturating_add(cost);
                (slot, None)
            }
        };
        if let Some(used) = used {
            kept.used.remove(&used);
        }
        kept.used.insert(kept.clock, key);
        while kept.bytes > self.max
            && let Some((_, oldest)) = kept.used.pop_first()
        {
            if let Some((_, _, cost)) = kept.slots.remove(&oldest) {
                kept.bytes = kept.bytes.saturating_sub(cost);
            }
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn documents_are_parsed_once_as_long_as_there_is_room() {
        let documents = Documents {
            max: 100_000,
            kept: Mutex::default(),
        };
        let parsed = Cell::new(0);
        let read = |name: u8, length: u64| {
            let stored = Stored {
                digest: Digest::of(&[name]),
                length,
            };
            documents.get_with(&stored, || {
                parsed.set(parsed.get() + 1);
                Ok(u64::from(name))
            })
        };
        let first = read(1, 1_000).expect("a value");
        assert!(Arc::ptr_eq(&first, &read(1, 1_000).expect("a value")));
        assert_eq!(parsed.get(), 1);
        // Another type of the same bytes is another document.
        let stored = Stored {
            digest: Digest::of(&[1]),
            length: 1_000,
        };
        let text = documents.get_with(&stored, || Ok("text".to_owned()));
        assert_eq!(*text.expect("a value"), "text");
        // Too large to be kept.
        read(9, 90_000).expect("a value");
        read(9, 90_000).expect("a value");
        assert_eq!(parsed.get(), 3);
        // Others come; what is asked for again and again stays, what is not goes.
        for name in 10..30 {
            read(name, 1_000).expect("a value");
            read(1, 1_000).expect("a value");
        }
        assert_eq!(parsed.get(), 23);
        assert!(documents.kept.lock().expect("unpoisoned").bytes <= 100_000);
        read(10, 1_000).expect("a value");
        assert_eq!(parsed.get(), 24);
        // What cannot be read is not asked for again by those who wait for it.
        let stored = Stored {
            digest: Digest::of(b"broken"),
            length: 5,
        };
        let broken = || documents.get_with::<u64>(&stored, || Err(Done::failed("broken", "as asked")));
        assert_eq!(
            broken().expect_err("broken").reason,
            broken().expect_err("broken").reason
        );
    }
}
