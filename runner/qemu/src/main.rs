//! One cell: a Linux program under QEMU's user mode, or natively, in namespaces of its own.
//!
//! In: a [`LinuxJob`](hotcell_schema::job::LinuxJob) and its blobs on inherited descriptors. Out: outputs and the result,
//! as frames (`hotcell_cells::protocol`). What the guest does is seen from outside, by the monitor.
//!
//! ```text
//! keeper ── makes the namespaces, the root; speaks with the runner, collects
//!   └── init (pid 1) ── mounts, goes there, reaps
//!         └── qemu-<arch> sample ── no privileges, Landlock, seccomp
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | `keeper` | the job from beginning to end |
//! | `walls` | namespaces and what else holds the guest |
//! | `binfmt` | how the guest's programs run others |
//! | `card_unsafe` | the network card of a guest with a network |
//! | `filter` | system calls that are refused |
//! | `rights` | what Landlock takes from the guest |
//! | `root` | the guest's root as files |
//! | `init_unsafe` | the first process of the guest's namespace |
//! | `loopback_unsafe` | the network of a guest without one |
//! | `wire` | the simulated internet at its other end |
//! | `streams` | what the guest writes to its output |
//! | `left` | what it left in its root |
//! | `trace` | tells what the guest does, where nobody outside can watch |
//! | `reads` | what its calls name |
//! | `trace_unsafe` | ptrace(2) |
//! | `told` | what it tells, as events |

use std::io::Write as _;
use std::process::ExitCode;

use hotcell_cells::cell_side::by_hand;

mod binfmt;
mod card_unsafe;
mod filter;
mod init_unsafe;
mod keeper;
mod left;
mod loopback_unsafe;
mod reads;
mod rights;
mod root;
mod streams;
mod told;
mod trace;
mod trace_unsafe;
mod walls;
mod wire;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "--probe")
    {
        return match trace_unsafe::probe() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "{why}");
                ExitCode::FAILURE
            }
        };
    }
    let identity = format!("hotcell-qemu {}", env!("CARGO_PKG_VERSION"));
    by_hand("hotcell-qemu", &identity).unwrap_or_else(|| keeper::serve(&identity))
}
