//! The probe that matters most: a whole run of one confined cell, in a folder of its own.

use hotcell_plan::load;
use hotcell_schema::outcome::Status;

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

pub(super) fn probe(places: &Places, global: &Global) -> Probe {
    let (state, found) = match trial(places, global) {
        Ok(layers) => (State::Ok, format!("a cell ran within {layers}")),
        Err(error) => (State::Missing, error),
    };
    Probe {
        name: "a cell".into(),
        state,
        found,
        serves: "everything that runs a sample",
        remedy: (state != State::Ok).then(|| "see the probes around this one".into()),
    }
}

fn trial(places: &Places, global: &Global) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let places = Places {
        state: folder.path().join("state"),
        store: folder.path().join("store"),
        libexec: places.libexec.clone(),
    };
    let loaded = load::load_text("doctor.toml".into(), MANIFEST, &load::Options::default());
    let planned = Planned::from_loaded(loaded, places, Vec::new(), global)
        .map_err(|failure| failure.message)?
        .ok_or("the trial's manifest is refused; see above")?;
    let how = ExecuteArgs { jobs: Some(1), fail_fast: false, force: true, progress: ProgressStyle::None };
    let ran = planned.run(&how).map_err(|failure| failure.message)?;
    let facts = ran.outcome.facts;
    if let Some(instance) = facts.instances.values().find(|instance| instance.status != Status::Ok) {
        return Err(instance.error.clone().unwrap_or_else(|| format!("it ended {:?}", instance.status)));
    }
    let result = ran.folder.result().join("stages/sum/sum/result.json");
    let sum = fs_err::read_to_string(&result).map_err(|error| error.to_string())?;
    if !sum.contains("\"0x13ba\"") {
        return Err("1+2+…+100 did not give 5050".into());
    }
    let layers = facts.confinement.join(", ");
    match facts.fallbacks.as_slice() {
        [] => Ok(layers),
        fallbacks => Ok(format!("{layers}; but {}", fallbacks.join("; "))),
    }
}
