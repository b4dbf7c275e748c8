//! Bytes that many share and nobody changes: blobs of the job where they lie, without a copy.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Shared bytes, or a part of them. Cloning shares them.
#[derive(Clone)]
pub struct Bytes {
    held: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Which of the bytes that are held they are.
    part: Range<usize>,
    /// Which blob of the job is held: a saved context names it instead of holding the bytes.
    blob: Option<u32>,
}

impl Bytes {
    /// Bytes where they are, for instance in memory that many processes share.
    pub fn of(held: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self {
            part: 0..held.as_ref().len(),
            held: Arc::new(held),
            blob: None,
        }
    }

    /// The same bytes, known as a blob of the job.
    pub(crate) fn named(mut self, blob: u32) -> Self {
        self.blob = Some(blob);
        self
    }

    /// Some of these bytes, not copied; `None`: not all of the range is here.
    pub(crate) fn part(&self, range: Range<usize>) -> Option<Self> {
        let start = self.part.start.checked_add(range.start)?;
        let end = self.part.start.checked_add(range.end)?;
        (start <= end && end <= self.part.end).then(|| Self {
            part: start..end,
            ..self.clone()
        })
    }

    /// The blob that they are of, and which part of it.
    pub(crate) fn place(&self) -> Option<(u32, Range<usize>)> {
        Some((self.blob?, self.part.clone()))
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // Within bounds since `part`: what is held never changes.
        (*self.held).as_ref().get(self.part.clone()).unwrap_or_default()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self::of(bytes.to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_stays_within_it() {
        let all = Bytes::of(b"0123456789".to_vec()).named(3);
        let part = all.part(2..8).unwrap();
        assert_eq!(&*part, b"234567");
        assert_eq!(part.part(1..3).unwrap().place(), Some((3, 3..5)));
        assert_eq!(part.part(6..6).unwrap().len(), 0);
        assert!(part.part(0..7).is_none() && part.part(7..7).is_none());
        assert!(all.part(1..usize::MAX).is_none() && part.part(usize::MAX..usize::MAX).is_none());
        let reversed = Range { start: 3, end: 1 };
        assert!(all.part(reversed).is_none());
    }
}
