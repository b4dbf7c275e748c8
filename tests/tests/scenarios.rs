//! What samples do, as guests (`tests/guests/scenario.c`, `evades.c`, `forkbomb.c`, `hog.c`), against goldens: the same on every
//! architecture, under the emulated Linux and under QEMU watched by the host's kernel.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use hotcell_schema::outcome::Status;
use hotcell_schema::report::InstanceReport;
use hotcell_tests::{Lab, Run, guests};
use serde_json::{Value, json};

/// 64 and 32 bits, both kinds of numbers of calls, with and without the host's own processor.
const TARGETS: [&str; 4] = ["x86_64", "aarch64", "armhf", "mipsel"];

/// A guest, the word that it is told, what it may use, and which engines it is for.
struct Scenario {
    name: &'static str,
    guest: &'static str,
    words: &'static [&'static str],
    limits: Value,
    engines: &'static [&'static str],
    /// What the lines begin with that are the same from run to run; none: all are.
    lines: &'static [&'static str],
}

const EMULATED: &str = "unicorn/linux";
const WATCHED: &str = "qemu-user/linux";
const BOTH: &[&str] = &[EMULATED, WATCHED];

/// Runs a scenario on all architectures under its engines; `None` with a word where this host lets nobody watch.
fn run(scenario: &Scenario) -> Option<(Lab, Run)> {
    let all = guests()?;
    let lab = Lab::new();
    let mut list = "path,variant\n".to_owned();
    for target in TARGETS {
        let guest = all
            .iter()
            .find(|guest| guest.name == scenario.guest && guest.target == target);
        lab.write(target, fs::read(&guest.unwrap().path).unwrap());
        writeln!(list, "{target},{target}").unwrap();
    }
    lab.write("guests.csv", list);
    let mut stages = serde_json::Map::new();
    for (index, engine) in scenario.engines.iter().enumerate() {
        stages.insert(
            format!("run{index}"),
            json!({
                "uses": engine,
                "for-each": {"sample": "samples.guests"},
                "in": {"file": "${sample.file}"},
                "with": {"cwd": "/tmp", "args": scenario.words},
                "limits": scenario.limits,
            }),
        );
        stages.insert(
            format!("hits{index}"),
            json!({
                "uses": "detect/rules",
                "for-each": {"sample": "samples.guests"},
                "in": {"events": format!("stages.run{index}.out.events")},
            }),
        );
    }
    let manifest = json!({
        "hotcell": 1,
        "name": "scenario",
        "samples": {"guests": {"list": "guests.csv"}},
        "stages": stages,
    });
    lab.manifest("scenario.yaml", &manifest);
    let output = lab.hotcell(["run", "scenario.yaml", "--progress", "none"]);
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return None;
    }
    let mut instances = run.report.instances.iter();
    if let Some(bad) = instances.find(|instance| instance.status != Status::Ok) {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{}: {:?}\n{said}", bad.name, bad.reason);
    }
    Some((lab, run))
}

/// What is the same from run to run: how it ended, what it said and did, what the rules say of it.
fn told(run: &Run, ran: &InstanceReport, hits: &InstanceReport) -> String {
    let mut text = String::new();
    writeln!(text, "outcome: {}", ran.outcome.as_ref().unwrap()).unwrap();
    for line in String::from_utf8_lossy(&run.output(ran, "stdout")).lines() {
        writeln!(text, "said: {line}").unwrap();
    }
    for did in &ran.behaviour {
        writeln!(text, "did: {did}").unwrap();
    }
    for finding in &hits.findings {
        writeln!(text, "{} ({})", finding.rule, finding.severity.as_str()).unwrap();
        for evidence in &finding.evidence {
            writeln!(text, "    {}", evidence.text).unwrap();
        }
    }
    text
}

/// Without what compilers and address spaces decide: how large the guest's own file is, and where its memory.
fn without_places(text: &str) -> String {
    let address = regex::Regex::new("0x[0-9a-f]{6,}").unwrap();
    let length = regex::Regex::new("[0-9]{5,} bytes|\\([0-9] bytes").unwrap();
    let text = address.replace_all(text, "ADDRESS");
    length.replace_all(&text, "SOME bytes").into_owned()
}

/// Holds what engines tell against the golden of a scenario.
fn hold(scenario: &Scenario) {
    let Some((_lab, run)) = run(scenario) else { return };
    let mut golden = String::new();
    for (index, engine) in scenario.engines.iter().enumerate() {
        let (stage, judged) = (format!("run{index}"), format!("hits{index}"));
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ran in run.stage(&stage) {
            let target = run.variant(ran);
            let hits = run.stage(&judged).find(|hits| run.variant(hits) == target);
            let text = without_places(&told(&run, ran, hits.unwrap()));
            let stays = |line: &&str| {
                scenario.lines.is_empty() || scenario.lines.iter().any(|begin| line.starts_with(begin))
            };
            let text: String = text
                .lines()
                .filter(stays)
                .map(|line| format!("{line}\n"))
                .collect();
            all.entry(text).or_default().push(target);
        }
        for (text, targets) in all {
            let targets = match targets.len() == TARGETS.len() {
                true => "all".to_owned(),
                false => targets.join(", "),
            };
            writeln!(golden, "== {engine}: {targets}\n{text}").unwrap();
        }
    }
    insta::with_settings!({omit_expression => true}, {
        insta::assert_snapshot!(scenario.name, golden);
    });
}

/// One of `scenario.c`.
fn scenario(name: &'static str) -> Scenario {
    Scenario {
        name,
        guest: "scenario",
        words: match name {
            "shellcode" => &["shellcode"],
            "injection" => &["injection"],
            "ransom" => &["ransom"],
            "fetch" => &["fetch"],
            "persist" => &["persist"],
            "mine" => &["mine"],
            _ => &["vanish"],
        },
        limits: json!({"wall": "2m"}),
        engines: BOTH,
        lines: &[],
    }
}

#[test]
fn shellcode_in_anonymous_memory() {
    hold(&scenario("shellcode"));
}

#[test]
fn a_command_injected_into_another() {
    hold(&scenario("injection"));
}

#[test]
fn a_tree_rewritten_for_ransom() {
    hold(&scenario("ransom"));
}

#[test]
fn a_next_stage_fetched_and_run() {
    hold(&scenario("fetch"));
}

#[test]
fn persistence_in_cron_and_rc_files() {
    hold(&scenario("persist"));
}

#[test]
fn a_program_that_removes_itself() {
    hold(&scenario("vanish"));
}

#[test]
fn checks_for_sandboxes() {
    hold(&Scenario {
        name: "checks",
        guest: "evades",
        words: &[],
        limits: json!({"wall": "2m"}),
        engines: BOTH,
        lines: &[],
    });
}

#[test]
fn a_miner_meets_its_time_of_a_processor() {
    hold(&Scenario {
        limits: json!({"cpu": "1s", "wall": "1m"}),
        engines: &[WATCHED],
        ..scenario("mine")
    });
}

#[test]
fn a_fork_bomb_meets_its_tasks() {
    hold(&Scenario {
        name: "forkbomb",
        guest: "forkbomb",
        words: &["bomb"],
        limits: json!({"wall": "3s", "tasks": 8}),
        engines: &[WATCHED],
        // QEMU gives up where it can make no thread for a new process, and says so on whatever stream there is.
        lines: &["outcome", "said: begun", "did: process/start", "did: resource"],
    });
}

#[test]
fn a_hog_meets_its_memory() {
    hold(&Scenario {
        name: "hog",
        guest: "hog",
        words: &["all"],
        limits: json!({"wall": "1m", "memory": "64MiB"}),
        engines: &[WATCHED],
        lines: &[],
    });
}
