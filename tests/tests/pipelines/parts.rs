//! Runs of a part of an experiment.

use hotcell_schema::outcome::Status;
use hotcell_schema::verdict::Verdicts;
use hotcell_tests::Lab;

use super::{experiment, plan, says, write};

const QUIET: [&str; 2] = ["--progress", "none"];

fn names(lab: &Lab, more: &[&str]) -> Vec<String> {
    says(&plan(lab, more))
        .into_iter()
        .map(|(short, ..)| short)
        .collect()
}

#[test]
fn a_part_brings_what_it_needs_and_nothing_else() {
    let lab = Lab::new();
    experiment(&lab);
    assert_eq!(
        names(&lab, &["--only", "count[sample=tw*]"]),
        ["sum[sample=two", "count[sample=two"]
    );
    assert_eq!(names(&lab, &["--until", "sum"]).len(), 3);
    assert_eq!(
        names(&lab, &["--until", "count", "--only", "*one*"]),
        ["sum[sample=one", "count[sample=one"]
    );
    // `all` reads every instance of `count`.
    assert_eq!(names(&lab, &["--only", "all"]).len(), 7);
    let (_, stderr) = lab.expect(2, ["plan", "ex.yaml", "--only", "cuont"]);
    assert!(stderr.contains("did you mean `count`"), "{stderr}");
    let (_, stderr) = lab.expect(2, ["run", "ex.yaml", "--until", "al"]);
    assert!(stderr.contains("did you mean `all`"), "{stderr}");
}

#[test]
fn a_partial_run_reports_its_part_and_says_so() {
    let lab = Lab::new();
    experiment(&lab);
    let run = lab.run("ex.yaml", &["--progress", "none", "--only", "count[sample=one-*"]);
    assert_eq!(run.report.instances.len(), 2);
    assert_eq!(run.report.samples.len(), 1);
    let selection = run.report.selection.as_ref().unwrap();
    assert_eq!(
        (selection.only.as_slice(), selection.left_out),
        (&["count[sample=one-*".to_owned()][..], 5)
    );
    assert_eq!(run.facts.selection.as_ref(), Some(selection));
    let whole = lab.run("ex.yaml", &QUIET);
    assert_eq!(whole.report.selection, None);
    assert_eq!(
        whole.statuses(),
        [("cached".to_owned(), 2), ("ok".to_owned(), 5)].into()
    );
}

#[test]
fn what_failed_is_run_again_and_nothing_else() {
    let lab = Lab::new();
    experiment(&lab);
    lab.expect(2, ["run", "ex.yaml", "--rerun-failed"]);
    write(&lab, "bad", "x");
    lab.expect(3, ["run", "ex.yaml", "--progress", "none"]);
    // What reads all of `count` could not begin either, and needs all of it.
    let again = names(&lab, &["--rerun-failed"]);
    assert_eq!(again.len(), 7);
    assert!(again.contains(&"all".to_owned()), "{again:?}");
    // A run of another part does not make what failed forgotten.
    lab.run("ex.yaml", &["--progress", "none", "--only", "sum[sample=one*"]);
    assert_eq!(names(&lab, &["--rerun-failed"]).len(), 7);
    write(&lab, "worse", "x");
    let run = lab.run("ex.yaml", &["--progress", "none", "--rerun-failed"]);
    assert_eq!(run.report.instances.len(), 7);
    assert!(
        run.statuses()["cached"] >= 2,
        "what ended well is taken from the store"
    );
    assert!(run.report.selection.as_ref().unwrap().rerun_failed && run.all_ok());
    // Now all is well: nothing is run, and no run is made.
    let (_, stderr) = lab.expect(0, ["run", "ex.yaml", "--rerun-failed"]);
    assert!(stderr.contains("nothing is to be run"), "{stderr}");
    assert_eq!(lab.latest().folder, run.folder);
}

#[test]
fn what_fail_fast_left_is_run_again() {
    let lab = Lab::new();
    experiment(&lab);
    write(&lab, "a", "x");
    lab.expect(
        3,
        ["run", "ex.yaml", "--progress", "none", "--fail-fast", "-j", "1"],
    );
    let left = lab
        .latest()
        .facts
        .instances
        .values()
        .filter(|facts| facts.status != Status::Ok)
        .count();
    assert!(left >= 5, "{left}");
    assert_eq!(names(&lab, &["--rerun-failed"]).len(), 7);
}

#[test]
fn a_test_of_a_part_judges_that_part_alone() {
    let lab = Lab::new();
    experiment(&lab);
    let text = std::fs::read_to_string(lab.path("ex.yaml")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["golden"] = serde_json::json!({"select": ["outputs"]});
    // Nothing of this kind is in the stage: a whole run says that it cannot be judged.
    manifest["expect"] = serde_json::json!([{"stage": "all", "hits": {"none": ["elf/packed"]}}]);
    lab.manifest("ex.yaml", &manifest);
    lab.hotcell(["test", "ex.yaml", "--accept", "--progress", "none"]);
    lab.expect(5, ["test", "ex.yaml", "--progress", "none"]);
    let part = [
        "test",
        "ex.yaml",
        "--progress",
        "none",
        "--json",
        "--only",
        "count[sample=one*",
    ];
    let verdicts = |code| -> Verdicts {
        let (stdout, _) = lab.expect(code, part);
        serde_json::from_str(&stdout).unwrap()
    };
    let judged = verdicts(0);
    assert_eq!((judged.tally.met, judged.tally.not_judged), (2, 0));
    assert!(
        judged
            .checks
            .iter()
            .all(|check| check.short.contains("[sample=one-")),
        "{judged:?}"
    );
    // What differs elsewhere is neither passed nor failed; what differs here is found.
    manifest["stages"]["all"]["with"]["run"] = serde_json::json!(["echo", "other"]);
    lab.manifest("ex.yaml", &manifest);
    assert_eq!(verdicts(0).tally.met, 2);
    manifest["stages"]["sum"]["with"]["run"] = serde_json::json!(["echo", "other"]);
    lab.manifest("ex.yaml", &manifest);
    assert_eq!(verdicts(1).tally.not_met, 2);
    // A part of which nothing can be judged is not called well.
    manifest["golden"] = serde_json::json!({"select": ["outputs"], "stages": ["all"]});
    lab.manifest("ex.yaml", &manifest);
    let (_, stderr) = lab.expect(5, part);
    assert!(stderr.contains("nothing of this part is judged"), "{stderr}");
}

#[test]
fn both_words_for_going_on_are_taken() {
    let lab = Lab::new();
    experiment(&lab);
    write(&lab, "bad", "x");
    lab.expect(3, ["run", "ex.yaml", "-k", "--progress", "none"]);
    lab.expect(2, ["run", "ex.yaml", "-k", "--fail-fast"]);
}
