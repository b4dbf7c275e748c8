//! What can be typed: the commands, their options and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run binaries of every architecture in a sandbox, as declared in a manifest.
#[derive(Debug, Parser)]
#[command(
    name = "hotcell",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Examples:\n  \
        hotcell analyze ./suspicious.elf          look at a file and run it, without a manifest\n  \
        hotcell run experiment.toml               run an experiment\n  \
        hotcell test experiment.toml              run it and compare with its goldens and expectations\n\n\
        Exit codes:\n  \
        0  all well                     4  this host cannot do it\n  \
        1  an expectation or golden     5  something was not judged\n     \
           is not met; runs differ     10  host changes are pending\n  \
        2  bad manifest or usage      130  stopped by Ctrl-C\n  \
        3  a stage failed"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Folder for runs [default: .hotcell beside the manifest]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Folder of the content-addressed store [default: one per user, in the cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "HOTCELL_STORE")]
    pub store: Option<PathBuf>,
    /// Further folder of arch profiles (can be given several times)
    #[arg(long = "profiles", global = true, value_name = "DIR")]
    pub profiles: Vec<PathBuf>,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a manifest and show all that is wrong with it
    #[command(after_help = "Example:\n  hotcell validate experiment.yaml")]
    Validate(ManifestArgs),
    /// Show what would run, and what is stored already; writes nothing
    #[command(
        after_help = "Examples:\n  hotcell plan experiment.toml\n  hotcell plan experiment.toml --json | jq '.instances[].name'"
    )]
    Plan(PlanArgs),
    /// Run an experiment and write its report
    #[command(
        after_help = "Examples:\n  hotcell run experiment.toml\n  hotcell run experiment.toml -j 1 --fail-fast\n  hotcell run experiment.toml --set seed=8"
    )]
    Run(RunArgs),
    /// Say why an instance ran or did not, and from what its cache key is made
    #[command(after_help = "Example:\n  hotcell explain experiment.toml -i 'run[sample=3b1f'")]
    Explain(ExplainArgs),
    /// Show the report of a run again
    #[command(
        after_help = "Examples:\n  hotcell report              the latest run of .hotcell\n  hotcell report RUN --json"
    )]
    Report(ReportArgs),
    /// Run an experiment and compare it with its goldens and expectations
    #[command(
        after_help = "Examples:\n  hotcell test experiment.toml\n  hotcell test experiment.toml --accept\n  hotcell test experiment.toml --junit out.xml"
    )]
    Test(TestArgs),
    /// Look at files and run them, without a manifest
    #[command(
        after_help = "Examples:\n  hotcell analyze ./sample\n  hotcell analyze ./busybox --args sh -c 'id; uname -a'"
    )]
    Analyze(AnalyzeArgs),
    /// Show what this host can do and what is missing
    Doctor(DoctorArgs),
    /// Compare the results of two runs
    #[command(after_help = "Example:\n  hotcell diff .hotcell/runs/0001 .hotcell/runs/0002")]
    Diff(DiffArgs),
    /// Write a first manifest with the editor's schema header
    #[command(after_help = "Examples:\n  hotcell init experiment.toml\n  hotcell init experiment.yaml")]
    Init(InitArgs),
    /// Print a JSON schema
    #[command(after_help = "Example:\n  hotcell schema manifest > hotcell.schema.json")]
    Schema(SchemaArgs),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  hotcell completions bash > /etc/bash_completion.d/hotcell")]
    Completions(CompletionsArgs),
}

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

/// `hotcell report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A run's folder or id [default: the latest]
    pub run: Option<String>,
    /// Print report.json
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

/// `hotcell doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The older run: folder or id
    pub old: String,
    /// The newer run: folder or id
    pub new: String,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
