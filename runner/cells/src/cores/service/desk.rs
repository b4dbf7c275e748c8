//! One connection: what is asked, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::server::{Service, State, today};
use super::wire::{Act, Answer, Ask, PROTOCOL, Person, Welcome, Which, WireError, page, receive, send};
use super::{By, Deed};
use crate::cores::arbiter::{Claim as _, EndedBy, Place, Seen};
use crate::cores::duties::Duties;
use crate::cores::process::Process;
use crate::cores::schedule::{CellId, Doing};
use crate::stop::Urgency;
use crate::supervise::Enclosure;

/// How long one may take until its first message.
const GREETING: Duration = Duration::from_secs(5);
/// Messages in a second above which answers are held back, and how many may come at once.
const PER_SECOND: u32 = 2_000;
/// Longest reason for an act, in bytes: as the audit journal takes it.
const MOST_REASON: usize = 1_000;

/// Serves a connection to its end. Its cells end with it.
pub(super) fn serve(service: &Service, connection: &OwnedFd, uid: u32) {
    let mut desk = Desk {
        service,
        uid,
        greeted: false,
        places: BTreeMap::new(),
        had: BTreeSet::new(),
    };
    let mut buffer = Vec::new();
    let mut pace = Pace::new();
    let begun = Instant::now();
    // One who does not take answers is not waited for.
    let _ = set_socket_timeout(connection, Timeout::Send, Some(GREETING));
    while desk.wait(connection, begun) {
        let (ask, descriptor) = match receive::<Ask>(connection, &mut buffer) {
            Ok(received) => received,
            Err(WireError::Gone | WireError::Io(_)) => break,
            Err(error) => {
                // Who does not speak the language is told so once.
                let _ = send(connection, &Answer::Refused(error.to_string()), None);
                break;
            }
        };
        pace.hold();
        let locks = ask == Ask::Locks;
        let answer = desk.answer(ask, descriptor);
        let last = matches!(answer, Answer::Refused(_)) && !desk.greeted;
        let table = match locks && answer == Answer::Locks {
            true => service.arbiter.lock_table().ok(),
            false => None,
        };
        if send(connection, &answer, table.as_ref().map(|table| table.as_fd())).is_err() || last {
            break;
        }
    }
    if service.stop.urgency() != Urgency::None {
        // This arbiter ends, and not the cells: their runners hand them in to the next one.
        std::mem::take(&mut desk.places)
            .into_values()
            .for_each(std::mem::forget);
    }
}

/// Holds back one who asks too much.
struct Pace {
    since: Instant,
    asked: u32,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            asked: 0,
        }
    }

    fn hold(&mut self) {
        let second = Duration::from_secs(1);
        self.asked = self.asked.saturating_add(1);
        let here = self.since.elapsed();
        if here >= second {
            *self = Self::new();
        } else if self.asked > PER_SECOND {
            // This thread serves nobody else.
            std::thread::sleep(second.saturating_sub(here));
        }
    }
}

/// A cell of this connection.
struct Held {
    place: Place,
    /// Given up after the place: its process has been told to end then.
    enclosure: Enclosure,
}

struct Desk<'a> {
    service: &'a Service,
    uid: u32,
    greeted: bool,
    places: BTreeMap<CellId, Held>,
    /// All cells that were ever admitted here.
    had: BTreeSet<CellId>,
}

impl Desk<'_> {
    /// Waits for a message; `false`: there will be none.
    fn wait(&self, connection: &OwnedFd, begun: Instant) -> bool {
        loop {
            if self.service.stop.urgency() != Urgency::None {
                return false;
            }
            let timeout = match self.greeted {
                true => PollTimeout::NONE,
                false => {
                    let left = GREETING.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        return false;
                    }
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut watched = [
                PollFd::new(connection.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.service.stop.soon(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return false,
            }
            let [connection, _] = &watched;
            if connection.any().unwrap_or(true) {
                return true;
            }
        }
    }

    fn answer(&mut self, ask: Ask, descriptor: Option<OwnedFd>) -> Answer {
        let answer = match ask {
            Ask::Hello { protocol } => self.hello(protocol),
            _ if !self.greeted => Err("say `hello` first".to_owned()),
            Ask::Admit { request, name } => self.admit(request, &name, descriptor),
            Ask::Look { cell } => self.own(cell).map(|held| self.look(cell, held)),
            Ask::Leave { cell } => self.leave(cell),
            Ask::Hold { cell, holds } => self.own(cell).map(|held| {
                held.place.hold(holds);
                Answer::Done(1)
            }),
            Ask::Cells { from } => {
                let all = self.service.arbiter.cells().into_iter();
                let (cells, more) = page(all.filter(|seen| seen.cell >= from));
                Ok(Answer::Cells { cells, more })
            }
            Ask::Turns { from } => Ok(self.turns(from)),
            Ask::Users { from } => Ok(self.users(from)),
            Ask::Locks => Ok(Answer::Locks),
            Ask::Act { act, reason } => self.act(act, reason.as_deref()),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    fn hello(&mut self, protocol: u32) -> Result<Answer, String> {
        if protocol != PROTOCOL {
            return Err(format!(
                "this arbiter speaks version {PROTOCOL} of the protocol, and not {protocol}: use the same hotcell"
            ));
        }
        let state = self.service.lock();
        let user = state.policy.user(self.uid).map_err(|why| why.to_string())?;
        let duties = Duties {
            slice: self.service.arbiter.rules().slice,
            ..self.service.duties.clone()
        };
        let welcome = Welcome {
            protocol: PROTOCOL,
            uid: self.uid,
            user: user.name.clone(),
            admin: user.admin,
            quota: user.quota,
            now: self.service.arbiter.now(),
            duties,
            reclaimed: self.service.arbiter.reclaimed(),
            isolation: self.service.isolation.to_owned(),
            checks: self.service.verifier.checks(),
            fallbacks: self.service.fallbacks.clone(),
        };
        drop(state);
        self.greeted = true;
        Ok(Answer::Welcome(Box::new(welcome)))
    }

    fn look(&self, cell: CellId, held: &Held) -> Answer {
        if held.enclosure.ran_out_of_memory() {
            self.service.ran_out_of_memory(cell);
        }
        Answer::State {
            waited: u64::try_from(held.place.waited().as_nanos()).unwrap_or(u64::MAX),
            ended_by: held.place.ended_by(),
        }
    }

    fn own(&self, cell: CellId) -> Result<&Held, String> {
        let none = || format!("this connection has no cell {}", cell.0);
        self.places.get(&cell).ok_or_else(none)
    }

    fn admit(
        &mut self,
        request: crate::cores::schedule::Request,
        name: &str,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, String> {
        let pidfd = descriptor.ok_or("no pidfd came with the message")?;
        let process = Process::from_pidfd(pidfd).map_err(|error| format!("the process: {error}"))?;
        let holder = process.holder();
        // Nobody may make other people's processes stand still.
        let owner = process.owner().map_err(|error| format!("the process: {error}"))?;
        if self.uid != 0 && owner != Some(self.uid) {
            return Err(format!("process {} is not of uid {}", holder.pid(), self.uid));
        }
        if self
            .service
            .arbiter
            .cells()
            .iter()
            .any(|seen| seen.process == holder)
        {
            return Err(format!("process {} is a cell already", holder.pid()));
        }
        let mut state = self.service.lock();
        let request = state
            .policy
            .admit(today(), self.uid, request)
            .map_err(|why| why.to_string())?;
        let user = state.policy.user(self.uid);
        let bounded = self.uid != 0 || user.is_ok_and(|user| user.quota.memory.is_some());
        if bounded && request.memory == 0 {
            return Err(
                "say how much memory the cell may use: it is bounded, and the quota counts it".into(),
            );
        }
        state.found_again(holder);
        drop(state);
        let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
        let enclosure = self.service.enclosures.enter(&process, &request);
        let enclosure = enclosure.map_err(|error| format!("its control groups: {error}"))?;
        let place = self
            .service
            .arbiter
            .take(request, process, &name)
            .map_err(|error| error.to_string())?;
        let cell = place.cell();
        self.places.insert(cell, Held { place, enclosure });
        self.had.insert(cell);
        self.keep()?;
        Ok(Answer::Admitted(cell))
    }

    fn leave(&mut self, cell: CellId) -> Result<Answer, String> {
        self.own(cell)?;
        let seen = self
            .service
            .arbiter
            .cells()
            .into_iter()
            .find(|seen| seen.cell == cell);
        if let Some(seen) = seen {
            self.service
                .lock()
                .count(today(), cell, seen.request.user, seen.ran);
        }
        self.places.remove(&cell);
        self.keep()?;
        Ok(Answer::Done(1))
    }

    fn keep(&self) -> Result<(), String> {
        let kept = self.service.keep();
        kept.map_err(|error| format!("the arbiter cannot keep what must survive it: {error}"))
    }

    fn turns(&self, from: u64) -> Answer {
        let (history, now) = self.service.arbiter.history();
        let own = (history.forgotten..).zip(history.turns);
        let own = own.filter(|(number, turn)| *number >= from && self.had.contains(&turn.cell));
        let (turns, more) = page(own);
        Answer::Turns {
            turns,
            forgotten: history.forgotten,
            now,
            longest_wait: history.longest_wait,
            promised_wait: history.promised_wait,
            more,
        }
    }

    fn users(&self, from: u32) -> Answer {
        let cells = self.service.arbiter.cells();
        let state = self.service.lock();
        let policy = &state.policy;
        let people = policy.users().range(from..).map(|(uid, user)| Person {
            uid: *uid,
            name: user.name.clone(),
            admin: user.admin,
            quota: user.quota,
            cells: cells.iter().filter(|cell| cell.request.user == *uid).count(),
            used_ns: policy.used().of(today(), *uid),
            banned: policy.banned().get(uid).cloned(),
        });
        let (users, more) = page(people);
        Answer::Users { users, more }
    }

    fn act(&mut self, act: Act, reason: Option<&str>) -> Result<Answer, String> {
        if reason.is_some_and(|reason| reason.len() > MOST_REASON) {
            return Err(format!("a reason of more than {MOST_REASON} bytes"));
        }
        let arbiter = &self.service.arbiter;
        let mut state = self.service.lock();
        let admin = state.policy.administrate(self.uid);
        let by = state.by(self.uid);
        let done = match act {
            Act::Pause(which) | Act::Resume(which) => {
                let cells = self.chosen(which, admin.is_ok())?;
                let (deed, holds) = match act {
                    Act::Pause(_) => (Deed::Paused(which, cells.len() as u64), true),
                    _ => (Deed::Resumed(which, cells.len() as u64), false),
                };
                self.record_of_others(&mut state, &by, &cells, &deed, reason)?;
                for cell in &cells {
                    arbiter.hold(cell.cell, holds);
                }
                cells.len()
            }
            Act::Kill(which) => {
                let cells = self.chosen(which, admin.is_ok())?;
                let deed = Deed::Killed(which, cells.len() as u64);
                self.record_of_others(&mut state, &by, &cells, &deed, reason)?;
                let ids: Vec<CellId> = cells.iter().map(|cell| cell.cell).collect();
                arbiter.end(&ids, &EndedBy::Order(ended_by("killed", &by, reason)))
            }
            Act::Ban(uid) => {
                admin.map_err(|why| why.to_string())?;
                if state.policy.administrate(uid).is_ok() {
                    return Err(format!(
                        "uid {uid} is an administrator: take that from the host manifest first"
                    ));
                }
                let user = state.by(uid);
                record(&mut state, &by, &Deed::Banned(user), reason)?;
                state.policy.ban(uid, reason);
                let cells = arbiter.cells().into_iter();
                let ids: Vec<CellId> = cells
                    .filter(|cell| cell.request.user == uid)
                    .map(|cell| cell.cell)
                    .collect();
                arbiter.end(&ids, &EndedBy::Order(ended_by("banned", &by, reason)))
            }
            Act::Unban(uid) => {
                admin.map_err(|why| why.to_string())?;
                if !state.policy.banned().contains_key(&uid) {
                    return Err(format!("uid {uid} is not banned"));
                }
                let user = state.by(uid);
                record(&mut state, &by, &Deed::Unbanned(user), reason)?;
                usize::from(state.policy.unban(uid))
            }
            Act::Reclaim(core) | Act::GiveBack(core) => {
                admin.map_err(|why| why.to_string())?;
                let rules = arbiter.rules();
                if !rules.pool.contains(core) {
                    return Err(format!("core {core} is not in the pool {}", rules.pool));
                }
                let reclaim = matches!(act, Act::Reclaim(_));
                if arbiter.reclaimed().contains(core) == reclaim {
                    let is = if reclaim { "already" } else { "not" };
                    return Err(format!("core {core} is {is} out of exclusive use"));
                }
                let deed = match reclaim {
                    true => Deed::Reclaimed(core),
                    false => Deed::GivenBack(core),
                };
                record(&mut state, &by, &deed, reason)?;
                let held = arbiter.cells().into_iter();
                let held = held.filter(|cell| reclaim && is_on(cell, core)).count();
                arbiter.reclaim(core, reclaim);
                held
            }
            Act::Slice(slice) => {
                admin.map_err(|why| why.to_string())?;
                let most = crate::cores::duties::SLICES;
                if !most.contains(&slice.get()) {
                    return Err("a slice is at least 100us and at most 10s".into());
                }
                let was = arbiter.rules().slice;
                record(&mut state, &by, &Deed::Slice(was.get(), slice.get()), reason)?;
                arbiter.set_slice(slice);
                arbiter.cells().len()
            }
        };
        drop(state);
        self.keep()?;
        Ok(Answer::Done(done as u64))
    }

    /// Writes down what is done to cells. What users do to their own is their own affair.
    fn record_of_others(
        &self,
        state: &mut State,
        by: &By,
        cells: &[Seen],
        deed: &Deed,
        reason: Option<&str>,
    ) -> Result<(), String> {
        match cells.iter().all(|cell| cell.request.user == self.uid) {
            true => Ok(()),
            false => record(state, by, deed, reason),
        }
    }

    /// The cells that are meant. Users may only mean their own.
    fn chosen(&self, which: Which, admin: bool) -> Result<Vec<Seen>, String> {
        let cells = self.service.arbiter.cells().into_iter();
        let meant = |cell: &Seen| match which {
            Which::Process(pid) => cell.process.pid() == pid,
            Which::User(uid) => cell.request.user == uid,
            Which::Core(core) => is_on(cell, core),
        };
        let chosen: Vec<Seen> = cells.filter(meant).collect();
        match chosen.iter().find(|cell| cell.request.user != self.uid) {
            Some(other) if !admin => Err(format!(
                "cell {} is of uid {}: only an administrator may do that",
                other.process.pid(),
                other.request.user
            )),
            _ if chosen.is_empty() => Err("there is no such cell".into()),
            _ => Ok(chosen),
        }
    }
}

fn is_on(cell: &Seen, core: u32) -> bool {
    match &cell.doing {
        Doing::Running(cores) | Doing::Stopping(cores) => cores.contains(core),
        Doing::Held | Doing::Ready | Doing::Paused => false,
    }
}

fn record(state: &mut State, by: &By, deed: &Deed, reason: Option<&str>) -> Result<(), String> {
    let recorded = state.record.record(by, deed, reason);
    recorded.map_err(|why| format!("nothing was done, because it cannot be written down: {why}"))
}

/// What the runner of a cell is told.
fn ended_by(what: &str, by: &By, reason: Option<&str>) -> String {
    let who = match &by.name {
        Some(name) => format!("`{name}`"),
        None => format!("uid {}", by.uid),
    };
    match reason {
        Some(reason) => format!("{what} by {who}: {reason}"),
        None => format!("{what} by {who}"),
    }
}
