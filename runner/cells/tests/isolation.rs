//! Real cells in the control groups that keep them on their cores. All of it in one test: a process has one pool.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use hotcell_cells::contract::Cell as _;
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::isolation::{Isolation, IsolationError};
use hotcell_cells::cores::schedule::{Request, Rules};
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{HostLimits, Sandbox, SealedBlob};
use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::Cores;
use hotcell_schema::manifest::later::{Isolation as Wanted, OnSmallHost};

/// Control groups of a process, as text.
fn groups(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

fn allowed(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn cells_are_in_the_pools_group_from_their_job_on_and_the_groups_go_with_it() {
    let topology = Topology::of_this_host().unwrap();
    let all = topology.cpus().to_string();
    let wanted = |isolation| Cores {
        isolation,
        on_small_host: Some(OnSmallHost::Share),
        ..Cores::default()
    };
    let duties = Duties::plan(&wanted(Some(Wanted::Cpuset)), &topology).unwrap();
    let this = std::process::id();
    let before = groups(this);
    let isolation = match Isolation::reach(&duties, &topology) {
        Ok(isolation) => isolation,
        Err(IsolationError::NoCpusets(why)) => {
            // What is left open is had all the same, and says what is missing.
            let duties = Duties::plan(&wanted(None), &topology).unwrap();
            let isolation = Isolation::reach(&duties, &topology).unwrap();
            assert_ne!(isolation.level(), "cpuset");
            assert!(isolation.fallbacks()[0].contains(&why), "{isolation:?}");
            eprintln!("skipped: this host gives no cpusets ({why})");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(isolation.level(), "cpuset");
    let name = format!("hotcell-{this}-");
    let is_pool = |text: &str| text.contains(&name) && text.contains("-pool");
    let here = |text: &str| text.lines().any(is_pool);
    assert!(!here(&groups(this)), "the runner is not in the pool");

    let rules = Rules {
        pool: duties.pool.clone(),
        slice: NonZeroU64::new(2_000_000).unwrap(),
        ageing: NonZeroU64::new(1_000_000_000).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    };
    let pool = duties.pool.iter();
    let pool = pool.fold(CoreSet::default(), |all, core| all.or(&topology.usable(core)));
    let arbiter = Arc::new(Arbiter::start(rules, topology, None).unwrap());
    let cores: Arc<dyn GiveCores> = Arc::clone(&arbiter) as _;
    let sandbox = isolation.sandbox(Sandbox::of_this_host());
    let blob = SealedBlob::of(common::PAYLOAD).unwrap();
    let (executable, stop) = (common::executable(), StopSignal::new().unwrap());
    let spawn = || {
        let spec = Spec {
            executable: &executable,
            blobs: &[&blob],
            limits: HostLimits::default(),
            bounds: Bounds::default(),
            sandbox: &sandbox,
            stop: &stop,
            cores: Some(Seat::Turns {
                cores: &cores,
                request: Request::of(0),
                name: "cell",
            }),
        };
        ProcessCell::spawn(&spec).unwrap()
    };
    let mut cell = spawn();
    let told: Vec<&str> = cell.layers().iter().map(String::as_str).collect();
    assert!(told.contains(&"cpuset-cgroup"), "{told:?}");
    cell.start(&common::job("hang")).unwrap();
    let pid = arbiter.cells()[0].process.pid();
    assert!(here(&groups(pid)), "{}", groups(pid));
    let may: CoreSet = allowed(pid).parse().unwrap();
    assert!(may.is_subset(&pool), "{may}");
    // Memory is bounded in the group it is in now.
    if Sandbox::of_this_host()
        .layers
        .iter()
        .any(|layer| layer == "memory-cgroup")
    {
        cell.set_limit(hotcell_cells::contract::Limit::Memory(1 << 30))
            .unwrap();
    }
    cell.force_stop().unwrap();
    cell.finish();
    // Others do their job there as anywhere.
    let (_, alone, _) = common::run("well");
    let mut cell = spawn();
    let mut kept = common::Kept::default();
    let ending = cell.run(&common::job("well"), &mut kept);
    assert!(format!("{ending:?}").starts_with("Done"), "{ending:?}");
    assert_eq!(format!("{kept:?}"), format!("{alone:?}"));
    cell.finish();

    drop(isolation);
    assert_eq!(groups(this), before, "the runner is where it was");
    assert_eq!(allowed(this), all);
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = left
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4));
    for point in points {
        for own in before.lines().filter_map(|line| line.rsplit(':').next()) {
            let folder = std::path::Path::new(point).join(own.trim_start_matches('/'));
            let left = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
            assert_eq!(left.find(|name| is_pool(name)), None, "{}", folder.display());
        }
    }
}
