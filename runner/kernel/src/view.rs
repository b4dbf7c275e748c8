//! Memory of a program, read as its ABI has it.

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::call::MAX_TRANSFER;
use crate::net::spoken::{MOST, Spoken};

const SECOND: u64 = 1_000_000_000;

/// Memory that can be read.
pub(crate) trait Memory {
    /// Fills `into`, or says why that cannot be.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;
}

/// Memory, and the ABI of what stands in it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) abi: &'a Abi,
    pub(crate) memory: &'a dyn Memory,
}

impl View<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.memory.read(address, into)
    }

    /// Bytes of a bounded length.
    pub(crate) fn bytes(&self, address: u64, length: u64) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(length.min(MAX_TRANSFER)).map_err(|_| Errno::EINVAL)?;
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A text that ends with a zero byte.
    pub(crate) fn text(&self, address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        let mut at = address;
        let mut chunk = [0; 64];
        loop {
            let size = (64 - at % 64) as usize;
            let part = chunk.get_mut(..size).ok_or(Errno::EFAULT)?;
            self.read(at, part)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend(part.get(..end).unwrap_or_default());
                return if text.len() < limit {
                    Ok(text)
                } else {
                    Err(Errno::ENAMETOOLONG)
                };
            }
            text.extend_from_slice(part);
            if text.len() >= limit {
                return Err(Errno::ENAMETOOLONG);
            }
            at = at.checked_add(size as u64).ok_or(Errno::EFAULT)?;
        }
    }

    pub(crate) fn get_u32(&self, address: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(self.abi.get_u32(bytes))
    }

    pub(crate) fn get_u64(&self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(self.abi.get_u64(bytes))
    }

    /// A `long`, unsigned.
    pub(crate) fn get_word(&self, address: u64) -> Result<u64, Errno> {
        if self.abi.wide {
            self.get_u64(address)
        } else {
            self.get_u32(address).map(u64::from)
        }
    }

    /// A list of texts ended by a null pointer.
    pub(crate) fn texts(&self, address: u64) -> Result<Vec<Vec<u8>>, Errno> {
        const MAX_BYTES: usize = 2 << 20;
        let mut list = Vec::new();
        let mut total = 0;
        let mut at = address;
        while at != 0 {
            let pointer = self.get_word(at)?;
            if pointer == 0 {
                break;
            }
            let one = self.text(pointer, 128 << 10).map_err(|errno| match errno {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                other => other,
            })?;
            total += one.len() + 9;
            if total > MAX_BYTES {
                return Err(Errno::E2BIG);
            }
            list.push(one);
            at = at.checked_add(self.abi.word()).ok_or(Errno::EFAULT)?;
        }
        Ok(list)
    }

    /// A `timespec` or `timeval`: two words.
    pub(crate) fn time_at(&self, address: u64, wide: bool) -> Result<(i64, i64), Errno> {
        if wide || self.abi.wide {
            let seconds = self.get_u64(address)?.cast_signed();
            let rest = self.get_u64(address.wrapping_add(8))?;
            // On 32-bit ABIs the upper half of tv_nsec is padding.
            let rest = if self.abi.wide {
                rest.cast_signed()
            } else {
                i64::from((rest as u32).cast_signed())
            };
            return Ok((seconds, rest));
        }
        let seconds = self.get_u32(address)?.cast_signed();
        let rest = self.get_u32(address.wrapping_add(4))?.cast_signed();
        Ok((i64::from(seconds), i64::from(rest)))
    }

    /// A socket address as text.
    pub(crate) fn socket_address(&self, address: u64, length: u64) -> Option<String> {
        let bytes = self.bytes(address, length.min(MOST)).ok()?;
        Spoken::read(self.abi, &bytes).map(|spoken| spoken.to_string())
    }
}

/// A length of time given by the guest, in nanoseconds.
pub(crate) fn duration((seconds, nanoseconds): (i64, i64)) -> Result<u64, Errno> {
    if seconds < 0 || !(0..SECOND.cast_signed()).contains(&nanoseconds) {
        return Err(Errno::EINVAL);
    }
    Ok(seconds
        .cast_unsigned()
        .saturating_mul(SECOND)
        .saturating_add(nanoseconds.cast_unsigned()))
}
