//! A seat: a folder and a warden, for one command at a time.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, recv, send, sendmsg, shutdown,
    socketpair,
};
use nix::unistd::Pid;

use super::bounds::{Bounds, CommandLimits, End, Met, ending, resource_limits};
use super::collect::{self, OutputFault, OutputFile};
use super::folder::Folder;
use super::handover_unsafe::{self, Handed};
use super::message::{self, ANSWER, Answer, END, Unsayable};
use super::step::{self, holds};
use super::walls::Walls;
use super::{host, warden_unsafe};
use crate::contract::{CellFault, Usage};
use crate::process::Interruption;
use crate::stop::{StopSignal, Urgency};
use crate::supervise::{Group, births};

/// How long a command may still run after a person asked to stop.
const GRACE: Duration = Duration::from_secs(2);
/// How long a warden may take for what it does itself.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// What the last command wrote to its streams: each command has its own.
    out: Option<File>,
    err: Option<File>,
    work: String,
    tmp: String,
    own_pids: bool,
    limits: CommandLimits,
    bounds: Bounds,
    layers: Vec<String>,
    fallbacks: Vec<String>,
    /// The warden cannot be relied on any more.
    broken: bool,
    /// Removed after everything in it has ended.
    group: Option<Group>,
    /// How often the kernel had refused a process of the group, or ended one, when it was last looked at.
    refused: u64,
    ended: u64,
    /// Dropped, and so removed, after the warden has ended.
    folder: Folder,
}

impl Seat {
    /// Starts a warden in a folder. Also says what holds: bits of [`holds`].
    pub(super) fn start(
        mut folder: Folder,
        walls: &Walls,
        user: Option<u32>,
        limits: &CommandLimits,
        (work, tmp): (String, String),
    ) -> Result<(Self, i32), CellFault> {
        let doing = "making a warden for commands";
        let bounds = Bounds::of(limits);
        let group = walls.group(&bounds).map_err(host(doing))?;
        let lift = |fd: BorrowedFd<'_>| births::duplicate_above(fd, 16);
        let entrances = group.as_ref().map_or_else(|| Ok(Vec::new()), Group::entrances);
        let entrances: io::Result<Vec<OwnedFd>> =
            entrances.and_then(|all| all.iter().map(|one| lift(one.as_fd())).collect());
        let setup = entrances
            .and_then(|entrances| walls.setup(&folder, user, &bounds, entrances))
            .map_err(host("preparing a command's confinement"))?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|error| host(doing)(error.into()))?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(host(doing))?;
        let descriptors = [null.as_fd(), null.as_fd(), null.as_fd(), theirs.as_fd()];
        let [input, out, err, socket] = descriptors.map(lift);
        let descriptors = [
            input.map_err(host(doing))?,
            out.map_err(host(doing))?,
            err.map_err(host(doing))?,
            socket.map_err(host(doing))?,
        ];
        drop(theirs);
        let pid = warden_unsafe::start(&setup, &descriptors).map_err(host(doing))?;
        drop(descriptors);
        drop(setup);
        let warden = Warden(Some(Pid::from_raw(pid)));
        let (answer, handed) = match wait_for_answer(&ours) {
            Ok(told) => told,
            // So little memory that not even the warden could stand in it.
            Err(_) if group.as_ref().is_some_and(Group::ran_out_of_memory) => {
                return Err(CellFault::Interrupted(Interruption::Memory));
            }
            Err(error) => return Err(host(doing)(error)),
        };
        if answer.errno != 0 {
            return Err(host(doing)(step::error(answer.step, answer.errno)));
        }
        let held = answer.status;
        if held & holds::SCRATCH != 0 {
            let Some([outputs, tmp]) = handed else {
                return Err(host(doing)(io::Error::other(
                    "the warden of commands handed no folders",
                )));
            };
            folder.use_scratch(outputs, tmp).map_err(host(doing))?;
        }
        let seat = Self {
            warden: warden.keep(),
            socket: ours,
            out: None,
            err: None,
            work,
            tmp,
            own_pids: walls.own_pids(),
            limits: *limits,
            bounds,
            layers: walls.layers.clone(),
            fallbacks: walls.fallbacks.clone(),
            broken: false,
            group,
            refused: 0,
            ended: 0,
            folder,
        };
        Ok((seat, held))
    }

    pub(super) fn tell_walls(&mut self, walls: &Walls) {
        self.layers.clone_from(&walls.layers);
        self.fallbacks.clone_from(&walls.fallbacks);
    }

    /// Whether it was made for these limits.
    pub(super) fn fits(&self, limits: &CommandLimits) -> bool {
        self.bounds == Bounds::of(limits)
    }

    /// Takes over what may differ from command to command.
    pub(super) fn take(&mut self, limits: &CommandLimits) {
        self.limits = *limits;
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
        self.folder.put(path, executable, bytes)
    }

    /// Makes a folder in the work folder, for what is put into it.
    pub fn put_folder(&mut self, path: &str) -> io::Result<()> {
        self.folder.put_folder(path)
    }

    /// Runs a command to the end of everything it starts. An error is the host's; a seat with an error is not used again.
    pub fn run(&mut self, spec: &CommandSpec<'_>, stop: &StopSignal) -> Result<CommandEnding, CellFault> {
        self.run_with(spec, stop, None, |_| {})
    }

    /// The same with one that is talked with while it runs: `stdin` is its standard input, whatever the description says; `listen`
    /// is given what it writes to standard output, a file that grows and is to be read by place, and comes back at once.
    pub fn run_beside(
        &mut self,
        spec: &CommandSpec<'_>,
        stop: &StopSignal,
        stdin: OwnedFd,
        listen: impl FnOnce(File),
    ) -> Result<CommandEnding, CellFault> {
        self.run_with(spec, stop, Some(stdin), listen)
    }

    fn run_with(
        &mut self,
        spec: &CommandSpec<'_>,
        stop: &StopSignal,
        stdin: Option<OwnedFd>,
        listen: impl FnOnce(File),
    ) -> Result<CommandEnding, CellFault> {
        if stop.urgency() != Urgency::None {
            return Err(CellFault::Interrupted(Interruption::Stopped));
        }
        let ran = self.try_run(spec, stop, stdin, listen);
        self.broken |= ran.is_err();
        ran
    }

    fn try_run(
        &mut self,
        spec: &CommandSpec<'_>,
        stop: &StopSignal,
        stdin: Option<OwnedFd>,
        listen: impl FnOnce(File),
    ) -> Result<CommandEnding, CellFault> {
        let doing = "running a command";
        let stdin = match (stdin, spec.stdin) {
            (Some(stdin), _) => Some(stdin),
            (None, Some(path)) => Some(self.folder.open(path).map_err(host(doing))?),
            (None, None) => None,
        };
        let message = message::job(
            spec.program,
            spec.arguments.iter().map(String::as_str),
            spec.environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            stdin.is_some(),
            &resource_limits(&self.limits, self.group.is_some()),
        );
        let message = match message {
            Ok(message) => message,
            Err(unsayable) => return Ok(self.end(not_said(unsayable), Usage::default())),
        };
        let out = self.folder.stream().map_err(host(doing))?;
        let err = self.folder.stream().map_err(host(doing))?;
        listen(out.try_clone().map_err(host(doing))?);
        let mut descriptors = vec![out.as_raw_fd(), err.as_raw_fd()];
        descriptors.extend(stdin.as_ref().map(AsRawFd::as_raw_fd));
        self.tell(&message, &descriptors).map_err(host(doing))?;
        drop(message);
        // Who writes to it is to see when nobody reads any more.
        drop(stdin);
        let watched = self.watch(stop);
        for stream in [&out, &err] {
            // What the command made of its streams is not to be met by who reads them.
            fcntl(stream, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|error| host(doing)(error.into()))?;
        }
        (self.out, self.err) = (Some(out), Some(err));
        let (answer, asked) = match watched {
            Ok(answered) => answered,
            // The kernel may choose the warden when the memory of its group is up.
            Err(_) if self.met().memory => {
                self.broken = true;
                return Ok(self.end(End::Interrupted(Interruption::Memory), Usage::default()));
            }
            Err(error) => return Err(host(doing)(error)),
        };
        let over = self.folder.holds_more_than(self.bounds.room);
        let end = ending(&answer, asked, self.limits.cpu_s, || self.met());
        let end = match (end, over.map_err(host(doing))?) {
            (End::Exit(_), true) => End::Interrupted(Interruption::Room),
            (end, _) => end,
        };
        Ok(self.end(end, answer.usage()))
    }

    fn end(&self, end: End, usage: Usage) -> CommandEnding {
        CommandEnding {
            end,
            usage,
            layers: self.layers.clone(),
            fallbacks: self.fallbacks.clone(),
        }
    }

    /// Limits that were met since this was last asked.
    fn met(&mut self) -> Met {
        let room = self.folder.room();
        let mut met = Met {
            room: room.is_some_and(|left| left.blocks == 0 || left.files == 0),
            ..Met::default()
        };
        if let Some(group) = &self.group {
            let (ended, refused) = (group.ended_processes(), group.refused_tasks());
            met.memory = ended > self.ended;
            met.tasks = refused > self.refused;
            (self.ended, self.refused) = (ended, refused);
        }
        met
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
    fn watch(&self, stop: &StopSignal) -> io::Result<(Answer, Option<Interruption>)> {
        let begun = Instant::now();
        let mut deadline = begun.checked_add(Duration::from_millis(self.limits.wall_ms));
        let mut why = Interruption::WallTime;
        let mut asked = None;
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                if asked.is_some() {
                    return Err(io::Error::other("a command could not be ended"));
                }
                asked = Some(why.clone());
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
                return Ok((receive(&self.socket)?, asked));
            }
        }
    }

    /// How many bytes the command wrote there.
    pub fn stream_length(&self, stream: Stream) -> io::Result<u64> {
        self.stream(stream)
            .map_or(Ok(0), |file| Ok(file.metadata()?.len()))
    }

    /// Copies what the command wrote there. Returns how many bytes.
    pub fn copy_stream(&self, stream: Stream, target: &mut dyn Write) -> io::Result<u64> {
        let Some(file) = self.stream(stream) else {
            return Ok(0);
        };
        io::copy(&mut At { file, position: 0 }, target)
    }

    /// The end of what the command wrote to standard error: at most so many bytes.
    pub fn error_end(&self, most: u64) -> Vec<u8> {
        let read = || -> io::Result<Vec<u8>> {
            let length = self.stream_length(Stream::Err)?;
            let mut bytes = Vec::new();
            if let Some(file) = self.stream(Stream::Err) {
                bytes.resize(usize::try_from(length.min(most)).unwrap_or(usize::MAX), 0);
                file.read_exact_at(&mut bytes, length.saturating_sub(most))?;
            }
            Ok(bytes)
        };
        read().unwrap_or_default()
    }

    fn stream(&self, stream: Stream) -> Option<&File> {
        match stream {
            Stream::Out => self.out.as_ref(),
            Stream::Err => self.err.as_ref(),
        }
    }

    /// Opens the output `outputs/<name>`, or the file `within` it, which must be a regular file.
    pub fn output(&self, name: &str, within: &str) -> Result<OutputFile, OutputFault> {
        collect::file(self.folder.outputs(), name, within)
    }

    /// Paths of the files below `outputs/<name>`, from there, in order.
    pub fn output_names(&self, name: &str) -> Result<Vec<String>, OutputFault> {
        collect::names(self.folder.outputs(), name)
    }

    /// Makes it as new. An error says why it cannot be used again.
    pub(super) fn clean(&mut self) -> io::Result<()> {
        (self.out, self.err) = (None, None);
        match self.broken {
            true => Err(io::Error::other("its warden has ended")),
            false => self.folder.empty(),
        }
    }

    /// Whether it can be used again if it is emptied.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The first process of a pid namespace takes all others with it; elsewhere the warden does that when its runner leaves.
        if !self.own_pids && shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_ok() {
            let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut watched, timeout(Some(PATIENCE)));
        }
        drop(Warden(Some(self.warden)));
        if let Some(group) = &self.group {
            group.end_all();
        }
    }
}

/// A warden that ends with whoever holds this.
struct Warden(Option<Pid>);

impl Warden {
    /// It lives on.
    fn keep(mut self) -> Pid {
        self.0.take().unwrap_or(Pid::from_raw(0))
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = births::wait(pid.as_raw());
        }
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

fn timeout(left: Option<Duration>) -> PollTimeout {
    match left {
        // One more, so that the deadline has passed when the time is up.
        Some(left) => PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    }
}

fn wait_for_answer(socket: &OwnedFd) -> io::Result<(Answer, Handed)> {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut watched, timeout(Some(PATIENCE))) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(_) => return handover_unsafe::receive(socket),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Answer> {
    let mut bytes = [0; ANSWER];
    match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())? {
        ANSWER => Ok(Answer::from_bytes(&bytes)),
        _ => Err(io::Error::other("the warden of commands has ended")),
    }
}

fn not_said(unsayable: Unsayable) -> End {
    let text = match unsayable {
        Unsayable::Zero => "an argument or a variable of the environment holds a byte 0".to_owned(),
        Unsayable::TooLong => format!(
            "arguments and environment are longer than {} bytes together, or more than {} words; hand long lists over in a file",
            message::MAX_MESSAGE,
            message::MAX_WORDS
        ),
    };
    End::NotStarted {
        program: true,
        error: io::Error::new(io::ErrorKind::InvalidInput, text),
    }
}
