//! Where the bytes of outputs come from, so that a change can be shown and not only its digest.

use hotcell_schema::digest::Digest;
use hotcell_schema::report::OutputReport;

/// Access to what a run gave. Whoever implements it bounds what is read: nothing above `limit` bytes is wanted.
pub trait Contents {
    /// The bytes of an output of the run; `None` where they are not at hand, or too many.
    fn output(&self, output: &OutputReport, limit: u64) -> Option<Vec<u8>>;

    /// Bytes by their digest and length, wherever they are kept; `None` where they are not at hand.
    fn object(&self, digest: &Digest, length: u64) -> Option<Vec<u8>> {
        let _ = (digest, length);
        None
    }
}

/// No bytes at all: changes of outputs are told by their digests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContents;

impl Contents for NoContents {
    fn output(&self, _: &OutputReport, _: u64) -> Option<Vec<u8>> {
        None
    }
}
