//! The examples that newcomers run: they do what their READMEs and goldens say.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use hotcell_tests::{Lab, busybox, files_below};

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
    assert_eq!(run.report.instances.len(), 5 + 15 + 15);
    // The five architectures do the same, but for what the processor's name changes.
    for scene in ["tour", "stay"] {
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
    assert_eq!(overview["highest"][1]["name"], ".sealed");
}
