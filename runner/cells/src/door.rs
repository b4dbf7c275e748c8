//! The door of a run: a Unix socket at which its user may ask about its cells, and of them.
//!
//! One packet a question, one packet an answer, as at the arbiter of a host ([`wire`](crate::cores::service::wire)). Only the
//! user of the run, and root, are let in (`SO_PEERCRED`, `unix(7)`); files are handed over as descriptors, opened by the one
//! who asks, with the rights of the one who asks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use serde::{Deserialize, Serialize};

use crate::context::Facts;
use crate::contract::Limit;
use crate::cores::service::wire::{WireError, receive, send};
use crate::dump::Core;
use crate::remote::Request;
use crate::roster::{Roster, Running};

/// Most visitors at once.
const VISITORS: usize = 16;
/// How long a visitor may take to say something, or to hear it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take: a cell that has not its turn answers when it has.
const ANSWER: Duration = Duration::from_secs(600);

/// What is asked at a door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Ask {
    /// Which cells there are.
    Cells,
    /// Do something with the cell of this process id.
    Do {
        /// The cell.
        process: u32,
        /// What.
        what: What,
    },
}

/// What can be done with a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum What {
    /// Hold still at the next safe point.
    Pause,
    /// Go on.
    Resume,
    /// End soon.
    Stop,
    /// End now.
    Kill,
    /// Keep a context, in the file that comes with the message.
    Save,
    /// Write core files of what runs, one behind the other, into the file that comes with the message.
    Dump,
    /// Go on, in another process, from the context in the file that comes with the message.
    Restore,
    /// Go back to the context that was kept last.
    Load,
    /// Run so many instructions; the cell is paused.
    Instructions(u32),
    /// Run so many slices; the cell is paused.
    Slices(u32),
    /// Change a limit.
    Limit(Limit),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Answer {
    /// The cells.
    Cells(Vec<Running>),
    /// It was done.
    Done,
    /// A context was kept.
    Saved(Box<Facts>),
    /// These core files were written.
    Dumped(Vec<Core>),
    /// No, and why.
    Refused(String),
}

/// An open door: closed when it is dropped.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    closing: Option<OwnedFd>,
    keeper: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a door at a path, in a folder that only its user can enter. What is there gives way to it.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made.
    pub fn open(path: &Path, roster: Roster) -> io::Result<Self> {
        // Who knocks between binding and listening would take it for the door of a dead run
        // (`janitor::clear_sockets`): until then it has another name.
        let building = path.with_extension("building");
        let _ = std::fs::remove_file(&building);
        let kind = SocketType::SEQPACKET;
        let listener = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        bind(&listener, &SocketAddrUnix::new(&building)?)?;
        listen(&listener, 16)?;
        std::fs::rename(&building, path)?;
        let (closed, closing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let keeper = std::thread::Builder::new()
            .name("door".into())
            .spawn(move || keep(&listener, &closed, &roster))?;
        Ok(Self {
            path: path.to_owned(),
            closing: Some(closing),
            keeper: Some(keeper),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The other end becomes readable.
        self.closing.take();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets visitors in until the door is closed.
fn keep(listener: &OwnedFd, closed: &OwnedFd, roster: &Roster) {
    let visitors = Arc::new(AtomicUsize::new(0));
    loop {
        let mut watched = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(closed.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
        let [_, closing] = &watched;
        if closing.any().unwrap_or(true) {
            return;
        }
        let Ok(visitor) = accept_with(listener, SocketFlags::CLOEXEC) else {
            continue;
        };
        let own = nix::unistd::geteuid().as_raw();
        let known = socket_peercred(&visitor).is_ok_and(|peer| [0, own].contains(&peer.uid.as_raw()));
        if !known || visitors.load(Ordering::Relaxed) >= VISITORS {
            continue;
        }
        let here = Arc::clone(&visitors);
        here.fetch_add(1, Ordering::Relaxed);
        let roster = roster.clone();
        let started = std::thread::Builder::new()
            .name("visitor".into())
            .stack_size(256 << 10)
            .spawn(move || {
                serve(&visitor, &roster);
                here.fetch_sub(1, Ordering::Relaxed);
            });
        if started.is_err() {
            visitors.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one visitor.
fn serve(visitor: &OwnedFd, roster: &Roster) {
    for timeout in [Timeout::Recv, Timeout::Send] {
        if set_socket_timeout(visitor, timeout, Some(PATIENCE)).is_err() {
            return;
        }
    }
    let mut buffer = Vec::new();
    loop {
        let answer = match receive(visitor, &mut buffer) {
            Ok((Ask::Cells, _)) => Answer::Cells(roster.cells()),
            Ok((Ask::Do { process, what }, file)) => act(roster, process, what, file.map(File::from)),
            Err(WireError::Gone | WireError::Io(_)) => return,
            Err(error) => Answer::Refused(error.to_string()),
        };
        if send(visitor, &answer, None).is_err() {
            return;
        }
    }
}

fn act(roster: &Roster, process: u32, what: What, file: Option<File>) -> Answer {
    let file = || file.ok_or("no file came with the message");
    let ask = |request| roster.ask(process, request).map(|_| ());
    let done = match what {
        What::Pause => ask(Request::Pause),
        What::Resume => ask(Request::Resume),
        What::Stop => ask(Request::Stop),
        What::Kill => ask(Request::ForceStop),
        What::Load => ask(Request::LoadContext),
        What::Limit(limit) => ask(Request::SetLimit(limit)),
        What::Instructions(count) => (0..count).try_for_each(|_| ask(Request::RunOneInstruction)),
        What::Slices(count) => (0..count).try_for_each(|_| ask(Request::RunOneSlice)),
        What::Save => match file() {
            Ok(file) => match roster.save(process, file) {
                Ok(facts) => return Answer::Saved(Box::new(facts)),
                Err(fault) => Err(fault),
            },
            Err(why) => return Answer::Refused(why.into()),
        },
        What::Dump => match file() {
            Ok(file) => match roster.dump(process, file) {
                Ok(cores) => return Answer::Dumped(cores),
                Err(fault) => Err(fault),
            },
            Err(why) => return Answer::Refused(why.into()),
        },
        What::Restore => match file() {
            Ok(file) => roster.restore(process, file),
            Err(why) => return Answer::Refused(why.into()),
        },
    };
    match done {
        Ok(()) => Answer::Done,
        Err(fault) => Answer::Refused(fault.to_string()),
    }
}

/// A visit at a door.
#[derive(Debug)]
pub struct Visit {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Visit {
    /// Goes to the door at a path.
    ///
    /// # Errors
    ///
    /// If there is none, or nobody behind it.
    pub fn at(path: &Path) -> io::Result<Self> {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
        })
    }

    /// Asks, with a file where one is needed.
    ///
    /// # Errors
    ///
    /// If the other side goes away.
    pub fn ask(&mut self, question: &Ask, file: Option<&File>) -> Result<Answer, WireError> {
        send(&self.socket, question, file.map(|file| file.as_fd()))?;
        Ok(receive(&self.socket, &mut self.buffer)?.0)
    }
}
