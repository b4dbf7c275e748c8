//! One guest in one cell, as the stage runs it, and what came of it.

#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotcell_cells::cores::Seat;
use hotcell_cells::cores::arbiter::GiveCores;
use hotcell_cells::cores::schedule::Request;
use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Met, Sandbox, SealedBlob};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestLimits, Job, JobResult, LinuxJob, LinuxResult};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::persona::Persona;

/// What a cell handed over: ports, names, bytes.
#[derive(Debug, Default)]
pub(crate) struct Kept(Vec<(String, String, Vec<u8>)>);

impl Sink for Kept {
    fn events(&mut self, _: Vec<Event>) -> io::Result<()> {
        Ok(())
    }
    fn output_begins(&mut self, port: &str, name: &str, _: u64) -> io::Result<()> {
        self.0.push((port.into(), name.into(), Vec::new()));
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.last_mut().unwrap().2.extend(bytes);
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The arch profile of that name.
pub(crate) fn profile(name: &str) -> ArchProfile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../arch-profiles/{name}.toml"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What this host says when it lets nobody make what holds a guest.
pub(crate) const NO_WALLS: [&str; 2] = ["lets us make no namespaces", "lets no emulator be registered"];

/// A guest of the project's.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) arch: String,
    pub(crate) path: PathBuf,
    pub(crate) argv: Vec<String>,
    pub(crate) outcome: Outcome,
    pub(crate) stdout: Option<String>,
}

/// All guests that have an arch profile; `None`, with a word: they are not built.
pub(crate) fn guests() -> Option<Vec<Guest>> {
    let Some(folder) = std::env::var_os("HOTCELL_GUESTS").filter(|value| !value.is_empty()) else {
        eprintln!("SKIPPED guests: HOTCELL_GUESTS is not set");
        return None;
    };
    let folder = Path::new(&folder);
    let index = std::fs::read(folder.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let rows = index["guests"].as_array().unwrap().iter();
    let guests = rows.filter_map(|row| {
        let name = text(&row["guest"]).unwrap();
        let args = row["args"].as_array().into_iter().flatten().filter_map(text);
        Some(Guest {
            arch: text(&row["profile"])?,
            target: text(&row["target"]).unwrap(),
            path: folder.join(row["path"].as_str().unwrap()),
            argv: std::iter::once(name.clone()).chain(args).collect(),
            outcome: match row["signal"].as_str() {
                Some(signal) => Outcome::Signalled(signal.to_owned()),
                None => Outcome::Exited(row["exit"].as_i64().unwrap_or(0) as i32),
            },
            stdout: text(&row["stdout"]),
            name,
        })
    });
    Some(guests.collect())
}

/// The guest of that name for these targets, with other arguments.
pub(crate) fn of(name: &str, targets: &[&str], args: &[&str]) -> Vec<Guest> {
    let Some(mut chosen) = guests() else {
        return Vec::new();
    };
    chosen.retain(|guest| guest.name == name && targets.contains(&guest.target.as_str()));
    assert_eq!(chosen.len(), targets.len(), "{name} is not built for {targets:?}");
    for guest in &mut chosen {
        guest.argv.truncate(1);
        guest.argv.extend(args.iter().map(|arg| (*arg).to_owned()));
    }
    chosen
}

/// Runs a guest for each of these targets, all at once. Nothing, with a word, where this host cannot hold them.
pub(crate) fn all_of(
    name: &str,
    targets: &[&str],
    args: &[&str],
    change: impl Fn(&mut Bench) + Sync,
) -> Vec<(Guest, Ran)> {
    let guests = of(name, targets, args);
    std::thread::scope(|scope| {
        let change = &change;
        let run = |guest: Guest| {
            let mut bench = Bench::of(&guest);
            change(&mut bench);
            Some((guest, bench.run()?))
        };
        let running: Vec<_> = guests
            .into_iter()
            .map(|guest| scope.spawn(move || run(guest)))
            .collect();
        running
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// How a guest ended, and what it gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ending: Ending,
    kept: Kept,
    pub(crate) layers: Vec<String>,
    pub(crate) met: Met,
}

impl Ran {
    /// What it wrote.
    pub(crate) fn stdout(&self) -> String {
        let stdout = self.kept.0.iter().find(|(port, _, _)| port == "stdout");
        stdout.map_or(String::new(), |(_, _, bytes)| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    }

    pub(crate) fn result(&self) -> Result<&LinuxResult, String> {
        match &self.ending {
            Ending::Done(result) => match &**result {
                JobResult::Linux(result) => Ok(result),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    pub(crate) fn outcome(&self) -> Result<Outcome, String> {
        self.result().map(|result| result.outcome.clone())
    }

    /// What it left, by path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self
            .result()
            .map(|result| result.files.clone())
            .unwrap_or_default();
        let of = |digest: &Digest| {
            let name = digest.to_string();
            let mut kept = self.kept.0.iter();
            let found = kept.find(|(port, kept, _)| port == "files" && *kept == name);
            found.map(|(_, _, bytes)| bytes.clone()).unwrap_or_default()
        };
        files
            .iter()
            .map(|file| (file.path.clone(), of(&file.digest)))
            .collect()
    }
}

/// Nanoseconds that a process and all that came of it were on a processor.
pub(crate) fn used(first: u32) -> u64 {
    let threads = family(first).into_iter().flat_map(|pid| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        tasks.into_iter().flatten().flatten().map(|task| task.path())
    });
    threads
        .filter_map(|thread| {
            // The first number (Documentation/scheduler/sched-stats.rst).
            let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// A process and all that came of it, as `/proc` shows them.
pub(crate) fn family(first: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // proc(5): after the name in brackets, state and parent.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    let mut family = vec![first];
    let mut at = 0;
    while let Some(one) = family.get(at).copied() {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| **parent == one)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    family
}

/// A job that is yet to be changed, and what holds it.
pub(crate) struct Bench {
    pub(crate) job: LinuxJob,
    pub(crate) limits: HostLimits,
    /// Who gives it turns; absent: it runs when the kernel lets it.
    pub(crate) turns: Option<Arc<dyn GiveCores>>,
    program: Vec<u8>,
}

impl Bench {
    pub(crate) fn new(arch: &str, program: Vec<u8>, argv: &[String]) -> Self {
        let job = LinuxJob {
            cell: "test".into(),
            arch: profile(arch),
            native: false,
            persona: Persona::default(),
            program: Blob {
                index: 0,
                length: program.len() as u64,
            },
            path: "/tmp/sample".into(),
            argv: argv.to_vec(),
            env: None,
            cwd: Some("/tmp".into()),
            sysroot: None,
            internet: None,
            files: Vec::new(),
            stdin: None,
            seed: Digest::of(b"seed"),
            watch: Default::default(),
            deny: Default::default(),
            limits: GuestLimits::default(),
        };
        Self {
            job,
            program,
            turns: None,
            limits: HostLimits {
                tasks: 256,
                file_bytes: 64 << 20,
                wall_ms: 60_000,
                ..HostLimits::default()
            },
        }
    }

    pub(crate) fn of(guest: &Guest) -> Self {
        Self::new(&guest.arch, std::fs::read(&guest.path).unwrap(), &guest.argv)
    }

    /// Runs it. `None`, with a word: this host cannot hold it.
    pub(crate) fn run(self) -> Option<Ran> {
        self.run_beside(|_| ())
    }

    /// The same; `beside` sees the cell before its job begins.
    pub(crate) fn run_beside(self, beside: impl FnOnce(&ProcessCell)) -> Option<Ran> {
        let blob = SealedBlob::of(&self.program).unwrap();
        let sandbox = Sandbox::of_this_host().for_keepers();
        let spec = Spec {
            executable: &Executable::open(Path::new(env!("CARGO_BIN_EXE_hotcell-qemu"))).unwrap(),
            blobs: &[&blob],
            limits: self.limits,
            bounds: Bounds::default(),
            sandbox: &sandbox,
            stop: &StopSignal::new().unwrap(),
            cores: self.turns.as_ref().map(|cores| Seat::Turns {
                cores,
                request: Request {
                    processes: true,
                    ..Request::of(0)
                },
                name: "guest",
            }),
        };
        let mut kept = Kept::default();
        let is_this_host = |why: &str| NO_WALLS.iter().any(|no| why.contains(no));
        let (ending, layers, met) = match ProcessCell::spawn(&spec) {
            Ok(mut cell) => {
                beside(&cell);
                let ending = cell.run(&Job::Linux(Box::new(self.job)), &mut kept);
                (ending, cell.layers().to_vec(), cell.met())
            }
            Err(error) => (Ending::Failed(error.to_string()), Vec::new(), Met::default()),
        };
        match &ending {
            Ending::Failed(why) if is_this_host(why) => {
                eprintln!("SKIPPED guests on the host's Linux: {why}");
                None
            }
            _ => Some(Ran {
                ending,
                kept,
                layers,
                met,
            }),
        }
    }
}
