//! The simulated internet under both engines: the same program meets the same there, over the emulated Linux and, under QEMU, over
//! the host's own.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;

use hotcell_schema::comparison::Comparison;
use hotcell_schema::outcome::Status;
use hotcell_tests::{Busybox, Lab, Run, busybox};
use serde_json::{Value, json};

/// One program for each of these: 64 and 32 bits.
fn programs() -> Option<Vec<Busybox>> {
    let mut all = busybox()?;
    all.retain(|one| ["amd64", "arm64", "armhf", "mipsel"].contains(&one.debian));
    Some(all)
}

fn internet() -> Value {
    json!({
        "web": ["site"],
        "pages": {"http://pages.example/run.sh": "a page\n", "http://named.example:8080/x": "another\n"},
        "hosts": {"named.example": "203.0.113.9"},
        "unknown": ["gone.example"],
        "peers": [{"host": "c2.example", "port": 4444, "script": [
            {"send": "who\n"}, {"expect": "ready"}, {"send-hex": "676f0a"}, "close",
        ]}],
    })
}

/// Runs a shell's script in the simulated internet, under the emulated Linux too if that is wanted; `None` with a word where this
/// host lets nobody watch.
fn run(lab: &Lab, script: &str, emulated: bool) -> Option<Run> {
    let all = programs()?;
    assert_eq!(all.len(), 4);
    let mut list = "path,variant\n".to_owned();
    for one in &all {
        lab.write(&one.debian, fs::read(&one.path).unwrap());
        list.push_str(&format!("{0},{0}\n", one.debian));
    }
    lab.write("programs.csv", list);
    lab.write("site/files.example/dir/file", "a file\n");
    let with = json!({
        "path": "/bin/busybox",
        "args": ["sh", "/script"],
        "files": {"/script": script},
        "network": "sink",
        "internet": internet(),
    });
    let stage = |uses: &str| {
        json!({
            "uses": uses,
            "for-each": {"sample": "samples.programs"},
            "in": {"file": "${sample.file}"},
            "with": with,
            "limits": {"wall": "1m"},
        })
    };
    let mut stages = json!({"watched": stage("qemu-user/linux")});
    if emulated {
        stages["emulated"] = stage("unicorn/linux");
        stages["both"] = json!({
            "uses": "compare/behaviour",
            "for-each": {"sample": "samples.programs"},
            "in": {"left": "stages.emulated.out.events", "right": "stages.watched.out.events"},
        });
    }
    lab.manifest(
        "network.yaml",
        &json!({
            "hotcell": 1,
            "name": "network",
            "sources": {"site": {"kind": "folder", "path": "site"}},
            "samples": {"programs": {"list": "programs.csv"}},
            "stages": stages,
        }),
    );
    let output = lab.hotcell(["run", "network.yaml", "--progress", "none"]);
    let run = lab.latest();
    let bad = run
        .report
        .instances
        .iter()
        .find(|instance| instance.status != Status::Ok);
    let Some(bad) = bad else { return Some(run) };
    let facts = run.facts.instances.get(&bad.name);
    let why = facts.and_then(|facts| facts.error.clone()).unwrap_or_default();
    let cannot = [
        "lets no emulator be registered",
        "lets us make no namespaces",
        "a pair of interfaces (CONFIG_VETH)",
    ];
    if !nix::unistd::geteuid().is_root() || cannot.iter().any(|cannot| why.contains(cannot)) {
        eprintln!("skipped: {why}");
        return None;
    }
    panic!(
        "{}: {:?} {why}\n{}",
        bad.name,
        bad.reason,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What each program said, by stage.
fn said(run: &Run, stage: &str) -> Vec<(String, String)> {
    let of = |instance| String::from_utf8_lossy(&run.output(instance, "stdout")).into_owned();
    run.stage(stage)
        .map(|instance| (instance.name.clone(), of(instance)))
        .collect()
}

/// The network lines of what only one engine saw.
fn apart(run: &Run) -> Vec<String> {
    let mut apart = Vec::new();
    for instance in run.stage("both") {
        let comparison: Comparison = serde_json::from_slice(&run.output(instance, "comparison")).unwrap();
        for side in [&comparison.left, &comparison.right] {
            let only = side.only.iter().filter(|line| line.starts_with("network/"));
            apart.extend(only.map(|line| format!("{} {}: {line}", run.variant(instance), side.engine)));
        }
    }
    apart
}

const MEETS: &str = "cd /tmp
wget -q -O page http://pages.example/run.sh && cat page
wget -q -O - http://files.example/dir/file; wget -q -O - http://files.example/none || echo none
wget -q -O - http://nobody.example/any
wget -q -O - http://gone.example/ || echo gone
wget -q -O - http://named.example:8080/x
echo ready | nc c2.example 4444
wget -q -O - 'http://[2001:db8::9]/' | grep -o '<p>.*</p>'
";
const MET: &str = "a page
a file
none
<html><head><title>It works</title></head><body><p>It works.</p></body></html>
gone
another
who
go
<p>It works.</p>
";

#[test]
fn the_same_program_meets_the_same_internet_under_both_engines() {
    let lab = Lab::new();
    let Some(run) = run(&lab, MEETS, true) else {
        return;
    };
    for stage in ["emulated", "watched"] {
        for (name, text) in said(&run, stage) {
            assert_eq!(text, MET, "{name}");
        }
    }
    for instance in run.stage("watched") {
        let events = String::from_utf8(run.output(instance, "events")).unwrap();
        for told in [
            r#""op":"resolve","protocol":"udp","peer":"203.0.113.9","host":"named.example""#,
            r#""op":"resolve","protocol":"udp","host":"gone.example""#,
            r#""request":"GET http://files.example/dir/file""#,
            r#""request":"GET http://named.example:8080/x""#,
        ] {
            assert!(events.contains(told), "{}: {told}\n{events}", instance.name);
        }
    }
    assert_eq!(apart(&run), Vec::<String>::new());
}
