//! Taking signals without a handler, and sending them with a value: rt_sigtimedwait, rt_sigqueueinfo.

use crate::abi::errno::Errno;
use crate::abi::siginfo::{self, SignalInfo, Told, code};
use crate::call::{Answer, Call, Fail};
use crate::sys::signal::NEVER_BLOCKED;

fn timed_wait(c: &mut Call<'_>, wide: bool) -> Answer {
    if c.word(3) != c.set_size() {
        return Err(Errno::EINVAL.into());
    }
    let set = c.set_at(c.word(0))? & !NEVER_BLOCKED;
    let wait = c.optional_time(c.word(2), wide)?;
    c.until(wait);
    let Some((signal, info)) = c.k.take_signal(c.tid, set) else {
        return Err(if c.timed_out() || wait == Some(0) {
            Errno::EAGAIN.into()
        } else {
            Fail::Wait
        });
    };
    if c.word(1) != 0 {
        let bytes = info.bytes(c.abi(), signal);
        c.write(c.word(1), &bytes)?;
    }
    Ok(signal.number(c.abi().family))
}

pub(crate) fn rt_sigtimedwait(c: &mut Call<'_>) -> Answer {
    timed_wait(c, false)
}

pub(crate) fn rt_sigtimedwait64(c: &mut Call<'_>) -> Answer {
    timed_wait(c, true)
}

impl Call<'_> {
    /// Waits with another mask of signals, where the guest gives one (ppoll, pselect6, epoll_pwait).
    pub(super) fn wait_with_mask(&mut self, at: u64, size: u64) -> Result<(), Errno> {
        if at == 0 {
            return Ok(());
        }
        if size != self.set_size() {
            return Err(Errno::EINVAL);
        }
        let mask = self.set_at(at)? & !NEVER_BLOCKED;
        self.task().wait_with(mask);
        Ok(())
    }
}

/// What a `siginfo_t` of the guest says, as far as it is passed on. Only the kernel says what is not below zero
/// (`do_rt_sigqueueinfo`).
fn info_at(c: &mut Call<'_>, at: u64, to_itself: bool) -> Result<SignalInfo, Errno> {
    let bytes = c.bytes(at, siginfo::SIZE as u64)?;
    let word = c.abi().word();
    let first = 12u64.next_multiple_of(word);
    let code = at.wrapping_add(if c.abi().is_mips() { 4 } else { 8 });
    let code = c.get_u32(code)?.cast_signed();
    if bytes.is_empty() || ((code >= 0 || code == code::THREAD) && !to_itself) {
        return Err(Errno::EPERM);
    }
    let told = Told::Sender(
        c.get_u32(at.wrapping_add(first))?,
        c.get_u32(at.wrapping_add(first + 4))?,
        c.get_word(at.wrapping_add(first + 8))?,
    );
    Ok(SignalInfo { code, told })
}

pub(crate) fn rt_sigqueueinfo(c: &mut Call<'_>) -> Answer {
    let pid = c.word(0) as u32;
    let info = info_at(c, c.word(2), pid == c.pid)?;
    let there = c.k.processes.contains_key(&pid);
    let targets = there.then_some((pid, None)).into_iter().collect();
    c.send_signal(targets, c.word(1), info)
}

pub(crate) fn rt_tgsigqueueinfo(c: &mut Call<'_>) -> Answer {
    let (group, tid) = (c.word(0) as u32, c.word(1) as u32);
    let info = info_at(c, c.word(3), group == c.pid)?;
    let there = c.k.tasks.get(&tid).is_some_and(|task| task.pid == group);
    let targets = there.then_some((group, Some(tid))).into_iter().collect();
    c.send_signal(targets, c.word(2), info)
}
