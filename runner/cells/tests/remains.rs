//! A cell leaves nothing behind: no process, no descriptor, no control group. Alone in its process, so that it can count.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Kept, job, run, spawn};
use hotcell_cells::intake::Bounds;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::HostLimits;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nothing_of_a_cell_remains() {
    // The first cell finds out what this host allows.
    drop(run("well"));
    let before = descriptors();
    for what in [
        "well",
        "abort",
        "segfault",
        "garbage",
        "flood-events",
        "exit",
        "hang-up",
        "process:fork",
        "take-descriptors",
        "eat-memory",
        "hang",
    ] {
        let bounds = Bounds {
            events: 1000,
            ..Bounds::default()
        };
        let limits = HostLimits {
            wall_ms: if what == "hang" { 400 } else { 60_000 },
            address_space: 512 << 20,
            ..HostLimits::default()
        };
        let mut cell = spawn(limits, bounds, &StopSignal::new().unwrap());
        let _ = cell.run(&job(what), &mut Kept::default());
    }
    // One that was never asked to do anything.
    drop(spawn(
        HostLimits::default(),
        Bounds::default(),
        &StopSignal::new().unwrap(),
    ));
    assert_eq!(descriptors(), before);

    let tasks = fs::read_dir("/proc/self/task").unwrap();
    for task in tasks {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        assert_eq!(children.trim(), "");
    }

    let mine = format!("hotcell-{}-", std::process::id());
    let found = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("{mine}*")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
