//! Looking at hostile bytes without ever leaving them: every offset and size is 64 bits wide and checked.

use hotcell_schema::guest;

/// Longest name that is read: section, symbol and library names.
pub(crate) const MAX_NAME: usize = 256;

/// The `size` bytes at `offset`, cut where the file ends; empty where `offset` is outside.
pub(crate) fn clip(bytes: &[u8], offset: u64, size: u64) -> &[u8] {
    let length = bytes.len() as u64;
    let start = offset.min(length);
    let end = offset.saturating_add(size).min(length);
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

/// Whether the `size` bytes at `offset` are all in a file of `length` bytes.
pub(crate) fn fits(length: u64, offset: u64, size: u64) -> bool {
    offset.checked_add(size).is_some_and(|end| end <= length)
}

/// Text up to a NUL, and whether there was one before the bytes or [`MAX_NAME`] ended.
pub(crate) fn c_text(bytes: &[u8], offset: u64) -> (String, bool) {
    let window = clip(bytes, offset, MAX_NAME as u64 + 1);
    match window.iter().position(|&byte| byte == 0) {
        Some(end) => (guest::text(window.get(..end).unwrap_or_default()), true),
        None => (
            guest::text(window.get(..MAX_NAME.min(window.len())).unwrap_or_default()),
            false,
        ),
    }
}

/// An unsigned number of `N` bytes.
fn array<const N: usize>(bytes: &[u8], offset: u64) -> Option<[u8; N]> {
    clip(bytes, offset, N as u64).try_into().ok()
}

/// The 16 bits at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: u64, big: bool) -> Option<u16> {
    let raw = array(bytes, offset)?;
    Some(if big {
        u16::from_be_bytes(raw)
    } else {
        u16::from_le_bytes(raw)
    })
}

/// The 32 bits at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: u64, big: bool) -> Option<u32> {
    let raw = array(bytes, offset)?;
    Some(if big {
        u32::from_be_bytes(raw)
    } else {
        u32::from_le_bytes(raw)
    })
}

/// The 64 bits at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: u64, big: bool) -> Option<u64> {
    let raw = array(bytes, offset)?;
    Some(if big {
        u64::from_be_bytes(raw)
    } else {
        u64::from_le_bytes(raw)
    })
}

/// Where `needle` stands in `bytes`, from `from` on.
pub(crate) fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(needle.len().max(1))
        .position(|window| window == needle)
        .map(|place| place + from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read() {
        assert_eq!(clip(b"abcd", 2, 9), b"cd");
        assert_eq!(clip(b"abcd", u64::MAX, u64::MAX), b"");
        assert!(!fits(4, u64::MAX, 2));
        assert_eq!(c_text(b"ab\0cd", 3), ("cd".into(), false));
        assert_eq!(c_text(b"ab\0cd", 0), ("ab".into(), true));
        assert_eq!(u32_at(b"\0\0\0\x01", 0, true), Some(1));
        assert_eq!(u32_at(b"\0\0\0\x01", 1, true), None);
        assert_eq!(find(b"abcabc", b"ca", 0), Some(2));
    }
}
