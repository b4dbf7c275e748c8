//! `hotcell plan`: what happens and why, and its pictures; it writes nothing.

use std::{
    fs,
    process::{Command, Stdio},
};

use hotcell_tests::{Lab, files_below};

use super::{count, experiment, plan, says, write};

#[test]
fn every_instance_is_told_with_its_reason() {
    let lab = Lab::new();
    experiment(&lab);
    let first = plan(&lab, &[]);
    assert_eq!((count(&first, "run"), count(&first, "wait")), (3, 4));
    assert!(
        says(&first)
            .iter()
            .all(|(_, does, why)| does != "run" || why == "it never ran")
    );
    assert_eq!(first["stages"]["sum"]["run"], 3);
    assert_eq!(first["cores"], "any");
    lab.run("ex.yaml", &["--progress", "none"]);
    assert_eq!(count(&plan(&lab, &[]), "cached"), 7);
    // What changed is named, and what follows from it waits: it may be stored after all.
    write(&lab, "fail", "y");
    let changed = plan(&lab, &[]);
    let all = says(&changed).pop().unwrap();
    assert_eq!((all.0.as_str(), all.1.as_str()), ("all", "run"));
    assert!(all.2.starts_with("`with` changed since "), "{}", all.2);
    assert_eq!(changed["instances"][6]["changed"], serde_json::json!(["with"]));
    assert_eq!(count(&changed, "cached"), 6);
    write(&lab, "fail", "x");
    // The store is gone: that is said, although the latest run's result still stands.
    fs::rename(lab.path("store"), lab.path("gone")).unwrap();
    let gone = says(&plan(&lab, &[]));
    assert_eq!(gone[0].2, "its outputs are not in the store any more");
    // What changed is named all the same: the run's folder says of what its keys were made.
    write(&lab, "other", "x");
    let changed = says(&plan(&lab, &[]));
    assert!(
        changed[0].2.starts_with("`with` changed since "),
        "{}",
        changed[0].2
    );
    let (explained, _) = lab.expect(0, ["explain", "ex.yaml", "-i", "sum"]);
    assert!(
        explained.contains("would run: `with` changed since "),
        "{explained}"
    );
    write(&lab, "fail", "x");
    fs::rename(lab.path("gone"), lab.path("store")).unwrap();
    // Text: stages first, then instances.
    let (stdout, _) = lab.expect(0, ["plan", "ex.yaml", "-j", "3"]);
    assert!(
        stdout.starts_with("3 stages, 7 instances; any core, 3 at a time\n"),
        "{stdout}"
    );
    assert!(stdout.contains("cached  sum[sample=one-"), "{stdout}");
}

#[test]
fn a_plan_writes_nothing_whatever_it_shows() {
    let lab = Lab::new();
    experiment(&lab);
    let before = files_below(&lab.path(""));
    let all: &[&[&str]] = &[
        &["plan", "ex.yaml"],
        &["plan", "ex.yaml", "--all"],
        &["plan", "ex.yaml", "--json"],
        &["plan", "ex.yaml", "--graph", "svg"],
        &["plan", "ex.yaml", "--graph", "dot", "--graph-instances"],
        &["run", "ex.yaml", "--dry-run"],
        &["run", "ex.yaml", "-n", "--only", "sum"],
        &["test", "ex.yaml", "-n"],
        &["runs"],
        &["explain", "ex.yaml"],
    ];
    for args in all {
        lab.expect(0, args.iter().copied());
        assert_eq!(before, files_below(&lab.path("")), "{args:?}");
        // Not even a folder.
        assert!(
            !lab.path(".hotcell").exists() && !lab.path("store").exists(),
            "{args:?}"
        );
    }
    // The same where a store is, to the byte and to the time of every file.
    lab.run("ex.yaml", &["--progress", "none"]);
    let before = files_below(&lab.path(""));
    for args in all {
        lab.expect(0, args.iter().copied());
    }
    assert_eq!(before, files_below(&lab.path("")));
}

#[test]
fn ten_thousand_instances_stay_readable() {
    let lab = Lab::new();
    let numbers: Vec<usize> = (0..10_000).collect();
    lab.manifest(
        "ex.yaml",
        &serde_json::json!({
            "hotcell": 1, "name": "ex",
            "stages": {"each": {"uses": "command", "for-each": {"number": numbers}, "with": {"run": ["true"]}}},
        }),
    );
    let (stdout, _) = lab.expect(0, ["plan", "ex.yaml"]);
    assert!(stdout.lines().count() < 60, "{stdout}");
    assert!(
        stdout.contains("10,000 to run") && stdout.contains("9,960 more; --all"),
        "{stdout}"
    );
    let (stdout, _) = lab.expect(0, ["plan", "ex.yaml", "--all"]);
    assert!(stdout.lines().count() > 10_000);
    let (_, stderr) = lab.expect(2, ["plan", "ex.yaml", "--graph", "dot", "--graph-instances"]);
    assert!(
        stderr.contains("10,000 instances") && stderr.contains("--only"),
        "{stderr}"
    );
}

#[test]
fn pictures_hold_stages_ports_and_hostile_names() {
    let lab = Lab::new();
    experiment(&lab);
    lab.write("samples/\"]; x -> y <script>", "a b c");
    let (mermaid, _) = lab.expect(0, ["plan", "ex.yaml", "--graph", "mermaid"]);
    assert!(mermaid.starts_with("flowchart LR\n"), "{mermaid}");
    assert!(
        mermaid.contains("samples.bots<br/>4 samples") && mermaid.contains("4 to run"),
        "{mermaid}"
    );
    lab.expect(
        0,
        [
            "plan",
            "ex.yaml",
            "--graph",
            "svg",
            "--graph-instances",
            "-o",
            "plan.svg",
        ],
    );
    let svg = fs::read_to_string(lab.path("plan.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && !svg.contains("<script>"), "{svg}");
    assert_eq!(
        svg.matches("<g><rect").count(),
        4 + 4 + 4 + 1 + 1,
        "samples, sum, count, all, count[*]"
    );
    let (dot, _) = lab.expect(0, ["plan", "ex.yaml", "--graph", "dot"]);
    assert!(dot.contains("label=\"text → texts\""), "{dot}");
    // Graphviz is asked only where it is installed.
    if Command::new("dot")
        .arg("-V")
        .stderr(Stdio::null())
        .status()
        .is_ok()
    {
        let path = lab.write("plan.dot", dot);
        assert!(
            Command::new("dot")
                .arg("-Tplain")
                .arg(path)
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
    }
}

#[test]
fn ten_thousand_stages_stay_readable() {
    let lab = Lab::new();
    let mut stages = serde_json::Map::new();
    for number in 0..10_000 {
        let stage = serde_json::json!({"uses": "command", "with": {"run": ["true"]}});
        stages.insert(format!("s{number}"), stage);
    }
    lab.manifest(
        "ex.yaml",
        &serde_json::json!({"hotcell": 1, "name": "ex", "stages": stages}),
    );
    let (stdout, _) = lab.expect(0, ["plan", "ex.yaml"]);
    assert!(stdout.lines().count() < 200, "{stdout}");
    assert!(
        stdout.contains("9,960 more stages") && stdout.contains("9,960 more instances"),
        "{stdout}"
    );
}
