//! Into a store. The file may be anyone's: nothing in it is believed that can be computed.

use std::io::{self, BufRead, Read, Write as _};

use hotcell_schema::digest::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{ArchiveError, END, HEADER, OBJECT, RECORD};
use crate::records::{self, key_of};
use crate::walk::{Progress, Tell};
use crate::{Record, Store, StoreError, Stored};

/// The first line is no longer.
const MAX_HEADER: u64 = 100;
/// Largest window of the compressor: memory that the file can make us take.
const MAX_WINDOW_LOG: u32 = 27;
/// Progress is told once for so many entries.
const TOLD_EVERY: u64 = 64;
/// Bytes that are taken at once.
const PIECE: usize = 64 << 10;

/// How much is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of everything, not compressed.
    pub bytes: u64,
    /// Objects and records.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 100 << 30,
            entries: 50_000_000,
        }
    }
}

/// What became of one kind of entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Stored now.
    pub new: u64,
    /// The store had it.
    pub known: u64,
    /// It is not what it says it is, or names what is not there.
    pub refused: u64,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Objects.
    pub objects: Told,
    /// Records.
    pub records: Told,
}

/// Reads a file into a store that is open to work with. What was placed before an error stays: it is right.
pub fn import<R: BufRead>(
    store: &Store,
    mut input: R,
    limits: Limits,
    tell: Tell<'_>,
) -> Result<Imported, ArchiveError> {
    header(&mut input)?;
    let mut decoder = zstd::Decoder::with_buffer(input)
        .map_err(ArchiveError::Read)?
        .single_frame();
    decoder
        .window_log_max(MAX_WINDOW_LOG)
        .map_err(ArchiveError::Read)?;
    let mut reader = Reader {
        input: decoder,
        hash: Sha256::new(),
        left: limits.bytes,
        limit: limits.bytes,
    };
    let mut imported = Imported::default();
    let mut piece = vec![0; PIECE];
    for entry in 0.. {
        if entry % TOLD_EVERY == 0 {
            tell(Progress {
                doing: "importing",
                done: entry,
                of: 0,
            });
        }
        let before = Digest::from_bytes(reader.hash.clone().finalize().into());
        let head = reader.head()?;
        match head.kind {
            END if head.length != 0 => return Err(ArchiveError::Damaged("its end has a length")),
            END if head.digest != before => {
                return Err(ArchiveError::Damaged("its end does not fit what stands before"));
            }
            END => return reader.finish().map(|()| imported),
            _ if entry >= limits.entries => {
                return Err(ArchiveError::TooLarge(format!("more than {entry} entries")));
            }
            OBJECT => {
                let told = reader.object(store, &head, &mut piece)?;
                told.count(&mut imported.objects);
            }
            RECORD => {
                let told = reader.record(store, &head)?;
                told.count(&mut imported.records);
            }
            _ => {
                return Err(ArchiveError::Damaged(
                    "an entry is neither an object nor a record",
                ));
            }
        }
    }
    Ok(imported)
}

fn header(input: &mut impl BufRead) -> Result<(), ArchiveError> {
    let mut line = Vec::new();
    input
        .take(MAX_HEADER)
        .read_until(b'\n', &mut line)
        .map_err(ArchiveError::Read)?;
    let line = String::from_utf8_lossy(&line);
    let Some(line) = line.strip_suffix('\n') else {
        return Err(ArchiveError::Foreign);
    };
    let name = HEADER.rsplit_once(' ').map_or(HEADER, |(name, _)| name);
    match line.strip_prefix(name) {
        _ if line == HEADER => Ok(()),
        Some(_) => Err(ArchiveError::Version(line.escape_debug().to_string())),
        None => Err(ArchiveError::Foreign),
    }
}

/// How one entry was taken.
enum Taken {
    New,
    Known,
    Refused,
}

impl Taken {
    fn count(self, told: &mut Told) {
        match self {
            Self::New => told.new += 1,
            Self::Known => told.known += 1,
            Self::Refused => told.refused += 1,
        }
    }
}

struct Head {
    kind: u8,
    digest: Digest,
    length: u64,
}

struct Reader<R: BufRead> {
    input: zstd::Decoder<'static, R>,
    hash: Sha256,
    left: u64,
    limit: u64,
}

impl<R: BufRead> Reader<R> {
    fn take(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            ArchiveError::TooLarge(format!("more than {} bytes when it is unpacked", self.limit))
        })?;
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Damaged("it ends too early"),
            _ => ArchiveError::Read(error),
        })?;
        self.hash.update(&*bytes);
        Ok(())
    }

    fn head(&mut self) -> Result<Head, ArchiveError> {
        let (mut kind, mut digest, mut length) = ([0], [0; 32], [0; 8]);
        self.take(&mut kind)?;
        self.take(&mut digest)?;
        self.take(&mut length)?;
        Ok(Head {
            kind: kind[0],
            digest: Digest::from_bytes(digest),
            length: u64::from_le_bytes(length),
        })
    }

    fn object(&mut self, store: &Store, head: &Head, piece: &mut [u8]) -> Result<Taken, ArchiveError> {
        let object = Stored {
            digest: head.digest,
            length: head.length,
        };
        let known = store.is_whole(&object)?;
        let mut writer = match known {
            true => None,
            false => Some(store.writer()?),
        };
        let mut left = head.length;
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = piece.get_mut(..length).unwrap_or_default();
            self.take(piece)?;
            if let Some(writer) = &mut writer {
                writer.write_all(piece).map_err(StoreError::from)?;
            }
            left -= length as u64;
        }
        match writer {
            None => Ok(Taken::Known),
            Some(writer) => match writer.finish_as(&head.digest)? {
                Some(_) => Ok(Taken::New),
                None => Ok(Taken::Refused),
            },
        }
    }

    fn record(&mut self, store: &Store, head: &Head) -> Result<Taken, ArchiveError> {
        if head.length > records::MAX_BYTES {
            return Err(ArchiveError::TooLarge(format!(
                "a record of {} bytes",
                head.length
            )));
        }
        let mut body = vec![0; usize::try_from(head.length).unwrap_or_default()];
        self.take(&mut body)?;
        let Ok(record) = serde_json::from_slice::<Record>(&body) else {
            return Ok(Taken::Refused);
        };
        if !record.is_sound() || key_of(&record.components) != head.digest {
            return Ok(Taken::Refused);
        }
        for object in record.all_objects() {
            if !store.is_whole(object)? {
                return Ok(Taken::Refused);
            }
        }
        // What is there and whole stays, whatever the file says.
        if let Some(there) = store.sole_record(&head.digest)?
            && all_whole(store, &there)?
        {
            return Ok(Taken::Known);
        }
        store.put_record(&head.digest, &record)?;
        Ok(Taken::New)
    }

    /// Nothing stands behind the end; and the frame's own checksum is read with it.
    fn finish(mut self) -> Result<(), ArchiveError> {
        let more = self.input.read(&mut [0]).map_err(ArchiveError::Read)? > 0;
        let mut input = self.input.finish();
        match more || !input.fill_buf().map_err(ArchiveError::Read)?.is_empty() {
            true => Err(ArchiveError::Damaged("something stands behind its end")),
            false => Ok(()),
        }
    }
}

fn all_whole(store: &Store, record: &Record) -> Result<bool, StoreError> {
    for object in record.all_objects() {
        if !store.is_whole(object)? {
            return Ok(false);
        }
    }
    Ok(true)
}
