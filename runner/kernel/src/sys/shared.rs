//! Files that are mapped shared. Memory of a machine is its own, so what the guest writes there is put into the file before this
//! process looks at the file, gives the mapping up or ends; and what it writes to the file, into the memory. A process
//! that was forked shares the memory; others that map the same file see what was put into it.

use std::sync::Arc;

use hotcell_schema::event::{File, FileOp, What};

use crate::call::{Call, Fail};
use crate::fs::tree::Ino;
use crate::machine::Protection;
use crate::space::Backing;

/// Which mappings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    All,
    File(Ino),
    /// Those that meet this range.
    Range(u64, u64),
}

/// A shared mapping of a file.
struct Shared {
    start: u64,
    length: u64,
    ino: Ino,
    offset: u64,
    path: Arc<str>,
}

impl Call<'_> {
    fn shared(&mut self, which: Which) -> Vec<Shared> {
        let id = self.task().space;
        let Some(space) = self.k.spaces.get(&id).filter(|space| space.shares_files) else {
            return Vec::new();
        };
        let mappings = space.mappings().filter_map(|(start, mapping)| {
            let Backing::File { path, offset, inode } = &mapping.backing else {
                return None;
            };
            let wanted = match which {
                Which::All => true,
                Which::File(ino) => ino.0 == *inode,
                Which::Range(from, to) => start < to && from < mapping.end,
            };
            let changes = mapping.shared && mapping.protection.has(Protection::WRITE);
            (wanted && changes).then(|| Shared {
                start,
                length: mapping.end - start,
                ino: Ino(*inode),
                offset: *offset,
                path: Arc::clone(path),
            })
        });
        mappings.collect()
    }

    /// Puts what stands in shared mappings into their files.
    pub(super) fn write_back(&mut self, which: Which) -> Result<(), Fail> {
        for shared in self.shared(which) {
            let all = self.k.tree.bytes(shared.ino).map_or(0, <[u8]>::len) as u64;
            let length = shared.length.min(all.saturating_sub(shared.offset));
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            // What was never given access is not there to be read.
            if bytes.is_empty() || self.machine.read(shared.start, &mut bytes).is_err() {
                continue;
            }
            let same = self
                .k
                .tree
                .part(shared.ino, shared.offset, length)
                .is_some_and(|there| *there == *bytes);
            if !same {
                let result = self.k.tree.write(shared.ino, shared.offset, &bytes);
                self.stored(result)?;
                self.tell(What::File(File {
                    bytes: Some(length),
                    ..File::new(FileOp::Written, shared.path.as_ref())
                }));
            }
        }
        Ok(())
    }

    /// Puts what was written to a file into memory that is mapped from it.
    pub(super) fn write_through(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        for shared in self.shared(Which::File(ino)) {
            let (from, to) = (
                offset.max(shared.offset),
                offset.saturating_add(bytes.len() as u64),
            );
            let to = to.min(shared.offset.saturating_add(shared.length));
            if from < to {
                let part = (from - offset) as usize..(to - offset) as usize;
                let _ = self.machine.write(
                    shared.start + (from - shared.offset),
                    bytes.get(part).unwrap_or_default(),
                );
            }
        }
    }
}
