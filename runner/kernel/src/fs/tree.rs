//! The tree of inodes.

mod extended;
mod paths;
mod sound;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::layout::Stat;
use crate::bytes::Bytes;
pub(crate) use crate::fs::device::Device;
use crate::fs::proc::{ProcFile, ProcLink};
use extended::Extended;

/// Names an inode; its number for the guest too. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ino(pub(crate) u64);

/// Bytes of a file: shared with the job until written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Data {
    /// As it was handed over.
    Shared(Bytes),
    /// The guest's own.
    Own(#[serde(with = "crate::state::raw")] Vec<u8>),
}

impl Data {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn own(&mut self) -> &mut Vec<u8> {
        if let Self::Shared(bytes) = self {
            *self = Self::Own(bytes.to_vec());
        }
        match self {
            Self::Own(bytes) => bytes,
            // Made own above.
            Self::Shared(_) => unreachable!("shared data was made own"),
        }
    }
}

/// What an inode is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Kind {
    File(Data),
    Directory {
        entries: BTreeMap<Vec<u8>, Ino>,
        parent: Ino,
    },
    Symlink(Vec<u8>),
    Device(Device),
    /// A named pipe; the index of its buffer once it was opened.
    Fifo,
    /// A block or other device that cannot be opened.
    Special {
        mode: u32,
        number: u64,
    },
    /// A file of `/proc`, made when it is opened.
    Proc(ProcFile),
    /// A link of `/proc`, resolved when it is followed.
    ProcLink(ProcLink),
    /// `/proc/PID/fd`.
    ProcFds {
        pid: u32,
        parent: Ino,
    },
}

/// One inode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    /// Access, modification, change time: nanoseconds since 1970.
    pub(crate) times: [i64; 3],
    /// Made or changed by the guest.
    pub(crate) touched: bool,
    /// Number of the file system it is on.
    pub(crate) device: u64,
    extended: Extended,
}

/// Kinds of file in `st_mode`.
pub(crate) mod mode {
    pub(crate) const KIND: u32 = 0o170_000;
    pub(crate) const FIFO: u32 = 0o010_000;
    pub(crate) const CHARACTER: u32 = 0o020_000;
    pub(crate) const DIRECTORY: u32 = 0o040_000;
    pub(crate) const BLOCK: u32 = 0o060_000;
    pub(crate) const REGULAR: u32 = 0o100_000;
    pub(crate) const SYMLINK: u32 = 0o120_000;
    pub(crate) const SOCKET: u32 = 0o140_000;
}

/// Greatest number of inodes.
const MAX_INODES: usize = 200_000;
/// Device numbers of the file systems, as stat says them.
pub(crate) const ROOT_DEVICE: u64 = 0x801;
pub(crate) const PROC_DEVICE: u64 = 0x15;
pub(crate) const DEV_DEVICE: u64 = 0x6;
pub(crate) const SYS_DEVICE: u64 = 0x16;

/// Why bytes could not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreError {
    Errno(Errno),
    /// The job's limit of file bytes was met.
    Limit,
}

impl From<Errno> for StoreError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// All files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tree {
    inodes: BTreeMap<Ino, Inode>,
    pub(super) next: u64,
    pub(crate) root: Ino,
    /// Nanoseconds since 1970, set by the kernel before each call.
    pub(crate) now: i64,
    /// How many more bytes the guest may store.
    pub(crate) room: u64,
    /// Inodes held by open files: not freed when their last name goes.
    held: BTreeMap<Ino, u32>,
}

impl Tree {
    /// A tree with an empty root directory.
    pub(crate) fn new(now: i64, room: u64) -> Self {
        let root = Ino(2);
        let mut tree = Self {
            inodes: BTreeMap::new(),
            next: 3,
            root,
            now,
            room,
            held: BTreeMap::new(),
        };
        let kind = Kind::Directory {
            entries: BTreeMap::new(),
            parent: root,
        };
        tree.inodes.insert(
            root,
            Inode {
                kind,
                mode: 0o755,
                uid: 0,
                gid: 0,
                links: 2,
                times: [now; 3],
                touched: false,
                device: ROOT_DEVICE,
                extended: Extended::new(),
            },
        );
        tree
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    pub(crate) fn get_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino)
    }

    /// The directory's entries.
    pub(crate) fn entries(&self, directory: Ino) -> Result<&BTreeMap<Vec<u8>, Ino>, Errno> {
        match self.inodes.get(&directory).map(|inode| &inode.kind) {
            Some(Kind::Directory { entries, .. }) => Ok(entries),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn entries_mut(&mut self, directory: Ino) -> Result<&mut BTreeMap<Vec<u8>, Ino>, Errno> {
        let now = self.now;
        match self.inodes.get_mut(&directory) {
            Some(Inode {
                kind: Kind::Directory { entries, .. },
                times,
                ..
            }) => {
                times[1] = now;
                times[2] = now;
                Ok(entries)
            }
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// The directory above.
    pub(crate) fn parent(&self, directory: Ino) -> Ino {
        match self.inodes.get(&directory).map(|inode| &inode.kind) {
            Some(Kind::Directory { parent, .. } | Kind::ProcFds { parent, .. }) => *parent,
            _ => self.root,
        }
    }

    /// Whether new names may be made in this directory: not in what the kernel itself makes.
    fn writable(&self, directory: Ino) -> Result<(), Errno> {
        let inode = self.inodes.get(&directory).ok_or(Errno::ENOENT)?;
        match inode.kind {
            Kind::Directory { .. } if inode.links == 0 => Err(Errno::ENOENT),
            Kind::Directory { .. } if [PROC_DEVICE, SYS_DEVICE].contains(&inode.device) => Err(Errno::ENOENT),
            Kind::Directory { .. } => Ok(()),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Makes a node in a directory. For the guest ([`Tree::make`]) and the built-in root alike.
    pub(crate) fn add(
        &mut self,
        directory: Ino,
        name: &[u8],
        mut kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Ino, Errno> {
        if self.inodes.len() >= MAX_INODES {
            return Err(Errno::ENOSPC);
        }
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = Ino(self.next);
        self.next += 1;
        let is_directory = matches!(kind, Kind::Directory { .. } | Kind::ProcFds { .. });
        if let Kind::Directory { parent, .. } | Kind::ProcFds { parent, .. } = &mut kind {
            *parent = directory;
        }
        self.entries_mut(directory)?.insert(name.to_vec(), ino);
        let links = if is_directory { 2 } else { 1 };
        let times = [self.now; 3];
        let device = self
            .inodes
            .get(&directory)
            .map_or(ROOT_DEVICE, |above| above.device);
        let inode = Inode {
            kind,
            mode,
            uid: owner.0,
            gid: owner.1,
            links,
            times,
            touched: false,
            device,
            extended: Extended::new(),
        };
        self.inodes.insert(ino, inode);
        if is_directory && let Some(above) = self.inodes.get_mut(&directory) {
            above.links += 1;
        }
        Ok(ino)
    }

    /// Makes a node for the guest.
    pub(crate) fn make(
        &mut self,
        directory: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Ino, Errno> {
        self.writable(directory)?;
        let ino = self.add(directory, name, kind, mode, owner)?;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.touched = true;
        }
        Ok(ino)
    }

    /// A new directory's kind.
    pub(crate) fn directory() -> Kind {
        Kind::Directory {
            entries: BTreeMap::new(),
            parent: Ino(0),
        }
    }

    /// Makes a hard link.
    pub(crate) fn link(&mut self, target: Ino, directory: Ino, name: &[u8]) -> Result<(), Errno> {
        self.writable(directory)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let now = self.now;
        let inode = self.inodes.get_mut(&target).ok_or(Errno::ENOENT)?;
        match inode.kind {
            Kind::Directory { .. } | Kind::ProcFds { .. } => return Err(Errno::EPERM),
            Kind::Proc(_) | Kind::ProcLink(_) => return Err(Errno::EXDEV),
            _ => {}
        }
        inode.links = inode.links.checked_add(1).ok_or(Errno::EMLINK)?;
        inode.times[2] = now;
        inode.touched = true;
        self.entries_mut(directory)?.insert(name.to_vec(), target);
        Ok(())
    }

    /// Removes a name that is not a directory.
    pub(crate) fn unlink(&mut self, directory: Ino, name: &[u8]) -> Result<(), Errno> {
        let ino = *self.entries(directory)?.get(name).ok_or(Errno::ENOENT)?;
        self.removable(directory)?;
        let now = self.now;
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        if matches!(inode.kind, Kind::Directory { .. } | Kind::ProcFds { .. }) {
            return Err(Errno::EISDIR);
        }
        inode.links = inode.links.saturating_sub(1);
        inode.times[2] = now;
        self.entries_mut(directory)?.remove(name);
        self.free(ino);
        Ok(())
    }

    fn removable(&self, directory: Ino) -> Result<(), Errno> {
        self.writable(directory).map_err(|_| Errno::EPERM)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&mut self, directory: Ino, name: &[u8]) -> Result<(), Errno> {
        let ino = *self.entries(directory)?.get(name).ok_or(Errno::ENOENT)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.removable(directory)?;
        self.entries_mut(directory)?.remove(name);
        if let Some(above) = self.inodes.get_mut(&directory) {
            above.links = above.links.saturating_sub(1);
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.links = 0;
        }
        self.free(ino);
        Ok(())
    }

    /// Removes a node with all below, whatever it is: for what the kernel itself made.
    pub(crate) fn remove_all(&mut self, directory: Ino, name: &[u8]) -> Vec<Ino> {
        let mut gone = Vec::new();
        let mut going = vec![(directory, name.to_vec())];
        while let Some((above, name)) = going.pop() {
            let Ok(Some(ino)) = self.entries(above).map(|entries| entries.get(&name).copied()) else {
                continue;
            };
            if let Ok(below) = self.entries(ino)
                && !below.is_empty()
            {
                let below: Vec<_> = below.keys().map(|inner| (ino, inner.clone())).collect();
                going.push((above, name));
                going.extend(below);
                continue;
            }
            if let Ok(entries) = self.entries_mut(above) {
                entries.remove(&name);
            }
            let was_folder = self.inodes.get_mut(&ino).is_some_and(|inode| {
                let is_folder = matches!(inode.kind, Kind::Directory { .. } | Kind::ProcFds { .. });
                inode.links = if is_folder {
                    0
                } else {
                    inode.links.saturating_sub(1)
                };
                is_folder
            });
            if let (true, Some(above)) = (was_folder, self.inodes.get_mut(&above)) {
                above.links = above.links.saturating_sub(1);
            }
            self.free(ino);
            gone.push(ino);
        }
        gone
    }

    /// Renames. `replace`: an existing target goes away.
    pub(crate) fn rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        replace: bool,
    ) -> Result<(), Errno> {
        let ino = *self.entries(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        self.removable(from.0)?;
        self.writable(to.0)?;
        let is_directory = matches!(
            self.inodes.get(&ino).map(|inode| &inode.kind),
            Some(Kind::Directory { .. })
        );
        if let Some(&target) = self.entries(to.0)?.get(to.1) {
            if target == ino {
                return Ok(());
            }
            if !replace {
                return Err(Errno::EEXIST);
            }
            let target_is = matches!(
                self.inodes.get(&target).map(|inode| &inode.kind),
                Some(Kind::Directory { .. })
            );
            match (is_directory, target_is) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.entries(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        if is_directory {
            // A directory cannot be moved below itself.
            let mut at = to.0;
            while at != self.root {
                if at == ino {
                    return Err(Errno::EINVAL);
                }
                at = self.parent(at);
            }
        }
        if let Some(&target) = self.entries(to.0)?.get(to.1) {
            let target_is = matches!(
                self.inodes.get(&target).map(|inode| &inode.kind),
                Some(Kind::Directory { .. })
            );
            if target_is {
                self.rmdir(to.0, to.1)?;
            } else {
                self.unlink(to.0, to.1)?;
            }
        }
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_vec(), ino);
        let now = self.now;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.times[2] = now;
            inode.touched = true;
            if let Kind::Directory { parent, .. } = &mut inode.kind {
                *parent = to.0;
            }
        }
        if is_directory && from.0 != to.0 {
            if let Some(above) = self.inodes.get_mut(&from.0) {
                above.links = above.links.saturating_sub(1);
            }
            if let Some(above) = self.inodes.get_mut(&to.0) {
                above.links += 1;
            }
        }
        Ok(())
    }

    /// An open file refers to the inode.
    pub(crate) fn hold(&mut self, ino: Ino) {
        *self.held.entry(ino).or_default() += 1;
    }

    /// An open file refers to it no more.
    pub(crate) fn release(&mut self, ino: Ino) {
        if let Some(count) = self.held.get_mut(&ino) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.held.remove(&ino);
                self.free(ino);
            }
        }
    }

    fn free(&mut self, ino: Ino) {
        let gone =
            self.inodes.get(&ino).is_some_and(|inode| inode.links == 0) && !self.held.contains_key(&ino);
        if gone && let Some(inode) = self.inodes.remove(&ino) {
            let own = match &inode.kind {
                Kind::File(Data::Own(bytes)) => bytes.len() as u64,
                _ => 0,
            };
            self.room = self
                .room
                .saturating_add(own)
                .saturating_add(inode.extended_size());
        }
    }

    /// Bytes of a file.
    pub(crate) fn bytes(&self, ino: Ino) -> Option<&[u8]> {
        match &self.inodes.get(&ino)?.kind {
            Kind::File(data) => Some(data.bytes()),
            _ => None,
        }
    }

    /// Bytes of a file from an offset on, at most so many, to be held on to: where they lie, if the guest never wrote the file;
    /// else a copy.
    pub(crate) fn part(&self, ino: Ino, offset: u64, length: u64) -> Option<Bytes> {
        let all = self.bytes(ino)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        let count = usize::try_from(length).unwrap_or(usize::MAX);
        let part = start..start.saturating_add(count).min(all.len());
        match &self.inodes.get(&ino)?.kind {
            Kind::File(Data::Shared(bytes)) => bytes.part(part),
            _ => all.get(part).map(Bytes::from),
        }
    }

    /// Writes into a file. Grows it with zeroes where needed.
    pub(crate) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::EFBIG)?;
        self.drop_capabilities(ino);
        let old = self.bytes(ino).ok_or(Errno::EINVAL)?.len() as u64;
        if end > old || self.is_shared(ino) {
            self.resize(ino, end.max(old))?;
        }
        let now = self.now;
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return Err(Errno::EINVAL.into());
        };
        inode.times[1] = now;
        inode.times[2] = now;
        inode.touched = true;
        if let Kind::File(data) = &mut inode.kind {
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let place = range
                .and_then(|(start, end)| data.own().get_mut(start..end))
                .ok_or(Errno::EFBIG)?;
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn is_shared(&self, ino: Ino) -> bool {
        matches!(
            self.inodes.get(&ino).map(|inode| &inode.kind),
            Some(Kind::File(Data::Shared(_)))
        )
    }

    /// Sets a file's length.
    pub(crate) fn resize(&mut self, ino: Ino, length: u64) -> Result<(), StoreError> {
        self.drop_capabilities(ino);
        let now = self.now;
        let room = self.room;
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        let Kind::File(data) = &mut inode.kind else {
            return Err(Errno::EINVAL.into());
        };
        let old = match data {
            Data::Shared(_) => 0,
            Data::Own(bytes) => bytes.len() as u64,
        };
        let kept = data.bytes().len() as u64;
        let grown = length.max(kept.min(length)).saturating_sub(old);
        if grown > room {
            return Err(StoreError::Limit);
        }
        let size = usize::try_from(length).map_err(|_| Errno::EFBIG)?;
        if let Data::Shared(bytes) = data {
            let head = bytes.get(..size.min(bytes.len())).unwrap_or_default();
            *data = Data::Own(head.to_vec());
        }
        data.own().resize(size, 0);
        inode.times[1] = now;
        inode.times[2] = now;
        inode.touched = true;
        self.room = room.saturating_add(old).saturating_sub(length);
        Ok(())
    }

    /// What stat says.
    pub(crate) fn stat(&self, ino: Ino) -> Option<Stat> {
        let inode = self.inodes.get(&ino)?;
        let mut stat = Stat {
            device: inode.device,
            inode: ino.0,
            mode: inode.mode & 0o7777,
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            block_size: 4096,
            times: inode.times.map(split_time),
            ..Stat::default()
        };
        stat.mode |= match &inode.kind {
            Kind::File(data) => {
                stat.size = data.bytes().len() as u64;
                mode::REGULAR
            }
            Kind::Directory { .. } => {
                stat.size = 4096;
                mode::DIRECTORY
            }
            Kind::Symlink(target) => {
                stat.size = target.len() as u64;
                mode::SYMLINK
            }
            Kind::Device(device) => {
                stat.special = device.number();
                mode::CHARACTER
            }
            Kind::Fifo => mode::FIFO,
            Kind::Special { mode, number } => {
                stat.special = *number;
                *mode & mode::KIND
            }
            Kind::Proc(_) => mode::REGULAR,
            Kind::ProcLink(_) => mode::SYMLINK,
            Kind::ProcFds { .. } => mode::DIRECTORY,
        };
        if matches!(stat.mode & mode::KIND, mode::REGULAR | mode::DIRECTORY) && stat.device == ROOT_DEVICE {
            stat.blocks = stat.size.div_ceil(4096) * 8;
        }
        Some(stat)
    }
}

fn split_time(nanoseconds: i64) -> (i64, u32) {
    (
        nanoseconds.div_euclid(1_000_000_000),
        nanoseconds.rem_euclid(1_000_000_000) as u32,
    )
}
