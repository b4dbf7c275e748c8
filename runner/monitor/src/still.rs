//! Who does more than is read stands still until it was read: nothing of it is lost, and nobody else is the worse for it.

use std::time::Instant;

use hotcell_cells::cores::process::Process;
use hotcell_cells::supervise::Guests;

/// Of the room that is left in the ring a cell has so much unread when it is told to stand still: what it does until it does, and until
/// its reader has a processor again, must fit into the rest.
const HIGH: u64 = 8;
/// And so much when it goes on: its reader has something to do meanwhile.
const LOW: u64 = 32;

/// Whether a cell is to stand still, which does now or does not, and has so many bytes unread, where there is so much room.
pub fn is_behind(stands: bool, unread: u64, room: u64) -> bool {
    unread > room / if stands { LOW } else { HIGH }
}

/// How often a cell stood still, and how long in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stood {
    /// How often.
    pub times: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// What makes a cell stand still.
#[derive(Debug)]
pub struct Still {
    guests: Found,
    since: Option<Instant>,
    stood: Stood,
}

/// The guests of a cell. They are looked for when they are needed: until a cell begins it can be moved to another control group.
#[derive(Debug)]
enum Found {
    NotYet(Process),
    Here(Guests),
    /// The host has no such groups, or not for us; or the cell has ended.
    No,
}

impl Still {
    /// For the guests that a process makes.
    pub fn new(keeper: Process) -> Self {
        Self {
            guests: Found::NotYet(keeper),
            since: None,
            stood: Stood::default(),
        }
    }

    /// Whether it stands still.
    pub fn stands(&self) -> bool {
        self.since.is_some()
    }

    /// Makes it stand still, where it can be done, or go on.
    pub fn stand(&mut self, still: bool) {
        match (still, self.since) {
            (true, None) => {
                self.guests = match std::mem::replace(&mut self.guests, Found::No) {
                    Found::NotYet(keeper) => Guests::of(keeper).ok().flatten().map_or(Found::No, Found::Here),
                    found => found,
                };
                let Found::Here(guests) = &mut self.guests else {
                    return;
                };
                match guests.stand_still() {
                    Ok(()) => {
                        self.since = Some(Instant::now());
                        self.stood.times += 1;
                    }
                    Err(_) => self.guests = Found::No,
                }
            }
            (false, Some(since)) => {
                if let Found::Here(guests) = &self.guests {
                    guests.go_on();
                }
                self.since = None;
                let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.stood.ns = self.stood.ns.saturating_add(ns);
            }
            _ => {}
        }
    }

    /// Lets it go on for good: how often it stood still.
    pub fn end(mut self) -> Stood {
        self.stand(false);
        self.stood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_goes_on_when_much_less_is_unread() {
        let room = 1 << 20;
        assert!(!is_behind(false, room / 8, room));
        assert!(is_behind(false, room / 8 + 1, room));
        assert!(is_behind(true, room / 32 + 1, room));
        assert!(!is_behind(true, room / 32, room));
        // Also where others have all the room.
        assert!(is_behind(false, 1, 0) && !is_behind(true, 0, 0));
    }
}
