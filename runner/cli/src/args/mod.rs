//! What can be typed: the commands, their options and their help.
//!
//! | module | whose options |
//! |---|---|
//! | [`experiment`] | commands about a manifest |
//! | [`runs`] | commands about runs that were |
//! | [`tools`] | commands about hotcell itself |

mod experiment;
mod runs;
mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::experiment::{
    AnalyzeArgs, ExecuteArgs, ExplainArgs, ManifestArgs, PlanArgs, ProgressStyle, RunArgs, TestArgs,
};
pub(crate) use self::runs::{DiffArgs, ReportArgs};
pub(crate) use self::tools::{CompletionsArgs, DoctorArgs, InitArgs, SchemaArgs};

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
