//! What the tests with real cell processes share.

#![allow(clippy::unwrap_used, dead_code, reason = "each test file uses a part")]

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hotcell_cells::contract::Usage;
use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestLimits, Job, LinuxJob};
use serde_json::json;

pub(crate) const PAYLOAD: &[u8] = b"the bytes of a sample";

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) events: Vec<Event>,
    pub(crate) outputs: Vec<(String, String, Vec<u8>)>,
    pub(crate) ended: usize,
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
        self.ended += 1;
        Ok(())
    }
}

/// target/<profile>/deps/<this test> -> target/<profile>/examples/test-cell
fn built() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.ancestors().nth(2).unwrap().join("examples/test-cell")
}

pub(crate) fn executable() -> Executable {
    let path = built();
    Executable::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", path.display()))
}

pub(crate) fn job(what: &str) -> Job {
    job_about(what, 1)
}

/// A job about another process.
pub(crate) fn job_about(what: &str, target: i32) -> Job {
    let arch = json!({
        "name": "x86_64", "title": "x86_64",
        "elf": {"machine": [62], "class": 64, "byte-order": "little"},
        "abi": {"family": "x86-64", "word": 64, "number": "rax", "arguments": ["rdi"], "result": "rax",
            "error": "negative", "program-counter": "rip", "stack-pointer": "rsp", "machine": "x86_64",
            "page-size": 4096, "task-size": 140737488351232_u64},
    });
    let arch = serde_json::from_value(arch).unwrap();
    Job::Linux(Box::new(LinuxJob {
        cell: "test".into(),
        arch,
        native: false,
        persona: Default::default(),
        program: Blob {
            index: 0,
            length: PAYLOAD.len() as u64,
        },
        path: "/tmp/sample".into(),
        argv: vec!["sample".into(), what.into(), target.to_string()],
        env: None,
        cwd: None,
        sysroot: None,
        internet: None,
        files: Vec::new(),
        stdin: None,
        seed: hotcell_schema::digest::Digest::of(b"seed"),
        watch: Default::default(),
        deny: Default::default(),
        limits: GuestLimits::default(),
    }))
}

/// A cell behind these walls, which is given this payload.
pub(crate) fn behind(sandbox: &Sandbox, limits: HostLimits, blob: &SealedBlob) -> ProcessCell {
    ProcessCell::spawn(&Spec {
        executable: &executable(),
        blobs: &[blob],
        limits,
        bounds: Bounds::default(),
        sandbox,
        stop: &StopSignal::new().unwrap(),
        cores: None,
    })
    .unwrap()
}

pub(crate) fn spawn(limits: HostLimits, bounds: Bounds, stop: &StopSignal) -> ProcessCell {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    ProcessCell::spawn(&Spec {
        executable: &executable(),
        blobs: &[&blob],
        limits,
        bounds,
        sandbox: Sandbox::of_this_host(),
        stop,
        cores: None,
    })
    .unwrap()
}

pub(crate) fn run_with(what: &str, limits: HostLimits, bounds: Bounds) -> (Ending, Kept, Usage) {
    let mut cell = spawn(limits, bounds, &StopSignal::new().unwrap());
    let mut kept = Kept::default();
    let ending = cell.run(&job(what), &mut kept);
    (ending, kept, cell.finish())
}

pub(crate) fn run(what: &str) -> (Ending, Kept, Usage) {
    let limits = HostLimits {
        wall_ms: 60_000,
        ..HostLimits::default()
    };
    run_with(what, limits, Bounds::default())
}

/// A process that computes until it is killed.
pub(crate) struct Spinner(pub(crate) Child);

impl Spinner {
    pub(crate) fn new() -> Self {
        Self::shell("while :; do :; done")
    }

    /// One that does what a shell is told; its input can be written to.
    pub(crate) fn shell(script: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        Self(shell.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Fields of `/proc/<pid>/stat` from the state on (`proc(5)`, field 3).
    pub(crate) fn stat(&self) -> Vec<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, rest) = text.rsplit_once(") ").unwrap();
        rest.split(' ').map(str::to_owned).collect()
    }

    /// CPU time in hundredths of a second.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = self.stat();
        stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// The processors that it may run on.
    pub(crate) fn cpus(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds; the deadline is far beyond what it takes.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// This test's executable and the test cell, copied to where every user may run them: the folder, and the copy of the first.
pub(crate) fn for_everybody() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (this, tests) = (std::env::current_exe().unwrap(), folder.path().join("deps/tests"));
    let cell = folder.path().join("examples/test-cell");
    for (from, to) in [(this, &tests), (built(), &cell)] {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        for path in [folder.path(), to.parent().unwrap(), to] {
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
    }
    (folder, tests)
}
