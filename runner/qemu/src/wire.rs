//! The simulated internet at the other end of the guest's interface.

use std::io;
use std::time::Instant;

use hotcell_internet::link::{self, Arrival};
use hotcell_internet::packet::MTU;
use hotcell_internet::stack::{self, Stack};
use hotcell_kernel::World;
use hotcell_schema::internet::Heard;
use nix::time::{ClockId, clock_gettime};

use crate::card_unsafe::Card;

/// Packets of the guest that are taken at once: others wait for something too.
const AT_ONCE: usize = 256;
/// Turns at the end, for what the guest sent at last.
const LAST: usize = 64;

/// The wire between guest and internet.
#[derive(Debug)]
pub(crate) struct Wire {
    card: Card,
    stack: Stack,
    world: World,
    began: Instant,
    /// The same moment by the clock of the host's kernel, in nanoseconds.
    began_at: u64,
}

impl Wire {
    /// Lays it. `epoch`: the persona's time, in seconds since 1970. What is told says why that cannot be.
    pub(crate) fn lay(world: World, epoch: i64) -> Result<Self, String> {
        let epoch = u64::try_from(epoch).unwrap_or(0).saturating_mul(1_000_000_000);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| error.to_string())?;
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        Ok(Self {
            card: Card::make()?,
            stack: Stack::new(epoch),
            world,
            began: Instant::now(),
            began_at: seconds.saturating_mul(1_000_000_000) + u64::try_from(now.tv_nsec()).unwrap_or(0),
        })
    }

    /// What becomes readable when the guest sends something.
    pub(crate) fn end(&self) -> &Card {
        &self.card
    }

    /// Takes what the guest sends, and gives it what comes back. How many milliseconds nothing will happen by itself (`None`: for
    /// ever), and whether anything came.
    pub(crate) fn turn(&mut self) -> io::Result<(Option<u64>, bool)> {
        let Self {
            card,
            stack,
            world,
            began,
            ..
        } = self;
        let world = stack::World {
            with: &world.with,
            web: world,
        };
        let now = || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut room = [0; 2 * MTU];
        let mut came = false;
        for _ in 0..AT_ONCE {
            let Some(count) = card.take(&mut room)? else { break };
            came = true;
            match link::arrive(room.get(..count).unwrap_or_default()) {
                Arrival::Packet(packet) => stack.take(world, now(), packet),
                // Where there is no room it is lost, as on any wire.
                Arrival::Answer(frame) => drop(card.give(&frame)),
                Arrival::Nothing => {}
            }
        }
        let mut sleeps;
        loop {
            sleeps = stack.turn(world, now());
            let mut gave = false;
            while let Some(packet) = stack.give() {
                gave = true;
                if let Some(frame) = link::frame(&packet) {
                    let _ = card.give(&frame);
                }
            }
            if !gave {
                break;
            }
        }
        Ok((sleeps.map(|sleeps| sleeps.div_ceil(1_000_000)), came))
    }

    /// The guest has ended: what is to be told of it, and what went over the wire.
    pub(crate) fn finish(mut self) -> (Vec<Heard>, Vec<u8>) {
        for _ in 0..LAST {
            if !matches!(self.turn(), Ok((_, true))) {
                break;
            }
        }
        let (mut heard, capture) = self.stack.finish();
        for heard in &mut heard {
            heard.time = heard.time.saturating_add(self.began_at);
        }
        (heard, capture)
    }
}
