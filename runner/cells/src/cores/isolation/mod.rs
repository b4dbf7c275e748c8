//! How strictly cores are kept apart: what a manifest asks for, and what this host gives.
//!
//! | level | what holds cells on their cores | what keeps other work off |
//! |---|---|---|
//! | affinity | affinity; a cell's system call filter refuses to change it | nothing |
//! | cpuset | and a group whose cpuset is the pool ([`cpusets`]) | cgroup v2: a partition, where it is asked for; v1: nothing |
//! | isolated | the same | the kernel, from its start (`isolcpus=`) |
//!
//! A cell enters the pool's group once, when its job begins, and is bound within it by affinity: a turn writes to no group.
//! Until then it is where the runner is, off the pool. What a level cannot keep on this host is a fallback, and what runs where it should not is counted
//! ([`super::verify`]).

mod cpusets;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hotcell_schema::cores::CoreSet;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::later::Isolation as Wanted;

use super::duties::Duties;
use super::topology::Topology;
use crate::supervise::{Enclosures, HOUSE, POOL, Sandbox, group_name, of_host};
use cpusets::{Cpusets, Hierarchy};

/// How the names of the groups begin of the arbiter that listens there: the same for whoever serves there next.
fn host_names(socket: &Path) -> String {
    of_host(&Digest::of(socket.as_os_str().as_bytes()).short())
}

/// Why cores cannot be kept apart as a manifest asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsolationError {
    /// Cores of the pool are the kernel's to schedule on.
    #[error(
        "`cores.isolation` is `isolated`, and the kernel schedules on {missing} like on any other processor; start it with \
         `isolcpus=domain,managed_irq,{pool} nohz_full={pool} rcu_nocbs={pool}`, or say `isolation = \"cpuset\"`"
    )]
    NotAtBoot {
        /// Processors of the pool that were not taken.
        missing: CoreSet,
        /// All processors of the pool.
        pool: CoreSet,
    },
    /// No group for the pool can be made.
    #[error(
        "`cores.isolation` is `cpuset`, and this host gives none: {0}; leave `isolation` out, or say \"affinity\""
    )]
    NoCpusets(String),
}

/// How cores are kept apart now. What was made for it is removed on drop; cells must have ended by then.
#[derive(Debug)]
pub struct Isolation {
    level: Wanted,
    cpusets: Option<Cpusets>,
    fallbacks: Vec<String>,
}

impl Isolation {
    /// Whether this host was started as the manifest asks; changes nothing.
    ///
    /// # Errors
    ///
    /// If the pool is to be isolated, and is not.
    pub fn check(duties: &Duties, topology: &Topology) -> Result<(), IsolationError> {
        let pool = processors(&duties.pool, topology);
        let missing = pool.without(&topology.isolated);
        match duties.isolation {
            Some(Wanted::Isolated) if !missing.is_empty() => Err(IsolationError::NotAtBoot { missing, pool }),
            _ => Ok(()),
        }
    }

    /// Keeps cores apart as the duties ask. Where they leave it open: as far as this host lets it without taking a core from
    /// anybody. On cgroup v1 the calling process moves into a group for control and chores.
    ///
    /// # Errors
    ///
    /// If what is asked for cannot be had. Then nothing was changed.
    pub fn reach(duties: &Duties, topology: &Topology) -> Result<Self, IsolationError> {
        Self::reach_named(|own| group_name(own), duties, topology)
    }

    /// The same for the arbiter of a host that listens at `socket`: what it makes outlasts it as long as cells are in it, and is
    /// the next one's.
    ///
    /// # Errors
    ///
    /// As [`Isolation::reach`].
    pub fn reach_for_host(
        socket: &Path,
        duties: &Duties,
        topology: &Topology,
    ) -> Result<Self, IsolationError> {
        Self::reach_named(|own| format!("{}{own}", host_names(socket)), duties, topology)
    }

    /// Gives back to the host what an arbiter at `socket` that died took from everybody else, so that the topology is whole
    /// again for the next one. Nobody may serve there.
    pub fn release(socket: &Path) {
        cpusets::release(&format!("{}{POOL}", host_names(socket)));
    }

    fn reach_named(
        name: impl Fn(&str) -> String,
        duties: &Duties,
        topology: &Topology,
    ) -> Result<Self, IsolationError> {
        Self::check(duties, topology)?;
        if duties.isolation == Some(Wanted::Affinity) {
            return Ok(Self::affinity());
        }
        let house: CoreSet = [duties.control, duties.chores].into_iter().collect();
        let parts = Parts {
            pool: processors(&duties.pool, topology),
            house: house
                .iter()
                .fold(CoreSet::default(), |all, core| all.or(&topology.usable(core))),
            shared: duties.shared,
            // Who takes cores from everybody else must have been told to.
            alone: duties.isolation == Some(Wanted::Cpuset),
            pool_name: name(POOL),
            house_name: name(HOUSE),
        };
        Self::reach_on(Hierarchy::of_this_host(), &parts, duties.isolation, topology)
    }

    fn reach_on(
        hierarchy: Result<Hierarchy, String>,
        parts: &Parts,
        wanted: Option<Wanted>,
        topology: &Topology,
    ) -> Result<Self, IsolationError> {
        let mut fallbacks = Vec::new();
        let made = hierarchy.and_then(|hierarchy| hierarchy.make(parts, &mut fallbacks));
        let cpusets = match made {
            Ok(cpusets) => Some(cpusets),
            Err(why) if wanted == Some(Wanted::Cpuset) => return Err(IsolationError::NoCpusets(why)),
            Err(why) => {
                fallbacks.push(format!(
                    "no cpusets for cells ({why}): affinity alone holds them on their cores"
                ));
                None
            }
        };
        let at_boot = parts.pool.is_subset(&topology.isolated);
        let ticking = parts.pool.without(&topology.tickless);
        if at_boot && !ticking.is_empty() {
            fallbacks.push(format!(
                "processors {ticking} keep their timer tick (nohz_full={ticking} takes it)"
            ));
        }
        Ok(Self {
            level: match (at_boot && wanted != Some(Wanted::Cpuset), &cpusets) {
                (true, _) => Wanted::Isolated,
                (false, Some(_)) => Wanted::Cpuset,
                (false, None) => Wanted::Affinity,
            },
            cpusets,
            fallbacks,
        })
    }

    fn affinity() -> Self {
        Self {
            level: Wanted::Affinity,
            cpusets: None,
            fallbacks: Vec::new(),
        }
    }

    /// The level that was reached.
    pub fn level(&self) -> &'static str {
        match self.level {
            Wanted::Affinity => "affinity",
            Wanted::Cpuset => "cpuset",
            Wanted::Isolated => "isolated",
        }
    }

    /// What could not be had, and what holds instead.
    pub fn fallbacks(&self) -> &[String] {
        &self.fallbacks
    }

    /// Walls for cells of the pool: `sandbox`, and the pool's group.
    pub fn sandbox(&self, sandbox: &Sandbox) -> Sandbox {
        match &self.cpusets {
            None => sandbox.clone(),
            Some(cpusets) => sandbox.within(cpusets.pool(), cpusets.unified()),
        }
    }

    /// Where the arbiter of a host that listens at `socket` puts all cells; and what holds instead where it cannot.
    pub fn enclosures(&self, socket: &Path) -> (Enclosures, Option<String>) {
        let pool = self.cpusets.as_ref().map(|all| (all.pool(), all.unified()));
        Enclosures::find(&host_names(socket), pool)
    }
}

/// What is kept apart from what.
#[derive(Debug)]
struct Parts {
    /// Processors of the pool.
    pool: CoreSet,
    /// Processors for control and chores.
    house: CoreSet,
    /// Whether a core is of both.
    shared: bool,
    /// Whether other work is to be kept off the pool.
    alone: bool,
    /// The names of their groups.
    pool_name: String,
    house_name: String,
}

/// All processors of these cores that may be used.
fn processors(cores: &CoreSet, topology: &Topology) -> CoreSet {
    cores
        .iter()
        .fold(CoreSet::default(), |all, core| all.or(&topology.usable(core)))
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::host;
    use super::*;
    use hotcell_schema::manifest::Cores;

    fn four(isolated: &str, tickless: &str) -> Topology {
        let folder = host(&[("online", "0-3"), ("isolated", isolated), ("nohz_full", tickless)]);
        Topology::read(folder.path(), &"0-3".parse().unwrap()).unwrap()
    }

    fn duties(isolation: Option<Wanted>, topology: &Topology) -> Duties {
        let wanted = Cores {
            isolation,
            ..Cores::default()
        };
        Duties::plan(&wanted, topology).unwrap()
    }

    fn reached(isolation: Option<Wanted>, topology: &Topology) -> Result<Isolation, IsolationError> {
        let parts = Parts {
            pool: "2-3".parse().unwrap(),
            house: "0-1".parse().unwrap(),
            shared: false,
            alone: false,
            pool_name: group_name(POOL),
            house_name: group_name(HOUSE),
        };
        Isolation::reach_on(Err("none is mounted".into()), &parts, isolation, topology)
    }

    #[test]
    fn isolated_is_refused_with_the_parameters_that_give_it() {
        let topology = four("2", "");
        let error = Isolation::check(&duties(Some(Wanted::Isolated), &topology), &topology).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("schedules on 3 like"), "{told}");
        assert!(
            told.contains("isolcpus=domain,managed_irq,2-3 nohz_full=2-3"),
            "{told}"
        );
        // Other levels do not ask for it, and a host that has it is taken.
        Isolation::check(&duties(Some(Wanted::Cpuset), &topology), &topology).unwrap();
        let topology = four("2-3", "2-3");
        Isolation::check(&duties(Some(Wanted::Isolated), &topology), &topology).unwrap();
    }

    #[test]
    fn what_was_left_open_is_what_the_host_gives() {
        let found = reached(None, &four("2-3", "2")).unwrap();
        assert_eq!(found.level(), "isolated");
        assert!(found.fallbacks()[0].contains("none is mounted"), "{found:?}");
        assert!(
            found.fallbacks()[1].starts_with("processors 3 keep their timer tick"),
            "{found:?}"
        );
        let found = reached(None, &four("", "")).unwrap();
        assert_eq!(found.level(), "affinity");
        assert_eq!(found.fallbacks().len(), 1);
    }

    #[test]
    fn a_cpuset_that_was_asked_for_is_not_replaced() {
        let error = reached(Some(Wanted::Cpuset), &four("", "")).unwrap_err();
        assert_eq!(error, IsolationError::NoCpusets("none is mounted".into()));
    }

    #[test]
    fn affinity_makes_nothing() {
        let topology = four("2-3", "2-3");
        let found = Isolation::reach(&duties(Some(Wanted::Affinity), &topology), &topology).unwrap();
        assert_eq!((found.level(), found.fallbacks().len()), ("affinity", 0));
    }
}
