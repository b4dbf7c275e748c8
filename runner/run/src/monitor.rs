//! The monitor of a run: one `hotcell-monitor` for all cells whose guests run on the host's own kernel.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
    /// The cells' own executable: where nobody else watches, their first processes do.
    cells: PathBuf,
    wanted: Option<Source>,
    state: Mutex<State>,
    tracing: OnceLock<Result<(), String>>,
}

/// Who watches guests on the host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The host's kernel itself, by eBPF.
    Kernel,
    /// The first process of each cell, by ptrace(2).
    Tracer,
}

impl Source {
    /// All, the best first: each is asked only where none before it can.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Tracer];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "ebpf",
            Self::Tracer => "ptrace",
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let all = Self::ALL.map(Self::as_str).join("`, `");
        let found = Self::ALL.into_iter().find(|source| source.as_str() == name);
        found.ok_or_else(|| format!("`{name}` watches nobody; `{all}` do"))
    }
}

/// Who watches, and why nobody better does.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) source: Source,
    /// What the others said.
    pub(crate) refused: Vec<String>,
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
            cells: libexec.join("hotcell-qemu"),
            wanted: None,
            state: Mutex::default(),
            tracing: OnceLock::new(),
        }
    }

    /// The same; `wanted` watches, or nobody.
    pub(crate) fn with(self, wanted: Option<Source>) -> Self {
        Self { wanted, ..self }
    }

    /// Who is wanted.
    pub(crate) fn wanted(&self) -> Option<Source> {
        self.wanted
    }

    /// Who watches guests on this host: the first that can. The error says why nobody does.
    pub(crate) fn choose(&self, host: &ArchProfile) -> Result<Chosen, String> {
        let mut refused = Vec::new();
        let wanted = |source: &Source| self.wanted.is_none_or(|wanted| wanted == *source);
        for source in Source::ALL.into_iter().filter(wanted) {
            let can = match source {
                Source::Kernel => self.begin(&mut self.state(), host),
                Source::Tracer => self.tracing.get_or_init(|| probe(&self.cells)).clone(),
            };
            match can {
                Ok(()) => return Ok(Chosen { source, refused }),
                Err(why) => refused.push(format!("not watched by {}: {why}", source.as_str())),
            }
        }
        Err(refused.join("; "))
    }

    /// Starts it, if nobody has.
    fn begin(&self, state: &mut State, host: &ArchProfile) -> Result<(), String> {
        if let State::NotAsked = *state {
            *state = match Talk::start(&self.executable, host) {
                Ok(talk) => State::Here(talk),
                Err(why) => State::Gone(why),
            };
        }
        match state {
            State::Gone(why) => Err(why.clone()),
            State::Here(_) | State::NotAsked => Ok(()),
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
        self.begin(&mut state, host)?;
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

/// Asks the cells' executable whether a process may trace its children here.
fn probe(cells: &Path) -> Result<(), String> {
    let at = |error: std::io::Error| format!("{}: {error}", cells.display());
    let output = Command::new(cells)
        .arg("--probe")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(at)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
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
