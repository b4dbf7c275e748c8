//! One module a command; each answers with the exit code.

pub(crate) mod analyze;
pub(crate) mod audit;
pub(crate) mod cells;
pub(crate) mod completions;
pub(crate) mod cores;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fmt;
pub(crate) mod help;
pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod lock;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod store;
pub(crate) mod syscalls;
pub(crate) mod test;
pub(crate) mod users;
pub(crate) mod validate;
pub(crate) mod watch;
