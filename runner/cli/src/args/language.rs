//! Commands about the language of manifests.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ManifestArgs;

/// `hotcell validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Print what is wrong as JSON on standard output (`hotcell schema diagnostics`)
    #[arg(long)]
    pub json: bool,
}

/// `hotcell fmt`.
#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    /// The document, TOML or YAML
    pub file: PathBuf,
    /// Write it in this language [default: the one it is in]
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    pub to: Option<Language>,
    /// Write nothing; end with 1 when the document is not as it would be written
    #[arg(long, conflicts_with_all = ["write", "to"])]
    pub check: bool,
    /// Write the file instead of standard output; with --to, the file with the other ending
    #[arg(long)]
    pub write: bool,
}

/// Languages of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// TOML
    Toml,
    /// YAML
    Yaml,
}

/// `hotcell help`.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// Codes (E0101), or a command
    #[arg(value_name = "CODE|COMMAND")]
    pub topic: Vec<String>,
    /// List every code
    #[arg(long)]
    pub list: bool,
}
