//! Guests on the host's kernel where nobody may load eBPF: a tracer tells the same of them.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use hotcell_schema::event::{Event, Witness};
use hotcell_schema::outcome::Status;
use hotcell_tests::{Lab, Run, guests};
use serde_json::{Value, json};

const TARGETS: [&str; 4] = ["x86_64", "aarch64", "armhf", "mipsel"];

/// A laboratory with guests, each under QEMU and, where it is the host's own, natively.
fn lab(lab: Lab, names: &[&str], args: &[&str]) -> Option<Lab> {
    let mut list = "path,family,variant\n".to_owned();
    let mut own = list.clone();
    for guest in guests()? {
        let (name, target) = (&guest.name, guest.target.as_str());
        if !names.contains(&name.as_str()) || !TARGETS.contains(&target) {
            continue;
        }
        lab.write(&format!("{name}/{target}"), fs::read(&guest.path).unwrap());
        writeln!(list, "{name}/{target},{name},{target}").unwrap();
        if target == std::env::consts::ARCH {
            writeln!(own, "{name}/{target},{name},{target}").unwrap();
        }
    }
    lab.write("guests.csv", list);
    lab.write("own.csv", own);
    let stage = |uses: &str, samples: &str| {
        json!({
            "uses": uses,
            "for-each": {"sample": samples},
            "in": {"file": "${sample.file}"},
            "with": {"cwd": "/tmp", "args": args},
            "limits": {"wall": "1m"},
        })
    };
    let manifest = json!({
        "hotcell": 1,
        "name": "fallback",
        "samples": {"guests": {"list": "guests.csv"}, "own": {"list": "own.csv"}},
        "stages": {
            "watched": stage("qemu-user/linux", "samples.guests"),
            "native": stage("native/linux", "samples.own"),
        },
    });
    lab.manifest("fallback.yaml", &manifest);
    Some(lab)
}

/// Runs it, watched by this; `None` with a word where this host does not let us.
fn watched_by(lab: &Lab, source: Option<&str>) -> Option<Run> {
    let mut command = lab.command(["run", "fallback.yaml", "--progress", "none"]);
    if let Some(source) = source {
        command.env("HOTCELL_WATCHED_BY", source);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{:?}: {said}",
        output.status
    );
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let errors: Vec<_> = run
        .facts
        .instances
        .values()
        .filter_map(|facts| facts.error.as_ref())
        .collect();
    assert!(
        run.report
            .instances
            .iter()
            .all(|instance| instance.status == Status::Ok),
        "{errors:?}"
    );
    Some(run)
}

/// What each instance's events say, without what differs from run to run: when, and by whom it was seen.
fn events(run: &Run, witness: Witness) -> BTreeMap<String, Vec<Value>> {
    let told = run.report.instances.iter().map(|instance| {
        let bytes = run.output(instance, "events");
        let lines = std::str::from_utf8(&bytes).unwrap().lines().skip(1);
        let events = lines.map(|line| {
            let event: Event = serde_json::from_str(line).unwrap();
            assert_eq!(event.witness, witness, "{}", instance.name);
            let mut event = serde_json::to_value(&event).unwrap();
            let fields = event.as_object_mut().unwrap();
            fields.remove("time");
            fields.remove("witness");
            fields.remove("seq");
            event
        });
        (instance.name.clone(), events.collect())
    });
    told.collect()
}

/// Addresses differ from run to run: of memory that a call names, and those that it gives.
fn without_addresses(mut event: Value) -> Value {
    if let Some(call) = event.pointer_mut("/what/syscall")
        && ["mmap", "brk"].contains(&call["name"].as_str().unwrap_or_default())
    {
        call["result"] = Value::Null;
    }
    forget(&mut event);
    event
}

fn forget(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(forget),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "address" => *value = Value::Null,
                    _ => forget(value),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn a_tracer_tells_what_the_kernel_part_tells() {
    let Some(lab) = lab(Lab::new(), &["hello", "files"], &[]) else {
        return;
    };
    let (Some(kernel), Some(tracer)) = (watched_by(&lab, Some("ebpf")), watched_by(&lab, Some("ptrace")))
    else {
        return;
    };
    assert!(kernel.facts.confinement.contains(&"watched by ebpf".to_owned()));
    assert!(tracer.facts.confinement.contains(&"watched by ptrace".to_owned()));
    let (kernel, tracer) = (events(&kernel, Witness::Kernel), events(&tracer, Witness::Tracer));
    assert!(!kernel.is_empty() && kernel.keys().eq(tracer.keys()));
    for (name, seen) in &kernel {
        let told: Vec<Value> = tracer[name].iter().cloned().map(without_addresses).collect();
        let seen: Vec<Value> = seen.iter().cloned().map(without_addresses).collect();
        for (at, (seen, told)) in seen.iter().zip(&told).enumerate() {
            assert_eq!(seen, told, "{name}: event {at}");
        }
        assert_eq!(seen.len(), told.len(), "{name}");
    }
}

/// How often each thing happened: tasks run beside each other, and so the order is theirs.
fn counted(events: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        let (kind, what) = event["what"].as_object().unwrap().iter().next().unwrap();
        let name = what.get("name").or(what.get("op")).or(what.get("signal"));
        *counts
            .entry(format!("{kind} {}", name.unwrap_or(&Value::Null)))
            .or_insert(0) += 1;
    }
    // How often somebody looked whether a child has ended, or waited for another thread, is chance.
    counts.retain(|name, _| {
        !["wait4", "futex", "mmap", "mprotect", "madvise"]
            .iter()
            .any(|call| name.contains(call))
    });
    counts
}

#[test]
fn children_threads_and_sockets_are_told_alike() {
    let Some(lab) = lab(Lab::new(), &["sockets", "threads"], &[]) else {
        return;
    };
    let (Some(kernel), Some(tracer)) = (watched_by(&lab, Some("ebpf")), watched_by(&lab, Some("ptrace")))
    else {
        return;
    };
    let (kernel, tracer) = (events(&kernel, Witness::Kernel), events(&tracer, Witness::Tracer));
    for (name, seen) in &kernel {
        let (mut seen, mut told) = (counted(seen), counted(&tracer[name]));
        if name.starts_with("watched") {
            // QEMU says that a thread has ended before it ends it: the process may be gone first.
            for counts in [&mut seen, &mut told] {
                counts.remove("syscall \"exit\"");
            }
        }
        assert_eq!(seen, told, "{name}");
    }
}

#[test]
fn an_ordinary_user_has_a_tracer_and_is_told_why() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be somebody else");
        return;
    }
    let all = Lab::with_own_executables();
    let Some(lab) = lab(all.of_user(65534), &["hello"], &[]) else {
        return;
    };
    let Some(run) = watched_by(&lab, None) else { return };
    let confinement = &run.facts.confinement;
    assert!(
        confinement.contains(&"watched by ptrace".to_owned()),
        "{confinement:?}"
    );
    let told = |what: &str| run.facts.fallbacks.iter().any(|told| told.contains(what));
    assert!(
        told("not watched by ebpf") && told("two stops"),
        "{confinement:?}"
    );
    for (name, told) in events(&run, Witness::Tracer) {
        let ended = told
            .iter()
            .filter(|event| event["what"]["process"]["op"] == json!("exit"))
            .count();
        assert_eq!(ended, 1, "{name}: {told:?}");
    }
}
