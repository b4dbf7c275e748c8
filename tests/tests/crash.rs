//! `kill -9` of runners and cells at random moments: nothing is lost, wrong, or run twice once it was stored.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use hotcell_schema::outcome::Status;
use hotcell_tests::{Busybox, Chance, EXPERIMENT, Lab, Ledger, busybox, files_below, write_experiment};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn what_was_stored_survives_kills() {
    let Some(all) = busybox() else { return };
    crash(&all[..1], 10, 20);
}

#[test]
#[ignore = "200 kills take minutes"]
fn what_was_stored_survives_200_kills() {
    let Some(all) = busybox() else { return };
    crash(&all[1..3], 200, 21);
}

/// What a kill met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Runner,
    OneOfTwoRunners,
    Cell,
    /// The run had ended before.
    Nobody,
}

fn start(lab: &Lab) -> Child {
    lab.command(["run", EXPERIMENT, "-j", "2", "--progress", "none"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The end of a runner that nobody killed: its exit code and what it said.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A cell that is at work, waited for as long as its runner works.
fn one_cell(lab: &Lab, runner: &mut Child, chance: &mut Chance) -> Option<i32> {
    while runner.try_wait().unwrap().is_none() {
        let mut cells = lab.processes();
        cells.retain(|(_, name)| name != "hotcell");
        if !cells.is_empty() {
            return Some(cells[chance.below(cells.len() as u64) as usize].0);
        }
        std::thread::yield_now();
    }
    None
}

fn crash(all: &[Busybox], kills: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let undisturbed = Lab::new();
    write_experiment(&undisturbed, all);
    let began = Instant::now();
    let reference = undisturbed.run(EXPERIMENT, &["-j", "2", "--progress", "none"]);
    let whole_run = began.elapsed();
    let instances = reference.report.instances.len();
    let reference = reference.result();

    let lab = Lab::with_own_executables();
    write_experiment(&lab, all);
    let runs = lab.path(".hotcell/runs");
    let mut ledger = Ledger::default();
    let mut met: BTreeMap<Victim, usize> = BTreeMap::new();
    let (mut killed, mut finished) = (0, 0);
    while killed < kills {
        let plan = chance.below(4);
        let mut runner = start(&lab);
        let other = (plan == 0).then(|| start(&lab));
        // The moment is the point of the test; nothing is waited for.
        std::thread::sleep(whole_run.mul_f64(chance.below(1000) as f64 / 1000.0));
        let cell = match plan {
            1 => one_cell(&lab, &mut runner, &mut chance),
            _ => None,
        };
        let victim = if runner.try_wait().unwrap().is_some() {
            Victim::Nobody
        } else if let Some(cell) = cell {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(cell), Signal::SIGKILL);
            Victim::Cell
        } else {
            runner.kill().unwrap();
            match other {
                Some(_) => Victim::OneOfTwoRunners,
                None => Victim::Runner,
            }
        };
        *met.entry(victim).or_default() += 1;
        killed += usize::from(victim != Victim::Nobody);

        let (code, said) = end(runner);
        match victim {
            Victim::Nobody => assert_eq!(code, Some(0), "{said}"),
            // Killed while it said its name, it is an engine that this host does not have: 4.
            Victim::Cell => assert!(matches!(code, Some(0 | 3 | 4)), "{code:?} {said}"),
            Victim::Runner | Victim::OneOfTwoRunners => {
                assert!(matches!(code, None | Some(0)), "{code:?} {said}")
            }
        }
        if let Some(other) = other {
            let (code, said) = end(other);
            assert_eq!(code, Some(0), "the runner beside the killed one: {said}");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while !lab.processes().is_empty() {
            assert!(
                Instant::now() < deadline,
                "cells outlive their runner: {:?}",
                lab.processes()
            );
            std::thread::yield_now();
        }
        if lab.path("store/version").exists() {
            lab.expect(0, ["store", "verify"]);
        }
        ledger.audit(&runs);
        eprintln!("{killed}: {victim:?}, {} stored", ledger.len());
        // Whatever result is there is the right one, however its run ended.
        let mut complete = false;
        for run in fs::read_dir(&runs).into_iter().flatten() {
            let result = run.unwrap().path().join("result");
            if result.is_dir() && (victim != Victim::Cell || code == Some(0)) {
                assert!(
                    files_below(&result) == reference,
                    "{} is another result",
                    result.display()
                );
                complete = true;
            }
        }
        if victim == Victim::Cell && code != Some(0) {
            let run = lab.latest();
            for one in &run.report.instances {
                let honest = match code {
                    Some(3) => matches!(one.status, Status::Ok | Status::Interrupted | Status::Skipped),
                    _ => matches!(one.status, Status::Ok | Status::Refused | Status::Skipped),
                };
                assert!(honest, "{}: {:?} {:?}", one.name, one.status, one.reason);
            }
            fs::remove_dir_all(&run.folder).unwrap();
        }
        if complete {
            // From here on there is nothing to lose but all of it: a run finds everything stored. Then from the beginning.
            lab.forget_latest();
            let last = lab.run(EXPERIMENT, &["--progress", "none"]);
            assert_eq!(last.statuses(), [("cached".to_owned(), instances)].into());
            assert!(last.result() == reference);
            finished += 1;
            fs::remove_dir_all(lab.path("store")).unwrap();
            fs::remove_dir_all(&runs).unwrap();
            ledger = Ledger::default();
        }
    }
    eprintln!("{met:?}; {finished} times to the end and from the beginning");
    // What is left goes to its end.
    let last = lab.run(EXPERIMENT, &["--progress", "none"]);
    ledger.audit(&runs);
    assert!(last.result() == reference);
    let (_, left) = lab.expect(0, ["store", "verify"]);
    assert!(left.is_empty(), "{left}");
}
