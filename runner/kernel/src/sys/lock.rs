//! Locks: flock, and the locking commands of fcntl.

use hotcell_schema::arch::AbiFamily;

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::fs::lock::{Holder, LAST, Lock};
use crate::fs::open::{FileId, Target};
use crate::fs::tree::Ino;
use crate::kernel::Kernel;
use crate::view::Memory as _;

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK` (asm-generic/fcntl.h; the architectures here agree).
const READ: u16 = 0;
const WRITE: u16 = 1;
const UNLOCK: u16 = 2;

/// What a command of fcntl does to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ask,
    Set,
    /// Set, and wait until it can be.
    Wait,
}

/// A command of fcntl that is about locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    what: What,
    /// It is the open file's, not the process's.
    of_file: bool,
    /// Positions have 64 bits.
    wide: bool,
}

impl Command {
    /// The command of this number (asm-generic/fcntl.h, and mips' own).
    pub(super) fn of(c: &Call<'_>, number: u64) -> Option<Self> {
        const ALL: [What; 3] = [What::Ask, What::Set, What::Wait];
        let wide = c.abi().wide;
        let (own, own64): ([u64; 3], [u64; 3]) = match c.abi().is_mips() {
            true => ([14, 6, 7], [33, 34, 35]),
            false => ([5, 6, 7], [12, 13, 14]),
        };
        let find = |numbers: [u64; 3]| numbers.into_iter().zip(ALL).find(|(one, _)| *one == number);
        let command = |what, of_file, wide| Self { what, of_file, wide };
        if let Some((_, what)) = find(own) {
            return Some(command(what, false, wide));
        }
        if let Some((_, what)) = find([36, 37, 38]) {
            return Some(command(what, true, true));
        }
        // The 32-bit ABIs have both.
        let (_, what) = find(own64).filter(|_| !wide)?;
        Some(command(what, false, true))
    }
}

/// A `struct flock` as the guest has it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    kind: u16,
    whence: u16,
    start: i64,
    length: i64,
    pid: i32,
}

/// Where start, length and process stand in a `struct flock`.
fn places(c: &Call<'_>, wide: bool) -> (u64, u64, u64) {
    let family = c.abi().family;
    match (wide, family) {
        // mips has l_sysid before the process.
        (false, AbiFamily::MipsO32) => (4, 8, 16),
        (false, _) => (4, 8, 12),
        // i386 aligns 64 bits to four bytes.
        (true, AbiFamily::I386) => (4, 12, 20),
        (true, _) => (8, 16, 24),
    }
}

impl Call<'_> {
    fn asked_lock(&self, at: u64, wide: bool) -> Result<Asked, Errno> {
        let (start, length, pid) = places(self, wide);
        let position = |place: u64| {
            let place = at.wrapping_add(place);
            match wide {
                true => self.get_u64(place).map(u64::cast_signed),
                false => self.get_u32(place).map(|value| i64::from(value.cast_signed())),
            }
        };
        let mut head = [0; 4];
        self.read(at, &mut head)?;
        let [a, b, d, e] = head;
        Ok(Asked {
            kind: self.abi().get_u16([a, b]),
            whence: self.abi().get_u16([d, e]),
            start: position(start)?,
            length: position(length)?,
            pid: self.get_u32(at.wrapping_add(pid))?.cast_signed(),
        })
    }

    fn put_lock(&mut self, at: u64, wide: bool, lock: Lock) -> Result<(), Errno> {
        let (start, length, pid) = places(self, wide);
        let kind = if lock.exclusive { WRITE } else { READ };
        let head = Layout::new(self.abi()).u16(kind).u16(0).bytes;
        let size = match lock.end {
            LAST => 0,
            end => end.saturating_sub(lock.start).saturating_add(1),
        };
        let holder = match lock.holder {
            Holder::Process(pid) => pid,
            Holder::File(_) | Holder::Whole(_) => u32::MAX,
        };
        self.write(at, &head)?;
        for (place, value) in [(start, lock.start), (length, size)] {
            let place = at.wrapping_add(place);
            match wide {
                true => self.put_u64(place, value)?,
                false => self.put_u32(place, u32::try_from(value).map_err(|_| Errno::EOVERFLOW)?)?,
            }
        }
        self.put_u32(at.wrapping_add(pid), holder)
    }

    /// First and last byte that a lock is asked for.
    fn lock_range(&mut self, asked: Asked) -> Result<(u64, u64), Errno> {
        let file = self.file(0)?;
        let offset = file.offset;
        let base = match (asked.whence, &file.target) {
            (0, _) => 0,
            (1, _) => offset,
            (2, Target::File(ino)) => {
                let ino = *ino;
                self.k.tree.bytes(ino).map_or(0, <[u8]>::len) as u64
            }
            (2, _) => 0,
            _ => return Err(Errno::EINVAL),
        };
        let start = i64::try_from(base)
            .ok()
            .and_then(|base| base.checked_add(asked.start))
            .ok_or(Errno::EOVERFLOW)?;
        let (start, end) = match asked.length {
            0 => (start, i64::MAX),
            1.. => (
                start,
                start.checked_add(asked.length - 1).ok_or(Errno::EOVERFLOW)?,
            ),
            _ => (
                start.checked_add(asked.length).ok_or(Errno::EINVAL)?,
                start.checked_sub(1).ok_or(Errno::EINVAL)?,
            ),
        };
        let position = |value: i64| u64::try_from(value).map_err(|_| Errno::EINVAL);
        Ok((position(start)?, position(end)?))
    }

    /// The locking commands of fcntl.
    pub(super) fn lock_command(&mut self, command: Command) -> Answer {
        let (id, at, own) = (self.file_id(0)?, self.word(2), self.pid);
        let asked = self.asked_lock(at, command.wide)?;
        let file = self.file(0)?;
        let access = file.flags & open::ACCESS;
        let opened_for = |wanted: u16| match wanted {
            READ => access != open::WRITE_ONLY,
            WRITE => access != 0,
            _ => true,
        };
        let (seat, by_path) = (file.seat.clone(), file.flags & open::PATH != 0);
        if by_path {
            return Err(Errno::EBADF.into());
        }
        if asked.kind > UNLOCK || asked.kind == UNLOCK && command.what == What::Ask && !command.of_file {
            return Err(Errno::EINVAL.into());
        }
        if command.of_file && asked.pid != 0 {
            return Err(Errno::EINVAL.into());
        }
        let (start, end) = self.lock_range(asked)?;
        if command.what != What::Ask && !opened_for(asked.kind) {
            return Err(Errno::EBADF.into());
        }
        let holder = match command.of_file {
            true => Holder::File(id),
            false => Holder::Process(own),
        };
        let lock = Lock {
            holder,
            exclusive: asked.kind == WRITE,
            start,
            end,
        };
        // What has no name in the tree is locked by nobody else: pipes, sockets, standard output.
        let ino = seat.map(|seat| seat.ino);
        let conflict = ino.and_then(|ino| self.k.open.locks.conflict(ino, &lock));
        if command.what == What::Ask {
            match conflict {
                Some(there) => self.put_lock(at, command.wide, there)?,
                None => {
                    let kind = Layout::new(self.abi()).u16(UNLOCK).bytes;
                    self.write(at, &kind)?;
                }
            }
            return Ok(0);
        }
        let Some(ino) = ino else { return Ok(0) };
        if asked.kind == UNLOCK {
            let gone = self.k.open.locks.release(ino, holder, start, end)?;
            self.k.wake += u64::from(gone);
            return Ok(0);
        }
        self.set_lock(ino, lock, conflict, command.what == What::Wait)
    }

    /// Takes a lock, or waits for it.
    fn set_lock(&mut self, ino: Ino, lock: Lock, conflict: Option<Lock>, waits: bool) -> Answer {
        let tid = self.tid;
        self.k.open.locks.waits_no_more(tid);
        let Some(there) = conflict else {
            // Whoever had more may let others in.
            let had = self.k.open.locks.take(ino, lock)?;
            self.k.wake += u64::from(had);
            return Ok(0);
        };
        if !waits {
            return Err(Errno::EAGAIN.into());
        }
        if let (Holder::Process(own), Holder::Process(other)) = (lock.holder, there.holder) {
            let tasks = &self.k.tasks;
            let still_waits = |tid: u32| {
                let pending = tasks.get(&tid).and_then(|task| task.pending.as_ref());
                pending.is_some_and(|pending| pending.row.name.starts_with("fcntl"))
            };
            self.k.open.locks.wait(tid, own, other, still_waits)?;
        }
        Err(Fail::Wait)
    }
}

pub(crate) fn flock(c: &mut Call<'_>) -> Answer {
    const SHARED: u64 = 1;
    const EXCLUSIVE: u64 = 2;
    const DO_NOT_WAIT: u64 = 4;
    const UNLOCK: u64 = 8;
    let (id, how) = (c.file_id(0)?, c.word(1) & 0xffff_ffff);
    let file = c.file(0)?;
    let (seat, by_path) = (file.seat.clone(), file.flags & open::PATH != 0);
    if by_path {
        return Err(Errno::EBADF.into());
    }
    let wanted = how & !DO_NOT_WAIT;
    if !matches!(wanted, SHARED | EXCLUSIVE | UNLOCK) {
        return Err(Errno::EINVAL.into());
    }
    let Some(ino) = seat.map(|seat| seat.ino) else {
        return Ok(0);
    };
    let holder = Holder::Whole(id);
    let lock = Lock {
        holder,
        exclusive: wanted == EXCLUSIVE,
        start: 0,
        end: LAST,
    };
    let there = c.k.open.locks.has(ino, holder);
    let conflict = c.k.open.locks.conflict(ino, &lock);
    if there && (wanted == UNLOCK || conflict.is_some()) {
        // A lock that is changed is given up first: another may have it then (flock(2)).
        c.k.open.locks.drop_all(ino, holder);
        c.k.wake += 1;
    }
    match wanted {
        UNLOCK => Ok(0),
        _ => c.set_lock(ino, lock, conflict, how & DO_NOT_WAIT == 0),
    }
}

impl Kernel {
    /// A process closes a file: with any of its descriptors its own locks go (`fcntl(2)`).
    pub(crate) fn unlock_own(&mut self, pid: u32, id: FileId) {
        let seat = self.open.get(id).and_then(|file| file.seat.as_ref());
        if let Some(ino) = seat.map(|seat| seat.ino) {
            let gone = self.open.locks.drop_all(ino, Holder::Process(pid));
            self.wake += u64::from(gone);
        }
    }

    /// An open file is gone, and its locks with it.
    pub(crate) fn unlock_file(&mut self, id: FileId, ino: Ino) {
        let whole = self.open.locks.drop_all(ino, Holder::Whole(id));
        let parts = self.open.locks.drop_all(ino, Holder::File(id));
        self.wake += u64::from(whole || parts);
    }
}
