//! What the runner asks of a cell process, and what the cell answers at the end.
//!
//! A cell has no files: everything it needs is in its [`Job`], and bytes are [`Blob`]s, sealed memory files whose
//! descriptors the cell inherits. Everything a cell says is hostile input to the runner.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arch::ArchProfile;
use crate::deny::Deny;
use crate::digest::Digest;
use crate::elf::ElfInfo;
use crate::event::Support;
use crate::finding::Finding;
use crate::guest::{Address, Hex};
use crate::internet::Internet;
use crate::outcome::Outcome;
use crate::persona::Persona;
use crate::respond::Response;
use crate::sysroot::Sysroot;
use crate::unpack::{UnpackJob, UnpackResult};

/// Bytes handed to a cell: the index of an inherited descriptor, and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Index in the list of descriptors that were passed with the job.
    pub index: u32,
    /// Length in bytes.
    pub length: u64,
}

/// What a cell is asked to do. One job a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Run a Linux program over the emulated kernel.
    Linux(Box<LinuxJob>),
    /// Run raw code.
    Payload(Box<PayloadJob>),
    /// Look at an executable file without running it.
    Inspect(InspectJob),
    /// Read an archive.
    Unpack(UnpackJob),
}

/// A Linux program to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinuxJob {
    /// The instance's name, for the event stream's header.
    pub cell: String,
    /// The architecture.
    pub arch: ArchProfile,
    /// Whether it runs on the host's own processor, where the engine is the host's Linux; otherwise under an emulator.
    #[serde(default)]
    pub native: bool,
    /// The machine to be.
    pub persona: Persona,
    /// The executable.
    pub program: Blob,
    /// Guest path at which it stands.
    pub path: String,
    /// Arguments, argv\[0\] first.
    pub argv: Vec<String>,
    /// Environment; absent: the persona's.
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory; absent: the persona's.
    pub cwd: Option<String>,
    /// The root that the guest finds, over what the persona makes.
    pub sysroot: Option<Sysroot>,
    /// The simulated internet; absent: the guest has its loopback alone.
    pub internet: Option<Internet>,
    /// Further files of the guest, over all others.
    pub files: Vec<GuestFile>,
    /// What standard input holds; absent: empty.
    pub stdin: Option<Blob>,
    /// Seed of all chance in the guest.
    pub seed: Digest,
    /// What is written down of it beside what it does.
    pub watch: Watch,
    /// What it may not do.
    #[serde(default, skip_serializing_if = "Deny::is_empty")]
    pub deny: Deny,
    /// Deterministic limits.
    pub limits: GuestLimits,
}

/// What is written down of a run beside what it does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    /// Which blocks of code ran.
    pub coverage: bool,
    /// Calls of libraries.
    pub library_calls: bool,
    /// Where memory is dumped: names of system calls, and [`Watch::END`].
    pub dump: Vec<String>,
    /// A guest on the host's Linux is watched by its own cell: how calls of the host's architecture look. Absent: somebody outside
    /// watches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traced: Option<Box<ArchProfile>>,
}

impl Watch {
    /// The name among `dump` that is no call: when a process ends.
    pub const END: &str = "end";
}

impl LinuxJob {
    /// All blobs that the job names.
    pub fn blobs(&self) -> impl Iterator<Item = Blob> {
        let files = self.files.iter().map(|file| file.content);
        let web = self.internet.as_ref().and_then(|internet| internet.web);
        let roots = [self.sysroot, web].into_iter().flatten();
        let roots = roots.flat_map(|root| [root.index, root.content]);
        [Some(self.program), self.stdin]
            .into_iter()
            .flatten()
            .chain(roots)
            .chain(files)
    }
}

/// A file put into the guest before it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Absolute guest path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Blob,
}

/// Limits whose reaching is a deterministic outcome of the sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestLimits {
    /// Virtual time in nanoseconds.
    pub virtual_time: u64,
    /// Events in the stream.
    pub events: u64,
    /// System calls.
    pub syscalls: u64,
    /// Instructions, counted by blocks; absent: not counted, and the guest runs at full speed.
    pub instructions: Option<u64>,
    /// Guest memory in bytes, all processes together.
    pub memory: u64,
    /// Processes and threads at once.
    pub tasks: u32,
    /// Bytes in all files the guest writes, standard output and error included.
    pub file_bytes: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            virtual_time: 60_000_000_000,
            events: 1_000_000,
            syscalls: 10_000_000,
            instructions: None,
            memory: 1 << 30,
            tasks: 64,
            file_bytes: 64 << 20,
        }
    }
}

/// Raw code to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayloadJob {
    /// The instance's name.
    pub cell: String,
    /// The architecture.
    pub arch: ArchProfile,
    /// The code.
    pub code: Blob,
    /// Where it is mapped (read, write and execute; a multiple of 4096) and starts. Bit 0 set on arm: Thumb.
    pub address: Address,
    /// Where it ends: execution stops when it gets there. Absent: the end of the code.
    pub until: Option<Address>,
    /// Registers before the start, by name.
    pub registers: BTreeMap<String, Address>,
    /// Memory before the start.
    pub memory: Vec<MemoryIn>,
    /// Registers wanted afterwards; empty: all general ones.
    pub want_registers: Vec<String>,
    /// Memory wanted afterwards.
    pub want_memory: Vec<MemoryOut>,
    /// Greatest number of instructions.
    pub instructions: u64,
    /// How many executed instructions are recorded with their disassembly; 0: none.
    pub trace: u32,
}

/// Memory mapped before raw code runs (read and write).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryIn {
    /// First address.
    pub address: Address,
    /// Length in bytes of what is mapped; at least the content's.
    #[serde(default)]
    pub length: u64,
    /// Content from the first address on; the rest is zero.
    #[serde(default)]
    pub bytes: Hex,
}

/// Memory read after raw code ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryOut {
    /// First address.
    pub address: Address,
    /// Length in bytes, at most 1 MiB.
    pub length: u64,
}

/// A file to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectJob {
    /// The file.
    pub file: Blob,
    /// All profiles, to name the architecture and to disassemble.
    pub profiles: Vec<ArchProfile>,
    /// Greatest number of strings kept.
    pub max_strings: u32,
    /// Whether entry and symbols are disassembled.
    pub disassemble: bool,
}

/// What a cell answers when its job is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobResult {
    /// The Linux program ended, in whatever way.
    Linux(LinuxResult),
    /// The raw code ended, in whatever way.
    Payload(PayloadResult),
    /// What is in the file.
    Inspect(Box<InspectResult>),
    /// What is in the archive, or that it was sent.
    Unpack(UnpackResult),
}

/// How a Linux program's run ended (port `result` of `unicorn/linux`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinuxResult {
    /// The sample's outcome.
    pub outcome: Outcome,
    /// Name of the arch profile.
    pub arch: String,
    /// Virtual nanoseconds that passed.
    pub virtual_time: u64,
    /// System calls made.
    pub syscalls: u64,
    /// Events in the stream.
    pub events: u64,
    /// Processes and threads that ever were.
    pub tasks: u32,
    /// Calls that the engine does not fully support, by name.
    pub unsupported: Vec<UnsupportedCall>,
    /// Files that the sample made or changed and left behind, by path.
    pub files: Vec<LeftFile>,
    /// Files and folders that it left and that are not among them: no path reaches them, or there was no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// Code that it wrote and ran, in order: `layer-PID-N.elf`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LeftFile>,
    /// Dumps of memory: `PID-CALL.core`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dumps: Vec<LeftFile>,
    /// Which code ran: `PID-N.drcov`, the n-th program of a process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<LeftFile>,
    /// What was done about it while it ran, in the order of the events that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Response>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl LinuxResult {
    /// A run with this outcome, and nothing else to tell.
    pub fn new(outcome: Outcome, arch: &str) -> Self {
        Self {
            outcome,
            arch: arch.to_owned(),
            virtual_time: 0,
            syscalls: 0,
            events: 0,
            tasks: 0,
            unsupported: Vec::new(),
            files: Vec::new(),
            left_out: 0,
            layers: Vec::new(),
            dumps: Vec::new(),
            coverage: Vec::new(),
            responses: Vec::new(),
        }
    }

    /// The files that are outputs, by port.
    pub fn ports(&self) -> [(&'static str, &[LeftFile]); 4] {
        [
            ("files", &self.files),
            ("layers", &self.layers),
            ("dumps", &self.dumps),
            ("coverage", &self.coverage),
        ]
    }
}

/// A call that the engine does not fully support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnsupportedCall {
    /// Its name.
    pub name: String,
    /// How far it is supported.
    pub support: Support,
    /// What is missing, as the table says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// How often it was called.
    pub count: u64,
}

impl UnsupportedCall {
    /// Whether it was answered with an error for want of support. Others were answered, and may have been in full: what is missing
    /// of them need not be what was asked for.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.support, Support::Missing | Support::Refused)
    }
}

/// A file that a sample left behind, or that was made of what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftFile {
    /// Absolute guest path; of what was made, a name.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub length: u64,
    /// Digest of the content.
    pub digest: Digest,
}

/// How raw code ended (port `result` of `unicorn/payload`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PayloadResult {
    /// The outcome.
    pub outcome: Outcome,
    /// Name of the arch profile.
    pub arch: String,
    /// Instructions executed (a MIPS branch and its delay slot count as Unicorn counts them: one).
    pub instructions: u64,
    /// Registers afterwards.
    pub registers: BTreeMap<String, Address>,
    /// Memory afterwards, in the order it was asked for.
    pub memory: Vec<MemoryIn>,
    /// The instructions executed, as far as they were wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TracedInstruction>,
    /// Traced instructions on whose length emulator and disassembler disagree.
    pub disagreements: u64,
}

/// One executed instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TracedInstruction {
    /// Where.
    pub address: Address,
    /// Its bytes.
    pub bytes: Hex,
    /// capstone's text; empty where it cannot decode the bytes.
    pub text: String,
}

/// What inspection found (ports `info` and `findings` of `inspect/elf`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectResult {
    /// The facts.
    pub info: ElfInfo,
    /// What is wrong or remarkable.
    pub findings: Vec<Finding>,
}
