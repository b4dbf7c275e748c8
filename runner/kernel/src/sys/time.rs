//! Clocks, sleeps and timers, all of virtual time.

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::time::Expiry;
use crate::view;

const SECOND: u64 = 1_000_000_000;
/// CLOCK_PROCESS_CPUTIME_ID and CLOCK_THREAD_CPUTIME_ID (uapi/linux/time.h).
pub(super) const CPU_OF_PROCESS: u32 = 2;
pub(super) const CPU_OF_TASK: u32 = 3;

impl Call<'_> {
    /// Bytes of a `timespec` or `timeval`; `wide`: of the 64-bit kind that 32-bit ABIs also have.
    pub(crate) fn time_size(&self, wide: bool) -> u64 {
        if wide { 16 } else { 2 * self.abi().word() }
    }

    /// Reads a `timespec` or `timeval`; `wide`: of the 64-bit kind.
    pub(crate) fn time_at(&self, address: u64, wide: bool) -> Result<(i64, i64), Errno> {
        self.view().time_at(address, wide)
    }

    /// Writes a `timespec` or `timeval`.
    pub(crate) fn put_time(
        &mut self,
        address: u64,
        seconds: i64,
        rest: u64,
        wide: bool,
    ) -> Result<(), Errno> {
        let layout = Layout::new(self.abi());
        let bytes = if wide {
            layout.u64(seconds.cast_unsigned()).u64(rest).bytes
        } else {
            layout.word(seconds.cast_unsigned()).word(rest).bytes
        };
        self.write(address, &bytes)
    }

    /// What a clock shows, in nanoseconds.
    pub(super) fn clock(&mut self, clock: u64) -> Result<i64, Errno> {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match clock as u32 {
            0 | 5 | 8 | 11 => Ok(self.k.time.real()),
            1 | 4 | 6 | 7 | 9 => Ok(signed(self.k.time.since_boot())),
            CPU_OF_PROCESS => Ok(signed(self.process().used.total())),
            CPU_OF_TASK => Ok(signed(self.task().used.total())),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A length of time given by the guest, in nanoseconds.
    pub(crate) fn duration(&self, time: (i64, i64)) -> Result<u64, Errno> {
        view::duration(time)
    }

    /// A sleep that a signal ended tells how long it did not last, where the guest asks and memory takes it.
    pub(crate) fn tell_rest_of_sleep(&mut self) {
        const ABSOLUTE: u64 = 1;
        let (at, wide) = match self.pending.row.name {
            "nanosleep" => (self.word(1), false),
            "clock_nanosleep" if self.word(1) & ABSOLUTE == 0 => (self.word(3), false),
            "clock_nanosleep_time64" if self.word(1) & ABSOLUTE == 0 => (self.word(3), true),
            _ => return,
        };
        if let Some(deadline) = self.pending.deadline.filter(|_| at != 0) {
            let left = deadline.saturating_sub(self.k.time.now);
            let seconds = i64::try_from(left / SECOND).unwrap_or(i64::MAX);
            let _ = self.put_time(at, seconds, left % SECOND, wide);
        }
    }

    /// Waits until the deadline; `Ok` once it has passed.
    fn sleep_until(&mut self, deadline: impl FnOnce(&mut Self) -> Result<u64, Errno>) -> Answer {
        let at = match self.pending.deadline {
            Some(at) => at,
            None => {
                let at = deadline(self)?;
                self.pending.deadline = Some(at);
                at
            }
        };
        if self.k.time.now >= at {
            Ok(0)
        } else {
            Err(Fail::Wait)
        }
    }
}

fn gettime(c: &mut Call<'_>, wide: bool) -> Answer {
    let now = c.clock(c.word(0))?;
    let second = SECOND.cast_signed();
    c.put_time(
        c.word(1),
        now.div_euclid(second),
        now.rem_euclid(second).cast_unsigned(),
        wide,
    )?;
    Ok(0)
}

pub(crate) fn clock_gettime(c: &mut Call<'_>) -> Answer {
    gettime(c, false)
}

pub(crate) fn clock_gettime64(c: &mut Call<'_>) -> Answer {
    gettime(c, true)
}

fn getres(c: &mut Call<'_>, wide: bool) -> Answer {
    c.clock(c.word(0))?;
    if c.word(1) != 0 {
        let coarse = matches!(c.word(0), 5 | 6);
        c.put_time(c.word(1), 0, if coarse { 4_000_000 } else { 1 }, wide)?;
    }
    Ok(0)
}

pub(crate) fn clock_getres(c: &mut Call<'_>) -> Answer {
    getres(c, false)
}

pub(crate) fn clock_getres64(c: &mut Call<'_>) -> Answer {
    getres(c, true)
}

pub(crate) fn gettimeofday(c: &mut Call<'_>) -> Answer {
    let now = c.k.time.real();
    let second = SECOND.cast_signed();
    if c.word(0) != 0 {
        c.put_time(
            c.word(0),
            now.div_euclid(second),
            now.rem_euclid(second).cast_unsigned() / 1000,
            false,
        )?;
    }
    if c.word(1) != 0 {
        c.write(c.word(1), &[0; 8])?;
    }
    Ok(0)
}

pub(crate) fn time(c: &mut Call<'_>) -> Answer {
    let now = c.k.time.real().div_euclid(SECOND.cast_signed()).cast_unsigned();
    if c.word(0) != 0 {
        c.put_word(c.word(0), now)?;
    }
    Ok(c.abi().cut(now))
}

pub(crate) fn nanosleep(c: &mut Call<'_>) -> Answer {
    c.sleep_until(|c| {
        let wanted = c.duration(c.time_at(c.word(0), false)?)?;
        Ok(c.k.time.now.saturating_add(wanted))
    })
}

fn clock_sleep(c: &mut Call<'_>, wide: bool) -> Answer {
    const ABSOLUTE: u64 = 1;
    c.sleep_until(|c| {
        let wanted = c.duration(c.time_at(c.word(2), wide)?)?;
        if c.word(1) & ABSOLUTE == 0 {
            return Ok(c.k.time.now.saturating_add(wanted));
        }
        let now = c.clock(c.word(0))?.max(0).cast_unsigned();
        Ok(c.k.time.now.saturating_add(wanted.saturating_sub(now)))
    })
}

pub(crate) fn clock_nanosleep(c: &mut Call<'_>) -> Answer {
    clock_sleep(c, false)
}

pub(crate) fn clock_nanosleep64(c: &mut Call<'_>) -> Answer {
    clock_sleep(c, true)
}

pub(crate) fn times(c: &mut Call<'_>) -> Answer {
    const TICK: u64 = SECOND / 100;
    if c.word(0) != 0 {
        let used = c.process().used;
        let layout = Layout::new(c.abi())
            .word(used.user / TICK)
            .word(used.system / TICK);
        let bytes = layout.word(0).word(0).bytes;
        c.write(c.word(0), &bytes)?;
    }
    Ok(c.abi().cut(c.k.time.since_boot() / TICK))
}

/// Sets a timer; gives how it stood.
fn arm(c: &mut Call<'_>, which: u64, after: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let old = stands(c, which)?;
    let now = own_clock(c, which);
    if let Some(timer) = c.process().intervals.get_mut(which as usize) {
        let next = (after > 0).then(|| now.saturating_add(after));
        *timer = Expiry { next, interval };
    }
    c.k.time.counting |= after > 0;
    Ok(old)
}

/// What a timer of setitimer goes by: time as such, or what the process used of it.
fn own_clock(c: &mut Call<'_>, which: u64) -> u64 {
    match which {
        0 => c.k.time.now,
        1 => c.process().used.user,
        _ => c.process().used.total(),
    }
}

/// Interval of a timer, and how long until it expires.
fn stands(c: &mut Call<'_>, which: u64) -> Result<(u64, u64), Errno> {
    let now = own_clock(c, which);
    let timer = c.process().intervals.get(which as usize).ok_or(Errno::EINVAL)?;
    Ok((timer.interval, timer.left(now)))
}

pub(crate) fn alarm(c: &mut Call<'_>) -> Answer {
    let seconds = c.word(0) & 0xffff_ffff;
    let (_, left) = arm(c, 0, seconds.saturating_mul(SECOND), 0)?;
    Ok(left.div_ceil(SECOND))
}

pub(crate) fn setitimer(c: &mut Call<'_>) -> Answer {
    let which = c.word(0) & 0xffff_ffff;
    let size = c.time_size(false);
    let microseconds = |c: &Call<'_>, at: u64| -> Result<u64, Errno> {
        let (seconds, rest) = c.time_at(at, false)?;
        c.duration((seconds, rest.checked_mul(1000).ok_or(Errno::EINVAL)?))
    };
    let at = c.word(1);
    let (interval, after) = if at == 0 {
        (0, 0)
    } else {
        (microseconds(c, at)?, microseconds(c, at.wrapping_add(size))?)
    };
    let old = arm(c, which, after, interval)?;
    put_timer(c, c.word(2), old)
}

pub(crate) fn getitimer(c: &mut Call<'_>) -> Answer {
    let stands = stands(c, c.word(0) & 0xffff_ffff)?;
    put_timer(c, c.word(1), stands)
}

/// A `struct itimerval`: nothing of what is left is lost (hrtimer's remaining time is rounded up to a microsecond).
fn put_timer(c: &mut Call<'_>, at: u64, (interval, left): (u64, u64)) -> Answer {
    if at != 0 {
        let size = c.time_size(false);
        for (place, value) in [(at, interval), (at.wrapping_add(size), left)] {
            let micro = value.div_ceil(1000);
            c.put_time(place, (micro / 1_000_000).cast_signed(), micro % 1_000_000, false)?;
        }
    }
    Ok(0)
}
