//! A control group for each cell: memory and number of tasks, counted and bounded by the kernel.
//!
//! Three hosts exist: cgroup v2 with controllers, v1 with a hierarchy for each controller, and both mounted with the
//! controllers in v1. Which one this is comes from `/proc/self/mountinfo` and `cgroup.controllers`; whether we may make
//! groups is found by making one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::freezer::{Freezer, Freezers};
use super::owner::{self, HOUSE, Owners};

/// Where groups for cells can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Groups {
    /// cgroup v2: one group holds both.
    Unified(PathBuf),
    /// cgroup v1: a parent in each hierarchy.
    Split {
        /// In the hierarchy of the `memory` controller.
        memory: PathBuf,
        /// In the hierarchy of the `pids` controller; it may not be there.
        pids: Option<PathBuf>,
        /// Where they stand still as a whole; it may not be there either.
        freezers: Option<Freezers>,
    },
}

/// The group of one cell. Removed on drop, after its processes have ended.
#[derive(Debug)]
pub(crate) struct Group {
    memory: PathBuf,
    pids: Option<PathBuf>,
    /// By which it stands still: on v2 the same, on v1 one more, for a cell of several processes.
    freezer: Option<Freezer>,
    /// The one within that, in which its processes begin, where there may be several.
    within: Option<Freezer>,
    unified: bool,
}

/// The limits that a cell's processes met, told by the kernel. Nothing where there is no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Met {
    /// How many processes the kernel has ended because the memory was up.
    pub ended_for_memory: u64,
    /// How many tasks it has refused because there were too many.
    pub refused_tasks: u64,
    /// Whether all of them together had used up the CPU time; they were told to finish for it, if the kernel was not before us.
    pub cpu_time: bool,
}

/// How often a group is looked at for processes that live on.
const MOST_LOOKS: u32 = 10_000;
/// How often, and how long each time, is waited for those that were told to end: two seconds in all.
const MOST_WAITS: u32 = 10_000;
const LOOK_AGAIN: Duration = Duration::from_micros(200);

impl Groups {
    /// Finds where this process may make groups. The error says why it may not.
    pub(crate) fn find() -> Result<Self, String> {
        let candidate = Self::candidate()?;
        clear_abandoned();
        candidate.prepare()?;
        // Whether it works is found by doing it.
        let trial = candidate.make(1 << 30, 16).map_err(|error| error.to_string())?;
        trial.entrances().map_err(|error| error.to_string())?;
        Ok(candidate)
    }

    /// Where groups could be made, if this process may.
    pub(super) fn candidate() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        Self::from_texts(&mounts, &own, |path| {
            fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default()
        })
        .ok_or_else(|| "no hierarchy with a memory controller is mounted".into())
    }

    /// The parents, told from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`; `controllers` reads a v2 group's list.
    fn from_texts(mounts: &str, own: &str, controllers: impl Fn(&Path) -> String) -> Option<Self> {
        let unified = own_folder(mounts, own, None);
        let memory = own_folder(mounts, own, Some("memory"));
        let pids = own_folder(mounts, own, Some("pids"));
        if let Some((path, _)) = unified {
            let list = controllers(&path);
            if ["memory", "pids"]
                .iter()
                .all(|name| list.split_whitespace().any(|there| there == *name))
            {
                return Some(Self::Unified(path));
            }
        }
        let (memory, _) = memory?;
        Some(Self::Split {
            memory,
            pids: pids.map(|(pids, _)| pids),
            freezers: Freezers::from_texts(mounts, own),
        })
    }

    /// Makes ready for groups with limits.
    pub(super) fn prepare(&self) -> Result<(), String> {
        match self {
            Self::Unified(path) => enable_controllers(path),
            Self::Split { .. } => Ok(()),
        }
    }

    /// The folders that hold the groups.
    pub(super) fn parents(&self) -> impl Iterator<Item = &Path> {
        let (first, second, third) = match self {
            Self::Unified(path) => (path, None, None),
            Self::Split {
                memory,
                pids,
                freezers,
            } => (memory, pids.as_ref(), freezers.as_ref()),
        };
        let third = third.map(|freezers| &freezers.parent);
        [Some(first), second, third]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Whether groups of several processes, made here, stand still as a whole.
    pub(crate) fn stand_still(&self) -> bool {
        match self {
            Self::Unified(_) => true,
            Self::Split { freezers, .. } => freezers.is_some(),
        }
    }

    /// Names of the layers that groups made here give.
    pub(crate) fn layers(&self) -> Vec<String> {
        match self {
            Self::Unified(_) | Self::Split { pids: Some(_), .. } => {
                vec!["memory-cgroup".into(), "pids-cgroup".into()]
            }
            Self::Split { pids: None, .. } => vec!["memory-cgroup".into()],
        }
    }

    /// Makes a group with these limits.
    pub(crate) fn make(&self, memory_bytes: u64, tasks: u64) -> io::Result<Group> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = owner::name(NUMBER.fetch_add(1, Ordering::Relaxed));
        self.make_named(&name, memory_bytes, tasks)
    }

    /// The same with a name. One that is there already is taken over.
    pub(super) fn make_named(&self, name: &str, memory_bytes: u64, tasks: u64) -> io::Result<Group> {
        let memory_bytes = memory_bytes.to_string();
        match self {
            Self::Unified(parent) => {
                let path = parent.join(name);
                make_folder(&path)?;
                let mut group = Group {
                    memory: path.clone(),
                    pids: None,
                    freezer: Some(Freezer::unified(&path)),
                    within: None,
                    unified: true,
                };
                fs::write(path.join("memory.max"), memory_bytes)?;
                // Not every kernel accounts swap; without it there is nothing to bound.
                let _ = fs::write(path.join("memory.swap.max"), "0");
                fs::write(path.join("pids.max"), tasks.to_string())?;
                group.divide(tasks)?;
                Ok(group)
            }
            Self::Split {
                memory,
                pids,
                freezers,
            } => {
                let path = memory.join(name);
                make_folder(&path)?;
                let mut group = Group {
                    memory: path.clone(),
                    pids: None,
                    freezer: None,
                    within: None,
                    unified: false,
                };
                fs::write(path.join("memory.limit_in_bytes"), &memory_bytes)?;
                let _ = fs::write(path.join("memory.memsw.limit_in_bytes"), &memory_bytes);
                if let Some(pids) = pids {
                    let path = pids.join(name);
                    make_folder(&path)?;
                    group.pids = Some(path.clone());
                    fs::write(path.join("pids.max"), tasks.to_string())?;
                }
                if let Some(freezers) = freezers.as_ref().filter(|_| tasks > 1) {
                    let freezer = freezers.of_name(name);
                    make_folder(freezer.folder())?;
                    group.freezer = Some(freezer);
                }
                group.divide(tasks)?;
                Ok(group)
            }
        }
    }
}

/// Removes groups that runners left which are no more, with the processes that still are in them. Gives their number.
pub(crate) fn clear_abandoned() -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(owners) = Owners::of_this_host() else {
        return 0;
    };
    let mut parents = BTreeSet::new();
    for controller in [
        None,
        Some("memory"),
        Some("pids"),
        Some("cpuset"),
        Some("freezer"),
    ] {
        if let Some((path, top)) = own_folder(&mounts, &own, controller) {
            parents.insert(path);
            // A partition stands right below the top.
            parents.extend(controller.is_none().then_some(top));
        }
    }
    let mut cleared = BTreeSet::new();
    for parent in parents {
        cleared.extend(clear_abandoned_in(&parent, &owners));
    }
    cleared.len()
}

/// The names of those that were cleared in one folder.
fn clear_abandoned_in(parent: &Path, owners: &Owners) -> BTreeSet<OsString> {
    let mut cleared = BTreeSet::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let known = name.to_str().filter(|name| owners.is_abandoned(name));
        let gone = match known {
            None => false,
            // What a person started from there may be in it, and is nobody's to end.
            Some(name) if name.ends_with(HOUSE) => fs::remove_dir(entry.path()).is_ok(),
            Some(_) => end_and_remove(&entry.path()),
        };
        if gone {
            cleared.insert(name);
        }
    }
    cleared
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Ends what is in a group, and removes it; `false`: something in it does not end.
pub(super) fn end_and_remove(path: &Path) -> bool {
    // A partition takes no processor from others any longer. On v1, and on kernels without, there is no such file.
    let _ = fs::OpenOptions::new()
        .write(true)
        .open(path.join("cpuset.cpus.partition"))
        .and_then(|mut file| file.write_all(b"member"));
    // What is within ends only then.
    let_all_end(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            end_and_remove(&entry.path());
        }
    }
    for _ in 0..MOST_LOOKS {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            // Another runner was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(_) => {}
        }
        end_all_in(path);
        std::thread::yield_now();
    }
    false
}

/// Tells everything in a group to end.
fn end_all_in(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        // 0 stands for a process that is not of this namespace, and would mean the own group to kill(2).
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let_all_end(path);
}

/// What stands still in v1 ends when it goes on, before anything else. Other hierarchies have no such file.
fn let_all_end(path: &Path) {
    if let Ok(mut state) = fs::File::options().write(true).open(path.join("freezer.state")) {
        let _ = state.write_all(b"THAWED");
    }
}

/// The own group in the hierarchy of a v1 controller, or of v2, and the top of what is mounted of it; told from the texts of
/// `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(crate) fn own_folder(mounts: &str, own: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // proc(5): id parent device root mount-point options [optional fields] - type source super-options
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        let is = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        let path = own_group(own, root, point, controller).filter(|_| is)?;
        Some((path, PathBuf::from(point)))
    })
}

/// Path of the own group below a mount point, given the mount's root within the hierarchy.
fn own_group(own: &str, root: &str, point: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        // cgroups(7): number:controllers:path, with no controllers for v2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let ours = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|there| there == name),
        };
        ours.then_some(path)
    })?;
    // Where the mount shows another part of the hierarchy, its top is where we may be.
    let below = path.strip_prefix(root).unwrap_or_default();
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

fn enable_controllers(parent: &Path) -> Result<(), String> {
    let path = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).unwrap_or_default();
    if ["memory", "pids"]
        .iter()
        .all(|name| enabled.split_whitespace().any(|there| there == *name))
    {
        return Ok(());
    }
    fs::write(&path, "+memory +pids").map_err(|error| format!("{}: {error}", path.display()))
}

impl Group {
    /// Makes the group within, for several processes.
    fn divide(&mut self, tasks: u64) -> io::Result<()> {
        if let Some(freezer) = self.freezer.as_ref().filter(|_| tasks > 1) {
            let within = freezer.within();
            make_folder(within.folder())?;
            self.within = Some(within);
        }
        Ok(())
    }

    /// Open files into which a process writes `0` to move itself into the group.
    pub(crate) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        self.entered()
            .map(|path| {
                Ok(File::options()
                    .write(true)
                    .open(path.join("cgroup.procs"))?
                    .into())
            })
            .collect()
    }

    /// Moves a process into the group.
    pub(super) fn take_in(&self, process: &str) -> io::Result<()> {
        self.entered()
            .try_for_each(|path| fs::write(path.join("cgroup.procs"), process))
    }

    /// The folders that its processes begin in.
    fn entered(&self) -> impl Iterator<Item = &Path> {
        self.folders().map(|path| match (&self.freezer, &self.within) {
            (Some(freezer), Some(within)) if freezer.folder() == path => within.folder(),
            _ => path,
        })
    }

    /// The processes in it.
    fn processes(&self) -> io::Result<Vec<Pid>> {
        match (&self.freezer, self.unified) {
            (Some(freezer), true) => freezer.processes(),
            _ => super::freezer::numbers(&self.memory.join("cgroup.procs")),
        }
    }

    /// Its folders, each once.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let freezer = self.freezer.as_ref().filter(|_| !self.unified);
        [
            Some(self.memory.as_path()),
            self.pids.as_deref(),
            freezer.map(Freezer::folder),
        ]
        .into_iter()
        .flatten()
    }

    /// By what all of it stands still at once.
    pub(crate) fn freezer(&self) -> Option<&Freezer> {
        self.freezer.as_ref()
    }

    /// Waits, for a moment at the most, until all that was told to end has ended.
    pub(crate) fn wait_until_empty(&self) {
        for _ in 0..MOST_WAITS {
            if self.processes().unwrap_or_default().is_empty() {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether it is a group of cgroup v2.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// Makes a group with the same limits below `parent`, moves the process there, and removes this one. What the process has
    /// used until now counts in the group above.
    pub(crate) fn move_below(&mut self, parent: &Path, process: Pid) -> io::Result<()> {
        let name = self.memory.file_name().ok_or(io::ErrorKind::NotFound)?;
        let next = parent.join(name);
        fs::create_dir(&next)?;
        let moved = ["memory.max", "memory.swap.max", "pids.max"]
            .iter()
            .try_for_each(|file| match fs::read(self.memory.join(file)) {
                Ok(limit) => fs::write(next.join(file), limit),
                // Not every kernel accounts swap.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            })
            .and_then(|()| {
                let freezer = Freezer::unified(&next);
                let mut there = Self {
                    memory: next.clone(),
                    pids: None,
                    freezer: Some(freezer),
                    within: None,
                    unified: true,
                };
                there.divide(if self.within.is_some() { 2 } else { 1 })?;
                there.take_in(&process.to_string())?;
                Ok(there)
            });
        match moved {
            // The one that was is removed.
            Ok(there) => *self = there,
            Err(error) => {
                let _ = fs::remove_dir(&next);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Which limits it met until now.
    pub(crate) fn met(&self) -> Met {
        Met {
            ended_for_memory: self.ended_processes(),
            refused_tasks: self.refused_tasks(),
            cpu_time: false,
        }
    }

    /// CPU time of all that were in the group, in microseconds; `None`: it is in no hierarchy of cgroup v2, where every group
    /// counts it, with controllers or without (`cpu.stat`, Documentation/admin-guide/cgroup-v2.rst).
    pub(crate) fn cpu_us(&self) -> Option<u64> {
        let folder = self.freezer.as_ref()?.folder();
        let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
    }

    /// Whether the kernel ended a process of the group because its memory was up.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.ended_processes() > 0
    }

    /// How many processes of the group the kernel has ended because its memory was up.
    pub(crate) fn ended_processes(&self) -> u64 {
        let file = match self.unified {
            true => "memory.events",
            false => "memory.oom_control",
        };
        count(&self.memory.join(file), "oom_kill ")
    }

    /// How many tasks the kernel has refused because the group had too many.
    pub(crate) fn refused_tasks(&self) -> u64 {
        let folder = match self.unified {
            true => Some(&self.memory),
            false => self.pids.as_ref(),
        };
        folder.map_or(0, |folder| count(&folder.join("pids.events"), "max "))
    }

    /// Ends everything that is in the group, as far as it can.
    pub(crate) fn end_all(&self) {
        // Of v2, which may be there for its freezer alone. (Linux 5.14.)
        if self
            .folders()
            .any(|path| fs::write(path.join("cgroup.kill"), "1").is_ok())
        {
            return;
        }
        // Whoever forks meanwhile is found by the next look.
        for _ in 0..MOST_LOOKS {
            let alive = self.processes().unwrap_or_default();
            if alive.is_empty() {
                return;
            }
            for pid in alive {
                let _ = kill(pid, Signal::SIGKILL);
            }
            if let Some(freezer) = &self.freezer {
                freezer.let_end();
            }
            std::thread::yield_now();
        }
    }

    /// Greatest memory of the group in KiB, kernel memory included.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        let file = match self.unified {
            true => "memory.peak",
            false => "memory.max_usage_in_bytes",
        };
        let text = fs::read_to_string(self.memory.join(file)).ok()?;
        Some(text.trim().parse::<u64>().ok()? / 1024)
    }

    /// Changes the bound on memory.
    ///
    /// # Errors
    ///
    /// If nobody is in the group any longer: the arbiter of a host takes cells into groups of its own.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        if self.processes()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "its memory is bounded by the arbiter of this host, by what was asked for when it began",
            ));
        }
        let file = match self.unified {
            true => "memory.max",
            false => "memory.limit_in_bytes",
        };
        fs::write(self.memory.join(file), bytes.to_string())
    }
}

/// A counter in a file of lines with a name and a number.
fn count(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0)
}

impl Drop for Group {
    fn drop(&mut self) {
        let within = self.within.as_ref().map(Freezer::folder);
        for path in within.into_iter().chain(self.folders()) {
            let _ = fs::remove_dir(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:5 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_mixed_host_has_its_limits_in_v1() {
        let own = "8:pids:/\n4:memory:/a/b\n0::/c\n";
        let found = Groups::from_texts(V1, own, |_| "hugetlb\n".into());
        let expected = Groups::Split {
            memory: "/sys/fs/cgroup/memory/a/b".into(),
            pids: Some("/sys/fs/cgroup/pids".into()),
            freezers: Freezers::from_texts(V1, own),
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_v2_host_has_one_hierarchy() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/user.slice/x.scope\n";
        let found = Groups::from_texts(mounts, own, |_| "cpuset cpu io memory pids\n".into());
        assert_eq!(
            found,
            Some(Groups::Unified("/sys/fs/cgroup/user.slice/x.scope".into()))
        );
        assert_eq!(Groups::from_texts(mounts, own, |_| String::new()), None);
    }

    #[test]
    fn a_mount_of_a_part_counts_from_its_root() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = Groups::from_texts(mounts, "4:memory:/docker/abc/x\n", |_| String::new());
        let expected = Groups::Split {
            memory: "/sys/fs/cgroup/memory/x".into(),
            pids: None,
            freezers: None,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn only_groups_of_dead_runners_are_removed() {
        let Some(owners) = Owners::of_this_host() else {
            return;
        };
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        // No pid is as large (proc(5), pid_max).
        let dead = make("hotcell-4999999-pool/hotcell-4999999-0");
        let house = make("hotcell-4999999-house");
        let stays = [
            make(&owner::name(owner::POOL)),
            make(&owner::name(3)),
            make("hotcell-x-pool"),
            make("hotcell-4999998-house/inhabited"),
        ];
        assert_eq!(clear_abandoned_in(parent.path(), &owners).len(), 2);
        assert!(!dead.exists() && !dead.parent().unwrap().exists() && !house.exists());
        assert!(stays.iter().all(|path| path.exists()));
    }

    #[test]
    fn texts_that_make_no_sense_give_nothing() {
        assert_eq!(Groups::from_texts("", "", |_| String::new()), None);
        assert_eq!(Groups::from_texts("x - y\n", "a:b", |_| String::new()), None);
        assert_eq!(Groups::from_texts(V1, "no colons", |_| String::new()), None);
    }
}
