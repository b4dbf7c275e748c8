//! A cell's connection to its runner.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, Job, JobResult};
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

/// The control socket of a cell.
#[derive(Debug)]
pub struct Connection {
    reader: FrameReader<UnixStream>,
    engine: String,
    /// Events waiting to be sent: the inside of a JSON array.
    events: Vec<u8>,
}

impl Connection {
    /// Takes over descriptor 3. Works once in a process.
    pub fn inherit() -> Result<Self, CellError> {
        take_control_socket().map(Self::over).ok_or(CellError::NoRunner)
    }

    /// A connection over a socket that is at hand: for tests of cells within one process.
    pub fn over(socket: UnixStream) -> Self {
        Self {
            reader: FrameReader::new(socket, MAX_MESSAGE),
            engine: String::new(),
            events: Vec::new(),
        }
    }

    /// Answers the runner's greeting and waits for the job.
    pub fn handshake(&mut self, engine: &str, identity: &str, layers: Vec<String>) -> Result<Job, CellError> {
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
                ToCell::Start { job } => return Ok(*job),
                ToCell::Stop => return Err(CellError::Stopped),
                ToCell::Hello { .. } => return Err(CellError::Unexpected { expected: "Start" }),
                // Nothing runs yet: there is nothing to hold or to keep.
                other => self.unsupported_message(&other)?,
            }
        }
    }

    /// The bytes that the job names, mapped read-only.
    pub fn blob(&self, blob: Blob) -> Result<MappedBlob, CellError> {
        let wrong = |reason: String| CellError::Blob {
            index: blob.index,
            reason,
        };
        let file = duplicate_blob(blob.index).ok_or_else(|| wrong("was not handed over".into()))?;
        let seals =
            fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|error| wrong(format!("has no seals: {error}")))?;
        let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
        if !SealFlag::from_bits_truncate(seals).contains(wanted) {
            return Err(wrong("is not sealed".into()));
        }
        // By seeking: a confined cell may not ask for a file's attributes.
        let there = (&file)
            .seek(SeekFrom::End(0))
            .map_err(|error| wrong(error.to_string()))?;
        if there < blob.length {
            return Err(wrong(format!("has {there} bytes, not {}", blob.length)));
        }
        let length = usize::try_from(blob.length).map_err(|error| wrong(error.to_string()))?;
        MappedBlob::new(file.as_fd(), length).map_err(|error| wrong(error.to_string()))
    }

    /// Sends events, in order. They are gathered and leave in batches; the rest leaves with [`Connection::flush`] or
    /// [`Connection::done`].
    pub fn send_events(&mut self, events: &[Event]) -> Result<(), CellError> {
        for event in events {
            if !self.events.is_empty() {
                self.events.push(b',');
            }
            serde_json::to_writer(&mut self.events, event).map_err(ProtocolError::Message)?;
            if self.events.len() >= EVENT_BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Sends the events that still wait.
    pub fn flush(&mut self) -> Result<(), CellError> {
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

    /// Sends the whole content of an output. `name` is empty, or for the port `files` the content's digest.
    pub fn send_output(&mut self, port: &str, name: &str, bytes: &[u8]) -> Result<(), CellError> {
        self.send(&FromCell::Output {
            port: port.into(),
            name: name.into(),
            length: bytes.len() as u64,
        })?;
        write_raw(self.reader.get_mut(), bytes)?;
        Ok(())
    }

    /// What the runner wants, without waiting; to be called between slices. A pause is held here, until the runner says
    /// to go on or to stop.
    pub fn control(&mut self) -> Result<Control, CellError> {
        let mut paused = false;
        loop {
            if !paused && !self.has_message()? {
                return Ok(Control::GoOn);
            }
            match self.receive()? {
                ToCell::Pause => {
                    self.did(Operation::Pause)?;
                    paused = true;
                }
                ToCell::Resume => {
                    self.did(Operation::Resume)?;
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

    /// Answers that an operation was done.
    pub fn did(&mut self, operation: Operation) -> Result<(), CellError> {
        self.send(&FromCell::Did { operation })
    }

    /// Answers that the engine cannot do an operation.
    pub fn unsupported(&mut self, operation: Operation) -> Result<(), CellError> {
        let engine = self.engine.clone();
        self.send(&FromCell::Unsupported { engine, operation })
    }

    /// Sends the waiting events and the job's result, and waits until the runner has let go of the cell (it reads the
    /// cell's usage first).
    pub fn done(mut self, result: JobResult) -> Result<(), CellError> {
        self.flush()?;
        self.send(&FromCell::Done {
            result: Box::new(result),
        })?;
        self.until_released();
        Ok(())
    }

    /// Says why the job cannot be done, and waits as [`Connection::done`] does.
    pub fn failed(mut self, reason: &str) -> Result<(), CellError> {
        self.send(&FromCell::Failed {
            reason: reason.into(),
        })?;
        self.until_released();
        Ok(())
    }

    fn until_released(&mut self) {
        let mut scratch = [0; 4096];
        let _ = self.reader.get_mut().flush();
        while matches!(self.reader.get_mut().read(&mut scratch), Ok(1..)) {}
    }

    fn unsupported_message(&mut self, message: &ToCell) -> Result<(), CellError> {
        match message.operation() {
            Some(operation) => self.unsupported(operation),
            None => Ok(()),
        }
    }

    fn has_message(&self) -> Result<bool, CellError> {
        let mut descriptors = [PollFd::new(self.reader.get_ref().as_fd(), PollFlags::POLLIN)];
        let ready =
            poll(&mut descriptors, PollTimeout::ZERO).map_err(|error| ProtocolError::Io(error.into()))?;
        Ok(ready > 0)
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
