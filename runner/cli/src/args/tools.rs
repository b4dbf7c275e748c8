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
}

/// `hotcell completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}
