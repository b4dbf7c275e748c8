//! A process that runs and stands still as it is told.
//!
//! `SIGSTOP` cannot be caught, blocked or ignored, and reaches the first process of a pid namespace when it comes from outside
//! (`pid_namespaces(7)`): it holds what is hung or hostile too, costs nothing while the process runs, and the guest sees
//! nothing of it. Where the process makes others, its control group stands still with it. A pidfd names the process, so that a number that another process was given meanwhile is never hit.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use hotcell_schema::cores::CoreSet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};

use super::locks::Holder;
use super::stat::{STAT_BYTES, Stat};
use crate::supervise::Freezer;

/// How long a process may take to stand still after it was told. It takes microseconds, but where it is deep in the kernel, or where
/// others have its core: it must run to stop. On a host with six times the load it could have, a second was not always enough.
const STILL: Duration = Duration::from_secs(10);
/// For so long it is asked without a pause whether it stands still: one who runs alone on his core does after 10 to 20 us, and to
/// sleep and wake costs more than that.
const AT_ONCE: Duration = Duration::from_micros(30);
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// How long to wait until it is asked once more whether somebody stands still who was told so long ago: half of that time.
/// `None`: not at all.
pub(super) fn pause_after(told: Duration) -> Option<Duration> {
    (told >= AT_ONCE).then(|| (told / 2).min(LONGEST_PAUSE))
}

/// A process, named by a pidfd.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    holder: Holder,
    /// Whether this process is its parent.
    child: bool,
    /// Its `/proc/PID/stat`: once opened it never shows another process.
    stat: File,
    /// The processors that it was bound to last.
    cpus: Option<CoreSet>,
    /// By what the processes that it made stand still with it, where it may make some.
    whole: Option<Freezer>,
}

/// What became of a process that was told to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// It stands still.
    Stopped,
    /// It has ended.
    Ended,
}

impl Process {
    /// Opens a process by its id. It must be one that cannot be waited for meanwhile: a child of the caller.
    ///
    /// # Errors
    ///
    /// If there is no such process, or the kernel has no pidfds (before Linux 5.3).
    pub fn open(pid: i32) -> io::Result<Self> {
        let id = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        Self::of(pidfd_open(id, PidfdFlags::empty())?, pid)
    }

    /// Takes over a pidfd that somebody sent.
    ///
    /// # Errors
    ///
    /// If it is no pidfd, or its process has ended or cannot be seen from here.
    pub fn from_pidfd(pidfd: OwnedFd) -> io::Result<Self> {
        // The kernel says which process it is, by the number that it has here (`pidfd_open(2)`, fdinfo).
        let mut text = String::new();
        File::open(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?
            .take(STAT_BYTES)
            .read_to_string(&mut text)?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid = pid.and_then(|pid| pid.trim().parse().ok());
        let none = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "not the pidfd of a process that runs",
            )
        };
        Self::of(pidfd, pid.filter(|pid| *pid > 0).ok_or_else(none)?)
    }

    fn of(pidfd: OwnedFd, pid: i32) -> io::Result<Self> {
        let stat = File::open(format!("/proc/{pid}/stat"))?;
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let seen = look(&stat)?.ok_or_else(none)?;
        let pid = u32::try_from(pid).map_err(io::Error::other)?;
        let process = Self {
            holder: Holder::new(pid, seen.started).ok_or_else(none)?,
            child: state(&pidfd).is_ok(),
            pidfd,
            stat,
            cpus: None,
            whole: None,
        };
        // The number was the process's when its file was opened, if it is its still.
        match process.has_ended()? {
            false => Ok(process),
            true => Err(none()),
        }
    }

    /// The same with all processes that came or will come of it: they stand still and go on with it. It must be in a control
    /// group of its own by now.
    ///
    /// # Errors
    ///
    /// If it is in none that can stand still as a whole.
    pub fn with_all(self) -> io::Result<Self> {
        let whole = Freezer::of(self.holder.pid())?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the cell makes processes, and is in no control group that could make them stand still with it",
            )
        })?;
        Ok(Self {
            whole: Some(whole),
            ..self
        })
    }

    /// Its process id and start time.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Its pidfd, to be handed on.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has ended: only then its pidfd is readable (`pidfd_open(2)`).
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut watched = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
    }

    /// The one user that it belongs to in every way (real, effective, saved, for files); `None`: several, or it has ended.
    ///
    /// # Errors
    ///
    /// If `/proc` does not show it.
    pub fn owner(&self) -> io::Result<Option<u32>> {
        let mut text = String::new();
        File::open(format!("/proc/{}/status", self.holder.pid()))?
            .take(64 << 10)
            .read_to_string(&mut text)?;
        let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
        let ids: Option<Vec<u32>> = line.map(|line| {
            let ids = line.split_ascii_whitespace();
            ids.filter_map(|id| id.parse().ok()).collect()
        });
        let ended = self.has_ended()?;
        Ok(match ids.as_deref() {
            Some([first, rest @ ..]) if !ended && rest.iter().all(|id| id == first) => Some(*first),
            _ => None,
        })
    }

    /// Makes it stand still, and waits until it does.
    ///
    /// # Errors
    ///
    /// If it does not within ten seconds.
    pub fn stop(&self) -> io::Result<Still> {
        if !self.tell_to_stop()? {
            return Ok(Still::Ended);
        }
        let told = Instant::now();
        loop {
            if let Some(still) = self.is_still(told.elapsed())? {
                return Ok(still);
            }
            if told.elapsed() >= STILL {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the process does not stand still",
                ));
            }
            match pause_after(told.elapsed()) {
                Some(pause) => std::thread::sleep(pause),
                None => std::hint::spin_loop(),
            }
        }
    }

    /// Tells it to stand still, which it soon does ([`Process::is_still`]); `false`: it has ended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn tell_to_stop(&self) -> io::Result<bool> {
        self.signal(Signal::STOP)
    }

    /// Whether it stands still, or has ended; `None`: it does not yet. It was told so long ago.
    ///
    /// # Errors
    ///
    /// If `/proc` does not show it.
    pub fn is_still(&self, told: Duration) -> io::Result<Option<Still>> {
        let Some(whole) = &self.whole else {
            return self.first_is_still(told);
        };
        // The others are told when the first one stands still: who is frozen would not hear a signal.
        if self.has_ended()? {
            return Ok(Some(Still::Ended));
        }
        if whole.is_frozen()? {
            return Ok(Some(Still::Stopped));
        }
        if self.first_is_still(told)? == Some(Still::Stopped) {
            whole.freeze(true)?;
        }
        Ok(None)
    }

    fn first_is_still(&self, told: Duration) -> io::Result<Option<Still>> {
        // A parent is told by a tenth of the work that `/proc` costs, and of all threads at once (`waitid(2)`). What a parent is
        // not told (whoever waits for stops and takes them, a debugger that holds the process) stands in `/proc` all the same.
        if self.child {
            match state(&self.pidfd) {
                Ok(Some(status)) if status.stopped() => return Ok(Some(Still::Stopped)),
                Ok(Some(_)) => return Ok(Some(Still::Ended)),
                Ok(None) if told < LONGEST_PAUSE => return Ok(None),
                // Somebody has waited for its end meanwhile.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(match look(&self.stat)? {
            None => Some(Still::Ended),
            Some(seen) if seen.has_ended() => Some(Still::Ended),
            Some(seen) if seen.stands_still() && (seen.threads <= 1 || self.all_still()?) => {
                Some(Still::Stopped)
            }
            Some(_) => None,
        })
    }

    /// Whether every thread stands still.
    fn all_still(&self) -> io::Result<bool> {
        let mut threads = 0u64;
        for task in fs::read_dir(format!("/proc/{}/task", self.holder.pid()))? {
            let still = File::open(task?.path().join("stat")).and_then(|stat| look(&stat));
            match still {
                Ok(Some(seen)) if !seen.stands_still() => return Ok(false),
                Ok(_) => threads = threads.saturating_add(1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // One that was made while the others were looked at is not among them.
        Ok(look(&self.stat)?.is_none_or(|seen| seen.threads <= threads))
    }

    /// Lets it go on; `false`: it has ended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn go_on(&self) -> io::Result<bool> {
        if let Some(whole) = &self.whole {
            whole.freeze(false)?;
        }
        self.signal(Signal::CONT)
    }

    /// Ends it now.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn kill(&self) -> io::Result<bool> {
        let killed = self.signal(Signal::KILL);
        if let Some(whole) = &self.whole {
            whole.let_end();
        }
        killed
    }

    /// Binds every thread of it to these processors.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it: none of them is online, or the process belongs to somebody else.
    pub fn bind(&mut self, cpus: &CoreSet) -> io::Result<()> {
        if self.cpus.as_ref() == Some(cpus) {
            return Ok(());
        }
        let set = processors(cpus)?;
        // It stands still, so that no thread is added meanwhile.
        for thread in self.threads()? {
            match sched_setaffinity(thread, &set) {
                // A thread that has ended needs no core.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.cpus = Some(cpus.clone());
        Ok(())
    }

    fn threads(&self) -> io::Result<Vec<nix::unistd::Pid>> {
        if let Some(whole) = &self.whole {
            return whole.threads();
        }
        let mut threads = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.holder.pid()))? {
            let task = task?.file_name();
            let id = task.to_str().and_then(|name| name.parse().ok());
            threads.extend(id.map(nix::unistd::Pid::from_raw));
        }
        Ok(threads)
    }

    /// `false`: it has ended.
    fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a parent is told of a child that stands still or has ended, which is not taken from whoever waits for it.
///
/// # Errors
///
/// If it is nobody's here, or was waited for.
fn state(child: &OwnedFd) -> rustix::io::Result<Option<WaitIdStatus>> {
    let options =
        WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(child.as_fd()), options)
}

/// What a `stat` file says now; `None`: the process has ended and was waited for.
fn look(stat: &File) -> io::Result<Option<Stat>> {
    let mut text = [0; STAT_BYTES as usize];
    let length = match stat.read_at(&mut text, 0) {
        Ok(length) => length,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = text.get(..length).unwrap_or_default();
    match Stat::parse(text) {
        Some(stat) => Ok(Some(stat)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/PID/stat is not as proc(5) says",
        )),
    }
}

/// Binds the calling thread to these processors; threads and processes that it makes later begin there.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn bind_this_thread(cpus: &CoreSet) -> io::Result<()> {
    Ok(sched_setaffinity(
        nix::unistd::Pid::from_raw(0),
        &processors(cpus)?,
    )?)
}

fn processors(cpus: &CoreSet) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter() {
        set.set(usize::try_from(cpu).map_err(io::Error::other)?)?;
    }
    Ok(set)
}
