//! `hotcell store`, as a person uses it: two machines, a damaged file, a store that grew too large.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_store::Store;
use hotcell_tests::{EXPERIMENT, Lab, busybox, files_below, write_experiment};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_one_machine_has_run_another_has_stored() {
    let Some(all) = busybox() else { return };
    let (here, there) = (Lab::new(), Lab::new());
    for lab in [&here, &there] {
        write_experiment(lab, &all[..1]);
    }
    let first = here.run(EXPERIMENT, &["--progress", "none"]);
    let instances = first.report.instances.len();
    // The other machine has a store of its own, with something else in it.
    there.expect(4, ["store", "verify"]);
    let id = first.facts.run.clone();
    here.expect(0, ["store", "export", "--run", &id, "a.hotcell"]);
    here.expect(0, ["store", "export", "b.hotcell"]);
    let file = fs::read(here.path("a.hotcell")).unwrap();
    assert!(
        file == fs::read(here.path("b.hotcell")).unwrap(),
        "all there is came from this run"
    );
    there.write("a.hotcell", &file);
    let (told, _) = there.expect(0, ["store", "import", "a.hotcell", "--json"]);
    let told = &json(&told)["imported"];
    assert_eq!(told["records"]["new"], instances);
    assert_eq!(told["records"]["refused"], 0);
    let second = there.run(EXPERIMENT, &["--progress", "none"]);
    assert_eq!(second.statuses(), [("cached".to_owned(), instances)].into());
    assert!(second.result() == first.result());
    // Again: nothing is new. The same file comes out.
    let (told, _) = there.expect(0, ["store", "import", "a.hotcell", "--json"]);
    assert_eq!(json(&told)["imported"]["records"]["known"], instances);
    there.expect(0, ["store", "export", "c.hotcell"]);
    assert!(file == fs::read(there.path("c.hotcell")).unwrap());
    // What is no such file, or was cut on its way, says so and breaks nothing.
    there.write("cut.hotcell", &file[..file.len() / 2]);
    let (_, said) = there.expect(2, ["store", "import", "cut.hotcell"]);
    assert!(said.contains("carry the file over again"), "{said}");
    there.expect(2, ["store", "import", EXPERIMENT]);
    there.expect(0, ["store", "verify"]);
}

#[test]
fn damage_is_found_and_mended_and_looking_changes_nothing() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    write_experiment(&lab, &all[..1]);
    // Nothing is there, and looking makes nothing.
    lab.expect(0, ["plan", EXPERIMENT]);
    assert!(!lab.path("store").exists());
    let first = lab.run(EXPERIMENT, &["--progress", "none"]);
    let victim = first.stage("run").next().unwrap();
    let digest = victim.outputs["result"].digest.to_string();
    let path = lab.path(&format!("store/objects/{}/{}", &digest[..2], &digest[2..]));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = files_below(&lab.path("store"));
    let (told, _) = lab.expect(1, ["store", "verify", "--json"]);
    let told = &json(&told)["verified"];
    assert_eq!(told["objects"]["damaged"], 1);
    assert_eq!(told["problems"][0]["digest"], digest);
    lab.expect(0, ["plan", EXPERIMENT]);
    lab.expect(0, ["explain", EXPERIMENT]);
    assert!(
        before == files_below(&lab.path("store")),
        "looking changed the store"
    );
    lab.expect(1, ["store", "verify", "--repair"]);
    lab.expect(0, ["store", "verify"]);
    let second = lab.run(EXPERIMENT, &["--progress", "none"]);
    assert!(second.result() == first.result());
    assert!(second.statuses()["ok"] >= 1, "{:?}", second.statuses());
}

#[test]
fn what_is_collected_is_run_again_and_runs_stay() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    write_experiment(&lab, &all[..1]);
    let first = lab.run(EXPERIMENT, &["--progress", "none"]);
    let instances = first.report.instances.len();
    let result = first.result();
    let before = files_below(&lab.path("store"));
    let (told, _) = lab.expect(0, ["store", "gc", "--keep", "1h", "--json"]);
    assert_eq!(json(&told)["collected"]["records"]["kept"], instances);
    let (told, _) = lab.expect(0, ["store", "gc", "--max-size", "1B", "--dry-run", "--json"]);
    assert_eq!(json(&told)["collected"]["records"]["removed"], instances);
    assert!(before == files_below(&lab.path("store")));
    // A runner at work is not disturbed.
    let working = Store::open(&lab.path("store")).unwrap();
    let (_, said) = lab.expect(4, ["store", "gc"]);
    assert!(said.contains("--wait"), "{said}");
    drop(working);
    lab.expect(0, ["store", "gc", "--max-size", "1B"]);
    assert!(first.result() == result);
    let second = lab.run(EXPERIMENT, &["--progress", "none"]);
    assert_eq!(second.statuses(), [("ok".to_owned(), instances)].into());
    assert!(second.result() == result);
}

#[test]
fn explain_names_what_changed_between_two_runs_from_their_folders_alone() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    write_experiment(&lab, &all[..1]);
    let first = lab.run(EXPERIMENT, &["--progress", "none"]);
    let second = lab.run(EXPERIMENT, &["--progress", "none", "--set", "seed=6"]);
    // As if they came from two machines: other places, and no store that knows them.
    for (run, to) in [(&first, "old"), (&second, "new")] {
        for (name, bytes) in files_below(&run.folder) {
            lab.write(&format!("{to}/{name}"), bytes);
        }
    }
    fs::remove_dir_all(lab.path("store")).unwrap();
    fs::remove_dir_all(lab.path(".hotcell")).unwrap();
    let (told, _) = lab.expect(0, ["explain", "--between", "old", "new", "--json"]);
    let told = json(&told);
    assert_eq!(told["compared"], first.report.instances.len());
    for change in told["instances"].as_array().unwrap() {
        let changed = change["changed"].as_object().unwrap();
        let names: Vec<&String> = changed.keys().collect();
        let instance = change["instance"].as_str().unwrap();
        match instance.split_once('[').unwrap().0 {
            "run" => assert_eq!(names, ["seed"], "{instance}"),
            "hits" => assert_eq!(names, ["in.events.0"], "{instance}"),
            _ => panic!("{instance} does not depend on the seed"),
        }
    }
    let (lines, _) = lab.expect(0, ["explain", "--between", "old", "new", "-i", "run["]);
    assert_eq!(lines.matches(" -> ").count(), 2, "{lines}");
    let (same, _) = lab.expect(0, ["explain", "--between", "old", "old"]);
    assert!(same.starts_with("0 of "), "{same}");
    lab.expect(2, ["explain", "--between", "old", "absent"]);
}
