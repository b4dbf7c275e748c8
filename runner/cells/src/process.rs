//! A cell that is a process speaking the wire protocol: the [`Cell`] of `hotcell-unicorn` and `hotcell-inspect`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotcell_schema::job::{Job, JobResult};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::contract::{Cell, CellFault, Limit, Operation, Usage};
use crate::cores::Seat;
use crate::cores::arbiter::{AdmitError, Arbiter, Place};
use crate::cores::process::Process;
use crate::cores::schedule::Request;
use crate::intake::{Bounds, Intake, IntakeError, Said, Sink};
use crate::protocol::{PROTOCOL, ProtocolError, ToCell, write_message};
use crate::stop::{StopSignal, Urgency};
use crate::supervise::{Child, Executable, Exit, HostLimits, Sandbox, SealedBlob, spawn};

/// How long a cell may take to end after it was asked to stop.
const GRACE: Duration = Duration::from_secs(2);
/// How long a cell may take to exit by itself after its result came.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// How much of a cell's error output is kept: the last bytes.
const ERROR_TAIL: usize = 8 << 10;
/// How long a cell may take until it is ready.
const GREETING: Duration = Duration::from_secs(60);

/// What is needed to make a cell.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The cell's executable.
    pub executable: &'a Executable,
    /// Blobs in the order of their indices in the job.
    pub blobs: &'a [&'a SealedBlob],
    /// Limits of the host.
    pub limits: HostLimits,
    /// Bounds on what it may say.
    pub bounds: Bounds,
    /// What this host lets us put around it.
    pub sandbox: &'a Sandbox,
    /// The stop request it obeys.
    pub stop: &'a StopSignal,
    /// Where it runs; absent: where and when the kernel lets it.
    pub cores: Option<Seat<'a>>,
}

/// Why a cell was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Its wall time was up.
    WallTime,
    /// Its CPU time was up.
    CpuTime,
    /// It ran out of the memory that the host gave it.
    Memory,
    /// It failed after it had met the limit of processes and threads.
    Tasks,
    /// It failed after it had filled the room for what it writes.
    Room,
    /// A person asked to stop.
    Stopped,
    /// Something outside of the runner ended it.
    Killed,
}

impl std::fmt::Display for Interruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WallTime => "the limit of wall time was met",
            Self::CpuTime => "the host's limit of CPU time was met",
            Self::Memory => "the host's limit of memory was met",
            Self::Tasks => "the limit of processes and threads was met",
            Self::Room => "the room for files was full",
            Self::Stopped => "stopped on request",
            Self::Killed => "something on the host ended the cell",
        })
    }
}

/// How a cell ended.
#[derive(Debug)]
pub enum Ending {
    /// It did its job.
    Done(Box<JobResult>),
    /// The host or a person ended it.
    Interrupted(Interruption),
    /// It crashed, gave up, or broke the protocol; holds why.
    Failed(String),
    /// What it said could not be kept: the fault is the host's.
    Host(io::Error),
}

/// A cell in a process of its own.
#[derive(Debug)]
pub struct ProcessCell {
    intake: Intake<Channel>,
    engine: String,
    identity: String,
    layers: Vec<String>,
    fallbacks: Vec<String>,
    wall: Duration,
    cpu_s: u64,
    started: Instant,
    cores: Option<(Arc<Arbiter>, Request)>,
}

impl ProcessCell {
    /// Makes the process and waits until it has confined itself and is ready for its job.
    pub fn spawn(spec: &Spec<'_>) -> Result<Self, CellFault> {
        let child = spawn(spec.executable, spec.blobs, &spec.limits, spec.sandbox).map_err(|source| {
            CellFault::Host {
                doing: "making a cell process",
                source,
            }
        })?;
        let started = Instant::now();
        let wall = Duration::from_millis(spec.limits.wall_ms);
        let channel = Channel {
            child,
            stop: spec.stop.clone(),
            ready: false,
            told_to_stop: false,
            stop_owed: false,
            deadline: started.checked_add(wall.min(GREETING)),
            interruption: None,
            errors: VecDeque::new(),
            errors_open: true,
            place: None,
            granted: Duration::ZERO,
        };
        let mut cell = Self {
            intake: Intake::new(channel, spec.bounds),
            engine: String::new(),
            identity: String::new(),
            layers: spec.sandbox.layers.clone(),
            fallbacks: spec.sandbox.fallbacks.clone(),
            wall,
            cpu_s: spec.limits.cpu_s,
            started,
            cores: match spec.cores {
                Some(Seat::Turns(arbiter, request)) => Some((Arc::clone(arbiter), request)),
                Some(Seat::Bound(_)) | None => None,
            },
        };
        if let Some(Seat::Bound(cpus)) = spec.cores {
            let id = cell.intake.get_ref().child.id();
            let bound = Process::open(id).and_then(|mut process| process.bind(cpus));
            bound.map_err(|source| CellFault::Host {
                doing: "binding a cell to its core",
                source,
            })?;
        }
        match cell.greet() {
            Ok(()) => Ok(cell),
            Err(error) => Err(match cell.after_error(error) {
                Ending::Interrupted(why) => CellFault::Interrupted(why),
                Ending::Host(source) => CellFault::Host {
                    doing: "greeting a cell",
                    source,
                },
                Ending::Failed(why) => CellFault::Failed(why),
                Ending::Done(_) => CellFault::Ended,
            }),
        }
    }

    fn greet(&mut self) -> Result<(), IntakeError> {
        self.send(&ToCell::Hello { protocol: PROTOCOL })?;
        match self.intake.take(&mut Nothing)? {
            Said::Ready {
                engine,
                identity,
                confinement,
            } => {
                self.engine = engine;
                self.identity = identity;
                // What the cell says of its walls is checked against what the kernel says.
                match self.intake.get_ref().child.is_confined() {
                    Some(true) => {}
                    Some(false) => {
                        return Err(
                            ProtocolError::Order("ready, but the kernel says it is not confined").into(),
                        );
                    }
                    None => self.fallbacks.push(
                        "/proc does not show whether cells are confined: they are taken at their word".into(),
                    ),
                }
                if !confinement.iter().any(|layer| layer.starts_with("landlock")) {
                    self.fallbacks
                        .push("no Landlock on this host: seccomp and namespaces hold instead".into());
                }
                self.layers.extend(confinement);
                self.intake.get_mut().ready = true;
                Ok(())
            }
            Said::Failed(reason) => Err(IntakeError::Sink(io::Error::other(GaveUp(reason)))),
            _ => Err(ProtocolError::Order("a message before Ready").into()),
        }
    }

    /// The engine, as the cell says.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The engine's identity, as the cell says.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Layers of confinement that hold.
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Layers that this host does not allow, and what holds instead.
    pub fn fallbacks(&self) -> &[String] {
        &self.fallbacks
    }

    /// Starts the job and takes in everything until the cell ends.
    pub fn run(&mut self, job: &Job, sink: &mut dyn Sink) -> Ending {
        if let Err(fault) = self.start(job) {
            return match fault {
                CellFault::Protocol(error) => self.after_error(error.into()),
                other => Ending::Failed(other.to_string()),
            };
        }
        loop {
            match self.intake.take(sink) {
                Ok(Said::Done(result)) => {
                    let channel = self.intake.get_mut();
                    channel.child.usage();
                    return match channel.interruption {
                        // What a stopped cell could still say is not the whole of what its sample does.
                        Some(_) => self.interrupted(),
                        None if channel.told_to_stop => {
                            channel.interruption = Some(Interruption::Stopped);
                            self.interrupted()
                        }
                        None => {
                            channel.dismiss();
                            Ending::Done(result)
                        }
                    };
                }
                Ok(Said::Failed(reason)) => {
                    let channel = self.intake.get_mut();
                    channel.child.usage();
                    if channel.told_to_stop {
                        channel.interruption = Some(Interruption::Stopped);
                        return self.interrupted();
                    }
                    channel.dismiss();
                    return Ending::Failed(reason);
                }
                Ok(Said::Ready { .. }) => {
                    return self.after_error(ProtocolError::Order("Ready twice").into());
                }
                Ok(Said::Did(_) | Said::Unsupported(..)) => {}
                Err(error) => return self.after_error(error),
            }
        }
    }

    /// Ends the process, if it has not ended, and tells what it used.
    pub fn finish(mut self) -> Usage {
        let child = &mut self.intake.get_mut().child;
        child.kill();
        let _ = child.wait();
        child.usage()
    }

    fn interrupted(&mut self) -> Ending {
        let channel = self.intake.get_mut();
        channel.child.usage();
        channel.child.kill();
        let _ = channel.child.wait();
        Ending::Interrupted(channel.interruption.unwrap_or(Interruption::Killed))
    }

    /// Puts an error on the stream and the end of the process together into one story.
    fn after_error(&mut self, error: IntakeError) -> Ending {
        let channel = self.intake.get_mut();
        channel.child.usage();
        if channel.told_to_stop && matches!(error, IntakeError::Protocol(_)) {
            channel.interruption.get_or_insert(Interruption::Stopped);
        }
        if channel.interruption.is_some() {
            return self.interrupted();
        }
        let error = match error {
            IntakeError::Sink(source) => {
                channel.child.kill();
                let _ = channel.child.wait();
                return match source.downcast::<GaveUp>() {
                    Ok(GaveUp(reason)) => Ending::Failed(reason),
                    Err(source) => Ending::Host(source),
                };
            }
            IntakeError::Protocol(error) => error,
        };
        let gone = matches!(error, ProtocolError::Ended)
            || matches!(&error, ProtocolError::Io(source) if matches!(
                source.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
        if gone {
            // It closed its socket: by dying, or by mistake. A dying process needs a moment.
            channel.release();
        } else {
            channel.child.kill();
        }
        let exit = channel.child.wait();
        channel.drain_errors();
        let errors = channel.error_text();
        let used = channel.child.usage();
        if !gone {
            return Ending::Failed(format!("the cell broke the protocol: {error}"));
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => {
                return Ending::Failed(format!("the cell ended, and the host cannot tell how: {error}"));
            }
        };
        // Who gives cores had to end it, and knows why.
        if let Some(why) = channel.place.as_ref().and_then(Place::fault) {
            return Ending::Failed(format!("the cell was ended: {why}"));
        }
        match exit {
            Exit::Signal(libc::SIGXCPU) => Ending::Interrupted(Interruption::CpuTime),
            // The kernel ends a process above its hard CPU limit, and one that takes the host's last memory, like this.
            Exit::Signal(libc::SIGKILL) if channel.child.ran_out_of_memory() => {
                Ending::Interrupted(Interruption::Memory)
            }
            Exit::Signal(libc::SIGKILL) if used.cpu_s + 1.0 >= self.cpu_s as f64 => {
                Ending::Interrupted(Interruption::CpuTime)
            }
            Exit::Signal(libc::SIGKILL) => Ending::Interrupted(Interruption::Killed),
            Exit::Signal(_) if errors.contains("memory allocation of ") => {
                Ending::Interrupted(Interruption::Memory)
            }
            exit => {
                let said = match errors.trim() {
                    "" => String::new(),
                    text => format!("; it said: {text}"),
                };
                Ending::Failed(format!("the cell ended without a result: {exit}{said}"))
            }
        }
    }

    fn send(&mut self, message: &ToCell) -> Result<(), ProtocolError> {
        write_message(self.intake.get_mut(), message)
    }

    fn ask(&mut self, message: &ToCell) -> Result<(), CellFault> {
        let operation = message.operation().unwrap_or(Operation::Start);
        self.send(message)?;
        match self.intake.take(&mut Nothing) {
            Ok(Said::Did(did)) if did == operation => Ok(()),
            Ok(Said::Unsupported(engine, operation)) => Err(CellFault::Unsupported { engine, operation }),
            Ok(Said::Failed(reason)) => Err(CellFault::Failed(reason)),
            Ok(_) => Err(ProtocolError::Order("an answer to another question").into()),
            Err(IntakeError::Protocol(error)) => Err(error.into()),
            Err(IntakeError::Sink(source)) => Err(CellFault::Host {
                doing: "waiting for a cell",
                source,
            }),
        }
    }
}

impl Cell for ProcessCell {
    fn start(&mut self, job: &Job) -> Result<(), CellFault> {
        let channel = self.intake.get_mut();
        channel.deadline = self.started.checked_add(self.wall);
        if let Some((arbiter, request)) = self.cores.take() {
            channel.child.enter_pool().map_err(|source| CellFault::Host {
                doing: "moving a cell into the pool's control group",
                source,
            })?;
            let place = arbiter.admit(request, channel.child.id());
            channel.place = Some(place.map_err(|error| match error {
                AdmitError::Host { doing, source } => CellFault::Host { doing, source },
                refused => CellFault::Failed(refused.to_string()),
            })?);
        }
        Ok(self.send(&ToCell::Start {
            job: Box::new(job.clone()),
        })?)
    }

    fn pause(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::Pause)
    }

    fn resume(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::Resume)
    }

    fn stop(&mut self) -> Result<(), CellFault> {
        Ok(self.send(&ToCell::Stop)?)
    }

    fn force_stop(&mut self) -> Result<(), CellFault> {
        let child = &mut self.intake.get_mut().child;
        child.usage();
        child.kill();
        child.wait().map(|_| ()).map_err(|source| CellFault::Host {
            doing: "waiting for a killed cell",
            source,
        })
    }

    fn save_context(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::SaveContext)
    }

    fn load_context(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::LoadContext)
    }

    fn run_one_instruction(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::RunOneInstruction)
    }

    fn run_one_slice(&mut self) -> Result<(), CellFault> {
        self.ask(&ToCell::RunOneSlice)
    }

    fn usage(&mut self) -> Result<Usage, CellFault> {
        Ok(self.intake.get_mut().child.usage())
    }

    fn set_limit(&mut self, limit: Limit) -> Result<(), CellFault> {
        let channel = self.intake.get_mut();
        let changed = match limit {
            Limit::WallMillis(wall) => {
                self.wall = Duration::from_millis(wall);
                channel.deadline = self.started.checked_add(self.wall);
                Ok(())
            }
            Limit::CpuSeconds(most) => {
                self.cpu_s = most;
                channel.child.limit(libc::RLIMIT_CPU, most)
            }
            Limit::AddressSpace(most) => channel.child.limit(libc::RLIMIT_AS, most),
            Limit::Memory(most) => channel.child.limit_memory(most),
        };
        changed.map_err(|source| CellFault::Host {
            doing: "changing a limit of a cell",
            source,
        })
    }
}

/// A cell that gave up before its job.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct GaveUp(String);

/// A sink for a cell that has no job yet: takes nothing.
struct Nothing;

impl Sink for Nothing {
    fn events(&mut self, _: Vec<hotcell_schema::event::Event>) -> io::Result<()> {
        Err(io::Error::other(GaveUp("events before the job".into())))
    }
    fn output_begins(&mut self, _: &str, _: &str, _: u64) -> io::Result<()> {
        Err(io::Error::other(GaveUp("an output before the job".into())))
    }
    fn output_bytes(&mut self, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other(GaveUp("an output before the job".into())))
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Err(io::Error::other(GaveUp("an output before the job".into())))
    }
}

/// The control socket, watched together with the deadline, the stop request and the error output.
#[derive(Debug)]
struct Channel {
    child: Child,
    stop: StopSignal,
    /// Whether the cell has said that it is ready. Before, a stop request ends it at once.
    ready: bool,
    told_to_stop: bool,
    /// Whether the cell must still be told to stop: never within another message.
    stop_owed: bool,
    deadline: Option<Instant>,
    interruption: Option<Interruption>,
    errors: VecDeque<u8>,
    errors_open: bool,
    /// Its claim on cores, once it has begun where somebody gives them.
    place: Option<Place>,
    /// Time of waiting for cores that was added to the deadline.
    granted: Duration,
}

impl Channel {
    /// What stands against going on right now.
    fn check(&mut self) -> io::Result<()> {
        match self.stop.urgency() {
            Urgency::None => {}
            Urgency::Soon if self.told_to_stop => {}
            Urgency::Soon if !self.ready => return Err(self.interrupt(Interruption::Stopped)),
            Urgency::Soon => {
                self.told_to_stop = true;
                self.stop_owed = true;
                let soon = Instant::now().checked_add(GRACE);
                self.deadline = match (self.deadline, soon) {
                    (Some(deadline), Some(soon)) => Some(deadline.min(soon)),
                    (deadline, soon) => deadline.or(soon),
                };
            }
            Urgency::Now => return Err(self.interrupt(Interruption::Stopped)),
        }
        self.grant_waiting();
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(self.interrupt(match self.told_to_stop {
                true => Interruption::Stopped,
                false => Interruption::WallTime,
            })),
            _ => Ok(()),
        }
    }

    /// Wall time in which the cell stood still because it was not its turn is not its own.
    fn grant_waiting(&mut self) {
        if let (Some(deadline), Some(place), false) = (self.deadline, &self.place, self.told_to_stop)
            && Instant::now() >= deadline
        {
            let waited = place.waited();
            let more = waited.saturating_sub(self.granted);
            self.granted = waited;
            self.deadline = deadline.checked_add(more);
        }
    }

    /// Tells the cell to stop, where that is owed. Small enough for an empty socket buffer; if it is full, the deadline holds.
    fn pass_stop_on(&mut self) {
        let mut frame = Vec::new();
        if std::mem::take(&mut self.stop_owed) && write_message(&mut frame, &ToCell::Stop).is_ok() {
            let _ = (&self.child.socket).write(&frame);
        }
    }

    fn interrupt(&mut self, why: Interruption) -> io::Error {
        self.interruption = Some(why);
        io::Error::from(io::ErrorKind::TimedOut)
    }

    /// Waits until the socket is ready for `wanted`, or something else is to be done.
    fn wait(&mut self, wanted: PollFlags) -> io::Result<()> {
        self.check()?;
        let left = match self.deadline {
            // One more, so that the deadline has passed when the time is up.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()).as_millis();
                PollTimeout::try_from(left.saturating_add(1)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut watched = vec![
            PollFd::new(self.child.socket.as_fd(), wanted),
            PollFd::new(self.stop.now(), PollFlags::POLLIN),
        ];
        if !self.told_to_stop {
            watched.push(PollFd::new(self.stop.soon(), PollFlags::POLLIN));
        }
        if self.errors_open {
            watched.push(PollFd::new(self.child.errors.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.drain_errors();
        self.check()
    }

    /// Keeps the tail of the error output.
    fn drain_errors(&mut self) {
        let mut chunk = [0; 4096];
        // A bounded number of reads, so that a cell that floods its error output does not hold us here.
        for _ in 0..16 {
            if !self.errors_open {
                return;
            }
            match self.child.errors.read(&mut chunk) {
                Ok(0) => self.errors_open = false,
                Ok(read) => {
                    self.errors.extend(chunk.iter().take(read));
                    let excess = self.errors.len().saturating_sub(ERROR_TAIL);
                    self.errors.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.errors_open = false,
            }
        }
    }

    fn error_text(&self) -> String {
        let bytes: Vec<u8> = self.errors.iter().copied().collect();
        hotcell_schema::guest::text(&bytes)
    }

    /// Ends the cell after it said its last word. One that takes turns is not given another only to exit.
    fn dismiss(&mut self) {
        match self.place {
            Some(_) => self.child.kill(),
            None => self.release(),
        }
    }

    /// Lets go of the cell: it may exit now by itself; it is killed when it does not.
    fn release(&mut self) {
        let _ = self.child.socket.shutdown(std::net::Shutdown::Both);
        let until = Instant::now().checked_add(LAST_BREATH);
        // The error output closes when the process ends: that is waited for, without asking again and again.
        while self.errors_open && until.is_some_and(|until| Instant::now() < until) {
            let mut watched = [PollFd::new(self.child.errors.as_fd(), PollFlags::POLLIN)];
            let left = until.map_or(0, |until| {
                until.saturating_duration_since(Instant::now()).as_millis()
            });
            let timeout = PollTimeout::try_from(left.saturating_add(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut watched, timeout);
            self.drain_errors();
        }
        if !self.child.has_ended() && self.errors_open {
            self.child.kill();
        }
        if self.stop.urgency() == Urgency::Now {
            self.child.kill();
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Also for a cell that never leaves us waiting.
            self.check()?;
            self.pass_stop_on();
            match (&self.child.socket).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.check()?;
            match (&self.child.socket).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
