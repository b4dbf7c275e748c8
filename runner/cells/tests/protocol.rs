//! The protocol reader against anything that could come: it never panics, and never allocates by a length it was told.
#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor, Read};

use hotcell_cells::intake::{Bounds, Intake, Sink};
use hotcell_cells::protocol::{
    FrameReader, FromCell, Item, JSON, JSON_PART, MAX_BODY, ProtocolError, RAW, ToCell, write_message,
    write_raw,
};
use hotcell_schema::event::Event;
use proptest::prelude::*;

struct Count(u64);

impl Sink for Count {
    fn events(&mut self, events: Vec<Event>) -> io::Result<()> {
        self.0 += events.len() as u64;
        Ok(())
    }
    fn output_begins(&mut self, _: &str, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len() + 1).unwrap().to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(body);
    frame
}

fn take_all(bytes: &[u8], bounds: Bounds) -> Result<(), String> {
    let mut intake = Intake::new(Cursor::new(bytes), bounds);
    let mut count = Count(0);
    loop {
        intake.take(&mut count).map_err(|error| error.to_string())?;
    }
}

#[test]
fn lengths_and_kinds_out_of_range_are_refused() {
    let reader = |bytes: Vec<u8>| FrameReader::new(Cursor::new(bytes), 1 << 20).read::<ToCell>();
    assert!(matches!(reader(vec![0; 4]), Err(ProtocolError::FrameLength(0))));
    assert!(matches!(
        reader(vec![0xff; 64]),
        Err(ProtocolError::FrameLength(u32::MAX))
    ));
    assert!(matches!(reader(frame(9, b"x")), Err(ProtocolError::FrameKind(9))));
    assert!(matches!(
        reader(frame(JSON, b"")),
        Err(ProtocolError::FrameLength(1))
    ));
    assert!(matches!(
        reader(frame(JSON, b"{}")),
        Err(ProtocolError::Message(_))
    ));
    assert!(matches!(reader(vec![1]), Err(ProtocolError::Ended)));
    assert!(matches!(reader(Vec::new()), Ok(None)));
    assert!(matches!(
        reader(frame(JSON_PART, b"\"Stop")),
        Err(ProtocolError::Ended)
    ));
    let mixed = [frame(JSON_PART, b"\"sto"), frame(RAW, b"p\"")].concat();
    assert!(matches!(reader(mixed), Err(ProtocolError::Order(_))));
    let split = [frame(JSON_PART, b"\"sto"), frame(JSON, b"p\"")].concat();
    assert_eq!(reader(split).unwrap(), Some(Item::Message(ToCell::Stop)));
}

#[test]
fn an_endless_message_is_bounded() {
    let part = frame(JSON_PART, &vec![b' '; MAX_BODY]);
    let endless = part.repeat(4);
    let read = FrameReader::new(Cursor::new(endless), 2 << 20).read::<ToCell>();
    assert!(matches!(read, Err(ProtocolError::MessageLength(_))));
}

#[test]
fn the_parser_allocates_by_what_arrives() {
    // A reader that gives a length of 1 MiB and then ends: it must not have been asked for a buffer of that size.
    struct Watch {
        rest: Cursor<Vec<u8>>,
        largest: usize,
    }
    impl Read for Watch {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(buffer.len());
            self.rest.read(buffer)
        }
    }
    let mut bytes = u32::try_from(MAX_BODY).unwrap().to_le_bytes().to_vec();
    bytes.push(RAW);
    bytes.extend([7; 100]);
    let watch = Watch {
        rest: Cursor::new(bytes),
        largest: 0,
    };
    let mut reader = FrameReader::new(watch, 1 << 20);
    assert!(matches!(reader.read::<ToCell>(), Err(ProtocolError::Ended)));
    assert!(
        reader.get_ref().largest < 64 << 10,
        "{}",
        reader.get_ref().largest
    );
}

#[test]
fn counts_in_all_are_bounded() {
    let mut stream = Vec::new();
    for _ in 0..10 {
        write_message(&mut stream, &FromCell::Failed { reason: "x".into() }).unwrap();
    }
    let few = Bounds {
        items: 5,
        ..Bounds::default()
    };
    assert_eq!(take_all(&stream, few).unwrap_err(), "more than 5 messages");

    let mut stream = Vec::new();
    for name in 0..10 {
        let output = FromCell::Output {
            port: "files".into(),
            name: name.to_string(),
            length: 1,
        };
        write_message(&mut stream, &output).unwrap();
        write_raw(&mut stream, b"x").unwrap();
    }
    let few = Bounds {
        outputs: 5,
        ..Bounds::default()
    };
    assert_eq!(take_all(&stream, few).unwrap_err(), "more than 5 outputs");
    let few = Bounds {
        output_bytes: 5,
        ..Bounds::default()
    };
    assert_eq!(
        take_all(&stream, few).unwrap_err(),
        "more than 5 bytes of outputs"
    );
    let mut twice = Vec::new();
    for _ in 0..2 {
        let output = FromCell::Output {
            port: "stdout".into(),
            name: String::new(),
            length: 0,
        };
        write_message(&mut twice, &output).unwrap();
    }
    assert_eq!(
        take_all(&twice, Bounds::default()).unwrap_err(),
        "the same output twice"
    );
}

proptest! {
    #[test]
    fn messages_round_trip(protocol in any::<u32>(), text in ".{0,200}", length in any::<u64>()) {
        let messages = vec![
            FromCell::Ready { protocol, engine: text.clone(), identity: text.clone(), confinement: vec![text.clone()] },
            FromCell::Output { port: text.clone(), name: text.clone(), length },
            FromCell::Failed { reason: text },
        ];
        let mut stream = Vec::new();
        for message in &messages {
            write_message(&mut stream, message).unwrap();
        }
        let mut reader = FrameReader::new(Cursor::new(stream), 1 << 20);
        for message in messages {
            prop_assert_eq!(reader.read().unwrap(), Some(Item::Message(message)));
        }
        prop_assert!(reader.read::<FromCell>().unwrap().is_none());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(take_all(&bytes, Bounds::default()).is_err());
    }

    #[test]
    fn random_frames_never_panic(frames in proptest::collection::vec(
        (0u8..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..30)) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
        prop_assert!(take_all(&bytes, Bounds::default()).is_err());
    }

    #[test]
    fn damaged_streams_never_panic(place in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
        let mut stream = Vec::new();
        write_message(&mut stream, &FromCell::Output { port: "stdout".into(), name: String::new(), length: 9 }).unwrap();
        write_raw(&mut stream, b"some text").unwrap();
        write_message(&mut stream, &FromCell::Events { events: Vec::new() }).unwrap();
        write_message(&mut stream, &FromCell::Failed { reason: "why".into() }).unwrap();
        if let Some(byte) = stream.get_mut(place) {
            *byte = value;
        }
        stream.truncate(cut);
        prop_assert!(take_all(&stream, Bounds::default()).is_err());
    }
}
