//! `detect/rules`: rules over stored events and facts. Runs in the runner: it parses nothing that is not bounded JSON.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hotcell_detect::RuleSet;
use hotcell_plan::Instance;
use hotcell_report::assemble::EventStream;
use hotcell_schema::event::Header;
use hotcell_schema::finding::Findings;
use hotcell_schema::outcome::Status;

use super::{only, put_json};
use crate::work::{Done, Input, Inputs, Shared};

/// Rule sets that were compiled in this run: each once, whatever the number of instances.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<HashMap<String, Arc<RuleSet>>>);

impl Compiled {
    /// The set of that name.
    pub(super) fn get(&self, shared: &Shared<'_>, name: &str) -> Result<Arc<RuleSet>, Done> {
        // Held while compiling: everyone else would need the same set.
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(name) {
            return Ok(Arc::clone(set));
        }
        let set = shared
            .plan
            .rule_sets
            .get(name)
            .ok_or_else(|| Done::failed("the plan names a rule set it does not have", name.to_owned()))?;
        let files: Vec<(&str, &str)> = set
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.text.as_str()))
            .collect();
        let compiled = RuleSet::parse(&files).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Done {
                error: Some(all.join("\n")),
                ..Done::without_outputs(Status::Refused, "a rule file cannot be read")
            }
        })?;
        let compiled = Arc::new(compiled);
        sets.insert(name.to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let name = instance
        .rules
        .as_deref()
        .ok_or_else(|| Done::failed("the plan names no rules", instance.name.clone()))?;
    let rules = shared.rules.get(shared, name)?;
    let events = only(inputs, "events")
        .map(|input| shared.read(input))
        .transpose()?
        .unwrap_or_default();
    let info = match only(inputs, "info") {
        Some(Input::Stored(stored)) => {
            let documents = &shared.documents;
            Some(documents.get::<serde_json::Value>(shared, stored, "inspection facts cannot be read")?)
        }
        Some(input) => {
            let bytes = shared.read(input)?;
            let info: serde_json::Value = serde_json::from_slice(&bytes)
                .map_err(|error| Done::failed("inspection facts cannot be read", error.to_string()))?;
            Some(Arc::new(info))
        }
        None => None,
    };
    let stream = EventStream::new(&events);
    let header = stream.header.clone().unwrap_or_else(|| Header::new("", "", ""));
    let mut evaluation = rules.start(&header);
    let bad = stream.for_each(|event| evaluation.event(&event));
    if bad > 0 {
        return Err(Done::failed(
            "the event stream cannot be read",
            format!("{bad} lines are no events"),
        ));
    }
    let findings = Findings::new(evaluation.finish(info.as_deref()));
    let outputs = [("findings".to_owned(), put_json(shared, &findings)?)]
        .into_iter()
        .collect();
    Ok(Done::ok(outputs, Vec::new()))
}
