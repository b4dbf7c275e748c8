//! The tree of processes, from events.

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::event::{Event, ProcessOp, What};
use indexmap::IndexMap;
use serde::Serialize;

use crate::words;

/// Greatest number of processes in the tree.
const MAX_PROCESSES: usize = 2_000;
/// Greatest number of command lines kept for one process.
const MAX_COMMANDS: usize = 16;

#[derive(Default)]
struct Process {
    parent: u32,
    image: String,
    commands: Vec<String>,
    end: Option<(String, &'static str)>,
    threads: BTreeSet<u32>,
    kinds: BTreeMap<String, u64>,
    first: u64,
}

/// Collects processes event by event.
#[derive(Default)]
pub(super) struct Tree {
    processes: IndexMap<u32, Process>,
    forked: IndexMap<u32, u32>,
    left_out: bool,
}

/// One process, in the order of the tree.
#[derive(Serialize)]
pub(super) struct Row {
    pid: u32,
    depth: usize,
    image: String,
    commands: Vec<String>,
    end: String,
    tone: &'static str,
    threads: usize,
    kinds: Vec<(String, u64)>,
    first: u64,
}

impl Tree {
    /// Takes what every event has: its number, process, thread and parent, program and kind. `false`: there is no room for its
    /// process.
    pub(super) fn met(
        &mut self,
        seq: u64,
        (pid, tid, parent): (u32, u32, u32),
        image: &str,
        kind: &str,
    ) -> bool {
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&pid) {
            self.left_out = true;
            return false;
        }
        let process = self.processes.entry(pid).or_insert_with(|| Process {
            parent,
            first: seq,
            ..Process::default()
        });
        if process.image != image {
            image.clone_into(&mut process.image);
        }
        if process.threads.len() < MAX_PROCESSES {
            process.threads.insert(tid);
        }
        let room = process.kinds.len() < 32;
        match process.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None if room => {
                process.kinds.insert(kind.to_owned(), 1);
            }
            None => {}
        }
        true
    }

    pub(super) fn add(&mut self, event: &Event) {
        let task = &event.task;
        let numbers = (task.pid, task.tid, task.parent);
        if !self.met(event.seq, numbers, &task.image, event.what.kind()) {
            return;
        }
        let Some(process) = self.processes.get_mut(&task.pid) else {
            return;
        };
        let What::Process(what) = &event.what else { return };
        match what.op {
            ProcessOp::Start | ProcessOp::Exec => {
                if let Some(path) = &what.path {
                    process.image.clone_from(path);
                }
                if process.commands.len() < MAX_COMMANDS {
                    process
                        .commands
                        .push(words::cut(&words::command(&what.argv), 500));
                }
            }
            ProcessOp::Fork => {
                if let Some(child) = what.child
                    && self.forked.len() < MAX_PROCESSES
                {
                    self.forked.entry(child).or_insert(task.pid);
                }
            }
            ProcessOp::Traced
            | ProcessOp::Steered
            | ProcessOp::Probed
            | ProcessOp::Timed
            | ProcessOp::Denied => {}
            ProcessOp::Exit => {
                let code = what.code.unwrap_or(0);
                process.end = Some((format!("exit {code}"), if code == 0 { "good" } else { "warn" }));
            }
            ProcessOp::Killed => {
                let signal = what.signal.as_deref().unwrap_or("a signal");
                process.end = Some((format!("killed by {signal}"), "bad"));
            }
        }
    }

    /// The processes, parents before children, each with its depth; and whether some were left out.
    pub(super) fn rows(mut self) -> (Vec<Row>, bool) {
        let threads: BTreeSet<u32> = self
            .processes
            .values()
            .flat_map(|process| &process.threads)
            .copied()
            .collect();
        for (child, parent) in &self.forked {
            // A child that no event speaks of: it never ran, or the stream was cut.
            if !self.processes.contains_key(child)
                && !threads.contains(child)
                && self.processes.len() < MAX_PROCESSES
            {
                let image = self
                    .processes
                    .get(parent)
                    .map(|process| process.image.clone())
                    .unwrap_or_default();
                self.processes.insert(
                    *child,
                    Process {
                        parent: *parent,
                        image,
                        ..Process::default()
                    },
                );
            }
        }
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut stack: Vec<(u32, usize)> = Vec::new();
        for (pid, process) in &self.processes {
            if process.parent != *pid && self.processes.contains_key(&process.parent) {
                children.entry(process.parent).or_default().push(*pid);
            } else {
                stack.push((*pid, 0));
            }
        }
        stack.reverse();
        let mut rows = Vec::new();
        let mut seen = BTreeSet::new();
        // Parents in a circle (only a lying stream has them) have no root: they follow at the end.
        let mut rest: Vec<(u32, usize)> = self.processes.keys().rev().map(|pid| (*pid, 0)).collect();
        while let Some((pid, depth)) = stack.pop().or_else(|| rest.pop()) {
            if !seen.insert(pid) {
                continue;
            }
            let Some(process) = self.processes.get(&pid) else {
                continue;
            };
            rows.push(row(pid, depth, process));
            for child in children.get(&pid).into_iter().flatten().rev() {
                stack.push((*child, depth + 1));
            }
        }
        (rows, self.left_out)
    }
}

fn row(pid: u32, depth: usize, process: &Process) -> Row {
    let (end, tone) = match &process.end {
        Some((end, tone)) => (end.clone(), *tone),
        None => ("still running".to_owned(), "plain"),
    };
    Row {
        pid,
        depth: depth.min(12),
        image: words::cut(&process.image, 200),
        commands: process.commands.clone(),
        end,
        tone,
        threads: process.threads.len(),
        kinds: process
            .kinds
            .iter()
            .map(|(kind, count)| (kind.clone(), *count))
            .collect(),
        first: process.first,
    }
}

#[cfg(test)]
mod tests {
    use hotcell_schema::event::{Signal, Task, Witness};

    use super::*;

    fn event(seq: u64, pid: u32, parent: u32) -> Event {
        Event {
            seq,
            time: seq,
            witness: Witness::Engine,
            task: Task {
                pid,
                tid: pid,
                parent,
                image: "/bin/x".into(),
            },
            what: What::Signal(Signal {
                signal: "SIGTERM".into(),
                to: 1,
            }),
            raw: None,
        }
    }

    fn shape(events: &[Event]) -> Vec<(u32, usize)> {
        let mut tree = Tree::default();
        events.iter().for_each(|event| tree.add(event));
        tree.rows().0.iter().map(|row| (row.pid, row.depth)).collect()
    }

    #[test]
    fn children_follow_their_parents() {
        let events = [
            event(0, 100, 1),
            event(1, 101, 100),
            event(2, 102, 100),
            event(3, 103, 101),
        ];
        assert_eq!(shape(&events), [(100, 0), (101, 1), (103, 2), (102, 1)]);
    }

    #[test]
    fn parents_in_a_circle_are_still_shown_once() {
        let events = [event(0, 7, 8), event(1, 8, 7), event(2, 9, 9)];
        assert_eq!(shape(&events), [(9, 0), (7, 0), (8, 1)]);
    }
}
