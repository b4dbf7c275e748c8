//! The summary for a terminal, as a plain string.

use std::collections::BTreeMap;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, LineStyle, Table, TableStyle};
use hotcell_schema::finding::Severity;

use crate::summary::{Part, Row, Summary, plural};

/// How the summary is written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether ANSI styles are used.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: u16,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            colour: false,
            width: 100,
        }
    }
}

/// The table of samples, what was found, what was unsupported and what did not end well, and counts. Ends with a line feed.
pub fn summary(summary: &Summary, style: Style) -> String {
    let mut out = String::new();
    if summary.rows.count > 0 {
        out.push_str(&table(&summary.rows.first, summary.runs, style));
        out.push('\n');
    }
    more(&mut out, "", &summary.rows);
    if summary.findings.count > 0 {
        out.push_str("\nFindings\n");
        for found in &summary.findings.first {
            let severity = found.severity.as_str();
            let marked = paint(severity, severity_code(found.severity), style);
            let pad = " ".repeat(8_usize.saturating_sub(severity.len()));
            out.push_str(&format!(
                "  {marked}{pad} {} ({}) · {}\n",
                found.title,
                found.rule,
                plural(found.samples, "sample")
            ));
        }
        more(&mut out, "  ", &summary.findings);
    }
    for (title, section) in &summary.sections {
        out.push_str(&format!("\n{title}\n"));
        for alike in &section.first {
            out.push_str(&format!(
                "  {} {}: {}{}\n",
                paint(&alike.word, "33", style),
                alike.which,
                alike.reason,
                alike.names
            ));
            for line in &alike.said {
                out.push_str(&format!("      {line}\n"));
            }
        }
        more(&mut out, "  ", section);
    }
    out.push_str(&format!("\n{}\n", summary.totals.join(" · ")));
    out
}

/// Says how many are not shown.
fn more<T>(out: &mut String, before: &str, part: &Part<T>) {
    if part.more() > 0 {
        out.push_str(&format!("{before}… and {} more\n", part.more()));
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
    for row in rows {
        let outcome = Cell::new(&row.outcome);
        let worst = row.severities.last_key_value().map(|(severity, _)| *severity);
        let found = Cell::new(severity_counts(&row.severities));
        let found = match worst {
            Some(severity) => found.fg(severity_colour(severity)),
            None => found,
        };
        let sample = Cell::new(&row.sample);
        if !runs {
            table.add_row([sample, Cell::new(&row.arch), Cell::new(&row.ended), found]);
            continue;
        }
        table.add_row([
            sample,
            Cell::new(&row.arch),
            Cell::new(&row.stage),
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
