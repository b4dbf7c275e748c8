//! What a run would do and why, beside what earlier runs did.

mod past;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use hotcell_cells::cores::duties::Duties;
use hotcell_plan::{After, AxisValue, Instance, Plan, Wire};
use hotcell_run::{Detail, Forecast, Foreseen};
use hotcell_schema::forecast::{self, Does, EdgeKind, InstanceForecast, StageEdge, StageForecast};
use hotcell_schema::manifest::units::Time;
use indexmap::IndexMap;

use crate::cores;
use crate::exit::Failure;
use crate::names::Names;
use crate::session::Planned;

pub(crate) use past::{Past, Why};

/// A forecast, and what it is compared with.
pub(crate) struct Outlook<'a> {
    planned: &'a Planned,
    /// Short names.
    pub names: Names<'a>,
    /// What a run would do with each instance, in the plan's order.
    pub foreseen: Vec<Foreseen<'a>>,
    /// Earlier runs, where something would run: what is stored needs no comparison.
    past: Option<Past>,
    /// Cells at once.
    jobs: usize,
    /// Which core does what, where the plan asks for cores.
    duties: Option<Duties>,
    /// What a small host gives stages instead of the cores that they want.
    pub instead: Vec<String>,
    /// Where each instance is in `foreseen`, made when it is first asked for.
    places: OnceCell<HashMap<String, usize>>,
}

impl<'a> Outlook<'a> {
    /// Foresees a run. Nothing is written.
    pub(crate) fn new(planned: &'a Planned, jobs: usize) -> Result<Self, Failure> {
        let foreseen = planned.forecast(Detail::Keys)?;
        let runs = foreseen
            .iter()
            .any(|foreseen| matches!(foreseen.forecast, Forecast::Runs { .. }));
        let plan = &planned.plan;
        let (duties, instead) = match cores::duties(plan, planned.places.arbiter.as_deref())? {
            None => (None, Vec::new()),
            Some((duties, topology, _)) => {
                let seats = cores::seats(plan, &duties, &topology)?;
                (Some(duties), seats.fallbacks)
            }
        };
        Ok(Self {
            planned,
            names: Names::new(&planned.plan),
            foreseen,
            past: runs.then(|| Past::of(planned)),
            jobs,
            duties,
            instead,
            places: OnceCell::new(),
        })
    }

    /// What a run would do with an instance, and why.
    pub(crate) fn of(&self, foreseen: &Foreseen<'_>) -> InstanceForecast {
        let instance = &foreseen.instance;
        let mut line = InstanceForecast {
            name: instance.name.clone(),
            short: self.names.of(instance),
            stage: instance.stage.clone(),
            does: does(&foreseen.forecast),
            why: String::new(),
            changed: Vec::new(),
            key: None,
            after: None,
            items: None,
            status: None,
        };
        match &foreseen.forecast {
            Forecast::Cached { key, .. } => {
                line.why = "its outputs are stored".into();
                line.key = Some(*key);
            }
            Forecast::Runs { key, components } => {
                line.key = Some(*key);
                if let Some(past) = &self.past {
                    let Why { text, changed } = past.why(&instance.name, key, components);
                    (line.why, line.changed) = (text, changed);
                }
            }
            Forecast::Later { after } => {
                line.why = format!("`{}` must run first", self.short(after));
                line.after = Some(after.clone());
            }
            Forecast::Expands { items, reason } => {
                let more = reason.iter().map(|reason| format!("; {reason}"));
                line.why = format!("becomes {items} instances{}", more.collect::<String>());
                line.items = Some(*items as u64);
            }
            Forecast::Ends { status, reason } => {
                line.why = format!("{}: {}", status.as_str(), self.names.shorten(reason));
                line.status = Some(*status);
            }
        }
        line
    }

    /// The short name of an instance that is known by its name.
    fn short(&self, name: &str) -> String {
        let places = self.places.get_or_init(|| {
            let named = self.foreseen.iter().enumerate();
            named
                .map(|(place, foreseen)| (foreseen.instance.name.clone(), place))
                .collect()
        });
        let found = places.get(name).and_then(|place| self.foreseen.get(*place));
        found.map_or_else(|| name.to_owned(), |foreseen| self.names.of(&foreseen.instance))
    }

    /// Stages with their counts, in the plan's order; those of which nothing is left are not there.
    pub(crate) fn stages(&self) -> IndexMap<String, StageForecast> {
        let mut stages: IndexMap<String, StageForecast> = IndexMap::new();
        for (name, stage) in &self.planned.plan.stages {
            stages.insert(
                name.clone(),
                StageForecast {
                    uses: stage.uses.clone(),
                    cores: self.planned.plan.stage_cores.get(name).copied(),
                    ..StageForecast::default()
                },
            );
        }
        for foreseen in &self.foreseen {
            let Some(stage) = stages.get_mut(&foreseen.instance.stage) else {
                continue;
            };
            stage.instances += 1;
            *match does(&foreseen.forecast) {
                Does::Cached => &mut stage.cached,
                Does::Run => &mut stage.run,
                Does::Wait => &mut stage.wait,
                Does::Expand => &mut stage.expand,
                Does::End => &mut stage.end,
            } += 1;
        }
        if self.planned.selection.is_some() {
            stages.retain(|_, stage| stage.instances > 0);
        }
        stages
    }

    /// The cores, for people.
    pub(crate) fn cores(&self) -> String {
        match &self.duties {
            Some(duties) => format!(
                "guests on core {} in turns of {}, {} at a time; control on {}, chores on {}",
                duties.pool,
                Time(duties.slice.get()),
                self.jobs,
                duties.control,
                duties.chores
            ),
            None => format!("any core, {} at a time", self.jobs),
        }
    }

    /// Everything, for programs.
    pub(crate) fn to_json(&self) -> forecast::Forecast {
        let plan = &self.planned.plan;
        let stages = self.stages();
        let mut edges = edges(plan);
        edges.retain(|edge| stages.contains_key(&edge.to));
        forecast::Forecast {
            format: forecast::FORMAT.into(),
            version: forecast::VERSION,
            name: plan.name.clone(),
            manifest: plan.manifest,
            jobs: u32::try_from(self.jobs).unwrap_or(u32::MAX),
            cores: self
                .duties
                .as_ref()
                .map_or_else(|| "any".into(), |duties| duties.pool.to_string()),
            selection: self
                .planned
                .selection
                .as_ref()
                .map(|selection| selection.asked.clone()),
            since: self.past.as_ref().and_then(Past::latest).map(str::to_owned),
            stages,
            edges,
            instances: self.foreseen.iter().map(|foreseen| self.of(foreseen)).collect(),
        }
    }
}

/// What a run would do.
pub(crate) fn does(forecast: &Forecast) -> Does {
    match forecast {
        Forecast::Cached { .. } => Does::Cached,
        Forecast::Runs { .. } => Does::Run,
        Forecast::Later { .. } => Does::Wait,
        Forecast::Expands { .. } => Does::Expand,
        Forecast::Ends { .. } => Does::End,
    }
}

/// What goes from stage to stage, and from sets of samples to stages.
pub(crate) fn edges(plan: &Plan) -> Vec<StageEdge> {
    let mut edges = BTreeSet::new();
    // All instances of a stage are wired alike, but a sample is of the set it is of.
    let mut seen: HashMap<&str, BTreeSet<Vec<Option<&str>>>> = HashMap::new();
    for instance in &plan.instances {
        let sets: Vec<Option<&str>> = samples(plan, instance)
            .map(|index| plan.samples.get(index).map(|sample| sample.set.as_str()))
            .collect();
        if seen.entry(&instance.stage).or_default().insert(sets) {
            of(plan, instance, &mut edges);
        }
    }
    // The plan's order of stages, and sets of samples before all of them.
    let place = |name: &str| plan.stages.get_index_of(name).map_or(0, |at| at + 1);
    let mut edges: Vec<StageEdge> = edges.into_iter().collect();
    edges.sort_by_key(|edge| (place(&edge.to), place(&edge.from)));
    edges
}

/// Samples that an instance is about, or reads.
pub(crate) fn samples<'a>(_: &Plan, instance: &'a Instance) -> impl Iterator<Item = usize> + 'a {
    let axes = instance.axes.values().filter_map(|value| match value {
        AxisValue::Sample(index) => Some(*index),
        _ => None,
    });
    let wired = instance.inputs.values().flatten();
    axes.chain(wired.filter_map(|wire| match wire {
        Wire::Sample(index) => Some(*index),
        _ => None,
    }))
}

fn of(plan: &Plan, instance: &Instance, edges: &mut BTreeSet<StageEdge>) {
    let stage_of = |index: &usize| plan.instances.get(*index).map(|before| before.stage.as_str());
    let mut add = |from: Option<String>, kind, output: Option<&str>, input: Option<&str>| {
        if let Some(from) = from.filter(|from| *from != instance.stage) {
            edges.insert(StageEdge {
                from,
                to: instance.stage.clone(),
                kind,
                output: output.map(str::to_owned),
                input: input.map(str::to_owned),
            });
        }
    };
    let wired = instance.inputs.iter().flat_map(|(port, wires)| {
        wires
            .iter()
            .map(move |wire| (EdgeKind::Data, Some(port.as_str()), wire))
    });
    let expands = instance.expands.iter().map(|wire| (EdgeKind::Items, None, wire));
    let mut reads_sample = false;
    for (kind, input, wire) in wired.chain(expands) {
        match wire {
            Wire::Sample(index) => {
                reads_sample = true;
                let set = plan
                    .samples
                    .get(*index)
                    .map(|sample| format!("samples.{}", sample.set));
                add(set, kind, None, input);
            }
            Wire::Output { instance, port } => {
                add(stage_of(instance).map(str::to_owned), kind, Some(port), input);
            }
            Wire::All { stage, port } => add(Some(stage.clone()), kind, Some(port), input),
            Wire::Same { point, port } | Wire::Point { point, port } => {
                add(stage_of(point).map(str::to_owned), kind, Some(port), input);
            }
            Wire::Item => {}
        }
    }
    // A stage over samples that reads none of them is still about them, but what it reads says so already.
    if !reads_sample && instance.inputs.is_empty() && instance.expands.is_empty() {
        for index in samples(plan, instance) {
            let set = plan
                .samples
                .get(index)
                .map(|sample| format!("samples.{}", sample.set));
            add(set, EdgeKind::Order, None, None);
        }
    }
    let when = instance.when.iter().flat_map(|when| when.reads.values());
    let late = instance.late.iter().flat_map(|late| late.reads.values());
    for index in when.chain(late) {
        add(stage_of(index).map(str::to_owned), EdgeKind::Result, None, None);
    }
    for after in &instance.needs {
        let stage = match after {
            After::Instance(index) => stage_of(index).map(str::to_owned),
            After::Stage(stage) => Some(stage.clone()),
        };
        add(stage, EdgeKind::Order, None, None);
    }
}
