//! Commands about runs that were.

use clap::Args;

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
    /// The older run: folder or id
    pub old: String,
    /// The newer run: folder or id
    pub new: String,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
