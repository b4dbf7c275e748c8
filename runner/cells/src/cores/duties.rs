//! Which core does what: control, chores, and the pool for guests.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};

use hotcell_schema::cores::{CoreList, CoreListError, CoreSet};
use hotcell_schema::manifest::Cores;
use hotcell_schema::manifest::later::{Isolation, OnSmallHost, RealTime};
use serde::{Deserialize, Serialize};

use super::schedule::{Allowance, Rules};
use super::topology::Topology;

/// How long a cell runs before another has its turn, where nobody says otherwise: 10 ms, in nanoseconds.
pub const SLICE: NonZeroU64 = NonZeroU64::new(10_000_000).unwrap();
/// Slices that may be, in nanoseconds: below, the switches cost more than the work; above, nobody would call it a turn.
pub(crate) const SLICES: std::ops::RangeInclusive<u64> = 100_000..=10_000_000_000;
/// How long a waiting cell stays in its level: one second.
const AGEING: NonZeroU64 = NonZeroU64::new(1_000_000_000).unwrap();
/// The part of the pool that exclusive cells may hold, in percent, where nobody says less.
const HALF: usize = 50;
/// Least number of physical cores for duties that are not shared: control, chores, and one of the pool.
const LEAST_CORES: usize = 3;

/// Why a host's cores cannot be shared out as wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DutiesError {
    /// Too few physical cores.
    #[error(
        "this host has {has} physical core(s), and control, chores and a pool want {LEAST_CORES}; \
         say `cores.on-small-host = \"share\"` to share them"
    )]
    Small {
        /// How many there are.
        has: usize,
    },
    /// A core that the host has not, or that this process may not use.
    #[error("`cores.{key}`: this host has no core {missing} to use (it has {has})")]
    Missing {
        /// The key that names it.
        key: &'static str,
        /// What is not there.
        missing: CoreSet,
        /// What is there.
        has: CoreSet,
    },
    /// Two duties for one physical core.
    #[error(
        "core {core} is for {one} and for {other}: {siblings} are siblings on it; \
         give each a core of its own, or say `cores.on-small-host = \"share\"`"
    )]
    Twice {
        /// The physical core.
        core: u32,
        /// One duty.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// Its processors.
        siblings: CoreSet,
    },
    /// No core is left for guests.
    #[error("no core is left for the pool; name one with `cores.pool`")]
    NoPool,
    /// The pool cannot be read.
    #[error("`cores.pool`: {0}")]
    List(#[from] CoreListError),
    /// A part that is no whole percent of at most half.
    #[error(
        "`cores.exclusive-max`: `{0}` is no part of the pool of at most half; write for instance \"50%\""
    )]
    Part(String),
    /// A slice in which nothing could run.
    #[error("`cores.slice`: a slice is at least 100us and at most 10s")]
    Slice,
}

/// Which core does what. Cores are named by the smallest number among their siblings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Duties {
    /// The core of runner and arbiter.
    pub control: u32,
    /// The core for loading, persisting, device emulation and inspection.
    pub chores: u32,
    /// The cores for guests.
    pub pool: CoreSet,
    /// Whether a core has several duties, because the host is small and the manifest allows it.
    pub shared: bool,
    /// How long a cell runs before another has its turn, in nanoseconds.
    pub slice: NonZeroU64,
    /// How many cores of the pool may be held exclusively at once.
    pub exclusive: usize,
    /// How strictly cores are to be kept apart; absent: as far as the host allows.
    pub isolation: Option<Isolation>,
    /// Whether the arbiter runs before all that is not real-time.
    pub real_time: RealTime,
}

impl Duties {
    /// Shares out a host's cores. What the manifest leaves open: control is the first core, chores the second, the pool
    /// all others.
    ///
    /// # Errors
    ///
    /// If the host is too small and sharing was not allowed, or has not the cores that are named.
    pub fn plan(wanted: &Cores, topology: &Topology) -> Result<Self, DutiesError> {
        let shared = wanted.on_small_host == Some(OnSmallHost::Share);
        let cores = topology.cores();
        if cores.len() < LEAST_CORES && !shared {
            return Err(DutiesError::Small { has: cores.len() });
        }
        let core = |key: &'static str, cpu: u32| {
            let core = topology.core_of(cpu);
            core.ok_or_else(|| DutiesError::Missing {
                key,
                missing: CoreSet::from_iter([cpu]),
                has: cores.clone(),
            })
        };
        let list: Option<CoreList> = wanted.pool.as_deref().map(str::parse).transpose()?;
        let named = match &list {
            None => None,
            Some(list) => pool(list, topology, shared)?,
        };
        let all: Vec<u32> = cores.iter().collect();
        // What is not named goes where nothing else is.
        let nth = |taken: &[Option<u32>], least: usize| {
            let free = all.iter().find(|core| {
                !taken.contains(&Some(**core)) && named.as_ref().is_none_or(|pool| !pool.contains(**core))
            });
            // On a small host that shares: the cores there are, in turn.
            free.or_else(|| all.iter().cycle().nth(least))
                .copied()
                .unwrap_or(0)
        };
        let control = wanted.control.map(|cpu| core("control", cpu)).transpose()?;
        let chores = wanted.chores.map(|cpu| core("chores", cpu)).transpose()?;
        let control = control.unwrap_or_else(|| nth(&[chores], 0));
        let chores = chores.unwrap_or_else(|| nth(&[Some(control)], 1));
        let pool = named.unwrap_or_else(|| {
            let free = cores.without(&CoreSet::from_iter([control, chores]));
            match free.is_empty() && shared {
                // Guests rather beside the chores than beside control, where there is a choice.
                true => match cores.without(&CoreSet::from_iter([control])) {
                    rest if rest.is_empty() => cores.clone(),
                    rest => rest,
                },
                false => free,
            }
        });
        if pool.is_empty() {
            return Err(DutiesError::NoPool);
        }
        let twice = |core: u32, one, other| DutiesError::Twice {
            core,
            one,
            other,
            siblings: topology.siblings(core),
        };
        if !shared {
            for (core, one, other) in [
                (Some(control).filter(|core| *core == chores), "control", "chores"),
                (
                    Some(control).filter(|core| pool.contains(*core)),
                    "control",
                    "the pool",
                ),
                (
                    Some(chores).filter(|core| pool.contains(*core)),
                    "chores",
                    "the pool",
                ),
            ] {
                if let Some(core) = core {
                    return Err(twice(core, one, other));
                }
            }
        }
        Ok(Self {
            shared: control == chores || pool.contains(control) || pool.contains(chores),
            exclusive: pool.len().saturating_mul(part(wanted)?) / 100,
            control,
            chores,
            pool,
            slice: match wanted.slice {
                None => SLICE,
                Some(slice) if SLICES.contains(&slice.0) => {
                    NonZeroU64::new(slice.0).ok_or(DutiesError::Slice)?
                }
                Some(_) => return Err(DutiesError::Slice),
            },
            isolation: wanted.isolation,
            real_time: wanted.real_time.unwrap_or(RealTime::Try),
        })
    }

    /// The rules of a schedule for these cores, with so many cells at once and what single users may take.
    pub fn rules(&self, cells: NonZeroUsize, users: BTreeMap<u32, Allowance>) -> Rules {
        Rules {
            pool: self.pool.clone(),
            slice: self.slice,
            ageing: AGEING,
            exclusive: self.exclusive,
            cells,
            users,
        }
    }

    /// What a core is for, in words; empty: nothing.
    pub fn of(&self, core: u32) -> Vec<&'static str> {
        let duties = [
            (core == self.control, "control"),
            (core == self.chores, "chores"),
            (self.pool.contains(core), "pool"),
        ];
        duties
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, duty)| duty)
            .collect()
    }
}

/// The physical cores that a pool names by their processors. `None`: it lies beyond a small host, which shares out what it
/// has.
fn pool(list: &CoreList, topology: &Topology, shared: bool) -> Result<Option<CoreSet>, DutiesError> {
    let cpus = topology.cpus();
    let (found, missing) = list.among(cpus);
    let pool: CoreSet = found.iter().filter_map(|cpu| topology.core_of(cpu)).collect();
    match missing.is_empty() || shared {
        true => Ok(Some(pool).filter(|pool| !pool.is_empty())),
        false => Err(DutiesError::Missing {
            key: "pool",
            missing,
            has: cpus.clone(),
        }),
    }
}

/// The part of the pool that may be exclusive, in percent.
fn part(wanted: &Cores) -> Result<usize, DutiesError> {
    let Some(text) = &wanted.exclusive_max else {
        return Ok(HALF);
    };
    let digits = text.strip_suffix('%').unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<usize>() {
        Ok(part) if plain && part <= HALF => Ok(part),
        _ => Err(DutiesError::Part(text.chars().take(20).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::plain;
    use super::*;

    fn plan(wanted: &Cores, cpus: u32, smt: bool) -> Result<Duties, DutiesError> {
        Duties::plan(wanted, &plain(cpus, smt))
    }

    fn told(duties: &Duties) -> (u32, u32, String, usize) {
        (
            duties.control,
            duties.chores,
            duties.pool.to_string(),
            duties.exclusive,
        )
    }

    fn pool(text: &str) -> Cores {
        Cores {
            pool: Some(text.into()),
            ..Cores::default()
        }
    }

    #[test]
    fn the_first_two_cores_serve_and_the_others_are_for_guests() {
        let duties = plan(&Cores::default(), 8, false).unwrap();
        assert_eq!(told(&duties), (0, 1, "2-7".into(), 3));
        assert!(!duties.shared);
        assert_eq!(duties.slice, SLICE);
        assert_eq!(duties.of(1), ["chores"]);
    }

    #[test]
    fn a_core_has_its_siblings() {
        let duties = plan(&Cores::default(), 8, true).unwrap();
        assert_eq!(told(&duties), (0, 1, "2-3".into(), 1));
        // 7 is the sibling of 3.
        assert_eq!(plan(&pool("2,7"), 8, true).unwrap().pool.to_string(), "2-3");
        // 4 is the sibling of 0, and the only one left for control is then another core.
        assert_eq!(plan(&pool("4"), 8, true).unwrap().control, 1);
        let both = Cores {
            control: Some(0),
            ..pool("2-4")
        };
        let error = plan(&both, 8, true).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("core 0 is for control and for the pool: 0,4"),
            "{error}"
        );
    }

    #[test]
    fn what_is_named_is_kept_and_the_rest_goes_beside_it() {
        assert_eq!(
            told(&plan(&pool("2-"), 6, false).unwrap()),
            (0, 1, "2-5".into(), 2)
        );
        assert_eq!(
            told(&plan(&pool("0-3"), 6, false).unwrap()),
            (4, 5, "0-3".into(), 2)
        );
        let wanted = Cores {
            control: Some(3),
            chores: Some(0),
            exclusive_max: Some("25%".into()),
            ..Cores::default()
        };
        assert_eq!(
            told(&plan(&wanted, 6, false).unwrap()),
            (3, 0, "1-2,4-5".into(), 1)
        );
    }

    #[test]
    fn a_small_host_is_refused_or_shared() {
        assert_eq!(
            plan(&Cores::default(), 2, false),
            Err(DutiesError::Small { has: 2 })
        );
        let share = |pool: Option<&str>| Cores {
            pool: pool.map(str::to_owned),
            on_small_host: Some(OnSmallHost::Share),
            ..Cores::default()
        };
        let two = plan(&share(None), 2, false).unwrap();
        assert_eq!(told(&two), (0, 1, "1".into(), 0));
        assert!(two.shared);
        assert_eq!(
            told(&plan(&share(None), 1, false).unwrap()),
            (0, 0, "0".into(), 0)
        );
        // The same manifest on a host that is large enough shares nothing.
        let large = plan(&share(None), 4, false).unwrap();
        assert_eq!((told(&large), large.shared), ((0, 1, "2-3".into(), 1), false));
        assert_eq!(
            told(&plan(&share(Some("0-1")), 2, false).unwrap()),
            (0, 1, "0-1".into(), 1)
        );
    }

    #[test]
    fn what_the_host_has_not_is_named() {
        let error = plan(&pool("2-9"), 6, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`cores.pool`: this host has no core 6-9 to use (it has 0-5)"
        );
        let wanted = Cores {
            control: Some(77),
            ..Cores::default()
        };
        assert!(matches!(
            plan(&wanted, 6, false),
            Err(DutiesError::Missing { key: "control", .. })
        ));
        assert!(matches!(plan(&pool("x"), 6, false), Err(DutiesError::List(_))));
        for part in ["51%", "50", "-1%", "%"] {
            let wanted = Cores {
                exclusive_max: Some(part.into()),
                ..Cores::default()
            };
            assert_eq!(plan(&wanted, 6, false), Err(DutiesError::Part(part.into())));
        }
    }
}
