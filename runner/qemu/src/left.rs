//! What the guest left in its root: what it made and changed. What it removed is told by events.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hotcell_schema::digest::Digest;
use hotcell_schema::guest;
use hotcell_schema::job::LeftFile;
use walkdir::WalkDir;

/// A file of the guest, and its content.
pub(crate) struct Left {
    pub(crate) file: LeftFile,
    pub(crate) bytes: Vec<u8>,
}

/// Regular files in what the guest wrote, in the order of their paths, and how many files and folders could not be taken. `most`: how
/// many bytes all together.
pub(crate) fn files(upper: &Path, most: u64) -> (Vec<Left>, u64) {
    let mut left = Vec::new();
    let mut out = 0;
    let mut room = most;
    for entry in WalkDir::new(upper).follow_links(false).sort_by_file_name() {
        // A guest can make folders so deep that no path reaches what is in them: that is left out, and all else is not lost.
        let Some((entry, facts)) = entry.ok().and_then(|entry| {
            let facts = entry.metadata().ok()?;
            Some((entry, facts))
        }) else {
            out += 1;
            continue;
        };
        if !facts.is_file() {
            continue;
        }
        let bytes = Some(facts.len()).filter(|length| *length <= room);
        let Some(bytes) = bytes.and_then(|_| fs::read(entry.path()).ok()) else {
            out += 1;
            continue;
        };
        room = room.saturating_sub(bytes.len() as u64);
        let below = entry.path().strip_prefix(upper).unwrap_or(entry.path());
        let path = [b"/", below.as_os_str().as_bytes()].concat();
        left.push(Left {
            file: LeftFile {
                path: guest::text(&path),
                mode: facts.mode() & 0o7777,
                length: bytes.len() as u64,
                digest: Digest::of(&bytes),
            },
            bytes,
        });
    }
    (left, out)
}
