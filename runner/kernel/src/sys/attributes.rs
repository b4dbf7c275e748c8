//! Attributes of files: stat, access, links' targets, modes, owners, times.

use crate::abi::errno::Errno;
use crate::abi::layout::{self, Stat, StatFs};
use crate::call::{Answer, Call};
use crate::fs::open::Target;
use crate::fs::tree::{DEV_DEVICE, Ino, Kind, ROOT_DEVICE, SYS_DEVICE, mode};
use crate::fs::walk::{self, Found, Place, Seat};
use crate::fs::watch::what;
use crate::sys::path::{EMPTY_PATH, NO_FOLLOW};

impl Call<'_> {
    fn stat_of(&mut self, ino: Ino) -> Result<Stat, Errno> {
        self.k.tree.stat(ino).ok_or(Errno::ENOENT)
    }

    fn stat_place(&mut self, place: &Place) -> Result<Stat, Errno> {
        match place.found {
            Some(Found::Inode(ino)) => {
                let mut stat = self.stat_of(ino)?;
                if let Some(Kind::ProcLink(_)) = self.k.tree.get(ino).map(|inode| &inode.kind) {
                    stat.size = 0;
                }
                Ok(stat)
            }
            Some(Found::Descriptor { .. }) => {
                let now = self.k.time.real().div_euclid(1_000_000_000);
                let times = [(now, 0); 3];
                Ok(Stat {
                    device: 0x15,
                    inode: 1,
                    mode: mode::SYMLINK | 0o700,
                    links: 1,
                    size: 64,
                    times,
                    ..Stat::default()
                })
            }
            None => Err(Errno::ENOENT),
        }
    }

    fn stat_file(&mut self, index: usize) -> Result<Stat, Errno> {
        let file = self.file(index)?;
        if let Some(ino) = file.inode() {
            return self.stat_of(ino);
        }
        let inode = match file.target {
            Target::PipeRead(pipe) | Target::PipeWrite(pipe) | Target::Fifo(pipe) => 4000 + pipe.0,
            Target::Socket(id) => 5000 + id.0,
            _ if file.target.is_anonymous() => 9,
            Target::Input(_) => 3001,
            Target::Output { error: false } => 3002,
            _ => 3003,
        };
        let kind = match file.target {
            Target::Socket(_) => mode::SOCKET | 0o777,
            _ if file.target.is_anonymous() => 0o600,
            _ => mode::FIFO | 0o600,
        };
        let now = self.k.time.real().div_euclid(1_000_000_000);
        Ok(Stat {
            device: 0xd,
            inode,
            mode: kind,
            links: 1,
            block_size: 4096,
            times: [(now, 0); 3],
            ..Stat::default()
        })
    }

    /// What a path leads to; of a link to a pipe or to standard output, that.
    fn stat_path(&mut self, at: Option<usize>, path: &[u8], follow: bool) -> Result<Stat, Errno> {
        let place = self.walk(at, path, follow);
        if follow && (path.starts_with(b"/dev/") || path.starts_with(b"/proc/")) {
            let unresolved = !matches!(place, Ok(Place { found: Some(_), .. }));
            if unresolved && let Some(stat) = self.stat_descriptor_path(path) {
                return Ok(stat);
            }
        }
        self.stat_place(&place?)
    }

    fn stat_descriptor_path(&mut self, path: &[u8]) -> Option<Stat> {
        let mut path = path.to_vec();
        for _ in 0..4 {
            let place = self.walk(None, &path, false).ok()?;
            match place.found? {
                Found::Descriptor { pid, fd } if pid == self.pid => {
                    let before = std::mem::replace(&mut self.pending.words[0], u64::from(fd));
                    let stat = self.stat_file(0).ok();
                    self.pending.words[0] = before;
                    return stat;
                }
                found => path = walk::read_link(&self.k.tree, &self.k.magic(self.pid), found).ok()?,
            }
        }
        None
    }

    fn give(&mut self, address: u64, bytes: &[u8]) -> Answer {
        self.write(address, bytes)?;
        Ok(0)
    }
}

fn stat_by_path(c: &mut Call<'_>, follow: bool, wide: bool) -> Answer {
    let path = c.path(0)?;
    let stat = c.stat_path(None, &path, follow)?;
    let bytes = if wide {
        layout::stat64(c.abi(), &stat)
    } else {
        layout::stat(c.abi(), &stat)
    };
    c.give(c.word(1), &bytes)
}

pub(crate) fn stat(c: &mut Call<'_>) -> Answer {
    stat_by_path(c, true, false)
}

pub(crate) fn lstat(c: &mut Call<'_>) -> Answer {
    stat_by_path(c, false, false)
}

pub(crate) fn stat64(c: &mut Call<'_>) -> Answer {
    stat_by_path(c, true, true)
}

pub(crate) fn lstat64(c: &mut Call<'_>) -> Answer {
    stat_by_path(c, false, true)
}

pub(crate) fn fstat(c: &mut Call<'_>) -> Answer {
    let stat = c.stat_file(0)?;
    let bytes = layout::stat(c.abi(), &stat);
    c.give(c.word(1), &bytes)
}

pub(crate) fn fstat64(c: &mut Call<'_>) -> Answer {
    let stat = c.stat_file(0)?;
    let bytes = layout::stat64(c.abi(), &stat);
    c.give(c.word(1), &bytes)
}

fn stat_at(c: &mut Call<'_>, how: u64) -> Result<Stat, Errno> {
    let path = c.path(1)?;
    if path.is_empty() && how & EMPTY_PATH != 0 {
        if crate::call::is_at_cwd(c.word(0)) {
            let cwd = c.process().cwd;
            return c.stat_of(cwd);
        }
        return c.stat_file(0);
    }
    c.stat_path(Some(0), &path, how & NO_FOLLOW == 0)
}

/// newfstatat and fstatat64.
pub(crate) fn fstatat(c: &mut Call<'_>) -> Answer {
    let stat = stat_at(c, c.word(3))?;
    let bytes = layout::stat64(c.abi(), &stat);
    c.give(c.word(2), &bytes)
}

pub(crate) fn statx(c: &mut Call<'_>) -> Answer {
    let stat = stat_at(c, c.word(2))?;
    let bytes = layout::statx(c.abi(), &stat);
    c.give(c.word(4), &bytes)
}

fn file_system(c: &Call<'_>, device: u64) -> StatFs {
    const EXT4: u32 = 0xef53;
    const PROC: u32 = 0x9fa0;
    const TMPFS: u32 = 0x0102_1994;
    const SYSFS: u32 = 0x6265_6572;
    let free = c.k.tree.room / 4096;
    let (kind, blocks, free) = match device {
        ROOT_DEVICE => (EXT4, 2_621_440, 2_000_000 + free),
        DEV_DEVICE => (TMPFS, 252_344, 252_344),
        SYS_DEVICE => (SYSFS, 0, 0),
        _ => (PROC, 0, 0),
    };
    StatFs {
        kind,
        block_size: 4096,
        blocks,
        free,
        files: blocks / 4,
        free_files: free / 4,
    }
}

fn statfs_any(c: &mut Call<'_>, stat: &Stat, address: usize, wide: bool) -> Answer {
    let system = file_system(c, stat.device);
    let bytes = if wide {
        layout::statfs64(c.abi(), &system)
    } else {
        layout::statfs(c.abi(), &system)
    };
    c.give(c.word(address), &bytes)
}

pub(crate) fn statfs(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let stat = c.stat_path(None, &path, true)?;
    statfs_any(c, &stat, 1, false)
}

pub(crate) fn fstatfs(c: &mut Call<'_>) -> Answer {
    let stat = c.stat_file(0)?;
    statfs_any(c, &stat, 1, false)
}

pub(crate) fn statfs64(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let stat = c.stat_path(None, &path, true)?;
    statfs_any(c, &stat, 2, true)
}

pub(crate) fn fstatfs64(c: &mut Call<'_>) -> Answer {
    let stat = c.stat_file(0)?;
    statfs_any(c, &stat, 2, true)
}

fn access_at(c: &mut Call<'_>, at: Option<usize>, path: usize, wanted: u64, follow: bool) -> Answer {
    if wanted & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = c.path(path)?;
    let place = c.walk(at, &path, follow)?;
    match place.found {
        Some(Found::Inode(ino)) => c.permitted(ino, wanted as u32)?,
        Some(Found::Descriptor { .. }) => {}
        None => return Err(Errno::ENOENT.into()),
    }
    Ok(0)
}

pub(crate) fn access(c: &mut Call<'_>) -> Answer {
    access_at(c, None, 0, c.word(1), true)
}

pub(crate) fn faccessat(c: &mut Call<'_>) -> Answer {
    access_at(c, Some(0), 1, c.word(2), true)
}

pub(crate) fn faccessat2(c: &mut Call<'_>) -> Answer {
    access_at(c, Some(0), 1, c.word(2), c.word(3) & NO_FOLLOW == 0)
}

fn readlink_at(c: &mut Call<'_>, at: Option<usize>, path: usize) -> Answer {
    let size = c.int(path + 2);
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = c.path(path)?;
    let found = if name.is_empty() && at.is_some() {
        c.file(0)?.inode().map(Found::Inode)
    } else {
        c.walk(at, &name, false)?.found
    };
    let found = found.ok_or(Errno::ENOENT)?;
    let link = walk::read_link(&c.k.tree, &c.k.magic(c.pid), found)?;
    let shown = link
        .get(..link.len().min(size.cast_unsigned() as usize))
        .unwrap_or_default();
    c.write(c.word(path + 1), shown)?;
    Ok(shown.len() as u64)
}

pub(crate) fn readlink(c: &mut Call<'_>) -> Answer {
    readlink_at(c, None, 0)
}

pub(crate) fn readlinkat(c: &mut Call<'_>) -> Answer {
    readlink_at(c, Some(0), 1)
}

// Changes of attributes.

fn set_mode(c: &mut Call<'_>, seat: &Seat, bits: u64) -> Answer {
    c.may_change(seat.ino)?;
    let now = c.k.tree.now;
    if let Some(inode) = c.k.tree.get_mut(seat.ino) {
        inode.mode = bits as u32 & 0o7777;
        inode.times[2] = now;
        inode.touched = true;
    }
    c.k.notice(what::ATTRIBUTES, seat);
    Ok(0)
}

pub(crate) fn chmod(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let seat = c.walk(None, &path, true)?.seat()?;
    set_mode(c, &seat, c.word(1))
}

pub(crate) fn fchmod(c: &mut Call<'_>) -> Answer {
    match c.file(0)?.seat.clone() {
        Some(seat) => set_mode(c, &seat, c.word(1)),
        None => Ok(0),
    }
}

pub(crate) fn fchmodat(c: &mut Call<'_>) -> Answer {
    let path = c.path(1)?;
    let seat = c.walk(Some(0), &path, true)?.seat()?;
    set_mode(c, &seat, c.word(2))
}

fn set_owner(c: &mut Call<'_>, seat: &Seat, uid: u64, gid: u64, half: bool) -> Answer {
    let (me, _) = c.owner();
    if me != 0 {
        return Err(Errno::EPERM.into());
    }
    let keep = |value: u64| {
        if half {
            value as u16 == u16::MAX
        } else {
            value as u32 == u32::MAX
        }
    };
    let number = |value: u64| {
        if half {
            u32::from(value as u16)
        } else {
            value as u32
        }
    };
    let now = c.k.tree.now;
    c.k.tree.drop_capabilities(seat.ino);
    if let Some(inode) = c.k.tree.get_mut(seat.ino) {
        if !keep(uid) {
            inode.uid = number(uid);
        }
        if !keep(gid) {
            inode.gid = number(gid);
        }
        inode.times[2] = now;
        inode.touched = true;
    }
    c.k.notice(what::ATTRIBUTES, seat);
    Ok(0)
}

fn chown_path(c: &mut Call<'_>, follow: bool) -> Answer {
    let half = c.half_ids();
    let path = c.path(0)?;
    let seat = c.walk(None, &path, follow)?.seat()?;
    set_owner(c, &seat, c.word(1), c.word(2), half)
}

pub(crate) fn chown(c: &mut Call<'_>) -> Answer {
    chown_path(c, true)
}

pub(crate) fn lchown(c: &mut Call<'_>) -> Answer {
    chown_path(c, false)
}

pub(crate) fn fchown(c: &mut Call<'_>) -> Answer {
    match c.file(0)?.seat.clone() {
        Some(seat) => {
            let half = c.half_ids();
            set_owner(c, &seat, c.word(1), c.word(2), half)
        }
        None => Ok(0),
    }
}

pub(crate) fn fchownat(c: &mut Call<'_>) -> Answer {
    let path = c.path(1)?;
    let how = c.word(4);
    let seat = c.target(0, &path, how, how & NO_FOLLOW == 0)?;
    set_owner(c, &seat, c.word(2), c.word(3), false)
}

/// What a new time is: as given, now, or left.
fn set_times(c: &mut Call<'_>, seat: &Seat, times: Option<[(i64, i64); 2]>) -> Answer {
    const NOW: i64 = (1 << 30) - 1;
    const OMIT: i64 = (1 << 30) - 2;
    c.may_change(seat.ino)?;
    let now = c.k.tree.now;
    let new = |(seconds, nanoseconds): (i64, i64)| -> Result<Option<i64>, Errno> {
        match nanoseconds {
            NOW => Ok(Some(now)),
            OMIT => Ok(None),
            0..1_000_000_000 => Ok(Some(
                seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
            )),
            _ => Err(Errno::EINVAL),
        }
    };
    let times = match times {
        None => [Some(now); 2],
        Some([access, modification]) => [new(access)?, new(modification)?],
    };
    if let Some(inode) = c.k.tree.get_mut(seat.ino) {
        for (place, time) in inode.times.iter_mut().zip(times) {
            if let Some(time) = time {
                *place = time;
            }
        }
        inode.times[2] = now;
        inode.touched = true;
    }
    c.k.notice(what::ATTRIBUTES, seat);
    Ok(0)
}

fn utimens(c: &mut Call<'_>, wide: bool) -> Answer {
    let times = match c.word(2) {
        0 => None,
        at => {
            let first = c.time_at(at, wide)?;
            let second = c.time_at(at.wrapping_add(c.time_size(wide)), wide)?;
            Some([first, second])
        }
    };
    let seat = if c.word(1) == 0 {
        c.file(0)?.seat.clone().ok_or(Errno::EBADF)?
    } else {
        let path = c.path(1)?;
        let how = c.word(3);
        c.target(0, &path, how, how & NO_FOLLOW == 0)?
    };
    set_times(c, &seat, times)
}

pub(crate) fn utimensat(c: &mut Call<'_>) -> Answer {
    utimens(c, false)
}

pub(crate) fn utimensat64(c: &mut Call<'_>) -> Answer {
    utimens(c, true)
}

fn utimes_at(c: &mut Call<'_>, at: Option<usize>, path: usize) -> Answer {
    let times = match c.word(path + 1) {
        0 => None,
        address => {
            let first = c.time_at(address, false)?;
            let second = c.time_at(address.wrapping_add(c.time_size(false)), false)?;
            Some([
                (first.0, first.1.saturating_mul(1000)),
                (second.0, second.1.saturating_mul(1000)),
            ])
        }
    };
    let path = c.path(path)?;
    let seat = c.walk(at, &path, true)?.seat()?;
    set_times(c, &seat, times)
}

pub(crate) fn utimes(c: &mut Call<'_>) -> Answer {
    utimes_at(c, None, 0)
}

pub(crate) fn futimesat(c: &mut Call<'_>) -> Answer {
    utimes_at(c, Some(0), 1)
}

pub(crate) fn utime(c: &mut Call<'_>) -> Answer {
    let times = match c.word(1) {
        0 => None,
        at => {
            let word = c.abi().word();
            let access = c.get_word(at)?;
            let modification = c.get_word(at.wrapping_add(word))?;
            Some([(c.abi().signed(access), 0), (c.abi().signed(modification), 0)])
        }
    };
    let path = c.path(0)?;
    let seat = c.walk(None, &path, true)?.seat()?;
    set_times(c, &seat, times)
}
