//! `hotcell report`: the report of a run again.

use hotcell_report::Summary;
use hotcell_schema::report::RunFacts;

use super::diff::read_report;
use crate::args::{Global, ReportArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::runs::{self, State};
use crate::{session, ui};

pub(crate) fn run(args: &ReportArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let run = places.run(args.run.as_deref())?;
    if args.run.is_none() {
        tell_of_later(&places, &run);
    }
    let report = read_report(&run)?;
    if args.json {
        ui::out(&ui::json(&report)?);
        return Ok(Exit::Ok);
    }
    // A run's facts are of use, not of need: a copied result has none.
    let facts: Option<RunFacts> = fs_err::read(run.join("run.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    session::print_summary(&Summary::of(&report, facts.as_ref()), &run);
    Ok(Exit::Ok)
}

/// A run that was killed has no report: what is shown then is of an older one, and that is said.
fn tell_of_later(places: &Places, shown: &std::path::Path) {
    let all = runs::all(&places.runs());
    let later = all.iter().skip_while(|run| run.folder != shown).skip(1);
    for run in later.filter(|run| run.state != State::Finished) {
        ui::say(&format!(
            "{} {} is later and has no report: {}",
            ui::styled(ui::YELLOW, "note:"),
            ui::plain(&run.id),
            run.how_far()
        ));
    }
}
