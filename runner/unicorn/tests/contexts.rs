//! Saved contexts: a job that goes on in another process tells the same as one that ran straight through.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{Kept, Work, busybox, done, guests};
use hotcell_cells::context::SavedContext;
use hotcell_cells::contract::{Cell, CellFault, Limit};
use hotcell_cells::process::{Ending, ProcessCell};
use hotcell_schema::digest::Digest;
use hotcell_schema::job::GuestLimits;

/// How far a cell goes before its context is saved.
#[derive(Debug, Clone, Copy)]
enum Way {
    Instructions(u32),
    Slices(u32),
}

/// Goes so far in a new process, saves, and ends the process. `None`: the job was done before.
fn save(work: &Work, mut cell: ProcessCell, way: Way) -> Option<(Vec<u8>, Kept)> {
    // So that it stands before its first instruction.
    cell.pause().unwrap();
    cell.start(&work.job).unwrap();
    let stepped = match way {
        Way::Instructions(count) => (0..count).try_for_each(|_| cell.run_one_instruction()),
        Way::Slices(count) => (0..count).try_for_each(|_| cell.run_one_slice()),
    };
    let saved = stepped.and_then(|()| cell.save_context());
    let mut kept = Kept::default();
    match saved {
        Ok(()) => {}
        Err(CellFault::Ended) => {
            done(&work.name, cell.collect(&mut kept));
            return None;
        }
        Err(other) => panic!("{}: {other}", work.name),
    }
    let mut bytes = Vec::new();
    let facts = cell.write_context(&mut bytes).unwrap();
    cell.force_stop().unwrap();
    let ending = cell.collect(&mut kept);
    assert!(!matches!(ending, Ending::Done(_)), "{}: {ending:?}", work.name);
    let next = kept.events.last().map_or(facts.events, |event| event.seq + 1);
    assert_eq!(next, facts.events, "{}", work.name);
    Some((bytes, kept))
}

/// Saves at each of these places, goes on from there in another process, and compares with a run straight through.
fn goes_on_the_same(work: &Work, ways: &[Way]) -> usize {
    let (result, straight) = work.straight();
    let mut saved = 0;
    for way in ways {
        let Some((bytes, mut before)) = save(work, work.cell(), *way) else {
            continue;
        };
        saved += 1;
        let context = SavedContext::read(&bytes[..]).unwrap();
        let mut cell = work.cell_from(&context);
        let mut after = Kept::default();
        let again = done(&format!("{} {way:?}", work.name), cell.run(&work.job, &mut after));
        before.events.extend(after.events);
        before.outputs.extend(after.outputs);
        assert_eq!(before.events, straight.events, "{} {way:?}", work.name);
        assert_eq!(before.outputs, straight.outputs, "{} {way:?}", work.name);
        assert_eq!(again, result, "{} {way:?}", work.name);
    }
    saved
}

const WAYS: [Way; 5] = [
    Way::Instructions(0),
    Way::Instructions(1),
    Way::Instructions(50),
    Way::Instructions(400),
    Way::Instructions(900),
];

#[test]
fn files_go_on_in_another_process_on_every_architecture() {
    for (arch, program) in guests("files") {
        let work = Work::new(arch, &program, &["files"], b"", GuestLimits::default());
        assert!(goes_on_the_same(&work, &WAYS) >= 4, "{arch}");
    }
}

#[test]
fn counted_instructions_are_counted_once() {
    for (arch, program) in guests("files") {
        let limits = GuestLimits {
            instructions: Some(1 << 40),
            ..GuestLimits::default()
        };
        let work = Work::new(arch, &program, &["files"], b"", limits);
        assert!(goes_on_the_same(&work, &WAYS) >= 4, "{arch}");
        // A limit that is met on the way is met at the same place.
        let limits = GuestLimits {
            instructions: Some(2000),
            ..GuestLimits::default()
        };
        let work = Work::new(arch, &program, &["files"], b"", limits);
        assert!(goes_on_the_same(&work, &WAYS) >= 3, "{arch}");
    }
}

#[test]
fn code_that_was_written_is_told_once() {
    for name in ["written-then-run", "dropper"] {
        for (arch, program) in guests(name) {
            let work = Work::new(arch, &program, &[name], b"", GuestLimits::default());
            let ways = [
                Way::Instructions(0),
                Way::Instructions(20),
                Way::Instructions(60),
                Way::Instructions(150),
            ];
            assert!(goes_on_the_same(&work, &ways) >= 1, "{arch}");
        }
    }
}

#[test]
fn processes_pipes_and_signals_go_on_in_another_process() {
    let script = "trap 'echo caught' USR1; (sleep 1; kill -USR1 $$) & \
        for i in 1 2 3; do echo $i > file$i; done; cat file* given | sort -r | head -n 3; wait; wait; \
        (read x; echo \"read $x\") < given; exec 3<>fifo3 2>/dev/null; echo end";
    for (arch, debian) in [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("arm", "armhf"),
        ("mipsel", "mipsel"),
    ] {
        let Some(program) = busybox(debian) else { continue };
        let work = Work::new(arch, &program, &["sh", "-c", script], b"", GuestLimits::default());
        let ways = [
            Way::Instructions(300),
            Way::Slices(1),
            Way::Slices(2),
            Way::Slices(5),
            Way::Slices(8),
        ];
        let saved = goes_on_the_same(&work, &ways);
        assert!(saved >= 3, "{arch}: {saved}");
    }
}

#[test]
fn the_same_place_gives_the_same_bytes_in_every_process() {
    for (arch, program) in guests("files") {
        let work = Work::new(arch, &program, &["files"], b"", GuestLimits::default());
        let (first, _) = save(&work, work.cell(), Way::Instructions(700)).unwrap();
        let (second, _) = save(&work, work.cell(), Way::Instructions(700)).unwrap();
        assert!(first == second, "{arch}");
        // And a context of a process that went on from a context.
        let context = SavedContext::read(&first[..]).unwrap();
        let (early, _) = save(&work, work.cell(), Way::Instructions(0)).unwrap();
        let (third, _) = save(&work, work.cell_from(&context), Way::Instructions(0)).unwrap();
        assert!(first == third, "{arch}");
        assert!(first != early, "{arch}");
    }
}

#[test]
fn contexts_of_another_job_or_program_are_refused() {
    let programs = guests("files");
    let Some((arch, program)) = programs.first() else {
        return;
    };
    let work = Work::new(arch, program, &["files"], b"", GuestLimits::default());
    let (bytes, _) = save(&work, work.cell(), Way::Instructions(10)).unwrap();
    let context = SavedContext::read(&bytes[..]).unwrap();
    let mut longer = program.clone();
    longer.push(0);
    for (other, what) in [
        (
            Work::new(arch, program, &["files", "x"], b"", GuestLimits::default()),
            "of another job",
        ),
        (
            Work::new(arch, program, &["files"], b"y", GuestLimits::default()),
            "of another job",
        ),
        (
            Work::new(arch, &longer, &["files"], b"", GuestLimits::default()),
            "of another job",
        ),
    ] {
        let refused = other.cell_from(&context).start(&other.job).unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
    let mut same_length = program.clone();
    *same_length.last_mut().unwrap() ^= 1;
    let other = Work::new(arch, &same_length, &["files"], b"", GuestLimits::default());
    let refused = other.cell_from(&context).start(&other.job).unwrap_err();
    assert!(refused.to_string().contains("of another payload"), "{refused}");
}

#[test]
fn a_cell_goes_back_to_what_it_kept_and_tells_the_same() {
    let mut all = Vec::new();
    for (arch, program) in guests("files") {
        all.push((
            Work::new(arch, &program, &["files"], b"", GuestLimits::default()),
            30,
        ));
    }
    for (arch, debian) in [("x86_64", "amd64"), ("mipsel", "mipsel")] {
        if let Some(program) = busybox(debian) {
            let script = "for i in 1 2 3; do echo $i | cat > file$i; done; cat file*; sha256sum given";
            all.push((
                Work::new(arch, &program, &["sh", "-c", script], b"", GuestLimits::default()),
                500,
            ));
        }
    }
    for (work, instructions) in all {
        let (result, straight) = work.straight();
        let mut cell = work.cell();
        cell.pause().unwrap();
        cell.start(&work.job).unwrap();
        assert!(
            matches!(cell.load_context(), Err(CellFault::Refused { .. })),
            "nothing was kept"
        );
        for _ in 0..3 {
            (0..instructions).for_each(|_| cell.run_one_instruction().unwrap());
            cell.save_context().unwrap();
            for _ in 0..2 {
                (0..instructions * 2).for_each(|_| cell.run_one_instruction().unwrap());
                cell.load_context().unwrap();
            }
        }
        cell.resume().unwrap();
        let mut kept = Kept::default();
        let again = done(&work.name, cell.collect(&mut kept));
        assert_eq!(kept, straight, "{}", work.name);
        assert_eq!(again, result, "{}", work.name);
    }
}

/// The same file with other bytes in its body, and a digest that fits.
fn forged(bytes: &[u8], at: usize, change: u8) -> Vec<u8> {
    let lines: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at] == b'\n')
        .take(2)
        .collect();
    let (head, body) = (
        &bytes[lines[0] + 1..lines[1]],
        &bytes[lines[1] + 1..bytes.len() - 65],
    );
    let mut body = body.to_vec();
    let at = at % body.len();
    body[at] = body[at].wrapping_add(change);
    let mut digests = vec![Digest::of(head)];
    digests.extend(body.chunks(1 << 20).map(Digest::of));
    let digest = Digest::of_parts(digests.iter().map(|digest| digest.as_bytes().as_slice()));
    [&bytes[..lines[1] + 1], &body, format!("{digest}\n").as_bytes()].concat()
}

#[test]
fn a_forged_context_harms_its_own_cell_only() {
    let programs = guests("files");
    let Some((arch, program)) = programs.first() else {
        return;
    };
    let work = Work::new(arch, program, &["files"], b"", GuestLimits::default());
    let (bytes, _) = save(&work, work.cell(), Way::Instructions(300)).unwrap();
    let mut refused = 0;
    for (round, at) in (0..40).chain((40..4000).step_by(97)).enumerate() {
        let forged = forged(&bytes, at, 1 << (round % 8));
        let context = SavedContext::read(&forged[..]).unwrap();
        let mut cell = work.cell_from(&context);
        cell.set_limit(Limit::WallMillis(5_000)).unwrap();
        match cell.run(&work.job, &mut Kept::default()) {
            Ending::Failed(_) | Ending::Interrupted(_) => refused += 1,
            Ending::Done(_) => {}
            Ending::Host(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(refused >= 30, "of the head nothing may change: {refused}");
}
