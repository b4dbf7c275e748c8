//! Around a cell process: its blobs, the namespaces and limits it is born into, what the kernel says of it, its end.
//!
//! The child gets a control socket as descriptor 3, blobs from 4 on, `/dev/null` for input and output, a pipe for its
//! error output, an empty environment, and nothing else. [`Sandbox::of_this_host`] finds out once which namespaces this host
//! allows; what it does not allow is named, never assumed.

mod blob;
mod cgroup;
mod enclosure;
mod freezer;
mod guests;
mod owner;
mod spawn_unsafe;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, pipe2};

pub use blob::{Area, SealedBlob};
use cgroup::Groups;
pub use cgroup::Met;
pub(crate) use cgroup::{Group, clear_abandoned as clear_groups, own_folder as cgroup_folder};
pub use enclosure::{Enclosure, Enclosures};
pub(crate) use freezer::Freezer;
pub use guests::Guests;
pub(crate) use owner::{HOUSE, POOL, name as group_name, of_host};
use spawn_unsafe::{Birth, Reaped};

/// Parts of making a process that other processes than cells are made of too.
pub(crate) mod births {
    pub(crate) use super::spawn_unsafe::{become_user, clone_process, duplicate_above, wait};
}

use hotcell_schema::digest::Digest;

use crate::contract::Usage;
use crate::cores::process::{Process, Still};

/// User and group that cells run as when the runner is root: the kernel's overflow ids, which own nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Limits of the host on one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLimits {
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// CPU time in seconds.
    pub cpu_s: u64,
    /// Address space in bytes. An emulator reserves far more than it uses: Unicorn 1 GiB for each address space.
    pub address_space: u64,
    /// Memory in bytes that it really uses, kernel memory for it included. Holds where control groups can be made.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Tasks (threads) of the process.
    pub tasks: u64,
    /// Greatest length of a file that it writes, in bytes.
    pub file_bytes: u64,
}

/// Processes and threads of cells that have many, all together, where no control group bounds each.
const MANY_TASKS: u64 = 4096;

/// How a fallback begins where no control groups can be made.
const NO_GROUPS: &str = "no control groups for cells";

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            wall_ms: 300_000,
            cpu_s: 600,
            address_space: 128 << 30,
            memory: 2 << 30,
            descriptors: 256,
            tasks: 1,
            file_bytes: 0,
        }
    }
}

/// The limit of a user's processes for a cell of so many tasks. All cells of root's runner are one user, so that a limit for
/// one with many would be met by the others: there it only keeps a fork bomb finite, where no control group does.
fn processes(tasks: u64) -> u64 {
    match tasks {
        0 | 1 => tasks,
        many => many.max(MANY_TASKS),
    }
}

/// A cell executable that is there: opened once, so that every cell runs the same bytes. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Executable(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
    digest: OnceLock<Digest>,
}

impl Executable {
    /// Opens the executable.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        if !facts.is_file() || facts.mode() & 0o111 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "not an executable file",
            ));
        }
        // Cells of root's runner leave root before they begin. Where others may not run the file, they run a copy of it:
        // a cell that stayed root for it would have one wall less.
        let file = match geteuid().is_root() && facts.mode() & 0o005 != 0o005 {
            true => blob::runnable_copy(&file)?,
            false => file,
        };
        Ok(Self(Arc::new(Opened {
            path: path.to_owned(),
            digest: OnceLock::new(),
            file,
        })))
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The digest of its bytes, read when it is first asked for.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        if let Some(digest) = self.0.digest.get() {
            return Ok(*digest);
        }
        let digest = crate::context::stream_digest(&mut &self.reopened()?)?;
        Ok(*self.0.digest.get_or_init(|| digest))
    }

    /// A description of its own: reading it moves nobody else's offset.
    fn reopened(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.0.file.as_raw_fd()))
    }

    /// Its bytes, for a digest.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(format!("/proc/self/fd/{}", self.0.file.as_raw_fd()))
    }
}

/// Which walls this host lets a runner put around its cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Namespaces made with the process.
    namespaces: libc::c_int,
    /// Whether the process leaves root for an id that owns nothing.
    leave_root: bool,
    /// Whether the process, after that, moves into a user namespace of its own.
    own_users: bool,
    /// Where control groups can be made.
    groups: Option<Groups>,
    /// Whether the host's arbiter makes some.
    of_arbiter: bool,
    /// The control group that keeps processes on the pool's cores, where there is one.
    pool: Option<Pool>,
    /// Names of the layers, for instance `pid-namespace`.
    pub layers: Vec<String>,
    /// What this host does not allow, and what holds instead.
    pub fallbacks: Vec<String>,
}

pub(crate) const NAMESPACES: [(libc::c_int, &str); 6] = [
    (libc::CLONE_NEWNET, "network-namespace"),
    (libc::CLONE_NEWPID, "pid-namespace"),
    (libc::CLONE_NEWIPC, "ipc-namespace"),
    (libc::CLONE_NEWUTS, "uts-namespace"),
    (libc::CLONE_NEWNS, "mount-namespace"),
    (libc::CLONE_NEWCGROUP, "cgroup-namespace"),
];

impl Sandbox {
    /// What this host allows, found by trying, once in a process.
    pub fn of_this_host() -> &'static Self {
        static FOUND: OnceLock<Sandbox> = OnceLock::new();
        FOUND.get_or_init(Self::probe)
    }

    /// Namespaces that a process can be made with (`CLONE_NEW…`).
    pub(crate) fn namespaces(&self) -> libc::c_int {
        self.namespaces
    }

    /// Whether processes leave root for an id that owns nothing.
    pub(crate) fn leave_root(&self) -> bool {
        self.leave_root
    }

    /// Whether processes, after that, can move into a user namespace of their own.
    pub(crate) fn own_users(&self) -> bool {
        self.own_users
    }

    /// Whether a cell that makes processes can stand still with all of them.
    pub fn stand_still(&self) -> bool {
        self.of_arbiter || self.groups.as_ref().is_some_and(Groups::stand_still)
    }

    /// Where control groups can be made.
    pub(crate) fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// The same walls without namespaces, as on hosts that allow none: to see what the others hold by themselves.
    pub fn without_namespaces(mut self) -> Self {
        let is_one =
            |layer: &String| layer == "user-namespace" || NAMESPACES.iter().any(|(_, name)| layer == name);
        self.layers.retain(|layer| !is_one(layer));
        self.namespaces = 0;
        self.own_users = false;
        self.fallbacks
            .push("no namespaces were asked for: seccomp and Landlock hold instead".into());
        self
    }

    /// The same for a process that makes its namespaces itself, and is root in them: one that was born into those of a cell
    /// could make no more.
    pub fn for_keepers(&self) -> Self {
        let mut keepers = self.clone();
        let is_one =
            |layer: &String| layer == "user-namespace" || NAMESPACES.iter().any(|(_, name)| layer == name);
        keepers.layers.retain(|layer| !is_one(layer));
        keepers.namespaces = 0;
        keepers.own_users = false;
        keepers
    }

    /// The same walls where the host's arbiter takes each cell into a control group of its own, whatever this user may make.
    pub fn in_groups_of_arbiter(mut self) -> Self {
        self.of_arbiter = true;
        self.fallbacks.retain(|fallback| !fallback.starts_with(NO_GROUPS));
        self.layers
            .push("cgroup (the host's arbiter: memory, processes, cores)".into());
        self
    }

    /// The same walls without control groups, as on hosts where none can be made.
    pub fn without_groups(mut self) -> Self {
        let given = self
            .groups
            .take()
            .map(|groups| groups.layers())
            .unwrap_or_default();
        self.layers.retain(|layer| !given.contains(layer));
        self.fallbacks.push(
            "no control groups were asked for: the limit of address space bounds memory instead".into(),
        );
        self
    }

    /// Whether processes get groups of cgroup v2.
    pub(crate) fn has_unified_groups(&self) -> bool {
        matches!(self.groups, Some(Groups::Unified(_)))
    }

    /// The same walls, and the group of a pool of cores, which is one of cgroup v2 or of the `cpuset` hierarchy of v1.
    pub(crate) fn within(&self, group: &Path, unified: bool) -> Self {
        let mut within = self.clone();
        within.layers.push("cpuset-cgroup".into());
        within.pool = Some(Pool {
            group: group.to_owned(),
            unified,
        });
        within
    }

    fn probe() -> Self {
        let leave_root = geteuid().is_root();
        let mut found = Self {
            namespaces: 0,
            leave_root,
            own_users: false,
            groups: None,
            of_arbiter: false,
            pool: None,
            layers: Vec::new(),
            fallbacks: Vec::new(),
        };
        match Groups::find() {
            Ok(groups) => {
                found.layers.extend(groups.layers());
                found.groups = Some(groups);
            }
            Err(why) => found.fallbacks.push(format!(
                "{NO_GROUPS} ({why}): the limit of address space bounds memory instead"
            )),
        }
        let works = |namespaces, own_users| {
            spawn_unsafe::trial(namespaces, leave_root.then_some(NOBODY), own_users).is_ok()
        };
        // Root leaves root, then makes its user namespace; anyone else makes it first, to be allowed the others.
        let with_users = match leave_root {
            true => 0,
            false => libc::CLONE_NEWUSER,
        };
        let own_users = works(with_users, leave_root);
        let base = match own_users {
            true => with_users,
            false => 0,
        };
        found.own_users = own_users && leave_root;
        if leave_root {
            found.layers.push("own-user".into());
        }
        match own_users {
            true => found.layers.push("user-namespace".into()),
            false => found
                .fallbacks
                .push("no user namespace on this host: seccomp and Landlock hold instead".into()),
        }
        let all = NAMESPACES.iter().fold(base, |flags, (flag, _)| flags | flag);
        if works(all, found.own_users) {
            found.namespaces = all;
            found
                .layers
                .extend(NAMESPACES.iter().map(|(_, name)| (*name).into()));
            return found;
        }
        found.namespaces = base;
        for (flag, name) in NAMESPACES {
            if works(base | flag, found.own_users) {
                found.namespaces |= flag;
                found.layers.push(name.into());
            } else {
                found.fallbacks.push(format!(
                    "no {name} on this host: seccomp and Landlock hold instead"
                ));
            }
        }
        found
    }
}

/// The group of a pool of cores.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pool {
    group: PathBuf,
    /// Whether it is one of cgroup v2.
    unified: bool,
}

/// A running cell process and the runner's ends of its descriptors.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    reaped: Option<Reaped>,
    /// Greatest resident memory seen while it ran, in KiB.
    peak_kib: u64,
    /// The control socket.
    pub(crate) socket: UnixStream,
    /// Its error output, non-blocking.
    pub(crate) errors: File,
    /// Its control group: dropped, and so removed, after the process has ended.
    group: Option<Group>,
    /// Whether it may make processes.
    many: bool,
    /// The group of its cores: it is not in it before [`Child::enter_pool`].
    pool: Option<Pool>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(Signal::SIGSYS) => {
                    f.write_str("SIGSYS: it made a system call that its confinement forbids")
                }
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// Starts `executable` as a cell with these blobs and, as the last descriptor, `area`.
pub fn spawn(
    executable: &Executable,
    blobs: &[&SealedBlob],
    area: &Area,
    limits: &HostLimits,
    sandbox: &Sandbox,
) -> io::Result<Child> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (errors, errors_theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&errors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let null = File::options().read(true).write(true).open("/dev/null")?;

    // In the child, sources must not stand where a target goes: move them all above.
    let above = i32::try_from(blobs.len())
        .map_err(io::Error::other)?
        .saturating_add(17);
    let lift = |fd: BorrowedFd<'_>| spawn_unsafe::duplicate_above(fd, above);
    let mut descriptors = vec![
        lift(null.as_fd())?,
        lift(null.as_fd())?,
        lift(errors_theirs.as_fd())?,
        lift(theirs.as_fd())?,
    ];
    for blob in blobs {
        // Opened once more for each cell: what shares an open file shares its offset, and could talk by it.
        descriptors.push(lift(blob.opened_again()?.as_fd())?);
    }
    descriptors.push(lift(area.as_fd())?);
    let group = match &sandbox.groups {
        Some(groups) => Some(groups.make(limits.memory, limits.tasks)?),
        None => None,
    };
    let mut entrances = Vec::new();
    if let Some(group) = &group {
        for entrance in group.entrances()? {
            entrances.push(lift(entrance.as_fd())?);
        }
    }
    // The kernel's limit is of each process, and counts whole ticks: on a busy host it is met long before the time was used.
    // Where that of all together is known it is the last resort.
    let counted = limits.tasks > 1 && group.as_ref().is_some_and(|group| group.cpu_us().is_some());
    let cpu_s = match counted {
        true => limits.cpu_s.saturating_mul(4),
        false => limits.cpu_s,
    };
    let executable_file = lift(executable.0.file.as_fd())?;
    let name = executable.0.path.file_name().unwrap_or_default();
    let birth = Birth {
        executable: executable_file.as_fd(),
        name: CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name)).map_err(io::Error::other)?,
        descriptors: &descriptors,
        entrances: &entrances,
        namespaces: sandbox.namespaces,
        user: sandbox.leave_root.then_some(NOBODY),
        own_users: sandbox.own_users,
        // Of a cell with several it is not the one that speaks with the runner, which stays as it is: its guests raise theirs.
        first_to_end: limits.tasks <= 1,
        limits: &[
            (libc::RLIMIT_AS, limits.address_space),
            (libc::RLIMIT_CPU, cpu_s),
            (
                libc::RLIMIT_NOFILE,
                limits.descriptors.saturating_add(blobs.len() as u64 + 1),
            ),
            (libc::RLIMIT_NPROC, processes(limits.tasks)),
            (libc::RLIMIT_FSIZE, limits.file_bytes),
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_MEMLOCK, 0),
            (libc::RLIMIT_MSGQUEUE, 0),
        ],
    };
    let pid = spawn_unsafe::spawn(&birth)?;
    Ok(Child {
        pid: Pid::from_raw(pid),
        reaped: None,
        peak_kib: 0,
        socket: ours,
        errors: File::from(errors),
        group,
        many: limits.tasks > 1,
        pool: sandbox.pool.clone(),
    })
}

impl Child {
    /// Its process id.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Moves the process into the group of its pool, where it has one. Until then it is where the runner is: what it does
    /// before its first turn takes nothing from those who have theirs.
    ///
    /// # Errors
    ///
    /// If the host refuses it.
    pub(crate) fn enter_pool(&mut self) -> io::Result<()> {
        let Some(pool) = self.pool.take() else {
            return Ok(());
        };
        // It must not run there before its first turn.
        if Process::open(self.pid.as_raw())?.stop()? == Still::Ended {
            return Ok(());
        }
        match &mut self.group {
            // A process is in one group of v2.
            Some(group) if pool.unified && group.is_unified() => group.move_below(&pool.group, self.pid),
            _ => std::fs::write(pool.group.join("cgroup.procs"), self.pid.to_string()),
        }
    }

    /// Whether the kernel says that the process can get no new privileges and has a seccomp filter. `None`: this host does
    /// not let us look.
    pub fn is_confined(&self) -> Option<bool> {
        let status = self.proc_file("status")?;
        let line = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        Some(line("NoNewPrivs") == Some("1") && line("Seccomp") == Some("2"))
    }

    /// What the process has used until now, as the kernel says.
    pub fn usage(&mut self) -> Usage {
        if let Some(reaped) = self.reaped {
            return Usage {
                cpu_s: reaped.cpu_s,
                // What was seen while it ran; else its group's; else the kernel's upper bound.
                peak_kib: match self.peak_kib {
                    0 => self
                        .group
                        .as_ref()
                        .and_then(Group::peak_kib)
                        .unwrap_or(reaped.peak_kib),
                    seen => seen,
                },
            };
        }
        let (cpu_s, peak_kib) = self.live_usage();
        self.peak_kib = self.peak_kib.max(peak_kib);
        Usage {
            cpu_s,
            peak_kib: self.peak_kib,
        }
    }

    pub(crate) fn live_usage(&self) -> (f64, u64) {
        let peak = self.proc_file("status").and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        });
        // proc(5): after the name in brackets, fields 14 and 15 are user and system time in clock ticks (USER_HZ, 100).
        let ticks = self.proc_file("stat").and_then(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ').skip(11);
            let user: u64 = fields.next()?.parse().ok()?;
            let system: u64 = fields.next()?.parse().ok()?;
            Some(user.saturating_add(system))
        });
        (ticks.unwrap_or(0) as f64 / 100.0, peak.unwrap_or(0))
    }

    fn proc_file(&self, name: &str) -> Option<String> {
        if self.reaped.is_some() {
            return None;
        }
        let mut text = String::new();
        File::open(format!("/proc/{}/{name}", self.pid))
            .ok()?
            .take(64 << 10)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    }

    /// Whether it may have several processes.
    pub(crate) fn has_many(&self) -> bool {
        self.many
    }

    /// CPU time in seconds of all of its processes together, those that have ended too; `None`: this host's control groups do
    /// not count it.
    pub(crate) fn cpu_of_all(&self) -> Option<f64> {
        Some(self.group.as_ref()?.cpu_us()? as f64 / 1e6)
    }

    /// Which limits its group met.
    pub(crate) fn met(&self) -> Met {
        self.group.as_ref().map(Group::met).unwrap_or_default()
    }

    /// Whether the kernel ended it because the memory of its group was up.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }

    /// Changes the bound on its memory.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        match &self.group {
            Some(group) => group.limit_memory(bytes),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no control groups on this host",
            )),
        }
    }

    /// Changes a resource limit of the running process.
    pub(crate) fn limit(&self, resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
        spawn_unsafe::limit_process(self.pid.as_raw(), resource, most)
    }

    /// Makes it stand still with all that it made, or go on.
    pub(crate) fn freeze(&self, still: bool) -> io::Result<()> {
        match self.group.as_ref().and_then(Group::freezer) {
            Some(freezer) => freezer.freeze(still),
            None => Ok(()),
        }
    }

    /// Ends what it made, and not itself; best while all of it stands still, so that nothing is made meanwhile.
    pub(crate) fn end_others(&self) {
        let own = self.group.as_ref().and_then(Group::freezer).cloned();
        // Its group may be the host's arbiter's.
        let of_arbiter = || Freezer::of(self.pid.as_raw().unsigned_abs()).ok().flatten();
        if let Some(freezer) = own.or_else(of_arbiter) {
            freezer.end_all_but(self.pid);
        }
    }

    /// Whether it may make processes that nothing could make stand still.
    pub(crate) fn runs_on(&self) -> bool {
        self.many && self.group.as_ref().and_then(Group::freezer).is_none()
    }

    /// Tells the process that something was said to it. Its own handler makes it listen; one without a handler ignores it.
    pub(crate) fn nudge(&self) {
        if self.reaped.is_none() {
            let _ = kill(self.pid, Signal::SIGURG);
        }
    }

    /// Ends the process now, with all it may have made.
    pub fn kill(&mut self) {
        if self.reaped.is_none() {
            let _ = kill(Pid::from_raw(-self.pid.as_raw()), Signal::SIGKILL);
            let _ = kill(self.pid, Signal::SIGKILL);
            if let Some(group) = self.group.as_ref().filter(|_| self.many) {
                group.end_all();
            }
        }
    }

    /// Waits for the end of the process, and of all that it made.
    pub fn wait(&mut self) -> io::Result<Exit> {
        let reaped = match self.reaped {
            Some(reaped) => reaped,
            None => {
                let reaped = spawn_unsafe::wait(self.pid.as_raw())?;
                self.reaped = Some(reaped);
                // They end by themselves when their first process has.
                if let Some(group) = self.group.as_ref().filter(|_| self.many) {
                    group.wait_until_empty();
                }
                reaped
            }
        };
        Ok(reaped.exit)
    }

    /// How it ended, once it was waited for.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.reaped.map(|reaped| reaped.exit)
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.reaped.is_none()
            && let Ok(Some(reaped)) = spawn_unsafe::wait_no_hang(self.pid.as_raw())
        {
            self.reaped = Some(reaped);
        }
        self.reaped.is_some()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}
