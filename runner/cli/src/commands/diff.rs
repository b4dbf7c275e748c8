//! `hotcell diff`: two runs side by side.

use std::path::{Path, PathBuf};

use hotcell_judge::diff::{Side, between};
use hotcell_judge::html;
use hotcell_schema::diff::RunDiff;
use hotcell_schema::report::{InstanceReport, Report};

use crate::args::{DiffArgs, Global};
use crate::contents::Files;
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::ui;
use crate::verdicts::View;

/// No report is larger.
const MAX_REPORT: u64 = 4 << 30;

pub(crate) fn run(args: &DiffArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let (old, before) = open(&args.old, &places)?;
    let (new, after) = open(&args.new, &places)?;
    let wanted = |report: &Report, instance: &InstanceReport| {
        let stage = args.stage.is_empty() || args.stage.contains(&instance.stage);
        let begins =
            |name: &String| instance.name.starts_with(name) || report.short_name(instance).starts_with(name);
        stage && (args.instance.is_empty() || args.instance.iter().any(begins))
    };
    let side = |report, contents| Side { report, contents };
    let diff = between(side(&old, &before), side(&new, &after), &wanted);
    let filtered = !(args.stage.is_empty() && args.instance.is_empty());
    if filtered && diff.compared == 0 {
        return Err(
            Failure::usage("neither run has an instance of this name or stage")
                .help("`hotcell report RUN --json | jq '.instances[].name'` shows all names"),
        );
    }
    if let Some(path) = &args.html {
        let title = if old.name == new.name {
            new.name.clone()
        } else {
            format!("{} and {}", old.name, new.name)
        };
        let page = html::of_runs(&diff, &title, &args.old, &args.new)
            .map_err(|error| Failure::host(format!("the page cannot be made: {error}")))?;
        fs_err::write(path, page)?;
        ui::say(&format!("page: {}", path.display()));
    }
    if args.json {
        ui::out(&ui::json(&diff)?);
    } else {
        print(&diff, View::new(args.full));
    }
    Ok(if diff.is_empty() { Exit::Ok } else { Exit::NotMet })
}

fn print(diff: &RunDiff, view: View) {
    if diff.is_empty() {
        ui::out(&format!("no difference in {} instances", diff.compared));
        return;
    }
    for line in view.changes(&diff.run, 0) {
        ui::out(&line);
    }
    for instance in &diff.instances {
        ui::out(&ui::styled(ui::BOLD, ui::plain(&instance.short)));
        for line in view.changes(&instance.changes, 2) {
            ui::out(&line);
        }
    }
    ui::out(&format!(
        "{} of {} instances differ",
        diff.instances.len(),
        diff.compared
    ));
}

/// A run by its folder, its id, or its `report.json`: the report, and where its outputs are.
fn open(name: &str, places: &Places) -> Result<(Report, Files), Failure> {
    let path = Path::new(name);
    let (report, result) = if path.is_file() {
        let result = path.parent().unwrap_or(Path::new("")).to_owned();
        let result = if result.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            result
        };
        (read(path)?, result)
    } else {
        let run = places.run(Some(name))?;
        (read_report(&run)?, run.join("result"))
    };
    Ok((report, Files::new(result, &places.store)))
}

/// The report of a run's folder.
pub(crate) fn read_report(run: &Path) -> Result<Report, Failure> {
    read(&run.join("result/report.json"))
}

fn read(path: &Path) -> Result<Report, Failure> {
    if fs_err::metadata(path)?.len() > MAX_REPORT {
        return Err(Failure::usage(format!(
            "{} is larger than {MAX_REPORT} bytes",
            path.display()
        )));
    }
    let text = fs_err::read_to_string(path)?;
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()))
            .help("is it the report.json of a run? Was it made by another version of hotcell?")
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
