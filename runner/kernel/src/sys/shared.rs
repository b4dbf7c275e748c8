//! Files that are mapped shared. All who map a part of a file shared have the same memory there; but the file itself is another
//! copy. So what the guest writes into that memory is put into the file before a call looks at the file, and when the
//! process gives the mapping up or ends; and what a call writes to the file, into the memory.

use std::sync::Arc;

use hotcell_schema::event::{File, FileOp, What};

use crate::call::{Call, Fail};
use crate::deferred::Deferred;
use crate::fs::tree::{Ino, StoreError};
use crate::kernel::Kernel;
use crate::machine::{Machine, MachineError, Machines, Protection, SpaceId};
use crate::mapping::Backing;
use crate::reach::Reach;
use crate::space::AddressSpace;
use crate::task::Pending;

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
    writable: bool,
}

/// A part of a file that stands in memory.
pub(crate) struct Standing {
    pub(crate) space: SpaceId,
    pub(crate) address: u64,
    /// Offset in the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

fn shared(space: &AddressSpace, which: Which) -> impl Iterator<Item = Shared> {
    let mappings = space.shares_files.then(|| space.mappings());
    mappings
        .into_iter()
        .flatten()
        .filter_map(move |(start, mapping)| {
            let Backing::File { path, offset, inode } = &mapping.backing else {
                return None;
            };
            let wanted = match which {
                Which::All => true,
                Which::File(ino) => ino.0 == *inode,
                Which::Range(from, to) => start < to && from < mapping.end,
            };
            (wanted && mapping.shared).then(|| Shared {
                start,
                length: mapping.end - start,
                ino: Ino(*inode),
                offset: *offset,
                path: Arc::clone(path),
                writable: mapping.protection.has(Protection::WRITE),
            })
        })
}

impl Kernel {
    /// What of a part of a file stands in memory that processes share: by offset, without overlaps.
    pub(crate) fn in_memory(&self, ino: Ino, offset: u64, length: u64) -> Vec<Standing> {
        let end = offset.saturating_add(length);
        let mut all: Vec<Standing> = Vec::new();
        for (id, space) in &self.spaces {
            for part in shared(space, Which::File(ino)) {
                let from = part.offset.max(offset);
                let to = part.offset.saturating_add(part.length).min(end);
                if from < to {
                    all.push(Standing {
                        space: *id,
                        address: part.start + (from - part.offset),
                        offset: from,
                        length: to - from,
                    });
                }
            }
        }
        all.sort_by_key(|part| (part.offset, std::cmp::Reverse(part.length)));
        let mut at = offset;
        all.retain_mut(|part| {
            let known = at.saturating_sub(part.offset);
            if known >= part.length {
                return false;
            }
            part.address += known;
            part.offset += known;
            part.length -= known;
            at = part.offset + part.length;
            true
        });
        all
    }

    /// Puts what stands in a space's shared mappings into their files; which files, and how many bytes.
    fn put_back(
        &mut self,
        id: SpaceId,
        machine: &dyn Machine,
        which: Which,
    ) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let mut put = Vec::new();
        let parts: Vec<Shared> = self
            .spaces
            .get(&id)
            .into_iter()
            .flat_map(|space| shared(space, which))
            .collect();
        for part in parts.into_iter().filter(|part| part.writable) {
            let all = self.tree.bytes(part.ino).map_or(0, <[u8]>::len) as u64;
            let length = part.length.min(all.saturating_sub(part.offset));
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            if bytes.is_empty() || machine.read(part.start, &mut bytes).is_err() {
                continue;
            }
            let there = self.tree.part(part.ino, part.offset, length);
            if there.is_none_or(|there| *there != *bytes) {
                self.tree.write(part.ino, part.offset, &bytes)?;
                put.push((part.path, length));
            }
        }
        Ok(put)
    }

    /// The same for a space that is about to go, whatever ended its process.
    pub(crate) fn put_back_all(&mut self, id: SpaceId, machines: &mut dyn Machines) {
        let Some(space) = self.spaces.get(&id).filter(|space| space.shares_files) else {
            return;
        };
        let pid = space.pid;
        let Some(machine) = machines.get(id) else { return };
        match self.put_back(id, machine, Which::All) {
            Ok(put) => {
                for (path, length) in put {
                    let task = self.event_task(pid, pid);
                    let what = File {
                        bytes: Some(length),
                        ..File::new(FileOp::Written, path.as_ref())
                    };
                    self.emit(task, What::File(what));
                }
            }
            // There was no room left: the run ends by that limit anyway, or the file stays as it was.
            Err(_) => {
                let limit = self.limits.file_bytes;
                self.limit("file-bytes", limit);
            }
        }
    }

    /// Makes a call for which what other processes have in shared mappings must be in the files, and the other way round.
    pub(crate) fn settled(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        mut pending: Pending,
    ) -> Result<(), MachineError> {
        pending.settled = true;
        let own = self.tasks.get(&tid).map(|task| task.space);
        let others: Vec<(SpaceId, u32)> = self
            .spaces
            .iter()
            .filter(|(id, space)| Some(**id) != own && space.shares_files)
            .filter_map(|(id, _)| {
                let mut tasks = self.tasks.iter();
                Some((*id, *tasks.find(|(_, task)| task.space == *id)?.0))
            })
            .collect();
        for (id, other) in &others {
            if let Some(machine) = machines.get(*id)
                && let Err(Fail::End) = Call::of(self, machine, *other, &mut pending).write_back(Which::All)
            {
                return Ok(());
            }
        }
        self.load_registers(tid, machines)?;
        if let Some(machine) = own.and_then(|own| machines.get(own)) {
            let running = std::mem::replace(&mut self.current, tid);
            self.attempt(machine, tid, pending);
            self.current = running;
        }
        // What the call itself wrote to files, and nothing else: memory that the caller has too is as the caller left it.
        for (ino, offset, length) in std::mem::take(&mut self.through) {
            // Past its end, where it was made shorter: zeros.
            let mut bytes = self
                .tree
                .part(ino, offset, length)
                .map_or_else(Vec::new, |bytes| bytes.to_vec());
            bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            for part in self.in_memory(ino, offset, length) {
                let from = (part.offset - offset) as usize;
                let held = bytes.get(from..).unwrap_or_default();
                let held = held
                    .get(..held.len().min(part.length as usize))
                    .unwrap_or_default();
                if let Some(machine) = machines.get(part.space) {
                    let _ = machine.write(part.address, held);
                }
            }
        }
        Ok(())
    }
}

impl Call<'_> {
    fn shared(&mut self, which: Which) -> Vec<Shared> {
        let id = self.task().space;
        let space = self.k.spaces.get(&id);
        space.into_iter().flat_map(|space| shared(space, which)).collect()
    }

    /// Before a call looks at a file or changes it.
    pub(super) fn settle(&mut self, ino: Ino) -> Result<(), Fail> {
        let own = self.task().space;
        let mut others = self.k.spaces.iter().filter(|(id, _)| **id != own);
        let elsewhere = others.any(|(_, space)| shared(space, Which::File(ino)).next().is_some());
        if elsewhere && !self.pending.settled {
            return Err(Fail::Later(Deferred::Reach(Box::new(Reach::Settled))));
        }
        self.write_back(Which::File(ino))
    }

    /// Puts what stands in shared mappings into their files.
    pub(super) fn write_back(&mut self, which: Which) -> Result<(), Fail> {
        let id = self.task().space;
        let result = self.k.put_back(id, &*self.machine, which);
        for (path, length) in self.stored(result)? {
            self.tell(What::File(File {
                bytes: Some(length),
                ..File::new(FileOp::Written, path.as_ref())
            }));
        }
        Ok(())
    }

    /// Gives a file another length, also in the memory that is mapped from it.
    pub(super) fn resize(&mut self, ino: Ino, length: u64) -> Result<(), Fail> {
        self.settle(ino)?;
        let before = self.k.tree.bytes(ino).map_or(0, <[u8]>::len) as u64;
        let result = self.k.tree.resize(ino, length);
        self.stored(result)?;
        let gone = usize::try_from(before.saturating_sub(length)).unwrap_or(0);
        if gone > 0 && !self.k.in_memory(ino, length, gone as u64).is_empty() {
            self.write_through(ino, length, &vec![0; gone]);
        }
        Ok(())
    }

    /// Puts what was written to a file into memory that is mapped from it.
    pub(super) fn write_through(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        if self.pending.settled {
            self.k.through.push((ino, offset, bytes.len() as u64));
        }
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
