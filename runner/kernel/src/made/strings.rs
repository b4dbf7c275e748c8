//! Texts that a guest gives to system calls: paths, names, addresses, and what is readable in what it writes and sends. They
//! are as a packed or encrypted program shows them, when it has decoded them itself.

use std::collections::BTreeSet;

use hotcell_schema::event::{Arg, ArgValue};
use serde::{Deserialize, Serialize};

/// Fewest readable characters in a row that are a text, as `strings(1)` has it.
const SHORTEST: usize = 4;
/// Bytes of one call's buffer that are looked at, and of one text that are kept.
const LOOKED_AT: usize = 4096;
const LONGEST: usize = 1024;
/// Bytes of all texts with their calls.
const MAX_BYTES: usize = 4 << 20;

/// Texts in the order in which they were first seen, each once for a call.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Strings {
    lines: Vec<u8>,
    seen: BTreeSet<(String, String)>,
}

impl Strings {
    /// Texts among the arguments of a call.
    pub(crate) fn arguments(&mut self, call: &'static str, args: &[Arg]) {
        for arg in args {
            match &arg.value {
                ArgValue::Path(text) | ArgValue::Socket(text) => self.add(call, text),
                ArgValue::Texts(texts) => texts.iter().for_each(|text| self.add(call, text)),
                _ => {}
            }
        }
    }

    /// What is readable in bytes that a call takes.
    pub(crate) fn bytes(&mut self, call: &'static str, bytes: &[u8]) {
        let looked_at = bytes.get(..bytes.len().min(LOOKED_AT)).unwrap_or_default();
        let readable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
        for run in looked_at.split(|byte| !readable(byte)) {
            if run.len() >= SHORTEST
                && let Ok(text) = std::str::from_utf8(run)
            {
                self.add(call, text);
            }
        }
    }

    fn add(&mut self, call: &'static str, text: &str) {
        if text.is_empty() || self.lines.len() >= MAX_BYTES {
            return;
        }
        let end = text.floor_char_boundary(LONGEST);
        let text = text.get(..end).unwrap_or_default();
        let key = (call.to_owned(), text.to_owned());
        if self.seen.contains(&key) {
            return;
        }
        self.lines.extend_from_slice(call.as_bytes());
        self.lines.push(b'\t');
        for character in text.chars() {
            if character.is_control() {
                self.lines.extend(character.escape_default().to_string().bytes());
            } else {
                self.lines
                    .extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.lines.push(b'\n');
        self.seen.insert(key);
    }

    /// All, a line each: the call, a tab, the text.
    pub(super) fn text(self) -> Vec<u8> {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_once_in_lines() {
        let mut strings = Strings::default();
        strings.bytes("write", b"\x00abc\x01GET / HTTP/1.0\r\nHost: x\r\n\r\n");
        strings.bytes("write", b"GET / HTTP/1.0");
        strings.add("open", "/tmp/a\nb");
        strings.add("open", &"é".repeat(LONGEST));
        let text = String::from_utf8(strings.text()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["write\tGET / HTTP/1.0", "write\tHost: x", "open\t/tmp/a\\nb"]
        );
        assert_eq!(lines[3].len(), "open\t".len() + LONGEST);
    }

    #[test]
    fn they_are_bounded() {
        let mut strings = Strings::default();
        for number in 0..20_000 {
            strings.add("write", &format!("{number:0>1000}"));
        }
        assert!(strings.text().len() < MAX_BYTES + 2 * LONGEST);
    }
}
