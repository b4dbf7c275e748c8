//! Any bytes as what a cell says: taken in order and within bounds or refused, and the same however the bytes arrive.
#![no_main]

use std::io::{self, Read};

use hotcell_cells::intake::{Bounds, Intake, Sink};
use hotcell_cells::protocol::{FromCell, write_message, write_raw};
use hotcell_schema::event::{Event, Process, ProcessOp, Task, What, Witness};
use libfuzzer_sys::fuzz_target;

const BOUNDS: Bounds = Bounds {
    message: 64 << 10,
    items: 200,
    events: 50,
    event_bytes: 64 << 10,
    outputs: 8,
    output_bytes: 4096,
};

/// Keeps accounts of what arrives, and insists on its order.
#[derive(Debug, Default, PartialEq)]
struct Accounts {
    events: u64,
    outputs: u64,
    bytes: u64,
    /// Bytes that the open output still wants.
    open: Option<u64>,
}

impl Sink for Accounts {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        assert_eq!(self.open, None, "events within an output");
        for event in events {
            assert_eq!(event.seq, self.events);
            self.events += 1;
        }
        assert!(self.events <= BOUNDS.events);
        Ok(())
    }

    fn output_begins(&mut self, port: &str, name: &str, length: u64) -> io::Result<()> {
        assert_eq!(self.open.replace(length), None, "an output within another");
        assert!(port.chars().count() <= 4096 && name.chars().count() <= 4096);
        // The one that is too many may still begin; nothing of it is taken.
        assert!(self.outputs <= BOUNDS.outputs);
        self.outputs += 1;
        Ok(())
    }

    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().expect("bytes of an output that is open");
        *open = open
            .checked_sub(bytes.len() as u64)
            .expect("no more than was announced");
        self.bytes += bytes.len() as u64;
        assert!(self.bytes <= BOUNDS.output_bytes);
        Ok(())
    }

    fn output_ends(&mut self) -> io::Result<()> {
        assert_eq!(self.open.take(), Some(0), "an output of its announced length");
        Ok(())
    }
}

/// Gives a few bytes at a time.
struct Drops<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.most);
        self.rest.read(&mut buffer[..most])
    }
}

/// Everything that is said, and the error that ends it.
fn take(rest: &[u8], most: usize) -> (Vec<String>, String, Accounts) {
    let mut intake = Intake::new(Drops { rest, most }, BOUNDS);
    let (mut said, mut accounts) = (Vec::new(), Accounts::default());
    loop {
        match intake.take(&mut accounts) {
            Ok(one) => said.push(format!("{one:?}")),
            Err(error) => {
                assert_eq!(intake.events() >= accounts.events, true);
                return (said, error.to_string(), accounts);
            }
        }
        assert!(said.len() as u64 <= BOUNDS.items);
    }
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
            image: String::new(),
        },
        what: What::Process(Process::new(ProcessOp::Start)),
        raw: None,
    }
}

/// A stream of mostly whole frames: each step is a kind, a number, and for some as many bytes.
fn stream(mut steps: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seq = 0;
    while let [kind, number, rest @ ..] = steps {
        steps = rest;
        let (kind, number) = (*kind, u64::from(*number));
        let mut taken = || {
            let (taken, rest) = steps.split_at(steps.len().min(number as usize));
            steps = rest;
            taken
        };
        let message = match kind % 10 {
            // A frame as it comes: kind, length and body need not fit.
            0 => {
                let body = taken();
                out.extend((body.len() as u32).wrapping_add(u32::from(kind / 10) % 3).to_le_bytes());
                out.push(kind / 30 % 4);
                out.extend(body);
                continue;
            }
            1 => {
                write_raw(&mut out, taken()).expect("memory");
                continue;
            }
            2 => FromCell::Events {
                events: (0..number % 20)
                    .map(|_| {
                        seq += 1;
                        event(seq - 1)
                    })
                    .collect(),
            },
            // Out of sequence, or of no sequence yet.
            3 => FromCell::Events {
                events: vec![event(number)],
            },
            4 | 5 => FromCell::Output {
                port: "files".into(),
                name: String::from_utf8_lossy(taken()).into_owned(),
                length: if kind % 10 == 4 { number } else { u64::MAX - number },
            },
            6 => FromCell::Failed {
                reason: String::from_utf8_lossy(taken()).into_owned(),
            },
            7 => FromCell::Ready {
                protocol: u32::from(kind / 10),
                engine: String::from_utf8_lossy(taken()).into_owned(),
                identity: String::new(),
                confinement: vec![String::new(); number as usize],
            },
            // Bytes that belong to no frame.
            8 => {
                out.extend(taken());
                continue;
            }
            // A message in parts.
            _ => {
                let mut whole = Vec::new();
                let reason = "x".repeat(number as usize);
                write_message(&mut whole, &FromCell::Failed { reason }).expect("memory");
                let body = &whole[5..];
                for (place, part) in body.chunks(1 + usize::from(kind) / 10).enumerate() {
                    let last = (place + 1) * (1 + usize::from(kind) / 10) >= body.len();
                    out.extend((part.len() as u32 + 1).to_le_bytes());
                    out.push(if last { 0 } else { 2 });
                    out.extend(part);
                }
                continue;
            }
        };
        write_message(&mut out, &message).expect("memory");
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let stream = match mode % 4 {
        0 => rest.to_vec(),
        _ => stream(rest),
    };
    let whole = take(&stream, usize::MAX);
    assert_eq!(take(&stream, 1 + usize::from(mode / 4)), whole);
});
