//! `hotcell`: arguments, wiring, printing, exit codes. The only crate that prints and reads the environment.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | what can be typed |
//! | [`commands`] | one module a command |
//! | [`places`] | where state, store and cell executables are |
//! | [`diagnostics`] | what is wrong with a manifest, with the line it stands in |
//! | [`progress`] | what goes on while stages run |
//! | [`session`] | from a manifest's path to a plan and to a run |
//! | [`verdicts`] | checks and changes in lines |
//! | [`ui`], [`exit`] | printing; exit codes |

mod args;
mod commands;
mod diagnostics;
mod exit;
mod places;
mod progress;
mod session;
mod ui;
mod verdicts;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows which stream and says 0.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    ui::set_color(cli.global.color);
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui::failure(&failure);
            failure.exit.into()
        }
    }
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Validate(args) => commands::validate::run(args, global),
        Command::Plan(args) => commands::plan::run(args, global),
        Command::Run(args) => commands::run::run(args, global),
        Command::Explain(args) => commands::explain::run(args, global),
        Command::Report(args) => commands::report::run(args, global),
        Command::Test(args) => commands::test::run(args, global),
        Command::Analyze(args) => commands::analyze::run(args, global),
        Command::Doctor(args) => commands::doctor::run(args, global),
        Command::Diff(args) => commands::diff::run(args, global),
        Command::Init(args) => commands::init::run(args),
        Command::Schema(args) => commands::schema::run(args),
        Command::Completions(args) => commands::completions::run(args),
    }
}
