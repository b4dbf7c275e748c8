//! What a cell keeps in its area: contexts, and core files for the moment until they are copied.

use std::io::{self, Write};

use super::ProcessCell;
use crate::context::{self, Facts};
use crate::contract::{CellFault, Operation};
use crate::dump::{self, Core};
use crate::protocol::ProtocolError;

/// A context in the area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) events: u64,
}

/// Core files in the area, one behind the other.
#[derive(Debug)]
pub(super) struct Dumped {
    start: u64,
    length: u64,
    cores: Vec<Core>,
}

impl ProcessCell {
    /// A cell says that it saved a context there.
    pub(super) fn kept(&mut self, start: u64, length: u64) -> Result<(), CellFault> {
        let events = self.intake.events();
        self.kept = Some(Kept {
            start,
            length,
            events,
        });
        match self.area.range(start, length) {
            Some(_) => Ok(()),
            None => Err(ProtocolError::Order("a context beyond its area").into()),
        }
    }

    /// A cell says that it wrote core files there.
    pub(super) fn dumped(&mut self, start: u64, cores: Vec<Core>) -> Result<(), CellFault> {
        let length = dump::check(&cores)?;
        if self.area.range(start, length).is_none() {
            return Err(ProtocolError::Order("core files beyond their area").into());
        }
        self.dumped = Some(Dumped { start, length, cores });
        Ok(())
    }

    /// Writes the core files of the dump that was made last, one behind the other, and tells which they are. They are gone
    /// from the area then.
    pub(super) fn write_cores(&mut self, to: &mut dyn Write) -> Result<Vec<Core>, CellFault> {
        let nothing = || CellFault::Refused {
            operation: Operation::Dump,
            reason: "nothing was dumped".to_owned(),
        };
        let dumped = self.dumped.take().ok_or_else(nothing)?;
        let mut bytes = self.area.range(dumped.start, dumped.length).ok_or_else(nothing)?;
        let copied = io::copy(&mut bytes, to).and_then(|_| to.flush());
        drop(bytes);
        self.area.forget(dumped.start, dumped.length);
        copied.map_err(|source| CellFault::Host {
            doing: "writing core files",
            source,
        })?;
        Ok(dumped.cores)
    }

    /// How many bytes the context has that was kept last.
    pub fn kept_length(&self) -> Option<u64> {
        self.kept.map(|kept| kept.length)
    }

    /// Writes the context that was kept last as a file ([`context`]), and tells whose it is.
    ///
    /// # Errors
    ///
    /// If none was kept, or it cannot be written.
    pub fn write_context(&self, to: &mut dyn Write) -> Result<Facts, CellFault> {
        let nothing = || CellFault::Refused {
            operation: Operation::SaveContext,
            reason: "no context was kept".to_owned(),
        };
        let kept = self.kept.ok_or_else(nothing)?;
        let facts = Facts {
            events: kept.events,
            length: kept.length,
            ..self.facts()?
        };
        let mut body = self.area.range(kept.start, kept.length).ok_or_else(nothing)?;
        context::write(to, &facts, &mut body)?;
        Ok(facts)
    }

    /// What a context of this cell and its job is bound to.
    pub(super) fn facts(&self) -> Result<Facts, CellFault> {
        let owner = self.intake.get_ref().owner.as_ref().ok_or(CellFault::Ended)?;
        owner.facts().map_err(|source| CellFault::Host {
            doing: "finding out what a context belongs to",
            source,
        })
    }
}
