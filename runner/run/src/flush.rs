//! What a run writes, onto the disk: about once a second while it goes on, and when it has ended.
//!
//! Nothing is flushed file by file, which would cost more than most stages do. Instead the file systems of the run's folder and
//! of the store are asked to write what they hold, from a thread of its own, while the work goes on. So a power cut costs
//! the last second or two; whatever it tears is noticed when it is read.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// A disk that is busy for so long is left alone for this many times as long: it shall not cost more than a twentieth.
const REST: u32 = 20;

/// Does some work, and flushes meanwhile as long as the journal grows.
pub(crate) fn while_working<T>(journal: &Path, store: &Path, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        // Let go of when the work has ended, by a panic too.
        let (_working, ended) = channel::<()>();
        scope.spawn(move || {
            let mut before = length(journal);
            let mut pause = EVERY;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let now = length(journal);
                if now == before {
                    continue;
                }
                before = now;
                let began = Instant::now();
                flush(&[journal, store]);
                pause = EVERY.max(began.elapsed().saturating_mul(REST));
            }
        });
        work()
    })
}

/// Asks the file systems on which paths stand to write all they hold, each once. One that refuses loses what it would have
/// lost: nothing rests on this.
pub(crate) fn flush(paths: &[&Path]) {
    let mut done = Vec::new();
    for path in paths {
        let Ok(file) = File::open(path) else { continue };
        let Ok(device) = file.metadata().map(|facts| facts.dev()) else {
            continue;
        };
        if !done.contains(&device) {
            done.push(device);
            let _ = nix::unistd::syncfs(&file);
        }
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |facts| facts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_the_work_however_that_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = folder.path().join("journal");
        let began = Instant::now();
        assert_eq!(while_working(&journal, folder.path(), || 7), 7);
        let panicked = std::panic::catch_unwind(|| {
            while_working(&journal, folder.path(), || {
                std::panic::resume_unwind(Box::new("as asked"));
            });
        });
        assert!(panicked.is_err());
        // Neither waited for its second.
        assert!(began.elapsed() < EVERY, "{:?}", began.elapsed());
        flush(&[folder.path(), &journal, Path::new("/nonexistent")]);
    }
}
