//! Commands about a host.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::units::Time;

/// `hotcell host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// What to do
    #[command(subcommand)]
    pub command: HostCommand,
}

/// What can be done for a host.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Give the host's cores to the cells of all its users, until stopped
    #[command(
        after_help = "The manifest must be root's, and nobody else may write it. What must survive a restart, and the audit journal, are in \
        the folder --kept. Runners find a restarted arbiter again; their cells stand still or run on meanwhile.\n\nExamples:\n  \
        hotcell host arbiter\n  \
        hotcell host arbiter --manifest host.toml --kept ./kept --arbiter ./arbiter.sock"
    )]
    Arbiter(ArbiterArgs),
}

/// `hotcell host arbiter`.
#[derive(Debug, Args)]
pub(crate) struct ArbiterArgs {
    /// The host's manifest
    #[arg(long, default_value = hotcell_cells::cores::service::MANIFEST, value_name = "FILE")]
    pub manifest: PathBuf,
    /// Folder for what must survive a restart, and for the audit journal
    #[arg(long, default_value = "/var/lib/hotcell", value_name = "DIR")]
    pub kept: PathBuf,
}

/// `hotcell cores`.
#[derive(Debug, Args)]
pub(crate) struct CoresArgs {
    /// What to change
    #[command(subcommand)]
    pub command: Option<CoresCommand>,
    /// A manifest with `[cores]`, of an experiment or a host: which core does what for it
    pub manifest: Option<PathBuf>,
    /// Show it again and again, until stopped
    #[arg(long, conflicts_with_all = ["json", "manifest"])]
    pub watch: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// What an administrator can change about a host's cores.
#[derive(Debug, Subcommand)]
pub(crate) enum CoresCommand {
    /// Take a core out of exclusive use: who holds it waits for another
    #[command(after_help = "Examples:\n  hotcell cores reclaim 3 --reason maintenance")]
    Reclaim(OneCoreArgs),
    /// Give a core back to exclusive use
    #[command(after_help = "Examples:\n  hotcell cores give-back 3")]
    GiveBack(OneCoreArgs),
    /// Another length of slices, from now on
    #[command(after_help = "Examples:\n  hotcell cores slice 5ms --reason 'finer turns'")]
    Slice(SliceArgs),
}

/// A core, and why.
#[derive(Debug, Args)]
pub(crate) struct OneCoreArgs {
    /// Number of the core
    pub core: u32,
    /// Why, for the audit journal
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `hotcell cores slice`.
#[derive(Debug, Args)]
pub(crate) struct SliceArgs {
    /// How long a cell runs before another has its turn: 100us to 10s
    pub slice: Time,
    /// Why, for the audit journal
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `hotcell cells`.
#[derive(Debug, Args)]
pub(crate) struct CellsArgs {
    /// What to do with them
    #[command(subcommand)]
    pub command: Option<CellsCommand>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be done with cells that run.
#[derive(Debug, Subcommand)]
pub(crate) enum CellsCommand {
    /// Let a cell stand still
    #[command(after_help = "Examples:\n  hotcell cells pause 4711")]
    Pause(OneCellArgs),
    /// Let a paused cell go on
    #[command(after_help = "Examples:\n  hotcell cells resume 4711")]
    Resume(OneCellArgs),
    /// End a cell soon; its instance is interrupted
    #[command(after_help = "Examples:\n  hotcell cells stop 4711")]
    Stop(OneCellArgs),
    /// End cells now; their instances are interrupted
    #[command(
        after_help = "Examples:\n  hotcell cells kill --id 4711\n  hotcell cells kill --user ci --reason 'eats the host'\n  hotcell cells kill --core 3"
    )]
    Kill(KillArgs),
    /// Keep what a cell is now (memory, registers, the emulated kernel), in a file
    #[command(after_help = "Examples:\n  hotcell cells save 4711 here.context")]
    Save(CellFileArgs),
    /// Write memory and registers of what runs in a cell as ELF core files, one for each process
    #[command(
        after_help = "The guest does not notice: the result is the same. Debuggers read the files (`gdb-multiarch -c`); they are called after process and program, as 1000-busybox.core. Of raw code there is one, 1-code.core. What does not fit beside the memory that the guest may have (`limits.memory`) is refused, and nothing is written.\n\nExit codes: 2 where there is no such cell, or the folder is not empty; 4 where the cell or the host cannot do it.\n\nExamples:\n  hotcell cells dump 4711 cores\n  hotcell cells dump 4711 cores --json | jq -r '.cores[].file'\n  hotcell cells pause 4711 && hotcell cells dump 4711 cores && hotcell cells resume 4711"
    )]
    Dump(DumpArgs),
    /// Let a cell go on from what was saved: in a new process from a file, or where it is from what was kept last
    #[command(
        after_help = "A context belongs to one job and one build of the engine. What the run has heard already is not told twice: the\nresult is the same.\n\nExamples:\n  hotcell cells restore 4711\n  hotcell cells restore 4711 here.context"
    )]
    Restore(RestoreArgs),
    /// Let a paused cell do one instruction, or more
    #[command(after_help = "Examples:\n  hotcell cells pause 4711 && hotcell cells step 4711 --count 100")]
    Step(StepArgs),
}

/// A cell.
#[derive(Debug, Args)]
pub(crate) struct OneCellArgs {
    /// Process id of the cell
    pub cell: u32,
}

/// A cell and a file.
#[derive(Debug, Args)]
pub(crate) struct CellFileArgs {
    /// Process id of the cell
    pub cell: u32,
    /// Where the context goes
    pub file: PathBuf,
}

/// `hotcell cells dump`.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Process id of the cell
    pub cell: u32,
    /// Where the core files go: a folder that is empty or not there yet
    pub folder: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell cells restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Process id of the cell
    pub cell: u32,
    /// A context that was saved of the same job; absent: what was kept last, in the same process
    pub file: Option<PathBuf>,
}

/// `hotcell cells step`.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// Process id of the cell
    pub cell: u32,
    /// How many
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Whole slices of the emulated kernel instead of instructions
    #[arg(long)]
    pub slices: bool,
}

/// `hotcell cells kill`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(crate) struct KillArgs {
    /// The cell of this process id
    #[arg(long, group = "which", value_name = "PROCESS")]
    pub id: Option<u32>,
    /// All cells of this user: a name of the host manifest, or a user id
    #[arg(long, group = "which", value_name = "USER")]
    pub user: Option<String>,
    /// The cell that runs on this core
    #[arg(long, group = "which", value_name = "CORE")]
    pub core: Option<u32>,
    /// Why, for the audit journal
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `hotcell users`.
#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    /// What to do with them
    #[command(subcommand)]
    pub command: Option<UsersCommand>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// What an administrator can do about users.
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// End all cells of a user, and let no more in
    #[command(after_help = "Examples:\n  hotcell users ban ci --reason spam")]
    Ban(OneUserArgs),
    /// Let a user's cells in again
    #[command(after_help = "Examples:\n  hotcell users unban ci")]
    Unban(OneUserArgs),
}

/// A user, and why.
#[derive(Debug, Args)]
pub(crate) struct OneUserArgs {
    /// A name of the host manifest, or a user id
    pub user: String,
    /// Why, for the audit journal
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
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
