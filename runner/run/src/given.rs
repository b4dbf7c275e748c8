//! What the stages of a run give out, against the quota that its user has on this host.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use hotcell_schema::manifest::Size;
use hotcell_schema::outcome::Status;

use crate::work::Done;

/// Bytes that were given out so far, and how many there may be.
#[derive(Debug)]
pub(crate) struct Given {
    most: Option<u64>,
    so_far: AtomicU64,
}

/// More was given out than may be.
#[derive(Debug, thiserror::Error)]
#[error("the stages of a run of yours may give out {} on this host (`output` of your quota)", Size(*.0))]
struct TooMuch(u64);

impl Given {
    /// Nothing yet. `most` are bytes; absent: there is no quota.
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self {
            most,
            so_far: AtomicU64::new(0),
        }
    }

    /// Counts what is given out next.
    ///
    /// # Errors
    ///
    /// If that is more than there may be; so is everything after it.
    pub(crate) fn take(&self, bytes: usize) -> io::Result<()> {
        let Some(most) = self.most else { return Ok(()) };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = self.so_far.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) <= most {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::QuotaExceeded, TooMuch(most))),
        }
    }

    /// Counts bytes that are given out together or not at all; whether they may be.
    pub(crate) fn take_whole(&self, bytes: u64) -> bool {
        let Some(most) = self.most else { return true };
        let fits = |so_far: u64| so_far.checked_add(bytes).filter(|all| *all <= most);
        let taken = self
            .so_far
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok()
    }

    /// Whether something may begin: nothing was refused yet.
    pub(crate) fn is_open(&self) -> Result<(), Done> {
        match self.most {
            Some(most) if self.so_far.load(Ordering::Relaxed) > most => Err(too_much(&TooMuch(most))),
            _ => Ok(()),
        }
    }

    /// Counts what is written there.
    pub(crate) fn counted<W: Write>(&self, writer: W) -> Counted<'_, W> {
        Counted { given: self, writer }
    }
}

/// A writer that writes no more than may be given out.
#[derive(Debug)]
pub(crate) struct Counted<'a, W> {
    given: &'a Given,
    writer: W,
}

impl<W> Counted<'_, W> {
    /// What is written to.
    pub(crate) fn into_inner(self) -> W {
        self.writer
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.given.take(bytes.len())?;
        // In one piece, so that nothing is counted twice.
        self.writer.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// How an instance ends because of this error, where it is that too much was given out.
pub(crate) fn refused(error: &io::Error) -> Option<Done> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<TooMuch>().map(too_much)
}

fn too_much(error: &TooMuch) -> Done {
    Done {
        error: Some(error.to_string()),
        ..Done::without_outputs(Status::Interrupted, "the quota of output is used up")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_the_quota_is_refused_and_nothing_begins_after_it() {
        let given = Given::new(Some(10));
        let mut first = given.counted(Vec::new());
        first.write_all(b"12345").unwrap();
        let mut second = given.counted(Vec::new());
        second.write_all(b"67890").unwrap();
        given.is_open().unwrap();
        let error = first.write_all(b"1").unwrap_err();
        let done = refused(&error).unwrap();
        assert_eq!(done.status, Status::Interrupted);
        assert!(done.error.unwrap().contains("10"), "with how much there may be");
        given.is_open().unwrap_err();
        assert_eq!(first.into_inner(), b"12345");
        assert!(refused(&io::Error::from(io::ErrorKind::QuotaExceeded)).is_none());
        let given = Given::new(Some(10));
        assert!(given.take_whole(6) && !given.take_whole(5) && given.take_whole(4));
        given.is_open().unwrap();
        Given::new(None).counted(io::sink()).write_all(&[0; 100]).unwrap();
    }
}
