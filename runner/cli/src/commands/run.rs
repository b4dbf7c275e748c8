//! `hotcell run`: an experiment, and its report.

use crate::args::{Global, RunArgs};
use crate::exit::{Exit, Failure};
use crate::session::{self, Planned};
use crate::ui;

pub(crate) fn run(args: &RunArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(planned) = Planned::from_manifest(&args.manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let ran = planned.run(&args.execute)?;
    if args.json {
        ui::out(&ui::json(&ran.outcome.report)?);
    } else {
        session::print_summary(&ran.outcome.report, Some(&ran.outcome.facts), ran.folder.path());
    }
    Ok(ran.exit())
}
