//! The executor with real cell processes, good and bad ones, in the place of the engines.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hotcell_cells::stop::StopSignal;
use hotcell_plan::{Instance, Plan};
use hotcell_run::{Done, Engines, Observer, Options, RunOutcome, execute};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_store::{Entry, Journal, RunFolder, Store};
use serde_json::{Value as Json, json};

/// A workplace: a sample, engines, a store, and room for runs.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
    engines: Engines,
    jobs: usize,
    fail_fast: bool,
    stop: StopSignal,
}

const SAMPLE: &[u8] = b"the bytes of a sample";

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // target/<profile>/deps/<this test> -> target/<profile>/examples/run-test-cell
        let cell: PathBuf = std::env::current_exe().unwrap();
        let cell = cell
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/run-test-cell");
        assert!(
            cell.exists(),
            "{} is missing; `cargo test` builds it",
            cell.display()
        );
        let libexec = folder.path().join("libexec");
        std::fs::create_dir(&libexec).unwrap();
        std::os::unix::fs::symlink(&cell, libexec.join("hotcell-unicorn")).unwrap();
        std::fs::write(folder.path().join("sample"), SAMPLE).unwrap();
        Self {
            store: Store::open(&folder.path().join("store")).unwrap(),
            engines: Engines::new(&libexec),
            folder,
            jobs: 2,
            fail_fast: false,
            stop: StopSignal::new().unwrap(),
        }
    }

    fn run(&self, plan: &Plan) -> (RunOutcome, RunFolder) {
        self.watched(plan, &Told::default())
    }

    fn watched(&self, plan: &Plan, observer: &dyn Observer) -> (RunOutcome, RunFolder) {
        let folder = RunFolder::create(&self.folder.path().join("runs"), "run").unwrap();
        let options = Options {
            jobs: self.jobs,
            fail_fast: self.fail_fast,
            hotcell: "0.0.0",
            started: "2026-01-01T00:00:00Z",
            host: "a test",
            ..Options::new(&self.store, &self.engines, self.stop.clone())
        };
        let outcome = execute(plan, &options, &folder, observer).unwrap();
        (outcome, folder)
    }

    /// A plan: for each behaviour an instance of `run`, and one of `hits` that reads its events.
    fn plan(&self, behaviours: &[&str]) -> Plan {
        let sample = Digest::of(SAMPLE);
        let arch = json!({
            "name": "x86_64", "title": "x86_64",
            "elf": {"machine": [62], "class": 64, "byte-order": "little"},
            "abi": {"family": "x86-64", "word": 64, "number": "rax", "arguments": ["rdi"], "result": "rax",
                "error": "negative", "program-counter": "rip", "stack-pointer": "rsp", "machine": "x86_64",
                "page-size": 4096, "task-size": 140737488351232_u64},
            "unicorn": {"arch": "x86", "mode": ["64"], "syscall": "instruction"},
        });
        let instance = |stage: &str, uses: &str, behaviour: &str| {
            json!({
                "name": format!("{stage}[how={behaviour}]"), "slug": behaviour, "stage": stage, "uses": uses,
                "axes": {"how": {"literal": behaviour}}, "with": {},
                "inputs": {}, "seed": Digest::of(behaviour.as_bytes()),
            })
        };
        let count = behaviours.len();
        let limits =
            json!({"guest": hotcell_schema::job::GuestLimits::default(), "wall": 60_000_000_000_u64});
        let stage = |uses: &str, first: usize, outputs: Json| {
            json!({"uses": uses, "axes": ["how"], "first": first, "count": count, "outputs": outputs,
                "limits": limits, "retries": 0})
        };
        let mut instances: Vec<Json> = Vec::new();
        for behaviour in behaviours {
            let mut run = instance("run", "unicorn/linux", behaviour);
            run["with"] = json!({"args": [behaviour]});
            run["inputs"] = json!({"file": [{"sample": 0}]});
            run["arch"] = json!("x86_64");
            instances.push(run);
        }
        for (index, behaviour) in behaviours.iter().enumerate() {
            let mut hits = instance("hits", "detect/rules", behaviour);
            hits["inputs"] = json!({"events": [{"output": {"instance": index, "port": "events"}}]});
            hits["rules"] = json!("none");
            instances.push(hits);
        }
        let plan = json!({
            "format": "hotcell-plan", "version": 2, "name": "test", "manifest": Digest::of(b"manifest"), "seed": 7,
            "samples": [{"digest": sample, "set": "all", "name": "sample", "origin": {"file": "sample"}, "length": SAMPLE.len()}],
            "stages": {
                "run": stage("unicorn/linux", 0, json!({"events": "events", "result": "json<linux-result>", "files": "files"})),
                "hits": stage("detect/rules", count, json!({"findings": "findings"})),
            },
            "instances": instances,
            "profiles": {"x86_64": arch}, "personas": {}, "file_sets": {}, "archives": [], "packages": {},
            "rule_sets": {"none": {"digest": Digest::of(b"no rules"), "files": []}},
            "expect": [],
        });
        let mut plan: Plan = serde_json::from_value(plan).unwrap();
        plan.folder = self.folder.path().to_str().unwrap().into();
        plan
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn started(&self, _: usize, instance: &Instance) {
        self.0.lock().unwrap().push(format!("started {}", instance.name));
    }
    fn ended(&self, _: usize, instance: &Instance, done: &Done) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{:?} {}", done.status, instance.name));
    }
    fn expanded(&self, _: &Instance, _: usize) {}
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, into),
                false => {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    into.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(folder, folder, &mut all);
    all
}

fn status(outcome: &RunOutcome, name: &str) -> Status {
    outcome
        .facts
        .instances
        .get(name)
        .unwrap_or_else(|| panic!("no instance {name}"))
        .status
}

fn error(outcome: &RunOutcome, name: &str) -> String {
    outcome
        .facts
        .instances
        .get(name)
        .unwrap()
        .error
        .clone()
        .unwrap_or_default()
}

#[test]
fn what_a_cell_gives_is_the_result_and_stored() {
    let place = Place::new();
    let plan = place.plan(&["well", "some-events"]);
    let told = Told::default();
    let (first, folder) = place.watched(&plan, &told);
    assert_eq!(first.count(&[Status::Ok]), 4, "{:#?}", first.facts.instances);
    assert_eq!(told.0.lock().unwrap().len(), 8);
    let result = files(&folder.result());
    assert_eq!(result["stages/run/well/stdout"], SAMPLE);
    assert_eq!(result["stages/run/well/stderr"], b"");
    let dropped = format!("stages/run/well/files/{}", Digest::of(b"left behind"));
    assert_eq!(result[&dropped], b"left behind");
    let events = String::from_utf8(result["stages/run/some-events/events.jsonl"].clone()).unwrap();
    assert_eq!(events.lines().count(), 1 + 3_000);
    assert!(
        events.starts_with(r#"{"format":"hotcell-events","version":1,"cell":"run[how=some-events]""#),
        "{}",
        &events[..200]
    );
    assert!(result.contains_key("report.json"));
    assert!(result.contains_key("stages/hits/well/findings.json"));

    let (second, again) = place.run(&plan);
    assert_eq!(
        second.count(&[Status::Cached]),
        4,
        "{:#?}",
        second.facts.instances
    );
    assert_eq!(files(&again.result()), result);
}

#[test]
fn the_result_does_not_depend_on_how_many_run_at_once() {
    let mut results = Vec::new();
    for jobs in [1, 4] {
        let mut place = Place::new();
        place.jobs = jobs;
        let plan = place.plan(&[
            "well",
            "some-events",
            "garbage",
            "give-up",
            "abort",
            "large-result",
        ]);
        let (_, folder) = place.run(&plan);
        results.push(files(&folder.result()));
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn a_bad_cell_fails_alone_and_is_not_stored() {
    let place = Place::new();
    let bad = [
        ("garbage", "a frame of"),
        ("abort", "ended without a result"),
        ("give-up", "no wish to go on"),
        ("unknown-port", "which its stage type does not have"),
        ("result-names-missing-file", "did not hand over"),
        ("events-out-of-order", "out of sequence"),
        ("output-announces-too-much", "bytes of outputs"),
        ("process:fork", "SIGSYS"),
    ];
    let mut behaviours = vec!["well"];
    behaviours.extend(bad.iter().map(|(how, _)| *how));
    let plan = place.plan(&behaviours);
    let (outcome, _) = place.run(&plan);
    assert_eq!(status(&outcome, "hits[how=well]"), Status::Ok);
    for (how, why) in bad {
        let name = format!("run[how={how}]");
        assert_eq!(
            status(&outcome, &name),
            Status::Failed,
            "{how}: {}",
            error(&outcome, &name)
        );
        assert!(
            error(&outcome, &name).contains(why),
            "{how}: {}",
            error(&outcome, &name)
        );
        assert_eq!(status(&outcome, &format!("hits[how={how}]")), Status::Skipped);
        let told = outcome
            .report
            .instances
            .iter()
            .find(|told| told.name == format!("hits[how={how}]"))
            .unwrap();
        assert!(told.reason.as_ref().unwrap().contains(&name), "{told:?}");
    }
    let (again, _) = place.run(&plan);
    assert_eq!(status(&again, "run[how=well]"), Status::Cached);
    assert_eq!(again.count(&[Status::Failed]), bad.len());
}

#[test]
fn fail_fast_begins_nothing_more() {
    let mut place = Place::new();
    place.fail_fast = true;
    place.jobs = 1;
    let plan = place.plan(&["garbage", "well"]);
    let (outcome, _) = place.run(&plan);
    assert_eq!(status(&outcome, "run[how=garbage]"), Status::Failed);
    assert_eq!(status(&outcome, "run[how=well]"), Status::Skipped);
}

#[test]
fn a_wall_limit_interrupts_and_is_tried_again_as_often_as_asked() {
    let place = Place::new();
    let mut plan = place.plan(&["hang"]);
    let stage = plan.stages.get_mut("run").unwrap();
    stage.limits.wall = Some(200_000_000);
    stage.retries = 2;
    let (outcome, _) = place.run(&plan);
    assert_eq!(status(&outcome, "run[how=hang]"), Status::Interrupted);
    assert!(outcome.facts.instances["run[how=hang]"].wall_s >= 0.6);
    assert_eq!(status(&outcome, "hits[how=hang]"), Status::Skipped);
}

#[test]
fn damaged_objects_are_made_again_and_never_used() {
    let place = Place::new();
    let plan = place.plan(&["well", "some-events"]);
    let (_, folder) = place.run(&plan);
    let result = files(&folder.result());
    // Every object of the store gets a damaged byte at its end.
    let objects = place.folder.path().join("store/objects");
    for (name, mut bytes) in files(&objects) {
        *bytes.last_mut().unwrap() ^= 0xff;
        std::fs::write(objects.join(name), bytes).unwrap();
    }
    let (outcome, again) = place.run(&plan);
    for name in ["run[how=well]", "run[how=some-events]"] {
        assert_eq!(status(&outcome, name), Status::Ok, "{name}");
    }
    // Both have the same findings, one object: the second may find it made again.
    for name in ["hits[how=well]", "hits[how=some-events]"] {
        assert!(status(&outcome, name).has_outputs(), "{name}");
    }
    assert_eq!(files(&again.result()), result);
}

#[test]
fn a_stop_request_ends_the_run_and_the_next_run_goes_on_from_there() {
    struct StopAt(StopSignal);
    impl Observer for StopAt {
        fn started(&self, _: usize, instance: &Instance) {
            if instance.name == "run[how=until-stopped]" {
                self.0.request();
            }
        }
        fn ended(&self, _: usize, _: &Instance, _: &Done) {}
        fn expanded(&self, _: &Instance, _: usize) {}
    }
    let mut place = Place::new();
    place.jobs = 1;
    let plan = place.plan(&["well", "until-stopped", "some-events"]);
    let (outcome, folder) = place.watched(&plan, &StopAt(place.stop.clone()));
    assert!(outcome.stopped);
    assert_eq!(status(&outcome, "run[how=well]"), Status::Ok);
    assert_eq!(status(&outcome, "run[how=until-stopped]"), Status::Interrupted);
    assert_eq!(status(&outcome, "run[how=some-events]"), Status::Interrupted);
    let entries = Journal::read(&folder.journal()).unwrap();
    assert!(entries.contains(&Entry::StopRequested));
    assert_eq!(entries.last(), Some(&Entry::Finished));

    place.stop = StopSignal::new().unwrap();
    let (outcome, _) = place.run(&place.plan(&["well", "some-events"]));
    assert_eq!(status(&outcome, "run[how=well]"), Status::Cached);
    assert_eq!(status(&outcome, "run[how=some-events]"), Status::Ok);
}

#[test]
fn an_engine_that_is_not_there_is_refused_with_what_to_do() {
    let mut place = Place::new();
    place.engines = Engines::new(&place.folder.path().join("nowhere"));
    let (outcome, _) = place.run(&place.plan(&["well"]));
    assert_eq!(status(&outcome, "run[how=well]"), Status::Refused);
    assert!(error(&outcome, "run[how=well]").contains("HOTCELL_LIBEXEC"));
    assert_eq!(status(&outcome, "hits[how=well]"), Status::Skipped);
}

#[test]
fn a_sample_that_changed_since_the_plan_is_noticed() {
    let place = Place::new();
    let plan = place.plan(&["well"]);
    std::fs::write(place.folder.path().join("sample"), "other bytes of a sample").unwrap();
    let (outcome, _) = place.run(&plan);
    assert_eq!(status(&outcome, "run[how=well]"), Status::Failed);
    assert!(error(&outcome, "run[how=well]").contains("not what it was"));
}

#[test]
fn an_observer_that_panics_does_not_hang_the_run() {
    struct Panics;
    impl Observer for Panics {
        fn started(&self, index: usize, _: &Instance) {
            assert_ne!(index, 0, "as asked");
        }
        fn ended(&self, _: usize, _: &Instance, _: &Done) {}
        fn expanded(&self, _: &Instance, _: usize) {}
    }
    let place = Place::new();
    let plan = place.plan(&["well", "some-events", "large-result"]);
    // Everything else ends; the panic comes out of `execute`.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| place.watched(&plan, &Panics)));
    assert!(ended.is_err());
}
