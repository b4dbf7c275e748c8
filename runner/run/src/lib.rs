//! The executor: walks a plan, runs what is not stored yet, and writes the result.
//!
//! In: a [`Plan`](hotcell_plan::Plan), a [`Store`](hotcell_store::Store), cell executables. Out: a run's folder with
//! `result/`, pages, journal and `run.json`; statuses as they come, to an [`Observer`].
//!
//! ```text
//! schedule ──instance──> work: inputs -> key -> store? ──hit──> cached
//!    ^                                            └─miss─> stages/*: a cell, or rules ──> store
//!    └──────────── done, whatever the status ────────────────┘            finish: report, pages, run.json
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | [`execute`](mod@execute) | options, the observer, the worker threads |
//! | [`select`] | a part of a plan that can run by itself |
//! | `schedule` | which instance can run next |
//! | `table` | all instances and how they ended |
//! | `expand` | what a point becomes when its files are there |
//! | [`current`](mod@current) | whether the latest run still says what a new one would |
//! | `left` | what programs left that did not end well |
//! | `faults` | what is known of cells that broke |
//! | `late` | what is known of an instance only when all before it has ended |
//! | [`forecast`](mod@forecast) | what a run would do |
//! | `flush` | what is written, onto the disk once a second |
//! | `flights` | what runs just now: the same work is done once |
//! | [`work`] | one instance from its inputs to its status |
//! | [`key`] | the cache key and its named components |
//! | [`sources`] | archives and packages: the confined process that reads them, the mirror they come from |
//! | `sysroots` | roots of guests, made once and shared by all cells |
//! | [`secrets`] | passwords and tokens: read when needed, wiped, never written |
//! | [`engines`] | the cell executables and who they are |
//! | `stages` | what each stage type does |
//! | `keep` | what a cell says, into the store |
//! | `documents` | results that are read as documents, each parsed once |
//! | `condition` | `when`, with the results it reads |
//! | `turns` | what the cores of a run did |
//! | `finish` | the result and the run's other files |

#![allow(
    clippy::result_large_err,
    reason = "both sides of such a result are how an instance ended: one for each instance, never in a loop"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod condition;
pub mod current;
mod documents;
pub mod engines;
pub mod execute;
mod expand;
mod faults;
mod finish;
mod flights;
mod flush;
pub mod forecast;
mod given;
mod keep;
pub mod key;
mod late;
mod left;
pub mod monitor;
mod schedule;
pub mod secrets;
pub mod select;
pub mod sources;
mod stages;
mod sysroots;
mod table;
mod turns;
pub mod work;

pub use current::{Current, current};
pub use engines::Engines;
pub use execute::{Cores, Observer, Options, RunOutcome, execute};
pub use forecast::{Detail, Forecast, Foreseen, Known, forecast};
pub use secrets::{SecretError, SecretValue, Secrets};
pub use select::Selection;
pub use sources::Archives;
pub use stages::cell::host_limits;
pub use work::Done;

/// A run could not be made at all. What goes wrong within one instance is that instance's status.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store or the run's folder cannot be used.
    #[error(transparent)]
    Store(#[from] hotcell_store::StoreError),
    /// The report cannot be made.
    #[error(transparent)]
    Report(#[from] hotcell_report::ReportError),
    /// Something cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The host refused something.
    #[error("{doing}: {source}")]
    Host {
        /// What was tried.
        doing: String,
        /// What the host said.
        source: std::io::Error,
    },
}
