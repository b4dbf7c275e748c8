//! Goldens from the command line: accepted, judged, reviewed at a terminal, learned from several runs; runs side by side.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use hotcell_schema::{
    diff::{How, RunDiff},
    golden::GoldenFile,
    verdict::{Verdict, Verdicts},
};
use hotcell_tests::{Lab, files_below};
use nix::pty::{Winsize, openpty};
use serde_json::Value;

/// Three pieces of code, each with a golden of its outcome and its registers. `mov eax, N`.
fn payloads(lab: &Lab, numbers: [u8; 3]) {
    let codes: Vec<String> = numbers
        .iter()
        .zip(["one", "two", "three"])
        .map(|(number, name)| format!("{{ name = \"{name}\", code = \"b8{number:02x}000000\" }}"))
        .collect();
    lab.write(
        "sums.toml",
        format!(
            "hotcell = 1\nname = \"sums\"\n[stages.sum]\nuses = \"unicorn/payload\"\nfor-each.piece = [{}]\n\
             with = {{ arch = \"x86\", code = \"${{piece.code}}\", want-registers = [\"eax\"] }}\n\
             [golden]\nselect = [\"outcome\", \"outputs\"]\n",
            codes.join(", ")
        ),
    );
}

const QUIET: [&str; 2] = ["--progress", "none"];

fn test<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["test", "sums.toml"];
    all.extend(QUIET);
    all.extend(more);
    all
}

fn goldens(lab: &Lab) -> Vec<String> {
    files_below(&lab.path("golden")).into_keys().collect()
}

#[test]
fn goldens_are_told_by_their_meaning_and_only_what_changed_is_written() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    let (_, stderr) = lab.expect(0, test(&["--accept", "-j", "1"]));
    assert!(stderr.contains("3 golden files changed"), "{stderr}");
    assert_eq!(
        goldens(&lab),
        [
            "sums/sum/one.unicorn-payload.json",
            "sums/sum/three.unicorn-payload.json",
            "sums/sum/two.unicorn-payload.json"
        ]
    );
    lab.expect(0, test(&["-j", "8", "--force"]));
    let untouched = fs::metadata(lab.path("golden/sums/sum/one.unicorn-payload.json")).unwrap();

    payloads(&lab, [1, 2, 4]);
    let (stdout, stderr) = lab.expect(1, test(&[]));
    assert!(
        stdout.contains("not met sum[piece=three] sum/three.unicorn-payload.json"),
        "{stdout}"
    );
    assert!(
        stdout.contains("outputs.result.registers.eax: 0x3 → 0x4"),
        "{stdout}"
    );
    assert!(stdout.contains("2 met, 1 not met, 0 not judged"), "{stdout}");
    assert!(stderr.contains("diff.html"), "{stderr}");
    let page = fs::read_to_string(lab.latest().folder.join("diff.html")).unwrap();
    assert!(
        page.contains("outputs.result.registers.eax") && !page.contains("://"),
        "{page}"
    );
    // On another machine the store is empty: the golden itself knows the text.
    let mut elsewhere = test(&[]);
    elsewhere.extend(["--store", "other-store"]);
    let (stdout, _) = lab.expect(1, elsewhere);
    assert!(
        stdout.contains("outputs.result.registers.eax: 0x3 → 0x4"),
        "{stdout}"
    );

    let (_, stderr) = lab.expect(0, test(&["--accept"]));
    assert!(
        stderr.contains("accepted") && stderr.contains("1 golden file changed"),
        "{stderr}"
    );
    let now = fs::metadata(lab.path("golden/sums/sum/one.unicorn-payload.json")).unwrap();
    assert_eq!(untouched.modified().unwrap(), now.modified().unwrap());
    assert!(
        !lab.latest().folder.join("diff.html").exists(),
        "nothing differs any more"
    );
}

#[test]
fn a_golden_without_an_instance_goes_only_when_the_whole_experiment_ran() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    lab.expect(0, test(&["--accept"]));
    let text = fs::read_to_string(lab.path("sums.toml")).unwrap();
    fs::write(
        lab.path("sums.toml"),
        text.replace("name = \"three\"", "name = \"drei\""),
    )
    .unwrap();
    let (stdout, _) = lab.expect(1, test(&[]));
    assert!(
        stdout.contains("no such instance any more") && stdout.contains("there is none yet"),
        "{stdout}"
    );
    lab.expect(0, test(&["--accept", "--set", "seed=9"]));
    assert_eq!(goldens(&lab).len(), 4);
    let (_, stderr) = lab.expect(0, test(&["--accept"]));
    assert!(stderr.contains("removed"), "{stderr}");
    assert_eq!(goldens(&lab).len(), 3);
}

/// Whether a document is what `hotcell schema NAME` says.
fn fits(lab: &Lab, name: &str, document: &str) {
    let (schema, _) = lab.expect(0, ["schema", name]);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:?}\n{document:#}");
}

#[test]
fn what_is_written_as_json_fits_its_published_schema() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    lab.expect(0, test(&["--accept"]));
    for text in files_below(&lab.path("golden")).into_values() {
        fits(&lab, "golden", std::str::from_utf8(&text).unwrap());
        assert!(matches!(GoldenFile::read(&text), Ok(GoldenFile::Exact(_))));
    }
    payloads(&lab, [1, 2, 4]);
    let (stdout, _) = lab.expect(1, test(&["--json"]));
    fits(&lab, "test", &stdout);
    let verdicts: Verdicts = serde_json::from_str(&stdout).unwrap();
    assert_eq!((verdicts.tally.met, verdicts.tally.not_met), (2, 1));
    let failed: Vec<&str> = verdicts
        .checks
        .iter()
        .filter(|check| check.verdict != Verdict::Met)
        .map(|check| check.subject.as_str())
        .collect();
    assert_eq!(failed, ["sum[piece=three]"]);
}

#[test]
fn two_runs_side_by_side() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    let first = lab.run("sums.toml", &QUIET).folder;
    payloads(&lab, [1, 7, 4]);
    let second = lab.run("sums.toml", &QUIET).folder;
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let id = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    // By id, by folder, by file.
    let (by_id, _) = lab.expect(1, ["diff", &id(&first), &id(&second)]);
    let (by_folder, _) = lab.expect(1, ["diff", &text(first.clone()), &text(second.clone())]);
    let report = |path: &PathBuf| text(path.join("result/report.json"));
    let (by_file, _) = lab.expect(1, ["diff", &report(&first), &report(&second)]);
    assert_eq!(by_id, by_folder);
    assert_eq!(by_id, by_file);
    for line in [
        "sum[piece=two]",
        "sum[piece=three]",
        "registers.eax: 0x2 → 0x7",
        "2 of 3 instances differ",
    ] {
        assert!(by_id.contains(line), "{line}: {by_id}");
    }
    let (stdout, _) = lab.expect(
        1,
        [
            "diff",
            &id(&first),
            &id(&second),
            "--instance",
            "sum[piece=tw",
            "--json",
        ],
    );
    fits(&lab, "diff", &stdout);
    let diff: RunDiff = serde_json::from_str(&stdout).unwrap();
    assert_eq!((diff.instances.len(), diff.compared), (1, 1));
    let change = diff.instances[0].changes.last().unwrap();
    assert_eq!(
        (change.how, change.path.as_str()),
        (How::Changed, "outputs.result.registers.eax")
    );
    let (stdout, _) = lab.expect(0, ["diff", &id(&first), &id(&first), "--stage", "sum"]);
    assert_eq!(stdout, "no difference in 3 instances\n");
    lab.expect(2, ["diff", &id(&first), &id(&second), "--stage", "nothing"]);
    lab.expect(2, ["diff", "sums.toml", &id(&second)]);
    lab.expect(1, ["diff", &id(&first), &id(&second), "--html", "page.html"]);
    let page = fs::read_to_string(lab.path("page.html")).unwrap();
    assert!(page.contains("sum[piece=two]") && page.contains("prefers-color-scheme: dark"));
}

/// `hotcell` at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: fs::File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// How much of it was waited for already.
    at: usize,
}

impl Terminal {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let side = || -> OwnedFd { pty.slave.try_clone().unwrap() };
        let child = lab
            .command(args.iter().copied())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(side()))
            .stdout(Stdio::from(side()))
            .stderr(Stdio::from(side()))
            .spawn()
            .unwrap();
        drop(pty.slave);
        let keyboard = fs::File::from(pty.master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Linux says EIO when the last process at the terminal is gone.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            seen: String::new(),
            at: 0,
        }
    }

    /// Waits until the screen shows a text after all that was waited for before. Answers with what came up to it.
    fn wait(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(found) = self.seen[self.at..].find(text) {
                let from = self.at;
                self.at += found + text.len();
                return self.seen[from..self.at].to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self
                .screen
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("never `{text}`:\n{}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn press(&mut self, key: &str) {
        self.keyboard.write_all(key.as_bytes()).unwrap();
    }

    fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap();
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_secs(20)) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, self.seen)
    }
}

const ASK: &str = "help (?)";

#[test]
fn a_review_asks_for_each_change_and_writes_at_once() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    lab.expect(0, test(&["--accept"]));
    let before = files_below(&lab.path("golden"));
    payloads(&lab, [11, 12, 13]);
    let mut terminal = Terminal::start(&lab, &test(&["--review"]));
    let first = terminal.wait(ASK);
    assert!(
        first.contains("change 1 of 3") && first.contains("sum[piece=one]"),
        "{first}"
    );
    assert!(
        first.contains("outputs.result.registers.eax: 0x1 → 0xb"),
        "{first}"
    );
    terminal.press("?");
    assert!(terminal.wait(ASK).contains("the golden file is written at once"));
    terminal.press("x");
    terminal.wait(ASK);
    terminal.press("a");
    let second = terminal.wait(ASK);
    assert!(
        second.contains("wrote") && second.contains("change 2 of 3"),
        "{second}"
    );
    // It is written while the review goes on.
    let one = "sums/sum/one.unicorn-payload.json";
    assert_ne!(before[one], files_below(&lab.path("golden"))[one]);
    terminal.press("r");
    terminal.wait(ASK);
    terminal.press("q");
    let (code, seen) = terminal.end();
    assert_eq!(code, 1, "{seen}");
    assert!(
        seen.contains("1 accepted, 1 rejected, 0 skipped, 1 not looked at; 1 golden file changed"),
        "{seen}"
    );
    let after = files_below(&lab.path("golden"));
    let changed: Vec<&String> = after
        .keys()
        .filter(|name| before[*name] != after[*name])
        .collect();
    assert_eq!(changed, [one]);
    // The rest, and then nothing is left.
    let mut terminal = Terminal::start(&lab, &test(&["--review"]));
    for _ in 0..2 {
        terminal.wait(ASK);
        terminal.press("a");
    }
    let (code, seen) = terminal.end();
    assert_eq!(code, 0, "{seen}");
    let (code, seen) = Terminal::start(&lab, &test(&["--review"])).end();
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("nothing to review"), "{seen}");
}

#[test]
fn goldens_are_accepted_by_people_only() {
    let lab = Lab::new();
    payloads(&lab, [1, 2, 3]);
    let (_, stderr) = lab.expect(2, test(&["--review"]));
    assert!(
        stderr.contains("not a terminal") && stderr.contains("help:"),
        "{stderr}"
    );
    for more in [
        &["--review", "--json"][..],
        &["--review", "--accept"],
        &["--repeat", "3"],
        &["--accept", "--repeat", "0"],
    ] {
        lab.expect(2, test(more));
    }
    for flag in ["--accept", "--review"] {
        let output = lab.command(test(&[flag])).env("CI", "true").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("refused where CI is set"));
    }
    assert!(
        !lab.path("golden").exists() && !lab.path(".hotcell").exists(),
        "nothing ran"
    );
}

/// A stage whose result differs from run to run, and one that judges it.
fn noisy(lab: &Lab, chance: &str, more: &str) {
    lab.write("noisy.py", include_str!("goldens_data/noisy.py"));
    lab.write(
        "noisy.toml",
        format!(
            "hotcell = 1\nname = \"noisy\"\n[stages.run]\nuses = \"command\"\n\
             with = {{ run = [\"python3\", \"noisy.py\", \"{chance}\"{more}], observed = true, \
             outputs = {{ events = {{ type = \"events\", from = \"stdout\" }} }} }}\n\
             [stages.hits]\nuses = \"detect/rules\"\nin.events = \"stages.run.out.events\"\n[golden]\n"
        ),
    );
}

#[test]
fn what_differs_from_run_to_run_is_learned_as_facts() {
    let lab = Lab::new();
    let judge = |code: i32, more: &[&str]| {
        let mut all = vec!["test", "noisy.toml"];
        all.extend(QUIET);
        all.extend(more);
        let (stdout, stderr) = lab.expect(code, all);
        format!("{stdout}{stderr}")
    };
    noisy(&lab, "0", "");
    // Without --repeat a stage that has no golden yet is run three times; what it gives is judged as observed too.
    let said = judge(0, &["--accept"]);
    assert!(
        said.contains("run 3 of 3") && said.contains("2 golden files changed"),
        "{said}"
    );
    assert_eq!(fs::read_dir(lab.path(".hotcell/runs")).unwrap().count(), 3);
    let path = "golden/noisy/run/only.command.json";
    let read = || match GoldenFile::read(&fs::read(lab.path(path)).unwrap()).unwrap() {
        GoldenFile::Observed(golden) => golden,
        GoldenFile::Exact(_) => panic!("an observed golden"),
    };
    let learned = read();
    assert_eq!((learned.runs, learned.may.len()), (3, 0));
    fits(&lab, "golden", &fs::read_to_string(lab.path(path)).unwrap());
    for _ in 0..3 {
        judge(0, &["--force"]);
    }
    // What no run had is not met, and accepting it once only allows it.
    noisy(&lab, "1", "");
    let said = judge(1, &[]);
    assert!(
        said.contains("+ tasks[0]: file/stat /etc/localtime by /bin/bot"),
        "{said}"
    );
    judge(0, &["--accept"]);
    assert_eq!(read().must, learned.must);
    assert_eq!(read().may[0].facts[0].resource, "/etc/localtime");
    noisy(&lab, "0", "");
    judge(0, &["--force"]);
    // What every run had is wanted.
    noisy(&lab, "0.5", ", \"/etc/cron.d/x\"");
    fs::remove_dir_all(lab.path("golden")).unwrap();
    judge(0, &["--accept", "--repeat", "2"]);
    assert_eq!(read().runs, 2);
    noisy(&lab, "0.5", "");
    let said = judge(1, &[]);
    assert!(
        said.contains("- tasks[0]: file/written /etc/cron.d/x by /bin/bot"),
        "{said}"
    );
    assert!(
        said.contains("- tasks[instance]: finding persistence-cron (high)"),
        "{said}"
    );
    // Accepting once does not take back what is wanted; learning again does.
    judge(1, &["--accept"]);
    judge(0, &["--accept", "--repeat", "1"]);
}
