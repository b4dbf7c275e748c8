//! Runs as a whole: the same bytes on a loaded and an idle host, answers from the store, Ctrl-C, a cell that dies.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use hotcell_schema::outcome::Status;
use hotcell_tests::{Busybox, Lab, Run, busybox, files_below};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// Stages that look, run and judge; `scripts` are what busybox's shell does.
fn manifest(lab: &Lab, all: &[Busybox], scripts: &[(&str, &str)]) {
    for one in all {
        lab.write(&format!("samples/{}", one.debian), fs::read(&one.path).unwrap());
    }
    let names: Vec<&str> = scripts.iter().map(|(name, _)| *name).collect();
    let files: serde_json::Map<String, Value> = scripts
        .iter()
        .map(|(name, text)| (format!("/scripts/{name}"), json!(text)))
        .collect();
    let each = json!({"sample": "samples.busybox", "script": names});
    lab.manifest(
        "runs.yaml",
        &json!({
            "hotcell": 1,
            "name": "runs",
            "seed": 11,
            "samples": {"busybox": {"glob": "samples/*", "family": "busybox"}},
            "stages": {
                "look": {
                    "uses": "inspect/elf",
                    "for-each": {"sample": "samples.busybox"},
                    "in": {"file": "${sample.file}"},
                },
                "run": {
                    "uses": "unicorn/linux",
                    "for-each": each,
                    "in": {"file": "${sample.file}"},
                    "with": {"path": "/bin/busybox", "args": ["sh", "/scripts/${script}"], "files": files},
                    "limits": {"virtual-time": "1h", "wall": "10m"},
                },
                "hits": {
                    "uses": "detect/rules",
                    "for-each": each,
                    "in": {"events": "stages.run.out.events", "info": "stages.look.out.info"},
                },
            },
        }),
    );
}

const BUSY: &[(&str, &str)] = &[
    (
        "chance",
        "head -c 64 /dev/urandom | sha256sum; mktemp; date +%s%N; echo $RANDOM $$",
    ),
    (
        "pipes",
        "seq 300 | grep 7 | sort -r | sha256sum; (echo a; sleep 1; echo b) | cat; date",
    ),
    (
        "files",
        "mkdir -p /tmp/d; for i in 1 2 3 4 5; do echo $i > /tmp/d/$i & done; wait; cat /tmp/d/*; ls -l /tmp/d",
    ),
];

#[test]
fn a_loaded_host_gives_the_same_bytes_as_an_idle_one() {
    let Some(all) = busybox() else { return };
    let (idle, loaded) = (Lab::new(), Lab::new());
    manifest(&idle, &all, BUSY);
    manifest(&loaded, &all, BUSY);
    let first = idle.run("runs.yaml", &["-j", "1", "--progress", "none"]);
    let stop = AtomicBool::new(false);
    let second = std::thread::scope(|scope| {
        for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(1));
                }
            });
        }
        // Stopped also when the run panics: else the scope would never end.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        loaded.run("runs.yaml", &["-j", "5", "--progress", "none"])
    });
    assert!(first.all_ok());
    assert!(first.result().len() > 40, "{:?}", first.result().keys());
    first.assert_same_result(&second, "on a loaded host");
}

#[test]
fn a_second_run_is_answered_from_the_store() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    manifest(&lab, &all, BUSY);
    let first = lab.run("runs.yaml", &["--progress", "none"]);
    let count = first.report.instances.len();
    assert_eq!(count, 5 + 15 + 15);
    assert!(!first.statuses().contains_key("cached"), "{:?}", first.statuses());
    // Nothing has changed: nothing is done, and the result stands.
    let (stdout, _) = lab.expect(0, ["run", "runs.yaml"]);
    assert!(
        stdout.starts_with("nothing to do: 35 instances are as in run "),
        "{stdout}"
    );
    assert_eq!(first.folder, lab.latest().folder);
    // What another run is compared with is not: a report that was changed, an earlier run that is gone.
    let report = first.folder.join("result/report.json");
    let whole = fs::read(&report).unwrap();
    fs::write(&report, [&whole[..], b"\n"].concat()).unwrap();
    let second = lab.run("runs.yaml", &["--progress", "none"]);
    fs::write(&report, whole).unwrap();
    assert_ne!(first.folder, second.folder);
    assert_eq!(second.statuses(), [("cached".to_owned(), count)].into());
    assert_eq!(first.result(), second.result());
    // Forced, it runs again, to the same end.
    let third = lab.run("runs.yaml", &["--progress", "none", "--force"]);
    assert_eq!(third.statuses(), [("ok".to_owned(), count)].into());
    assert_eq!(first.result(), third.result());
    // With another seed every sample runs again; looking at them does not depend on it. Rules are judged again only where
    // the events differ.
    let other = lab.run("runs.yaml", &["--progress", "none", "--set", "seed=12"]);
    for (name, facts) in &other.facts.instances {
        if !name.starts_with("hits[") {
            assert_eq!(
                facts.status == Status::Cached,
                name.starts_with("look["),
                "{name}"
            );
        }
    }
}

#[test]
fn a_plan_writes_nothing() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    manifest(&lab, &all, BUSY);
    let before = files_below(&lab.path(""));
    let (stdout, _) = lab.expect(0, ["plan", "runs.yaml", "--json"]);
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(plan["instances"].as_array().unwrap().len(), 35);
    lab.expect(0, ["validate", "runs.yaml"]);
    assert_eq!(before, files_below(&lab.path("")));
}

/// Waits until `done` holds; a deadline far away keeps a broken test from hanging.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn cells(lab: &Lab) -> Vec<i32> {
    let ours = lab.processes();
    ours.into_iter()
        .filter(|(_, name)| name == "hotcell-unicorn")
        .map(|(pid, _)| pid)
        .collect()
}

/// CPU ticks (user) of a process, from `/proc/<pid>/stat` (`man 5 proc`, field 14).
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name
        .split_whitespace()
        .nth(11)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

/// Starts a run in which one script never ends, and waits until its cell is alone and at work.
fn start_endless(lab: &Lab, all: &[Busybox]) -> (Child, i32) {
    manifest(
        lab,
        all,
        &[("endless", "while :; do :; done"), ("short", "echo short")],
    );
    let child = lab
        .command(["run", "runs.yaml", "-j", "2", "--progress", "plain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let done = |lab: &Lab| {
        let runs = fs::read_dir(lab.path(".hotcell/runs"))
            .into_iter()
            .flatten()
            .flatten();
        let mut journals = runs.filter_map(|run| fs::read_to_string(run.path().join("journal.jsonl")).ok());
        journals.any(|text| {
            text.lines()
                .any(|line| line.contains("\"ended\"") && line.contains("run[") && line.contains("short"))
        })
    };
    wait_until("the short script ends", || done(lab));
    let mut cell = 0;
    wait_until("the endless script's cell works alone", || {
        let cells = cells(lab);
        cell = cells.first().copied().unwrap_or(0);
        cells.len() == 1 && ticks(cell) > 20
    });
    (child, cell)
}

#[test]
fn ctrl_c_stops_cells_and_the_next_run_goes_on() {
    let Some(all) = busybox() else { return };
    let lab = Lab::with_own_executables();
    let all = &all[..1];
    let (child, _) = start_endless(&lab, all);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    wait_until("nothing is left running", || lab.processes().is_empty());
    assert!(
        stderr.to_lowercase().contains("interrupted"),
        "it says where it stands: {stderr}"
    );

    // What was done is kept: with a limit that ends the loop, only what was missing runs.
    let text = fs::read_to_string(lab.path("runs.yaml"))
        .unwrap()
        .replace("while :; do :; done", "exit 3");
    fs::write(lab.path("runs.yaml"), text).unwrap();
    let run = lab.run("runs.yaml", &["--progress", "none"]);
    let facts = |wanted: &str| {
        let found = run
            .facts
            .instances
            .iter()
            .find(|(name, _)| name.starts_with(wanted));
        found.unwrap_or_else(|| panic!("{wanted}")).1.status
    };
    assert_eq!(facts("look["), Status::Cached);
    assert!(run.all_ok());
}

#[test]
fn a_cell_that_dies_takes_nothing_with_it() {
    let Some(all) = busybox() else { return };
    let lab = Lab::with_own_executables();
    let (child, cell) = start_endless(&lab, &all[1..2]);
    // The first process of a process namespace takes no signal but this one from outside.
    kill(Pid::from_raw(cell), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let run = lab.latest();
    for instance in run.stage("run") {
        let wanted = if instance.axes["script"] == "endless" {
            Status::Interrupted
        } else {
            Status::Ok
        };
        assert_eq!(
            instance.status, wanted,
            "{}: {:?}",
            instance.name, instance.reason
        );
    }
    for instance in run.stage("hits") {
        let wanted = if instance.axes["script"] == "endless" {
            Status::Skipped
        } else {
            Status::Ok
        };
        assert_eq!(
            instance.status, wanted,
            "{}: {:?}",
            instance.name, instance.reason
        );
    }
    assert!(lab.processes().is_empty());
}

#[test]
fn limits_are_outcomes_and_that_of_wall_time_keeps_what_was_seen() {
    let Some(all) = busybox() else { return };
    let lab = Lab::with_own_executables();
    manifest(&lab, &all[..1], &[("endless", "echo begun; while :; do :; done")]);
    let outcomes = |run: &Run| -> Vec<String> {
        let outcomes = run.stage("run").filter_map(|one| one.outcome.as_ref());
        outcomes.map(ToString::to_string).collect()
    };
    let by = |limit: &'static str| ["--progress", "none", "--set", limit];
    let guest = lab.run("runs.yaml", &by("stages.run.limits.instructions=3000000"));
    assert_eq!(outcomes(&guest), ["limit instructions"]);

    let short = by("stages.run.limits.wall=\"2s\"");
    let host = lab.run("runs.yaml", &short);
    assert_eq!(outcomes(&host), ["limit wall"]);
    assert!(host.all_ok(), "{:?}", host.statuses());
    let run = host.stage("run").next().unwrap();
    assert_eq!(host.output(run, "stdout"), b"begun\n");
    assert!(
        run.behaviour.iter().any(|line| line.starts_with("process/start")),
        "{:?}",
        run.behaviour
    );
    // Nothing of the host's clock is in what was seen.
    assert!(!String::from_utf8_lossy(&host.output(run, "events")).contains("\"wall\""));
    // Another run may come further: it is no answer for it.
    let again = lab.run("runs.yaml", &short);
    assert_ne!(again.folder, host.folder);
    let name = &again.stage("run").next().unwrap().name;
    assert_eq!(again.facts.instances[name].status, Status::Ok);
    assert_eq!(lab.processes(), []);

    // What of it can be judged is that.
    let expect = |what: Value, code: i32| {
        let text = fs::read_to_string(lab.path("runs.yaml")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        manifest["stages"]["run"]["limits"]["wall"] = json!("2s");
        manifest["expect"] = json!([what]);
        lab.manifest("judged.yaml", &manifest);
        lab.expect(code, ["test", "judged.yaml", "--progress", "none"]);
    };
    expect(json!({"stage": "run", "outcome": "limit wall"}), 0);
    expect(json!({"stage": "hits", "hits": {"severity-below": "info"}}), 5);
}

#[test]
fn with_several_samples_a_report_tells_of_the_one_whose_file_was_run() {
    let Some(guests) = hotcell_tests::guests() else {
        return;
    };
    let guest = guests
        .iter()
        .find(|guest| guest.name == "hello" && guest.target == "x86_64")
        .unwrap();
    let lab = Lab::new();
    lab.write("program", fs::read(&guest.path).unwrap());
    lab.write("text", "what it reads\n");
    // The name of the input's axis comes first in the order of names.
    lab.write(
        "two.toml",
        "hotcell = 1\nname = \"two\"\n[samples.programs]\nglob = \"program\"\n[samples.texts]\nglob = \"text\"\n\
         [stages.run]\nuses = \"unicorn/linux\"\nfor-each = { a = \"samples.texts\", program = \"samples.programs\" }\n\
         in = { file = \"${program.file}\", stdin = \"${a.file}\" }\n\
         [stages.hits]\nuses = \"detect/rules\"\nfor-each = { a = \"samples.texts\", program = \"samples.programs\" }\n\
         in = { events = \"stages.run.out.events\" }\n",
    );
    let (stdout, _) = lab.expect(0, ["run", "two.toml", "--progress", "none"]);
    let report = lab.latest().report;
    for instance in &report.instances {
        assert_eq!(
            report.sample_of(instance).unwrap().1.name,
            "program",
            "{}",
            instance.name
        );
    }
    assert!(stdout.contains("program"), "{stdout}");
    assert!(!stdout.contains("not run"), "{stdout}");
}
