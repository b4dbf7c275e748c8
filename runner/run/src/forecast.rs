//! What a run would do, without doing anything.

use std::collections::HashMap;

use hotcell_plan::{Instance, Plan};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_store::StoreError;

use crate::current;
use crate::execute::Options;
use crate::expand::{Level, expand};
use crate::key::Components;
use crate::schedule::{Dependency, dependencies};
use crate::work::{Done, Shared, prepare};

/// What a run would do with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// It is stored.
    Cached {
        /// The cache key.
        key: Digest,
        /// What the key is made of.
        components: Components,
    },
    /// It would run.
    Runs {
        /// The cache key.
        key: Digest,
        /// What the key is made of.
        components: Components,
    },
    /// What it reads is not there before something else has run.
    Later {
        /// The first instance that must run before.
        after: String,
    },
    /// It is a point, and becomes this many instances.
    Expands {
        /// How many.
        items: usize,
        /// What is to be said of it, for instance that items were left out.
        reason: Option<String>,
    },
    /// It would end at once, with this status.
    Ends {
        /// The status.
        status: Status,
        /// Why.
        reason: String,
    },
}

/// An instance, and what a run would do with it.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// Its index: that in the plan, or counted on from there for what a point becomes.
    pub index: usize,
    /// The instance; a point stands before what it becomes.
    pub instance: Instance,
    /// What a run would do.
    pub forecast: Forecast,
}

/// Says for every instance what a run would do. Points whose files are stored are expanded. Writes nothing.
pub fn forecast(plan: &Plan, options: &Options<'_>) -> Result<Vec<Foreseen>, StoreError> {
    let mut shared = Shared::new(plan, options);
    let forecasts = match current::foreseen(&shared) {
        Some(forecasts) => forecasts,
        None => {
            // What was noted up to the first difference counts no more.
            shared = Shared::new(plan, options);
            one_by_one(&shared)?
        }
    };
    Ok(told(&shared, forecasts))
}

/// Looks at each instance and at the store.
fn one_by_one(shared: &Shared<'_>) -> Result<HashMap<usize, Forecast>, StoreError> {
    let (plan, options) = (shared.plan, shared.options);
    let mut forecasts: HashMap<usize, Forecast> = HashMap::with_capacity(plan.instances.len());
    for (index, instance) in plan.instances.iter().enumerate() {
        if !options.has(index) {
            continue;
        }
        if plan.expansion_of(instance).is_none() {
            let forecast = one(shared, index, instance)?;
            forecasts.insert(index, forecast);
            continue;
        }
        let mut level = 1;
        loop {
            let Some(forecast) = waits(shared, instance) else {
                let Level {
                    children,
                    deeper,
                    done,
                    ..
                } = expand(shared, index, level);
                for child in &children {
                    if let Some(instance) = shared.table.instance(*child) {
                        let forecast = one(shared, *child, instance)?;
                        forecasts.insert(*child, forecast);
                    }
                }
                let open = children.iter().find(|child| shared.of(**child).is_none());
                let open = open.and_then(|child| shared.table.instance(*child));
                if let (true, Some(open)) = (deeper, open) {
                    forecasts.insert(
                        index,
                        Forecast::Later {
                            after: open.name.clone(),
                        },
                    );
                    break;
                }
                if deeper {
                    level += 1;
                    continue;
                }
                let done = done.unwrap_or_else(|| Done::ok(indexmap::IndexMap::new(), Vec::new()));
                forecasts.insert(
                    index,
                    Forecast::Expands {
                        items: shared.table.children(index).len(),
                        reason: done.reason.clone(),
                    },
                );
                if !done.status.has_outputs() {
                    let (status, reason) = (done.status, done.reason.clone().unwrap_or_default());
                    forecasts.insert(index, Forecast::Ends { status, reason });
                }
                shared.table.set(index, done);
                break;
            };
            forecasts.insert(index, forecast);
            break;
        }
    }
    Ok(forecasts)
}

fn told(shared: &Shared<'_>, mut forecasts: HashMap<usize, Forecast>) -> Vec<Foreseen> {
    let all = shared.table.in_order();
    all.filter_map(|(index, instance)| {
        Some(Foreseen {
            index,
            instance: instance.clone(),
            forecast: forecasts.remove(&index)?,
        })
    })
    .collect()
}

fn one(shared: &Shared<'_>, index: usize, instance: &Instance) -> Result<Forecast, StoreError> {
    let forecast = match waits(shared, instance) {
        Some(later) => return Ok(later),
        None => foresee(shared, instance)?,
    };
    let done = match &forecast {
        Forecast::Cached { key, .. } => shared.options.store.record(key)?.map(|record| Done {
            status: Status::Cached,
            ..Done::ok(record.outputs, record.objects)
        }),
        Forecast::Ends { status, reason } => Some(Done::without_outputs(*status, reason.clone())),
        _ => None,
    };
    if let Some(done) = done {
        shared.table.set(index, done);
    }
    Ok(forecast)
}

/// The first thing that must run before an instance can be looked at.
fn waits(shared: &Shared<'_>, instance: &Instance) -> Option<Forecast> {
    let open = |index: &usize| shared.of(*index).is_none();
    let stage_of = |stage: &str| {
        shared
            .plan
            .stages
            .get(stage)
            .map(|stage| stage.instances())
            .unwrap_or_default()
    };
    let missing = dependencies(instance)
        .into_iter()
        .find_map(|dependency| match dependency {
            Dependency::Instance(index) if open(&index) => Some(index),
            Dependency::Instance(point) => shared.table.children(point).into_iter().find(open),
            Dependency::Stage(stage) => {
                let points = stage_of(stage).find(open);
                points.or_else(|| shared.table.of_stage(stage).into_iter().find(open))
            }
        });
    let before = missing.and_then(|index| shared.table.instance(index))?;
    Some(Forecast::Later {
        after: before.name.clone(),
    })
}

fn foresee(shared: &Shared<'_>, instance: &Instance) -> Result<Forecast, StoreError> {
    Ok(match prepare(shared, instance) {
        Err(done) => Forecast::Ends {
            status: done.status,
            reason: done.error.or(done.reason).unwrap_or_default(),
        },
        Ok(ready) => {
            let stored =
                !shared.options.forces(instance) && shared.options.store.record(&ready.key)?.is_some();
            match stored {
                true => Forecast::Cached {
                    key: ready.key,
                    components: ready.components,
                },
                false => Forecast::Runs {
                    key: ready.key,
                    components: ready.components,
                },
            }
        }
    })
}
