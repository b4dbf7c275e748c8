//! All instances of a run and how they ended: those of the plan, and those that points become while it goes on.
//!
//! An index below the number of the plan's instances is one of these; the others count on from there, in the order in which
//! they came, which is not the same in every run. [`Table::in_order`] is.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use hotcell_plan::{Instance, Item, Plan};
use hotcell_schema::digest::Digest;

use crate::work::Done;

/// The table.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    plan: &'a Plan,
    done: Vec<OnceLock<Done>>,
    added: boxcar::Vec<Added>,
    points: Mutex<HashMap<usize, Children>>,
}

/// An instance that is not in the plan.
#[derive(Debug)]
struct Added {
    instance: Instance,
    done: OnceLock<Done>,
}

/// What a point has become so far.
#[derive(Debug, Default)]
struct Children {
    /// In the order of the items.
    order: Vec<usize>,
    by_item: HashMap<Digest, usize>,
    /// Items that were over the limit: each once, however many levels found it.
    left_out: HashSet<Digest>,
    /// Items that lie deeper than the point may go.
    too_deep: HashSet<Digest>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            done: plan.instances.iter().map(|_| OnceLock::new()).collect(),
            added: boxcar::Vec::new(),
            points: Mutex::default(),
        }
    }

    fn added(&self, index: usize) -> Option<&Added> {
        self.added.get(index.checked_sub(self.done.len())?)
    }

    /// The instance of that index.
    pub(crate) fn instance(&self, index: usize) -> Option<&Instance> {
        let planned = self.plan.instances.get(index);
        planned.or_else(|| self.added(index).map(|added| &added.instance))
    }

    /// How an instance ended, if it did.
    pub(crate) fn of(&self, index: usize) -> Option<&Done> {
        let planned = self.done.get(index);
        planned
            .or_else(|| self.added(index).map(|added| &added.done))?
            .get()
    }

    /// Notes how an instance ended; the first word counts.
    pub(crate) fn set(&self, index: usize, done: Done) {
        let planned = self.done.get(index);
        if let Some(slot) = planned.or_else(|| self.added(index).map(|added| &added.done)) {
            let _ = slot.set(done);
        }
    }

    /// The items that are new to a point, as many as it may have; what is over that is counted.
    pub(crate) fn new_items(&self, point: usize, found: Vec<Item>, max: usize) -> Vec<Item> {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let children = points.entry(point).or_default();
        let mut new: Vec<Item> = Vec::new();
        let mut seen = HashSet::new();
        for item in found {
            if children.by_item.contains_key(&item.digest) || !seen.insert(item.digest) {
                continue;
            }
            if children.order.len() + new.len() < max {
                new.push(item);
            } else {
                children.left_out.insert(item.digest);
            }
        }
        new
    }

    /// Adds what a point has become for an item.
    pub(crate) fn add(&self, point: usize, item: Digest, instance: Instance) -> usize {
        let index = self.done.len()
            + self.added.push(Added {
                instance,
                done: OnceLock::new(),
            });
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let children = points.entry(point).or_default();
        children.order.push(index);
        children.by_item.insert(item, index);
        index
    }

    /// What a point has become, in the order of the items.
    pub(crate) fn children(&self, point: usize) -> Vec<usize> {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points
            .get(&point)
            .map(|children| children.order.clone())
            .unwrap_or_default()
    }

    /// Counts the items that are new to a point and deeper than it may go.
    pub(crate) fn leave_deeper(&self, point: usize, found: Vec<Item>) {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let children = points.entry(point).or_default();
        for item in found {
            let known =
                children.by_item.contains_key(&item.digest) || children.left_out.contains(&item.digest);
            if !known {
                children.too_deep.insert(item.digest);
            }
        }
    }

    /// How many items of a point were left out for lying too deep.
    pub(crate) fn too_deep(&self, point: usize) -> u64 {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points
            .get(&point)
            .map_or(0, |children| children.too_deep.len() as u64)
    }

    /// How many items of a point were left out for being too many.
    pub(crate) fn left_out(&self, point: usize) -> u64 {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points
            .get(&point)
            .map_or(0, |children| children.left_out.len() as u64)
    }

    /// What a point has become for an item.
    pub(crate) fn child(&self, point: usize, item: &Digest) -> Option<usize> {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points.get(&point)?.by_item.get(item).copied()
    }

    /// All instances of a stage but its points, in an order that every run has.
    pub(crate) fn of_stage(&self, stage: &str) -> Vec<usize> {
        match self.plan.stages.get(stage) {
            None => Vec::new(),
            Some(stage) if stage.expansion.is_none() => stage.instances().collect(),
            Some(stage) => stage.instances().flat_map(|point| self.children(point)).collect(),
        }
    }

    /// All instances, in an order that every run has: the plan's, and after each point what it became.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (usize, &Instance)> {
        let planned = self.plan.instances.iter().enumerate();
        planned.flat_map(|(index, instance)| {
            let children = match self.plan.expansion_of(instance) {
                Some(_) => self.children(index),
                None => Vec::new(),
            };
            let children = children
                .into_iter()
                .filter_map(|index| Some((index, self.instance(index)?)));
            std::iter::once((index, instance)).chain(children)
        })
    }
}
