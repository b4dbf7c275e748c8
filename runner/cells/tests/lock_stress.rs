//! Core locks under load: eight runners, as threads and as processes, over four cores, and a reader that never stops looking.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hotcell_cells::cores::locks::{CoreIndex, Grant, Holder, LockTable, LockView, Processes, Refused};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const RUNNERS: usize = 8;
const CORES: u16 = 4;

/// Looks at all cores until told to stop: whoever holds one is somebody `known`. Says how many holders it saw.
fn watch(view: &LockView, known: &dyn Fn(Holder) -> bool, stop: &AtomicBool) -> u64 {
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        for (core, holder) in view.holders() {
            assert!(known(holder), "core {core}: {holder} never was");
            seen += 1;
        }
        std::thread::yield_now();
    }
    seen
}

/// Stops the reader also when a runner fails, so that the test ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn eight_threads_never_share_a_core() {
    const TURNS: u32 = 20_000;
    let table = LockTable::new(CORES, Holder::new(1, 1).unwrap()).unwrap();
    let view = LockView::open(&table).unwrap();
    let inside = [const { AtomicU32::new(0) }; CORES as usize];
    let stop = AtomicBool::new(false);
    // A start time for each pid, and another for each turn: a mixed pair would show.
    let who = |pid: u32, turn: u32| Holder::new(pid, u64::from(turn) << 32 | u64::from(pid)).unwrap();
    let granted: u32 = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let known = |holder: Holder| holder.started() & 0xffff_ffff == u64::from(holder.pid());
            watch(&view, &known, &stop)
        });
        let runners: Vec<_> = (1..=RUNNERS as u32)
            .map(|pid| {
                let (table, inside) = (&table, &inside);
                scope.spawn(move || {
                    let mut granted = 0;
                    for turn in 0..TURNS {
                        let wanted = 1 + (turn.wrapping_mul(2_654_435_761).wrapping_add(pid * 7) >> 13) % 15;
                        let cores: Vec<_> = (0..CORES)
                            .filter(|core| (wanted >> core) & 1 == 1)
                            .map(CoreIndex::new)
                            .collect();
                        let grant = match table.acquire(&cores, who(pid, turn)) {
                            Ok(grant) => grant,
                            Err(Refused::Busy { .. }) => continue,
                            Err(other) => panic!("{other}"),
                        };
                        for core in &cores {
                            let before = inside[usize::from(core.number())].swap(pid, Ordering::Relaxed);
                            assert_eq!(before, 0, "core {core} has two holders");
                            assert_eq!(table.query(*core), Some(who(pid, turn)));
                        }
                        for core in &cores {
                            let us = inside[usize::from(core.number())].swap(0, Ordering::Relaxed);
                            assert_eq!(us, pid, "core {core} has two holders");
                        }
                        assert_eq!(table.release(grant), cores.len());
                        granted += 1;
                    }
                    granted
                })
            })
            .collect();
        let stopping = StopAtEnd(&stop);
        let granted = runners.into_iter().map(|runner| runner.join().unwrap()).sum();
        drop(stopping);
        reader.join().unwrap();
        granted
    });
    assert!(
        granted >= TURNS,
        "of {RUNNERS} who try, one gets a core: {granted}"
    );
    assert_eq!(table.holders(), []);
}

/// A runner's process, as the arbiter knows it.
struct Runner {
    child: Child,
    holder: Holder,
    /// Readable when it has ended.
    end: OwnedFd,
    socket: UnixStream,
    said: BufReader<UnixStream>,
    grant: Option<Grant>,
    killed: Option<Instant>,
}

/// What a runner is made of.
struct Maker<'a> {
    executable: PathBuf,
    table: &'a LockTable,
    folder: &'a Path,
    processes: &'a Processes,
    known: &'a Mutex<BTreeSet<Holder>>,
}

impl Maker<'_> {
    fn make(&self, seed: usize) -> Runner {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(&self.executable)
            .args([seed.to_string(), CORES.to_string()])
            .arg(self.folder)
            .stdin(self.table.as_fd().try_clone_to_owned().unwrap())
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", self.executable.display()));
        // It is our child and was not waited for: this is it.
        let holder = self.processes.find(child.id()).unwrap().expect("ended at once");
        let end = self.processes.watch(holder).unwrap().expect("ended at once");
        self.known.lock().unwrap().insert(holder);
        Runner {
            child,
            holder,
            end,
            said: BufReader::new(ours.try_clone().unwrap()),
            socket: ours,
            grant: None,
            killed: None,
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the arbiter did.
#[derive(Default)]
struct Done {
    grants: u32,
    refusals: u32,
    kills: usize,
    freed: usize,
}

/// Does what a runner asks for. Every so often one is killed while it has its cores.
fn answer(runner: &mut Runner, table: &LockTable, done: &mut Done) {
    let mut line = String::new();
    let read = runner.said.read_line(&mut line).unwrap();
    if read == 0 {
        assert!(
            runner.killed.is_some(),
            "a runner ended by itself: see its message"
        );
        return;
    }
    let reply = match line.trim_end().split_once(' ') {
        Some(("take", cores)) => {
            let cores: Vec<_> = cores
                .split(' ')
                .map(|core| CoreIndex::new(core.parse().unwrap()))
                .collect();
            match table.acquire(&cores, runner.holder) {
                Ok(grant) => {
                    done.grants += 1;
                    runner.grant = Some(grant);
                    "granted\n"
                }
                Err(Refused::Busy { .. }) => {
                    done.refusals += 1;
                    "busy\n"
                }
                Err(other) => panic!("{other}"),
            }
        }
        _ if line == "inside\n" && done.grants.is_multiple_of(40) => {
            runner.killed = Some(Instant::now());
            runner.child.kill().unwrap();
            done.kills += 1;
            return;
        }
        _ if line == "inside\n" => "leave\n",
        _ if line == "left\n" => {
            let grant = runner.grant.take().unwrap();
            let cores = grant.cores().len();
            assert_eq!(table.release(grant), cores);
            return;
        }
        _ => panic!("a runner said {line:?}"),
    };
    runner.socket.write_all(reply.as_bytes()).unwrap();
}

#[test]
fn eight_processes_never_share_a_core_and_the_dead_hold_none() {
    const GRANTS: u32 = 1500;
    let processes = Processes::open(Path::new("/proc")).unwrap();
    let arbiter = processes.find(std::process::id()).unwrap().unwrap();
    let table = LockTable::new(CORES, arbiter).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for core in 0..CORES {
        File::create(folder.path().join(core.to_string())).unwrap();
    }
    let known = Mutex::new(BTreeSet::new());
    let mut executable = std::env::current_exe().unwrap();
    executable.pop();
    executable.pop();
    let maker = Maker {
        executable: executable.join("examples/lock_runner"),
        table: &table,
        folder: folder.path(),
        processes: &processes,
        known: &known,
    };
    let view = LockView::open(&table).unwrap();
    let stop = AtomicBool::new(false);
    let (done, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| watch(&view, &|holder| known.lock().unwrap().contains(&holder), &stop));
        let stopping = StopAtEnd(&stop);
        let mut runners: Vec<_> = (0..RUNNERS).map(|seed| maker.make(seed)).collect();
        let mut done = Done::default();
        while done.grants < GRANTS {
            turn(&mut runners, &maker, &mut done);
        }
        // They leave when nobody answers any more.
        for runner in &mut runners {
            runner.socket.shutdown(std::net::Shutdown::Both).unwrap();
            let ended = runner.child.wait().unwrap();
            assert!(ended.success() || runner.killed.is_some(), "{ended}");
        }
        table.free_the_dead(&|holder| processes.lives(holder).unwrap());
        drop(stopping);
        (done, reader.join().unwrap())
    });
    assert_eq!(table.holders(), []);
    assert!(seen > 0, "the reader saw nobody");
    assert!(
        done.kills >= 10 && done.freed >= 10,
        "{} killed, {} freed",
        done.kills,
        done.freed
    );
    assert!(
        done.refusals > 0,
        "eight runners over four cores never met: {} grants",
        done.grants
    );
}

/// Waits for whatever comes next, and does it.
fn turn(runners: &mut [Runner], maker: &Maker<'_>, done: &mut Done) {
    let (table, processes) = (maker.table, maker.processes);
    let ready: Vec<(bool, bool)> = {
        let mut watched: Vec<_> = runners
            .iter()
            .flat_map(|runner| {
                [
                    PollFd::new(runner.end.as_fd(), PollFlags::POLLIN),
                    PollFd::new(runner.socket.as_fd(), PollFlags::POLLIN),
                ]
            })
            .collect();
        let ready = poll(&mut watched, PollTimeout::from(60_000_u16)).unwrap();
        assert!(ready > 0, "nobody said anything for a minute");
        let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        watched
            .chunks(2)
            .map(|pair| (any(&pair[0]), any(&pair[1])))
            .collect()
    };
    for (place, (ended, said)) in ready.into_iter().enumerate() {
        let runner = &mut runners[place];
        if ended {
            let killed = runner.killed.expect("a runner ended by itself: see its message");
            let held: Vec<_> = runner.grant.as_ref().unwrap().cores().collect();
            let freed = table.free_the_dead(&|holder| processes.lives(holder).unwrap());
            let took = killed.elapsed();
            assert!(took < Duration::from_secs(1), "freed after {took:?}");
            let ours = |&core: &CoreIndex| freed.iter().any(|freed| freed.core == core);
            assert!(
                held.iter()
                    .all(|core| ours(core) || table.query(*core) != Some(runner.holder))
            );
            done.freed += freed.len();
            runners[place] = maker.make(100 + done.kills);
        } else if said {
            // What was read with the line before is not announced again.
            while runner.killed.is_none() {
                answer(runner, table, done);
                if !runner.said.buffer().contains(&b'\n') {
                    break;
                }
            }
        }
    }
}
