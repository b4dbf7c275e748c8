//! `hotcell runs`: lists, facts, removal. And what is told while a run goes on.

use std::fs;
use std::os::unix::fs::symlink;

use hotcell_tests::Lab;
use serde_json::Value;

use super::{begun, experiment, write};

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
fn the_latest_good_run_can_be_removed_and_what_is_left_of_others_is_told_of() {
    let lab = Lab::new();
    experiment(&lab);
    let first = lab.run("ex.yaml", &["--progress", "none"]);
    let pointer = lab.path(".hotcell/latest/ex");
    let id = |run: &hotcell_tests::Run| run.folder.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(&pointer).unwrap(), id(&first));
    // Nothing has changed: no new run.
    lab.expect(0, ["run", "ex.yaml", "--progress", "none"]);
    assert_eq!(list(&lab).len(), 1);
    lab.expect(0, ["runs", "rm", &id(&first), "-y"]);
    assert!(!pointer.exists());
    let second = lab.run("ex.yaml", &["--progress", "none"]);
    assert_eq!(second.statuses(), [("cached".to_owned(), 7)].into());
    assert!(pointer.exists());
    // Removed by half, by hand; and by someone who was killed at it.
    let half = lab.path(".hotcell/runs/half");
    fs::create_dir_all(half.join("result/stages")).unwrap();
    fs::write(half.join("run.json"), "{").unwrap();
    fs::create_dir_all(lab.path(".hotcell/runs/.removing-x/run/result")).unwrap();
    fs::create_dir(lab.path(".hotcell/runs/no-run")).unwrap();
    let states: Vec<(String, String)> = list(&lab)
        .iter()
        .map(|run| {
            let text = |key: &str| run[key].as_str().unwrap().to_owned();
            (text("id"), text("state"))
        })
        .collect();
    assert_eq!(
        states,
        [
            (id(&second), "finished".to_owned()),
            ("half".to_owned(), "incomplete".to_owned())
        ]
    );
    let (stdout, _) = lab.expect(0, ["runs"]);
    assert!(
        stdout.contains("incomplete: files of it were removed"),
        "{stdout}"
    );
    let (stdout, _) = lab.expect(0, ["runs", "show", "half"]);
    assert!(stdout.contains("remove it"), "{stdout}");
    lab.expect(0, ["plan", "ex.yaml", "--rerun-failed"]);
    // It is not the one that is kept.
    lab.expect(0, ["runs", "rm", "--keep", "1", "-y"]);
    assert!(second.folder.exists() && !half.exists());
    assert!(!lab.path(".hotcell/runs/.removing-x").exists());
    assert!(lab.path(".hotcell/runs/no-run").exists());
    for odd in ["../x", "..", ".", "", "/", "no-run", "half/../x"] {
        for command in ["show", "rm"] {
            let (_, stderr) = lab.expect(2, ["runs", command, odd]);
            assert!(stderr.contains("there is no run"), "{odd}: {stderr}");
        }
    }
    assert!(second.folder.exists());
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
    let mut child = begun(&lab, &[], "all");
    let running = list(&lab).pop().unwrap();
    assert_eq!(running["state"], "running");
    let id = running["id"].as_str().unwrap().to_owned();
    let (_, stderr) = lab.expect(2, ["runs", "rm", &id]);
    assert!(stderr.contains("goes on"), "{stderr}");
    lab.expect(0, ["runs", "rm", "--keep", "1", "--yes"]);
    assert_eq!(list(&lab).len(), 2, "what goes on does not count");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its children end by themselves: one that was only just begun still holds what the run holds.
    let journal = whole.folder.with_file_name(&id).join("journal.jsonl");
    fs::File::open(journal).unwrap().lock_shared().unwrap();
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
}

/// Runs a program of the host; `None`, with a line that says so, where it is not there.
fn host(program: &str, args: &[&str]) -> Option<std::process::Output> {
    match std::process::Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: {program} is not on this host: {error}");
            None
        }
    }
}

#[test]
fn shells_take_their_completions() {
    let lab = Lab::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let (script, _) = lab.expect(0, ["completions", shell]);
        assert!(script.contains("rerun-failed"), "{shell}");
        let path = lab.write(&format!("completions.{shell}"), script);
        let path = path.to_str().unwrap();
        if let Some(output) = host(shell, &[check, path]) {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
        }
        let ask = match shell {
            "bash" => format!(
                "set -e; source {path}; complete -p hotcell; COMP_WORDS=(hotcell run --rerun-f); COMP_CWORD=2; \
                 _hotcell hotcell --rerun-f run; echo \"${{COMPREPLY[@]}}\""
            ),
            "fish" => format!("source {path}; complete --do-complete 'hotcell run --rerun-f'"),
            _ => continue,
        };
        if let Some(output) = host(shell, &["-c", &ask]) {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("--rerun-failed"), "{shell}: {said} {error}");
        }
    }
}

#[test]
fn graphs_are_drawn_by_graphviz() {
    let lab = Lab::new();
    experiment(&lab);
    let (dot, _) = lab.expect(0, ["plan", "ex.yaml", "--graph", "dot"]);
    let path = lab.write("ex.dot", dot);
    if let Some(output) = host("dot", &["-Tsvg", path.to_str().unwrap()]) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
        let svg = String::from_utf8(output.stdout).unwrap();
        for stage in ["sum", "count", "all"] {
            assert!(svg.contains(stage), "{svg}");
        }
    }
}
