//! Cells: one confined host process for each machine, and how the runner talks with it.
//!
//! In: an executable, a [`Job`](hotcell_schema::job::Job), sealed blobs of bytes, limits. Out: events and outputs as
//! they come, the job's result, and the usage that the host's kernel measured. Everything a cell says is hostile input.
//!
//! ```text
//! runner ── supervise::spawn ──> cell process          descriptor 3: control socket; 4, 5, …: sealed memfds
//!   │                              │ cell_side::serve: confine, shake hands, run the job
//!   └── process::ProcessCell <─────┘ protocol frames
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | [`protocol`] | frames, messages, and a reader that bounds everything |
//! | [`contract`] | the [`Cell`](contract::Cell) trait: what every engine can be asked |
//! | [`cores`] | what cores a host has, what each is for, and whose turn it is |
//! | [`intake`] | what one cell says, in order and within bounds |
//! | [`supervise`] | blobs, namespaces, limits, usage and end of a cell process |
//! | [`process`] | [`ProcessCell`](process::ProcessCell): a cell that is a process speaking the protocol |
//! | [`remote`] | the same operations, asked from other threads |
//! | [`roster`], [`door`] | the cells of a run, and the socket at which its user asks about them |
//! | [`context`] | saved contexts as files |
//! | [`dump`] | core files of what runs in a cell |
//! | [`command`] | programs of the user's own: confined like cells, without a protocol |
//! | [`emulator`] | where this host has QEMU's user mode |
//! | [`janitor`] | clears what runners left that are no more |
//! | [`stop`] | one stop request that all cells obey |
//! | [`cell_side`] | what a cell executable uses: connection, blobs, confinement of itself |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cell_side;
mod channel;
pub mod command;
pub mod context;
pub mod contract;
pub mod cores;
pub mod door;
pub mod dump;
pub mod emulator;
pub mod intake;
pub mod janitor;
pub mod process;
pub mod protocol;
pub mod remote;
pub mod roster;
pub mod stop;
pub mod supervise;
