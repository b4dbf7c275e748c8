//! Which bytes of a guest's memory the guest wrote itself, asked when they are about to run.
//!
//! In: every change of memory that the kernel makes. Out: for a newly translated block, whether its bytes are other
//! than those that came with the memory. Memory that was never writable is never asked about; of the rest, what the
//! kernel filled in the same call that mapped it (a program's segments, a file mapping) is kept to compare with, and
//! else zeros. So a program with one writable and executable segment is no finding, but one that unpacks, patches or
//! reads code into memory is. The guest's own stores are not watched: that would cost every program.
//!
//! What was told and kept as a layer is compared with from then on, so that code which is written over it is told again.
//! Where no layer was kept, a page is told once as long as it is mapped. Not told: the first block that an instance ever
//! runs; code equal to what was there at first; memory filled beyond [`MAX_KEPT`].

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ops::Range,
    rc::Rc,
};

use serde::{Deserialize, Serialize};

use crate::{
    memory_unsafe::PAGE,
    sources::{Part, Sources},
};

/// Bytes kept to compare with, for one address space. Beyond them, what is filled is not asked about.
const MAX_KEPT: usize = 64 << 20;
/// Pieces kept, likewise.
const MAX_PIECES: usize = 4096;

/// Disjoint ranges of addresses: start and end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        let before = self.0.range(..end).next_back();
        start < end && before.is_some_and(|(_, last)| start < *last)
    }

    fn contains(&self, start: u64, end: u64) -> bool {
        let before = self.0.range(..=start).next_back();
        before.is_some_and(|(_, last)| end <= *last)
    }

    fn remove(&mut self, start: u64, end: u64) {
        while let Some((first, last)) = self.last_over(start, end) {
            self.0.remove(&first);
            if first < start {
                self.0.insert(first, start);
            }
            if end < last {
                self.0.insert(end, last);
            }
        }
    }

    fn insert(&mut self, start: u64, end: u64) {
        if start >= end || self.contains(start, end) {
            return;
        }
        let (mut start, mut end) = (start, end);
        // Neighbours that only touch join too.
        while let Some((first, last)) = self.last_over(start.saturating_sub(1), end.saturating_add(1)) {
            self.0.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }

    fn last_over(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let (first, last) = self.0.range(..end).next_back()?;
        (start < *last).then_some((*first, *last))
    }

    /// What of a range is not in here.
    fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut rest = Self::default();
        rest.insert(start, end);
        let from = self
            .0
            .range(..=start)
            .next_back()
            .map_or(start, |(first, _)| *first);
        for (first, last) in self.0.range(from..end) {
            rest.remove(*first, *last);
        }
        rest.0.into_iter().collect()
    }
}

/// Bytes that stood in memory at first.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Piece<B> {
    /// Kept here: which bytes, and which part of them.
    Kept(B, Range<usize>),
    /// In a blob of the job.
    Part(Part),
}

impl<B> Piece<B> {
    /// The same, of bytes that are known in another way.
    fn of<C, E>(self, bytes: impl FnOnce(B, &Range<usize>) -> Result<C, E>) -> Result<Piece<C>, E> {
        Ok(match self {
            Self::Kept(kept, range) => Piece::Kept(bytes(kept, &range)?, range),
            Self::Part(part) => Piece::Part(part),
        })
    }
}

impl Piece<Rc<[u8]>> {
    fn copy(bytes: &[u8]) -> Self {
        Self::Kept(Rc::from(bytes), 0..bytes.len())
    }

    fn length(&self) -> u64 {
        match self {
            Self::Kept(_, range) => range.len() as u64,
            Self::Part(part) => part.length,
        }
    }

    /// The bytes; none of a part that the job does not have.
    fn bytes<'a>(&'a self, sources: &'a Sources) -> &'a [u8] {
        match self {
            Self::Kept(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
            Self::Part(part) => sources.bytes(part).map_or(&[], |(bytes, _)| bytes),
        }
    }

    /// So many of its bytes, from one on.
    fn cut(&self, from: u64, length: u64) -> Self {
        match self {
            Self::Kept(bytes, range) => {
                let start = range.start.saturating_add(from as usize).min(range.end);
                let end = start.saturating_add(length as usize).min(range.end);
                // Less than half is copied: so what is held is at most twice what is counted, and little is copied twice.
                match (end - start).saturating_mul(2) < bytes.len() {
                    true => Self::copy(bytes.get(start..end).unwrap_or_default()),
                    false => Self::Kept(Rc::clone(bytes), start..end),
                }
            }
            Self::Part(part) => Self::Part(Part {
                offset: part.offset.saturating_add(from),
                length,
                ..*part
            }),
        }
    }
}

/// What is known of one address space.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Written<B = Rc<[u8]>> {
    /// Mapped since the guest ran last.
    fresh: Ranges,
    /// Is or was writable since it was mapped, or was filled on the guest's behalf.
    open: Ranges,
    /// What stood in open memory at first, in order; elsewhere zeros.
    pieces: Vec<(u64, Piece<B>)>,
    kept: usize,
    /// Pages that were told.
    told: BTreeSet<u64>,
}

/// What stood at first in memory that is lent.
pub(crate) struct First(Vec<(u64, Piece<Rc<[u8]>>)>);

/// The bytes that the address spaces of a saved run keep: those that several have stand once.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct AllKept {
    bytes: Vec<Rc<[u8]>>,
    #[serde(skip)]
    numbers: BTreeMap<*const u8, u32>,
}

impl AllKept {
    fn number(&mut self, bytes: &Rc<[u8]>) -> u32 {
        *self.numbers.entry(bytes.as_ptr()).or_insert_with(|| {
            self.bytes.push(Rc::clone(bytes));
            u32::try_from(self.bytes.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

impl<B> Written<B> {
    fn of<C, E>(self, mut bytes: impl FnMut(B, &Range<usize>) -> Result<C, E>) -> Result<Written<C>, E> {
        let pieces = self.pieces.into_iter();
        Ok(Written {
            fresh: self.fresh,
            open: self.open,
            pieces: pieces
                .map(|(at, piece)| Ok((at, piece.of(&mut bytes)?)))
                .collect::<Result<_, E>>()?,
            kept: self.kept,
            told: self.told,
        })
    }
}

impl Written<u32> {
    /// As it was before it was saved; `None` if it names bytes that are not there.
    pub(crate) fn restored(self, all: &AllKept) -> Option<Written> {
        let found = |number: u32, range: &Range<usize>| {
            let bytes = all.bytes.get(number as usize).ok_or(())?;
            bytes.get(range.clone()).ok_or(())?;
            Ok::<_, ()>(Rc::clone(bytes))
        };
        self.of(found).ok()
    }
}

impl Written {
    /// As it is saved: bytes by their numbers.
    pub(crate) fn saved(&self, all: &mut AllKept) -> Written<u32> {
        let numbered = self
            .clone()
            .of(|bytes, _| Ok::<_, Infallible>(all.number(&bytes)));
        match numbered {
            Ok(numbered) => numbered,
            Err(never) => match never {},
        }
    }

    /// The same for a copy of the address space, in which nothing was told yet.
    pub(crate) fn inherited(&self) -> Self {
        Self {
            fresh: Ranges::default(),
            told: BTreeSet::new(),
            ..self.clone()
        }
    }

    /// What the kernel writes from now on is the guest's doing, where it was not mapped in the same go.
    pub(crate) fn guest_ran(&mut self) {
        self.fresh.0.clear();
    }

    /// Memory was mapped.
    pub(crate) fn mapped(&mut self, start: u64, end: u64, writable: bool) {
        self.fresh.insert(start, end);
        if writable {
            self.open.insert(start, end);
        }
    }

    /// What stood in a range at first: how far behind its beginning, and the bytes.
    pub(crate) fn first_of(&self, start: u64, end: u64) -> First {
        let parts = self.pieces.iter().filter_map(|(at, piece)| {
            let from = start.saturating_sub(*at);
            let to = end.saturating_sub(*at).min(piece.length());
            (from < to).then(|| (at.saturating_sub(start), piece.cut(from, to - from)))
        });
        First(parts.collect())
    }

    /// Memory was mapped that stands somewhere else too, where anybody may write it.
    pub(crate) fn borrowed(&mut self, start: u64, end: u64, first: First) {
        // A copy of the address space that lent it knows already.
        if self.open.contains(start, end) {
            return;
        }
        self.open.insert(start, end);
        for (behind, piece) in first.0 {
            self.keep(start.saturating_add(behind), piece);
        }
    }

    /// Memory is gone.
    pub(crate) fn unmapped(&mut self, start: u64, end: u64) {
        self.fresh.remove(start, end);
        self.open.remove(start, end);
        self.forget(start, end);
    }

    /// These bytes are known: only what differs from them is the guest's writing from now on.
    pub(crate) fn replaced(&mut self, start: u64, bytes: &[u8]) {
        self.forget(start, start.saturating_add(bytes.len() as u64));
        if bytes.iter().any(|byte| *byte != 0) {
            self.keep(start, Piece::copy(bytes));
        }
    }

    /// Drops what stood in a range at first, and that it was told.
    fn forget(&mut self, start: u64, end: u64) {
        let first = start & !(PAGE - 1);
        while let Some(page) = self.told.range(first..end).next().copied() {
            self.told.remove(&page);
        }
        let over = |at: u64, piece: &Piece<_>| at < end && start < at.saturating_add(piece.length());
        if !self.pieces.iter().any(|(at, piece)| over(*at, piece)) {
            return;
        }
        for (at, piece) in std::mem::take(&mut self.pieces) {
            if !over(at, &piece) {
                self.pieces.push((at, piece));
                continue;
            }
            if let Piece::Kept(_, range) = &piece {
                self.kept = self.kept.saturating_sub(range.len());
            }
            let before = start.saturating_sub(at);
            let behind = end.saturating_sub(at).min(piece.length());
            self.keep(at, piece.cut(0, before));
            self.keep(
                at.saturating_add(behind),
                piece.cut(behind, piece.length().saturating_sub(behind)),
            );
        }
    }

    /// Memory becomes writable: what of it must be told to [`Written::filled`] first.
    pub(crate) fn opened(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let gaps = self.open.gaps(start, end);
        self.open.insert(start, end);
        gaps
    }

    /// What stands in memory that was just opened, before the guest can write there.
    pub(crate) fn filled(&mut self, start: u64, bytes: &[u8]) {
        if bytes.iter().any(|byte| *byte != 0) {
            self.keep(start, Piece::copy(bytes));
        }
    }

    /// The kernel writes. `part`: where in a blob of the job these bytes lie, if they do.
    pub(crate) fn write(&mut self, start: u64, bytes: &[u8], part: Option<Part>) {
        let end = start.saturating_add(bytes.len() as u64);
        if !self.fresh.overlaps(start, end) {
            self.open.insert(start, end);
        } else if self.open.overlaps(start, end) {
            self.keep(start, part.map_or_else(|| Piece::copy(bytes), Piece::Part));
        }
    }

    fn keep(&mut self, start: u64, piece: Piece<Rc<[u8]>>) {
        let length = piece.length();
        if length == 0 {
            return;
        }
        let kept = match &piece {
            Piece::Kept(_, range) => self.kept.saturating_add(range.len()),
            Piece::Part(_) => self.kept,
        };
        if kept > MAX_KEPT || self.pieces.len() >= MAX_PIECES {
            self.open.remove(start, start.saturating_add(length));
            return;
        }
        self.kept = kept;
        self.pieces.push((start, piece));
    }

    /// Whether a block may have been written at all, and its page was not told.
    pub(crate) fn asks(&self, start: u64, length: u64) -> bool {
        self.open.overlaps(start, start.saturating_add(length)) && !self.told.contains(&(start & !(PAGE - 1)))
    }

    /// Whether the guest wrote any of these bytes, told once for a page.
    pub(crate) fn first(&mut self, start: u64, bytes: &[u8], sources: &Sources) -> bool {
        let mut expected = vec![0; bytes.len()];
        for (at, piece) in &self.pieces {
            let piece = piece.bytes(sources);
            // The part of the piece that lies in the block.
            let skip = start.saturating_sub(*at) as usize;
            let into = at.saturating_sub(start) as usize;
            if let (Some(from), Some(to)) = (piece.get(skip..), expected.get_mut(into..)) {
                let length = from.len().min(to.len());
                if let (Some(from), Some(to)) = (from.get(..length), to.get_mut(..length)) {
                    to.copy_from_slice(from);
                }
            }
        }
        let written = (start..)
            .zip(bytes.iter().zip(&expected))
            .any(|(at, (is, was))| is != was && self.open.contains(at, at.saturating_add(1)));
        written && self.told.insert(start & !(PAGE - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_with_the_memory_is_not_written() {
        let mut written = Written::default();
        written.mapped(0x1000, 0x3000, true);
        written.write(0x1ffe, &[1, 2, 3, 4], None);
        assert!(!written.first(0x1ffe, &[1, 2, 3, 4, 0], &Sources::default()));
        assert!(!written.first(0x1fff, &[2, 3], &Sources::default()));
        assert!(written.first(0x1fff, &[2, 9], &Sources::default()));
        assert!(!written.asks(0x1000, 4));
        assert!(written.asks(0x2000, 4));
        // Read from a file after the guest ran.
        written.guest_ran();
        written.write(0x2100, &[7], None);
        assert!(written.first(0x2100, &[7], &Sources::default()));
        // New memory at the same place.
        written.unmapped(0x2000, 0x3000);
        assert!(!written.asks(0x2000, 4));
        written.mapped(0x2000, 0x3000, true);
        assert!(written.asks(0x2000, 4));
        assert!(!written.first(0x2000, &[0, 0], &Sources::default()));
        assert!(
            !written.first(0x1ffe, &[1, 2, 0, 0], &Sources::default()),
            "the rest of the piece is gone"
        );
    }

    #[test]
    fn what_was_never_writable_is_not_asked_about() {
        let mut written = Written::default();
        written.mapped(0x1000, 0x2000, false);
        written.write(0x1000, &[1, 2], None);
        assert!(!written.asks(0x1000, 2));
        written.guest_ran();
        assert_eq!(written.opened(0x1000, 0x2000), [(0x1000, 0x2000)]);
        written.filled(0x1000, &[1, 2]);
        assert_eq!(written.opened(0x1000, 0x2000), []);
        assert!(!written.first(0x1000, &[1, 2], &Sources::default()));
        assert!(written.first(0x1000, &[1, 3], &Sources::default()));
        assert!(written.inherited().asks(0x1000, 2));
    }

    #[test]
    fn pieces_are_cut_without_being_copied_each_time_and_hold_little_more_than_they_count() {
        let mut written = Written::default();
        let bytes: Vec<u8> = (0..0x10_0000u32).map(|at| (at % 251) as u8).collect();
        written.mapped(0x10_0000, 0x20_0000, true);
        written.write(0x10_0000, &bytes, None);
        let held = |written: &Written| {
            let mut all = AllKept::default();
            let saved = written.saved(&mut all);
            let back = saved.restored(&all).expect("it is whole");
            assert_eq!(back.kept, written.kept);
            all.bytes.iter().map(|bytes| bytes.len()).sum::<usize>()
        };
        let mut copied = BTreeSet::new();
        for page in 0..255 {
            written.unmapped(0x10_0000 + page * PAGE, 0x10_0000 + (page + 1) * PAGE);
            for (_, piece) in &written.pieces {
                if let Piece::Kept(bytes, _) = piece {
                    copied.insert(bytes.len());
                }
            }
            assert!(held(&written) <= 2 * written.kept, "{page}");
        }
        assert!(copied.len() < 12, "{copied:?}");
        let last = bytes.get(255 * 4096..).expect("a page");
        assert!(!written.first(0x1f_f000, last, &Sources::default()));
        let wrong = written.saved(&mut AllKept::default());
        assert!(wrong.restored(&AllKept::default()).is_none());
    }

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20);
        ranges.insert(20, 30);
        ranges.insert(50, 60);
        assert_eq!(ranges.0, [(10, 30), (50, 60)].into());
        ranges.remove(15, 55);
        assert_eq!(ranges.0, [(10, 15), (55, 60)].into());
        assert_eq!(ranges.gaps(0, 100), [(0, 10), (15, 55), (60, 100)]);
        assert!(ranges.overlaps(14, 16) && !ranges.overlaps(15, 55) && ranges.contains(10, 15));
    }
}
