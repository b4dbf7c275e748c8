//! Records of the kernel part, taken apart (`record.h`).

/// What every record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub time: u64,
    /// Which cell.
    pub cell: u32,
    /// The host's number of the process.
    pub pid: u32,
    /// And of the thread.
    pub tid: u32,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A system call came back, or ended with its task.
    Call(Call<'a>),
    /// A system call began whose texts are told then.
    Began(Call<'a>),
    /// A task made another: the host's numbers of its process and thread.
    Fork {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
        /// The same two as the task's own namespace numbers them.
        inner: (u32, u32),
    },
    /// A task runs another program.
    Exec {
        /// Path, as the kernel opened it.
        path: &'a [u8],
    },
    /// A task ended.
    Exit {
        /// As wait(2) tells it.
        code: u32,
        /// The first thread of its process.
        leader: bool,
    },
    /// A signal was sent.
    Signal {
        /// To which process.
        to: u32,
        /// Its number.
        number: u32,
        /// `si_code` (sigaction(2)).
        code: i32,
    },
    /// The kernel part ended the task by a rule.
    Killed {
        /// At which system call.
        number: u32,
        /// By which of the cell's rules.
        rule: u32,
    },
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// Its number on the host.
    pub number: u32,
    /// Its arguments; zero where it is unfinished.
    pub arguments: [u64; 6],
    /// What it gave: negative is an error.
    pub result: i64,
    /// Its task ended within it.
    pub unfinished: bool,
    /// It does not come back.
    pub never: bool,
    /// It made the file that it opened.
    pub created: bool,
    /// Memory that arguments name: argument, whether there was more, bytes.
    pub pieces: [Option<(u8, bool, &'a [u8])>; 3],
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

/// Which cell a record is of.
pub fn cell(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader(bytes);
    reader.u64()?;
    reader.u32()
}

/// Takes a record apart. `None`: it is none of ours.
pub fn parse(bytes: &[u8]) -> Option<(Head, Record<'_>)> {
    let mut reader = Reader(bytes);
    let head = Head {
        time: reader.u64()?,
        cell: reader.u32()?,
        pid: reader.u32()?,
        tid: reader.u32()?,
    };
    let kind = reader.u16()?;
    let _length = reader.u16()?;
    let record = match kind {
        1 => Record::Call(call(&mut reader)?),
        2 => Record::Began(call(&mut reader)?),
        3 => Record::Fork {
            pid: reader.u32()?,
            tid: reader.u32()?,
            inner: (reader.u32()?, reader.u32()?),
        },
        4 => Record::Exec {
            path: call(&mut reader)?.pieces[0].map_or(&[][..], |(_, _, path)| path),
        },
        5 => Record::Exit {
            code: reader.u32()?,
            leader: reader.u32()? != 0,
        },
        6 => Record::Signal {
            to: reader.u32()?,
            number: reader.u32()?,
            code: reader.u32()?.cast_signed(),
        },
        7 => {
            reader.u32()?;
            Record::Killed {
                number: reader.u32()?,
                rule: reader.u32()?,
            }
        }
        _ => return None,
    };
    Some((head, record))
}

fn call<'a>(reader: &mut Reader<'a>) -> Option<Call<'a>> {
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = reader.u64()?;
    }
    let result = reader.u64()?.cast_signed();
    let number = reader.u32()?;
    let count = reader.u32()? as usize;
    let mut lengths = [(0, false, 0); 3];
    for length in &mut lengths {
        let [argument, cut] = reader.take()?;
        *length = (argument, cut != 0, reader.u16()?);
    }
    // `enum outcome` of `record.h`.
    let outcome = reader.u32()?;
    let mut pieces = [None; 3];
    for (piece, (argument, cut, length)) in pieces.iter_mut().zip(lengths).take(count) {
        *piece = Some((argument, cut, reader.bytes(length.into())?));
    }
    Some(Call {
        number,
        arguments,
        result,
        unfinished: outcome & 1 != 0,
        never: outcome & 2 != 0,
        created: outcome & 4 != 0,
        pieces,
    })
}

/// What a record says in the layout that [`parse`] takes apart: for who tells instead of the kernel part.
pub fn write(head: &Head, record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(head.time.to_ne_bytes());
    bytes.extend(head.cell.to_ne_bytes());
    bytes.extend(head.pid.to_ne_bytes());
    bytes.extend(head.tid.to_ne_bytes());
    let kind: u16 = match record {
        Record::Call(_) => 1,
        Record::Began(_) => 2,
        Record::Fork { .. } => 3,
        Record::Exec { .. } => 4,
        Record::Exit { .. } => 5,
        Record::Signal { .. } => 6,
        Record::Killed { .. } => 7,
    };
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(0_u16.to_ne_bytes());
    let mut numbers = |numbers: &[u32]| bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    match record {
        Record::Call(call) | Record::Began(call) => write_call(call, &mut bytes),
        Record::Fork { pid, tid, inner } => numbers(&[*pid, *tid, inner.0, inner.1]),
        Record::Exec { path } => {
            let call = Call {
                number: 0,
                arguments: [0; 6],
                result: 0,
                unfinished: false,
                never: false,
                created: false,
                pieces: [Some((0, false, path)), None, None],
            };
            write_call(&call, &mut bytes);
        }
        Record::Exit { code, leader } => numbers(&[*code, u32::from(*leader)]),
        Record::Signal { to, number, code } => numbers(&[*to, *number, code.cast_unsigned(), 0]),
        Record::Killed { number, rule } => numbers(&[head.pid, *number, *rule, 0]),
    }
    bytes
}

fn write_call(call: &Call<'_>, to: &mut Vec<u8>) {
    to.extend(call.arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    to.extend(call.result.to_ne_bytes());
    to.extend(call.number.to_ne_bytes());
    // Nobody tells of more at once.
    let bytes = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let pieces = || call.pieces.iter().flatten();
    to.extend((pieces().count() as u32).to_ne_bytes());
    for piece in 0..call.pieces.len() {
        let (argument, cut, length) = match pieces().nth(piece) {
            Some((argument, cut, text)) => (*argument, u8::from(*cut), bytes(text)),
            None => (0, 0, 0),
        };
        to.extend([argument, cut]);
        to.extend(length.to_ne_bytes());
    }
    let outcome = u32::from(call.unfinished) | u32::from(call.never) << 1 | u32::from(call.created) << 2;
    to.extend(outcome.to_ne_bytes());
    for (_, _, text) in pieces() {
        to.extend(text.iter().take(bytes(text).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_taken_apart() {
        let head = Head {
            time: 1 << 40,
            cell: 3,
            pid: 4,
            tid: 5,
        };
        let call = Call {
            number: 257,
            arguments: [1, 2, 3, 4, 5, 6],
            result: -2,
            unfinished: true,
            never: false,
            created: true,
            pieces: [Some((1, true, b"path\0")), None, Some((3, false, b""))],
        };
        // Pieces stand one behind the other.
        let packed = Call {
            pieces: [call.pieces[0], call.pieces[2], None],
            ..call.clone()
        };
        let path = b"/bin/sh\0";
        for (record, expected) in [
            (Record::Call(call.clone()), Record::Call(packed.clone())),
            (Record::Began(packed.clone()), Record::Began(packed)),
        ]
        .into_iter()
        .chain(
            [
                Record::Fork {
                    pid: 1,
                    tid: 2,
                    inner: (3, 4),
                },
                Record::Exec { path },
                Record::Exit {
                    code: 9,
                    leader: true,
                },
                Record::Signal {
                    to: 7,
                    number: 15,
                    code: -6,
                },
                Record::Killed { number: 59, rule: 2 },
            ]
            .map(|record| (record.clone(), record)),
        ) {
            assert_eq!(parse(&write(&head, &record)), Some((head, expected)));
        }
    }
}
