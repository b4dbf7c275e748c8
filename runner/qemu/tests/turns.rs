//! Guests that take turns on a core stand still with all their processes.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bench;

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bench::Bench;
use hotcell_cells::cores::arbiter::{Arbiter, GiveCores, Turn};
use hotcell_cells::cores::schedule::{CellId, Rules};
use hotcell_cells::cores::topology::{SYSTEM, Topology};
use hotcell_cells::process::{Ending, Interruption};
use hotcell_cells::remote::Request;
use hotcell_cells::supervise::Sandbox;
use hotcell_schema::cores::CoreSet;
use hotcell_schema::outcome::Outcome;

const MS: u64 = 1_000_000;

/// What a cell had used, at some time between two.
#[derive(Debug, Clone, Copy)]
struct Used {
    between: (u64, u64),
    nanoseconds: u64,
}

/// An arbiter for one core of the host's.
fn one_core() -> Arc<Arbiter> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let allowed: CoreSet = (0..1024_u32)
        .filter(|cpu| set.is_set(*cpu as usize).unwrap())
        .collect();
    let topology = Topology::read(Path::new(SYSTEM), &allowed).unwrap();
    let rules = Rules {
        pool: topology.cores().iter().next_back().into_iter().collect(),
        slice: NonZeroU64::new(50 * MS).unwrap(),
        ageing: NonZeroU64::new(1000 * MS).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    };
    Arc::new(Arbiter::start(rules, topology, None).unwrap())
}

#[test]
fn while_one_guest_runs_the_other_stands_still() {
    if !Sandbox::of_this_host().stand_still() {
        eprintln!("SKIPPED turns: no control group on this host stands still");
        return;
    }
    let arbiter = one_core();
    let gives: Arc<dyn GiveCores> = arbiter.clone();
    let guests = bench::of("endless", &["x86_64", "mipsel"], &["twice"]);
    let mut samples: BTreeMap<CellId, Vec<Used>> = BTreeMap::new();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = guests
            .iter()
            .map(|guest| {
                let mut bench = Bench::of(guest);
                bench.limits.wall_ms = 3_000;
                bench.turns = Some(Arc::clone(&gives));
                scope.spawn(|| bench.run())
            })
            .collect();
        while running.iter().any(|thread| !thread.is_finished()) {
            for cell in arbiter.cells() {
                let before = arbiter.now();
                let nanoseconds = bench::used(cell.process.pid());
                samples.entry(cell.cell).or_default().push(Used {
                    between: (before, arbiter.now()),
                    nanoseconds,
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ran in ended {
        let Some(ran) = ran else { return };
        assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{ran:?}");
        assert_eq!(ran.files()["/tmp/made"], b"before");
    }
    let (turns, forgotten) = arbiter.turns();
    assert_eq!(forgotten, 0);
    for (cell, samples) in &samples {
        let is_anothers = |turn: &Turn, from: u64, until: u64| {
            turn.cell != *cell && turn.from <= from && until <= turn.until
        };
        let mut quiet = 0;
        for pair in samples.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            let (from, until) = (first.between.0, second.between.1);
            if turns.iter().any(|turn| is_anothers(turn, from, until)) {
                assert!(
                    second.nanoseconds <= first.nanoseconds,
                    "{cell:?} ran in another's turn: {pair:?}"
                );
                quiet += until - from;
            }
        }
        let most = samples.iter().map(|sample| sample.nanoseconds).max();
        assert!(quiet >= 300 * MS, "{cell:?} was looked at for {quiet} ns only");
        assert!(most.unwrap() >= 1_000 * MS, "{cell:?} hardly ran: {most:?}");
    }
    assert_eq!(samples.len(), guests.len());
}

#[test]
fn a_paused_guest_stands_still() {
    if !Sandbox::of_this_host().stand_still() {
        eprintln!("SKIPPED pauses: no control group on this host stands still");
        return;
    }
    for guest in bench::of("endless", &["x86_64"], &["twice"]) {
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                Bench::of(&guest).run_beside(|cell| {
                    tell.send((cell.id().unsigned_abs(), cell.remote())).unwrap();
                })
            });
            // Nothing comes where this host holds no guests.
            let Ok((cell, remote)) = told.recv() else { return };
            let runs = |more: u64| {
                let before = bench::used(cell);
                let began = Instant::now();
                while bench::used(cell) < before + more {
                    assert!(began.elapsed() < Duration::from_secs(30) && !running.is_finished());
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            // Two that spin, and not only the keeper that begins.
            while bench::family(cell).len() < 4 {
                assert!(!running.is_finished());
                std::thread::sleep(Duration::from_millis(1));
            }
            runs(200 * MS);
            remote.ask(Request::Pause).unwrap();
            // Its answer comes before it is frozen, by as much as that takes.
            let mut before = bench::used(cell);
            let mut still = 0;
            while still < 20 {
                std::thread::sleep(Duration::from_millis(10));
                let now = bench::used(cell);
                still = if now == before { still + 1 } else { 0 };
                before = now;
                assert!(!running.is_finished(), "it was never still for long");
            }
            remote.ask(Request::Resume).unwrap();
            runs(100 * MS);
            remote.ask(Request::Stop).unwrap();
            let ran = running.join().unwrap().unwrap();
            assert!(
                matches!(ran.ending, Ending::Interrupted(Interruption::Stopped)),
                "{ran:?}"
            );
            assert_eq!(bench::family(cell), [cell], "it left processes");
        });
    }
}

#[test]
fn a_frozen_guest_has_no_turns_and_ends_when_its_time_is_up() {
    if !Sandbox::of_this_host().stand_still() {
        eprintln!("SKIPPED freezing: no control group on this host stands still");
        return;
    }
    let arbiter: Arc<dyn GiveCores> = one_core();
    for turns in [None, Some(arbiter)] {
        for guest in bench::of("endless", &["x86_64"], &["twice"]) {
            let mut bench = Bench::of(&guest);
            bench.limits.wall_ms = 5_000;
            bench.turns.clone_from(&turns);
            let (tell, told) = channel();
            std::thread::scope(|scope| {
                let running = scope.spawn(move || {
                    bench.run_beside(|cell| {
                        tell.send((cell.id().unsigned_abs(), cell.remote())).unwrap();
                    })
                });
                let Ok((cell, remote)) = told.recv() else { return };
                while bench::family(cell).len() < 4 {
                    assert!(!running.is_finished());
                    std::thread::sleep(Duration::from_millis(1));
                }
                remote.ask(Request::Freeze).unwrap();
                // Nobody else wakes it.
                assert!(remote.ask(Request::Resume).is_err());
                let (mut before, mut still) = (bench::used(cell), 0);
                while still < 50 {
                    std::thread::sleep(Duration::from_millis(10));
                    let now = bench::used(cell);
                    still = if now == before { still + 1 } else { 0 };
                    before = now;
                    assert!(!running.is_finished(), "it was never still for long");
                }
                let ran = running.join().unwrap().unwrap();
                assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{ran:?}");
                assert_eq!(ran.stdout(), "begun\n");
                assert_eq!(ran.files()["/tmp/made"], b"before");
            });
        }
    }
}
