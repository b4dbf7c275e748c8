//! The cores that a manifest asks for, shared out on this host.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::isolation::Isolation;
use hotcell_cells::cores::process::bind_this_thread;
use hotcell_cells::cores::seats::Seats;
use hotcell_cells::cores::service::client::{Connection, HostArbiter};
use hotcell_cells::cores::service::policy::Quota;
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::cores::verify::Verifier;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::Sandbox;
use hotcell_plan::Plan;
use hotcell_run::Cores;
use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::later::OnSmallHost;

use crate::exit::Failure;
use crate::{host, quota, ui};

/// Who gives cores to a plan's cells.
pub(crate) enum Giver {
    /// An arbiter of the run's own.
    Own,
    /// That of the host, which listens there.
    Host(PathBuf, Box<Connection>),
}

/// Which core does what, for a plan that asks for cores, or on a host that has an arbiter; `None`: any core does.
pub(crate) fn duties(
    plan: &Plan,
    arbiter: Option<&Path>,
) -> Result<Option<(Duties, Topology, Giver)>, Failure> {
    let topology = || Topology::of_this_host().map_err(|error| Failure::host(error.to_string()));
    if let Some(path) = arbiter {
        let connection = host::connect(path)?;
        let welcome = connection.welcome();
        quota::judge(plan, &welcome.user, &welcome.quota)?;
        let duties = connection.welcome().duties.clone();
        let giver = Giver::Host(path.to_owned(), Box::new(connection));
        return Ok(Some((duties, topology()?, giver)));
    }
    let Some(wanted) = &plan.cores else {
        return Ok(None);
    };
    let topology = topology()?;
    let duties = Duties::plan(wanted, &topology).map_err(|error| Failure::host(error.to_string()))?;
    Isolation::check(&duties, &topology).map_err(|error| Failure::host(error.to_string()))?;
    Ok(Some((duties, topology, Giver::Own)))
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

/// Takes the cores for a plan. The calling thread, and so everything it starts, moves to those for control and chores;
/// guests get the pool's, from the host's arbiter or from one that is started here.
pub(crate) fn take(
    plan: &Plan,
    jobs: usize,
    arbiter: Option<&Path>,
    stop: &StopSignal,
) -> Result<Option<Cores>, Failure> {
    let Some((duties, topology, giver)) = duties(plan, arbiter)? else {
        return Ok(None);
    };
    let refused = |error: std::io::Error| Failure::host(format!("cores cannot be taken: {error}"));
    let seats = seats(plan, &duties, &topology)?;
    let (control, chores) = (topology.usable(duties.control), topology.usable(duties.chores));
    // The arbiter of a host keeps its cores apart by itself.
    let isolation = match giver {
        Giver::Own => {
            let reached = Isolation::reach(&duties, &topology);
            Some(reached.map_err(|error| Failure::host(error.to_string()))?)
        }
        Giver::Host(..) => None,
    };
    let mut fallbacks = Vec::new();
    if let Err(error) = bind_this_thread(&control.or(&chores)) {
        match giver {
            Giver::Own => return Err(refused(error)),
            Giver::Host(..) => fallbacks.push(format!("this run is not bound to the cores for it: {error}")),
        }
    }
    if duties.shared {
        fallbacks.push(format!(
            "a small host: control on core {}, chores on core {}, guests on {}",
            duties.control, duties.chores, duties.pool
        ));
    }
    fallbacks.extend(seats.fallbacks);
    let mut verifier = None;
    let mut in_groups = false;
    let mut quota = Quota::default();
    let mut level = isolation.as_ref().map_or("affinity", Isolation::level).to_owned();
    let gives: Arc<dyn GiveCores> = match giver {
        Giver::Own => {
            fallbacks.push("no arbiter on this host: other runs do not know of these cores".to_owned());
            for core in duties.pool.iter() {
                let others = topology.siblings(core).without(&topology.usable(core));
                if !others.is_empty() {
                    fallbacks.push(format!(
                        "core {core} is not all ours: others may use its sibling {others}"
                    ));
                }
            }
            let jobs = NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN);
            let rules = duties.rules(jobs, BTreeMap::new());
            let pool = duties.pool.iter().filter(|core| duties.of(*core).len() == 1);
            let alone = pool.fold(CoreSet::default(), |all, core| all.or(&topology.usable(core)));
            let arbiter = Arbiter::start(rules, topology, Some(control.clone())).map_err(refused)?;
            let arbiter = Arc::new(arbiter);
            let real_time = arbiter.make_real_time(duties.real_time);
            fallbacks.extend(real_time.map_err(|error| Failure::host(error.to_string()))?);
            let watched = Arc::clone(&arbiter);
            verifier = Some(Verifier::start(move || watched.watched(), alone, control).map_err(refused)?);
            arbiter
        }
        Giver::Host(path, connection) => {
            let theirs = &connection.welcome().fallbacks;
            // Where it could not make any, it says so.
            in_groups = !theirs
                .iter()
                .any(|fallback| fallback.starts_with("no control groups"));
            fallbacks.extend(theirs.iter().cloned());
            quota = connection.welcome().quota;
            level.clone_from(&connection.welcome().isolation);
            if plan.cores.is_some() {
                fallbacks.push("the host's manifest says which cores there are, not this one".to_owned());
            }
            Arc::new(HostArbiter::new(&path, *connection, stop.clone(), ui::say).map_err(refused)?)
        }
    };
    let mut sandbox = Sandbox::of_this_host().clone();
    if in_groups {
        sandbox = sandbox.in_groups_of_arbiter();
    }
    Ok(Some(Cores {
        arbiter: gives,
        quota,
        level,
        verifier,
        chores,
        user: nix::unistd::getuid().as_raw(),
        duties,
        requests: seats.requests,
        fallbacks,
        sandbox: match &isolation {
            Some(isolation) => isolation.sandbox(&sandbox),
            None => sandbox,
        },
        isolation,
    }))
}
