//! `hotcell diff`: two runs side by side.

use std::path::Path;

use hotcell_judge::diff::RunDiff;
use hotcell_schema::report::Report;

use crate::args::{DiffArgs, Global};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::{ui, verdicts};

pub(crate) fn run(args: &DiffArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let old = read_report(&places.run(Some(&args.old))?)?;
    let new = read_report(&places.run(Some(&args.new))?)?;
    let diff = RunDiff::between(&old, &new);
    if args.json {
        ui::out(&ui::json(&diff)?);
    } else if diff.is_empty() {
        ui::out(&format!("no difference in {} instances", new.instances.len()));
    } else {
        for change in &diff.run {
            ui::out(&verdicts::change(change));
        }
        for (instance, changes) in &diff.instances {
            ui::out(&ui::styled(ui::BOLD, ui::plain(instance)));
            for change in changes {
                ui::out(&format!("  {}", verdicts::change(change)));
            }
        }
    }
    Ok(if diff.is_empty() { Exit::Ok } else { Exit::NotMet })
}

/// The report of a run's folder.
pub(crate) fn read_report(run: &Path) -> Result<Report, Failure> {
    let path = run.join("result/report.json");
    let text = fs_err::read_to_string(&path)?;
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()))
            .help("was it made by another version of hotcell?")
    })?;
    if report.format != hotcell_schema::report::FORMAT || report.version != hotcell_schema::report::VERSION {
        return Err(Failure::usage(format!(
            "{}: {} {} is not a format this version reads",
            path.display(),
            report.format,
            report.version
        )));
    }
    Ok(report)
}
