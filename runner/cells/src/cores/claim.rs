//! What a runner asks of an arbiter, be it its own or the host's, and what it is told.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::locks::Holder;
use super::schedule::{CellId, Doing, Nanos, Refusal, Request};

/// Who gives cores to the cells of a runner: an [`Arbiter`](super::arbiter::Arbiter) of its own, or that of the host.
pub trait GiveCores: std::fmt::Debug + Send + Sync {
    /// Takes over a child process: it stands still from now on, but when it is its turn. `name` is what people know it by.
    ///
    /// # Errors
    ///
    /// If it could never run here, or does not stand still.
    fn admit(&self, request: Request, pid: i32, name: &str) -> Result<Box<dyn Claim>, AdmitError>;

    /// What is known of the turns of this runner's cells that have ended; and now, in the same time as theirs.
    ///
    /// # Errors
    ///
    /// If it cannot be asked for.
    fn history(&self) -> io::Result<(History, Nanos)>;
}

/// The claim of one cell on cores. When it is dropped the cell is ended.
pub trait Claim: std::fmt::Debug + Send {
    /// The cell.
    fn cell(&self) -> CellId;

    /// How long the cell has waited for its turns until now, in all: time that it could not use.
    fn waited(&self) -> Duration;

    /// Why the cell was ended, where it was.
    fn ended_by(&self) -> Option<EndedBy>;

    /// Whether the cell shall have no turns for now: it has nothing to do.
    fn hold(&self, holds: bool);
}

/// Why an arbiter ended a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// The host could not do what was decided.
    Fault(String),
    /// A person wanted it, or a quota was used up.
    Order(String),
    /// It used more memory than it had asked for.
    Memory,
}

/// Why a cell was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It could never run here.
    #[error(transparent)]
    Never(#[from] Refusal),
    /// The host's arbiter says no.
    #[error("the host's arbiter refuses it: {0}")]
    Refused(String),
    /// The host refused a step.
    #[error("{doing}: {source}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// The arbiter is to be real-time, and may not be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the arbiter cannot be real-time ({0}): it needs CAP_SYS_NICE, and in a control group of version 1 with `cpu` some \
     `cpu.rt_runtime_us`; or say `cores.real-time = \"try\"`"
)]
pub struct NotRealTime(pub(super) io::Error);

/// What one cell is doing, for those who look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// The cell.
    pub cell: CellId,
    /// What people know it by, as its runner said.
    pub name: String,
    /// Its process.
    pub process: Holder,
    /// What it asked for.
    pub request: Request,
    /// What it is doing.
    pub doing: Doing,
    /// How long it has run, in nanoseconds.
    pub ran: Nanos,
    /// How long it has waited since it was admitted, in nanoseconds.
    pub waited: Nanos,
    /// Whether it was ended, and its runner has not noticed yet.
    pub ended: bool,
}
