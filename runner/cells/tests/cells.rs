//! Real cell processes: good ones, lying ones, and ones that attack from inside.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::time::Instant;

use common::{Kept, PAYLOAD, job, run, run_with, spawn};
use hotcell_cells::contract::{Cell, CellFault, Limit, Operation};
use hotcell_cells::dump::Core;
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{Ending, Interruption, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::job::{Job, JobResult};

fn failure(ending: Ending) -> String {
    match ending {
        Ending::Failed(reason) => reason,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn a_good_cell_gives_events_outputs_and_a_result() {
    let (ending, kept, usage) = run("well");
    let Ending::Done(result) = ending else {
        panic!("{ending:?}");
    };
    assert!(matches!(*result, JobResult::Linux(_)));
    assert_eq!(kept.events.len(), 3);
    assert_eq!(
        kept.outputs[0],
        ("stdout".into(), String::new(), PAYLOAD.to_vec())
    );
    assert_eq!(kept.outputs.len(), 3);
    assert_eq!(kept.ended, 3);
    assert!(usage.peak_kib > 500, "{usage:?}");
}

#[test]
fn the_walls_that_stand_are_named_and_checked_by_the_kernel() {
    let cell = spawn(
        HostLimits::default(),
        Bounds::default(),
        &StopSignal::new().unwrap(),
    );
    let layers = cell.layers();
    for layer in ["rlimits", "no-new-privs", "seccomp"] {
        assert!(layers.iter().any(|name| name == layer), "{layer} in {layers:?}");
    }
    assert_eq!(cell.engine(), "test-cell");
    assert_eq!(cell.identity(), "test-cell 1");
}

#[test]
fn results_and_event_streams_larger_than_a_frame_arrive_whole() {
    let (ending, _, _) = run("large-result");
    let Ending::Done(result) = ending else {
        panic!("{ending:?}");
    };
    assert!(serde_json::to_string(&result).unwrap().len() > 3 << 20);
    let (ending, kept, _) = run("many-events");
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    assert_eq!(kept.events.len(), 50_000);
}

#[test]
fn a_lying_or_flooding_cell_fails_with_its_reason() {
    for (what, reason) in [
        ("events-out-of-order", "out of sequence"),
        ("output-too-long", "more bytes than the output announced"),
        ("output-too-short", "before an output was complete"),
        ("output-announces-too-much", "bytes of outputs"),
        ("garbage", "a frame of"),
        ("deep-json", "unreadable message"),
        ("give-up", "no wish to go on"),
        ("panic", "panicked: as asked"),
    ] {
        let said = failure(run(what).0);
        assert!(said.contains(reason), "{what}: {said}");
    }
    let few = Bounds {
        events: 10_000,
        ..Bounds::default()
    };
    let said = failure(run_with("flood-events", HostLimits::default(), few).0);
    assert!(said.contains("more than 10000 events"), "{said}");
}

#[test]
fn a_crash_names_its_signal_and_last_words() {
    // abort() in a process that is the first of its namespace ends by the trap instruction behind it.
    let said = failure(run("abort").0);
    assert!(said.contains("SIG"), "{said}");
    assert!(failure(run("exit").0).contains("exit code 3"));
    let said = failure(run("stderr-flood").0);
    assert!(said.ends_with("last words"), "{said}");
    assert!(said.len() < 10_000);
}

#[test]
fn a_guest_whose_wall_time_is_up_ends_and_what_it_gave_is_kept() {
    let limits = HostLimits {
        wall_ms: 300,
        ..HostLimits::default()
    };
    let (ending, kept, _) = run_with("until-finished", limits, Bounds::default());
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    assert_eq!(
        kept.outputs[0],
        ("stdout".into(), String::new(), b"until now".to_vec())
    );
    // An engine that cannot is ended at once.
    let (ending, _, _) = run_with("answer", limits, Bounds::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::WallTime)),
        "{ending:?}"
    );
}

#[test]
fn limits_of_the_host_interrupt() {
    let limits = HostLimits {
        wall_ms: 300,
        ..HostLimits::default()
    };
    let begun = Instant::now();
    let (ending, _, usage) = run_with("hang", limits, Bounds::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::WallTime)),
        "{ending:?}"
    );
    assert!(begun.elapsed().as_secs() < 30);
    assert!(usage.cpu_s > 0.0);

    let limits = HostLimits {
        cpu_s: 1,
        ..HostLimits::default()
    };
    let (ending, _, usage) = run_with("hang", limits, Bounds::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::CpuTime)),
        "{ending:?}"
    );
    assert!(usage.cpu_s >= 0.5, "{usage:?}");

    let limits = HostLimits {
        address_space: 512 << 20,
        ..HostLimits::default()
    };
    let (ending, _, usage) = run_with("eat-memory", limits, Bounds::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::Memory)),
        "{ending:?}"
    );
    assert!(usage.peak_kib < 600 << 10, "{usage:?}");
}

#[test]
fn the_memory_of_a_cell_is_bounded_by_its_control_group() {
    if !Sandbox::of_this_host()
        .layers
        .iter()
        .any(|layer| layer == "memory-cgroup")
    {
        let why = format!("skipped: {:?}\n", Sandbox::of_this_host().fallbacks);
        io::Write::write_all(&mut io::stderr(), why.as_bytes()).unwrap();
        return;
    }
    let limits = HostLimits {
        memory: 128 << 20,
        ..HostLimits::default()
    };
    let (ending, _, usage) = run_with("eat-memory", limits, Bounds::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::Memory)),
        "{ending:?}"
    );
    assert!(
        usage.peak_kib > 64 << 10 && usage.peak_kib <= 128 << 10,
        "{usage:?}"
    );

    let mut cell = spawn(
        HostLimits::default(),
        Bounds::default(),
        &StopSignal::new().unwrap(),
    );
    cell.set_limit(Limit::Memory(64 << 20)).unwrap();
    let ending = cell.run(&job("eat-memory"), &mut Kept::default());
    assert!(
        matches!(ending, Ending::Interrupted(Interruption::Memory)),
        "{ending:?}"
    );
}

#[test]
fn a_stop_request_ends_soon_and_a_second_one_now() {
    for (what, requests) in [("until-stopped", 1), ("hang", 2), ("hang", 1)] {
        let stop = StopSignal::new().unwrap();
        let mut cell = spawn(HostLimits::default(), Bounds::default(), &stop);
        let begun = Instant::now();
        let ending = std::thread::scope(|scope| {
            let running = scope.spawn(|| cell.run(&job(what), &mut Kept::default()));
            for _ in 0..requests {
                stop.request();
            }
            running.join().unwrap()
        });
        assert!(
            matches!(ending, Ending::Interrupted(Interruption::Stopped)),
            "{what}: {ending:?}"
        );
        assert!(begun.elapsed().as_secs() < 30);
    }
}

#[test]
fn a_cell_that_is_made_after_the_stop_request_is_interrupted_not_failed() {
    let stop = StopSignal::new().unwrap();
    stop.request();
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let made = ProcessCell::spawn(&Spec {
        executable: &common::executable(),
        blobs: &[&blob],
        limits: HostLimits::default(),
        bounds: Bounds::default(),
        sandbox: Sandbox::of_this_host(),
        stop: &stop,
        cores: None,
    });
    assert!(
        matches!(made, Err(CellFault::Interrupted(Interruption::Stopped))),
        "{made:?}"
    );
}

/// What comes of asking a cell for core files that answers with this.
fn dumped(answer: &str) -> (Result<Vec<Core>, CellFault>, Vec<u8>) {
    let stop = StopSignal::new().unwrap();
    let mut cell = spawn(HostLimits::default(), Bounds::default(), &stop);
    let Job::Linux(mut job) = job("answer-with") else {
        panic!("another job");
    };
    job.argv.push(answer.to_owned());
    cell.start(&Job::Linux(job)).unwrap();
    let mut bytes = Vec::new();
    let cores = cell.dump(&mut bytes);
    (cores, bytes)
}

#[test]
fn what_a_cell_says_of_core_files_is_checked() {
    let said = |start: u64, cores: &[(&str, u64)]| {
        let cores: Vec<_> = cores
            .iter()
            .map(|(name, length)| serde_json::json!({"name": name, "length": length}))
            .collect();
        serde_json::json!({"dumped": {"start": start, "cores": cores}}).to_string()
    };
    // The area is empty: zeros.
    let (cores, bytes) = dumped(&said(4096, &[("1-a.core", 3), ("2-b.core", 5000)]));
    let names: Vec<_> = cores
        .unwrap()
        .iter()
        .map(|core| core.name.as_str().to_owned())
        .collect();
    assert_eq!(
        (names, bytes),
        (vec!["1-a.core".to_owned(), "2-b.core".to_owned()], vec![0; 5003])
    );
    let many: Vec<_> = (0..300).map(|at| format!("{at}-a.core")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
    for (lie, wanted) in [
        (said(1 << 50, &[("1-a.core", 3)]), "core files beyond their area"),
        (said(u64::MAX, &[("1-a.core", 3)]), "core files beyond their area"),
        (
            said(0, &[("1-a.core", u64::MAX), ("2-a.core", 1)]),
            "core files beyond their area",
        ),
        (
            said(0, &[("1-a.core", 3), ("1-a.core", 3)]),
            "two core files of one name",
        ),
        (said(0, &many), "more than 256 core files"),
        (said(0, &[("../../home/.bashrc", 3)]), "no name of a core file"),
        (said(0, &[("/etc/passwd.core", 3)]), "no name of a core file"),
        (
            r#"{"did":{"operation":"dump"}}"#.to_owned(),
            "an answer to another question",
        ),
        (
            r#"{"saved":{"start":0,"length":1,"events":0}}"#.to_owned(),
            "an answer to another question",
        ),
    ] {
        match dumped(&lie) {
            (Err(CellFault::Protocol(error)), bytes) => {
                assert!(error.to_string().contains(wanted), "{lie}: {error}");
                assert!(bytes.is_empty(), "{lie}");
            }
            other => panic!("{lie}: {other:?}"),
        }
    }
    let refused = r#"{"refused":{"operation":"dump","reason":"no room"}}"#;
    let (cores, _) = dumped(refused);
    assert_eq!(cores.unwrap_err().to_string(), "cannot dump: no room");
}

#[test]
fn operations_are_done_or_answered_as_unsupported() {
    let stop = StopSignal::new().unwrap();
    let mut cell = spawn(HostLimits::default(), Bounds::default(), &stop);
    cell.start(&job("answer")).unwrap();
    cell.pause().unwrap();
    let before = cell.usage().unwrap();
    cell.resume().unwrap();
    for (operation, answer) in [
        (Operation::SaveContext, cell.save_context()),
        (Operation::LoadContext, cell.load_context()),
        (Operation::Dump, cell.dump(&mut Vec::new()).map(|_| ())),
        (Operation::RunOneInstruction, cell.run_one_instruction()),
        (Operation::RunOneSlice, cell.run_one_slice()),
    ] {
        match answer {
            Err(CellFault::Unsupported {
                engine,
                operation: asked,
            }) => {
                assert_eq!((engine.as_str(), asked), ("test-cell", operation));
            }
            other => panic!("{operation}: {other:?}"),
        }
    }
    cell.set_limit(Limit::WallMillis(60_000)).unwrap();
    // Limits of another user's process need a right (CAP_SYS_RESOURCE) that even root may lack.
    match cell.set_limit(Limit::CpuSeconds(30)) {
        Ok(()) | Err(CellFault::Host { .. }) => {}
        other => panic!("{other:?}"),
    }
    cell.force_stop().unwrap();
    let after = cell.usage().unwrap();
    assert!(after.cpu_s >= before.cpu_s);
    assert!(cell.pause().is_err());
}

#[test]
fn a_sealed_blob_cannot_be_changed_even_by_its_maker() {
    use std::os::fd::{AsFd, AsRawFd};
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    assert_eq!(blob.length(), PAYLOAD.len() as u64);
    assert!(nix::unistd::write(blob.as_fd(), b"x").is_err());
    let again = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{}", blob.as_fd().as_raw_fd()))
        .and_then(|mut file| io::Write::write(&mut file, b"x"));
    assert!(again.is_err(), "{again:?}");
}

#[test]
fn a_program_that_is_no_cell_is_told_as_such() {
    let spec = |executable: &Executable| {
        ProcessCell::spawn(&Spec {
            executable,
            blobs: &[],
            limits: HostLimits::default(),
            bounds: Bounds::default(),
            sandbox: Sandbox::of_this_host(),
            stop: &StopSignal::new().unwrap(),
            cores: None,
        })
        .map(|_| ())
        .unwrap_err()
        .to_string()
    };
    let said = spec(&Executable::open("/bin/true".as_ref()).unwrap());
    assert!(said.contains("ended without a result"), "{said}");
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("not-a-program");
    std::fs::write(&script, "no program").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = spec(&Executable::open(&script).unwrap());
    assert!(said.contains("execute"), "{said}");
}
