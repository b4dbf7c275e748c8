//! The price of turns: so many processes that compute, one after the other and in slices on one core.
//!
//! `cargo run --release -p hotcell-cells --example turns [SLICE_MS] [CELLS]` prints the throughput in slices against one after
//! the other (goal: at least 0.95), and the arbiter's CPU time for a switch (goal: under 50 us).
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement by hand")]

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::{Child, Command};
use std::time::Instant;

use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::process::bind_this_thread;
use hotcell_cells::cores::schedule::{Request, Rules};
use hotcell_cells::cores::topology::Topology;
use hotcell_schema::cores::CoreSet;
use nix::sys::resource::{UsageWho, getrusage};

/// Rounds of the work of one process: a few tenths of a second.
const ROUNDS: u64 = 250_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("work") {
        let mut value = 1u64;
        for round in 0..ROUNDS {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
        }
        return;
    }
    let slice: u64 = first.map_or(10, |text| text.parse().unwrap());
    let cells: usize = arguments.next().map_or(32, |text| text.parse().unwrap());
    let topology = Topology::of_this_host().unwrap();
    let core = topology.cores().iter().next_back().unwrap();
    let others = topology.cpus().without(&topology.siblings(core));
    // Where there is another core, the arbiter is there.
    let control = if others.is_empty() {
        topology.cpus().clone()
    } else {
        others
    };

    bind_this_thread(&topology.usable(core)).unwrap();
    let begun = Instant::now();
    for _ in 0..cells {
        assert!(start().wait().unwrap().success());
    }
    let alone = begun.elapsed().as_secs_f64();
    bind_this_thread(&control).unwrap();

    let rules = Rules {
        pool: CoreSet::from_iter([core]),
        slice: NonZeroU64::new(slice * 1_000_000).unwrap(),
        ageing: NonZeroU64::new(1_000_000_000).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::new(cells).unwrap(),
        users: BTreeMap::new(),
    };
    let arbiter = Arbiter::start(rules, topology, Some(control)).unwrap();
    let mut children: Vec<Child> = Vec::new();
    let mut places = Vec::new();
    let begun = Instant::now();
    for _ in 0..cells {
        let child = start();
        places.push(
            arbiter
                .admit(Request::of(0), i32::try_from(child.id()).unwrap(), "work")
                .unwrap(),
        );
        children.push(child);
    }
    let before = own_cpu();
    let mut switches = 0;
    // Who is done gives its place up at once: each is waited for by a thread of its own.
    std::thread::scope(|scope| {
        for (mut child, place) in children.into_iter().zip(places) {
            scope.spawn(move || {
                assert!(child.wait().unwrap().success());
                drop(place);
            });
        }
    });
    let shared = begun.elapsed().as_secs_f64();
    let cpu = own_cpu() - before;
    switches += arbiter.turns().0.len();
    println!("{cells} processes, one after the other: {alone:.2} s");
    println!(
        "in slices of {slice} ms: {shared:.2} s, throughput {:.3} (wanted: at least 0.95)",
        alone / shared
    );
    println!(
        "{switches} turns, {:.1} us of the arbiter's CPU for each (wanted: under 50)",
        cpu * 1e6 / switches as f64
    );
}

fn start() -> Child {
    Command::new(std::env::current_exe().unwrap())
        .arg("work")
        .spawn()
        .unwrap()
}

fn own_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
