//! The emulated Linux.
//!
//! Runs one [`LinuxJob`](hotcell_schema::job::LinuxJob) on machines that a driver lends it ([`machine`]): the job and its
//! blobs flow in, events flow out through an [`EventSink`] as they happen, and [`Finished`] at the end. Nothing of the
//! host is read: time is counted, chance is derived from the job's seed.

mod kernel;
pub mod machine;

pub use kernel::{EventSink, Finished, Kernel, LoadError};
