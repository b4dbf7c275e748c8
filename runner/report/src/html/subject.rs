//! `samples/<short digest>.html`: everything about one sample.

use std::collections::BTreeMap;

use hotcell_schema::elf::ElfInfo;
use hotcell_schema::job::{LeftFile, LinuxResult, PayloadResult, UnsupportedCall};
use hotcell_schema::report::{InstanceReport, Report};
use hotcell_schema::stage::{PortType, StageType};
use serde::{Deserialize, Serialize};

use super::events::Table;
use super::inspection::Inspection;
use super::tree::{Row, Tree};
use super::{AttackMark, Badge, SeverityCount, Subject, attack_marks, outcome_badge, severity_counts};
use crate::assemble::{EventStream, Glance};
use crate::outputs::{self, Outputs};
use crate::summary::stage_label;
use crate::{ReportError, words};

/// Greatest number of bytes shown of standard output and of standard error.
const MAX_STREAM: usize = 64 << 10;
/// Greatest number of bytes shown of a file that a sample left behind.
const MAX_PREVIEW: usize = 2 << 10;
/// Greatest number of evidence lines shown for one finding.
const MAX_EVIDENCE: usize = 50;
/// Greatest number of files listed.
const MAX_FILES: usize = 1_000;
/// Greatest number of traced instructions shown.
const MAX_TRACE: usize = 2_000;
/// Greatest number of runs of one sample shown in full.
const MAX_RUNS: usize = 32;

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    experiment: &'a str,
    digest: String,
    facts: Vec<(&'static str, String)>,
    severity: &'static str,
    counts: Vec<SeverityCount>,
    outcomes: Vec<Badge>,
    findings: Vec<FindingCard>,
    runs: Vec<Run>,
    runs_left_out: usize,
    inspection: Option<Inspection>,
    payloads: Vec<Payload>,
    stages: Vec<Stage<'a>>,
    provenance: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct FindingCard {
    severity: &'static str,
    title: String,
    rule: String,
    stage: String,
    attack: Vec<AttackMark>,
    evidence: Vec<EvidenceLine>,
    more: usize,
}

#[derive(Serialize)]
struct EvidenceLine {
    text: String,
    /// The run and the event that prove it.
    event: Option<u64>,
    run: Option<usize>,
    offset: Option<String>,
}

#[derive(Serialize)]
struct Run {
    index: usize,
    label: String,
    uses: String,
    arch: String,
    outcome: Option<Badge>,
    numbers: Vec<(&'static str, String)>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    tree: Vec<Row>,
    tree_cut: bool,
    events: u64,
    events_shown: u64,
    events_bad: u64,
    unsupported: Vec<Call>,
    files: Vec<Dropped>,
    files_more: usize,
    behaviour: Vec<(String, Vec<String>)>,
}

#[derive(Serialize)]
struct Stream {
    text: String,
    length: String,
    cut: bool,
}

#[derive(Serialize)]
struct Call {
    name: String,
    support: &'static str,
    note: String,
    count: String,
}

#[derive(Serialize)]
struct Dropped {
    path: String,
    mode: String,
    size: String,
    digest: String,
    preview: Option<Stream>,
}

#[derive(Serialize)]
struct Payload {
    label: String,
    arch: String,
    outcome: Badge,
    instructions: String,
    disagreements: u64,
    registers: Vec<(String, String)>,
    memory: Vec<(String, String)>,
    trace: Vec<(String, String, String)>,
    trace_more: usize,
}

#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    uses: &'a str,
    status: &'static str,
    reason: &'a str,
    outputs: Vec<OutputRow<'a>>,
}

#[derive(Serialize)]
struct OutputRow<'a> {
    port: &'a str,
    path: &'a str,
    size: String,
    digest: String,
}

/// What the page's script reads: one table of events for each run.
#[derive(Serialize)]
struct Data {
    runs: Vec<Table>,
}

/// The document of port type `files`.
#[derive(Deserialize)]
struct FilesDocument {
    files: Vec<LeftFile>,
}

pub(super) fn page(
    report: &Report,
    subject: &Subject<'_>,
    outputs: &dyn Outputs,
) -> Result<String, ReportError> {
    let mut runs = Vec::new();
    let mut tables = Vec::new();
    let mut owners: Vec<&InstanceReport> = Vec::new();
    let mut payloads = Vec::new();
    let mut inspection = None;
    let mut runs_left_out = 0;
    for instance in subject.instances.iter().copied() {
        let source = Source { instance, outputs };
        if inspection.is_none()
            && let Some(info) = source.json::<ElfInfo>(PortType::Json("elf-info"))?
        {
            inspection = Some(Inspection::new(info));
        }
        if let Some(result) = source.json::<PayloadResult>(PortType::Json("payload-result"))? {
            payloads.push(payload(instance, result));
        }
        let result = source.json::<LinuxResult>(PortType::Json("linux-result"))?;
        let events = source.bytes(PortType::Events)?;
        if result.is_none() && events.is_none() {
            continue;
        }
        if runs.len() >= MAX_RUNS {
            runs_left_out += 1;
            continue;
        }
        let mut table = Table::default();
        let run = run(runs.len(), &source, result, events, &mut table)?;
        runs.push(run);
        tables.push(table);
        owners.push(instance);
    }
    let page = Page {
        title: &subject.name,
        experiment: &report.name,
        digest: subject
            .sample
            .map(|sample| sample.digest.to_string())
            .unwrap_or_default(),
        facts: facts(subject),
        severity: subject.severity().map_or("", |severity| severity.as_str()),
        counts: severity_counts(subject.findings().map(|(_, finding)| finding)),
        outcomes: subject
            .instances
            .iter()
            .filter_map(|instance| instance.outcome.as_ref())
            .map(outcome_badge)
            .collect(),
        findings: findings(report, subject, &owners, &tables),
        runs,
        runs_left_out,
        inspection,
        payloads,
        stages: subject.instances.iter().map(|instance| stage(instance)).collect(),
        provenance: vec![
            ("Experiment", report.name.clone()),
            ("Manifest", report.manifest.to_string()),
            ("Seed", report.seed.to_string()),
            ("hotcell", report.hotcell.clone()),
        ],
    };
    Ok(hotcell_render::html(
        "subject.html",
        &page,
        &Data { runs: tables },
    )?)
}

/// One instance's outputs, by port type.
struct Source<'a> {
    instance: &'a InstanceReport,
    outputs: &'a dyn Outputs,
}

impl Source<'_> {
    fn port(&self, wanted: PortType) -> Option<&'static str> {
        let stage_type = StageType::find(&self.instance.uses)?;
        let port = stage_type.outputs.iter().find(|output| output.port == wanted)?;
        self.instance.outputs.contains_key(port.name).then_some(port.name)
    }

    fn bytes(&self, wanted: PortType) -> Result<Option<Vec<u8>>, ReportError> {
        match self.port(wanted) {
            Some(port) => outputs::read(self.outputs, &self.instance.name, port),
            None => Ok(None),
        }
    }

    fn named(&self, port: &str) -> Result<Option<Vec<u8>>, ReportError> {
        if self.instance.outputs.contains_key(port) {
            outputs::read(self.outputs, &self.instance.name, port)
        } else {
            Ok(None)
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, wanted: PortType) -> Result<Option<T>, ReportError> {
        Ok(self
            .bytes(wanted)?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

fn facts(subject: &Subject<'_>) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.push((name, value));
        }
    };
    add("Architecture", Some(subject.arch().to_owned()));
    if let Some(sample) = subject.sample {
        add("Size", Some(words::size(sample.length)));
        add("Set", Some(sample.sets_in_words()));
        add("Family", sample.family.clone());
        add("Variant", sample.variant.clone());
        add("Label", sample.label.clone());
    }
    facts
}

fn findings(
    report: &Report,
    subject: &Subject<'_>,
    owners: &[&InstanceReport],
    tables: &[Table],
) -> Vec<FindingCard> {
    let mut found: Vec<_> = subject.findings().collect();
    found.sort_by(|(_, a), (_, b)| b.severity.cmp(&a.severity).then_with(|| a.rule.cmp(&b.rule)));
    found
        .into_iter()
        .map(|(instance, finding)| {
            let run = run_of(instance, owners);
            let shown = run.and_then(|run| tables.get(run)).map_or(0, Table::shown);
            FindingCard {
                severity: finding.severity.as_str(),
                title: words::cut(&finding.title, 400),
                rule: finding.rule.clone(),
                stage: stage_label(instance),
                attack: attack_marks(&finding.attack, &report.attack),
                more: finding.evidence.len().saturating_sub(MAX_EVIDENCE),
                evidence: finding
                    .evidence
                    .iter()
                    .take(MAX_EVIDENCE)
                    .map(|evidence| EvidenceLine {
                        text: words::cut(&evidence.text, 500),
                        event: evidence.event,
                        run: run.filter(|_| evidence.event.is_some_and(|event| event < shown)),
                        offset: evidence.offset.map(|offset| format!("{offset:#x}")),
                    })
                    .collect(),
            }
        })
        .collect()
}

/// The run whose events a finding speaks of: the one that shares most axes with the instance that found it.
fn run_of(instance: &InstanceReport, owners: &[&InstanceReport]) -> Option<usize> {
    let shared = |owner: &InstanceReport| {
        let clash = owner
            .axes
            .iter()
            .any(|(axis, value)| instance.axes.get(axis).is_some_and(|other| other != value));
        let same = owner
            .axes
            .iter()
            .filter(|(axis, value)| instance.axes.get(*axis) == Some(value))
            .count();
        (!clash, same)
    };
    let mut best: Option<(usize, (bool, usize))> = None;
    for (place, owner) in owners.iter().enumerate() {
        let score = shared(owner);
        if best.is_none_or(|(_, other)| score > other) {
            best = Some((place, score));
        }
    }
    best.map(|(place, _)| place)
}

fn run(
    index: usize,
    source: &Source<'_>,
    result: Option<LinuxResult>,
    events: Option<Vec<u8>>,
    table: &mut Table,
) -> Result<Run, ReportError> {
    let instance = source.instance;
    let mut tree = Tree::default();
    let mut bad = 0;
    let mut arch = instance.arch.clone();
    if let Some(bytes) = &events {
        let stream = EventStream::new(bytes);
        for line in stream.lines() {
            if table.is_full()
                && line.call().is_some()
                && let Some(Glance { seq, task }) = line.glance()
            {
                tree.met(seq, (task.pid, task.tid, task.parent), &task.image, "syscall");
                table.leave_out();
            } else if let Some(event) = line.event() {
                tree.add(&event);
                table.add(&event);
            } else {
                bad += 1;
            }
        }
        arch = arch.or_else(|| stream.header.map(|header| header.arch));
    }
    let (tree, tree_cut) = tree.rows();
    let mut numbers = Vec::new();
    if let Some(result) = &result {
        numbers.push(("Virtual time", words::duration(result.virtual_time)));
        numbers.push(("System calls", words::count(result.syscalls)));
        numbers.push(("Events", words::count(result.events)));
        numbers.push(("Tasks", words::count(u64::from(result.tasks))));
    }
    numbers.extend(words::responses(&instance.responses).map(|text| ("Responses", text)));
    let left = match source.json::<FilesDocument>(PortType::Files)? {
        Some(document) => document.files,
        None => result.map(|result| result.files).unwrap_or_default(),
    };
    Ok(Run {
        index,
        label: stage_label(instance),
        uses: instance.uses.clone(),
        arch: arch.unwrap_or_default(),
        outcome: instance.outcome.as_ref().map(outcome_badge),
        numbers,
        stdout: source.named("stdout")?.map(|bytes| stream(&bytes, MAX_STREAM)),
        stderr: source.named("stderr")?.map(|bytes| stream(&bytes, MAX_STREAM)),
        tree,
        tree_cut,
        events: table.total(),
        events_shown: table.shown(),
        events_bad: bad,
        unsupported: instance.unsupported.iter().map(call).collect(),
        files_more: left.len().saturating_sub(MAX_FILES),
        files: dropped(&left, source.outputs)?,
        behaviour: grouped(&instance.behaviour),
    })
}

fn stream(bytes: &[u8], most: usize) -> Stream {
    let head = bytes.get(..most).unwrap_or(bytes);
    Stream {
        text: lossless(head),
        length: words::size(bytes.len() as u64),
        cut: head.len() < bytes.len(),
    }
}

/// Bytes as text; what is no UTF-8 is `\xNN`. Unlike in events, a backslash stays single: this is for reading only.
fn lossless(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn call(call: &UnsupportedCall) -> Call {
    Call {
        name: call.name.clone(),
        support: words::support(call.support),
        note: call.note.clone(),
        count: words::count(call.count),
    }
}

fn dropped(files: &[LeftFile], outputs: &dyn Outputs) -> Result<Vec<Dropped>, ReportError> {
    let mut rows = Vec::new();
    for file in files.iter().take(MAX_FILES) {
        // Small files are worth a look; large ones are not read for it.
        let content = if file.length > 0 && file.length <= 1 << 20 {
            outputs.object(&file.digest).unwrap_or_default()
        } else {
            None
        };
        rows.push(Dropped {
            path: words::cut(&file.path, 500),
            mode: format!("{:04o}", file.mode & 0o7777),
            size: words::size(file.length),
            digest: file.digest.to_string(),
            preview: content.map(|bytes| stream(&bytes, MAX_PREVIEW)),
        });
    }
    Ok(rows)
}

/// Behaviours under their kind.
fn grouped(behaviour: &[String]) -> Vec<(String, Vec<String>)> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in behaviour {
        let (kind, rest) = line.split_once('/').unwrap_or(("", line));
        groups.entry(kind).or_default().push(rest.to_owned());
    }
    groups
        .into_iter()
        .map(|(kind, lines)| (kind.to_owned(), lines))
        .collect()
}

fn payload(instance: &InstanceReport, result: PayloadResult) -> Payload {
    Payload {
        label: stage_label(instance),
        arch: result.arch,
        outcome: outcome_badge(&result.outcome),
        instructions: words::count(result.instructions),
        disagreements: result.disagreements,
        registers: result
            .registers
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect(),
        memory: result
            .memory
            .into_iter()
            .map(|memory| {
                (
                    memory.address.to_string(),
                    words::cut(&hex_groups(&memory.bytes.0), 8_192),
                )
            })
            .collect(),
        trace_more: result.trace.len().saturating_sub(MAX_TRACE),
        trace: result
            .trace
            .into_iter()
            .take(MAX_TRACE)
            .map(|step| (step.address.to_string(), format!("{:?}", step.bytes), step.text))
            .collect(),
    }
}

fn hex_groups(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes
        .chunks(16)
        .take(512)
        .map(|line| {
            let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.join(" ")
        })
        .collect();
    lines.join("\n")
}

fn stage(instance: &InstanceReport) -> Stage<'_> {
    Stage {
        name: &instance.name,
        uses: &instance.uses,
        status: instance.status.as_str(),
        reason: instance.reason.as_deref().unwrap_or_default(),
        outputs: instance
            .outputs
            .iter()
            .map(|(port, output)| OutputRow {
                port,
                path: &output.path,
                size: words::size(output.length),
                digest: output.digest.short(),
            })
            .collect(),
    }
}
