//! tar with its compressions, and Debian packages: an `ar` of two of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use super::taker::{TakeError, Taker};
use super::{Fault, UNSAID};

/// Memory that a decoder may take, in KiB.
const DECODER_KIB: u32 = 512 << 10;
/// A block of a tar.
const BLOCK: usize = 512;

/// Whether the bytes are compressed in a way that tars are.
pub(super) fn is_compressed(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| bytes.starts_with(magic))
}

/// Whether the bytes begin with a tar header: its sum is right.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..BLOCK) else {
        return false;
    };
    let Some(field) = block.get(148..156) else {
        return false;
    };
    let text = String::from_utf8_lossy(field);
    let Ok(said) = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8) else {
        return false;
    };
    let outside: u32 = block
        .iter()
        .enumerate()
        .filter(|(at, _)| !(148..156).contains(at))
        .map(|(_, byte)| u32::from(*byte))
        .sum();
    said == outside + 8 * u32::from(b' ')
}

/// The bytes, unpacked as they are read.
pub(super) fn open(bytes: &[u8]) -> Result<Box<dyn Read + '_>, Fault> {
    Ok(match bytes {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        [0xfd, b'7', ..] => Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, true, DECODER_KIB)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(bytes)),
        [0x28, 0xb5, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(bytes).map_err(Fault::damaged)?)
        }
        _ => Box::new(bytes),
    })
}

/// A tar, compressed or not.
pub(super) fn tar(bytes: &[u8], taker: &mut Taker<'_>) -> Result<(), Fault> {
    let mut stream = open(bytes)?;
    let mut first = Vec::new();
    stream
        .by_ref()
        .take(BLOCK as u64)
        .read_to_end(&mut first)
        .map_err(Fault::damaged)?;
    if !is_tar(&first) && first.iter().any(|byte| *byte != 0) {
        return Err(Fault::unsupported(
            "it is compressed, and what is in it is no tar",
        ));
    }
    members(first.as_slice().chain(stream), "", taker)
}

/// The files of a tar, each with a prefix before its name.
fn members(stream: impl Read, prefix: &str, taker: &mut Taker<'_>) -> Result<(), Fault> {
    // Members that nobody wants are unpacked too: all of it is counted.
    let mut archive = tar::Archive::new(Bounded {
        inner: BufReader::new(stream),
        left: taker.streams(),
    });
    for entry in archive.entries().map_err(Fault::damaged)? {
        let mut entry = entry.map_err(bounded)?;
        taker.entry()?;
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or(UNSAID);
        if kind.is_dir() {
            taker.folder(&name(&entry, prefix), mode)?;
            continue;
        }
        if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name_bytes()) {
            let target = String::from_utf8_lossy(&target);
            taker.link(&name(&entry, prefix), &target, kind.is_hard_link())?;
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() && !kind.is_gnu_sparse() {
            continue;
        }
        if !taker.wants_next() {
            taker.pass();
            continue;
        }
        let name = name(&entry, prefix);
        taker.take(&name, mode, &mut entry).map_err(|error| match error {
            TakeError::Fault(fault) => fault,
            TakeError::Read(error) => bounded(error),
        })?;
        if taker.is_done() {
            return Ok(());
        }
    }
    // What follows the end of a tar is nobody's, but a stream that is cut off there is cut off.
    match io::copy(&mut archive.into_inner(), &mut io::sink()) {
        Err(error) if [io::ErrorKind::UnexpectedEof, OVER].contains(&error.kind()) => Err(bounded(error)),
        _ => Ok(()),
    }
}

/// A member's name, after a prefix.
fn name<R: Read>(entry: &tar::Entry<'_, R>, prefix: &str) -> String {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    format!("{prefix}{}", name.trim_start_matches("./"))
}

/// A stream that ends with an error after so many bytes.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// The error of [`Bounded`], told from others by its kind.
const OVER: io::ErrorKind = io::ErrorKind::QuotaExceeded;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.unwrap_or(0));
        left.map(|_| count).ok_or_else(|| io::Error::from(OVER))
    }
}

fn bounded(error: io::Error) -> Fault {
    match error.kind() {
        OVER => Fault::too_much("more bytes, unpacked, than is allowed"),
        _ => Fault::damaged(error),
    }
}

/// A Debian package: its files under their names, what stands in `control.tar` under `DEBIAN/`.
pub(super) fn debian(bytes: &[u8], taker: &mut Taker<'_>) -> Result<(), Fault> {
    let mut found = BTreeSet::new();
    for part in Ar::new(bytes) {
        let (name, content) = part?;
        taker.entry()?;
        let prefix = match name.as_str() {
            name if name.starts_with("control.tar") => "DEBIAN/",
            name if name.starts_with("data.tar") => "",
            _ => continue,
        };
        if !found.insert(prefix) {
            return Err(Fault::damaged("it has two parts of one kind"));
        }
        members(open(content)?, prefix, taker)?;
        if taker.is_done() {
            return Ok(());
        }
    }
    match found.is_empty() {
        false => Ok(()),
        true => Err(Fault::unsupported("it is an ar archive and no Debian package")),
    }
}

/// The parts of an `ar`.
struct Ar<'a> {
    rest: &'a [u8],
}

impl<'a> Ar<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes.get(8..).unwrap_or_default(),
        }
    }

    fn part(&mut self) -> Option<(String, &'a [u8])> {
        let header = self.rest.get(..60)?;
        if header.get(58..60)? != b"`\n" {
            return None;
        }
        let text = |range| Some(String::from_utf8_lossy(header.get(range)?).trim().to_owned());
        let name = text(0..16)?.trim_end_matches('/').to_owned();
        let length: usize = text(48..58)?.parse().ok()?;
        let after = self.rest.get(60..)?;
        let content = after.get(..length)?;
        let next = length.checked_add(length % 2)?;
        self.rest = after.get(next..).unwrap_or_default();
        Some((name, content))
    }
}

impl<'a> Iterator for Ar<'a> {
    type Item = Result<(String, &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.part() {
            Some(part) => Some(Ok(part)),
            None => {
                self.rest = &[];
                Some(Err(Fault::damaged("a part of the package is cut off")))
            }
        }
    }
}
