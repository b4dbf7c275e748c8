//! What is known of a cell that broke, for people: `faults/<stage>/<instance>/fault.json` in a run's folder. Host facts, which
//! no result holds and nothing compares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the record's format.
pub const FORMAT: &str = "hotcell-fault";
/// Version of the record's format.
pub const VERSION: u32 = 1;
/// Name of the record's file.
pub const FILE: &str = "fault.json";
/// Name of the file beside it with the end of what the cell said on its error output.
pub const LOG: &str = "log";
/// Name of the file with the last context.
pub const CONTEXT: &str = "context";

/// What kind of fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The host could not make its process, or it ended before it was ready.
    NotStarted,
    /// A signal ended the engine: it crashed.
    EngineCrash,
    /// It made a system call that its confinement forbids.
    ForbiddenCall,
    /// Its process ended by itself, without a result.
    NoResult,
    /// What it said broke the protocol or a bound, or was not what it was asked for.
    Protocol,
    /// It said that it cannot go on.
    GaveUp,
    /// It did not end within its wall time: it hangs, or needs more.
    WallTime,
    /// It used up the host's limit of CPU time.
    CpuTime,
    /// It used up the memory that the host gave it.
    Memory,
    /// It met the limit of processes and threads.
    Tasks,
    /// It filled the room for what it writes.
    Room,
    /// Something outside of the runner ended it.
    Killed,
    /// Its cores could not be given to it, or not be taken back.
    Cores,
}

impl FaultKind {
    /// In words, as the end of a sentence about a cell.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotStarted => "could not be started",
            Self::EngineCrash => "crashed",
            Self::ForbiddenCall => "made a system call that its confinement forbids",
            Self::NoResult => "ended without a result",
            Self::Protocol => "broke the protocol",
            Self::GaveUp => "gave up",
            Self::WallTime => "did not end within its wall time",
            Self::CpuTime => "used up its CPU time",
            Self::Memory => "used up its memory",
            Self::Tasks => "met the limit of processes and threads",
            Self::Room => "filled the room for what it writes",
            Self::Killed => "was ended by something on the host",
            Self::Cores => "could not have its cores",
        }
    }
}

/// How a process ended, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessEnd {
    /// With this exit code.
    Code(i32),
    /// By this signal; `SIGKILL` is also the runner's own, after a limit or a broken protocol.
    Signal(i32),
}

/// The host's limits on the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FaultLimits {
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// CPU time in seconds.
    pub cpu_s: u64,
    /// Address space in bytes.
    pub address_space: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// What is known of one cell that broke.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FaultRecord {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The instance's name.
    pub instance: String,
    /// Its stage type.
    pub uses: String,
    /// Which attempt it was, from 1 on.
    pub attempt: u32,
    /// What kind of fault.
    pub kind: FaultKind,
    /// What happened, in words.
    pub what: String,
    /// How the process ended; absent where it never was, or the host cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ProcessEnd>,
    /// The engine, as the runner knows it.
    pub engine: String,
    /// Sequence number of the last event that came; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<u64>,
    /// CPU seconds it used (user and system).
    pub cpu_s: f64,
    /// Peak resident memory in KiB.
    pub peak_kib: u64,
    /// Wall seconds since its process was made.
    pub wall_s: f64,
    /// The limits it had.
    pub limits: FaultLimits,
    /// Layers of confinement that held it.
    pub confinement: Vec<String>,
    /// Layers that this host does not have, and what held instead.
    pub fallbacks: Vec<String>,
    /// The file beside this one with the end of its error output; absent where it said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The file beside this one with the last context that it saved, from which `hotcell cells restore` goes on in another cell
    /// of the same job; absent where it saved none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}
