//! `compare/behaviour`: two event streams of one sample. Runs in the runner: it parses nothing that is not bounded JSON.

use hotcell_plan::Instance;
use hotcell_report::assemble::EventStream;
use hotcell_report::compare::{compare, findings};
use hotcell_schema::finding::Findings;
use hotcell_schema::stage::CompareWith;

use super::{put_json, required, settings};
use crate::work::{Done, Inputs, Shared};

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: CompareWith = settings(instance)?;
    let left = shared.read(required(inputs, "left")?)?;
    let right = shared.read(required(inputs, "right")?)?;
    let comparison =
        compare(&EventStream::new(&left), &EventStream::new(&right), &with.ignore).map_err(|bad| {
            Done::failed(
                "an event stream cannot be read",
                format!("{bad} lines are no events"),
            )
        })?;
    let findings = Findings::new(findings(&comparison));
    let outputs = [
        ("comparison".to_owned(), put_json(shared, &comparison)?),
        ("findings".to_owned(), put_json(shared, &findings)?),
    ];
    Ok(Done::ok(outputs.into_iter().collect(), Vec::new()))
}
