//! `hotcell run`: an experiment, and its report.

use super::plan;
use crate::args::{Global, RunArgs};
use crate::exit::{Exit, Failure};
use crate::outlook::Outlook;
use crate::session::{self, Planned};
use crate::ui;
use hotcell_run::Current;

pub(crate) fn run(args: &RunArgs, global: &Global) -> Result<Exit, Failure> {
    if args.dry_run {
        let Some(planned) = Planned::chosen(&args.manifest, &args.choose, global)? else {
            return Ok(Exit::Usage);
        };
        return dry(&planned, args.execute.jobs, args.json);
    }
    let Some(planned) = Planned::chosen_to_run(&args.manifest, &args.choose, global)? else {
        return Ok(Exit::Usage);
    };
    if nothing_chosen(&planned) {
        return Ok(Exit::Ok);
    }
    if let Some(current) = planned.current(&args.execute)? {
        return nothing_new(&current, args.json);
    }
    let ran = planned.run(&args.execute)?;
    if args.json {
        ui::out(&ui::json(&ran.outcome.report)?);
    } else {
        session::print_summary(&ran.summary(), ran.folder.path());
    }
    Ok(ran.exit())
}

/// Nothing has changed since the latest run: its result is shown, and no new one is made.
fn nothing_new(current: &Current, json: bool) -> Result<Exit, Failure> {
    let Current {
        folder,
        instances,
        skipped,
        ..
    } = current;
    let exit = match current.summary.not_run {
        0 => Exit::Ok,
        _ => Exit::NotJudged,
    };
    if json {
        ui::out(fs_err::read_to_string(folder.result().join("report.json"))?.trim_end());
        return Ok(exit);
    }
    let wanted = match skipped {
        0 => String::new(),
        _ => format!(", {skipped} of them not wanted"),
    };
    let (all, are) = (
        ui::count(*instances, "instance"),
        if *instances == 1 { "is" } else { "are" },
    );
    ui::out(&format!(
        "nothing to do: {all}{wanted} {are} as in run {}; --force runs them again",
        folder.id()
    ));
    // What it was then is what it would be now.
    session::print_summary(&current.summary, folder.path());
    Ok(exit)
}

/// What would run, as `hotcell plan` shows it.
pub(crate) fn dry(planned: &Planned, jobs: Option<u32>, json: bool) -> Result<Exit, Failure> {
    let outlook = Outlook::new(planned, session::jobs(jobs))?;
    match json {
        true => ui::out(&ui::json(&outlook.to_json())?),
        false => plan::print(&outlook, false),
    }
    Ok(Exit::Ok)
}

/// Whether the chosen part is empty, as when nothing failed before: then there is nothing to do, and no run is made.
pub(crate) fn nothing_chosen(planned: &Planned) -> bool {
    let empty = planned
        .selection
        .as_ref()
        .is_some_and(hotcell_run::Selection::is_empty);
    if empty {
        ui::say("nothing is to be run");
    }
    empty
}
