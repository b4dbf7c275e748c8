//! Cores: guests take turns where the manifest says so, and nothing of it is seen in the result.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_store::audit::{Act, Audit, Time, User};
use hotcell_tests::{Lab, Spinner, busybox};
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
    let alone_lab = Lab::new();
    if !manifest(&alone_lab, None) {
        return;
    }
    let alone = alone_lab.run("turns.yaml", &["-j", "1", "--progress", "none"]);
    assert!(alone.all_ok());
    assert_eq!(alone.facts.isolation, "none");
    let (told, _) = alone_lab.expect(0, ["cores", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let known = told["cores"].as_array().unwrap().iter();
    let cores: Vec<String> = known.map(|core| core["core"].to_string()).collect();
    // The shortest turns on one core of a loaded host, the longest on all of an idle one, and between.
    let all = cores.join(",");
    for (slice, pool, loaded) in [
        ("1ms", &cores[0], true),
        ("1ms", &all, false),
        ("50ms", &cores[0], false),
        ("50ms", &all, true),
    ] {
        let load = loaded.then(|| cores.iter().map(|_| Spinner::start(&["sh"])).collect::<Vec<_>>());
        let lab = Lab::new();
        manifest(
            &lab,
            Some(json!({"slice": slice, "pool": pool, "on-small-host": "share"})),
        );
        let ran = lab.run("turns.yaml", &["-j", "6", "--progress", "none"]);
        drop(load);
        assert!(ran.all_ok());
        let level = ran.facts.isolation.as_str();
        assert!(matches!(level, "affinity" | "cpuset" | "isolated"), "{level}");
        let facts = ran.facts.cores.as_ref().unwrap();
        let checks = facts.checks.as_ref().unwrap();
        // On a loaded host a thread may take longer to come to its core than the look has patience.
        assert!(loaded || checks.strays == 0, "{facts:?}");
        let alone_here = |text: &String| text.starts_with("no arbiter on this host");
        assert!(
            ran.facts.fallbacks.iter().any(alone_here),
            "{:?}",
            ran.facts.fallbacks
        );
        let how = format!("with slices of {slice} on {pool}, loaded: {loaded}");
        alone.assert_same_result(&ran, &how);
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
    manifest(&lab, Some(json!({"pool": "3-2"})));
    lab.expect(2, ["plan", "turns.yaml"]);
}

#[test]
fn a_level_is_had_as_asked_or_refused() {
    let asked = |what: Value| {
        let lab = Lab::new();
        let mut cores = json!({"on-small-host": "share"});
        for (key, value) in what.as_object().unwrap() {
            cores[key] = value.clone();
        }
        manifest(&lab, Some(cores)).then(|| {
            let output = lab.hotcell(["run", "turns.yaml", "-j", "2", "--progress", "none"]);
            let told = String::from_utf8(output.stderr).unwrap();
            match output.status.code() {
                Some(0) => Ok(lab.latest().facts),
                Some(4) => {
                    assert!(!lab.path(".hotcell/runs").exists(), "nothing was begun");
                    Err(told)
                }
                code => panic!("{code:?}: {}{told}", String::from_utf8_lossy(&output.stdout)),
            }
        })
    };
    let Some(affinity) = asked(json!({"isolation": "affinity", "real-time": "off"})) else {
        return;
    };
    let affinity = affinity.unwrap();
    assert_eq!(affinity.isolation, "affinity");
    let vain = |text: &&String| text.contains("cpuset") || text.contains("real-time");
    assert_eq!(affinity.fallbacks.iter().find(vain), None);
    match asked(json!({"isolation": "cpuset"})).unwrap() {
        Ok(facts) => {
            assert_eq!(facts.isolation, "cpuset");
            assert!(facts.confinement.iter().any(|layer| layer == "cpuset-cgroup"));
        }
        Err(told) => assert!(told.contains("this host gives none"), "{told}"),
    }
    match asked(json!({"isolation": "isolated"})).unwrap() {
        Ok(facts) => assert_eq!(facts.isolation, "isolated"),
        Err(told) => assert!(told.contains("isolcpus=domain,managed_irq,"), "{told}"),
    }
    // Where it cannot be had it is told, or refused where it must be.
    let tried = asked(json!({"real-time": "try"})).unwrap().unwrap();
    let vain = tried
        .fallbacks
        .iter()
        .any(|text| text.starts_with("the arbiter cannot be real-time"));
    match asked(json!({"real-time": "require"})).unwrap() {
        Ok(_) => assert!(!vain, "{:?}", tried.fallbacks),
        Err(told) => assert!(vain && told.contains("CAP_SYS_NICE"), "{told}"),
    }
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

#[test]
fn the_cores_of_a_host_are_listed_with_their_duties() {
    let lab = Lab::new();
    let (told, _) = lab.expect(0, ["cores", "--json"]);
    let listed: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(listed["format"], "hotcell-cores");
    let cores = listed["cores"].as_array().unwrap();
    assert!(!cores.is_empty());
    assert!(
        cores
            .iter()
            .all(|core| core["duties"].as_array().unwrap().is_empty())
    );
    lab.write("m.toml", "hotcell = 1\n[cores]\non-small-host = 'share'\n");
    let (told, _) = lab.expect(0, ["cores", "m.toml"]);
    assert!(
        told.contains("control") && told.contains("chores") && told.contains("pool"),
        "{told}"
    );
    lab.write("none.toml", "hotcell = 1\n");
    let (_, said) = lab.expect(2, ["cores", "none.toml"]);
    assert!(said.contains("asks for no cores"), "{said}");
}

#[test]
fn an_audit_journal_is_checked_and_shown() {
    let lab = Lab::new();
    let path = lab.path("audit.jsonl");
    let by = User {
        uid: 0,
        name: Some("root".parse().unwrap()),
    };
    let now: Time = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut audit = Audit::open(&path, 0o600, &by, &now).unwrap();
    for core in [2, 3] {
        let act = Act::ReclaimCore { core, killed: 0 };
        audit
            .append(&by, &now, act, Some("it hung".parse().unwrap()))
            .unwrap();
    }
    drop(audit);
    let (told, _) = lab.expect(0, ["audit", "verify", "audit.jsonl"]);
    assert!(told.contains("whole, 2 acts"), "{told}");
    let (shown, _) = lab.expect(0, ["audit", "show", "audit.jsonl"]);
    assert_eq!(shown.lines().count(), 2);
    assert!(shown.contains("it hung") && shown.contains("root"), "{shown}");
    // One core is made another.
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replacen("\"core\":2", "\"core\":4", 1);
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    let (told, _) = lab.expect(1, ["audit", "verify", "audit.jsonl", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["whole"], false, "{told}");
    lab.expect(1, ["audit", "show", "audit.jsonl"]);
    lab.expect(4, ["audit", "verify", "nowhere.jsonl"]);
}
