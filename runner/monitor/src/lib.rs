//! What a cell does, as the host's kernel sees it.
//!
//! In: a task of the host, whose children are watched. Out: records of what they do, and counts.
//!
//! | module | what is there |
//! |---|---|
//! | `bpf/` | the kernel part, in C: filters, reads arguments, counts what is lost |
//! | [`record`] | its records, taken apart |
//! | [`calls`] | which system calls are told, and how their arguments are read |
//! | [`ending`] | which of them end who makes them |
//! | [`story`] | what records say, as events |
//! | [`desk`] | records are read in turns, between which questions are answered |
//! | [`still`] | who does more than is read stands still |
//! | [`watched`] | the cells that are watched, and their files |
//! | [`protocol`] | what a runner and `hotcell-monitor` say to each other |
//! | [`kernel`] | loads the kernel part, and talks with it |

pub mod calls;
pub mod desk;
pub mod ending;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod protocol;
pub mod record;
pub mod still;
pub mod story;
pub mod watched;
