//! The cell that looks at one file without running it: confines itself, takes an `Inspect` job over the control socket,
//! answers with facts and findings. Started by `hotcell`, never by hand.

use std::process::ExitCode;

use hotcell_cells::cell_side::confine::Profile;
use hotcell_cells::cell_side::{CellError, serve};
use hotcell_inspect::{Options, inspect};
use hotcell_schema::job::{Job, JobResult};

fn main() -> ExitCode {
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
