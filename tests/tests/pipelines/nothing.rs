//! Runs that have nothing to do: what they look at, and that what they stand on stays.

use std::{fs, path::Path, time::Duration};

use hotcell_tests::Lab;

use super::experiment;

/// Whether a run says that nothing is to do.
fn is_current(lab: &Lab) -> bool {
    let (stdout, _) = lab.expect(0, ["run", "ex.yaml", "--progress", "none"]);
    stdout.starts_with("nothing to do: ")
}

#[test]
fn a_result_that_was_harmed_is_made_again() {
    let lab = Lab::new();
    experiment(&lab);
    let whole = lab.run("ex.yaml", &["--progress", "none"]).result();
    let output = whole.keys().find(|name| name.contains("/text")).unwrap();
    // A file that is gone, one that was cut, pages that are gone: each is there again afterwards, from the store.
    let harms: [&dyn Fn(&Path); 4] = [
        &|run| fs::remove_file(run.join("result").join(output)).unwrap(),
        &|run| fs::write(run.join("result").join(output), "").unwrap(),
        &|run| fs::remove_dir_all(run.join("samples")).unwrap(),
        &|run| fs::remove_file(run.join("report.html")).unwrap(),
    ];
    for harm in harms {
        assert!(is_current(&lab));
        let before = lab.latest().folder;
        harm(&before);
        assert!(!is_current(&lab));
        let again = lab.latest();
        assert_ne!(again.folder, before);
        assert_eq!(again.statuses().keys().collect::<Vec<_>>(), ["cached"]);
        assert_eq!(again.result(), whole);
    }
    assert!(is_current(&lab));
}

#[test]
fn what_a_run_with_nothing_to_do_stands_on_is_kept() {
    let lab = Lab::new();
    experiment(&lab);
    let first = lab.run("ex.yaml", &["--progress", "none"]);
    // Everything was stored, and noted, long ago.
    let age = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        let then = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(40 * 24 * 3600);
        file.set_modified(then).unwrap();
    };
    for (path, _) in hotcell_tests::files_below(&lab.path("store/records")) {
        age(&lab.path("store/records").join(path));
    }
    age(&first.folder.join("stored.json"));
    let collected = |lab: &Lab| {
        let (stdout, _) = lab.expect(0, ["store", "gc", "--keep", "30d", "--dry-run", "--json"]);
        let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        told["collected"]["records"]["removed"].as_u64().unwrap()
    };
    assert!(collected(&lab) > 0);
    assert!(is_current(&lab));
    assert_eq!(collected(&lab), 0);
}
