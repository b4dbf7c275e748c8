//! Analysers beside a guest: commands with `with.live`.
//!
//! Such a command runs twice. Beside the guest, on its events as the monitor writes them: what it finds then acts, and is not kept. And
//! afterwards as any other command, on the whole list: what it finds then is its result. So a result is the same whether its
//! guest ran just now or came from the store, however slow the analyser was.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hotcell_cells::command::{CommandSpec, Seat};
use hotcell_cells::remote::Remote;
use hotcell_cells::stop::{StopSignal, Urgency};
use hotcell_plan::{Instance, Wire};
use hotcell_schema::command::{CommandWith, LiveWith};
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::{Finding, Findings};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::secret::Values;
use super::{Command, limits, program};
use crate::key::digest_of;
use crate::stages::respond::{Decision, Growing, LOOK, Over, act};
use crate::stages::settings;
use crate::work::{Done, Input, Inputs, Shared};

/// How long an analyser may go on after its guest has ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest line of a finding.
const MAX_LINE: usize = 64 << 10;
/// Events among which is looked for the one that a finding names.
const RECENT: usize = 4096;

/// The analysers beside an instance, in the plan's order.
pub(crate) fn beside<'p>(shared: &Shared<'p>, watched: &Instance) -> Vec<&'p Instance> {
    let plan = shared.plan;
    let is_watched = |wire: &Wire| match wire {
        Wire::Output { instance, port } if port == "events" => plan
            .instances
            .get(*instance)
            .is_some_and(|instance| instance.name == watched.name),
        _ => false,
    };
    let stages = plan.stages.values().filter(|stage| stage.uses == "command");
    let instances = stages.filter_map(|stage| {
        let last = stage.first.checked_add(stage.count)?;
        let instances = plan.instances.get(stage.first..last)?;
        let with: CommandWith = instances.first()?.with.read().ok()?;
        with.live.is_some().then_some(instances)
    });
    instances
        .flatten()
        .filter(|instance| instance.inputs.values().flatten().any(is_watched))
        .collect()
}

/// What a guest's result depends on besides what the guest is given: who may act upon it. `None`: nobody may.
pub(crate) fn identity(shared: &Shared<'_>, watched: &Instance) -> Result<Option<String>, String> {
    let mut all = Vec::new();
    for analyser in beside(shared, watched) {
        let program = shared.options.engines.programs().program(shared.plan, analyser)?;
        let files = analyser.files.as_ref();
        let files = files.and_then(|name| shared.plan.file_sets.get(name));
        let samples: Vec<String> = samples(shared, analyser)
            .into_values()
            .flatten()
            .map(|input| input.digest().to_string())
            .collect();
        all.push((
            program.identity.clone(),
            digest_of(&analyser.with),
            files.map(|files| files.digest.to_string()),
            digest_of(&shared.limits(analyser).asked),
            samples,
        ));
    }
    Ok((!all.is_empty()).then(|| digest_of(&all)))
}

/// What is there of its inputs before the guest starts.
fn samples<'a>(shared: &Shared<'a>, analyser: &Instance) -> Inputs<'a> {
    let sample = |wire: &Wire| match wire {
        Wire::Sample(index) => shared.plan.samples.get(*index).map(Input::Sample),
        _ => None,
    };
    let inputs = analyser.inputs.iter();
    inputs
        .map(|(port, wires)| (port.clone(), wires.iter().filter_map(sample).collect::<Vec<_>>()))
        .filter(|(_, inputs)| !inputs.is_empty())
        .collect()
}

/// Removes the events that an analyser does not read from a file of events. The header stays, and so does what is no event: the
/// analyser meets it as it is.
pub(super) fn keep_those(live: &LiveWith, bytes: &mut Vec<u8>) {
    let mut kept = Vec::with_capacity(bytes.len());
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_read = || serde_json::from_slice::<Event>(line).map_or(true, |event| live.reads(&event.what));
        if number == 0 || is_read() {
            kept.extend_from_slice(line);
        }
    }
    *bytes = kept;
}

/// Findings, one in a line, as a document. The error names the line.
pub(super) fn document(lines: &[u8]) -> Result<Vec<u8>, String> {
    let mut findings: Vec<Finding> = Vec::new();
    for (number, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            let finding = serde_json::from_slice(line);
            findings.push(finding.map_err(|error| {
                format!(
                    "standard output, line {}: it is no finding: {error}; a live analyser writes one in a line, {{\"rule\": …, \"title\": …, \"severity\": …}}",
                    number + 1
                )
            })?);
        }
    }
    serde_json::to_vec_pretty(&Findings::new(findings)).map_err(|error| error.to_string())
}

/// What came of an analyser beside a guest.
#[derive(Debug, Default)]
pub(in crate::stages) struct Heard {
    /// What it decided.
    pub(in crate::stages) decision: Option<Decision>,
    /// Events that it did not take.
    pub(in crate::stages) dropped: u64,
}

/// A guest beside which analysers run.
#[derive(Debug, Clone)]
pub(in crate::stages) struct Watched {
    pub(in crate::stages) header: Header,
    /// The file of its events, which grows.
    pub(in crate::stages) events: PathBuf,
    pub(in crate::stages) keeper: Remote,
}

/// An analyser beside a guest.
pub(in crate::stages) struct Beside<'scope> {
    thread: ScopedJoinHandle<'scope, Heard>,
    over: Over,
}

impl<'scope> Beside<'scope> {
    /// Starts an analyser beside a guest.
    pub(in crate::stages) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared<'env>,
        analyser: &'env Instance,
        watched: Watched,
    ) -> Self {
        let over = Over::default();
        let guest_ended = Arc::clone(&over.0);
        let thread = scope.spawn(move || analyse(shared, analyser, &watched, &guest_ended));
        Self { thread, over }
    }

    /// The guest has ended, and all its events are in the file.
    pub(in crate::stages) fn end(self) -> Heard {
        drop(self.over);
        self.thread.join().unwrap_or_default()
    }
}

/// Who talks with one analyser, shared by those who do.
struct Talk<'a> {
    watched: &'a Watched,
    analyser: &'a Instance,
    live: LiveWith,
    guest_ended: &'a AtomicBool,
    /// The analyser has ended.
    ended: AtomicBool,
    /// Ends it.
    stop: StopSignal,
    /// The events that it was given last.
    recent: Mutex<VecDeque<Event>>,
    decision: Mutex<Option<Decision>>,
}

fn analyse(shared: &Shared<'_>, analyser: &Instance, watched: &Watched, guest_ended: &AtomicBool) -> Heard {
    // What it cannot do is told when its own turn comes: then it fails for the same reason.
    let begin = || {
        let with: CommandWith = settings(analyser).ok()?;
        let live = with.live.clone()?;
        let (from, to) = pipe2(OFlag::O_CLOEXEC).ok()?;
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
        let talk = Talk {
            watched,
            analyser,
            live,
            guest_ended,
            ended: AtomicBool::new(false),
            stop: StopSignal::new().ok()?,
            recent: Mutex::default(),
            decision: Mutex::default(),
        };
        Some((with, talk, from, to))
    };
    let Some((with, talk, from, to)) = begin() else {
        return Heard::default();
    };
    let command = Command {
        shared,
        instance: analyser,
        with: &with,
        limits: limits(shared, analyser),
    };
    let dropped = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| talk.feed(shared, to));
        let listen = |out: File| _ = scope.spawn(|| talk.listen(out));
        if let Err(done) = command.run_beside(&talk.stop, from, listen) {
            shared.note_confinement(
                &[],
                &[format!(
                    "{}: {}",
                    analyser.name,
                    done.error.or(done.reason).unwrap_or_default()
                )],
            );
        }
        talk.ended.store(true, Ordering::Release);
        feeder.join().unwrap_or_default()
    });
    Heard {
        decision: talk.decision.into_inner().unwrap_or_else(PoisonError::into_inner),
        dropped,
    }
}

impl Command<'_, '_> {
    /// Runs an analyser beside its guest, to its end.
    fn run_beside(&self, stop: &StopSignal, stdin: OwnedFd, listen: impl FnOnce(File)) -> Result<(), Done> {
        let commands = self.shared.options.engines.programs().commands(self.shared)?;
        let cannot = |error: hotcell_cells::contract::CellFault| {
            Done::failed("a live analyser cannot run", error.to_string())
        };
        let mut seat = commands.seat(&self.limits).map_err(cannot)?;
        let run = |seat: &mut Seat| {
            let mut secrets = Values::default();
            let inputs = samples(self.shared, self.instance);
            let (path, environment) = self.place(seat, &inputs, &mut secrets)?;
            let spec = CommandSpec {
                program: &path,
                arguments: &program::arguments(self.with),
                environment: &environment,
                stdin: None,
            };
            seat.run_beside(&spec, stop, stdin, listen).map_err(cannot)
        };
        let ran = run(&mut seat);
        let _ = commands.give_back(seat);
        ran.map(|_| ())
    }
}

impl Talk<'_> {
    /// Hands over events until there are no more, then waits for its end. Gives how many were not taken.
    fn feed(&self, shared: &Shared<'_>, to: OwnedFd) -> u64 {
        let mut dropped = 0;
        let mut to = Some(to);
        let fed = self.feed_all(shared, &mut to, &mut dropped);
        // It is told nothing more.
        drop(to);
        let mut patience = Patience::default();
        while !self.ended.load(Ordering::Acquire) {
            if patience.is_over(self.guest_ended) || shared.options.stop.urgency() != Urgency::None {
                self.stop.request();
                self.stop.request();
                break;
            }
            std::thread::sleep(LOOK);
        }
        // A file that cannot be read is told by who reads it for the result.
        let _ = fed;
        dropped
    }

    fn feed_all(&self, shared: &Shared<'_>, to: &mut Option<OwnedFd>, dropped: &mut u64) -> io::Result<()> {
        let mut header = serde_json::to_vec(&self.watched.header)?;
        header.push(b'\n');
        let mut patience = Patience::default();
        let mut write = |to: &mut Option<OwnedFd>, line: &[u8]| {
            let given_up =
                || self.ended.load(Ordering::Acquire) || shared.options.stop.urgency() != Urgency::None;
            let taken = to
                .as_ref()
                .is_some_and(|to| give(to, line, || given_up() || patience.is_over(self.guest_ended)));
            if !taken {
                *to = None;
            }
            taken
        };
        write(to, &header);
        let mut events = Growing::open(&self.watched.events)?;
        loop {
            let is_all = self.guest_ended.load(Ordering::Acquire);
            let Some(line) = events.line()? else {
                if is_all {
                    return Ok(());
                }
                std::thread::sleep(LOOK);
                continue;
            };
            let event: Event = serde_json::from_slice(line)?;
            if !self.live.reads(&event.what) {
                continue;
            }
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.push_back(event);
            if recent.len() > RECENT {
                recent.pop_front();
            }
            drop(recent);
            *dropped += u64::from(!write(to, line));
        }
    }

    /// Reads what it finds, and acts, once.
    fn listen(&self, out: File) {
        let (mut at, mut line) = (0, Vec::new());
        let mut bytes = vec![0; 4096];
        loop {
            let is_all = self.ended.load(Ordering::Acquire);
            let read = match out.read_at(&mut bytes, at) {
                Ok(0) | Err(_) if is_all => return,
                Ok(read) => read,
                Err(_) => 0,
            };
            if read == 0 {
                std::thread::sleep(LOOK);
                continue;
            }
            at += read as u64;
            for byte in bytes.get(..read).unwrap_or_default() {
                match byte {
                    b'\n' => {
                        if self.found(&line) {
                            return;
                        }
                        line.clear();
                    }
                    // What is longer is no finding.
                    byte if line.len() < MAX_LINE => line.push(*byte),
                    _ => {}
                }
            }
        }
    }

    /// A line that it wrote; whether something was done for it.
    fn found(&self, line: &[u8]) -> bool {
        // What is no finding is told when its result is taken.
        let Ok(finding) = serde_json::from_slice::<Finding>(line) else {
            return false;
        };
        if finding.severity < self.live.at
            || !matches!(act(&self.watched.keeper, self.live.respond), Ok(true))
        {
            return false;
        }
        let named = finding.evidence.first().and_then(|evidence| evidence.event);
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let event = recent
            .iter()
            .find(|event| Some(event.seq) == named)
            .or(recent.back());
        let Some(event) = event.cloned() else { return true };
        let decision = Decision {
            rule: format!("{}:{}", self.analyser.stage, finding.rule),
            action: self.live.respond,
            event,
            more: None,
        };
        *self.decision.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
        true
    }
}

/// Until when an analyser is waited for.
#[derive(Debug, Default)]
struct Patience(Option<Instant>);

impl Patience {
    fn is_over(&mut self, guest_ended: &AtomicBool) -> bool {
        if !guest_ended.load(Ordering::Acquire) {
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() > PATIENCE
    }
}

/// Writes all of a line; `false`: nobody takes it any more, or it is given up.
fn give(to: &OwnedFd, line: &[u8], mut given_up: impl FnMut() -> bool) -> bool {
    let mut rest = line;
    while !rest.is_empty() {
        match nix::unistd::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if given_up() {
                    return false;
                }
                let mut ready = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut ready, PollTimeout::from(50_u8));
            }
            Err(_) => return false,
        }
    }
    true
}
