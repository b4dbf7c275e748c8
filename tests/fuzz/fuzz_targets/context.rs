//! Any bytes as a saved context, and as the state of an emulated kernel: read, or refused.
#![no_main]

use std::sync::LazyLock;

use hotcell_cells::context::SavedContext;
use hotcell_kernel::machine::{Machine, MachineError, Machines, SpaceId};
use hotcell_kernel::{Bytes, Kernel};
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestLimits, LinuxJob};
use hotcell_schema::persona::Persona;
use libfuzzer_sys::fuzz_target;

static JOB: LazyLock<LinuxJob> = LazyLock::new(|| LinuxJob {
    cell: "fuzz".into(),
    arch: toml::from_str(include_str!("../../../arch-profiles/x86_64.toml")).expect("the profile reads"),
    persona: Persona::default(),
    program: Blob { index: 0, length: 4 },
    path: "/tmp/sample".into(),
    argv: vec!["sample".into()],
    env: None,
    cwd: None,
    sysroot: None,
    internet: None,
    files: Vec::new(),
    stdin: None,
    seed: Digest::of(b"seed"),
    watch: Default::default(),
    limits: GuestLimits::default(),
});

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
