//! What this host lets us put around commands, and what is made of it for one seat.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, AccessNet, Scope};

use super::bounds::{Bounds, MAX_FILES_AT_ONCE};
use super::filter::{self, Around};
use super::folder::Folder;
use super::landlock_unsafe::{self, Landlock};
use super::root_unsafe::{Root, Scratch};
use super::step::holds;
use super::warden_unsafe::Setup;
use super::{DEVICES, SYSTEM, WORK};
use crate::supervise::{NAMESPACES, NOBODY, Sandbox};

/// The first version of Landlock's interface that knows scopes of signals.
const LANDLOCK_SIGNALS: i32 = 6;
/// Where the users of seats begin: beyond what systems, directory services and containers hand out (systemd's "Users, Groups,
/// UIDs and GIDs" lists the ranges; from here to 2^31 nothing is assigned).
const USERS: u32 = 0x7000_0000;
/// How many there are.
const USERS_COUNT: u32 = 0x0f00_0000;
/// Where everybody is `nobody`: processes and threads of that user, of all seats together.
const MANY_TASKS: u64 = 4096;

/// What may be used of what a host has. Tests take things away, to hold what remains to the same promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// Namespaces of every kind.
    pub namespaces: bool,
    /// The newest version of Landlock's interface; 0: none.
    pub landlock: i32,
    /// Control groups.
    pub groups: bool,
    /// `mount_setattr`.
    pub deep_mounts: bool,
    /// A file system in memory for what commands write.
    pub scratch: bool,
}

impl Default for Means {
    fn default() -> Self {
        Self {
            namespaces: true,
            landlock: i32::MAX,
            groups: true,
            deep_mounts: true,
            scratch: true,
        }
    }
}

/// What this host lets us put around a command.
#[derive(Debug, Clone)]
pub(super) struct Walls {
    means: Means,
    sandbox: &'static Sandbox,
    namespaces: libc::c_int,
    pub(super) own_root: bool,
    own_groups: bool,
    landlock: i32,
    /// The first of the users that seats become; none: all of them are `nobody`, or the runner's own.
    first_user: Option<u32>,
    hidden: Vec<PathBuf>,
    /// What the first warden told: every other one must be like it.
    held: i32,
    pub(super) layers: Vec<String>,
    pub(super) fallbacks: Vec<String>,
}

impl Walls {
    /// What a host can do, as far as it is known without trying. `hidden`: what lies within folders of the system and is not
    /// for commands. `lot`: any number.
    pub(super) fn of(
        sandbox: &'static Sandbox,
        means: Means,
        hidden: &[PathBuf],
        lot: u32,
    ) -> io::Result<Self> {
        let namespaces = if means.namespaces { sandbox.namespaces() } else { 0 };
        let landlock = landlock_unsafe::version().min(means.landlock);
        let both = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        let own_root = namespaces & both == both;
        if landlock == 0 && !own_root && !sandbox.leave_root() {
            let why = "this kernel has no Landlock and lets us make no mount namespace, and without both of them only root can \
                       keep a command in its folder: run as root, or on a kernel with Landlock (`lsm=` names it)";
            return Err(io::Error::other(why));
        }
        let mut walls = Self {
            means,
            sandbox,
            namespaces: namespaces & !libc::CLONE_NEWCGROUP,
            own_root,
            own_groups: namespaces & libc::CLONE_NEWCGROUP != 0,
            landlock,
            first_user: (sandbox.leave_root() && users_are_mapped()).then(|| USERS + lot % (USERS_COUNT / 2)),
            hidden: in_system(hidden)?,
            held: 0,
            layers: Vec::new(),
            fallbacks: Vec::new(),
        };
        walls.tell(namespaces);
        Ok(walls)
    }

    fn tell(&mut self, namespaces: libc::c_int) {
        let mut layers = vec![
            "no-new-privs".to_owned(),
            "rlimits".to_owned(),
            "seccomp".to_owned(),
        ];
        let mut fallbacks = Vec::new();
        match self.landlock {
            0 if self.own_root => {
                fallbacks.push("no Landlock in this kernel: mounts and file modes alone bound what a command reads and writes".into());
            }
            0 => fallbacks.push(
                "no Landlock in this kernel: a command reads what its user may read, and writes where every user may".into(),
            ),
            1..LANDLOCK_SIGNALS => layers.push("landlock-partial".into()),
            _ => layers.push("landlock".into()),
        }
        if self.sandbox.leave_root() {
            layers.push("own-user".into());
            if self.first_user.is_none() {
                fallbacks.push("this host has few users: all commands are `nobody`".into());
            }
        }
        if namespaces & libc::CLONE_NEWUSER != 0 || self.own_users() {
            layers.push("user-namespace".into());
        } else if self.sandbox.leave_root() && self.own_root {
            fallbacks.push("no user namespace on this host: commands see the number of their user".into());
        }
        match (self.means.groups, self.sandbox.groups()) {
            (true, Some(groups)) => layers.extend(groups.layers()),
            _ => {
                let tasks = match self.sandbox.leave_root() || namespaces & libc::CLONE_NEWUSER != 0 {
                    true => "tasks as those of one user",
                    false => "tasks not at all",
                };
                fallbacks.push(format!(
                    "no control groups on this host: memory is bounded as data of each process, {tasks}"
                ));
            }
        }
        for (flag, name) in NAMESPACES {
            if namespaces & flag != 0 {
                layers.push(name.into());
            } else if flag == libc::CLONE_NEWPID {
                fallbacks.push(format!(
                    "no {name} on this host: commands may not leave their process group, and end with it"
                ));
                if self.landlock < LANDLOCK_SIGNALS && !self.sandbox.leave_root() {
                    fallbacks.push("this kernel's Landlock does not know signals: a command can end other processes of its user".into());
                }
            } else if flag == libc::CLONE_NEWNS {
                fallbacks.push(format!(
                    "no {name} on this host: commands see the host's paths, and may not change modes, owners and times by path; what they write is counted when they have ended"
                ));
            } else {
                fallbacks.push(format!(
                    "no {name} on this host: seccomp and Landlock hold instead"
                ));
            }
        }
        self.layers = layers;
        self.fallbacks = fallbacks;
    }

    /// Goes on without a root of its own, if this may be; tells why.
    pub(super) fn without_root(&mut self, why: &io::Error) -> bool {
        if !self.own_root || self.landlock == 0 && !self.sandbox.leave_root() {
            return false;
        }
        self.own_root = false;
        self.fallbacks
            .push(format!("no root of its own ({why}): Landlock alone bounds files"));
        true
    }

    /// Takes down what the first warden told of its walls.
    pub(super) fn note(&mut self, held: i32) {
        self.held = held;
        if !self.own_root {
            return;
        }
        for (bit, layer, fallback) in [
            (
                holds::OWN_PROC,
                "own-proc",
                "this host does not let us mount /proc: commands have none",
            ),
            (
                holds::SCRATCH,
                "scratch",
                "no file system of their own for what commands write: it is counted when they have ended",
            ),
            (
                holds::NO_MOUNTS,
                "no-mounts",
                "this host does not let us hide the list of mounts: a command can read paths of the host in /proc/self/mountinfo",
            ),
            (
                holds::DEEPLY_READ_ONLY,
                "read-only-system",
                "this kernel makes only the top of the system's folders read-only: file modes and Landlock hold in what is mounted within them",
            ),
        ] {
            match held & bit != 0 {
                true => self.layers.push(layer.into()),
                false => self.fallbacks.push(fallback.into()),
            }
        }
        if held & holds::OWN_PROC != 0 && held & holds::BARE_PROC == 0 {
            self.fallbacks.push(
                "this kernel's /proc shows the machine too: its processor, memory and parameters".into(),
            );
        }
        self.layers.push("private-root".into());
    }

    /// Whether another warden's walls are as thick as the first one's.
    pub(super) fn are_as(&self, held: i32) -> bool {
        self.held == held
    }

    /// Whether each seat has a pid namespace.
    pub(super) fn own_pids(&self) -> bool {
        self.namespaces & libc::CLONE_NEWPID != 0
    }

    /// Whether the user of commands has no number in their eyes.
    fn own_users(&self) -> bool {
        self.means.namespaces && self.sandbox.leave_root() && self.sandbox.own_users()
    }

    /// The user of a seat, by its number.
    pub(super) fn user(&self, seat: usize) -> Option<u32> {
        match self.first_user {
            Some(first) => {
                let number = u32::try_from(seat).unwrap_or(u32::MAX) % (USERS_COUNT / 2);
                Some(first + number)
            }
            None => self.sandbox.leave_root().then_some(NOBODY),
        }
    }

    /// Whether the paths of seats must be open to their users.
    pub(super) fn open_paths(&self) -> bool {
        !self.own_root && self.sandbox.leave_root()
    }

    /// A control group for a seat, where the host has them.
    pub(super) fn group(&self, bounds: &Bounds) -> io::Result<Option<crate::supervise::Group>> {
        match self.sandbox.groups().filter(|_| self.means.groups) {
            // One task more: the warden. The kernel knows no larger number.
            Some(groups) => groups
                .make(bounds.memory, bounds.tasks.saturating_add(1).min(1 << 22))
                .map(Some),
            None => Ok(None),
        }
    }

    /// What a warden for a seat needs.
    pub(super) fn setup(
        &self,
        folder: &Folder,
        user: Option<u32>,
        bounds: &Bounds,
        entrances: Vec<OwnedFd>,
    ) -> io::Result<Setup> {
        let own_pids = self.own_pids();
        let own_users = self.namespaces & libc::CLONE_NEWUSER != 0;
        // Paths as the warden sees them, once it has changed its root or not.
        let (work, tmp) = match self.own_root {
            true => (PathBuf::from(WORK), PathBuf::from("/tmp")),
            false => (folder.work(), folder.tmp()),
        };
        if !self.own_root
            && let Some(hidden) = self.hidden.first()
        {
            return Err(io::Error::other(format!(
                "{} lies in a folder of the system, which every command can read, and this host does not let us hide it: move it",
                hidden.display()
            )));
        }
        let mut limits = vec![
            (libc::RLIMIT_CORE, 0, 0),
            (libc::RLIMIT_NOFILE, 1024, 1024),
            (libc::RLIMIT_MEMLOCK, 0, 0),
            (libc::RLIMIT_MSGQUEUE, 0, 0),
        ];
        let alone = user.is_some_and(|user| user != NOBODY);
        let tasks = if alone || own_users {
            // A control group, which can tell that it was met, is the first to be met.
            Some(bounds.tasks.saturating_add(2))
        } else if user.is_some() && entrances.len() < 2 {
            Some(MANY_TASKS)
        } else {
            // Where the user has other processes, their number says nothing.
            None
        };
        if let Some(tasks) = tasks {
            limits.push((libc::RLIMIT_NPROC, tasks, tasks));
        }
        Ok(Setup {
            namespaces: self.namespaces,
            entrances,
            own_groups: self.own_groups,
            maps: match own_users {
                true => Some(maps()?),
                false => None,
            },
            root: match self.own_root {
                true => Some(self.root(folder, user, bounds)?),
                false => None,
            },
            user,
            alone,
            own_users: self.own_users(),
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
            writable: [c_path(&work.join("outputs"))?, c_path(&tmp)?],
            work: c_path(&work)?,
            filter: filter::program(Around {
                own_pids,
                own_root: self.own_root,
                other_user: user.is_some(),
            }),
            command_filter: match own_pids {
                true => Vec::new(),
                false => filter::stay_in_group(),
            },
            limits,
        })
    }

    /// What is bound over the empty places of a seat's folder.
    fn root(&self, folder: &Folder, user: Option<u32>, bounds: &Bounds) -> io::Result<Root> {
        let path = folder.root();
        let mut system = Vec::new();
        for name in SYSTEM {
            let source = Path::new("/").join(name);
            let place = path.join(name);
            match fs::symlink_metadata(&source) {
                Ok(facts) if facts.is_symlink() => {
                    std::os::unix::fs::symlink(fs::read_link(&source)?, &place)?;
                }
                Ok(facts) if facts.is_dir() => {
                    fs::create_dir(&place)?;
                    system.push((c_path(&source)?, c_path(&place)?));
                }
                _ => {}
            }
        }
        fs::create_dir(path.join("dev"))?;
        let mut devices = Vec::new();
        for name in DEVICES {
            let source = Path::new("/dev").join(name);
            if source.exists() {
                let place = path.join("dev").join(name);
                File::create_new(&place)?;
                devices.push((c_path(&source)?, c_path(&place)?));
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
        let mut hidden = Vec::new();
        for one in &self.hidden {
            let place = path.join(one.strip_prefix("/").unwrap_or(one));
            hidden.push((c_path(&place)?, one.is_dir()));
        }
        let tmp = folder.tmp();
        let options = format!("size={},nr_inodes={MAX_FILES_AT_ONCE},mode=755", bounds.room);
        Ok(Root {
            path: c_path(&path)?,
            system,
            devices,
            proc: c_path(&proc)?,
            hidden,
            work: c_path(&folder.work())?,
            scratch: Scratch {
                options: match self.means.scratch {
                    true => Some(CString::new(options)?),
                    false => None,
                },
                parts: [c_path(&tmp.join("outputs"))?, c_path(&tmp.join("tmp"))?],
                tmp: c_path(&tmp)?,
                outputs: c_path(&folder.work().join("outputs"))?,
                owner: user,
            },
            deep: self.means.deep_mounts,
        })
    }
}

/// What lies in folders of the system, with all links resolved. What is not there needs not be hidden.
fn in_system(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths.iter().filter_map(|path| fs::canonicalize(path).ok()) {
        for folder in SYSTEM.iter().map(|name| Path::new("/").join(name)) {
            if folder.is_symlink() || !folder.is_dir() {
                continue;
            }
            if folder.starts_with(&path) && path != Path::new("/") {
                return Err(io::Error::other(format!(
                    "{} is a folder of the system, which every command can read, and must not be read by commands: move what is yours to another folder",
                    path.display()
                )));
            }
            if path.starts_with(&folder) {
                found.push(path.clone());
            }
        }
    }
    // What is in another of them is hidden with it.
    found.sort();
    found.dedup_by(|inner, outer| inner.starts_with(&*outer));
    Ok(found)
}

/// Whether this process may hand out users of the range: in a container it may have few.
fn users_are_mapped() -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .iter()
        .all(|path| fs::read_to_string(path).is_ok_and(|text| maps_users(&text)))
}

fn maps_users(text: &str) -> bool {
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        first <= u64::from(USERS) && u64::from(USERS) + u64::from(USERS_COUNT) <= first.saturating_add(count)
    })
}

/// This user, and this group, as commands of a user namespace see them: as `nobody`.
fn maps() -> io::Result<[CString; 2]> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    Ok([
        CString::new(format!("{NOBODY} {user} 1\n"))?,
        CString::new(format!("{NOBODY} {group} 1\n"))?,
    ])
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
        rules.push((c_path(Path::new("/proc"))?, look.bits()));
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
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn users_are_handed_out_where_there_are_enough() {
        assert!(maps_users("         0          0 4294967295\n"));
        assert!(!maps_users("         0     100000      65536\n"));
        assert!(!maps_users(""));
        assert!(!maps_users("x y z\n"));
    }

    #[test]
    fn what_is_hidden_is_named_once_and_never_all_of_the_system() {
        let folders = ["/usr/share/doc", "/usr/share", "/root", "/usr/no/such"].map(PathBuf::from);
        assert_eq!(in_system(&folders).unwrap(), [PathBuf::from("/usr/share")]);
        let error = in_system(&["/usr".into()]).unwrap_err().to_string();
        assert!(error.contains("/usr is a folder of the system"), "{error}");
    }
}
