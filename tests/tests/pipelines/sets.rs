//! Samples that stand in several sets.

use hotcell_schema::verdict::{Verdict, Verdicts};
use hotcell_tests::Lab;
use serde_json::json;

#[test]
fn a_sample_in_two_sets_is_chosen_by_each_of_them() {
    let lab = Lab::new();
    for (name, text) in [("one", "a"), ("clean-two", "b")] {
        lab.write(&format!("samples/{name}"), text);
    }
    lab.manifest(
        "ex.yaml",
        &json!({
            "hotcell": 1,
            "name": "ex",
            "samples": {"all": {"glob": "samples/*"}, "clean": {"glob": "samples/clean-*"}},
            "stages": {
                "say": {
                    "uses": "command",
                    "for-each": {"sample": {"over": ["samples.all", "samples.clean"]}},
                    "in": {"file": "${sample.file}"},
                    "with": {"run": ["cat", "${inputs.file}"]},
                },
            },
            "expect": [
                {"where": "sample.set == 'clean'", "stdout": {"contains": ["b"]}},
                {"where": "sample.set == 'all' and sample.name == 'clean-two'", "stdout": {"contains": ["b"]}},
                {"where": "sample.set == 'all'", "stdout": {"contains": ["a"]}},
                {"where": "sample.set == 'none'", "stdout": {"contains": ["b"]}},
            ],
        }),
    );
    let (stdout, _) = lab.expect(1, ["test", "ex.yaml", "--progress", "none", "--json"]);
    let verdicts: Verdicts = serde_json::from_str(&stdout).unwrap();
    let of = |index: usize| -> Vec<(bool, String)> {
        let name = format!("expect[{index}]");
        let checks = verdicts
            .checks
            .iter()
            .filter(|check| check.name.starts_with(&name));
        checks
            .map(|check| (check.verdict == Verdict::Met, check.short.clone()))
            .collect()
    };
    assert!(
        matches!(of(0).as_slice(), [(true, short)] if short.contains("clean-two")),
        "{verdicts:?}"
    );
    assert!(matches!(of(1).as_slice(), [(true, _)]), "{verdicts:?}");
    // Both are in the first set; the one without an `a` does not pass.
    let mut passed: Vec<bool> = of(2).into_iter().map(|(met, _)| met).collect();
    passed.sort_unstable();
    assert_eq!(passed, [false, true]);
    assert_eq!(of(3), [(false, String::new())], "it chooses nothing");
    let report = lab.latest().report;
    let sets = report.samples.values().map(|sample| sample.sets_in_words());
    let mut sets: Vec<String> = sets.collect();
    sets.sort();
    assert_eq!(sets, ["all", "all, clean"]);
}
