//! Runs of a part of an experiment.

use hotcell_schema::outcome::Status;
use hotcell_schema::verdict::Verdicts;
use hotcell_tests::Lab;
use serde_json::{Value, json};

use super::{begun, experiment, plan, says, write};

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

/// Runs the experiment with an instance that never ends, and kills it when that one has begun.
fn killed(lab: &Lab, more: &[&str], at: &str) {
    let mut child = begun(lab, more, at);
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had forked dies with it, and has its journal's lock until then.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while lab
        .expect(0, ["runs", "list", "--json"])
        .0
        .contains("\"running\"")
    {
        assert!(std::time::Instant::now() < deadline, "the run goes on");
    }
}

#[test]
fn what_waited_for_a_failure_is_run_again_when_that_was_mended_alone() {
    let lab = Lab::new();
    experiment(&lab);
    write(&lab, "bad", "x");
    lab.expect(3, ["run", "ex.yaml", "--progress", "none"]);
    write(&lab, "worse", "x");
    lab.run("ex.yaml", &["--progress", "none", "--only", "sum"]);
    // `count` of it and `all` never ran, although nothing that they read is bad any more.
    let again = names(&lab, &["--rerun-failed"]);
    assert!(again.contains(&"count[sample=three".to_owned()), "{again:?}");
    assert!(again.contains(&"all".to_owned()), "{again:?}");
    // Why something runs is told by the run that had it last, whatever was run since.
    write(&lab, "worst", "y");
    let why = says(&plan(&lab, &[]));
    let of = |name: &str| &why.iter().find(|(short, ..)| short == name).unwrap().2;
    assert!(of("sum[sample=one").contains("`with` changed"), "{why:?}");
    assert!(of("all").contains("must run first"), "{why:?}");
    lab.run("ex.yaml", &["--progress", "none", "--rerun-failed"]);
    assert_eq!(names(&lab, &["--rerun-failed"]), [""; 0]);
}

#[test]
fn what_a_killed_run_of_a_part_left_is_run_again_and_nothing_else() {
    let lab = Lab::new();
    experiment(&lab);
    lab.run("ex.yaml", &QUIET);
    let good = std::fs::read_to_string(lab.path("ex.yaml")).unwrap();
    let mut manifest: Value = serde_json::from_str(&good).unwrap();
    manifest["stages"]["count"]["with"]["run"] = json!(["sleep", "1000"]);
    lab.manifest("ex.yaml", &manifest);
    killed(&lab, &["--only", "count[sample=two*"], "count");
    // What it needed ended well in it; the others were not its business.
    let only_two = ["sum[sample=two", "count[sample=two"];
    assert_eq!(names(&lab, &["--rerun-failed"]), only_two);
    // Again, and again killed: another part.
    killed(&lab, &["--only", "count[sample=one*"], "count");
    let both = names(&lab, &["--rerun-failed"]);
    assert_eq!(both.len(), 4, "{both:?}");
    killed(&lab, &["--rerun-failed", "-j", "1"], "count");
    assert_eq!(names(&lab, &["--rerun-failed"]), both);
    lab.write("ex.yaml", &good);
    let run = lab.run("ex.yaml", &["--progress", "none", "--rerun-failed"]);
    assert_eq!(run.report.instances.len(), 4);
    assert_eq!(names(&lab, &["--rerun-failed"]), [""; 0]);
    // A killed run of everything leaves what it did not come to.
    lab.manifest("ex.yaml", &manifest);
    killed(&lab, &["-j", "1", "--force"], "count");
    let left = names(&lab, &["--rerun-failed"]);
    assert_eq!(left.len(), 7, "{left:?}");
}

/// `each` over the files of `split`: it fails for one that holds the word.
fn items(lab: &Lab, word: &str) {
    let files = "for n in one two three; do echo $n > $HOTCELL_OUTPUTS/parts/$n; done";
    let each = format!("case $(cat $0)-{word} in {word}-{word}) exit 1;; one-sleep) sleep 1000;; esac");
    lab.manifest(
        "ex.yaml",
        &json!({
            "hotcell": 1,
            "name": "items",
            "stages": {
                "split": {
                    "uses": "command",
                    "with": {
                        "run": ["sh", "-c", format!("mkdir -p $HOTCELL_OUTPUTS/parts; {files}")],
                        "outputs": {"parts": {"type": "files"}},
                    },
                },
                "each": {
                    "uses": "command",
                    "for-each": {"item": "stages.split.out.parts"},
                    "max-items": 8,
                    "in": {"file": "${item.file}"},
                    "with": {"run": ["sh", "-c", each, "${inputs.file}"]},
                },
                "other": {"uses": "command", "with": {"run": ["true"]}},
            },
        }),
    );
}

#[test]
fn what_a_point_became_is_chosen_and_run_again_with_it() {
    let lab = Lab::new();
    items(&lab, "two");
    lab.expect(3, ["run", "ex.yaml", "--progress", "none"]);
    let run = lab.latest();
    assert_eq!(run.report.instances.len(), 5);
    let again = says(&plan(&lab, &["--rerun-failed"]));
    assert!(
        again.iter().any(|(short, ..)| short.starts_with("each["))
            && !again.iter().any(|(short, ..)| short == "other"),
        "{again:?}"
    );
    items(&lab, "nothing");
    // The point by its name takes what it becomes, and what it needs.
    let part = lab.run("ex.yaml", &["--progress", "none", "--only", "each[item=*]"]);
    assert_eq!(part.stage("each").count(), 3, "{:?}", part.statuses());
    assert_eq!((part.stage("split").count(), part.stage("other").count()), (1, 0));
    assert!(part.all_ok());
    assert_eq!(names(&lab, &["--rerun-failed"]), [""; 0]);
    // One item is known only when the run is there: that is said.
    let child = part.stage("each").next().unwrap().name.clone();
    let (_, stderr) = lab.expect(2, ["run", "ex.yaml", "--only", &child]);
    assert!(
        stderr.contains("only a run finds") && stderr.contains("--only 'each[item=*]'"),
        "{stderr}"
    );
    // Killed while one of them ran.
    items(&lab, "sleep");
    killed(&lab, &["--only", "each", "-j", "2", "--force"], "each");
    let left = names(&lab, &["--rerun-failed"]);
    assert!(left.iter().any(|name| name.starts_with("each[")), "{left:?}");
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
