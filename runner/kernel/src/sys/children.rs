//! Waiting for children and for those that a process traces: wait4, waitpid, waitid.

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::abi::layout::Layout;
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail};
use crate::sys::process::put_usage;
use crate::task::{Change, Ended, Process};

/// Options (uapi/linux/wait.h).
const NO_HANG: u64 = 1;
const STOPPED: u64 = 2;
const EXITED: u64 = 4;
const CONTINUED: u64 = 8;
const NO_WAIT: u64 = 0x100_0000;

/// What there is to tell of somebody: a process, or a traced task.
#[derive(Debug, Clone, Copy)]
enum News {
    /// A child has ended.
    Ended(Ended),
    /// A task that was traced has ended; its parent is another.
    Gone(Ended),
    /// A traced task stands still: the status word above its lowest eight bits.
    Held(u32),
    /// A child stands still or goes on again.
    Changed(Change),
}

/// Whom a call waits for: all (-1), those of the own group (0), one, or those of a group (negative).
fn fits(which: i32, own_group: u32, process: &Process, tid: u32) -> bool {
    match which {
        -1 => true,
        0 => process.group == own_group,
        1.. => tid == which.cast_unsigned(),
        other => process.group == other.unsigned_abs(),
    }
}

/// News of somebody that fits, or `None` when there are none yet.
fn news(c: &mut Call<'_>, which: i32, options: u64) -> Result<Option<(u32, News)>, Errno> {
    let own = c.pid;
    let family = c.abi().family;
    let group = c.process().group;
    let mut any = false;
    for process in c.k.processes.values().filter(|process| process.parent == own) {
        if fits(which, group, process, process.pid) {
            any = true;
            if let Some(ended) = process.ended.filter(|_| options & EXITED != 0) {
                return Ok(Some((process.pid, News::Ended(ended))));
            }
        }
    }
    for (tid, ended) in &c.process().gone {
        if which <= 0 || *tid == which.cast_unsigned() {
            any = true;
            if options & EXITED != 0 {
                return Ok(Some((*tid, News::Gone(*ended))));
            }
        }
    }
    for task in c.k.tasks.values() {
        let trace = task.trace.as_ref().filter(|trace| trace.tracer == own);
        let (Some(trace), Some(process)) = (trace, c.k.processes.get(&task.pid)) else {
            continue;
        };
        if fits(which, group, process, task.tid) {
            any = true;
            if let Some(stop) = trace.stop.filter(|stop| !stop.told) {
                let status = stop.status(trace, |signal| signal.number(family));
                return Ok(Some((task.tid, News::Held(status))));
            }
        }
    }
    if !any {
        return Err(Errno::ECHILD);
    }
    let wanted = |change: &Change| match change {
        Change::Stopped(_) => options & STOPPED != 0,
        Change::Continued => options & CONTINUED != 0,
    };
    let mut children = c.k.processes.values().filter(|process| process.parent == own);
    Ok(children.find_map(|process| {
        let change = process.change.filter(wanted)?;
        fits(which, group, process, process.pid).then_some((process.pid, News::Changed(change)))
    }))
}

/// They were told.
fn heard(c: &mut Call<'_>, pid: u32, news: News) {
    match news {
        News::Ended(_) => c.k.reap(pid),
        News::Gone(_) => c.process().gone.retain(|(tid, _)| *tid != pid),
        News::Held(_) => {
            let stop = c.k.traced(pid).and_then(|trace| trace.stop.as_mut());
            if let Some(stop) = stop {
                stop.told = true;
            }
        }
        News::Changed(_) => {
            if let Some(process) = c.k.processes.get_mut(&pid) {
                process.change = None;
            }
        }
    }
}

fn wait_for(c: &mut Call<'_>, which: i32, at: u64, options: u64, usage: u64) -> Answer {
    let Some((pid, news)) = news(c, which, options | EXITED)? else {
        return if options & NO_HANG != 0 {
            Ok(0)
        } else {
            Err(Fail::Wait)
        };
    };
    let family = c.abi().family;
    let status = match news {
        News::Ended(ended) | News::Gone(ended) => ended.status(family),
        News::Held(status) => status << 8 | 0x7f,
        News::Changed(Change::Stopped(signal)) => (signal.number(family) as u32) << 8 | 0x7f,
        News::Changed(Change::Continued) => 0xffff,
    };
    if at != 0 {
        c.put_u32(at, status)?;
    }
    if usage != 0 {
        let used =
            c.k.processes
                .get(&pid)
                .map_or_else(Default::default, |process| process.used);
        put_usage(c, usage, used)?;
    }
    heard(c, pid, news);
    Ok(u64::from(pid))
}

pub(crate) fn wait4(c: &mut Call<'_>) -> Answer {
    wait_for(c, c.int(0), c.word(1), c.word(2), c.word(3))
}

pub(crate) fn waitpid(c: &mut Call<'_>) -> Answer {
    wait_for(c, c.int(0), c.word(1), c.word(2), 0)
}

pub(crate) fn waitid(c: &mut Call<'_>) -> Answer {
    let (kind, at, options) = (c.word(0) & 0xffff_ffff, c.word(2), c.word(3));
    if options & (EXITED | STOPPED | CONTINUED) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let id = c.int(1);
    let mut waits = true;
    let which = match kind {
        0 => -1,
        1 if id > 0 => id,
        // A process by its descriptor, which also says whether to wait (pidfd_open(2), PIDFD_NONBLOCK).
        3 => {
            waits = c.file(1)?.flags & open::NONBLOCK == 0;
            c.process_behind(1)?.cast_signed()
        }
        // The group of the system's first process.
        2 if id == 1 => return Err(Errno::ECHILD.into()),
        2 if id >= 0 => -id,
        _ => return Err(Errno::EINVAL.into()),
    };
    let Some((pid, news)) = news(c, which, options)? else {
        if options & NO_HANG == 0 {
            return Err(if waits { Fail::Wait } else { Errno::EAGAIN.into() });
        }
        if at != 0 {
            c.write(at, &[0; 128])?;
        }
        return Ok(0);
    };
    if at != 0 {
        let family = c.abi().family;
        // CLD_* of uapi/asm-generic/siginfo.h.
        let (code, value) = match news {
            News::Ended(Ended::Exited(code)) | News::Gone(Ended::Exited(code)) => (1, u64::from(code)),
            News::Ended(Ended::Killed(signal)) | News::Gone(Ended::Killed(signal)) => {
                (2, signal.number(family))
            }
            News::Held(status) => (4, u64::from(status)),
            News::Changed(Change::Stopped(signal)) => (5, signal.number(family)),
            News::Changed(Change::Continued) => (6, Sig::CONT.number(family)),
        };
        let uid = c.k.processes.get(&pid).map_or(0, |process| process.uid[0]);
        let signal = Sig::CHLD.number(family);
        let layout = Layout::new(c.abi()).low(signal);
        // mips has the code before the error number.
        let layout = if c.abi().is_mips() {
            layout.u32(code).u32(0)
        } else {
            layout.u32(0).u32(code)
        };
        let word = c.abi().word() as usize;
        let mut bytes = layout.align(word).u32(pid).u32(uid).low(value).bytes;
        bytes.resize(128, 0);
        c.write(at, &bytes)?;
    }
    if options & NO_WAIT == 0 {
        heard(c, pid, news);
    }
    Ok(0)
}
