//! Archives: what is in them, and the bytes of their members.
//!
//! In: the bytes of one archive, a password, what is wanted. Out: an index, or members handed to [`Give`]. Nothing is
//! written anywhere and no name is used as a path. Readers of other projects do the decoding; what they are given is
//! memory, and what they give is counted. Should one panic, the archive is damaged.
//!
//! | module | what it does |
//! |---|---|
//! | `taker` | members as they come: counted, hashed, kept when they are wanted |
//! | `zip`, `seven` | ZIP and 7z, also encrypted |
//! | `tape` | tar with its compressions, and Debian packages |

mod alternatives;
mod seven;
mod taker;
mod tape;
mod zip;

use std::io::{self, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{ArchiveIndex, ArchiveKind, Unpack, UnpackLimits, UnpackRefusal, UnpackResult};

use taker::Taker;

/// Permission bits of what comes from an archive that says none.
const UNSAID: u32 = 0o755;
/// What a panic of a reader means.
const PANIC: &str = "its reader met an error of its own";

/// Takes a wanted member. An error ends the work.
pub type Give<'a> = &'a mut dyn FnMut(Digest, &[u8]) -> io::Result<()>;

/// What is asked of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The archive.
    pub archive: &'a [u8],
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// What is wanted.
    pub want: &'a Unpack,
    /// Bounds.
    pub limits: UnpackLimits,
}

/// Why the work ended early.
#[derive(Debug)]
enum Fault {
    /// The archive cannot be had.
    Refused(UnpackRefusal),
    /// A wanted member could not be handed over.
    Give(io::Error),
}

impl Fault {
    fn damaged(reason: impl std::fmt::Display) -> Self {
        Self::Refused(UnpackRefusal::Damaged(short(reason)))
    }

    fn unsupported(reason: impl std::fmt::Display) -> Self {
        Self::Refused(UnpackRefusal::Unsupported(short(reason)))
    }

    fn too_much(reason: impl std::fmt::Display) -> Self {
        Self::Refused(UnpackRefusal::TooMuch(short(reason)))
    }
}

/// Reasons hold names and texts of the archive: one line, and not long.
fn short(reason: impl std::fmt::Display) -> String {
    let text = reason.to_string();
    let plain = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character });
    plain.take(300).collect()
}

/// Unpacks one compressed text.
fn content(request: &Request<'_>, give: Give<'_>) -> Result<(), Fault> {
    let limit = request.limits.bytes;
    let mut text = Vec::new();
    tape::open(request.archive)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(Fault::damaged)?;
    if text.len() as u64 > limit {
        return Err(Fault::too_much(format!("more than {limit} bytes, unpacked")));
    }
    give(Digest::of(&text), &text).map_err(Fault::Give)
}

/// Reads an archive. The error is that of `give`; what is wrong with the archive is in the result.
pub fn unpack(request: &Request<'_>, give: Give<'_>) -> io::Result<UnpackResult> {
    if *request.want == Unpack::Content {
        return match catch_unwind(AssertUnwindSafe(|| content(request, give))) {
            Ok(Ok(())) => Ok(UnpackResult::Sent),
            Ok(Err(Fault::Refused(refusal))) => Ok(UnpackResult::Refused(refusal)),
            Ok(Err(Fault::Give(error))) => Err(error),
            Err(_) => Ok(UnpackResult::Refused(UnpackRefusal::Damaged(PANIC.into()))),
        };
    }
    let mut taker = Taker::new(request, give);
    let read = catch_unwind(AssertUnwindSafe(|| read(request, &mut taker)));
    let read = read.unwrap_or_else(|_| Err(Fault::damaged(PANIC)));
    let kind = match read {
        Ok(kind) => kind,
        Err(Fault::Refused(refusal)) => return Ok(UnpackResult::Refused(refusal)),
        Err(Fault::Give(error)) => return Err(error),
    };
    match taker.finish() {
        Ok(Some(found)) => Ok(UnpackResult::Index(ArchiveIndex {
            format: ArchiveIndex::FORMAT.into(),
            version: ArchiveIndex::VERSION,
            kind,
            members: found.members,
            links: found.links,
            folders: found.folders,
            alternatives: found.alternatives,
        })),
        Ok(None) => Ok(UnpackResult::Sent),
        Err(missing) => Ok(UnpackResult::Refused(UnpackRefusal::Damaged(missing))),
    }
}

fn read(request: &Request<'_>, taker: &mut Taker<'_>) -> Result<ArchiveKind, Fault> {
    let archive = request.archive;
    if archive.starts_with(b"7z\xbc\xaf\x27\x1c") {
        seven::read(archive, request.password, taker)?;
        return Ok(ArchiveKind::SevenZip);
    }
    if archive.starts_with(b"!<arch>\n") {
        tape::debian(archive, taker)?;
        return Ok(ArchiveKind::Debian);
    }
    if tape::is_compressed(archive) || tape::is_tar(archive) {
        tape::tar(archive, taker)?;
        return Ok(ArchiveKind::Tar);
    }
    // A ZIP file is known by its end; something may stand before it.
    if zip::is_zip(archive) {
        zip::read(archive, request.password, taker)?;
        return Ok(ArchiveKind::Zip);
    }
    Err(Fault::unsupported(
        "it is no archive of a known format: zip, 7z, tar (gz, xz, bz2, zst) and deb are read",
    ))
}
