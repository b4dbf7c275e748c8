//! Lines of a journal, read one after another and held against each other. Whatever the file is, memory is bounded: one line.

use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use hotcell_schema::digest::Digest;
use serde::Deserialize;

use super::companion;
use super::entry::{Entry, FORMAT, HEADER, MAX_LINE, VERSION};
use crate::{Journal, StoreError};

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is the first, and not that of an audit journal.
    #[error("this is not an audit journal: it does not begin with `{{\"format\":\"{FORMAT}\",…`")]
    Foreign,
    /// It is the first, and says a version that this one of hotcell does not know.
    #[error("the journal has version {0}, and this version of hotcell reads {VERSION}: use a newer one")]
    Version(u64),
    /// It is longer than any line of a journal.
    #[error("it is longer than {MAX_LINE} bytes, and no line of a journal is")]
    TooLong,
    /// It is the last, and has no newline: its writer was stopped while it was being written, or its end was cut off.
    #[error(
        "it is torn: its writer was stopped in the middle of it, or it was cut; who next writes sets it aside and says so"
    )]
    TornEnd,
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, and not as hotcell writes it.
    #[error("it is not an entry of an audit journal: {0}")]
    Form(String),
    /// Its digest does not fit its bytes.
    #[error("it was changed: its digest does not fit it")]
    Changed,
    /// The entries before it are not there.
    #[error("{} missing before it: removed", removed(*.from, *.to))]
    Removed {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// It belongs further down: what should stand here comes later.
    #[error("entry {found} stands here, and the one that belongs before it comes later: they were reordered")]
    Reordered {
        /// Sequence of the entry that stands here.
        found: u64,
    },
    /// It belongs further up: it, or what stands between, was inserted or repeated.
    #[error(
        "entry {found} stands here, whose place is further up: a line was inserted or repeated, this one or one before it"
    )]
    Inserted {
        /// Sequence of the entry that stands here.
        found: u64,
    },
    /// It has the right number and follows another entry than the one before it.
    #[error("it does not follow the line before it: one of the two was replaced")]
    Replaced,
}

fn removed(from: u64, to: u64) -> String {
    match from == to {
        true => format!("entry {from} is"),
        false => format!("entries {from} to {to} are"),
    }
}

/// A journal is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum AuditFault {
    /// It could not be read; that says nothing about it.
    #[error("the audit journal cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The first line that is wrong. All before it are right.
    #[error("line {line}{}: {wrong}", .sequence.map(|number| format!(", entry {number}")).unwrap_or_default())]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The entry that belongs there; `None` for the first line.
        sequence: Option<u64>,
        /// What is wrong.
        wrong: Wrong,
    },
    /// The companion knows of more entries than there are.
    #[error(
        "the journal ends with entry {count}, and its companion knows of entry {known}: its end was cut off"
    )]
    Cut {
        /// Entries that there are.
        count: u64,
        /// The last that was written.
        known: u64,
    },
    /// The chain is sound, and not the one that the companion knows.
    #[error(
        "entry {sequence} is not the one that the companion knows: the journal was made anew from there or before"
    )]
    Other {
        /// The entry.
        sequence: u64,
    },
    /// No entry has the digest that was asked for.
    #[error("no entry has the digest {0}: the end of the journal was cut off, or it was made anew")]
    Absent(Digest),
    /// There are entries and no companion.
    #[error("the journal has entries, and its companion `<journal>.head` is not there: put it back")]
    NoCompanion,
    /// The companion cannot be understood.
    #[error("the journal's companion `<journal>.head` does not say how the journal ends: {0}")]
    Companion(String),
    /// The file is not as its writer left it: touched by another, or what failed could not be taken back.
    #[error(
        "{0} while it was open: see what it is now (it may have been touched by another), and open it again"
    )]
    Disturbed(&'static str),
}

/// A journal whose chain is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many entries it has.
    pub count: u64,
    /// Digest of the last; of the first line, where there is none. Whoever notes it elsewhere can ask for it later with
    /// [`verify_against`].
    pub last: Digest,
}

impl Verified {
    /// A journal that begins.
    pub(super) fn beginning() -> Self {
        Self {
            count: 0,
            last: Digest::of(HEADER),
        }
    }

    /// How it stands after an entry.
    pub(super) const fn after(entry: &Entry) -> Self {
        Self {
            count: entry.sequence,
            last: entry.digest,
        }
    }
}

/// Reads a journal to its end and holds every line against the one before. That its end was not cut off cannot be seen from
/// the chain: that is for [`check`] and [`verify_against`].
pub fn verify(reader: impl BufRead) -> Result<Verified, AuditFault> {
    let mut entries = entries(reader);
    for entry in entries.by_ref() {
        entry?;
    }
    Ok(entries.verified())
}

/// The same, for whoever has noted elsewhere how the journal once ended: it still has that entry. It may have gone on since.
pub fn verify_against(reader: impl BufRead, noted: &Digest) -> Result<Verified, AuditFault> {
    let mut found = Verified::beginning().last == *noted;
    let mut entries = entries(reader);
    for entry in entries.by_ref() {
        found |= entry?.digest == *noted;
    }
    match found {
        true => Ok(entries.verified()),
        false => Err(AuditFault::Absent(*noted)),
    }
}

/// Verifies the journal at a path and holds it against its companion. Writes nothing, and can be done while the journal is
/// being written; what comes in meanwhile may be left out.
pub fn check(path: &Path) -> Result<Verified, StoreError> {
    // Before the journal: it is never ahead, and what it knows of must be there.
    let known = companion::read(path)?;
    let open = || match (fs_err::File::open(path), known) {
        (Ok(file), _) => Ok(BufReader::new(file)),
        (
            Err(error),
            Some(Verified {
                count: known @ 1.., ..
            }),
        ) if error.kind() == io::ErrorKind::NotFound => Err(AuditFault::Cut { count: 0, known }.of(path)),
        (Err(error), _) => Err(error.into()),
    };
    let checked = match against(open()?, known, u64::MAX) {
        // Not torn, but being written: the entries before it are judged.
        Err(AuditFault::Line {
            sequence: Some(torn),
            wrong: Wrong::TornEnd,
            ..
        }) if Journal::is_live(path) => against(open()?, known, torn.saturating_sub(1)),
        checked => checked,
    };
    checked.map_err(|fault| fault.of(path))
}

/// Verifies at most so many entries, of which one must be what the companion knows.
pub(super) fn against(
    reader: impl BufRead,
    known: Option<Verified>,
    most: u64,
) -> Result<Verified, AuditFault> {
    let mut entries = entries(reader);
    while entries.verified().count < most
        && let Some(entry) = entries.next()
    {
        let reached = Verified::after(&entry?);
        if known.is_some_and(|known| known.count == reached.count && known != reached) {
            return Err(AuditFault::Other {
                sequence: reached.count,
            });
        }
    }
    let verified = entries.verified();
    let count = verified.count;
    match known {
        // Between the first line and the first companion its maker can be killed.
        None if count > 0 => Err(AuditFault::NoCompanion),
        Some(Verified { count: known, .. }) if known > count => Err(AuditFault::Cut { count, known }),
        Some(known) if known.count == 0 && known != Verified::beginning() => {
            Err(AuditFault::Other { sequence: 0 })
        }
        _ => Ok(verified),
    }
}

impl AuditFault {
    /// The same, with the journal's path.
    pub(super) fn of(self, path: &Path) -> StoreError {
        StoreError::Audit {
            path: path.to_owned(),
            fault: self,
        }
    }
}

/// The entries of a journal, each held against the one before. After the first fault there are no more.
pub fn entries<R: BufRead>(reader: R) -> Entries<R> {
    Entries {
        reader,
        buffer: Vec::new(),
        line: 0,
        verified: Verified::beginning(),
        ended: false,
    }
}

/// What [`entries`] gives.
#[derive(Debug)]
pub struct Entries<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Number of the line in the buffer; 0 before the first.
    line: u64,
    /// How the journal stands before that line.
    verified: Verified,
    ended: bool,
}

/// What was read.
enum Piece {
    /// Nothing: the end.
    End,
    /// A line; its newline is taken away.
    Whole,
    /// The rest of the file, without a newline.
    Torn,
    /// As much of a line as a line may have.
    TooLong,
}

impl<R: BufRead> Entries<R> {
    /// How the journal stands after what was read so far: at the end, of all of it.
    pub const fn verified(&self) -> Verified {
        self.verified
    }

    fn step(&mut self) -> Result<Option<Entry>, AuditFault> {
        if self.line == 0 {
            self.first_line()?;
        }
        match self.piece()? {
            Piece::End => return Ok(None),
            Piece::Torn => return Err(self.wrong(Wrong::TornEnd)),
            Piece::TooLong => return Err(self.wrong(Wrong::TooLong)),
            Piece::Whole => {}
        }
        let entry = Entry::read(&self.buffer).map_err(|wrong| self.wrong(wrong))?;
        let (found, before) = (entry.sequence, self.verified);
        let belongs = before.count.saturating_add(1);
        if found > belongs {
            let wrong = match self.comes_later(&entry.previous)? {
                true => Wrong::Reordered { found },
                false => Wrong::Removed {
                    from: belongs,
                    to: found - 1,
                },
            };
            return Err(AuditFault::Line {
                line: belongs.saturating_add(1),
                sequence: Some(belongs),
                wrong,
            });
        }
        if found < belongs {
            return Err(self.wrong(Wrong::Inserted { found }));
        }
        if entry.previous != before.last {
            return Err(self.wrong(Wrong::Replaced));
        }
        self.verified = Verified::after(&entry);
        Ok(Some(entry))
    }

    fn first_line(&mut self) -> Result<(), AuditFault> {
        #[derive(Deserialize)]
        struct First {
            format: String,
            version: u64,
        }
        let wrong = match self.piece()? {
            Piece::Whole if self.buffer == HEADER => return Ok(()),
            Piece::Torn if HEADER.starts_with(&self.buffer) => Wrong::TornEnd,
            _ => match serde_json::from_slice(&self.buffer) {
                Ok(First { format, version }) if format == FORMAT && version != u64::from(VERSION) => {
                    Wrong::Version(version)
                }
                _ => Wrong::Foreign,
            },
        };
        Err(self.wrong(wrong))
    }

    /// Whether an entry with this digest stands somewhere below.
    fn comes_later(&mut self, digest: &Digest) -> Result<bool, AuditFault> {
        loop {
            match self.piece()? {
                Piece::End | Piece::Torn => return Ok(false),
                Piece::Whole => {
                    if Entry::read(&self.buffer).is_ok_and(|entry| entry.digest == *digest) {
                        return Ok(true);
                    }
                }
                Piece::TooLong => self.skip()?,
            }
        }
    }

    /// Reads the next line into the buffer.
    fn piece(&mut self) -> Result<Piece, AuditFault> {
        self.buffer.clear();
        let most = MAX_LINE as u64;
        let mut bounded = (&mut self.reader).take(most);
        bounded
            .read_until(b'\n', &mut self.buffer)
            .map_err(AuditFault::Read)?;
        self.line = self.line.saturating_add(1);
        Ok(match self.buffer.last() {
            None => Piece::End,
            Some(b'\n') => {
                self.buffer.pop();
                Piece::Whole
            }
            Some(_) if self.buffer.len() == MAX_LINE => Piece::TooLong,
            Some(_) => Piece::Torn,
        })
    }

    /// Reads on to the end of a line that is too long.
    fn skip(&mut self) -> Result<(), AuditFault> {
        while let Piece::TooLong = self.piece()? {}
        Ok(())
    }

    fn wrong(&self, wrong: Wrong) -> AuditFault {
        AuditFault::Line {
            line: self.line,
            sequence: self.line.checked_sub(1).filter(|sequence| *sequence > 0),
            wrong,
        }
    }
}

impl<R: BufRead> Iterator for Entries<R> {
    type Item = Result<Entry, AuditFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
