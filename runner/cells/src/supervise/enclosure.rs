//! Groups in which the arbiter of a host holds the cells of all users: theirs to be in, root's to change.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cgroup::{Group, Groups};
use super::freezer::Freezer;
use super::owner::{self, HOUSE, POOL};
use crate::cores::locks::Holder;
use crate::cores::process::{Process, Still};
use crate::cores::schedule::Request;

/// Most tasks of one cell: what forks without end does so within. A cell's own walls allow fewer.
const TASKS: u64 = 64;
/// Most tasks of one that makes processes: of the usual limit of a guest's tasks each has a helper, and it has more of them.
const MANY_TASKS: u64 = 512;

/// Where a host's arbiter puts cells.
#[derive(Debug)]
pub struct Enclosures {
    prefix: String,
    groups: Option<Groups>,
    /// On cgroup v1: the pool's cpuset.
    cpuset: Option<PathBuf>,
    /// The groups of cells that are there: not swept away, though a cell may not be in its group yet, or no more.
    owned: Owned,
}

/// The names of groups that somebody owns.
type Owned = Arc<Mutex<BTreeSet<String>>>;

/// The groups of one cell. On drop everything in them ends; then they are removed, by [`Enclosures::sweep`] at the latest.
#[derive(Debug)]
pub struct Enclosure {
    group: Option<Group>,
    name: String,
    owned: Owned,
}

impl Enclosures {
    /// Finds out what can be made here, below the group of the pool on cgroup v2. Also what holds where nothing can be.
    pub(crate) fn find(prefix: &str, pool: Option<(&Path, bool)>) -> (Self, Option<String>) {
        let (groups, cpuset) = match pool {
            Some((path, true)) => (Ok(Groups::Unified(path.to_owned())), None),
            Some((path, false)) => (Groups::candidate(), Some(path.to_owned())),
            None => (Groups::candidate(), None),
        };
        // Whether it works is found by doing it.
        let trial = groups.and_then(|groups| {
            groups.prepare()?;
            let made = groups.make_named(&format!("{prefix}trial"), 1 << 30, TASKS);
            made.map(|_| groups).map_err(|error| error.to_string())
        });
        let mut cpuset = cpuset;
        let (groups, instead) = match trial {
            Ok(groups) => (Some(groups), None),
            Err(why) => {
                // A cell must be in the pool all the same.
                cpuset = pool.map(|(path, _)| path.to_owned());
                let why = format!(
                    "no control groups for cells of users ({why}): their memory is looked at twice a second"
                );
                (None, Some(why))
            }
        };
        let all = Self {
            prefix: prefix.to_owned(),
            groups,
            cpuset,
            owned: Owned::default(),
        };
        (all, instead)
    }

    /// Puts a process into groups of its own, and makes it stand still for that: it must not run in the pool before its first
    /// turn. Memory of no bytes is memory without a bound.
    ///
    /// # Errors
    ///
    /// If the host refuses it, or the process has ended.
    pub fn enter(&self, process: &Process, request: &Request) -> io::Result<Enclosure> {
        if process.stop()? == Still::Ended {
            return Err(io::Error::other("it has ended"));
        }
        let id = process.holder().pid().to_string();
        if let Some(cpuset) = &self.cpuset {
            fs::write(cpuset.join("cgroup.procs"), &id)?;
        }
        let mut enclosure = Enclosure {
            group: None,
            name: owner::of_cell(&self.prefix, process.holder()),
            owned: Arc::clone(&self.owned),
        };
        if let Some(groups) = &self.groups {
            lock(&self.owned).insert(enclosure.name.clone());
            let memory = match request.memory {
                0 => 1 << 50,
                bytes => bytes,
            };
            let tasks = match request.processes {
                true => MANY_TASKS,
                false => TASKS,
            };
            let group = groups.make_named(&enclosure.name, memory, tasks)?;
            group.take_in(&id)?;
            enclosure.group = Some(group);
        }
        // Its number could have become another's while it was written.
        match process.has_ended()? {
            true => Err(io::Error::other("it has ended")),
            false => Ok(enclosure),
        }
    }

    /// Whether other processes than the cell's own are in its group: they have no turns, and run all the same.
    pub fn has_others(&self, cell: Holder) -> bool {
        let name = owner::of_cell(&self.prefix, cell);
        let parent = self.groups.as_ref().and_then(|groups| groups.parents().next());
        let folder = parent.map(|parent| parent.join(name));
        let all = folder.and_then(|folder| Freezer::unified(&folder).processes().ok());
        all.is_some_and(|all| all.len() > 1)
    }

    /// Removes the groups of cells that have ended.
    pub fn sweep(&self) {
        let owned = lock(&self.owned);
        for parent in self.groups.iter().flat_map(Groups::parents) {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let own = name.strip_prefix(&self.prefix);
                if own.is_some_and(|own| ![POOL, HOUSE].contains(&own)) && !owned.contains(&name) {
                    // Refused while something is in it.
                    let _ = fs::remove_dir(Freezer::unified(&entry.path()).within().folder());
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

fn lock(owned: &Owned) -> MutexGuard<'_, BTreeSet<String>> {
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.end_all();
        }
        lock(&self.owned).remove(&self.name);
    }
}

impl Enclosure {
    /// Whether the kernel ended a process of the cell because its memory was up.
    pub fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }
}
