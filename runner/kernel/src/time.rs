//! Virtual time. It moves by fixed steps, by sleeps, and by blocks once they are counted; never by the host's clock.

use serde::{Deserialize, Serialize};

/// Nanoseconds a system call takes.
const SYSCALL: u64 = 1_000;
/// Nanoseconds a clock instruction takes.
const CLOCK_READ: u64 = 100;
/// Nanoseconds a counted block takes.
const BLOCK: u64 = 10;
/// Cycles in a nanosecond, for cycle counters: a 2 GHz processor.
const CYCLES: u64 = 2;

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

    pub(crate) fn system_call(&mut self) {
        self.advance(SYSCALL);
    }

    pub(crate) fn clock_read(&mut self) {
        self.advance(CLOCK_READ);
    }

    pub(crate) fn blocks(&mut self, count: u64) {
        self.advance(count.saturating_mul(BLOCK));
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
