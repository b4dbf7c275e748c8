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
        out.push_str(&table(&rows, runs_samples(report), style));
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
    section(&mut out, "Did not end well", report, facts, style, |instance| {
        instance.status.is_bad()
    });
    section(&mut out, "Skipped", report, None, style, |instance| {
        instance.status == Status::Skipped
    });
    section(&mut out, "Left out", report, None, style, |instance| {
        instance.status.has_outputs() && instance.reason.is_some()
    });
    out.push('\n');
    out.push_str(&totals(report, facts));
    out
}

/// Names of alike instances that are shown.
const NAMED: usize = 3;
/// Lines of what a program said that are shown.
const SAID: usize = 6;

/// Instances of a kind with their reasons, alike ones together; with `facts`, the end of what the first of them said.
fn section(
    out: &mut String,
    title: &str,
    report: &Report,
    facts: Option<&RunFacts>,
    style: Style,
    is_of: impl Fn(&InstanceReport) -> bool,
) {
    let mut groups: BTreeMap<(Status, &str, &str), Vec<&InstanceReport>> = BTreeMap::new();
    for instance in report.instances.iter().filter(|instance| is_of(instance)) {
        let reason = instance.reason.as_deref().unwrap_or("no reason was given");
        let key = (instance.status, instance.stage.as_str(), reason);
        groups.entry(key).or_default().push(instance);
    }
    if groups.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}\n"));
    for ((status, stage, reason), alike) in groups.iter().take(style.rows) {
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
        out.push_str(&format!(
            "  {} {which}: {}{names}\n",
            paint(status_word(*status), "33", style),
            words::cut(&visible(&report.shorten(reason)), 200)
        ));
        let said = alike.first().and_then(|first| {
            let facts = facts?.instances.get(&first.name)?;
            facts.error.as_deref()
        });
        let lines: Vec<&str> = said.unwrap_or_default().lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(SAID)) {
            out.push_str(&format!("      {}\n", words::cut(&visible(line), 200)));
        }
    }
    if groups.len() > style.rows {
        out.push_str(&format!("  … and {} more\n", groups.len() - style.rows));
    }
}

/// Whether a stage of the report runs samples at all: where none does, nobody misses their outcomes.
pub(crate) fn runs_samples(report: &Report) -> bool {
    let mut instances = report.instances.iter();
    instances.any(|instance| instance.outcome.is_some() || instance.uses.starts_with("unicorn/"))
}

/// How the stages that are about a sample ended: `3 ok, 1 failed`.
pub(crate) fn endings(instances: &[&InstanceReport]) -> String {
    let mut counts: BTreeMap<Status, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(instance.status).or_default() += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{count} {}", status_word(*status)))
        .collect();
    words.join(", ")
}

struct Row {
    sample: String,
    arch: String,
    stage: String,
    outcome: String,
    outcome_good: bool,
    /// How the stages about it ended, where no sample is run.
    ended: String,
    severities: BTreeMap<Severity, usize>,
    unsupported: usize,
}

/// One row for each run of a sample (an instance with an outcome); one for each sample that was not run.
fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut by_sample: BTreeMap<&str, Vec<&InstanceReport>> = BTreeMap::new();
    let runs = runs_samples(report);
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
        ended: String::new(),
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

fn table(rows: &[Row], runs: bool, style: Style) -> String {
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
    match runs {
        true => {
            let titles = ["Sample", "Arch", "Stage", "Outcome", "Findings", "Unsupported"];
            table.set_header(titles.map(bold));
        }
        false => _ = table.set_header(["Sample", "Arch", "Stages", "Findings"].map(bold)),
    }
    for row in rows.iter().take(style.rows) {
        let outcome = Cell::new(words::cut(&visible(&row.outcome), 60));
        let worst = row.severities.last_key_value().map(|(severity, _)| *severity);
        let found = Cell::new(severity_counts(&row.severities));
        let found = match worst {
            Some(severity) => found.fg(severity_colour(severity)),
            None => found,
        };
        let sample = Cell::new(words::cut(&visible(&row.sample), 40));
        if !runs {
            table.add_row([
                sample,
                Cell::new(visible(&row.arch)),
                Cell::new(&row.ended),
                found,
            ]);
            continue;
        }
        table.add_row([
            sample,
            Cell::new(visible(&row.arch)),
            Cell::new(words::cut(&visible(&row.stage), 40)),
            if row.outcome_good {
                outcome
            } else {
                outcome.fg(Color::Yellow)
            },
            found,
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
        Status::Ok,
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
        if count > 0 || status == Status::Ok {
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
