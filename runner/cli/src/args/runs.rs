//! Commands about runs that were.

use std::time::Duration;

use clap::{Args, Subcommand};

/// `hotcell runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RunsArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// As for `list`.
    #[command(flatten)]
    pub list: RunsListArgs,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Show all runs, the oldest first
    #[command(after_help = "Examples:\n  hotcell runs list\n  hotcell runs list --json | jq '.runs[-1].id'")]
    List(RunsListArgs),
    /// Show a run: facts, statuses, what did not end well and why
    #[command(after_help = "Example:\n  hotcell runs show 20261122T025535-bots")]
    Show(RunsShowArgs),
    /// Remove runs; what they gave stays in the store
    #[command(
        after_help = "A run that goes on is never removed, and nothing outside of the folder of runs.\n\nExamples:\n  hotcell runs rm 20261122T025535-bots\n  hotcell runs rm --keep 10\n  hotcell runs rm --older-than 30d --yes"
    )]
    Rm(RunsRmArgs),
}

/// `hotcell runs list`.
#[derive(Debug, Args)]
pub(crate) struct RunsListArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell runs show`.
#[derive(Debug, Args)]
pub(crate) struct RunsShowArgs {
    /// The run's id, or the start of it
    pub run: String,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell runs rm`.
#[derive(Debug, Args)]
pub(crate) struct RunsRmArgs {
    /// The runs' ids, or the starts of them
    #[arg(conflicts_with_all = ["keep", "older_than"])]
    pub runs: Vec<String>,
    /// Remove all but the latest N
    #[arg(long, value_name = "N")]
    pub keep: Option<u32>,
    /// Remove those that ended longer ago; with --keep, only those of them that are not among the latest N
    #[arg(long, value_name = "AGE", value_parser = crate::commands::runs::age)]
    pub older_than: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
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

/// `hotcell diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The older run: folder, id or report.json
    pub old: String,
    /// The newer run: folder, id or report.json
    pub new: String,
    /// Only instances of this stage (can be given several times)
    #[arg(long, value_name = "NAME")]
    pub stage: Vec<String>,
    /// Only instances whose full or short name begins so (can be given several times)
    #[arg(long, short, value_name = "NAME")]
    pub instance: Vec<String>,
    /// Show changes in full, however long
    #[arg(long)]
    pub full: bool,
    /// Write a page with all changes
    #[arg(long, value_name = "FILE")]
    pub html: Option<std::path::PathBuf>,
    /// Print as JSON (`hotcell schema diff`)
    #[arg(long)]
    pub json: bool,
}
