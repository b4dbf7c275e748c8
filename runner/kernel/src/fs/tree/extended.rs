//! Extended attributes of inodes (`xattr(7)`).

use std::collections::BTreeMap;

use super::{Ino, Inode, StoreError, Tree};
use crate::abi::errno::Errno;

/// Names and values of one inode.
pub(crate) type Extended = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes of all attributes of one inode: a block of ext4, without its header.
const MAX_BYTES: usize = 4096 - 32;
/// Bytes of an entry beside its name and value (`struct ext4_xattr_entry`).
const ENTRY: usize = 16;
/// What lets a program do more than its user may.
const CAPABILITY: &[u8] = b"security.capability";

fn size(all: &Extended) -> usize {
    all.iter()
        .map(|(name, value)| name.len() + value.len() + ENTRY)
        .sum()
}

impl Inode {
    /// Bytes that its attributes take of what the guest may store.
    pub(super) fn extended_size(&self) -> u64 {
        size(&self.extended) as u64
    }
}

impl Tree {
    /// The attributes of an inode.
    pub(crate) fn extended(&self, ino: Ino) -> Result<&Extended, Errno> {
        self.inodes
            .get(&ino)
            .map(|inode| &inode.extended)
            .ok_or(Errno::ENOENT)
    }

    fn change_extended(&mut self, ino: Ino, change: impl FnOnce(&mut Extended)) -> Result<(), StoreError> {
        let (now, room) = (self.now, self.room);
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        let mut new = inode.extended.clone();
        change(&mut new);
        if size(&new) > MAX_BYTES {
            return Err(Errno::ENOSPC.into());
        }
        let room = room
            .saturating_add(inode.extended_size())
            .checked_sub(size(&new) as u64)
            .ok_or(StoreError::Limit)?;
        inode.extended = new;
        inode.times[2] = now;
        self.room = room;
        Ok(())
    }

    /// Sets an attribute.
    pub(crate) fn set_extended(&mut self, ino: Ino, name: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.change_extended(ino, |all| _ = all.insert(name.to_vec(), value))
    }

    /// Removes an attribute.
    pub(crate) fn remove_extended(&mut self, ino: Ino, name: &[u8]) -> Result<(), StoreError> {
        if !self.extended(ino)?.contains_key(name) {
            return Err(Errno::ENODATA.into());
        }
        self.change_extended(ino, |all| _ = all.remove(name))
    }

    /// A file that was changed or given away has no capabilities any more (`cap_inode_killpriv`).
    pub(crate) fn drop_capabilities(&mut self, ino: Ino) {
        if self.extended(ino).is_ok_and(|all| all.contains_key(CAPABILITY)) {
            // What is less always fits.
            let _ = self.remove_extended(ino, CAPABILITY);
        }
    }
}
