//! `hotcell runs`: lists, facts, removal. And what is told while a run goes on.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    process::Stdio,
};

use hotcell_tests::Lab;
use serde_json::Value;

use super::{experiment, write};

fn list(lab: &Lab) -> Vec<Value> {
    let (stdout, _) = lab.expect(0, ["runs", "list", "--json"]);
    let all: Value = serde_json::from_str(&stdout).unwrap();
    all["runs"].as_array().unwrap().clone()
}

#[test]
fn runs_are_listed_shown_and_removed() {
    let lab = Lab::new();
    experiment(&lab);
    write(&lab, "bad", "x");
    assert_eq!(list(&lab), Vec::<Value>::new());
    lab.expect(3, ["run", "ex.yaml", "--progress", "none"]);
    lab.expect(3, ["run", "ex.yaml", "--progress", "none"]);
    lab.expect(
        0,
        [
            "run",
            "ex.yaml",
            "--progress",
            "none",
            "--only",
            "sum[sample=one*",
        ],
    );
    let all = list(&lab);
    assert_eq!(all.len(), 3);
    assert_eq!(
        (
            &all[0]["statuses"]["failed"],
            &all[0]["experiment"],
            &all[2]["partial"]
        ),
        (&1.into(), &"ex".into(), &true.into())
    );
    let id = |run: &Value| run["id"].as_str().unwrap().to_owned();
    let (stdout, _) = lab.expect(0, ["runs", "show", &id(&all[0])]);
    assert!(
        stdout.contains("failed      sum[sample=three-") && stdout.contains("exit code 1"),
        "{stdout}"
    );
    lab.expect(2, ["runs", "show", "nothing"]);
    lab.expect(2, ["runs", "rm"]);
    lab.expect(0, ["runs", "rm", "--keep", "1", "--dry-run"]);
    assert_eq!(list(&lab).len(), 3);
    lab.expect(0, ["runs", "rm", "--older-than", "1h"]);
    assert_eq!(list(&lab).len(), 3);
    lab.expect(0, ["runs", "rm", "--keep", "1"]);
    let left = list(&lab);
    assert_eq!(left.iter().map(id).collect::<Vec<_>>(), [id(&all[2])]);
    lab.expect(0, ["runs", "rm", &id(&all[2]), "-y"]);
    assert_eq!(list(&lab), Vec::<Value>::new());
    assert_eq!(fs::read_dir(lab.path(".hotcell/runs")).unwrap().count(), 0);
}

#[test]
fn nothing_outside_of_the_folder_of_runs_is_removed() {
    let lab = Lab::new();
    experiment(&lab);
    let run = lab.run("ex.yaml", &["--progress", "none"]);
    // A whole run elsewhere, linked into the folder; and a link within a run.
    fs::create_dir(lab.path("elsewhere")).unwrap();
    fs::rename(&run.folder, lab.path("elsewhere/run")).unwrap();
    symlink(lab.path("elsewhere/run"), lab.path(".hotcell/runs/linked")).unwrap();
    let second = lab.run("ex.yaml", &["--progress", "none"]);
    symlink(lab.path("elsewhere"), second.folder.join("inside")).unwrap();
    lab.expect(2, ["runs", "rm", "linked"]);
    lab.expect(2, ["runs", "rm", "../../elsewhere/run"]);
    lab.expect(0, ["runs", "rm", "--keep", "0"]);
    assert!(!second.folder.exists());
    assert!(lab.path("elsewhere/run/result/report.json").is_file());
    assert!(lab.path(".hotcell/runs/linked").is_symlink());
}

#[test]
fn a_run_that_goes_on_is_kept_and_one_that_was_killed_is_told_of() {
    let lab = Lab::new();
    experiment(&lab);
    let whole = lab.run("ex.yaml", &["--progress", "none"]);
    // `all` waits for a file that nobody writes, in a pipe that nobody opens.
    let text = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["stages"]["all"]["with"]["run"] = serde_json::json!(["sleep", "1000"]);
    lab.manifest("ex.yaml", &manifest);
    let mut child = lab
        .command(["run", "ex.yaml", "--log-format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.any(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["kind"] == "started" && line["instance"] == "all"
    });
    assert!(begun);
    let running = list(&lab).pop().unwrap();
    assert_eq!(running["state"], "running");
    let id = running["id"].as_str().unwrap().to_owned();
    let (_, stderr) = lab.expect(2, ["runs", "rm", &id]);
    assert!(stderr.contains("goes on"), "{stderr}");
    lab.expect(0, ["runs", "rm", "--keep", "1", "--yes"]);
    assert_eq!(list(&lab).len(), 2, "what goes on does not count");
    child.kill().unwrap();
    child.wait().unwrap();
    // The report that is shown is of the run before, and that is said.
    let (stdout, stderr) = lab.expect(0, ["report"]);
    assert!(
        stdout.contains(whole.folder.file_name().unwrap().to_str().unwrap()),
        "{stdout}"
    );
    assert!(
        stderr.contains(&id) && stderr.contains("interrupted after 6 of 7"),
        "{stderr}"
    );
    let (stdout, _) = lab.expect(0, ["runs"]);
    assert!(stdout.contains("interrupted after 6 of 7"), "{stdout}");
    let (_, stderr) = lab.expect(2, ["report", &id]);
    assert!(stderr.contains("interrupted after 6 of 7"), "{stderr}");
    lab.expect(0, ["runs", "rm", &id]);
}

#[test]
fn a_log_is_json_line_by_line() {
    let lab = Lab::new();
    experiment(&lab);
    write(&lab, "bad", "x");
    let (stdout, stderr) = lab.expect(3, ["run", "ex.yaml", "--log-format", "json", "--json"]);
    serde_json::from_str::<Value>(&stdout).unwrap();
    let lines: Vec<hotcell_schema::log::LogLine> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    use hotcell_schema::log::LogKind;
    let count = |kind| lines.iter().filter(|line| line.kind == kind).count();
    assert_eq!((count(LogKind::Ended), count(LogKind::Summary)), (7, 1));
    let counts = lines.iter().find_map(|line| line.counts).unwrap();
    assert_eq!((counts.ok, counts.failed, counts.skipped), (4, 1, 2));
    assert!(!stderr.contains('\u{1b}'));
    lab.write("wrong.yaml", "hotcell: 1\nstages:\n  a: { usess: x }\n");
    let (_, stderr) = lab.expect(2, ["run", "wrong.yaml", "--log-format", "json"]);
    let first: hotcell_schema::log::LogLine = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first.kind, first.line, first.severity.as_deref()),
        (LogKind::Diagnostic, Some(3), Some("error"))
    );
    let (_, stderr) = lab.expect(2, ["runs", "show", "x", "--log-format", "json"]);
    let line: hotcell_schema::log::LogLine = serde_json::from_str(stderr.trim()).unwrap();
    assert_eq!((line.kind, line.exit), (LogKind::Error, Some(2)));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let lab = Lab::new();
    lab.expect(0, ["man", "--out", "man"]);
    for name in ["hotcell", "hotcell-run", "hotcell-runs-rm", "hotcell-store-gc"] {
        let page = fs::read_to_string(lab.path(&format!("man/{name}.1"))).unwrap();
        assert!(
            page.contains(".SH \"EXIT STATUS\"") && page.contains("HOTCELL_STORE"),
            "{page}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let (stdout, _) = lab.expect(0, ["completions", shell]);
        assert!(stdout.contains("rerun-failed"), "{shell}");
    }
}
