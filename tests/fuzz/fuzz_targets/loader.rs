//! Any bytes as a program, as the loader that it names, and as a script, on any architecture: loaded, or refused with a reason.
#![no_main]

use hotcell_kernel::fake::FakeMachines;
use hotcell_kernel::{Bytes, Kernel};
use hotcell_schema::event::Event;
use hotcell_schema::guest::text;
use hotcell_schema::job::{Blob, GuestFile};
use libfuzzer_sys::fuzz_target;

#[path = "shared/job.rs"]
mod job;

fuzz_target!(|bytes: &[u8]| {
    let [architecture, split, rest @ ..] = bytes else {
        return;
    };
    let profile = job::profile(*architecture);
    let at = (usize::from(*split) * 64).min(rest.len());
    let (program, loader) = rest.split_at(at);
    let mut job = job::of(profile, program.len() as u64);
    job.limits.memory = 64 << 20;
    job.watch.library_calls = true;
    // Whatever a program names as its loader may be there.
    for path in ["/lib/ld.so", "/lib64/ld-linux-x86-64.so.2", "/bin/sh"] {
        let content = Blob {
            index: 1,
            length: loader.len() as u64,
        };
        job.files.push(GuestFile {
            path: path.into(),
            mode: 0o755,
            content,
        });
    }
    let given = [Bytes::from(program), Bytes::from(loader)];
    let blobs = |blob: Blob| given.get(blob.index as usize).cloned();
    match Kernel::new(&job, &blobs, Box::new(|_: Event| {})) {
        Err(error) => assert!(!text(error.to_string().as_bytes()).is_empty()),
        Ok(mut kernel) => {
            let mut machines = FakeMachines::new(profile);
            let _ = kernel.next(&mut machines);
            kernel.finish();
        }
    }
});
