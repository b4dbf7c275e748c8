//! What can be typed: the commands, their options and their help.
//!
//! | module | whose options |
//! |---|---|
//! | [`experiment`] | commands about a manifest |
//! | [`host`] | commands about a host |
//! | [`language`] | commands about the language of manifests |
//! | [`runs`] | commands about runs that were |
//! | [`store`] | `hotcell store` |
//! | [`tools`] | commands about hotcell itself |

mod experiment;
mod host;
mod language;
mod runs;
mod store;
mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::experiment::{
    AnalyzeArgs, ChooseArgs, ExecuteArgs, ExplainArgs, GraphFormat, LockArgs, ManifestArgs, PlanArgs,
    ProgressStyle, RunArgs, TestArgs, WatchArgs,
};
pub(crate) use self::host::{
    ArbiterArgs, AuditArgs, AuditCommand, AuditShowArgs, AuditVerifyArgs, CellsArgs, CellsCommand, CoresArgs,
    CoresCommand, DumpArgs, HostArgs, HostCommand, KillArgs, UsersArgs, UsersCommand,
};
pub(crate) use self::language::{FmtArgs, HelpArgs, Language, ValidateArgs};
pub(crate) use self::runs::{
    DiffArgs, ReportArgs, RunsArgs, RunsCommand, RunsListArgs, RunsRmArgs, RunsShowArgs,
};
pub(crate) use self::store::{ExportArgs, GcArgs, ImportArgs, StoreArgs, StoreCommand, VerifyArgs};
pub(crate) use self::tools::{
    CompletionsArgs, DoctorArgs, InitArgs, ManArgs, SchemaArgs, SupportLevel, SyscallsArgs,
};

/// Run binaries of every architecture in a sandbox, as declared in a manifest.
#[derive(Debug, Parser)]
#[command(
    name = "hotcell",
    version,
    max_term_width = 100,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        hotcell analyze ./suspicious.elf          look at a file and run it, without a manifest\n  \
        hotcell run experiment.toml               run an experiment\n  \
        hotcell test experiment.toml              run it and compare with its goldens and expectations\n\n\
        Exit codes:\n  \
        0  all well                     4  this host cannot do it\n  \
        1  an expectation or golden     5  something was not run or judged\n     \
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
    /// How everything but results is told, on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Folder for runs [default: .hotcell beside the manifest]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Folder of the content-addressed store [default: one per user, in the cache folder]
    ///
    /// The environment variable HOTCELL_STORE says it too.
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Socket of the host's arbiter [default: /run/hotcell/arbiter.sock, where /etc/hotcell/host.toml is]
    ///
    /// The environment variable HOTCELL_ARBITER says it too.
    #[arg(long, global = true, value_name = "SOCKET")]
    pub arbiter: Option<PathBuf>,
    /// Further folder of arch profiles (can be given several times)
    #[arg(long = "profiles", global = true, value_name = "DIR")]
    pub profiles: Vec<PathBuf>,
}

/// How everything but results is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// A JSON object in each line (`hotcell schema log`), without colours and bars
    Json,
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
    /// Check a manifest, of an experiment or a host, and show all that is wrong with it
    #[command(
        after_help = "Examples:\n  hotcell validate experiment.yaml\n  hotcell validate host.toml --json | jq '.diagnostics[].title'\n\nEach diagnostic has a code; `hotcell help E0101` explains it."
    )]
    Validate(ValidateArgs),
    /// Write a document in its usual form, or in the other language
    #[command(
        after_help = "Examples:\n  hotcell fmt experiment.toml --write\n  hotcell fmt experiment.toml --to yaml > experiment.yaml\n  hotcell fmt experiment.yaml --check          in continuous integration\n\nThe meaning, the order of keys and comments are kept. What is lost: anchors and aliases of YAML (each alias becomes a\ncopy), the quotes of texts, how numbers were written when the language changes, and the column of comments."
    )]
    Fmt(FmtArgs),
    /// Explain a diagnostic's code, or a command
    #[command(
        after_help = "Examples:\n  hotcell help E0101\n  hotcell help E0210 E0101\n  hotcell help run\n  hotcell help --list"
    )]
    Help(HelpArgs),
    /// Show what would run, and what is stored already; writes nothing
    #[command(
        after_help = "Examples:\n  hotcell plan experiment.toml\n  hotcell plan experiment.toml --all --set seed=8\n  hotcell plan experiment.toml --json | jq '.instances[] | select(.does == \"run\") | .name'\n  hotcell plan experiment.toml --graph svg -o plan.svg"
    )]
    Plan(PlanArgs),
    /// Run an experiment and write its report
    #[command(
        after_help = "A run of a part (--only, --until, --rerun-failed) reports that part alone.\n\nExamples:\n  hotcell run experiment.toml\n  hotcell run experiment.toml -j 1 --fail-fast\n  hotcell run experiment.toml --set seed=8\n  hotcell run experiment.toml --only 'run[sample=busybox-*]'\n  hotcell run experiment.toml --until look\n  hotcell run experiment.toml --rerun-failed\n  hotcell run experiment.toml --locked\n\nExit codes: 0 all well, 3 a stage failed or was interrupted, 4 this host cannot do it, 5 a sample was refused (it is\ntoo large) or could not be run (its outcome is `unsupported`), 130 stopped by Ctrl-C. How a sample that ran ended is a\nresult and no failure: `exited 1`, `signalled`, `limit`."
    )]
    Run(RunArgs),
    /// Plan again, or run, whenever the manifest or a file it names changes
    #[command(
        after_help = "A manifest with mistakes shows them, and is watched on. Ctrl-C ends it with exit code 130.\n\nExamples:\n  hotcell watch experiment.toml\n  hotcell watch experiment.toml --test --only hits"
    )]
    Watch(WatchArgs),
    /// Pin what a manifest is made of in hotcell.lock beside it
    #[command(
        after_help = "Pinned are documents, samples, roots of guests, rules, programs and their files, personas, arch profiles, packages,\nengines and the version of hotcell. `run`, `test` and `plan` refuse anything else with --locked (exit code 2).\n\nExamples:\n  hotcell lock experiment.toml\n  hotcell lock experiment.toml --check\n  hotcell run experiment.toml --locked"
    )]
    Lock(LockArgs),
    /// List, show and remove runs
    #[command(
        after_help = "Examples:\n  hotcell runs\n  hotcell runs show 20261122T025535-bots\n  hotcell runs rm --keep 10"
    )]
    Runs(RunsArgs),
    /// Say why an instance ran or did not, and from what its cache key is made
    #[command(
        after_help = "Examples:\n  hotcell explain experiment.toml -i 'run[sample=3b1f'\n  hotcell explain --between 20260102T030405-bots /mnt/other-host/20260102T030405-bots"
    )]
    Explain(ExplainArgs),
    /// Show the report of a run again
    #[command(
        after_help = "Examples:\n  hotcell report              the latest run of .hotcell\n  hotcell report RUN --json"
    )]
    Report(ReportArgs),
    /// Run an experiment and compare it with its goldens and expectations
    #[command(
        after_help = "Examples:\n  hotcell test experiment.toml\n  hotcell test experiment.toml --review\n  hotcell test experiment.toml --accept --repeat 3\n  hotcell test experiment.toml --junit out.xml"
    )]
    Test(TestArgs),
    /// Look at files and run them, without a manifest
    #[command(
        after_help = "Examples:\n  hotcell analyze ./sample\n  hotcell analyze ./busybox -- sh -c 'id; uname -a'\n  hotcell analyze ./agent --sysroot /usr/aarch64-linux-gnu\n  hotcell analyze ./install.sh --arch mipsel --sysroot firmware.tar.gz\n  hotcell analyze ./packed --coverage --dump connect --dump end"
    )]
    Analyze(AnalyzeArgs),
    /// Show the system calls of Linux, and how far the emulated one (`unicorn/linux`) supports each
    #[command(
        after_help = "A report names the calls of a sample that were not fully supported.\n\nExamples:\n  hotcell syscalls --arch mipsel\n  hotcell syscalls --support missing --support partial\n  hotcell syscalls epoll_wait socket\n  hotcell syscalls --json | jq '.calls[] | select(.support == \"full\") | .name'"
    )]
    Syscalls(SyscallsArgs),
    /// Show what this host can do and what is missing
    #[command(after_help = "Examples:\n  hotcell doctor\n  hotcell doctor --json")]
    Doctor(DoctorArgs),
    /// Show what cores this host has, what each is for, and who runs on it; change that, as an administrator
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  hotcell cores\n  hotcell cores --watch\n  hotcell cores experiment.toml\n  hotcell cores host.toml --json\n  hotcell cores reclaim 3 --reason maintenance\n  hotcell cores slice 5ms"
    )]
    Cores(CoresArgs),
    /// List the cells that run; pause, step, save, restore or kill them
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "A cell is named by its process id. Users may do this to cells of their own; the administrators of a host that has an\narbiter may pause, resume and kill all.\n\nExamples:\n  hotcell cells\n  hotcell cells --json | jq '.own[].process'\n  hotcell cells pause 4711\n  hotcell cells step 4711 --count 100\n  hotcell cells save 4711 here.context\n  hotcell cells dump 4711 cores\n  hotcell cells restore 4711 here.context\n  hotcell cells kill --user ci --reason 'eats the host'\n  hotcell cells kill --core 3"
    )]
    Cells(CellsArgs),
    /// List the users of this host and what each may take; ban and unban them, as an administrator
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  hotcell users\n  hotcell users ban ci --reason spam\n  hotcell users unban ci"
    )]
    Users(UsersArgs),
    /// Serve a host that is described by a manifest
    #[command(
        after_help = "Examples:\n  hotcell host arbiter\n  hotcell host arbiter --manifest host.toml --kept /var/lib/hotcell"
    )]
    Host(HostArgs),
    /// Check and show the journal of what administrators did on a host
    #[command(
        after_help = "Examples:\n  hotcell audit verify /var/lib/hotcell/audit.jsonl\n  hotcell audit show audit.jsonl"
    )]
    Audit(AuditArgs),
    /// Compare the results of two runs
    #[command(
        after_help = "Examples:\n  hotcell diff 20261122T025535-bots 20261122T031102-bots\n  hotcell diff OLD/result/report.json NEW --stage run --html diff.html"
    )]
    Diff(DiffArgs),
    /// Collect, verify, export or import what is stored
    #[command(
        after_help = "Examples:\n  hotcell store gc --keep 30d --dry-run\n  hotcell store verify\n  hotcell store export all.hotcell\n  hotcell store import all.hotcell"
    )]
    Store(StoreArgs),
    /// Write a first manifest with the editor's schema header
    #[command(after_help = "Examples:\n  hotcell init experiment.toml\n  hotcell init experiment.yaml")]
    Init(InitArgs),
    /// Print a JSON schema
    #[command(
        after_help = "Examples:\n  hotcell schema manifest > hotcell.schema.json\n  hotcell schema --list"
    )]
    Schema(SchemaArgs),
    /// Print a shell's completion script
    #[command(
        after_help = "Examples:\n  hotcell completions bash > /usr/local/share/bash-completion/completions/hotcell\n  hotcell completions zsh > /usr/local/share/zsh/site-functions/_hotcell\n  hotcell completions fish > ~/.config/fish/completions/hotcell.fish"
    )]
    Completions(CompletionsArgs),
    /// Write the manual pages, one for each command
    #[command(
        after_help = "Examples:\n  hotcell man --out man && man ./man/hotcell-run.1\n  hotcell man --out /usr/local/share/man/man1"
    )]
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    fn walk(command: &clap::Command, path: &str) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            let help = below
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let nested = below.get_subcommands().next().is_some();
            assert!(
                nested || help.contains("Example"),
                "`{path} --help` shows no example"
            );
            walk(below, &path);
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        walk(&super::Cli::command(), "hotcell");
    }
}
