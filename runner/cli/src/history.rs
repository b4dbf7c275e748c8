//! What earlier runs of an experiment say of its instances: whole runs, runs of a part, and runs that were killed.
//!
//! The latest run has the first word. What it left out is as in the run before it, and so on, up to one that was of
//! everything. Of a run that came to no result the journal tells: what ended in it, and what was to run and never did.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use hotcell_plan::{Instance, Plan};
use hotcell_run::select::{Ended, not_well};
use hotcell_schema::outcome::Status;
use hotcell_schema::report::InstanceFacts;
use hotcell_store::Entry;
use indexmap::IndexMap;

use crate::runs::{self, Run, State, Subject};

/// Earlier runs of an experiment, the latest first.
#[derive(Debug)]
pub(crate) struct Earlier {
    runs: Vec<Told>,
}

/// What one run tells.
#[derive(Debug)]
struct Told {
    id: String,
    /// How its instances ended, by name.
    endings: IndexMap<String, InstanceFacts>,
    /// What was to run in a run that was killed, and never ended.
    open: HashSet<String>,
    /// What was to run, where not everything was.
    chosen: Option<HashSet<String>>,
}

impl Earlier {
    /// The runs of an experiment, back to the first that was of everything; `None` where there is none.
    pub(crate) fn of(runs: &Path, subject: Subject<'_>) -> Option<Self> {
        let mut told = Vec::new();
        for run in runs::all(runs).iter().rev() {
            let one = match run.state {
                State::Running | State::Incomplete => None,
                State::Finished => finished(run, subject).or_else(|| killed(run, subject)),
                State::Interrupted => killed(run, subject),
            };
            let Some(one) = one else { continue };
            let whole = one.chosen.is_none();
            told.push(one);
            if whole {
                break;
            }
        }
        (!told.is_empty()).then_some(Self { runs: told })
    }

    /// The latest run.
    pub(crate) fn latest(&self) -> &str {
        self.runs.first().map_or("", |told| &told.id)
    }

    /// How an instance ended when it last did, and in which run.
    pub(crate) fn ending(&self, name: &str) -> Option<(&str, &InstanceFacts)> {
        let mut all = self.runs.iter();
        all.find_map(|told| Some((told.id.as_str(), told.endings.get(name)?)))
    }

    /// Which instances of a plan did not end well when they were last to run. What no run had is new and never did.
    pub(crate) fn not_well(&self, plan: &Plan) -> Vec<bool> {
        let mut known: Vec<Option<bool>> = vec![None; plan.instances.len()];
        let points = Points::new(plan);
        for told in &self.runs {
            let ended = told.ended(plan, &points);
            // What was skipped ended well unless what it waited for, in the same run, did not.
            let of = |index: usize, _: &Instance| ended.get(index).copied().flatten().unwrap_or(Ended::Well);
            let not_well = not_well(plan, &of);
            for ((known, ended), not_well) in known.iter_mut().zip(&ended).zip(not_well) {
                *known = known.or(ended.map(|_| not_well));
            }
        }
        known.into_iter().map(|known| known.unwrap_or(true)).collect()
    }
}

impl Told {
    /// How each instance of a plan ended; what a point became counts for the point. `None`: this run did not have it.
    fn ended(&self, plan: &Plan, points: &Points<'_>) -> Vec<Option<Ended>> {
        let mut of_points: HashMap<usize, Ended> = HashMap::new();
        for (name, facts) in &self.endings {
            if let Some(point) = points.of(name) {
                let worst = of_points.entry(point).or_insert(Ended::Well);
                if how(facts) == Ended::Badly {
                    *worst = Ended::Badly;
                }
            }
        }
        let each = plan.instances.iter().enumerate();
        each.map(|(index, instance)| {
            let name = &instance.name;
            if self.open.contains(name) {
                return Some(Ended::Badly);
            }
            let own = self.endings.get(name).map(how);
            if plan.expansion_of(instance).is_none() {
                return own;
            }
            let had = self.chosen.as_ref().is_none_or(|chosen| chosen.contains(name));
            // A point that became what it should, and that was nothing, is not told of.
            let quiet = had.then_some(Ended::Well);
            match (own, of_points.get(&index).copied()) {
                (Some(Ended::Badly), _) | (_, Some(Ended::Badly)) => Some(Ended::Badly),
                (own, children) => own.or(children).or(quiet),
            }
        })
        .collect()
    }
}

/// How an instance ended, as far as running it again is concerned.
fn how(facts: &InstanceFacts) -> Ended {
    match facts.status {
        Status::Ok | Status::Cached => Ended::Well,
        Status::Failed | Status::Interrupted | Status::Refused => Ended::Badly,
        Status::Skipped if facts.not_begun => Ended::Badly,
        Status::Skipped => Ended::Skipped,
    }
}

/// By the facts of a finished run.
fn finished(run: &Run, subject: Subject<'_>) -> Option<Told> {
    let facts = run.facts()?;
    if !runs::is_of(&facts, run, subject) {
        return None;
    }
    let chosen = facts.selection.as_ref().map(|_| {
        let journal = run.journal();
        run.names().and_then(|plan| chosen(&journal, &plan.1))
    });
    Some(Told {
        id: run.id.clone(),
        endings: facts.instances,
        open: HashSet::new(),
        // Before journals said what was chosen, nothing can be said of points that became nothing.
        chosen: chosen.map(Option::unwrap_or_default),
    })
}

/// By the journal of a run that came to no result.
fn killed(run: &Run, subject: Subject<'_>) -> Option<Told> {
    let (name, planned) = run.names()?;
    if !runs::is_named(&name, run, subject) {
        return None;
    }
    let journal = run.journal();
    let chosen = chosen(&journal, &planned);
    let had = |name: &String| chosen.as_ref().is_none_or(|chosen| chosen.contains(name));
    let mut open: HashSet<String> = planned.iter().filter(|name| had(name)).cloned().collect();
    let mut endings = IndexMap::new();
    let mut items: Vec<(String, String)> = Vec::new();
    for entry in journal {
        match entry {
            Entry::Ended {
                instance,
                status,
                key,
                ..
            } => {
                open.remove(&instance);
                endings.insert(instance, facts(status, key));
            }
            Entry::Expanded {
                instance, items: new, ..
            } => {
                let children = new.iter().map(|item| (instance.clone(), item.to_string()));
                items.extend(children);
            }
            _ => {}
        }
    }
    // A point has ended when all that it became has.
    for (point, item) in items {
        // Their names are the point's, with the digest in the place of the star.
        let mut stars = point.match_indices(OPEN).map(|(at, open)| at + open.len());
        let ended = stars.any(|at| {
            let (before, after) = point.split_at(at);
            endings.contains_key(&format!("{}{item}{after}", before.trim_end_matches('*')))
        });
        if !ended {
            open.insert(point);
        }
    }
    Some(Told {
        id: run.id.clone(),
        endings,
        open,
        chosen,
    })
}

fn facts(status: Status, key: Option<hotcell_schema::digest::Digest>) -> InstanceFacts {
    InstanceFacts {
        status,
        not_begun: false,
        wall_s: 0.0,
        cpu_s: 0.0,
        peak_kib: 0,
        stood_s: 0.0,
        key,
        reason: None,
        error: None,
        attempts: 0,
        left: None,
        fault: None,
    }
}

/// Names of what was to run, where a journal says that not everything was.
fn chosen(journal: &[Entry], planned: &[String]) -> Option<HashSet<String>> {
    let ranges = journal.iter().find_map(|entry| match entry {
        Entry::Chosen { instances } => Some(instances),
        _ => None,
    })?;
    let named = ranges
        .iter()
        .filter_map(|(first, end)| planned.get(usize::try_from(*first).ok()?..usize::try_from(*end).ok()?));
    Some(named.flatten().cloned().collect())
}

/// How the name of a point says the value that is not known.
const OPEN: &str = "=*";

/// The points of a plan.
#[derive(Debug)]
struct Points<'a> {
    by_name: HashMap<&'a str, usize>,
    /// The open axis of each stage that has points.
    axes: HashMap<&'a str, &'a str>,
}

impl<'a> Points<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut points = Self {
            by_name: HashMap::new(),
            axes: HashMap::new(),
        };
        for (index, instance) in plan.instances.iter().enumerate() {
            if let Some(expansion) = plan.expansion_of(instance) {
                points.by_name.insert(&instance.name, index);
                points.axes.insert(&instance.stage, &expansion.axis);
            }
        }
        points
    }

    /// The point that became the instance of that name: it has a star where the instance has the digest of an item.
    fn of(&self, name: &str) -> Option<usize> {
        let (stage, _) = name.split_once('[')?;
        let axis = format!("{}=", self.axes.get(stage)?);
        name.match_indices(&axis).find_map(|(at, found)| {
            let (before, rest) = name.split_at(at + found.len());
            let (item, after) = rest.split_at_checked(64)?;
            let is_digest = item.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_digest
                .then(|| self.by_name.get(format!("{before}*{after}").as_str()).copied())
                .flatten()
        })
    }
}
