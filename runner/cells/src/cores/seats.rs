//! What stages want of the cores, as this host can give it.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};

use hotcell_schema::manifest::StageCores;

use super::duties::Duties;
use super::schedule::{Hold, Refusal, Request, Rules, Schedule};
use super::topology::Topology;

/// A stage wants what this host cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stage `{stage}` cannot have its cores here: {refusal}")]
pub struct SeatError {
    /// The stage.
    pub stage: String,
    /// Why not.
    pub refusal: Refusal,
}

/// What the stages ask for that want other than one core in turns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seats {
    /// By the names of stages.
    pub requests: BTreeMap<String, Request>,
    /// What a small host gives instead of what was wanted.
    pub fallbacks: Vec<String>,
}

impl Seats {
    /// Judges what stages want. `shares`: the manifest allows a small host to share its cores; what it cannot give is then given
    /// in turns.
    ///
    /// # Errors
    ///
    /// If a stage wants what can never be had here.
    pub fn plan(
        wanted: &BTreeMap<String, StageCores>,
        duties: &Duties,
        topology: &Topology,
        user: u32,
        shares: bool,
    ) -> Result<Self, SeatError> {
        let schedule = Schedule::new(Rules {
            pool: duties.pool.clone(),
            slice: duties.slice,
            ageing: NonZeroU64::MIN,
            exclusive: duties.exclusive,
            cells: NonZeroUsize::MIN,
            users: BTreeMap::new(),
        });
        let mut seats = Self::default();
        for (stage, cores) in wanted {
            let asked = request(cores, topology, user);
            let given = match schedule.judge(&asked) {
                Ok(()) => asked,
                Err(refusal) if shares => {
                    let given = instead(&schedule, asked, duties);
                    let how = match given.hold {
                        Hold::Exclusive { .. } => "another core exclusively".to_owned(),
                        Hold::Turns => format!("turns on {} core(s)", given.cores),
                    };
                    let text = format!("a small host: stage `{stage}` has {how}: {refusal}");
                    seats.fallbacks.push(text);
                    given
                }
                Err(refusal) => {
                    return Err(SeatError {
                        stage: stage.clone(),
                        refusal,
                    });
                }
            };
            seats.requests.insert(stage.clone(), given);
        }
        Ok(seats)
    }
}

fn request(cores: &StageCores, topology: &Topology, user: u32) -> Request {
    Request {
        cores: NonZeroUsize::try_from(cores.wanted()).unwrap_or(NonZeroUsize::MAX),
        hold: match cores.exclusive {
            // A processor is meant as its core, as in the pool.
            true => Hold::Exclusive {
                core: cores.core.map(|cpu| topology.core_of(cpu).unwrap_or(cpu)),
            },
            false => Hold::Turns,
        },
        priority: cores.priority.unwrap_or_default(),
        ..Request::of(user)
    }
}

/// What comes nearest to what cannot be had: any core exclusively, or as many as there are in turns.
fn instead(schedule: &Schedule, asked: Request, duties: &Duties) -> Request {
    let anywhere = Request {
        hold: Hold::Exclusive { core: None },
        ..asked
    };
    if matches!(asked.hold, Hold::Exclusive { core: Some(_) }) && schedule.judge(&anywhere).is_ok() {
        return anywhere;
    }
    let shared = duties.pool.len().saturating_sub(duties.exclusive);
    Request {
        hold: Hold::Turns,
        cores: asked
            .cores
            .min(NonZeroUsize::new(shared).unwrap_or(NonZeroUsize::MIN)),
        ..asked
    }
}

#[cfg(test)]
mod tests {
    use hotcell_schema::manifest::Priority;

    use super::super::topology::tests::plain;
    use super::*;
    use hotcell_schema::manifest::Cores;
    use hotcell_schema::manifest::later::OnSmallHost;

    /// What a stage gets on a host of so many processors.
    fn seat(
        cpus: u32,
        smt: bool,
        cores: StageCores,
        shares: bool,
    ) -> Result<(Request, Vec<String>), SeatError> {
        let topology = plain(cpus, smt);
        let wanted = Cores {
            on_small_host: shares.then_some(OnSmallHost::Share),
            ..Cores::default()
        };
        let duties = Duties::plan(&wanted, &topology).unwrap();
        let stages = BTreeMap::from([("run".to_owned(), cores)]);
        let mut seats = Seats::plan(&stages, &duties, &topology, 7, shares)?;
        Ok((seats.requests.remove("run").unwrap(), seats.fallbacks))
    }

    fn exclusive(count: u32, core: Option<u32>) -> StageCores {
        StageCores {
            count: Some(count),
            exclusive: true,
            core,
            priority: Some(Priority::High),
        }
    }

    #[test]
    fn what_a_host_has_is_given_as_it_is_wanted() {
        let (request, fallbacks) = seat(8, false, exclusive(2, Some(4)), false).unwrap();
        assert_eq!(request.hold, Hold::Exclusive { core: Some(4) });
        assert_eq!(
            (request.cores.get(), request.priority, request.user),
            (2, Priority::High, 7)
        );
        assert_eq!(fallbacks, Vec::<String>::new());
        // With siblings, a processor is its core.
        let topology = plain(16, true);
        let other = topology.siblings(3).iter().next_back().unwrap();
        let (request, _) = seat(16, true, exclusive(1, Some(other)), false).unwrap();
        assert_eq!(
            request.hold,
            Hold::Exclusive {
                core: topology.core_of(other)
            }
        );
        let (request, _) = seat(8, false, StageCores::default(), false).unwrap();
        assert_eq!(request, Request::of(7));
    }

    #[test]
    fn what_a_host_has_not_is_refused() {
        for (cores, why) in [
            (exclusive(1, Some(1)), "core 1 is not in the pool 2-7"),
            (exclusive(4, None), "at most 3 of the pool 2-7 can be exclusive"),
            (
                StageCores {
                    count: Some(4),
                    ..StageCores::default()
                },
                "at most 3 of the pool 2-7 can be shared in turns",
            ),
        ] {
            let told = seat(8, false, cores, false).unwrap_err().to_string();
            assert!(told.starts_with("stage `run`") && told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_small_host_that_shares_gives_what_it_can_and_says_so() {
        // Two cores: one for the pool, so none can be exclusive.
        let (request, fallbacks) = seat(2, false, exclusive(2, Some(1)), true).unwrap();
        assert_eq!((request.hold, request.cores.get()), (Hold::Turns, 1));
        assert_eq!(request.priority, Priority::High, "what can be kept is kept");
        assert_eq!(fallbacks.len(), 1);
        assert!(
            fallbacks
                .iter()
                .all(|text| text.contains("`run` has turns on 1 core(s)")),
            "{fallbacks:?}"
        );
        // Four: two for the pool, and one of them exclusive, wherever.
        let (request, fallbacks) = seat(4, false, exclusive(1, Some(9)), true).unwrap();
        assert_eq!(request.hold, Hold::Exclusive { core: None });
        assert!(
            fallbacks
                .iter()
                .all(|text| text.contains("another core exclusively")),
            "{fallbacks:?}"
        );
    }
}
