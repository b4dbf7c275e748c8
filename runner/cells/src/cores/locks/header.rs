//! The header of a table: its place in memory is described in [`super`].

use super::{Holder, MAX_CORES, ViewFault};

/// Bytes of the header.
pub(super) const HEADER: usize = 64;
/// Bytes of a slot.
pub(super) const SLOT: usize = 64;
/// Version of the format.
const VERSION: u32 = 1;
const NAME: [u8; 32] = *b"hotcell-core-locks\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What a table says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// How many cores: 1 to [`MAX_CORES`].
    pub(super) cores: u16,
    /// Who writes the table.
    pub(super) arbiter: Holder,
}

impl Header {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(NAME);
        bytes.extend(VERSION.to_ne_bytes());
        bytes.extend(u32::from(self.cores).to_ne_bytes());
        bytes.extend(self.arbiter.pid().to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.arbiter.started().to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes
    }

    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, ViewFault> {
        if take(&mut bytes)? != NAME {
            return Err(ViewFault::Name);
        }
        let version = u32::from_ne_bytes(take(&mut bytes)?);
        if version != VERSION {
            return Err(ViewFault::Version {
                found: version,
                known: VERSION,
            });
        }
        let cores = u32::from_ne_bytes(take(&mut bytes)?);
        let cores = u16::try_from(cores)
            .ok()
            .filter(|&cores| (1..=MAX_CORES).contains(&cores))
            .ok_or(ViewFault::Cores { found: cores })?;
        let pid = u32::from_ne_bytes(take(&mut bytes)?);
        let _: [u8; 4] = take(&mut bytes)?;
        let started = u64::from_ne_bytes(take(&mut bytes)?);
        let arbiter = Holder::new(pid, started).ok_or(ViewFault::Arbiter { found: pid })?;
        Ok(Self { cores, arbiter })
    }

    /// Bytes of the whole table.
    pub(super) fn length(self) -> usize {
        // At most 64 + 64 * 65535: far from any overflow.
        HEADER + SLOT * usize::from(self.cores)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], ViewFault> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(ViewFault::Name)?;
    *bytes = rest;
    Ok(*taken)
}
