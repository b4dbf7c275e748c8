//! Names of what is in the tree, seen from above.

use super::{Ino, Inode, Kind, Tree};

/// Deepest directory that is looked into.
const MAX_DEPTH: u32 = 1024;

impl Tree {
    /// Regular files made or changed by the guest that still have a name, by path: `most` of them, and no more once
    /// the paths are longer than `bytes` together.
    pub(crate) fn left(&self, most: usize, bytes: usize) -> Vec<(Vec<u8>, Ino)> {
        let mut found = Vec::new();
        let mut room = (most, bytes);
        self.collect(self.root, &mut Vec::new(), 0, &mut room, &mut found);
        found
    }

    fn collect(
        &self,
        directory: Ino,
        path: &mut Vec<u8>,
        depth: u32,
        room: &mut (usize, usize),
        found: &mut Vec<(Vec<u8>, Ino)>,
    ) {
        let Ok(entries) = self.entries(directory) else {
            return;
        };
        for (name, ino) in entries {
            if room.0 == 0 || room.1 == 0 {
                return;
            }
            let length = path.len();
            path.push(b'/');
            path.extend(name);
            match self.inodes.get(ino) {
                Some(Inode {
                    kind: Kind::File(_),
                    touched: true,
                    ..
                }) => {
                    *room = (room.0.saturating_sub(1), room.1.saturating_sub(path.len()));
                    found.push((path.clone(), *ino));
                }
                Some(Inode {
                    kind: Kind::Directory { .. },
                    ..
                }) if depth < MAX_DEPTH => {
                    self.collect(*ino, path, depth + 1, room, found);
                }
                _ => {}
            }
            path.truncate(length);
        }
    }

    fn name_ref(&self, directory: Ino, ino: Ino) -> Option<&[u8]> {
        let mut entries = self.entries(directory).ok()?.iter();
        entries
            .find(|(_, there)| **there == ino)
            .map(|(name, _)| name.as_slice())
    }

    /// A name that an inode has in a directory.
    pub(crate) fn name_in(&self, directory: Ino, ino: Ino) -> Option<Vec<u8>> {
        self.name_ref(directory, ino).map(<[u8]>::to_vec)
    }

    /// Absolute path of a directory.
    pub(crate) fn path_of(&self, directory: Ino) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = directory;
        while at != self.root && parts.len() < MAX_DEPTH as usize {
            let parent = self.parent(at);
            match self.name_ref(parent, at) {
                Some(name) => parts.push(name),
                None => return b"(unreachable)".to_vec(),
            }
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    }
}
