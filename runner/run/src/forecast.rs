//! What a run would do, without doing anything.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

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
        /// What the key is made of, where that was asked for.
        components: Option<Components>,
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
#[derive(Debug)]
pub struct Foreseen<'a> {
    /// Its index: that in the plan, or counted on from there for what a point becomes.
    pub index: usize,
    /// The instance; a point stands before what it becomes.
    pub instance: Known<'a>,
    /// What a run would do.
    pub forecast: Forecast,
}

/// An instance of the plan, or one that a point becomes.
#[derive(Debug)]
pub enum Known<'a> {
    /// In the plan.
    Planned(&'a Instance),
    /// Found by looking at what is stored.
    Found(Box<Instance>),
}

impl Deref for Known<'_> {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        match self {
            Self::Planned(instance) => instance,
            Self::Found(instance) => instance,
        }
    }
}

/// What is to be told of the keys of what is stored. What would run always says of what its key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The keys.
    Keys,
    /// Of what they are made, too.
    Components,
}

/// What a run would do with each instance, by its index.
pub(crate) type Forecasts = HashMap<usize, Forecast>;

/// Says for every instance what a run would do. Points whose files are stored are expanded. Writes nothing.
pub fn forecast<'a>(
    plan: &'a Plan,
    options: &Options<'_>,
    detail: Detail,
) -> Result<Vec<Foreseen<'a>>, StoreError> {
    let shared = Shared::new(plan, options);
    let mut forecasts = match current::foreseen(plan, options, detail) {
        Some(forecasts) => forecasts,
        None => one_by_one(&shared, detail)?,
    };
    let mut told = Vec::with_capacity(forecasts.len());
    for (index, instance) in shared.table.in_order() {
        let Some(forecast) = forecasts.remove(&index) else {
            continue;
        };
        let instance = match plan.instances.get(index) {
            Some(planned) => Known::Planned(planned),
            None => Known::Found(Box::new(instance.clone())),
        };
        told.push(Foreseen {
            index,
            instance,
            forecast,
        });
    }
    Ok(told)
}

/// Looks at each instance and at the store.
fn one_by_one(shared: &Shared<'_>, detail: Detail) -> Result<Forecasts, StoreError> {
    let (plan, options) = (shared.plan, shared.options);
    let mut forecasts = Forecasts::with_capacity(plan.instances.len());
    let mut passed = HashSet::new();
    for (index, instance) in plan.instances.iter().enumerate() {
        if !options.has(index) {
            continue;
        }
        if plan.expansion_of(instance).is_none() {
            let forecast = one(shared, index, instance, &mut passed, detail)?;
            forecasts.insert(index, forecast);
            continue;
        }
        let mut level = 1;
        loop {
            let Some(forecast) = waits(shared, instance, &mut passed) else {
                let Level {
                    children,
                    deeper,
                    done,
                    ..
                } = expand(shared, index, level);
                for child in &children {
                    if let Some(instance) = shared.table.instance(*child) {
                        let forecast = one(shared, *child, instance, &mut passed, detail)?;
                        forecasts.insert(*child, forecast);
                    }
                }
                let open = children.iter().find(|child| shared.of(**child).is_none());
                let open = open.and_then(|child| shared.table.instance(*child));
                // Whether there is more below the last level changes nothing of what runs.
                let deepest = plan.expansion_of(instance).map_or(0, |point| point.max_depth);
                let deeper = deeper && (level < deepest || open.is_none());
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

fn one<'s>(
    shared: &'s Shared<'_>,
    index: usize,
    instance: &'s Instance,
    passed: &mut HashSet<&'s str>,
    detail: Detail,
) -> Result<Forecast, StoreError> {
    let (forecast, done) = match waits(shared, instance, passed) {
        Some(later) => return Ok(later),
        None => foresee(shared, instance, detail)?,
    };
    if let Some(done) = done {
        shared.table.set(index, done);
    }
    Ok(forecast)
}

/// The first thing that must run before an instance can be looked at. `passed` holds the stages of which nothing must: a
/// thousand instances that wait for the same thousand are not a million looks.
fn waits<'s>(
    shared: &'s Shared<'_>,
    instance: &'s Instance,
    passed: &mut HashSet<&'s str>,
) -> Option<Forecast> {
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
            Dependency::Stage(stage) if passed.contains(stage) => None,
            Dependency::Stage(stage) => {
                let points = stage_of(stage).find(open);
                let missing = points.or_else(|| shared.table.of_stage(stage).into_iter().find(open));
                if missing.is_none() {
                    passed.insert(stage);
                }
                missing
            }
        });
    let before = missing.and_then(|index| shared.table.instance(index))?;
    Some(Forecast::Later {
        after: before.name.clone(),
    })
}

/// What a run would do with an instance, and how that would end where it is known.
fn foresee(
    shared: &Shared<'_>,
    instance: &Instance,
    detail: Detail,
) -> Result<(Forecast, Option<Done>), StoreError> {
    let ready = match prepare(shared, instance) {
        Ok(ready) => ready,
        Err(done) => {
            let status = done.status;
            let reason = done.error.or(done.reason).unwrap_or_default();
            let done = Done::without_outputs(status, reason.clone());
            return Ok((Forecast::Ends { status, reason }, Some(done)));
        }
    };
    let key = ready.key;
    let record = match shared.options.forces(instance) {
        true => None,
        false => shared.options.store.record(&key)?,
    };
    let Some(record) = record else {
        let components = ready.components.into();
        return Ok((Forecast::Runs { key, components }, None));
    };
    let done = Done {
        status: Status::Cached,
        ..Done::ok(record.outputs, record.objects)
    };
    let components = (detail == Detail::Components).then(|| ready.components.into());
    Ok((Forecast::Cached { key, components }, Some(done)))
}
