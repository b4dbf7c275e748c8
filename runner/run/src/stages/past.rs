//! A sink that has heard the beginning already: a cell that goes on from a saved context may tell some of it again.

use std::io;

use hotcell_cells::intake::Sink;
use hotcell_schema::event::Event;

/// Lets through what is new.
pub(super) struct Past<'a, S> {
    sink: &'a mut S,
    /// Events that come and were told already.
    skip: u64,
    /// Events that were told in all.
    told: u64,
}

impl<'a, S: Sink> Past<'a, S> {
    /// The events of the next cell begin with the one of this number; so many were told.
    pub(super) fn new(sink: &'a mut S, begins: u64, told: u64) -> Self {
        let skip = told.saturating_sub(begins);
        Self { sink, skip, told }
    }

    /// Events that were told in all.
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

impl<S: Sink> Sink for Past<'_, S> {
    fn events(&mut self, mut events: Vec<Event>) -> io::Result<()> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(events.len());
        self.skip = self.skip.saturating_sub(known as u64);
        events.drain(..known);
        self.told = self.told.saturating_add(events.len() as u64);
        self.sink.events(events)
    }

    fn output_begins(&mut self, port: &str, name: &str, length: u64) -> io::Result<()> {
        self.sink.output_begins(port, name, length)
    }

    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.output_bytes(bytes)
    }

    fn output_ends(&mut self) -> io::Result<()> {
        self.sink.output_ends()
    }
}
