//! Whether cells are where they should be, and who else is there: looked up in `/proc` twice a second, while they run.
//!
//! A thread of a cell strays when it may run, or runs, on a processor that is not of its turn, or runs while its cell has none.
//! A thread is foreign when it ran on a processor of the pool and is of no cell: kernel threads that are bound to one
//! processor apart. Both are counted, and nothing more is done: what a host can enforce is [`super::isolation`]'s.
//! What a process calls itself is never believed: only the kernel's numbers count. Each look reads a bounded number of
//! threads, and goes on from there the next time.

mod stat;

use std::collections::{HashMap, HashSet};
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
use stat::{Stat, Thread};

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
    /// When its turn began, and the processors that it has then; absent: it stands still.
    pub turn: Option<(Nanos, CoreSet)>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Verifier {
    checks: Arc<Mutex<CoreChecks>>,
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
        let checks = Arc::new(Mutex::new(CoreChecks::default()));
        let theirs = Arc::clone(&checks);
        let mut look = Look::new(Path::new("/proc"), alone)?;
        let (end, ended) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("verifier".into())
            .spawn(move || {
                // Where it may not be bound it runs anywhere.
                let _ = bind_this_thread(&control);
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    look.look(&watched);
                    *theirs.lock().unwrap_or_else(PoisonError::into_inner) = look.checks.clone();
                }
            })?;
        Ok(Self {
            checks,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What was found until now.
    pub fn checks(&self) -> CoreChecks {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    checks: CoreChecks,
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
            checks: CoreChecks::default(),
        })
    }

    fn look(&mut self, watched: &impl Fn() -> Vec<Watched>) {
        let before = watched();
        let suspects: Vec<(&Watched, u64)> = before
            .iter()
            .map(|cell| (cell, self.strays(cell)))
            .filter(|(_, strays)| *strays > 0)
            .collect();
        if !suspects.is_empty() {
            // A thread that is just woken has its old processor for a moment.
            std::thread::sleep(AGAIN);
            let again: Vec<(&Watched, u64)> = suspects
                .iter()
                .map(|(cell, strays)| (*cell, self.strays(cell).min(*strays)))
                .collect();
            // A turn that began or ended meanwhile explains everything.
            let now = watched();
            let strays = again.iter().filter(|(cell, _)| now.contains(cell));
            let strays: u64 = strays.map(|(_, strays)| *strays).sum();
            self.checks.strays = self.checks.strays.saturating_add(strays);
        }
        if !self.alone.is_empty() {
            let cells: HashSet<i32> = before.iter().map(|cell| cell.pid).collect();
            self.count_foreign(&cells);
        }
        self.checks.looks = self.checks.looks.saturating_add(1);
    }

    /// How many threads of a cell are where they should not be.
    fn strays(&self, cell: &Watched) -> u64 {
        let folder = self.proc.join(cell.pid.to_string()).join("task");
        let mut strays = 0u64;
        for task in stat::numbers(&folder).into_iter().take(MOST_OF_CELL) {
            let task = folder.join(task.to_string());
            let Ok(Some(stat)) = stat::read(&task.join("stat")) else {
                // It has ended.
                continue;
            };
            let astray = match &cell.turn {
                None => stat.runs(),
                // A thread that sleeps has its processor yet from before.
                Some((_, cpus)) => {
                    stat.runs() && !cpus.contains(stat.processor)
                        || stat::allowed(&task).is_some_and(|allowed| !allowed.is_subset(cpus))
                }
            };
            strays = strays.saturating_add(u64::from(astray));
        }
        strays
    }

    fn count_foreign(&mut self, cells: &HashSet<i32>) {
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
                self.judge(pid, &process, &first);
                continue;
            }
            let tasks = process.join("task");
            for thread in stat::numbers(&tasks).into_iter().take(left) {
                left = left.saturating_sub(1);
                let task = tasks.join(thread.to_string());
                if let Ok(Some(stat)) = stat::read(&task.join("stat")) {
                    self.judge(thread, &task, &stat);
                }
            }
        }
        // Threads that went elsewhere or ended are not remembered for ever.
        if self.there.len() > MOST_FOREIGN {
            self.there.clear();
        }
    }

    /// Whether a thread has run in the pool.
    fn judge(&mut self, id: i32, folder: &Path, stat: &Stat) {
        let thread = Thread {
            id,
            started: stat.started,
        };
        if !self.alone.contains(stat.processor) {
            self.there.remove(&thread);
            return;
        }
        let before = self.there.insert(thread, stat.ticks);
        let ran =
            stat.runs() || stat.started > self.began || before.is_some_and(|before| before != stat.ticks);
        if !ran || self.foreign.contains(&thread) {
            return;
        }
        // What the kernel keeps for each processor runs where it must.
        if stat.of_kernel() && stat::allowed(folder).is_none_or(|cpus| cpus.len() <= 1) {
            return;
        }
        if self.foreign.len() >= MOST_FOREIGN {
            return;
        }
        self.foreign.insert(thread);
        self.checks.foreign = self.checks.foreign.saturating_add(1);
        let names = &mut self.checks.foreign_names;
        if names.len() < MOST_NAMES && !names.contains(&stat.name) {
            names.push(stat.name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
