//! The cell that looks at one file without running it: confines itself, takes an `Inspect` job over the control socket,
//! answers with facts and findings. Started by `hotcell`, never by hand.

use std::process::ExitCode;

use hotcell_cells::cell_side::confine::Profile;
use hotcell_cells::cell_side::{CellError, serve};
use hotcell_inspect::{Options, inspect};
use hotcell_schema::job::{Job, JobResult};

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an executable says who it is"
)]
fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => {}
        Some(argument) if argument == "--version" || argument == "--identity" => {
            println!(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            eprintln!(
                "hotcell-inspect is started by `hotcell`; by hand it only knows --version and --identity"
            );
            return ExitCode::from(2);
        }
    }
    serve(
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        Profile::inspect(),
        |connection, job| {
            let Job::Inspect(job) = job else {
                return Err(CellError::Job("this cell only inspects files".into()));
            };
            let bytes = connection.blob(job.file)?;
            let options = Options {
                max_strings: job.max_strings,
                disassemble: job.disassemble,
            };
            Ok(JobResult::Inspect(Box::new(inspect(
                &bytes,
                &job.profiles,
                &options,
            ))))
        },
    )
}
