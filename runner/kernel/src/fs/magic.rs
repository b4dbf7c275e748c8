//! What paths mean for a process: its root, and where the links of `/proc` lead.

use crate::fs::proc::ProcLink;
use crate::fs::tree::Ino;
use crate::fs::walk::{self, Magic};
use crate::kernel::Kernel;

/// Answers what the links of `/proc` lead to.
pub(crate) struct ProcMagic<'a> {
    kernel: &'a Kernel,
    pid: u32,
}

impl Magic for ProcMagic<'_> {
    fn root(&self) -> Option<Ino> {
        self.kernel.processes.get(&self.pid)?.root
    }

    fn link(&self, link: ProcLink) -> Option<(Vec<u8>, Option<Ino>)> {
        let process = |pid: u32| {
            self.kernel
                .processes
                .get(&pid)
                .filter(|process| process.ended.is_none())
        };
        match link {
            ProcLink::SelfProcess => Some((self.pid.to_string().into_bytes(), None)),
            ProcLink::SelfThread => Some((format!("{0}/task/{0}", self.pid).into_bytes(), None)),
            ProcLink::Executable(pid) => {
                let process = process(pid)?;
                let gone = process
                    .image_ino
                    .and_then(|ino| self.kernel.tree.get(ino))
                    .is_none_or(|inode| inode.links == 0);
                let mut path = process.image.clone();
                if gone {
                    path.extend(b" (deleted)");
                }
                Some((path, process.image_ino))
            }
            ProcLink::WorkingDirectory(pid) => {
                let cwd = process(pid)?.cwd;
                Some((self.kernel.tree.path_of(cwd), Some(cwd)))
            }
            ProcLink::Root(pid) => {
                let root = process(pid)?.root.unwrap_or(self.kernel.tree.root);
                Some((self.kernel.tree.path_of(root), Some(root)))
            }
        }
    }

    fn descriptor(&self, pid: u32, fd: u32) -> Option<(Vec<u8>, Option<Ino>)> {
        let descriptor = self.kernel.processes.get(&pid)?.files.get(u64::from(fd)).ok()?;
        let file = self.kernel.open.get(descriptor.file)?;
        Some((file.path.clone(), file.inode()))
    }
}

impl Kernel {
    /// The absolute path that a process means, links not followed: what events name. One that is not absolute counts from `base`.
    pub(crate) fn named(&self, pid: u32, base: &[u8], path: &[u8]) -> Vec<u8> {
        let root = self.processes.get(&pid).and_then(|process| process.root);
        match (root, path) {
            (Some(root), [b'/', path @ ..]) => {
                let below = walk::absolute(b"/", path);
                walk::absolute(b"/", &[self.tree.path_of(root), below].concat())
            }
            _ => walk::absolute(base, path),
        }
    }

    pub(crate) fn magic(&self, pid: u32) -> ProcMagic<'_> {
        ProcMagic { kernel: self, pid }
    }
}
