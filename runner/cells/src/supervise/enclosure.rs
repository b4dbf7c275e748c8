//! Groups in which the arbiter of a host holds the cells of all users: theirs to be in, root's to change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::cgroup::{Group, Groups};
use super::owner::{self, HOUSE, POOL};
use crate::cores::process::{Process, Still};

/// Most tasks of one cell: what forks without end does so within. A cell's own walls allow fewer.
const TASKS: u64 = 4096;

/// Where a host's arbiter puts cells.
#[derive(Debug)]
pub struct Enclosures {
    prefix: String,
    groups: Option<Groups>,
    /// On cgroup v1: the pool's cpuset.
    cpuset: Option<PathBuf>,
    /// A group that is made and yet empty is not swept away.
    changing: Mutex<()>,
}

/// The groups of one cell: removed on drop where they are empty, else by [`Enclosures::sweep`].
#[derive(Debug)]
pub struct Enclosure(Option<Group>);

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
        let (groups, instead) = match trial {
            Ok(groups) => (Some(groups), None),
            Err(why) => {
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
            changing: Mutex::default(),
        };
        (all, instead)
    }

    /// Puts a process into groups of its own, and makes it stand still for that: it must not run in the pool before its first
    /// turn. `memory` are bytes; 0: without a bound.
    ///
    /// # Errors
    ///
    /// If the host refuses it, or the process has ended.
    pub fn enter(&self, process: &Process, memory: u64) -> io::Result<Enclosure> {
        if process.stop()? == Still::Ended {
            return Err(io::Error::other("it has ended"));
        }
        let id = process.holder().pid().to_string();
        if let Some(cpuset) = &self.cpuset {
            fs::write(cpuset.join("cgroup.procs"), &id)?;
        }
        let Some(groups) = &self.groups else {
            return Ok(Enclosure(None));
        };
        let memory = match memory {
            0 => 1 << 50,
            bytes => bytes,
        };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let name = owner::of_cell(&self.prefix, process.holder());
        let group = groups.make_named(&name, memory, TASKS)?;
        group.take_in(&id)?;
        Ok(Enclosure(Some(group)))
    }

    /// Removes the groups of cells that have ended.
    pub fn sweep(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for parent in self.groups.iter().flat_map(Groups::parents) {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let own = name.strip_prefix(&self.prefix);
                if own.is_some_and(|own| ![POOL, HOUSE].contains(&own)) {
                    // Refused while something is in it.
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

impl Enclosure {
    /// Whether the kernel ended a process of the cell because its memory was up.
    pub fn ran_out_of_memory(&self) -> bool {
        self.0.as_ref().is_some_and(Group::ran_out_of_memory)
    }
}
