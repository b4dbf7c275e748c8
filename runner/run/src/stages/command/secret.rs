//! Values of secrets that a command was given must not come back in what it gives.

use std::io::{self, Write};

use crate::secrets::SecretValue;

/// Shorter values stand in any text.
const MIN_LENGTH: usize = 4;

/// The secrets that one command was given.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(String, SecretValue)>);

impl Values {
    /// Adds one that was given.
    pub(super) fn add(&mut self, name: &str, value: &SecretValue) {
        if value.bytes().len() >= MIN_LENGTH {
            self.0.push((name.to_owned(), value.clone()));
        }
    }
}

/// Passes bytes on and looks for values in them.
pub(super) struct Scanner<'a, W> {
    target: W,
    values: &'a Values,
    /// The end of what was passed on, as much as may begin a value.
    tail: Vec<u8>,
    found: Option<&'a str>,
}

impl<'a, W: Write> Scanner<'a, W> {
    pub(super) fn new(target: W, values: &'a Values) -> Self {
        Self {
            target,
            values,
            tail: Vec::new(),
            found: None,
        }
    }

    /// The first secret whose value was in it.
    pub(super) fn found(&self) -> Option<&'a str> {
        self.found
    }
}

impl<W: Write> Write for Scanner<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.target.write(bytes)?;
        let Some(longest) = self.values.0.iter().map(|(_, value)| value.bytes().len()).max() else {
            return Ok(written);
        };
        self.tail
            .extend_from_slice(bytes.get(..written).unwrap_or_default());
        for (name, value) in &self.values.0 {
            let value = value.bytes();
            if self.found.is_none() && self.tail.windows(value.len()).any(|window| window == value) {
                self.found = Some(name);
            }
        }
        let keep = self.tail.len().saturating_sub(longest - 1);
        self.tail.drain(..keep);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}
