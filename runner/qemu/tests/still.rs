//! Guests that are made to stand still by somebody else than their runner, as the monitor does: all else is as before.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bench;

use std::sync::mpsc::channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use bench::{Bench, Ran};
use hotcell_cells::cores::process::Process;
use hotcell_cells::process::{Ending, Interruption};
use hotcell_cells::remote::{Remote, Request};
use hotcell_cells::supervise::{Guests, Sandbox};
use hotcell_schema::outcome::Outcome;

const MS: u64 = 1_000_000;

/// A cell whose guests spin.
struct Cell<'scope> {
    pid: u32,
    remote: Remote,
    running: ScopedJoinHandle<'scope, Option<Ran>>,
}

impl Cell<'_> {
    /// They run for so many nanoseconds more.
    fn runs(&self, more: u64) {
        let before = bench::used(self.pid);
        let began = Instant::now();
        while bench::used(self.pid) < before + more {
            assert!(began.elapsed() < Duration::from_secs(60) && !self.running.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// They stand still, though their keeper listens now and then: all of them together use less than would be nothing for two that spin.
    fn is_still(&self) {
        let mut still = 0;
        while still < 20 {
            let before = guests(self.pid);
            std::thread::sleep(Duration::from_millis(10));
            still = if guests(self.pid) == before { still + 1 } else { 0 };
            assert!(!self.running.is_finished(), "it was never still for long");
        }
    }
}

/// Nanoseconds of all but the keeper.
fn guests(keeper: u32) -> u64 {
    bench::family(keeper)
        .into_iter()
        .filter(|pid| *pid != keeper)
        .map(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            text.split(' ').next().unwrap().parse().unwrap_or(0)
        })
        .sum()
}

/// Does something with a cell whose guests spin, and with what makes them stand still. `None`, with a word: this host has no such groups.
fn spinning(wall_ms: u64, act: impl FnOnce(&Cell<'_>, &mut Guests)) -> Option<Ran> {
    if !Sandbox::of_this_host().stand_still() {
        eprintln!("SKIPPED standing still: no control group on this host stands still");
        return None;
    }
    let guest = bench::of("endless", &["x86_64"], &["twice"]).pop()?;
    let mut bench = Bench::of(&guest);
    bench.limits.wall_ms = wall_ms;
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        let running = scope.spawn(move || {
            bench.run_beside(|cell| {
                tell.send((cell.id().unsigned_abs(), cell.remote())).unwrap();
            })
        });
        // Nothing comes where this host holds no guests.
        let (pid, remote) = told.recv().ok()?;
        let cell = Cell { pid, remote, running };
        while bench::family(pid).len() < 4 {
            assert!(!cell.running.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
        let keeper = Process::open(pid.cast_signed()).unwrap();
        let mut guests = Guests::of(keeper)
            .unwrap()
            .expect("the guests of a cell have a group");
        act(&cell, &mut guests);
        let ran = cell.running.join().unwrap();
        assert_eq!(bench::family(pid), [pid], "it left processes");
        ran
    })
}

#[test]
fn who_stands_still_goes_on_when_both_let_it() {
    let ran = spinning(60_000, |cell, guests| {
        cell.runs(50 * MS);
        for _ in 0..2 {
            guests.stand_still().unwrap();
            cell.is_still();
            guests.go_on();
            cell.runs(50 * MS);
        }
        // One pause within the other, in both orders.
        guests.stand_still().unwrap();
        cell.remote.ask(Request::Pause).unwrap();
        guests.go_on();
        cell.is_still();
        guests.stand_still().unwrap();
        cell.remote.ask(Request::Resume).unwrap();
        cell.is_still();
        guests.go_on();
        cell.runs(50 * MS);
        guests.stand_still().unwrap();
        cell.remote.ask(Request::Stop).unwrap();
    });
    let Some(ran) = ran else { return };
    let stopped = matches!(ran.ending, Ending::Interrupted(Interruption::Stopped));
    assert!(stopped, "{ran:?}");
}

#[test]
fn who_stands_still_ends_when_its_time_is_up() {
    let Some(ran) = spinning(3_000, |_, guests| guests.stand_still().unwrap()) else {
        return;
    };
    assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{ran:?}");
    assert_eq!(ran.files()["/tmp/made"], b"before");
}

#[test]
fn who_stands_still_can_be_told_to_finish() {
    let ran = spinning(60_000, |cell, guests| {
        guests.stand_still().unwrap();
        cell.remote.ask(Request::Finish).unwrap();
    });
    let Some(ran) = ran else { return };
    assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{ran:?}");
    assert_eq!(ran.files()["/tmp/made"], b"before");
}

#[test]
fn who_stands_still_can_be_frozen_by_a_rule_as_well() {
    let ran = spinning(4_000, |cell, guests| {
        guests.stand_still().unwrap();
        cell.remote.ask(Request::Freeze).unwrap();
        guests.go_on();
        cell.is_still();
        guests.stand_still().unwrap();
    });
    let Some(ran) = ran else { return };
    assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{ran:?}");
    assert_eq!(ran.files()["/tmp/made"], b"before");
}

#[test]
fn who_stands_still_can_be_ended_at_once() {
    let ran = spinning(60_000, |cell, guests| {
        guests.stand_still().unwrap();
        cell.remote.ask(Request::ForceStop).unwrap();
    });
    let Some(ran) = ran else { return };
    let stopped = matches!(ran.ending, Ending::Interrupted(Interruption::Stopped));
    assert!(stopped, "{ran:?}");
}
