//! The monitor of a run: one `hotcell-monitor` for all cells whose guests run on the host's own kernel.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hotcell_monitor::protocol::{Answer, Ask, Ended, Watch, hear, say};
use hotcell_monitor::story::Sample;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::deny::Deny;

/// Bytes of the ring between kernel and monitor: what a guest does meanwhile that does nothing but calls for a tenth of a second.
const RING: u32 = 1 << 24;

/// Starts the monitor when it is first needed.
#[derive(Debug)]
pub(crate) struct Monitor {
    executable: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    NotAsked,
    Here(Talk),
    Gone(String),
}

/// The monitor's process. It ends when its standard input does.
#[derive(Debug)]
struct Talk {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// What the monitor is told of a guest.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// What it begins with.
    pub(crate) sample: Sample,
    /// What it may not do.
    pub(crate) deny: Deny,
    /// Most events that are written.
    pub(crate) most: u64,
    /// Whether they are read while they are written.
    pub(crate) live: bool,
    /// Where the others go, if those are read too.
    pub(crate) more: Option<PathBuf>,
}

/// A cell that is watched.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    monitor: &'a Monitor,
    /// Its number; none once it has ended, when the number may be another's.
    cell: Option<u32>,
}

impl Monitor {
    /// One whose executable stands in a folder.
    pub(crate) fn new(libexec: &Path) -> Self {
        Self {
            executable: libexec.join("hotcell-monitor"),
            state: Mutex::default(),
        }
    }

    /// Its executable.
    pub(crate) fn executable(&self) -> PathBuf {
        self.executable.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches what a process will make, from now on. The error says why nobody can be watched on this host.
    pub(crate) fn watch(
        &self,
        host: &ArchProfile,
        pid: i32,
        guest: Guest,
        events: &Path,
    ) -> Result<Watched<'_>, String> {
        let mut state = self.state();
        if let State::NotAsked = *state {
            *state = match Talk::start(&self.executable, host) {
                Ok(talk) => State::Here(talk),
                Err(why) => State::Gone(why),
            };
        }
        let talk = match &mut *state {
            State::Here(talk) => talk,
            State::Gone(why) => return Err(why.clone()),
            State::NotAsked => return Err("nobody asked for the monitor".to_owned()),
        };
        let watch = Watch {
            pid,
            deny: guest.deny,
            sample: guest.sample,
            events: events.to_owned(),
            most: guest.most,
            live: guest.live,
            more: guest.more,
        };
        match talk.ask(&Ask::Watch(Box::new(watch)))? {
            Answer::Watched(cell) => Ok(Watched {
                monitor: self,
                cell: Some(cell),
            }),
            _ => Err(ELSE.to_owned()),
        }
    }
}

/// What is said of an answer to another question.
const ELSE: &str = "the monitor answered something else";

impl Watched<'_> {
    /// The cell has ended: all that it did is in its file.
    pub(crate) fn end(mut self) -> Result<Ended, String> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Ended, String> {
        let cell = self.cell.take().ok_or("it has ended")?;
        let mut state = self.monitor.state();
        let State::Here(talk) = &mut *state else {
            return Err("the monitor has gone".to_owned());
        };
        match talk.ask(&Ask::End { cell })? {
            Answer::Ended(ended) => Ok(ended),
            _ => Err(ELSE.to_owned()),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Talk {
    fn start(executable: &Path, host: &ArchProfile) -> Result<Self, String> {
        let at = |error: std::io::Error| format!("{}: {error}", executable.display());
        let mut child = Command::new(executable)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(at)?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let from = from.ok_or("the monitor has no output")?;
        let mut talk = Self {
            child,
            to,
            from: BufReader::new(from),
        };
        let host = Box::new(host.clone());
        talk.ask(&Ask::Begin { host, ring: RING })?;
        Ok(talk)
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, String> {
        let to = self.to.as_mut().ok_or("the monitor hears nothing")?;
        say(to, ask).map_err(|error| format!("the monitor does not listen: {error}"))?;
        match hear(&mut self.from).map_err(|error| format!("the monitor cannot be understood: {error}"))? {
            Some(Answer::Failed(why)) => Err(why),
            Some(answer) => Ok(answer),
            None => Err("the monitor ended".to_owned()),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.wait();
    }
}
