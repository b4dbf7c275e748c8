//! Timers that send signals (`timer_create(2)`).

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::call::{Answer, Call};
use crate::kernel::Kernel;

const SECOND: u64 = 1_000_000_000;
/// Timers of a process at once; Linux counts them against RLIMIT_SIGPENDING.
const MOST: usize = 256;
/// Overruns that are told at most (`DELAYTIMER_MAX`).
const MOST_OVERRUNS: u64 = 0x7fff_ffff;

/// A timer. Times are virtual nanoseconds since the run began.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PosixTimer {
    clock: u64,
    /// Absent: nobody is told (SIGEV_NONE).
    signal: Option<Sig>,
    /// The task that gets it (SIGEV_THREAD_ID); absent: the process.
    tid: Option<u32>,
    value: u64,
    /// When it expires next.
    next: Option<u64>,
    interval: u64,
    /// How many times it expired beside the one that was told last.
    overrun: u32,
}

impl PosixTimer {
    /// When something happens that somebody hears of: time need not stop for others.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        self.signal.and(self.next)
    }

    /// Expires as often as it should have by now; whether it did at all.
    fn expire(&mut self, now: u64) -> bool {
        let Some(at) = self.next.filter(|at| *at <= now) else {
            return false;
        };
        let more = (now - at).checked_div(self.interval).unwrap_or(0);
        self.overrun = more.min(MOST_OVERRUNS) as u32;
        let after = self.interval.saturating_mul(more.saturating_add(1));
        self.next = (self.interval > 0).then(|| at.saturating_add(after));
        true
    }
}

impl Kernel {
    /// Timers whose time has come.
    pub(crate) fn fire_timers(&mut self) {
        let now = self.time.now;
        let mut due = Vec::new();
        for process in self.processes.values_mut() {
            for (id, timer) in &mut process.timers {
                if timer.expire(now) {
                    due.push((process.pid, *id, *timer));
                }
            }
        }
        for (pid, id, timer) in due {
            let Some(signal) = timer.signal else { continue };
            // One that waits to be acted upon counts this one.
            let process = self.processes.get_mut(&pid);
            let there = match timer.tid {
                Some(tid) => self.tasks.get_mut(&tid).map(|task| &mut task.arrived),
                None => process.map(|process| &mut process.arrived),
            };
            if let Some(overruns) = there.and_then(|there| there.overruns_of(signal, id)) {
                *overruns = overruns
                    .saturating_add(timer.overrun)
                    .saturating_add(1)
                    .min(MOST_OVERRUNS as u32);
                continue;
            }
            self.tell_signal((pid, pid), pid, signal);
            let info = SignalInfo {
                code: code::TIMER,
                told: Told::Timer(id, timer.overrun, timer.value),
            };
            self.post_told(pid, timer.tid, signal, info);
            self.tell_later();
        }
    }
}

impl Call<'_> {
    fn posix_timer(&mut self) -> Result<&mut PosixTimer, Errno> {
        let id = self.word(0) as u32;
        self.process().timers.get_mut(&id).ok_or(Errno::EINVAL)
    }

    fn put_posix_timer(&mut self, at: u64, timer: PosixTimer, wide: bool) -> Result<(), Errno> {
        let now = self.k.time.now;
        let left = timer.next.map_or(0, |next| next.saturating_sub(now).max(1));
        let size = self.time_size(wide);
        for (place, time) in [(at, timer.interval), (at.wrapping_add(size), left)] {
            let seconds = i64::try_from(time / SECOND).unwrap_or(i64::MAX);
            self.put_time(place, seconds, time % SECOND, wide)?;
        }
        Ok(())
    }
}

pub(crate) fn timer_create(c: &mut Call<'_>) -> Answer {
    const SIGNAL: u32 = 0;
    const NONE: u32 = 1;
    const THREAD_ID: u32 = 4;
    let clock = c.word(0) & 0xffff_ffff;
    c.clock(clock)?;
    let timers = &c.process().timers;
    // The first number that is free.
    let id = (0..).find(|id| !timers.contains_key(id)).unwrap_or(u32::MAX);
    if timers.len() >= MOST {
        return Err(Errno::EAGAIN.into());
    }
    // struct sigevent: sigev_value, sigev_signo, sigev_notify, and the task.
    let (value, signal, tid) = match c.word(1) {
        0 => (u64::from(id), Some(Sig::ALRM), None),
        at => {
            let word = c.abi().word();
            let value = c.get_word(at)?;
            let number = u64::from(c.get_u32(at.wrapping_add(word))?);
            let notify = c.get_u32(at.wrapping_add(word + 4))?;
            let signal = || Sig::from_number(number, c.abi().family).ok_or(Errno::EINVAL);
            match notify {
                SIGNAL => (value, Some(signal()?), None),
                NONE => (value, None, None),
                THREAD_ID => {
                    let tid = c.get_u32(at.wrapping_add(word + 8))?;
                    let ours = c.k.tasks.get(&tid).is_some_and(|task| task.pid == c.pid);
                    (value, Some(signal()?), Some(tid).filter(|_| ours))
                }
                _ => return Err(Errno::EINVAL.into()),
            }
        }
    };
    c.put_u32(c.word(2), id)?;
    let timer = PosixTimer {
        clock,
        signal,
        tid,
        value,
        next: None,
        interval: 0,
        overrun: 0,
    };
    c.process().timers.insert(id, timer);
    Ok(0)
}

fn set(c: &mut Call<'_>, wide: bool) -> Answer {
    let old = *c.posix_timer()?;
    let (next, interval) = c.new_timer(old.clock, wide)?;
    if c.word(3) != 0 {
        let old_at = c.word(3);
        c.put_posix_timer(old_at, old, wide)?;
    }
    *c.posix_timer()? = PosixTimer {
        next,
        interval,
        overrun: 0,
        ..old
    };
    // A guest that computes until a timer ends it must see time pass.
    c.k.time.counting |= next.is_some();
    Ok(0)
}

pub(crate) fn timer_settime(c: &mut Call<'_>) -> Answer {
    set(c, false)
}

pub(crate) fn timer_settime64(c: &mut Call<'_>) -> Answer {
    set(c, true)
}

fn get(c: &mut Call<'_>, wide: bool) -> Answer {
    let (timer, at) = (*c.posix_timer()?, c.word(1));
    c.put_posix_timer(at, timer, wide)?;
    Ok(0)
}

pub(crate) fn timer_gettime(c: &mut Call<'_>) -> Answer {
    get(c, false)
}

pub(crate) fn timer_gettime64(c: &mut Call<'_>) -> Answer {
    get(c, true)
}

pub(crate) fn timer_getoverrun(c: &mut Call<'_>) -> Answer {
    Ok(u64::from(c.posix_timer()?.overrun))
}

pub(crate) fn timer_delete(c: &mut Call<'_>) -> Answer {
    c.posix_timer()?;
    let id = c.word(0) as u32;
    c.process().timers.remove(&id);
    Ok(0)
}
