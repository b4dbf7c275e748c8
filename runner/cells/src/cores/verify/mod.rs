//! Whether cells are where they should be, and who else is there: looked up in `/proc` twice a second, while they run.
//!
//! A thread of a cell strays when it may run, or runs, on a processor that is not of its turn, or runs while its cell has none.
//! A thread is foreign when it ran on a processor of the pool and is of no cell: kernel threads that are bound to one
//! processor apart. Both are counted. What a host can enforce is [`super::isolation`]'s; the arbiter of a host ends who strays again and again.
//! What a process calls itself is never believed: only the kernel's numbers count. Each look reads a bounded number of
//! threads, and goes on from there the next time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hotcell_schema::cores::CoreSet;
use hotcell_schema::report::CoreChecks;

use super::process::bind_this_thread;
use super::schedule::Nanos;
use super::stat::{self, Stat, Thread};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Time until a thread that seems astray is looked at again: less than a slice.
const AGAIN: Duration = Duration::from_millis(1);
/// Most threads that one look reads, cells apart: a host with more is seen in several.
const MOST_THREADS: usize = 4096;
/// Most threads that one look reads of one cell.
const MOST_OF_CELL: usize = 1024;
/// Most foreign threads that are told apart; with more the count says at least so many.
const MOST_FOREIGN: usize = 65_536;
/// Names that are kept for people.
const MOST_NAMES: usize = 8;

/// A cell's process, and where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Its process id.
    pub pid: i32,
    /// What it should do.
    pub should: Should,
}

/// What a cell should do at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Should {
    /// Run.
    Run {
        /// When its turn began.
        from: Nanos,
        /// The processors that it has.
        on: CoreSet,
    },
    /// Stand still.
    Wait {
        /// Since when: a turn meanwhile is told from none by it.
        since: Nanos,
    },
    /// End: it was told to, and what the kernel does for it then is done where it was.
    End,
}

/// What was found.
#[derive(Debug, Clone, Default)]
struct Found {
    checks: CoreChecks,
    /// Cells that were astray, and in how many looks one after the other.
    astray: BTreeMap<i32, u32>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Verifier {
    found: Arc<Mutex<Found>>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Verifier {
    /// Begins to look. `watched` says where cells should be at the moment; `alone` are the processors on which nothing else
    /// should run; the thread that looks runs on `control`, where it may.
    ///
    /// # Errors
    ///
    /// If no thread can be made, or `/proc` cannot be read.
    pub fn start(
        watched: impl Fn() -> Vec<Watched> + Send + 'static,
        alone: CoreSet,
        control: CoreSet,
    ) -> io::Result<Self> {
        let found = Arc::new(Mutex::new(Found::default()));
        let theirs = Arc::clone(&found);
        let mut look = Look::new(Path::new("/proc"), alone)?;
        let (end, ended) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("verifier".into())
            .spawn(move || {
                // Where it may not be bound it runs anywhere.
                let _ = bind_this_thread(&control);
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    look.look(&watched);
                    *theirs.lock().unwrap_or_else(PoisonError::into_inner) = look.found.clone();
                }
            })?;
        Ok(Self {
            found,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What was found until now.
    pub fn checks(&self) -> CoreChecks {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.checks.clone()
    }

    /// Cells that were astray in one look after the other, by their process ids: no chance, somebody wants it so.
    pub fn strayers(&self) -> Vec<i32> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let often = found.astray.iter().filter(|(_, looks)| **looks > 1);
        often.map(|(pid, _)| *pid).collect()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one look leaves for the next.
#[derive(Debug)]
struct Look {
    proc: PathBuf,
    alone: CoreSet,
    /// Threads that began later, in the kernel's ticks since boot, ran only while we looked.
    began: u64,
    /// CPU time of threads that were last on processors of the pool.
    there: HashMap<Thread, u64>,
    foreign: HashSet<Thread>,
    /// The process after which the next look goes on.
    after: i32,
    found: Found,
}

impl Look {
    fn new(proc: &Path, alone: CoreSet) -> io::Result<Self> {
        let this = stat::read(&proc.join("thread-self/stat"))?;
        let this = this.ok_or_else(|| io::Error::other("/proc/thread-self/stat is not as proc(5) says"))?;
        Ok(Self {
            proc: proc.to_owned(),
            alone,
            began: this.started,
            there: HashMap::new(),
            foreign: HashSet::new(),
            after: 0,
            found: Found::default(),
        })
    }

    fn look(&mut self, watched: &impl Fn() -> Vec<Watched>) {
        let before = watched();
        let mut astray = BTreeMap::new();
        let look = |cell: &&Watched| self.strays(cell);
        let suspects: Vec<&Watched> = before.iter().filter(|cell| !look(cell).is_empty()).collect();
        if !suspects.is_empty() {
            // A thread that is just woken has its old processor for a moment.
            std::thread::sleep(AGAIN);
            let again: Vec<(&Watched, Vec<String>)> = suspects
                .into_iter()
                .map(|cell| (cell, self.strays(cell)))
                .collect();
            // A turn that began or ended meanwhile explains everything.
            let now = watched();
            for (cell, strays) in again {
                if !strays.is_empty() && now.contains(cell) {
                    let checks = &mut self.found.checks;
                    checks.strays = checks.strays.saturating_add(strays.len() as u64);
                    let left = MOST_NAMES.saturating_sub(checks.stray_threads.len());
                    checks.stray_threads.extend(strays.into_iter().take(left));
                    let looks = self.found.astray.get(&cell.pid).copied().unwrap_or_default();
                    astray.insert(cell.pid, looks.saturating_add(1));
                }
            }
        }
        self.found.astray = astray;
        if !self.alone.is_empty() {
            let mut cells: HashSet<i32> = before.iter().map(|cell| cell.pid).collect();
            let found = self.find_foreign(&cells);
            // Who became one meanwhile is none of the others.
            cells.extend(watched().iter().map(|cell| cell.pid));
            for (process, thread, name) in found {
                if !cells.contains(&process) {
                    self.count_foreign(thread, name);
                }
            }
        }
        let looks = &mut self.found.checks.looks;
        *looks = looks.saturating_add(1);
    }

    /// The threads of a cell that are where they should not be, for people.
    fn strays(&self, cell: &Watched) -> Vec<String> {
        let folder = self.proc.join(cell.pid.to_string()).join("task");
        let mut strays = Vec::new();
        for task in stat::numbers(&folder).into_iter().take(MOST_OF_CELL) {
            let task = folder.join(task.to_string());
            let Ok(Some(stat)) = stat::read(&task.join("stat")) else {
                // It has ended.
                continue;
            };
            let (processor, name) = (stat.processor, &stat.name);
            match &cell.should {
                Should::Wait { .. } if stat.runs() => {
                    strays.push(format!("`{name}` ran on processor {processor} without its turn"));
                }
                // A thread that sleeps has its processor yet from before.
                Should::Run { on, .. } if stat.runs() && !on.contains(processor) => {
                    strays.push(format!("`{name}` ran on processor {processor}, and had {on}"));
                }
                Should::Run { on, .. } => {
                    let allowed = stat::allowed(&task).filter(|allowed| !allowed.is_subset(on));
                    let told = |allowed| format!("`{name}` could run on processors {allowed}, and had {on}");
                    strays.extend(allowed.map(told));
                }
                Should::Wait { .. } | Should::End => {}
            }
        }
        strays
    }

    /// Threads that ran in the pool and were not counted yet, with their processes and names.
    fn find_foreign(&mut self, cells: &HashSet<i32>) -> Vec<(i32, Thread, String)> {
        let mut found = Vec::new();
        let mut pids = stat::numbers(&self.proc);
        pids.sort_unstable();
        let from = pids.partition_point(|pid| *pid <= self.after);
        pids.rotate_left(from);
        let mut left = MOST_THREADS;
        for pid in pids {
            if left == 0 {
                break;
            }
            self.after = pid;
            if cells.contains(&pid) {
                continue;
            }
            let process = self.proc.join(pid.to_string());
            left = left.saturating_sub(1);
            let Ok(Some(first)) = stat::read(&process.join("stat")) else {
                continue;
            };
            if first.threads <= 1 {
                found.extend(
                    self.judge(pid, &process, first)
                        .map(|(thread, name)| (pid, thread, name)),
                );
                continue;
            }
            let tasks = process.join("task");
            for thread in stat::numbers(&tasks).into_iter().take(left) {
                left = left.saturating_sub(1);
                let task = tasks.join(thread.to_string());
                if let Ok(Some(stat)) = stat::read(&task.join("stat")) {
                    found.extend(
                        self.judge(thread, &task, stat)
                            .map(|(thread, name)| (pid, thread, name)),
                    );
                }
            }
        }
        // Threads that went elsewhere or ended are not remembered for ever.
        if self.there.len() > MOST_FOREIGN {
            self.there.clear();
        }
        found
    }

    /// A thread and its name, where it has run in the pool and was not counted yet.
    fn judge(&mut self, id: i32, folder: &Path, stat: Stat) -> Option<(Thread, String)> {
        let thread = Thread {
            id,
            started: stat.started,
        };
        if !self.alone.contains(stat.processor) {
            self.there.remove(&thread);
            return None;
        }
        let before = self.there.insert(thread, stat.ticks);
        let ran =
            stat.runs() || stat.started > self.began || before.is_some_and(|before| before != stat.ticks);
        if !ran || self.foreign.contains(&thread) {
            return None;
        }
        // What the kernel keeps for each processor runs where it must.
        if stat.of_kernel() && stat::allowed(folder).is_none_or(|cpus| cpus.len() <= 1) {
            return None;
        }
        Some((thread, stat.name))
    }

    fn count_foreign(&mut self, thread: Thread, name: String) {
        if self.foreign.len() >= MOST_FOREIGN || !self.foreign.insert(thread) {
            return;
        }
        let checks = &mut self.found.checks;
        checks.foreign = checks.foreign.saturating_add(1);
        let names = &mut checks.foreign_names;
        if names.len() < MOST_NAMES && !names.contains(&name) {
            names.push(name);
        }
    }
}

#[cfg(test)]
mod tests;
