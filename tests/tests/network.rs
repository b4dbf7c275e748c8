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
        lab.write(one.debian, fs::read(&one.path).unwrap());
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
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return None;
    }
    let mut instances = run.report.instances.iter();
    if let Some(bad) = instances.find(|instance| instance.status != Status::Ok) {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{}: {:?}\n{said}", bad.name, bad.reason);
    }
    Some(run)
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

/// Two listeners of the host: at its loopback, and at all of its addresses. Nobody reaches them; a guest of its own loopback meets
/// nobody, and beyond it the simulated internet.
#[test]
fn a_guest_meets_nobody_of_the_host_and_what_it_floods_is_bounded() {
    use std::net::TcpListener;

    let lab = Lab::new();
    let listeners = ["127.0.0.1:0", "0.0.0.0:0"].map(|at| TcpListener::bind(at).unwrap());
    let mut script = String::from("cd /tmp\n");
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        script.push_str(&format!("echo mine | nc 127.0.0.1 {port} || echo nobody\n"));
        // The host's own address, if it is the one that others see; whose else it is does not matter.
        script.push_str(&format!(
            "echo mine | nc -w 1 10.0.2.15 {port} && echo answered\n"
        ));
    }
    script.push_str(
        "ip addr add 10.9.9.9/24 dev eth0 || echo kept
ip link add evil type dummy || echo kept
ping -c 1 192.0.2.1 > ping || echo refused
yes flood | head -c 300000 > flood
for n in 1 2 3 4 5 6 7 8; do nc -u 198.51.100.$n 9 < flood & all=\"$all $!\"; done
sleep 2; kill $all; wait
wget -q -O - http://after.example/ | grep -o '<p>.*</p>'
",
    );
    let Some(run) = run(&lab, &script, false) else {
        return;
    };
    for (name, text) in said(&run, "watched") {
        let text = text.replace("kept\n", "");
        assert_eq!(
            text, "nobody\nanswered\nnobody\nanswered\nrefused\n<p>It works.</p>\n",
            "{name}"
        );
    }
    for listener in &listeners {
        assert!(listener.accept().is_err(), "a guest reached the host");
    }
}
