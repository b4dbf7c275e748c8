//! `hotcell completions`: a shell's completion script.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionsArgs};
use crate::exit::{Exit, Failure};
use crate::ui;

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hotcell", &mut script);
    ui::out(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Ok)
}
