//! The probe that matters most: a whole run of one confined cell, in a folder of its own.

use hotcell_plan::load;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::RunFacts;

use super::{Probe, State};
use crate::args::{ExecuteArgs, Global, ProgressStyle};
use crate::places::Places;
use crate::session::Planned;

/// x86_64 code that adds 1 to 100: `mov eax,0; mov ecx,100; add eax,ecx; dec ecx; jnz -6`.
const MANIFEST: &str = r#"
hotcell = 1
name = "doctor"
[stages.sum]
uses = "unicorn/payload"
with = { arch = "x86_64", code = "b800000000 b964000000 01c8 ffc9 75fa", want-registers = ["rax"] }
limits = { wall = "30s" }
"#;

/// The probe, and the layers of confinement that held.
pub(super) fn probe(places: &Places, global: &Global) -> (Probe, Vec<String>) {
    let (state, found, layers) = match trial(places, global) {
        Ok(facts) => {
            let layers = facts.confinement.join(", ");
            let but = if facts.fallbacks.is_empty() {
                String::new()
            } else {
                format!("; but {}", facts.fallbacks.join("; "))
            };
            let state = if facts.fallbacks.is_empty() {
                State::Ok
            } else {
                State::Limited
            };
            (state, format!("ran within {layers}{but}"), facts.confinement)
        }
        Err(error) => (State::Missing, error, Vec::new()),
    };
    let probe = Probe {
        name: "a cell".into(),
        state,
        found,
        serves: "everything that runs a sample",
        remedy: (state != State::Ok).then(|| "see the probes around this one".into()),
    };
    (probe, layers)
}

fn trial(places: &Places, global: &Global) -> Result<RunFacts, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let places = Places {
        state: folder.path().join("state"),
        store: folder.path().join("store"),
        libexec: places.libexec.clone(),
        arbiter: places.arbiter.clone(),
    };
    let loaded = load::load_text("doctor.toml".into(), MANIFEST, &load::Options::default());
    let planned = Planned::from_loaded(loaded, places, Vec::new(), global)
        .map_err(|failure| failure.message)?
        .ok_or("the trial's manifest is refused; see above")?;
    let how = ExecuteArgs {
        jobs: Some(1),
        fail_fast: false,
        keep_going: false,
        force: true,
        progress: ProgressStyle::None,
    };
    let ran = planned.run(&how).map_err(|failure| failure.message)?;
    let facts = ran.outcome.facts;
    if let Some(instance) = facts
        .instances
        .values()
        .find(|instance| instance.status != Status::Ok)
    {
        return Err(instance
            .error
            .clone()
            .unwrap_or_else(|| format!("it ended {:?}", instance.status)));
    }
    let outputs = ran
        .outcome
        .report
        .instances
        .first()
        .and_then(|instance| instance.outputs.get("result"));
    let result = ran.folder.result().join(&outputs.ok_or("it has no result")?.path);
    let sum = fs_err::read_to_string(&result).map_err(|error| error.to_string())?;
    if !sum.contains("\"0x13ba\"") {
        return Err("1+2+…+100 did not give 5050".into());
    }
    Ok(facts)
}
