//! Values of secrets that a command was given must not come back in what it gives.

use std::io::{self, Write};

use memchr::memmem;
use zeroize::Zeroizing;

use crate::secrets::{self, SecretValue};

/// The secrets that one command was given.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(String, SecretValue)>);

impl Values {
    /// Adds one that was given.
    pub(super) fn add(&mut self, name: &str, value: &SecretValue) {
        self.0.push((name.to_owned(), value.clone()));
    }

    /// The first secret that stands in these bytes, in whatever form.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<&str> {
        self.0.iter().find_map(|(name, value)| {
            let mut forms = value.forms().iter();
            forms
                .any(|form| memmem::find(bytes, form).is_some())
                .then_some(name.as_str())
        })
    }

    /// Length of the longest form of one of them.
    pub(super) fn longest(&self) -> usize {
        let forms = self.0.iter().flat_map(|(_, value)| value.forms());
        forms.map(|form| form.len()).max().unwrap_or(0)
    }

    /// The beginning of a text, with the names of secrets for their values. Where it was cut, what may be the beginning of a
    /// value is left out.
    pub(super) fn redacted_beginning(&self, text: &[u8], cut: bool) -> Vec<u8> {
        let mut bytes = self.redacted_end(text, text.len());
        if cut {
            bytes.truncate(bytes.len().saturating_sub(self.longest()));
        }
        bytes
    }

    /// The last bytes of a text, at most so many and the names of secrets for their values.
    pub(super) fn redacted_end(&self, text: &[u8], most: usize) -> Vec<u8> {
        let from = text.len().saturating_sub(most);
        secrets::redact(
            text,
            from,
            self.0.iter().map(|(name, value)| (name.as_str(), value)),
        )
    }
}

/// Passes bytes on, remembers that they were refused, and looks for values in them.
pub(super) struct Scanner<'a, W> {
    target: W,
    values: &'a Values,
    longest: usize,
    /// The end of what was passed on, as much as may begin a value.
    tail: Zeroizing<Vec<u8>>,
    found: Option<&'a str>,
    refused: Option<io::Error>,
}

impl<'a, W: Write> Scanner<'a, W> {
    pub(super) fn new(target: W, values: &'a Values) -> Self {
        Self {
            target,
            values,
            longest: values.longest(),
            tail: Zeroizing::default(),
            found: None,
            refused: None,
        }
    }

    /// The first secret whose value was in it.
    pub(super) fn found(&self) -> Option<&'a str> {
        self.found
    }

    /// Why the target took no more.
    pub(super) fn refused(&mut self) -> Option<io::Error> {
        self.refused.take()
    }
}

impl<W: Write> Write for Scanner<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.target.write(bytes).inspect_err(|error| {
            self.refused = Some(io::Error::new(error.kind(), error.to_string()));
        })?;
        if self.longest == 0 || self.found.is_some() {
            return Ok(written);
        }
        self.tail
            .extend_from_slice(bytes.get(..written).unwrap_or_default());
        self.found = self.values.find(&self.tail);
        let keep = self.tail.len().saturating_sub(self.longest - 1);
        self.tail.drain(..keep);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}
