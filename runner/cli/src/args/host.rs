//! Commands about a host.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hotcell_schema::digest::Digest;

/// `hotcell cores`.
#[derive(Debug, Args)]
pub(crate) struct CoresArgs {
    /// A manifest with `[cores]`, of an experiment or a host: which core does what for it
    pub manifest: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// What to do with it
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What can be done with an audit journal.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Say whether the journal is whole and unchanged (exit code 1 if not)
    #[command(
        after_help = "Entries are chained by their digests: what was changed, removed, put in or put elsewhere is \
        named with its line. Who may write the journal and the file beside it can make both anew; that shows only \
        against a digest that was noted elsewhere: --noted.\n\nExamples:\n  \
        hotcell audit verify /var/lib/hotcell/audit.jsonl\n  \
        hotcell audit verify audit.jsonl --noted \"$(cat noted-last-week)\""
    )]
    Verify(AuditVerifyArgs),
    /// Show what was done, by whom and when
    #[command(
        after_help = "Examples:\n  hotcell audit show audit.jsonl\n  hotcell audit show audit.jsonl --json | jq .act"
    )]
    Show(AuditShowArgs),
}

/// `hotcell audit verify`.
#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// The journal
    pub file: PathBuf,
    /// Digest of an entry that must be in it
    #[arg(long, value_name = "DIGEST")]
    pub noted: Option<Digest>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell audit show`.
#[derive(Debug, Args)]
pub(crate) struct AuditShowArgs {
    /// The journal
    pub file: PathBuf,
    /// Print an entry in each line as JSON
    #[arg(long)]
    pub json: bool,
}
