//! Commands about hotcell itself.

use std::path::PathBuf;

use clap::Args;

/// `hotcell doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write; `.toml`, `.yaml` or `.yml`
    #[arg(default_value = "hotcell.toml")]
    pub file: PathBuf,
}

/// `hotcell schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which schema
    #[arg(default_value = "manifest")]
    pub name: String,
    /// Print the names of all schemas
    #[arg(long)]
    pub list: bool,
}

/// `hotcell syscalls`.
#[derive(Debug, Args)]
pub(crate) struct SyscallsArgs {
    /// Only these, by name
    pub names: Vec<String>,
    /// Only calls of this architecture, with their numbers
    #[arg(long)]
    pub arch: Option<String>,
    /// Only calls that are supported so far: full, partial, refused, missing
    #[arg(long, value_enum)]
    pub support: Vec<SupportLevel>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// How far a call is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SupportLevel {
    /// As Linux does it
    Full,
    /// Some of it
    Partial,
    /// Always answered with an error, on purpose
    Refused,
    /// Answered with ENOSYS
    Missing,
}

/// `hotcell completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `hotcell man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write the pages into
    #[arg(long, value_name = "DIR", default_value = "man")]
    pub out: PathBuf,
}
