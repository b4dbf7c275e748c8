//! What is executable in a file, whatever its format: what the formats hand to the disassembler.

use std::collections::BTreeMap;

/// Bytes at an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// Address of the first byte.
    pub(crate) address: u64,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
}

/// A function that a symbol names.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    /// Its address; on ARM bit 0 set means Thumb.
    pub(crate) address: u64,
    /// Its name.
    pub(crate) name: String,
    /// Its size in bytes; 0: not said.
    pub(crate) size: u64,
}

/// The code of a file.
#[derive(Debug, Default)]
pub(crate) struct Code<'a> {
    /// Entry address, as the header says it (bit 0 set on ARM: Thumb).
    pub(crate) entry: Option<u64>,
    /// What is swept for statistics, by address.
    pub(crate) parts: Vec<Part<'a>>,
    /// Where addresses are looked up, by address.
    pub(crate) maps: Vec<Part<'a>>,
    /// Functions by address; a bounded number.
    pub(crate) functions: Vec<Function>,
    /// How many functions there are.
    pub(crate) functions_total: u64,
    /// ARM mapping symbols: from this address on ARM code (`a`), Thumb code (`t`) or data (`d`).
    pub(crate) mapping: BTreeMap<u64, char>,
    /// Code is little-endian though data is big-endian.
    pub(crate) little_code: bool,
}

impl<'a> Code<'a> {
    /// Whether an address is in what is executable. Parts must be sorted.
    pub(crate) fn executable(&self, address: u64) -> bool {
        let after = self.parts.partition_point(|part| part.address <= address);
        self.parts
            .get(after.saturating_sub(4)..after)
            .is_some_and(|near| {
                near.iter()
                    .any(|part| address - part.address < part.bytes.len() as u64)
            })
    }

    /// The bytes from an address on.
    pub(crate) fn at(&self, address: u64) -> Option<&'a [u8]> {
        let after = self.maps.partition_point(|part| part.address <= address);
        self.maps
            .get(after.saturating_sub(4)..after)?
            .iter()
            .rev()
            .find_map(|part| {
                let inside = usize::try_from(address - part.address).ok()?;
                part.bytes.get(inside..).filter(|bytes| !bytes.is_empty())
            })
    }
}
