//! What the tests with real cell processes share.

#![allow(clippy::unwrap_used, dead_code, reason = "each test file uses a part")]

use std::io;
use std::path::PathBuf;

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

pub(crate) fn executable() -> Executable {
    // target/<profile>/deps/<this test> -> target/<profile>/examples/test-cell
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/test-cell");
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
        persona: Default::default(),
        program: Blob {
            index: 0,
            length: PAYLOAD.len() as u64,
        },
        path: "/tmp/sample".into(),
        argv: vec!["sample".into(), what.into(), target.to_string()],
        env: None,
        cwd: None,
        files: Vec::new(),
        stdin: None,
        seed: hotcell_schema::digest::Digest::of(b"seed"),
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
