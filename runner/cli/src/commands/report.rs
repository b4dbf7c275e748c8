//! `hotcell report`: the report of a run again.

use hotcell_schema::report::RunFacts;

use super::diff::read_report;
use crate::args::{Global, ReportArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::{session, ui};

pub(crate) fn run(args: &ReportArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let run = places.run(args.run.as_deref())?;
    let report = read_report(&run)?;
    if args.json {
        ui::out(&ui::json(&report)?);
        return Ok(Exit::Ok);
    }
    // A run's facts are of use, not of need: a copied result has none.
    let facts: Option<RunFacts> = fs_err::read(run.join("run.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    session::print_summary(&report, facts.as_ref(), &run);
    Ok(Exit::Ok)
}
