//! Calls that name files: open, link, rename, make and remove.

use hotcell_schema::event::{Access, File, FileOp, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::call::{Answer, Call};
use crate::fs::open::{Descriptor, OpenFile, Target};
use crate::fs::proc::{ProcFile, ProcessFile};
use crate::fs::tree::{Data, Device, Ino, Kind, Tree, mode};
use crate::fs::walk::{self, Found, Place, Seat};
use crate::fs::watch::what;

pub(super) const NO_FOLLOW: u64 = 0x100;
const REMOVE_DIRECTORY: u64 = 0x200;
const FOLLOW: u64 = 0x400;
pub(super) const EMPTY_PATH: u64 = 0x1000;

impl Call<'_> {
    pub(super) fn owner(&mut self) -> (u32, u32) {
        let process = self.process();
        (process.uid[1], process.gid[1])
    }

    /// Whether the process may do what is asked (4 read, 2 write, 1 execute). Root may all but execute plain files.
    pub(super) fn permitted(&mut self, ino: Ino, wanted: u32) -> Result<(), Errno> {
        let (uid, gid) = self.owner();
        let groups = self.process().groups.clone();
        let Some(inode) = self.k.tree.get(ino) else {
            return Err(Errno::ENOENT);
        };
        if uid == 0 {
            let runs = inode.mode & 0o111 != 0
                || matches!(inode.kind, Kind::Directory { .. } | Kind::ProcFds { .. });
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

    pub(super) fn may_change(&mut self, ino: Ino) -> Result<(), Errno> {
        let (uid, _) = self.owner();
        let owner = self.k.tree.get(ino).map(|inode| inode.uid);
        if uid == 0 || owner == Some(uid) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// The place of a new name, with leave to make it there.
    pub(super) fn new_name(&mut self, at: Option<usize>, path: &[u8]) -> Result<Place, Errno> {
        let place = self.walk(at, path, false)?;
        if place.found.is_some() || place.name.is_empty() {
            return Err(Errno::EEXIST);
        }
        self.permitted(place.directory, 3)?;
        Ok(place)
    }

    /// What `path` and `flags` of an *at call mean; the empty path with AT_EMPTY_PATH is the descriptor's.
    pub(super) fn target(&mut self, at: usize, path: &[u8], how: u64, follow: bool) -> Result<Seat, Errno> {
        if path.is_empty() && how & EMPTY_PATH != 0 {
            if crate::call::is_at_cwd(self.word(at)) {
                return self.walk(None, b".", true)?.seat();
            }
            return self.file(at)?.seat.clone().ok_or(Errno::EBADF);
        }
        self.walk(Some(at), path, follow)?.seat()
    }

    /// Makes a node at a place that is free.
    pub(super) fn make_node(&mut self, place: &Place, kind: Kind, bits: u32) -> Result<Ino, Errno> {
        let owner = self.owner();
        let ino = self
            .k
            .tree
            .make(place.directory, &place.name, kind, bits, owner)?;
        self.k.notice_made(place, ino);
        Ok(ino)
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
    match &result {
        // Told when it is over.
        Err(crate::call::Fail::Wait) => return result,
        Err(crate::call::Fail::Errno(errno)) => event.errno = Some(errno.name().to_owned()),
        Ok(fd) if how & open::PATH == 0 => {
            let id = c.process().files.get(*fd)?.file;
            c.k.notice_file(what::OPEN, id);
        }
        _ => {}
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
            let ino = c.make_node(&place, Kind::File(Data::Own(Vec::new())), bits)?;
            event.op = FileOp::Create;
            event.mode = Some(bits);
            created = true;
            ino
        }
    };
    let seat = place.seat_of(ino);
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
        let file = OpenFile::at(Target::Path(ino), how, absolute.to_vec(), seat);
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
        Shape::Fifo => return open_fifo(c, seat, how, absolute),
        Shape::Special => return Err(Errno::ENXIO.into()),
        Shape::Proc(ProcFile::Process(pid, ProcessFile::Memory)) => {
            c.may_reach(pid).map_err(|_| Errno::EACCES)?;
            Target::Memory(ino, pid)
        }
        Shape::Proc(what) => {
            if writes {
                return Err(Errno::EACCES.into());
            }
            let made = match what {
                ProcFile::Process(pid, ProcessFile::CommandLine) if pid == c.pid => command_line(c),
                _ => None,
            };
            let content = made.or_else(|| c.k.proc_content(what)).ok_or(Errno::ESRCH)?;
            Target::Text(ino, content.into())
        }
    };
    if writes && how & open::TRUNCATE != 0 && matches!(target, Target::File(_)) && !created {
        c.resize(ino, 0)?;
        c.k.notice(what::MODIFY, &seat);
    }
    let kept = how & !(open::CREATE | open::EXCLUSIVE | open::TRUNCATE | open::CLOSE_ON_EXEC);
    let mut file = OpenFile::at(target, kept, absolute.to_vec(), seat);
    if created || writes && how & open::TRUNCATE != 0 && matches!(file.target, Target::File(_)) {
        file.written = Some(0);
    }
    // An open of /proc/self/fd/N of a pipe or of standard output is another reference, not a new file: see `reopen`.
    Ok(u64::from(c.install(file, close)?))
}

/// What the caller's own memory says of its arguments: a program may have written another name there. Where their last byte is not
/// zero any more, the name is a text that may go on behind them (`get_mm_cmdline`, `get_mm_proctitle` in fs/proc/base.c).
fn command_line(c: &Call<'_>) -> Option<Vec<u8>> {
    let placed = &c.k.processes.get(&c.pid)?.placed;
    let (start, end) = placed.arguments;
    let text = c.bytes(start, end.checked_sub(start)?).ok()?;
    if text.last().is_none_or(|last| *last == 0) {
        return Some(text);
    }
    let more = placed.environment.checked_sub(start)?.min(c.k.abi.page);
    let text = c.bytes(start, more).ok()?;
    text.split_inclusive(|byte| *byte == 0).next().map(<[u8]>::to_vec)
}

/// Opens a FIFO: who reads waits for who writes, and the other way round (`fifo(7)`).
fn open_fifo(c: &mut Call<'_>, seat: Seat, how: u64, absolute: &[u8]) -> Answer {
    let ino = seat.ino;
    let nonblocking = how & open::NONBLOCK != 0;
    let (reads, both) = (how & open::ACCESS == 0, how & open::ACCESS > open::WRITE_ONLY);
    let others = |c: &Call<'_>| {
        let pipe = c.k.open.fifo_ref(ino);
        pipe.map_or((0, 0), |pipe| match reads {
            true => (pipe.writers, pipe.ever[1]),
            false => (pipe.readers, pipe.ever[0]),
        })
    };
    // How far it is: the descriptor that is open already, and how many of the others ever were when it was.
    if let Some(fd) = c.pending.progress.checked_sub(1) {
        let (fd, before) = (fd & 0xffff, fd >> 16);
        return match others(c).1 > before {
            true => Ok(fd),
            false => Err(crate::call::Fail::Wait),
        };
    }
    let (there, ever) = others(c);
    if nonblocking && !reads && !both && there == 0 {
        return Err(Errno::ENXIO.into());
    }
    let pipe = c.k.open.fifo(ino);
    let target = match (reads, both) {
        (true, _) => Target::PipeRead(pipe),
        (_, true) => Target::Fifo(pipe),
        _ => Target::PipeWrite(pipe),
    };
    let kept = how & !(open::CREATE | open::EXCLUSIVE | open::TRUNCATE | open::CLOSE_ON_EXEC);
    let file = OpenFile::at(target, kept, absolute.to_vec(), seat);
    let fd = match c.install(file, how & open::CLOSE_ON_EXEC != 0) {
        Ok(fd) => u64::from(fd),
        Err(errno) => {
            c.k.open.forget_idle(pipe);
            return Err(errno.into());
        }
    };
    c.k.wake += 1;
    if nonblocking || both || there > 0 {
        return Ok(fd);
    }
    c.pending.progress = 1 + (fd | ever << 16);
    Err(crate::call::Fail::Wait)
}

/// What an inode is, as far as opening cares.
enum Shape {
    File,
    Directory,
    Symlink,
    Device(Device),
    Fifo,
    Special,
    Proc(ProcFile),
}

impl Kind {
    fn clone_shape(&self) -> Shape {
        match self {
            Self::File(_) => Shape::File,
            Self::Directory { .. } | Self::ProcFds { .. } => Shape::Directory,
            Self::Symlink(_) | Self::ProcLink(_) => Shape::Symlink,
            Self::Device(device) => Shape::Device(*device),
            Self::Fifo => Shape::Fifo,
            Self::Special { .. } => Shape::Special,
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
                if target.target.is_anonymous() {
                    return Some(Err(Errno::ENXIO.into()));
                }
                if matches!(target.target, Target::Input(_)) && how & open::ACCESS == 0 {
                    // What was read through one descriptor is gone for the other, as with a pipe.
                    let fd = match c.process().files.free(0) {
                        Ok(fd) => fd,
                        Err(errno) => return Some(Err(errno.into())),
                    };
                    c.k.open.share(file);
                    let close_on_exec = how & open::CLOSE_ON_EXEC != 0;
                    c.process().files.set(fd, Descriptor { file, close_on_exec });
                    return Some(Ok(u64::from(fd)));
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
    c.k.notice_removed(&place, ino, is_directory);
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
    // Two names of one file: nothing was moved.
    let over = new.inode().ok();
    if over != Some(ino) {
        c.k.notice_moved(&old, &new, ino, over);
    }
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
    c.k.notice_linked(&place, ino);
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
    c.make_node(&place, Kind::Symlink(target), 0o777)?;
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
    let bits = c.word(path + 1) as u32 & 0o1777 & !c.process().umask;
    c.make_node(&place, Tree::directory(), bits)?;
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
    let bits = bits & 0o7777 & !c.process().umask;
    c.make_node(&place, kind, bits)?;
    Ok(0)
}

/// A file without a name.
pub(crate) fn memfd_create(c: &mut Call<'_>) -> Answer {
    const CLOSE_ON_EXEC: u64 = 1;
    // Seals, huge pages, and whether it may be executed: taken, and without effect.
    const KNOWN: u64 = 0x1f | 0x3f << 26;
    let name = c.text(c.word(0), 250).map_err(|_| Errno::EINVAL)?;
    let how = c.word(1) & 0xffff_ffff;
    if how & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let owner = c.owner();
    let root = c.k.tree.root;
    let path = [b"/memfd:", name.as_slice(), b" (deleted)"].concat();
    // It has a name until it is open.
    let hidden = format!("memfd:{}", c.k.sequence).into_bytes();
    let kind = Kind::File(Data::Own(Vec::new()));
    let ino = c.k.tree.make(root, &hidden, kind, 0o777, owner)?;
    let seat = Seat {
        ino,
        directory: root,
        name: Vec::new(),
    };
    let fd = c.install(
        OpenFile::at(Target::File(ino), 2, path, seat),
        how & CLOSE_ON_EXEC != 0,
    );
    c.k.tree.unlink(root, &hidden)?;
    c.tell(What::File(File::new(
        FileOp::Create,
        format!("memfd:{}", text(&name)),
    )));
    Ok(u64::from(fd?))
}

pub(crate) fn mknod(c: &mut Call<'_>) -> Answer {
    mknod_at(c, None, 0)
}

pub(crate) fn mknodat(c: &mut Call<'_>) -> Answer {
    mknod_at(c, Some(0), 1)
}
