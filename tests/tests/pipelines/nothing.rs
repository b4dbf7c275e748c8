//! Runs that have nothing to do: what they look at, and that what they stand on stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use hotcell_tests::Lab;
use serde_json::{Value, json};

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
fn whatever_changed_is_seen() {
    let lab = Lab::new();
    experiment(&lab);
    let text = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    for name in ["a", "b", "c", "d"] {
        let with = json!({"run": ["./tools/run", format!("./tools/{name}")], "files": ["tools/run"]});
        manifest["stages"][name] = json!({"uses": "command", "with": with});
        lab.write(
            &format!("tools/{name}"),
            if "ac".contains(name) { "one" } else { "two" },
        );
    }
    lab.write("tools/run", "#!/bin/sh\ncat $1\n");
    let mode = |mode| fs::set_permissions(lab.path("tools/run"), Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    lab.manifest("ex.yaml", &manifest);
    lab.run("ex.yaml", &["--progress", "none"]);
    assert!(is_current(&lab));
    // Saved as they were: nothing else is read.
    lab.write("tools/a", "one");
    assert!(is_current(&lab));
    let put = |name: &str, text: &str| _ = lab.write(name, text);
    let changes: [&dyn Fn(); 5] = [
        // The same bytes in other places: the same sets of files, but not of the same stages.
        &|| {
            ["two", "one"]
                .iter()
                .zip(["a", "b"])
                .for_each(|(text, name)| put(&format!("tools/{name}"), text))
        },
        &|| mode(0o744),
        &|| put("samples/one", "b"),
        &|| put("samples/four", "d"),
        &|| fs::rename(lab.path("samples/four"), lab.path("samples/five")).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        change();
        // Whether anyone may execute a file is seen, not who.
        assert_eq!(is_current(&lab), number == 1, "change {number}");
        assert!(is_current(&lab), "after change {number}");
    }
    // A program of the host that was another one then.
    let noted = lab.latest().folder.join("stored.json");
    let mut stored: Value = serde_json::from_slice(&fs::read(&noted).unwrap()).unwrap();
    let programs = stored["programs"].as_array_mut().unwrap();
    let wc = programs
        .iter_mut()
        .find(|program| program["name"] == "wc")
        .unwrap();
    let identity = wc["identity"]
        .as_str()
        .unwrap()
        .replace(['0', '1', '2', '3'], "f");
    wc["identity"] = identity.into();
    fs::write(&noted, stored.to_string()).unwrap();
    assert!(!is_current(&lab));
}

#[test]
fn what_was_stored_anew_is_looked_at_anew() {
    let lab = Lab::new();
    // What `a` gives is another thing each time it runs.
    let a = ["sh", "-c", "date +%s%N"];
    let b = "cat $0";
    let stage = |run: &Value| json!({"uses": "command", "with": {"run": run, "outputs": {"text": {"type": "file", "from": "stdout"}}}});
    let mut second = stage(&json!(["sh", "-c", b, "${inputs.text}"]));
    second["in"] = json!({"text": "stages.a.out.text"});
    lab.manifest(
        "ex.yaml",
        &json!({"hotcell": 1, "name": "ex", "stages": {"a": stage(&json!(a)), "b": second}}),
    );
    let first = lab.run("ex.yaml", &["--progress", "none"]);
    assert!(is_current(&lab));
    lab.expect(
        0,
        ["run", "ex.yaml", "--progress", "none", "--only", "a", "--force"],
    );
    let (stdout, _) = lab.expect(0, ["plan", "ex.yaml", "--json"]);
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (
            plan["instances"][0]["does"].as_str(),
            plan["instances"][1]["does"].as_str()
        ),
        (Some("cached"), Some("run"))
    );
    assert!(!is_current(&lab));
    assert!(lab.latest().result() != first.result());
    assert!(is_current(&lab));
    // The same in another place is another experiment, and answered from the same store.
    lab.write("elsewhere/ex.yaml", fs::read(lab.path("ex.yaml")).unwrap());
    let (stdout, _) = lab.expect(
        0,
        [
            "run",
            "elsewhere/ex.yaml",
            "--progress",
            "none",
            "--state",
            ".hotcell",
        ],
    );
    assert!(!stdout.starts_with("nothing to do"), "{stdout}");
    assert_eq!(lab.latest().statuses().keys().collect::<Vec<_>>(), ["cached"]);
}

#[test]
fn an_experiment_whose_axes_expand_has_nothing_to_do_either() {
    let lab = Lab::new();
    let script = "mkdir -p outputs/parts; for name in a b c; do echo $name > outputs/parts/$name; done";
    lab.manifest(
        "ex.yaml",
        &json!({
            "hotcell": 1,
            "name": "ex",
            "stages": {
                "make": {
                    "uses": "command",
                    "with": {"run": ["sh", "-c", script], "outputs": {"parts": {"type": "files"}}},
                },
                "read": {
                    "uses": "command",
                    "for-each": {"part": "stages.make.out.parts"},
                    "in": {"file": "${part.file}"},
                    "with": {"run": ["cat", "${inputs.file}"]},
                },
            },
        }),
    );
    let first = lab.run("ex.yaml", &["--progress", "none"]);
    let whole = first.result();
    let (stdout, _) = lab.expect(0, ["run", "ex.yaml", "--progress", "none"]);
    let says = "nothing to do: 4 instances are as in run";
    assert!(stdout.starts_with(says), "{stdout}");
    let mut names = whole.keys();
    let one = names.find(|name| name.contains("/read/") && name.ends_with("stdout"));
    fs::remove_file(first.folder.join("result").join(one.unwrap())).unwrap();
    assert!(!is_current(&lab));
    assert!(lab.latest().result() == whole);
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
