//! What is done about a guest of `qemu-user/linux` while it runs: what a manifest denies is refused, or ends who does it; rules end
//! all of it, or make it stand still.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;

use hotcell_schema::deny::Denied;
use hotcell_schema::event::{Event, FileOp, ProcessOp, What};
use hotcell_schema::job::LinuxResult;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::InstanceReport;
use hotcell_schema::respond::Action;
use hotcell_tests::{Lab, Run, guests};
use serde_json::{Value, json};

/// 64 and 32 bits, both byte orders of calls' numbers, with and without the host's own.
const TARGETS: [&str; 4] = ["x86_64", "aarch64", "armhf", "mipsel"];

/// Most events of a guest that makes more of them before its deed.
const FEW: u64 = 1000;

/// Runs the guest that does deeds, once for each target and stage, in stages called `native…` on this host's processor alone; `None` with a word where this host lets nobody watch.
fn deeds(stages: &[(&str, &[&str], Value)]) -> Option<(Lab, Run)> {
    let all = guests()?;
    let lab = Lab::new();
    for (file, action) in [("kills", "kill"), ("freezes", "freeze")] {
        let rule = json!({
            "hotcell-rule": 1,
            "id": file,
            "title": "It makes a file",
            "description": "For a test.",
            "severity": "high",
            "respond": action,
            "when": {"match": {"kind": "file", "op": "create", "path": "/tmp/deeds-file"}},
        });
        lab.write(&format!("{file}.yaml"), rule.to_string());
    }
    let mut list = "path,variant\n".to_owned();
    for target in TARGETS {
        let guest = all
            .iter()
            .find(|guest| guest.name == "deeds" && guest.target == target);
        lab.write(target, fs::read(&guest.unwrap().path).unwrap());
        list.push_str(&format!("{target},{target}\n"));
    }
    lab.write("deeds.csv", list);
    let own = std::env::consts::ARCH;
    lab.write("own.csv", format!("path,variant\n{own},{own}\n"));
    let stages = stages.iter().map(|(name, args, more)| {
        let mut with = json!({"args": args, "cwd": "/tmp"});
        let more = more.as_object().unwrap().clone();
        with.as_object_mut().unwrap().extend(more);
        let is_native = name.starts_with("native");
        let mut limits = json!({"wall": "2m"});
        if name.ends_with("frozen") {
            // Who stands still does so until then.
            limits["wall"] = json!("12s");
        }
        if name.ends_with("flooded") {
            limits["events"] = json!(FEW);
        }
        let stage = json!({
            "uses": if is_native { "native/linux" } else { "qemu-user/linux" },
            "for-each": {"sample": if is_native { "samples.own" } else { "samples.deeds" }},
            "in": {"file": "${sample.file}"},
            "with": with,
            "limits": limits,
        });
        ((*name).to_owned(), stage)
    });
    let stages: serde_json::Map<String, Value> = stages.collect();
    let manifest = json!({
        "hotcell": 1,
        "name": "deny",
        "samples": {"deeds": {"list": "deeds.csv"}, "own": {"list": "own.csv"}},
        "stages": stages,
    });
    lab.manifest("deny.yaml", &manifest);
    let output = lab.hotcell(["run", "deny.yaml", "--progress", "none"]);
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return None;
    }
    let mut instances = run.report.instances.iter();
    if let Some(bad) = instances.find(|instance| !matches!(instance.status, Status::Ok | Status::Refused)) {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{}: {:?}\n{said}", bad.name, bad.reason);
    }
    Some((lab, run))
}

fn events(run: &Run, instance: &InstanceReport) -> Vec<Event> {
    let bytes = run.output(instance, "events");
    let lines = std::str::from_utf8(&bytes).unwrap().lines().skip(1);
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_refused_fails_and_the_guest_goes_on() {
    let deny = json!({"connect": "refuse", "listen": "refuse", "create": "refuse", "delete": "refuse"});
    let stages: [(&str, &[&str], Value); 8] = [
        ("free", &["all"], json!({})),
        ("denied", &["all"], json!({"deny": deny})),
        ("native-free", &["all"], json!({})),
        ("native-denied", &["all"], json!({"deny": deny})),
        ("native-stays", &["exec"], json!({"deny": {"exec": "refuse"}})),
        ("native-other", &["clone3"], json!({})),
        ("runs", &["exec"], json!({})),
        ("stays", &["exec"], json!({"deny": {"exec": "refuse"}})),
    ];
    let Some((_lab, run)) = deeds(&stages) else { return };
    let deeds = [
        "connect", "message", "listen", "create", "mkdir", "bind", "rename", "delete",
    ];
    let said = |answer: &str| deeds.map(|deed| format!("{deed} {answer}\n")).concat();
    for (stage, stdout) in [
        ("free", said("0")),
        ("denied", said("-1")),
        ("native-free", said("0")),
        ("native-denied", said("-1")),
        ("native-stays", "exec -1\n".to_owned()),
        ("native-other", "clone3 0\n".to_owned()),
        ("runs", "executed\nhello 0\n".to_owned()),
        ("stays", "exec -1\n".to_owned()),
    ] {
        assert!(run.stage(stage).next().is_some(), "{stage}");
        for instance in run.stage(stage) {
            let output = run.output(instance, "stdout");
            assert_eq!(String::from_utf8_lossy(&output), stdout, "{}", instance.name);
        }
    }
    // What was refused is told as what it is: a call that failed.
    let told = |instance: &InstanceReport, name: &str, errno: &str| {
        events(&run, instance).iter().any(|event| {
            matches!(&event.what, What::Syscall(told) if told.name == name && told.errno.as_deref() == Some(errno))
        })
    };
    for instance in run.stage("native-other") {
        assert!(told(instance, "clone3", "ENOSYS"), "{:?}", events(&run, instance));
    }
    for instance in run.stage("denied").chain(run.stage("native-denied")) {
        for call in ["connect", "sendmsg", "listen", "openat", "unlinkat"] {
            assert!(told(instance, call, "EPERM"), "{}: {call}", instance.name);
        }
    }
    let by = |what: &str| run.facts.confinement.iter().any(|layer| layer == what);
    assert!(
        by("deny connect by cgroup-bpf") && by("deny exec by seccomp"),
        "{:?}",
        run.facts.confinement
    );
}

#[test]
fn who_does_what_ends_it_makes_no_further_call() {
    let names = Denied::ALL.map(Denied::as_str);
    let arguments = names.map(|name| [name, "25"]);
    let mut stages: Vec<(&str, &[&str], Value)> = names
        .iter()
        .zip(&arguments)
        .map(|(name, arguments)| (*name, &arguments[..], json!({"deny": {*name: "kill"}})))
        .collect();
    // Other ways to the same.
    stages.push((
        "other-create",
        &["bind", "25"],
        json!({"deny": {"create": "kill"}}),
    ));
    stages.push((
        "other-delete",
        &["rename", "25"],
        json!({"deny": {"delete": "kill"}}),
    ));
    stages.push((
        "native-create",
        &["bind", "25"],
        json!({"deny": {"create": "kill"}}),
    ));
    stages.push((
        "native-connect",
        &["message", "25"],
        json!({"deny": {"connect": "kill"}}),
    ));
    stages.push(("native-exec", &["exec", "25"], json!({"deny": {"exec": "kill"}})));
    let Some((_lab, run)) = deeds(&stages) else { return };
    for instance in &run.report.instances {
        let denies = instance.stage.rsplit('-').next().unwrap();
        let output = run.output(instance, "stdout");
        assert_eq!(
            String::from_utf8_lossy(&output),
            "ended 25\n",
            "{}",
            instance.name
        );
        let events = events(&run, instance);
        let denied: Vec<&Event> = events
            .iter()
            .filter(|event| matches!(&event.what, What::Process(what) if what.op == ProcessOp::Denied))
            .collect();
        assert_eq!(denied.len(), 25, "{}", instance.name);
        for event in denied {
            let What::Process(what) = &event.what else {
                continue;
            };
            assert_eq!(what.denied.map(Denied::as_str), Some(denies));
            let after: Vec<&Event> = events
                .iter()
                .filter(|after| after.seq > event.seq && after.task.pid == event.task.pid)
                .collect();
            assert!(
                matches!(&after[..], [end] if matches!(&end.what, What::Process(what) if what.op == ProcessOp::Killed)),
                "{}: {after:?}",
                instance.name
            );
            // The call that decided had no effect.
            let decided = events.iter().rev().find(|before| {
                before.seq < event.seq && before.task.pid == event.task.pid && before.what.kind() == "syscall"
            });
            let refused = matches!(decided.map(|event| &event.what), Some(What::Syscall(call)) if matches!(call.errno.as_deref(), Some("EPERM" | "EACCES")));
            assert!(refused, "{}: {decided:?}", instance.name);
        }
        assert_eq!(instance.responses.len(), 25);
        for response in &instance.responses {
            assert_eq!(response.rule, format!("deny.{denies}"));
            assert_eq!((response.action, response.calls_after), (Action::Kill, 0));
        }
        // The emulator's own threads are not the guest's children.
        let forks = events
            .iter()
            .filter(|event| matches!(&event.what, What::Process(what) if what.op == ProcessOp::Fork));
        assert_eq!(forks.count(), 25, "{}", instance.name);
    }
}

#[test]
fn what_an_emulator_is_told_to_do_is_the_guests_doing() {
    let stages: [(&str, &[&str], Value); 2] = [
        ("option", &["option"], json!({})),
        ("variable", &["variable"], json!({})),
    ];
    let Some((_lab, run)) = deeds(&stages) else { return };
    for instance in &run.report.instances {
        let output = run.output(instance, "stdout");
        assert_eq!(
            String::from_utf8_lossy(&output),
            "executed\nhello 0\n",
            "{}",
            instance.name
        );
        let events = events(&run, instance);
        let made = events.iter().any(|event| {
            matches!(&event.what, What::File(file) if file.op == FileOp::Create && file.path == "/tmp/deeds-log")
        });
        assert!(made, "{}: {events:?}", instance.name);
    }
}

#[test]
fn a_rule_acts_while_the_guest_runs_and_what_it_gave_is_kept() {
    let respond = |rule: &str, at: &str| json!({"respond": {"at": at, "rules": [format!("{rule}.yaml")]}});
    let forever: &[&str] = &["create", "1000000"];
    let stages = [
        ("killed", forever, respond("kills", "high")),
        ("frozen", forever, respond("freezes", "medium")),
        ("revived-frozen", &["revive"], respond("freezes", "medium")),
        ("native-killed", forever, respond("kills", "high")),
        ("native-frozen", &["revive"], respond("freezes", "medium")),
        ("flooded", &["flood"], respond("kills", "high")),
        ("too-mild", &["create"], respond("kills", "critical")),
    ];
    let Some((_lab, run)) = deeds(&stages) else { return };
    for instance in run.stage("too-mild") {
        assert_eq!(instance.status, Status::Refused, "{}", instance.name);
    }
    for instance in run
        .report
        .instances
        .iter()
        .filter(|instance| instance.stage != "too-mild")
    {
        let name = &instance.name;
        let kills = !instance.stage.ends_with("frozen");
        let outcome = match kills {
            true => Outcome::Ended("kills".into()),
            false => Outcome::wall_time(),
        };
        assert_eq!(instance.outcome, Some(outcome), "{name}");
        let result: LinuxResult = serde_json::from_slice(&run.output(instance, "result")).unwrap();
        let left: Vec<&str> = result.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(left, ["/tmp/deeds-file"], "{name}");
        assert_eq!(result.responses, instance.responses, "{name}");
        let [response] = &instance.responses[..] else {
            panic!("{name}: {:?}", instance.responses)
        };
        assert_eq!(response.rule, if kills { "kills" } else { "freezes" }, "{name}");
        // What it names is what decided; it stands still, or has ended, long before its time is up.
        let events = events(&run, instance);
        let decided = events.iter().find(|event| event.seq == response.event).unwrap();
        if instance.stage == "flooded" {
            // It is kept although it is more than the limit allows, and what came after is counted.
            assert!(
                decided.seq >= FEW && events.len() as u64 >= FEW + 2,
                "{name}: {decided:?}"
            );
            assert!(
                response.calls_after > 0 && response.latency > 0,
                "{name}: {response:?}"
            );
        } else {
            assert_eq!(events[response.event as usize].seq, response.event, "{name}");
        }
        assert!(
            matches!(&decided.what, What::File(file) if file.path == "/tmp/deeds-file"),
            "{name}: {decided:?}"
        );
        assert!(response.latency < 8_000_000_000, "{name}: {response:?}");
        let last_call = events
            .iter()
            .rev()
            .find(|event| {
                matches!(&event.what, What::Syscall(call) if call.result.is_some() || call.errno.is_some())
            })
            .unwrap();
        if !kills {
            assert_eq!(last_call.time, decided.time + response.latency, "{name}");
            let end = events.last().unwrap().time;
            assert!(
                end - last_call.time > 3_000_000_000,
                "{name}: {response:?}, ended at {end}"
            );
        }
    }
}
