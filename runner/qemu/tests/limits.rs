//! Guests that meet a limit: it is an outcome, and what there was before is kept.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bench;

use std::sync::mpsc::channel;
use std::time::Duration;

use bench::Bench;
use hotcell_cells::supervise::{Met, Sandbox};
use hotcell_schema::outcome::Outcome;

/// Two orders of bytes, two sizes of words.
const TARGETS: [&str; 4] = ["x86_64", "aarch64", "armhf", "mipsel"];

#[test]
fn who_never_ends_is_ended_by_the_limit_of_wall_time() {
    // By itself; with a child that goes on too; with no output that its end could be seen by.
    let ran = ["spins", "twice", "closed"].map(|how| {
        bench::all_of("endless", &TARGETS, &[how], |bench| {
            bench.limits.wall_ms = 3_000;
        })
    });
    for (guest, ran) in ran.iter().flatten() {
        assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{guest:?}");
        assert_eq!(ran.stdout(), "begun\n", "{guest:?}");
        assert_eq!(ran.files()["/tmp/made"], b"before", "{guest:?}");
    }
}

/// Threads of a process and of all that came of it.
fn threads(first: u32) -> usize {
    let threads = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    bench::family(first).into_iter().map(threads).sum()
}

#[test]
fn who_forks_without_end_has_its_limit_and_the_host_its_processes() {
    const TASKS: u64 = 64;
    for guest in bench::of("forkbomb", &TARGETS, &["bomb"]) {
        let mut bench = Bench::of(&guest);
        bench.limits.wall_ms = 2_000;
        bench.limits.tasks = TASKS;
        let (tell, told) = channel();
        let (ran, most) = std::thread::scope(|scope| {
            // Where no cell comes to be, nobody tells of one: the sender goes with the thread.
            let running =
                scope.spawn(move || bench.run_beside(|cell| tell.send(cell.id().unsigned_abs()).unwrap()));
            let cell = told.recv().ok();
            let mut most = 0;
            while let Some(cell) = cell.filter(|_| !running.is_finished()) {
                most = most.max(threads(cell));
                std::thread::sleep(Duration::from_millis(20));
            }
            let ran = running.join().unwrap();
            // All of them have ended with their cell, which is not waited for any longer.
            assert_eq!(cell.map(threads), cell.map(|_| 0), "{}", guest.target);
            (ran, most)
        });
        let Some(ran) = ran else { return };
        assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{}", guest.target);
        // What follows is QEMU's: a child of its own whose helper thread is refused gives up with a word.
        assert!(ran.stdout().starts_with("begun\n"), "{}", guest.target);
        assert!(most > 8, "{}: {most}", guest.target);
        // Where control groups can be made each cell has its own limit.
        if Sandbox::of_this_host().stand_still() {
            assert!(most as u64 <= TASKS, "{}: {most}", guest.target);
            assert!(ran.met.refused_tasks > 0, "{}", guest.target);
        }
    }
}

#[test]
fn who_takes_all_memory_is_ended_and_it_is_told() {
    if !Sandbox::of_this_host().stand_still() {
        eprintln!("SKIPPED memory: no control groups on this host");
        return;
    }
    let little = |bench: &mut Bench| bench.limits.memory = 256 << 20;
    for (guest, ran) in bench::all_of("hog", &TARGETS, &["all"], little) {
        let killed = Outcome::Signalled("SIGKILL".into());
        assert_eq!(ran.outcome(), Ok(killed), "{}", guest.target);
        assert_eq!(ran.stdout(), "begun\n", "{}", guest.target);
        assert_eq!(ran.met.ended_for_memory, 1, "{}", guest.target);
    }
    // A child's end is the guest's own matter, and is told all the same.
    for (guest, ran) in bench::all_of("hog", &TARGETS, &["child"], little) {
        assert_eq!(ran.outcome(), Ok(Outcome::Exited(0)), "{}", guest.target);
        assert_eq!(ran.stdout(), "begun\nthe child ended by 9\n", "{}", guest.target);
        assert_eq!(ran.met.ended_for_memory, 1, "{}", guest.target);
    }
    for (guest, ran) in bench::all_of("hog", &TARGETS, &[], little) {
        assert_eq!(ran.outcome(), Ok(Outcome::Exited(0)), "{}", guest.target);
        assert_eq!(ran.met, Met::default(), "{}", guest.target);
    }
}
