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
