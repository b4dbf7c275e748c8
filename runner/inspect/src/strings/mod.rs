//! Printable strings of a file: found in one pass, sorted into kinds, the interesting ones kept.

pub(crate) mod classify;

use std::collections::{BTreeMap, HashMap};

use hotcell_schema::elf::{FoundString, StringEncoding, StringKind, Strings};

/// Least number of characters of a string.
const LEAST: usize = 4;
/// Least number of characters of a string of two bytes a character.
const LEAST_WIDE: usize = 6;
/// Least number of characters of a string of kind `text` that is kept.
const LEAST_KEPT: usize = 6;
/// A longer run of characters is taken as several strings.
const LONGEST: usize = 4096;
/// Characters of a string that are kept.
const KEPT: usize = 512;
/// Greatest number of different strings that are told apart.
const MAX_DIFFERENT: usize = 100_000;

/// In code a string of a weak kind that is shorter is a chance row of bytes.
const LEAST_IN_CODE: usize = 12;

/// Finds strings and keeps `limit` of them. `code`: where instructions are in the file, begin and end, sorted.
pub(crate) fn find(bytes: &[u8], limit: usize, code: &[(u64, u64)]) -> Strings {
    let mut gathered = Gathered {
        code: code.to_vec(),
        ..Gathered::default()
    };
    ascii(bytes, &mut gathered);
    wide(bytes, &mut gathered);
    let mut list = gathered.list;
    list.sort_by_key(|found| (found.kind, found.offset, found.encoding));
    list.truncate(limit);
    Strings {
        total: gathered.total,
        by_kind: gathered.by_kind,
        list,
    }
}

#[derive(Default)]
struct Gathered {
    total: u64,
    by_kind: BTreeMap<StringKind, u64>,
    list: Vec<FoundString>,
    /// Where instructions are.
    code: Vec<(u64, u64)>,
    /// Place in `list` of a text; never iterated.
    known: HashMap<(StringEncoding, Vec<u8>), usize>,
}

impl Gathered {
    fn add(&mut self, offset: usize, text: &[u8], encoding: StringEncoding) {
        let Ok(characters) = std::str::from_utf8(text) else {
            return;
        };
        let mut kind = classify::of(characters);
        let weak = matches!(
            kind,
            StringKind::Text | StringKind::Path | StringKind::Format | StringKind::Library
        );
        let chance = weak && text.len() < LEAST_IN_CODE && self.in_code(offset as u64);
        if chance {
            kind = StringKind::Text;
        }
        self.total += 1;
        *self.by_kind.entry(kind).or_default() += 1;
        if chance || (kind == StringKind::Text && text.len() < LEAST_KEPT) {
            return;
        }
        let key = (encoding, text.to_vec());
        if let Some(found) = self.known.get(&key).and_then(|&place| self.list.get_mut(place)) {
            found.count = found.count.saturating_add(1);
            return;
        }
        // Beyond the bound only interesting strings are still taken in.
        let bound = if kind == StringKind::Text {
            MAX_DIFFERENT
        } else {
            2 * MAX_DIFFERENT
        };
        if self.list.len() >= bound {
            return;
        }
        self.known.insert(key, self.list.len());
        self.list.push(FoundString {
            offset: offset as u64,
            kind,
            encoding,
            text: characters
                .get(..characters.len().min(KEPT))
                .unwrap_or_default()
                .into(),
            count: 1,
        });
    }
}

impl Gathered {
    fn in_code(&self, offset: u64) -> bool {
        let after = self.code.partition_point(|range| range.0 <= offset);
        after
            .checked_sub(1)
            .and_then(|last| self.code.get(last))
            .is_some_and(|range| offset < range.1)
    }
}

fn printable(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e | b'\t')
}

fn ascii(bytes: &[u8], gathered: &mut Gathered) {
    let mut offset = 0;
    for run in bytes.split(|&byte| !printable(byte)) {
        if run.len() >= LEAST {
            for (place, piece) in run.chunks(LONGEST).enumerate() {
                if piece.len() >= LEAST {
                    gathered.add(offset + place * LONGEST, piece, StringEncoding::Ascii);
                }
            }
        }
        offset += run.len() + 1;
    }
}

fn wide(bytes: &[u8], gathered: &mut Gathered) {
    let mut text: Vec<u8> = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(&[low, high]) = bytes
        .get(at..at + 2)
        .and_then(|pair| <&[u8; 2]>::try_from(pair).ok())
    {
        if high == 0 && printable(low) && text.len() < LONGEST {
            if text.is_empty() {
                start = at;
            }
            text.push(low);
            at += 2;
            continue;
        }
        if text.len() >= LEAST_WIDE {
            gathered.add(start, &text, StringEncoding::Utf16Le);
        }
        // After a run its end is looked at again; else go on by one byte, as a run may begin at an odd offset.
        if text.is_empty() {
            at += 1;
        }
        text.clear();
    }
    if text.len() >= LEAST_WIDE {
        gathered.add(start, &text, StringEncoding::Utf16Le);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(strings: &Strings) -> Vec<(u64, &str, u32)> {
        strings
            .list
            .iter()
            .map(|found| (found.offset, found.text.as_str(), found.count))
            .collect()
    }

    #[test]
    fn interesting_strings_come_first_and_once() {
        let bytes = b"\x01hello world\0\xffhttp://a.example/x\0abc\0hello world\0/etc/passwd\0";
        let strings = find(bytes, 10, &[]);
        assert_eq!(
            texts(&strings),
            [
                (14, "http://a.example/x", 1),
                (49, "/etc/passwd", 1),
                (1, "hello world", 2)
            ]
        );
        assert_eq!(strings.total, 4);
        assert_eq!(strings.by_kind[&StringKind::Text], 2);
        assert_eq!(find(bytes, 1, &[]).list.len(), 1);
    }

    #[test]
    fn chance_strings_of_code_are_left_out() {
        let bytes = b"/HcDab$\0/etc/passwd.conf\0/HcDab$";
        let strings = find(bytes, 10, &[(0, 8), (8, 24)]);
        assert_eq!(texts(&strings), [(8, "/etc/passwd.conf", 1), (25, "/HcDab$", 1)]);
        assert_eq!(strings.total, 3);
    }

    #[test]
    fn wide_strings_at_any_offset() {
        for pad in 0..2 {
            let mut bytes = vec![0xff; pad];
            bytes.extend("C:\\Windows\\x.dll".encode_utf16().flat_map(u16::to_le_bytes));
            bytes.extend([0xff, 0xfe]);
            let strings = find(&bytes, 10, &[]);
            assert_eq!(texts(&strings), [(pad as u64, "C:\\Windows\\x.dll", 1)]);
            assert_eq!(strings.list[0].encoding, StringEncoding::Utf16Le);
        }
    }

    #[test]
    fn long_runs_are_cut() {
        let bytes = vec![b'a'; 3 * LONGEST + 2];
        let strings = find(&bytes, 10, &[]);
        assert_eq!(strings.total, 3);
        assert_eq!(strings.list[0].text.len(), KEPT);
        let mut bytes = Vec::new();
        for _ in 0..3 * LONGEST {
            bytes.extend([b'a', 0]);
        }
        assert_eq!(find(&bytes, 10, &[]).by_kind.values().sum::<u64>(), 3);
    }
}
