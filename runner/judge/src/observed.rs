//! What an observed engine saw, as facts that can be compared from run to run.
//!
//! [`Observation::of`] makes facts of one run: each task by its place in the tree, each fact once, in the order in which it
//! first happened. [`learn`] finds what several runs have in common; [`absorb`] lets one more run into what was learned;
//! [`changes`] judges a run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use hotcell_report::assemble::EventStream;
use hotcell_schema::diff::Change;
use hotcell_schema::golden::{FORMAT, Fact, Mode, Observed, TaskMay, TaskMust, VERSION};
use hotcell_schema::manifest::GoldenPart;
use hotcell_schema::report::InstanceReport;
use hotcell_schema::stage::PortType;

use crate::content;
use crate::contents::Contents;
use crate::facts::{event_outputs, gives};
use crate::normal::Normaliser;
use crate::structure::increasing;

/// The task that stands for the instance as a whole.
pub const INSTANCE: &str = "instance";
/// Larger event streams are not read.
pub const MAX_EVENTS: u64 = 256 << 20;
/// Greatest number of facts of one instance.
const MAX_FACTS: usize = 50_000;
/// The kind of fact that is a whole line of a command's standard output. Lines that not every run has are no facts: a time or
/// a number in a line would make each run another one.
const LINE: &str = "stdout/line";
/// A longer standard output has no lines that are facts.
const MAX_STDOUT: u64 = 1 << 20;
/// Lines of standard output that are facts, the first ones.
const MAX_LINES: usize = 1_000;
/// A longer line is no fact.
const MAX_LINE: usize = 512;

/// What one run showed: facts by task, in the order in which they first happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    tasks: BTreeMap<String, Vec<Fact>>,
}

/// Facts by task, while they are collected.
#[derive(Default)]
struct Collected {
    tasks: BTreeMap<String, Vec<Fact>>,
    known: HashSet<(String, Fact)>,
}

impl Collected {
    fn push(&mut self, task: &str, fact: Fact) {
        if self.known.len() >= MAX_FACTS {
            let full = plain("report/cut", format!("more than {MAX_FACTS} facts"), "ok");
            let list = self.tasks.entry(INSTANCE.into()).or_default();
            if !list.contains(&full) {
                list.push(full);
            }
        } else if self.known.insert((task.to_owned(), fact.clone())) {
            self.tasks.entry(task.to_owned()).or_default().push(fact);
        }
    }
}

fn plain(kind: impl Into<String>, resource: impl Into<String>, result: impl Into<String>) -> Fact {
    Fact {
        kind: kind.into(),
        image: String::new(),
        resource: resource.into(),
        result: result.into(),
    }
}

impl Observation {
    /// What an instance that ran to its end showed, of the selected parts. Bytes of outputs are no facts: that they are there
    /// is one, and of a command's standard output each line. `Ok(None)`: its stage has none of the parts.
    ///
    /// # Errors
    /// Why its events cannot be read.
    pub fn of(
        instance: &InstanceReport,
        select: &[GoldenPart],
        contents: &dyn Contents,
    ) -> Result<Option<Self>, String> {
        let wants = |selected| select.contains(&selected);
        let mut collected = Collected::default();
        let mut any = false;
        if let Some(outcome) = instance.outcome.as_ref().filter(|_| wants(GoldenPart::Outcome)) {
            any = true;
            let text = outcome.to_string();
            let result = text.strip_prefix(outcome.kind()).unwrap_or(&text);
            // Where a fault happened is an address.
            let result = result
                .split(" at 0x")
                .next()
                .unwrap_or_default()
                .trim_start_matches([' ', ':']);
            let result = if result.is_empty() { "ok" } else { result };
            collected.push(INSTANCE, plain(format!("outcome/{}", outcome.kind()), "", result));
        }
        if wants(GoldenPart::Findings) && gives(instance, PortType::Findings) {
            any = true;
            for finding in &instance.findings {
                collected.push(
                    INSTANCE,
                    plain("finding", &finding.rule, finding.severity.as_str()),
                );
            }
        }
        if wants(GoldenPart::Unsupported) && gives(instance, PortType::Events) {
            any = true;
            for call in &instance.unsupported {
                collected.push(INSTANCE, plain("unsupported", &call.name, "ok"));
            }
        }
        if wants(GoldenPart::Outputs) {
            for (port, output) in &instance.outputs {
                any = true;
                let result = if output.length == 0 { "empty" } else { "ok" };
                collected.push(INSTANCE, plain("output", port, result));
            }
            for line in stdout_lines(instance, contents)? {
                collected.push(INSTANCE, plain(LINE, line, "ok"));
            }
        }
        if wants(GoldenPart::Behaviour) {
            for output in event_outputs(instance) {
                any = true;
                let bytes = contents
                    .output(output, MAX_EVENTS)
                    .ok_or_else(|| format!("its events ({}) cannot be read", output.path))?;
                observe(&bytes, &mut collected);
            }
        }
        Ok(any.then_some(Self {
            tasks: collected.tasks,
        }))
    }

    /// What an event stream shows by itself.
    pub fn of_events(stream: &[u8]) -> Self {
        let mut collected = Collected::default();
        observe(stream, &mut collected);
        Self {
            tasks: collected.tasks,
        }
    }

    fn facts(&self, task: &str) -> &[Fact] {
        self.tasks.get(task).map_or(&[], Vec::as_slice)
    }
}

/// The lines of what a command wrote to standard output, where that is a text and no declared output of its own.
fn stdout_lines(instance: &InstanceReport, contents: &dyn Contents) -> Result<Vec<String>, String> {
    let stdout = instance.outputs.get("stdout").filter(|output| {
        let same = instance
            .outputs
            .values()
            .filter(|other| other.digest == output.digest);
        instance.uses == "command" && (1..=MAX_STDOUT).contains(&output.length) && same.count() == 1
    });
    let Some(stdout) = stdout else {
        return Ok(Vec::new());
    };
    let bytes = contents
        .output(stdout, MAX_STDOUT)
        .ok_or_else(|| format!("its standard output ({}) cannot be read", stdout.path))?;
    let lines = content::as_text(&bytes).map(|text| {
        let lines = text.lines().map(str::trim_end);
        let lines = lines.filter(|line| !line.is_empty() && line.len() <= MAX_LINE);
        lines.take(MAX_LINES).map(str::to_owned).collect()
    });
    Ok(lines.unwrap_or_default())
}

fn observe(bytes: &[u8], collected: &mut Collected) {
    let mut normaliser = Normaliser::default();
    EventStream::new(bytes).for_each(|event| normaliser.meet(&event));
    normaliser.settle();
    let unread = EventStream::new(bytes).for_each(|event| {
        if let Some((task, fact)) = normaliser.fact(&event) {
            collected.push(&task, fact);
        }
    });
    if unread > 0 {
        collected.push(INSTANCE, plain("events/unreadable", "", "ok"));
    }
}

/// What the runs of an instance have in common (`must`), and what only some of them have (`may`).
pub fn learn(instance: &str, engine: &str, observations: &[Observation]) -> Observed {
    let mut golden = Observed {
        format: FORMAT.into(),
        version: VERSION,
        mode: Mode::Observed,
        instance: instance.into(),
        engine: engine.into(),
        runs: 0,
        must: Vec::new(),
        may: Vec::new(),
    };
    let Some((first, rest)) = observations.split_first() else {
        return golden;
    };
    golden.runs = 1;
    golden.must = first
        .tasks
        .iter()
        .map(|(task, facts)| {
            let (mut in_order, mut any_order) = (facts.clone(), Vec::new());
            if task == INSTANCE {
                std::mem::swap(&mut in_order, &mut any_order);
                any_order.sort();
            }
            TaskMust {
                task: task.clone(),
                in_order,
                any_order,
            }
        })
        .collect();
    for observation in rest {
        golden.runs = golden.runs.saturating_add(1);
        absorb(&mut golden, observation, Absorb::All);
    }
    golden
}

/// How far a run may change what was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorb<'a> {
    /// What it has more is allowed from now on; what it lacks is still wanted.
    Widen,
    /// What it lacks is no longer wanted either.
    All,
    /// The same, for one task only.
    Task(&'a str),
}

/// Lets a run into what was learned.
pub fn absorb(golden: &mut Observed, observation: &Observation, how: Absorb<'_>) {
    let mut may: BTreeMap<String, BTreeSet<Fact>> = BTreeMap::new();
    for task in std::mem::take(&mut golden.may) {
        may.entry(task.task).or_default().extend(task.facts);
    }
    let mut must: BTreeMap<String, TaskMust> = BTreeMap::new();
    for task in std::mem::take(&mut golden.must) {
        must.insert(task.task.clone(), task);
    }
    let tasks: BTreeSet<String> = must.keys().chain(observation.tasks.keys()).cloned().collect();
    for task in tasks {
        if matches!(how, Absorb::Task(only) if only != task) {
            continue;
        }
        let wanted = must.remove(&task).unwrap_or_default();
        let seen = observation.facts(&task);
        let compared = Compared::new(&wanted, may.get(&task), seen);
        let allowed = may.entry(task.clone()).or_default();
        allowed.extend(compared.unknown.iter().map(|fact| (*fact).clone()));
        let kept = if how == Absorb::Widen {
            wanted.clone()
        } else {
            let missing = compared.missing.iter().filter(|fact| fact.kind != LINE);
            allowed.extend(missing.map(|fact| (*fact).clone()));
            let mut any_order: BTreeSet<Fact> =
                compared.turned.iter().map(|(fact, _)| (*fact).clone()).collect();
            let places: HashSet<&Fact> = seen.iter().collect();
            any_order.extend(
                wanted
                    .any_order
                    .iter()
                    .filter(|fact| places.contains(fact))
                    .cloned(),
            );
            TaskMust {
                task: task.clone(),
                in_order: compared.steady.iter().map(|fact| (*fact).clone()).collect(),
                any_order: any_order.into_iter().collect(),
            }
        };
        if !(kept.in_order.is_empty() && kept.any_order.is_empty()) {
            must.insert(task, kept);
        }
    }
    golden.must = must.into_values().collect();
    golden.may = may
        .into_iter()
        .filter(|(_, facts)| !facts.is_empty())
        .map(|(task, facts)| TaskMay {
            task,
            facts: facts.into_iter().collect(),
        })
        .collect();
}

/// What a run has other than it was learned: nothing when it meets the golden.
pub fn changes(golden: &Observed, observation: &Observation) -> Vec<Change> {
    let nothing = TaskMust::default();
    let must: BTreeMap<&str, &TaskMust> = golden
        .must
        .iter()
        .map(|task| (task.task.as_str(), task))
        .collect();
    let may: BTreeMap<&str, BTreeSet<Fact>> = golden
        .may
        .iter()
        .map(|task| (task.task.as_str(), task.facts.iter().cloned().collect()))
        .collect();
    let tasks: BTreeSet<&str> = must
        .keys()
        .copied()
        .chain(observation.tasks.keys().map(String::as_str))
        .collect();
    let mut changes = Vec::new();
    for task in tasks {
        let path = format!("tasks[{task}]");
        let compared = Compared::new(
            must.get(task).unwrap_or(&&nothing),
            may.get(task),
            observation.facts(task),
        );
        changes.extend(
            compared
                .missing
                .iter()
                .map(|fact| Change::removed(&path, fact.to_string())),
        );
        changes.extend(
            compared
                .unknown
                .iter()
                .map(|fact| Change::added(&path, fact.to_string())),
        );
        changes.extend(compared.turned.iter().map(|(fact, before)| {
            let from = match before {
                Some(before) => format!("after `{before}`: {fact}"),
                None => format!("the first place: {fact}"),
            };
            Change::moved(&path, from, None)
        }));
    }
    changes
}

/// The facts of one task against what was learned of it.
struct Compared<'a> {
    /// Wanted and not there.
    missing: Vec<&'a Fact>,
    /// There, and neither wanted nor allowed.
    unknown: Vec<&'a Fact>,
    /// There, in the order that was learned.
    steady: Vec<&'a Fact>,
    /// There, in another order: with the fact that it should follow.
    turned: Vec<(&'a Fact, Option<&'a Fact>)>,
}

impl<'a> Compared<'a> {
    fn new(wanted: &'a TaskMust, allowed: Option<&BTreeSet<Fact>>, seen: &'a [Fact]) -> Self {
        let places: HashMap<&Fact, usize> = seen.iter().zip(0..).collect();
        let known: HashSet<&Fact> = wanted.in_order.iter().chain(&wanted.any_order).collect();
        let missing = wanted
            .in_order
            .iter()
            .chain(&wanted.any_order)
            .filter(|fact| !places.contains_key(fact))
            .collect();
        let unknown = seen
            .iter()
            .filter(|fact| fact.kind != LINE && !known.contains(fact))
            .filter(|fact| !allowed.is_some_and(|allowed| allowed.contains(fact)))
            .collect();
        let (present, order): (Vec<(usize, &Fact)>, Vec<usize>) = wanted
            .in_order
            .iter()
            .enumerate()
            .filter_map(|(index, fact)| Some(((index, fact), *places.get(fact)?)))
            .unzip();
        let steady: HashSet<usize> = increasing(&order).into_iter().collect();
        let before = |index: usize| {
            index
                .checked_sub(1)
                .and_then(|before| wanted.in_order.get(before))
        };
        Self {
            missing,
            unknown,
            steady: present
                .iter()
                .enumerate()
                .filter(|(at, _)| steady.contains(at))
                .map(|(_, (_, fact))| *fact)
                .collect(),
            turned: present
                .iter()
                .enumerate()
                .filter(|(at, _)| !steady.contains(at))
                .map(|(_, (index, fact))| (*fact, before(*index)))
                .collect(),
        }
    }
}
