//! Whether the holder of a lock lives, from `/proc`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Holder;
use crate::cores::stat::{STAT_BYTES, Stat};

/// Why it cannot be told whether a process lives.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessFault {
    /// `/proc` does not show the processes of others, or is not mounted.
    #[error(
        "{} does not show process 1 ({source}): it is no proc file system, or hides the processes of others (hidepid); \
         whether they live cannot be told from it", .folder.display()
    )]
    Hidden {
        /// The folder that was given.
        folder: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The host does not let us look at a process.
    #[error("looking at process {pid} failed: {source}")]
    Host {
        /// The process.
        pid: u32,
        /// What the host said.
        source: io::Error,
    },
    /// What `/proc` says of a process is not as in proc(5).
    #[error("/proc/{pid}/stat is not as proc(5) says")]
    Shape {
        /// The process.
        pid: u32,
    },
}

/// The processes of this host, as a `/proc` shows them. Start times are those of its reader's time namespace.
#[derive(Debug, Clone)]
pub struct Processes {
    folder: PathBuf,
}

impl Processes {
    /// The processes in this folder, `/proc` outside of tests. Must show process 1, which always is: in a `/proc` that hides
    /// others they would seem gone.
    pub fn open(folder: &Path) -> Result<Self, ProcessFault> {
        let processes = Self {
            folder: folder.to_owned(),
        };
        match processes.stat(1) {
            Ok(_) => Ok(processes),
            Err(source) => Err(ProcessFault::Hidden {
                folder: processes.folder,
                source,
            }),
        }
    }

    /// The process that has this pid now; `None` when there is none that still runs.
    ///
    /// A process that has ended and was not waited for is gone. One whose first thread has ended is not, as long as it has others:
    /// `/proc` calls both zombies.
    pub fn find(&self, pid: u32) -> Result<Option<Holder>, ProcessFault> {
        let text = match self.stat(pid) {
            Ok(text) => text,
            // There is no such process; or it went while we read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(source) => return Err(ProcessFault::Host { pid, source }),
        };
        let stat = Stat::parse(&text).ok_or(ProcessFault::Shape { pid })?;
        if stat.has_ended() {
            return Ok(None);
        }
        Holder::new(pid, stat.started)
            .map(Some)
            .ok_or(ProcessFault::Shape { pid })
    }

    /// Whether this very process still runs: not gone, and its pid not another's by now.
    pub fn lives(&self, holder: Holder) -> Result<bool, ProcessFault> {
        Ok(self.find(holder.pid())? == Some(holder))
    }

    /// A descriptor that becomes readable when this process has ended (poll(2), pidfd_open(2)): from then on [`Self::lives`]
    /// says no. `None` when it has ended already. The process must have the same pid for the caller as in this `/proc`.
    pub fn watch(&self, holder: Holder) -> Result<Option<OwnedFd>, ProcessFault> {
        let pid = holder.pid();
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(id) = id else { return Ok(None) };
        let descriptor = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => {
                let source = error.into();
                return Err(ProcessFault::Host { pid, source });
            }
        };
        // Whoever has the pid now is whom the descriptor is of, if it is still there: a pid is given away again after its end only.
        Ok(self.lives(holder)?.then_some(descriptor))
    }

    fn stat(&self, pid: u32) -> io::Result<Vec<u8>> {
        let file = File::open(self.folder.join(pid.to_string()).join("stat"))?;
        let mut text = Vec::new();
        file.take(STAT_BYTES).read_to_end(&mut text)?;
        Ok(text)
    }
}
