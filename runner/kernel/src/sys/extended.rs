//! Extended attributes: set, get, list and remove (`xattr(7)`).

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::call::{Answer, Call};
use crate::fs::tree::{DEV_DEVICE, Ino, Kind, ROOT_DEVICE};
use crate::fs::walk::Seat;
use crate::fs::watch::what;

/// `XATTR_NAME_MAX`, `XATTR_SIZE_MAX` (linux/limits.h).
const MAX_NAME: usize = 255;
const MAX_VALUE: u64 = 65_536;

/// Who an attribute is for, by the beginning of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    User,
    Trusted,
    Security,
}

fn space_of(name: &[u8]) -> Result<Space, Errno> {
    const ALL: [(&[u8], Space); 3] = [
        (b"user.", Space::User),
        (b"trusted.", Space::Trusted),
        (b"security.", Space::Security),
    ];
    let found = ALL.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    let (prefix, space) = found.ok_or(Errno::EOPNOTSUPP)?;
    match name.len() > prefix.len() {
        true => Ok(space),
        false => Err(Errno::EINVAL),
    }
}

impl Call<'_> {
    fn attribute_name(&self, index: usize) -> Result<Vec<u8>, Errno> {
        let name = self
            .text(self.word(index), MAX_NAME + 1)
            .map_err(|errno| match errno {
                Errno::ENAMETOOLONG => Errno::ERANGE,
                other => other,
            })?;
        match name.is_empty() {
            true => Err(Errno::ERANGE),
            false => Ok(name),
        }
    }

    /// Whether this file has such attributes, and the process may do that with this one (`xattr_permission`).
    fn may_attribute(&mut self, ino: Ino, name: &[u8], writes: bool) -> Result<(), Errno> {
        let (uid, _) = self.owner();
        let inode = self.k.tree.get(ino).ok_or(Errno::ENOENT)?;
        if !matches!(inode.device, ROOT_DEVICE | DEV_DEVICE) {
            return Err(Errno::EOPNOTSUPP);
        }
        let space = space_of(name)?;
        match space {
            Space::Trusted if uid != 0 => Err(if writes { Errno::EPERM } else { Errno::ENODATA }),
            Space::Security if uid != 0 && writes => Err(Errno::EPERM),
            Space::Trusted | Space::Security => Ok(()),
            Space::User => {
                let sticky = matches!(inode.kind, Kind::Directory { .. }) && inode.mode & 0o1000 != 0;
                if !matches!(inode.kind, Kind::File(_) | Kind::Directory { .. }) {
                    return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
                }
                if sticky && writes && uid != 0 && inode.uid != uid {
                    return Err(Errno::EPERM);
                }
                self.permitted(ino, if writes { 2 } else { 4 })
            }
        }
    }

    /// What the first word names: a path, or the file of a descriptor.
    fn bearer(&mut self) -> Result<Seat, Errno> {
        match self.pending.row.name.as_bytes().first() {
            Some(b'f') => {
                let file = self.file(0)?;
                if file.flags & open::PATH != 0 {
                    return Err(Errno::EBADF);
                }
                file.seat.clone().ok_or(Errno::EOPNOTSUPP)
            }
            // lgetxattr and the like look at a link itself, listxattr does not.
            first => {
                let name = self.pending.row.name;
                let follow = first != Some(&b'l') || name == "listxattr";
                let path = self.path(0)?;
                self.walk(None, &path, follow)?.seat()
            }
        }
    }

    fn give_attribute(&mut self, bytes: &[u8], at: u64, room: u64) -> Answer {
        let size = bytes.len() as u64;
        if room == 0 {
            return Ok(size);
        }
        if size > room {
            return Err(Errno::ERANGE.into());
        }
        self.write(at, bytes)?;
        Ok(size)
    }
}

/// setxattr, lsetxattr, fsetxattr.
pub(crate) fn set(c: &mut Call<'_>) -> Answer {
    const CREATE: u64 = 1;
    const REPLACE: u64 = 2;
    let (at, size, how) = (c.word(2), c.word(3), c.word(4) & 0xffff_ffff);
    if how & !(CREATE | REPLACE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = c.attribute_name(1)?;
    if size > MAX_VALUE {
        return Err(Errno::E2BIG.into());
    }
    let value = c.bytes(at, size)?;
    let seat = c.bearer()?;
    c.may_attribute(seat.ino, &name, true)?;
    if name == b"security.capability" && !is_capability(&value) {
        return Err(Errno::EINVAL.into());
    }
    let there = c.k.tree.extended(seat.ino)?.contains_key(&name);
    if how & CREATE != 0 && there {
        return Err(Errno::EEXIST.into());
    }
    if how & REPLACE != 0 && !there {
        return Err(Errno::ENODATA.into());
    }
    let result = c.k.tree.set_extended(seat.ino, &name, value);
    c.stored(result)?;
    c.k.notice(what::ATTRIBUTES, &seat);
    Ok(0)
}

/// Whether this is a `struct vfs_cap_data` or `vfs_ns_cap_data`: little-endian everywhere (linux/capability.h).
fn is_capability(value: &[u8]) -> bool {
    let revision = value.first_chunk().map(|magic| u32::from_le_bytes(*magic) >> 24);
    matches!(
        (revision, value.len()),
        (Some(1), 12) | (Some(2), 20) | (Some(3), 24)
    )
}

/// getxattr, lgetxattr, fgetxattr.
pub(crate) fn get(c: &mut Call<'_>) -> Answer {
    let (at, size) = (c.word(2), c.word(3));
    let name = c.attribute_name(1)?;
    let seat = c.bearer()?;
    c.may_attribute(seat.ino, &name, false)?;
    let value = c.k.tree.extended(seat.ino)?.get(&name).cloned();
    c.give_attribute(&value.ok_or(Errno::ENODATA)?, at, size)
}

/// listxattr, llistxattr, flistxattr.
pub(crate) fn list(c: &mut Call<'_>) -> Answer {
    let (at, size) = (c.word(1), c.word(2));
    let seat = c.bearer()?;
    let (uid, _) = c.owner();
    let mut names = Vec::new();
    for name in c.k.tree.extended(seat.ino)?.keys() {
        if uid == 0 || !name.starts_with(b"trusted.") {
            names.extend_from_slice(name);
            names.push(0);
        }
    }
    c.give_attribute(&names, at, size)
}

/// removexattr, lremovexattr, fremovexattr.
pub(crate) fn remove(c: &mut Call<'_>) -> Answer {
    let name = c.attribute_name(1)?;
    let seat = c.bearer()?;
    c.may_attribute(seat.ino, &name, true)?;
    let result = c.k.tree.remove_extended(seat.ino, &name);
    c.stored(result)?;
    c.k.notice(what::ATTRIBUTES, &seat);
    Ok(0)
}
