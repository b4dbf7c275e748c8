//! Who a process is: numbers of processes, groups, sessions, users.

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call};
use crate::view::Memory as _;

pub(crate) fn getpid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.pid))
}

pub(crate) fn gettid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.tid))
}

pub(crate) fn getppid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().parent))
}

pub(crate) fn getpgrp(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().group))
}

/// The process that a word names; 0 is the own one.
pub(super) fn other(c: &mut Call<'_>, index: usize) -> Result<u32, Errno> {
    let pid = c.word(index) as u32;
    let pid = if pid == 0 { c.pid } else { pid };
    if c.k.processes.contains_key(&pid) {
        Ok(pid)
    } else {
        Err(Errno::ESRCH)
    }
}

pub(crate) fn getpgid(c: &mut Call<'_>) -> Answer {
    let pid = other(c, 0)?;
    Ok(c.k
        .processes
        .get(&pid)
        .map_or(0, |process| u64::from(process.group)))
}

pub(crate) fn getsid(c: &mut Call<'_>) -> Answer {
    let pid = other(c, 0)?;
    Ok(c.k
        .processes
        .get(&pid)
        .map_or(0, |process| u64::from(process.session)))
}

pub(crate) fn setpgid(c: &mut Call<'_>) -> Answer {
    let pid = other(c, 0)?;
    let group = if c.word(1) as u32 == 0 {
        pid
    } else {
        c.word(1) as u32
    };
    let own = c.pid;
    let Some(process) = c.k.processes.get_mut(&pid) else {
        return Err(Errno::ESRCH.into());
    };
    if pid != own && process.parent != own {
        return Err(Errno::ESRCH.into());
    }
    if pid != own && process.executed {
        return Err(Errno::EACCES.into());
    }
    if process.session == pid {
        return Err(Errno::EPERM.into());
    }
    process.group = group;
    Ok(0)
}

pub(crate) fn setsid(c: &mut Call<'_>) -> Answer {
    let own = c.pid;
    if c.k.processes.values().any(|process| process.group == own) {
        return Err(Errno::EPERM.into());
    }
    let process = c.process();
    process.group = own;
    process.session = own;
    Ok(u64::from(own))
}

pub(crate) fn getuid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().uid[0]))
}

pub(crate) fn geteuid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().uid[1]))
}

pub(crate) fn getgid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().gid[0]))
}

pub(crate) fn getegid(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.process().gid[1]))
}

/// Sets real, effective and saved numbers; `None` leaves one.
fn set_ids(c: &mut Call<'_>, group: bool, new: [Option<u32>; 3]) -> Answer {
    let root = c.process().uid[1] == 0;
    let process = c.process();
    let ids = if group { &mut process.gid } else { &mut process.uid };
    if !root && new.iter().flatten().any(|id| !ids.contains(id)) {
        return Err(Errno::EPERM.into());
    }
    for (id, new) in ids.iter_mut().zip(new) {
        *id = new.unwrap_or(*id);
    }
    Ok(0)
}

/// A number given, or `None` for -1.
fn given(c: &Call<'_>, index: usize) -> Option<u32> {
    let word = c.word(index);
    if c.half_ids() {
        return (word as u16 != u16::MAX).then_some(u32::from(word as u16));
    }
    (word as u32 != u32::MAX).then_some(word as u32)
}

fn set_one(c: &mut Call<'_>, group: bool) -> Answer {
    let id = Some(c.word(0) as u32);
    let root = c.process().uid[1] == 0;
    set_ids(c, group, if root { [id; 3] } else { [None, id, None] })
}

pub(crate) fn setuid(c: &mut Call<'_>) -> Answer {
    set_one(c, false)
}

pub(crate) fn setgid(c: &mut Call<'_>) -> Answer {
    set_one(c, true)
}

pub(crate) fn setreuid(c: &mut Call<'_>) -> Answer {
    let new = [given(c, 0), given(c, 1), given(c, 1)];
    set_ids(c, false, new)
}

pub(crate) fn setregid(c: &mut Call<'_>) -> Answer {
    let new = [given(c, 0), given(c, 1), given(c, 1)];
    set_ids(c, true, new)
}

pub(crate) fn setresuid(c: &mut Call<'_>) -> Answer {
    let new = [given(c, 0), given(c, 1), given(c, 2)];
    set_ids(c, false, new)
}

pub(crate) fn setresgid(c: &mut Call<'_>) -> Answer {
    let new = [given(c, 0), given(c, 1), given(c, 2)];
    set_ids(c, true, new)
}

impl Call<'_> {
    /// Whether this is an old call of i386 or arm, with 16-bit user and group numbers.
    pub(crate) fn half_ids(&self) -> bool {
        use hotcell_schema::arch::AbiFamily;
        let old = matches!(self.abi().family, AbiFamily::I386 | AbiFamily::ArmEabi);
        old && !self.pending.row.name.ends_with("32")
    }

    fn put_id(&mut self, at: u64, id: u32) -> Result<(), Errno> {
        if !self.half_ids() {
            return self.put_u32(at, id);
        }
        let bytes = Layout::new(self.abi())
            .u16(u16::try_from(id).unwrap_or(65_534))
            .bytes;
        self.write(at, &bytes)
    }

    fn id_size(&self) -> u64 {
        if self.half_ids() { 2 } else { 4 }
    }
}

fn put_ids(c: &mut Call<'_>, ids: [u32; 3]) -> Answer {
    for (index, id) in ids.into_iter().enumerate() {
        c.put_id(c.word(index), id)?;
    }
    Ok(0)
}

pub(crate) fn getresuid(c: &mut Call<'_>) -> Answer {
    let ids = c.process().uid;
    put_ids(c, ids)
}

pub(crate) fn getresgid(c: &mut Call<'_>) -> Answer {
    let ids = c.process().gid;
    put_ids(c, ids)
}

/// File system ids follow the effective ones.
pub(crate) fn setfsuid(c: &mut Call<'_>) -> Answer {
    geteuid(c)
}

pub(crate) fn setfsgid(c: &mut Call<'_>) -> Answer {
    getegid(c)
}

pub(crate) fn getgroups(c: &mut Call<'_>) -> Answer {
    let groups = c.process().groups.clone();
    let room = c.int(0);
    if room != 0 {
        if room < 0 || (room.cast_unsigned() as usize) < groups.len() {
            return Err(Errno::EINVAL.into());
        }
        for (index, group) in groups.iter().enumerate() {
            c.put_id(c.word(1).wrapping_add(c.id_size() * index as u64), *group)?;
        }
    }
    Ok(groups.len() as u64)
}

pub(crate) fn setgroups(c: &mut Call<'_>) -> Answer {
    if c.process().uid[1] != 0 {
        return Err(Errno::EPERM.into());
    }
    let count = c.word(0);
    if count > 65_536 {
        return Err(Errno::EINVAL.into());
    }
    let mut groups = Vec::new();
    for index in 0..count {
        let at = c.word(1).wrapping_add(c.id_size() * index);
        let mut half = [0; 2];
        groups.push(if c.half_ids() {
            c.read(at, &mut half)?;
            u32::from(c.abi().get_u16(half))
        } else {
            c.get_u32(at)?
        });
    }
    c.process().groups = groups;
    Ok(0)
}

pub(crate) fn umask(c: &mut Call<'_>) -> Answer {
    let new = c.word(0) as u32 & 0o777;
    Ok(u64::from(std::mem::replace(&mut c.process().umask, new)))
}
