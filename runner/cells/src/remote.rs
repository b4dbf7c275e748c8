//! Operations on a cell, asked by other threads than the one that takes in what the cell says.
//!
//! A [`Remote`] is a queue of requests with replies. The thread that runs the cell polls it together with the cell's socket:
//! one request is on its way at a time; the others wait. What the host does by itself (usage, limits, stopping) is answered
//! at once, also while the cell is busy with another request.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

use crate::context::Facts;
use crate::contract::{CellFault, Limit, Operation, Usage};
use crate::dump::Core;
use crate::protocol::ToCell;

/// What can be asked of a running cell.
#[derive(Debug)]
pub enum Request {
    /// Hold still at the next safe point.
    Pause,
    /// Go on.
    Resume,
    /// End the guest's run, and hand over what it gave until then.
    Finish,
    /// Make the cell stand still with all that it made, by the host, until it is to finish or to stop: then what it made ends without
    /// having gone on. Its wall time passes.
    Freeze,
    /// End soon.
    Stop,
    /// End now.
    ForceStop,
    /// Keep a context, and write it into this file if there is one.
    SaveContext(Option<File>),
    /// Go back to the context that was kept last.
    LoadContext,
    /// Write core files of what runs into this file, one behind the other.
    Dump(File),
    /// Run one instruction of a paused cell.
    RunOneInstruction,
    /// Run one slice of a paused cell.
    RunOneSlice,
    /// Tell what was used.
    Usage,
    /// Change a limit.
    SetLimit(Limit),
    /// Tell whether the job could go on from a context with these facts.
    GoOnFrom(Box<Facts>),
}

impl Request {
    /// The operation that it asks for.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Pause | Self::Freeze => Operation::Pause,
            Self::Resume => Operation::Resume,
            Self::Finish => Operation::Finish,
            Self::Stop => Operation::Stop,
            Self::ForceStop => Operation::ForceStop,
            Self::SaveContext(_) => Operation::SaveContext,
            Self::LoadContext | Self::GoOnFrom(_) => Operation::LoadContext,
            Self::Dump(_) => Operation::Dump,
            Self::RunOneInstruction => Operation::RunOneInstruction,
            Self::RunOneSlice => Operation::RunOneSlice,
            Self::Usage => Operation::Usage,
            Self::SetLimit(_) => Operation::SetLimit,
        }
    }

    /// What the cell is told for it; `None`: the host does it alone.
    pub(crate) fn message(&self) -> Option<ToCell> {
        Some(match self {
            Self::Pause => ToCell::Pause,
            Self::Resume => ToCell::Resume,
            Self::Finish => ToCell::Finish,
            Self::SaveContext(_) => ToCell::SaveContext,
            Self::LoadContext => ToCell::LoadContext,
            Self::Dump(_) => ToCell::Dump,
            Self::RunOneInstruction => ToCell::RunOneInstruction,
            Self::RunOneSlice => ToCell::RunOneSlice,
            Self::Freeze
            | Self::Stop
            | Self::ForceStop
            | Self::Usage
            | Self::SetLimit(_)
            | Self::GoOnFrom(_) => {
                return None;
            }
        })
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// It was done.
    Done,
    /// A context was kept, with these facts where it was written into a file.
    Saved(Option<Box<Facts>>),
    /// These core files were written.
    Dumped(Vec<Core>),
    /// What was used.
    Usage(Usage),
}

/// The end of a request where its answer goes.
pub(crate) type Reply = SyncSender<Result<Answer, CellFault>>;

/// A queue of requests to one cell. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: (OwnedFd, OwnedFd),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Request, Reply)>,
    closed: bool,
}

/// Greatest number of requests that wait.
const MAX_WAITING: usize = 256;

impl Remote {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            queue: Mutex::default(),
            wake: pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?,
        })))
    }

    /// Asks, and waits for the answer. A cell that has ended answers [`CellFault::Ended`].
    pub fn ask(&self, request: Request) -> Result<Answer, CellFault> {
        self.send(request).recv().unwrap_or(Err(CellFault::Ended))
    }

    /// Asks; the answer comes through the receiver. A receiver that closes without one: the cell has ended.
    pub fn send(&self, request: Request) -> Receiver<Result<Answer, CellFault>> {
        let (reply, answer) = sync_channel(1);
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= MAX_WAITING {
            let operation = request.operation();
            let reason = format!("{MAX_WAITING} requests wait already");
            let _ = reply.send(Err(CellFault::Refused { operation, reason }));
        } else if !queue.closed {
            queue.waiting.push_back((request, reply));
            // A full pipe says the same.
            let _ = write(&self.0.wake.1, &[1]);
        }
        answer
    }

    /// Becomes readable when something was asked.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.0.wake.0.as_fd()
    }

    /// The next request; while the cell is `busy` with one, only such as the host does alone.
    pub(crate) fn next(&self, busy: bool) -> Option<(Request, Reply)> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = [0; 64];
        while matches!(read(self.wake(), &mut scratch), Ok(64)) {}
        let at = queue
            .waiting
            .iter()
            .position(|(request, _)| !busy || request.message().is_none())?;
        queue.waiting.remove(at)
    }

    /// Nobody will answer any more.
    pub(crate) fn close(&self) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.waiting.clear();
    }
}
