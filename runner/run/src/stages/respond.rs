//! Rules that act while a guest runs: its events are judged as the monitor writes them, and what was done is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use hotcell_cells::contract::CellFault;
use hotcell_cells::remote::{Remote, Request};
use hotcell_detect::RuleSet;
use hotcell_schema::event::{Event, Header, ProcessOp, What};
use hotcell_schema::finding::Severity;
use hotcell_schema::respond::{Action, Response};
use nix::fcntl::{FallocateFlags, fallocate};

/// How long to wait for more of a file that was read to its end. The monitor is not to know who reads it, and so never waits.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// What is judged, and where.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) rules: Arc<RuleSet>,
    pub(super) at: Severity,
    pub(super) header: Header,
}

/// Where a guest's events are while it runs.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The first ones, which are kept, and how many they are at the most.
    pub(super) events: PathBuf,
    pub(super) most: u64,
    /// All others: a guest that does much is not to be judged by its beginning alone.
    pub(super) more: PathBuf,
}

/// What a rule decided, and was done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// The rule's id.
    pub(super) rule: String,
    pub(super) action: Action,
    /// The event after which the rule held.
    pub(super) event: Event,
    /// Where the events after it begin in [`Files::more`], where it was decided by who reads that.
    pub(super) more: Option<u64>,
}

/// A file of lines that grows while it is read.
pub(super) struct Growing<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    is_whole: bool,
}

impl Growing<File> {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }
}

impl<R: io::Read> Growing<R> {
    fn new(from: R) -> Self {
        Self {
            from: BufReader::with_capacity(1 << 16, from),
            line: Vec::new(),
            is_whole: false,
        }
    }

    /// The next line with its end; `None`: it is not there yet, or not all of it.
    pub(super) fn line(&mut self) -> io::Result<Option<&[u8]>> {
        if std::mem::take(&mut self.is_whole) {
            self.line.clear();
        }
        loop {
            match self.from.read_until(b'\n', &mut self.line) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.is_whole = self.line.last() == Some(&b'\n');
        Ok(self.is_whole.then_some(&self.line))
    }
}

/// A file that grows while it is read, and is not to.
struct More {
    file: File,
    read: u64,
    /// Up to where what was read was given back.
    given_back: u64,
}

/// After so many bytes what was read is given back.
const GIVE_BACK: u64 = 1 << 20;

impl More {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        // For as long as it is open: the guest is not let get further ahead than can be read.
        file.lock_shared()?;
        Ok(Self {
            file,
            read: 0,
            given_back: 0,
        })
    }

    /// Gives back what takes room on the disk and was read. `keeps`: bytes that were read from it and are not used yet. A file system
    /// that cannot is none that the monitor writes more to than it may.
    fn give_back(&mut self, keeps: usize) {
        let until = self.read.saturating_sub(keeps as u64) & !(GIVE_BACK - 1);
        if until > self.given_back {
            let range = (
                self.given_back.cast_signed(),
                (until - self.given_back).cast_signed(),
            );
            let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(&self.file, how, range.0, range.1);
            self.given_back = until;
        }
    }
}

impl io::Read for More {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// The thread that judges.
pub(super) struct Live<'scope> {
    thread: ScopedJoinHandle<'scope, io::Result<Option<Decision>>>,
    over: Over,
}

/// Dropped when the guest has ended, or nothing has come of it.
#[derive(Default)]
pub(super) struct Over(pub(super) Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'scope> Live<'scope> {
    /// Judges what is written into a file from now on.
    pub(super) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        judge: Judge,
        keeper: Remote,
        files: Files,
    ) -> Self {
        let over = Over::default();
        let ends = Arc::clone(&over.0);
        let thread = scope.spawn(move || watch(&judge, &keeper, &files, &ends));
        Self { thread, over }
    }

    /// The guest has ended: what was done to it.
    pub(super) fn end(self) -> io::Result<Option<Decision>> {
        drop(self.over);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("who judges events ended before them")))
    }
}

/// Until a rule that acts holds and has acted, or the guest has ended.
fn watch(judge: &Judge, keeper: &Remote, files: &Files, over: &AtomicBool) -> io::Result<Option<Decision>> {
    let mut first = Growing::open(&files.events)?;
    let mut more = Growing::new(More::open(&files.more)?);
    let mut judged = 0;
    let mut evaluation = judge.rules.start_acting(&judge.header, judge.at);
    while !over.load(Ordering::Acquire) {
        let line = match judged < files.most {
            true => first.line()?,
            false => more.line()?,
        };
        let Some(line) = line else {
            std::thread::sleep(LOOK);
            continue;
        };
        let event: Event = serde_json::from_slice(line)?;
        judged += 1;
        let ahead = more.from.buffer().len();
        more.from.get_mut().give_back(ahead);
        evaluation.event(&event);
        if let Some((rule, action)) = evaluation.acting() {
            // One that has ended by itself meanwhile was not ended by a rule.
            let acted = act(keeper, action)?;
            return Ok(acted.then(|| Decision {
                rule: rule.id.clone(),
                action,
                more: Some(more.from.get_ref().read.saturating_sub(ahead as u64)),
                event,
            }));
        }
    }
    Ok(None)
}

/// Acts upon a guest by its keeper's cell; `false`: it has ended.
pub(super) fn act(keeper: &Remote, action: Action) -> io::Result<bool> {
    let request = match action {
        Action::Kill => Request::Finish,
        Action::Freeze => Request::Freeze,
    };
    match keeper.ask(request) {
        Ok(_) => Ok(true),
        Err(CellFault::Ended) => Ok(false),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What was done about a guest, told by its events: what ended processes in the kernel, and what a rule decided.
#[derive(Debug, Default)]
pub(super) struct Told {
    decision: Option<Decision>,
    /// When the event of the decision was.
    decided: Option<u64>,
    /// Processes that the kernel ends, and which of the responses is about them.
    denied: BTreeMap<u32, (u64, usize)>,
    responses: Vec<Response>,
}

impl Told {
    /// Of a guest of which a rule decided this.
    pub(super) fn new(decision: Option<Decision>) -> Self {
        Self {
            decision,
            ..Self::default()
        }
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event) {
        if let Some((decided, place)) = self.denied.get(&event.task.pid).copied()
            && let Some(response) = self.responses.get_mut(place)
        {
            after(response, decided, event);
            if is_end(event) {
                self.denied.remove(&event.task.pid);
            }
        }
        match (&self.decision, self.decided) {
            (Some(decision), None) if event.seq == decision.event.seq => {
                self.decided = Some(event.time);
                let (rule, action) = (decision.rule.clone(), decision.action);
                self.responses.insert(0, began(rule, action, event));
                // The first is the rule's: those of others moved.
                self.denied.values_mut().for_each(|(_, place)| *place += 1);
            }
            (Some(decision), Some(decided)) => {
                let freezes = decision.action == Action::Freeze;
                if let Some(response) = self.responses.first_mut()
                    // A frozen guest is ended when its time is up, in the calls that it was in.
                    && !(freezes && (is_end(event) || is_unfinished(event)))
                {
                    after(response, decided, event);
                }
            }
            _ => {}
        }
        if let What::Process(what) = &event.what
            && what.op == ProcessOp::Denied
            && self.responses.len() < MOST
        {
            let name = what.denied.map_or("?", |denied| denied.as_str());
            self.denied
                .insert(event.task.pid, (event.time, self.responses.len()));
            self.responses
                .push(began(format!("deny.{name}"), Action::Kill, event));
        }
    }

    /// All of it, in the order of the events that decided.
    pub(super) fn finish(mut self) -> Vec<Response> {
        self.responses.sort_by_key(|response| response.event);
        self.responses
    }
}

/// Most responses of one guest that are told.
const MOST: usize = 1000;

fn began(rule: String, action: Action, event: &Event) -> Response {
    Response {
        rule,
        action,
        event: event.seq,
        latency: 0,
        calls_after: 0,
    }
}

fn is_end(event: &Event) -> bool {
    matches!(&event.what, What::Process(what) if matches!(what.op, ProcessOp::Exit | ProcessOp::Killed))
}

/// Whether it tells of a call that did not come back.
fn is_unfinished(event: &Event) -> bool {
    matches!(&event.what, What::Syscall(call) if call.result.is_none() && call.errno.is_none())
}

/// What an event adds that came after the one that decided.
fn after(response: &mut Response, decided: u64, event: &Event) {
    let counts = match &event.what {
        What::Syscall(_) => {
            response.calls_after += 1;
            true
        }
        _ => is_end(event),
    };
    if counts {
        response.latency = event.time.saturating_sub(decided);
    }
}
