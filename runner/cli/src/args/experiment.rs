//! Commands about a manifest.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A manifest and how it is changed from outside.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManifestArgs {
    /// The manifest, TOML or YAML
    pub manifest: PathBuf,
    /// Apply a variant of the manifest (can be given several times)
    #[arg(long, value_name = "NAME")]
    pub variant: Vec<String>,
    /// Set a key, after includes and variants (can be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A listed sample that its source does not have is an error; without this, what is about it is skipped
    #[arg(long)]
    pub require_samples: bool,
}

/// `hotcell plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Which part.
    #[command(flatten)]
    pub choose: ChooseArgs,
    /// Cells at once that the run would have [default: number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: Option<u32>,
    /// Show every instance
    #[arg(long)]
    pub all: bool,
    /// Print as JSON (`hotcell schema forecast`)
    #[arg(long)]
    pub json: bool,
    /// Draw the stages and what goes from one to the other
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["json", "all"])]
    pub graph: Option<GraphFormat>,
    /// With --graph: draw every instance, at most 2,000
    #[arg(long, requires = "graph")]
    pub graph_instances: bool,
    /// With --graph or --json: write to a file
    #[arg(short, long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What a plan is drawn as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// For Graphviz
    Dot,
    /// For pages that draw Mermaid, as those of code forges do
    Mermaid,
    /// A picture that any browser shows
    Svg,
}

/// Which part of an experiment, and whether it must be what was locked.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ChooseArgs {
    /// Only these stages or instances, with what they need (can be given several times)
    ///
    /// The pattern fits a stage's name, or an instance's full or short name. `*` stands for any characters, `?` for one.
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Everything up to and including a stage (can be given several times)
    #[arg(long, value_name = "STAGE")]
    pub until: Vec<String>,
    /// Only what did not end well in the latest run of this experiment, with what it needs
    #[arg(long)]
    pub rerun_failed: bool,
    /// Refuse to go on when anything is not as hotcell.lock pins it (exit code 2)
    #[arg(long)]
    pub locked: bool,
}

/// How stages are run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExecuteArgs {
    /// Cells at once [default: number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: Option<u32>,
    /// Stop at the first stage that fails
    #[arg(long)]
    pub fail_fast: bool,
    /// Go on when a stage fails, with all that does not need it: the default
    #[arg(short, long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
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
    /// Which part.
    #[command(flatten)]
    pub choose: ChooseArgs,
    /// Only show what would run, as `hotcell plan` does; writes nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// `hotcell watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Run the experiment after each change, instead of showing what would run
    #[arg(long)]
    pub run: bool,
    /// Run and test the experiment after each change
    #[arg(long, conflicts_with = "run")]
    pub test: bool,
    /// Which part.
    #[command(flatten)]
    pub choose: ChooseArgs,
    /// How.
    #[command(flatten)]
    pub execute: ExecuteArgs,
}

/// `hotcell lock`.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Write nothing, and say what is not as it was pinned (exit code 2)
    #[arg(long)]
    pub check: bool,
}

/// `hotcell explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The manifest.
    #[command(flatten)]
    pub manifest: Option<ManifestArgs>,
    /// Say what changed in the keys from one run to another, instead: folders or ids
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "manifest")]
    pub between: Vec<String>,
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
    /// Which part: only that is judged.
    #[command(flatten)]
    pub choose: ChooseArgs,
    /// Only show what would run, as `hotcell plan` does; writes nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Write what came out as the new goldens (refused where CI is set)
    #[arg(long)]
    pub accept: bool,
    /// With --accept: run this often, so that stages whose results differ from run to run learn what must be and what may be,
    /// and commands that are not as exact as they say are found and refused [default: 3 where a stage that differs has no
    /// golden yet, else 1, which only allows more]
    #[arg(long, value_name = "N", requires = "accept", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: Option<u32>,
    /// Go through what differs from the goldens, one change at a time: accept, reject or skip it
    #[arg(long, conflicts_with_all = ["accept", "json"])]
    pub review: bool,
    /// Show changes in full, however long
    #[arg(long)]
    pub full: bool,
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
    /// The same, after `--`
    #[arg(last = true, value_name = "ARGS", conflicts_with = "args")]
    pub rest: Vec<String>,
    /// What the guest's root is made of: a folder, an archive or a Debian package; several times, the later over the earlier
    #[arg(long, value_name = "PLACE")]
    pub sysroot: Vec<PathBuf>,
    /// The architecture of files that do not say theirs, for instance scripts
    #[arg(long)]
    pub arch: Option<String>,
    /// Write down which blocks of code run (drcov)
    #[arg(long)]
    pub coverage: bool,
    /// Tell what dynamically linked programs call in their libraries
    #[arg(long)]
    pub library_calls: bool,
    /// Dump memory before the first such system call of each process, or at the `end` of each program; several times
    #[arg(long, value_name = "CALL")]
    pub dump: Vec<String>,
    /// What each file reads from its standard input
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// What is beyond the guest: nothing, or a simulated internet that answers everything
    #[arg(long, value_name = "NETWORK", value_parser = ["none", "sink"])]
    pub network: Option<String>,
    /// Whose machine the guest believes to be on: `server`, `desktop`, `router`
    #[arg(long, value_name = "NAME")]
    pub persona: Option<String>,
    /// What runs the files
    #[arg(long, value_name = "ENGINE", value_parser = ["unicorn", "qemu-user", "native"], default_value = "unicorn")]
    pub engine: String,
    /// Another limit than these: wall=5m, and with `unicorn` virtual-time=5m, instructions=500000000; several times
    #[arg(long, value_name = "LIMIT=VALUE")]
    pub limit: Vec<String>,
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
