//! Calls that name files: open, stat, link, rename, attributes.

use hotcell_schema::event::{Access, File, FileOp, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::{self, Stat, StatFs};
use crate::call::{Answer, Call};
use crate::fs::open::{OpenFile, Target};
use crate::fs::tree::{Data, Device, Ino, Kind, ROOT_DEVICE, Tree, mode};
use crate::fs::walk::{self, Found, Place};

const NO_FOLLOW: u64 = 0x100;
const REMOVE_DIRECTORY: u64 = 0x200;
const FOLLOW: u64 = 0x400;
const EMPTY_PATH: u64 = 0x1000;

impl Call<'_> {
    fn owner(&mut self) -> (u32, u32) {
        let process = self.process();
        (process.uid[1], process.gid[1])
    }

    /// Whether the process may do what is asked (4 read, 2 write, 1 execute). Root may all but execute plain files.
    fn permitted(&mut self, ino: Ino, wanted: u32) -> Result<(), Errno> {
        let (uid, gid) = self.owner();
        let groups = self.process().groups.clone();
        let Some(inode) = self.k.tree.get(ino) else {
            return Err(Errno::ENOENT);
        };
        if uid == 0 {
            let runs =
                inode.mode & 0o111 != 0 || matches!(inode.kind, Kind::Directory { .. } | Kind::ProcFds(_));
            return if wanted & 1 != 0 && !runs {
                Err(Errno::EACCES)
            } else {
                Ok(())
            };
        }
        let shift = if inode.uid == uid {
            6
        } else if inode.gid == gid || groups.contains(&inode.gid) {
            3
        } else {
            0
        };
        if (inode.mode >> shift) & wanted == wanted {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    fn may_change(&mut self, ino: Ino) -> Result<(), Errno> {
        let (uid, _) = self.owner();
        let owner = self.k.tree.get(ino).map(|inode| inode.uid);
        if uid == 0 || owner == Some(uid) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// The place of a new name, with leave to make it there.
    fn new_name(&mut self, at: Option<usize>, path: &[u8]) -> Result<Place, Errno> {
        let place = self.walk(at, path, false)?;
        if place.found.is_some() || place.name.is_empty() {
            return Err(Errno::EEXIST);
        }
        self.permitted(place.directory, 3)?;
        Ok(place)
    }

    /// The inode that `path` and `flags` of an *at call mean; the empty path with AT_EMPTY_PATH is the descriptor's.
    fn target(&mut self, at: usize, path: &[u8], how: u64, follow: bool) -> Result<Ino, Errno> {
        if path.is_empty() && how & EMPTY_PATH != 0 {
            if crate::call::is_at_cwd(self.word(at)) {
                return Ok(self.process().cwd);
            }
            return self.file(at)?.inode().ok_or(Errno::EBADF);
        }
        self.walk(Some(at), path, follow)?.inode()
    }
}

fn open_at(c: &mut Call<'_>, at: Option<usize>, path: &[u8], how: u64, file_mode: u32) -> Answer {
    let absolute = c.absolute(at, path);
    let access = match how & open::ACCESS {
        0 => Access::Read,
        open::WRITE_ONLY => Access::Write,
        _ => Access::ReadWrite,
    };
    let mut event = File {
        access: Some(access),
        ..File::new(FileOp::Open, text(&absolute))
    };
    let result = open_inode(c, at, path, how, file_mode, &absolute, &mut event);
    if let Err(crate::call::Fail::Errno(errno)) = &result {
        event.errno = Some(errno.name().to_owned());
    }
    c.tell(What::File(event));
    result
}

fn open_inode(
    c: &mut Call<'_>,
    at: Option<usize>,
    path: &[u8],
    how: u64,
    file_mode: u32,
    absolute: &[u8],
    event: &mut File,
) -> Answer {
    let exclusive = how & (open::CREATE | open::EXCLUSIVE) == (open::CREATE | open::EXCLUSIVE);
    let follow = how & open::NO_FOLLOW == 0 && !exclusive;
    if how & open::TEMPORARY != 0 && how & open::DIRECTORY != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    c.process().files.free(0)?;
    let place = c.walk(at, path, follow)?;
    let mut created = false;
    let ino = match place.found {
        Some(_) if exclusive => return Err(Errno::EEXIST.into()),
        Some(Found::Inode(ino)) => ino,
        Some(Found::Descriptor { .. }) => return Err(Errno::ELOOP.into()),
        None if how & open::CREATE == 0 => return Err(Errno::ENOENT.into()),
        None if place.must_be_directory => return Err(Errno::EISDIR.into()),
        None => {
            c.permitted(place.directory, 3)?;
            let umask = c.process().umask;
            let bits = file_mode & 0o7777 & !umask;
            let owner = c.owner();
            let kind = Kind::File(Data::Own(Vec::new()));
            let ino = c.k.tree.make(place.directory, &place.name, kind, bits, owner)?;
            event.op = FileOp::Create;
            event.mode = Some(bits);
            created = true;
            ino
        }
    };
    let writes = how & open::ACCESS != 0;
    let Some(inode) = c.k.tree.get(ino) else {
        return Err(Errno::ENOENT.into());
    };
    let kind = inode.kind.clone_shape();
    let is_directory = matches!(kind, Shape::Directory);
    if how & open::DIRECTORY != 0 && !is_directory {
        return Err(Errno::ENOTDIR.into());
    }
    let close = how & open::CLOSE_ON_EXEC != 0;
    if how & open::PATH != 0 {
        let file = OpenFile::new(Target::Path(ino), how, absolute.to_vec());
        return Ok(u64::from(c.install(file, close)?));
    }
    if is_directory && (writes || how & open::CREATE != 0) {
        return Err(Errno::EISDIR.into());
    }
    if !created {
        let wanted = match how & open::ACCESS {
            0 => 4,
            open::WRITE_ONLY => 2,
            _ => 6,
        };
        c.permitted(ino, wanted)?;
    }
    let target = match kind {
        Shape::File => Target::File(ino),
        Shape::Directory => Target::Directory(ino, None),
        Shape::Symlink => return Err(Errno::ELOOP.into()),
        Shape::Device(Device::Tty | Device::Console) => return Err(Errno::ENXIO.into()),
        Shape::Device(device) => Target::Device(ino, device),
        Shape::Special => return Err(Errno::ENXIO.into()),
        Shape::Proc(what) => {
            if writes {
                return Err(Errno::EACCES.into());
            }
            let content = c.k.proc_content(what).ok_or(Errno::ESRCH)?;
            Target::Text(ino, content.into())
        }
    };
    if writes && how & open::TRUNCATE != 0 && matches!(target, Target::File(_)) && !created {
        let result = c.k.tree.resize(ino, 0);
        c.stored(result)?;
    }
    let kept = how & !(open::CREATE | open::EXCLUSIVE | open::TRUNCATE | open::CLOSE_ON_EXEC);
    let mut file = OpenFile::new(target, kept, absolute.to_vec());
    if created || writes && how & open::TRUNCATE != 0 && matches!(file.target, Target::File(_)) {
        file.written = Some(0);
    }
    // An open of /proc/self/fd/N of a pipe or of standard output is another reference, not a new file: see `reopen`.
    Ok(u64::from(c.install(file, close)?))
}

/// What an inode is, as far as opening cares.
enum Shape {
    File,
    Directory,
    Symlink,
    Device(Device),
    Special,
    Proc(crate::fs::proc::ProcFile),
}

impl Kind {
    fn clone_shape(&self) -> Shape {
        match self {
            Self::File(_) => Shape::File,
            Self::Directory { .. } | Self::ProcFds(_) => Shape::Directory,
            Self::Symlink(_) | Self::ProcLink(_) => Shape::Symlink,
            Self::Device(device) => Shape::Device(*device),
            Self::Fifo | Self::Special { .. } => Shape::Special,
            Self::Proc(what) => Shape::Proc(*what),
        }
    }
}

/// `/proc/self/fd/N`, `/dev/fd/N`, `/dev/stdout` and the like of what is not a file of the tree: the same open file again.
fn reopen(c: &mut Call<'_>, at: Option<usize>, path: &[u8], how: u64) -> Option<Answer> {
    let mut path = path.to_vec();
    for _ in 0..4 {
        let place = c.walk(at, &path, false).ok()?;
        match place.found? {
            Found::Descriptor { pid, fd } => {
                let file = c.k.processes.get(&pid)?.files.get(u64::from(fd)).ok()?.file;
                let target = c.k.open.get(file)?;
                if target.inode().is_some() {
                    return None;
                }
                let new = OpenFile::new(
                    target.target.clone(),
                    how & !open::CLOSE_ON_EXEC,
                    target.path.clone(),
                );
                return Some(
                    c.install(new, how & open::CLOSE_ON_EXEC != 0)
                        .map(u64::from)
                        .map_err(Into::into),
                );
            }
            found => path = walk::read_link(&c.k.tree, &c.k.magic(c.pid), found).ok()?,
        }
    }
    None
}

fn open_any(c: &mut Call<'_>, at: Option<usize>, path: usize, how: u64, file_mode: u32) -> Answer {
    let path = c.path(path)?;
    if (path.starts_with(b"/dev/") || path.starts_with(b"/proc/"))
        && let Some(answer) = reopen(c, at, &path, how)
    {
        return answer;
    }
    open_at(c, at, &path, how, file_mode)
}

pub(crate) fn open_call(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(1));
    open_any(c, None, 0, how, c.word(2) as u32)
}

pub(crate) fn openat(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(2));
    open_any(c, Some(0), 1, how, c.word(3) as u32)
}

pub(crate) fn openat2(c: &mut Call<'_>) -> Answer {
    if c.word(3) < 24 {
        return Err(Errno::EINVAL.into());
    }
    let at = c.word(2);
    let how = flags::open_in(c.abi(), c.get_u64(at)?);
    let file_mode = c.get_u64(at.wrapping_add(8))? as u32;
    open_any(c, Some(0), 1, how, file_mode)
}

pub(crate) fn creat(c: &mut Call<'_>) -> Answer {
    open_any(
        c,
        None,
        0,
        open::CREATE | open::WRITE_ONLY | open::TRUNCATE,
        c.word(1) as u32,
    )
}

// Attributes.

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
            Target::PipeRead(pipe) | Target::PipeWrite(pipe) => 4000 + pipe.0,
            Target::Input(_) => 3001,
            Target::Output { error: false } => 3002,
            _ => 3003,
        };
        let now = self.k.time.real().div_euclid(1_000_000_000);
        Ok(Stat {
            device: 0xd,
            inode,
            mode: mode::FIFO | 0o600,
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
    let free = c.k.tree.room / 4096;
    let (kind, blocks, free) = match device {
        ROOT_DEVICE => (EXT4, 2_621_440, 2_000_000 + free),
        0x15 => (PROC, 0, 0),
        _ => (TMPFS, 0, 0),
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

// Names.

fn unlink_at(c: &mut Call<'_>, at: Option<usize>, path: usize, directory: bool) -> Answer {
    let path = c.path(path)?;
    let place = c.walk(at, &path, false)?;
    if place.name.is_empty() {
        return Err(if directory { Errno::EBUSY } else { Errno::EISDIR }.into());
    }
    let ino = place.inode()?;
    c.permitted(place.directory, 3)?;
    let is_directory = c.k.tree.entries(ino).is_ok();
    match (directory, is_directory) {
        (true, true) => c.k.tree.rmdir(place.directory, &place.name)?,
        (true, false) => return Err(Errno::ENOTDIR.into()),
        (false, true) => return Err(Errno::EISDIR.into()),
        (false, false) if place.must_be_directory => return Err(Errno::ENOTDIR.into()),
        (false, false) => c.k.tree.unlink(place.directory, &place.name)?,
    }
    Ok(0)
}

pub(crate) fn unlink(c: &mut Call<'_>) -> Answer {
    unlink_at(c, None, 0, false)
}

pub(crate) fn rmdir(c: &mut Call<'_>) -> Answer {
    unlink_at(c, None, 0, true)
}

pub(crate) fn unlinkat(c: &mut Call<'_>) -> Answer {
    unlink_at(c, Some(0), 1, c.word(2) & REMOVE_DIRECTORY != 0)
}

fn rename_at(c: &mut Call<'_>, from: (Option<usize>, usize), to: (Option<usize>, usize), how: u64) -> Answer {
    const NO_REPLACE: u64 = 1;
    if how & !NO_REPLACE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (old, new) = (c.path(from.1)?, c.path(to.1)?);
    let old = c.walk(from.0, &old, false)?;
    let new = c.walk(to.0, &new, false)?;
    if old.name.is_empty() || new.name.is_empty() {
        return Err(Errno::EBUSY.into());
    }
    let ino = old.inode()?;
    c.permitted(old.directory, 3)?;
    c.permitted(new.directory, 3)?;
    if (new.must_be_directory || old.must_be_directory) && c.k.tree.entries(ino).is_err() {
        return Err(Errno::ENOTDIR.into());
    }
    let replace = how & NO_REPLACE == 0;
    c.k.tree
        .rename((old.directory, &old.name), (new.directory, &new.name), replace)?;
    Ok(0)
}

pub(crate) fn rename(c: &mut Call<'_>) -> Answer {
    rename_at(c, (None, 0), (None, 1), 0)
}

pub(crate) fn renameat(c: &mut Call<'_>) -> Answer {
    rename_at(c, (Some(0), 1), (Some(2), 3), 0)
}

pub(crate) fn renameat2(c: &mut Call<'_>) -> Answer {
    rename_at(c, (Some(0), 1), (Some(2), 3), c.word(4))
}

fn link_at(
    c: &mut Call<'_>,
    from: (Option<usize>, usize),
    to: (Option<usize>, usize),
    follow: bool,
) -> Answer {
    let (old, new) = (c.path(from.1)?, c.path(to.1)?);
    let ino = c.walk(from.0, &old, follow)?.inode()?;
    let place = c.new_name(to.0, &new)?;
    c.k.tree.link(ino, place.directory, &place.name)?;
    Ok(0)
}

pub(crate) fn link(c: &mut Call<'_>) -> Answer {
    link_at(c, (None, 0), (None, 1), false)
}

pub(crate) fn linkat(c: &mut Call<'_>) -> Answer {
    link_at(c, (Some(0), 1), (Some(2), 3), c.word(4) & FOLLOW != 0)
}

fn symlink_at(c: &mut Call<'_>, at: Option<usize>, path: usize) -> Answer {
    let (target, name) = (c.path(0)?, c.path(path)?);
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let place = c.new_name(at, &name)?;
    let owner = c.owner();
    c.k.tree
        .make(place.directory, &place.name, Kind::Symlink(target), 0o777, owner)?;
    Ok(0)
}

pub(crate) fn symlink(c: &mut Call<'_>) -> Answer {
    symlink_at(c, None, 1)
}

pub(crate) fn symlinkat(c: &mut Call<'_>) -> Answer {
    symlink_at(c, Some(1), 2)
}

fn mkdir_at(c: &mut Call<'_>, at: Option<usize>, path: usize) -> Answer {
    let name = c.path(path)?;
    let place = c.new_name(at, &name)?;
    let owner = c.owner();
    let bits = c.word(path + 1) as u32 & 0o1777 & !c.process().umask;
    c.k.tree
        .make(place.directory, &place.name, Tree::directory(), bits, owner)?;
    Ok(0)
}

pub(crate) fn mkdir(c: &mut Call<'_>) -> Answer {
    mkdir_at(c, None, 0)
}

pub(crate) fn mkdirat(c: &mut Call<'_>) -> Answer {
    mkdir_at(c, Some(0), 1)
}

fn mknod_at(c: &mut Call<'_>, at: Option<usize>, path: usize) -> Answer {
    let name = c.path(path)?;
    let bits = c.word(path + 1) as u32;
    let number = c.word(path + 2);
    let kind = match bits & mode::KIND {
        0 | mode::REGULAR => Kind::File(Data::Own(Vec::new())),
        mode::FIFO => Kind::Fifo,
        mode::CHARACTER | mode::BLOCK | mode::SOCKET => Kind::Special {
            mode: bits & mode::KIND,
            number,
        },
        _ => return Err(Errno::EINVAL.into()),
    };
    let place = c.new_name(at, &name)?;
    let owner = c.owner();
    let bits = bits & 0o7777 & !c.process().umask;
    c.k.tree.make(place.directory, &place.name, kind, bits, owner)?;
    Ok(0)
}

pub(crate) fn mknod(c: &mut Call<'_>) -> Answer {
    mknod_at(c, None, 0)
}

pub(crate) fn mknodat(c: &mut Call<'_>) -> Answer {
    mknod_at(c, Some(0), 1)
}

// Changes of attributes.

fn set_mode(c: &mut Call<'_>, ino: Ino, bits: u64) -> Answer {
    c.may_change(ino)?;
    let now = c.k.tree.now;
    if let Some(inode) = c.k.tree.get_mut(ino) {
        inode.mode = bits as u32 & 0o7777;
        inode.times[2] = now;
        inode.touched = true;
    }
    Ok(0)
}

pub(crate) fn chmod(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let ino = c.walk(None, &path, true)?.inode()?;
    set_mode(c, ino, c.word(1))
}

pub(crate) fn fchmod(c: &mut Call<'_>) -> Answer {
    match c.file(0)?.inode() {
        Some(ino) => set_mode(c, ino, c.word(1)),
        None => Ok(0),
    }
}

pub(crate) fn fchmodat(c: &mut Call<'_>) -> Answer {
    let path = c.path(1)?;
    let ino = c.walk(Some(0), &path, true)?.inode()?;
    set_mode(c, ino, c.word(2))
}

fn set_owner(c: &mut Call<'_>, ino: Ino, uid: u64, gid: u64, half: bool) -> Answer {
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
    if let Some(inode) = c.k.tree.get_mut(ino) {
        if !keep(uid) {
            inode.uid = number(uid);
        }
        if !keep(gid) {
            inode.gid = number(gid);
        }
        inode.times[2] = now;
        inode.touched = true;
    }
    Ok(0)
}

fn chown_path(c: &mut Call<'_>, follow: bool) -> Answer {
    let half = c.half_ids();
    let path = c.path(0)?;
    let ino = c.walk(None, &path, follow)?.inode()?;
    set_owner(c, ino, c.word(1), c.word(2), half)
}

pub(crate) fn chown(c: &mut Call<'_>) -> Answer {
    chown_path(c, true)
}

pub(crate) fn lchown(c: &mut Call<'_>) -> Answer {
    chown_path(c, false)
}

pub(crate) fn fchown(c: &mut Call<'_>) -> Answer {
    match c.file(0)?.inode() {
        Some(ino) => {
            let half = c.half_ids();
            set_owner(c, ino, c.word(1), c.word(2), half)
        }
        None => Ok(0),
    }
}

pub(crate) fn fchownat(c: &mut Call<'_>) -> Answer {
    let path = c.path(1)?;
    let how = c.word(4);
    let ino = c.target(0, &path, how, how & NO_FOLLOW == 0)?;
    set_owner(c, ino, c.word(2), c.word(3), false)
}

/// What a new time is: as given, now, or left.
fn set_times(c: &mut Call<'_>, ino: Ino, times: Option<[(i64, i64); 2]>) -> Answer {
    const NOW: i64 = (1 << 30) - 1;
    const OMIT: i64 = (1 << 30) - 2;
    c.may_change(ino)?;
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
    if let Some(inode) = c.k.tree.get_mut(ino) {
        for (place, time) in inode.times.iter_mut().zip(times) {
            if let Some(time) = time {
                *place = time;
            }
        }
        inode.times[2] = now;
        inode.touched = true;
    }
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
    let ino = if c.word(1) == 0 {
        c.file(0)?.inode().ok_or(Errno::EBADF)?
    } else {
        let path = c.path(1)?;
        let how = c.word(3);
        c.target(0, &path, how, how & NO_FOLLOW == 0)?
    };
    set_times(c, ino, times)
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
    let ino = c.walk(at, &path, true)?.inode()?;
    set_times(c, ino, times)
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
    let ino = c.walk(None, &path, true)?.inode()?;
    set_times(c, ino, times)
}
