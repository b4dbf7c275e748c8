//! The summary for a terminal, as a plain string.

use std::collections::BTreeMap;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, LineStyle, Table, TableStyle};
use hotcell_render::visible;
use hotcell_schema::finding::Severity;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, Report, RunFacts};
use indexmap::IndexMap;

use crate::words;

/// How the summary is written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether ANSI styles are used.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: u16,
    /// Greatest number of rows; the rest is counted.
    pub rows: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            colour: false,
            width: 100,
            rows: 40,
        }
    }
}

/// The table of samples, what was found, what was unsupported and what did not end well. Ends with a line feed.
///
/// With `facts`, the last line tells how long it took and how much came from the cache.
pub fn summary(report: &Report, facts: Option<&RunFacts>, style: Style) -> String {
    let mut out = String::new();
    let rows = rows(report);
    if !rows.is_empty() {
        out.push_str(&table(&rows, style));
        out.push('\n');
    }
    if rows.len() > style.rows {
        out.push_str(&format!("… and {} more\n", rows.len() - style.rows));
    }
    let findings = findings(report);
    if !findings.is_empty() {
        out.push_str("\nFindings\n");
        for ((severity, title, rule), samples) in findings.iter().rev().take(style.rows) {
            let marked = paint(severity.as_str(), severity_code(*severity), style);
            let pad = " ".repeat(8_usize.saturating_sub(severity.as_str().len()));
            out.push_str(&format!(
                "  {marked}{pad} {} ({}) · {}\n",
                words::cut(&visible(title), 100),
                visible(rule),
                plural(*samples, "sample")
            ));
        }
        if findings.len() > style.rows {
            out.push_str(&format!("  … and {} more\n", findings.len() - style.rows));
        }
    }
    let bad = troubles(report);
    if !bad.is_empty() {
        out.push_str("\nDid not end well\n");
        for ((status, stage, reason), names) in bad.iter().take(style.rows) {
            let which = match names.as_slice() {
                [name] => format!("{} of {}", visible(stage), words::cut(&visible(name), 60)),
                _ => format!("{} × {}", visible(stage), names.len()),
            };
            out.push_str(&format!(
                "  {} {which}: {}\n",
                paint(status_word(*status), "33", style),
                words::cut(&visible(reason), 200)
            ));
        }
        if bad.len() > style.rows {
            out.push_str(&format!("  … and {} more\n", bad.len() - style.rows));
        }
    }
    out.push('\n');
    out.push_str(&totals(report, facts));
    out
}

/// Instances without outputs, alike ones together: status, stage and reason to what they are about.
fn troubles(report: &Report) -> BTreeMap<(Status, &str, &str), Vec<&str>> {
    let mut groups: BTreeMap<(Status, &str, &str), Vec<&str>> = BTreeMap::new();
    for instance in report
        .instances
        .iter()
        .filter(|instance| !instance.status.has_outputs())
    {
        let reason = instance.reason.as_deref().unwrap_or("no reason was given");
        let about = report
            .sample_of(instance)
            .map_or(instance.name.as_str(), |(_, sample)| sample.name.as_str());
        groups
            .entry((instance.status, &instance.stage, reason))
            .or_default()
            .push(about);
    }
    groups
}

struct Row {
    sample: String,
    arch: String,
    stage: String,
    outcome: String,
    outcome_good: bool,
    severities: BTreeMap<Severity, usize>,
    unsupported: usize,
}

/// One row for each run of a sample (an instance with an outcome); one for each sample that was not run.
fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut by_sample: BTreeMap<&str, Vec<&InstanceReport>> = BTreeMap::new();
    for instance in &report.instances {
        if let Some((id, _)) = report.sample_of(instance) {
            by_sample.entry(id).or_default().push(instance);
        }
    }
    for (id, sample) in &report.samples {
        let instances = by_sample.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let before = rows.len();
        for instance in instances.iter().filter(|instance| instance.outcome.is_some()) {
            rows.push(row(
                instance,
                sample.name.clone(),
                severities(instances, &instance.axes),
            ));
        }
        if rows.len() == before {
            rows.push(Row {
                sample: sample.name.clone(),
                arch: sample.arch.clone().unwrap_or_default(),
                stage: String::new(),
                outcome: "not run".into(),
                outcome_good: true,
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
    rows
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
        arch: instance.arch.clone().unwrap_or_default(),
        stage: stage_label(instance),
        outcome: instance
            .outcome
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        outcome_good: matches!(instance.outcome, Some(Outcome::Exited(0) | Outcome::Completed)),
        severities,
        unsupported: instance.unsupported.len(),
    }
}

/// The stage, with the values of axes that are no samples.
pub(crate) fn stage_label(instance: &InstanceReport) -> String {
    let others: Vec<&str> = instance
        .axes
        .iter()
        .filter(|(name, value)| {
            name.as_str() != "sample" && value.parse::<hotcell_schema::digest::Digest>().is_err()
        })
        .map(|(_, value)| value.as_str())
        .collect();
    if others.is_empty() {
        instance.stage.clone()
    } else {
        format!("{} {}", instance.stage, others.join(" "))
    }
}

/// Lines only below the header and at the end.
const LINES: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

fn table(rows: &[Row], style: Style) -> String {
    let mut table = Table::new();
    table.load_style(LINES);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(style.width.max(40));
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let bold = |text: &str| Cell::new(text).add_attribute(Attribute::Bold);
    table.set_header(["Sample", "Arch", "Stage", "Outcome", "Findings", "Unsupported"].map(bold));
    for row in rows.iter().take(style.rows) {
        let outcome = Cell::new(words::cut(&visible(&row.outcome), 60));
        let worst = row.severities.last_key_value().map(|(severity, _)| *severity);
        let found = Cell::new(severity_counts(&row.severities));
        table.add_row([
            Cell::new(words::cut(&visible(&row.sample), 40)),
            Cell::new(visible(&row.arch)),
            Cell::new(words::cut(&visible(&row.stage), 40)),
            if row.outcome_good {
                outcome
            } else {
                outcome.fg(Color::Yellow)
            },
            match worst {
                Some(severity) => found.fg(severity_colour(severity)),
                None => found,
            },
            match row.unsupported {
                0 => Cell::new("—"),
                calls => Cell::new(plural(calls, "call")).fg(Color::Yellow),
            },
        ]);
    }
    table.trim_fmt()
}

fn severity_counts(counts: &BTreeMap<Severity, usize>) -> String {
    if counts.is_empty() {
        return "none".into();
    }
    let parts: Vec<String> = counts
        .iter()
        .rev()
        .map(|(severity, count)| format!("{count} {}", severity.as_str()))
        .collect();
    parts.join(", ")
}

type FindingKey = (Severity, String, String);

/// Findings over all samples, least serious first: severity, title, rule, to the number of samples.
fn findings(report: &Report) -> BTreeMap<FindingKey, usize> {
    let mut samples: BTreeMap<FindingKey, std::collections::BTreeSet<&str>> = BTreeMap::new();
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
                .entry((finding.severity, finding.title.clone(), finding.rule.clone()))
                .or_default()
                .insert(subject);
        }
    }
    samples
        .into_iter()
        .map(|(key, subjects)| (key, subjects.len()))
        .collect()
}

fn totals(report: &Report, facts: Option<&RunFacts>) -> String {
    let mut parts = vec![
        plural(report.samples.len(), "sample"),
        plural(report.instances.len(), "instance"),
    ];
    for status in [
        Status::Failed,
        Status::Interrupted,
        Status::Skipped,
        Status::Refused,
    ] {
        let count = report
            .instances
            .iter()
            .filter(|instance| instance.status == status)
            .count();
        if count > 0 {
            parts.push(format!("{count} {}", status_word(status)));
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
    format!("{}\n", parts.join(" · "))
}

pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Cached => "cached",
        Status::Failed => "failed",
        Status::Interrupted => "interrupted",
        Status::Skipped => "skipped",
        Status::Refused => "refused",
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn severity_colour(severity: Severity) -> Color {
    match severity {
        Severity::Info => Color::DarkGrey,
        Severity::Low => Color::Cyan,
        Severity::Medium => Color::Yellow,
        Severity::High => Color::Red,
        Severity::Critical => Color::Magenta,
    }
}

fn severity_code(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "90",
        Severity::Low => "36",
        Severity::Medium => "33",
        Severity::High => "31",
        Severity::Critical => "1;35",
    }
}

fn paint(text: &str, code: &str, style: Style) -> String {
    if style.colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
