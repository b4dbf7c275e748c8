//! `hotcell`: arguments, wiring, printing, exit codes. The only crate that prints and reads the environment.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | what can be typed |
//! | [`commands`] | one module a command |
//! | [`places`] | where state, store and cell executables are |
//! | [`diagnostics`] | what is wrong with a manifest, with the line it stands in |
//! | [`progress`], [`log`] | what goes on while stages run; the same as JSON lines |
//! | [`cores`], [`host`] | the cores of a run; the arbiter of the host |
//! | [`doors`] | the sockets at which runs are asked about their cells |
//! | [`choose`] | which part of an experiment runs |
//! | [`outlook`] | what a run would do, and why |
//! | [`runs`] | the runs of a state folder |
//! | [`pins`] | `hotcell.lock` |
//! | [`names`] | names of instances for people |
//! | [`session`] | from a manifest's path to a plan and to a run |
//! | [`settings`] | which settings of an instance changed |
//! | [`supplies`] | what a plan is given: a reader of archives and packages, secrets |
//! | [`verdicts`] | checks and changes in lines |
//! | [`contents`] | the bytes of a run's outputs, for those who compare them |
//! | [`ui`], [`exit`] | printing; exit codes |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod choose;
mod commands;
mod contents;
mod cores;
mod diagnostics;
mod doors;
mod exit;
mod history;
mod host;
mod janitor;
mod log;
mod names;
mod outlook;
mod pins;
mod places;
mod progress;
mod quota;
mod runs;
mod session;
mod settings;
mod supplies;
mod ui;
mod verdicts;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::exit::{Exit, Failure};

/// Plans are many small pieces: with the C library's allocator a third of the time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows which stream and says 0.
            if !error.use_stderr() {
                let _ = error.print();
                return Exit::Ok.into();
            }
            if wants_json(std::env::args_os().skip(1)) {
                log::set_format(args::LogFormat::Json);
                log::failure(&Failure::usage(error.render().to_string().trim_end()));
            } else {
                let _ = error.print();
            }
            return Exit::Usage.into();
        }
    };
    ui::set_color(cli.global.color);
    log::set_format(cli.global.log_format);
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui::failure(&failure);
            failure.exit.into()
        }
    }
}

/// Whether arguments that could not be read ask for JSON lines all the same.
fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<std::ffi::OsString> = arguments.take_while(|word| word != "--").collect();
    let together = words.iter().any(|word| word == "--log-format=json");
    together
        || words
            .windows(2)
            .any(|pair| matches!(pair, [option, value] if option == "--log-format" && value == "json"))
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Validate(args) => commands::validate::run(args, global),
        Command::Fmt(args) => commands::fmt::run(args),
        Command::Help(args) => commands::help::run(args),
        Command::Plan(args) => commands::plan::run(args, global),
        Command::Run(args) => commands::run::run(args, global),
        Command::Watch(args) => commands::watch::run(args, global),
        Command::Lock(args) => commands::lock::run(args, global),
        Command::Runs(args) => commands::runs::run(args, global),
        Command::Explain(args) => commands::explain::run(args, global),
        Command::Report(args) => commands::report::run(args, global),
        Command::Test(args) => commands::test::run(args, global),
        Command::Analyze(args) => commands::analyze::run(args, global),
        Command::Syscalls(args) => commands::syscalls::run(args, global),
        Command::Doctor(args) => commands::doctor::run(args, global),
        Command::Cores(args) => commands::cores::run(args, global),
        Command::Cells(args) => commands::cells::run(args, global),
        Command::Users(args) => commands::users::run(args, global),
        Command::Host(args) => commands::host::run(args, global),
        Command::Audit(args) => commands::audit::run(args),
        Command::Diff(args) => commands::diff::run(args, global),
        Command::Store(args) => commands::store::run(args, global),
        Command::Init(args) => commands::init::run(args),
        Command::Schema(args) => commands::schema::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    }
}
