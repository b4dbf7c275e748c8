//! The monitor of a run: one `hotcell-monitor` for all cells whose guests run on the host's own kernel.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hotcell_monitor::protocol::{Answer, Ask, CELLS, Ended, Watch, hear, say};
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
    used: Vec<bool>,
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
    /// Whether the file is read while it is written.
    pub(crate) live: bool,
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
        let free = talk.used.iter().position(|used| !used);
        let cell = free.ok_or_else(|| format!("more than {CELLS} cells are watched at once"))?;
        let number = u32::try_from(cell).map_err(|error| error.to_string())?;
        let watch = Watch {
            cell: number,
            pid,
            deny: guest.deny,
            sample: guest.sample,
            events: events.to_owned(),
            most: guest.most,
            live: guest.live,
        };
        talk.ask(&Ask::Watch(Box::new(watch)))?;
        if let Some(used) = talk.used.get_mut(cell) {
            *used = true;
        }
        Ok(Watched {
            monitor: self,
            cell: Some(number),
        })
    }

    /// Makes all of a watched cell stand still, until it is ended.
    pub(crate) fn freeze(&self, cell: u32) -> Result<(), String> {
        match &mut *self.state() {
            State::Here(talk) => talk.ask(&Ask::Freeze { cell }).map(drop),
            State::Gone(_) | State::NotAsked => Err("the monitor has gone".to_owned()),
        }
    }
}

impl Watched<'_> {
    /// Its number.
    pub(crate) fn cell(&self) -> Option<u32> {
        self.cell
    }

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
        let answer = talk.ask(&Ask::End { cell });
        if let Some(used) = talk.used.get_mut(cell as usize) {
            *used = false;
        }
        match answer? {
            Answer::Ended(ended) => Ok(ended),
            _ => Err("the monitor answered something else".to_owned()),
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
            used: vec![false; CELLS as usize],
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
