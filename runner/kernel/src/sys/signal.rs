//! Signals: asking for them, sending them, waiting for them.

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail};
use crate::deferred::Deferred;
use crate::task::Action;

/// Signals that no mask holds back.
pub(crate) const NEVER_BLOCKED: u64 = 1 << (Sig::KILL.0 - 1) | 1 << (Sig::STOP.0 - 1);

impl Call<'_> {
    /// Bytes of a signal set.
    pub(super) fn set_size(&self) -> u64 {
        if self.abi().is_mips() { 16 } else { 8 }
    }

    /// A signal set of the guest as bits of generic signals. It is an array of words, the first for signals from 1.
    pub(super) fn set_at(&self, address: u64) -> Result<u64, Errno> {
        let raw = if self.abi().wide {
            self.get_u64(address)?
        } else {
            let low = u64::from(self.get_u32(address)?);
            low | u64::from(self.get_u32(address.wrapping_add(4))?) << 32
        };
        Ok(Sig::set_from_guest(raw, self.abi().family))
    }

    fn put_set(&mut self, address: u64, set: u64) -> Result<(), Errno> {
        let raw = Sig::set_of_guest(set, self.abi().family);
        let layout = Layout::new(self.abi());
        let layout = if self.abi().wide {
            layout.u64(raw)
        } else {
            layout.u32(raw as u32).u32((raw >> 32) as u32)
        };
        let padding = self.set_size() as usize - 8;
        let bytes = layout.pad(padding).bytes;
        self.write(address, &bytes)
    }

    /// What is to be done on a signal. Those that have come and are ignored from now on are forgotten (do_sigaction).
    fn set_action(&mut self, signal: Sig, action: Action) {
        self.process().actions.insert(signal, action);
        if action.ignores(signal) {
            self.k.drop_signals(self.pid, signal.bit());
        }
    }

    fn signal(&self, index: usize) -> Result<Sig, Errno> {
        Sig::from_number(self.word(index) & 0xffff_ffff, self.abi().family).ok_or(Errno::EINVAL)
    }
}

/// `struct sigaction`: mips has the flags first, and only some have a restorer.
fn get_action(c: &Call<'_>, at: u64) -> Result<Action, Errno> {
    let word = c.abi().word();
    if c.abi().is_mips() {
        let flags = u64::from(c.get_u32(at)?);
        let handler = c.get_word(at.wrapping_add(word))?;
        let mask = c.set_at(at.wrapping_add(2 * word))? & !NEVER_BLOCKED;
        return Ok(Action {
            handler,
            flags,
            restorer: 0,
            mask,
        });
    }
    let handler = c.get_word(at)?;
    let flags = c.get_word(at.wrapping_add(word))?;
    let has_restorer = c.abi().signal_restorer;
    let restorer = if has_restorer {
        c.get_word(at.wrapping_add(2 * word))?
    } else {
        0
    };
    let mask = c.set_at(at.wrapping_add(if has_restorer { 3 } else { 2 } * word))? & !NEVER_BLOCKED;
    Ok(Action {
        handler,
        flags,
        restorer,
        mask,
    })
}

fn put_action(c: &mut Call<'_>, at: u64, action: Action) -> Result<(), Errno> {
    let word = c.abi().word();
    if c.abi().is_mips() {
        c.put_u32(at, action.flags as u32)?;
        c.put_word(at.wrapping_add(word), action.handler)?;
        return c.put_set(at.wrapping_add(2 * word), action.mask);
    }
    c.put_word(at, action.handler)?;
    c.put_word(at.wrapping_add(word), action.flags)?;
    let mut mask = at.wrapping_add(2 * word);
    if c.abi().signal_restorer {
        c.put_word(mask, action.restorer)?;
        mask = mask.wrapping_add(word);
    }
    c.put_set(mask, action.mask)
}

pub(crate) fn rt_sigaction(c: &mut Call<'_>) -> Answer {
    let signal = c.signal(0)?;
    if c.word(3) != c.set_size() {
        return Err(Errno::EINVAL.into());
    }
    let new = match c.word(1) {
        0 => None,
        _ if matches!(signal, Sig::KILL | Sig::STOP) => return Err(Errno::EINVAL.into()),
        at => Some(get_action(c, at)?),
    };
    let old = c.process().action(signal);
    if c.word(2) != 0 {
        put_action(c, c.word(2), old)?;
    }
    if let Some(new) = new {
        c.set_action(signal, new);
    }
    Ok(0)
}

/// The oldest call: only a handler.
pub(crate) fn signal(c: &mut Call<'_>) -> Answer {
    const ONCE: u64 = 0x8000_0000;
    const NO_MASK: u64 = 0x4000_0000;
    let signal = c.signal(0)?;
    if matches!(signal, Sig::KILL | Sig::STOP) {
        return Err(Errno::EINVAL.into());
    }
    let action = Action {
        handler: c.word(1),
        flags: ONCE | NO_MASK,
        restorer: 0,
        mask: 0,
    };
    let old = c.process().action(signal);
    c.set_action(signal, action);
    Ok(old.handler)
}

pub(crate) fn rt_sigprocmask(c: &mut Call<'_>) -> Answer {
    if c.word(3) != c.set_size() {
        return Err(Errno::EINVAL.into());
    }
    // mips counts from 1.
    let first = u64::from(c.abi().is_mips());
    let new = match c.word(1) {
        0 => None,
        at => Some(c.set_at(at)?),
    };
    let old = c.task().mask;
    if let Some(new) = new {
        let mask = match (c.word(0) & 0xffff_ffff).wrapping_sub(first) {
            0 => old | new,
            1 => old & !new,
            2 => new,
            _ => return Err(Errno::EINVAL.into()),
        };
        c.task().mask = mask & !NEVER_BLOCKED;
    }
    if c.word(2) != 0 {
        c.put_set(c.word(2), old)?;
    }
    Ok(0)
}

pub(crate) fn rt_sigpending(c: &mut Call<'_>) -> Answer {
    let waiting = c.k.arrived(c.tid) & c.task().mask;
    c.put_set(c.word(0), waiting)?;
    Ok(0)
}

/// Waits with another mask; the old one is back when a handler has run.
pub(crate) fn rt_sigsuspend(c: &mut Call<'_>) -> Answer {
    if c.word(1) != c.set_size() {
        return Err(Errno::EINVAL.into());
    }
    let mask = c.set_at(c.word(0))? & !NEVER_BLOCKED;
    c.task().wait_with(mask);
    Err(Fail::Wait)
}

/// Waits for a signal that is acted upon.
pub(crate) fn pause(_: &mut Call<'_>) -> Answer {
    Err(Fail::Wait)
}

pub(crate) fn sigaltstack(c: &mut Call<'_>) -> Answer {
    let word = c.abi().word();
    let new = match c.word(0) {
        0 => None,
        at => {
            let pointer = c.get_word(at)?;
            // mips has the size before the flags.
            let (size, flags) = if c.abi().is_mips() {
                (word, 2 * word)
            } else {
                (2 * word, word)
            };
            let size = c.get_word(at.wrapping_add(size))?;
            let flags = u64::from(c.get_u32(at.wrapping_add(flags))?);
            Some((pointer, flags, size))
        }
    };
    let (pointer, flags, size) = c.task().alternate_stack;
    if c.word(1) != 0 {
        let layout = Layout::new(c.abi()).word(pointer);
        let bytes = if c.abi().is_mips() {
            layout.word(size).u32(flags as u32).align(word as usize).bytes
        } else {
            layout.u32(flags as u32).align(word as usize).word(size).bytes
        };
        c.write(c.word(1), &bytes)?;
    }
    if let Some(new) = new {
        c.task().alternate_stack = new;
    }
    Ok(0)
}

pub(crate) fn rt_sigreturn(c: &mut Call<'_>) -> Answer {
    if c.task().interrupted.is_empty() {
        // A frame that the kernel never made.
        let pid = c.pid;
        c.tell_now();
        c.k.kill_process(pid, Sig::SEGV);
        c.k.tell_later();
        return Err(Fail::Gone);
    }
    Err(Fail::Later(Deferred::SignalReturn))
}

impl Call<'_> {
    /// Sends to processes, or to one task of them. Signal 0 only asks whether one is there.
    pub(super) fn send_signal(
        &mut self,
        targets: Vec<(u32, Option<u32>)>,
        number: u64,
        info: SignalInfo,
    ) -> Answer {
        let from = (self.pid, self.tid);
        let signal = match number & 0xffff_ffff {
            0 => None,
            number => Some(Sig::from_number(number, self.abi().family).ok_or(Errno::EINVAL)?),
        };
        if targets.is_empty() {
            return Err(Errno::ESRCH.into());
        }
        let uid = self.process().uid;
        let (mut allowed, mut room) = (false, false);
        for (pid, tid) in targets {
            let Some(process) = self.k.processes.get(&pid) else {
                continue;
            };
            if uid[1] != 0 && uid[0] != process.uid[0] && uid[1] != process.uid[0] {
                continue;
            }
            allowed = true;
            room |= signal.is_none_or(|signal| {
                self.k.tell_signal(from, pid, signal);
                self.k.post_told(pid, tid, signal, info)
            });
        }
        match (allowed, room) {
            (false, _) => Err(Errno::EPERM.into()),
            (true, false) => Err(Errno::EAGAIN.into()),
            (true, true) => Ok(0),
        }
    }

    /// What a signal of this process tells of it.
    pub(super) fn own_info(&mut self, code: i32) -> SignalInfo {
        let (pid, uid) = (self.pid, self.process().uid[0]);
        SignalInfo {
            code,
            told: Told::Sender(pid, uid, 0),
        }
    }
}

pub(crate) fn kill(c: &mut Call<'_>) -> Answer {
    let to = c.int(0);
    let own = c.pid;
    let group = c.process().group;
    let in_group = |c: &Call<'_>, group: u32| -> Vec<u32> {
        c.k.processes
            .values()
            .filter(|process| process.group == group)
            .map(|process| process.pid)
            .collect()
    };
    let targets = match to {
        1.. => {
            let pid = to.cast_unsigned();
            if pid == 1 {
                // The system's first process takes no signal of this kind.
                return Ok(0);
            }
            c.k.processes
                .contains_key(&pid)
                .then_some(pid)
                .into_iter()
                .collect()
        }
        0 => in_group(c, group),
        -1 => c.k.processes.keys().copied().filter(|pid| *pid != own).collect(),
        other => in_group(c, other.unsigned_abs()),
    };
    let info = c.own_info(code::USER);
    let targets = targets.into_iter().map(|pid| (pid, None)).collect();
    c.send_signal(targets, c.word(1), info)
}

fn to_thread(c: &mut Call<'_>, group: Option<u32>, tid: u32, number: u64) -> Answer {
    let pid = c.k.tasks.get(&tid).map(|task| task.pid).ok_or(Errno::ESRCH)?;
    if group.is_some_and(|group| group != pid) {
        return Err(Errno::ESRCH.into());
    }
    let info = c.own_info(code::THREAD);
    c.send_signal(vec![(pid, Some(tid))], number, info)
}

pub(crate) fn tkill(c: &mut Call<'_>) -> Answer {
    to_thread(c, None, c.word(0) as u32, c.word(1))
}

pub(crate) fn tgkill(c: &mut Call<'_>) -> Answer {
    to_thread(c, Some(c.word(0) as u32), c.word(1) as u32, c.word(2))
}
