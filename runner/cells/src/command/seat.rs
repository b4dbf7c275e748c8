//! A seat: a folder and a warden, for one command at a time.

use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use nix::unistd::Pid;

use super::collect::{self, OutputFault, OutputFile};
use super::folder::Folder;
use super::message::{self, ANSWER, Answer, END, Unsayable};
use super::warden_unsafe::{self, EXECUTE, FIRST_OF_COMMAND, OWN_PROC, Setup};
use super::{Walls, host, step_error};
use crate::contract::{CellFault, Usage};
use crate::process::Interruption;
use crate::stop::{StopSignal, Urgency};
use crate::supervise::{Exit, Group, Sandbox, births};

/// How long a command may still run after a person asked to stop.
const GRACE: Duration = Duration::from_secs(2);
/// How long a warden may take for what it does itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a command's error output is told when it failed: the last bytes.
const ERROR_TAIL: u64 = 4 << 10;
/// More than any limit: what a control group is told of what the stage does not bound.
const UNBOUNDED: u64 = 1 << 60;

/// Limits on one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Wall time in milliseconds, of the command.
    pub wall_ms: u64,
    /// CPU time in seconds, of each process.
    pub cpu_s: u64,
    /// Bytes of memory, of all processes together, by a control group; where there is none, address space of each process.
    pub memory: Option<u64>,
    /// Processes and threads at once, by a control group; where there is none, those of the user that commands run as.
    pub tasks: Option<u64>,
    /// Bytes in one file that it writes.
    pub file_bytes: u64,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            wall_ms: 300_000,
            cpu_s: 600,
            memory: None,
            tasks: None,
            file_bytes: 256 << 20,
        }
    }
}

/// A command to run.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec<'a> {
    /// Path of the executable, as the command sees it: of the system, or below [`Seat::work`].
    pub program: &'a str,
    /// Its arguments, argument 0 first.
    pub arguments: &'a [String],
    /// Its environment, all of it.
    pub environment: &'a [(String, String)],
    /// Path from the work folder of the file that is its standard input; absent: it is empty.
    pub stdin: Option<&'a str>,
    /// Limits.
    pub limits: CommandLimits,
}

/// How a command ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Exit(Exit),
    /// The host or a person ended it.
    Interrupted(Interruption),
    /// It never ran: which step failed, and why.
    NotStarted {
        /// Whether the executable itself could not be started, so that the fault is the manifest's.
        program: bool,
        /// What failed.
        error: io::Error,
    },
}

/// A command that ended, and everything it started with it.
#[derive(Debug)]
pub struct CommandEnding {
    /// How.
    pub end: End,
    /// What all its processes used.
    pub usage: Usage,
    /// Layers of confinement that held.
    pub layers: Vec<String>,
    /// What this host could not do, and what held instead.
    pub fallbacks: Vec<String>,
}

/// What a command writes without opening a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A place for one command at a time. Use: [`put`](Self::put) files, [`run`](Self::run), collect, give back.
#[derive(Debug)]
pub struct Seat {
    warden: Pid,
    socket: OwnedFd,
    out: File,
    err: File,
    work: String,
    tmp: String,
    sandbox: &'static Sandbox,
    layers: Vec<String>,
    fallbacks: Vec<String>,
    /// Whether there are own files or inputs to remove.
    filled: bool,
    /// The warden cannot be relied on any more.
    broken: bool,
    /// Dropped, and so removed, after the warden has ended.
    folder: Folder,
}

impl Seat {
    /// Starts a warden in a folder. Also says whether it has a `/proc` of its own.
    pub(super) fn start(
        folder: Folder,
        setup: &Setup,
        sandbox: &'static Sandbox,
        (work, tmp): (String, String),
        walls: &Walls,
    ) -> Result<(Self, bool), CellFault> {
        let doing = "making a warden for commands";
        let capture = |name: &str| capture(&folder, name, setup.user);
        let (out, err) = capture("stdout")
            .and_then(|out| Ok((out, capture("stderr")?)))
            .map_err(host(doing))?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|error| host(doing)(error.into()))?;
        let null = File::open("/dev/null").map_err(host(doing))?;
        let lift = |fd: BorrowedFd<'_>| births::duplicate_above(fd, 16).map_err(host(doing));
        let descriptors = [
            lift(null.as_fd())?,
            lift(out.as_fd())?,
            lift(err.as_fd())?,
            lift(theirs.as_fd())?,
        ];
        drop(theirs);
        let pid = warden_unsafe::start(setup, &descriptors).map_err(host(doing))?;
        drop(descriptors);
        let seat = Self {
            warden: Pid::from_raw(pid),
            socket: ours,
            out,
            err,
            work,
            tmp,
            sandbox,
            layers: walls.layers.clone(),
            fallbacks: walls.fallbacks.clone(),
            filled: false,
            broken: false,
            folder,
        };
        let answer = seat.wait_for_answer().map_err(host(doing))?;
        match answer.errno {
            0 => Ok((seat, answer.status & OWN_PROC != 0)),
            errno => Err(host(doing)(step_error(answer.step, errno))),
        }
    }

    pub(super) fn tell_walls(&mut self, layers: &[String], fallbacks: &[String]) {
        self.layers = layers.to_vec();
        self.fallbacks = fallbacks.to_vec();
    }

    /// The work folder as a command sees it, which is also where it starts.
    pub fn work(&self) -> &str {
        &self.work
    }

    /// The folder for temporary files as a command sees it.
    pub fn tmp(&self) -> &str {
        &self.tmp
    }

    /// Puts a file into the work folder, for the command to read: at a path within, of plain names only.
    pub fn put(&mut self, path: &str, executable: bool, bytes: &[u8]) -> io::Result<()> {
        let target = self.place(path)?;
        if let Some(parent) = target.parent() {
            self.make_folders(parent)?;
        }
        let mut file = File::create_new(&target)?;
        file.write_all(bytes)?;
        let mode = if executable { 0o555 } else { 0o444 };
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Where a path within the work folder is, if something may be put there.
    fn place(&mut self, path: &str) -> io::Result<PathBuf> {
        let refused = |why: &str| {
            let text = format!("`{path}` cannot stand in a work folder: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.is_empty() || !Path::new(path).components().all(plain) {
            return refused("only paths below it can");
        }
        if Path::new(path).starts_with("outputs") {
            return refused("`outputs` is the program's");
        }
        self.filled = true;
        Ok(self.folder.work().join(path))
    }

    /// Folders that a user other than the runner's can read, whatever this process's mask.
    fn make_folders(&self, target: &Path) -> io::Result<()> {
        let work = self.folder.work();
        let missing: Vec<&Path> = target
            .ancestors()
            .take_while(|folder| **folder != work && !folder.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Makes a folder in the work folder, for what is put into it.
    pub fn put_folder(&mut self, path: &str) -> io::Result<()> {
        let target = self.place(path)?;
        self.make_folders(&target)
    }

    /// Runs a command to the end of everything it starts. An error is the host's; a seat with an error is not used again.
    pub fn run(&mut self, spec: &CommandSpec<'_>, stop: &StopSignal) -> Result<CommandEnding, CellFault> {
        if stop.urgency() != Urgency::None {
            return Err(CellFault::Interrupted(Interruption::Stopped));
        }
        let ran = self.try_run(spec, stop);
        self.broken |= ran.is_err();
        ran
    }

    fn try_run(&mut self, spec: &CommandSpec<'_>, stop: &StopSignal) -> Result<CommandEnding, CellFault> {
        let doing = "running a command";
        let limits = &spec.limits;
        let mut layers = self.layers.clone();
        let mut fallbacks = self.fallbacks.clone();
        let group = self
            .group(limits, &mut layers, &mut fallbacks)
            .map_err(host(doing))?;
        let entrances = match &group {
            Some(group) => group.entrances().map_err(host(doing))?,
            None => Vec::new(),
        };
        let stdin = match spec.stdin {
            Some(path) => {
                let file = File::open(self.folder.work().join(path)).map_err(host(doing))?;
                Some(OwnedFd::from(file))
            }
            None => None,
        };
        let message = message::job(
            spec.program,
            spec.arguments.iter().map(String::as_str),
            spec.environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            stdin.is_some(),
            &resource_limits(limits, group.is_some()),
        );
        let message = match message {
            Ok(message) => message,
            Err(unsayable) => return Ok(not_said(unsayable, layers, fallbacks)),
        };
        let descriptors: Vec<i32> = stdin.iter().chain(&entrances).map(AsRawFd::as_raw_fd).collect();
        self.tell(&message, &descriptors).map_err(host(doing))?;
        let (answer, asked) = self.watch(limits, stop).map_err(host(doing))?;
        let mut usage = answer.usage();
        if let Some(peak) = group.as_ref().and_then(Group::peak_kib) {
            usage.peak_kib = peak;
        }
        let out_of_memory = group.as_ref().is_some_and(Group::ran_out_of_memory);
        let end = ending(&answer, asked, out_of_memory, usage.cpu_s, limits.cpu_s);
        Ok(CommandEnding {
            end,
            usage,
            layers,
            fallbacks,
        })
    }

    /// A control group, where the limits ask for one and the host has them.
    fn group(
        &self,
        limits: &CommandLimits,
        layers: &mut Vec<String>,
        fallbacks: &mut Vec<String>,
    ) -> io::Result<Option<Group>> {
        if limits.memory.is_none() && limits.tasks.is_none() {
            return Ok(None);
        }
        match self.sandbox.groups() {
            Some(groups) => {
                layers.extend(groups.layers());
                let memory = limits.memory.unwrap_or(UNBOUNDED);
                // The kernel knows no larger number of processes.
                groups.make(memory, limits.tasks.unwrap_or(1 << 22)).map(Some)
            }
            None => {
                fallbacks.push(
                    "no control groups on this host: memory is bounded as address space of each process, tasks as those of one user"
                        .into(),
                );
                Ok(None)
            }
        }
    }

    fn tell(&self, message: &[u8], descriptors: &[i32]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights: &[ControlMessage<'_>] = match descriptors {
            [] => &[],
            _ => &rights,
        };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(message)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, flags, None)?;
        Ok(())
    }

    /// Waits for the command's end, and asks for it when the time is up or a person wants to stop.
    fn watch(&self, limits: &CommandLimits, stop: &StopSignal) -> io::Result<(Answer, Option<Interruption>)> {
        let begun = Instant::now();
        let mut deadline = begun.checked_add(Duration::from_millis(limits.wall_ms));
        let mut why = Interruption::WallTime;
        let mut asked = None;
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                if asked.is_some() {
                    return Err(io::Error::other("a command could not be ended"));
                }
                asked = Some(why);
                deadline = now.checked_add(PATIENCE);
                send(self.socket.as_raw_fd(), END, MsgFlags::MSG_NOSIGNAL)?;
            }
            if asked.is_none() {
                match stop.urgency() {
                    Urgency::None => {}
                    Urgency::Soon if why == Interruption::Stopped => {}
                    urgency => {
                        why = Interruption::Stopped;
                        let grace = match urgency {
                            Urgency::Now => Duration::ZERO,
                            _ => GRACE,
                        };
                        let soon = now.checked_add(grace);
                        deadline = deadline.into_iter().chain(soon).min();
                    }
                }
            }
            let mut watched = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if asked.is_none() {
                watched.push(PollFd::new(stop.now(), PollFlags::POLLIN));
                if why != Interruption::Stopped {
                    watched.push(PollFd::new(stop.soon(), PollFlags::POLLIN));
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match poll(&mut watched, timeout(left)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let said = watched.first().and_then(PollFd::revents);
            if said.is_some_and(|said| !said.is_empty()) {
                return Ok((self.receive()?, asked));
            }
        }
    }

    fn wait_for_answer(&self) -> io::Result<Answer> {
        let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut watched, timeout(Some(PATIENCE))) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                Ok(_) => return self.receive(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&self) -> io::Result<Answer> {
        let mut bytes = [0; ANSWER];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty())? {
            ANSWER => Ok(Answer::from_bytes(&bytes)),
            _ => Err(io::Error::other("the warden of commands has ended")),
        }
    }

    /// How many bytes the command wrote there.
    pub fn stream_length(&self, stream: Stream) -> io::Result<u64> {
        Ok(self.stream(stream).metadata()?.len())
    }

    /// Copies what the command wrote there. Returns how many bytes.
    pub fn copy_stream(&self, stream: Stream, target: &mut dyn Write) -> io::Result<u64> {
        let mut reader = At {
            file: self.stream(stream),
            position: 0,
        };
        io::copy(&mut reader, target)
    }

    /// The end of what the command wrote to standard error, as text.
    pub fn error_tail(&self) -> String {
        let length = self.stream_length(Stream::Err).unwrap_or(0);
        let mut bytes = vec![0; length.min(ERROR_TAIL) as usize];
        match self
            .err
            .read_exact_at(&mut bytes, length.saturating_sub(ERROR_TAIL))
        {
            Ok(()) => hotcell_schema::guest::text(&bytes).trim().to_owned(),
            Err(_) => String::new(),
        }
    }

    fn stream(&self, stream: Stream) -> &File {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    /// Opens the output `outputs/<name>`, or the file `within` it, which must be a regular file.
    pub fn output(&self, name: &str, within: &str) -> Result<OutputFile, OutputFault> {
        collect::file(&self.folder.work(), name, within)
    }

    /// Paths of the files below `outputs/<name>`, from there, in order.
    pub fn output_names(&self, name: &str) -> Result<Vec<String>, OutputFault> {
        collect::names(&self.folder.work(), name)
    }

    /// Makes it as new. False: it cannot be used again.
    pub(super) fn clean(&mut self) -> bool {
        if self.broken {
            return false;
        }
        let emptied = || -> io::Result<()> {
            for file in [&self.out, &self.err] {
                let facts = file.metadata()?;
                if facts.len() != 0 {
                    file.set_len(0)?;
                }
                // The commands of a seat share these descriptions: what one made of them is not for the next.
                fcntl(file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
                let mut position: &File = file;
                position.rewind()?;
                if facts.permissions().mode() & 0o7777 != 0o600 {
                    file.set_permissions(fs::Permissions::from_mode(0o600))?;
                }
            }
            self.folder.empty(self.filled)
        };
        let well = emptied().is_ok();
        self.filled = false;
        well
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The first process of a pid namespace takes all others with it.
        let _ = kill(self.warden, Signal::SIGKILL);
        let _ = births::wait(self.warden.as_raw());
    }
}

/// Reads a file from its beginning, whatever its position, which is the command's.
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// A file without a name that takes a stream: it stands where Landlock lets the command open it again by `/dev/stdout`.
fn capture(folder: &Folder, name: &str, user: Option<u32>) -> io::Result<File> {
    let path = folder.tmp().join(name);
    let file = File::options()
        .read(true)
        .append(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    if let Some(user) = user {
        fchown(&file, Some(user), Some(user))?;
    }
    Ok(file)
}

fn timeout(left: Option<Duration>) -> PollTimeout {
    match left {
        // One more, so that the deadline has passed when the time is up.
        Some(left) => PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    }
}

fn resource_limits(limits: &CommandLimits, grouped: bool) -> Vec<message::Limit> {
    let mut all = vec![
        // A second after the signal that can be told from others comes the one that cannot be caught.
        (libc::RLIMIT_CPU, limits.cpu_s, limits.cpu_s.saturating_add(1)),
        (libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
    ];
    if !grouped {
        if let Some(memory) = limits.memory {
            all.push((libc::RLIMIT_AS, memory, memory));
        }
        if let Some(tasks) = limits.tasks {
            all.push((libc::RLIMIT_NPROC, tasks, tasks));
        }
    }
    all
}

fn not_said(unsayable: Unsayable, layers: Vec<String>, fallbacks: Vec<String>) -> CommandEnding {
    let text = match unsayable {
        Unsayable::Zero => "an argument or a variable of the environment holds a byte 0".to_owned(),
        Unsayable::TooLong => format!(
            "arguments and environment are longer than {} bytes together, or more than {} words; hand long lists over in a file",
            message::MAX_MESSAGE,
            message::MAX_WORDS
        ),
    };
    CommandEnding {
        end: End::NotStarted {
            program: true,
            error: io::Error::new(io::ErrorKind::InvalidInput, text),
        },
        usage: Usage::default(),
        layers,
        fallbacks,
    }
}

/// What an answer means. `asked`: why the runner asked to end the command, if it did.
fn ending(
    answer: &Answer,
    asked: Option<Interruption>,
    out_of_memory: bool,
    cpu_s: f64,
    most_cpu_s: u64,
) -> End {
    if answer.errno != 0 {
        return End::NotStarted {
            program: answer.step == EXECUTE,
            error: match answer.step {
                EXECUTE => io::Error::from_raw_os_error(answer.errno),
                step => step_error(step.max(FIRST_OF_COMMAND), answer.errno),
            },
        };
    }
    let exit = match libc::WIFSIGNALED(answer.status) {
        true => Exit::Signal(libc::WTERMSIG(answer.status)),
        false => Exit::Code(libc::WEXITSTATUS(answer.status)),
    };
    if out_of_memory {
        return End::Interrupted(Interruption::Memory);
    }
    match (exit, asked) {
        (Exit::Signal(libc::SIGKILL), Some(why)) => End::Interrupted(why),
        (Exit::Signal(libc::SIGXCPU), _) => End::Interrupted(Interruption::CpuTime),
        // A shell whose child met the limit exits by itself. The limit is counted in ticks, what was used is exact: they differ.
        (exit, _) if exit != Exit::Code(0) && cpu_s >= 0.8 * most_cpu_s as f64 => {
            End::Interrupted(Interruption::CpuTime)
        }
        (Exit::Signal(libc::SIGKILL), None) => End::Interrupted(Interruption::Killed),
        (exit, _) => End::Exit(exit),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn interrupted(end: &End) -> Option<Interruption> {
        match end {
            End::Interrupted(why) => Some(*why),
            _ => None,
        }
    }

    #[test]
    fn an_answer_says_why_a_command_ended() {
        let of = |status, asked, memory, cpu| {
            let answer = Answer {
                status,
                ..Answer::default()
            };
            ending(&answer, asked, memory, cpu, 10)
        };
        assert!(matches!(of(0x300, None, false, 0.0), End::Exit(Exit::Code(3))));
        assert!(matches!(of(0, None, false, 99.0), End::Exit(Exit::Code(0))));
        assert!(matches!(of(11, None, false, 0.0), End::Exit(Exit::Signal(11))));
        let why = |status, asked, memory, cpu| interrupted(&of(status, asked, memory, cpu));
        assert_eq!(why(9, None, false, 0.0), Some(Interruption::Killed));
        assert_eq!(
            why(9, Some(Interruption::WallTime), false, 0.0),
            Some(Interruption::WallTime)
        );
        assert_eq!(why(0, None, true, 0.0), Some(Interruption::Memory));
        assert_eq!(why(0x9800, None, false, 10.0), Some(Interruption::CpuTime));
        assert_eq!(why(24, None, false, 1.0), Some(Interruption::CpuTime));
    }

    #[test]
    fn a_program_that_cannot_start_is_told_from_a_host_that_cannot() {
        let of = |step| {
            let answer = Answer {
                step,
                errno: libc::ENOENT,
                ..Answer::default()
            };
            ending(&answer, None, false, 0.0, 1)
        };
        assert!(matches!(of(EXECUTE), End::NotStarted { program: true, .. }));
        assert!(matches!(of(15), End::NotStarted { program: false, .. }));
    }
}
