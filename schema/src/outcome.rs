//! A stage's status speaks of our machinery; a sample's outcome is data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guest::{Address, Hex};

/// How a stage instance ended, for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It ran and its outputs are stored, whatever the sample did.
    Ok,
    /// Its outputs were in the store already. (Only in `run.json`: a result says `ok`.)
    Cached,
    /// Our machinery broke: the cell crashed, or broke the protocol.
    Failed,
    /// A limit of the host ended it (CPU, memory, wall time where nothing could be kept), or the person did.
    Interrupted,
    /// It was not wanted: its `when` was false, or what it needs did not end well.
    Skipped,
    /// It cannot be done here, or with these settings.
    Refused,
}

impl Status {
    /// The word that documents have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }

    /// Whether its outputs can be used.
    pub fn has_outputs(self) -> bool {
        matches!(self, Self::Ok | Self::Cached)
    }

    /// Whether it was wanted and did not come about.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Interrupted | Self::Refused)
    }
}

/// How the sample itself ended. A crashing sample is a good result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first process ended by itself, with this exit code.
    Exited(i32),
    /// A signal ended the first process, for instance `SIGSEGV`.
    Signalled(String),
    /// The processor could not go on and there was no signal to deliver (raw code).
    Faulted(Fault),
    /// A limit was met; holds the limit's name in the manifest. `wall` is the host's: where it ended the run differs from run to run.
    Limit(String),
    /// The engine cannot run it; holds the reason.
    Unsupported(String),
    /// Raw code came to its end address.
    Completed,
    /// A rule ended it (`with.respond`); holds the rule's id.
    Ended(String),
}

impl Outcome {
    /// Every kind, as [`Outcome::kind`] says it.
    pub const KINDS: [&'static str; 7] = [
        "exited",
        "signalled",
        "faulted",
        "limit",
        "unsupported",
        "completed",
        "ended",
    ];

    /// The host's time for the run was over: the limit `wall` of the manifest.
    pub fn wall_time() -> Self {
        Self::Limit("wall".into())
    }

    /// Whether the host's clock ended it, so that another run may end elsewhere.
    pub fn is_of_wall_time(&self) -> bool {
        matches!(self, Self::Limit(limit) if limit == "wall")
    }

    /// The kind in one word: `exited`, `signalled`, `faulted`, `limit`, `unsupported`, `completed`, `ended`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Signalled(_) => "signalled",
            Self::Faulted(_) => "faulted",
            Self::Limit(_) => "limit",
            Self::Unsupported(_) => "unsupported",
            Self::Completed => "completed",
            Self::Ended(_) => "ended",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited {code}"),
            Self::Signalled(signal) => write!(f, "signalled {signal}"),
            Self::Faulted(fault) => write!(f, "faulted: {} at {}", fault.kind.as_str(), fault.pc),
            Self::Limit(limit) => write!(f, "limit {limit}"),
            Self::Unsupported(reason) => write!(f, "unsupported: {reason}"),
            Self::Completed => f.write_str("completed"),
            Self::Ended(rule) => write!(f, "ended by rule {rule}"),
        }
    }
}

/// Why a processor could not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// Where: the program counter.
    pub pc: Address,
    /// The data address, for memory faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The bytes at the program counter, as far as they can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Hex>,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A read of memory that is not mapped.
    ReadUnmapped,
    /// A write to memory that is not mapped.
    WriteUnmapped,
    /// Execution of memory that is not mapped.
    FetchUnmapped,
    /// A read of memory that may not be read.
    ReadProtected,
    /// A write to memory that may not be written.
    WriteProtected,
    /// Execution of memory that may not be executed.
    FetchProtected,
    /// An address that is not aligned as the instruction needs it.
    Unaligned,
    /// An instruction that the processor does not know.
    IllegalInstruction,
    /// A breakpoint instruction.
    Breakpoint,
    /// A division by zero, or another arithmetic trap.
    Arithmetic,
    /// Any other processor exception.
    Exception,
    /// A clock or source of chance of the host was read and could not be answered from virtual time.
    HostClock,
}

impl FaultKind {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadUnmapped => "read-unmapped",
            Self::WriteUnmapped => "write-unmapped",
            Self::FetchUnmapped => "fetch-unmapped",
            Self::ReadProtected => "read-protected",
            Self::WriteProtected => "write-protected",
            Self::FetchProtected => "fetch-protected",
            Self::Unaligned => "unaligned",
            Self::IllegalInstruction => "illegal-instruction",
            Self::Breakpoint => "breakpoint",
            Self::Arithmetic => "arithmetic",
            Self::Exception => "exception",
            Self::HostClock => "host-clock",
        }
    }
}
