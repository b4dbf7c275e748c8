//! The contract of every cell, whatever its engine.

use std::io::Write;

use hotcell_schema::job::Job;
use serde::{Deserialize, Serialize};

use crate::dump::Core;

/// What can be asked of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Begin the job.
    Start,
    /// Hold still at the next safe point.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End soon, with what there is.
    Stop,
    /// End the guest's run at the next safe point, because its wall time is up, and hand over what it gave until then.
    Finish,
    /// End now.
    ForceStop,
    /// Keep registers, memory and devices.
    SaveContext,
    /// Go back to what was kept.
    LoadContext,
    /// Write the memory of what runs as core files.
    Dump,
    /// Run one guest instruction.
    RunOneInstruction,
    /// Run one slice of guest execution.
    RunOneSlice,
    /// Tell what was used.
    Usage,
    /// Change a limit.
    SetLimit,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Finish => "finish",
            Self::ForceStop => "force-stop",
            Self::SaveContext => "save-context",
            Self::LoadContext => "load-context",
            Self::Dump => "dump",
            Self::RunOneInstruction => "run-one-instruction",
            Self::RunOneSlice => "run-one-slice",
            Self::Usage => "usage",
            Self::SetLimit => "set-limit",
        })
    }
}

/// A limit of the host on a cell. Reaching one interrupts the cell; only that of wall time is an outcome of the sample, where its
/// engine can end a run ([`Operation::Finish`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Wall time from the start, in milliseconds.
    WallMillis(u64),
    /// CPU time in seconds.
    CpuSeconds(u64),
    /// Address space in bytes.
    AddressSpace(u64),
    /// Memory really used, in bytes.
    Memory(u64),
}

/// What a cell has used, as the host's kernel measured it; never as the cell says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Greatest resident memory in KiB.
    pub peak_kib: u64,
}

/// Why an operation on a cell did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CellFault {
    /// The engine cannot do it.
    #[error("engine `{engine}` cannot {operation}")]
    Unsupported {
        /// The engine.
        engine: String,
        /// What it was asked.
        operation: Operation,
    },
    /// The engine could do it, but not now or not this one; holds why.
    #[error("cannot {operation}: {reason}")]
    Refused {
        /// What it was asked.
        operation: Operation,
        /// Why not.
        reason: String,
    },
    /// A saved context does not fit.
    #[error(transparent)]
    Context(#[from] crate::context::ContextError),
    /// The cell broke the protocol.
    #[error("the cell broke the protocol: {0}")]
    Protocol(#[from] crate::protocol::ProtocolError),
    /// The host refused a step.
    #[error("{doing}: {source}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
    /// A limit of the host, or a person, ended the cell.
    #[error("{0}")]
    Interrupted(crate::process::Interruption),
    /// The cell process is gone.
    #[error("the cell process has ended")]
    Ended,
    /// The cell gave up and says why.
    #[error("the cell failed: {0}")]
    Failed(String),
}

/// One machine in one host process.
pub trait Cell {
    /// Begins the job. Bytes the job names were handed over when the process was made.
    fn start(&mut self, job: &Job) -> Result<(), CellFault>;
    /// Asks the cell to hold still at its next safe point.
    fn pause(&mut self) -> Result<(), CellFault>;
    /// Lets a paused cell go on.
    fn resume(&mut self) -> Result<(), CellFault>;
    /// Asks the cell to end soon, with what there is.
    fn stop(&mut self) -> Result<(), CellFault>;
    /// Ends the cell now; nothing of it remains.
    fn force_stop(&mut self) -> Result<(), CellFault>;
    /// Keeps registers, memory and devices as they are at the next safe point, for rollback or for going on elsewhere.
    /// What was kept before is forgotten.
    fn save_context(&mut self) -> Result<(), CellFault>;
    /// Goes back to what was kept last.
    fn load_context(&mut self) -> Result<(), CellFault>;
    /// Writes memory and registers of each process of the guest as an ELF core file, one behind the other, as they are at the
    /// next safe point, and tells names and lengths. What runs does not notice.
    fn dump(&mut self, to: &mut dyn Write) -> Result<Vec<Core>, CellFault>;
    /// Runs one instruction of the task whose turn it is; the cell must be paused, and is again.
    fn run_one_instruction(&mut self) -> Result<(), CellFault>;
    /// Runs one slice of guest execution: 20,000 blocks, of whatever tasks. The cell must be paused, and is again.
    fn run_one_slice(&mut self) -> Result<(), CellFault>;
    /// What the cell has used until now.
    fn usage(&mut self) -> Result<Usage, CellFault>;
    /// Changes a limit of the running cell.
    fn set_limit(&mut self, limit: Limit) -> Result<(), CellFault>;
}
