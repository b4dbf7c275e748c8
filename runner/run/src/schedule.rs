//! What can run next: the plan's graph as counters.
//!
//! Nodes are instances, the end of each point, and one barrier for each stage that something waits for as a whole (`[*]`,
//! `needs`). A barrier keeps fan-in linear: 1,000 instances that feed 1,000 others are 2,000 edges, not a million. A point is
//! a task that says which instances it becomes; its end waits for these, level by level.

use std::collections::{BTreeSet, HashMap};

use hotcell_plan::{After, Instance, Plan, Wire};

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// An instance, by its index.
    Run(usize),
    /// An instance that has begun and was parked.
    Resume(usize),
    /// A point, by its index, and the level of items to look for.
    Expand(usize, u8),
}

/// What happens when a node's turn comes.
#[derive(Debug, Clone, Copy)]
enum Node {
    Task(Task),
    /// Lets those through that wait for it.
    Barrier,
}

/// Ready and waiting tasks.
#[derive(Debug)]
pub(crate) struct Schedule {
    nodes: Vec<Node>,
    /// How many nodes each node still waits for.
    waits_for: Vec<u32>,
    /// Which nodes wait for a node.
    waiting: Vec<Vec<u32>>,
    /// Nodes with a task that can begin, in the plan's order.
    ready: BTreeSet<u32>,
    /// The node of each instance that is not in the plan.
    added: HashMap<usize, u32>,
    /// The end of each point.
    ends: HashMap<usize, u32>,
    /// Tasks that were not given out.
    left: usize,
    /// Points that were given out and have not said what they become.
    expanding: usize,
}

impl Schedule {
    /// The graph of a plan. `Plan` is acyclic, and every instance comes after what it reads.
    /// What is not `chosen` lets everything through: nothing that is waits for it.
    pub(crate) fn new(plan: &Plan, chosen: &dyn Fn(usize) -> bool) -> Self {
        let instances = plan.instances.len();
        let mut schedule = Self {
            nodes: Vec::with_capacity(instances),
            waits_for: Vec::with_capacity(instances),
            waiting: Vec::with_capacity(instances),
            ready: BTreeSet::new(),
            added: HashMap::new(),
            ends: HashMap::new(),
            left: (0..instances).filter(|index| chosen(*index)).count(),
            expanding: 0,
        };
        for (index, instance) in plan.instances.iter().enumerate() {
            schedule.node(match plan.expansion_of(instance) {
                _ if !chosen(index) => Node::Barrier,
                Some(_) => Node::Task(Task::Expand(index, 1)),
                None => Node::Task(Task::Run(index)),
            });
        }
        for (index, instance) in plan.instances.iter().enumerate() {
            if plan.expansion_of(instance).is_some() {
                let end = schedule.node(Node::Barrier);
                schedule.edge(index as u32, end);
                schedule.ends.insert(index, end);
            }
        }
        let mut barriers: HashMap<&str, u32> = HashMap::new();
        for (index, instance) in plan.instances.iter().enumerate() {
            for after in dependencies(instance) {
                let before = match after {
                    Dependency::Instance(before) => schedule.end(before),
                    Dependency::Stage(stage) => match barriers.get(stage) {
                        Some(barrier) => *barrier,
                        None => {
                            let barrier = schedule.barrier(plan, stage);
                            barriers.insert(stage, barrier);
                            barrier
                        }
                    },
                };
                schedule.edge(before, index as u32);
            }
        }
        let free: Vec<u32> = (0..schedule.nodes.len() as u32)
            .filter(|node| schedule.waits_for.get(*node as usize) == Some(&0))
            .collect();
        free.into_iter().for_each(|node| schedule.arrive(node));
        schedule
    }

    fn node(&mut self, node: Node) -> u32 {
        // Bounded by the number of instances, of which there are at most a few millions.
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.waits_for.push(0);
        self.waiting.push(Vec::new());
        index
    }

    /// The node that is passed when an instance, or all that a point becomes, is done.
    fn end(&self, index: usize) -> u32 {
        let end = self.ends.get(&index).or_else(|| self.added.get(&index));
        end.copied().unwrap_or(index as u32)
    }

    fn barrier(&mut self, plan: &Plan, stage: &str) -> u32 {
        let barrier = self.node(Node::Barrier);
        let range = plan
            .stages
            .get(stage)
            .map(|stage| stage.instances())
            .unwrap_or_default();
        for instance in range {
            let end = self.end(instance);
            self.edge(end, barrier);
        }
        barrier
    }

    fn edge(&mut self, before: u32, after: u32) {
        if let (Some(waiting), Some(count)) = (
            self.waiting.get_mut(before as usize),
            self.waits_for.get_mut(after as usize),
        ) {
            waiting.push(after);
            *count += 1;
        }
    }

    /// Gives out the first task that can begin.
    pub(crate) fn take(&mut self) -> Option<Task> {
        let node = self.ready.pop_first()?;
        self.left -= 1;
        match self.nodes.get(node as usize)? {
            Node::Task(task) => {
                self.expanding += usize::from(matches!(task, Task::Expand(..)));
                Some(*task)
            }
            Node::Barrier => None,
        }
    }

    /// An instance that was given out and parked can go on.
    pub(crate) fn again(&mut self, index: usize) {
        let node = self.added.get(&index).copied().unwrap_or(index as u32);
        if let Some(task) = self.nodes.get_mut(node as usize) {
            *task = Node::Task(Task::Resume(index));
            self.left += usize::from(self.ready.insert(node));
        }
    }

    /// Whether every task was given out, and none that is under way can add one.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0 && self.expanding == 0
    }

    /// An instance is done, however it ended: what waited for it may be ready.
    pub(crate) fn done(&mut self, index: usize) {
        let node = self.added.get(&index).copied().unwrap_or(index as u32);
        self.pass(node);
    }

    /// A point has become these instances. When they are done, its next level is looked for, or else its end is reached.
    pub(crate) fn expanded(&mut self, point: usize, level: u8, children: &[usize], deeper: bool) {
        self.expanding = self.expanding.saturating_sub(1);
        let Some(end) = self.ends.get(&point).copied() else {
            return;
        };
        if !children.is_empty() {
            let join = if deeper {
                let next = self.node(Node::Task(Task::Expand(point, level.saturating_add(1))));
                self.left += 1;
                self.edge(next, end);
                next
            } else {
                end
            };
            for child in children {
                let node = self.node(Node::Task(Task::Run(*child)));
                self.left += 1;
                self.added.insert(*child, node);
                self.edge(node, join);
                self.ready.insert(node);
            }
        }
        // The level itself is done.
        match level {
            1 => self.pass(point as u32),
            _ => self.leave(end),
        }
    }

    /// A node waits for one less.
    fn leave(&mut self, node: u32) {
        if let Some(count) = self.waits_for.get_mut(node as usize) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.arrive(node);
            }
        }
    }

    /// Nothing holds a node back any more.
    fn arrive(&mut self, node: u32) {
        match self.nodes.get(node as usize) {
            Some(Node::Task(_)) => _ = self.ready.insert(node),
            Some(Node::Barrier) => self.pass(node),
            None => {}
        }
    }

    fn pass(&mut self, node: u32) {
        let mut passed = vec![node];
        while let Some(node) = passed.pop() {
            for after in self
                .waiting
                .get_mut(node as usize)
                .map(std::mem::take)
                .unwrap_or_default()
            {
                let Some(count) = self.waits_for.get_mut(after as usize) else {
                    continue;
                };
                *count = count.saturating_sub(1);
                if *count == 0 {
                    match self.nodes.get(after as usize) {
                        Some(Node::Task(_)) => _ = self.ready.insert(after),
                        _ => passed.push(after),
                    }
                }
            }
        }
    }
}

/// What an instance waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dependency<'a> {
    /// One instance, or all that a point becomes.
    Instance(usize),
    /// All instances of a stage.
    Stage(&'a str),
}

/// Everything an instance waits for, each once.
pub(crate) fn dependencies(instance: &Instance) -> Vec<Dependency<'_>> {
    let wires = instance.inputs.values().flatten().chain(&instance.expands);
    let wires = wires.filter_map(|wire| match wire {
        Wire::Sample(_) | Wire::Item => None,
        Wire::Output { instance, .. } => Some(Dependency::Instance(*instance)),
        Wire::All { stage, .. } => Some(Dependency::Stage(stage)),
        Wire::Same { point, .. } | Wire::Point { point, .. } => Some(Dependency::Instance(*point)),
    });
    let needs = instance.needs.iter().map(|after| match after {
        After::Instance(index) => Dependency::Instance(*index),
        After::Stage(stage) => Dependency::Stage(stage),
    });
    let when = instance.when.iter().flat_map(|when| when.reads.values());
    let late = instance.late.iter().flat_map(|late| late.reads.values());
    let reads = when.chain(late).map(|index| Dependency::Instance(*index));
    let mut all: Vec<_> = wires.chain(needs).chain(reads).collect();
    all.sort_unstable();
    all.dedup();
    all
}
