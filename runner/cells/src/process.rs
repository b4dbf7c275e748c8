//! A cell that is a process speaking the wire protocol: the [`Cell`] of `hotcell-unicorn` and `hotcell-inspect`.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use hotcell_schema::fault::FaultKind;
use hotcell_schema::job::{Blob, Job, JobResult};

use crate::channel::{self, Asked, Channel};
use crate::context::{self, Facts, Owner, SavedContext};
use crate::contract::{Cell, CellFault, Limit, Operation, Usage};
use crate::cores::Seat;
use crate::cores::arbiter::{AdmitError, EndedBy, GiveCores};
use crate::cores::process::Process;
use crate::cores::schedule::{CellId, Request};
use crate::dump::Core;
use crate::intake::{Bounds, Held, Intake, IntakeError, Said, Sink};
use crate::protocol::{PROTOCOL, ProtocolError, ToCell, write_message};
use crate::remote::{self, Answer, Remote};
use crate::stop::StopSignal;
use crate::supervise::{Area, Executable, Exit, HostLimits, Met, Sandbox, SealedBlob, spawn};

mod area;
mod post_mortem;

use area::{Dumped, Kept};
pub use post_mortem::PostMortem;

/// How long a cell may take until it is ready.
const GREETING: Duration = Duration::from_secs(60);
/// Room for saved contexts beside two copies of the memory that a cell may use: states of the emulated kernel.
const AREA_MORE: u64 = 256 << 20;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// An administrator, or a quota of the host's; holds why.
    Ordered(String),
    /// Something outside of the runner ended it.
    Killed,
}

impl std::fmt::Display for Interruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ordered(why) => why,
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
    cores: Option<(Arc<dyn GiveCores>, Request, String)>,
    /// Digest of its executable, found when it is needed.
    executable: Executable,
    /// The bytes that its job names.
    payload: Vec<SealedBlob>,
    /// Where contexts go.
    area: Area,
    /// The facts of a context that it goes on from.
    from: Option<Facts>,
    /// The context that was kept last.
    kept: Option<Kept>,
    /// Core files that were not copied yet.
    dumped: Option<Dumped>,
    /// What came while an answer was waited for.
    held: Held,
    /// How it ended, if that came while an answer was waited for.
    last: Option<Result<Said, IntakeError>>,
    /// What kind of fault ended it.
    fault: Option<FaultKind>,
}

impl ProcessCell {
    /// Makes the process and waits until it has confined itself and is ready for its job.
    pub fn spawn(spec: &Spec<'_>) -> Result<Self, CellFault> {
        Self::make(spec, None)
    }

    /// The same, for a job that goes on from a saved context. Whether it fits is checked when the job is known.
    pub fn restore(spec: &Spec<'_>, context: &SavedContext) -> Result<Self, CellFault> {
        Self::make(spec, Some(context))
    }

    fn make(spec: &Spec<'_>, context: Option<&SavedContext>) -> Result<Self, CellFault> {
        let host = |doing| move |source| CellFault::Host { doing, source };
        let room = spec.limits.memory.saturating_add(AREA_MORE).min(1 << 40);
        let area = Area::new(room.saturating_mul(2) & !0xffff).map_err(host("making room for contexts"))?;
        let payload = spec.blobs.iter().map(|blob| blob.try_clone()).collect();
        let payload: io::Result<Vec<SealedBlob>> = payload;
        let payload = payload.map_err(host("keeping a cell's blobs"))?;
        let mut blobs = spec.blobs.to_vec();
        blobs.extend(context.map(SavedContext::body));
        let child = spawn(spec.executable, &blobs, &area, &spec.limits, spec.sandbox)
            .map_err(host("making a cell process"))?;
        let wall = Duration::from_millis(spec.limits.wall_ms);
        let mut channel = Channel::new(child, spec.stop.clone(), wall, spec.limits.cpu_s)
            .map_err(host("making a cell's channel"))?;
        channel.set_deadline(GREETING);
        let mut cell = Self {
            intake: Intake::new(channel, spec.bounds),
            engine: String::new(),
            identity: String::new(),
            layers: spec.sandbox.layers.clone(),
            fallbacks: spec.sandbox.fallbacks.clone(),
            cores: match spec.cores {
                Some(Seat::Turns { cores, request, name }) => {
                    Some((Arc::clone(cores), request, name.to_owned()))
                }
                Some(Seat::Bound(_)) | None => None,
            },
            executable: spec.executable.clone(),
            payload,
            area,
            from: context.map(|context| context.facts().clone()),
            kept: None,
            dumped: None,
            held: Held::default(),
            last: None,
            fault: None,
        };
        if let Some(Seat::Bound(cpus)) = spec.cores {
            let id = cell.intake.get_ref().child.id();
            let bound = Process::open(id).and_then(|mut process| process.bind(cpus));
            bound.map_err(host("binding a cell to its core"))?;
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

    /// Its number among those who take turns on cores, once its job has begun; `None`: it runs where the kernel lets it.
    pub fn seat(&self) -> Option<CellId> {
        self.intake.get_ref().place.as_ref().map(|place| place.cell())
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

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.intake.get_ref().child.id()
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

    /// A queue through which other threads can ask operations of this cell while [`ProcessCell::collect`] runs.
    pub fn remote(&self) -> Remote {
        self.intake.get_ref().remote.clone()
    }

    /// Starts the job and takes in everything until the cell ends.
    pub fn run(&mut self, job: &Job, sink: &mut dyn Sink) -> Ending {
        if let Err(fault) = self.start(job) {
            return match fault {
                CellFault::Protocol(error) => self.after_error(error.into()),
                other => self.failed(FaultKind::Cores, other.to_string()),
            };
        }
        self.collect(sink)
    }

    /// Takes in everything that a started cell says until it ends, and does meanwhile what is asked through
    /// [`ProcessCell::remote`].
    pub fn collect(&mut self, sink: &mut dyn Sink) -> Ending {
        self.intake.get_mut().serving = true;
        let ending = self.take_all(sink);
        let channel = self.intake.get_mut();
        channel.serving = false;
        channel.asked = None;
        channel.remote.close();
        ending
    }

    fn take_all(&mut self, sink: &mut dyn Sink) -> Ending {
        if let Err(error) = self.held.give(sink) {
            return self.after_error(IntakeError::Sink(error));
        }
        loop {
            let said = match self.last.take() {
                Some(said) => said,
                None => self.intake.take(sink),
            };
            match said {
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
                    return self.failed(FaultKind::GaveUp, reason);
                }
                Ok(Said::Ready { .. }) => {
                    return self.after_error(ProtocolError::Order("Ready twice").into());
                }
                Ok(Said::Did(Operation::Finish)) if self.intake.get_ref().told_to_finish => {
                    self.intake.get_mut().finishes();
                }
                // It is ended as whoever does not answer.
                Ok(Said::Unsupported(_, Operation::Finish)) if self.intake.get_ref().told_to_finish => {
                    let channel = self.intake.get_mut();
                    channel.interruption = Some(Interruption::WallTime);
                    return self.interrupted();
                }
                Ok(said) => {
                    let Some(Asked { operation, by }) = self.intake.get_mut().asked.take() else {
                        let unasked = ProtocolError::Order("an answer that nobody asked for");
                        return self.after_error(unasked.into());
                    };
                    let answered = self.answered(operation, said);
                    self.intake.get_ref().attend(false);
                    let answer = match answered {
                        Err(CellFault::Protocol(error)) => return self.after_error(error.into()),
                        answer => answer,
                    };
                    if let Some((request, reply)) = by {
                        let _ = reply.send(answer.and_then(|()| self.answer_to(request)));
                    }
                }
                Err(error) => return self.after_error(error),
            }
        }
    }

    /// What a request of another thread gets for an answer, once the cell has done it.
    fn answer_to(&mut self, request: remote::Request) -> Result<Answer, CellFault> {
        match request {
            remote::Request::SaveContext(Some(mut file)) => {
                Ok(Answer::Saved(Some(Box::new(self.write_context(&mut file)?))))
            }
            remote::Request::SaveContext(None) => Ok(Answer::Saved(None)),
            remote::Request::Dump(mut file) => Ok(Answer::Dumped(self.write_cores(&mut file)?)),
            _ => Ok(Answer::Done),
        }
    }

    /// The meaning of an answer to `operation`.
    fn answered(&mut self, operation: Operation, said: Said) -> Result<(), CellFault> {
        match said {
            // Who saves or dumps says where.
            Said::Did(did)
                if did == operation && !matches!(operation, Operation::SaveContext | Operation::Dump) =>
            {
                self.intake.get_mut().did(operation);
                if operation == Operation::LoadContext {
                    let kept = self
                        .kept
                        .ok_or(ProtocolError::Order("back to a context that it never kept"))?;
                    self.intake.back_to(kept.events);
                }
                Ok(())
            }
            Said::Saved { start, length } if operation == Operation::SaveContext => self.kept(start, length),
            Said::Dumped { start, cores } if operation == Operation::Dump => self.dumped(start, cores),
            Said::Refused(refused, reason) if refused == operation => {
                Err(CellFault::Refused { operation, reason })
            }
            Said::Unsupported(engine, operation) => Err(CellFault::Unsupported { engine, operation }),
            _ => Err(ProtocolError::Order("an answer to another question").into()),
        }
    }

    /// Which limits of the host its processes met until now, as the kernel says.
    pub fn met(&self) -> Met {
        let channel = self.intake.get_ref();
        // The kernel may have ended those that used it before we looked.
        let used = channel.child.cpu_of_all().unwrap_or(0.0);
        Met {
            cpu_time: channel.out_of_cpu_time || used >= channel.cpu_s as f64,
            ..channel.child.met()
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
        let why = channel.interruption.clone().unwrap_or(Interruption::Killed);
        self.ended_by(why)
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
                    Ok(GaveUp(reason)) => self.failed(FaultKind::GaveUp, reason),
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
            let why = format!("the cell broke the protocol: {error}");
            return self.failed(FaultKind::Protocol, why);
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => {
                let why = format!("the cell ended, and the host cannot tell how: {error}");
                return self.failed(FaultKind::NoResult, why);
            }
        };
        // Who gives cores had to end it, and knows why.
        match channel.place.as_ref().and_then(|place| place.ended_by()) {
            Some(EndedBy::Fault(why)) => {
                return self.failed(FaultKind::Cores, format!("the cell was ended: {why}"));
            }
            Some(EndedBy::Order(why)) => return self.ended_by(Interruption::Ordered(why)),
            Some(EndedBy::Memory) => return self.ended_by(Interruption::Memory),
            None => {}
        }
        match exit {
            Exit::Signal(libc::SIGXCPU) => self.ended_by(Interruption::CpuTime),
            // The kernel ends a process above its hard CPU limit, and one that takes the host's last memory, like this.
            Exit::Signal(libc::SIGKILL) if channel.child.ran_out_of_memory() => {
                self.ended_by(Interruption::Memory)
            }
            Exit::Signal(libc::SIGKILL) if used.cpu_s + 1.0 >= channel.cpu_s as f64 => {
                self.ended_by(Interruption::CpuTime)
            }
            Exit::Signal(libc::SIGKILL) if channel.outstayed => {
                let why =
                    "the cell broke the protocol: it closed its connection without a result, and went on";
                self.failed(FaultKind::Protocol, why.into())
            }
            Exit::Signal(libc::SIGKILL) => self.ended_by(Interruption::Killed),
            Exit::Signal(_) if errors.contains("memory allocation of ") => {
                self.ended_by(Interruption::Memory)
            }
            exit => {
                let said = match errors.trim() {
                    "" => String::new(),
                    text => format!("; it said: {text}"),
                };
                let why = format!("the cell ended without a result: {exit}{said}");
                self.failed(post_mortem::kind_of(exit), why)
            }
        }
    }

    fn send(&mut self, message: &ToCell) -> Result<(), ProtocolError> {
        write_message(self.intake.get_mut(), message)
    }

    fn ask(&mut self, message: &ToCell) -> Result<(), CellFault> {
        let operation = message.operation().unwrap_or(Operation::Start);
        if self.last.is_some() {
            return Err(CellFault::Ended);
        }
        if operation == Operation::Pause && self.intake.get_ref().child.runs_on() {
            return Err(channel::runs_on());
        }
        self.intake.get_ref().attend(true);
        self.send(message)?;
        let channel = self.intake.get_mut();
        channel.asked = Some(Asked { operation, by: None });
        channel.child.nudge();
        let began = channel.owner.is_some();
        let said = match began {
            true => self.intake.take(&mut self.held),
            false => self.intake.take(&mut Nothing),
        };
        self.intake.get_mut().asked = None;
        match said {
            // The job's own end comes to whoever collects.
            Ok(said @ (Said::Done(_) | Said::Failed(_))) if began => {
                self.last = Some(Ok(said));
                Err(CellFault::Ended)
            }
            Ok(Said::Failed(reason)) => Err(CellFault::Failed(reason)),
            Ok(said) => {
                let answered = self.answered(operation, said);
                self.intake.get_ref().attend(false);
                answered
            }
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
        let blobs = self.payload.len() as u32;
        self.intake.get_mut().owner = Some(Owner {
            engine: self.engine.clone(),
            identity: self.identity.clone(),
            executable: self.executable.clone(),
            payload: std::mem::take(&mut self.payload),
            job: context::job_digest(job)?,
        });
        let mut context = None;
        if let Some(from) = self.from.take() {
            from.check(&self.facts()?)?;
            context = Some(Blob {
                index: blobs,
                length: from.length,
            });
            self.intake.begin_at(from.events);
        }
        let area = Blob {
            index: blobs + u32::from(context.is_some()),
            length: self.area.length(),
        };
        let channel = self.intake.get_mut();
        channel.has_guest = matches!(job, Job::Linux(_) | Job::Payload(_));
        channel.set_deadline(Duration::MAX);
        if let Some((cores, request, name)) = self.cores.take() {
            channel.child.enter_pool().map_err(|source| CellFault::Host {
                doing: "moving a cell into the pool's control group",
                source,
            })?;
            let place = cores.admit(request, channel.child.id(), &name);
            channel.place = Some(place.map_err(|error| match error {
                AdmitError::Host { doing, source } => CellFault::Host { doing, source },
                refused => CellFault::Failed(refused.to_string()),
            })?);
        }
        Ok(self.send(&ToCell::Start {
            job: Box::new(job.clone()),
            area: Some(area),
            context,
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

    fn dump(&mut self, to: &mut dyn Write) -> Result<Vec<Core>, CellFault> {
        self.ask(&ToCell::Dump)?;
        self.write_cores(to)
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
        let changed = self.intake.get_mut().set_limit(limit);
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
