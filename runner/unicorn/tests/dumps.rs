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
        // Until all four threads are there.
        for _ in 0..200 {
            if most >= 2 + 5 {
                break;
            }
            (0..200).for_each(|_| cell.run_one_instruction().unwrap());
            let before = context(&mut cell);
            let mut bytes = Vec::new();
            let cores = cell.dump(&mut bytes).unwrap();
            assert!(before == context(&mut cell), "{arch}: something is another");
            // Nor is what was kept: a dump stands behind it, in whichever half that is.
            assert_eq!(cell.dump(&mut Vec::new()).unwrap(), cores, "{arch}");
            cell.load_context().unwrap();
            let mut again = Vec::new();
            assert_eq!(cell.dump(&mut again).unwrap(), cores, "{arch}");
            assert!(again == bytes, "{arch}: other core files of the same moment");
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
        cell.resume().unwrap();
        assert_eq!(done(arch, cell.collect(&mut kept)), result, "{arch}");
        assert_eq!(kept, straight, "{arch}");
        assert!(most >= 2 + 5, "{arch}: at most {most} notes");
    }
}
