//! What a cell executable uses: its connection to the runner, its blobs, and the confinement of itself.
//!
//! A cell's `main` is one call of [`serve`]:
//!
//! ```no_run
//! use hotcell_cells::cell_side::{confine::Profile, serve};
//!
//! fn main() -> std::process::ExitCode {
//!     serve("hotcell-example", "0.1.0", Profile::inspect(), |connection, job| {
//!         connection.send_output("stdout", "", b"hello")?;
//!         todo!("do {job:?} and return its JobResult")
//!     })
//! }
//! ```

mod blob_unsafe;
pub mod confine;
mod connection;
mod nudge_unsafe;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use hotcell_schema::job::{Job, JobResult};

pub use blob_unsafe::MappedBlob;
pub use connection::{Connection, Control};
pub use nudge_unsafe::on_nudge;

use crate::protocol::ProtocolError;

/// Why a cell cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The process was not started by a runner.
    #[error("descriptor 3 is not a control socket: this program is started by `hotcell`, not by hand")]
    NoRunner,
    /// The runner broke the protocol, or is gone.
    #[error("control socket: {0}")]
    Protocol(#[from] ProtocolError),
    /// The runner said something at the wrong time.
    #[error("expected {expected} from the runner")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
    },
    /// A blob that the job names was not handed over, or is shorter than said.
    #[error("blob {index}: {reason}")]
    Blob {
        /// Its index.
        index: u32,
        /// What is wrong.
        reason: String,
    },
    /// The cell could not confine itself enough.
    #[error("confinement: {0}")]
    Confine(String),
    /// The engine cannot do the job; holds the reason.
    #[error("{0}")]
    Job(String),
    /// The runner asked to stop.
    #[error("stopped by the runner")]
    Stopped,
}

/// Answers a person who starts a cell by hand: `--version` and `--identity` say who it is, and nothing else is known. Absent:
/// it was started without arguments, as a runner does.
pub fn by_hand(engine: &str, identity: &str) -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    if argument == "--version" || argument == "--identity" {
        return Some(match writeln!(std::io::stdout(), "{identity}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        });
    }
    let _ = writeln!(
        std::io::stderr(),
        "{engine} is started by `hotcell`; by hand it only knows --version and --identity"
    );
    Some(ExitCode::from(2))
}

/// Confines the process, shakes hands, runs the one job, sends its result. Errors and panics of `job` are told to the
/// runner as a failure. Returns the exit code of the process: 0 when the result was sent.
pub fn serve(
    engine: &str,
    identity: &str,
    profile: confine::Profile,
    job: impl FnOnce(&mut Connection, Job) -> Result<JobResult, CellError>,
) -> ExitCode {
    let Ok(mut connection) = Connection::inherit() else {
        return ExitCode::from(64);
    };
    let ended = confine::confine_self(&profile)
        .and_then(|layers| connection.handshake(engine, identity, layers))
        .and_then(|asked| {
            catch_unwind(AssertUnwindSafe(|| job(&mut connection, asked))).unwrap_or_else(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                Err(CellError::Job(format!(
                    "the engine panicked: {}",
                    text.unwrap_or("?")
                )))
            })
        });
    let told = match ended {
        Ok(result) => connection.done(result),
        Err(error) => {
            let _ = connection.failed(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
