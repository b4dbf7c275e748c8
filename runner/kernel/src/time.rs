//! Virtual time. It moves by fixed steps, by sleeps, and by blocks once they are counted; never by the host's clock.

use serde::{Deserialize, Serialize};

/// Nanoseconds a system call takes.
pub(crate) const SYSCALL: u64 = 1_000;
/// Nanoseconds a clock instruction takes.
pub(crate) const CLOCK_READ: u64 = 100;
/// Nanoseconds a counted block takes.
pub(crate) const BLOCK: u64 = 10;
/// Cycles in a nanosecond, for cycle counters: a 2 GHz processor.
const CYCLES: u64 = 2;

/// Time that somebody ran, in nanoseconds: its own code, and calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) user: u64,
    pub(crate) system: u64,
}

impl Used {
    /// What it used in all.
    pub(crate) fn total(self) -> u64 {
        self.user.saturating_add(self.system)
    }

    /// It ran for some more.
    pub(crate) fn add(&mut self, more: Self) {
        self.user = self.user.saturating_add(more.user);
        self.system = self.system.saturating_add(more.system);
    }
}

/// When something expires, by a clock of its own, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expiry {
    /// When next; absent: never.
    pub(crate) next: Option<u64>,
    /// Between one time and the next; 0: once.
    pub(crate) interval: u64,
}

impl Expiry {
    /// Expires, if it should have by now: how many times beside the first.
    pub(crate) fn expire(&mut self, now: u64) -> Option<u64> {
        let at = self.next.filter(|at| *at <= now)?;
        let more = (now - at).checked_div(self.interval).unwrap_or(0);
        let after = self.interval.saturating_mul(more.saturating_add(1));
        self.next = (self.interval > 0).then(|| at.saturating_add(after));
        Some(more)
    }

    /// How long until it does, at least a nanosecond; 0: it never does.
    pub(crate) fn left(&self, now: u64) -> u64 {
        self.next.map_or(0, |next| next.saturating_sub(now).max(1))
    }
}

/// The clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Time {
    /// Nanoseconds since the first process started.
    pub(crate) now: u64,
    /// Nanoseconds from boot to the start.
    boot: u64,
    /// Unix time at the start, in nanoseconds.
    epoch: i64,
    /// Whether blocks are counted: once begun, for good.
    pub(crate) counting: bool,
}

impl Time {
    pub(crate) fn new(uptime_s: u64, epoch_s: i64, counting: bool) -> Self {
        Self {
            now: 0,
            boot: uptime_s.min(1 << 32).saturating_mul(1_000_000_000),
            epoch: epoch_s.saturating_mul(1_000_000_000),
            counting,
        }
    }

    pub(crate) fn advance(&mut self, nanoseconds: u64) {
        self.now = self.now.saturating_add(nanoseconds);
    }

    /// Nanoseconds since 1970.
    pub(crate) fn real(&self) -> i64 {
        self.epoch
            .saturating_add(i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    /// Nanoseconds since boot.
    pub(crate) fn since_boot(&self) -> u64 {
        self.boot.saturating_add(self.now)
    }

    /// What a cycle counter shows.
    pub(crate) fn cycles(&self) -> u64 {
        self.since_boot().wrapping_mul(CYCLES)
    }

    /// What a timer of this frequency shows.
    pub(crate) fn ticks(&self, hertz: u64) -> u64 {
        (u128::from(self.since_boot()) * u128::from(hertz) / 1_000_000_000) as u64
    }

    /// Unix time at boot, in seconds.
    pub(crate) fn boot_second(&self) -> i64 {
        self.epoch
            .saturating_sub(i64::try_from(self.boot).unwrap_or(i64::MAX))
            .div_euclid(1_000_000_000)
    }
}
