//! The cores that a manifest asks for, shared out on this host.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use hotcell_cells::cores::arbiter::Arbiter;
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::process::bind_this_thread;
use hotcell_cells::cores::schedule::Rules;
use hotcell_cells::cores::seats::Seats;
use hotcell_cells::cores::topology::Topology;
use hotcell_plan::Plan;
use hotcell_run::Cores;
use hotcell_schema::manifest::later::{Isolation, OnSmallHost};

use crate::exit::Failure;

/// How long a waiting cell stays in its level: one second.
const AGEING: NonZeroU64 = NonZeroU64::new(1_000_000_000).unwrap();

/// Which core does what, for a plan that asks for cores; `None`: it asks for none.
pub(crate) fn duties(plan: &Plan) -> Result<Option<(Duties, Topology)>, Failure> {
    let Some(wanted) = &plan.cores else {
        return Ok(None);
    };
    let asked = match wanted.isolation {
        Some(Isolation::Cpuset) => Some("cpuset"),
        Some(Isolation::Isolated) => Some("isolated"),
        Some(Isolation::Affinity) | None => None,
    };
    if let Some(asked) = asked {
        let title = format!(
            "`cores.isolation` asks for `{asked}`, and this version keeps cells on their cores by affinity only"
        );
        return Err(Failure::host(title).help("leave `isolation` out, or say `isolation = \"affinity\"`"));
    }
    let topology = Topology::of_this_host().map_err(|error| Failure::host(error.to_string()))?;
    let duties = Duties::plan(wanted, &topology).map_err(|error| Failure::host(error.to_string()))?;
    Ok(Some((duties, topology)))
}

/// What the stages of a plan ask for, as this host can give it.
pub(crate) fn seats(plan: &Plan, duties: &Duties, topology: &Topology) -> Result<Seats, Failure> {
    let shares = plan.cores.as_ref().and_then(|cores| cores.on_small_host) == Some(OnSmallHost::Share);
    let user = nix::unistd::getuid().as_raw();
    Seats::plan(&plan.stage_cores, duties, topology, user, shares).map_err(|error| {
        Failure::host(error.to_string()).help(
            "change `cores` of the stage, or say `cores.on-small-host = \"share\"`: it takes turns then",
        )
    })
}

/// Takes the cores that a plan asks for. The calling thread, and so everything it starts, moves to those for control and
/// chores; guests get the pool's, from the arbiter that is started here.
pub(crate) fn take(plan: &Plan, jobs: usize) -> Result<Option<Cores>, Failure> {
    let Some((duties, topology)) = duties(plan)? else {
        return Ok(None);
    };
    let refused = |error: std::io::Error| Failure::host(format!("cores cannot be taken: {error}"));
    let seats = seats(plan, &duties, &topology)?;
    let (control, chores) = (topology.usable(duties.control), topology.usable(duties.chores));
    bind_this_thread(&control.or(&chores)).map_err(refused)?;
    let rules = Rules {
        pool: duties.pool.clone(),
        slice: duties.slice,
        ageing: AGEING,
        exclusive: duties.exclusive,
        cells: NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN),
        users: BTreeMap::new(),
    };
    let mut fallbacks = vec!["no arbiter on this host: other runs do not know of these cores".to_owned()];
    if duties.shared {
        fallbacks.push(format!(
            "a small host: control on core {}, chores on core {}, guests on {}",
            duties.control, duties.chores, duties.pool
        ));
    }
    fallbacks.extend(seats.fallbacks);
    for core in duties.pool.iter() {
        let others = topology.siblings(core).without(&topology.usable(core));
        if !others.is_empty() {
            fallbacks.push(format!(
                "core {core} is not all ours: others may use its sibling {others}"
            ));
        }
    }
    Ok(Some(Cores {
        arbiter: Arc::new(Arbiter::start(rules, topology, Some(control)).map_err(refused)?),
        chores,
        user: nix::unistd::getuid().as_raw(),
        duties,
        requests: seats.requests,
        fallbacks,
    }))
}
