//! Any bytes as a saved context, and as the state of an emulated kernel: read, or refused.
#![no_main]

#[path = "shared/job.rs"]
mod job;

use std::sync::LazyLock;

use hotcell_cells::context::SavedContext;
use hotcell_kernel::machine::{Machine, MachineError, Machines, SpaceId};
use hotcell_kernel::{Bytes, Kernel};
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, LinuxJob};
use libfuzzer_sys::fuzz_target;

static JOB: LazyLock<LinuxJob> = LazyLock::new(|| job::of(job::profile(0), 4));

/// No machine is there: a state that names one is refused after it was read.
struct Nothing;

impl Machines for Nothing {
    fn create(&mut self, _: SpaceId) -> Result<(), MachineError> {
        Err(MachineError("no machines here".into()))
    }
    fn destroy(&mut self, _: SpaceId) {}
    fn get(&mut self, _: SpaceId) -> Option<&mut dyn Machine> {
        None
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = SavedContext::read(bytes);
    let blobs = |_: Blob| Some(Bytes::from(b"\x7fELF".as_slice()));
    if let Ok(kernel) = Kernel::restore(&JOB, &blobs, Box::new(|_: Event| {}), &mut Nothing, bytes) {
        let again = kernel.save().expect("what was read can be saved");
        let kernel = Kernel::restore(&JOB, &blobs, Box::new(|_: Event| {}), &mut Nothing, &again).expect("and read again");
        assert_eq!(kernel.save().expect("and saved"), again);
        kernel.finish();
    }
});
