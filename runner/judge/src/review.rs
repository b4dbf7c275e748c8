//! A review: the pending changes of golden files one by one, each accepted or not.

use std::collections::BTreeMap;

use hotcell_schema::diff::Change;
use hotcell_schema::golden::{Exact, Fact, GoldenFile};
use hotcell_schema::verdict::Verdict;

use crate::golden::{GoldenError, Judged, Pending, write};
use crate::observed::{self, Absorb};

/// One decision of a review: a part of one golden file, and what differs in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The part: `outcome`, `outputs.stdout`, `tasks[0.1]`; `golden`: the file as a whole.
    pub part: String,
    /// What differs.
    pub changes: Vec<Change>,
}

impl Judged {
    /// The decisions that a review of this file asks for, in order.
    pub fn steps(&self) -> Vec<Step> {
        let (Verdict::NotMet(changes), Some(pending)) = (&self.check.verdict, &self.pending) else {
            return Vec::new();
        };
        let by_part = |part: fn(&Change) -> &str| {
            let mut steps: Vec<Step> = Vec::new();
            for change in changes {
                let part = part(change);
                match steps.iter_mut().find(|step| step.part == part) {
                    Some(step) => step.changes.push(change.clone()),
                    None => steps.push(Step {
                        part: part.to_owned(),
                        changes: vec![change.clone()],
                    }),
                }
            }
            steps
        };
        match pending {
            Pending::Exact { .. } => by_part(Change::part),
            Pending::Observed { .. } => by_part(|change| &change.path),
            Pending::Write(golden) => {
                let mut changes = changes.clone();
                changes.extend(content_of(golden));
                vec![Step {
                    part: "golden".into(),
                    changes,
                }]
            }
            Pending::Remove => vec![Step {
                part: "golden".into(),
                changes: changes.clone(),
            }],
        }
    }

    /// Accepts one decision of [`Judged::steps`]: the file is written (or removed) at once, and holds this part as it came out
    /// and all others as they were.
    pub fn accept_step(&mut self, step: &Step) -> Result<(), GoldenError> {
        match self.pending.as_mut() {
            None => Ok(()),
            Some(Pending::Remove) => Ok(fs_err::remove_file(&self.path)?),
            Some(Pending::Write(golden)) => write(&self.path, golden).map(|_| ()),
            Some(Pending::Exact { old, new }) => {
                accept_part(old, new, &step.part);
                write(&self.path, &GoldenFile::Exact((**old).clone())).map(|_| ())
            }
            Some(Pending::Observed { old, new }) => {
                let task = step
                    .part
                    .strip_prefix("tasks[")
                    .and_then(|rest| rest.strip_suffix(']'));
                if let Some(task) = task {
                    observed::absorb(old, new, Absorb::Task(task));
                }
                write(&self.path, &GoldenFile::Observed((**old).clone())).map(|_| ())
            }
        }
    }
}

/// What a new golden would hold, as things that are added.
fn content_of(golden: &GoldenFile) -> Vec<Change> {
    match golden {
        GoldenFile::Exact(golden) => match serde_json::to_value(&golden.facts) {
            Ok(serde_json::Value::Object(parts)) => parts
                .into_iter()
                .map(|(part, value)| Change::added(part, value))
                .collect(),
            _ => Vec::new(),
        },
        GoldenFile::Observed(golden) => {
            let mut by_task: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
            for task in &golden.must {
                let facts = task.in_order.iter().chain(&task.any_order);
                by_task.entry(&task.task).or_default().extend(facts);
            }
            by_task
                .into_iter()
                .flat_map(|(task, facts)| {
                    let path = format!("tasks[{task}]");
                    facts
                        .into_iter()
                        .map(move |fact| Change::added(&path, fact.to_string()))
                })
                .collect()
        }
    }
}

/// Makes one part of the old facts that of the new ones.
fn accept_part(old: &mut Exact, new: &Exact, part: &str) {
    let (was, is) = (&mut old.facts, &new.facts);
    match part {
        "outcome" => was.outcome.clone_from(&is.outcome),
        "behaviour" => was.behaviour.clone_from(&is.behaviour),
        "findings" => was.findings.clone_from(&is.findings),
        "unsupported" => was.unsupported.clone_from(&is.unsupported),
        "outputs" => was.outputs.clone_from(&is.outputs),
        "facts" => was.clone_from(is),
        "instance" => old.instance.clone_from(&new.instance),
        "engine" => old.engine.clone_from(&new.engine),
        _ => {
            let Some(port) = part.strip_prefix("outputs.") else {
                return;
            };
            let outputs = was.outputs.get_or_insert_default();
            match is.outputs.as_ref().and_then(|outputs| outputs.get(port)) {
                Some(fact) => {
                    outputs.insert(port.to_owned(), fact.clone());
                }
                None => {
                    outputs.shift_remove(port);
                }
            }
        }
    }
}
