//! Which instance can run next: the plan's graph as counters.
//!
//! Nodes are instances, and one barrier for each stage that something waits for as a whole (`[*]`, `needs`). A barrier
//! keeps fan-in linear: 1,000 instances that feed 1,000 others are 2,000 edges, not a million.

use std::collections::{BTreeSet, HashMap};

use hotcell_plan::{After, Instance, Plan, Wire};

/// Ready and waiting instances.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// How many nodes each node still waits for.
    waits_for: Vec<usize>,
    /// Which nodes wait for a node.
    waiting: Vec<Vec<usize>>,
    /// Instances that can run, in the plan's order.
    ready: BTreeSet<usize>,
    /// Instances that are neither done nor given out.
    left: usize,
    instances: usize,
}

impl Schedule {
    /// The graph of a plan. `Plan` is acyclic, and every instance comes after what it reads.
    pub(crate) fn new(plan: &Plan) -> Self {
        let instances = plan.instances.len();
        let mut schedule = Self {
            waits_for: vec![0; instances],
            waiting: vec![Vec::new(); instances],
            ready: BTreeSet::new(),
            left: instances,
            instances,
        };
        let mut barriers: HashMap<&str, usize> = HashMap::new();
        for (index, instance) in plan.instances.iter().enumerate() {
            for after in dependencies(instance) {
                let before = match after {
                    Dependency::Instance(before) => before,
                    Dependency::Stage(stage) => match barriers.get(stage) {
                        Some(barrier) => *barrier,
                        None => {
                            let barrier = schedule.barrier(plan, stage);
                            barriers.insert(stage, barrier);
                            barrier
                        }
                    },
                };
                schedule.edge(before, index);
            }
        }
        schedule.ready = (0..instances)
            .filter(|index| schedule.waits_for.get(*index) == Some(&0))
            .collect();
        // A stage without instances is a barrier that nothing will ever pass: it is passed at once.
        for barrier in instances..schedule.waits_for.len() {
            if schedule.waits_for.get(barrier) == Some(&0) {
                schedule.pass(barrier);
            }
        }
        schedule
    }

    fn barrier(&mut self, plan: &Plan, stage: &str) -> usize {
        let barrier = self.waits_for.len();
        self.waits_for.push(0);
        self.waiting.push(Vec::new());
        for instance in plan
            .stages
            .get(stage)
            .map(|stage| stage.instances())
            .unwrap_or_default()
        {
            self.edge(instance, barrier);
        }
        barrier
    }

    fn edge(&mut self, before: usize, after: usize) {
        if let (Some(waiting), Some(count)) = (self.waiting.get_mut(before), self.waits_for.get_mut(after)) {
            waiting.push(after);
            *count += 1;
        }
    }

    /// Gives out the first instance that can run.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let index = self.ready.pop_first()?;
        self.left -= 1;
        Some(index)
    }

    /// Gives out everything that has not been given out, whether it can run or not: for a run that ends early.
    pub(crate) fn drain(&mut self) -> Vec<usize> {
        self.ready.clear();
        self.left = 0;
        (0..self.instances).collect()
    }

    /// Whether every instance was given out.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// An instance is done, however it ended: what waited for it may be ready.
    pub(crate) fn done(&mut self, index: usize) {
        self.pass(index);
    }

    fn pass(&mut self, node: usize) {
        let mut passed = vec![node];
        while let Some(node) = passed.pop() {
            for after in self.waiting.get_mut(node).map(std::mem::take).unwrap_or_default() {
                let Some(count) = self.waits_for.get_mut(after) else {
                    continue;
                };
                *count = count.saturating_sub(1);
                if *count == 0 {
                    match after < self.instances {
                        true => _ = self.ready.insert(after),
                        false => passed.push(after),
                    }
                }
            }
        }
    }
}

/// What an instance waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dependency<'a> {
    /// One instance.
    Instance(usize),
    /// All instances of a stage.
    Stage(&'a str),
}

/// Everything an instance waits for, each once.
pub(crate) fn dependencies(instance: &Instance) -> BTreeSet<Dependency<'_>> {
    let wires = instance.inputs.values().flatten().filter_map(|wire| match wire {
        Wire::Sample(_) => None,
        Wire::Output { instance, .. } => Some(Dependency::Instance(*instance)),
        Wire::All { stage, .. } => Some(Dependency::Stage(stage)),
    });
    let needs = instance.needs.iter().map(|after| match after {
        After::Instance(index) => Dependency::Instance(*index),
        After::Stage(stage) => Dependency::Stage(stage),
    });
    let reads = instance
        .when
        .iter()
        .flat_map(|when| when.reads.values())
        .map(|index| Dependency::Instance(*index));
    wires.chain(needs).chain(reads).collect()
}
