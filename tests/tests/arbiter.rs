//! The arbiter of a host: real users, real runs, and what happens when it is killed.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hotcell_tests::{Lab, Run, busybox};
use serde_json::{Value, json};

const SOC: u32 = 1500;
const CI: u32 = 1501;

/// A host with an administrator `soc` and a user `ci`, whose arbiter serves one core.
struct Host {
    lab: Lab,
    arbiter: Option<Child>,
}

impl Host {
    /// `None`, and said so: only root can serve several users.
    fn new(quota: Value) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can serve several users");
            return None;
        }
        busybox()?;
        let lab = Lab::with_own_executables();
        let manifest = json!({
            "hotcell": 1,
            "kind": "host",
            "cores": {"on-small-host": "share", "slice": "2ms"},
            "users": {
                "soc": {"role": "admin", "uid": SOC},
                "ci": {"role": "user", "uid": CI, "quota": quota},
            },
        });
        lab.manifest("host.yaml", &manifest);
        let mut host = Self { lab, arbiter: None };
        host.start();
        Some(host)
    }

    fn start(&mut self) {
        let command = ["host", "arbiter", "--manifest", "host.yaml", "--kept", "kept"];
        let mut arbiter = self.command(&self.lab, &command);
        let mut arbiter = arbiter.stderr(Stdio::piped()).spawn().unwrap();
        // It says so when it serves.
        let mut told = String::new();
        let stderr = arbiter.stderr.take().unwrap();
        let mut stderr = BufReader::new(stderr);
        stderr.read_line(&mut told).unwrap();
        assert!(told.starts_with("serving 2 users"), "{told}");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        self.arbiter = Some(arbiter);
    }

    fn kill(&mut self) {
        let mut arbiter = self.arbiter.take().unwrap();
        arbiter.kill().unwrap();
        arbiter.wait().unwrap();
    }

    fn command(&self, of: &Lab, args: &[&str]) -> std::process::Command {
        let mut command = of.command(args.iter().copied());
        command.env("HOTCELL_ARBITER", self.lab.path("arbiter.sock"));
        command
    }

    /// What a command of a user says, and its exit code.
    fn told(&self, of: &Lab, args: &[&str]) -> (i32, String) {
        let output = self.command(of, args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn cells(&self) -> Vec<Value> {
        let output = self.command(&self.lab, &["cells", "--json"]).output().unwrap();
        let cells: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        cells["cells"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until cells are as they shall be.
    fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let cells = self.cells();
            if holds(&cells) {
                return cells;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{what}: {cells:?}");
        }
    }

    fn audit(&self) -> String {
        let journal = self.lab.path("kept/audit.jsonl");
        let journal = journal.to_str().unwrap();
        self.lab.expect(0, ["audit", "verify", journal]);
        self.lab.expect(0, ["audit", "show", journal]).0
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(arbiter) = &mut self.arbiter {
            // Asked to, it takes away the groups that it made.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(arbiter.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = arbiter.wait();
        }
    }
}

/// An experiment of four cells that compute, each for some time.
fn experiment(lab: &Lab, rounds: u32) {
    let busybox = busybox().unwrap();
    let path = lab.write("samples/busybox", fs::read(&busybox[0].path).unwrap());
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let script = format!("i=0; while [ $i -lt {rounds} ]; do i=$((i+1)); done; echo ${{n}}");
    let manifest = json!({
        "hotcell": 1,
        "name": "shared",
        "samples": {"busybox": {"glob": "samples/*"}},
        "stages": {"run": {
            "uses": "unicorn/linux",
            "for-each": {"sample": "samples.busybox", "n": ["1", "2", "3", "4"]},
            "in": {"file": "${sample.file}"},
            "with": {"path": "/bin/busybox", "args": ["sh", "-c", script]},
        }},
    });
    lab.manifest("shared.yaml", &manifest);
}

const RUN: [&str; 6] = ["run", "shared.yaml", "-j", "4", "--progress", "none"];
/// Rounds of the guests' loop that take about a second of CPU time, and some that never end here.
const SOME: u32 = 1_000;
const ENDLESS: u32 = 100_000_000;

fn is_running(cell: &Value) -> bool {
    cell["doing"]["running"].is_string()
}

fn is_of(cell: &Value, uid: u32) -> bool {
    cell["request"]["user"] == uid
}

fn ended(mut run: Child) -> i32 {
    run.wait().unwrap().code().unwrap()
}

#[test]
fn users_share_a_host_and_never_a_core_and_get_the_same_bytes() {
    let Some(mut host) = Host::new(json!({"cells": 2, "memory": "64GiB"})) else {
        return;
    };
    let alone = Lab::new();
    experiment(&alone, SOME);
    let alone = alone.run("shared.yaml", &["-j", "1", "--progress", "none"]);
    let (soc, ci) = (host.lab.of_user(SOC), host.lab.of_user(CI));
    let runs: Vec<Child> = [&soc, &ci]
        .map(|lab| {
            experiment(lab, SOME);
            host.command(lab, &RUN)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .into();
    let both = |cells: &[Value]| {
        [SOC, CI]
            .iter()
            .all(|uid| cells.iter().any(|cell| is_of(cell, *uid)))
    };
    let first = host.until("cells of both", both);
    let pids: Vec<&Value> = first.iter().map(|cell| &cell["process"]).collect();
    // Killed in the middle, and back again: the same processes go on.
    host.kill();
    host.start();
    let again = host.until("cells of both again", both);
    assert!(
        again.iter().any(|cell| pids.contains(&&cell["process"])),
        "{again:?}"
    );
    host.until("the end", |cells| {
        assert!(
            cells.iter().filter(|cell| is_running(cell)).count() <= 1,
            "{cells:?}"
        );
        let admitted = |cell: &&Value| is_of(cell, CI) && cell["doing"] != "held";
        assert!(cells.iter().filter(admitted).count() <= 2, "{cells:?}");
        cells.is_empty()
    });
    assert!(runs.into_iter().map(ended).all(|code| code == 0));
    for lab in [&soc, &ci] {
        let shared: Run = lab.latest();
        assert!(shared.all_ok());
        alone.assert_same_result(&shared, "under the host's arbiter");
    }
    assert_eq!(host.audit().matches("started the arbiter").count(), 2);
}

#[test]
fn an_administrator_bans_and_kills_and_users_may_not() {
    let Some(host) = Host::new(json!({})) else { return };
    let (soc, ci, other) = (
        host.lab.of_user(SOC),
        host.lab.of_user(CI),
        host.lab.of_user(1502),
    );
    experiment(&other, SOME);
    let (code, told) = host.told(&other, &RUN);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("uid 1502 is no user of this host"), "{told}");

    experiment(&ci, ENDLESS);
    let run = host.command(&ci, &RUN).stdout(Stdio::piped()).spawn().unwrap();
    let cells = host.until("four cells", |cells| cells.len() == 4);
    let pid = cells[0]["process"][0].to_string();
    // An administrator pauses anybody's.
    assert_eq!(host.told(&soc, &["cells", "pause", &pid]).0, 0);
    host.until("a pause", |cells| {
        cells.iter().any(|cell| cell["doing"] == "paused")
    });
    assert_eq!(host.told(&soc, &["cells", "resume", &pid]).0, 0);
    host.until("no pause", |cells| {
        cells.iter().all(|cell| cell["doing"] != "paused")
    });
    for refused in [
        &["users", "ban", "soc"][..],
        &["cores", "reclaim", "1"],
        &["cores", "slice", "3ms"],
    ] {
        let (code, told) = host.told(&ci, refused);
        assert_eq!(code, 4, "{told}");
        assert!(told.contains("is no administrator"), "{told}");
    }
    assert_eq!(
        host.told(&soc, &["cells", "kill", "--id", &pid, "--reason", "one"])
            .0,
        0
    );
    assert_eq!(
        host.told(&soc, &["users", "ban", "ci", "--reason", "eats the host"])
            .0,
        0
    );
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "interrupted");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("killed by `soc`: one"), "{told}");
    assert!(told.contains("banned by `soc`: eats the host"), "{told}");
    let (code, told) = host.told(&ci, &RUN);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("user `ci` is banned: eats the host"), "{told}");
    assert_eq!(host.told(&soc, &["users", "unban", "ci"]).0, 0);
    experiment(&ci, 1);
    assert_eq!(host.told(&ci, &RUN).0, 0);

    let (code, told) = host.told(&soc, &["cores", "slice", "3ms", "--reason", "finer"]);
    assert_eq!(code, 0, "{told}");
    let audit = host.audit();
    for line in [
        "soc (1500) killed cell",
        "soc (1500) banned ci (1501): eats the host",
        "soc (1500) unbanned ci (1501)",
        "soc (1500) changed the slice from 2000 us to 3000 us: finer",
    ] {
        assert!(audit.contains(line), "{audit}");
    }
}

#[test]
fn who_uses_more_time_than_the_quota_is_stopped_for_today() {
    let Some(host) = Host::new(json!({"cpu-time": "1s"})) else {
        return;
    };
    let ci = host.lab.of_user(CI);
    experiment(&ci, ENDLESS);
    let (code, told) = host.told(&ci, &RUN);
    assert_eq!(code, 3, "{told}");
    assert!(
        told.contains("user `ci` has used up the 1 CPU seconds of today"),
        "{told}"
    );
    let (_, told) = host.told(&host.lab, &["users"]);
    assert!(told.contains("1s of CPU a day"), "{told}");
    assert!(host.audit().contains("ci (1501)"), "{}", host.audit());
}

#[test]
fn what_a_quota_can_never_give_is_refused_and_what_runs_out_is_told() {
    let quota = json!({"memory": "64GiB", "output": "4KiB", "stored": "4KiB", "wall-time": "1m"});
    let Some(host) = Host::new(quota) else { return };
    let ci = host.lab.of_user(CI);
    experiment(&ci, 1);
    let text = fs::read_to_string(ci.path("shared.yaml")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest = manifest.clone();
        change(&mut manifest["stages"]["run"]);
        ci.manifest("shared.yaml", &manifest);
    };
    for (limits, told_of) in [
        (
            json!({"memory": "60GiB"}),
            "each cell of stage `run` takes 121GiB, and `ci` may have 64GiB",
        ),
        (json!({"wall": "2m"}), "stage `run` asks for 2m of wall time"),
    ] {
        with(&|stage| stage["limits"] = limits.clone());
        for command in [&["plan", "shared.yaml"][..], &RUN] {
            let (code, told) = host.told(&ci, command);
            assert_eq!(code, 4, "{told}");
            assert!(told.contains(told_of) && told.contains("`ci` may have"), "{told}");
        }
    }
    // A little may be given out; who gives out more is ended, and nothing begins after it.
    with(&|stage| {
        stage["with"]["args"] = json!(["sh", "-c", "seq 3000; echo ${n}"]);
    });
    let (code, told) = host.told(&ci, &RUN);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("may give out 4KiB on this host"), "{told}");
    let run = ci.latest();
    assert_eq!(run.statuses(), [("interrupted".to_owned(), 4)].into());
    // A store that has too much already gets nothing more.
    assert!(ci.run("shared.yaml", &["-j", "4", "--progress", "none"]).all_ok());
    // Nothing is to be done, and nothing added; what would be is not.
    assert_eq!(host.told(&ci, &RUN).0, 0);
    let (code, told) = host.told(&ci, &[&RUN[..], &["--force"]].concat());
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("you may have 4KiB on this host"), "{told}");
    assert!(told.contains("hotcell store gc --max-size 4KiB"), "{told}");
}

#[test]
fn a_host_is_root_s_and_has_one_arbiter() {
    let Some(host) = Host::new(json!({})) else { return };
    let again = ["host", "arbiter", "--manifest", "host.yaml", "--kept", "kept2"];
    let (code, told) = host.told(&host.lab, &again);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("another arbiter listens"), "{told}");
    let ci = host.lab.of_user(CI);
    let (code, told) = host.told(&ci, &["host", "arbiter"]);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("must be root"), "{told}");
    let manifest = host.lab.path("host.yaml");
    fs::set_permissions(&manifest, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let (code, told) = host.told(&host.lab, &again);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("could be written by others than root"), "{told}");
}
