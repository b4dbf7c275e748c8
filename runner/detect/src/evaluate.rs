//! One pass over the events.

use std::collections::BTreeMap;

use hotcell_schema::event::{Event, Header, ProcessOp, What};
use hotcell_schema::finding::{Evidence, Finding};
use hotcell_schema::respond::Action;
use serde_json::Value as Json;

use crate::condition::{By, Condition, Leaf};
use crate::counting::Counter;
use crate::describe::{self, MAX_EVIDENCE};
use crate::facts;
use crate::ruleset::{Rule, RuleSet};
use crate::sequence::Waiting;

/// Most pieces of evidence in one finding.
const MAX_FINDING_EVIDENCE: usize = 16;
/// After so many events that fit a `match`, no more evidence is looked for.
const MAX_TRIES: usize = 64;
/// Most processes whose parents are remembered.
const MAX_PROCESSES: usize = 1 << 16;
/// Longest chain of parents that is followed.
const MAX_ANCESTORS: usize = 64;

/// One evaluation in progress: give it the events in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Evaluation<'r> {
    set: &'r RuleSet,
    /// Whether each rule applies to the stream.
    wanted: Vec<bool>,
    states: Vec<State>,
    family: Family,
    moment: Moment,
    /// Whether the last event made a condition's part hold.
    moved: bool,
}

/// What is known while one event is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moment {
    /// Number of the event, from 1.
    pub(crate) number: u64,
    /// Virtual time; it never goes back.
    pub(crate) time: u64,
}

/// What one leaf has seen.
#[derive(Debug)]
struct State {
    /// Whether more events can change it.
    open: bool,
    /// Whether it holds.
    hit: bool,
    proof: Vec<Evidence>,
    /// Number of the last event that it took, so that no event counts twice.
    last: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Match { tries: usize },
    Count(Counter),
    Sequence(Waiting),
}

/// Who is whose parent.
#[derive(Debug, Default)]
pub(crate) struct Family {
    parents: BTreeMap<u32, u32>,
}

impl Family {
    fn learn(&mut self, event: &Event) {
        if self.parents.len() >= MAX_PROCESSES {
            return;
        }
        self.parents.entry(event.task.pid).or_insert(event.task.parent);
        if let What::Process(process) = &event.what
            && process.op == ProcessOp::Fork
            && let Some(child) = process.child
        {
            self.parents.insert(child, event.task.pid);
        }
    }

    /// Whether `pid` is `ancestor` or descends from it.
    pub(crate) fn descends(&self, pid: u32, ancestor: u32) -> bool {
        let mut here = pid;
        for _ in 0..MAX_ANCESTORS {
            if here == ancestor {
                return true;
            }
            match self.parents.get(&here) {
                Some(parent) => here = *parent,
                None => return false,
            }
        }
        false
    }
}

/// What must be the same for events to belong together, as a number.
pub(crate) fn group(by: By, event: &Event) -> u64 {
    match by {
        By::Sample | By::Lineage => 0,
        By::Process => event.task.pid.into(),
        By::Task => u64::from(event.task.pid) << 32 | u64::from(event.task.tid),
    }
}

impl<'r> Evaluation<'r> {
    /// Of the rules that are wanted, by their place and what they say of themselves.
    pub(crate) fn new(set: &'r RuleSet, header: &Header, wants: impl Fn(usize, &Rule) -> bool) -> Self {
        let rules = set.compiled();
        let wanted: Vec<bool> = rules
            .iter()
            .enumerate()
            .map(|(place, rule)| wants(place, &rule.about) && rule.scope.covers(header))
            .collect();
        let mut states = Vec::with_capacity(set.index.leaves);
        for (rule, wanted) in rules.iter().zip(&wanted) {
            for leaf in &rule.leaves {
                states.push(State {
                    open: *wanted,
                    hit: false,
                    proof: Vec::new(),
                    last: 0,
                    kind: match leaf {
                        Leaf::Match(_) => Kind::Match { tries: 0 },
                        Leaf::Count(_) => Kind::Count(Counter::default()),
                        Leaf::Sequence(_) => Kind::Sequence(Waiting::default()),
                    },
                });
            }
        }
        Self {
            set,
            wanted,
            states,
            family: Family::default(),
            moment: Moment::default(),
            moved: false,
        }
    }

    /// Take the next event.
    pub fn event(&mut self, event: &Event) {
        self.moved = false;
        self.moment.number += 1;
        self.moment.time = self.moment.time.max(event.time);
        if self.set.index.lineage {
            self.family.learn(event);
        }
        for entry in self.set.index.of(&event.what) {
            let Some(state) = self.states.get_mut(entry.state).filter(|state| state.open) else {
                continue;
            };
            let leaf = self
                .set
                .compiled()
                .get(entry.rule)
                .and_then(|rule| rule.leaves.get(entry.leaf));
            match (leaf, &mut state.kind) {
                (Some(Leaf::Match(patterns)), Kind::Match { tries }) => {
                    let Some(pattern) = patterns.get(entry.place) else {
                        continue;
                    };
                    if state.last != self.moment.number && pattern.fits(event) {
                        state.last = self.moment.number;
                        state.hit = true;
                        self.moved = true;
                        *tries += 1;
                        add(&mut state.proof, event.seq, describe::event(event));
                        state.open = *tries < MAX_TRIES && state.proof.len() < MAX_EVIDENCE;
                    }
                }
                (Some(Leaf::Count(count)), Kind::Count(counter)) => {
                    let Some(pattern) = count.of.get(entry.place) else {
                        continue;
                    };
                    if state.last != self.moment.number && pattern.fits(event) {
                        state.last = self.moment.number;
                        if let Some(proof) = counter.take(count, entry.place, event, self.moment) {
                            state.proof = proof;
                            state.hit = true;
                            self.moved = true;
                            state.open = false;
                            *counter = Counter::default();
                        }
                    }
                }
                (Some(Leaf::Sequence(sequence)), Kind::Sequence(waiting)) => {
                    let complete = waiting.take(
                        sequence,
                        (entry.step.0, entry.place),
                        event,
                        self.moment,
                        &self.family,
                    );
                    for proof in complete {
                        state.hit = true;
                        self.moved = true;
                        for (seq, text) in proof {
                            add(&mut state.proof, seq, text);
                        }
                    }
                    if state.proof.len() >= MAX_EVIDENCE {
                        state.open = false;
                        *waiting = Waiting::default();
                    }
                }
                _ => {}
            }
        }
    }

    /// The first rule, by id, that acts and holds after the last event: of what has happened so far, without facts of inspection.
    pub fn acting(&self) -> Option<(&'r Rule, Action)> {
        if !self.moved {
            return None;
        }
        let mut first = 0;
        let rules = self.set.compiled().iter().zip(&self.wanted);
        rules.into_iter().find_map(|(rule, wanted)| {
            let states = self.states.get(first..).unwrap_or_default();
            first += rule.leaves.len();
            let action = rule.about.respond.filter(|_| *wanted)?;
            judge(&rule.condition, states, None).map(|_| (&rule.about, action))
        })
    }

    /// How many rules it judges.
    pub fn rules(&self) -> usize {
        self.wanted.iter().filter(|wanted| **wanted).count()
    }

    /// Conclude, with the facts of inspection where there are any. Findings are ordered by rule id.
    pub fn finish(self, info: Option<&Json>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut first = 0;
        for (rule, wanted) in self.set.compiled().iter().zip(&self.wanted) {
            let states = self.states.get(first..).unwrap_or_default();
            first += rule.leaves.len();
            if !wanted {
                continue;
            }
            let Some(mut evidence) = judge(&rule.condition, states, info) else {
                continue;
            };
            evidence.sort_by(|a, b| (a.event, a.offset, &a.text).cmp(&(b.event, b.offset, &b.text)));
            evidence.dedup();
            evidence.truncate(MAX_FINDING_EVIDENCE);
            findings.push(Finding {
                rule: rule.about.id.clone(),
                title: rule.about.title.clone(),
                severity: rule.about.severity,
                attack: rule.about.attack.clone(),
                evidence,
            });
        }
        findings
    }
}

/// Keep a piece of evidence, unless one says the same already.
fn add(proof: &mut Vec<Evidence>, seq: u64, text: String) {
    if proof.len() < MAX_FINDING_EVIDENCE && !proof.iter().any(|known| known.text == text) {
        proof.push(Evidence {
            event: Some(seq),
            offset: None,
            text,
        });
    }
}

/// Whether the condition holds; if so, what proves it.
fn judge(condition: &Condition, states: &[State], info: Option<&Json>) -> Option<Vec<Evidence>> {
    match condition {
        Condition::Events(leaf) => states
            .get(*leaf)
            .filter(|state| state.hit)
            .map(|state| state.proof.clone()),
        Condition::Facts(facts) => info.and_then(|info| facts::judge(facts, info)),
        Condition::All(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(judge(part, states, info)?);
            }
            Some(all)
        }
        Condition::Any(parts) => {
            let held: Vec<_> = parts
                .iter()
                .filter_map(|part| judge(part, states, info))
                .collect();
            (!held.is_empty()).then(|| held.into_iter().flatten().collect())
        }
        Condition::Not(part) => judge(part, states, info).is_none().then(Vec::new),
    }
}
