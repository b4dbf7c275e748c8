//! Commands about a manifest.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A manifest and how it is changed from outside.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// The manifest, TOML or YAML
    pub manifest: PathBuf,
    /// Apply a variant of the manifest (can be given several times)
    #[arg(long, value_name = "NAME")]
    pub variant: Vec<String>,
    /// Set a key, after includes and variants (can be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `hotcell plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Print the whole plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// How stages are run.
#[derive(Debug, Args)]
pub(crate) struct ExecuteArgs {
    /// Cells at once [default: number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: Option<u32>,
    /// Stop at the first stage that fails
    #[arg(long)]
    pub fail_fast: bool,
    /// Run everything again, whatever is stored
    #[arg(long)]
    pub force: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, value_name = "STYLE")]
    pub progress: ProgressStyle,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// A line for each instance
    Plain,
    /// Nothing
    None,
}

/// `hotcell run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// How.
    #[command(flatten)]
    pub execute: ExecuteArgs,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// `hotcell explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// The instance, or the start of its name; without it: every instance in a line
    #[arg(long, short, value_name = "NAME")]
    pub instance: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// How.
    #[command(flatten)]
    pub execute: ExecuteArgs,
    /// Write what came out as the new goldens (refused where CI is set)
    #[arg(long)]
    pub accept: bool,
    /// Write a JUnit file
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Print the verdicts as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// `hotcell analyze`.
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    /// The files
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Arguments given to each file when it runs (all that follows)
    #[arg(long, num_args = 0.., allow_hyphen_values = true, value_name = "ARG")]
    pub args: Vec<String>,
    /// Only look, do not run
    #[arg(long)]
    pub no_run: bool,
    /// How.
    #[command(flatten)]
    pub execute: ExecuteArgs,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
}
