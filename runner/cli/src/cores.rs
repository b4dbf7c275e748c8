//! The cores that a manifest asks for, shared out on this host.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use hotcell_cells::cores::arbiter::Arbiter;
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::isolation::Isolation;
use hotcell_cells::cores::process::bind_this_thread;
use hotcell_cells::cores::schedule::Rules;
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::cores::verify::Verifier;
use hotcell_cells::supervise::Sandbox;
use hotcell_plan::Plan;
use hotcell_run::Cores;
use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::later::RealTime;

use crate::exit::Failure;

/// How long a waiting cell stays in its level: one second.
const AGEING: NonZeroU64 = NonZeroU64::new(1_000_000_000).unwrap();

/// Which core does what, for a plan that asks for cores; `None`: it asks for none.
pub(crate) fn duties(plan: &Plan) -> Result<Option<(Duties, Topology)>, Failure> {
    let Some(wanted) = &plan.cores else {
        return Ok(None);
    };
    let topology = Topology::of_this_host().map_err(|error| Failure::host(error.to_string()))?;
    let duties = Duties::plan(wanted, &topology).map_err(|error| Failure::host(error.to_string()))?;
    Isolation::check(&duties, &topology).map_err(|error| Failure::host(error.to_string()))?;
    Ok(Some((duties, topology)))
}

/// Takes the cores that a plan asks for. The calling thread, and so everything it starts, moves to those for control and
/// chores; guests get the pool's, from the arbiter that is started here.
pub(crate) fn take(plan: &Plan, jobs: usize) -> Result<Option<Cores>, Failure> {
    let Some((duties, topology)) = duties(plan)? else {
        return Ok(None);
    };
    let refused = |error: std::io::Error| Failure::host(format!("cores cannot be taken: {error}"));
    let (control, chores) = (topology.usable(duties.control), topology.usable(duties.chores));
    let isolation = Isolation::reach(&duties, &topology).map_err(|error| Failure::host(error.to_string()))?;
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
    for core in duties.pool.iter() {
        let others = topology.siblings(core).without(&topology.usable(core));
        if !others.is_empty() {
            fallbacks.push(format!(
                "core {core} is not all ours: others may use its sibling {others}"
            ));
        }
    }
    let pool = duties.pool.iter().filter(|core| duties.of(*core).len() == 1);
    let alone = pool.fold(CoreSet::default(), |all, core| all.or(&topology.usable(core)));
    let arbiter = Arc::new(Arbiter::start(rules, topology, Some(control.clone())).map_err(refused)?);
    if duties.real_time != RealTime::Off
        && let Err(error) = arbiter.make_real_time()
    {
        let title = format!("the arbiter cannot be real-time ({error})");
        if duties.real_time == RealTime::Require {
            return Err(Failure::host(title).help(
                "it needs CAP_SYS_NICE, and in a control group of version 1 with `cpu` some `cpu.rt_runtime_us`; \
                 or say `cores.real-time = \"try\"`",
            ));
        }
        fallbacks.push(format!("{title}: busy cores for control may delay turns"));
    }
    let watched = Arc::clone(&arbiter);
    Ok(Some(Cores {
        verifier: Verifier::start(move || watched.watched(), alone, control).map_err(refused)?,
        arbiter,
        chores,
        user: nix::unistd::getuid().as_raw(),
        fallbacks,
        sandbox: isolation.sandbox(Sandbox::of_this_host()),
        isolation,
    }))
}
