//! What a cell says, taken in order and within bounds. A cell that floods, lies or mixes things up ends with an error.

use std::collections::BTreeSet;
use std::io::{self, Read};

use hotcell_schema::event::Event;
use hotcell_schema::job::JobResult;

use crate::contract::Operation;
use crate::dump::Core;
use crate::protocol::{FrameReader, FromCell, Item, PROTOCOL, ProtocolError};

/// Bounds on what one cell may say in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one message.
    pub message: usize,
    /// Messages, and frames of raw bytes.
    pub items: u64,
    /// Events.
    pub events: u64,
    /// Bytes of all event messages, as JSON.
    pub event_bytes: u64,
    /// Outputs.
    pub outputs: u64,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            message: 64 << 20,
            items: 4_000_000,
            events: 1_001_000,
            event_bytes: 4 << 30,
            outputs: 10_000,
            output_bytes: 256 << 20,
        }
    }
}

/// Takes what a cell produces. An error ends the cell; it is the host's fault, not the cell's.
pub trait Sink {
    /// Further events, in order.
    fn events(&mut self, events: Vec<Event>) -> io::Result<()>;
    /// An output begins. `port` and `name` are as the cell says: hostile.
    fn output_begins(&mut self, port: &str, name: &str, length: u64) -> io::Result<()>;
    /// Further bytes of the output that began last.
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The output has its announced length.
    fn output_ends(&mut self) -> io::Result<()>;
}

/// Keeps what a cell produces until there is a sink for it.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<Piece>);

/// One call of a sink.
#[derive(Debug)]
enum Piece {
    Events(Vec<Event>),
    Begins(String, String, u64),
    Bytes(Vec<u8>),
    Ends,
}

impl Held {
    /// Gives everything to `sink`.
    pub(crate) fn give(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        for piece in std::mem::take(&mut self.0) {
            match piece {
                Piece::Events(events) => sink.events(events)?,
                Piece::Begins(port, name, length) => sink.output_begins(&port, &name, length)?,
                Piece::Bytes(bytes) => sink.output_bytes(&bytes)?,
                Piece::Ends => sink.output_ends()?,
            }
        }
        Ok(())
    }
}

impl Sink for Held {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        self.0.push(Piece::Events(events));
        Ok(())
    }
    fn output_begins(&mut self, port: &str, name: &str, length: u64) -> io::Result<()> {
        self.0
            .push(Piece::Begins(port.to_owned(), name.to_owned(), length));
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.push(Piece::Bytes(bytes.to_vec()));
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        self.0.push(Piece::Ends);
        Ok(())
    }
}

/// What a cell said, apart from what went into the sink.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// It is ready for its job.
    Ready {
        /// The engine.
        engine: String,
        /// Its version and what else decides its results.
        identity: String,
        /// Layers of confinement that it says hold.
        confinement: Vec<String>,
    },
    /// Its job is done.
    Done(Box<JobResult>),
    /// It gave up.
    Failed(String),
    /// It did an operation.
    Did(Operation),
    /// It saved a context.
    Saved {
        /// Where it begins in the area, as the cell says.
        start: u64,
        /// How many bytes it has, as the cell says.
        length: u64,
    },
    /// It wrote core files into the area, as it says from here on.
    Dumped {
        /// Where the first begins.
        start: u64,
        /// The files.
        cores: Vec<Core>,
    },
    /// It cannot do an operation now, and says why.
    Refused(Operation, String),
    /// Its engine cannot do an operation.
    Unsupported(String, Operation),
}

/// Why taking in ended.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The cell broke the protocol or a bound.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The sink could not take what the cell said.
    #[error("keeping what the cell said: {0}")]
    Sink(#[source] io::Error),
}

/// Takes in what one cell says.
#[derive(Debug)]
pub struct Intake<R> {
    reader: FrameReader<R>,
    bounds: Bounds,
    items: u64,
    /// The number of the event that comes next.
    events: u64,
    /// How many the sink has been told.
    told: u64,
    event_bytes: u64,
    outputs: BTreeSet<(String, String)>,
    output_bytes: u64,
    /// Bytes still to come of the output that began last.
    pending: u64,
}

/// Longest text (reason, identity, name of a port) that is kept, in characters.
const MAX_TEXT: usize = 4096;

impl<R: Read> Intake<R> {
    /// Takes in what `input` gives.
    pub fn new(input: R, bounds: Bounds) -> Self {
        Self {
            reader: FrameReader::new(input, bounds.message),
            bounds,
            items: 0,
            events: 0,
            told: 0,
            event_bytes: 0,
            outputs: BTreeSet::new(),
            output_bytes: 0,
            pending: 0,
        }
    }

    /// The events of a cell that goes on from a context begin with this number.
    pub(crate) fn begin_at(&mut self, event: u64) {
        self.events = event;
        self.told = event;
    }

    /// A cell went back to where this event came next. What it tells again is not told the sink again: the same job does
    /// the same once more.
    pub(crate) fn back_to(&mut self, event: u64) {
        self.events = self.events.min(event);
    }

    /// The stream beneath.
    pub fn get_mut(&mut self) -> &mut R {
        self.reader.get_mut()
    }

    /// The stream beneath.
    pub fn get_ref(&self) -> &R {
        self.reader.get_ref()
    }

    /// How many events came until now.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The next thing said that is not for the sink.
    pub fn take(&mut self, sink: &mut dyn Sink) -> Result<Said, IntakeError> {
        loop {
            let item = self.reader.read::<FromCell>()?.ok_or(ProtocolError::Ended)?;
            self.items += 1;
            bound("messages", self.items, self.bounds.items)?;
            let message = match item {
                Item::Raw(bytes) => {
                    self.raw(&bytes, sink)?;
                    continue;
                }
                Item::Message(message) => message,
            };
            if self.pending > 0 {
                return Err(ProtocolError::Order("a message before an output was complete").into());
            }
            return Ok(match message {
                FromCell::Events { events } => {
                    self.take_events(events, sink)?;
                    continue;
                }
                FromCell::Output { port, name, length } => {
                    self.output(port, name, length, sink)?;
                    continue;
                }
                FromCell::Ready { protocol, .. } if protocol != PROTOCOL => {
                    return Err(ProtocolError::Version { theirs: protocol }.into());
                }
                FromCell::Ready {
                    engine,
                    identity,
                    confinement,
                    ..
                } => Said::Ready {
                    engine: short(engine),
                    identity: short(identity),
                    confinement: confinement.into_iter().take(32).map(short).collect(),
                },
                FromCell::Done { result } => Said::Done(result),
                FromCell::Failed { reason } => Said::Failed(short(reason)),
                FromCell::Did { operation } => Said::Did(operation),
                FromCell::Saved { events, .. } if events != self.events => {
                    return Err(ProtocolError::Order("a context of another place in the events").into());
                }
                FromCell::Saved { start, length, .. } => Said::Saved { start, length },
                FromCell::Dumped { start, cores } => Said::Dumped { start, cores },
                FromCell::Refused { operation, reason } => Said::Refused(operation, short(reason)),
                FromCell::Unsupported { engine, operation } => Said::Unsupported(short(engine), operation),
            });
        }
    }

    fn take_events(&mut self, mut events: Vec<Event>, sink: &mut dyn Sink) -> Result<(), IntakeError> {
        for event in &events {
            if event.seq != self.events {
                return Err(ProtocolError::Order("events out of sequence").into());
            }
            self.events += 1;
        }
        bound("events", self.events, self.bounds.events)?;
        self.event_bytes = self.event_bytes.saturating_add(self.reader.last_message_bytes());
        bound("bytes of events", self.event_bytes, self.bounds.event_bytes)?;
        let told = self.told;
        events.retain(|event| event.seq >= told);
        self.told = told.max(self.events);
        match events.is_empty() {
            true => Ok(()),
            false => sink.events(events).map_err(IntakeError::Sink),
        }
    }

    fn output(
        &mut self,
        port: String,
        name: String,
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), IntakeError> {
        self.output_bytes = self.output_bytes.saturating_add(length);
        bound("bytes of outputs", self.output_bytes, self.bounds.output_bytes)?;
        let key = (short(port), short(name));
        sink.output_begins(&key.0, &key.1, length)
            .map_err(IntakeError::Sink)?;
        if !self.outputs.insert(key) {
            return Err(ProtocolError::Order("the same output twice").into());
        }
        bound("outputs", self.outputs.len() as u64, self.bounds.outputs)?;
        self.pending = length;
        if length == 0 {
            sink.output_ends().map_err(IntakeError::Sink)?;
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), IntakeError> {
        if self.pending == 0 {
            return Err(ProtocolError::Order("raw bytes without an output").into());
        }
        self.pending = self
            .pending
            .checked_sub(bytes.len() as u64)
            .ok_or(ProtocolError::Order("more bytes than the output announced"))?;
        sink.output_bytes(bytes).map_err(IntakeError::Sink)?;
        if self.pending == 0 {
            sink.output_ends().map_err(IntakeError::Sink)?;
        }
        Ok(())
    }
}

fn bound(what: &'static str, there: u64, limit: u64) -> Result<(), ProtocolError> {
    match there > limit {
        true => Err(ProtocolError::TooMuch { what, limit }),
        false => Ok(()),
    }
}

fn short(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}
