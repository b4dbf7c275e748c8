//! Cells that break within a run: what happened is told and kept for people, the result holds nothing of it, and whoever else
//! runs gives what it gives on a calm host.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hotcell_schema::{
    fault::{FaultKind, FaultRecord},
    outcome::{Outcome, Status},
};
use hotcell_tests::{Lab, Run, files_below};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// How long a test waits for what takes a moment.
const LONG: Duration = Duration::from_secs(120);

/// A stage in which one sample is run once for each behaviour.
fn stage(behaviours: &[&str], more: Value) -> Value {
    let mut stage = json!({
        "uses": "unicorn/linux",
        "for-each": {"sample": "samples.all", "how": behaviours},
        "in": {"file": "${sample.file}"},
        "with": {"args": ["${how}"]},
    });
    let more = more.as_object().unwrap().clone();
    stage.as_object_mut().unwrap().extend(more);
    stage
}

fn write(lab: &Lab, name: &str, stages: &Value) {
    fs::copy("/bin/true", lab.path("sample")).unwrap();
    let manifest = json!({
        "hotcell": 1, "name": "breaking", "seed": 3,
        "samples": {"all": {"glob": "sample"}},
        "stages": stages,
    });
    lab.manifest(name, &manifest);
}

/// The files of a stage's results.
fn of_stage(run: &Run, stage: &str) -> BTreeMap<String, Vec<u8>> {
    files_below(&run.folder.join("result/stages").join(stage))
}

/// The record that an instance names, and what is beside it.
fn record(run: &Run, instance: &str) -> (FaultRecord, PathBuf) {
    let path = run.facts.instances[instance]
        .fault
        .as_ref()
        .unwrap_or_else(|| panic!("{instance}: {:?}", run.facts.instances[instance]));
    let path = run.folder.join(path);
    let record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (record, path.parent().unwrap().to_owned())
}

const CALM: [&str; 3] = ["well", "steady", "some-events"];

#[test]
fn faults_are_kept_for_people_and_no_neighbour_notices() {
    let lab = Lab::with_breaking_cells();
    let calm = json!({ "calm": stage(&CALM, json!({})) });
    write(&lab, "calm.yaml", &calm);
    let reference = of_stage(&lab.run("calm.yaml", &["--progress", "none"]), "calm");
    assert!(reference.len() >= 3, "{:?}", reference.keys());

    let kinds = BTreeMap::from([
        ("abort", FaultKind::EngineCrash),
        ("segfault", FaultKind::EngineCrash),
        ("some-events-and-abort", FaultKind::EngineCrash),
        ("process:fork", FaultKind::ForbiddenCall),
        ("exit", FaultKind::NoResult),
        ("give-up", FaultKind::GaveUp),
        ("garbage", FaultKind::Protocol),
        ("events-out-of-order", FaultKind::Protocol),
        ("hang-up", FaultKind::Protocol),
        ("unknown-port", FaultKind::Protocol),
        ("result-names-missing-file", FaultKind::Protocol),
    ]);
    let broken: Vec<&str> = kinds.keys().copied().collect();
    let hung = json!({"limits": {"wall": "700ms"}, "retries": 1});
    let all = json!({
        "calm": stage(&CALM, json!({})),
        "broken": stage(&broken, json!({})),
        "hung": stage(&["hang", "endless-silence"], hung),
    });
    write(&lab, "all.yaml", &all);
    let (stdout, stderr) = lab.expect(
        3,
        ["run", "all.yaml", "--force", "-j", "4", "--progress", "plain"],
    );
    let run = lab.latest();
    assert!(
        of_stage(&run, "calm") == reference,
        "a neighbour gave something else"
    );

    let mut kept = 0;
    for instance in &run.report.instances {
        let facts = &run.facts.instances[&instance.name];
        if instance.stage == "calm" {
            assert_eq!((instance.status, &facts.fault), (Status::Ok, &None));
            continue;
        }
        kept += 1;
        let (record, folder) = record(&run, &instance.name);
        assert_eq!(record.instance, instance.name);
        assert_eq!(record.run, run.facts.run);
        assert!(
            record.confinement.iter().any(|layer| layer == "seccomp"),
            "{record:?}"
        );
        assert_eq!(
            (record.engine.as_str(), record.uses.as_str()),
            ("test-cell 1", "unicorn/linux")
        );
        assert!(record.what.starts_with("the cell "), "{}", record.what);
        let how = instance.axes["how"].as_str();
        if instance.stage == "hung" {
            assert_eq!(instance.status, Status::Interrupted);
            // The record is of the second attempt, and the only one.
            assert_eq!(
                (record.kind, record.attempt, facts.attempts),
                (FaultKind::WallTime, 2, 2)
            );
            assert_eq!(record.limits.wall_ms, 700);
            assert!(record.wall_s >= 0.7 && record.cpu_s > 0.0, "{record:?}");
        } else {
            assert_eq!(instance.status, Status::Failed, "{how}");
            assert_eq!((record.kind, record.attempt), (kinds[how], 1), "{how}");
        }
        let log = record
            .log
            .as_ref()
            .map(|log| fs::read_to_string(folder.join(log)).unwrap());
        match how {
            "some-events-and-abort" => {
                assert_eq!(record.last_event, Some(6));
                assert_eq!(log.as_deref(), Some("the engine met a bug"));
                assert!(record.ended.is_some());
            }
            "segfault" => assert!(
                record.what.contains("crashed") && record.what.contains("SIGSEGV"),
                "{record:?}"
            ),
            _ => {}
        }
        // People are led to it.
        let path = facts.fault.as_ref().unwrap();
        assert!(stderr.contains(path.as_str()), "{path} in {stderr}");
    }
    assert_eq!(kept, kinds.len() + 2);
    assert!(stdout.contains("what is known of it: faults/"), "{stdout}");
    let (shown, _) = lab.expect(0, ["runs", "show", &run.facts.run]);
    assert_eq!(shown.matches("what is known of it: ").count(), kept, "{shown}");
    let (shown, _) = lab.expect(0, ["runs", "show", &run.facts.run, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let faults = shown["troubles"].as_array().unwrap().iter();
    assert_eq!(
        faults.filter(|trouble| trouble["fault"].is_string()).count(),
        kept
    );
    let page = fs::read_to_string(run.folder.join("report.html")).unwrap();
    assert_eq!(page.matches("what is known of it: ").count(), kept);

    // The result says that they broke, and nothing that the host knows.
    for (name, bytes) in run.result() {
        let text = String::from_utf8_lossy(&bytes);
        for word in ["SIG", "faults/", "met a bug", "seccomp"] {
            assert!(!text.contains(word), "{word} in {name}");
        }
    }
}

/// The same manifest a second time: what broke is tried again, and a fault of before is no fault of now.
#[test]
fn a_fault_is_never_taken_for_a_result() {
    let lab = Lab::with_breaking_cells();
    write(
        &lab,
        "m.yaml",
        &json!({ "all": stage(&["well", "abort"], json!({})) }),
    );
    for cached in [0, 1] {
        lab.expect(3, ["run", "m.yaml", "--progress", "none"]);
        let run = lab.latest();
        let statuses = run.statuses();
        assert_eq!(statuses.get("cached").copied().unwrap_or(0), cached);
        assert_eq!(statuses["failed"], 1);
        let faults = run.facts.instances.values().filter(|facts| facts.fault.is_some());
        assert_eq!(faults.count(), 1);
    }
}

/// Waits until something is there.
fn until<T>(what: &str, runner: &mut Child, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(runner.try_wait().unwrap().is_none(), "the run ended: {what}");
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

fn start(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A guest that never ends, in the real emulator: its wall time ends it, or the host does.
#[test]
fn a_guest_that_hangs_is_ended_and_told() {
    let lab = Lab::with_own_executables();
    // jmp $
    let hang = json!({
        "uses": "unicorn/payload", "with": {"arch": "x86_64", "code": "ebfe"},
        "limits": {"wall": "60s", "instructions": 1_000_000_000_000_000_u64},
    });
    let sum = json!({"uses": "unicorn/payload", "with": {"arch": "x86_64", "code": "31c0b9640000004801c8ffc975f9"}});
    let mut short = hang.clone();
    short["limits"]["wall"] = json!("700ms");
    let manifest = |stages: Value| json!({"hotcell": 1, "name": "hang", "seed": 1, "stages": stages});
    lab.manifest("short.yaml", &manifest(json!({"hang": short, "sum": sum})));
    let run = lab.run("short.yaml", &["--progress", "none"]);
    let status = |run: &Run, stage: &str| run.stage(stage).next().unwrap().status;
    assert_eq!(status(&run, "sum"), Status::Ok);
    let hang_ended = run.stage("hang").next().unwrap().outcome.clone();
    assert_eq!(hang_ended, Some(Outcome::wall_time()));

    lab.manifest("long.yaml", &manifest(json!({"hang": hang})));
    let mut runner = start(&lab, &["run", "long.yaml", "--progress", "none"]);
    kill_a_cell(&lab, &mut runner);
    assert_eq!(runner.wait().unwrap().code(), Some(3));
    let run = lab.latest();
    assert_eq!(status(&run, "hang"), Status::Interrupted);
    let (found, _) = record(&run, &run.stage("hang").next().unwrap().name);
    assert_eq!(found.kind, FaultKind::Killed);
    assert_eq!(lab.processes(), []);

    // mov $0x2000000,%ecx; 1: dec %ecx; jnz 1b. What is tried again ends well, and what broke before is told all the same.
    let long = json!({
        "uses": "unicorn/payload", "with": {"arch": "x86_64", "code": "b900000002ffc975fc"},
        "limits": {"instructions": 1_000_000_000_u64}, "retries": 1,
    });
    lab.manifest("twice.yaml", &manifest(json!({"long": long})));
    let mut runner = start(&lab, &["run", "twice.yaml", "--progress", "none"]);
    kill_a_cell(&lab, &mut runner);
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    let run = lab.latest();
    assert_eq!(status(&run, "long"), Status::Ok);
    let (found, _) = record(&run, &run.stage("long").next().unwrap().name);
    assert_eq!((found.kind, found.attempt), (FaultKind::Killed, 1));
    let (shown, _) = lab.expect(0, ["runs", "show", &run.facts.run]);
    assert!(shown.contains("its cell broke in an attempt before: "), "{shown}");
}

/// Kills a cell of the real emulator that computes.
fn kill_a_cell(lab: &Lab, runner: &mut Child) {
    let cell = until("a cell that is at work", runner, || {
        let cells = lab.processes().into_iter();
        let computes = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
            let user = fields.and_then(|rest| rest.split(' ').nth(11)?.parse::<u64>().ok());
            user.unwrap_or(0) > 5
        };
        let mut found = cells.filter(|(pid, name)| name == "hotcell-unicorn" && computes(*pid));
        found.next().map(|(pid, _)| pid)
    });
    kill(Pid::from_raw(cell), Signal::SIGKILL).unwrap();
}

/// A group in which the number of processes can be bounded, made for one test.
struct Tasks(PathBuf);

impl Tasks {
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = |kind: &str, option: &str| {
            let line = mounts.lines().find(|line| {
                let (_, right) = line.split_once(" - ").unwrap();
                right.starts_with(kind) && (option.is_empty() || right.ends_with(option))
            })?;
            line.split(' ').nth(4).map(PathBuf::from)
        };
        let folder = point("cgroup ", ",pids").or_else(|| point("cgroup2 ", ""))?;
        let group = folder.join(format!("tests-tasks-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let made = Self(group);
        made.0.join("pids.max").exists().then_some(made)
    }

    fn bound(&self, most: &str) {
        fs::write(self.0.join("pids.max"), most).unwrap();
    }

    fn refused(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("max "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// For a while the host gives the runner no more processes: what needed one is interrupted with a word for it, everything
/// else goes on, and the next run has all of it.
#[test]
fn a_host_without_processes_interrupts_and_the_run_goes_on() {
    let Some(tasks) = Tasks::make() else {
        eprintln!("skipped: no group that bounds processes can be made here");
        return;
    };
    let lab = Lab::with_breaking_cells();
    let names: Vec<String> = (0..150).map(|number| format!("s{number:03}")).collect();
    for name in &names {
        lab.write(
            &format!("samples/{name}"),
            [fs::read("/bin/true").unwrap(), name.clone().into()].concat(),
        );
    }
    let manifest = json!({
        "hotcell": 1, "name": "tasks", "seed": 3, "samples": {"all": {"glob": "samples/*"}},
        "stages": {"run": {
            "uses": "unicorn/linux", "for-each": {"sample": "samples.all"}, "in": {"file": "${sample.file}"},
            "with": {"args": ["steady"]},
        }},
    });
    lab.manifest("m.yaml", &manifest);
    let mut command = Command::new("sh");
    let hotcell = lab.command(["run", "m.yaml", "-j", "2", "--progress", "none"]);
    command
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(tasks.0.join("cgroup.procs"))
        .arg(hotcell.get_program())
        .args(hotcell.get_args())
        .current_dir(lab.path(""))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", lab.path("home"))
        .env("HOTCELL_STORE", lab.path("store"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut runner = command.spawn().unwrap();
    let ended = |lab: &Lab| {
        let runs = fs::read_dir(lab.path(".hotcell/runs")).ok()?;
        let journal = runs
            .flatten()
            .find_map(|run| fs::read_to_string(run.path().join("journal.jsonl")).ok())?;
        Some(journal.matches("\"ended\"").count())
    };
    until("ten that ended", &mut runner, || {
        ended(&lab).filter(|count| *count >= 10)
    });
    tasks.bound("1");
    let before = tasks.refused();
    until("a process that was refused", &mut runner, || {
        (tasks.refused() > before).then_some(())
    });
    tasks.bound("max");
    assert_eq!(runner.wait().unwrap().code(), Some(3));

    let run = lab.latest();
    let mut interrupted = 0;
    for instance in &run.report.instances {
        match instance.status {
            Status::Ok => {}
            Status::Interrupted => {
                interrupted += 1;
                let reason = instance.reason.as_deref();
                assert_eq!(reason, Some("the host had no room for one more process"));
                let (found, _) = record(&run, &instance.name);
                assert_eq!((found.kind, found.ended), (FaultKind::NotStarted, None));
            }
            other => panic!(
                "{}: {other:?} {:?}",
                instance.name, run.facts.instances[&instance.name]
            ),
        }
    }
    assert!((1..140).contains(&interrupted), "{interrupted}");
    let well = run.stage("run").filter(|instance| instance.status == Status::Ok);
    let outputs: BTreeMap<String, Vec<u8>> = well
        .map(|instance| (instance.name.clone(), run.output(instance, "stdout")))
        .collect();
    // Then the host is well: what was stored stays, the rest is run.
    let again = lab.run("m.yaml", &["--progress", "none"]);
    assert_eq!(again.statuses()["ok"], interrupted);
    for instance in again.stage("run") {
        let given = again.output(instance, "stdout");
        assert!(outputs.get(&instance.name).is_none_or(|before| *before == given));
    }
}

/// What a runner left that was killed is cleared by the next run, and told.
#[test]
fn the_next_run_clears_what_a_killed_one_left() {
    let lab = Lab::with_breaking_cells();
    write(&lab, "m.yaml", &json!({ "all": stage(&["hang"], json!({})) }));
    let mut runner = start(&lab, &["run", "m.yaml", "--progress", "none"]);
    until("a cell", &mut runner, || {
        lab.processes()
            .iter()
            .any(|(_, name)| name == "hotcell-unicorn")
            .then_some(())
    });
    let pid = runner.id();
    runner.kill().unwrap();
    runner.wait().unwrap();
    let begun = Instant::now();
    while !lab.processes().is_empty() {
        assert!(begun.elapsed() < LONG, "a cell outlived its runner");
        std::thread::yield_now();
    }
    let run = fs::read_dir(lab.path(".hotcell/runs"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    fs::create_dir(run.join("result.partial")).unwrap();
    fs::write(run.join(".part-x"), "half").unwrap();
    let groups = |pid: u32| {
        let found = Command::new("find")
            .args([
                "/sys/fs/cgroup",
                "-type",
                "d",
                "-name",
                &format!("hotcell-{pid}-*"),
            ])
            .output()
            .unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    let left = groups(pid);
    write(&lab, "m.yaml", &json!({ "all": stage(&["well"], json!({})) }));
    let (_, said) = lab.expect(0, ["run", "m.yaml", "--progress", "none"]);
    assert!(said.contains("cleared: 2 files that runs were writing"), "{said}");
    assert!(!run.join("result.partial").exists() && !run.join(".part-x").exists());
    assert!(run.join("journal.jsonl").exists());
    assert_eq!(groups(pid), "", "of {left}");
    let incoming = fs::read_dir(lab.path("store/incoming")).unwrap().count();
    assert_eq!(incoming, 0);
}
