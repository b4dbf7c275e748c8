//! The pages: `report.html` for a run, `samples/<short digest>.html` for each sample (and each instance without one).
//!
//! A page needs nothing from outside and opens from a file. Sample pages hold nothing of the host; `report.html` holds the
//! host's facts only in its last section. Bytes that a sample chose are never linked to, only shown as text: a browser that
//! opened them might take them for a page.

mod cores;
mod events;
mod inspection;
mod matrix;
mod subject;
mod summary;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use camino::Utf8Path;
use hotcell_schema::digest::Digest;
use hotcell_schema::finding::{Finding, Severity};
use hotcell_schema::names::file_digits;
use hotcell_schema::outcome::Outcome;
use hotcell_schema::report::{InstanceReport, Report, RunFacts, SampleReport, Technique};
use hotcell_schema::turns::Turns;
use indexmap::IndexMap;
use serde::Serialize;

use crate::outputs::Outputs;
use crate::{ReportError, words};

/// Instances that are about no sample, and of which nothing is to be told but that they ended well: so many have a page. All are
/// in `report.json`.
const MAX_QUIET: usize = 1_000;

/// What a page is about: a sample with all of its instances, or one instance that has no sample.
struct Subject<'a> {
    /// Path of its page, relative to the run's folder.
    path: String,
    name: String,
    sample: Option<&'a SampleReport>,
    instances: Vec<&'a InstanceReport>,
}

impl Subject<'_> {
    fn arch(&self) -> &str {
        self.sample
            .and_then(|sample| sample.arch.as_deref())
            .or_else(|| {
                self.instances
                    .iter()
                    .find_map(|instance| instance.arch.as_deref())
            })
            .unwrap_or("")
    }

    fn findings(&self) -> impl Iterator<Item = (&InstanceReport, &Finding)> {
        self.instances
            .iter()
            .flat_map(|instance| instance.findings.iter().map(|finding| (*instance, finding)))
    }

    fn severity(&self) -> Option<Severity> {
        self.findings().map(|(_, finding)| finding.severity).max()
    }
}

/// Renders every page and hands it to `sink` with its path relative to the run's folder. `turns` are drawn where `facts` tell
/// of cores.
pub fn pages(
    report: &Report,
    facts: Option<&RunFacts>,
    turns: &Turns,
    outputs: &dyn Outputs,
    sink: &mut dyn FnMut(&str, &str) -> io::Result<()>,
) -> Result<(), ReportError> {
    let (subjects, left_out) = subjects(report);
    let mut put = |path: &str, page: &str| {
        sink(path, page).map_err(|source| ReportError::Write {
            path: path.to_owned(),
            source,
        })
    };
    put(
        "report.html",
        &summary::page(report, facts, turns, &subjects, left_out)?,
    )?;
    for subject in &subjects {
        put(&subject.path, &subject::page(report, subject, outputs)?)?;
    }
    Ok(())
}

/// Writes every page below `folder`, the run's folder.
pub fn write(
    report: &Report,
    facts: Option<&RunFacts>,
    turns: &Turns,
    outputs: &dyn Outputs,
    folder: &Utf8Path,
) -> Result<(), ReportError> {
    pages(report, facts, turns, outputs, &mut |path, page| {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(target, page)
    })
}

/// What has a page, and how much has none.
fn subjects(report: &Report) -> (Vec<Subject<'_>>, usize) {
    let mut by_sample: IndexMap<&str, Subject<'_>> = IndexMap::new();
    for (id, sample) in &report.samples {
        by_sample.insert(
            id,
            Subject {
                path: format!("samples/{}.html", file_digits(&sample.digest)),
                name: sample.name.clone(),
                sample: Some(sample),
                instances: Vec::new(),
            },
        );
    }
    let mut alone = Vec::new();
    let (mut quiet, mut left_out) = (0, 0);
    for instance in &report.instances {
        match report
            .sample_of(instance)
            .and_then(|(id, _)| by_sample.get_mut(id))
        {
            Some(subject) => subject.instances.push(instance),
            None if is_quiet(instance) && quiet == MAX_QUIET => left_out += 1,
            None => {
                quiet += usize::from(is_quiet(instance));
                alone.push(Subject {
                    path: format!(
                        "samples/{}.html",
                        file_digits(&Digest::of(instance.name.as_bytes()))
                    ),
                    name: instance.name.clone(),
                    sample: None,
                    instances: vec![instance],
                });
            }
        }
    }
    let mut subjects: Vec<Subject<'_>> = by_sample.into_values().chain(alone).collect();
    // Short digests can be made to collide; no page may stand for another.
    let mut taken = BTreeSet::new();
    for subject in &mut subjects {
        if !taken.insert(subject.path.clone()) {
            let whole = subject
                .sample
                .map_or_else(|| Digest::of(subject.name.as_bytes()), |sample| sample.digest);
            subject.path = format!("samples/{whole}.html");
        }
    }
    (subjects, left_out)
}

/// Whether there is nothing to be told of an instance but that it ended well.
fn is_quiet(instance: &InstanceReport) -> bool {
    instance.status.has_outputs()
        && instance.reason.is_none()
        && instance.outcome.is_none()
        && instance.findings.is_empty()
        && instance.unsupported.is_empty()
        && instance.responses.is_empty()
        && instance.behaviour.is_empty()
}

/// A count beside a severity's name.
#[derive(Serialize)]
struct SeverityCount {
    severity: &'static str,
    count: usize,
}

fn severity_counts<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<SeverityCount> {
    let mut counts: BTreeMap<Severity, usize> = BTreeMap::new();
    for finding in findings {
        *counts.entry(finding.severity).or_default() += 1;
    }
    counts
        .into_iter()
        .rev()
        .map(|(severity, count)| SeverityCount {
            severity: severity.as_str(),
            count,
        })
        .collect()
}

/// An ATT&CK technique beside a finding.
#[derive(Serialize)]
struct AttackMark {
    id: String,
    name: String,
    tactics: String,
}

fn attack_marks(ids: &[String], known: &IndexMap<String, Technique>) -> Vec<AttackMark> {
    ids.iter()
        .map(|id| {
            let technique = known.get(id);
            AttackMark {
                id: id.clone(),
                name: technique
                    .map(|technique| technique.name.clone())
                    .unwrap_or_default(),
                tactics: technique
                    .map(|technique| technique.tactics.join(", "))
                    .unwrap_or_default(),
            }
        })
        .collect()
}

/// An outcome as a badge: its text, and whether it is `good`, `warn` or `bad`.
#[derive(Serialize)]
struct Badge {
    text: String,
    tone: &'static str,
}

fn outcome_badge(outcome: &Outcome) -> Badge {
    let tone = match outcome {
        Outcome::Exited(0) | Outcome::Completed => "good",
        Outcome::Exited(_) | Outcome::Limit(_) => "warn",
        Outcome::Signalled(_) | Outcome::Ended(_) | Outcome::Faulted(_) | Outcome::Unsupported(_) => "bad",
    };
    Badge {
        text: words::cut(&outcome.to_string(), 200),
        tone,
    }
}
