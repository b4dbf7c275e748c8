//! Signals behind descriptors (signalfd).

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::Layout;
use crate::abi::siginfo::{SignalInfo, Told};
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{OpenFile, Target};
use crate::sys::signal::NEVER_BLOCKED;

/// Bytes of a `struct signalfd_siginfo`.
const INFO: usize = 128;

impl SignalInfo {
    /// The `struct signalfd_siginfo` (uapi/linux/signalfd.h).
    fn for_reader(&self, abi: &Abi, signal: Sig) -> Vec<u8> {
        let (mut pid, mut uid, mut timer, mut overrun, mut status, mut value, mut address) =
            Default::default();
        match self.told {
            Told::Nothing => {}
            Told::Sender(from, user, sent) => (pid, uid, value) = (from, user, sent),
            Told::Child(from, user, how) => (pid, uid, status) = (from, user, how),
            Told::Address(at) => address = at,
            Told::Timer(id, times, sent) => (timer, overrun, value) = (id, times, sent),
        }
        let layout = Layout::new(abi).low(signal.number(abi.family)).u32(0);
        let layout = layout.u32(self.code.cast_unsigned()).u32(pid).u32(uid);
        // No descriptor and no band (SIGIO), no number of a trap.
        let layout = layout.u32(0).u32(timer).u32(0).u32(overrun).u32(0);
        // ssi_int is the first half of the value where it stands in memory.
        let int = if abi.big && abi.wide { value >> 32 } else { value };
        let layout = layout
            .u32(status)
            .u32(int as u32)
            .u64(abi.signed(value).cast_unsigned());
        // No times of a child.
        let layout = layout.u64(0).u64(0).u64(abi.signed(address).cast_unsigned());
        layout.pad(INFO - 80).bytes
    }
}

impl Call<'_> {
    /// read of a signalfd: one structure for each signal.
    pub(super) fn read_signals(&mut self, set: u64, room: u64, nonblocking: bool) -> Result<Vec<u8>, Fail> {
        if room < INFO as u64 {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = Vec::new();
        while (bytes.len() + INFO) as u64 <= room {
            let Some((signal, info)) = self.k.take_signal(self.tid, set) else {
                break;
            };
            bytes.extend(info.for_reader(self.abi(), signal));
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
