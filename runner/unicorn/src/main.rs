//! One cell: a process that runs one guest on Unicorn and ends.
//!
//! In: a [`Job`](hotcell_schema::job::Job) and its blobs on inherited descriptors, after the process has confined
//! itself. Out: events, outputs and the result, as frames (`hotcell_cells::protocol`). A guest that crashes the
//! emulator crashes this process only. This is the only crate that names Unicorn, whose licence (GPL-2.0) ends here.
//!
//! | module | what is there |
//! |---|---|
//! | `driver` | Linux programs: the loop between the emulated kernel and its machines |
//! | `payload` | raw code: registers and memory in and out, trace |
//! | `operate` | what the runner asks of a running job: pause, step, save, load, dump |
//! | `pool` | the machines of a run |
//! | `context`, `saved`, `image_unsafe` | a run as bytes; saved registers; a processor's state |
//! | `sources` | bytes that came with the job, mapped instead of copied |
//! | `memory_unsafe` | guest memory: mappings of this process, of files where that saves a copy |
//! | `nudge_unsafe` | the runner's nudge to listen |
//! | `lengths` | how many instructions a block has |
//! | `machine` | one Unicorn instance as the kernel's `Machine` |
//! | `written` | which bytes the guest wrote before it runs them |
//! | `shape` | the `[unicorn]` part of an arch profile, read |
//! | `registers`, `traps` | Unicorn's numbers for registers and exceptions |
//! | `quirks` | named exceptions: what a profile's data cannot say |
//! | `clocks_unsafe` | the host's clocks and randomness, replaced by virtual ones |
//! | `disassembly` | capstone, from the profile |
//! | `identity` | which engine this is, for cache keys |

use std::process::ExitCode;

use hotcell_cells::cell_side::{CellError, by_hand, confine::Profile, serve};
use hotcell_schema::job::Job;

mod blocks;
mod clocks_unsafe;
mod context;
mod disassembly;
mod driver;
mod ffi;
mod identity;
mod image_unsafe;
mod lengths;
mod machine;
mod memory_unsafe;
mod nudge_unsafe;
mod operate;
mod payload;
mod pool;
mod quirks;
mod registers;
mod saved;
mod shape;
mod sources;
mod traps;
mod written;

#[cfg(test)]
mod tests;

fn main() -> ExitCode {
    let identity = identity::text();
    by_hand("hotcell-unicorn", &identity).unwrap_or_else(|| {
        serve(
            "hotcell-unicorn",
            &identity,
            Profile::unicorn(),
            |connection, job| match job {
                Job::Linux(job) => driver::run(connection, &job),
                Job::Payload(job) => payload::serve(connection, &job),
                Job::Inspect(_) | Job::Unpack(_) => {
                    Err(CellError::Job("this engine does not inspect files".to_owned()))
                }
            },
        )
    })
}
