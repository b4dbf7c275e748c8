//! The cell's side of the conversation, with the test as the runner.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;

use hotcell_cells::cell_side::{CellError, Connection, Control};
use hotcell_cells::contract::Operation;
use hotcell_cells::protocol::{FrameReader, FromCell, Item, PROTOCOL, ProtocolError, ToCell, write_message};
use hotcell_schema::job::{Blob, Job};

fn pair() -> (Connection, UnixStream) {
    let (cell, runner) = UnixStream::pair().unwrap();
    (Connection::over(cell), runner)
}

fn say(mut runner: &UnixStream, messages: &[ToCell]) {
    for message in messages {
        write_message(&mut runner, message).unwrap();
    }
    runner.flush().unwrap();
}

fn heard(runner: &UnixStream) -> FromCell {
    match FrameReader::new(runner, 1 << 20).read().unwrap() {
        Some(Item::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn start() -> ToCell {
    ToCell::Start {
        job: Box::new(common::job("x")),
        area: None,
        context: None,
    }
}

#[test]
fn the_handshake_gives_the_job() {
    let (mut cell, runner) = pair();
    say(
        &runner,
        &[
            ToCell::Hello { protocol: PROTOCOL },
            ToCell::SaveContext,
            ToCell::Dump,
            start(),
        ],
    );
    let job = cell.handshake("engine", "1", vec!["seccomp".into()]).unwrap();
    assert!(matches!(job, Job::Linux(_)));
    let ready = FromCell::Ready {
        protocol: PROTOCOL,
        engine: "engine".into(),
        identity: "1".into(),
        confinement: vec!["seccomp".into()],
    };
    assert_eq!(heard(&runner), ready);
    for operation in [Operation::SaveContext, Operation::Dump] {
        let unsupported = FromCell::Unsupported {
            engine: "engine".into(),
            operation,
        };
        assert_eq!(heard(&runner), unsupported);
    }
}

#[test]
fn another_version_or_order_is_refused() {
    let (mut cell, runner) = pair();
    say(
        &runner,
        &[ToCell::Hello {
            protocol: PROTOCOL + 1,
        }],
    );
    let refused = cell.handshake("engine", "1", Vec::new()).unwrap_err();
    assert!(
        matches!(refused, CellError::Protocol(ProtocolError::Version { theirs }) if theirs == PROTOCOL + 1)
    );

    let (mut cell, runner) = pair();
    say(&runner, &[start()]);
    let refused = cell.handshake("engine", "1", Vec::new()).unwrap_err();
    assert!(matches!(refused, CellError::Unexpected { expected: "Hello" }));

    let (mut cell, runner) = pair();
    drop(runner);
    let refused = cell.handshake("engine", "1", Vec::new()).unwrap_err();
    assert!(
        matches!(refused, CellError::Protocol(ProtocolError::Ended)),
        "{refused}"
    );
}

#[test]
fn control_answers_without_waiting_and_holds_a_pause() {
    let (mut cell, runner) = pair();
    say(&runner, &[ToCell::Hello { protocol: PROTOCOL }, start()]);
    cell.handshake("engine", "1", Vec::new()).unwrap();
    heard(&runner);
    assert_eq!(cell.control().unwrap(), Control::GoOn);
    say(&runner, &[ToCell::Pause, ToCell::Resume]);
    assert_eq!(cell.control().unwrap(), Control::GoOn);
    assert_eq!(
        heard(&runner),
        FromCell::Did {
            operation: Operation::Pause
        }
    );
    assert_eq!(
        heard(&runner),
        FromCell::Did {
            operation: Operation::Resume
        }
    );
    say(&runner, &[ToCell::RunOneSlice]);
    assert_eq!(cell.control().unwrap(), Control::Asked(ToCell::RunOneSlice));
    say(&runner, &[ToCell::Pause, ToCell::Stop]);
    assert_eq!(cell.control().unwrap(), Control::Stop);
}

#[test]
fn a_blob_that_was_not_handed_over_is_an_error() {
    let (cell, _runner) = pair();
    let missing = cell
        .blob(Blob {
            index: 60_000,
            length: 1,
        })
        .unwrap_err();
    assert!(missing.to_string().contains("was not handed over"), "{missing}");
    let beyond = cell
        .blob(Blob {
            index: u32::MAX,
            length: 1,
        })
        .unwrap_err();
    assert!(beyond.to_string().contains("was not handed over"), "{beyond}");
}
