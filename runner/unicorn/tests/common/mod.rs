//! What the tests with real cells of this engine share: jobs, and a runner's side that keeps everything.
//!
//! What this host lacks (guests, busybox) is skipped with a line on standard error.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "each test file uses a part"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotcell_cells::context::SavedContext;
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::arbiter::GiveCores;
use hotcell_cells::cores::schedule::Request;
use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestFile, GuestLimits, Job, JobResult, LinuxJob};
use hotcell_schema::persona::Persona;

/// Everything that a cell told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) events: Vec<Event>,
    pub(crate) outputs: Vec<(String, String, Vec<u8>)>,
}

impl Sink for Kept {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        self.events.extend(events);
        Ok(())
    }
    fn output_begins(&mut self, port: &str, name: &str, _: u64) -> io::Result<()> {
        self.outputs.push((port.into(), name.into(), Vec::new()));
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.outputs.last_mut().unwrap().2.extend(bytes);
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    pub(crate) fn stdout(&self) -> String {
        let output = self.outputs.iter().find(|(port, ..)| port == "stdout");
        output.map_or(String::new(), |(.., bytes)| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    }
}

/// The profile of this name.
pub(crate) fn profile(name: &str) -> ArchProfile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../arch-profiles/{name}.toml"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A job and its blobs.
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) job: Job,
    pub(crate) blobs: Vec<SealedBlob>,
}

impl Work {
    /// A program of this architecture.
    pub(crate) fn new(arch: &str, program: &[u8], argv: &[&str], stdin: &[u8], limits: GuestLimits) -> Self {
        let given = b"a file that is there already\n";
        let all: [&[u8]; 3] = [program, stdin, given];
        let blobs: Vec<SealedBlob> = all.iter().map(|bytes| SealedBlob::of(bytes).unwrap()).collect();
        let blob = |index: usize| Blob {
            index: index as u32,
            length: all[index].len() as u64,
        };
        let job = Job::Linux(Box::new(LinuxJob {
            cell: "test".into(),
            arch: profile(arch),
            native: false,
            persona: Persona::default(),
            program: blob(0),
            path: "/tmp/sample".into(),
            argv: argv.iter().map(|arg| (*arg).into()).collect(),
            env: None,
            cwd: Some("/tmp".into()),
            sysroot: None,
            internet: None,
            files: vec![GuestFile {
                path: "/tmp/given".into(),
                mode: 0o644,
                content: blob(2),
            }],
            stdin: Some(blob(1)),
            seed: Digest::of(b"seed"),
            watch: Default::default(),
            deny: Default::default(),
            limits,
        }));
        Self {
            name: format!("{arch} {argv:?}"),
            job,
            blobs,
        }
    }

    fn with_spec<T>(&self, cores: Option<Seat<'_>>, work: impl FnOnce(&Spec<'_>) -> T) -> T {
        let blobs: Vec<&SealedBlob> = self.blobs.iter().collect();
        work(&Spec {
            executable: &executable(),
            blobs: &blobs,
            limits: HostLimits::default(),
            bounds: Bounds::default(),
            sandbox: Sandbox::of_this_host(),
            stop: &StopSignal::new().unwrap(),
            cores,
        })
    }

    /// A cell for it that has not begun.
    pub(crate) fn cell(&self) -> ProcessCell {
        self.with_spec(None, ProcessCell::spawn).unwrap()
    }

    /// The same; it takes turns on cores.
    pub(crate) fn cell_in_turns(&self, cores: &Arc<dyn GiveCores>) -> ProcessCell {
        let seat = Seat::Turns {
            cores,
            request: Request::of(0),
            name: &self.name,
        };
        self.with_spec(Some(seat), ProcessCell::spawn).unwrap()
    }

    /// The same, going on from a context.
    pub(crate) fn cell_from(&self, context: &SavedContext) -> ProcessCell {
        self.with_spec(None, |spec| ProcessCell::restore(spec, context))
            .unwrap()
    }

    /// From the beginning to the end without a stop.
    pub(crate) fn straight(&self) -> (JobResult, Kept) {
        let mut kept = Kept::default();
        let ending = self.cell().run(&self.job, &mut kept);
        (done(&self.name, ending), kept)
    }
}

/// The result of a cell that did its job.
pub(crate) fn done(name: &str, ending: Ending) -> JobResult {
    match ending {
        Ending::Done(result) => *result,
        other => panic!("{name}: {other:?}"),
    }
}

pub(crate) fn executable() -> Executable {
    Executable::open(Path::new(env!("CARGO_BIN_EXE_hotcell-unicorn"))).unwrap()
}

/// The project's guests: profile and program, for every target that a profile runs.
pub(crate) fn guests(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let Some(folder) = std::env::var_os("HOTCELL_GUESTS").filter(|value| !value.is_empty()) else {
        eprintln!("SKIPPED guests: HOTCELL_GUESTS is not set (`make guests` tells where they are)");
        return Vec::new();
    };
    let targets = [
        ("x86_64", "x86_64"),
        ("x86", "x86"),
        ("armhf", "arm"),
        ("armeb", "armeb"),
        ("aarch64", "aarch64"),
        ("mips", "mips"),
        ("mipsel", "mipsel"),
        ("mips64", "mips64"),
        ("mips64el", "mips64el"),
        ("ppc", "ppc"),
        ("ppc64", "ppc64"),
        ("ppc64le", "ppc64le"),
        ("riscv64", "riscv64"),
        ("s390x", "s390x"),
    ];
    let mut found = Vec::new();
    for (target, arch) in targets {
        match std::fs::read(Path::new(&folder).join(target).join(name)) {
            Ok(bytes) => found.push((arch, bytes)),
            Err(error) => eprintln!("SKIPPED {name} for {target}: {error}"),
        }
    }
    found
}

/// Debian's busybox, where it was fetched.
pub(crate) fn busybox(debian: &str) -> Option<Vec<u8>> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("HOTCELL_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("hotcell")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/hotcell")))?;
    let bytes = std::fs::read(cache.join("samples/debian-12").join(debian).join("busybox"));
    if bytes.is_err() {
        eprintln!("SKIPPED busybox of {debian}: not in the cache (`make samples` fetches it)");
    }
    bytes.ok()
}
