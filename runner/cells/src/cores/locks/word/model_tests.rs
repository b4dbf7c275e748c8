//! The protocol under a model checker: every interleaving of a few threads, with every stale value that the memory model allows them
//! to read, up to the number of preemptions said below.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::{CoreIndex, Holder};
use super::{Atomic, Slot, Tenure, Word, acquire};

impl Atomic for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, not: Ordering) -> Result<u64, u64> {
        self.compare_exchange(current, new, ok, not)
    }
}

/// Cores, and what a holder does on each: an access that must never meet another.
struct Cores<const N: usize> {
    slots: [Slot<AtomicU64>; N],
    work: [UnsafeCell<()>; N],
}

impl<const N: usize> Cores<N> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: std::array::from_fn(|_| Slot {
                word: AtomicU64::new(0),
                started: AtomicU64::new(0),
            }),
            work: std::array::from_fn(|_| UnsafeCell::new(())),
        })
    }

    fn acquire(&self, cores: &[u16], holder: Holder) -> Option<Vec<(CoreIndex, Tenure)>> {
        let cores: Vec<_> = cores.iter().map(|&core| CoreIndex::new(core)).collect();
        acquire(&self.slots, &cores, holder).ok()
    }

    /// Uses the cores: the checker finds out when somebody else does so too, or may still do so.
    fn use_all(&self, held: &[(CoreIndex, Tenure)]) {
        for (core, _) in held {
            self.work[core.place()].with_mut(|_| ());
        }
    }

    fn release(&self, held: &[(CoreIndex, Tenure)]) -> usize {
        let still = |&&(core, tenure): &&(CoreIndex, Tenure)| self.slots[core.place()].release(tenure);
        held.iter().filter(still).count()
    }

    fn use_and_release(&self, held: &[(CoreIndex, Tenure)]) {
        self.use_all(held);
        assert_eq!(self.release(held), held.len());
    }

    fn holder(&self, core: usize) -> Option<Holder> {
        self.slots[core].tenure().map(|tenure| tenure.holder)
    }

    fn generation(&self, core: usize) -> u32 {
        Word::of(Atomic::load(&self.slots[core].word, Ordering::SeqCst)).generation
    }
}

fn holder(pid: u32, started: u64) -> Holder {
    Holder::new(pid, started).unwrap()
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

const FIRST: (u32, u64) = (7, 100);
const SECOND: (u32, u64) = (8, 200);

/// One core goes from one holder to the next while others look.
fn one_after_the_other(cores: &Cores<1>) {
    for (pid, started) in [FIRST, SECOND] {
        let held = cores.acquire(&[0], holder(pid, started)).unwrap();
        assert_eq!(cores.release(&held), 1);
    }
}

/// What each look sees is a whole holder, and never an earlier one than before.
fn look(cores: &Cores<1>, times: u32) {
    let order = [holder(FIRST.0, FIRST.1), holder(SECOND.0, SECOND.1)];
    let place = |seen: Holder| order.iter().position(|&one| one == seen);
    let seen: Vec<_> = (0..times).filter_map(|_| cores.holder(0)).collect();
    let places: Vec<_> = seen
        .iter()
        .map(|&seen| place(seen).expect("a holder that never was"))
        .collect();
    assert!(
        places.is_sorted(),
        "an earlier holder after a later one: {seen:?}"
    );
}

fn look_at_one_after_the_other(times: u32, preemptions: usize) {
    model(preemptions, move || {
        let cores = Cores::<1>::new();
        let reader = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || look(&cores, times))
        };
        one_after_the_other(&cores);
        reader.join().unwrap();
        assert_eq!((cores.holder(0), cores.generation(0)), (None, 4));
    });
}

#[test]
fn readers_never_see_a_mixed_holder() {
    look_at_one_after_the_other(1, 5);
}

#[test]
fn readers_never_see_an_earlier_holder_again() {
    look_at_one_after_the_other(2, 2);
}

/// That the check above finds what it looks for: a reader without the second look at the word.
#[test]
#[should_panic(expected = "a holder that never was")]
fn a_reader_that_looks_once_is_found_out() {
    model(5, || {
        let cores = Cores::<1>::new();
        let reader = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || {
                let slot = &cores.slots[0];
                let word = Word::of(Atomic::load(&slot.word, Ordering::Acquire));
                let started = Atomic::load(&slot.started, Ordering::Acquire);
                let valid = [(0, 0), (0, 100), (0, 200), FIRST, SECOND];
                if word.pid != super::CLAIMED && word.pid != 0 {
                    assert!(valid.contains(&(word.pid, started)), "a holder that never was");
                }
            })
        };
        one_after_the_other(&cores);
        reader.join().unwrap();
    });
}

#[test]
fn a_core_never_has_two_holders() {
    model(5, || {
        let cores = Cores::<1>::new();
        let other = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || {
                let held = cores.acquire(&[0], holder(SECOND.0, SECOND.1));
                if let Some(held) = &held {
                    cores.use_and_release(held);
                }
                held.is_some()
            })
        };
        let mut granted = 0;
        for _ in 0..2 {
            if let Some(held) = cores.acquire(&[0], holder(FIRST.0, FIRST.1)) {
                cores.use_and_release(&held);
                granted += 1;
            }
        }
        granted += u32::from(other.join().unwrap());
        assert!(granted >= 1, "nobody got a free core");
        assert_eq!((cores.holder(0), cores.generation(0)), (None, 2 * granted));
    });
}

/// That the check above finds what it looks for: who takes a core without a compare-and-swap.
#[test]
#[should_panic(expected = "Causality violation")]
fn who_takes_without_a_swap_is_found_out() {
    model(5, || {
        let cores = Cores::<1>::new();
        let take = |cores: &Cores<1>, pid: u32| {
            let slot = &cores.slots[0];
            let word = Word::of(Atomic::load(&slot.word, Ordering::Acquire));
            if word.pid == 0 {
                Atomic::store(&slot.word, word.next(pid).raw(), Ordering::Release);
                cores.work[0].with_mut(|_| ());
            }
        };
        let other = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || take(&cores, 8))
        };
        take(&cores, 7);
        other.join().unwrap();
    });
}

/// Two ask for cores that overlap.
fn all_or_none(one: &'static [u16], other: &'static [u16]) {
    model(5, move || {
        let cores = Cores::<3>::new();
        let takes = move |cores: &Cores<3>, wanted: &'static [u16], who: (u32, u64)| {
            let held = cores.acquire(wanted, holder(who.0, who.1));
            if let Some(held) = &held {
                assert_eq!(held.len(), wanted.len());
                cores.use_and_release(held);
            }
            held.is_some()
        };
        let second = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || takes(&cores, other, SECOND))
        };
        let first = takes(&cores, one, FIRST);
        let second = second.join().unwrap();
        assert!(first || second, "they kept each other from what was free");
        assert_eq!([0, 1, 2].map(|core| cores.holder(core)), [None; 3]);
        assert!((0..3).all(|core| cores.generation(core).is_multiple_of(2)));
    });
}

#[test]
fn of_two_who_want_the_same_cores_one_gets_all() {
    all_or_none(&[0, 1], &[0, 1]);
}

#[test]
fn of_two_who_want_a_core_in_common_one_gets_all() {
    all_or_none(&[0, 1], &[1, 2]);
}

#[test]
fn three_cores_and_their_middle() {
    all_or_none(&[0, 1, 2], &[1]);
}

/// One asks for two cores while the second of them is released, and another looks.
#[test]
fn what_reads_as_held_was_granted() {
    model(3, || {
        let cores = Cores::<2>::new();
        let held = cores.acquire(&[1], holder(SECOND.0, SECOND.1)).unwrap();
        let taker = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || cores.acquire(&[0, 1], holder(FIRST.0, FIRST.1)).is_some())
        };
        let reader = {
            let cores = Arc::clone(&cores);
            thread::spawn(move || cores.holder(0))
        };
        cores.use_and_release(&held);
        let seen = reader.join().unwrap();
        let granted = taker.join().unwrap();
        let first = Some(holder(FIRST.0, FIRST.1));
        assert!(
            seen.is_none() || (seen == first && granted),
            "held without a grant"
        );
        let now = if granted { first } else { None };
        assert_eq!([cores.holder(0), cores.holder(1)], [now; 2]);
    });
}

/// Two threads free the lock of a dead holder, one of them as its late release; the core's next holder keeps it.
#[test]
fn a_late_release_never_takes_the_lock_of_the_next_holder() {
    model(5, || {
        let cores = Cores::<1>::new();
        let dead = cores.acquire(&[0], holder(FIRST.0, FIRST.1)).unwrap();
        let late = {
            let cores = Arc::clone(&cores);
            let dead = dead.clone();
            thread::spawn(move || cores.release(&dead))
        };
        let mut freed = 0;
        if let Some(tenure) = cores.slots[0].tenure() {
            assert_eq!(tenure.holder, holder(FIRST.0, FIRST.1));
            freed = usize::from(cores.slots[0].release(tenure));
        }
        // The same process, as far as anybody can tell: only the generation is another.
        let next = cores.acquire(&[0], holder(FIRST.0, FIRST.1)).unwrap();
        cores.use_all(&next);
        assert_eq!(freed + late.join().unwrap(), 1, "freed once");
        assert_eq!(cores.holder(0), Some(holder(FIRST.0, FIRST.1)));
        assert_eq!(cores.release(&next), 1);
        assert_eq!(cores.generation(0), 4);
    });
}
