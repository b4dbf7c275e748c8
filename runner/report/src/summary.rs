//! What is told at the end of a run, taken from its report once: what is shown, and how much more there is.
//!
//! It is small whatever the size of the report, so that a run which has nothing to do can tell it again without reading the
//! report.

use std::collections::{BTreeMap, BTreeSet};

use hotcell_render::visible;
use hotcell_schema::digest::Digest;
use hotcell_schema::finding::Severity;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, Report, RunFacts};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::words;

/// Rows of each part that are kept; the rest is counted.
const ROWS: usize = 40;
/// Names of alike instances that are shown.
const NAMED: usize = 3;
/// Lines of what a program said that are shown.
const SAID: usize = 6;
/// What instances are called whose samples could not be run.
const UNSUPPORTED: &str = "unsupported";

/// What is told of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Whether samples were run at all: where none was, nobody misses their outcomes.
    pub(crate) runs: bool,
    /// Runs of samples, and samples that were not run.
    pub(crate) rows: Part<Row>,
    /// What was found, most serious first.
    pub(crate) findings: Part<Found>,
    /// Instances of which more is to be told.
    pub(crate) sections: Vec<(String, Part<Alike>)>,
    /// Counts, in words.
    pub(crate) totals: Vec<String>,
    /// How many samples could not be run: their outcome is `unsupported`.
    pub not_run: usize,
    /// The first instances whose samples did not end well by themselves and wrote something.
    pub ended_badly: Vec<Ended>,
    /// What of the plan was run, in words, where that was not all.
    pub selection: Option<String>,
}

/// The first of many, and how many there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part<T> {
    pub first: Vec<T>,
    pub count: usize,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            count: 0,
        }
    }
}

impl<T> Part<T> {
    fn of(all: impl ExactSizeIterator<Item = T>) -> Self {
        Self {
            count: all.len(),
            first: all.take(ROWS).collect(),
        }
    }

    /// How many are not among the first.
    pub(crate) fn more(&self) -> usize {
        self.count.saturating_sub(self.first.len())
    }
}

/// A run of a sample, or a sample that was not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub sample: String,
    pub arch: String,
    pub stage: String,
    pub outcome: String,
    pub outcome_good: bool,
    /// How the stages about it ended, where no sample is run.
    pub ended: String,
    pub severities: BTreeMap<Severity, usize>,
    pub unsupported: usize,
}

/// What a rule found, over all samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub severity: Severity,
    pub title: String,
    pub rule: String,
    pub samples: usize,
}

/// Instances of a stage that ended alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alike {
    /// How they ended, in a word.
    pub word: String,
    pub which: String,
    pub reason: String,
    /// Some of their names, where they are several.
    pub names: String,
    /// The end of what the first of them said.
    pub said: Vec<String>,
}

/// An instance whose sample did not end well by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its short name.
    pub name: String,
    /// What it wrote: port, and path within `result/`; what it complained of before what it said.
    pub wrote: Vec<(String, String)>,
}

impl Summary {
    /// What is told of a report; with the host's facts, also how long it took and what programs said that failed.
    pub fn of(report: &Report, facts: Option<&RunFacts>) -> Self {
        let bad: fn(&InstanceReport) -> bool = |instance| instance.status.is_bad();
        let skipped: fn(&InstanceReport) -> bool = |instance| instance.status == Status::Skipped;
        let left_out: fn(&InstanceReport) -> bool =
            |instance| instance.status.has_outputs() && instance.reason.is_some();
        let sections = [
            ("Did not end well", facts, bad),
            ("Could not be run", None, InstanceReport::is_unsupported),
            ("Skipped", None, skipped),
            ("Left out", None, left_out),
        ];
        let sections = sections
            .into_iter()
            .map(|(title, facts, is_of)| (title.to_owned(), alike(report, facts, is_of)));
        Self {
            runs: runs_samples(report),
            rows: rows(report),
            findings: findings(report),
            sections: sections.filter(|(_, part)| part.count > 0).collect(),
            totals: totals(report, facts),
            not_run: not_run(report),
            ended_badly: ended_badly(report),
            selection: report.selection.as_ref().map(|selection| selection.words()),
        }
    }
}

/// Instances of a kind with their reasons, alike ones together; with `facts`, the end of what the first of them said.
fn alike(report: &Report, facts: Option<&RunFacts>, is_of: fn(&InstanceReport) -> bool) -> Part<Alike> {
    let mut groups: BTreeMap<(Status, &str, &str), Vec<&InstanceReport>> = BTreeMap::new();
    for instance in report.instances.iter().filter(|instance| is_of(instance)) {
        let reason = match &instance.outcome {
            Some(Outcome::Unsupported(reason)) => Some(reason.as_str()),
            _ => instance.reason.as_deref(),
        };
        let reason = reason.unwrap_or("no reason was given");
        let key = (instance.status, instance.stage.as_str(), reason);
        groups.entry(key).or_default().push(instance);
    }
    Part::of(groups.into_iter().map(|((status, stage, reason), alike)| {
        let short = |instance: &&InstanceReport| words::cut(&visible(&report.short_name(instance)), 80);
        let named: Vec<String> = alike.iter().take(NAMED).map(short).collect();
        let (which, names) = match (alike.len(), named.as_slice()) {
            (1, [name]) => (name.clone(), String::new()),
            (many, names) => {
                let more = if many > NAMED { ", …" } else { "" };
                (
                    format!("{} × {many}", visible(stage)),
                    format!(" ({}{more})", names.join(", ")),
                )
            }
        };
        let known = alike.first().and_then(|first| facts?.instances.get(&first.name));
        let said = known.and_then(|facts| facts.error.as_deref());
        let lines: Vec<&str> = said.unwrap_or_default().lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(SAID));
        let fault = known.and_then(|facts| facts.fault.as_deref());
        let fault = fault.map(|fault| visible(&format!("what is known of it: {fault}")).into_owned());
        Alike {
            word: match alike.iter().all(|instance| instance.is_unsupported()) {
                true => UNSUPPORTED.into(),
                false => status.as_str().into(),
            },
            which,
            reason: words::cut(&visible(&report.shorten(reason)), 200),
            names,
            said: last
                .map(|line| words::cut(&visible(line), 200))
                .chain(fault)
                .collect(),
        }
    }))
}

/// Whether a stage of the report runs samples at all: where none does, nobody misses their outcomes.
pub(crate) fn runs_samples(report: &Report) -> bool {
    let mut instances = report.instances.iter();
    instances.any(|instance| instance.outcome.is_some() || instance.uses.starts_with("unicorn/"))
}

/// How many samples of a report could not be run.
fn not_run(report: &Report) -> usize {
    let instances = report.instances.iter();
    instances.filter(|instance| instance.is_unsupported()).count()
}

/// How the stages that are about a sample ended: `3 ok, 1 failed`.
pub(crate) fn endings(instances: &[&InstanceReport]) -> String {
    let mut counts: BTreeMap<Status, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(instance.status).or_default() += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{count} {}", status.as_str()))
        .collect();
    words.join(", ")
}

/// One row for each run of a sample (an instance with an outcome); one for each sample that was not run.
fn rows(report: &Report) -> Part<Row> {
    let mut rows = Vec::new();
    let mut by_sample: BTreeMap<&str, Vec<&InstanceReport>> = BTreeMap::new();
    let runs = runs_samples(report);
    for instance in &report.instances {
        if let Some((id, _)) = report.sample_of(instance) {
            by_sample.entry(id).or_default().push(instance);
        }
    }
    // What others take beside theirs, as their input for instance, is nothing that was to run.
    let axes = report
        .instances
        .iter()
        .flat_map(|instance| instance.axes.values());
    let beside: BTreeSet<&str> = axes.map(String::as_str).collect();
    for (id, sample) in &report.samples {
        let instances = by_sample.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        if instances.is_empty() && beside.contains(id.as_str()) {
            continue;
        }
        let before = rows.len();
        for instance in instances.iter().filter(|instance| instance.outcome.is_some()) {
            rows.push(row(
                instance,
                shown(&sample.name, 40),
                severities(instances, &instance.axes),
            ));
        }
        if rows.len() == before {
            rows.push(Row {
                sample: shown(&sample.name, 40),
                arch: shown(sample.arch.as_deref().unwrap_or_default(), 40),
                stage: String::new(),
                outcome: if runs { "not run".into() } else { String::new() },
                outcome_good: true,
                ended: endings(instances),
                severities: severities(instances, &IndexMap::new()),
                unsupported: 0,
            });
        }
    }
    for instance in &report.instances {
        if instance.outcome.is_some() && report.sample_of(instance).is_none() {
            rows.push(row(instance, "—".into(), severities(&[instance], &instance.axes)));
        }
    }
    Part::of(rows.into_iter())
}

/// Counts the findings of those instances that do not speak of another value of an axis.
fn severities(instances: &[&InstanceReport], axes: &IndexMap<String, String>) -> BTreeMap<Severity, usize> {
    let mut counts = BTreeMap::new();
    for instance in instances {
        let other = axes
            .iter()
            .any(|(axis, value)| instance.axes.get(axis).is_some_and(|found| found != value));
        for finding in instance.findings.iter().filter(|_| !other) {
            *counts.entry(finding.severity).or_default() += 1;
        }
    }
    counts
}

fn row(instance: &InstanceReport, sample: String, severities: BTreeMap<Severity, usize>) -> Row {
    Row {
        sample,
        arch: shown(instance.arch.as_deref().unwrap_or_default(), 40),
        stage: shown(&stage_label(instance), 40),
        outcome: instance
            .outcome
            .as_ref()
            .map(|outcome| shown(&outcome.to_string(), 60))
            .into_iter()
            .chain(words::responses(&instance.responses))
            .collect::<Vec<_>>()
            .join("; "),
        outcome_good: matches!(instance.outcome, Some(Outcome::Exited(0) | Outcome::Completed)),
        ended: String::new(),
        severities,
        unsupported: instance
            .unsupported
            .iter()
            .filter(|call| call.is_unanswered())
            .count(),
    }
}

/// The stage, with the values of axes that are no samples.
pub(crate) fn stage_label(instance: &InstanceReport) -> String {
    let others: Vec<&str> = instance
        .axes
        .iter()
        .filter(|(name, value)| name.as_str() != "sample" && value.parse::<Digest>().is_err())
        .map(|(_, value)| value.as_str())
        .collect();
    if others.is_empty() {
        instance.stage.clone()
    } else {
        format!("{} {}", instance.stage, others.join(" "))
    }
}

/// Findings over all samples, most serious first.
fn findings(report: &Report) -> Part<Found> {
    let mut samples: BTreeMap<(Severity, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for instance in &report.instances {
        let subject = report
            .sample_of(instance)
            .map_or(instance.name.as_str(), |(id, _)| id);
        for finding in instance
            .findings
            .iter()
            .filter(|finding| finding.severity > Severity::Info)
        {
            samples
                .entry((finding.severity, finding.title.as_str(), finding.rule.as_str()))
                .or_default()
                .insert(subject);
        }
    }
    let found = samples.into_iter().rev();
    Part::of(
        found
            .collect::<Vec<_>>()
            .into_iter()
            .map(|((severity, title, rule), subjects)| Found {
                severity,
                title: shown(title, 100),
                rule: visible(rule).into_owned(),
                samples: subjects.len(),
            }),
    )
}

fn totals(report: &Report, facts: Option<&RunFacts>) -> Vec<String> {
    let mut parts = vec![
        plural(report.samples.len(), "sample"),
        plural(report.instances.len(), "instance"),
    ];
    for status in [
        Status::Ok,
        Status::Failed,
        Status::Interrupted,
        Status::Skipped,
        Status::Refused,
    ] {
        // A sample that could not be run did not end well.
        let of_status = |instance: &&InstanceReport| instance.status == status && !instance.is_unsupported();
        let count = report.instances.iter().filter(of_status).count();
        if count > 0 || status == Status::Ok {
            parts.push(format!("{count} {}", status.as_str()));
        }
        let not_run = not_run(report);
        if status == Status::Ok && not_run > 0 {
            parts.push(format!("{not_run} {UNSUPPORTED}"));
        }
    }
    if let Some(facts) = facts {
        let cached = facts
            .instances
            .values()
            .filter(|instance| instance.status == Status::Cached)
            .count();
        parts.push(format!("{cached} from the cache"));
        parts.push(format!("{:.2} s", facts.wall_s));
    }
    parts
}

/// Instances whose samples did not end well by themselves, and what they wrote.
fn ended_badly(report: &Report) -> Vec<Ended> {
    let is_bad = |outcome: &Outcome| !matches!(outcome, Outcome::Exited(0) | Outcome::Completed);
    let bad = report
        .instances
        .iter()
        .filter(|instance| instance.outcome.as_ref().is_some_and(is_bad));
    let ended = bad.map(|instance| {
        let wrote = ["stderr", "stdout"].into_iter().filter_map(|port| {
            let output = instance.outputs.get(port).filter(|output| output.length > 0)?;
            Some((port.to_owned(), output.path.clone()))
        });
        Ended {
            name: shown(&report.short_name(instance), 200),
            wrote: wrote.collect(),
        }
    });
    ended.filter(|ended| !ended.wrote.is_empty()).take(ROWS).collect()
}

/// A text as it may be shown, cut.
fn shown(text: &str, limit: usize) -> String {
    words::cut(&visible(text), limit)
}

pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
