//! A process that runs and stands still as it is told.
//!
//! `SIGSTOP` cannot be caught, blocked or ignored, and reaches the first process of a pid namespace when it comes from outside
//! (`pid_namespaces(7)`): it holds what is hung or hostile too, costs nothing while the process runs, and the guest sees
//! nothing of it. A pidfd names the process, so that a number that another process was given meanwhile is never hit.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hotcell_schema::cores::CoreSet;
use nix::sched::{CpuSet, sched_setaffinity};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// How long a process may take to stand still after it was told. It takes microseconds, but where it is deep in the kernel, or where
/// others have its core: it must run to stop. On a host with six times the load it could have, a second was not always enough.
const STILL: Duration = Duration::from_secs(10);
/// How often is asked whether it stands still before a pause is made between two questions.
const AT_ONCE: u32 = 64;
/// The pause between two questions after that.
const PAUSE: Duration = Duration::from_micros(50);

/// A child process of this one.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    pid: i32,
    /// The processors that it was bound to last.
    cpus: Option<CoreSet>,
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
    /// Opens a child by its process id. It must not have been waited for yet.
    ///
    /// # Errors
    ///
    /// If there is no such process, or the kernel has no pidfds (before Linux 5.3).
    pub fn open(pid: i32) -> io::Result<Self> {
        let id = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            pidfd: pidfd_open(id, PidfdFlags::empty())?,
            pid,
            cpus: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes it stand still, and waits until it does.
    ///
    /// # Errors
    ///
    /// If it does not within ten seconds, or is no child of this process.
    pub fn stop(&self) -> io::Result<Still> {
        if !self.signal(Signal::STOP)? {
            return Ok(Still::Ended);
        }
        let until = Instant::now() + STILL;
        // What is found is left for whoever waits for the process.
        let look =
            WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let mut asked = 0u32;
        loop {
            use std::os::fd::AsFd as _;
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), look) {
                Ok(Some(status)) if status.stopped() => return Ok(Still::Stopped),
                Ok(Some(_)) => return Ok(Still::Ended),
                Ok(None) => {}
                // Whoever owns it has waited for its end already.
                Err(rustix::io::Errno::CHILD) => return Ok(Still::Ended),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the process does not stand still",
                ));
            }
            asked = asked.saturating_add(1);
            match asked < AT_ONCE {
                true => std::thread::yield_now(),
                false => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Lets it go on; `false`: it has ended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn go_on(&self) -> io::Result<bool> {
        self.signal(Signal::CONT)
    }

    /// Ends it now.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn kill(&self) -> io::Result<bool> {
        self.signal(Signal::KILL)
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
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let task = task?.file_name();
            let id = task.to_str().and_then(|name| name.parse().ok());
            match id.map(|id| sched_setaffinity(nix::unistd::Pid::from_raw(id), &set)) {
                // A thread that has ended needs no core.
                None | Some(Ok(()) | Err(nix::errno::Errno::ESRCH)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        self.cpus = Some(cpus.clone());
        Ok(())
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
