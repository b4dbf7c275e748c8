//! Commands: programs of the user's own, each confined, at little more than the cost of its `execve`.
//!
//! In: a program with arguments and environment, files, limits. Out: how it ended, what it used, its outputs. The program is
//! trusted to be what the user wants to run; it is not trusted with anything that its stage does not declare, and what it
//! reads may be hostile.
//!
//! ```text
//! runner ── a job ──> warden, once for each worker ──clone, execve──> the command ──> whatever it starts
//!   │  <── answer ──     namespaces, root, user, Landlock, seccomp        cwd /work: own files, inputs/, outputs/
//!   └── seat: the folder that is /work and /tmp; filled before, collected and emptied after each command
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | this one | [`Commands`]: what this host lets us put around commands; seats, kept for the next command |
//! | [`seat`] | [`Seat`]: the place of one command at a time |
//! | [`collect`] | outputs: regular files only, within bounds |
//! | `folder` | the folders of a seat, and how they are emptied whatever lies in them |
//! | `filter` | the system calls that are refused |
//! | `message` | what runner and warden say to each other |
//! | `warden_unsafe` | the warden |
//!
//! # What holds a command
//! - **Files**: a root of its own with the system's `/usr`, `/bin`, `/lib*`, `/etc` read-only, five devices, a `/proc` that
//!   shows only its own processes (and the machine's CPU, memory and kernel parameters, to read), `/work` and `/tmp`.
//!   Landlock allows writing in `/work/outputs` and `/tmp` alone, and reading nothing else. Without a mount namespace the
//!   paths are the host's, and Landlock alone holds.
//! - **Network**: `socket` is refused; a network namespace without any interface, Landlock for TCP.
//! - **Kernel**: no new privileges; a list of refused calls, see `filter.rs`; as root's runner, the user `nobody`.
//! - **Processes**: a pid namespace. When the command ends, everything it started is killed at once and waited for.
//! - **Limits**: of CPU time and file size for each process, descriptors, no core dumps; of memory and tasks by a control
//!   group where the stage asks.
//!
//! # What it costs
//! Measured by `examples/commands.rs` (2,000 times `/bin/true`, in one run, on two cores of a Linux 6.18 virtual machine with
//! other work beside; CPU time of runner, wardens and children):
//!
//! | | CPU each |
//! |---|---|
//! | `posix_spawn`, nothing around it | 0.50-0.54 ms |
//! | confined | 0.52-0.54 ms |
//! | confined, with a control group for memory and tasks | 0.87-1.1 ms |

pub mod collect;
mod filter;
mod folder;
mod message;
pub mod seat;
mod warden_unsafe;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use landlock::{ABI, Access, AccessFs, AccessNet, Scope};
use nix::fcntl::{Flock, FlockArg};

pub use seat::{CommandEnding, CommandLimits, CommandSpec, End, Seat, Stream};

use crate::contract::CellFault;
use crate::supervise::{NAMESPACES, NOBODY, Sandbox};
use folder::Folder;
use warden_unsafe::{Landlock, OF_ROOT, Root, Setup};

/// Where a command finds its files, as it sees them, where it has a root of its own.
pub const WORK: &str = "/work";
/// `PATH` of every command.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Folders of the system that a command may read, from the root. What a host lacks is left out.
const SYSTEM: [&str; 9] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "nix",
];
/// Devices that a command may use.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Name of the area folders, before a number.
const PREFIX: &str = "hotcell-commands-";
/// The first version of Landlock's interface that knows scopes of signals.
const LANDLOCK_SIGNALS: i32 = 6;
/// Processes and threads of the user that runs commands, where nothing else is asked for: enough for anything but a bomb.
const MANY_TASKS: u64 = 4096;

/// Everything commands of one run share. Dropped last, it removes its folder.
#[derive(Debug)]
pub struct Commands {
    area: PathBuf,
    /// Held as long as the area is in use: another runner removes an area that nobody holds.
    _lock: Flock<File>,
    sandbox: &'static Sandbox,
    namespaces: libc::c_int,
    /// What the first seat found out, for all later ones.
    walls: OnceLock<Walls>,
    finding: Mutex<()>,
    idle: Mutex<Vec<Seat>>,
    made: AtomicUsize,
}

/// What this host lets us put around a command.
#[derive(Debug, Clone)]
struct Walls {
    namespaces: libc::c_int,
    own_root: bool,
    landlock: i32,
    layers: Vec<String>,
    fallbacks: Vec<String>,
}

/// Makes an error that tells what was tried.
fn host(doing: &'static str) -> impl FnOnce(io::Error) -> CellFault {
    move |source| CellFault::Host { doing, source }
}

impl Commands {
    /// Commands that work in a new folder within `parent`, a folder for temporary files. Folders there that a runner left
    /// which is no more are removed.
    pub fn new(parent: &Path) -> Result<Self, CellFault> {
        let sandbox = Sandbox::of_this_host();
        Self::within(parent, sandbox, sandbox.namespaces())
    }

    /// Commands as a host without namespaces runs them: Landlock, seccomp, limits and process groups alone.
    pub fn without_namespaces(parent: &Path) -> Result<Self, CellFault> {
        Self::within(parent, Sandbox::of_this_host(), 0)
    }

    fn within(parent: &Path, sandbox: &'static Sandbox, namespaces: libc::c_int) -> Result<Self, CellFault> {
        remove_abandoned(parent);
        let (area, lock) = make_area(parent, sandbox).map_err(host("making a folder for commands"))?;
        Ok(Self {
            area,
            _lock: lock,
            sandbox,
            namespaces,
            walls: OnceLock::new(),
            finding: Mutex::new(()),
            idle: Mutex::new(Vec::new()),
            made: AtomicUsize::new(0),
        })
    }

    /// A place for one command: one that was used before, or a new one.
    pub fn seat(&self) -> Result<Seat, CellFault> {
        let idle = || {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.pop()
        };
        match idle() {
            Some(seat) => Ok(seat),
            None => self.new_seat(),
        }
    }

    /// Takes a place back. One that cannot be trusted to be as new is given up.
    pub fn give_back(&self, mut seat: Seat) {
        if seat.clean() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(seat);
        }
    }

    fn new_seat(&self) -> Result<Seat, CellFault> {
        let walls = match self.walls.get() {
            Some(walls) => walls,
            None => {
                let _one = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
                match self.walls.get() {
                    Some(walls) => walls,
                    None => {
                        let (walls, seat) = self.find_walls()?;
                        let _ = self.walls.set(walls);
                        return Ok(seat);
                    }
                }
            }
        };
        self.seat_within(walls).map(|(seat, _)| seat)
    }

    /// Tries what this host allows: first everything, then without a root of its own.
    fn find_walls(&self) -> Result<(Walls, Seat), CellFault> {
        let mut walls = Walls::of(self.sandbox, self.namespaces);
        // Its folders would belong to the command's own user and nothing would keep it from replacing them by links.
        if walls.landlock == 0 && !self.sandbox.leave_root() {
            let why = "this kernel has no Landlock, and without it only root can keep a command in its folder: run as root, \
                       or on a kernel with Landlock (`lsm=` names it)";
            return Err(host("confining a command")(io::Error::other(why)));
        }
        let (seat, own_proc) = match self.seat_within(&walls) {
            Err(CellFault::Host { source, .. }) if walls.own_root && is_of_root(&source) => {
                walls.own_root = false;
                walls.fallbacks.push(format!(
                    "no root of its own ({source}): Landlock alone bounds files"
                ));
                self.seat_within(&walls)?
            }
            other => other?,
        };
        match (walls.own_root, own_proc) {
            (true, true) => walls.layers.extend(["private-root".into(), "own-proc".into()]),
            (true, false) => {
                walls.layers.push("private-root".into());
                walls
                    .fallbacks
                    .push("this host does not let us mount /proc: commands have none".into());
            }
            (false, _) => {}
        }
        let mut seat = seat;
        seat.tell_walls(&walls.layers, &walls.fallbacks);
        Ok((walls, seat))
    }

    fn seat_within(&self, walls: &Walls) -> Result<(Seat, bool), CellFault> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.area.join(number.to_string());
        let owner = self.sandbox.leave_root().then_some(NOBODY);
        let folder = Folder::make(&path, owner).map_err(host("making a command's folder"))?;
        let setup = walls
            .setup(self.sandbox, &folder)
            .map_err(host("preparing a command's confinement"))?;
        let (work, tmp) = match walls.own_root {
            true => (WORK.to_owned(), "/tmp".to_owned()),
            false => (text(&folder.work())?, text(&folder.tmp())?),
        };
        if !walls.own_root && owner.is_some() {
            folder
                .check_reachable()
                .map_err(host("making a command's folder"))?;
        }
        Seat::start(folder, &setup, self.sandbox, (work, tmp), walls)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
        folder::remove(&self.area);
    }
}

impl Walls {
    fn of(sandbox: &Sandbox, namespaces: libc::c_int) -> Self {
        let landlock = warden_unsafe::landlock_version();
        let mut layers = vec![
            "no-new-privs".to_owned(),
            "rlimits".to_owned(),
            "seccomp".to_owned(),
        ];
        let mut fallbacks = Vec::new();
        match landlock {
            0 => fallbacks.push(
                "no Landlock in this kernel: a command reads what its user may read, and writes in all of its folder"
                    .into(),
            ),
            1..LANDLOCK_SIGNALS => layers.push("landlock-partial".into()),
            _ => layers.push("landlock".into()),
        }
        if sandbox.leave_root() {
            layers.push("own-user".into());
        } else if namespaces & libc::CLONE_NEWUSER != 0 {
            layers.push("user-namespace".into());
        }
        for (flag, name) in NAMESPACES {
            if namespaces & flag != 0 {
                layers.push(name.into());
            } else if flag == libc::CLONE_NEWPID {
                fallbacks.push(format!(
                    "no {name} on this host: commands may not leave their process group, and end with it"
                ));
                if landlock < LANDLOCK_SIGNALS {
                    fallbacks.push("this kernel's Landlock does not know signals: a command can end other processes of its user".into());
                }
            } else {
                fallbacks.push(format!(
                    "no {name} on this host: seccomp and Landlock hold instead"
                ));
            }
        }
        let both = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        Self {
            namespaces,
            own_root: namespaces & both == both,
            landlock,
            layers,
            fallbacks,
        }
    }

    fn setup(&self, sandbox: &Sandbox, folder: &Folder) -> io::Result<Setup> {
        let own_pids = self.namespaces & libc::CLONE_NEWPID != 0;
        // Paths as the warden sees them, once it has changed its root or not.
        let (work, tmp) = match self.own_root {
            true => (PathBuf::from(WORK), PathBuf::from("/tmp")),
            false => (folder.work(), folder.tmp()),
        };
        let mut limits = vec![
            (libc::RLIMIT_CORE, 0, 0),
            (libc::RLIMIT_NOFILE, 1024, 1024),
            (libc::RLIMIT_MEMLOCK, 0, 0),
            (libc::RLIMIT_MSGQUEUE, 0, 0),
        ];
        // Where the user is the runner's own, with other processes of theirs, their number says nothing.
        if sandbox.leave_root() || self.namespaces & libc::CLONE_NEWUSER != 0 {
            limits.push((libc::RLIMIT_NPROC, MANY_TASKS, MANY_TASKS));
        }
        Ok(Setup {
            namespaces: self.namespaces,
            root: match self.own_root {
                true => Some(root(folder)?),
                false => None,
            },
            user: sandbox.leave_root().then_some(NOBODY),
            landlock: match self.landlock {
                0 => None,
                version => Some(landlock(version, self.own_root, &work, &tmp)?),
            },
            command_landlock: (!own_pids && self.landlock >= LANDLOCK_SIGNALS).then(|| Landlock {
                version: self.landlock,
                files: 0,
                network: 0,
                scopes: Scope::Signal as u64,
                rules: Vec::new(),
            }),
            work: c_path(&work)?,
            filter: filter::program(),
            command_filter: match own_pids {
                true => Vec::new(),
                false => filter::stay_in_group(),
            },
            limits,
        })
    }
}

/// What is bound over the empty places of a seat's folder.
fn root(folder: &Folder) -> io::Result<Root> {
    let path = folder.root();
    let mut binds = Vec::new();
    for name in SYSTEM {
        let source = Path::new("/").join(name);
        let place = path.join(name);
        match fs::symlink_metadata(&source) {
            Ok(facts) if facts.is_symlink() => std::os::unix::fs::symlink(fs::read_link(&source)?, &place)?,
            Ok(facts) if facts.is_dir() => {
                fs::create_dir(&place)?;
                binds.push((c_path(&source)?, c_path(&place)?, true));
            }
            _ => {}
        }
    }
    fs::create_dir(path.join("dev"))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            let place = path.join("dev").join(name);
            File::create_new(&place)?;
            binds.push((c_path(&source)?, c_path(&place)?, false));
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp"),
    ] {
        std::os::unix::fs::symlink(target, path.join("dev").join(name))?;
    }
    let proc = path.join("proc");
    fs::create_dir(&proc)?;
    Ok(Root {
        path: c_path(&path)?,
        binds,
        proc: c_path(&proc)?,
    })
}

fn landlock(version: i32, own_root: bool, work: &Path, tmp: &Path) -> io::Result<Landlock> {
    let abi = match version {
        ..=1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    };
    let all = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = all & (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate);
    let mut rules = Vec::new();
    for name in SYSTEM {
        rules.push((c_path(&Path::new("/").join(name))?, read.bits()));
    }
    if own_root {
        let look = AccessFs::ReadFile | AccessFs::ReadDir;
        rules.push((c"/proc".to_owned(), look.bits()));
    }
    for name in DEVICES {
        rules.push((c_path(&Path::new("/dev").join(name))?, device.bits()));
    }
    rules.push((c_path(work)?, read.bits()));
    rules.push((c_path(&work.join("outputs"))?, write.bits()));
    rules.push((c_path(tmp)?, write.bits()));
    Ok(Landlock {
        version,
        files: all.bits(),
        network: AccessNet::from_all(abi).bits(),
        scopes: Scope::from_all(abi).bits(),
        rules,
    })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).map_err(io::Error::other)
}

fn text(path: &Path) -> Result<String, CellFault> {
    path.to_str().map(str::to_owned).ok_or_else(|| CellFault::Host {
        doing: "making a command's folder",
        source: io::Error::other(format!(
            "{} is not UTF-8; set TMPDIR to another folder",
            path.display()
        )),
    })
}

/// An error of a warden's step, so that the step is known to whoever gets it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", warden_unsafe::step_name(*step))]
struct StepError {
    step: u32,
    source: io::Error,
}

fn step_error(step: u32, errno: i32) -> io::Error {
    let source = io::Error::from_raw_os_error(errno);
    io::Error::new(source.kind(), StepError { step, source })
}

fn is_of_root(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<StepError>());
    inner.is_some_and(|error| OF_ROOT.contains(&error.step))
}

/// Makes the folder for all seats, for nobody else to look into.
fn make_area(parent: &Path, sandbox: &Sandbox) -> io::Result<(PathBuf, Flock<File>)> {
    for number in 0..10_000_u32 {
        let area = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&area) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => {
                let text = format!("{}: {error}", area.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
        let lock = match lock(&area) {
            Ok(lock) => lock,
            // Another runner that looks for abandoned folders was faster than the lock.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {
                continue;
            }
            Err(error) => return Err(io::Error::other(format!("{}: {error}", area.display()))),
        };
        if sandbox.leave_root() {
            // The user that commands become must get through; names in it are known to the runner alone.
            fs::set_permissions(&area, fs::Permissions::from_mode(0o711))?;
        }
        return Ok((fs::canonicalize(area)?, lock));
    }
    Err(io::Error::other(format!(
        "{} is full of folders of commands",
        parent.display()
    )))
}

fn lock(area: &Path) -> io::Result<Flock<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(area.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// Removes folders of runners that are no more: those whose lock nobody holds.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // A folder without a lock file may be about to get one.
        if ours
            && is_folder
            && folder::is_own(&entry.path())
            && entry.path().join("lock").is_file()
            && lock(&entry.path()).is_ok()
        {
            folder::remove(&entry.path());
        }
    }
}
