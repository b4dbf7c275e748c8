//! The executable as the runner meets it: a confined process that takes one job over its control socket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;
use std::path::Path;

use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_inspect::{Options, inspect};
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, InspectJob, Job, JobResult};

/// An inspection has a result and nothing else.
struct Nothing;

impl Sink for Nothing {
    fn events(&mut self, _: Vec<Event>) -> io::Result<()> {
        Err(io::Error::other("no events are expected"))
    }
    fn output_begins(&mut self, port: &str, _: &str, _: u64) -> io::Result<()> {
        Err(io::Error::other(format!("no output is expected: {port}")))
    }
    fn output_bytes(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn in_a_cell(bytes: &[u8]) -> Ending {
    let executable =
        Executable::open(Path::new(env!("CARGO_BIN_EXE_hotcell-inspect"))).expect("the executable");
    let blob = SealedBlob::of(bytes).expect("a sealed blob");
    let stop = StopSignal::new().expect("a stop signal");
    let mut cell = ProcessCell::spawn(&Spec {
        executable: &executable,
        blobs: &[&blob],
        limits: HostLimits::default(),
        bounds: Bounds::default(),
        sandbox: Sandbox::of_this_host(),
        stop: &stop,
        cores: None,
    })
    .expect("a cell");
    assert_eq!(cell.engine(), "hotcell-inspect");
    let ending = cell.run(
        &Job::Inspect(InspectJob {
            file: Blob {
                index: 0,
                length: bytes.len() as u64,
            },
            profiles: common::profiles(),
            max_strings: 2000,
            disassemble: true,
        }),
        &mut Nothing,
    );
    cell.finish();
    ending
}

/// The cell's answer is the library's.
#[test]
fn a_cell_answers_what_the_library_does() {
    let mut files = vec![
        Vec::new(),
        common::elf64(),
        common::fixtures::pe(),
        common::fixtures::fat(),
    ];
    files.extend(std::fs::read("/bin/ls"));
    files.extend(common::busybox("armhf"));
    for bytes in files {
        let expected = inspect(&bytes, &common::profiles(), &Options::default());
        match in_a_cell(&bytes) {
            Ending::Done(result) => assert!(
                *result == JobResult::Inspect(Box::new(expected)),
                "{} bytes",
                bytes.len()
            ),
            other => panic!("{} bytes: {other:?}", bytes.len()),
        }
    }
}
