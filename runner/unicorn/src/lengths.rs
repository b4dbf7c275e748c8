//! How many instructions a block has.

use unicorn_engine::{Arch, TranslationBlock, Unicorn};

use crate::{machine::Guest, shape::Shape};

/// How many instructions a block has, remembered by address.
#[derive(Default)]
pub(crate) struct BlockLengths {
    /// Bytes of every instruction, where all have the same.
    fixed: Option<u32>,
    /// Address, size and count, at a place that the address decides.
    known: Vec<(u64, u32, u32)>,
}

impl BlockLengths {
    const PLACES: usize = 4096;

    /// Nothing is known yet.
    pub(crate) fn new(shape: &Shape) -> Self {
        let fixed = match shape.arch {
            Arch::ARM64 | Arch::MIPS | Arch::PPC => Some(4),
            _ => None,
        };
        Self {
            fixed,
            known: vec![(0, 0, 0); Self::PLACES],
        }
    }

    /// A block was translated anew: it may have other instructions now.
    pub(crate) fn forget(&mut self, address: u64) {
        if let Some(entry) = self.known.get_mut(Self::place(address)) {
            *entry = (0, 0, 0);
        }
    }

    fn place(address: u64) -> usize {
        (address >> 1) as usize % Self::PLACES
    }

    /// Instructions of a block.
    pub(crate) fn of(&mut self, uc: &mut Unicorn<'_, Guest>, address: u64, size: u32) -> u32 {
        if let Some(bytes) = self.fixed {
            return size / bytes;
        }
        let place = Self::place(address);
        if let Some((known, known_size, count)) = self.known.get(place).copied()
            && known == address
            && known_size == size
        {
            return count;
        }
        let mut block = TranslationBlock {
            pc: 0,
            icount: 0,
            size: 0,
        };
        let found = uc.ctl_request_cache(address, Some(&mut block));
        let count = if found.is_ok() && block.icount > 0 {
            u32::from(block.icount)
        } else {
            size.div_ceil(4)
        };
        if let Some(entry) = self.known.get_mut(place) {
            *entry = (address, size, count);
        }
        count
    }
}
