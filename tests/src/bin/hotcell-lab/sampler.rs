//! Looks from outside, in `/proc`, where threads run: hundreds of times in a run, and knows nothing of what hotcell says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks: less than a slice.
const EVERY: Duration = Duration::from_millis(7);

/// Who a thread is, by the executable of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A cell whose job has begun: it may run in the pool only.
    Cell,
    /// A cell before its job.
    Young,
    /// `hotcell` or `hotcell-inspect`.
    Serves,
    /// Any other program.
    Other,
}

/// How often each was seen running on each processor.
pub(crate) type Seen = BTreeMap<(Who, u32), u64>;

/// Looks until it is asked. What it finds counts while there are cells whose job has begun: cores are kept apart from before
/// the first of them until after the last.
pub(crate) struct Sampler {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    pub(crate) fn start() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::new();
            let mut before = admitted();
            while !theirs.load(Ordering::Relaxed) {
                let found = look();
                let after = admitted();
                if before && after {
                    for (key, times) in found {
                        *seen.entry(key).or_default() += times;
                    }
                }
                before = after;
                std::thread::sleep(EVERY);
            }
            seen
        });
        Self { end, thread }
    }

    pub(crate) fn end(self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Whether the job of some cell has begun.
fn admitted() -> bool {
    numbers(Path::new("/proc")).into_iter().any(|process| {
        let folder = Path::new("/proc").join(process.to_string());
        fs::read_link(folder.join("exe")).is_ok_and(|exe| exe.ends_with("hotcell-unicorn"))
            && young(&folder) == Some(false)
    })
}

fn look() -> Seen {
    let mut seen = Seen::new();
    let this = std::process::id();
    for process in numbers(Path::new("/proc")) {
        if process == this {
            continue;
        }
        let folder = Path::new("/proc").join(process.to_string());
        // Threads of the kernel have none.
        let Ok(executable) = fs::read_link(folder.join("exe")) else {
            continue;
        };
        let name = executable
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for thread in numbers(&folder.join("task")) {
            let task = folder.join("task").join(thread.to_string());
            let Some((state, processor)) = stat(&task) else {
                continue;
            };
            if state != "R" {
                continue;
            }
            let who = match name.as_str() {
                "hotcell-unicorn" => match young(&task) {
                    Some(true) => Who::Young,
                    Some(false) => Who::Cell,
                    None => continue,
                },
                "hotcell" | "hotcell-inspect" => Who::Serves,
                _ => Who::Other,
            };
            // It may have moved while we looked.
            if stat(&task).is_some_and(|now| now == (state, processor)) {
                *seen.entry((who, processor)).or_default() += 1;
            }
        }
    }
    seen
}

/// State and processor of a thread.
fn stat(task: &Path) -> Option<(String, u32)> {
    let text = fs::read(task.join("stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // proc(5): after the name in brackets comes field 3; the processor is field 39.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(35)?.parse().ok()?))
}

/// Whether it may run on cores 0 and 1 yet.
fn young(task: &Path) -> Option<bool> {
    let text = fs::read_to_string(task.join("status")).ok()?;
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(list.trim().starts_with(['0', '1']))
}

fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
