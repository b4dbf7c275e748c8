//! Real processes that take turns on real cores.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Spinner, until};
use hotcell_cells::contract::Limit;
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::arbiter::{AdmitError, Arbiter, GiveCores, Turn};
use hotcell_cells::cores::locks::CoreIndex;
use hotcell_cells::cores::schedule::{Doing, Hold, Request, Rules};
use hotcell_cells::cores::topology::{SYSTEM, Topology};
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{HostLimits, Sandbox, SealedBlob};
use hotcell_schema::cores::CoreSet;

const MS: u64 = 1_000_000;

/// The processors that this test may use.
fn allowed() -> CoreSet {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    (0..1024u32)
        .filter(|cpu| set.is_set(*cpu as usize).unwrap())
        .collect()
}

fn topology() -> Topology {
    Topology::read(Path::new(SYSTEM), &allowed()).unwrap()
}

/// The host's last core: the only one that cells get.
fn one_core() -> CoreSet {
    topology().cores().iter().next_back().into_iter().collect()
}

fn arbiter(pool: CoreSet, slice_ms: u64) -> Arc<Arbiter> {
    let rules = Rules {
        pool,
        slice: NonZeroU64::new(slice_ms * MS).unwrap(),
        ageing: NonZeroU64::new(1000 * MS).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    };
    Arc::new(Arbiter::start(rules, topology(), None).unwrap())
}

/// No two turns on one core at once.
fn apart(turns: &[Turn]) {
    let mut by_core: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for turn in turns {
        for core in turn.cores.iter() {
            by_core.entry(core).or_default().push((turn.from, turn.until));
        }
    }
    for turns in by_core.values_mut() {
        turns.sort_unstable();
        for pair in turns.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "two cells on one core: {pair:?}");
        }
    }
}

#[test]
fn six_that_compute_share_one_core_alike() {
    let pool = one_core();
    let arbiter = arbiter(pool.clone(), 5);
    let spinners: Vec<Spinner> = (0..6).map(|_| Spinner::new()).collect();
    let places: Vec<_> = spinners
        .iter()
        .map(|spinner| arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap())
        .collect();
    until("120 turns", || arbiter.turns().0.len() >= 120);
    // One runs at a time, and all are where they should be.
    let running = arbiter
        .cells()
        .iter()
        .filter(|cell| matches!(cell.doing, Doing::Running(_)))
        .count();
    assert!(running <= 1);
    let cpus = topology().usable(pool.first().unwrap()).to_string();
    let (turns, forgotten) = arbiter.turns();
    assert_eq!(forgotten, 0);
    apart(&turns);
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    // Who came first had turns before the last one was there.
    let all_there = turns
        .iter()
        .position(|turn| turn.cell == places[5].cell())
        .unwrap();
    for turn in &turns[all_there..] {
        *counts.entry(turn.cell.0).or_default() += 1;
    }
    assert_eq!(counts.len(), 6);
    let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(most - least <= 1, "{counts:?}");
    for spinner in &spinners {
        assert_eq!(spinner.cpus(), cpus);
    }
    drop(places);
    // Nobody is left standing still.
    until("all go on", || {
        spinners.iter().all(|spinner| spinner.stat()[0] != "T")
    });
}

#[test]
fn who_is_killed_in_its_turn_leaves_its_core_to_the_others() {
    let arbiter = arbiter(one_core(), 5);
    let mut spinners: Vec<Spinner> = (0..3).map(|_| Spinner::new()).collect();
    let places: Vec<_> = spinners
        .iter()
        .map(|spinner| arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap())
        .collect();
    until("turns", || arbiter.turns().0.len() >= 6);
    spinners[1].0.kill().unwrap();
    // Its owner does not say so; the others go on all the same, and it gets no turn any more.
    let gone = places[1].cell();
    until("it is noticed", || {
        arbiter.cells().iter().all(|cell| cell.cell != gone)
    });
    let before = arbiter.turns().0.len();
    until("more turns", || arbiter.turns().0.len() >= before + 6);
    assert!(arbiter.turns().0[before..].iter().all(|turn| turn.cell != gone));
}

#[test]
fn who_is_killed_alone_loses_its_lock_within_a_second() {
    let pool = one_core();
    let arbiter = arbiter(pool.clone(), 5);
    let locks = arbiter.locks().unwrap();
    let core = CoreIndex::new(u16::try_from(pool.first().unwrap()).unwrap());
    let mut spinner = Spinner::new();
    let _place = arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap();
    until("it has its core", || locks.query(core).is_some());
    assert_eq!(locks.query(core).unwrap().pid(), spinner.0.id());
    spinner.0.kill().unwrap();
    let killed = Instant::now();
    // Nobody waits for the core, and its owner says nothing.
    until("its lock is free", || locks.query(core).is_none());
    assert!(
        killed.elapsed() < Duration::from_secs(1),
        "{:?}",
        killed.elapsed()
    );
}

#[test]
fn a_held_cell_stands_still_and_uses_nothing() {
    let arbiter = arbiter(one_core(), 5);
    let spinner = Spinner::new();
    let place = arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap();
    until("it runs", || spinner.ticks() >= 2);
    arbiter.hold(place.cell(), true);
    until("it stands still", || arbiter.cells()[0].doing == Doing::Paused);
    assert_eq!(spinner.stat()[0], "T");
    let (before, waited) = (spinner.ticks(), place.waited());
    until("time passes", || {
        place.waited() > waited + Duration::from_millis(50)
    });
    assert_eq!(spinner.ticks(), before);
    arbiter.hold(place.cell(), false);
    until("it goes on", || spinner.ticks() > before + 1);
}

#[test]
fn what_can_never_run_is_refused_before_it_is_touched() {
    let arbiter = arbiter(one_core(), 5);
    let spinner = Spinner::new();
    let request = Request {
        hold: Hold::Exclusive { core: None },
        ..Request::of(0)
    };
    assert!(matches!(
        arbiter.admit(request, spinner.pid(), "spinner"),
        Err(AdmitError::Never(_))
    ));
    assert_ne!(spinner.stat()[0], "T");
    assert!(matches!(
        arbiter.admit(Request::of(0), i32::MAX, "nobody"),
        Err(AdmitError::Host { .. })
    ));
}

/// A cell that takes turns.
fn cell_on(arbiter: &Arc<dyn GiveCores>) -> ProcessCell {
    let blob = SealedBlob::of(common::PAYLOAD).unwrap();
    ProcessCell::spawn(&Spec {
        executable: &common::executable(),
        blobs: &[&blob],
        limits: HostLimits::default(),
        bounds: Bounds::default(),
        sandbox: Sandbox::of_this_host(),
        stop: &StopSignal::new().unwrap(),
        cores: Some(Seat::Turns {
            cores: arbiter,
            request: Request::of(0),
            name: "cell",
        }),
    })
    .unwrap()
}

#[test]
fn cells_in_turns_give_what_they_give_alone() {
    use hotcell_cells::contract::Cell as _;
    let (_, alone, _) = common::run("well");
    let arbiter = arbiter(one_core(), 1);
    let gives: Arc<dyn GiveCores> = Arc::clone(&arbiter) as _;
    let noise: Vec<Spinner> = (0..2).map(|_| Spinner::new()).collect();
    let _places: Vec<_> = noise
        .iter()
        .map(|spinner| arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap())
        .collect();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut cell = cell_on(&gives);
                    // Less than it takes in turns with the others, and enough for itself.
                    cell.set_limit(Limit::WallMillis(20_000)).unwrap();
                    let mut kept = common::Kept::default();
                    let ending = cell.run(&common::job("well"), &mut kept);
                    cell.finish();
                    (format!("{ending:?}"), kept)
                })
            })
            .collect();
        for run in runs {
            let (ending, kept) = run.join().unwrap();
            assert!(ending.starts_with("Done"), "{ending}");
            assert_eq!(format!("{kept:?}"), format!("{alone:?}"));
        }
    });
    apart(&arbiter.turns().0);
}
