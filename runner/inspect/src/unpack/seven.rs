//! 7z: block by block, in one thread.

use std::io::{self, Cursor, Read};

use hotcell_schema::unpack::UnpackRefusal;
use sevenz_rust2::{Archive, BlockDecoder, Error, Password};

use super::taker::{TakeError, Taker};
use super::{Fault, UNSAID};

pub(super) fn read(bytes: &[u8], password: Option<&[u8]>, taker: &mut Taker<'_>) -> Result<(), Fault> {
    let text = match password.map(std::str::from_utf8) {
        None => "",
        Some(Ok(text)) => text,
        // 7z passwords are text.
        Some(Err(_)) => return Err(Fault::Refused(UnpackRefusal::WrongPassword)),
    };
    let given = Password::new(text);
    let mut source = Cursor::new(bytes);
    // Without a password first: so an encrypted header is known from a damaged one.
    let archive = match Archive::read(&mut source, &Password::empty()) {
        Ok(archive) => archive,
        Err(Error::PasswordRequired) if given.is_empty() => {
            return Err(Fault::Refused(UnpackRefusal::NeedsPassword));
        }
        Err(Error::PasswordRequired) => {
            Archive::read(&mut source, &given).map_err(|error| fault(error, true))?
        }
        Err(error) => return Err(fault(error, false)),
    };
    for block in 0..archive.blocks.len() {
        if taker.is_done() {
            return Ok(());
        }
        let encrypted = archive.blocks.get(block).is_some_and(|block| {
            let mut coders = block.ordered_coder_iter();
            coders.any(|(_, coder)| coder.encoder_method_id() == AES)
        });
        let decoder = BlockDecoder::new(1, block, &archive, &given, &mut source);
        // A block is decoded from its start: not at all where nothing in it is wanted.
        let regular = decoder.entries().iter().filter(|entry| is_regular(entry));
        if !taker.wants_any(regular.count()) {
            for entry in decoder.entries() {
                taker.entry()?;
                if is_regular(entry) {
                    taker.pass();
                }
            }
            continue;
        }
        let mut ended = None;
        let decoded = decoder.for_each_entries(&mut |entry, content| match one(entry, content, taker) {
            Ok(()) => Ok(!taker.is_done()),
            Err(TakeError::Read(error)) => Err(Error::from(error)),
            Err(TakeError::Fault(fault)) => {
                ended = Some(fault);
                Ok(false)
            }
        });
        if let Some(fault) = ended {
            return Err(fault);
        }
        decoded.map_err(|error| fault(error, encrypted))?;
    }
    // Empty files stand in no block.
    for (index, entry) in archive.files.iter().enumerate() {
        let in_block = archive.stream_map.file_block_index.get(index).copied().flatten();
        if in_block.is_none() && !taker.is_done() {
            one(entry, &mut io::empty(), taker).map_err(|error| match error {
                TakeError::Fault(fault) => fault,
                TakeError::Read(error) => Fault::damaged(error),
            })?;
        }
    }
    Ok(())
}

/// The method of encryption.
const AES: &[u8] = &[0x06, 0xf1, 0x07, 0x01];

/// Unix mode, where the entry has one: the upper half of its attributes, when bit 15 says so.
fn unix_mode(entry: &sevenz_rust2::ArchiveEntry) -> Option<u32> {
    let unix = entry.has_windows_attributes && entry.windows_attributes & 0x8000 != 0;
    unix.then_some(entry.windows_attributes >> 16)
}

fn is_link(entry: &sevenz_rust2::ArchiveEntry) -> bool {
    unix_mode(entry).is_some_and(|mode| mode & 0o170_000 == 0o120_000)
}

fn is_regular(entry: &sevenz_rust2::ArchiveEntry) -> bool {
    let special = unix_mode(entry).is_some_and(|mode| ![0, 0o100_000].contains(&(mode & 0o170_000)));
    !(entry.is_directory || entry.is_anti_item || special)
}

fn one(
    entry: &sevenz_rust2::ArchiveEntry,
    content: &mut dyn Read,
    taker: &mut Taker<'_>,
) -> Result<(), TakeError> {
    taker.entry().map_err(TakeError::Fault)?;
    if is_link(entry) && taker.is_index() {
        return taker.link_in(&entry.name, content);
    }
    if !is_regular(entry) {
        return Ok(());
    }
    if !taker.wants_next() {
        taker.pass();
        // The decoder reads on over what is left here; it is bounded by what the index counted.
        return Ok(());
    }
    let mode = unix_mode(entry).unwrap_or(UNSAID);
    taker.take(&entry.name, mode, content)
}

fn fault(error: Error, encrypted: bool) -> Fault {
    match error {
        Error::PasswordRequired => Fault::Refused(UnpackRefusal::NeedsPassword),
        Error::MaybeBadPassword(_) => Fault::Refused(UnpackRefusal::WrongPassword),
        Error::UnsupportedCompressionMethod(method) => {
            Fault::unsupported(format!("its compression method {method} is not known"))
        }
        Error::Unsupported(what) => Fault::unsupported(what),
        Error::UnsupportedVersion { major, minor } => {
            Fault::unsupported(format!("its version {major}.{minor} is not known"))
        }
        Error::ExternalUnsupported => Fault::unsupported("its header stands elsewhere"),
        Error::MaxMemLimited { .. } => Fault::too_much("a dictionary larger than is allowed"),
        // What is decrypted with a wrong password is noise.
        _ if encrypted => Fault::Refused(UnpackRefusal::WrongPassword),
        Error::Io(error, _) => Fault::damaged(error),
        Error::Other(what) => Fault::damaged(what),
        other => Fault::damaged(format!("{other:?}")),
    }
}
