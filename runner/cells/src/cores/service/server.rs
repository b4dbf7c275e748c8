//! The service: accepts connections, watches quotas, and keeps what must survive it.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hotcell_schema::cores::CoreSet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{SysconfVar, sysconf};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::desk;
use super::kept::{Kept, KeptFile, this_boot};
use super::policy::{HostUser, Policy};
use super::wire::Which;
use super::{By, Deed, Exceeded, Record};
use crate::cores::arbiter::{Arbiter, EndedBy, Seen};
use crate::cores::duties::Duties;
use crate::cores::isolation::Isolation;
use crate::cores::locks::Holder;
use crate::cores::process::Process;
use crate::cores::schedule::{CellId, Nanos};
use crate::cores::topology::Topology;
use crate::cores::verify::Verifier;
use crate::stop::{StopSignal, Urgency};
use crate::supervise::Enclosures;

/// Most connections at once, of all users and of one.
pub(super) const CONNECTIONS: usize = 512;
pub(super) const CONNECTIONS_OF_USER: usize = 64;
/// How often quotas are looked at and what is kept is written.
const ROUND: Duration = Duration::from_millis(500);
/// How long cells of an earlier arbiter stand still before they are ended because nobody hands them in again.
const ORPHANS: Duration = Duration::from_secs(60);
/// As whom the arbiter itself is written down.
const ROOT: u32 = 0;
const SECOND: u64 = 1_000_000_000;

/// What an arbiter of a host is made of.
pub struct Host {
    /// Which core does what.
    pub duties: Duties,
    /// The machine.
    pub topology: Topology,
    /// Cells at once, of all users together.
    pub cells: NonZeroUsize,
    /// Users by their ids.
    pub users: BTreeMap<u32, HostUser>,
    /// What people must be told of the host's cores.
    pub fallbacks: Vec<String>,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it keeps what must survive it.
    pub kept: PathBuf,
    /// Where deeds are written down.
    pub record: Box<dyn Record>,
}

/// The service, shared by its threads.
pub(super) struct Service {
    pub(super) arbiter: Arc<Arbiter>,
    /// Looks where cells run.
    pub(super) verifier: Verifier,
    pub(super) enclosures: Enclosures,
    /// How strictly cores are kept apart.
    pub(super) isolation: &'static str,
    pub(super) duties: Duties,
    pub(super) fallbacks: Vec<String>,
    pub(super) stop: StopSignal,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) policy: Policy,
    pub(super) record: Box<dyn Record>,
    /// Connections by user.
    connections: BTreeMap<u32, usize>,
    /// How long each cell had run when it was counted last.
    counted: BTreeMap<CellId, Nanos>,
    /// Cells of an earlier arbiter that nobody has handed in again.
    orphans: Vec<Process>,
    kept: KeptFile,
    boot: String,
    /// Whose quota of time was told of as exceeded today.
    told: BTreeMap<u32, u64>,
}

/// Serves until `stop` is asked for. Cells that run then are ended.
///
/// # Errors
///
/// If the socket cannot be made, another arbiter serves it, cores cannot be kept apart as they should be, or what an earlier
/// arbiter kept cannot be read.
pub fn serve(host: Host, stop: &StopSignal, ready: impl FnOnce(&Isolation)) -> io::Result<()> {
    let boot = this_boot()?;
    let (kept, earlier) = KeptFile::open(&host.kept, &boot)?;
    let policy = Policy::new(host.users, earlier.banned, earlier.used);
    let rules = host.duties.rules(host.cells, policy.allowances());
    let listener = listen_at(&host.socket)?;
    // Only who serves may touch what an earlier one made. It goes with the end of this function; what it made goes when
    // nothing is in it.
    let isolation = Isolation::reach_for_host(&host.socket, &host.duties, &host.topology);
    let isolation = isolation.map_err(io::Error::other)?;
    let orphans = stop_orphans(&earlier.cells);
    let control = host.topology.usable(host.duties.control);
    let pool = host
        .duties
        .pool
        .iter()
        .filter(|core| host.duties.of(*core).len() == 1);
    let alone = pool.fold(CoreSet::default(), |all, core| {
        all.or(&host.topology.usable(core))
    });
    let arbiter = Arc::new(Arbiter::start(rules, host.topology, Some(control.clone()))?);
    let mut fallbacks = host.fallbacks;
    let real_time = arbiter.make_real_time(host.duties.real_time);
    fallbacks.extend(real_time.map_err(io::Error::other)?);
    let (enclosures, instead) = isolation.enclosures(&host.socket);
    fallbacks.extend_from_slice(isolation.fallbacks());
    fallbacks.extend(instead);
    enclosures.sweep();
    let watched = Arc::clone(&arbiter);
    let verifier = Verifier::start(move || watched.watched(), alone, control)?;
    let mut record = host.record;
    let root = By {
        uid: nix::unistd::getuid().as_raw(),
        name: None,
    };
    record
        .record(&root, &Deed::Started, None)
        .map_err(io::Error::other)?;
    let service = Arc::new(Service {
        arbiter,
        verifier,
        enclosures,
        isolation: isolation.level(),
        duties: host.duties,
        fallbacks,
        stop: stop.clone(),
        state: Mutex::new(State {
            policy,
            record,
            connections: BTreeMap::new(),
            counted: BTreeMap::new(),
            orphans,
            kept,
            boot,
            told: BTreeMap::new(),
        }),
    });
    service.keep()?;
    ready(&isolation);
    let served = service.accept(&listener);
    let _ = std::fs::remove_file(&host.socket);
    service.enclosures.sweep();
    let mut state = service.lock();
    let ended = state.record.record(&root, &Deed::Ended, None);
    served.and(ended.map_err(io::Error::other))
}

/// Fails where another arbiter listens.
///
/// # Errors
///
/// Where one does, or the path is none for a socket.
pub fn must_be_free(path: &Path) -> io::Result<()> {
    let kind = SocketType::SEQPACKET;
    let probe = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            let why = format!("another arbiter listens at {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
        Err(_) => Ok(()),
    }
}

/// Listens for everybody. A socket of that name to which nobody listens is taken away.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let make = || {
        socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
    };
    must_be_free(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = make()?;
    bind(&listener, &address)?;
    // Who may do what is said by the policy.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    listen(&listener, 64)?;
    Ok(listener)
}

/// Makes the cells of an earlier arbiter stand still: their runners will hand them in again.
fn stop_orphans(cells: &[Holder]) -> Vec<Process> {
    let found = cells.iter().filter_map(|holder| {
        let process = Process::open(i32::try_from(holder.pid()).ok()?).ok()?;
        // Another process may have the number by now.
        (process.holder() == *holder).then_some(process)
    });
    found.filter(|process| process.stop().is_ok()).collect()
}

impl Service {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &OwnedFd) -> io::Result<()> {
        let begun = Instant::now();
        let mut next = begun;
        while self.stop.urgency() == Urgency::None {
            let mut watched = [
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.soon(), PollFlags::POLLIN),
            ];
            let left = next.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left.saturating_add(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut watched, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Ok(connection) = accept_with(listener, SocketFlags::CLOEXEC) {
                self.greet(connection);
            }
            if Instant::now() >= next {
                next = Instant::now() + ROUND;
                self.round(begun.elapsed() >= ORPHANS);
            }
        }
        Ok(())
    }

    /// Begins to serve a connection, unless there are too many.
    fn greet(self: &Arc<Self>, connection: OwnedFd) {
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&connection) else {
            return;
        };
        let uid = peer.uid.as_raw();
        let mut state = self.lock();
        let all: usize = state.connections.values().sum();
        let of_user = state.connections.entry(uid).or_default();
        if all >= CONNECTIONS || (*of_user >= CONNECTIONS_OF_USER && uid != 0) {
            return;
        }
        *of_user = of_user.saturating_add(1);
        drop(state);
        let service = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name(format!("desk-{uid}"))
            .stack_size(256 << 10)
            .spawn(move || {
                desk::serve(&service, &connection, uid);
                service.leave(uid);
            });
        if started.is_err() {
            self.leave(uid);
        }
    }

    fn leave(&self, uid: u32) {
        let mut state = self.lock();
        if let Some(of_user) = state.connections.get_mut(&uid) {
            *of_user = of_user.saturating_sub(1);
            if *of_user == 0 {
                state.connections.remove(&uid);
            }
        }
        drop(state);
        let _ = self.keep();
    }

    /// Counts what was used, ends what is above its quota, and keeps the rest in mind.
    fn round(&self, orphans_are_lost: bool) {
        let cells = self.arbiter.cells();
        let today = today();
        let mut state = self.lock();
        for cell in &cells {
            state.count(today, cell.cell, cell.request.user, cell.ran);
        }
        state
            .counted
            .retain(|cell, _| cells.iter().any(|seen| seen.cell == *cell));
        for cell in cells.iter().filter(|cell| !cell.ended) {
            let uid = cell.request.user;
            let Some((what, limit, asked, why)) = state.exceeds(today, cell) else {
                continue;
            };
            // Once a day and user for time, which all of the user's cells exceed together.
            let again = what == Exceeded::CpuTime && state.told.insert(uid, today) == Some(today);
            if !again {
                let user = state.by(uid);
                let deed = Deed::Exceeded {
                    user: user.clone(),
                    what,
                    limit,
                    asked,
                };
                // It is ended even if that cannot be written down: a full disk must not lift quotas.
                let _ = state.record.record(&user, &deed, Some(&why));
            }
            let ended = match what {
                Exceeded::Memory => EndedBy::Memory,
                Exceeded::CpuTime | Exceeded::WallTime => EndedBy::Order(why),
            };
            self.arbiter.end(&[cell.cell], &ended);
        }
        let strayers = self.verifier.strayers();
        for cell in cells.iter().filter(|cell| !cell.ended) {
            let strays = strayers
                .iter()
                .any(|pid| u32::try_from(*pid) == Ok(cell.process.pid()));
            let why = match strays {
                true => "it ran without its turn, or beside its core",
                false if !cell.request.processes && self.enclosures.has_others(cell.process) => {
                    "it made processes, which have no turns"
                }
                false => continue,
            };
            let deed = Deed::Killed(Which::Process(cell.process.pid()), 1);
            let by = state.by(ROOT);
            let _ = state.record.record(&by, &deed, Some(why));
            self.arbiter.end(&[cell.cell], &EndedBy::Order(why.to_owned()));
        }
        self.enclosures.sweep();
        if orphans_are_lost {
            for orphan in std::mem::take(&mut state.orphans) {
                let _ = orphan.kill();
            }
        }
        drop(state);
        let _ = self.keep();
    }

    /// Ends a cell whose memory was up, as the kernel has done with its process, and writes it down.
    pub(super) fn ran_out_of_memory(&self, cell: CellId) {
        let cells = self.arbiter.cells().into_iter();
        let Some(cell) = cells.filter(|seen| !seen.ended).find(|seen| seen.cell == cell) else {
            return;
        };
        let mut state = self.lock();
        let user = state.by(cell.request.user);
        let deed = Deed::Exceeded {
            user: user.clone(),
            what: Exceeded::Memory,
            limit: cell.request.memory,
            asked: cell.request.memory,
        };
        let _ = state
            .record
            .record(&user, &deed, Some("the kernel ended it: its memory was up"));
        self.arbiter.end(&[cell.cell], &EndedBy::Memory);
    }

    /// Writes what must survive.
    pub(super) fn keep(&self) -> io::Result<()> {
        let cells = self.arbiter.cells();
        let mut state = self.lock();
        let mut holders: Vec<Holder> = cells.iter().map(|cell| cell.process).collect();
        holders.extend(state.orphans.iter().map(Process::holder));
        let kept = Kept {
            boot: state.boot.clone(),
            cells: holders,
            banned: state.policy.banned().clone(),
            used: state.policy.used().clone(),
        };
        state.kept.write(&kept)
    }
}

impl State {
    pub(super) fn by(&self, uid: u32) -> By {
        By {
            uid,
            name: self.policy.name(uid).map(str::to_owned),
        }
    }

    /// Counts what a cell has run since it was counted last.
    pub(super) fn count(&mut self, day: u64, cell: CellId, uid: u32, ran: Nanos) {
        let before = self.counted.insert(cell, ran).unwrap_or(0);
        self.policy.count(day, uid, ran.saturating_sub(before));
    }

    /// A cell that an earlier arbiter knew was handed in again.
    pub(super) fn found_again(&mut self, holder: Holder) {
        self.orphans.retain(|orphan| orphan.holder() != holder);
    }

    /// What a cell, or its user, has too much of.
    fn exceeds(&self, today: u64, cell: &Seen) -> Option<(Exceeded, u64, u64, String)> {
        let uid = cell.request.user;
        let user = self.policy.user(uid).ok()?;
        let (name, quota) = (&user.name, &user.quota);
        if let Err(why) = self.policy.within_cpu_time(today, uid) {
            let limit = quota.cpu_time.unwrap_or(0) / SECOND;
            let used = self.policy.used().of(today, uid) / SECOND;
            return Some((Exceeded::CpuTime, limit, used, why.to_string()));
        }
        if let Some(limit) = quota.wall_time.filter(|limit| cell.ran > *limit) {
            let (limit, ran) = (limit / SECOND, cell.ran / SECOND);
            let why = format!("a cell of user `{name}` may run for {limit} s");
            return Some((Exceeded::WallTime, limit, ran, why));
        }
        let limit = quota.memory.map(|_| cell.request.memory)?;
        let resident = resident(cell.process.pid()).filter(|resident| *resident > limit)?;
        let why = format!("a cell of user `{name}` asked for {limit} bytes of memory and uses {resident}");
        Some((Exceeded::Memory, limit, resident, why))
    }
}

/// Memory in bytes that a process uses now (`proc(5)`, `statm`: field 2, in pages).
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(size).ok()?)
}

/// Days since 1970, UTC.
pub(super) fn today() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs() / 86_400)
}
