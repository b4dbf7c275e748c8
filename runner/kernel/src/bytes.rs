//! Bytes that many share and nobody changes: blobs of the job where they lie, without a copy.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Shared bytes. Cloning shares them.
#[derive(Clone)]
pub struct Bytes {
    held: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Which blob of the job they are: a saved context names it instead of holding the bytes.
    pub(crate) blob: Option<u32>,
}

impl Bytes {
    /// Bytes where they are, for instance in memory that many processes share.
    pub fn of(held: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self {
            held: Arc::new(held),
            blob: None,
        }
    }

    /// The same bytes, known as a blob of the job.
    pub(crate) fn named(mut self, blob: u32) -> Self {
        self.blob = Some(blob);
        self
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
        (*self.held).as_ref()
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
