//! Descriptors that stand for processes (pidfd).

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::siginfo::code;
use crate::call::{Answer, Call};
use crate::fs::open::{Descriptor, OpenFile, Target};
use crate::kernel::Kernel;

fn open_file(pid: u32, how: u64) -> OpenFile {
    let kept = how & open::NONBLOCK | 2;
    OpenFile::new(Target::Process(pid), kept, b"anon_inode:[pidfd]".to_vec())
}

impl Kernel {
    /// A descriptor for a child that was just made (CLONE_PIDFD); `None`: its parent has no number left.
    pub(crate) fn child_descriptor(&mut self, pid: u32, child: u32) -> Option<u32> {
        let files = &mut self.processes.get_mut(&pid)?.files;
        let fd = files.free(0).ok()?;
        let file = self.open.add(open_file(child, 0)).ok()?;
        files.set(
            fd,
            Descriptor {
                file,
                close_on_exec: true,
            },
        );
        Some(fd)
    }
}

impl Call<'_> {
    /// The process behind a descriptor.
    pub(super) fn process_behind(&mut self, index: usize) -> Result<u32, Errno> {
        match self.file(index)?.target {
            Target::Process(pid) => Ok(pid),
            _ => Err(Errno::EBADF),
        }
    }
}

pub(crate) fn pidfd_open(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(1) & 0xffff_ffff);
    if how & !open::NONBLOCK != 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = u32::try_from(c.int(0))
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or(Errno::EINVAL)?;
    if !c.k.processes.contains_key(&pid) {
        // A thread that is not the first of its process has no such descriptor.
        let thread = c.k.tasks.contains_key(&pid);
        return Err(if thread { Errno::EINVAL } else { Errno::ESRCH }.into());
    }
    Ok(u64::from(c.install(open_file(pid, how), true)?))
}

pub(crate) fn pidfd_send_signal(c: &mut Call<'_>) -> Answer {
    let pid = c.process_behind(0)?;
    if c.word(3) & 0xffff_ffff != 0 {
        return Err(Errno::EINVAL.into());
    }
    if c.word(2) != 0 && c.get_u32(c.word(2))? != c.word(1) as u32 {
        return Err(Errno::EINVAL.into());
    }
    let info = c.own_info(code::USER);
    let there = c.k.processes.contains_key(&pid).then_some((pid, None));
    c.send_signal(there.into_iter().collect(), c.word(1), info)
}

/// A descriptor of another process, which must be one that it may trace.
pub(crate) fn pidfd_getfd(c: &mut Call<'_>) -> Answer {
    let pid = c.process_behind(0)?;
    if c.word(2) & 0xffff_ffff != 0 {
        return Err(Errno::EINVAL.into());
    }
    let uid = c.process().uid[1];
    let process =
        c.k.processes
            .get(&pid)
            .filter(|process| process.ended.is_none())
            .ok_or(Errno::ESRCH)?;
    if uid != 0 && process.uid.iter().any(|own| *own != uid) {
        return Err(Errno::EPERM.into());
    }
    let file = process.files.get(c.word(1))?.file;
    let fd = c.process().files.free(0)?;
    c.k.open.share(file);
    c.process().files.set(
        fd,
        Descriptor {
            file,
            close_on_exec: true,
        },
    );
    Ok(u64::from(fd))
}
