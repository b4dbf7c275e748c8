//! The emulated Linux.
//!
//! Runs one [`LinuxJob`](hotcell_schema::job::LinuxJob) on machines that a driver lends it ([`machine`]): the job and its
//! blobs flow in, events flow out through an [`EventSink`] as they happen, and [`Finished`] at the end. Nothing of the
//! host is read: time is counted, chance is derived from the job's seed.
//!
//! | module | what is there |
//! |---|---|
//! | [`machine`] | the border to the processor |
//! | `kernel` | the door ([`Kernel`]), the scheduler, limits |
//! | `bounds` | how much a run may hand over |
//! | `call`, `guest` | a system call from registers to handler to result and events; what handlers read and write |
//! | `deferred` | what calls want done between two runs |
//! | `fault` | what the processor cannot do, as events and signals |
//! | `table` | one row per system call: numbers, shape, support level, handler |
//! | `sys` | the handlers, by subject |
//! | `abi` | structures, flags, errors, signals by architecture; `abi/quirks.rs` has the real exceptions |
//! | `load`, `exec` | ELF, the first stack, starting programs |
//! | `space`, `mapping` | address spaces |
//! | `task`, `life`, `end` | processes and tasks, fork and exit |
//! | `signals`, `deliver` | signals on their way, and when they are acted upon |
//! | `trace`, `reach` | ptrace: where a traced task stands still; memory and registers of others |
//! | `fake` | machines without a processor, for tests and fuzzing |
//! | `fs` | the file tree, paths, the built-in root, `/proc`, open files |
//! | `furnished` | the root, told place by place |
//! | `net` | sockets |
//! | `library` | what a program calls in its libraries |
//! | `made` | what is made of a run: layers of code, dumps, coverage, texts |
//! | `state`, `bytes` | a run as bytes, and back; bytes that are shared |
//! | [`observed`] | calls that another Linux carried out |
//! | [`support`] | the same table for people |
//! | `processor` | what an x86 processor says of itself |
//! | `time`, `chance` | the virtual clock, seeded randomness |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod abi;
mod bounds;
mod bytes;
mod call;
mod chance;
mod deferred;
mod deliver;
mod end;
mod exec;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fault;
mod fs;
mod furnished;
mod guest;
mod kernel;
mod library;
mod life;
mod load;
pub mod machine;
mod made;
mod mapping;
mod net;
pub mod observed;
mod processor;
mod reach;
mod signals;
mod space;
mod state;
pub mod support;
mod sys;
mod table;
mod task;
mod time;
mod trace;
mod view;

#[cfg(test)]
mod tests;

pub use bytes::Bytes;
pub use furnished::{Place, PlaceKind};
pub use kernel::{EventSink, Finished, Kernel, LoadError};
pub use load::elf::ElfError;
pub use made::{Core, Kept, Outputs};
pub use net::outside::World;
pub use state::StateError;
