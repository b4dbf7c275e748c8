//! Cores: guests take turns where the manifest says so, and nothing of it is seen in the result.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_tests::{Lab, busybox};
use serde_json::{Value, json};

/// Six guests that compute, on the host's cores or on one of them.
fn manifest(lab: &Lab, cores: Option<Value>) -> bool {
    let Some(all) = busybox() else { return false };
    for one in all.iter().take(2) {
        lab.write(&format!("samples/{}", one.debian), fs::read(&one.path).unwrap());
    }
    let mut manifest = json!({
        "hotcell": 1,
        "name": "turns",
        "seed": 3,
        "samples": {"busybox": {"glob": "samples/*"}},
        "stages": {
            "look": {
                "uses": "inspect/elf",
                "for-each": {"sample": "samples.busybox"},
                "in": {"file": "${sample.file}"},
            },
            "run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.busybox", "script": ["a", "b", "c"]},
                "in": {"file": "${sample.file}"},
                "with": {
                    "path": "/bin/busybox",
                    "args": ["sh", "-c", "for n in 1 2 3 4; do seq 200 | sha256sum; done; date +%N; echo ${script}"],
                },
            },
        },
    });
    if let Some(cores) = cores {
        manifest["cores"] = cores;
    }
    lab.manifest("turns.yaml", &manifest);
    true
}

#[test]
fn any_slice_and_any_cores_give_the_same_bytes() {
    let alone = Lab::new();
    if !manifest(&alone, None) {
        return;
    }
    let alone = alone.run("turns.yaml", &["-j", "1", "--progress", "none"]);
    assert!(alone.all_ok());
    assert_eq!(alone.facts.isolation, "none");
    for slice in ["1ms", "50ms"] {
        let lab = Lab::new();
        manifest(&lab, Some(json!({"slice": slice, "on-small-host": "share"})));
        let ran = lab.run("turns.yaml", &["-j", "6", "--progress", "none"]);
        assert!(ran.all_ok());
        assert_eq!(ran.facts.isolation, "affinity");
        assert!(
            ran.facts
                .fallbacks
                .iter()
                .any(|text| text.starts_with("no arbiter on this host")),
            "{:?}",
            ran.facts.fallbacks
        );
        let (first, second) = (alone.result(), ran.result());
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            second.keys().collect::<Vec<_>>()
        );
        for (name, bytes) in &first {
            assert!(bytes == &second[name], "{name} differs with slices of {slice}");
        }
    }
}

#[test]
fn what_a_host_cannot_give_is_refused_before_anything_runs() {
    let lab = Lab::new();
    if !manifest(&lab, Some(json!({"pool": "4000-4001"}))) {
        return;
    }
    // Either the host is too small for any pool, or it has not these cores.
    for command in ["plan", "run"] {
        let (_, told) = lab.expect(4, [command, "turns.yaml"]);
        assert!(told.contains("this host has"), "{told}");
    }
    assert!(!lab.path(".hotcell/runs").exists(), "nothing was begun");
    manifest(
        &lab,
        Some(json!({"isolation": "isolated", "on-small-host": "share"})),
    );
    let (_, told) = lab.expect(4, ["run", "turns.yaml"]);
    assert!(told.contains("by affinity only"), "{told}");
    manifest(&lab, Some(json!({"pool": "3-2"})));
    lab.expect(2, ["plan", "turns.yaml"]);
}

#[test]
fn a_plan_says_which_cores() {
    let lab = Lab::new();
    if !manifest(&lab, Some(json!({"slice": "5ms", "on-small-host": "share"}))) {
        return;
    }
    let (told, _) = lab.expect(0, ["plan", "turns.yaml", "-j", "3"]);
    assert!(told.contains("in turns of 5ms, 3 at a time"), "{told}");
}
