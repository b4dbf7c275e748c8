//! The runner's side: asks the arbiter of the host for cores.
//!
//! A restarted arbiter is found again, and the cells are handed in once more: they stand still meanwhile, or run on where
//! they are. One that does not come back within [`PATIENCE`] fails the cells.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::wire::{Act, Answer, Ask, PROTOCOL, Person, Welcome, WireError, receive, send};
use crate::cores::arbiter::{AdmitError, Claim, EndedBy, GiveCores, Seen};
use crate::cores::history::{History, Turn};
use crate::cores::locks::LockView;
use crate::cores::process::Process;
use crate::cores::schedule::{CellId, Nanos, Request};
use crate::stop::{StopSignal, Urgency};

/// How long is waited for an arbiter that has gone.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may take: a process may need a second to stand still.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause between two tries to find an arbiter again, and between two looks whether it is there.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the arbiter of a host cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no arbiter answers at {}: {source}", .path.display())]
    Connect {
        /// Where it should.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It cannot be understood.
    #[error("the arbiter: {0}")]
    Wire(#[from] WireError),
    /// It answers something else.
    #[error("the arbiter answers another question")]
    Answer,
}

/// One connection, for questions. Cells that are admitted on it end with it.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    buffer: Vec<u8>,
    welcome: Welcome,
}

impl Connection {
    /// Connects to the arbiter that listens there.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not want to know us.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let connected = || -> rustix::io::Result<OwnedFd> {
            let kind = SocketType::SEQPACKET;
            let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&socket, timeout, Some(ANSWER))?;
            }
            Ok(socket)
        };
        let socket = connected().map_err(|error| ClientError::Connect {
            path: path.to_owned(),
            source: error.into(),
        })?;
        let mut buffer = Vec::new();
        match ask(&socket, &mut buffer, &Ask::Hello { protocol: PROTOCOL }, None)?.0 {
            Answer::Welcome(welcome) => Ok(Self {
                socket,
                buffer,
                welcome: *welcome,
            }),
            _ => Err(ClientError::Answer),
        }
    }

    /// What the host is, and what the asking user may.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// All cells of the host.
    ///
    /// # Errors
    ///
    /// If the arbiter cannot be asked.
    pub fn cells(&mut self) -> Result<Vec<Seen>, ClientError> {
        let mut all: Vec<Seen> = Vec::new();
        let mut from = CellId(0);
        loop {
            let Answer::Cells { cells, more } = self.ask(&Ask::Cells { from })? else {
                return Err(ClientError::Answer);
            };
            all.extend(cells);
            match all.last() {
                Some(last) if more => from = CellId(last.cell.0.saturating_add(1)),
                _ => return Ok(all),
            }
        }
    }

    /// All users of the host.
    ///
    /// # Errors
    ///
    /// If the arbiter cannot be asked.
    pub fn users(&mut self) -> Result<Vec<Person>, ClientError> {
        let mut all: Vec<Person> = Vec::new();
        let mut from = 0;
        loop {
            let Answer::Users { users, more } = self.ask(&Ask::Users { from })? else {
                return Err(ClientError::Answer);
            };
            all.extend(users);
            match all.last() {
                Some(last) if more => from = last.uid.saturating_add(1),
                _ => return Ok(all),
            }
        }
    }

    /// Does something about cells, users or cores; says how many cells it was about.
    ///
    /// # Errors
    ///
    /// If the arbiter refuses it, or cannot be asked.
    pub fn act(&mut self, act: Act, reason: Option<&str>) -> Result<u64, ClientError> {
        let reason = reason.map(str::to_owned);
        match self.ask(&Ask::Act { act, reason })? {
            Answer::Done(cells) => Ok(cells),
            _ => Err(ClientError::Answer),
        }
    }

    /// The locks of the cores.
    ///
    /// # Errors
    ///
    /// If the arbiter cannot be asked, or what it gives is no table of locks.
    pub fn locks(&mut self) -> Result<LockView, ClientError> {
        let (_, table) = ask(&self.socket, &mut self.buffer, &Ask::Locks, None)?;
        let table = table.ok_or(ClientError::Answer)?;
        LockView::open(&table).map_err(|error| ClientError::Refused(error.to_string()))
    }

    fn ask(&mut self, question: &Ask) -> Result<Answer, ClientError> {
        Ok(ask(&self.socket, &mut self.buffer, question, None)?.0)
    }
}

fn ask(
    socket: &OwnedFd,
    buffer: &mut Vec<u8>,
    question: &Ask,
    process: Option<&Process>,
) -> Result<(Answer, Option<OwnedFd>), ClientError> {
    send(socket, question, process.map(Process::pidfd))?;
    match receive(socket, buffer)? {
        (Answer::Refused(why), _) => Err(ClientError::Refused(why)),
        answered => Ok(answered),
    }
}

/// The arbiter of a host, as one that gives cores to a runner's cells.
#[derive(Debug)]
pub struct HostArbiter {
    inner: Arc<Inner>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    stop: StopSignal,
    told: Told,
}

/// Who is told in words that an arbiter has gone, and that one is there again.
pub type Told = fn(&str);

#[derive(Debug)]
struct State {
    link: Link,
    claims: BTreeMap<u64, Claimed>,
    next: u64,
    closing: bool,
}

/// Whether an arbiter that has gone is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Yes,
    No,
}

#[derive(Debug)]
enum Link {
    Up(Box<Connection>),
    /// Since when there is none.
    Down(Instant),
    /// Nobody waits any more.
    Lost(String),
}

/// A cell that was handed in.
#[derive(Debug)]
struct Claimed {
    cell: CellId,
    process: Process,
    request: Request,
    name: String,
    /// How long it had waited under arbiters that are gone.
    waited_before: Nanos,
    /// What was heard last.
    waited: Nanos,
    /// Whether it shall have no turns for now.
    held: bool,
    /// Why it is no more.
    ended_by: Option<EndedBy>,
}

impl HostArbiter {
    /// Goes on with a connection. Nobody waits for an arbiter that has gone once it was asked to stop.
    ///
    /// # Errors
    ///
    /// If no thread can be made.
    pub fn new(path: &Path, connection: Connection, stop: StopSignal, told: Told) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            state: Mutex::new(State {
                link: Link::Up(Box::new(connection)),
                claims: BTreeMap::new(),
                next: 0,
                closing: false,
            }),
            changed: Condvar::new(),
            stop,
            told,
        });
        let theirs = Arc::clone(&inner);
        let keeper = std::thread::Builder::new()
            .name("cores".into())
            .spawn(move || theirs.keep())?;
        Ok(Self {
            inner,
            keeper: Some(keeper),
        })
    }
}

impl Drop for HostArbiter {
    fn drop(&mut self) {
        self.inner.lock().closing = true;
        self.inner.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl GiveCores for HostArbiter {
    fn admit(&self, request: Request, pid: i32, name: &str) -> Result<Box<dyn Claim>, AdmitError> {
        let process = Process::open(pid).map_err(|source| AdmitError::Host {
            doing: "opening a cell's process",
            source,
        })?;
        let question = Ask::Admit {
            request,
            name: name.to_owned(),
        };
        let (mut state, answer) = self.inner.ask(&question, Some(&process), Waits::Yes);
        let cell = match answer {
            Ok(Answer::Admitted(cell)) => cell,
            Ok(_) => return Err(AdmitError::Refused(ClientError::Answer.to_string())),
            Err(why) => return Err(AdmitError::Refused(why)),
        };
        let number = state.next;
        state.next = number.saturating_add(1);
        let claimed = Claimed {
            cell,
            process,
            request,
            name: name.to_owned(),
            waited_before: 0,
            waited: 0,
            held: false,
            ended_by: None,
        };
        state.claims.insert(number, claimed);
        drop(state);
        Ok(Box::new(HostPlace {
            inner: Arc::clone(&self.inner),
            number,
            cell,
        }))
    }

    fn history(&self) -> io::Result<(History, Nanos)> {
        // An arbiter that began anew knows nothing of what was before it.
        let began = match &self.inner.lock().link {
            Link::Up(connection) => connection.welcome.now,
            Link::Down(_) | Link::Lost(_) => 0,
        };
        let mut history = History::default();
        let mut from = 0;
        loop {
            let (turns, now, more) = match self.inner.ask(&Ask::Turns { from }, None, Waits::No).1 {
                Ok(Answer::Turns {
                    turns,
                    forgotten: _,
                    now,
                    longest_wait,
                    promised_wait,
                    more,
                }) => {
                    history.longest_wait = longest_wait;
                    history.promised_wait = promised_wait;
                    (turns, now, more)
                }
                Ok(_) => return Err(io::Error::other(ClientError::Answer.to_string())),
                Err(why) => return Err(io::Error::other(why)),
            };
            from = turns.last().map_or(from, |(number, _)| number.saturating_add(1));
            for (_, turn) in turns {
                history.keep(Turn {
                    from: turn.from.saturating_sub(began),
                    until: turn.until.saturating_sub(began),
                    ..turn
                });
            }
            if !more {
                return Ok((history, now.saturating_sub(began)));
            }
        }
    }
}

/// The claim of one cell.
#[derive(Debug)]
struct HostPlace {
    inner: Arc<Inner>,
    number: u64,
    /// The cell, as the arbiter called it when it was admitted first.
    cell: CellId,
}

impl HostPlace {
    /// Asks how the cell is, and remembers it.
    fn look(&self) -> (Nanos, Option<EndedBy>) {
        let cell = match self.inner.lock().claims.get(&self.number) {
            Some(claimed) if claimed.ended_by.is_none() => claimed.cell,
            Some(claimed) => return (claimed.total(), claimed.ended_by.clone()),
            None => return (0, None),
        };
        let (mut state, answer) = self.inner.ask(&Ask::Look { cell }, None, Waits::No);
        let Some(claimed) = state.claims.get_mut(&self.number) else {
            return (0, None);
        };
        if let Ok(Answer::State { waited, ended_by }) = answer
            && claimed.cell == cell
        {
            claimed.waited = waited;
            if let Some(ended_by) = ended_by {
                claimed.ended_by.get_or_insert(ended_by);
            }
        }
        (claimed.total(), claimed.ended_by.clone())
    }
}

impl Claim for HostPlace {
    fn cell(&self) -> CellId {
        self.cell
    }

    fn waited(&self) -> Duration {
        Duration::from_nanos(self.look().0)
    }

    fn ended_by(&self) -> Option<EndedBy> {
        self.look().1
    }

    fn hold(&self, holds: bool) {
        let mut state = self.inner.lock();
        let Some(claimed) = state.claims.get_mut(&self.number) else {
            return;
        };
        claimed.held = holds;
        let cell = claimed.cell;
        let up = matches!(state.link, Link::Up(_));
        drop(state);
        // While no arbiter is there it is not waited for: the next one is told when the cell is handed in again.
        if up {
            let _ = self.inner.ask(&Ask::Hold { cell, holds }, None, Waits::No);
        }
    }
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        let claimed = self.inner.lock().claims.remove(&self.number);
        let Some(claimed) = claimed else { return };
        let _ = claimed.process.kill();
        // An arbiter that has gone does not know it any more.
        if matches!(self.inner.lock().link, Link::Up(_)) {
            let _ = self
                .inner
                .ask(&Ask::Leave { cell: claimed.cell }, None, Waits::No);
        }
    }
}

impl Claimed {
    fn total(&self) -> Nanos {
        self.waited_before.saturating_add(self.waited)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks. The error is its refusal, or why there is none to ask.
    fn ask(
        &self,
        question: &Ask,
        process: Option<&Process>,
        waits: Waits,
    ) -> (MutexGuard<'_, State>, Result<Answer, String>) {
        let mut state = self.lock();
        loop {
            let State { link, .. } = &mut *state;
            match link {
                Link::Up(connection) => {
                    match ask(&connection.socket, &mut connection.buffer, question, process) {
                        Ok((answer, _)) => return (state, Ok(answer)),
                        Err(ClientError::Refused(why)) => return (state, Err(why)),
                        Err(_) => self.lose(&mut state),
                    }
                }
                Link::Down(_) if waits == Waits::No || self.stop.urgency() != Urgency::None => {
                    return (state, Err("the host's arbiter has gone".to_owned()));
                }
                Link::Down(_) => {
                    let waited = self.changed.wait_timeout(state, PAUSE);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Link::Lost(why) => {
                    let why = why.clone();
                    return (state, Err(why));
                }
            }
        }
    }

    /// There is no arbiter any longer.
    fn lose(&self, state: &mut State) {
        state.link = Link::Down(Instant::now());
        self.changed.notify_all();
        (self.told)(&format!(
            "the host's arbiter has gone: its cells stand still; one is waited for for {} seconds",
            PATIENCE.as_secs()
        ));
    }

    /// Watches the connection, and finds the arbiter again when it has gone.
    fn keep(&self) {
        let mut state = self.lock();
        while !state.closing {
            match &state.link {
                Link::Up(connection) => {
                    let mut watched = [PollFd::new(connection.socket.as_fd(), PollFlags::empty())];
                    let gone = poll(&mut watched, PollTimeout::ZERO).is_ok_and(|found| found > 0);
                    if gone {
                        self.lose(&mut state);
                        continue;
                    }
                }
                Link::Down(since) => {
                    let since = *since;
                    match self.again(&mut state) {
                        Ok(()) => {
                            (self.told)("the host's arbiter is there again");
                            self.changed.notify_all();
                        }
                        Err(why) if since.elapsed() >= PATIENCE => {
                            self.give_up(&mut state, &why);
                        }
                        Err(_) => {}
                    }
                }
                Link::Lost(_) => {}
            }
            state = self
                .changed
                .wait_timeout(state, PAUSE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if matches!(state.link, Link::Down(_)) {
            state.link = Link::Lost("the run is over".into());
            self.changed.notify_all();
        }
    }

    /// Connects once more, and hands in what still runs.
    fn again(&self, state: &mut State) -> Result<(), String> {
        let mut connection = Connection::open(&self.path).map_err(|error| error.to_string())?;
        for claimed in state.claims.values_mut() {
            if claimed.ended_by.is_some() {
                continue;
            }
            let question = Ask::Admit {
                request: claimed.request,
                name: claimed.name.clone(),
            };
            let process = Some(&claimed.process);
            match ask(&connection.socket, &mut connection.buffer, &question, process) {
                Ok((Answer::Admitted(cell), _)) => {
                    claimed.cell = cell;
                    claimed.waited_before = claimed.total();
                    claimed.waited = 0;
                    if claimed.held {
                        let question = Ask::Hold { cell, holds: true };
                        let _ = ask(&connection.socket, &mut connection.buffer, &question, None);
                    }
                }
                Ok(_) => return Err(ClientError::Answer.to_string()),
                // Of one that has ended meanwhile its owner hears soon.
                Err(ClientError::Refused(_)) if claimed.process.has_ended().unwrap_or(true) => {}
                Err(ClientError::Refused(why)) => {
                    claimed.ended_by = Some(EndedBy::Order(why));
                    let _ = claimed.process.kill();
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        state.link = Link::Up(Box::new(connection));
        Ok(())
    }

    fn give_up(&self, state: &mut State, why: &str) {
        let why = format!("the host's arbiter has gone and did not come back: {why}");
        for claimed in state.claims.values_mut() {
            claimed.ended_by.get_or_insert(EndedBy::Fault(why.clone()));
            let _ = claimed.process.kill();
        }
        state.link = Link::Lost(why);
        self.changed.notify_all();
    }
}
