//! Bytes that came with the job, where they lie: what a machine's memory is filled from is mapped and not copied, so that all
//! cells share it, and a saved context names it instead of holding it.

use std::{collections::BTreeMap, fs::File, ops::Range, rc::Rc};

use hotcell_kernel::{Bytes, machine::MachineError};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Guest,
    memory_unsafe::{MAPPED_FROM, Memory, PAGE},
};

/// Most blobs that are mapped: each keeps a descriptor open.
const MAX_SOURCES: usize = 64;
/// Most pieces of one machine's memory that are known to be of a blob; more are copied.
const MAX_ORIGINS: usize = 1024;

/// The blobs of a job that are worth it.
#[derive(Default)]
pub(crate) struct Sources(Vec<Source>);

struct Source {
    blob: u32,
    bytes: Bytes,
    file: File,
}

/// A part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The blob's index.
    pub(crate) blob: u32,
    /// Where in it, in bytes.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) length: u64,
}

impl Sources {
    /// Knows of a blob, where that is worth it. `file` holds the same bytes from its beginning on, and is sealed.
    pub(crate) fn add<E>(
        &mut self,
        blob: u32,
        bytes: &Bytes,
        file: impl FnOnce() -> Result<File, E>,
    ) -> Result<(), E> {
        if bytes.len() as u64 >= MAPPED_FROM * PAGE && self.0.len() < MAX_SOURCES {
            let (bytes, file) = (bytes.clone(), file()?);
            self.0.push(Source { blob, bytes, file });
        }
        Ok(())
    }

    /// Where in which blob these very bytes lie, not others of the same content.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<Part> {
        let first = bytes.as_ptr().addr();
        let last = first.checked_add(bytes.len())?;
        self.0.iter().find_map(|source| {
            let start = source.bytes.as_ptr().addr();
            let offset = first.checked_sub(start)?;
            let within = last <= start.checked_add(source.bytes.len())?;
            within.then_some(Part {
                blob: source.blob,
                offset: offset as u64,
                length: bytes.len() as u64,
            })
        })
    }

    /// A part's bytes, and the file that they are in; `None`: the job has no such part.
    pub(crate) fn bytes(&self, part: &Part) -> Option<(&[u8], &File)> {
        let source = self.0.iter().find(|source| source.blob == part.blob)?;
        let start = usize::try_from(part.offset).ok()?;
        let end = start.checked_add(usize::try_from(part.length).ok()?)?;
        Some((source.bytes.get(start..end)?, &source.file))
    }
}

/// Which pages of a machine's memory were filled from blobs, by their first address; the guest may have changed them since.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Origins(BTreeMap<u64, Part>);

impl Origins {
    /// Where the bytes of such a write are to be mapped: which of them, and from what. `None`: they are to be copied.
    pub(crate) fn plan(
        &self,
        sources: &Sources,
        memory: &Memory,
        address: u64,
        from: &[u8],
    ) -> Option<(Range<usize>, Part)> {
        let before = address.wrapping_neg() % PAGE;
        let length = (from.len() as u64).saturating_sub(before) & !(PAGE - 1);
        if length < MAPPED_FROM * PAGE || self.0.len() >= MAX_ORIGINS {
            return None;
        }
        let whole = sources.find(from)?;
        let offset = whole.offset + before;
        let fits = offset.is_multiple_of(PAGE) && memory.holds(address.checked_add(before)?, length);
        let part = Part {
            offset,
            length,
            ..whole
        };
        fits.then_some((before as usize..(before + length) as usize, part))
    }

    /// Pages are a blob's from now on.
    pub(crate) fn add(&mut self, start: u64, part: Part) {
        self.forget(start, start.saturating_add(part.length));
        self.0.insert(start, part);
    }

    /// Pages are nobody's from now on.
    pub(crate) fn forget(&mut self, start: u64, end: u64) {
        while let Some((&at, part)) = self.0.range(..end).next_back()
            && at.saturating_add(part.length) > start
        {
            self.0.remove(&at);
        }
    }

    /// What a page was filled from, where it was not changed since.
    pub(crate) fn unchanged(&self, sources: &Sources, at: u64, page: &[u8]) -> Option<Part> {
        let (start, part) = self.0.range(..=at).next_back()?;
        let inside = at.checked_sub(*start).filter(|inside| *inside < part.length)?;
        let part = Part {
            offset: part.offset.checked_add(inside)?,
            length: page.len() as u64,
            ..*part
        };
        let (first, _) = sources.bytes(&part)?;
        (first == page).then_some(part)
    }

    /// Refuses what cannot have been written here.
    pub(crate) fn check(&self, sources: &Sources) -> Result<(), MachineError> {
        let mut free = 0;
        for (start, part) in &self.0 {
            let pages = (start | part.offset | part.length).is_multiple_of(PAGE) && part.length > 0;
            let end = start.checked_add(part.length);
            let (true, true, Some(end), Some(_)) = (pages, *start >= free, end, sources.bytes(part)) else {
                return Err(MachineError(
                    "the saved context: pages of a blob that the job does not have".to_owned(),
                ));
            };
            free = end;
        }
        match self.0.len() <= MAX_ORIGINS {
            true => Ok(()),
            false => Err(MachineError(
                "the saved context: too many pieces of blobs".to_owned(),
            )),
        }
    }
}

impl Guest {
    /// Makes pages of its memory be those of a blob of the job.
    pub(crate) fn share(&mut self, start: u64, part: Part) -> Result<(), MachineError> {
        let sources = Rc::clone(&self.sources);
        let none = || MachineError("pages of a blob that the job does not have".to_owned());
        let (_, file) = sources.bytes(&part).ok_or_else(none)?;
        self.memory.share(start, part.length, file, part.offset)?;
        self.origins.add(start, part);
        Ok(())
    }

    /// Whether the guest wrote any of these bytes itself, told once for a page.
    pub(crate) fn is_first(&mut self, start: u64, bytes: &[u8]) -> bool {
        self.written.get_mut().first(start, bytes, &self.sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 20;

    fn sources() -> Sources {
        let bytes = Bytes::of(vec![7; (PAGES * PAGE) as usize]);
        let mut sources = Sources::default();
        sources
            .add(3, &bytes, || File::open("/dev/null"))
            .expect("opened");
        sources
            .add(4, &Bytes::of(vec![7; 10]), || -> Result<File, ()> { Err(()) })
            .expect("not worth a descriptor");
        sources
    }

    fn part(offset: u64, length: u64) -> Part {
        let blob = 3;
        Part { blob, offset, length }
    }

    #[test]
    fn what_a_job_does_not_have_is_refused() {
        let sources = sources();
        let check = |all: &[(u64, Part)]| Origins(all.iter().copied().collect()).check(&sources).is_ok();
        assert!(check(&[(0, part(0, PAGE)), (PAGE, part(0, PAGES * PAGE))]));
        assert!(
            !check(&[(0, part(0, 2 * PAGE)), (PAGE, part(0, PAGE))]),
            "overlap"
        );
        assert!(!check(&[(0, part(PAGE, PAGES * PAGE))]), "beyond the end");
        assert!(
            !check(&[(u64::MAX - PAGE + 1, part(0, PAGE))]),
            "beyond all addresses"
        );
        assert!(
            !check(&[(1, part(0, PAGE))]) && !check(&[(0, part(8, PAGE))]),
            "not whole pages"
        );
        assert!(
            !check(&[(0, part(0, 0))]) && !check(&[(0, part(0, 8))]),
            "not whole pages"
        );
        assert!(
            !check(&[(
                0,
                Part {
                    blob: 4,
                    ..part(0, PAGE)
                }
            )]),
            "another blob"
        );
        let many = |count: u64| {
            (0..count)
                .map(|at| (at * PAGE, part(0, PAGE)))
                .collect::<Vec<_>>()
        };
        assert!(check(&many(MAX_ORIGINS as u64)) && !check(&many(MAX_ORIGINS as u64 + 1)));
    }

    #[test]
    fn what_is_filled_anew_is_forgotten() {
        let (sources, page) = (sources(), [7; PAGE as usize]);
        let mut origins = Origins::default();
        origins.add(PAGE, part(0, 4 * PAGE));
        let found = origins.unchanged(&sources, 3 * PAGE, &page);
        assert_eq!(found, Some(part(2 * PAGE, PAGE)));
        assert_eq!(origins.unchanged(&sources, 3 * PAGE, &[8; PAGE as usize]), None);
        assert_eq!(origins.unchanged(&sources, 0, &page), None);
        assert_eq!(origins.unchanged(&sources, 5 * PAGE, &page), None);
        origins.add(4 * PAGE, part(0, PAGE));
        assert_eq!(origins.0.len(), 1);
        origins.forget(0, 4 * PAGE);
        assert_eq!(origins.0.len(), 1);
        origins.forget(4 * PAGE, 5 * PAGE);
        assert_eq!(origins.0.len(), 0);
    }
}
