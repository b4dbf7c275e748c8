//! `hotcell-monitor` and guests that do more than it reads. Where the kernel part cannot be loaded, or no control groups can be
//! made, each test says so.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hotcell_monitor::protocol::{Answer, Ask, Ended, Watch, hear, say};
use hotcell_monitor::story::Sample;

/// One kernel part at a time: what one test attaches costs the others.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Monitor {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Monitor {
    /// `None`, with a word: this host does not let us.
    fn begin(ring: u32) -> Option<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hotcell-monitor"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let mut monitor = Self {
            child,
            to,
            from,
            folder,
        };
        let profile = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../arch-profiles/{}.toml", std::env::consts::ARCH));
        let host = Box::new(toml::from_str(&fs::read_to_string(profile).unwrap()).unwrap());
        match monitor.ask(&Ask::Begin { host, ring }) {
            Answer::Done => Some(monitor),
            refused => {
                eprintln!("SKIPPED the monitor: {refused:?}");
                None
            }
        }
    }

    fn ask(&mut self, ask: &Ask) -> Answer {
        say(self.to.as_mut().unwrap(), ask).unwrap();
        hear(&mut self.from).unwrap().unwrap()
    }

    fn watch(&mut self, name: &str, keeper: &Keeper, most: u64, more: bool) -> u32 {
        let watch = Watch {
            pid: keeper.child.id().cast_signed(),
            deny: Default::default(),
            sample: Sample {
                path: "/tmp/sample".into(),
                argv: vec!["sample".into()],
                cwd: "/".into(),
                emulator: None,
            },
            events: self.events(name),
            most,
            live: false,
            more: more.then(|| self.more(name)),
        };
        match self.ask(&Ask::Watch(Box::new(watch))) {
            Answer::Watched(cell) => cell,
            other => panic!("{other:?}"),
        }
    }

    fn events(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn more(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-more"))
    }

    fn end(&mut self, cell: u32) -> Ended {
        match self.ask(&Ask::End { cell }) {
            Answer::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.wait();
    }
}

/// A control group as a cell's: with one within, where its processes begin.
struct Group(PathBuf);

impl Group {
    /// `None`, with a word: this host has none of version 2, or not for us.
    fn make() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let top = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ")
                .then(|| PathBuf::from(mount.split(' ').nth(4).unwrap()))
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = top.map(|top| Self(top.join(format!("hotcell-test{}-{number}", std::process::id()))));
        let made = group.filter(|group| fs::create_dir_all(group.within()).is_ok());
        if made.is_none() {
            eprintln!("SKIPPED standing still: no control groups of version 2");
        }
        made
    }

    fn within(&self) -> PathBuf {
        self.0.join("guests")
    }

    fn is_frozen(&self) -> bool {
        fs::read_to_string(self.within().join("cgroup.events"))
            .unwrap()
            .contains("frozen 1")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for folder in [self.within(), self.0.clone()] {
            while fs::remove_dir(&folder).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
            {
                std::thread::yield_now();
            }
        }
    }
}

/// A shell that is told to run something, whose children are watched.
struct Keeper {
    child: Child,
    go: ChildStdin,
}

impl Keeper {
    fn new(script: &str, group: Option<&Group>) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}; :")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if let Some(group) = group {
            fs::write(group.within().join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        Self {
            go: child.stdin.take().unwrap(),
            child,
        }
    }

    fn go(&mut self) {
        self.go.write_all(b"go\n").unwrap();
    }

    fn run(&mut self) {
        self.go();
        self.wait();
    }

    fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

/// Does something while others take the processors.
fn beside_others<R>(does: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().unwrap().get();
        for _ in 0..=processors {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = does();
        over.store(true, Ordering::Relaxed);
        done
    })
}

const RING: u32 = 1 << 24;
/// A million calls, of several at once, and the few by which a program begins and ends.
const MILLION: &str = "for one in 1 2 3 4; do dd if=/dev/zero of=/dev/null bs=1 count=125000 & done; wait";
/// One that does little: it must not wait for room.
const LITTLE: &str = "for one in 1 2 3 4 5 6 7 8 9 10; do cat /etc/passwd; sleep 0.1; done >/dev/null";

#[test]
fn a_million_calls_are_read_on_a_busy_host_and_nothing_of_others_is_lost() {
    let _alone = alone();
    let (Some(mut monitor), Some(group)) = (Monitor::begin(RING), Group::make()) else {
        return;
    };
    let (mut floods, mut little) = (Keeper::new(MILLION, Some(&group)), Keeper::new(LITTLE, None));
    let flood = monitor.watch("flood", &floods, 1000, false);
    let other = monitor.watch("little", &little, 1000, false);
    let (flood, other) = beside_others(|| {
        floods.go();
        little.run();
        floods.wait();
        (monitor.end(flood), monitor.end(other))
    });
    assert_eq!((flood.lost, other.lost), (0, 0), "{flood:?} {other:?}");
    assert!(flood.stood > 0 && flood.stood_ns > 0, "{flood:?}");
    assert_eq!((other.stood, other.stood_ns), (0, 0), "{other:?}");
    assert!(flood.calls >= 1_000_000, "{flood:?}");
    assert_eq!((flood.written, other.dropped), (1000, 0));
    assert!(!group.is_frozen());
}

/// How many calls of one name an event file has, by result.
fn calls(file: &Path, name: &str) -> Vec<serde_json::Value> {
    let lines = BufReader::new(fs::File::open(file).unwrap()).lines();
    lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .filter_map(|event| {
            let call = event["what"]["syscall"].clone();
            (call["name"] == name).then_some(call)
        })
        .collect()
}

#[test]
fn who_waits_while_another_floods_has_one_call_that_came_back_once() {
    let _alone = alone();
    let (Some(mut monitor), Some(group)) = (Monitor::begin(RING / 2), Group::make()) else {
        return;
    };
    // A shell within waits for its child, which floods, and stands still with it again and again.
    let script = "sh -c 'dd if=/dev/zero of=/dev/null bs=1 count=150000; :'";
    let mut keeper = Keeper::new(script, Some(&group));
    let cell = monitor.watch("waits", &keeper, u64::MAX, false);
    keeper.run();
    let ended = monitor.end(cell);
    assert!(ended.stood > 0 && ended.lost == 0, "{ended:?}");
    let waits = calls(&monitor.events("waits"), "wait4");
    let came_back = waits.iter().filter(|call| call["errno"].is_null()).count();
    assert_eq!(came_back, 1, "{waits:?}");
    // Where its child ends while it is made to stand still, it hears of that by a signal first, whose handler breaks its call off.
    // At last it asks whether there is another child.
    let errors = waits.iter().filter_map(|call| call["errno"].as_str());
    let errors: Vec<&str> = errors.skip_while(|errno| *errno == "EINTR").collect();
    assert_eq!(errors, ["ECHILD"], "{waits:?}");
    assert!(waits.len() <= 3, "{waits:?}");
}

#[test]
fn without_a_group_who_floods_loses_only_what_is_its_own_and_all_of_it_is_counted() {
    let _alone = alone();
    let Some(mut monitor) = Monitor::begin(1 << 20) else {
        return;
    };
    let script = "dd if=/dev/zero of=/dev/null bs=1 count=200000";
    let (mut floods, mut little) = (Keeper::new(script, None), Keeper::new(LITTLE, None));
    let flood = monitor.watch("flood", &floods, u64::MAX, false);
    let other = monitor.watch("little", &little, u64::MAX, false);
    beside_others(|| {
        floods.go();
        little.run();
        floods.wait();
    });
    let (flood, other) = (monitor.end(flood), monitor.end(other));
    assert!(flood.lost > 0 && flood.stood == 0, "{flood:?}");
    assert_eq!(other.lost, 0, "{other:?}");
    // Each of these calls is one record and one event, so that what is not told was counted.
    let told = ["read", "write"].map(|name| calls(&monitor.events("flood"), name).len() as u64);
    let told: u64 = told.iter().sum();
    assert!(told + flood.lost >= 400_000, "{told} {flood:?}");
    let few = flood.calls - 400_000;
    assert!(told + flood.lost <= 400_000 + 4 * few, "{told} {flood:?}");
}

#[test]
fn who_is_judged_slowly_stands_still_until_nobody_judges() {
    let _alone = alone();
    let (Some(mut monitor), Some(group)) = (Monitor::begin(RING), Group::make()) else {
        return;
    };
    let mut keeper = Keeper::new("dd if=/dev/zero of=/dev/null bs=1", Some(&group));
    let cell = monitor.watch("judged", &keeper, 10, true);
    // Who judges reads nothing at all.
    let judge = fs::File::open(monitor.more("judged")).unwrap();
    judge.lock_shared().unwrap();
    keeper.go();
    let size = || fs::metadata(monitor.more("judged")).unwrap().len();
    // The ring is empty, and it stands still all the same.
    let mut still = 0;
    while still < 20 {
        let before = size();
        std::thread::sleep(std::time::Duration::from_millis(50));
        still = if group.is_frozen() && size() == before {
            still + 1
        } else {
            0
        };
    }
    let waits = size();
    // A file system may give a file more than it asks for.
    assert!(waits > 8 << 20 && waits < 64 << 20, "{waits}");
    // He leaves: nobody is waited for.
    drop(judge);
    while size() == waits {
        std::thread::yield_now();
    }
    keeper.child.kill().unwrap();
    let _ = fs::write(group.0.join("cgroup.kill"), "1");
    keeper.wait();
    monitor.end(cell);
}

#[test]
fn a_monitor_that_leaves_lets_all_go_on() {
    let _alone = alone();
    let (Some(mut monitor), Some(group)) = (Monitor::begin(RING), Group::make()) else {
        return;
    };
    let mut keeper = Keeper::new("dd if=/dev/zero of=/dev/null bs=1 count=1000000", Some(&group));
    monitor.watch("left", &keeper, 10, true);
    let judge = fs::File::open(monitor.more("left")).unwrap();
    judge.lock_shared().unwrap();
    keeper.go();
    let size = || fs::metadata(monitor.more("left")).map_or(0, |facts| facts.len());
    while !group.is_frozen() || size() < 8 << 20 {
        std::thread::yield_now();
    }
    drop(monitor);
    keeper.wait();
    assert!(!group.is_frozen());
}
