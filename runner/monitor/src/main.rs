//! `hotcell-monitor`: watches the cells of one run from the host's kernel, for the runner that started it.
//!
//! In: questions of `protocol` on standard input. Out: answers on standard output, events in files that the runner names. It
//! has the rights that eBPF asks for; the runner and the cells need none of them.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use hotcell_cells::cores::process::Process;
use hotcell_kernel::observed::Calls;
use hotcell_monitor::desk::Desk;
use hotcell_monitor::kernel::{Kernel, Unread};
use hotcell_monitor::protocol::{Answer, Ask, CELLS, Ended, Watch, hear, say};
use hotcell_monitor::record;
use hotcell_monitor::still::Still;
use hotcell_monitor::story::Story;
use hotcell_monitor::watched::{Cells, Watched};

/// How long records wait for their reader at most, where they are few; and where somebody acts upon them.
const PATIENCE: Duration = Duration::from_millis(10);
const PATIENCE_LIVE: Duration = Duration::from_millis(1);
/// The priority of who reads: guests go on while he waits for a processor. Beside four that flooded and six others, on two processors,
/// records were lost in two of three runs without, and in none with it.
const NICE: i32 = -10;

/// What the thread that reads the ring shares with the one that answers.
#[derive(Default)]
struct Shared {
    cells: Desk<Cells>,
    /// How often the ring was found empty.
    passes: AtomicU64,
    /// Bytes of records that were taken out of it.
    taken: AtomicU64,
    over: AtomicBool,
}

/// What the thread that reads has in its hands.
struct Turn<'s> {
    shared: &'s Shared,
    /// The cells, during a turn.
    cells: Option<MutexGuard<'s, Cells>>,
}

impl Turn<'_> {
    fn take(&mut self, bytes: &[u8]) {
        self.shared.taken.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        let cells = self.cells.get_or_insert_with(|| self.shared.cells.turn());
        if let Some((head, record)) = record::parse(bytes)
            && let Some(watched) = cells.held.get_mut(&head.cell)
        {
            watched.take(&head, &record);
        }
    }

    /// Before a turn and after it: who is to stand still does at once. `drained`: nothing was left; how long to wait then.
    fn end(&mut self, unread: &Unread, drained: bool) -> Duration {
        let cells = self.cells.take();
        let mut cells = cells.unwrap_or_else(|| self.shared.cells.turn());
        let mut patience = PATIENCE;
        for (number, watched) in &mut cells.held {
            watched.keep_up(unread.of(*number), unread.room);
            if watched.is_live() {
                watched.flush();
                patience = PATIENCE_LIVE;
            }
        }
        if drained {
            self.shared.passes.fetch_add(1, Ordering::AcqRel);
        }
        patience
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
            // Of this thread alone (setpriority(2)). Not everybody may.
            let _ = rustix::process::setpriority_process(None, NICE);
            let turn = RefCell::new(Turn {
                shared: &keeps,
                cells: None,
            });
            let _ = reads.read(
                |bytes| turn.borrow_mut().take(bytes),
                |unread| {
                    turn.borrow_mut().end(unread, false);
                    !keeps.over.load(Ordering::Acquire)
                },
                |unread| turn.borrow_mut().end(unread, true),
            );
            drop(turn);
            // Nobody reads any longer: nobody is waited for.
            keeps.over.store(true, Ordering::Release);
            keeps.cells.turn().let_go();
        });
        Ok(Self {
            kernel,
            ring: ring.into(),
            calls: Calls::new(host),
            shared,
        })
    }

    fn watch(&self, watch: Watch) -> Result<u32, String> {
        let Watch {
            pid,
            deny,
            sample,
            events,
            most,
            live,
            more,
        } = watch;
        let told = |error: hotcell_monitor::kernel::KernelError| error.to_string();
        let emulated = sample.emulator.is_some();
        let story = Story::new(self.calls.clone(), sample);
        let opening = |error| format!("opening process {pid}: {error}");
        let keeper = Process::open(pid).map_err(opening)?;
        let task = keeper.pidfd().try_clone_to_owned().map_err(opening)?;
        let watched = Watched::new(story, Still::new(keeper), &events, most, live, more.as_deref())
            .map_err(|error| format!("{}: {error}", events.display()))?;
        let cell = self.shared.cells.ask(|cells| {
            let lives = |cell| self.kernel.counts(cell).is_ok_and(|counts| counts.living != 0);
            let cell = cells.free(lives)?;
            cells.held.insert(cell, watched);
            Some(cell)
        });
        let cell = cell.ok_or_else(|| format!("more than {CELLS} cells are watched at once"))?;
        let begun = self
            .kernel
            .forget(cell)
            .and_then(|()| self.kernel.prepare(cell, emulated, &deny))
            .and_then(|()| self.kernel.watch_children(task.as_fd(), cell));
        if begun.is_err() {
            self.shared.cells.ask(|cells| cells.held.remove(&cell));
        }
        begun.map(|()| cell).map_err(told)
    }

    fn end(&self, cell: u32) -> Result<Ended, String> {
        // All tasks of the cell have ended: what they did is in the ring. It was read when as many records were taken as were told; once the
        // ring was found empty after now; or when as much was taken out as it holds (others may fill it faster than it is emptied).
        let told = |error: hotcell_monitor::kernel::KernelError| error.to_string();
        let now = self.shared.passes.load(Ordering::Acquire);
        let taken = self.shared.taken.load(Ordering::Acquire);
        let counts = self.kernel.counts(cell).map_err(told)?;
        let was_read = |cells: &mut Cells| {
            let watched = cells.held.get(&cell);
            watched.is_none_or(|watched| watched.taken >= counts.told)
        };
        while self.shared.passes.load(Ordering::Acquire) < now + 2
            && self.shared.taken.load(Ordering::Acquire) < taken + self.ring
            && !self.shared.cells.ask(was_read)
            && !self.shared.over.load(Ordering::Acquire)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let watched = self.shared.cells.ask(|cells| cells.held.remove(&cell));
        let watched = watched.ok_or_else(|| format!("cell {cell} is not watched"))?;
        let (dropped, began) = (watched.dropped, watched.began());
        let (written, unjudged, stood) = watched
            .finish()
            .map_err(|error| format!("writing events: {error}"))?;
        Ok(Ended {
            began,
            written,
            dropped,
            unjudged,
            lost: counts.lost,
            stood: stood.times,
            stood_ns: stood.ns,
            calls: counts.calls,
            switches: counts.switches,
            mapped: counts.mapped,
            largest: counts.largest,
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.cells.ask(Cells::let_go);
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
        (Ask::Watch(watch), Some(monitor)) => monitor.watch(*watch).map(Answer::Watched),
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
    ExitCode::SUCCESS
}
