//! `hotcell-monitor`: watches the cells of one run from the host's kernel, for the runner that started it.
//!
//! In: questions of `protocol` on standard input. Out: answers on standard output, events in files that the runner names. It
//! has the rights that eBPF asks for; the runner and the cells need none of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hotcell_kernel::observed::Calls;
use hotcell_monitor::kernel::Kernel;
use hotcell_monitor::protocol::{Answer, Ask, CELLS, Ended, Watch, hear, say};
use hotcell_monitor::record;
use hotcell_monitor::story::Story;
use hotcell_schema::deny::Deny;

/// How long records wait for their reader at most, where they are few; and where somebody acts upon them.
const PATIENCE: Duration = Duration::from_millis(10);
const PATIENCE_LIVE: Duration = Duration::from_millis(1);

/// A cell that is watched.
struct Watched {
    emulated: bool,
    deny: Deny,
    live: bool,
    story: Story,
    out: BufWriter<File>,
    most: u64,
    dropped: u64,
    failed: Option<io::Error>,
}

impl Watched {
    /// Writes what is known, for whoever reads along.
    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn take(&mut self, head: &record::Head, record: &record::Record<'_>) {
        let Self {
            story,
            out,
            most,
            dropped,
            failed,
            ..
        } = self;
        story.take(head, record, &mut |event| {
            if event.seq >= *most {
                *dropped += 1;
            } else if failed.is_none() {
                let written = serde_json::to_writer(&mut *out, event).map_err(io::Error::from);
                *failed = written.and_then(|()| out.write_all(b"\n")).err();
            }
        });
    }
}

/// What the thread that reads the ring shares with the one that answers.
#[derive(Default)]
struct Shared {
    cells: Mutex<BTreeMap<u32, Watched>>,
    /// How often the ring was found empty.
    passes: AtomicU64,
    /// Bytes of records that were taken out of it.
    taken: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    fn cells(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Watched>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Monitor {
    kernel: Arc<Kernel>,
    /// Bytes of its ring.
    ring: u64,
    calls: Calls,
    shared: Arc<Shared>,
}

impl Monitor {
    fn begin(host: &hotcell_schema::arch::ArchProfile, ring: u32) -> Result<Self, String> {
        let told = |error: hotcell_monitor::kernel::KernelError| error.to_string();
        let mut kernel = Kernel::load(ring).map_err(told)?;
        kernel.attach().map_err(told)?;
        let kernel = Arc::new(kernel);
        let shared = Arc::new(Shared::default());
        let (reads, keeps) = (Arc::clone(&kernel), Arc::clone(&shared));
        std::thread::spawn(move || {
            let take = |bytes: &[u8]| {
                keeps.taken.fetch_add(bytes.len() as u64, Ordering::AcqRel);
                if let Some((head, record)) = record::parse(bytes)
                    && let Some(watched) = keeps.cells().get_mut(&head.cell)
                {
                    watched.take(&head, &record);
                }
            };
            let goes_on = || !keeps.over.load(Ordering::Acquire);
            let drained = || {
                keeps.passes.fetch_add(1, Ordering::AcqRel);
                let mut patience = PATIENCE;
                for watched in keeps.cells().values_mut().filter(|watched| watched.live) {
                    watched.flush();
                    patience = PATIENCE_LIVE;
                }
                patience
            };
            let _ = reads.read(take, goes_on, drained);
        });
        Ok(Self {
            kernel,
            ring: ring.into(),
            calls: Calls::new(host),
            shared,
        })
    }

    fn watch(&self, watch: Watch) -> Result<(), String> {
        let Watch {
            cell,
            pid,
            deny,
            sample,
            events,
            most,
            live,
        } = watch;
        let emulated = sample.emulator.is_some();
        if cell >= CELLS || self.shared.cells().contains_key(&cell) {
            return Err(format!("there is no free place {cell} for a cell"));
        }
        let at = |error: io::Error| format!("{}: {error}", events.display());
        let out = File::create_new(&events).map_err(at)?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or("no such process")?;
        let task = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|error| format!("opening process {pid:?}: {error}"))?;
        let told = |error: hotcell_monitor::kernel::KernelError| error.to_string();
        self.kernel.forget(cell).map_err(told)?;
        self.kernel.prepare(cell, emulated, &deny).map_err(told)?;
        self.shared.cells().insert(
            cell,
            Watched {
                emulated,
                deny,
                live,
                story: Story::new(self.calls.clone(), sample),
                out: BufWriter::with_capacity(1 << 18, out),
                most,
                dropped: 0,
                failed: None,
            },
        );
        self.kernel.watch_children(task.as_fd(), cell).map_err(told)
    }

    fn freeze(&self, cell: u32) -> Result<(), String> {
        let cells = self.shared.cells();
        let watched = cells
            .get(&cell)
            .ok_or_else(|| format!("cell {cell} is not watched"))?;
        self.kernel
            .freeze(cell, watched.emulated, &watched.deny)
            .map_err(|error| error.to_string())
    }

    fn end(&self, cell: u32) -> Result<Ended, String> {
        // All tasks of the cell have ended: what they did is in the ring. Once it was found empty after now, or as much was taken out
        // as it holds (others may fill it faster than it is emptied), all was read.
        let now = self.shared.passes.load(Ordering::Acquire);
        let taken = self.shared.taken.load(Ordering::Acquire);
        while self.shared.passes.load(Ordering::Acquire) < now + 2
            && self.shared.taken.load(Ordering::Acquire) < taken + self.ring
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let watched = self.shared.cells().remove(&cell);
        let Some(mut watched) = watched else {
            return Err(format!("cell {cell} is not watched"));
        };
        let counts = self.kernel.counts(cell).map_err(|error| error.to_string())?;
        let flushed = watched.out.flush().err();
        if let Some(error) = watched.failed.or(flushed) {
            return Err(format!("writing events: {error}"));
        }
        let events = watched.story.events();
        Ok(Ended {
            written: events.min(watched.most),
            dropped: watched.dropped,
            lost: counts.lost,
            calls: counts.calls,
            switches: counts.switches,
            mapped: counts.mapped,
            largest: counts.largest,
        })
    }
}

fn answer(monitor: &mut Option<Monitor>, ask: Ask) -> Result<Answer, String> {
    match (ask, &monitor) {
        (Ask::Begin { host, ring }, None) => {
            *monitor = Some(Monitor::begin(&host, ring)?);
            Ok(Answer::Done)
        }
        (Ask::Begin { .. }, Some(_)) => Err("it has begun already".to_owned()),
        (_, None) => Err("it has not begun".to_owned()),
        (Ask::Watch(watch), Some(monitor)) => monitor.watch(*watch).map(|()| Answer::Done),
        (Ask::Freeze { cell }, Some(monitor)) => monitor.freeze(cell).map(|()| Answer::Done),
        (Ask::End { cell }, Some(monitor)) => monitor.end(cell).map(Answer::Ended),
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => {}
        Some(argument) if argument == "--version" || argument == "--identity" => {
            println!("hotcell-monitor {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(argument) if argument == "--probe" => {
            let loaded = Kernel::load(1 << 16).and_then(|mut kernel| kernel.attach());
            return match loaded {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            };
        }
        Some(_) => {
            eprintln!(
                "hotcell-monitor is started by `hotcell`; by hand it only knows --version, --identity and --probe"
            );
            return ExitCode::from(2);
        }
    }
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut monitor = None;
    loop {
        match hear(&mut input) {
            Ok(Some(ask)) => {
                let answer = answer(&mut monitor, ask).unwrap_or_else(Answer::Failed);
                if say(&mut output, &answer).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let _ = say(&mut output, &Answer::Failed(error.to_string()));
                return ExitCode::from(64);
            }
        }
    }
    if let Some(monitor) = monitor {
        monitor.shared.over.store(true, Ordering::Release);
    }
    ExitCode::SUCCESS
}
