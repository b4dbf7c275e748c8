//! Cells that break in every way there is: each ends with a word for it, gives back all it had, and its neighbours give what
//! they give on a calm host.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Kept, PAYLOAD, job};
use hotcell_cells::contract::CellFault;
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::schedule::{Request, Rules};
use hotcell_cells::cores::topology::{SYSTEM, Topology};
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{Ending, Interruption, PostMortem, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Exit, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::cores::CoreSet;
use hotcell_schema::fault::FaultKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a test waits for what takes a moment.
const LONG: Duration = Duration::from_secs(60);

/// A cell that breaks.
struct Case {
    what: &'static str,
    kind: FaultKind,
    limits: HostLimits,
    bounds: Bounds,
    /// A part of what is said of it.
    said: &'static str,
}

fn case(what: &'static str, kind: FaultKind, said: &'static str) -> Case {
    Case {
        what,
        kind,
        limits: HostLimits {
            wall_ms: 60_000,
            ..HostLimits::default()
        },
        bounds: Bounds::default(),
        said,
    }
}

fn cases() -> Vec<Case> {
    use FaultKind::{EngineCrash, ForbiddenCall, GaveUp, Memory, NoResult, Protocol, WallTime};
    let mut cases = vec![
        // abort() in a process that is the first of its namespace ends by the trap instruction behind it.
        case("abort", EngineCrash, "SIG"),
        case("segfault", EngineCrash, "SIGSEGV"),
        case("some-events-and-abort", EngineCrash, "the engine met a bug"),
        case("stderr-flood", EngineCrash, "last words"),
        case("exit", NoResult, "exit code 3"),
        case("panic", GaveUp, "panicked"),
        case("give-up", GaveUp, "no wish to go on"),
        case("process:fork", ForbiddenCall, "SIGSYS"),
        case("garbage", Protocol, "a frame of"),
        case("deep-json", Protocol, "unreadable message"),
        case("events-out-of-order", Protocol, "out of sequence"),
        case("output-too-long", Protocol, "more bytes than"),
        case("output-too-short", Protocol, "before an output was complete"),
        case("output-announces-too-much", Protocol, "bytes of outputs"),
        case("hang-up", Protocol, "closed its connection"),
    ];
    let bounds = Bounds {
        items: 5_000,
        events: 5_000,
        message: 1 << 20,
        ..Bounds::default()
    };
    for (what, said) in [
        ("flood-events", "more than 5000 events"),
        ("endless-messages", "an answer that nobody asked for"),
        ("endless-part", "a message of more than"),
    ] {
        cases.push(Case {
            bounds,
            ..case(what, Protocol, said)
        });
    }
    // The cell computes and does not look at what it is told: a guest that never ends, or an engine that does not.
    for what in ["hang", "endless-silence"] {
        let mut hang = case(what, WallTime, "wall time");
        hang.limits.wall_ms = 400;
        cases.push(hang);
    }
    let mut memory = case("eat-memory", Memory, "memory");
    memory.limits.memory = 64 << 20;
    // Where there are no groups, this holds.
    memory.limits.address_space = 512 << 20;
    cases.push(memory);
    cases
}

fn spawn(case: &Case, cores: Option<Seat<'_>>) -> ProcessCell {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    ProcessCell::spawn(&Spec {
        executable: &common::executable(),
        blobs: &[&blob],
        limits: case.limits,
        bounds: case.bounds,
        sandbox: Sandbox::of_this_host(),
        stop: &StopSignal::new().unwrap(),
        cores,
    })
    .unwrap()
}

fn words(ending: &Ending) -> String {
    match ending {
        Ending::Failed(why) => why.clone(),
        Ending::Interrupted(why) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Breaks a cell and looks at what is told of it.
fn broken(case: &Case, cores: Option<Seat<'_>>) -> (ProcessCell, PostMortem) {
    let mut cell = spawn(case, cores);
    let ending = cell.run(&job(case.what), &mut Kept::default());
    let said = words(&ending);
    assert!(said.contains(case.said), "{}: {said}", case.what);
    let found = cell.post_mortem().unwrap();
    assert_eq!(found.kind, case.kind, "{}: {found:?}", case.what);
    let interrupted = matches!(ending, Ending::Interrupted(_));
    let of_the_host = matches!(case.kind, FaultKind::WallTime | FaultKind::Memory);
    assert_eq!(interrupted, of_the_host, "{}: {ending:?}", case.what);
    (cell, found)
}

/// The folders of control groups whose processes this process made.
fn groups() -> Vec<PathBuf> {
    let mine = format!("hotcell-{}-", std::process::id());
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("{mine}*")])
        .output()
        .unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    text.lines().map(PathBuf::from).collect()
}

/// The host's last core, for cells that take turns.
fn arbiter() -> Arc<Arbiter> {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
    let allowed: CoreSet = (0..1024u32)
        .filter(|cpu| set.is_set(*cpu as usize).unwrap())
        .collect();
    let topology = Topology::read(Path::new(SYSTEM), &allowed).unwrap();
    let rules = Rules {
        pool: topology.cores().iter().next_back().into_iter().collect(),
        slice: NonZeroU64::new(2_000_000).unwrap(),
        ageing: NonZeroU64::new(1_000_000_000).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    };
    Arc::new(Arbiter::start(rules, topology, None).unwrap())
}

/// What a good cell gives.
fn steady(cores: Option<Seat<'_>>) -> String {
    let mut cell = spawn(&case("steady", FaultKind::NoResult, ""), cores);
    let mut kept = Kept::default();
    let ending = cell.run(&job("steady"), &mut kept);
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    assert_eq!(cell.post_mortem(), None);
    format!("{ending:?} {kept:?}")
}

/// Says that it is over when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A seat in turns.
fn seat(cores: &Arc<dyn GiveCores>) -> Seat<'_> {
    Seat::Turns {
        cores,
        request: Request::of(0),
        name: "cell",
    }
}

/// All faults one after another on one core, which two neighbours share.
#[test]
fn every_fault_has_a_word_gives_all_back_and_no_neighbour_notices() {
    let calm = steady(None);
    let arbiter = arbiter();
    let gives: Arc<dyn GiveCores> = Arc::clone(&arbiter) as _;
    let locks = arbiter.locks().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbours: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut runs = 0;
                    while !over.load(Ordering::Relaxed) || runs == 0 {
                        assert_eq!(steady(Some(seat(&gives))), calm);
                        runs += 1;
                    }
                })
            })
            .collect();
        // Also when something is not as it should be: the neighbours must not run for ever.
        let _end = End(&over);
        for case in cases() {
            let (cell, found) = broken(&case, Some(seat(&gives)));
            let pid = cell.process_id();
            let usage = cell.finish();
            assert!(
                usage.cpu_s < 60.0 && found.lived < LONG,
                "{}: {usage:?} {found:?}",
                case.what
            );
            // Its process is gone, and has given its place and its core back.
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{}", case.what);
            assert!(
                arbiter
                    .cells()
                    .iter()
                    .all(|seen| seen.process.pid() != pid.unsigned_abs()),
                "{}",
                case.what
            );
            let holds = |pid| {
                locks
                    .holders()
                    .iter()
                    .any(|(_, holder)| i64::from(holder.pid()) == i64::from(pid))
            };
            assert!(!holds(pid), "{}", case.what);
        }
        over.store(true, Ordering::Relaxed);
        for neighbour in neighbours {
            neighbour.join().unwrap();
        }
    });
    assert!(arbiter.cells().is_empty());
    assert_eq!(locks.holders(), []);
    assert_eq!(groups(), Vec::<PathBuf>::new());
}

#[test]
fn what_is_known_of_a_crash() {
    let (_, found) = broken(
        &case("some-events-and-abort", FaultKind::EngineCrash, "bug"),
        None,
    );
    assert_eq!((found.events, found.errors.as_str()), (7, "the engine met a bug"));
    assert!(matches!(found.exit, Some(Exit::Signal(_))), "{found:?}");
    // However much it said, the end of it is kept.
    let (_, found) = broken(&case("stderr-flood", FaultKind::EngineCrash, "words"), None);
    assert!(found.errors.ends_with("last words") && found.errors.len() <= 8 << 10);
}

/// Ends a cell from outside while it computes.
fn ended_by(signal: Signal, sandbox: &Sandbox) -> (Ending, PostMortem) {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let mut cell = common::behind(sandbox, case("hang", FaultKind::Killed, "").limits, &blob);
    let pid = cell.process_id();
    let ending = std::thread::scope(|scope| {
        let running = scope.spawn(|| cell.run(&job("hang"), &mut Kept::default()));
        let begun = Instant::now();
        // A process that has its job computes: its time goes on.
        while ticks(pid) < 3 {
            assert!(begun.elapsed() < LONG, "it does not compute");
            std::thread::yield_now();
        }
        kill(Pid::from_raw(pid), signal).unwrap();
        running.join().unwrap()
    });
    (ending, cell.post_mortem().unwrap())
}

/// CPU time of a process in hundredths of a second.
fn ticks(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect());
    let fields: Vec<&str> = fields.unwrap_or_default();
    let at = |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok());
    at(11).unwrap_or(0) + at(12).unwrap_or(0)
}

#[test]
fn what_ends_a_cell_from_outside_is_told_apart() {
    let sandbox = Sandbox::of_this_host();
    let (ending, found) = ended_by(Signal::SIGKILL, sandbox);
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::Killed)),
        "{ending:?}"
    );
    assert_eq!(found.kind, FaultKind::Killed);
    // The first process of a pid namespace does not hear it (pid_namespaces(7)).
    let (ending, found) = ended_by(Signal::SIGABRT, &sandbox.clone().without_namespaces());
    assert!(words(&ending).contains("SIGABRT"), "{ending:?}");
    assert_eq!(found.exit, Some(Exit::Signal(libc::SIGABRT)));
    assert_eq!(found.kind, FaultKind::EngineCrash);
}

/// A stop that a person asked for is no fault.
#[test]
fn who_is_stopped_did_not_break() {
    let stop = StopSignal::new().unwrap();
    let mut cell = common::spawn(HostLimits::default(), Bounds::default(), &stop);
    stop.request();
    let ending = cell.run(&job("until-stopped"), &mut Kept::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::Stopped)),
        "{ending:?}"
    );
    assert_eq!(cell.post_mortem(), None);
}

/// Set for the process whose limits are taken away.
const LIMITED: &str = "HOTCELL_TEST_LIMITED";

/// The host has no room for one more process or descriptor: that is said, those that run go on, and later there is room.
/// Alone in its process, and not root's, whom the kernel lets have more processes than it may.
#[test]
#[ignore = "started by the other test"]
fn runner_without_room() {
    if std::env::var_os(LIMITED).is_none() {
        return;
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let calm = steady(None);
    let executable = common::executable();
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let stop = StopSignal::new().unwrap();
    for resource in [Resource::RLIMIT_NPROC, Resource::RLIMIT_NOFILE] {
        let mut neighbour = spawn(&case("steady", FaultKind::NoResult, ""), None);
        let none = match resource {
            Resource::RLIMIT_NPROC => 0,
            // The lowest number that is free: the next descriptor's.
            _ => fs::File::open("/dev/null")
                .unwrap()
                .as_raw_fd()
                .unsigned_abs()
                .into(),
        };
        let (soft, hard) = getrlimit(resource).unwrap();
        setrlimit(resource, none, hard).unwrap();
        let made = ProcessCell::spawn(&Spec {
            executable: &executable,
            blobs: &[&blob],
            limits: HostLimits::default(),
            bounds: Bounds::default(),
            sandbox: Sandbox::of_this_host(),
            stop: &stop,
            cores: None,
        });
        let mut kept = Kept::default();
        let ending = neighbour.run(&job("steady"), &mut kept);
        setrlimit(resource, soft, hard).unwrap();
        let fault = made.map(|_| ()).unwrap_err();
        assert!(
            matches!(fault, CellFault::Host { .. }) && fault.lacks_room(),
            "{resource:?}: {fault}"
        );
        assert_eq!(format!("{ending:?} {kept:?}"), calm);
        assert_eq!(steady(None), calm);
    }
}

#[test]
fn a_host_without_room_is_told_and_others_go_on() {
    let (_folder, tests) = common::for_everybody();
    let mut command = match nix::unistd::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=4712", "--regid=4712", "--clear-groups", "--"])
                .arg(tests);
            command
        }
        false => Command::new(tests),
    };
    let output = command
        .args(["--exact", "runner_without_room", "--ignored", "--nocapture"])
        .env(LIMITED, "1")
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
