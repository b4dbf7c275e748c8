//! Whether a tree that was read from outside is one.

use std::collections::BTreeSet;

use super::{Inode, Kind, MAX_INODES, Tree};

impl Tree {
    /// What is here now was here before the guest.
    pub(crate) fn settle(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.touched = false;
        }
    }

    /// Whether directories lie in each other as in a tree, and no number is given twice. For what was read from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![(self.root, self.root)];
        while let Some((directory, above)) = open.pop() {
            let Some(Inode {
                kind: Kind::Directory { entries, parent },
                ..
            }) = self.inodes.get(&directory)
            else {
                continue;
            };
            if *parent != above || !seen.insert(directory) {
                return false;
            }
            open.extend(entries.values().map(|ino| (*ino, directory)));
        }
        seen.contains(&self.root)
            && self.inodes.len() <= MAX_INODES.saturating_mul(2)
            && self
                .inodes
                .keys()
                .next_back()
                .is_none_or(|last| last.0 < self.next)
    }
}
