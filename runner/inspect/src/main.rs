//! The cell that looks at one file without running it: confines itself, takes an `Inspect` or `Unpack` job over the control
//! socket, answers with facts and findings, or with what is in an archive. Started by `hotcell`, never by hand.

use std::process::ExitCode;

use hotcell_cells::cell_side::confine::Profile;
use hotcell_cells::cell_side::{CellError, Connection, by_hand, serve};
use hotcell_inspect::{Options, inspect, unpack};
use hotcell_schema::job::{InspectJob, Job, JobResult};
use hotcell_schema::unpack::UnpackJob;

fn main() -> ExitCode {
    let identity = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    by_hand(env!("CARGO_PKG_NAME"), identity).unwrap_or_else(|| {
        serve(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            Profile::inspect(),
            |connection, job| match job {
                Job::Inspect(job) => look_at(connection, &job),
                Job::Unpack(job) => read_archive(connection, &job),
                _ => Err(CellError::Job("this cell only inspects files".into())),
            },
        )
    })
}

fn look_at(connection: &Connection, job: &InspectJob) -> Result<JobResult, CellError> {
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
}

fn read_archive(connection: &mut Connection, job: &UnpackJob) -> Result<JobResult, CellError> {
    let archive = connection.blob(job.archive)?;
    let password = job.password.map(|blob| connection.blob(blob)).transpose()?;
    let request = unpack::Request {
        archive: &archive,
        password: password.as_deref(),
        want: &job.want,
        limits: job.limits,
    };
    let result = unpack::unpack(&request, &mut |digest, bytes| {
        connection
            .send_output("members", &digest.to_string(), bytes)
            .map_err(std::io::Error::other)
    });
    match result {
        Ok(result) => Ok(JobResult::Unpack(result)),
        Err(error) => Err(CellError::Job(error.to_string())),
    }
}
