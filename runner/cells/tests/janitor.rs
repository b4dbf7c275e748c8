//! What runners left that are no more is cleared; what belongs to one that lives is not touched.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Kept, job};
use hotcell_cells::intake::Bounds;
use hotcell_cells::janitor::clear_groups;
use hotcell_cells::process::Ending;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::HostLimits;

/// Folders of control groups with this name, in every hierarchy.
fn folders(name: &str) -> Vec<PathBuf> {
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", name])
        .output()
        .unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    text.lines().map(PathBuf::from).collect()
}

fn sleeper(group: &[PathBuf]) -> Child {
    let child = Command::new("sleep")
        .arg("3600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    for folder in group {
        fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    child
}

#[test]
fn groups_of_dead_runners_go_with_what_is_in_them() {
    let stop = StopSignal::new().unwrap();
    let mut cell = common::spawn(HostLimits::default(), Bounds::default(), &stop);
    let own = folders(&format!("hotcell-{}-*", std::process::id()));
    let Some(first) = own.first() else {
        std::io::stderr()
            .write_all(b"skipped: no control groups can be made on this host\n")
            .unwrap();
        return;
    };
    let name = first.file_name().unwrap().to_str().unwrap().to_owned();
    let mut parts = name.rsplitn(3, '-');
    let (_, whose) = (parts.next().unwrap(), parts.next().unwrap());
    let namespace = whose.split_once('.').unwrap().1;
    // This process's number, when another process had it.
    let dead = format!("hotcell-{}-1.{namespace}-0", std::process::id());
    // Another namespace's runner may live: what is its is not ours to judge.
    let foreign = format!("hotcell-{}-1.1-0", std::process::id());
    let make = |name: &str| -> Vec<PathBuf> {
        let made: Vec<PathBuf> = own.iter().map(|folder| folder.with_file_name(name)).collect();
        made.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        made
    };
    let (dead, foreign) = (make(&dead), make(&foreign));
    let (mut orphan, mut stranger) = (sleeper(&dead), sleeper(&foreign));
    let cleared = clear_groups();
    let stays = foreign.iter().all(|folder| folder.exists());
    let lives = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    for folder in &foreign {
        // The kernel may need a moment until the group is empty.
        while fs::remove_dir(folder).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::yield_now();
        }
    }
    // Others that run tests on this host may have left some too.
    assert!(cleared >= 1 && stays && lives, "{cleared} {stays} {lives}");
    assert!(dead.iter().all(|folder| !folder.exists()));
    assert!(!orphan.wait().unwrap().success());
    // And a cell of this process goes on as if nothing had been.
    assert!(own.iter().all(|folder| folder.exists()));
    let ending = cell.run(&job("well"), &mut Kept::default());
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
}
