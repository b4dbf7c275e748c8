//! What can be told of a cell that broke, before its process is let go of.

use std::io;
use std::time::Duration;

use hotcell_schema::fault::FaultKind;
use nix::errno::Errno;

use super::{Ending, Interruption, ProcessCell};
use crate::contract::CellFault;
use crate::supervise::Exit;

/// What the host knows of a cell that broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostMortem {
    /// What kind of fault it was.
    pub kind: FaultKind,
    /// How its process ended, where the host can tell.
    pub exit: Option<Exit>,
    /// The end of its error output: hostile bytes, made text.
    pub errors: String,
    /// How many events it had sent.
    pub events: u64,
    /// How long its process was there.
    pub lived: Duration,
}

impl ProcessCell {
    /// The cell's process on this host.
    pub fn process_id(&self) -> i32 {
        self.intake.get_ref().child.id()
    }

    /// What is known of its end; `None` where no fault ended it: it did its job, still runs, or was stopped by a person.
    pub fn post_mortem(&mut self) -> Option<PostMortem> {
        let kind = self.fault?;
        let channel = self.intake.get_mut();
        channel.drain_errors();
        Some(PostMortem {
            kind,
            exit: channel.child.exit(),
            errors: channel.error_text(),
            events: self.intake.events(),
            lived: self.intake.get_ref().started.elapsed(),
        })
    }

    pub(super) fn failed(&mut self, kind: FaultKind, why: String) -> Ending {
        self.fault = Some(kind);
        Ending::Failed(why)
    }

    pub(super) fn ended_by(&mut self, why: Interruption) -> Ending {
        self.fault = why.fault();
        Ending::Interrupted(why)
    }
}

impl CellFault {
    /// Whether the host lacked something that it may have again later: room for one more process, memory, descriptors.
    pub fn lacks_room(&self) -> bool {
        let Self::Host { source, .. } = self else {
            return false;
        };
        let number = source.raw_os_error().map(Errno::from_raw);
        let lacking = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE];
        // A step of the child's tells the kind alone.
        number.is_some_and(|number| lacking.contains(&number))
            || matches!(
                source.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
            )
    }
}

impl Interruption {
    /// The kind of fault that this is; `None` where a person wanted it.
    pub fn fault(&self) -> Option<FaultKind> {
        Some(match self {
            Self::WallTime => FaultKind::WallTime,
            Self::CpuTime => FaultKind::CpuTime,
            Self::Memory => FaultKind::Memory,
            Self::Tasks => FaultKind::Tasks,
            Self::Room => FaultKind::Room,
            Self::Killed => FaultKind::Killed,
            Self::Stopped | Self::Ordered(_) => return None,
        })
    }
}

/// The kind of fault of a process that ended without a result.
pub(super) fn kind_of(exit: Exit) -> FaultKind {
    match exit {
        Exit::Signal(libc::SIGSYS) => FaultKind::ForbiddenCall,
        Exit::Signal(_) => FaultKind::EngineCrash,
        Exit::Code(_) => FaultKind::NoResult,
    }
}
