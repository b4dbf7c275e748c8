//! A sample that cannot be run is not one that ended well: what is told of it, and the exit codes.
#![allow(clippy::unwrap_used)]

use hotcell_schema::outcome::Status;
use hotcell_tests::Lab;
use serde_json::{Value, json};

/// A sample that is no program at all, run and judged.
fn lab(expect: Value) -> Lab {
    let lab = Lab::new();
    lab.write("odd.bin", "no program");
    let mut manifest = json!({
        "hotcell": 1,
        "name": "odd",
        "samples": {"odd": {"glob": "odd.bin"}},
        "stages": {
            "run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.odd"},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "x86_64"},
            },
            "hits": {
                "uses": "detect/rules",
                "for-each": {"sample": "samples.odd"},
                "in": {"events": "stages.run.out.events"},
            },
        },
    });
    manifest["expect"] = expect;
    lab.manifest("odd.yaml", &manifest);
    lab
}

fn said((stdout, stderr): (String, String)) -> String {
    stdout + &stderr
}

#[test]
fn what_could_not_be_run_is_told_and_is_not_well() {
    let lab = lab(json!([]));
    let told = said(lab.expect(5, ["run", "odd.yaml", "--progress", "plain"]));
    let run = lab.latest();
    let outcomes: Vec<_> = run.stage("run").filter_map(|one| one.outcome.as_ref()).collect();
    assert_eq!(
        outcomes.iter().map(|one| one.kind()).collect::<Vec<_>>(),
        ["unsupported"]
    );
    assert!(run.stage("run").all(|one| one.status == Status::Ok));
    assert!(
        told.contains("Could not be run") && told.contains("1 ok · 1 unsupported"),
        "{told}"
    );
    let page = std::fs::read_to_string(run.folder.join("report.html")).unwrap();
    assert!(page.contains("1 / 2") && page.contains("1 unsupported"), "{page}");
    // The same when there is nothing to do, and when it comes from the store.
    let told = said(lab.expect(5, ["run", "odd.yaml"]));
    assert!(
        told.contains("nothing to do") && told.contains("Could not be run"),
        "{told}"
    );
    let told = said(lab.expect(5, ["run", "odd.yaml", "--force"]));
    assert!(told.contains("1 ok · 1 unsupported"), "{told}");
    lab.expect(5, ["analyze", "--arch", "x86_64", "odd.bin"]);
}

#[test]
fn what_was_not_run_never_passes() {
    // It did nothing, and so nothing bad: that is no merit.
    for part in [
        json!({"stage": "run", "behaviour": {"absent": ["network/*"]}}),
        json!({"stage": "run", "stdout": {"equals": ""}}),
        json!({"stage": "hits", "hits": {"severity-below": "low"}}),
    ] {
        let told = said(lab(json!([part])).expect(5, ["test", "odd.yaml"]));
        assert!(told.contains("0 met, 0 not met, 1 not judged"), "{told}");
        assert!(told.contains("could not be run"), "{told}");
    }
    lab(json!([{"stage": "run", "outcome": "exited 0"}])).expect(1, ["test", "odd.yaml"]);
}

#[test]
fn that_it_cannot_be_run_can_be_expected() {
    let lab = lab(json!([{"stage": "run", "outcome": "unsupported"}]));
    let told = said(lab.expect(0, ["test", "odd.yaml"]));
    assert!(told.contains("1 met, 0 not met, 0 not judged"), "{told}");
}
