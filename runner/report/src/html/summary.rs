//! `report.html`: the whole run on one page.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::finding::Severity;
use hotcell_schema::job::UnsupportedCall;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{CoreChecks, InstanceReport, Report, RunFacts, SampleReport};
use hotcell_schema::turns::Turns;
use serde::Serialize;

use super::cores::{self, Picture};
use super::matrix::Matrix;
use super::{AttackMark, Badge, SeverityCount, Subject, attack_marks, outcome_badge, severity_counts};
use crate::summary::{endings, runs_samples};
use crate::{ReportError, words};

/// Greatest number of names listed beside a finding or a call.
const MAX_NAMES: usize = 12;

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    tiles: Vec<Tile>,
    subjects: Vec<SubjectRow>,
    /// How many instances more there are, which have no page.
    left_out: usize,
    findings: Vec<FindingRow>,
    tactics: Vec<Tactic>,
    has_matrix: bool,
    unsupported: Vec<CallRow>,
    troubles: Vec<Trouble<'a>>,
    skipped: Vec<Trouble<'a>>,
    /// How many more were skipped.
    skipped_more: usize,
    runs_samples: bool,
    has_samples: bool,
    provenance: Provenance<'a>,
    facts: Option<Facts<'a>>,
}

#[derive(Serialize)]
struct Tile {
    value: String,
    label: String,
    note: String,
    tone: &'static str,
}

#[derive(Serialize)]
struct SubjectRow {
    name: String,
    href: String,
    id: String,
    arch: String,
    set: String,
    family: String,
    label: String,
    severity: &'static str,
    rank: usize,
    counts: Vec<SeverityCount>,
    outcomes: Vec<Badge>,
    unsupported: usize,
    status: &'static str,
    ended: String,
}

#[derive(Serialize)]
struct Link {
    name: String,
    arch: String,
    href: String,
}

#[derive(Serialize)]
struct FindingRow {
    severity: &'static str,
    title: String,
    rule: String,
    attack: Vec<AttackMark>,
    subjects: Vec<Link>,
    total: usize,
    more: usize,
}

#[derive(Serialize)]
struct Tactic {
    name: String,
    techniques: Vec<AttackMark>,
}

#[derive(Serialize)]
struct CallRow {
    name: String,
    support: &'static str,
    note: String,
    count: String,
    subjects: Vec<Link>,
    more: usize,
}

#[derive(Serialize)]
struct Trouble<'a> {
    name: String,
    status: &'static str,
    reason: String,
    error: &'a str,
    attempts: u32,
    left: &'a str,
    fault: &'a str,
}

#[derive(Serialize)]
struct Provenance<'a> {
    manifest: String,
    seed: u64,
    hotcell: &'a str,
    variants: String,
    part: Option<String>,
    engines: Vec<(&'a String, &'a String)>,
    stages: Vec<(String, usize)>,
}

#[derive(Serialize)]
struct Facts<'a> {
    run: &'a str,
    started: &'a str,
    wall: String,
    host: &'a str,
    called: String,
    jobs: u32,
    isolation: &'a str,
    checks: Option<&'a CoreChecks>,
    confinement: String,
    fallbacks: &'a [String],
    turns: Option<String>,
    cores: Option<Picture>,
    cached: usize,
    instances: Vec<FactRow<'a>>,
    more: usize,
}

#[derive(Serialize)]
struct FactRow<'a> {
    name: String,
    status: &'static str,
    wall: String,
    cpu: String,
    memory: String,
    key: String,
    error: &'a str,
}

/// Greatest number of instances in the table of host facts, and in that of what was skipped.
const MAX_ROWS: usize = 2_000;

pub(super) fn page(
    report: &Report,
    facts: Option<&RunFacts>,
    turns: &Turns,
    subjects: &[Subject<'_>],
    left_out: usize,
) -> Result<String, ReportError> {
    let matrix = Matrix::new(subjects);
    let findings = findings(report, subjects);
    let unsupported = unsupported(subjects);
    let is_skipped = |instance: &&InstanceReport| {
        instance.status == Status::Skipped || (instance.status.has_outputs() && instance.reason.is_some())
    };
    let bad = report
        .instances
        .iter()
        .filter(|instance| instance.status.is_bad());
    let skipped = || report.instances.iter().filter(is_skipped);
    let page = Page {
        title: &report.name,
        tiles: tiles(report, subjects, left_out),
        subjects: subjects.iter().map(row).collect(),
        left_out,
        tactics: tactics(report, &findings),
        findings,
        has_matrix: !matrix.is_empty(),
        unsupported,
        troubles: told(report, facts, bad),
        skipped: told(report, facts, skipped().take(MAX_ROWS)),
        skipped_more: skipped().skip(MAX_ROWS).count(),
        runs_samples: runs_samples(report),
        has_samples: !report.samples.is_empty(),
        provenance: provenance(report),
        facts: facts.map(|facts| run_facts(report, facts, turns)),
    };
    Ok(hotcell_render::html("report.html", &page, &matrix)?)
}

/// Instances with their reasons.
fn told<'a>(
    report: &'a Report,
    facts: Option<&'a RunFacts>,
    instances: impl Iterator<Item = &'a InstanceReport>,
) -> Vec<Trouble<'a>> {
    instances
        .map(|instance| {
            let facts = facts.and_then(|facts| facts.instances.get(&instance.name));
            Trouble {
                name: report.short_name(instance),
                status: instance.status.as_str(),
                reason: report.shorten(instance.reason.as_deref().unwrap_or("no reason was given")),
                error: facts.and_then(|facts| facts.error.as_deref()).unwrap_or_default(),
                attempts: facts.map_or(0, |facts| facts.attempts),
                left: facts.and_then(|facts| facts.left.as_deref()).unwrap_or_default(),
                fault: facts.and_then(|facts| facts.fault.as_deref()).unwrap_or_default(),
            }
        })
        .collect()
}

fn tiles(report: &Report, subjects: &[Subject<'_>], left_out: usize) -> Vec<Tile> {
    let all = subjects.len() + left_out;
    let archs: BTreeSet<&str> = subjects
        .iter()
        .map(Subject::arch)
        .filter(|arch| !arch.is_empty())
        .collect();
    let noun = if report.samples.is_empty() {
        "Instances"
    } else {
        "Samples"
    };
    let mut tiles = vec![Tile {
        value: words::count(match report.samples.len() {
            0 => all as u64,
            samples => samples as u64,
        }),
        label: noun.into(),
        note: match archs.len() {
            0 => String::new(),
            1 => "1 architecture".into(),
            many => format!("{many} architectures"),
        },
        tone: "plain",
    }];
    let mut worst: BTreeMap<Severity, usize> = BTreeMap::new();
    for severity in subjects.iter().filter_map(Subject::severity) {
        *worst.entry(severity).or_default() += 1;
    }
    let top = worst.last_key_value().map(|(severity, _)| *severity);
    tiles.push(Tile {
        value: top.map_or("none", Severity::as_str).to_owned(),
        label: "Worst finding".into(),
        note: match top.and_then(|severity| worst.get(&severity)) {
            Some(count) => format!("in {count} of {all}"),
            None => "nothing was found".into(),
        },
        tone: top.map_or("good", Severity::as_str),
    });
    let total: usize = report
        .instances
        .iter()
        .map(|instance| instance.findings.len())
        .sum();
    let serious = report
        .instances
        .iter()
        .flat_map(|instance| &instance.findings)
        .filter(|finding| finding.severity >= Severity::High)
        .count();
    tiles.push(Tile {
        value: words::count(total as u64),
        label: "Findings".into(),
        note: format!("{serious} high or critical"),
        tone: if serious > 0 { "high" } else { "plain" },
    });
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in report
        .instances
        .iter()
        .filter_map(|instance| instance.outcome.as_ref())
    {
        *outcomes.entry(outcome.kind()).or_default() += 1;
    }
    let ran: usize = outcomes.values().sum();
    let listed: Vec<String> = outcomes
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if runs_samples(report) {
        tiles.push(Tile {
            value: words::count(ran as u64),
            label: if ran == 1 { "Execution" } else { "Executions" }.into(),
            note: if listed.is_empty() {
                "nothing was run".into()
            } else {
                listed.join(", ")
            },
            tone: "plain",
        });
        let names = |unanswered: bool| {
            let instances = subjects.iter().flat_map(|subject| &subject.instances);
            let calls = instances.flat_map(|instance| &instance.unsupported);
            let names: BTreeSet<&str> = calls
                .filter(|call| call.is_unanswered() == unanswered)
                .map(|call| call.name.as_str())
                .collect();
            names.len()
        };
        let (unsupported, in_part) = (names(true), names(false));
        tiles.push(Tile {
            value: words::count(unsupported as u64),
            label: "Unsupported calls".into(),
            note: match (unsupported, in_part) {
                (0, 0) => "every call is supported in full".into(),
                (_, 0) => "different calls, see below".into(),
                (_, in_part) => format!("{in_part} more in part, see below"),
            },
            tone: if unsupported == 0 { "good" } else { "medium" },
        });
    }
    let count = |is_of: &dyn Fn(Status) -> bool| {
        let ran = report
            .instances
            .iter()
            .filter(|instance| !instance.is_unsupported());
        ran.filter(|instance| is_of(instance.status)).count()
    };
    let not_run = report
        .instances
        .iter()
        .filter(|instance| instance.is_unsupported());
    let not_run = not_run.count();
    let well = count(&Status::has_outputs);
    let failed = count(&|status| matches!(status, Status::Failed | Status::Interrupted));
    let refused = count(&|status| status == Status::Refused);
    let skipped = count(&|status| status == Status::Skipped);
    let notes = [
        (failed, "failed or interrupted"),
        (refused, "refused"),
        (not_run, "unsupported"),
        (skipped, "skipped"),
    ];
    let notes: Vec<String> = notes
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    tiles.push(Tile {
        // What was not wanted is no part of what could end well.
        value: format!("{well} / {}", report.instances.len() - skipped),
        label: "Instances ended well".into(),
        note: match notes.is_empty() {
            true => "all of them".into(),
            false => notes.join(", "),
        },
        tone: match (failed, not_run) {
            (0, 0) => "good",
            (0, _) => "medium",
            _ => "high",
        },
    });
    tiles
}

fn row(subject: &Subject<'_>) -> SubjectRow {
    let severity = subject.severity();
    let mut calls: BTreeSet<&str> = BTreeSet::new();
    for instance in &subject.instances {
        let unanswered = instance.unsupported.iter().filter(|call| call.is_unanswered());
        calls.extend(unanswered.map(|call| call.name.as_str()));
    }
    let worst = subject
        .instances
        .iter()
        .map(|instance| instance.status)
        .find(|status| matches!(status, Status::Failed | Status::Interrupted))
        .or_else(|| {
            let all_skipped = subject
                .instances
                .iter()
                .all(|instance| !instance.status.has_outputs());
            subject
                .instances
                .first()
                .filter(|_| all_skipped)
                .map(|instance| instance.status)
        });
    let sample = subject.sample;
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    SubjectRow {
        name: subject.name.clone(),
        href: subject.path.clone(),
        id: sample.map(|sample| sample.digest.short()).unwrap_or_default(),
        arch: subject.arch().to_owned(),
        set: sample.map(SampleReport::sets_in_words).unwrap_or_default(),
        family: text(sample.and_then(|sample| sample.family.as_ref())),
        label: text(sample.and_then(|sample| sample.label.as_ref().or(sample.variant.as_ref()))),
        severity: severity.map_or("", Severity::as_str),
        rank: severity.map_or(0, |severity| severity as usize + 1),
        counts: severity_counts(subject.findings().map(|(_, finding)| finding)),
        outcomes: subject
            .instances
            .iter()
            .filter_map(|instance| instance.outcome.as_ref())
            .take(4)
            .map(outcome_badge)
            .collect(),
        unsupported: calls.len(),
        status: worst.map_or("", Status::as_str),
        ended: endings(&subject.instances),
    }
}

fn link(subject: &Subject<'_>) -> Link {
    Link {
        name: subject.name.clone(),
        arch: subject.arch().to_owned(),
        href: subject.path.clone(),
    }
}

/// Technique ids, and places of subjects.
type Group<'a> = (BTreeSet<&'a String>, BTreeSet<usize>);

fn findings(report: &Report, subjects: &[Subject<'_>]) -> Vec<FindingRow> {
    let mut groups: BTreeMap<(Reverse<Severity>, &str, &str), Group<'_>> = BTreeMap::new();
    for (place, subject) in subjects.iter().enumerate() {
        for (_, finding) in subject.findings() {
            let key = (
                Reverse(finding.severity),
                finding.rule.as_str(),
                finding.title.as_str(),
            );
            let (attack, places) = groups.entry(key).or_default();
            attack.extend(&finding.attack);
            places.insert(place);
        }
    }
    groups
        .into_iter()
        .map(|((severity, rule, title), (attack, places))| {
            let ids: Vec<String> = attack.into_iter().cloned().collect();
            FindingRow {
                severity: severity.0.as_str(),
                title: words::cut(title, 300),
                rule: rule.to_owned(),
                attack: attack_marks(&ids, &report.attack),
                total: places.len(),
                more: places.len().saturating_sub(MAX_NAMES),
                subjects: places
                    .iter()
                    .take(MAX_NAMES)
                    .filter_map(|place| subjects.get(*place))
                    .map(link)
                    .collect(),
            }
        })
        .collect()
}

/// The order in which ATT&CK lists its tactics.
const TACTICS: [&str; 15] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "stealth",
    "defense-impairment",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];

fn tactics(report: &Report, findings: &[FindingRow]) -> Vec<Tactic> {
    let used: BTreeSet<&str> = findings
        .iter()
        .flat_map(|finding| &finding.attack)
        .map(|mark| mark.id.as_str())
        .collect();
    let mut by_tactic: BTreeMap<(usize, &str), BTreeSet<&str>> = BTreeMap::new();
    for id in used {
        let Some(technique) = report.attack.get(id) else {
            continue;
        };
        for tactic in &technique.tactics {
            let place = TACTICS
                .iter()
                .position(|name| name == tactic)
                .unwrap_or(TACTICS.len());
            by_tactic.entry((place, tactic)).or_default().insert(id);
        }
    }
    by_tactic
        .into_iter()
        .map(|((_, tactic), ids)| {
            let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
            Tactic {
                name: tactic.replace('-', " "),
                techniques: attack_marks(&ids, &report.attack),
            }
        })
        .collect()
}

fn unsupported(subjects: &[Subject<'_>]) -> Vec<CallRow> {
    let mut groups: BTreeMap<(&str, &str, &str), (u64, BTreeSet<usize>)> = BTreeMap::new();
    for (place, subject) in subjects.iter().enumerate() {
        for UnsupportedCall {
            name,
            support,
            note,
            count,
        } in subject
            .instances
            .iter()
            .flat_map(|instance| &instance.unsupported)
        {
            let (total, places) = groups.entry((name, words::support(*support), note)).or_default();
            *total = total.saturating_add(*count);
            places.insert(place);
        }
    }
    groups
        .into_iter()
        .map(|((name, support, note), (count, places))| CallRow {
            name: name.to_owned(),
            support,
            note: note.to_owned(),
            count: words::count(count),
            more: places.len().saturating_sub(MAX_NAMES),
            subjects: places
                .iter()
                .take(MAX_NAMES)
                .filter_map(|place| subjects.get(*place))
                .map(link)
                .collect(),
        })
        .collect()
}

fn provenance(report: &Report) -> Provenance<'_> {
    let mut stages: indexmap::IndexMap<String, usize> = indexmap::IndexMap::new();
    for instance in &report.instances {
        *stages
            .entry(format!("{} ({})", instance.stage, instance.uses))
            .or_default() += 1;
    }
    Provenance {
        manifest: report.manifest.to_string(),
        seed: report.seed,
        hotcell: &report.hotcell,
        variants: report.variants.join(", "),
        part: report.selection.as_ref().map(|selection| selection.words()),
        engines: report.engines.iter().collect(),
        stages: stages.into_iter().collect(),
    }
}

fn run_facts<'a>(report: &Report, facts: &'a RunFacts, turns: &Turns) -> Facts<'a> {
    Facts {
        run: &facts.run,
        started: &facts.started,
        wall: format!("{:.2} s", facts.wall_s),
        host: &facts.host,
        called: match facts.called.is_empty() {
            true => String::new(),
            false => format!("hotcell {}", words::command(&facts.called)),
        },
        jobs: facts.jobs,
        isolation: &facts.isolation,
        checks: facts.cores.as_ref().and_then(|cores| cores.checks.as_ref()),
        confinement: facts.confinement.join(", "),
        fallbacks: &facts.fallbacks,
        turns: facts.cores.as_ref().map(cores::in_words),
        cores: facts
            .cores
            .as_ref()
            .and_then(|facts| cores::picture(report, facts, turns)),
        cached: facts
            .instances
            .values()
            .filter(|instance| instance.status == Status::Cached)
            .count(),
        instances: facts
            .instances
            .iter()
            .take(MAX_ROWS)
            .map(|(name, instance)| FactRow {
                name: report.shorten(name),
                status: instance.status.as_str(),
                wall: format!("{:.3} s", instance.wall_s),
                cpu: format!("{:.3} s", instance.cpu_s),
                memory: words::size(instance.peak_kib.saturating_mul(1024)),
                key: instance.key.map(|key| key.short()).unwrap_or_default(),
                error: instance.error.as_deref().unwrap_or_default(),
            })
            .collect(),
        more: facts.instances.len().saturating_sub(MAX_ROWS),
    }
}
