//! What a user may take on a host with an arbiter, against what an experiment asks for.

use std::time::SystemTime;

use hotcell_cells::cores::service::policy::Quota;
use hotcell_plan::Plan;
use hotcell_schema::manifest::{Size, Time};
use hotcell_schema::stage::StageType;
use hotcell_store::Store;
use hotcell_store::gc::{Keep, survey};

use crate::commands::store::unusable;
use crate::exit::Failure;

/// Refuses what could never be given to any of an experiment's stages.
pub(crate) fn judge(plan: &Plan, user: &str, quota: &Quota) -> Result<(), Failure> {
    for (name, stage) in &plan.stages {
        if !StageType::find(&stage.uses).is_some_and(StageType::runs_guest) {
            continue;
        }
        let refused = |what: &str, asked: String, most: String| {
            Failure::host(format!(
                "stage `{name}` asks for {asked} of {what}, and `{user}` may have {most} on this host"
            ))
            .help(format!(
                "ask for less in `stages.{name}.limits`, where it says so; what every cell needs an administrator gives"
            ))
        };
        let memory = hotcell_run::host_limits(&stage.limits).memory;
        if let Some(most) = quota.memory.filter(|most| memory > *most) {
            return Err(Failure::host(format!(
                "each cell of stage `{name}` takes {}, and `{user}` may have {most} of memory on this host",
                Size(memory),
                most = Size(most)
            ))
            .help(format!(
                "a cell takes twice the guest's memory (`stages.{name}.limits.memory`) and 1GiB for the engine, and never less than \
                 2GiB; a quota below that lets none run"
            )));
        }
        // What is not asked for is bounded by the quota, and may be enough.
        let times = [
            ("wall time", stage.limits.wall, quota.wall_time),
            ("CPU time", stage.limits.cpu, quota.cpu_time),
        ];
        for (what, asked, most) in times {
            if let (Some(asked), Some(most)) = (asked, most)
                && asked > most
            {
                return Err(refused(what, Time(asked).to_string(), Time(most).to_string()));
            }
        }
    }
    Ok(())
}

/// Refuses to add to a store that has more than its user may have.
pub(crate) fn judge_store(store: &Store, most: u64) -> Result<(), Failure> {
    let all = Keep {
        used_within: None,
        max_bytes: None,
        now: SystemTime::now(),
    };
    let (_, has) = survey(store, &all, &|_| {})
        .map_err(|error| unusable(&error))?
        .kept();
    match has > most {
        false => Ok(()),
        true => Err(Failure::host(format!(
            "the store {} has {}, and you may have {} on this host",
            store.folder().display(),
            Size(has),
            Size(most)
        ))
        .help(format!(
            "`hotcell store gc --max-size {}` removes what was not used for longest",
            Size(most)
        ))),
    }
}
