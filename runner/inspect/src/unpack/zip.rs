//! ZIP: every entry of the central directory in its order, names that stand twice included.

use std::io::Cursor;

use hotcell_schema::unpack::UnpackRefusal;
use zip::ZipReadOptions;
use zip::read::{Config, ZipFileEntry};
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::taker::{TakeError, Taker};
use super::{Fault, UNSAID, short};

/// Whether the bytes end as a ZIP file does: its last record is found within the longest comment.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    let window = bytes.len().saturating_sub(22 + (1 << 16));
    let tail = bytes.get(window..).unwrap_or_default();
    tail.windows(4).any(|word| word == b"PK\x05\x06")
}

pub(super) fn read(bytes: &[u8], password: Option<&[u8]>, taker: &mut Taker<'_>) -> Result<(), Fault> {
    let of_archive = |error: ZipError| fault(error, false, None);
    let mut archive = ZipIterable::try_new(Cursor::new(bytes), Config::default()).map_err(of_archive)?;
    for entry in archive.files().map_err(of_archive)? {
        let entry = entry.map_err(of_archive)?;
        taker.entry()?;
        let (is_link, index) = (entry.is_symlink(), taker.is_index());
        if entry.is_dir() || is_link && !index {
            continue;
        }
        if !is_link && !taker.wants_next() {
            taker.pass();
            continue;
        }
        member(bytes, entry, password, taker)?;
        if taker.is_done() {
            break;
        }
    }
    Ok(())
}

fn member(
    bytes: &[u8],
    entry: ZipFileEntry<'_>,
    password: Option<&[u8]>,
    taker: &mut Taker<'_>,
) -> Result<(), Fault> {
    let name = match entry.name() {
        Ok(name) => name.into_owned(),
        Err(_) => String::from_utf8_lossy(entry.name_raw()).into_owned(),
    };
    let is_link = entry.is_symlink();
    let mode = entry.unix_mode().unwrap_or(UNSAID);
    let encrypted = entry.encrypted();
    if encrypted && password.is_none() {
        return Err(Fault::Refused(UnpackRefusal::NeedsPassword));
    }
    let options = ZipReadOptions::new().password(password.filter(|_| encrypted));
    let mut content = Cursor::new(bytes);
    let mut file = entry
        .with_reader(&mut content, options)
        .map_err(|error| fault(error, encrypted, Some(&name)))?;
    let taken = match is_link {
        true => taker.link_in(&name, &mut file),
        false => taker.take(&name, mode, &mut file),
    };
    match taken {
        Ok(()) => Ok(()),
        Err(TakeError::Fault(fault)) => Err(fault),
        Err(TakeError::Read(error)) => Err(fault(ZipError::Io(error), encrypted, Some(&name))),
    }
}

/// What an error of the reader means. The old encryption checks one byte of the password: a wrong one that passes is met
/// as a damaged member.
fn fault(error: ZipError, encrypted: bool, member: Option<&str>) -> Fault {
    let at = match member {
        Some(name) => format!(" (in {})", short(name)),
        None => String::new(),
    };
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            Fault::Refused(UnpackRefusal::NeedsPassword)
        }
        ZipError::InvalidPassword => Fault::Refused(UnpackRefusal::WrongPassword),
        ZipError::Io(_) if encrypted => Fault::Refused(UnpackRefusal::WrongPassword),
        ZipError::UnsupportedArchive(what) => Fault::unsupported(format!("{what}{at}")),
        ZipError::CompressionMethodNotSupported(method) => {
            Fault::unsupported(format!("its compression method {method} is not known{at}"))
        }
        other => Fault::damaged(format!("{other}{at}")),
    }
}
