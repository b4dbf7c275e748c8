//! One cell: a Linux program under QEMU's user mode, or natively, in namespaces of its own.
//!
//! In: a [`LinuxJob`](hotcell_schema::job::LinuxJob) and its blobs on inherited descriptors. Out: outputs and the result,
//! as frames (`hotcell_cells::protocol`). What the guest does is seen from outside, by the monitor.
//!
//! ```text
//! keeper ── makes the namespaces, the root; speaks with the runner, collects
//!   └── init (pid 1) ── mounts, goes there, reaps
//!         └── qemu-<arch> sample ── no privileges, seccomp
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | `keeper` | the job from beginning to end |
//! | `walls` | namespaces and what else holds the guest |
//! | `binfmt` | how the guest's programs run others |
//! | `filter` | system calls that are refused |
//! | `root` | the guest's root as files |
//! | `emulator` | which QEMU |
//! | `init_unsafe` | the first process of the guest's namespace |
//! | `loopback_unsafe` | the network of a guest without one |
//! | `streams` | what the guest writes to its output |
//! | `left` | what it left in its root |

use std::process::ExitCode;

mod binfmt;
mod emulator;
mod filter;
mod init_unsafe;
mod keeper;
mod left;
mod loopback_unsafe;
mod root;
mod streams;
mod walls;

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let identity = format!("hotcell-qemu {}", env!("CARGO_PKG_VERSION"));
    match std::env::args_os().nth(1) {
        None => {}
        Some(argument) if argument == "--version" || argument == "--identity" => {
            println!("{identity}");
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            eprintln!("hotcell-qemu is started by `hotcell`; by hand it only knows --version and --identity");
            return ExitCode::from(2);
        }
    }
    keeper::serve(&identity)
}
