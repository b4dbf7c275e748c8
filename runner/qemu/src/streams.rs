//! What the guest writes to its output: taken as it comes, and no more of it than allowed.

use std::io::{self, Read};

/// A stream of the guest.
#[derive(Debug)]
pub(crate) struct Stream {
    from: Option<io::PipeReader>,
    /// What came.
    pub(crate) bytes: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(from: io::PipeReader) -> Self {
        Self {
            from: Some(from),
            bytes: Vec::new(),
        }
    }

    /// The end to wait at, while it is open.
    pub(crate) fn end(&self) -> Option<&io::PipeReader> {
        self.from.as_ref()
    }

    /// Takes what is there; to be called when something is. Takes the room from `room`; false: there was none.
    pub(crate) fn take(&mut self, room: &mut u64) -> io::Result<bool> {
        let Some(from) = &mut self.from else {
            return Ok(true);
        };
        let mut buffer = [0; 65536];
        let count = from.read(&mut buffer)?;
        if count == 0 {
            self.from = None;
        }
        let fits = usize::try_from(*room).unwrap_or(usize::MAX).min(count);
        self.bytes.extend_from_slice(&buffer[..fits]);
        *room -= fits as u64;
        Ok(fits == count)
    }
}
