//! The commands of `hotcell`, their exit codes, and what they say when something is wrong.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_tests::{Lab, busybox};
use serde_json::Value;

#[test]
fn version_and_help() {
    let lab = Lab::new();
    let (stdout, _) = lab.expect(0, ["--version"]);
    assert!(stdout.starts_with("hotcell 0."), "{stdout}");
    let (stdout, _) = lab.expect(0, ["--help"]);
    for command in [
        "validate",
        "plan",
        "run",
        "explain",
        "report",
        "test",
        "analyze",
        "doctor",
        "diff",
        "init",
        "schema",
        "completions",
    ] {
        assert!(stdout.contains(&format!("  {command}")), "{command} in\n{stdout}");
        lab.expect(0, [command, "--help"]);
    }
    lab.expect(2, ["no-such-command"]);
}

#[test]
fn mistakes_are_named_with_file_line_and_column() {
    let lab = Lab::new();
    // Name, text, and what the answer must contain.
    let cases: &[(&str, &str, &[&str])] = &[
        ("parse.toml", "hotcell = 1\nname = \"x\n", &["parse.toml:2:"]),
        (
            "parse.yaml",
            "hotcell: 1\nname: [x\nstages: 1\n",
            &["parse.yaml:"],
        ),
        (
            "key.toml",
            "hotcell = 1\n[stages.look]\nusess = \"inspect/elf\"\n",
            &["key.toml:3:1", "usess", "uses"],
        ),
        (
            "key.yaml",
            "hotcell: 1\nstages:\n  look:\n    usess: inspect/elf\n",
            &["key.yaml:4:5", "usess"],
        ),
        (
            "type.toml",
            "hotcell = 1\n[stages.look]\nuses = \"inspect/eff\"\n",
            &["type.toml:3:8", "inspect/eff", "inspect/elf"],
        ),
        (
            "port.toml",
            "hotcell = 1\n[samples.s]\nglob = \"*.toml\"\n[stages.look]\nuses = \"inspect/elf\"\nfor-each.sample = \"samples.s\"\n\
             in.fille = \"${sample.file}\"\n",
            &["port.toml:7:", "fille"],
        ),
        (
            "cycle.yaml",
            "hotcell: 1\nstages:\n  a:\n    uses: unicorn/payload\n    needs: [b]\n    with: { arch: x86, code: \"90\" }\n  b:\n    \
             uses: unicorn/payload\n    needs: [a]\n    with: { arch: x86, code: \"90\" }\n",
            &["cycle.yaml:", "a", "b"],
        ),
        (
            "wire.toml",
            "hotcell = 1\n[stages.hits]\nuses = \"detect/rules\"\nin.events = \"stages.run.out.events\"\n",
            &["wire.toml:4:", "run"],
        ),
        ("version.toml", "hotcell = 99\n", &["version.toml:1:"]),
    ];
    for (name, text, wanted) in cases {
        lab.write(name, text);
        let (_, stderr) = lab.expect(2, ["validate", name]);
        for part in *wanted {
            assert!(stderr.contains(part), "{name}: `{part}` is not in\n{stderr}");
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let lab = Lab::new();
    lab.write(
        "many.yaml",
        "hotcell: 1\nnmae: x\nstages:\n  a: { uses: inspect/elff }\n  b: { uses: unicorn/linux, wiht: {} }\n",
    );
    let (_, stderr) = lab.expect(2, ["validate", "many.yaml"]);
    for place in ["many.yaml:2:1", "many.yaml:5:"] {
        assert!(stderr.contains(place), "{place} in\n{stderr}");
    }
    lab.expect(2, ["run", "many.yaml"]);
    lab.expect(2, ["validate", "not-there.toml"]);
}

#[test]
fn a_first_manifest_is_written_and_valid() {
    for name in ["first.toml", "first.yaml"] {
        let lab = Lab::new();
        lab.expect(0, ["init", name]);
        lab.write("samples/something", b"\x7fELF");
        lab.expect(0, ["validate", name]);
        let header = fs::read_to_string(lab.path(name)).unwrap();
        assert!(
            header.lines().next().unwrap().contains("hotcell.schema.json"),
            "{header}"
        );
        // A second time it does not overwrite.
        lab.expect(2, ["init", name]);
    }
}

#[test]
fn schemas_and_completions_are_printed() {
    let lab = Lab::new();
    let (stdout, _) = lab.expect(0, ["schema"]);
    let schema: Value = serde_json::from_str(&stdout).unwrap();
    assert!(schema["properties"]["stages"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let (stdout, _) = lab.expect(0, ["completions", shell]);
        assert!(stdout.contains("hotcell"));
    }
}

#[test]
fn doctor_probes_this_host() {
    let lab = Lab::new();
    let output = lab.hotcell(["doctor", "--json"]);
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    let probes: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probes["format"], "hotcell-doctor");
    assert!(probes["probes"].as_array().unwrap().len() > 3);
}

#[test]
fn a_file_is_analyzed_without_a_manifest() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    let mipsel = all.iter().find(|one| one.debian == "mipsel").unwrap();
    lab.write("busybox", fs::read(&mipsel.path).unwrap());
    lab.expect(
        0,
        [
            "analyze",
            "busybox",
            "--progress",
            "none",
            "--args",
            "uname",
            "-m",
        ],
    );
    let run = lab.latest();
    assert_eq!(run.report.samples.len(), 1);
    let engines: Vec<&str> = run.report.instances.iter().map(|one| one.uses.as_str()).collect();
    for engine in ["inspect/elf", "unicorn/linux", "detect/rules"] {
        assert!(engines.contains(&engine), "{engines:?}");
    }
    assert!(run.folder.join("report.html").is_file());
    // A file that is no program is looked at, and is not our failure.
    lab.write("text", "just text\n");
    lab.expect(5, ["analyze", "text", "--progress", "none"]);
    lab.expect(2, ["analyze", "not-there"]);
}

/// A manifest with one payload, an expectation and a golden.
fn judged(lab: &Lab, outcome: &str) {
    lab.write(
        "judged.toml",
        format!(
            "hotcell = 1\nname = \"judged\"\n[stages.sum]\nuses = \"unicorn/payload\"\n\
             with = {{ arch = \"x86\", code = \"b82a000000\", want-registers = [\"eax\"] }}\n\
             [[expect]]\nstage = \"sum\"\noutcome = \"{outcome}\"\n[golden]\nselect = [\"outcome\", \"outputs\"]\n"
        ),
    );
}

#[test]
fn goldens_and_expectations_decide_the_exit_code() {
    let lab = Lab::new();
    judged(&lab, "completed");
    // A golden that is not there is never passed.
    let output = lab.hotcell(["test", "judged.toml", "--progress", "none"]);
    assert!(matches!(output.status.code(), Some(1 | 5)), "{output:?}");
    lab.expect(0, ["test", "judged.toml", "--progress", "none", "--accept"]);
    lab.expect(
        0,
        [
            "test",
            "judged.toml",
            "--progress",
            "none",
            "--junit",
            "junit.xml",
        ],
    );
    let junit = fs::read_to_string(lab.path("junit.xml")).unwrap();
    assert!(junit.contains("<testsuite") && junit.contains("sum"), "{junit}");
    // Another result is a difference, and it is shown.
    let text = fs::read_to_string(lab.path("judged.toml"))
        .unwrap()
        .replace("b82a000000", "b82b000000");
    fs::write(lab.path("judged.toml"), text).unwrap();
    let (stdout, stderr) = lab.expect(1, ["test", "judged.toml", "--progress", "none"]);
    assert!(format!("{stdout}{stderr}").contains("sum"));
    // An expectation that is not met.
    let lab = Lab::new();
    judged(&lab, "faulted");
    lab.expect(1, ["test", "judged.toml", "--progress", "none"]);
}

#[test]
fn goldens_are_not_accepted_in_continuous_integration() {
    let lab = Lab::new();
    judged(&lab, "completed");
    let output = lab
        .command(["test", "judged.toml", "--progress", "none", "--accept"])
        .env("CI", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!lab.path("golden").exists());
}

#[test]
fn two_runs_are_compared_and_explained() {
    let lab = Lab::new();
    judged(&lab, "completed");
    let first = lab.run("judged.toml", &["--progress", "none"]);
    let same = lab.run("judged.toml", &["--progress", "none"]);
    let name = |run: &hotcell_tests::Run| run.folder.to_str().unwrap().to_owned();
    lab.expect(0, ["diff", &name(&first), &name(&same)]);
    let text = fs::read_to_string(lab.path("judged.toml"))
        .unwrap()
        .replace("b82a000000", "0f0b");
    fs::write(lab.path("judged.toml"), text).unwrap();
    let other = lab.run("judged.toml", &["--progress", "none"]);
    let (stdout, _) = lab.expect(1, ["diff", &name(&first), &name(&other)]);
    assert!(stdout.contains("sum"), "{stdout}");
    let (stdout, _) = lab.expect(0, ["explain", "judged.toml", "--instance", "sum"]);
    assert!(stdout.contains("sum"), "{stdout}");
    let (stdout, _) = lab.expect(0, ["report", &name(&other), "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["format"], "hotcell-report");
    assert_eq!(
        report["instances"][0]["outcome"]["faulted"]["kind"],
        "illegal-instruction"
    );
}

#[test]
fn several_codes_are_explained_at_once() {
    let lab = Lab::new();
    lab.write(
        "two.yaml",
        "hotcell: 1\nnmae: x\nstages:\n  a: { uses: inspect/elff }\n",
    );
    let (_, said) = lab.expect(2, ["validate", "two.yaml"]);
    let hint = said
        .lines()
        .find_map(|line| line.strip_prefix("explained by: hotcell "))
        .unwrap();
    let words: Vec<&str> = hint.split(' ').collect();
    assert_eq!((words[0], words.len()), ("help", 3), "{hint}");
    let (shown, _) = lab.expect(0, words.iter().copied());
    for code in &words[1..] {
        assert!(shown.contains(code), "{code} in\n{shown}");
    }
    lab.expect(2, ["help", words[1], "E9999"]);
}

#[test]
fn usage_tells_nothing_of_the_environment_and_is_json_where_that_is_wanted() {
    let lab = Lab::new();
    // The lab sets HOTCELL_STORE.
    let (_, said) = lab.expect(2, ["validate"]);
    let usage = said
        .lines()
        .find(|line| line.starts_with("Usage: hotcell validate"))
        .unwrap();
    assert!(
        usage.ends_with("<MANIFEST>") && !usage.contains("--store"),
        "{usage}"
    );
    for args in [
        ["--log-format", "json", "validate"],
        ["validate", "--nope", "--log-format=json"],
    ] {
        let (stdout, said) = lab.expect(2, args);
        assert_eq!(stdout, "");
        let line: Value = serde_json::from_str(said.trim()).unwrap();
        assert_eq!((&line["kind"], &line["exit"]), (&"error".into(), &2.into()));
        assert!(
            line["message"]
                .as_str()
                .unwrap()
                .contains("Usage: hotcell validate"),
            "{line}"
        );
    }
}

#[test]
fn what_was_never_exported_is_not_imported() {
    let lab = Lab::new();
    lab.write("foreign", "#!/bin/sh\n");
    let (_, said) = lab.expect(2, ["store", "import", "foreign"]);
    assert!(said.contains("store export"), "{said}");
    assert!(!said.contains("stored; carry"), "{said}");
}

#[test]
fn the_same_file_twice_is_looked_at_once() {
    let lab = Lab::new();
    lab.write("a", "the same");
    lab.write("b", "the same");
    let (_, said) = lab.expect(0, ["analyze", "--no-run", "a", "b"]);
    assert!(said.contains("b holds the same as a"), "{said}");
}

#[test]
fn warnings_are_a_line_where_nobody_asked_for_them() {
    let lab = Lab::new();
    lab.write("vault/one", "any bytes");
    let absent = "0".repeat(64);
    lab.write(
        "absent.toml",
        format!(
            "hotcell = 1\nname = \"absent\"\n[sources.vault]\nkind = \"folder\"\npath = \"vault\"\n[samples.all]\n\
             source = \"vault\"\ndigests = [\"{absent}\"]\n[stages.it]\nuses = \"inspect/elf\"\n\
             for-each.sample = \"samples.all\"\nin.file = \"${{sample.file}}\"\n"
        ),
    );
    let (_, full) = lab.expect(0, ["validate", "absent.toml"]);
    let (_, brief) = lab.expect(0, ["plan", "absent.toml"]);
    assert!(full.contains("warning") && full.lines().count() > 4, "{full}");
    let lines: Vec<&str> = brief.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("warning[E"), "{brief}");
}

#[test]
fn system_calls_are_listed_with_how_far_they_are_supported() {
    let lab = Lab::new();
    let (all, _) = lab.expect(0, ["syscalls", "--json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let calls = all["calls"].as_array().unwrap();
    let write = calls.iter().find(|call| call["name"] == "write").unwrap();
    assert_eq!(write["numbers"]["mips-o32"], 4004);
    assert_eq!(write["support"], "full");
    let missing = calls.iter().filter(|call| call["support"] == "missing");
    assert!(missing.clone().count() > 10 && missing.clone().all(|call| call["answer"] == "ENOSYS"));
    let (mips, _) = lab.expect(0, ["syscalls", "--arch", "mipsel", "--support", "full"]);
    assert!(
        mips.lines()
            .any(|line| line.split_whitespace().eq(["4004", "write", "full"])),
        "{mips}"
    );
    assert!(
        !mips.contains("missing ") && !mips.contains("arch_prctl"),
        "{mips}"
    );
    let (_, said) = lab.expect(2, ["syscalls", "wriet"]);
    assert!(said.contains("did you mean `write`?"), "{said}");
    let (_, said) = lab.expect(2, ["syscalls", "--arch", "vax"]);
    assert!(said.contains("there is no arch profile `vax`"), "{said}");
}
