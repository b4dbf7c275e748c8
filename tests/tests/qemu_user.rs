//! The same program under two engines: what the emulated Linux tells of it, and what the host's kernel sees of it under QEMU.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::process::Command;
use std::{collections::BTreeMap, fmt::Write as _, fs};

use hotcell_schema::comparison::Comparison;
use hotcell_schema::event::{Event, File, NetworkOp, ProcessOp, What, Witness};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::InstanceReport;
use hotcell_tests::{Guest, Lab, Run, busybox, guests};
use serde_json::{Value, json};

/// A laboratory with these guests on a list, and the guests.
fn lab_with(names: &[&str], targets: Option<&[&str]>) -> Option<(Lab, Vec<Guest>)> {
    let all: Vec<Guest> = guests()?
        .into_iter()
        .filter(|guest| guest.profile.is_some() && names.contains(&guest.name.as_str()))
        .filter(|guest| targets.is_none_or(|targets| targets.contains(&guest.target.as_str())))
        .collect();
    assert!(all.len() >= names.len());
    let lab = Lab::new();
    let mut list = "path,family,variant\n".to_owned();
    for guest in &all {
        lab.write(
            &format!("{}/{}", guest.name, guest.target),
            fs::read(&guest.path).unwrap(),
        );
        writeln!(list, "{0}/{1},{0},{1}", guest.name, guest.target).unwrap();
    }
    let own =
        |line: &&str| line.ends_with(&format!(",{}", std::env::consts::ARCH)) || line.starts_with("path");
    lab.write("own.csv", list.lines().filter(own).collect::<Vec<_>>().join("\n"));
    lab.write("guests.csv", &list);
    Some((lab, all))
}

/// Runs stages; `None` with a word where this host lets nobody watch.
fn run(lab: &Lab, stages: &Value) -> Option<Run> {
    let manifest = json!({
        "hotcell": 1,
        "name": "engines",
        "samples": {"guests": {"list": "guests.csv"}, "own": {"list": "own.csv"}},
        "stages": stages,
    });
    lab.manifest("engines.yaml", &manifest);
    let output = lab.hotcell(["run", "engines.yaml", "--progress", "none"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{:?}: {said}",
        output.status
    );
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return None;
    }
    let bad = |instance: &&InstanceReport| instance.status != Status::Ok;
    if let Some(bad) = run.stage("watched").chain(run.stage("native")).find(bad) {
        panic!("{}: {:?}\n{said}", bad.name, bad.reason);
    }
    Some(run)
}

/// Runs guests under both engines; `None` with a word where this host lets nobody watch.
fn both(names: &[&str]) -> Option<(Lab, Run, Vec<Guest>)> {
    let (lab, all) = lab_with(names, None)?;
    let stage = |uses: &str, samples: &str| {
        json!({
            "uses": uses,
            "for-each": {"sample": samples},
            "in": {"file": "${sample.file}"},
            "with": {"cwd": "/tmp"},
        })
    };
    let stages = json!({
        "emulated": stage("unicorn/linux", "samples.guests"),
        "watched": stage("qemu-user/linux", "samples.guests"),
        "native": stage("native/linux", "samples.own"),
        "both": {
            "uses": "compare/behaviour",
            "for-each": {"sample": "samples.guests"},
            "in": {"left": "stages.emulated.out.events", "right": "stages.watched.out.events"},
        },
    });
    let run = run(&lab, &stages)?;
    Some((lab, run, all))
}

/// What is told of a guest that met a limit.
struct Limited {
    target: String,
    outcome: Outcome,
    events: Vec<Event>,
    stdout: Vec<u8>,
}

/// Guests that meet a limit, with the word that makes them.
fn limited(name: &str, word: &str, limits: &Value) -> Option<Vec<Limited>> {
    let (lab, all) = lab_with(&[name], Some(&["x86_64", "aarch64", "armhf", "mipsel"]))?;
    let stage = json!({
        "uses": "qemu-user/linux",
        "for-each": {"sample": "samples.guests"},
        "in": {"file": "${sample.file}"},
        "with": {"cwd": "/tmp", "args": [word]},
        "limits": limits,
    });
    let run = run(&lab, &json!({"watched": stage}))?;
    let mut events = events(&run, "watched");
    let told = run.stage("watched").map(|instance| {
        let sample = run
            .report
            .samples
            .values()
            .find(|sample| instance.name.contains(&sample.digest.to_string()));
        let target = sample.unwrap().variant.clone().unwrap();
        Limited {
            outcome: instance.outcome.clone().unwrap(),
            events: events.remove(&(name.to_owned(), target.clone())).unwrap(),
            stdout: run.output(instance, "stdout"),
            target,
        }
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), all.len());
    Some(told)
}

/// The limits that events say were met.
fn met(events: &[Event]) -> Vec<(&str, u64)> {
    let told = events.iter().filter_map(|event| match &event.what {
        What::Resource(met) => Some((met.limit.as_str(), met.value)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_guest_that_never_ends_is_told_of_until_its_wall_time_is_up() {
    let Some(told) = limited("endless", "spins", &json!({"wall": "3s"})) else {
        return;
    };
    for Limited {
        target,
        outcome,
        events,
        stdout,
    } in told
    {
        assert_eq!(outcome, Outcome::wall_time(), "{target}");
        assert_eq!(stdout, b"begun\n", "{target}");
        let made = files(&events).iter().any(|file| file.path.ends_with("/tmp/made"));
        assert!(made, "{target}: {events:?}");
        // When that was differs from run to run: no event tells of it.
        assert_eq!(met(&events), [], "{target}");
    }
}

#[test]
fn a_fork_bomb_meets_the_limit_of_tasks_and_it_is_told() {
    let Some(told) = limited("forkbomb", "bomb", &json!({"wall": "3s", "tasks": 8})) else {
        return;
    };
    for Limited {
        target,
        outcome,
        events,
        ..
    } in told
    {
        assert_eq!(outcome, Outcome::wall_time(), "{target}");
        assert_eq!(met(&events), [("processes", 8)], "{target}");
    }
}

#[test]
fn a_guest_that_takes_all_memory_is_ended_by_its_limit() {
    let Some(told) = limited("hog", "all", &json!({"wall": "1m", "memory": "64MiB"})) else {
        return;
    };
    for Limited {
        target,
        outcome,
        events,
        stdout,
    } in told
    {
        assert_eq!(outcome, Outcome::Limit("memory".into()), "{target}");
        assert_eq!(stdout, b"begun\n", "{target}");
        assert_eq!(met(&events), [("memory", 64 << 20)], "{target}");
    }
}

/// The events of each guest under an engine, by guest and target.
fn events(run: &Run, stage: &str) -> BTreeMap<(String, String), Vec<Event>> {
    let mut all = BTreeMap::new();
    for instance in run.stage(stage) {
        let sample = run
            .report
            .samples
            .values()
            .find(|sample| instance.name.contains(&sample.digest.to_string()));
        let sample = sample.unwrap();
        let bytes = run.output(instance, "events");
        let lines = std::str::from_utf8(&bytes).unwrap().lines().skip(1);
        let events: Vec<Event> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(
            events
                .iter()
                .enumerate()
                .all(|(at, event)| event.seq == at as u64),
            "{}",
            instance.name
        );
        let key = (sample.family.clone().unwrap(), sample.variant.clone().unwrap());
        all.insert(key, events);
    }
    all
}

/// What was done to which files, in order, with what came of it. (The kernel knows no digests.)
fn files(events: &[Event]) -> Vec<File> {
    let told = events.iter().filter_map(|event| match &event.what {
        What::File(file) => Some(file.clone()),
        _ => None,
    });
    told.map(|file| File { digest: None, ..file }).collect()
}

#[test]
fn both_engines_tell_the_same_of_files() {
    let Some((_lab, run, all)) = both(&["files", "hello"]) else {
        return;
    };
    let (emulated, watched) = (events(&run, "emulated"), events(&run, "watched"));
    assert_eq!(watched.len(), all.len());
    let native = events(&run, "native");
    assert_eq!(native.len(), 2);
    let mut wrong = String::new();
    for (guest, watched) in watched.iter().chain(&native) {
        assert!(watched.iter().all(|event| event.witness == Witness::Kernel));
        let (seen, told) = (files(watched), files(&emulated[guest]));
        if seen != told {
            writeln!(wrong, "{guest:?}:\n  kernel {seen:?}\n  engine {told:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for instance in run.stage("both") {
        assert_eq!(instance.status, Status::Ok);
        let comparison: Comparison = serde_json::from_slice(&run.output(instance, "comparison")).unwrap();
        assert!(comparison.same > 0);
        assert_eq!((comparison.left.only, comparison.right.only), (vec![], vec![]));
        assert!(instance.findings.is_empty());
    }
    // QEMU's own doing is not the guest's: two calls are all that this one makes. (On x86 QEMU maps tables for segments then.)
    for (guest, events) in watched
        .iter()
        .chain(&native)
        .filter(|(guest, _)| guest.0 == "hello")
    {
        let calls: Vec<&str> = events
            .iter()
            .filter_map(|event| match &event.what {
                What::Syscall(call) if call.name != "mmap" => Some(call.name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(calls, ["write", "exit_group"], "{guest:?}");
    }
}

#[test]
fn both_engines_tell_the_same_of_processes_and_sockets() {
    let Some((_lab, run, _)) = both(&["sockets", "threads"]) else {
        return;
    };
    let (emulated, watched) = (events(&run, "emulated"), events(&run, "watched"));
    let native = events(&run, "native");
    let mut wrong = String::new();
    for (guest, watched) in watched.iter().chain(&native) {
        let ends = |events: &[Event]| {
            let ended = |event: &&Event| matches!(&event.what, What::Process(what) if matches!(what.op, ProcessOp::Exit | ProcessOp::Killed));
            events.iter().filter(ended).count()
        };
        let bound = |events: &[Event]| {
            let bound = |event: &&Event| matches!(&event.what, What::Network(what) if what.op == NetworkOp::Bind && what.errno.is_none());
            events.iter().filter(bound).count()
        };
        let (seen, told) = (
            (ends(watched), bound(watched)),
            (ends(&emulated[guest]), bound(&emulated[guest])),
        );
        if seen != told {
            writeln!(
                wrong,
                "{guest:?}: ended and bound: kernel {seen:?}, engine {told:?}"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whoever starts the runner has masked, ignored and limited this and that: a guest begins as it does in the emulated Linux.
#[test]
fn a_guest_inherits_nothing_of_who_started_the_runner() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    let one = all.into_iter().find(|one| one.debian == "amd64").unwrap();
    lab.write("busybox", fs::read(&one.path).unwrap());
    let script = "umask; ulimit -s; ulimit -n; yes | head -n 1; sh -c 'kill -USR1 $$'; echo $?; grep SigBlk /proc/self/status";
    let stage = |uses: &str| {
        json!({
            "uses": uses,
            "for-each": {"sample": "samples.one"},
            "in": {"file": "${sample.file}"},
            "with": {"path": "/bin/busybox", "args": ["sh", "-c", script]},
            "limits": {"wall": "1m"},
        })
    };
    let mut manifest = json!({
        "hotcell": 1,
        "name": "inherits",
        "samples": {"one": {"glob": "busybox"}},
        "stages": {"emulated": stage("unicorn/linux"), "watched": stage("qemu-user/linux")},
    });
    if cfg!(target_arch = "x86_64") {
        manifest["stages"]["native"] = stage("native/linux");
    }
    lab.manifest("inherits.yaml", &manifest);
    let command = lab.command(["run", "inherits.yaml", "--progress", "none"]);
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "umask 077; ulimit -Ss 1024; ulimit -Sn 300; trap '' PIPE INT QUIT USR1; exec \"$@\"",
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(lab.path(""))
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = shell.output().unwrap();
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return;
    }
    let said = |stage| String::from_utf8(run.output(run.stage(stage).next().unwrap(), "stdout")).unwrap();
    let emulated = said("emulated");
    assert!(
        emulated.starts_with("0022\n8192\n1024\ny\n138\nSigBlk:\t"),
        "{emulated}\n{output:?}"
    );
    for stage in ["watched", "native"]
        .iter()
        .filter(|stage| manifest["stages"].get(**stage).is_some())
    {
        assert_eq!(said(stage), emulated, "{stage}");
    }
}
