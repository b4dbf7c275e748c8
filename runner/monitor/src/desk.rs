//! What is worked on without an end, and asked about meanwhile: whoever asks waits for no more than one turn of the work.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Something that one thread works on in turns, and others ask about.
#[derive(Debug, Default)]
pub struct Desk<T> {
    it: Mutex<T>,
    /// How many ask just now: the next turn begins when nobody does.
    asking: Mutex<u32>,
    answered: Condvar,
}

impl<T> Desk<T> {
    /// Begins a turn of work, which ends when what is given is dropped.
    pub fn turn(&self) -> MutexGuard<'_, T> {
        // To wait for the lock alone could be for ever: who lets go of it and takes it again at once is mostly the first.
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.answered.wait_while(asking, |asking| *asking > 0));
        self.it()
    }

    /// Asks, as soon as the turn that is under way has ended.
    pub fn ask<R>(&self, question: impl FnOnce(&mut T) -> R) -> R {
        let _asks = Asks::new(self);
        question(&mut self.it())
    }

    fn it(&self) -> MutexGuard<'_, T> {
        self.it.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who asks.
struct Asks<'d, T>(&'d Desk<T>);

impl<'d, T> Asks<'d, T> {
    fn new(desk: &'d Desk<T>) -> Self {
        *desk.asking.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(desk)
    }
}

impl<T> Drop for Asks<'_, T> {
    fn drop(&mut self) {
        *self.0.asking.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    /// Two cells, of which one floods: there always is more of it. A question about the other waits for two turns at the most: the
    /// one that is under way, and one that had begun to begin.
    #[test]
    fn a_question_is_answered_within_two_turns_though_the_work_never_ends() {
        let desk: Desk<BTreeMap<u32, u64>> = Desk::default();
        let (turns, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let waited: Vec<u64> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let mut cells = desk.turn();
                    for _ in 0..1000 {
                        *cells.entry(1).or_default() += 1;
                    }
                    turns.fetch_add(1, Ordering::AcqRel);
                }
            });
            while turns.load(Ordering::Acquire) == 0 {
                std::hint::spin_loop();
            }
            let ask = || {
                let before = turns.load(Ordering::Acquire);
                desk.ask(|cells| cells.insert(2, before));
                turns.load(Ordering::Acquire) - before
            };
            let waited = (0..1000).map(|_| ask()).collect();
            over.store(true, Ordering::Release);
            waited
        });
        // One more may end between the answer and the look at the count.
        assert!(waited.iter().all(|turns| *turns <= 3), "{waited:?}");
        assert!(desk.turn()[&1] >= 1000);
    }
}
