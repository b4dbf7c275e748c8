//! Goldens, expectations and diffs over hand-made reports.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use hotcell_judge::contents::{Contents, NoContents};
use hotcell_judge::diff::{self, Side};
use hotcell_judge::expect::{Context, check};
use hotcell_judge::golden::{Accepted, Goldens, Judged, Run};
use hotcell_judge::text::{self, Style};
use hotcell_judge::{html, junit};
use hotcell_schema::diff::Change;
use hotcell_schema::digest::Digest;
use hotcell_schema::finding::{Evidence, Finding, Severity};
use hotcell_schema::manifest::{Expectation, Hits, Presence, Spanned};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, OutputReport, Report, SampleReport, Selection};
use hotcell_schema::verdict::{Check, Tally, Verdict};
use indexmap::IndexMap;

fn instance(stage: &str, uses: &str) -> InstanceReport {
    InstanceReport {
        name: format!("{stage}[scene=a]"),
        stage: stage.into(),
        uses: uses.into(),
        axes: [("scene".to_owned(), "a".to_owned())].into_iter().collect(),
        sample: None,
        arch: Some("mipsel".into()),
        status: Status::Ok,
        reason: None,
        outcome: None,
        outputs: IndexMap::new(),
        findings: Vec::new(),
        responses: Vec::new(),
        unsupported: Vec::new(),
        behaviour: Vec::new(),
    }
}

fn report_of(instances: Vec<InstanceReport>) -> Report {
    Report {
        format: "hotcell-report".into(),
        version: 1,
        name: "test".into(),
        manifest: Digest::of(b"manifest"),
        seed: 7,
        hotcell: "0".into(),
        variants: Vec::new(),
        selection: None,
        engines: IndexMap::new(),
        samples: IndexMap::new(),
        instances,
        attack: IndexMap::new(),
    }
}

fn report() -> Report {
    let mut run = instance("run", "unicorn/linux");
    run.outcome = Some(Outcome::Exited(0));
    run.behaviour = vec!["file/written /etc/cron.d/x".into(), "process/exec /bin/sh".into()];
    let mut hits = instance("hits", "detect/rules");
    hits.findings = vec![Finding {
        rule: "persistence-cron".into(),
        title: "Wrote where cron looks for jobs".into(),
        severity: Severity::High,
        attack: vec!["T1053.003".into()],
        evidence: vec![Evidence {
            event: Some(7),
            offset: None,
            text: "wrote /etc/cron.d/x".into(),
        }],
    }];
    report_of(vec![run, hits])
}

/// Outputs by their digest.
#[derive(Default)]
struct Kept(Vec<Vec<u8>>);

impl Kept {
    fn give(&mut self, instance: &mut InstanceReport, port: &str, path: &str, bytes: &[u8]) {
        let output = OutputReport {
            path: path.into(),
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
        };
        instance.outputs.insert(port.into(), output);
        self.0.push(bytes.to_vec());
    }
}

impl Contents for Kept {
    fn output(&self, output: &OutputReport, limit: u64) -> Option<Vec<u8>> {
        self.object(&output.digest, limit)
    }

    fn object(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let found = self.0.iter().find(|bytes| Digest::of(bytes) == *digest)?;
        (found.len() as u64 <= limit).then(|| found.clone())
    }
}

fn run<'a>(report: &'a Report) -> Run<'a> {
    Run {
        report,
        contents: &NoContents,
    }
}

fn exact(folder: &std::path::Path, stages: &[&str]) -> Goldens {
    let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
    Goldens::new(folder.to_owned(), Vec::new(), stages, BTreeSet::new(), true)
}

fn tally(judged: &[Judged]) -> (usize, usize, usize) {
    let checks: Vec<Check> = judged.iter().map(|judged| judged.check.clone()).collect();
    let Tally {
        met,
        not_met,
        not_judged,
    } = Tally::of(&checks);
    (met, not_met, not_judged)
}

fn lines(changes: &[Change]) -> Vec<String> {
    let all = changes.iter().flat_map(|change| text::lines(change, Style::FULL));
    all.map(|line| line.text).collect()
}

fn all_lines(judged: &[Judged]) -> Vec<String> {
    let not_met = judged.iter().filter_map(|judged| match &judged.check.verdict {
        Verdict::NotMet(changes) => Some(lines(changes)),
        _ => None,
    });
    not_met.flatten().collect()
}

#[test]
fn a_golden_is_new_then_met_then_says_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(&folder.path().join("golden/test"), &[]);
    let mut report = report();
    let first = goldens.judge(run(&report)).unwrap();
    assert_eq!(tally(&first), (0, 2, 0), "no golden yet is not a success");
    assert_eq!(first[0].check.name, "run/a.unicorn-linux.json");
    assert_eq!(goldens.accept(&[run(&report)], false).unwrap().len(), 2);
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (2, 0, 0));
    assert_eq!(
        goldens.accept(&[run(&report)], false).unwrap(),
        [],
        "accepting the same changes nothing"
    );

    report.instances[0].behaviour[0] = "file/written /etc/cron.d/y".into();
    report.instances[0].outcome = Some(Outcome::Signalled("SIGSEGV".into()));
    report.instances[1].findings[0].severity = Severity::Low;
    let judged = goldens.judge(run(&report)).unwrap();
    assert_eq!(
        all_lines(&judged),
        [
            "outcome: exited 0 → signalled SIGSEGV",
            "behaviour",
            "  - file/written /etc/cron.d/x",
            "  + file/written /etc/cron.d/y",
            "    process/exec /bin/sh",
            "findings[persistence-cron].severity: high → low",
        ]
    );
    // Only what changed is written.
    report.instances[1].findings[0].severity = Severity::High;
    let [Accepted::Written(path)] = &goldens.accept(&[run(&report)], false).unwrap()[..] else {
        panic!("one file")
    };
    assert!(path.ends_with("run/a.unicorn-linux.json"));
}

#[test]
fn outputs_are_shown_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &["run"]);
    let (mut old, mut new) = (report(), report());
    let (mut before, mut after) = (Kept::default(), Kept::default());
    let long = "a line\n".repeat(1_000);
    for (report, kept, word, number) in [
        (&mut old, &mut before, "hello", "1"),
        (&mut new, &mut after, "hallo", "2"),
    ] {
        let one = &mut report.instances[0];
        kept.give(
            one,
            "stdout",
            "stages/run/a/stdout",
            format!("{word}\nyou\n").as_bytes(),
        );
        kept.give(
            one,
            "stderr",
            "stages/run/a/stderr",
            format!("{long}{word}\n").as_bytes(),
        );
        let json = format!("{{\"registers\":{{\"eax\":{number}}}}}");
        kept.give(one, "result", "stages/run/a/result.json", json.as_bytes());
        kept.give(one, "dump", "stages/run/a/dump", &[0, number.as_bytes()[0]]);
    }
    let accepted = Run {
        report: &old,
        contents: &before,
    };
    goldens.accept(&[accepted], false).unwrap();
    // Short texts stand in the golden; the long one is not at hand any more.
    let now = Run {
        report: &new,
        contents: &after,
    };
    let told = all_lines(&goldens.judge(now).unwrap());
    for line in [
        "outputs.stdout",
        "  - hello",
        "  + hallo",
        "    you",
        "outputs.result.registers.eax: 1 → 2",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
    assert!(
        told.iter()
            .any(|line| line.starts_with("outputs.stderr: ") && line.contains("(7006 bytes)"))
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("outputs.dump: ") && line.contains("(2 bytes)"))
    );
    // Where the store still has it, it is shown too.
    after.0.append(&mut before.0);
    let now = Run {
        report: &new,
        contents: &after,
    };
    let judged = goldens.judge(now).unwrap();
    let told = all_lines(&judged);
    let at = told.iter().position(|line| line == "outputs.stderr").unwrap();
    assert_eq!(told[at + 1], "  … 997 lines that are the same");
    // And on a page, and for a CI service.
    let checks: Vec<Check> = judged.into_iter().map(|judged| judged.check).collect();
    let page = html::of_checks("test <1>", &checks).unwrap();
    assert!(page.contains("hallo") && page.contains("test &lt;1&gt;") && !page.contains("<1>"));
    let xml = junit::junit("test", &checks).unwrap();
    assert!(
        xml.contains("- hello") && xml.contains("classname=\"run[scene=a]\""),
        "{xml}"
    );
}

#[test]
fn what_did_not_run_is_not_judged_and_keeps_its_golden() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &["run"]);
    let mut report = report();
    assert_eq!(
        goldens.accept(&[run(&report)], false).unwrap().len(),
        1,
        "only the chosen stage"
    );
    for (status, reason) in [
        (Status::Interrupted, "the limit of wall time was met"),
        (Status::Skipped, "absent: the sample is not in its source"),
    ] {
        report.instances[0].status = status;
        report.instances[0].reason = Some(reason.into());
        let judged = goldens.judge(run(&report)).unwrap();
        assert!(matches!(&judged[0].check.verdict, Verdict::NotJudged(why) if why.contains(reason)));
        assert_eq!(goldens.accept(&[run(&report)], true).unwrap(), []);
    }
    report.instances[0].status = Status::Ok;
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (1, 0, 0));
}

#[test]
fn a_golden_without_an_instance_and_a_damaged_one_are_changes() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &[]);
    let mut report = report();
    let accepted = goldens.accept(&[run(&report)], false).unwrap();
    let Accepted::Written(path) = &accepted[0] else {
        panic!("{accepted:?}")
    };
    fs_err::write(path, "{").unwrap();
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (1, 1, 0));
    report.instances.pop();
    let judged = goldens.judge(run(&report)).unwrap();
    assert_eq!(tally(&judged), (0, 2, 0), "one damaged, one stale");
    // A part of the experiment says nothing about the rest.
    let part = Goldens::new(
        folder.path().to_owned(),
        Vec::new(),
        Vec::new(),
        BTreeSet::new(),
        false,
    );
    assert_eq!(tally(&part.judge(run(&report)).unwrap()), (0, 1, 0));
    let done = goldens.accept(&[run(&report)], false).unwrap();
    assert!(
        matches!(&done[..], [Accepted::Written(_), Accepted::Removed(_)]),
        "{done:?}"
    );
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (1, 0, 0));
}

/// Goldens whose names hold fewer digits are those of before: they are found, compared and written under that name, unless
/// two instances had it.
#[test]
fn goldens_of_shorter_names_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &[]);
    let mut report = report();
    let digest = Digest::of(b"sample").to_string();
    let twin = format!("{}{}", &digest[..12], "0".repeat(52));
    let named = |id: &str, outcome| {
        let mut one = instance("run", "unicorn/linux");
        one.outcome = Some(outcome);
        one.axes = [("item".to_owned(), id.to_owned())].into_iter().collect();
        one.name = format!("run[item={id}]");
        one
    };
    report.instances = vec![named(&digest, Outcome::Exited(0))];
    goldens.accept(&[run(&report)], false).unwrap();
    let file = |name: &str| folder.path().join(format!("run/{name}.unicorn-linux.json"));
    let (new, old) = (file(&digest[..32]), file(&digest[..12]));
    assert!(new.is_file(), "new goldens have the longer name");
    std::fs::rename(&new, &old).unwrap();
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (1, 0, 0));
    report.instances = vec![named(&digest, Outcome::Exited(1))];
    assert_eq!(tally(&goldens.judge(run(&report)).unwrap()), (0, 1, 0));
    goldens.accept(&[run(&report)], false).unwrap();
    assert!(old.is_file() && !new.exists(), "it keeps its name");
    // Another of the same shorter name: whose it is stands in it.
    report.instances.push(named(&twin, Outcome::Exited(0)));
    let judged = goldens.judge(run(&report)).unwrap();
    let paths: BTreeSet<_> = judged.iter().map(|judged| judged.path.clone()).collect();
    assert_eq!(paths, BTreeSet::from([file(&twin[..32]), old]));
}

fn sample(digest: Digest, name: &str) -> SampleReport {
    SampleReport {
        digest,
        set: "bots".into(),
        sets: Vec::new(),
        name: name.into(),
        length: 6,
        arch: None,
        family: None,
        variant: None,
        label: None,
        severity: None,
    }
}

/// A sample is its digest: its golden is found when its file has another name, and when it is not there at all.
#[test]
fn a_golden_is_found_by_the_digest_of_its_sample() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &[]);
    let digest = Digest::of(b"sample");
    let report = |name: &str, status| {
        let mut report = report();
        report.samples.insert(digest.to_string(), sample(digest, name));
        let one = &mut report.instances[0];
        one.axes = [("sample".to_owned(), digest.to_string())].into_iter().collect();
        one.name = format!("run[sample={digest}]");
        one.status = status;
        report.instances.truncate(1);
        report
    };
    let accepted = goldens.accept(&[run(&report("bot", Status::Ok))], false).unwrap();
    let [Accepted::Written(path)] = &accepted[..] else {
        panic!("{accepted:?}")
    };
    assert!(path.to_str().unwrap().contains("run/bot-"), "{path:?}");
    let renamed = report("other", Status::Ok);
    assert_eq!(tally(&goldens.judge(run(&renamed)).unwrap()), (1, 0, 0));
    assert_eq!(goldens.accept(&[run(&renamed)], false).unwrap(), []);
    // Of a sample that is not there the list knows no name.
    let absent = report(&digest.short(), Status::Skipped);
    assert_eq!(tally(&goldens.judge(run(&absent)).unwrap()), (0, 0, 1));
    assert_eq!(goldens.accept(&[run(&absent)], true).unwrap(), []);
    assert!(path.is_file());
    // What changed is written where the golden is.
    let mut changed = renamed.clone();
    changed.instances[0].outcome = Some(Outcome::Exited(3));
    assert_eq!(
        goldens.accept(&[run(&changed)], false).unwrap(),
        [Accepted::Written(path.clone())]
    );
    assert_eq!(tally(&goldens.judge(run(&changed)).unwrap()), (1, 0, 0));
    // Another engine is another golden.
    changed.instances[0].uses = "qemu-user/linux".into();
    assert_eq!(tally(&goldens.judge(run(&changed)).unwrap()), (0, 2, 0));
}

#[test]
fn what_differs_from_run_to_run_is_no_exact_golden() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &["run"]);
    let first = report();
    let mut second = report();
    second.instances[0].behaviour[0] = "file/written /etc/cron.d/y".into();
    for _ in 0..2 {
        let done = goldens.accept(&[run(&first), run(&second)], true).unwrap();
        let [Accepted::Refused(check)] = &done[..] else {
            panic!("{done:?}")
        };
        let Verdict::NotMet(changes) = &check.verdict else {
            panic!("{check:?}")
        };
        let told = lines(changes);
        assert!(told[0].contains("with.observed = true"), "{told:?}");
        assert!(
            told.contains(&"  + file/written /etc/cron.d/y".to_owned()),
            "{told:?}"
        );
        assert!(
            !folder.path().join("run").exists() || tally(&goldens.judge(run(&first)).unwrap()) == (1, 0, 0)
        );
        // One that is met by the first of the runs is refused all the same.
        goldens.accept(&[run(&first)], false).unwrap();
    }
    let same = [run(&second), run(&second)];
    assert!(matches!(
        &goldens.accept(&same, true).unwrap()[..],
        [Accepted::Written(_)]
    ));
}

#[test]
fn file_names_do_not_depend_on_who_came_first() {
    let mut report = report();
    let digest = Digest::of(b"sample");
    report
        .samples
        .insert(digest.to_string(), sample(digest, "bot one"));
    let named = |axes: &[(&str, String)]| {
        let mut one = instance("run", "unicorn/linux");
        one.outcome = Some(Outcome::Exited(0));
        one.axes = axes
            .iter()
            .map(|(axis, value)| ((*axis).to_owned(), value.clone()))
            .collect();
        one.name = format!("run{axes:?}");
        one
    };
    // Two values that are the same in a file name.
    report.instances = vec![
        named(&[("sample", digest.to_string()), ("scene", "a".into())]),
        named(&[("a", "x".into()), ("b", "y_z".into())]),
        named(&[("a", "x_y".into()), ("b", "z".into())]),
        named(&[("a", "same".into())]),
        named(&[("b", "same".into())]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &[]);
    let names = |report: &Report| -> BTreeSet<String> {
        let judged = goldens.judge(run(report)).unwrap();
        judged.into_iter().map(|judged| judged.check.name).collect()
    };
    let forwards = names(&report);
    assert_eq!(forwards.len(), 5, "{forwards:?}");
    let digits = hotcell_schema::names::file_digits(&digest);
    assert!(forwards.contains(&format!("run/bot-one-{digits}_a.unicorn-linux.json")));
    report.instances.reverse();
    assert_eq!(forwards, names(&report));
    let short = report.short_name(&report.instances[4]);
    assert_eq!(
        short,
        format!("run[sample=bot one-{},scene=a]", &digest.to_string()[..8])
    );
}

#[test]
fn a_review_accepts_part_by_part() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = exact(folder.path(), &[]);
    let mut report = report();
    // A new golden is one decision, a stale one too.
    let mut judged = goldens.judge(run(&report)).unwrap();
    let steps = judged[0].steps();
    assert_eq!(steps.len(), 1);
    assert!(
        lines(&steps[0].changes)
            .iter()
            .any(|line| line.contains("exited"))
    );
    judged[0].accept_step(&steps[0]).unwrap();
    goldens.accept(&[run(&report)], false).unwrap();
    report.instances[0].outcome = Some(Outcome::Exited(9));
    report.instances[0].behaviour.pop();
    report.instances.pop();
    let mut judged = goldens.judge(run(&report)).unwrap();
    let parts: Vec<Vec<String>> = judged
        .iter()
        .map(|judged| judged.steps().into_iter().map(|step| step.part).collect())
        .collect();
    assert_eq!(parts, [vec!["outcome", "behaviour"], vec!["golden"]]);
    let step = judged[0].steps().remove(1);
    judged[0].accept_step(&step).unwrap();
    let step = judged[1].steps().remove(0);
    judged[1].accept_step(&step).unwrap();
    let left = goldens.judge(run(&report)).unwrap();
    assert_eq!(all_lines(&left), ["outcome: exited 0 → exited 9"]);
}

#[test]
fn expectations_choose_and_judge() {
    let report = report();
    let context = Context {
        evaluate: &|expression, values| Ok(expression == "scene == 'a'" && values["scene"] == "a"),
        axis: &|_, axis| (axis == "cpu").then(|| serde_json::json!({"arch": "x86"})),
        read: &|_, _| None,
    };
    let filter = |text: &str| {
        Some(Spanned {
            value: text.to_owned(),
            span: Default::default(),
        })
    };
    let met = Expectation {
        filter: filter("scene == 'a'"),
        hits: Some(Hits {
            all: vec!["persistence-cron".into()],
            ..Hits::default()
        }),
        ..Expectation::default()
    };
    let not_met = Expectation {
        outcome: Some("signalled".into()),
        behaviour: Some(Presence {
            present: vec!["network/*".into()],
            absent: vec!["*cron*".into()],
        }),
        ..Expectation::default()
    };
    let chooses_nothing = Expectation {
        filter: filter("no"),
        outcome: Some("exited".into()),
        ..Expectation::default()
    };
    let expectations = [met, not_met, chooses_nothing];
    let checks = check(&expectations, &report, &context);
    assert_eq!(
        Tally::of(&checks),
        Tally {
            met: 1,
            not_met: 1,
            not_judged: 1
        }
    );
    let Verdict::NotMet(changes) = &checks[1].verdict else {
        panic!("{checks:?}")
    };
    assert_eq!(changes.len(), 3);
    let xml = junit::junit("test", &checks).unwrap();
    assert!(
        xml.contains("failures=\"1\"") && xml.contains("not judged: it chooses no instance"),
        "{xml}"
    );
    // What was skipped because its sample is absent is never passed.
    let mut absent = report.clone();
    for instance in &mut absent.instances {
        instance.status = Status::Skipped;
        instance.reason = Some("absent: the sample is not in its source".into());
    }
    let checks = check(&expectations, &absent, &context);
    assert_eq!(Tally::of(&checks).not_judged, 3);
}

#[test]
fn a_filter_reads_tables_and_one_that_cannot_be_evaluated_judges_nothing() {
    let mut report = report();
    report.instances.truncate(1);
    report.instances[0].axes = [("cpu".to_owned(), "one".to_owned())].into_iter().collect();
    let expectations = ["cpu.arch == 'x86'", "cpu.none"].map(|text| Expectation {
        filter: Some(Spanned {
            value: text.to_owned(),
            span: Default::default(),
        }),
        outcome: Some("exited".into()),
        ..Expectation::default()
    });
    let context = Context {
        evaluate: &|expression, values| match expression {
            "cpu.none" => Err("`cpu.none` is not known here".into()),
            _ => Ok(values["cpu"]["arch"] == "x86"),
        },
        axis: &|_, axis| (axis == "cpu").then(|| serde_json::json!({"arch": "x86"})),
        read: &|_, _| None,
    };
    let checks = check(&expectations, &report, &context);
    assert_eq!(checks[0].verdict, Verdict::Met);
    assert!(
        matches!(&checks[1].verdict, Verdict::NotJudged(why) if why.contains("`cpu.none` is not known")),
        "{checks:?}"
    );
}

#[test]
fn two_runs_differ_by_instance() {
    let old = report();
    let between = |old: &Report, new: &Report, wanted: &dyn Fn(&Report, &InstanceReport) -> bool| {
        let side = |report| Side {
            report,
            contents: &NoContents,
        };
        diff::between(side(old), side(new), wanted)
    };
    let all = |_: &Report, _: &InstanceReport| true;
    assert!(between(&old, &old, &all).is_empty());
    let mut new = report();
    new.seed = 8;
    new.instances[0].status = Status::Failed;
    new.instances.remove(1);
    let diff = between(&old, &new, &all);
    assert_eq!(diff.run.len(), 1);
    assert_eq!(diff.run[0].path, "seed");
    assert_eq!((diff.instances.len(), diff.compared), (2, 2));
    assert_eq!(diff.instances[0].changes[0].path, "status");
    assert_eq!(diff.instances[1].name, "hits[scene=a]");
    let hits = between(&old, &new, &|_, instance| instance.stage == "hits");
    assert_eq!((hits.instances.len(), hits.compared), (1, 1));
    // What was left out is not gone.
    let mut part = old.clone();
    part.selection = Some(Selection {
        only: vec!["run".into()],
        left_out: 1,
        ..Selection::default()
    });
    part.instances.pop();
    let diff_of_part = between(&old, &part, &all);
    assert!(diff_of_part.is_empty() && diff_of_part.compared == 1);
    assert!(between(&part, &old, &all).is_empty());
    let page = html::of_runs(&diff, "two", "a", "b").unwrap();
    assert!(page.contains("hits[scene=a]") && page.contains("seed"));
}

/// Judging is linear: eight times the instances take about eight times as long, not sixty-four.
#[test]
fn many_instances_are_judged_in_linear_time() {
    let many = |count: usize| {
        let instances = (0..count).map(|number| {
            let mut one = instance("run", "unicorn/linux");
            one.axes = [("n".to_owned(), number.to_string())].into_iter().collect();
            one.name = format!("run[n={number}]");
            one.outcome = Some(Outcome::Exited(0));
            one.behaviour = vec![format!("file/open /{number}")];
            one
        });
        report_of(instances.collect())
    };
    let folder = tempfile::tempdir().unwrap();
    let seconds = |count: usize| {
        let report = many(count);
        let goldens = exact(&folder.path().join(count.to_string()), &[]);
        goldens.accept(&[run(&report)], false).unwrap();
        let mut other = report.clone();
        other
            .instances
            .iter_mut()
            .for_each(|one| one.outcome = Some(Outcome::Exited(1)));
        // The best of three: other work on the host only ever adds.
        let times = (0..3).map(|_| {
            let start = std::time::Instant::now();
            let judged = goldens.judge(run(&other)).unwrap();
            assert_eq!(tally(&judged), (0, count, 0));
            let side = |report| Side {
                report,
                contents: &NoContents,
            };
            assert_eq!(
                diff::between(side(&report), side(&other), &|_, _| true)
                    .instances
                    .len(),
                count
            );
            start.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    };
    let (few, many) = (seconds(1_250), seconds(10_000));
    assert!(
        many < few * 24.0,
        "1,250 instances: {few:.3} s; 10,000: {many:.3} s"
    );
}
