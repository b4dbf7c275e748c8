//! A cell for tests: it does what the first argument of its job says, well or badly.
//!
//! Real cells are `hotcell-unicorn` and `hotcell-inspect`; this one lies, floods, hangs, crashes and attacks, so that tests
//! can show what the runner does about it.

mod attacks_unsafe;

use std::io::Write;
use std::process::ExitCode;

use hotcell_cells::cell_side::{CellError, Connection, Control, confine::Profile, serve};
use hotcell_cells::contract::Operation;
use hotcell_cells::protocol::{self, ToCell};
use hotcell_schema::digest::Digest;
use hotcell_schema::event::{Event, Process, ProcessOp, Task, What, Witness};
use hotcell_schema::job::{Blob, Job, JobResult, LeftFile, LinuxJob, LinuxResult};
use hotcell_schema::outcome::Outcome;

#[allow(clippy::print_stdout, reason = "an executable says who it is")]
fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "--identity")
    {
        println!("test-cell 1");
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().next().is_some_and(|name| name == "bare-cell") {
        return bare();
    }
    serve(
        "test-cell",
        "test-cell 1",
        Profile::inspect(),
        |connection, job| match job {
            Job::Linux(job) => act(connection, &job),
            _ => Err(CellError::Job("this cell only takes Linux jobs".into())),
        },
    )
}

/// Attacks before it has confined itself: what holds is what the runner put around it. The payload says what to do: a line
/// with a process and a port of the host, then an attack in each line. What came of them is told as why it gives up.
fn bare() -> ExitCode {
    let told = || -> Result<(), CellError> {
        let connection = Connection::inherit()?;
        let script = std::fs::read_to_string("/proc/self/fd/4").unwrap_or_default();
        let length = script.len() as u64;
        let payload = connection.blob(Blob { index: 0, length })?;
        let mut lines = script.lines();
        let (target, port) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .unwrap_or_default();
        let (target, port) = (target.parse().unwrap_or(0), port.parse().unwrap_or(0));
        let connected = match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("refused: {error}"),
        };
        let mut told = vec![format!("connect={connected}")];
        for attack in lines {
            told.push(format!(
                "{attack}={}",
                attacks_unsafe::attack(attack, target, &payload)?
            ));
        }
        connection.failed(&told.join("\n"))
    };
    match told() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn act(connection: &mut Connection, job: &LinuxJob) -> Result<JobResult, CellError> {
    let mut sent = 0;
    let mut files = Vec::new();
    match job.argv.get(1).map_or("well", String::as_str) {
        "well" => {
            let program = connection.blob(job.program)?;
            for seq in 0..3 {
                connection.send_events(&[event(seq)])?;
            }
            sent = 3;
            connection.send_output("stdout", "", &program)?;
            connection.send_output("stderr", "", b"")?;
            let left = b"left behind".as_slice();
            let digest = Digest::of(left);
            connection.send_output("files", &digest.to_string(), left)?;
            files.push(LeftFile {
                path: "/tmp/x".into(),
                mode: 0o644,
                length: left.len() as u64,
                digest,
            });
        }
        // Leaves every line of the program as a file; of a single line, every part between commas.
        "parts" => {
            let program = connection.blob(job.program)?;
            let separator = if program.contains(&b'\n') { b'\n' } else { b',' };
            let parts: Vec<&[u8]> = program.split(|byte| *byte == separator).collect();
            for (number, part) in parts.iter().enumerate().filter(|_| parts.len() > 1) {
                let digest = Digest::of(part);
                if files.iter().all(|file: &LeftFile| file.digest != digest) {
                    connection.send_output("files", &digest.to_string(), part)?;
                }
                files.push(LeftFile {
                    path: format!("/tmp/part-{number}"),
                    mode: 0o644,
                    length: part.len() as u64,
                    digest,
                });
            }
        }
        "large-result" => {
            let text = "x".repeat(3 << 20);
            return Ok(result(0, Outcome::Signalled(text), Vec::new()));
        }
        many @ ("some-events" | "many-events") => {
            sent = if many == "many-events" { 50_000 } else { 3_000 };
            for seq in 0..sent {
                connection.send_events(&[event(seq)])?;
            }
        }
        "flood-events" => {
            for seq in 0.. {
                connection.send_events(&[event(seq)])?;
            }
        }
        "events-out-of-order" => {
            connection.send_events(&[event(0), event(2)])?;
            connection.flush()?;
        }
        "output-too-long" => {
            let mut frames = Vec::new();
            let output = protocol::FromCell::Output {
                port: "stdout".into(),
                name: String::new(),
                length: 4,
            };
            protocol::write_message(&mut frames, &output)?;
            protocol::write_raw(&mut frames, b"12345678")?;
            raw(&frames);
        }
        "output-too-short" => {
            let mut frames = Vec::new();
            let output = protocol::FromCell::Output {
                port: "stdout".into(),
                name: String::new(),
                length: 400,
            };
            protocol::write_message(&mut frames, &output)?;
            protocol::write_raw(&mut frames, b"12345678")?;
            raw(&frames);
        }
        "output-announces-too-much" => {
            let mut frames = Vec::new();
            let output = protocol::FromCell::Output {
                port: "stdout".into(),
                name: String::new(),
                length: u64::MAX,
            };
            protocol::write_message(&mut frames, &output)?;
            raw(&frames);
        }
        "unknown-port" => connection.send_output("../../etc/passwd", "", b"x")?,
        "wrong-file-digest" => {
            connection.send_output("files", &Digest::of(b"something else").to_string(), b"content")?;
        }
        "result-names-missing-file" => files.push(LeftFile {
            path: "/tmp/x".into(),
            mode: 0o644,
            length: 5,
            digest: Digest::of(b"never sent"),
        }),
        "garbage" => raw(&[0xff; 4096]),
        "deep-json" => {
            let body = vec![b'['; 1 << 19];
            let mut frame = u32::try_from(body.len() + 1).unwrap_or(0).to_le_bytes().to_vec();
            frame.push(protocol::JSON);
            frame.extend(body);
            raw(&frame);
        }
        "panic" => panic!("as asked"),
        "give-up" => return Err(CellError::Job("no wish to go on".into())),
        "abort" => std::process::abort(),
        "segfault" => attacks_unsafe::fault(),
        "take-descriptors" => {
            let taken = attacks_unsafe::take_descriptors();
            connection.send_output("stdout", "", taken.to_string().as_bytes())?;
        }
        "take-tables" => {
            let read = attacks_unsafe::take_tables();
            connection.send_output("stdout", "", read.to_string().as_bytes())?;
        }
        // Computes for a while, then gives what only depends on the program.
        "steady" => {
            let program = connection.blob(job.program)?;
            let mut digest = Digest::of(&program);
            for seq in 0..200 {
                for _ in 0..20 {
                    digest = Digest::of(digest.to_string().as_bytes());
                }
                connection.send_events(&[event(seq)])?;
            }
            sent = 200;
            connection.send_output("stdout", "", digest.to_string().as_bytes())?;
        }
        "some-events-and-abort" => {
            for seq in 0..7 {
                connection.send_events(&[event(seq)])?;
            }
            connection.flush()?;
            let _ = std::io::stderr().write_all(b"the engine met a bug");
            std::process::abort()
        }
        "hang-up" => {
            attacks_unsafe::hang_up();
            loop {
                std::thread::park_timeout(std::time::Duration::from_secs(3600));
            }
        }
        // A frame of every kind that says nothing, for ever.
        endless @ ("endless-messages" | "endless-part" | "endless-silence") => {
            let frame: &[u8] = match endless {
                "endless-messages" => b"\x1f\0\0\0\0{\"did\":{\"operation\":\"resume\"}}",
                "endless-part" => b"\x05\0\0\0\x02    ",
                _ => b"",
            };
            loop {
                raw(frame);
            }
        }
        "exit" => std::process::exit(3),
        "hang" => loop {
            std::hint::spin_loop();
        },
        "until-stopped" => loop {
            if connection.control()? == Control::Stop {
                return Err(CellError::Stopped);
            }
        },
        "answer" => loop {
            match connection.control()? {
                Control::GoOn => {}
                Control::Stop => break,
                Control::Asked(message) => {
                    if let Some(operation) = message.operation() {
                        connection.unsupported(operation)?;
                    }
                }
            }
        },
        // A guest that never ends, and is ended when its time is up.
        "until-finished" => loop {
            match connection.control()? {
                Control::GoOn => {}
                Control::Stop => return Err(CellError::Stopped),
                Control::Asked(ToCell::Finish) => {
                    connection.did(Operation::Finish)?;
                    connection.send_output("stdout", "", b"until now")?;
                    break;
                }
                Control::Asked(other) => {
                    if let Some(operation) = other.operation() {
                        connection.unsupported(operation)?;
                    }
                }
            }
        },
        // Answers whatever is asked with what the last argument says, and goes on.
        "answer-with" => loop {
            match connection.control()? {
                Control::GoOn => {}
                Control::Stop => break,
                Control::Asked(_) => {
                    let answer = job.argv.last().map_or(&[][..], String::as_bytes);
                    let mut frame = ((answer.len() + 1) as u32).to_le_bytes().to_vec();
                    frame.push(protocol::JSON);
                    frame.extend(answer);
                    raw(&frame);
                }
            }
        },
        "eat-memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; 16 << 20]);
                std::hint::black_box(&all);
            }
        }
        "stderr-flood" => {
            let noise = [b'n'; 4096];
            for _ in 0..256 {
                let _ = std::io::stderr().write_all(&noise);
            }
            let _ = std::io::stderr().write_all(b"last words");
            std::process::abort();
        }
        attack => {
            let program = connection.blob(job.program)?;
            let target = job.argv.get(2).and_then(|pid| pid.parse().ok()).unwrap_or(1);
            let told = attacks_unsafe::attack(attack, target, &program)?;
            connection.send_output("stdout", "", told.as_bytes())?;
        }
    }
    Ok(result(sent, Outcome::Exited(0), files))
}

/// Writes to the control socket past the connection.
fn raw(bytes: &[u8]) {
    attacks_unsafe::write_all(3, bytes);
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        time: seq,
        witness: Witness::Engine,
        task: Task {
            pid: 1,
            tid: 1,
            parent: 0,
            image: "/tmp/sample".into(),
        },
        what: What::Process(Process::new(ProcessOp::Start)),
        raw: None,
    }
}

fn result(events: u64, outcome: Outcome, files: Vec<LeftFile>) -> JobResult {
    JobResult::Linux(LinuxResult {
        events,
        tasks: 1,
        files,
        ..LinuxResult::new(outcome, "x86_64")
    })
}
