//! The job from beginning to end.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use hotcell_cells::cell_side::{CellError, Connection, Control};
use hotcell_cells::contract::Operation;
use hotcell_cells::emulator;
use hotcell_cells::protocol::{FromCell, ToCell};

use hotcell_kernel::{Bytes, EventSink, Kernel};
use hotcell_schema::job::{Blob, Job, JobResult, LinuxJob, LinuxResult};
use hotcell_schema::outcome::Outcome;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::binfmt;
use crate::init_unsafe::{self, EMULATOR, Emulation, Guest};
use crate::root::Root;
use crate::streams::Stream;
use crate::{left, walls};

/// How long the keeper sleeps at most before it listens to the runner, in milliseconds.
const LISTEN: u8 = 20;

/// Greets the runner, does its job, tells the result.
pub(crate) fn serve(identity: &str) -> ExitCode {
    let Ok(mut connection) = Connection::inherit() else {
        return ExitCode::from(64);
    };
    let ended = walls::raise()
        .and_then(|layers| connection.handshake("hotcell-qemu", identity, layers))
        .and_then(|job| match job {
            Job::Linux(job) => run(&mut connection, &job),
            _ => Err(CellError::Job("this engine runs Linux programs only".to_owned())),
        })
        .map(JobResult::Linux);
    let told = match ended {
        Ok(result) => connection.clone().done(result),
        Err(error) => Err(error),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = connection.failed(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Nobody hears the emulated kernel: it only furnishes the root.
struct Deaf;

impl EventSink for Deaf {
    fn event(&mut self, _: hotcell_schema::event::Event) {}
}

fn failed(error: impl std::fmt::Display) -> CellError {
    CellError::Job(error.to_string())
}

fn run(connection: &mut Connection, job: &LinuxJob) -> Result<LinuxResult, CellError> {
    let blobs = |blob: Blob| {
        let mapped = connection.blob(blob).ok()?;
        Some(Bytes::from(&mapped[..]))
    };
    let emulator = match job.native {
        true => None,
        false => Some(emulator::find(&job.arch).map_err(CellError::Job)?),
    };
    let mut kernel = match Kernel::new(job, &blobs, Box::new(Deaf)) {
        Ok(kernel) => kernel,
        Err(error) => return Err(failed(error)),
    };
    let root =
        Root::build(&kernel.places(), job.limits.file_bytes.saturating_mul(2)).map_err(CellError::Job)?;
    drop(kernel);
    let emulation = match emulator {
        Some(path) => Some(emulation(job, &root, &path)?),
        None => None,
    };
    let guest = guest(job, emulation)?;
    let (input, output, error) = (
        match job.stdin {
            Some(blob) => connection.blob_file(blob)?.into(),
            None => std::fs::File::open("/dev/null").map_err(failed)?.into(),
        },
        io::pipe().map_err(failed)?,
        io::pipe().map_err(failed)?,
    );
    let (mut report, report_theirs) = io::pipe().map_err(failed)?;
    let streams = [input, output.1.into(), error.1.into()];
    let init = init_unsafe::start(&root, &guest, streams, report_theirs).map_err(failed)?;
    let mut streams = [Stream::new(output.0), Stream::new(error.0)];
    let limit = watch(connection, init, &mut streams, job.limits.file_bytes)?;
    init_unsafe::ended(init);
    let mut told = Vec::new();
    report.read_to_end(&mut told).map_err(failed)?;
    let outcome = match (limit, outcome(&told)?) {
        (Some(limit), _) => Outcome::Limit(limit),
        (None, outcome) => outcome,
    };

    let [output, error] = streams;
    connection.send_output("stdout", "", &output.bytes)?;
    connection.send_output("stderr", "", &error.bytes)?;
    let mut result = LinuxResult::new(outcome, &job.arch.name);
    let mut sent = std::collections::BTreeSet::new();
    for left in left::files(&root.upper, job.limits.file_bytes).map_err(failed)? {
        if sent.insert(left.file.digest) {
            connection.send_output("files", &left.file.digest.to_string(), &left.bytes)?;
        }
        result.files.push(left.file);
    }
    Ok(result)
}

/// Puts the emulator into the root, marked so that the kernel tells it from the guest's programs.
fn emulation(job: &LinuxJob, root: &Root, emulator: &Path) -> Result<Emulation, CellError> {
    let mut secret = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut chance| chance.read_exact(&mut secret))
        .map_err(failed)?;
    let emulator = std::fs::read(emulator).map_err(failed)?;
    let user = job.arch.qemu.as_ref().map_or("", |qemu| &qemu.user);
    root.add(EMULATOR, &binfmt::marked(emulator, user, secret))
        .map_err(CellError::Job)?;
    let elf = job.arch.elf.clone();
    Ok(Emulation { secret, elf })
}

fn guest(job: &LinuxJob, emulation: Option<Emulation>) -> Result<Guest, CellError> {
    let text = |text: &str| CString::new(text).map_err(failed);
    let (argv0, rest) = job
        .argv
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first, rest));
    let name = job.arch.qemu.as_ref().map_or("qemu", |qemu| &qemu.user);
    let (program, first) = match &emulation {
        Some(_) => {
            let before = vec![name, "-r", &job.persona.kernel_release, "-0", argv0, &job.path];
            (EMULATOR, before)
        }
        None => (job.path.as_str(), vec![argv0]),
    };
    let rest = rest.iter().map(String::as_str);
    let arguments: Result<Vec<CString>, CellError> = first.into_iter().chain(rest).map(text).collect();
    let environment: Result<Vec<CString>, CellError> = job
        .env
        .as_ref()
        .unwrap_or(&job.persona.env)
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect();
    Ok(Guest {
        emulation,
        program: text(program)?,
        arguments: arguments?,
        environment: environment?,
        cwd: text(job.cwd.as_deref().unwrap_or(&job.persona.cwd))?,
        hostname: job.persona.hostname.clone(),
        file_bytes: job.limits.file_bytes,
    })
}

/// Takes what the guest writes and does what the runner asks, until the guest has ended. Which limit it met.
fn watch(
    connection: &mut Connection,
    init: Pid,
    streams: &mut [Stream; 2],
    room: u64,
) -> Result<Option<String>, CellError> {
    let mut room = room;
    let mut limit = None;
    loop {
        let ends: Vec<_> = streams
            .iter()
            .filter_map(Stream::end)
            .map(|end| end.as_fd())
            .collect();
        if ends.is_empty() {
            return Ok(limit);
        }
        let mut waiting: Vec<PollFd<'_>> = ends
            .iter()
            .map(|end| PollFd::new(*end, PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut waiting, PollTimeout::from(LISTEN));
        let ready: Vec<bool> = waiting.iter().map(|end| end.any().unwrap_or(false)).collect();
        drop(waiting);
        let open = streams.iter_mut().filter(|stream| stream.end().is_some());
        for (stream, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            if !stream.take(&mut room).map_err(failed)? && limit.is_none() {
                limit = Some("file-bytes".to_owned());
                let _ = kill(init, Signal::SIGKILL);
            }
        }
        match connection.control()? {
            Control::GoOn => {}
            Control::Stop => {
                let _ = kill(init, Signal::SIGKILL);
                return Err(CellError::Stopped);
            }
            Control::Asked(asked) => {
                let operation = asked.operation().unwrap_or(Operation::Start);
                let _: &ToCell = &asked;
                connection.answer(&FromCell::Unsupported {
                    engine: "hotcell-qemu".to_owned(),
                    operation,
                })?;
            }
        }
    }
}

/// What init told.
fn outcome(told: &[u8]) -> Result<Outcome, CellError> {
    if let Some(why) = told.strip_prefix(b"!") {
        return Err(CellError::Job(String::from_utf8_lossy(why).into_owned()));
    }
    let status = told.first_chunk::<4>().map(|bytes| i32::from_le_bytes(*bytes));
    match status.and_then(init_unsafe::status) {
        Some(WaitStatus::Exited(_, code)) => Ok(Outcome::Exited(code)),
        Some(WaitStatus::Signaled(_, signal, _)) => Ok(Outcome::Signalled(signal.as_str().to_owned())),
        _ => Err(CellError::Job(
            "the guest's first process ended without telling how".to_owned(),
        )),
    }
}
