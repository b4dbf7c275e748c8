//! A cell's connection to its runner.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, Job, JobResult};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::CellError;
use super::blob_unsafe::{MappedBlob, duplicate_blob, take_control_socket};
use crate::contract::Operation;
use crate::protocol::{
    FrameReader, FromCell, Item, PROTOCOL, ProtocolError, ToCell, write_message, write_raw,
};

/// Greatest length of a message from the runner in bytes: a job with its profiles.
const MAX_MESSAGE: usize = 16 << 20;
/// Events of at least this many JSON bytes are sent without waiting for more.
const EVENT_BATCH: usize = 256 << 10;

/// What the runner wants of a running cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    /// Nothing: go on.
    GoOn,
    /// End soon, with what there is.
    Stop,
    /// An operation that the cell may do or answer with [`Connection::unsupported`].
    Asked(ToCell),
}

/// The control socket of a cell. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    reader: FrameReader<UnixStream>,
    engine: String,
    /// Events waiting to be sent: the inside of a JSON array.
    events: Vec<u8>,
    /// Whether the runner wants nothing to run.
    paused: bool,
    area: Option<Blob>,
    context: Option<Blob>,
}

impl Connection {
    /// Takes over descriptor 3. Works once in a process.
    pub fn inherit() -> Result<Self, CellError> {
        take_control_socket().map(Self::over).ok_or(CellError::NoRunner)
    }

    /// A connection over a socket that is at hand: for tests of cells within one process.
    pub fn over(socket: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            reader: FrameReader::new(socket, MAX_MESSAGE),
            engine: String::new(),
            events: Vec::new(),
            paused: false,
            area: None,
            context: None,
        })))
    }

    /// What becomes readable when the runner says something: to wait at, not to read from.
    pub fn handle(&self) -> Result<UnixStream, CellError> {
        let socket = self.inner().reader.get_ref().try_clone();
        Ok(socket.map_err(ProtocolError::Io)?)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A job that panicked while it spoke is told as a failure over the same socket.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the runner's greeting and waits for the job.
    pub fn handshake(&mut self, engine: &str, identity: &str, layers: Vec<String>) -> Result<Job, CellError> {
        self.inner().handshake(engine, identity, layers)
    }

    /// The bytes that the job names, mapped read-only.
    pub fn blob(&self, blob: Blob) -> Result<MappedBlob, CellError> {
        let length = usize::try_from(blob.length).map_err(|error| wrong(blob, error))?;
        let file = self.blob_file(blob)?;
        MappedBlob::new(file.as_fd(), length).map_err(|error| wrong(blob, error))
    }

    /// The sealed memory file with the bytes that the job names.
    pub fn blob_file(&self, blob: Blob) -> Result<File, CellError> {
        let file = duplicate_blob(blob.index).ok_or_else(|| wrong(blob, "was not handed over"))?;
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)
            .map_err(|error| wrong(blob, format!("has no seals: {error}")))?;
        let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
        if !SealFlag::from_bits_truncate(seals).contains(wanted) {
            return Err(wrong(blob, "is not sealed"));
        }
        // By seeking: a confined cell may not ask for a file's attributes.
        let there = (&file)
            .seek(SeekFrom::End(0))
            .map_err(|error| wrong(blob, error))?;
        if there < blob.length {
            return Err(wrong(blob, format!("has {there} bytes, not {}", blob.length)));
        }
        Ok(file)
    }

    /// The saved context that the job goes on from, if it does.
    pub fn context(&self) -> Option<Blob> {
        self.inner().context
    }

    /// The memory file for saved contexts and its length, if the runner gave one.
    pub fn area(&self) -> Result<Option<(File, u64)>, CellError> {
        let Some(area) = self.inner().area else {
            return Ok(None);
        };
        let file = duplicate_blob(area.index).ok_or_else(|| wrong(area, "was not handed over"))?;
        Ok(Some((file, area.length)))
    }

    /// Sends events, in order. They are gathered and leave in batches; the rest leaves with [`Connection::flush`] or
    /// [`Connection::done`].
    pub fn send_events(&mut self, events: &[Event]) -> Result<(), CellError> {
        let mut inner = self.inner();
        for event in events {
            if !inner.events.is_empty() {
                inner.events.push(b',');
            }
            serde_json::to_writer(&mut inner.events, event).map_err(ProtocolError::Message)?;
            if inner.events.len() >= EVENT_BATCH {
                inner.flush()?;
            }
        }
        Ok(())
    }

    /// Sends the events that still wait.
    pub fn flush(&mut self) -> Result<(), CellError> {
        self.inner().flush()
    }

    /// Sends the whole content of an output. `name` is empty, or for the port `files` the content's digest.
    pub fn send_output(&mut self, port: &str, name: &str, bytes: &[u8]) -> Result<(), CellError> {
        let mut inner = self.inner();
        inner.send(&FromCell::Output {
            port: port.into(),
            name: name.into(),
            length: bytes.len() as u64,
        })?;
        write_raw(inner.reader.get_mut(), bytes)?;
        Ok(())
    }

    /// What the runner wants, without waiting; to be called between slices. A pause is held here, until the runner says
    /// to go on or to stop, or asks for something that this connection cannot do by itself.
    pub fn control(&mut self) -> Result<Control, CellError> {
        let mut inner = self.inner();
        loop {
            if !inner.paused && !inner.has_message()? {
                return Ok(Control::GoOn);
            }
            match inner.receive()? {
                ToCell::Pause => {
                    inner.paused = true;
                    inner.did(Operation::Pause)?;
                }
                ToCell::Resume => {
                    inner.paused = false;
                    inner.did(Operation::Resume)?;
                    return Ok(Control::GoOn);
                }
                ToCell::Stop => return Ok(Control::Stop),
                ToCell::Hello { .. } | ToCell::Start { .. } => {
                    return Err(CellError::Unexpected {
                        expected: "an operation on the running job",
                    });
                }
                other => return Ok(Control::Asked(other)),
            }
        }
    }

    /// Whether the runner wants nothing to run but what it asks for.
    pub fn is_paused(&self) -> bool {
        self.inner().paused
    }

    /// Answers an operation. Events that wait are sent before: they came first.
    pub fn answer(&mut self, answer: &FromCell) -> Result<(), CellError> {
        let mut inner = self.inner();
        inner.flush()?;
        inner.send(answer)
    }

    /// Answers that an operation was done.
    pub fn did(&mut self, operation: Operation) -> Result<(), CellError> {
        self.answer(&FromCell::Did { operation })
    }

    /// Answers that the engine cannot do an operation.
    pub fn unsupported(&mut self, operation: Operation) -> Result<(), CellError> {
        let engine = self.inner().engine.clone();
        self.answer(&FromCell::Unsupported { engine, operation })
    }

    /// Sends the waiting events and the job's result, and waits until the runner has let go of the cell (it reads the
    /// cell's usage first).
    pub fn done(self, result: JobResult) -> Result<(), CellError> {
        let mut inner = self.inner();
        inner.flush()?;
        inner.send(&FromCell::Done {
            result: Box::new(result),
        })?;
        inner.until_released();
        Ok(())
    }

    /// Says why the job cannot be done, and waits as [`Connection::done`] does.
    pub fn failed(self, reason: &str) -> Result<(), CellError> {
        let mut inner = self.inner();
        inner.send(&FromCell::Failed {
            reason: reason.into(),
        })?;
        inner.until_released();
        Ok(())
    }
}

impl Inner {
    fn handshake(&mut self, engine: &str, identity: &str, layers: Vec<String>) -> Result<Job, CellError> {
        engine.clone_into(&mut self.engine);
        match self.receive()? {
            ToCell::Hello { protocol: PROTOCOL } => {}
            ToCell::Hello { protocol } => return Err(ProtocolError::Version { theirs: protocol }.into()),
            _ => return Err(CellError::Unexpected { expected: "Hello" }),
        }
        self.send(&FromCell::Ready {
            protocol: PROTOCOL,
            engine: engine.into(),
            identity: identity.into(),
            confinement: layers,
        })?;
        loop {
            match self.receive()? {
                ToCell::Start { job, area, context } => {
                    self.area = area;
                    self.context = context;
                    return Ok(*job);
                }
                ToCell::Stop => return Err(CellError::Stopped),
                ToCell::Hello { .. } => return Err(CellError::Unexpected { expected: "Start" }),
                // Held by the first look at what the runner wants.
                pause @ (ToCell::Pause | ToCell::Resume) => {
                    self.paused = pause == ToCell::Pause;
                    self.did(pause.operation().unwrap_or(Operation::Pause))?;
                }
                // Nothing runs yet: there is nothing to keep.
                other => {
                    if let Some(operation) = other.operation() {
                        let engine = self.engine.clone();
                        self.send(&FromCell::Unsupported { engine, operation })?;
                    }
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), CellError> {
        if self.events.is_empty() {
            return Ok(());
        }
        // Serialized once already: the message is put together around the gathered text.
        let text = String::from_utf8(std::mem::take(&mut self.events))
            .map_err(|_| CellError::Job("events that are not UTF-8".into()))?;
        let events =
            serde_json::value::RawValue::from_string(format!("[{text}]")).map_err(ProtocolError::Message)?;
        #[derive(serde::Serialize)]
        #[serde(rename_all = "kebab-case")]
        enum Gathered {
            Events {
                events: Box<serde_json::value::RawValue>,
            },
        }
        write_message(self.reader.get_mut(), &Gathered::Events { events })?;
        Ok(())
    }

    fn did(&mut self, operation: Operation) -> Result<(), CellError> {
        self.flush()?;
        self.send(&FromCell::Did { operation })
    }

    fn until_released(&mut self) {
        let mut scratch = [0; 4096];
        let _ = self.reader.get_mut().flush();
        while matches!(self.reader.get_mut().read(&mut scratch), Ok(1..)) {}
    }

    fn has_message(&self) -> Result<bool, CellError> {
        let mut descriptors = [PollFd::new(self.reader.get_ref().as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut descriptors, PollTimeout::ZERO) {
                Ok(ready) => return Ok(ready > 0),
                // A nudge.
                Err(Errno::EINTR) => {}
                Err(error) => return Err(ProtocolError::Io(error.into()).into()),
            }
        }
    }

    fn send(&mut self, message: &FromCell) -> Result<(), CellError> {
        Ok(write_message(self.reader.get_mut(), message)?)
    }

    fn receive(&mut self) -> Result<ToCell, CellError> {
        match self.reader.read()? {
            Some(Item::Message(message)) => Ok(message),
            Some(Item::Raw(_)) => Err(ProtocolError::Order("raw bytes from the runner").into()),
            None => Err(ProtocolError::Ended.into()),
        }
    }
}

fn wrong(blob: Blob, reason: impl ToString) -> CellError {
    CellError::Blob {
        index: blob.index,
        reason: reason.to_string(),
    }
}
