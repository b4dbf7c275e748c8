//! The job from beginning to end.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;

use hotcell_cells::cell_side::{CellError, Connection, Control};
use hotcell_cells::contract::Operation;
use hotcell_cells::emulator;
use hotcell_cells::protocol::ToCell;
use hotcell_kernel::{Bytes, EventSink, Kernel};
use hotcell_schema::internet::Heard;
use hotcell_schema::job::{Blob, Job, JobResult, LinuxJob, LinuxResult};
use hotcell_schema::outcome::Outcome;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::binfmt;
use crate::filter::Key;
use crate::init_unsafe::{self, Emulation, Guest};
use crate::root::Root;
use crate::streams::Stream;
use crate::told::Told;
use crate::wire::Wire;
use crate::{left, walls};

/// How long the keeper sleeps at most before it listens to the runner, in milliseconds.
const LISTEN: u8 = 20;
/// Greatest length of what init tells in bytes.
const REPORT: u64 = 64 << 10;

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
    let mut wire = match kernel.take_world() {
        Some(world) => Some(Wire::lay(world, job.persona.epoch_s).map_err(CellError::Job)?),
        None => None,
    };
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
    let (report, report_theirs) = io::pipe().map_err(failed)?;
    let streams = [input, output.1.into(), error.1.into()];
    let (told, records) = match &job.watch.traced {
        Some(host) => {
            let (told, records) = io::pipe().map_err(failed)?;
            (Some(Told::new(told, job, host)), Some(records))
        }
        None => (None, None),
    };
    let init = init_unsafe::start(&root, &guest, streams, report_theirs, records).map_err(failed)?;
    let mut seen = Seen {
        output: Stream::new(output.0),
        error: Stream::new(error.0),
        report: Stream::new(report),
        told,
    };
    let limit = watch(connection, init, &mut seen, wire.as_mut(), job.limits.file_bytes)?;
    init_unsafe::ended(init);
    let outcome = match limit {
        Some(limit) => limit,
        None => outcome(&seen.report.bytes)?,
    };

    connection.send_output("stdout", "", &seen.output.bytes)?;
    connection.send_output("stderr", "", &seen.error.bytes)?;
    if let Some(wire) = wire {
        let (mut heard, capture) = wire.finish();
        // The events that its init tells begin at zero, and so does this.
        if let Some(began) = seen.told.as_ref().and_then(Told::began) {
            for heard in &mut heard {
                heard.time = heard.time.saturating_sub(began);
            }
        }
        connection.send_output("pcap", "", &capture)?;
        connection.send_output(Heard::PORT, "", &lines(&heard)?)?;
    }
    let mut result = LinuxResult::new(outcome, &job.arch.name);
    let mut sent = std::collections::BTreeSet::new();
    let (files, left_out) = left::files(&root.upper, job.limits.file_bytes);
    result.left_out = left_out;
    for left in files {
        if sent.insert(left.file.digest) {
            connection.send_output("files", &left.file.digest.to_string(), &left.bytes)?;
        }
        result.files.push(left.file);
    }
    Ok(result)
}

/// JSON lines.
fn lines(heard: &[Heard]) -> Result<Vec<u8>, CellError> {
    let mut lines = Vec::new();
    for one in heard {
        serde_json::to_writer(&mut lines, one).map_err(failed)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Numbers that nobody can guess.
fn chance<const N: usize>() -> Result<[u8; N], CellError> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut chance| chance.read_exact(&mut bytes))
        .map_err(failed)?;
    Ok(bytes)
}

/// Puts the emulator into the root, marked so that the kernel tells it from the guest's programs.
fn emulation(job: &LinuxJob, root: &Root, emulator: &Path) -> Result<Emulation, CellError> {
    let secret = chance()?;
    let emulator = std::fs::read(emulator).map_err(failed)?;
    let user = job.arch.qemu.as_ref().map_or("", |qemu| &qemu.user);
    root.add(emulator::PLACE, &binfmt::marked(emulator, user, secret))
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
            (emulator::PLACE, before)
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
        deny: job.deny,
        key: Key([u64::from_ne_bytes(chance()?), u64::from_ne_bytes(chance()?)]),
    })
}

/// What the keeper hears of a guest.
struct Seen {
    output: Stream,
    error: Stream,
    /// What init tells of its end. It stays open as long as there is one, whatever the guest does with its own.
    report: Stream,
    /// What init tells of what the guest does, where it watches.
    told: Option<Told>,
}

/// Takes what the guest writes and does what the runner asks, until the guest has ended. How it ended, if it met a limit.
fn watch(
    connection: &mut Connection,
    init: Pid,
    seen: &mut Seen,
    mut wire: Option<&mut Wire>,
    room: u64,
) -> Result<Option<Outcome>, CellError> {
    let mut room = room;
    let mut room_of_report = REPORT;
    let mut limit = None;
    let mut end_by = |why: Outcome| {
        limit.get_or_insert(why);
        // All of its namespace end with it.
        let _ = kill(init, Signal::SIGKILL);
    };
    let runner = connection.handle()?;
    let mut sleeps = u64::from(LISTEN);
    loop {
        let ready = match seen.wait(runner.as_fd(), wire.as_deref(), sleeps) {
            Some(ready) => ready,
            None => return Ok(limit),
        };
        let [output, error, report, told] = ready;
        if let Some(wire) = wire.as_mut() {
            let (until, _) = wire.turn().map_err(failed)?;
            sleeps = until.unwrap_or(u64::MAX).min(LISTEN.into());
        }
        let mut full = false;
        for (stream, _) in [(&mut seen.output, output), (&mut seen.error, error)]
            .into_iter()
            .filter(|(_, ready)| *ready)
        {
            full |= !stream.take(&mut room).map_err(failed)?;
        }
        if report {
            seen.report.take(&mut room_of_report).map_err(failed)?;
        }
        if let Some(seen) = seen.told.as_mut().filter(|_| told) {
            seen.take(connection)?;
        }
        if full {
            end_by(Outcome::Limit("file-bytes".to_owned()));
        }
        match connection.control()? {
            Control::GoOn => {}
            Control::Stop => {
                let _ = kill(init, Signal::SIGKILL);
                return Err(CellError::Stopped);
            }
            Control::Asked(ToCell::Finish) => {
                end_by(Outcome::wall_time());
                connection.did(Operation::Finish)?;
            }
            Control::Asked(asked) => {
                connection.unsupported(asked.operation().unwrap_or(Operation::Start))?;
            }
        }
    }
}

impl Seen {
    /// Waits a moment until something is there: of output, error, report, what is told, of the runner or on the wire. `None`: all of
    /// the guest have ended.
    fn wait(&self, runner: BorrowedFd<'_>, wire: Option<&Wire>, sleeps: u64) -> Option<[bool; 4]> {
        let [output, error, report] = [&self.output, &self.error, &self.report].map(Stream::end);
        let told = self.told.as_ref().and_then(Told::end);
        let open = [output, error, report, told].map(|end| end.map(|end| end.as_fd()));
        let mut waiting: Vec<PollFd<'_>> = open
            .iter()
            .flatten()
            .map(|end| PollFd::new(*end, PollFlags::POLLIN))
            .collect();
        if waiting.is_empty() {
            return None;
        }
        waiting.push(PollFd::new(runner, PollFlags::POLLIN));
        waiting.extend(wire.map(|wire| PollFd::new(wire.end().as_fd(), PollFlags::POLLIN)));
        let _ = poll(
            &mut waiting,
            PollTimeout::try_from(sleeps).unwrap_or(PollTimeout::ZERO),
        );
        let mut told = waiting.iter().map(|end| end.any().unwrap_or(false));
        Some(open.map(|end| end.is_some() && told.next().unwrap_or(false)))
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
