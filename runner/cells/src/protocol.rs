//! The wire protocol between runner and cell: frames, messages, and a reader that bounds everything.
//!
//! A frame is a little-endian `u32` length of the rest, one byte of kind, and the body. Kinds: [`JSON`] is the last (or
//! only) part of a message, [`JSON_PART`] a part of a message that goes on in the next frame, [`RAW`] bytes that belong to
//! the last [`FromCell::Output`]. A body has at most [`MAX_BODY`] bytes. Each side checks the other's version before all else.

use std::io::{self, Read, Write};

use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, Job, JobResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contract::{Limit, Operation};
use crate::dump::Core;

/// Version of the protocol.
pub const PROTOCOL: u32 = 4;
/// Kind of a frame: the last part of a JSON message.
pub const JSON: u8 = 0;
/// Kind of a frame: raw bytes of an output.
pub const RAW: u8 = 1;
/// Kind of a frame: a part of a JSON message, not the last.
pub const JSON_PART: u8 = 2;
/// Greatest length of a frame's body in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// What the runner says to a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToCell {
    /// The first message.
    Hello {
        /// [`PROTOCOL`] of the runner.
        protocol: u32,
    },
    /// Begin this job.
    Start {
        /// The job.
        job: Box<Job>,
        /// A memory file that both sides can write: where saved contexts and core files go.
        #[serde(default)]
        area: Option<Blob>,
        /// A context of this job to go on from.
        #[serde(default)]
        context: Option<Blob>,
    },
    /// Hold still at the next safe point.
    Pause,
    /// Go on.
    Resume,
    /// End soon, with what there is.
    Stop,
    /// The wall time is up: end the guest's run, say so, and hand over what it gave.
    Finish,
    /// Keep registers, memory and devices.
    SaveContext,
    /// Go back to what was kept.
    LoadContext,
    /// Write memory and registers of each process as a core file.
    Dump,
    /// Run one guest instruction.
    RunOneInstruction,
    /// Run one slice.
    RunOneSlice,
    /// A limit changed.
    SetLimit {
        /// The limit.
        limit: Limit,
    },
}

impl ToCell {
    /// The operation that the message asks for, if it is one.
    pub fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::Hello { .. } => return None,
            Self::Start { .. } => Operation::Start,
            Self::Pause => Operation::Pause,
            Self::Resume => Operation::Resume,
            Self::Stop => Operation::Stop,
            Self::Finish => Operation::Finish,
            Self::SaveContext => Operation::SaveContext,
            Self::LoadContext => Operation::LoadContext,
            Self::Dump => Operation::Dump,
            Self::RunOneInstruction => Operation::RunOneInstruction,
            Self::RunOneSlice => Operation::RunOneSlice,
            Self::SetLimit { .. } => Operation::SetLimit,
        })
    }
}

/// What a cell says to the runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromCell {
    /// The answer to `Hello`: the cell has confined itself and waits for its job.
    Ready {
        /// [`PROTOCOL`] of the cell.
        protocol: u32,
        /// The engine, for instance `hotcell-unicorn`.
        engine: String,
        /// Its version and what else decides its results.
        identity: String,
        /// Names of the confinement layers that hold.
        confinement: Vec<String>,
    },
    /// Further events, in order.
    Events {
        /// The events.
        events: Vec<Event>,
    },
    /// Bytes of an output follow in [`RAW`] frames, exactly this many.
    Output {
        /// The port, for instance `stdout`.
        port: String,
        /// Name within the port: empty, or for `files` the content's digest.
        name: String,
        /// How many bytes.
        length: u64,
    },
    /// The job is done.
    Done {
        /// Its result.
        result: Box<JobResult>,
    },
    /// The cell cannot do its job.
    Failed {
        /// Why.
        reason: String,
    },
    /// An operation was done.
    Did {
        /// Which.
        operation: Operation,
    },
    /// A context was saved.
    Saved {
        /// Where it begins in the area, in bytes.
        start: u64,
        /// How many bytes it has.
        length: u64,
        /// How many events were told before it.
        events: u64,
    },
    /// Memory was dumped.
    Dumped {
        /// Where the first core file begins in the area, in bytes; the others follow one behind the other.
        start: u64,
        /// The files.
        cores: Vec<Core>,
    },
    /// An operation cannot be done now.
    Refused {
        /// Which.
        operation: Operation,
        /// Why.
        reason: String,
    },
    /// The engine cannot do an operation.
    Unsupported {
        /// The engine.
        engine: String,
        /// The operation.
        operation: Operation,
    },
}

/// The peer broke the protocol, or the stream broke.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The stream ended within a message or before the last one.
    #[error("the stream ended too early")]
    Ended,
    /// Reading or writing failed.
    #[error("stream: {0}")]
    Io(#[source] io::Error),
    /// A frame's length is zero or above the bound.
    #[error("a frame of {0} bytes (1 to {max} allowed)", max = MAX_BODY + 1)]
    FrameLength(u32),
    /// A frame's kind is not known.
    #[error("a frame of unknown kind {0}")]
    FrameKind(u8),
    /// A message is longer than the bound.
    #[error("a message of more than {0} bytes")]
    MessageLength(usize),
    /// A message is not JSON of the expected shape.
    #[error("an unreadable message: {0}")]
    Message(#[source] serde_json::Error),
    /// Raw bytes without an output, a message within an output, or more bytes than announced.
    #[error("{0}")]
    Order(&'static str),
    /// More of something than allowed.
    #[error("more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The peer speaks another version.
    #[error("protocol version {theirs}, expected {ours}", ours = PROTOCOL)]
    Version {
        /// The peer's version.
        theirs: u32,
    },
}

impl From<io::Error> for ProtocolError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// Writes one message, in as many frames as it takes.
pub fn write_message(out: &mut impl Write, message: &impl Serialize) -> Result<(), ProtocolError> {
    let body = serde_json::to_vec(message).map_err(ProtocolError::Message)?;
    let mut parts = body.chunks(MAX_BODY).peekable();
    while let Some(part) = parts.next() {
        let kind = if parts.peek().is_some() { JSON_PART } else { JSON };
        write_frame(out, kind, part)?;
    }
    out.flush()?;
    Ok(())
}

/// Writes the bytes of an output, after its [`FromCell::Output`].
pub fn write_raw(out: &mut impl Write, bytes: &[u8]) -> Result<(), ProtocolError> {
    for part in bytes.chunks(MAX_BODY) {
        write_frame(out, RAW, part)?;
    }
    out.flush()?;
    Ok(())
}

fn write_frame(out: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 1).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&[kind])?;
    out.write_all(body)
}

/// Reads frames and puts messages together. Never allocates by a length it was only told.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: R,
    message: Vec<u8>,
    max_message: usize,
    last_message: u64,
}

/// One thing read from a stream of frames.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<M> {
    /// A message.
    Message(M),
    /// Raw bytes.
    Raw(Vec<u8>),
}

impl<R: Read> FrameReader<R> {
    /// A reader that refuses messages of more than `max_message` bytes.
    pub fn new(input: R, max_message: usize) -> Self {
        Self {
            input,
            message: Vec::new(),
            max_message,
            last_message: 0,
        }
    }

    /// The stream beneath.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// The stream beneath.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// How many bytes the last message had.
    pub fn last_message_bytes(&self) -> u64 {
        self.last_message
    }

    /// The next message or raw bytes; `None` when the stream ended between two frames.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<Option<Item<M>>, ProtocolError> {
        self.message.clear();
        loop {
            let mut length = [0; 4];
            if !self.fill(&mut length)? {
                return match self.message.is_empty() {
                    true => Ok(None),
                    false => Err(ProtocolError::Ended),
                };
            }
            let length = u32::from_le_bytes(length);
            let body = match (length as usize).checked_sub(1) {
                Some(body) if body <= MAX_BODY => body,
                _ => return Err(ProtocolError::FrameLength(length)),
            };
            let mut kind = [0; 1];
            self.input.read_exact(&mut kind)?;
            match kind {
                [RAW] => {
                    if !self.message.is_empty() {
                        return Err(ProtocolError::Order("raw bytes within a message"));
                    }
                    let mut bytes = Vec::new();
                    self.body(body, &mut bytes)?;
                    return Ok(Some(Item::Raw(bytes)));
                }
                [JSON] | [JSON_PART] => {
                    if self.message.len().saturating_add(body) > self.max_message {
                        return Err(ProtocolError::MessageLength(self.max_message));
                    }
                    if body == 0 {
                        return Err(ProtocolError::FrameLength(length));
                    }
                    let mut message = std::mem::take(&mut self.message);
                    self.body(body, &mut message)?;
                    if kind == [JSON] {
                        self.last_message = message.len() as u64;
                        let parsed = serde_json::from_slice(&message).map_err(ProtocolError::Message);
                        message.clear();
                        if message.capacity() <= 2 * MAX_BODY {
                            self.message = message;
                        }
                        return parsed.map(|message| Some(Item::Message(message)));
                    }
                    self.message = message;
                }
                [kind] => return Err(ProtocolError::FrameKind(kind)),
            }
        }
    }

    /// Reads a body of `length` bytes behind what `into` holds; memory grows as bytes arrive.
    fn body(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let read = (&mut self.input).take(length as u64).read_to_end(into)?;
        match read == length {
            true => Ok(()),
            false => Err(ProtocolError::Ended),
        }
    }

    /// Fills `buffer`; `false` when the stream ends before its first byte.
    fn fill(&mut self, buffer: &mut [u8; 4]) -> Result<bool, ProtocolError> {
        let first = loop {
            match self.input.read(buffer) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
        };
        match buffer.get_mut(first..) {
            _ if first == 0 => Ok(false),
            Some(rest) => {
                self.input.read_exact(rest)?;
                Ok(true)
            }
            None => Err(ProtocolError::Order(
                "a reader that returned more than it was asked",
            )),
        }
    }
}
