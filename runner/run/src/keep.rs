//! What a cell says, into the store as it comes: nothing is held in memory.

use std::io::{self, Write as _};

use hotcell_cells::intake::Sink;
use hotcell_schema::event::{Event, Header};
use hotcell_store::{ObjectWriter, Store, StoreError, Stored};

use crate::given::{Counted, Given};

/// Takes a cell's events and outputs.
#[derive(Debug)]
pub(crate) struct Keeper<'a> {
    store: &'a Store,
    given: &'a Given,
    /// Ports that the stage type lets its cell fill.
    ports: &'static [&'static str],
    events: Option<Counted<'a, ObjectWriter>>,
    line: Vec<u8>,
    open: Option<(String, Counted<'a, ObjectWriter>)>,
    kept: Vec<(String, Stored)>,
    /// What the cell did that it must not do; its result is then worth nothing.
    violation: Option<String>,
}

/// Everything a cell gave.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The event stream, where one was wanted.
    pub events: Option<Stored>,
    /// Outputs by port, in the order they came.
    pub outputs: Vec<(String, Stored)>,
}

impl Kept {
    /// The first output of a port.
    pub(crate) fn output(&self, port: &str) -> Option<Stored> {
        self.outputs
            .iter()
            .find(|(name, _)| name == port)
            .map(|(_, stored)| *stored)
    }
}

impl<'a> Keeper<'a> {
    /// Keeps outputs of the given ports, and events where a header is given.
    pub(crate) fn new(
        store: &'a Store,
        given: &'a Given,
        ports: &'static [&'static str],
        header: Option<&Header>,
    ) -> io::Result<Self> {
        let mut keeper = Self {
            store,
            given,
            ports,
            events: None,
            line: Vec::new(),
            open: None,
            kept: Vec::new(),
            violation: None,
        };
        if let Some(header) = header {
            let mut writer = given.counted(store.writer().map_err(into_io)?);
            serde_json::to_writer(&mut writer, header)?;
            writer.write_all(b"\n")?;
            keeper.events = Some(writer);
        }
        Ok(keeper)
    }

    /// The first output of a port, of those that came so far.
    pub(crate) fn output(&self, port: &str) -> Option<Stored> {
        let found = self.kept.iter().find(|(name, _)| name == port);
        found.map(|(_, stored)| *stored)
    }

    /// The cell did its job: everything it gave is stored. An inner error is the cell's fault.
    pub(crate) fn finish(self) -> Result<Result<Kept, String>, StoreError> {
        if let Some(violation) = self.violation {
            return Ok(Err(violation));
        }
        let events = self.events.map(|events| events.into_inner().finish());
        let events = events.transpose()?;
        Ok(Ok(Kept {
            events,
            outputs: self.kept,
        }))
    }
}

impl Sink for Keeper<'_> {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        let Some(writer) = &mut self.events else {
            self.violation
                .get_or_insert_with(|| "it sent events, and its stage type has none".into());
            return Ok(());
        };
        for event in &events {
            self.line.clear();
            serde_json::to_writer(&mut self.line, event)?;
            self.line.push(b'\n');
            writer.write_all(&self.line)?;
        }
        Ok(())
    }

    fn output_begins(&mut self, port: &str, _name: &str, _length: u64) -> io::Result<()> {
        if self.ports.contains(&port) {
            let writer = self.store.writer().map_err(into_io)?;
            self.open = Some((port.to_owned(), self.given.counted(writer)));
        } else {
            self.violation.get_or_insert_with(|| {
                format!("it sent an output `{port}`, which its stage type does not have")
            });
        }
        Ok(())
    }

    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some((_, writer)) => writer.write_all(bytes),
            None => Ok(()),
        }
    }

    fn output_ends(&mut self) -> io::Result<()> {
        if let Some((port, writer)) = self.open.take() {
            let stored = writer.into_inner().finish().map_err(into_io)?;
            self.kept.push((port, stored));
        }
        Ok(())
    }
}

fn into_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Io(error) => error,
        other => io::Error::other(other),
    }
}
