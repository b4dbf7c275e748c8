//! Stories of records that the kernel could have told.

use super::*;

const OPENAT: u32 = 257;
const WRITE: u32 = 1;
const CLOSE: u32 = 3;
const UNLINKAT: u32 = 263;
const EXECVE: u32 = 59;
const AT_CWD: u64 = -100_i64 as u64;

fn story() -> Story {
    let profile = include_str!("../../../../arch-profiles/x86_64.toml");
    let profile = toml::from_str(profile).expect("a profile");
    let sample = Sample {
        path: "/tmp/sample".into(),
        argv: vec!["/tmp/sample".into(), "one".into()],
        cwd: "/root".into(),
        emulator: Some("/.hotcell/qemu".into()),
    };
    Story::new(Calls::new(&profile), sample)
}

fn head(pid: u32) -> Head {
    Head {
        time: 1000,
        cell: 0,
        pid,
        tid: pid,
    }
}

fn call<'a>(number: u32, arguments: [u64; 6], result: i64, piece: Option<(u8, &'a [u8])>) -> Call<'a> {
    Call {
        number,
        arguments,
        result,
        unfinished: false,
        never: false,
        created: false,
        pieces: [
            piece.map(|(argument, bytes)| (argument, false, bytes)),
            None,
            None,
        ],
    }
}

fn told(story: &mut Story, records: &[(u32, Record<'_>)]) -> Vec<Event> {
    let mut all = Vec::new();
    for (pid, record) in records {
        story.take(&head(*pid), record, &mut |event| all.push(event.clone()));
    }
    all
}

/// A keeper's init (20) and the guest's first process (21).
fn begin(story: &mut Story) -> Vec<Event> {
    let fork = |pid, inner| Record::Fork {
        pid,
        tid: pid,
        inner: (inner, inner),
    };
    let emulator = Record::Exec {
        path: b"/.hotcell/qemu\0",
    };
    told(story, &[(10, fork(20, 1)), (20, fork(21, 2)), (21, emulator)])
}

#[test]
fn a_guest_begins_with_its_program_and_has_its_own_numbers() {
    let mut story = story();
    let events = begin(&mut story);
    assert_eq!(events.len(), 1, "{events:?}");
    let What::Process(start) = &events[0].what else {
        panic!("{events:?}");
    };
    assert_eq!(
        (start.op, start.path.as_deref()),
        (ProcessOp::Start, Some("/tmp/sample"))
    );
    assert_eq!(start.argv, ["/tmp/sample", "one"]);
    assert_eq!((events[0].task.pid, events[0].task.parent), (2, 1));
}

#[test]
fn files_have_absolute_paths_and_are_told_when_they_are_closed() {
    let mut story = story();
    begin(&mut story);
    let mut opened = call(OPENAT, [AT_CWD, 0x1000, 0o1101, 0o600, 0, 0], 3, None);
    opened.created = true;
    let events = told(
        &mut story,
        &[
            (
                21,
                Record::Began(call(
                    OPENAT,
                    [AT_CWD, 0x1000, 0, 0, 0, 0],
                    0,
                    Some((1, b"../etc/x\0")),
                )),
            ),
            (21, Record::Call(opened)),
            (
                21,
                Record::Call(call(WRITE, [3, 0x2000, 5, 0, 0, 0], 5, Some((1, b"hello")))),
            ),
            (21, Record::Call(call(CLOSE, [3, 0, 0, 0, 0, 0], 0, None))),
            (
                21,
                Record::Call(call(UNLINKAT, [AT_CWD, 1, 0, 0, 0, 0], -2, Some((1, b"gone\0")))),
            ),
        ],
    );
    let files: Vec<(FileOp, &str, Option<u64>, Option<&str>)> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::File(file) => Some((file.op, file.path.as_str(), file.bytes, file.errno.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(
        files,
        [
            (FileOp::Create, "/etc/x", None, None),
            (FileOp::Written, "/etc/x", Some(5), None),
            (FileOp::Delete, "/root/gone", None, Some("ENOENT")),
        ]
    );
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(at, event)| event.seq == at as u64 + 1)
    );
}

#[test]
fn another_program_is_the_one_that_was_asked_for() {
    let mut story = story();
    begin(&mut story);
    let mut asked = call(EXECVE, [1, 2, 3, 0, 0, 0], 0, Some((0, b"/bin/sh\0")));
    asked.pieces[1] = Some((1, false, b"sh\0-c\0"));
    let events = told(
        &mut story,
        &[
            (21, Record::Began(asked)),
            (21, Record::Exec { path: b"/bin/sh\0" }),
            (
                21,
                Record::Exit {
                    code: 7 << 8,
                    leader: true,
                },
            ),
        ],
    );
    let processes: Vec<&ProcessEvent> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Process(process) => Some(process),
            _ => None,
        })
        .collect();
    assert_eq!(processes[0].argv, ["sh", "-c"]);
    assert_eq!(processes[1].code, Some(7));
    assert_eq!(events[1].task.image, "/bin/sh");
}
