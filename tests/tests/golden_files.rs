//! Whose a golden is, and what may be one: samples that are renamed or not there, manifests of one name, variants, commands
//! that are not as exact as they say, filters of expectations. Programs of the user's own are the stages.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_schema::digest::Digest;
use hotcell_tests::{Lab, files_below};
use serde_json::{Value, json};

/// `test` with further arguments: the exit code is wanted, and all that is said is given.
fn test(lab: &Lab, code: i32, manifest: &str, more: &[&str]) -> String {
    let mut all = vec!["test", manifest, "--progress", "none"];
    all.extend(more);
    let (stdout, stderr) = lab.expect(code, all);
    format!("{stdout}{stderr}")
}

fn goldens(lab: &Lab) -> Vec<String> {
    files_below(&lab.path("golden")).into_keys().collect()
}

/// A manifest with one stage that runs a shell script.
fn shell(script: &str) -> Value {
    json!({
        "hotcell": 1,
        "stages": {"say": {"uses": "command", "with": {"run": ["sh", "-c", script]}}},
        "golden": {},
    })
}

#[test]
fn a_sample_keeps_its_golden_under_another_name_and_while_it_is_away() {
    let lab = Lab::new();
    lab.write("samples/one", "first");
    lab.write("samples/two", "second");
    let list = format!(
        "path,sha256\nsamples/one,{}\nsamples/two,{}\n",
        Digest::of(b"first"),
        Digest::of(b"second")
    );
    lab.write("list.csv", list);
    lab.manifest(
        "ex.yaml",
        &json!({
            "hotcell": 1,
            "samples": {"bots": {"list": "list.csv"}},
            "stages": {
                "sum": {
                    "uses": "command",
                    "for-each": {"sample": "samples.bots"},
                    "in": {"file": "${sample.file}"},
                    "with": {"run": ["cat", "${inputs.file}"]},
                },
                // What reads all of them has less to read while one is away.
                "all": {
                    "uses": "command",
                    "in": {"texts": "stages.sum[*].out.stdout"},
                    "with": {"run": ["sh", "-c", "cat inputs/texts/[0-9]*"]},
                },
                "count": {
                    "uses": "command",
                    "in": {"text": "stages.all.out.stdout"},
                    "with": {"run": ["wc", "-c", "${inputs.text}"]},
                },
            },
            "expect": [{"stage": "all", "stdout": {"contains": ["first", "second"]}}],
            "golden": {},
        }),
    );
    test(&lab, 0, "ex.yaml", &["--accept"]);
    let before = files_below(&lab.path("golden"));
    assert_eq!(before.len(), 4);
    // It is not on this machine.
    fs::rename(lab.path("samples/two"), lab.path("away")).unwrap();
    for more in [&[][..], &["--accept"]] {
        let said = test(&lab, 5, "ex.yaml", more);
        assert!(said.contains("1 met, 0 not met, 4 not judged"), "{said}");
        assert!(said.contains("not all that it reads is there"), "{said}");
        assert_eq!(files_below(&lab.path("golden")), before);
    }
    // It comes back under another name.
    fs::rename(lab.path("away"), lab.path("samples/three")).unwrap();
    let list = fs::read_to_string(lab.path("list.csv")).unwrap();
    lab.write("list.csv", list.replace("samples/two", "samples/three"));
    for more in [&[][..], &["--accept"]] {
        let said = test(&lab, 0, "ex.yaml", more);
        assert!(said.contains("5 met, 0 not met, 0 not judged"), "{said}");
        assert_eq!(files_below(&lab.path("golden")), before);
    }
}

#[test]
fn what_a_manifest_does_not_want_needs_no_golden() {
    let lab = Lab::new();
    let mut manifest = shell("echo a");
    manifest["stages"]["never"] = manifest["stages"]["say"].clone();
    manifest["stages"]["never"]["when"] = "stage == 'say'".into();
    manifest["stages"]["after"] = json!({
        "uses": "command",
        "in": {"text": "stages.never.out.stdout"},
        "with": {"run": ["cat", "${inputs.text}"]},
    });
    lab.manifest("ex.yaml", &manifest);
    let said = test(&lab, 0, "ex.yaml", &["--accept"]);
    assert!(said.contains("1 met, 0 not met, 0 not judged"), "{said}");
}

#[test]
fn manifests_of_one_name_do_not_take_each_others_goldens() {
    let lab = Lab::new();
    let named = |script: &str| {
        let mut manifest = shell(script);
        manifest["name"] = "same".into();
        manifest
    };
    lab.manifest("a.yaml", &named("echo a"));
    test(&lab, 0, "a.yaml", &["--accept"]);
    let before = files_below(&lab.path("golden"));
    let mut other = named("echo b");
    other["stages"] = json!({"other": other["stages"]["say"]});
    lab.manifest("b.yaml", &other);
    for manifest in ["a.yaml", "b.yaml"] {
        let said = test(&lab, 2, manifest, &["--accept"]);
        for word in ["a.yaml", "b.yaml", "`same`", "golden/same"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    assert_eq!(files_below(&lab.path("golden")), before);
    // Without goldens, or under its own name, it is nobody's matter.
    other["golden"] = Value::Null;
    other.as_object_mut().unwrap().remove("golden");
    lab.manifest("b.yaml", &other);
    test(&lab, 0, "a.yaml", &[]);
    // A document that includes the other has its goldens, and removes none.
    lab.write("b.yaml", "hotcell: 1\ninclude: [a.yaml]\nseed: 3\n");
    test(&lab, 0, "b.yaml", &["--accept"]);
    assert_eq!(files_below(&lab.path("golden")), before);
}

#[test]
fn a_new_manifest_is_named_by_its_file_and_has_a_history_of_its_own() {
    let lab = Lab::new();
    lab.write("samples/some", "no program at all");
    for file in ["one.toml", "two.yaml"] {
        lab.expect(0, ["init", file]);
        let (stdout, _) = lab.expect(0, ["plan", file, "--json"]);
        let plan: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(plan["name"], file.split('.').next().unwrap());
    }
    // Of two manifests of one name each looks at its own runs.
    for (file, script) in [("a.yaml", "exit 1"), ("b.yaml", "exit 0")] {
        let mut manifest = shell(script);
        manifest["name"] = "same".into();
        lab.manifest(file, &manifest);
    }
    let run = |code: i32, file: &str, more: &[&str]| {
        let mut all = vec!["run", file, "--progress", "none"];
        all.extend(more);
        let (_, stderr) = lab.expect(code, all);
        stderr
    };
    run(3, "a.yaml", &[]);
    let said = run(2, "b.yaml", &["--rerun-failed"]);
    assert!(said.contains("no run of `same` (b.yaml)"), "{said}");
    run(0, "b.yaml", &[]);
    let said = run(0, "b.yaml", &["--rerun-failed"]);
    assert!(said.contains("0 of 1 instances"), "{said}");
    let said = run(3, "a.yaml", &["--rerun-failed"]);
    assert!(said.contains("1 of 1 instances"), "{said}");
}

#[test]
fn a_command_that_is_not_exact_has_no_exact_golden() {
    let lab = Lab::new();
    lab.manifest("ex.yaml", &shell("echo begin; od -An -N8 -tx1 /dev/urandom"));
    // One run shows nothing of it.
    test(&lab, 0, "ex.yaml", &["--accept"]);
    let before = files_below(&lab.path("golden"));
    let said = test(&lab, 1, "ex.yaml", &["--accept", "--repeat", "2"]);
    assert!(
        said.contains("not exact") && said.contains("with.observed = true"),
        "{said}"
    );
    assert_eq!(files_below(&lab.path("golden")), before);
    fs::remove_dir_all(lab.path("golden")).unwrap();
    test(&lab, 1, "ex.yaml", &["--accept", "--repeat", "2"]);
    assert!(!lab.path("golden").exists(), "nothing is written");
    // As an observed one it holds the lines that stay.
    let mut manifest = shell("echo begin; od -An -N8 -tx1 /dev/urandom");
    manifest["stages"]["say"]["with"]["observed"] = true.into();
    lab.manifest("ex.yaml", &manifest);
    let said = test(&lab, 0, "ex.yaml", &["--accept", "--repeat", "3"]);
    assert!(
        said.contains("of 3 runs, 3 facts that must be and 0 that may"),
        "{said}"
    );
    test(&lab, 0, "ex.yaml", &["--force"]);
    manifest["stages"]["say"]["with"]["run"][2] = "echo began".into();
    lab.manifest("ex.yaml", &manifest);
    let said = test(&lab, 1, "ex.yaml", &[]);
    assert!(said.contains("- tasks[instance]: stdout/line begin"), "{said}");
    // One that is exact is accepted, however often it runs.
    lab.manifest("ex.yaml", &shell("echo always"));
    test(&lab, 0, "ex.yaml", &["--accept", "--repeat", "2"]);
}

#[test]
fn variants_have_goldens_of_their_own_and_without_goldens_it_is_said() {
    let lab = Lab::new();
    let mut manifest = shell("echo plain");
    manifest["variants"] = json!({
        "loud": {"stages": {"say": {"with": {"run": ["sh", "-c", "echo loud"]}}}},
        "none": {"golden": {"select": ["findings"]}},
    });
    lab.manifest("ex.yaml", &manifest);
    test(&lab, 0, "ex.yaml", &["--accept"]);
    test(&lab, 0, "ex.yaml", &["--accept", "--variant", "loud"]);
    assert_eq!(
        goldens(&lab),
        ["ex/say/only.command.json", "ex@loud/say/only.command.json"]
    );
    test(&lab, 0, "ex.yaml", &[]);
    test(&lab, 0, "ex.yaml", &["--variant", "loud"]);
    let said = test(&lab, 5, "ex.yaml", &["--variant", "none"]);
    assert!(said.contains("no golden is judged"), "{said}");
    manifest.as_object_mut().unwrap().remove("golden");
    manifest.as_object_mut().unwrap().remove("variants");
    lab.manifest("ex.yaml", &manifest);
    let said = test(&lab, 5, "ex.yaml", &["--accept"]);
    assert!(
        said.contains("the manifest has no `golden`") && said.contains("[golden]"),
        "{said}"
    );
}

#[test]
fn filters_read_tables_and_what_they_do_not_have_is_named() {
    let lab = Lab::new();
    let write = |stage: Value, filter: &str| {
        let mut manifest = shell("echo ${cpu.arch}");
        manifest["stages"]["say"]["for-each"] =
            json!({"cpu": [{"name": "a", "arch": "x86"}, {"name": "b", "arch": "arm", "bits": 32}]});
        manifest.as_object_mut().unwrap().remove("golden");
        manifest["expect"] = json!([{"where": filter, "stdout": {"contains": ["x86"]}}]);
        if stage.is_string() {
            manifest["expect"][0]["stage"] = stage;
        }
        lab.manifest("ex.yaml", &manifest);
    };
    for stage in [json!("say"), Value::Null] {
        write(stage, "cpu.arch == 'x86'");
        let said = test(&lab, 0, "ex.yaml", &[]);
        assert!(said.contains("1 met, 0 not met, 0 not judged"), "{said}");
    }
    write(json!("say"), "cpu.arch == 'arm'");
    test(&lab, 1, "ex.yaml", &[]);
    // What only some values have can be asked for.
    write(json!("say"), "cpu.bits is defined and cpu.bits == 64");
    test(&lab, 5, "ex.yaml", &[]);
    write(json!("say"), "cpu.bits == 64");
    let (_, said) = lab.expect(2, ["validate", "ex.yaml"]);
    assert!(said.contains("`cpu.bits` is not known"), "{said}");
    // Where an expectation does not say its stage, results say what it is about.
    write(Value::Null, "cpu.bits == 64");
    let said = test(&lab, 5, "ex.yaml", &[]);
    assert!(
        said.contains("not judged") && said.contains("`cpu.bits` is not known"),
        "{said}"
    );
}
