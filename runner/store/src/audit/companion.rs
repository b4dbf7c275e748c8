//! The companion: a small file beside the journal that knows how it ends. It is replaced as a whole after every entry.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hotcell_schema::digest::Digest;
use serde::{Deserialize, Serialize};

use super::chain::{AuditFault, Verified};
use super::text::message;
use crate::StoreError;

/// What its name ends with, after the journal's.
const ENDING: &str = ".head";
const FORMAT: &str = "hotcell-audit-head";
const VERSION: u32 = 1;
/// No companion is longer, in bytes.
const MAX_BYTES: u64 = 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Companion {
    format: String,
    version: u32,
    sequence: u64,
    digest: Digest,
}

/// What the journal's companion knows; `None` where there is none.
pub(super) fn read(journal: &Path) -> Result<Option<Verified>, StoreError> {
    let file = match fs_err::File::open(beside(journal, ENDING)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let strange = |what: String| AuditFault::Companion(what).of(journal);
    let known: Companion = serde_json::from_slice(&bytes).map_err(|error| strange(message(&error)))?;
    if known.format != FORMAT || known.version != VERSION {
        return Err(strange(format!("it is not `{FORMAT}` of version {VERSION}")));
    }
    Ok(Some(Verified {
        count: known.sequence,
        last: known.digest,
    }))
}

/// Tells the companion how the journal ends.
pub(super) fn write(journal: &Path, mode: u32, known: &Verified) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec(&Companion {
        format: FORMAT.into(),
        version: VERSION,
        sequence: known.count,
        digest: known.last,
    })?;
    bytes.push(b'\n');
    Ok(place(&beside(journal, ENDING), mode, &bytes)?)
}

/// A file beside the journal.
pub(super) fn beside(journal: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(journal);
    name.push(ending);
    name.into()
}

/// Writes a file so that it is there whole or as it was before, also after a power cut. Only the journal's writer does so, under
/// its lock: the name on the way is always the same, so that whoever is killed leaves one such file at most.
pub(super) fn place(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let fresh = beside(path, ".new");
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Nobody reads it before it has the mode that it shall have.
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs_err::rename(fresh, path)
}
