//! Goldens, expectations and diffs over hand-made reports.
#![allow(clippy::unwrap_used)]

use hotcell_judge::diff::RunDiff;
use hotcell_judge::expect::{Context, check};
use hotcell_judge::golden::Goldens;
use hotcell_judge::{Tally, Verdict, junit};
use hotcell_schema::digest::Digest;
use hotcell_schema::finding::{Evidence, Finding, Severity};
use hotcell_schema::manifest::{Expectation, Hits, Presence, Spanned};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, Report};
use indexmap::IndexMap;

fn instance(stage: &str, uses: &str) -> InstanceReport {
    InstanceReport {
        name: format!("{stage}[scene=a]"),
        stage: stage.into(),
        uses: uses.into(),
        axes: [("scene".to_owned(), "a".to_owned())].into_iter().collect(),
        arch: Some("mipsel".into()),
        status: Status::Ok,
        reason: None,
        outcome: None,
        outputs: IndexMap::new(),
        findings: Vec::new(),
        unsupported: Vec::new(),
        behaviour: Vec::new(),
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
    Report {
        format: "hotcell-report".into(),
        version: 1,
        name: "test".into(),
        manifest: Digest::of(b"manifest"),
        seed: 7,
        hotcell: "0".into(),
        variants: Vec::new(),
        engines: IndexMap::new(),
        samples: IndexMap::new(),
        instances: vec![run, hits],
        attack: IndexMap::new(),
    }
}

fn slug(instance: &InstanceReport) -> String {
    format!("{}-slug", instance.stage)
}

#[test]
fn a_golden_is_new_then_met_then_says_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = Goldens::new(folder.path().join("golden/test"), Vec::new(), Vec::new());
    let mut report = report();
    assert_eq!(
        Tally::of(&goldens.check(&report, &slug).unwrap()).not_met,
        2,
        "no golden yet is not a success"
    );
    assert_eq!(goldens.accept(&report, &slug, true).unwrap().len(), 2);
    assert_eq!(
        Tally::of(&goldens.check(&report, &slug).unwrap()),
        Tally {
            met: 2,
            not_met: 0,
            not_judged: 0
        }
    );
    assert!(
        goldens.accept(&report, &slug, true).unwrap().is_empty(),
        "accepting the same changes nothing"
    );

    report.instances[0].behaviour[0] = "file/written /etc/cron.d/y".into();
    report.instances[0].outcome = Some(Outcome::Signalled("SIGSEGV".into()));
    report.instances[1].findings.clear();
    let checks = goldens.check(&report, &slug).unwrap();
    let lines: Vec<String> = checks
        .iter()
        .filter_map(|check| match &check.verdict {
            Verdict::NotMet(changes) => Some(changes.iter().map(junit::line)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(
        lines,
        [
            "outcome: exited 0 -> signalled SIGSEGV",
            "- behaviour: file/written /etc/cron.d/x",
            "+ behaviour: file/written /etc/cron.d/y",
            "- findings: persistence-cron (high): wrote /etc/cron.d/x",
        ]
    );
}

#[test]
fn what_did_not_run_is_not_judged_and_keeps_its_golden() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = Goldens::new(folder.path().to_owned(), Vec::new(), vec!["run".into()]);
    let mut report = report();
    assert_eq!(
        goldens.accept(&report, &slug, true).unwrap().len(),
        1,
        "only the chosen stage"
    );
    report.instances[0].status = Status::Interrupted;
    report.instances[0].reason = Some("the limit of wall time was met".into());
    let checks = goldens.check(&report, &slug).unwrap();
    assert!(matches!(&checks[0].verdict, Verdict::NotJudged(reason) if reason.contains("wall time")));
    assert!(goldens.accept(&report, &slug, true).unwrap().is_empty());
    report.instances[0].status = Status::Ok;
    assert_eq!(Tally::of(&goldens.check(&report, &slug).unwrap()).met, 1);
}

#[test]
fn a_golden_without_an_instance_and_a_damaged_one_are_changes() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = Goldens::new(folder.path().to_owned(), Vec::new(), Vec::new());
    let mut report = report();
    let paths = goldens.accept(&report, &slug, true).unwrap();
    fs_err::write(&paths[0], "{").unwrap();
    assert_eq!(
        Tally::of(&goldens.check(&report, &slug).unwrap()),
        Tally {
            met: 1,
            not_met: 1,
            not_judged: 0
        }
    );
    report.instances.pop();
    let tally = Tally::of(&goldens.check(&report, &slug).unwrap());
    assert_eq!(tally.not_met, 2, "one damaged, one stale");
    goldens.accept(&report, &slug, true).unwrap();
    assert_eq!(
        Tally::of(&goldens.check(&report, &slug).unwrap()),
        Tally {
            met: 1,
            not_met: 0,
            not_judged: 0
        }
    );
}

#[test]
fn expectations_choose_and_judge() {
    let report = report();
    let context = Context {
        evaluate: &|expression, values| Ok(expression == "scene == 'a'" && values["scene"] == "a"),
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
    let checks = check(&[met, not_met, chooses_nothing], &report, &context);
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
}

#[test]
fn two_runs_differ_by_instance() {
    let old = report();
    assert!(RunDiff::between(&old, &old).is_empty());
    let mut new = report();
    new.seed = 8;
    new.instances[0].status = Status::Failed;
    new.instances.remove(1);
    let diff = RunDiff::between(&old, &new);
    assert_eq!(diff.run.len(), 1);
    assert_eq!(diff.instances.len(), 2);
    assert_eq!(diff.instances["run[scene=a]"][0].what, "status");
}
