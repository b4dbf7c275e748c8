//! Path resolution.

use crate::abi::errno::Errno;
use crate::fs::proc::ProcLink;
use crate::fs::tree::{Ino, Kind, Tree};
use serde::{Deserialize, Serialize};

/// Longest path and name, deepest chain of links (linux/limits.h, linux/namei.h).
pub(crate) const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;
pub(crate) const MAX_LINKS: u32 = 40;

/// What links of `/proc` lead to: answered by the kernel from its processes.
pub(crate) trait Magic {
    /// Where absolute paths begin, and what `..` does not leave, after `chroot`.
    fn root(&self) -> Option<Ino> {
        None
    }
    /// The text of a link and, where it leads straight to an inode, that inode.
    fn link(&self, link: ProcLink) -> Option<(Vec<u8>, Option<Ino>)>;
    /// The same for `/proc/PID/fd/N`.
    fn descriptor(&self, pid: u32, fd: u32) -> Option<(Vec<u8>, Option<Ino>)>;
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory that holds the last name.
    pub(crate) directory: Ino,
    /// The last name; empty when the path ends in `/`, `.` or `..`, or in a link straight to an inode.
    pub(crate) name: Vec<u8>,
    /// What is there, if anything.
    pub(crate) found: Option<Found>,
    /// The path ended in a slash: only a directory will do.
    pub(crate) must_be_directory: bool,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// An inode of the tree.
    Inode(Ino),
    /// `/proc/PID/fd/N` itself (not followed).
    Descriptor { pid: u32, fd: u32 },
}

/// An inode and the name by which it was found (a dentry). The name is empty where there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) ino: Ino,
    pub(crate) directory: Ino,
    pub(crate) name: Vec<u8>,
}

impl Place {
    /// The inode there, with its name.
    pub(crate) fn seat(&self) -> Result<Seat, Errno> {
        Ok(self.seat_of(self.inode()?))
    }

    /// The same of what was made there.
    pub(crate) fn seat_of(&self, ino: Ino) -> Seat {
        Seat {
            ino,
            directory: self.directory,
            name: self.name.clone(),
        }
    }

    /// The inode there.
    pub(crate) fn inode(&self) -> Result<Ino, Errno> {
        match self.found {
            Some(Found::Inode(ino)) => Ok(ino),
            Some(Found::Descriptor { .. }) => Err(Errno::ENOENT),
            None => Err(Errno::ENOENT),
        }
    }
}

/// Resolves `path` from `from`. `follow`: whether a link at its end is followed.
pub(crate) fn walk(
    tree: &Tree,
    magic: &dyn Magic,
    from: Ino,
    path: &[u8],
    follow: bool,
) -> Result<Place, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut links = 0;
    walk_on(tree, magic, from, path, follow, &mut links)
}

fn walk_on(
    tree: &Tree,
    magic: &dyn Magic,
    from: Ino,
    path: &[u8],
    follow: bool,
    links: &mut u32,
) -> Result<Place, Errno> {
    let root = magic.root().unwrap_or(tree.root);
    let mut at = if path.first() == Some(&b'/') { root } else { from };
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    let must_be_directory = path.last() == Some(&b'/') || matches!(parts.last(), Some(&b"." | &b".."));
    let plain = |at: Ino| Place {
        directory: tree.parent(at),
        name: Vec::new(),
        found: Some(Found::Inode(at)),
        must_be_directory: true,
    };
    let Some((last, leading)) = parts.split_last() else {
        return Ok(plain(at));
    };
    for part in leading {
        at = match step(tree, root, at, part)? {
            None => return Err(Errno::ENOENT),
            Some(found) => enter(tree, magic, at, found, links)?,
        };
    }
    if matches!(*last, b"." | b"..") {
        let Some(Found::Inode(there)) = step(tree, root, at, last)? else {
            return Err(Errno::ENOENT);
        };
        return Ok(plain(there));
    }
    let found = step(tree, root, at, last)?;
    let mut place = Place {
        directory: at,
        name: last.to_vec(),
        found,
        must_be_directory,
    };
    if !follow && !must_be_directory {
        return Ok(place);
    }
    let Some(found) = found else { return Ok(place) };
    match target(tree, magic, found)? {
        None => {}
        Some((_, Some(ino))) => {
            place.found = Some(Found::Inode(ino));
            place.name = Vec::new();
        }
        Some((text, None)) => {
            *links += 1;
            if *links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            if text.is_empty() {
                return Err(Errno::ENOENT);
            }
            place = walk_on(tree, magic, at, &text, true, links)?;
            place.must_be_directory |= must_be_directory;
        }
    }
    if place.must_be_directory
        && let Some(Found::Inode(ino)) = place.found
        && !is_directory(tree, ino)
    {
        return Err(Errno::ENOTDIR);
    }
    Ok(place)
}

fn is_directory(tree: &Tree, ino: Ino) -> bool {
    matches!(
        tree.get(ino).map(|inode| &inode.kind),
        Some(Kind::Directory { .. } | Kind::ProcFds { .. })
    )
}

/// One name in one directory.
fn step(tree: &Tree, root: Ino, at: Ino, part: &[u8]) -> Result<Option<Found>, Errno> {
    if part.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let inode = tree.get(at).ok_or(Errno::ENOENT)?;
    match (&inode.kind, part) {
        (Kind::Directory { .. } | Kind::ProcFds { .. }, b".") => Ok(Some(Found::Inode(at))),
        (Kind::Directory { .. }, b"..") if at == root => Ok(Some(Found::Inode(at))),
        (Kind::Directory { parent, .. }, b"..") => Ok(Some(Found::Inode(*parent))),
        (Kind::Directory { entries, .. }, name) => Ok(entries.get(name).copied().map(Found::Inode)),
        (Kind::ProcFds { parent, .. }, b"..") => Ok(Some(Found::Inode(*parent))),
        (Kind::ProcFds { pid, .. }, name) => {
            let number = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok());
            Ok(number.map(|fd| Found::Descriptor { pid: *pid, fd }))
        }
        _ => Err(Errno::ENOTDIR),
    }
}

/// Where a link leads: text, and straight inode. `None`: not a link.
type Target = Option<(Vec<u8>, Option<Ino>)>;

fn target(tree: &Tree, magic: &dyn Magic, found: Found) -> Result<Target, Errno> {
    match found {
        Found::Descriptor { pid, fd } => magic.descriptor(pid, fd).ok_or(Errno::ENOENT).map(Some),
        Found::Inode(ino) => match tree.get(ino).map(|inode| &inode.kind) {
            Some(Kind::Symlink(text)) => Ok(Some((text.clone(), None))),
            Some(Kind::ProcLink(link)) => magic.link(*link).ok_or(Errno::ENOENT).map(Some),
            Some(_) => Ok(None),
            None => Err(Errno::ENOENT),
        },
    }
}

/// The text of a link.
pub(crate) fn read_link(tree: &Tree, magic: &dyn Magic, found: Found) -> Result<Vec<u8>, Errno> {
    target(tree, magic, found)?
        .map(|(text, _)| text)
        .ok_or(Errno::EINVAL)
}

/// The directory that a name on the way leads to.
fn enter(tree: &Tree, magic: &dyn Magic, at: Ino, found: Found, links: &mut u32) -> Result<Ino, Errno> {
    let ino = match target(tree, magic, found)? {
        None => match found {
            Found::Inode(ino) => ino,
            Found::Descriptor { .. } => return Err(Errno::ENOTDIR),
        },
        Some((_, Some(ino))) => ino,
        Some((text, None)) => {
            *links += 1;
            if *links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            if text.is_empty() {
                return Err(Errno::ENOENT);
            }
            walk_on(tree, magic, at, &text, true, links)?.inode()?
        }
    };
    if is_directory(tree, ino) {
        Ok(ino)
    } else {
        Err(Errno::ENOTDIR)
    }
}

/// An absolute path without `.`, `..` and doubled slashes, links not followed: what events name.
pub(crate) fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let base: &[u8] = if path.first() == Some(&b'/') { b"" } else { cwd };
    for part in base
        .split(|byte| *byte == b'/')
        .chain(path.split(|byte| *byte == b'/'))
    {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut whole = Vec::with_capacity(path.len() + base.len() + 1);
    for part in parts {
        whole.push(b'/');
        whole.extend_from_slice(part);
    }
    if whole.is_empty() { b"/".to_vec() } else { whole }
}
