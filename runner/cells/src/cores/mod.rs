//! Cores and who owns them: what a host has, which core does what, and whose turn it is.
//!
//! | module | what is there |
//! |---|---|
//! | [`topology`] | physical cores, their siblings, what was isolated at boot |
//! | [`duties`] | which core does what, from `[cores]` of a manifest |
//! | [`seats`] | what stages want of the cores, as the host can give it |
//! | [`schedule`] | whose turn it is: a state machine that knows no clock and no process |
//! | [`history`] | who had which core when, and how long others waited |
//! | [`locks`] | one lock for each core, in memory that the arbiter writes and everybody may read |
//! | [`isolation`] | how strictly cores are kept apart: affinity, cpusets, cores taken at boot |
//! | [`verify`] | whether cells are where they should be, and who else is there: from `/proc`, while they run |
//! | [`arbiter`], [`process`] | who lets cell processes run and stand still by that schedule |
//! | [`service`] | the arbiter of a host, for the runners of several users |

use std::sync::Arc;

use hotcell_schema::cores::CoreSet;

pub mod arbiter;
mod claim;
pub mod duties;
pub mod history;
pub mod isolation;
pub mod locks;
pub mod process;
mod real_time_unsafe;
pub mod schedule;
pub mod seats;
pub mod service;
mod stat;
pub mod topology;
pub mod verify;

/// Where a cell runs.
#[derive(Debug, Clone, Copy)]
pub enum Seat<'a> {
    /// On the pool's cores, when an arbiter says so, from the moment its job begins.
    Turns {
        /// Who gives cores.
        cores: &'a Arc<dyn arbiter::GiveCores>,
        /// What is asked for.
        request: schedule::Request,
        /// What people know the cell by.
        name: &'a str,
    },
    /// On these processors, when the kernel lets it.
    Bound(&'a CoreSet),
}
