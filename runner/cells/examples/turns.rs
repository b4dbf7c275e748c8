//! The price of turns: so many processes that compute, one after the other and in slices on one core.
//!
//! `cargo run --release -p hotcell-cells --example turns [SLICE_MS] [CELLS]` prints the throughput in slices against one after
//! the other (goal: at least 0.95), and the arbiter's CPU time for a switch (goal: under 50 us). Beside it what a loop costs that
//! decides nothing: it sleeps for a slice, stops one process and lets another go on.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement by hand")]

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::process::{Process, Still, bind_this_thread};
use hotcell_cells::cores::schedule::{Request, Rules};
use hotcell_cells::cores::topology::Topology;
use hotcell_schema::cores::CoreSet;
use nix::sys::resource::{UsageWho, getrusage};

/// Rounds of the work of one process: a few tenths of a second.
const ROUNDS: u64 = 250_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let Some(rounds @ ("work" | "work-on")) = first.as_deref() {
        let rounds = if rounds == "work" { ROUNDS } else { u64::MAX };
        let mut value = 1u64;
        for round in 0..rounds {
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
        assert!(start("work").wait().unwrap().success());
    }
    let alone = begun.elapsed().as_secs_f64();
    bind_this_thread(&control).unwrap();

    let bare = bare_switch(slice, &topology.usable(core));
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
        let child = start("work");
        places.push(
            arbiter
                .admit(Request::of(0), i32::try_from(child.id()).unwrap(), "work")
                .unwrap(),
        );
        children.push(child);
    }
    let before = arbiter_cpu();
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
    let cpu = arbiter_cpu() - before;
    let switches = arbiter.turns().0.len();
    println!("{cells} processes, one after the other: {alone:.2} s");
    println!(
        "in slices of {slice} ms: {shared:.2} s, throughput {:.3} (wanted: at least 0.95)",
        alone / shared
    );
    println!(
        "{switches} turns, {:.1} us of the arbiter's CPU for each (wanted: under 50); a bare loop of sleep, stop and go on: {bare:.1} us",
        cpu * 1e6 / switches as f64
    );
}

/// What a switch costs this host without any arbiter, in us of CPU.
fn bare_switch(slice: u64, cpus: &CoreSet) -> f64 {
    const SWITCHES: usize = 200;
    let mut children = [start("work-on"), start("work-on")];
    let mut processes = Vec::new();
    for child in &children {
        let mut process = Process::open(i32::try_from(child.id()).unwrap()).unwrap();
        process.stop().unwrap();
        process.bind(cpus).unwrap();
        processes.push(process);
    }
    processes.first().unwrap().go_on().unwrap();
    let before = own_cpu();
    for turn in 0..SWITCHES {
        std::thread::sleep(Duration::from_millis(slice));
        let running = processes.get(turn % 2).unwrap();
        running.tell_to_stop().unwrap();
        let still = loop {
            if let Some(still) = running.is_still(Duration::ZERO).unwrap() {
                break still;
            }
            std::hint::spin_loop();
        };
        assert_eq!(still, Still::Stopped);
        processes.get((turn + 1) % 2).unwrap().go_on().unwrap();
    }
    let cpu = own_cpu() - before;
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    cpu * 1e6 / SWITCHES as f64
}

fn start(what: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .arg(what)
        .spawn()
        .unwrap()
}

/// CPU time of the arbiter's thread in seconds (`schedstat` in `Documentation/scheduler/sched-stats.rst` of the kernel).
fn arbiter_cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let named = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "arbiter";
    let task = tasks.find(named).unwrap();
    let schedstat = std::fs::read_to_string(task.join("schedstat")).unwrap();
    let nanoseconds: u64 = schedstat.split(' ').next().unwrap().parse().unwrap();
    nanoseconds as f64 / 1e9
}

fn own_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
