//! Operations on a running cell, asked from another thread while its events are collected.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Kept, Work, busybox, done, guests};
use hotcell_cells::context::SavedContext;
use hotcell_cells::contract::{CellFault, Limit};
use hotcell_cells::cores::arbiter::{Arbiter, GiveCores};
use hotcell_cells::cores::schedule::{Doing, Rules};
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::process::{Ending, Interruption};
use hotcell_cells::remote::{Answer, Remote, Request};
use hotcell_schema::job::GuestLimits;

/// A guest that computes for a while and makes no system call meanwhile: `count` rounds, then exit(7).
fn busy(count: u32) -> Work {
    // mov ecx, count; next: dec ecx; jnz next; mov edi, 7; mov eax, 231; syscall
    let mut code = vec![0xb9];
    code.extend(count.to_le_bytes());
    code.extend([
        0xff, 0xc9, 0x75, 0xfc, 0xbf, 7, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05,
    ]);
    let (header, entry, base) = (64u16, 56u16, 0x40_0000u64);
    let start = u64::from(header + entry);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    [2u16, 62].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    [base + start, u64::from(header), 0]
        .iter()
        .for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    [header, entry, 1, 0, 0, 0]
        .iter()
        .for_each(|half| elf.extend(half.to_le_bytes()));
    [1u32, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    let all = start + code.len() as u64;
    [0, base, base, all, all, 0x1000]
        .iter()
        .for_each(|word: &u64| elf.extend(word.to_le_bytes()));
    elf.extend(code);
    Work::new("x86_64", &elf, &["busy"], b"", GuestLimits::default())
}

/// Runs a job while `ask` asks through the remote, and gives how it ended.
fn while_running<T: Send>(work: &Work, ask: impl FnOnce(Remote) -> T + Send) -> (Ending, Kept, T) {
    let mut cell = work.cell();
    let remote = cell.remote();
    let mut kept = Kept::default();
    let (ending, asked) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(remote));
        let ending = cell.run(&work.job, &mut kept);
        (ending, asking.join().unwrap())
    });
    (ending, kept, asked)
}

#[test]
fn a_guest_that_only_computes_is_paused_stepped_saved_and_goes_on_the_same() {
    let work = busy(300_000_000);
    let (result, straight) = work.straight();
    let (ending, kept, bytes) = while_running(&work, |remote| {
        let done = |request| assert!(matches!(remote.ask(request), Ok(Answer::Done)));
        for _ in 0..3 {
            done(Request::Pause);
            let Ok(Answer::Usage(before)) = remote.ask(Request::Usage) else {
                panic!("no usage")
            };
            for _ in 0..20 {
                done(Request::RunOneInstruction);
            }
            done(Request::RunOneSlice);
            let Ok(Answer::Usage(after)) = remote.ask(Request::Usage) else {
                panic!("no usage")
            };
            assert!(after.cpu_s >= before.cpu_s);
            done(Request::SetLimit(Limit::WallMillis(400_000)));
            done(Request::Resume);
        }
        // Also without a pause.
        let file = tempfile::tempfile().unwrap();
        let saved = remote.ask(Request::SaveContext(Some(file.try_clone().unwrap())));
        let Ok(Answer::Saved(Some(facts))) = saved else {
            panic!("{saved:?}")
        };
        assert_eq!(facts.engine, "hotcell-unicorn");
        done(Request::LoadContext);
        // A step of what runs is refused.
        let refused = remote.ask(Request::RunOneInstruction);
        assert!(matches!(refused, Err(CellFault::Refused { .. })), "{refused:?}");
        let mut bytes = Vec::new();
        use std::io::{Read, Seek};
        let mut file = file;
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(done("busy", ending), result);
    assert_eq!(kept, straight);
    let context = SavedContext::read(&bytes[..]).unwrap();
    let mut after = Kept::default();
    let ending = work.cell_from(&context).run(&work.job, &mut after);
    assert_eq!(done("busy, from a context", ending), result);
    assert_eq!(after.events, straight.events[context.facts().events as usize..]);
}

#[test]
fn who_is_paused_has_turns_only_to_answer() {
    let work = busy(150_000_000);
    let (result, straight) = work.straight();
    let topology = Topology::of_this_host().unwrap();
    let rules = Rules {
        pool: topology.cores().iter().next_back().into_iter().collect(),
        slice: NonZeroU64::new(2_000_000).unwrap(),
        ageing: NonZeroU64::new(1_000_000_000).unwrap(),
        exclusive: 0,
        cells: NonZeroUsize::MIN,
        users: BTreeMap::new(),
    };
    let arbiter = Arc::new(Arbiter::start(rules, topology, None).unwrap());
    let cores: Arc<dyn GiveCores> = Arc::clone(&arbiter) as _;
    let mut cell = work.cell_in_turns(&cores);
    let remote = cell.remote();
    let mut kept = Kept::default();
    let ending = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let done = |request| assert!(matches!(remote.ask(request), Ok(Answer::Done)));
            let stands = || {
                let begun = Instant::now();
                while arbiter.cells()[0].doing != Doing::Paused {
                    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", arbiter.cells());
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            done(Request::Pause);
            stands();
            let ran = arbiter.cells()[0].ran;
            done(Request::RunOneInstruction);
            stands();
            assert!(arbiter.cells()[0].ran > ran, "it had a turn for that");
            // What is refused has an answer too.
            let refused = remote.ask(Request::LoadContext);
            assert!(matches!(refused, Err(CellFault::Refused { .. })), "{refused:?}");
            stands();
            done(Request::Resume);
        });
        let ending = cell.run(&work.job, &mut kept);
        asking.join().unwrap();
        ending
    });
    assert_eq!(done("busy", ending), result);
    assert_eq!(kept, straight);
}

#[test]
fn stop_and_force_stop_end_a_guest_that_only_computes() {
    let work = busy(u32::MAX);
    for request in [Request::Stop, Request::ForceStop] {
        let (ending, _, ()) = while_running(&work, |remote| {
            assert!(matches!(remote.ask(Request::Pause), Ok(Answer::Done)));
            assert!(matches!(remote.ask(Request::Resume), Ok(Answer::Done)));
            assert!(matches!(remote.ask(request), Ok(Answer::Done)));
            // Nobody answers for a cell that has ended.
            while remote.ask(Request::Usage).is_ok() {}
            assert!(matches!(remote.ask(Request::Pause), Err(CellFault::Ended)));
        });
        assert!(
            matches!(ending, Ending::Interrupted(Interruption::Stopped)),
            "{ending:?}"
        );
    }
}

#[test]
fn a_pause_does_not_count_against_the_wall_limit() {
    // Long enough not to be at its end when it is paused.
    let work = busy(60_000_000);
    let (ending, _, ()) = while_running(&work, |remote| {
        if matches!(remote.ask(Request::Pause), Ok(Answer::Done)) {
            // More than it took until here, and less than the pause takes.
            assert!(matches!(
                remote.ask(Request::SetLimit(Limit::WallMillis(5_000))),
                Ok(Answer::Done)
            ));
            let paused = Instant::now();
            while paused.elapsed() < Duration::from_secs(6) {
                assert!(matches!(remote.ask(Request::Usage), Ok(Answer::Usage(_))));
            }
            // Its limit is long over, and it is still there.
            assert!(matches!(remote.ask(Request::RunOneInstruction), Ok(Answer::Done)));
            assert!(matches!(
                remote.ask(Request::SetLimit(Limit::WallMillis(300_000))),
                Ok(Answer::Done)
            ));
            assert!(matches!(remote.ask(Request::Resume), Ok(Answer::Done)));
        }
    });
    done("busy", ending);
}

#[test]
fn a_job_that_is_disturbed_all_the_time_tells_the_same() {
    let mut all = Vec::new();
    for (arch, program) in guests("files") {
        all.push(Work::new(arch, &program, &["files"], b"", GuestLimits::default()));
    }
    for (arch, debian) in [("x86_64", "amd64"), ("arm", "armhf"), ("mipsel", "mipsel")] {
        if let Some(program) = busybox(debian) {
            let script =
                "i=0; while [ $i -lt 8 ]; do echo $i | sha256sum >> sums; i=$((i+1)); done; cat sums";
            all.push(Work::new(
                arch,
                &program,
                &["sh", "-c", script],
                b"",
                GuestLimits::default(),
            ));
        }
    }
    for work in all {
        let (result, straight) = work.straight();
        let (ending, kept, rounds) = while_running(&work, |remote| {
            let mut rounds = 0;
            while remote.ask(Request::Pause).is_ok() {
                rounds += 1;
                let _ = remote.ask(Request::RunOneInstruction);
                let _ = remote.ask(Request::SaveContext(None));
                if rounds % 3 == 0 {
                    let _ = remote.ask(Request::RunOneSlice);
                }
                if rounds % 5 == 0 && rounds < 100 {
                    let _ = remote.ask(Request::LoadContext);
                }
                let _ = remote.ask(Request::Resume);
            }
            rounds
        });
        assert_eq!(done(&work.name, ending), result, "{} after {rounds}", work.name);
        assert_eq!(kept, straight, "{} after {rounds}", work.name);
    }
}
