//! Timers behind descriptors (timerfd).

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{FileId, OpenFile, Target};
use crate::sys::time::{CPU_OF_PROCESS, CPU_OF_TASK};
use crate::time::Expiry;

const SECOND: u64 = 1_000_000_000;

/// A timerfd. Times are virtual nanoseconds since the run began.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Timer {
    clock: u64,
    /// When it expires next.
    pub(crate) next: Option<u64>,
    /// Between one time and the next; 0: once.
    interval: u64,
}

impl Timer {
    /// How often it expired since it was last read.
    fn expiries(&self, now: u64) -> u64 {
        let since = |at: u64| 1 + (now - at).checked_div(self.interval).unwrap_or(0);
        self.next.filter(|at| *at <= now).map_or(0, since)
    }

    /// How it stands: whether it expired, what counts that, and when it does so next, which is not now.
    pub(crate) fn stands(&self, now: u64) -> (bool, u64, Option<u64>) {
        let expiries = self.expiries(now);
        let activity = self.next.unwrap_or(0).saturating_add(expiries);
        let later = self.next.and_then(|at| match expiries {
            0 => Some(at),
            _ if self.interval == 0 => None,
            times => Some(at.saturating_add(self.interval.saturating_mul(times))),
        });
        (expiries > 0, activity, later.filter(|at| *at > now))
    }

    /// How often it expired until now; it begins to count anew.
    fn take(&mut self, now: u64) -> u64 {
        let times = self.expiries(now);
        if times > 0 {
            let at = self.next.unwrap_or(now);
            let next = at.saturating_add(self.interval.saturating_mul(times));
            self.next = (self.interval > 0).then_some(next);
        }
        times
    }
}

pub(crate) fn timerfd_create(c: &mut Call<'_>) -> Answer {
    let clock = c.word(0) & 0xffff_ffff;
    // Clocks of processors cannot be waited for so (timerfd_create(2)).
    if matches!(clock as u32, CPU_OF_PROCESS | CPU_OF_TASK) {
        return Err(Errno::EINVAL.into());
    }
    c.clock(clock)?;
    let how = flags::open_in(c.abi(), c.word(1) & 0xffff_ffff);
    if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let timer = Timer {
        clock,
        next: None,
        interval: 0,
    };
    let file = OpenFile::new(
        Target::Timer(timer),
        how & open::NONBLOCK | 2,
        b"anon_inode:[timerfd]".to_vec(),
    );
    Ok(u64::from(c.install(file, how & open::CLOSE_ON_EXEC != 0)?))
}

impl Call<'_> {
    fn timer(&mut self) -> Result<&mut Timer, Errno> {
        match &mut self.file(0)?.target {
            Target::Timer(timer) => Ok(timer),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What timerfd_settime and timer_settime ask for: when the timer expires next, and its interval.
    /// It goes by what stands at `now` and shows `shown`.
    pub(super) fn new_timer(&self, now: u64, shown: u64, wide: bool) -> Result<Expiry, Errno> {
        const ABSOLUTE: u64 = 1;
        let at = self.word(2);
        let interval = self.duration(self.time_at(at, wide)?)?;
        let first = self.duration(self.time_at(at.wrapping_add(self.time_size(wide)), wide)?)?;
        let next = match (first, self.word(1) & ABSOLUTE) {
            (0, _) => None,
            (first, 0) => Some(now.saturating_add(first)),
            (first, _) => Some(now.saturating_add(first.saturating_sub(shown))),
        };
        Ok(Expiry { next, interval })
    }

    /// Writes a `struct itimerspec`: interval, then how long until the next time.
    fn put_timer(&mut self, at: u64, timer: Timer, wide: bool) -> Result<(), Errno> {
        let now = self.k.time.now;
        let left = timer.stands(now).2.map_or(0, |next| next - now);
        let size = self.time_size(wide);
        for (place, time) in [(at, timer.interval), (at.wrapping_add(size), left)] {
            let seconds = i64::try_from(time / SECOND).unwrap_or(i64::MAX);
            self.put_time(place, seconds, time % SECOND, wide)?;
        }
        Ok(())
    }

    /// read of a timerfd: how often it expired, in eight bytes.
    pub(super) fn read_timer(&mut self, id: FileId, room: u64, nonblocking: bool) -> Result<Vec<u8>, Fail> {
        if room < 8 {
            return Err(Errno::EINVAL.into());
        }
        let now = self.k.time.now;
        let Some(Target::Timer(timer)) = self.k.open.get_mut(id).map(|file| &mut file.target) else {
            return Err(Errno::EBADF.into());
        };
        match timer.take(now) {
            0 if nonblocking => Err(Errno::EAGAIN.into()),
            0 => {
                let next = timer.next;
                self.wake_at(next);
                Err(Fail::Wait)
            }
            times => Ok(Layout::new(self.abi()).u64(times).bytes),
        }
    }
}

fn set(c: &mut Call<'_>, wide: bool) -> Answer {
    let old = *c.timer()?;
    let shown = c.clock(old.clock)?.max(0).cast_unsigned();
    let Expiry { next, interval } = c.new_timer(c.k.time.now, shown, wide)?;
    if c.word(3) != 0 {
        let old_at = c.word(3);
        c.put_timer(old_at, old, wide)?;
    }
    *c.timer()? = Timer {
        next,
        interval,
        ..old
    };
    c.k.wake += 1;
    Ok(0)
}

pub(crate) fn timerfd_settime(c: &mut Call<'_>) -> Answer {
    set(c, false)
}

pub(crate) fn timerfd_settime64(c: &mut Call<'_>) -> Answer {
    set(c, true)
}

pub(crate) fn timerfd_gettime(c: &mut Call<'_>) -> Answer {
    let (timer, at) = (*c.timer()?, c.word(1));
    c.put_timer(at, timer, false)?;
    Ok(0)
}

pub(crate) fn timerfd_gettime64(c: &mut Call<'_>) -> Answer {
    let (timer, at) = (*c.timer()?, c.word(1));
    c.put_timer(at, timer, true)?;
    Ok(0)
}
