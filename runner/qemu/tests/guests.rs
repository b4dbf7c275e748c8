//! The project's guests under qemu-user, in cells: they do what they say.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io;
use std::path::Path;

use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestLimits, Job, JobResult, LinuxJob};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::persona::Persona;

#[derive(Debug, Default)]
struct Kept(Vec<(String, Vec<u8>)>);

impl Sink for Kept {
    fn events(&mut self, _: Vec<Event>) -> io::Result<()> {
        Ok(())
    }
    fn output_begins(&mut self, port: &str, _: &str, _: u64) -> io::Result<()> {
        self.0.push((port.into(), Vec::new()));
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.last_mut().unwrap().1.extend(bytes);
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn profile(name: &str) -> ArchProfile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../arch-profiles/{name}.toml"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What this host says when it lets nobody make what holds a guest.
const NO_WALLS: &str = "lets us make no namespaces";

/// How a guest ended, and what it said. The error: this host cannot hold it.
fn run(arch: &str, native: bool, program: &[u8], argv: &[String]) -> Result<(Ending, String), String> {
    let blob = SealedBlob::of(program).unwrap();
    let job = Job::Linux(Box::new(LinuxJob {
        cell: "test".into(),
        arch: profile(arch),
        native,
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
        limits: GuestLimits::default(),
    }));
    let sandbox = Sandbox::of_this_host().for_keepers();
    let spec = Spec {
        executable: &Executable::open(Path::new(env!("CARGO_BIN_EXE_hotcell-qemu"))).unwrap(),
        blobs: &[&blob],
        limits: HostLimits {
            tasks: 256,
            file_bytes: 64 << 20,
            wall_ms: 60_000,
            ..HostLimits::default()
        },
        bounds: Bounds::default(),
        sandbox: &sandbox,
        stop: &StopSignal::new().unwrap(),
        cores: None,
    };
    let mut kept = Kept::default();
    let ending = match ProcessCell::spawn(&spec) {
        Ok(mut cell) => cell.run(&job, &mut kept),
        Err(error) if error.to_string().contains(NO_WALLS) => return Err(error.to_string()),
        Err(error) => panic!("{error}"),
    };
    let stdout = kept.0.iter().find(|(port, _)| port == "stdout");
    let stdout = stdout.map_or(String::new(), |(_, bytes)| {
        String::from_utf8_lossy(bytes).into_owned()
    });
    Ok((ending, stdout))
}

/// Those that ask for what QEMU's user mode has not, or what a cell refuses.
const NOT_UNDER_QEMU: [&str; 7] = [
    // ptrace of other processes.
    "injects",
    // Code in shared memory that another process wrote.
    "shared-code",
    // CPUID is QEMU's own, `/proc/cpuinfo` the persona's.
    "cpuid",
    // Code that was overwritten at another address; a second place of memory.
    "packed-views-again",
    // 32-bit calls of a 64-bit program.
    "compat",
    // What a processor of x86 refuses, as QEMU does not tell it.
    "refused",
    // A command line is QEMU's own.
    "proc",
];

/// Those that a cell refuses what they ask for, or that are told of the host where they ask for their persona.
const NOT_NATIVE: [&str; 3] = ["injects", "cpuid", "compat"];

#[test]
fn guests_do_what_they_say_under_qemu() {
    all(false, &NOT_UNDER_QEMU);
}

#[test]
fn guests_do_what_they_say_on_the_hosts_own_processor() {
    all(true, &NOT_NATIVE);
}

fn all(native: bool, except: &[&str]) {
    let Some(folder) = std::env::var_os("HOTCELL_GUESTS").filter(|value| !value.is_empty()) else {
        eprintln!("SKIPPED guests: HOTCELL_GUESTS is not set");
        return;
    };
    let index = std::fs::read(Path::new(&folder).join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for guest in index["guests"].as_array().unwrap() {
        let Some(arch) = guest["profile"].as_str() else {
            continue;
        };
        let path = guest["path"].as_str().unwrap();
        if except.contains(&guest["guest"].as_str().unwrap()) || native && arch != std::env::consts::ARCH {
            continue;
        }
        let program = std::fs::read(Path::new(&folder).join(path)).unwrap();
        let name = guest["guest"].as_str().unwrap();
        let mut argv = vec![name.to_owned()];
        argv.extend(
            guest["args"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|arg| arg.as_str().map(str::to_owned)),
        );
        let (ending, stdout) = match run(arch, native, &program, &argv) {
            Ok(ran) => ran,
            Err(why) => {
                eprintln!("SKIPPED guests on the host's Linux: {why}");
                return;
            }
        };
        tried += 1;
        let wanted = match guest["signal"].as_str() {
            Some(signal) => Outcome::Signalled(signal.to_owned()),
            None => Outcome::Exited(guest["exit"].as_i64().unwrap_or(0) as i32),
        };
        let outcome = match &ending {
            Ending::Done(result) => match &**result {
                JobResult::Linux(result) => Ok(result.outcome.clone()),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        };
        if outcome.as_ref() != Ok(&wanted) || guest["stdout"].as_str().is_some_and(|text| text != stdout) {
            wrong.push(format!("{path}: {outcome:?}, not {wanted:?}; {stdout}"));
        }
    }
    assert!(tried > 0);
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
