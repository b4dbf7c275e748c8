//! Programs of the user's own from the command line: same bytes everywhere, errors that name what is wrong, nothing left behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hotcell_tests::{Lab, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A lab whose commands get their folders within it.
fn lab() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("tmp")).unwrap();
    lab
}

fn run(lab: &Lab, more: &[&str], code: i32) -> (Run, String) {
    let args = ["run", "programs.toml", "--progress", "none"];
    let output = lab
        .command(args.into_iter().chain(more.iter().copied()))
        .env("TMPDIR", lab.path("tmp"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    (lab.latest(), said)
}

/// Files that commands left in the folder for temporary files.
fn leftovers(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.path("tmp")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Whether a process with this word in its arguments runs.
fn is_running(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    })
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

const CURIOUS: &str = r#"
hotcell = 1
name = "programs"
[stages.curious]
uses = "command"
for-each.number = ["1", "2", "3", "4", "5", "6"]
with.run = ["python3", "curious.py", "${number}"]
with.outputs.facts = { type = "json", from = "stdout" }
[stages.all]
uses = "command"
in.facts = "stages.curious[*].out.facts"
with.run = ["sh", "-c", "cat inputs/facts/*; pwd; ls -A; ls /proc/self/fd | wc -l; umask; hostname"]
"#;

#[test]
fn what_a_program_can_see_is_the_same_everywhere() {
    if !hotcell_tests::commands_have_own_root() {
        return;
    }
    let mut results = Vec::new();
    for jobs in ["1", "4"] {
        let lab = lab();
        lab.write("programs.toml", CURIOUS);
        lab.write(
            "curious.py",
            "import json, os, platform, sys, tempfile\n\
             print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), __file__, tempfile.mkdtemp(dir='/tmp', prefix='x')[:6],\n\
             \thash('x'), os.getuid(), platform.node(), sorted(os.listdir('/work')), os.getpriority(os.PRIO_PROCESS, 0)]))\n",
        );
        let (run, _) = run(&lab, &["-j", jobs], 0);
        assert!(run.all_ok());
        assert_eq!(leftovers(&lab), [""; 0]);
        results.push(run.result());
    }
    assert!(results[0].keys().any(|name| name.starts_with("stages/all/")));
    assert_eq!(results[0], results[1]);
}

#[test]
fn a_wrong_output_ends_the_run_with_its_name() {
    let lab = lab();
    lab.write(
        "schema.json",
        r#"{"properties": {"rows": {"items": {"type": "number"}}}}"#,
    );
    lab.write("programs.toml", "hotcell = 1\nname = \"programs\"\n[stages.it]\nuses = \"command\"\nwith.run = [\"sh\", \"-c\", \"echo '{\\\"rows\\\": [1, null]}' > outputs/table\"]\nwith.outputs.table = { type = \"json\", schema = \"schema.json\" }\n");
    let (_, said) = run(&lab, &[], 3);
    for word in [
        "it",
        "`table`",
        "outputs/table",
        "schema.json",
        "/rows/1",
        "null",
        "number",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// A run with a program that goes on for ever, which has begun.
fn forever(lab: &Lab, word: &str) -> Child {
    lab.write(
        "programs.toml",
        format!(
            "hotcell = 1\nname = \"programs\"\n[stages.it]\nuses = \"command\"\nwith.run = [\"sh\", \"-c\", \"sleep {word} & sleep {word}\"]\n"
        ),
    );
    let child = lab
        .command(["run", "programs.toml", "--progress", "none"])
        .env("TMPDIR", lab.path("tmp"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the program has not begun", || is_running(word));
    child
}

#[test]
fn a_stop_ends_programs_and_what_they_started() {
    let lab = lab();
    let word = format!("1{}", std::process::id());
    let mut child = forever(&lab, &word);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!is_running(&word));
    assert_eq!(leftovers(&lab), [""; 0]);
}

#[test]
fn programs_die_with_a_runner_that_is_killed_and_the_next_one_cleans_up() {
    let lab = lab();
    let word = format!("2{}", std::process::id());
    let mut child = forever(&lab, &word);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the program lives on", || !is_running(&word));
    assert_eq!(leftovers(&lab).len(), 1);
    lab.write(
        "programs.toml",
        "hotcell = 1\nname = \"programs\"\n[stages.it]\nuses = \"command\"\nwith.run = [\"true\"]\n",
    );
    run(&lab, &[], 0);
    assert_eq!(leftovers(&lab), [""; 0]);
}

const FAILING: &str = r#"
hotcell = 1
name = "programs"
[stages.it]
uses = "command"
for-each.mode = ["good", "bad"]
with.run = ["sh", "-c", "echo out; test ${mode} = good || { echo first; echo second; exit 7; } >&2"]
[stages.after]
uses = "command"
for-each.mode = ["good", "bad"]
in.text = "stages.it.out.stdout"
with.run = ["cat", "inputs/text"]
[stages.unwanted]
uses = "command"
when = "false"
with.run = ["true"]
"#;

#[test]
fn a_failure_is_told_in_lines_and_what_it_left_can_be_looked_at() {
    let lab = lab();
    lab.write("programs.toml", FAILING);
    let (run, said) = run(&lab, &["--set", "seed=3"], 3);
    for line in [
        "Did not end well\n",
        "  failed it[mode=bad]: `sh` ended with exit code 7\n      it said:\n      first\n      second\n",
        "Skipped\n",
        "`when` is false\n",
        "2 ok · 1 failed · 2 skipped",
    ] {
        assert!(said.contains(line), "`{line}` is not in\n{said}");
    }
    let id = run.folder.file_name().unwrap().to_str().unwrap().to_owned();
    let start = &id[..id.len() - 3];
    let (shown, _) = lab.expect(0, ["runs", "show", start]);
    for line in [
        "called      hotcell run programs.toml --progress none --set seed=3",
        "            it said:\n            first\n            second\n",
        "what it left: ",
    ] {
        assert!(shown.contains(line), "`{line}` is not in\n{shown}");
    }
    let left = shown
        .split("what it left: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let left = lab.path("").join(left);
    assert_eq!(fs::read_to_string(left.join("stdout")).unwrap(), "out\n");
    assert_eq!(
        fs::read_to_string(left.join("stderr")).unwrap(),
        "first\nsecond\n"
    );
    // Why it would run again: it failed, and with what.
    let (explained, _) = lab.expect(
        0,
        [
            "explain",
            "programs.toml",
            "-i",
            "it[mode=bad]",
            "--set",
            "seed=3",
        ],
    );
    for line in ["it failed in", "exit code 7", "    first\n    second\n"] {
        assert!(explained.contains(line), "`{line}` is not in\n{explained}");
    }
    // The start of an id is enough for all that read runs.
    lab.expect(0, ["diff", start, &id]);
    let page = fs::read_to_string(run.folder.join("report.html")).unwrap();
    for part in ["first\nsecond</pre>", "id=\"skipped\"", "2 / 3"] {
        assert!(page.contains(part), "`{part}` is not in the page");
    }
}

#[test]
fn the_setting_that_changed_is_named() {
    let lab = lab();
    let manifest = |word: &str| {
        format!(
            "hotcell = 1\nname = \"programs\"\n[stages.it]\nuses = \"command\"\nwith.run = [\"echo\", \"{word}\"]\n"
        )
    };
    lab.write("programs.toml", manifest("one"));
    let first = run(&lab, &[], 0).0;
    lab.write("programs.toml", manifest("two"));
    let (explained, _) = lab.expect(0, ["explain", "programs.toml"]);
    let change = "with.run.1: \"one\" -> \"two\"";
    assert!(explained.contains(change), "{explained}");
    let second = run(&lab, &[], 0).0;
    let [first, second] = [&first, &second].map(|run| run.folder.to_str().unwrap());
    let (between, _) = lab.expect(0, ["explain", "--between", first, second]);
    assert!(between.contains(change), "{between}");
}

#[test]
fn with_nothing_to_do_the_result_is_shown_again() {
    let lab = lab();
    lab.write("samples/one", "1");
    lab.write(
        "programs.toml",
        "hotcell = 1\nname = \"programs\"\nsamples.all = { glob = \"samples/*\" }\n[stages.it]\nuses = \"command\"\n\
         for-each.sample = \"samples.all\"\nin.file = \"${sample.file}\"\nwith.run = [\"cat\", \"inputs/file\"]\n",
    );
    let (_, first) = run(&lab, &[], 0);
    let (_, again) = run(&lab, &[], 0);
    for said in [first, again.clone()] {
        assert!(said.contains("one") && said.contains("1 ok"), "{said}");
        // No stage runs samples: nobody misses their outcomes.
        assert!(!said.contains("not run") && !said.contains("Outcome"), "{said}");
    }
    assert!(
        again.contains("nothing to do: 1 instance is as in run "),
        "{again}"
    );
}

#[test]
fn too_little_memory_for_the_walls_is_said_of_the_limit() {
    let lab = lab();
    lab.write(
        "programs.toml",
        "hotcell = 1\nname = \"programs\"\n[stages.it]\nuses = \"command\"\nlimits.memory = \"64KiB\"\nwith.run = [\"true\"]\n",
    );
    let (_, said) = run(&lab, &[], 3);
    assert!(said.contains("limits.memory"), "{said}");
    assert!(!said.contains("cannot run commands"), "{said}");
}
