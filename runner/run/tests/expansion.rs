//! Axes that are expanded at run time, with a real cell process in the place of the engine: it leaves every line of the
//! program that it is given as a file, and of a single line every part between commas.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use hotcell_cells::stop::StopSignal;
use hotcell_plan::{Instance, Profiles, load, load_text, plan};
use hotcell_run::{Detail, Done, Engines, Forecast, Observer, Options, RunOutcome, execute, forecast};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_store::{Entry, Journal, RunFolder, Store};

struct Silent;

impl Observer for Silent {
    fn started(&self, _: usize, _: &Instance) {}
    fn ended(&self, _: usize, _: &Instance, _: &Done) {}
    fn expanded(&self, _: &Instance, _: usize) {}
}

struct Place {
    folder: tempfile::TempDir,
    store: Store,
    engines: Engines,
}

impl Place {
    fn new(sample: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // target/<profile>/deps/<this test> -> target/<profile>/examples/run-test-cell
        let test: PathBuf = std::env::current_exe().unwrap();
        let cell = test
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/run-test-cell");
        let libexec = folder.path().join("libexec");
        std::fs::create_dir(&libexec).unwrap();
        std::os::unix::fs::symlink(&cell, libexec.join("hotcell-unicorn")).unwrap();
        std::fs::write(folder.path().join("sample"), sample).unwrap();
        Self {
            store: Store::open(&folder.path().join("store")).unwrap(),
            engines: Engines::new(&libexec),
            folder,
        }
    }

    fn plan(&self, stages: &str) -> hotcell_plan::Plan {
        let text =
            format!("hotcell = 1\nname = \"expansion\"\nsamples.all = {{ glob = \"sample\" }}\n{stages}");
        let path = self.folder.path().join("expansion.toml");
        let mut loaded = load_text(path.to_str().unwrap().into(), &text, &load::Options::default());
        let plan = plan(&mut loaded, &Profiles::shipped());
        let problems: Vec<String> = loaded
            .diagnostics
            .iter()
            .map(|one| one.plain(&loaded.sources))
            .collect();
        plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
    }

    fn with_options<T>(&self, jobs: usize, use_them: impl FnOnce(&Options<'_>) -> T) -> T {
        let profiles = Profiles::shipped();
        let options = Options {
            jobs,
            profiles: profiles.all(),
            ..Options::new(&self.store, &self.engines, StopSignal::new().unwrap())
        };
        use_them(&options)
    }

    fn run(&self, stages: &str, jobs: usize) -> (RunOutcome, RunFolder) {
        let plan = self.plan(stages);
        let folder = RunFolder::create(&self.folder.path().join("runs"), "run").unwrap();
        let outcome = self.with_options(jobs, |options| execute(&plan, options, &folder, &Silent).unwrap());
        (outcome, folder)
    }
}

const FIRST: &str = r#"
[stages.run]
uses = "unicorn/linux"
for-each.sample = "samples.all"
in.file = "${sample.file}"
with = { arch = "x86_64", args = ["parts"] }
"#;

const LAYERS: &str = r#"
[stages.layers]
uses = "unicorn/linux"
for-each.sample = "samples.all"
for-each.item = { over = ["stages.run.out.files", "stages.layers.out.files"] }
max-depth = 3
in.file = "${item.file}"
when = "item.length > 0"
with = { arch = "x86_64", args = ["parts", "${item.name}"] }

[stages.after]
uses = "detect/rules"
for-each.sample = "samples.all"
for-each.item = { over = ["stages.run.out.files", "stages.layers.out.files"] }
in.events = "stages.layers.out.events"
"#;

fn item(sample: &str, stage: &str, text: &str) -> String {
    format!(
        "{stage}[item={},sample={}]",
        Digest::of(text.as_bytes()),
        Digest::of(sample.as_bytes())
    )
}

#[test]
fn files_become_instances_level_by_level_and_each_once() {
    let sample = "a,b\nc\na,b\nd,a\n";
    let place = Place::new(sample);
    let (outcome, folder) = place.run(FIRST, 2);
    assert_eq!(outcome.count(&[Status::Ok]), 1, "{:?}", outcome.facts.instances);
    drop(folder);
    let stages = format!("{FIRST}{}", LAYERS.split("\n[stages.after]").next().unwrap());
    let (outcome, folder) = place.run(&stages, 2);
    let names: Vec<&str> = outcome
        .report
        .instances
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let expected: Vec<String> = ["a,b", "c", "d,a", "", "a", "b", "d"]
        .iter()
        .map(|text| item(sample, "layers", text))
        .collect();
    assert_eq!(
        names[1..],
        expected.iter().map(String::as_str).collect::<Vec<_>>()
    );
    // The empty one is not wanted.
    assert_eq!(outcome.facts.instances[&expected[3]].status, Status::Skipped);
    let expanded: Vec<(u8, usize)> = Journal::read(&folder.journal())
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Expanded { level, items, .. } => Some((level, items.len())),
            _ => None,
        })
        .collect();
    assert_eq!(expanded, [(1, 4), (2, 3), (3, 0)]);
    // Again: all is stored, and foreseen.
    let plan = place.plan(&stages);
    let foreseen = place.with_options(1, |options| forecast(&plan, options, Detail::Keys).unwrap());
    let cached = foreseen
        .iter()
        .filter(|one| matches!(one.forecast, Forecast::Cached { .. }))
        .count();
    assert_eq!(cached, 7);
    let (again, second) = place.run(&stages, 1);
    assert_eq!(again.count(&[Status::Cached]), 7);
    let read = |folder: &RunFolder| std::fs::read(folder.result().join("report.json")).unwrap();
    assert_eq!(read(&folder), read(&second));
}

#[test]
fn what_is_over_the_limit_is_left_out_and_told() {
    let sample = "a\nb\nc\nd\ne";
    let place = Place::new(sample);
    let stages = format!("{FIRST}{}", LAYERS.split("\n[stages.after]").next().unwrap());
    let stages = stages.replace("max-depth = 3", "max-depth = 3\nmax-items = 2");
    let (outcome, _) = place.run(&stages, 2);
    let point = outcome
        .report
        .instances
        .iter()
        .find(|one| one.name.contains("item=*"))
        .unwrap();
    assert_eq!(
        point.reason.as_deref(),
        Some("3 more items were left out: `max-items` is 2")
    );
    assert_eq!(outcome.report.instances.len(), 4);
}

#[test]
fn what_several_levels_leave_out_is_counted_once() {
    // The first level takes both lines; the second one finds `c` in both, and the first line's other part again.
    let sample = "a,c,d\nb,c,e\nc\nd";
    let place = Place::new(sample);
    let stages = format!("{FIRST}{}", LAYERS.split("\n[stages.after]").next().unwrap());
    let stages = stages.replace("max-depth = 3", "max-depth = 3\nmax-items = 2");
    let (outcome, folder) = place.run(&stages, 2);
    let point = outcome.report.instances.iter();
    let point = point.clone().find(|one| one.name.contains("item=*")).unwrap();
    // Of the sample `c` and `d`; of its lines also `a`, `b` and `e`.
    assert_eq!(
        point.reason.as_deref(),
        Some("5 more items were left out: `max-items` is 2")
    );
    let told: Vec<u64> = Journal::read(&folder.journal())
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Expanded { left_out, .. } => Some(left_out),
            _ => None,
        })
        .collect();
    assert_eq!(told, [2, 5]);
}

#[test]
fn a_failed_first_stage_leaves_nothing_to_expand() {
    let place = Place::new("x\ny");
    let stages = format!("{}{LAYERS}", FIRST.replace("\"parts\"", "\"abort\""));
    let (outcome, _) = place.run(&stages, 2);
    let ends: Vec<(&str, Status)> = outcome
        .report
        .instances
        .iter()
        .map(|one| (one.stage.as_str(), one.status))
        .collect();
    assert_eq!(
        ends,
        [
            ("run", Status::Failed),
            ("layers", Status::Skipped),
            ("after", Status::Skipped)
        ]
    );
}

#[test]
fn what_is_read_as_a_whole_has_no_gaps() {
    let place = Place::new("x");
    let stages = r#"
[stages.one]
uses = "unicorn/linux"
for-each.how = ["well", "abort"]
in.file = "stages.base.out.stdout"
with = { arch = "x86_64", args = ["${how}"] }

[stages.two]
uses = "unicorn/linux"
for-each.how = ["well", "abort"]
when = "how != 'nothing'"
in.file = "stages.one.out.stdout"
with = { arch = "x86_64", args = ["well"] }

[stages.all]
uses = "unicorn/linux"
in.file = "stages.base.out.stdout"
needs = ["two"]
with = { arch = "x86_64", args = ["well"] }

[stages.base]
uses = "unicorn/linux"
for-each.sample = "samples.all"
in.file = "${sample.file}"
with = { arch = "x86_64", args = ["well"] }
"#;
    let stages = stages
        .replace("stages.base.out.stdout", "${sample.file}")
        .replace(
            "in.file = \"${sample.file}\"\nneeds",
            "for-each.sample = \"samples.all\"\nin.file = \"${sample.file}\"\nneeds",
        )
        .replace(
            "for-each.how = [\"well\", \"abort\"]",
            "for-each.sample = \"samples.all\"\nfor-each.how = [\"well\", \"abort\"]",
        );
    let (outcome, _) = place.run(&stages, 2);
    let status = |stage: &str| -> Vec<Status> {
        let all = outcome.report.instances.iter().filter(|one| one.stage == stage);
        all.map(|one| one.status).collect()
    };
    assert_eq!(status("one"), [Status::Ok, Status::Failed]);
    assert_eq!(status("two"), [Status::Ok, Status::Skipped]);
    // `two` was not unwanted there: what it reads failed.
    assert_eq!(status("all"), [Status::Skipped]);
}

#[test]
fn stages_with_the_same_items_meet_and_fan_in_takes_all() {
    let sample = "a,b\nc";
    let place = Place::new(sample);
    let stages = format!("{FIRST}{LAYERS}");
    let (outcome, _) = place.run(&stages, 2);
    for text in ["a,b", "c", "a", "b"] {
        let facts = &outcome.facts.instances[&item(sample, "after", text)];
        // The stand-in's events are no events of a program that did anything; the stage reads them all the same.
        assert!(
            facts.status.has_outputs(),
            "{text}: {:?} {:?}",
            facts.status,
            facts.error
        );
    }
    assert_eq!(outcome.report.instances.len(), 9);
}

#[test]
fn what_lies_too_deep_is_left_out_and_told() {
    // Lines, then their parts: with one level the parts are left out.
    let place = Place::new("a,c,d\nb,c,e");
    let stages = format!("{FIRST}{}", LAYERS.split("\n[stages.after]").next().unwrap());
    let stages = stages.replace("max-depth = 3", "max-depth = 1");
    let (outcome, folder) = place.run(&stages, 2);
    let point = outcome.report.instances.iter();
    let point = point.clone().find(|one| one.name.contains("item=*")).unwrap();
    // `a`, `c`, `d`, `b` and `e`.
    assert_eq!(
        point.reason.as_deref(),
        Some("5 deeper items were left out: `max-depth` is 1")
    );
    assert_eq!(point.status, Status::Ok);
    // The first stage, the point, and the two lines.
    assert_eq!(outcome.report.instances.len(), 4);
    let told = Journal::read(&folder.journal()).unwrap().into_iter().rev();
    let told = told.clone().find_map(|entry| match entry {
        Entry::Expanded { left_out, .. } => Some(left_out),
        _ => None,
    });
    assert_eq!(told, Some(5));
}
