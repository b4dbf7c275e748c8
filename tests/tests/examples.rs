//! The examples that newcomers run: they do what their READMEs and goldens say.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use hotcell_tests::{Busybox, Lab, busybox, executables, files_below};

/// Copies an example's folder, without what a run of a person left in it.
fn copy(lab: &Lab, example: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example);
    for (name, bytes) in files_below(&folder) {
        if !name.starts_with(".hotcell") {
            lab.write(&name, bytes);
        }
    }
}

#[test]
fn first_look() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    copy(&lab, "first-look");
    for one in &all {
        lab.write(
            &format!("samples/busybox-{}", one.debian),
            fs::read(&one.path).unwrap(),
        );
    }
    lab.expect(0, ["test", "first-look.toml", "--progress", "none"]);
    let run = lab.latest();
    assert!(run.all_ok());
    assert_eq!(run.report.instances.len(), 5 + 20 + 20);
    // The five architectures do the same, but for what the processor's name changes.
    for scene in ["tour", "stay", "drop"] {
        let mut said: Vec<_> = run
            .stage("run")
            .filter(|one| one.axes["scene"] == scene)
            .map(|one| &one.behaviour)
            .collect();
        assert_eq!(said.len(), 5);
        said.dedup();
        assert_eq!(said.len(), 1, "{scene}: {said:#?}");
    }
    assert!(run.folder.join("report.html").is_file());
    assert_eq!(fs::read_dir(run.folder.join("samples")).unwrap().count(), 5);
}

#[test]
fn payload_sums() {
    let lab = Lab::new();
    copy(&lab, "payload-sums");
    lab.expect(0, ["test", "payload-sums.toml", "--progress", "none"]);
    let run = lab.latest();
    assert_eq!(run.stage("sum").count(), 12);
    for instance in run.stage("sum") {
        let result: serde_json::Value = serde_json::from_slice(&run.output(instance, "result")).unwrap();
        let registers = result["registers"].as_object().unwrap();
        // 5050
        assert!(
            registers.values().all(|value| value == "0x13ba"),
            "{}: {registers:?}",
            instance.name
        );
        assert_eq!(result["disagreements"], 0);
    }
}

#[test]
fn analysers() {
    let lab = Lab::new();
    copy(&lab, "analysers");
    lab.expect(0, ["test", "analysers.toml", "--progress", "none"]);
    let run = lab.latest();
    assert!(run.all_ok());
    let rules: Vec<&str> = run
        .stage("entropy")
        .flat_map(|instance| &instance.findings)
        .map(|finding| finding.rule.as_str())
        .collect();
    assert_eq!(rules, ["example/random-section"]);
    let overview = run.stage("overview").next().unwrap();
    let overview: serde_json::Value = serde_json::from_slice(&run.output(overview, "overview")).unwrap();
    assert_eq!(overview["highest"][1]["section"]["name"], ".sealed");
}

/// Copies an example into a folder of its own, beside the samples of the first one.
fn copy_beside_samples(lab: &Lab, example: &str, all: &[Busybox]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example);
    for (name, bytes) in files_below(&folder) {
        if !name.starts_with(".hotcell") {
            lab.write(&format!("{example}/{name}"), bytes);
        }
    }
    for one in all {
        lab.write(
            &format!("first-look/samples/busybox-{}", one.debian),
            fs::read(&one.path).unwrap(),
        );
    }
}

#[test]
fn research() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    copy_beside_samples(&lab, "research", &all);
    let run = |more: &[&str]| {
        let fixed = ["run", "research/research.toml", "--progress", "none"];
        lab.expect(0, fixed.into_iter().chain(more.iter().copied()));
    };
    run(&["--state", ".hotcell"]);
    let here = lab.latest();
    // Three of the four samples are at hand; the files that the second scene leaves are the same on each of them.
    assert_eq!(here.statuses(), [("ok".into(), 17), ("skipped".into(), 5)].into());
    assert_eq!(here.stage("left").count(), 2);

    // Another machine: nothing runs, and the result is the same.
    let folder = here.folder.to_str().unwrap();
    lab.expect(0, ["store", "export", "--run", folder, "corpus.hotcell"]);
    lab.expect(0, ["store", "import", "corpus.hotcell", "--store", "other/store"]);
    run(&["--state", "other", "--store", "other/store"]);
    let runs = fs::read_dir(lab.path("other/runs")).unwrap();
    let there = runs.map(|run| run.unwrap().path()).next().unwrap();
    assert_eq!(files_below(&there.join("result")), here.result());
    let (said, _) = lab.expect(0, ["explain", "--between", folder, there.to_str().unwrap()]);
    assert!(said.contains("0 of 17 keys differ"), "{said}");
}

#[test]
fn sandbox_host() {
    let lab = Lab::new();
    copy(&lab, "sandbox-host");
    lab.expect(0, ["validate", "host.yaml"]);
    lab.expect(0, ["lock", "smoke.toml"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(executables().to_owned()).chain(std::env::split_paths(&path));
    let output = Command::new("sh")
        .arg("pipeline.sh")
        .current_dir(lab.path(""))
        .env("PATH", std::env::join_paths(all).unwrap())
        .env("HOTCELL_STORE", lab.path("store"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for file in ["plan.json", "plan.svg", "junit.xml"] {
        assert!(lab.path(".hotcell/ci").join(file).is_file(), "{file}");
    }
    assert!(lab.latest().all_ok());
}

#[test]
fn detection() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    copy_beside_samples(&lab, "detection", &all);
    let test = [
        "test",
        "detection/detection.yaml",
        "--state",
        ".hotcell",
        "--progress",
        "none",
    ];
    lab.expect(0, test);

    // A rule that is less sure of itself is a change that somebody must look at, and no sample runs again for it.
    let rule = "detection/rules/hidden-agent-cron.toml";
    let text = fs::read_to_string(lab.path(rule)).unwrap();
    lab.write(rule, text.replace("severity = \"high\"", "severity = \"medium\""));
    let (said, _) = lab.expect(1, test);
    assert!(
        said.contains("findings[lab/hidden-agent-cron].severity: high → medium"),
        "{said}"
    );
    assert_eq!(
        lab.latest().statuses(),
        [("cached".into(), 3), ("ok".into(), 3)].into()
    );
}
