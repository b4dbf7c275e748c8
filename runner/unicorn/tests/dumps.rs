//! Core files of a running job: it does not notice that somebody looks.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{Kept, Work, done, guests};
use hotcell_cells::contract::{Cell, CellFault};
use hotcell_cells::process::ProcessCell;
use hotcell_schema::job::GuestLimits;

/// What is kept of a cell now.
fn context(cell: &mut ProcessCell) -> Vec<u8> {
    let mut bytes = Vec::new();
    cell.save_context().unwrap();
    cell.write_context(&mut bytes).unwrap();
    bytes
}

/// How many notes a core file has: one for each task, and two of the process.
fn notes(core: &[u8]) -> usize {
    let name = b"CORE\0\0\0\0";
    core.windows(name.len()).filter(|part| part == name).count()
}

#[test]
fn threads_of_every_architecture_are_dumped_and_do_not_notice() {
    for (arch, program) in guests("threads") {
        let work = Work::new(arch, &program, &["threads"], b"", GuestLimits::default());
        let (result, straight) = work.straight();
        let mut cell = work.cell();
        cell.pause().unwrap();
        cell.start(&work.job).unwrap();
        let nothing = cell.dump(&mut Vec::new());
        assert!(
            matches!(&nothing, Err(CellFault::Refused { reason, .. }) if reason.contains("no program")),
            "{nothing:?}"
        );
        let mut most = 0;
        for slice in 0..60 {
            match cell.run_one_slice() {
                Ok(()) => {}
                Err(CellFault::Ended) => break,
                Err(other) => panic!("{arch}: {other}"),
            }
            // In the middle of a block it goes on to the end of it first: this is where all of these look.
            if slice % 3 == 1 {
                cell.run_one_instruction().unwrap();
            }
            let before = context(&mut cell);
            let mut bytes = Vec::new();
            let cores = cell.dump(&mut bytes).unwrap();
            assert!(before == context(&mut cell), "{arch}: something is another");
            let mut rest = &bytes[..];
            for core in &cores {
                assert!(
                    core.name.as_str().ends_with("-sample.core"),
                    "{}",
                    core.name.as_str()
                );
                let (file, next) = rest.split_at(core.length as usize);
                assert!(file.starts_with(b"\x7fELF"), "{arch}");
                most = most.max(notes(file));
                rest = next;
            }
            assert!(rest.is_empty(), "{arch}");
        }
        let mut kept = Kept::default();
        // Where it has ended there is nothing to let go on.
        let _ = cell.resume();
        assert_eq!(done(arch, cell.collect(&mut kept)), result, "{arch}");
        assert_eq!(kept, straight, "{arch}");
        assert!(most >= 2 + 4, "{arch}: at most {most} notes");
    }
}
