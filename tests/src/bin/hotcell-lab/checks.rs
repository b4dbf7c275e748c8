//! The checks. Each panics where something is not as it should be, and returns what to tell of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hotcell_cells::cores::arbiter::{Arbiter, GiveCores as _};
use hotcell_cells::cores::schedule::{Hold, Request, Rules};
use hotcell_cells::cores::topology::Topology;
use hotcell_tests::{Lab, Run, Spinner};
use serde_json::{Value, json};

use crate::Machine;
use crate::sampler::{Sampler, Who};

/// The machine's only shell.
const SHELL: [&str; 2] = ["/bin/busybox", "sh"];
/// Where the pool is in every check.
const POOL: [u32; 2] = [2, 3];

pub(crate) fn cores(machine: Machine) -> String {
    let lab = Lab::new();
    let (told, _) = lab.expect(0, ["cores", "--json"]);
    let listed: Value = serde_json::from_str(&told).unwrap();
    let cores = listed["cores"].as_array().unwrap();
    assert_eq!(cores.len(), 4, "{told}");
    for (number, core) in cores.iter().enumerate() {
        let kept = machine == Machine::Isolated && number >= 2;
        assert_eq!(core["isolated"], kept, "{core}");
        assert_eq!(core["tickless"], kept, "{core}");
    }
    lab.expect(0, ["cores"]).0
}

pub(crate) fn isolated(machine: Machine) -> String {
    let lab = lab(Some("isolated"), 1);
    match machine {
        Machine::Isolated => {
            // What is left open is the same here.
            let run = self::lab(None, 1).run("turns.yaml", &["-j", "1", "--progress", "none"]);
            assert!(run.all_ok());
            assert_eq!(run.facts.isolation, "isolated");
            lab.expect(0, ["plan", "turns.yaml"]);
            facts(&run)
        }
        Machine::Plain | Machine::V1 => {
            let (_, told) = lab.expect(4, ["run", "turns.yaml"]);
            assert!(
                told.contains("isolcpus=domain,managed_irq,2-3 nohz_full=2-3"),
                "{told}"
            );
            told
        }
    }
}

pub(crate) fn turns(machine: Machine) -> String {
    // Other work, more than there are cores: the kernel would put it on every one.
    let spinners: Vec<Spinner> = (0..6).map(|_| Spinner::start(&SHELL)).collect();
    let lab = lab(asked(machine), 3);
    let sampler = Sampler::start();
    let run = lab.run("turns.yaml", &["-j", "3", "--progress", "none"]);
    let seen = sampler.end();
    drop(spinners);
    assert!(run.all_ok());
    assert_eq!(run.facts.isolation, asked(machine).unwrap());
    let on = |who, processor| seen.get(&(who, processor)).copied().unwrap_or_default();
    for processor in POOL {
        assert!(
            on(Who::Cell, processor) > 0,
            "no cell was seen on {processor}: {seen:?}"
        );
        assert_eq!(on(Who::Serves, processor), 0, "{seen:?}");
        assert_eq!(on(Who::Young, processor), 0, "{seen:?}");
    }
    for processor in [0, 1] {
        assert_eq!(on(Who::Cell, processor), 0, "{seen:?}");
    }
    let layers = &run.facts.confinement;
    assert!(layers.iter().any(|layer| layer == "cpuset-cgroup"), "{layers:?}");
    let checks = run.facts.cores.as_ref().unwrap().checks.as_ref().unwrap();
    assert!(checks.looks > 0);
    assert_eq!(checks.strays, 0, "{checks:?}");
    // Threads of the kernel are in brackets.
    let programs = checks
        .foreign_names
        .iter()
        .filter(|name| !name.starts_with('['))
        .count();
    let there = on(Who::Other, 2) + on(Who::Other, 3);
    match machine {
        // A partition, or the kernel from its start, keeps all else off.
        Machine::Plain | Machine::Isolated => assert_eq!((there, programs), (0, 0), "{seen:?} {checks:?}"),
        Machine::V1 => {
            assert!(there > 0 && programs > 0, "{seen:?} {checks:?}");
            let told = run
                .facts
                .fallbacks
                .iter()
                .any(|text| text.contains("keep no other work off the pool"));
            assert!(told, "{:?}", run.facts.fallbacks);
        }
    }
    assert_eq!(left(), Vec::<PathBuf>::new(), "groups stay");
    let alone_lab = self::lab(Some("none"), 3);
    let alone = alone_lab.run("turns.yaml", &["-j", "3", "--progress", "none"]);
    assert_eq!(alone.facts.isolation, "none");
    alone.assert_same_result(&run, "with cores");
    let seen: Vec<String> = seen
        .iter()
        .map(|((who, processor), times)| format!("{who:?} on {processor}: {times}"))
        .collect();
    format!("{}seen from outside: {}", facts(&run), seen.join(", "))
}

/// The manifest of a host, where `hotcell host arbiter` looks for it.
const HOST: &str = "/etc/hotcell/host.toml";

pub(crate) fn users(machine: Machine) -> String {
    fs::create_dir_all("/etc/hotcell").unwrap();
    let isolation = asked(machine).unwrap();
    let host = format!(
        "hotcell = 1\nkind = \"host\"\n[cores]\ncontrol = 0\nchores = 1\npool = \"2-3\"\nisolation = \"{isolation}\"\n\
         [users.one]\nrole = \"user\"\nuid = 1500\n[users.two]\nrole = \"user\"\nuid = 1501\n\
         [users.two.quota]\ncells = 2\nmemory = \"1024GiB\"\n"
    );
    fs::write(HOST, host).unwrap();
    // What is in the machine for nothing else: one who has a core alone, and one who shares the other with himself.
    let labs = [(1500, lab_of(None, 1, true)), (1501, lab(None, 2))];
    let root = Lab::new();
    let mut arbiter = root.command(["host", "arbiter"]);
    let mut arbiter = arbiter.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(arbiter.stderr.take().unwrap());
    let mut told = String::new();
    stderr.read_line(&mut told).unwrap();
    assert!(told.contains(&format!("isolation: {isolation}")), "{told}");
    let sampler = Sampler::start();
    let runs: Vec<Child> = labs
        .iter()
        .map(|(user, lab)| {
            give(&lab.path("."), *user);
            let mut run = lab.command(["run", "turns.yaml", "-j", "2", "--progress", "none"]);
            let log = fs::File::create(lab.path("log")).unwrap();
            run.uid(*user)
                .gid(*user)
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            run.spawn().unwrap()
        })
        .collect();
    for (mut run, (_, lab)) in runs.into_iter().zip(&labs) {
        let log = || fs::read_to_string(lab.path("log")).unwrap();
        assert!(run.wait().unwrap().success(), "{}", log());
    }
    let seen = sampler.end();
    let (cores, _) = root.expect(0, ["cores", "--json"]);
    // Killed, it leaves what cells may be in; the next one finds the machine whole, and takes all of it away at its end.
    arbiter.kill().unwrap();
    arbiter.wait().unwrap();
    assert!(!left().is_empty());
    let mut arbiter = root.command(["host", "arbiter"]);
    let mut arbiter = arbiter.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(arbiter.stderr.take().unwrap());
    let mut again = String::new();
    stderr.read_line(&mut again).unwrap();
    assert_eq!(again, told);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(arbiter.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(arbiter.wait().unwrap().success());
    assert_eq!(left(), Vec::<PathBuf>::new());
    fs::remove_file(HOST).unwrap();
    let cores: Value = serde_json::from_str(&cores).unwrap();
    assert_eq!(cores["checks"]["strays"], 0, "{cores}");
    assert!(cores["checks"]["looks"].as_u64() > Some(0), "{cores}");
    let runs = [labs[0].1.latest(), labs[1].1.latest()];
    for run in &runs {
        assert!(run.all_ok());
        let alone = |text: &String| text.starts_with("no arbiter on this host");
        assert!(
            !run.facts.fallbacks.iter().any(alone),
            "{:?}",
            run.facts.fallbacks
        );
    }
    // The same guest gave both the same.
    let of_first = &runs[0].report.instances[0];
    let same = runs[1]
        .report
        .instances
        .iter()
        .find(|other| other.axes == of_first.axes);
    assert_eq!(same.map(|same| &same.outputs), Some(&of_first.outputs));
    for processor in [0, 1] {
        assert_eq!(seen.get(&(Who::Cell, processor)), None, "{seen:?}");
    }
    for processor in POOL {
        assert!(seen.contains_key(&(Who::Cell, processor)), "{seen:?}");
        assert_eq!(seen.get(&(Who::Serves, processor)), None, "{seen:?}");
    }
    format!("{told}{}{}{}", facts(&runs[0]), facts(&runs[1]), cores["checks"])
}

pub(crate) fn exclusive(_: Machine) -> String {
    let rules = Rules {
        pool: POOL.into_iter().collect(),
        slice: NonZeroU64::new(10_000_000).unwrap(),
        ageing: NonZeroU64::new(1_000_000_000).unwrap(),
        exclusive: 1,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    };
    let arbiter = Arbiter::start(rules, Topology::of_this_host().unwrap(), None).unwrap();
    let alone = Request {
        hold: Hold::Exclusive { core: None },
        ..Request::of(1500)
    };
    let requests = [alone, Request::of(1501), Request::of(1501), Request::of(1500)];
    let cells: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let spinner = Spinner::start(&SHELL);
            let place = arbiter.admit(request, spinner.pid(), "spinner").unwrap();
            (place, spinner)
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(60);
    while arbiter.turns().0.len() < 30 {
        assert!(Instant::now() < until, "{:?}", arbiter.cells());
        std::thread::sleep(Duration::from_millis(10));
    }
    let first = cells[0].0.cell();
    let (turns, _) = arbiter.turns();
    // It has its core yet; the others had the other one, in turns.
    assert!(turns.iter().all(|turn| turn.cell != first), "{turns:?}");
    let used: std::collections::BTreeSet<u32> = turns.iter().flat_map(|turn| turn.cores.iter()).collect();
    assert_eq!(used.len(), 1, "{used:?}");
    for (place, _) in cells.iter().skip(1) {
        let mine = turns.iter().filter(|turn| turn.cell == place.cell()).count();
        assert!(mine >= turns.len() / 6, "{mine} of {}", turns.len());
    }
    format!(
        "{} turns of three on core {used:?}, beside one that keeps its own",
        turns.len()
    )
}

pub(crate) fn killed(machine: Machine) -> String {
    let lab = lab(asked(machine), 1);
    let mut run = lab.command(["run", "turns.yaml", "-j", "1", "--progress", "none"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while left().is_empty() {
        assert!(Instant::now() < until, "it makes no groups");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let before = left();
    assert!(!before.is_empty());
    assert!(lab.run("turns.yaml", &["-j", "1", "--progress", "none"]).all_ok());
    assert_eq!(left(), Vec::<PathBuf>::new());
    format!("{} group(s)", before.len())
}

/// The strictest level of a machine.
fn asked(machine: Machine) -> Option<&'static str> {
    match machine {
        Machine::Plain | Machine::V1 => Some("cpuset"),
        Machine::Isolated => Some("isolated"),
    }
}

/// An experiment of so many cells that compute. `none`: without cores.
fn lab(isolation: Option<&str>, cells: usize) -> Lab {
    lab_of(isolation, cells, false)
}

/// The same. `exclusive`: each has a core to itself.
fn lab_of(isolation: Option<&str>, cells: usize, exclusive: bool) -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("samples")).unwrap();
    fs::copy("/bin/busybox", lab.path("samples/busybox")).unwrap();
    // Emulation within emulation is slow: counting to some hundred takes many slices.
    let names: Vec<String> = (0..cells).map(|number| format!("{}", 300 + number)).collect();
    let mut manifest = json!({
        "hotcell": 1,
        "name": "turns",
        "seed": 3,
        "samples": {"busybox": {"glob": "samples/*"}},
        "stages": {
            "run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.busybox", "script": names},
                "in": {"file": "${sample.file}"},
                "with": {
                    "path": "/bin/busybox",
                    "args": ["seq", "${script}"],
                },
            },
        },
    });
    if exclusive {
        manifest["stages"]["run"]["cores"] = json!({"exclusive": true});
    }
    if isolation != Some("none") {
        manifest["cores"] = json!({"control": 0, "chores": 1, "pool": "2-3"});
        if let Some(isolation) = isolation {
            manifest["cores"]["isolation"] = json!(isolation);
        }
    }
    lab.manifest("turns.yaml", &manifest);
    lab
}

/// What a run says of its cores, a fact in each line.
fn facts(run: &Run) -> String {
    let about = |text: &&String| !text.contains("namespace");
    let fallbacks: String = run
        .facts
        .fallbacks
        .iter()
        .filter(about)
        .map(|text| format!("{text}\n"))
        .collect();
    format!(
        "{}, {:?}, {:.1} s\n{fallbacks}",
        run.facts.isolation, run.facts.cores, run.facts.wall_s
    )
}

/// Groups for cores that are there now.
fn left() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["/sys/fs/cgroup", "/sys/fs/cgroup/cpuset"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("hotcell-") && (name.ends_with("-pool") || name.ends_with("-house")) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Gives a folder and all in it to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}
