//! Bytes that came with the job, where they lie: what is filled from them is mapped and not copied, so that all cells share
//! it, and a saved context names it instead of holding it.

use std::{fs::File, ops::Range, rc::Rc};

use hotcell_kernel::Bytes;

use crate::{
    machine::Guest,
    memory_unsafe::{MAPPED_FROM, PAGE},
};

/// Most pieces of memory that are known to be of a blob; more are copied.
const MAX_ORIGINS: usize = 1024;

/// All blobs of a job.
#[derive(Default)]
pub(crate) struct Sources(Vec<Source>);

struct Source {
    blob: u32,
    bytes: Bytes,
    file: File,
}

/// Guest memory that was filled from a blob; the guest may have changed it since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The first page.
    pub(crate) start: u64,
    /// In bytes.
    pub(crate) length: u64,
    /// The blob's index.
    pub(crate) blob: u32,
    /// Where in the blob.
    pub(crate) offset: u64,
}

impl Sources {
    /// Knows of a blob. `file` holds the same bytes from its beginning on, and is sealed.
    pub(crate) fn add(&mut self, blob: u32, bytes: Bytes, file: File) {
        self.0.push(Source { blob, bytes, file });
    }

    /// Where in which blob these very bytes lie, not others of the same content.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(u32, u64, &File)> {
        let first = bytes.as_ptr().addr();
        let last = first.checked_add(bytes.len())?;
        self.0.iter().find_map(|source| {
            let start = source.bytes.as_ptr().addr();
            let inside = first.checked_sub(start)?;
            let within = last <= start.checked_add(source.bytes.len())?;
            within.then_some((source.blob, inside as u64, &source.file))
        })
    }

    /// Bytes of a blob, and its file.
    pub(crate) fn bytes(&self, blob: u32, offset: u64, length: u64) -> Option<(&[u8], &File)> {
        let source = self.0.iter().find(|source| source.blob == blob)?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        Some((source.bytes.get(start..end)?, &source.file))
    }
}

/// Where a page that was not changed since is in a blob.
pub(crate) fn unchanged(
    sources: &Rc<Sources>,
    origins: &[Origin],
    at: u64,
    page: &[u8],
) -> Option<(u32, u64)> {
    origins.iter().find_map(|origin| {
        let inside = at
            .checked_sub(origin.start)
            .filter(|inside| *inside < origin.length)?;
        let offset = origin.offset.checked_add(inside)?;
        let (first, _) = sources.bytes(origin.blob, offset, PAGE)?;
        (first == page).then_some((origin.blob, offset))
    })
}

/// Maps the whole pages of bytes that lie in a blob of the job. Gives which of the bytes need not be written any more.
pub(crate) fn map(guest: &mut Guest, address: u64, from: &[u8]) -> Range<usize> {
    let sources = Rc::clone(&guest.sources);
    let before = address.wrapping_neg() % PAGE;
    let length = (from.len() as u64).saturating_sub(before) & !(PAGE - 1);
    if length < MAPPED_FROM * PAGE || guest.origins.len() >= MAX_ORIGINS {
        return 0..0;
    }
    let Some((blob, offset, file)) = sources.find(from) else {
        return 0..0;
    };
    let (start, offset) = (address + before, offset + before);
    // What cannot be mapped is copied.
    if !offset.is_multiple_of(PAGE) || guest.memory.share(start, length, file, offset).is_err() {
        return 0..0;
    }
    guest.origins.push(Origin {
        start,
        length,
        blob,
        offset,
    });
    before as usize..(before + length) as usize
}
