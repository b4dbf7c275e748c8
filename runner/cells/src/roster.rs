//! The cells that run in this process now, for those who ask from outside: `hotcell cells`.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::context::{Facts, SavedContext};
use crate::contract::CellFault;
use crate::dump::Core;
use crate::remote::{Answer, Remote, Request};

/// The cells of a run. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<Mutex<BTreeMap<u32, Entry>>>);

#[derive(Debug)]
struct Entry {
    name: String,
    engine: String,
    began: Instant,
    paused: bool,
    remote: Remote,
    /// The context that it shall go on from, in another process.
    next: Option<SavedContext>,
}

/// A cell that runs, for those who look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Running {
    /// Its process id.
    pub process: u32,
    /// The name of its instance.
    pub name: String,
    /// Its engine.
    pub engine: String,
    /// How long it is there, in milliseconds.
    pub age_ms: u64,
    /// Whether a person holds it.
    pub paused: bool,
}

/// A cell's place in the roster: gone when it is dropped.
#[derive(Debug)]
pub struct Listed {
    roster: Roster,
    process: u32,
}

impl Roster {
    /// Lists a cell.
    pub fn enter(&self, process: u32, name: &str, engine: &str, remote: Remote) -> Listed {
        let entry = Entry {
            name: name.to_owned(),
            engine: engine.to_owned(),
            began: Instant::now(),
            paused: false,
            remote,
            next: None,
        };
        self.lock().insert(process, entry);
        Listed {
            roster: self.clone(),
            process,
        }
    }

    /// All cells, by their process ids.
    pub fn cells(&self) -> Vec<Running> {
        let cells = self.lock();
        let cells = cells.iter().map(|(process, entry)| Running {
            process: *process,
            name: entry.name.clone(),
            engine: entry.engine.clone(),
            age_ms: u64::try_from(entry.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            paused: entry.paused,
        });
        cells.collect()
    }

    /// Asks a cell, and waits for its answer.
    ///
    /// # Errors
    ///
    /// If there is no such cell, or it cannot do it.
    pub fn ask(&self, process: u32, request: Request) -> Result<Answer, CellFault> {
        let remote = match self.lock().get(&process) {
            Some(entry) => entry.remote.clone(),
            None => return Err(CellFault::Ended),
        };
        let paused = match &request {
            Request::Pause => Some(true),
            Request::Resume => Some(false),
            _ => None,
        };
        let answer = remote.ask(request)?;
        if let (Some(paused), Some(entry)) = (paused, self.lock().get_mut(&process)) {
            entry.paused = paused;
        }
        Ok(answer)
    }

    /// Keeps the context of a cell, and writes it into a file.
    ///
    /// # Errors
    ///
    /// If there is no such cell, or it cannot do it.
    pub fn save(&self, process: u32, into: File) -> Result<Facts, CellFault> {
        match self.ask(process, Request::SaveContext(Some(into)))? {
            Answer::Saved(Some(facts)) => Ok(*facts),
            _ => Err(CellFault::Ended),
        }
    }

    /// Writes core files of what runs in a cell into a file, one behind the other.
    ///
    /// # Errors
    ///
    /// If there is no such cell, or it cannot do it.
    pub fn dump(&self, process: u32, into: File) -> Result<Vec<Core>, CellFault> {
        match self.ask(process, Request::Dump(into))? {
            Answer::Dumped(cores) => Ok(cores),
            _ => Err(CellFault::Ended),
        }
    }

    /// Ends a cell's process; its job goes on from a saved context, in another one.
    ///
    /// # Errors
    ///
    /// If there is no such cell, or the file is no context of its job; it goes on as it was then.
    pub fn restore(&self, process: u32, from: File) -> Result<(), CellFault> {
        let context = SavedContext::read(from)?;
        self.ask(process, Request::GoOnFrom(Box::new(context.facts().clone())))?;
        match self.lock().get_mut(&process) {
            Some(entry) => entry.next = Some(context),
            None => return Err(CellFault::Ended),
        }
        self.ask(process, Request::ForceStop).map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// The context that the job shall go on from, where somebody ended this cell for that.
    pub fn next(&self) -> Option<SavedContext> {
        self.roster.lock().get_mut(&self.process)?.next.take()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.roster.lock().remove(&self.process);
    }
}
