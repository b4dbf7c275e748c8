//! Cores and who owns them: what a host has, which core does what, and whose turn it is.
//!
//! | module | what is there |
//! |---|---|
//! | [`topology`] | physical cores, their siblings, what was isolated at boot |
//! | [`duties`] | which core does what, from `[cores]` of a manifest |
//! | [`schedule`] | whose turn it is: a state machine that knows no clock and no process |
//! | [`locks`] | one lock for each core, in memory that the arbiter writes and everybody may read |
//! | [`isolation`] | how strictly cores are kept apart: affinity, cpusets, cores taken at boot |
//! | [`verify`] | whether cells are where they should be, and who else is there: from `/proc`, while they run |
//! | [`arbiter`], [`process`] | who lets cell processes run and stand still by that schedule |

use std::sync::Arc;

use hotcell_schema::cores::CoreSet;

pub mod arbiter;
pub mod duties;
pub mod isolation;
pub mod locks;
pub mod process;
mod real_time_unsafe;
pub mod schedule;
pub mod topology;
pub mod verify;

/// Where a cell runs.
#[derive(Debug, Clone, Copy)]
pub enum Seat<'a> {
    /// On the pool's cores, when an arbiter says so, from the moment its job begins.
    Turns(&'a Arc<arbiter::Arbiter>, schedule::Request),
    /// On these processors, when the kernel lets it.
    Bound(&'a CoreSet),
}
