//! How bytes stand in a file: raw behind a marker where they are few (a file takes a block of the disk anyway, and most
//! outputs are small), else one zstd frame.
//!
//! Contexts of the compressor are made once a thread: making one costs more than compressing a small object.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use hotcell_schema::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::StoreError;

/// zstd's level: 1 compresses event streams to a tenth at several hundred MB/s.
pub(crate) const LEVEL: i32 = 1;
/// First byte of a file with raw bytes. A zstd frame begins with 0x28.
const RAW: u8 = 0;
/// Most bytes that stand raw: with the marker they fill a block.
const RAW_MAX: usize = 4095;
/// Longer objects are decoded as a stream.
const AT_ONCE: u64 = 1 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Marker and bytes of a file; `store` is told what to write.
pub(crate) fn encode<T>(
    bytes: &[u8],
    store: impl FnOnce(&[&[u8]]) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if bytes.len() <= RAW_MAX {
        return store(&[&[RAW], bytes]);
    }
    let frame = COMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(compressor) => compressor.compress(bytes),
        None => slot.insert(zstd::bulk::Compressor::new(LEVEL)?).compress(bytes),
    })?;
    store(&[&frame])
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The bytes that were promised.
    Whole,
    /// Something else.
    Damaged,
}

/// Reads an open file of a store to its end and says whether it holds the promised bytes; an error is the host's, never
/// the content's. Never more is decoded than was promised. Bytes are kept where someone wants them.
pub(crate) fn read(
    file: &File,
    path: &Path,
    digest: &Digest,
    length: u64,
    keep: Option<&mut Vec<u8>>,
) -> Result<Found, StoreError> {
    let whole = match length <= AT_ONCE {
        true => SCRATCH.with_borrow_mut(|scratch| at_once(file, digest, length as usize, scratch, keep)),
        false => as_stream(file, digest, length, keep),
    };
    match whole {
        Ok(true) => Ok(Found::Whole),
        Ok(false) => Ok(Found::Damaged),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The disk would not give a file's bytes: that says nothing about them.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    let text = format!(
        "failed to read `{}`: {error}; where the disk is sound again, run again; \
         `hotcell store verify --repair` removes what stays unreadable",
        path.display()
    );
    StoreError::Io(io::Error::new(error.kind(), text))
}

fn at_once(
    mut file: &File,
    digest: &Digest,
    length: usize,
    scratch: &mut Vec<u8>,
    keep: Option<&mut Vec<u8>>,
) -> io::Result<bool> {
    // A frame of this length is no longer than this; neither are raw bytes.
    let most = zstd::zstd_safe::compress_bound(length) + 64;
    scratch.resize(most.min(length + 128), 0);
    let mut filled = 0;
    loop {
        let Some(space) = scratch.get_mut(filled..).filter(|space| !space.is_empty()) else {
            if filled >= most {
                return Ok(false);
            }
            scratch.resize(most, 0);
            continue;
        };
        let read = match file.read(space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        filled += read;
        // Raw bytes are complete as soon as all are there: the read that says so is saved.
        if read == 0 || (filled == length + 1 && scratch.first() == Some(&RAW)) {
            break;
        }
    }
    match scratch.get(..filled) {
        Some([]) | None => Ok(false),
        Some([RAW, bytes @ ..]) => Ok(right(bytes, digest, length, keep)),
        Some(frame) => {
            let bytes = DECOMPRESSOR.with_borrow_mut(|slot| match slot {
                Some(decompressor) => decompressor.decompress(frame, length),
                None => slot
                    .insert(zstd::bulk::Decompressor::new()?)
                    .decompress(frame, length),
            });
            Ok(bytes.is_ok_and(|bytes| right(&bytes, digest, length, keep)))
        }
    }
}

fn right(bytes: &[u8], digest: &Digest, length: usize, keep: Option<&mut Vec<u8>>) -> bool {
    let right = bytes.len() == length && Digest::of(bytes) == *digest;
    if right && let Some(keep) = keep {
        keep.clear();
        keep.extend_from_slice(bytes);
    }
    right
}

fn as_stream(file: &File, digest: &Digest, length: u64, keep: Option<&mut Vec<u8>>) -> io::Result<bool> {
    let mut watched = Watched { file, error: None };
    let mut hash = Hasher {
        hash: Sha256::new(),
        keep,
    };
    let copied = decoder(&mut watched)
        .and_then(|decoder| io::copy(&mut decoder.take(length.saturating_add(1)), &mut hash));
    if let Some(error) = watched.error {
        return Err(error);
    }
    Ok(matches!(copied, Ok(copied) if copied == length)
        && Digest::from_bytes(hash.hash.finalize().into()) == *digest)
}

/// Copies what a file holds, at most one byte more than was promised; errors are of either side.
pub(crate) fn copy(file: &File, length: u64, out: &mut dyn Write) -> io::Result<u64> {
    let mut watched = Watched { file, error: None };
    let copied =
        decoder(&mut watched).and_then(|decoder| io::copy(&mut decoder.take(length.saturating_add(1)), out));
    match watched.error {
        Some(error) => Err(error),
        None => copied,
    }
}

/// The digest and length of whatever a file holds, decoded as far as it goes, at most `most` bytes; `None` where it cannot
/// be decoded. For those who have no promise to compare with.
pub(crate) fn digest_of(file: &File, path: &Path, most: u64) -> Result<Option<(Digest, u64)>, StoreError> {
    let mut watched = Watched { file, error: None };
    let mut hash = Hasher {
        hash: Sha256::new(),
        keep: None,
    };
    let copied = decoder(&mut watched).and_then(|decoder| io::copy(&mut decoder.take(most), &mut hash));
    if let Some(error) = watched.error {
        return Err(unreadable(path, &error));
    }
    let digest = Digest::from_bytes(hash.hash.finalize().into());
    Ok(copied.ok().map(|length| (digest, length)))
}

/// Reads what follows the marker, or the frame.
fn decoder<'a>(reader: &'a mut Watched<'_>) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = [0];
    if reader.read(&mut first)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match first {
        [RAW] => Box::new(reader),
        first => Box::new(zstd::Decoder::new(io::Cursor::new(first).chain(reader))?),
    })
}

/// A file whose own errors are told from those of its content.
struct Watched<'a> {
    file: &'a File,
    error: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.file.read(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
            read => read,
        }
    }
}

/// Takes bytes into a digest, and keeps them where someone wants them.
struct Hasher<'a> {
    hash: Sha256,
    keep: Option<&'a mut Vec<u8>>,
}

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        if let Some(keep) = &mut self.keep {
            keep.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
