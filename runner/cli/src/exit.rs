//! Exit codes, as documented in `hotcell --help`, and the one error type that carries them.

use std::process::ExitCode;

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All well.
    Ok = 0,
    /// An expectation or golden is not met.
    NotMet = 1,
    /// Bad manifest or usage.
    Usage = 2,
    /// A stage failed.
    Failed = 3,
    /// The host cannot do it.
    Host = 4,
    /// Something was not judged.
    NotJudged = 5,
    /// A person stopped it (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without a remedy to name.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The usage, or a file the person named, is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The host refused something we need.
    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::new(Exit::Host, message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::host(error.to_string())
    }
}
