//! `hotcell cores`: what cores this host has, and what each is for.

use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::topology::Topology;
use hotcell_plan::load;
use serde_json::json;

use crate::args::CoresArgs;
use crate::exit::{Exit, Failure};
use crate::session::utf8;
use crate::{diagnostics, ui};

pub(crate) fn run(args: &CoresArgs) -> Result<Exit, Failure> {
    let topology = Topology::of_this_host().map_err(|error| Failure::host(error.to_string()))?;
    let duties = match &args.manifest {
        None => None,
        Some(manifest) => {
            let loaded = load::load(utf8(manifest)?, &load::Options::default());
            if loaded.has_errors() {
                diagnostics::print(&loaded.diagnostics, &loaded.sources);
                return Ok(Exit::Usage);
            }
            let wanted = loaded
                .manifest
                .and_then(|manifest| manifest.cores)
                .ok_or_else(|| {
                    Failure::usage(format!("{} asks for no cores", manifest.display()))
                        .help("give it a table `[cores]`")
                })?;
            let duties = Duties::plan(&wanted, &topology);
            Some(duties.map_err(|error| Failure::host(error.to_string()))?)
        }
    };
    let of = |core: u32| duties.as_ref().map_or_else(Vec::new, |duties| duties.of(core));
    if args.json {
        let cores: Vec<_> = topology
            .cores()
            .iter()
            .map(|core| {
                json!({
                    "core": core,
                    "processors": topology.siblings(core),
                    "usable": topology.usable(core),
                    "isolated": topology.siblings(core).is_subset(&topology.isolated),
                    "tickless": topology.siblings(core).is_subset(&topology.tickless),
                    "duties": of(core),
                })
            })
            .collect();
        ui::out(&ui::json(
            &json!({"format": "hotcell-cores", "version": 1, "cores": cores}),
        )?);
        return Ok(Exit::Ok);
    }
    ui::out("core  processors  kept free at boot  for");
    for core in topology.cores().iter() {
        let siblings = topology.siblings(core);
        let kept = match (
            siblings.is_subset(&topology.isolated),
            siblings.is_subset(&topology.tickless),
        ) {
            (true, true) => "isolated, no tick",
            (true, false) => "isolated",
            (false, true) => "no tick",
            (false, false) => "no",
        };
        let duties = of(core).join(", ");
        let line = format!("{core:<4}  {:<10}  {kept:<17}  {duties}", siblings.to_string());
        ui::out(line.trim_end());
    }
    if let Some(duties) = duties.filter(|duties| duties.shared) {
        ui::out(&format!(
            "a small host: control on core {}, chores on core {}, guests on {}",
            duties.control, duties.chores, duties.pool
        ));
    }
    Ok(Exit::Ok)
}
