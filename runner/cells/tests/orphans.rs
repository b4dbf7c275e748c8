//! When the runner is killed with no chance to clean up, its cells die with it.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Kept, job, spawn};
use hotcell_cells::intake::Bounds;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::HostLimits;

/// Set for the runner that will be killed.
const STARTED: &str = "HOTCELL_TEST_STARTED";

/// The runner that will be killed. Not a test of its own: the other one starts it.
#[test]
#[ignore = "started by the other test"]
fn runner_with_a_cell_that_hangs() {
    // Whoever runs all ignored tests would wait for it for ever.
    if std::env::var_os(STARTED).is_none() {
        return;
    }
    let mut cell = spawn(
        HostLimits::default(),
        Bounds::default(),
        &StopSignal::new().unwrap(),
    );
    writeln!(std::io::stderr(), "a cell is there").unwrap();
    let _ = cell.run(&job("hang"), &mut Kept::default());
}

/// Processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
            fields.is_some_and(|rest| rest.split(' ').nth(1) == Some(&parent.to_string()))
        })
        .collect()
}

/// Whether the process is there and still runs.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn cells_die_with_their_runner() {
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runner_with_a_cell_that_hangs",
            "--ignored",
            "--nocapture",
        ])
        .env(STARTED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(runner.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "a cell is there"));
    let cells = children_of(runner.id());
    assert_eq!(cells.len(), 1, "{cells:?}");
    assert!(runs(&cells[0]));

    runner.kill().unwrap();
    runner.wait().unwrap();
    let begun = Instant::now();
    while runs(&cells[0]) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the cell lives on");
        std::thread::yield_now();
    }
}
