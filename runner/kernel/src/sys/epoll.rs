//! epoll, eventfd.

use std::collections::BTreeMap;

use hotcell_schema::arch::AbiFamily;
use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{FileId, OpenFile, Target};
use crate::kernel::Kernel;
use crate::sys::ready::{ERROR, HANG_UP, IN, Ready};

const ADD: u64 = 1;
const DELETE: u64 = 2;
const MODIFY: u64 = 3;
const ONE_SHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;
/// How many descriptors one epoll watches.
const MAX_WATCHES: usize = 4_096;

/// What an epoll watches: each open file by the descriptor that it was named with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Epoll {
    watches: BTreeMap<(u32, FileId), Watch>,
    /// It watches an epoll.
    nests: bool,
    /// An epoll watches it. Linux allows five such levels (EP_MAX_NESTS), here there are two.
    nested: bool,
    /// Where the next look begins, so that nobody is overlooked where only few are asked for.
    next: (u32, u64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch {
    events: u32,
    data: u64,
    /// A one-shot that was told is told no more.
    armed: bool,
    /// What had happened when it was last told, for edges.
    seen: Option<u64>,
}

impl Watch {
    /// What is to be told, by how its file stands.
    fn news(&self, ready: Ready) -> u32 {
        let found = ready.events & (self.events | ERROR | HANG_UP);
        let again = self.events & EDGE == 0 || self.seen != Some(ready.activity);
        if self.armed && again { found } else { 0 }
    }

    /// When it will have news by itself: what comes so can be read.
    fn comes(&self, ready: Ready) -> Option<u64> {
        ready.at.filter(|_| self.armed && self.events & IN != 0)
    }
}

impl Kernel {
    /// Whether an epoll has anything to tell, and when it will have by itself.
    pub(super) fn epoll_ready(&self, epoll: &Epoll, depth: u32) -> (bool, Option<u64>) {
        let mut at = None;
        if depth > 1 {
            return (false, at);
        }
        for ((_, file), watch) in &epoll.watches {
            let ready = self.readiness(*file, depth + 1);
            at = [at, watch.comes(ready)].into_iter().flatten().min();
            if watch.news(ready) != 0 {
                return (true, at);
            }
        }
        (false, at)
    }
}

impl Call<'_> {
    fn epoll(&mut self, index: usize) -> Result<&mut Epoll, Errno> {
        match &mut self.file(index)?.target {
            Target::Epoll(epoll) => Ok(epoll),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Bytes of a `struct epoll_event`, and where its data begins: packed on x86_64 (eventpoll.h), and i386 aligns to 4.
    fn event_shape(&self) -> (u64, u64) {
        match self.abi().family {
            AbiFamily::X86_64 | AbiFamily::I386 => (12, 4),
            _ => (16, 8),
        }
    }
}

fn create(c: &mut Call<'_>, how: u64) -> Answer {
    let file = OpenFile::new(
        Target::Epoll(Epoll::default()),
        2,
        b"anon_inode:[eventpoll]".to_vec(),
    );
    Ok(u64::from(c.install(file, how & open::CLOSE_ON_EXEC != 0)?))
}

pub(crate) fn epoll_create(c: &mut Call<'_>) -> Answer {
    match c.int(0) {
        ..=0 => Err(Errno::EINVAL.into()),
        _ => create(c, 0),
    }
}

pub(crate) fn epoll_create1(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(0) & 0xffff_ffff);
    match how & !open::CLOSE_ON_EXEC {
        0 => create(c, how),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(crate) fn epoll_ctl(c: &mut Call<'_>) -> Answer {
    let own = c.file_id(0)?;
    let fd = c.word(2) as u32;
    let file = c.process().files.get(u64::from(fd))?.file;
    c.epoll(0)?;
    if own == file {
        return Err(Errno::EINVAL.into());
    }
    let operation = c.word(1) & 0xffff_ffff;
    let wanted = match operation {
        DELETE => None,
        ADD | MODIFY => {
            let (_, data) = c.event_shape();
            let at = c.word(3);
            let (events, data) = (c.get_u32(at)?, c.get_u64(at.wrapping_add(data))?);
            Some(Watch {
                events,
                data,
                armed: true,
                seen: None,
            })
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    // What is always ready cannot be watched (epoll_ctl(2), EPERM).
    let target = c.k.open.get(file).map(|file| &file.target).ok_or(Errno::EBADF)?;
    if matches!(target, Target::File(_) | Target::Directory(..) | Target::Path(_)) {
        return Err(Errno::EPERM.into());
    }
    let inner = match target {
        Target::Epoll(inner) => Some(inner.nests),
        _ => None,
    };
    if operation == ADD
        && let Some(nests) = inner
    {
        if nests || c.epoll(0)?.nested {
            return Err(Errno::ELOOP.into());
        }
        c.epoll(0)?.nests = true;
        if let Some(Target::Epoll(inner)) = c.k.open.get_mut(file).map(|file| &mut file.target) {
            inner.nested = true;
        }
    }
    let key = (fd, file);
    let epoll = c.epoll(0)?;
    let there = epoll.watches.contains_key(&key);
    match (operation, wanted) {
        (ADD, Some(_)) if there => Err(Errno::EEXIST.into()),
        (ADD, Some(_)) if epoll.watches.len() >= MAX_WATCHES => Err(Errno::ENOSPC.into()),
        (_, _) if operation != ADD && !there => Err(Errno::ENOENT.into()),
        (_, Some(watch)) => {
            epoll.watches.insert(key, watch);
            c.k.wake += 1;
            Ok(0)
        }
        (_, None) => {
            epoll.watches.remove(&key);
            Ok(0)
        }
    }
}

fn wait(c: &mut Call<'_>, timeout: Option<u64>) -> Answer {
    let most = c.int(2);
    let id = c.file_id(0)?;
    let mut epoll = std::mem::take(c.epoll(0)?);
    if most <= 0 {
        *c.epoll(0)? = epoll;
        return Err(Errno::EINVAL.into());
    }
    c.until(timeout);
    // Files whose last descriptor is gone are watched no more.
    epoll.watches.retain(|(_, file), _| c.k.open.get(*file).is_some());
    let (size, data_at) = c.event_shape();
    let mut found = Vec::new();
    let next = epoll.next;
    let after = |key: &(u32, FileId)| (key.0, key.1.0) >= next;
    let keys: Vec<_> = epoll.watches.keys().copied().collect();
    let turns = keys
        .iter()
        .filter(|key| after(key))
        .chain(keys.iter().filter(|key| !after(key)));
    let mut deadline = None;
    // One file may be watched by many descriptors.
    let mut known: BTreeMap<FileId, Ready> = BTreeMap::new();
    for key in turns {
        let ready = *known.entry(key.1).or_insert_with(|| c.k.readiness(key.1, 1));
        let Some(watch) = epoll.watches.get_mut(key) else {
            continue;
        };
        deadline = [deadline, watch.comes(ready)].into_iter().flatten().min();
        let news = watch.news(ready);
        if news == 0 {
            continue;
        }
        watch.seen = Some(ready.activity);
        watch.armed = watch.events & ONE_SHOT == 0;
        found.push((news, watch.data));
        epoll.next = (key.0, key.1.0.saturating_add(1));
        if found.len() >= most.cast_unsigned() as usize {
            break;
        }
    }
    if let Some(file) = c.k.open.get_mut(id) {
        file.target = Target::Epoll(epoll);
    }
    if found.is_empty() && !c.timed_out() {
        c.wake_at(deadline);
        return Err(Fail::Wait);
    }
    for (index, (events, data)) in (0u64..).zip(&found) {
        let at = c.word(1).checked_add(index * size).ok_or(Errno::EFAULT)?;
        c.put_u32(at, *events)?;
        c.put_u64(at.wrapping_add(data_at), *data)?;
    }
    Ok(found.len() as u64)
}

fn milliseconds(c: &Call<'_>) -> Option<u64> {
    let timeout = c.int(3);
    (timeout >= 0).then(|| u64::from(timeout.cast_unsigned()).saturating_mul(1_000_000))
}

pub(crate) fn epoll_wait(c: &mut Call<'_>) -> Answer {
    let timeout = milliseconds(c);
    wait(c, timeout)
}

pub(crate) fn epoll_pwait(c: &mut Call<'_>) -> Answer {
    c.wait_with_mask(c.word(4), c.word(5))?;
    epoll_wait(c)
}

pub(crate) fn epoll_pwait2(c: &mut Call<'_>) -> Answer {
    let timeout = c.optional_time(c.word(3), true)?;
    c.wait_with_mask(c.word(4), c.word(5))?;
    wait(c, timeout)
}

fn make_event(c: &mut Call<'_>, how: u64) -> Answer {
    const SEMAPHORE: u64 = 1;
    let semaphore = how & SEMAPHORE != 0;
    let how = flags::open_in(c.abi(), how & 0xffff_ffff & !SEMAPHORE);
    if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = Target::Event {
        count: c.word(0) & 0xffff_ffff,
        semaphore,
        activity: 0,
    };
    let file = OpenFile::new(target, how & open::NONBLOCK | 2, b"anon_inode:[eventfd]".to_vec());
    Ok(u64::from(c.install(file, how & open::CLOSE_ON_EXEC != 0)?))
}

pub(crate) fn eventfd(c: &mut Call<'_>) -> Answer {
    make_event(c, 0)
}

pub(crate) fn eventfd2(c: &mut Call<'_>) -> Answer {
    make_event(c, c.word(1))
}

impl Call<'_> {
    /// read of an eventfd: eight bytes.
    pub(super) fn read_event(&mut self, id: FileId, room: u64, nonblocking: bool) -> Result<Vec<u8>, Fail> {
        if room < 8 {
            return Err(Errno::EINVAL.into());
        }
        let file = self.k.open.get_mut(id).ok_or(Errno::EBADF)?;
        let Target::Event {
            count,
            semaphore,
            activity,
        } = &mut file.target
        else {
            return Err(Errno::EBADF.into());
        };
        if *count == 0 {
            return Err(if nonblocking {
                Errno::EAGAIN.into()
            } else {
                Fail::Wait
            });
        }
        let value = if *semaphore { 1 } else { *count };
        *count -= value;
        *activity += 1;
        self.k.wake += 1;
        Ok(crate::abi::layout::Layout::new(self.abi()).u64(value).bytes)
    }

    /// write of an eventfd.
    pub(super) fn write_event(&mut self, id: FileId, bytes: &[u8], nonblocking: bool) -> Answer {
        let value = self.abi().get_u64(*bytes.first_chunk().ok_or(Errno::EINVAL)?);
        if value == u64::MAX {
            return Err(Errno::EINVAL.into());
        }
        let file = self.k.open.get_mut(id).ok_or(Errno::EBADF)?;
        let Target::Event { count, activity, .. } = &mut file.target else {
            return Err(Errno::EBADF.into());
        };
        match count.checked_add(value).filter(|sum| *sum < u64::MAX) {
            Some(sum) => {
                *count = sum;
                *activity += 1;
                self.k.wake += 1;
                Ok(8)
            }
            None if nonblocking => Err(Errno::EAGAIN.into()),
            None => Err(Fail::Wait),
        }
    }
}
