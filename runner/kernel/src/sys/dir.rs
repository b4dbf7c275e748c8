//! Directories: listing and the working directory.

use std::sync::Arc;

use hotcell_schema::event::{File, FileOp, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::layout;
use crate::call::{Answer, Call};
use crate::fs::open::{Entry, Target};
use crate::fs::tree::{Ino, Kind, mode};
use crate::fs::watch::what;

impl Call<'_> {
    fn list(&mut self, directory: Ino) -> Result<Arc<[Entry]>, Errno> {
        const DIRECTORY: u8 = 4;
        const LINK: u8 = 10;
        let parent = self.k.tree.parent(directory);
        let dots = [(b".".to_vec(), directory), (b"..".to_vec(), parent)];
        let mut all: Vec<Entry> = dots
            .into_iter()
            .map(|(name, ino)| Entry {
                name,
                ino: ino.0,
                kind: DIRECTORY,
            })
            .collect();
        if let Some(Kind::ProcFds { pid, .. }) = self.k.tree.get(directory).map(|inode| &inode.kind) {
            let fds = self
                .k
                .processes
                .get(pid)
                .map(|process| process.files.all().map(|(fd, _)| fd).collect::<Vec<_>>());
            all.extend(fds.unwrap_or_default().into_iter().map(|fd| Entry {
                name: fd.to_string().into_bytes(),
                ino: 0x1000 + u64::from(fd),
                kind: LINK,
            }));
            return Ok(all.into());
        }
        for (name, ino) in self.k.tree.entries(directory)? {
            let kind = self
                .k
                .tree
                .stat(*ino)
                .map_or(0, |stat| ((stat.mode & mode::KIND) >> 12) as u8);
            all.push(Entry {
                name: name.clone(),
                ino: ino.0,
                kind,
            });
        }
        Ok(all.into())
    }
}

type Encode = fn(&crate::abi::Abi, u64, u64, u8, &[u8]) -> Vec<u8>;

fn list_into(c: &mut Call<'_>, encode: Encode) -> Answer {
    let room = usize::try_from(c.word(2).min(1 << 20)).unwrap_or(0);
    let file = c.file(0)?;
    let (path, offset) = (file.path.clone(), file.offset);
    let (ino, listed) = match &file.target {
        Target::Directory(ino, listed) => (*ino, listed.clone()),
        _ => return Err(Errno::ENOTDIR.into()),
    };
    let entries = match listed {
        Some(entries) => entries,
        None => {
            let entries = c.list(ino)?;
            let id = c.file_id(0)?;
            c.k.open.list(id, Some(Arc::clone(&entries)))?;
            c.tell(What::File(File::new(FileOp::List, text(&path))));
            entries
        }
    };
    let mut bytes = Vec::new();
    let mut position = usize::try_from(offset).unwrap_or(usize::MAX);
    while let Some(entry) = entries.get(position) {
        let one = encode(c.abi(), entry.ino, position as u64 + 1, entry.kind, &entry.name);
        if bytes.len() + one.len() > room {
            if bytes.is_empty() {
                return Err(Errno::EINVAL.into());
            }
            break;
        }
        bytes.extend(one);
        position += 1;
    }
    c.write(c.word(1), &bytes)?;
    let file = c.file(0)?;
    file.offset = position.min(entries.len()) as u64;
    let id = c.file_id(0)?;
    c.k.notice_file(what::ACCESS, id);
    Ok(bytes.len() as u64)
}

pub(crate) fn getdents(c: &mut Call<'_>) -> Answer {
    list_into(c, layout::dirent)
}

pub(crate) fn getdents64(c: &mut Call<'_>) -> Answer {
    list_into(c, layout::dirent64)
}

pub(crate) fn getcwd(c: &mut Call<'_>) -> Answer {
    let (cwd, root) = (c.process().cwd, c.process().root);
    let mut path = c.k.tree.path_of(cwd);
    if let Some(root) = root.filter(|root| *root != c.k.tree.root) {
        let root = c.k.tree.path_of(root);
        path = match path.strip_prefix(root.as_slice()) {
            Some([]) => b"/".to_vec(),
            Some(below @ [b'/', ..]) => below.to_vec(),
            // getcwd(2): it is outside of the root.
            _ => [b"(unreachable)".as_slice(), &path].concat(),
        };
    }
    path.push(0);
    if (path.len() as u64) > c.word(1) {
        return Err(Errno::ERANGE.into());
    }
    c.write(c.word(0), &path)?;
    Ok(path.len() as u64)
}

fn enter(c: &mut Call<'_>, ino: Ino) -> Answer {
    if c.k.tree.entries(ino).is_err() {
        return Err(Errno::ENOTDIR.into());
    }
    let old = std::mem::replace(&mut c.process().cwd, ino);
    c.k.tree.hold(ino);
    c.k.tree.release(old);
    c.k.notice_gone(old);
    Ok(0)
}

/// Only the superuser may (CAP_SYS_CHROOT). The working directory stays, also outside of the new root.
pub(crate) fn chroot(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let ino = c.walk(None, &path, true)?.inode()?;
    if c.k.tree.entries(ino).is_err() {
        return Err(Errno::ENOTDIR.into());
    }
    if c.process().uid[1] != 0 {
        return Err(Errno::EPERM.into());
    }
    let old = c.process().root.replace(ino);
    c.k.tree.hold(ino);
    if let Some(old) = old {
        c.k.tree.release(old);
        c.k.notice_gone(old);
    }
    Ok(0)
}

pub(crate) fn chdir(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let ino = c.walk(None, &path, true)?.inode()?;
    enter(c, ino)
}

pub(crate) fn fchdir(c: &mut Call<'_>) -> Answer {
    let ino = c.file(0)?.inode().ok_or(Errno::ENOTDIR)?;
    enter(c, ino)
}
