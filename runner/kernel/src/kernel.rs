//! The kernel's door.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, LinuxJob, LinuxResult};

use crate::machine::{Clock, Flow, Machine, MachineError, Machines, Step, Trap};

/// Takes events as they happen, in order.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: Event);
}

impl<F: FnMut(Event)> EventSink for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}

/// The program cannot be run. The job's outcome is then `Outcome::Unsupported(error.to_string())`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A blob of the job was not handed over.
    #[error("blob {0} of the job is missing")]
    MissingBlob(u32),
}

/// All that is left when a run is over.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub result: LinuxResult,
    /// What was written to standard output.
    pub stdout: Vec<u8>,
    /// What was written to standard error.
    pub stderr: Vec<u8>,
    /// Content of the files in `result.files`, by digest.
    pub files: BTreeMap<Digest, Arc<[u8]>>,
}

/// One emulated Linux with all its processes.
pub struct Kernel {
    sink: Box<dyn EventSink>,
}

impl Kernel {
    /// A kernel ready to run the job; `blobs` gives the bytes of a blob of the job. The program is parsed here; it is
    /// mapped by the first [`Kernel::next`].
    pub fn new(
        job: &LinuxJob,
        blobs: &dyn Fn(Blob) -> Option<Arc<[u8]>>,
        sink: Box<dyn EventSink>,
    ) -> Result<Self, LoadError> {
        blobs(job.program).ok_or(LoadError::MissingBlob(job.program.index))?;
        Ok(Self { sink })
    }

    /// What to run next. An error is the emulator's failure and ends the run.
    pub fn next(&mut self, machines: &mut dyn Machines) -> Result<Step, MachineError> {
        let _ = (machines, &mut self.sink);
        Ok(Step::Finished)
    }

    /// The running task made a system call. The driver has already told [`Kernel::counted`], when counting.
    pub fn syscall(&mut self, machine: &mut dyn Machine) -> Flow {
        let _ = machine;
        Flow::Stop
    }

    /// The processor cannot go on. `Continue`: what was in the way is mended, execute the instruction again.
    pub fn trap(&mut self, machine: &mut dyn Machine, trap: Trap) -> Flow {
        let _ = (machine, trap);
        Flow::Stop
    }

    /// Answers an instruction that reads a clock or source of chance.
    pub fn clock(&mut self, clock: Clock) -> u64 {
        let _ = clock;
        0
    }

    /// Blocks and instructions that ran since the last call of this, told before every `next`, `syscall`, `trap` and
    /// `clock` while the step's `blocks` is `Some`. Never called otherwise.
    pub fn counted(&mut self, blocks: u64, instructions: u64) {
        let _ = (blocks, instructions);
    }

    /// Bytes written by the guest are about to be executed (first time for this range since they were written).
    pub fn written_then_executed(&mut self, start: u64, length: u64) {
        let _ = (start, length);
    }

    /// What is left, once `next` said `Finished` (or earlier, when the host ends the run).
    pub fn finish(self) -> Finished {
        unimplemented!("written within the hour")
    }
}
