//! Cores and who owns them: what a host has, which core does what, and whose turn it is.
//!
//! | module | what is there |
//! |---|---|
//! | [`topology`] | physical cores, their siblings, what was isolated at boot |
//! | [`duties`] | which core does what, from `[cores]` of a manifest |
//! | [`schedule`] | whose turn it is: a state machine that knows no clock and no process |

pub mod duties;
pub mod schedule;
pub mod topology;
