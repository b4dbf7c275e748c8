//! Descriptors: close, dup, fcntl, seek, lengths, pipes.

use hotcell_schema::event::{File, FileOp, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::call::{Answer, Call};
use crate::fs::open::{Descriptor, OpenFile, Target};
use crate::fs::walk::Seat;
use crate::fs::watch::what;
use crate::sys::lock::Command;

impl Call<'_> {
    /// A new descriptor for a new open file.
    pub(crate) fn install(&mut self, file: OpenFile, close_on_exec: bool) -> Result<u32, Errno> {
        let fd = self.process().files.free(0)?;
        let inode = file.inode();
        let file = self.k.open.add(file)?;
        if let Some(ino) = inode {
            self.k.tree.hold(ino);
        }
        self.process().files.set(fd, Descriptor { file, close_on_exec });
        Ok(fd)
    }

    fn duplicate(&mut self, index: usize, least: u32, close_on_exec: bool) -> Answer {
        let descriptor = self.descriptor(index)?;
        let fd = self.process().files.free(least)?;
        self.k.open.share(descriptor.file);
        self.process().files.set(
            fd,
            Descriptor {
                file: descriptor.file,
                close_on_exec,
            },
        );
        Ok(u64::from(fd))
    }

    fn replace(&mut self, close_on_exec: bool) -> Answer {
        let descriptor = self.descriptor(0)?;
        let to = self.word(1) as u32;
        if !self.process().files.allows(to) {
            return Err(Errno::EBADF.into());
        }
        self.k.open.share(descriptor.file);
        let new = Descriptor {
            file: descriptor.file,
            close_on_exec,
        };
        if let Some(old) = self.process().files.set(to, new) {
            let pid = self.pid;
            self.k.close_file(pid, old.file);
        }
        Ok(u64::from(to))
    }
}

pub(crate) fn close(c: &mut Call<'_>) -> Answer {
    let fd = c.word(0);
    let gone = c.process().files.remove(fd).ok_or(Errno::EBADF)?;
    let pid = c.pid;
    c.k.close_file(pid, gone.file);
    Ok(0)
}

pub(crate) fn close_range(c: &mut Call<'_>) -> Answer {
    const CLOSE_ON_EXEC: u64 = 4;
    let (first, last, how) = (c.word(0) as u32, c.word(1) as u32, c.word(2));
    if first > last || how & !6 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let all: Vec<u32> = c
        .process()
        .files
        .all()
        .map(|(fd, _)| fd)
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in all {
        if how & CLOSE_ON_EXEC != 0 {
            if let Some(descriptor) = c.process().files.get_mut(u64::from(fd)) {
                descriptor.close_on_exec = true;
            }
        } else if let Some(gone) = c.process().files.remove(u64::from(fd)) {
            let pid = c.pid;
            c.k.close_file(pid, gone.file);
        }
    }
    Ok(0)
}

pub(crate) fn dup(c: &mut Call<'_>) -> Answer {
    c.duplicate(0, 0, false)
}

pub(crate) fn dup2(c: &mut Call<'_>) -> Answer {
    if c.word(0) as u32 == c.word(1) as u32 {
        c.descriptor(0)?;
        return Ok(u64::from(c.word(1) as u32));
    }
    c.replace(false)
}

pub(crate) fn dup3(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(2));
    if c.word(0) as u32 == c.word(1) as u32 || how & !open::CLOSE_ON_EXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    c.replace(how & open::CLOSE_ON_EXEC != 0)
}

pub(crate) fn fcntl(c: &mut Call<'_>) -> Answer {
    let (command, argument) = (c.word(1) & 0xffff_ffff, c.word(2));
    let descriptor = c.descriptor(0)?;
    if let Some(command) = Command::of(c, command) {
        return c.lock_command(command);
    }
    match command {
        0 | 1030 => {
            let least = u32::try_from(argument)
                .ok()
                .filter(|fd| c.process().files.allows(*fd))
                .ok_or(Errno::EINVAL)?;
            c.duplicate(0, least, command == 1030)
        }
        1 => Ok(u64::from(descriptor.close_on_exec)),
        2 => {
            let fd = c.word(0);
            if let Some(descriptor) = c.process().files.get_mut(fd) {
                descriptor.close_on_exec = argument & 1 != 0;
            }
            Ok(0)
        }
        3 => {
            let set =
                c.file(0)?.flags & !(open::CREATE | open::EXCLUSIVE | open::TRUNCATE | open::CLOSE_ON_EXEC);
            Ok(flags::open_out(c.abi(), set))
        }
        4 => {
            let can = open::APPEND | open::NONBLOCK | open::DIRECT;
            let wanted = flags::open_in(c.abi(), argument);
            let file = c.file(0)?;
            file.flags = (file.flags & !can) | (wanted & can);
            Ok(0)
        }
        1031 | 1032 => {
            let (id, _, _) = c.file(0)?.target.ends().ok_or(Errno::EBADF)?;
            if command == 1031 {
                c.k.wake += 1;
                return Ok(c.k.open.set_capacity(id, argument & 0xffff_ffff)? as u64);
            }
            Ok(c.k.open.pipe_ref(id).ok_or(Errno::EBADF)?.capacity as u64)
        }
        // F_GETLEASE: nobody has one (F_UNLCK).
        1025 => Ok(2),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Nothing that can be opened is a terminal.
pub(crate) fn ioctl(c: &mut Call<'_>) -> Answer {
    let request = c.word(1) & 0xffff_ffff;
    c.file(0)?;
    // FIONREAD, FIONBIO, FIOCLEX, FIONCLEX: generic, powerpc, mips (asm/ioctls.h).
    let (count, nonblocking, close, keep) = if c.abi().is_mips() {
        (0x467f, 0x667e, 0x6601, 0x6602)
    } else if c.abi().is_ppc() {
        (0x4004_667f, 0x8004_667e, 0x2000_6601, 0x2000_6602)
    } else {
        (0x541b, 0x5421, 0x5451, 0x5450)
    };
    let argument = c.word(2);
    let fd = c.word(0);
    if request == close || request == keep {
        if let Some(descriptor) = c.process().files.get_mut(fd) {
            descriptor.close_on_exec = request == close;
        }
        return Ok(0);
    }
    if request == nonblocking {
        let on = c.get_u32(argument)? != 0;
        let file = c.file(0)?;
        file.flags = if on {
            file.flags | open::NONBLOCK
        } else {
            file.flags & !open::NONBLOCK
        };
        return Ok(0);
    }
    if request == count {
        let offset = c.file(0)?.offset;
        let waiting = match c.file(0)?.target.clone() {
            Target::File(ino) => {
                c.k.tree
                    .bytes(ino)
                    .map_or(0, |bytes| bytes.len() as u64)
                    .saturating_sub(offset)
            }
            Target::Input(input) => (input.len() as u64).saturating_sub(offset),
            Target::PipeRead(pipe) | Target::Fifo(pipe) => {
                c.k.open.pipe_ref(pipe).map_or(0, |pipe| pipe.buffer.len() as u64)
            }
            Target::Socket(id) => c.k.sockets.get(id).map_or(0, |socket| socket.waiting() as u64),
            Target::Inotify(id) => c.k.open.watches.stands(id).0 as u64,
            _ => return Err(Errno::ENOTTY.into()),
        };
        c.put_u32(
            argument,
            u32::try_from(waiting).unwrap_or(i32::MAX.cast_unsigned()),
        )?;
        return Ok(0);
    }
    if matches!(c.file(0)?.target, Target::Socket(_))
        && let Some(answer) = c.interface_request(request, argument)
    {
        return answer;
    }
    Err(Errno::ENOTTY.into())
}

fn seek(c: &mut Call<'_>, offset: i64, whence: u64) -> Answer {
    let file = c.file(0)?;
    let current = file.offset;
    let size = match file.target.clone() {
        Target::File(ino) => c.k.tree.bytes(ino).map_or(0, |bytes| bytes.len() as u64),
        Target::Text(_, text) => text.len() as u64,
        Target::Memory(..) if whence & 0xffff_ffff < 2 => 0,
        Target::Memory(..) => return Err(Errno::EINVAL.into()),
        Target::Directory(..) => 0,
        Target::Device(..) => return Ok(0),
        Target::Path(_) => return Err(Errno::EBADF.into()),
        _ => return Err(Errno::ESPIPE.into()),
    };
    let base = match whence & 0xffff_ffff {
        0 => 0,
        1 => current,
        2 => size,
        // The whole file is data.
        3 | 4 if offset < 0 || offset.cast_unsigned() >= size => return Err(Errno::ENXIO.into()),
        3 => 0,
        4 => size.wrapping_sub(offset.cast_unsigned()),
        _ => return Err(Errno::EINVAL.into()),
    };
    let to = i64::try_from(base)
        .ok()
        .and_then(|base| base.checked_add(offset))
        .filter(|to| *to >= 0);
    let to = to.ok_or(Errno::EINVAL)?.cast_unsigned();
    let file = c.file(0)?;
    file.offset = to;
    if to == 0 {
        let id = c.file_id(0)?;
        c.k.open.list(id, None)?;
    }
    Ok(to)
}

pub(crate) fn lseek(c: &mut Call<'_>) -> Answer {
    let to = seek(c, c.long(1), c.word(2))?;
    if !c.abi().wide && to > u64::from(i32::MAX.cast_unsigned()) {
        return Err(Errno::EOVERFLOW.into());
    }
    Ok(to)
}

pub(crate) fn llseek(c: &mut Call<'_>) -> Answer {
    let offset = ((c.word(1) << 32) | (c.word(2) & 0xffff_ffff)).cast_signed();
    let to = seek(c, offset, c.word(4))?;
    c.put_u64(c.word(3), to)?;
    Ok(0)
}

impl Call<'_> {
    /// Sets a file's length, and tells of it.
    pub(crate) fn set_length(&mut self, seat: &Seat, path: &[u8], length: u64) -> Answer {
        if length.cast_signed() < 0 {
            return Err(Errno::EINVAL.into());
        }
        self.may_be_long(seat.ino, length)?;
        self.resize(seat.ino, length)?;
        self.k.notice(what::MODIFY, seat);
        let what = File {
            bytes: Some(length),
            ..File::new(FileOp::Truncate, text(path))
        };
        self.tell(What::File(what));
        Ok(0)
    }

    fn length(&self, index: usize) -> u64 {
        match self.pending.row.params.get(index).map(|param| param.kind) {
            Some(crate::table::Kind::Offset) => self.word(index),
            _ => self.long(index).cast_unsigned(),
        }
    }
}

pub(crate) fn ftruncate(c: &mut Call<'_>) -> Answer {
    let file = c.file(0)?;
    if file.flags & open::ACCESS == 0 {
        return Err(Errno::EINVAL.into());
    }
    let (Target::File(_), Some(seat)) = (&file.target, file.seat.clone()) else {
        return Err(Errno::EINVAL.into());
    };
    let path = file.path.clone();
    c.set_length(&seat, &path, c.length(1))
}

pub(crate) fn truncate(c: &mut Call<'_>) -> Answer {
    let path = c.path(0)?;
    let seat = c.walk(None, &path, true)?.seat()?;
    let absolute = c.absolute(None, &path);
    if c.k.tree.entries(seat.ino).is_ok() {
        return Err(Errno::EISDIR.into());
    }
    c.set_length(&seat, &absolute, c.length(1))
}

pub(crate) fn fallocate(c: &mut Call<'_>) -> Answer {
    const KEEP_SIZE: u64 = 1;
    let (mode, offset, length) = (c.word(1), c.word(2), c.word(3));
    let Target::File(ino) = c.file(0)?.target else {
        return Err(Errno::ENODEV.into());
    };
    let end = offset
        .checked_add(length)
        .filter(|end| length > 0 && end.cast_signed() > 0)
        .ok_or(Errno::EINVAL)?;
    match mode {
        0 if end > c.k.tree.bytes(ino).map_or(0, |bytes| bytes.len() as u64) => {
            c.may_be_long(ino, end)?;
            c.resize(ino, end)?;
            let id = c.file_id(0)?;
            c.k.notice_file(what::MODIFY, id);
            Ok(0)
        }
        0 | KEEP_SIZE => Ok(0),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// Calls about a file that is always on its disk.
pub(crate) fn any_file(c: &mut Call<'_>) -> Answer {
    c.descriptor(0)?;
    Ok(0)
}

pub(crate) fn nothing(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

fn make_pipe(c: &mut Call<'_>, how: u64) -> Result<[u32; 2], Errno> {
    let pipe = c.k.open.new_pipe();
    let name = format!("pipe:[{}]", 4000 + pipe.0).into_bytes();
    let kept = how & open::NONBLOCK;
    let close = how & open::CLOSE_ON_EXEC != 0;
    let read = c.install(OpenFile::new(Target::PipeRead(pipe), kept, name.clone()), close)?;
    let write = match c.install(
        OpenFile::new(Target::PipeWrite(pipe), kept | open::WRITE_ONLY, name),
        close,
    ) {
        Ok(fd) => fd,
        Err(errno) => {
            if let Some(gone) = c.process().files.remove(u64::from(read)) {
                let pid = c.pid;
                c.k.close_file(pid, gone.file);
            }
            return Err(errno);
        }
    };
    Ok([read, write])
}

/// pipe: on mips the descriptors come in two registers.
pub(crate) fn pipe(c: &mut Call<'_>) -> Answer {
    let [read, write] = make_pipe(c, 0)?;
    if let Some(registers) = c.k.registers.clone()
        && registers.second_answer(c.machine, u64::from(write))
    {
        return Ok(u64::from(read));
    }
    put_pair(c, [read, write])
}

pub(crate) fn pipe2(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(1));
    if how & !(open::CLOSE_ON_EXEC | open::NONBLOCK | open::DIRECT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let pair = make_pipe(c, how)?;
    put_pair(c, pair)
}

fn put_pair(c: &mut Call<'_>, pair: [u32; 2]) -> Answer {
    let at = c.word(0);
    c.put_u32(at, pair[0])?;
    c.put_u32(at.wrapping_add(4), pair[1])?;
    Ok(0)
}
