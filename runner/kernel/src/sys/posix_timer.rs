//! Timers that send signals (`timer_create(2)`).

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::siginfo::{SignalInfo, Told, code};
use crate::abi::signal::Sig;
use crate::call::{Answer, Call};
use crate::kernel::Kernel;
use crate::sys::time::{CPU_OF_PROCESS, CPU_OF_TASK};
use crate::time::Expiry;

const SECOND: u64 = 1_000_000_000;
/// Timers of a process at once; Linux counts them against RLIMIT_SIGPENDING.
const MOST: usize = 256;
/// Overruns that are told at most (`DELAYTIMER_MAX`).
const MOST_OVERRUNS: u64 = 0x7fff_ffff;

/// A timer. Times are virtual nanoseconds: since the run began, or that somebody ran.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PosixTimer {
    by: By,
    /// Absent: nobody is told (SIGEV_NONE).
    signal: Option<Sig>,
    /// The task that gets it (SIGEV_THREAD_ID); absent: the process.
    tid: Option<u32>,
    value: u64,
    expiry: Expiry,
    /// How many times it expired beside the one that was told last.
    overrun: u32,
}

/// What a timer goes by.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum By {
    /// A clock that goes on by itself, by its number.
    Clock(u64),
    /// What its process ran.
    Process,
    /// What this task ran.
    Task(u32),
}

impl PosixTimer {
    /// When something happens that somebody hears of: time need not stop for others.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        let comes = self.signal.is_some() && matches!(self.by, By::Clock(_));
        self.expiry.next.filter(|_| comes)
    }
}

impl Kernel {
    /// What a timer's clock shows; of a task that has gone, nothing.
    fn timer_clock(&self, pid: u32, by: By) -> Option<u64> {
        match by {
            By::Clock(_) => Some(self.time.now),
            By::Process => self.processes.get(&pid).map(|process| process.used.total()),
            By::Task(tid) => self.tasks.get(&tid).map(|task| task.used.total()),
        }
    }

    /// Timers whose time has come.
    pub(crate) fn fire_timers(&mut self) {
        let mut due = Vec::new();
        let all = self
            .processes
            .values()
            .filter(|process| !process.timers.is_empty());
        for pid in all.map(|process| process.pid).collect::<Vec<_>>() {
            let mut timers = self
                .processes
                .get_mut(&pid)
                .map(|process| std::mem::take(&mut process.timers))
                .unwrap_or_default();
            for (id, timer) in &mut timers {
                let now = self.timer_clock(pid, timer.by);
                if let Some(more) = now.and_then(|now| timer.expiry.expire(now)) {
                    timer.overrun = more.min(MOST_OVERRUNS) as u32;
                    due.push((pid, *id, *timer));
                }
            }
            if let Some(process) = self.processes.get_mut(&pid) {
                process.timers = timers;
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
        let now = self.k.timer_clock(self.pid, timer.by).unwrap_or(u64::MAX);
        let left = timer.expiry.left(now);
        let size = self.time_size(wide);
        for (place, time) in [(at, timer.expiry.interval), (at.wrapping_add(size), left)] {
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
    let by = match clock as u32 {
        CPU_OF_PROCESS => By::Process,
        CPU_OF_TASK => By::Task(c.tid),
        _ => By::Clock(clock),
    };
    let timer = PosixTimer {
        by,
        signal,
        tid,
        value,
        expiry: Expiry::default(),
        overrun: 0,
    };
    c.process().timers.insert(id, timer);
    Ok(0)
}

fn set(c: &mut Call<'_>, wide: bool) -> Answer {
    let old = *c.posix_timer()?;
    let now = c.k.timer_clock(c.pid, old.by).ok_or(Errno::EINVAL)?;
    let shown = match old.by {
        By::Clock(clock) => c.clock(clock)?.max(0).cast_unsigned(),
        By::Process | By::Task(_) => now,
    };
    let expiry = c.new_timer(now, shown, wide)?;
    if c.word(3) != 0 {
        let old_at = c.word(3);
        c.put_posix_timer(old_at, old, wide)?;
    }
    *c.posix_timer()? = PosixTimer {
        expiry,
        overrun: 0,
        ..old
    };
    // A guest that computes until a timer ends it must see time pass.
    c.k.time.counting |= expiry.next.is_some();
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
