//! What runs just now, by cache key: the same work is done once, however many instances want it.
//!
//! Two instances of a run can have one key: the same settings, the same inputs. The first one runs; the others are parked,
//! keep no worker, and begin again when it has ended. Then its result is stored, or else the next of them runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hotcell_schema::digest::Digest;

/// Keys that are being worked on, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Indexes of the instances that wait, by what they wait for.
    open: HashMap<Digest, Vec<usize>>,
    /// Those that can go on and nobody has been told of.
    woken: Vec<usize>,
    /// How many wait.
    parked: usize,
}

/// The right to work on a key. Whoever waits for it is woken when this is let go of, also by a panic.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    key: Digest,
}

impl Flights {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the work on a key. `None`: another is at it, and the instance is parked until that one has ended.
    pub(crate) fn begin(&self, key: Digest, index: usize) -> Option<Flight<'_>> {
        let mut inner = self.inner();
        if let Some(waiting) = inner.open.get_mut(&key) {
            waiting.push(index);
            inner.parked += 1;
            return None;
        }
        inner.open.insert(key, Vec::new());
        drop(inner);
        Some(Flight { flights: self, key })
    }

    /// The instances that can begin again.
    pub(crate) fn woken(&self) -> Vec<usize> {
        std::mem::take(&mut self.inner().woken)
    }

    /// Whether nobody waits, and nobody is to be told that it can begin again.
    pub(crate) fn is_quiet(&self) -> bool {
        let inner = self.inner();
        inner.parked == 0 && inner.woken.is_empty()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut inner = self.flights.inner();
        let mut waiting = inner.open.remove(&self.key).unwrap_or_default();
        inner.parked -= waiting.len();
        // In the plan's order, whoever came first.
        waiting.sort_unstable();
        inner.woken.append(&mut waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_flight_and_its_end_wakes_all() {
        let flights = Flights::default();
        let [one, two] = [b"one", b"two"].map(|key| Digest::of(key));
        let first = flights.begin(one, 0).expect("nobody is at it");
        assert!(flights.begin(one, 9).is_none());
        assert!(flights.begin(one, 4).is_none());
        let other = flights.begin(two, 1).expect("another key");
        assert!(!flights.is_quiet());
        drop(other);
        assert_eq!(flights.woken(), [0; 0]);
        drop(first);
        assert!(!flights.is_quiet());
        assert_eq!(flights.woken(), [4, 9]);
        assert!(flights.is_quiet());
        assert!(flights.begin(one, 9).is_some());
    }
}
