//! Signals behind descriptors (signalfd).

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::Layout;
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{OpenFile, Target};
use crate::kernel::Kernel;
use crate::sys::signal::NEVER_BLOCKED;

/// Bytes of a `struct signalfd_siginfo`.
const INFO: usize = 128;

impl Kernel {
    /// Signals of a set that have come to a process and were not acted upon.
    pub(super) fn signals_of(&self, pid: u32, set: u64) -> u64 {
        let tasks = self.tasks.values().filter(|task| task.pid == pid);
        tasks.fold(0, |all, task| all | task.arrived) & set
    }

    /// Takes the first of them.
    fn take_signal(&mut self, pid: u32, set: u64) -> Option<Sig> {
        let found = self.signals_of(pid, set);
        let signal = Sig(u8::try_from(found.checked_ilog2().map(|_| found.trailing_zeros() + 1)?).ok()?);
        let bit = 1 << (signal.0 - 1);
        let mut tasks = self.tasks.values_mut();
        let task = tasks.find(|task| task.pid == pid && task.arrived & bit != 0)?;
        task.arrived &= !bit;
        Some(signal)
    }
}

impl Call<'_> {
    /// read of a signalfd: one structure for each signal, of which only the number is known.
    pub(super) fn read_signals(&mut self, set: u64, room: u64, nonblocking: bool) -> Result<Vec<u8>, Fail> {
        if room < INFO as u64 {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = Vec::new();
        while (bytes.len() + INFO) as u64 <= room {
            let Some(signal) = self.k.take_signal(self.pid, set) else {
                break;
            };
            let number = signal.number(self.abi().family);
            let one = Layout::new(self.abi()).low(number).pad(INFO - 4);
            bytes.extend(one.bytes);
        }
        match (bytes.is_empty(), nonblocking) {
            (false, _) => Ok(bytes),
            (true, true) => Err(Errno::EAGAIN.into()),
            (true, false) => Err(Fail::Wait),
        }
    }
}

fn make(c: &mut Call<'_>, how: u64) -> Answer {
    let how = flags::open_in(c.abi(), how & 0xffff_ffff);
    if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 || c.word(2) != c.set_size() {
        return Err(Errno::EINVAL.into());
    }
    let set = c.set_at(c.word(1))? & !NEVER_BLOCKED;
    if c.int(0) != -1 {
        match &mut c.file(0)?.target {
            Target::Signals(there) => *there = set,
            _ => return Err(Errno::EINVAL.into()),
        }
        c.k.wake += 1;
        return Ok(u64::from(c.word(0) as u32));
    }
    let kept = how & open::NONBLOCK | 2;
    let file = OpenFile::new(Target::Signals(set), kept, b"anon_inode:[signalfd]".to_vec());
    Ok(u64::from(c.install(file, how & open::CLOSE_ON_EXEC != 0)?))
}

pub(crate) fn signalfd(c: &mut Call<'_>) -> Answer {
    make(c, 0)
}

pub(crate) fn signalfd4(c: &mut Call<'_>) -> Answer {
    make(c, c.word(3))
}
