//! A sysroot that came with the job, put over the built-in root.
//!
//! Links come first, then directories, then files, each through the links that are there, so that the order of packages does
//! not matter: `/lib/libc.so.6` of one that does not know of `/lib -> usr/lib` stands in `/usr/lib`. What is in `/proc`,
//! `/sys` and `/dev` is the kernel's to say.

use std::collections::BTreeMap;

use hotcell_schema::sysroot::{RootEntry, RootKind, Sysroot};

use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::fs::root::directories_from;
use crate::fs::tree::{Data, Ino, Kind, Tree};

/// Where other file systems are mounted.
const MOUNTS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The entries of an index.
fn entries(index: &[u8]) -> Result<Vec<RootEntry>, String> {
    if index.len() as u64 > Sysroot::MAX_INDEX {
        return Err(format!(
            "the sysroot: an index of more than {} bytes",
            Sysroot::MAX_INDEX
        ));
    }
    let entries: Vec<RootEntry> = serde_json::from_slice(index)
        .map_err(|error| format!("the sysroot: its index cannot be read: {error}"))?;
    match entries.len() <= Sysroot::MAX_ENTRIES {
        true => Ok(entries),
        false => Err(format!("the sysroot: more than {} entries", Sysroot::MAX_ENTRIES)),
    }
}

/// The files alone, by their paths.
pub(crate) fn files(index: &[u8], content: &Bytes) -> Result<BTreeMap<String, Bytes>, String> {
    let mut files = BTreeMap::new();
    for entry in entries(index)? {
        if let RootKind::File { offset, length, .. } = entry.kind {
            let bytes = part(content, offset, length)
                .map_err(|errno| format!("the sysroot: {}: {}", entry.path, errno.name()))?;
            files.insert(entry.path, bytes);
        }
    }
    Ok(files)
}

/// A file's bytes.
fn part(content: &Bytes, offset: u64, length: u64) -> Result<Bytes, Errno> {
    let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
    let length = usize::try_from(length).map_err(|_| Errno::EFBIG)?;
    let end = start.checked_add(length).ok_or(Errno::EFBIG)?;
    content.part(start..end).ok_or(Errno::EFBIG)
}

/// Puts a sysroot into the tree. The error names the path that is to blame.
pub(crate) fn place(tree: &mut Tree, index: &[u8], content: &Bytes) -> Result<(), String> {
    let entries = entries(index)?;
    let here = |entry: &&RootEntry| !MOUNTS.iter().any(|mount| is_below(&entry.path, mount));
    let is = [
        |kind: &RootKind| matches!(kind, RootKind::Link(_)),
        |kind: &RootKind| matches!(kind, RootKind::Directory(_)),
        |kind: &RootKind| matches!(kind, RootKind::File { .. }),
    ];
    for is in is {
        for entry in entries.iter().filter(|entry| is(&entry.kind)).filter(here) {
            one(tree, entry, content)
                .map_err(|errno| format!("the sysroot: {}: {}", entry.path, errno.name()))?;
        }
    }
    Ok(())
}

/// Whether a path is a folder, or stands in it.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn one(tree: &mut Tree, entry: &RootEntry, content: &Bytes) -> Result<(), Errno> {
    let path = entry.path.as_bytes();
    match &entry.kind {
        RootKind::Directory(mode) => {
            let ino = directories_from(tree, tree.root, path, 0o755)?;
            if let Some(inode) = tree.get_mut(ino) {
                inode.mode = mode & 0o7777;
            }
            Ok(())
        }
        RootKind::Link(target) => {
            let (directory, name) = above(tree, path)?;
            link(tree, directory, name, target.as_bytes())
        }
        RootKind::File { mode, offset, length } => {
            let bytes = part(content, *offset, *length)?;
            let (directory, name) = above(tree, path)?;
            if let Some(there) = tree.entries(directory)?.get(name).copied() {
                if tree.entries(there).is_ok() {
                    return Err(Errno::EISDIR);
                }
                tree.remove_all(directory, name);
            }
            let kind = Kind::File(Data::Shared(bytes));
            tree.add(directory, name, kind, mode & 0o7777, (0, 0)).map(|_| ())
        }
    }
}

/// The directory that a path stands in, made where it is not there, and its last name.
fn above<'a>(tree: &mut Tree, path: &'a [u8]) -> Result<(Ino, &'a [u8]), Errno> {
    let slash = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let (above, name) = path.split_at(slash);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let directory = directories_from(tree, tree.root, above, 0o755)?;
    Ok((directory, name))
}

/// Makes a link. A directory of the built-in root that stands there moves to where the link leads.
fn link(tree: &mut Tree, directory: Ino, name: &[u8], target: &[u8]) -> Result<(), Errno> {
    if let Some(there) = tree.entries(directory)?.get(name).copied() {
        let inside: Vec<(Vec<u8>, Ino)> = match tree.entries(there) {
            Ok(entries) => entries.iter().map(|(name, ino)| (name.clone(), *ino)).collect(),
            Err(_) => Vec::new(),
        };
        if !inside.is_empty() {
            let to = directories_from(tree, directory, target, 0o755)?;
            for (inner, _) in inside {
                // What is there already stays.
                match tree.rename((there, &inner), (to, &inner), false) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        tree.remove_all(directory, name);
    }
    let kind = Kind::Symlink(target.to_vec());
    tree.add(directory, name, kind, 0o777, (0, 0)).map(|_| ())
}
