//! The root that a guest finds, told place by place: for engines that need it as files of a host.

use crate::bytes::Bytes;
use crate::fs::proc::ProcFile;
use crate::fs::tree::{Data, Kind};
use crate::kernel::Kernel;

/// One name in the root.
#[derive(Debug, Clone)]
pub struct Place {
    /// Absolute guest path. Folders come before what is in them.
    pub path: Vec<u8>,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// When it was last modified: nanoseconds since 1970.
    pub modified: i64,
    /// What stands there.
    pub kind: PlaceKind,
}

/// What stands at a path.
#[derive(Debug, Clone)]
pub enum PlaceKind {
    /// A folder.
    Directory,
    /// A regular file; below `/proc`, what it holds when a guest begins.
    File(Bytes),
    /// A symbolic link: the text that it holds.
    Link(Vec<u8>),
    /// A character device: its name is the path's last part.
    Device,
}

impl Kernel {
    /// Everything in the root but what belongs to processes, and what the network shows of itself.
    pub fn places(&mut self) -> Vec<Place> {
        let mut places = Vec::new();
        let mut folders = vec![(self.tree.root, Vec::new())];
        while let Some((folder, at)) = folders.pop() {
            let Ok(entries) = self.tree.entries(folder) else {
                continue;
            };
            for (name, ino) in entries.clone() {
                let Some(inode) = self.tree.get(ino).cloned() else {
                    continue;
                };
                let path = [at.as_slice(), b"/", &name].concat();
                let kind = match inode.kind {
                    // Processes have folders of their own in each engine.
                    Kind::Directory { .. }
                        if at == b"/proc" && (name == b"net" || name.iter().all(u8::is_ascii_digit)) =>
                    {
                        continue;
                    }
                    Kind::Directory { .. } => {
                        folders.push((ino, path.clone()));
                        PlaceKind::Directory
                    }
                    Kind::File(Data::Shared(bytes)) => PlaceKind::File(bytes),
                    Kind::File(Data::Own(bytes)) => PlaceKind::File(Bytes::from(bytes.as_slice())),
                    Kind::Symlink(to) => PlaceKind::Link(to),
                    Kind::Device(_) => PlaceKind::Device,
                    Kind::Proc(file @ ProcFile::Machine(_)) => match self.proc_content(file) {
                        Some(content) => PlaceKind::File(Bytes::from(content.as_slice())),
                        None => continue,
                    },
                    Kind::Proc(_) | Kind::ProcLink(_) | Kind::ProcFds { .. } => continue,
                    Kind::Fifo | Kind::Special { .. } => continue,
                };
                places.push(Place {
                    path,
                    mode: inode.mode,
                    modified: inode.times[1],
                    kind,
                });
            }
        }
        places
    }
}
