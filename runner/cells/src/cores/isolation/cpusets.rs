//! Groups with cpusets: one for the pool's cells, and on cgroup v1 one for what serves them.
//!
//! On v2 the cells' own groups move below the pool's, which can be a partition: the kernel then keeps everything else of
//! the host off its processors (`cpuset.cpus.partition`, kernel's Documentation/admin-guide/cgroup-v2.rst). Before Linux 6.7 a
//! partition must stand right below the top. On v1 a process is in one group of each hierarchy: cells enter the pool's beside
//! their own. There nothing takes a processor from those in the top group but moving them, which is not ours to do; and
//! `cpuset.sched_load_balance` of a group has no effect while the top's is set (Documentation/admin-guide/cgroup-v1/cpusets.rst).

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hotcell_schema::cores::CoreSet;

use super::Parts;
use crate::supervise::{Sandbox, cgroup_folder, clear_groups};

/// Where groups can be made.
#[derive(Debug)]
pub(super) enum Hierarchy {
    /// cgroup v1: below the own group of the `cpuset` hierarchy.
    Split(PathBuf),
    /// cgroup v2: below the own group; else below the top.
    Unified(Vec<PathBuf>),
}

/// Groups that were made. Removed on drop.
#[derive(Debug)]
pub(super) struct Cpusets {
    pool: Folder,
    /// On v1: the group of what serves, and where this process was before.
    house: Option<(Folder, PathBuf)>,
}

/// Gives back what an arbiter that died took from everybody else: its partition. Cells in it stay in it.
pub(super) fn release(pool: &str) {
    if let Ok(Hierarchy::Unified(parents)) = Hierarchy::of_this_host() {
        for parent in parents {
            // Where there is none, nothing was taken.
            let _ = as_member(&parent.join(pool));
        }
    }
}

/// Makes a group no partition.
fn as_member(group: &Path) -> io::Result<()> {
    // On v1, and on v2 without partitions, there is no such file.
    let file = fs::OpenOptions::new()
        .write(true)
        .open(group.join("cpuset.cpus.partition"));
    file?.write_all(b"member")
}

/// A group; removed on drop.
#[derive(Debug)]
struct Folder(PathBuf);

impl Hierarchy {
    /// Finds it. The error says why there is none.
    pub(super) fn of_this_host() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        Self::from_texts(&mounts, &own, |path| {
            fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default()
        })
        .ok_or_else(|| "no hierarchy with a cpuset controller is mounted".into())
    }

    fn from_texts(mounts: &str, own: &str, controllers: impl Fn(&Path) -> String) -> Option<Self> {
        if let Some((path, _)) = cgroup_folder(mounts, own, Some("cpuset")) {
            return Some(Self::Split(path));
        }
        let (path, top) = cgroup_folder(mounts, own, None)?;
        let has = |path: &PathBuf| controllers(path).split_whitespace().any(|name| name == "cpuset");
        let mut all: Vec<PathBuf> = [path, top].into_iter().filter(has).collect();
        all.dedup();
        (!all.is_empty()).then_some(Self::Unified(all))
    }

    /// Makes the groups; what could not be had goes to `fallbacks`. The error says why there are none.
    pub(super) fn make(&self, parts: &Parts, fallbacks: &mut Vec<String>) -> Result<Cpusets, String> {
        clear_groups();
        match self {
            Self::Split(own) => {
                let made = split(own, parts, fallbacks)?;
                if parts.alone {
                    fallbacks.push(
                        "control groups of version 1 keep no other work off the pool: it is counted only"
                            .into(),
                    );
                }
                Ok(made)
            }
            Self::Unified(parents) => {
                // It looks where this process is, and must find it there.
                let nested = Sandbox::of_this_host().has_unified_groups();
                let mut why = Vec::new();
                let mut kept = None;
                for parent in parents {
                    let pool = match unified(parent, parts, nested) {
                        Ok(pool) => pool,
                        Err(error) => {
                            why.push(error);
                            continue;
                        }
                    };
                    let whole = match (parts.alone, parts.shared) {
                        (false, _) => Ok(()),
                        (true, true) => Err("what serves shares them".to_owned()),
                        (true, false) => partition(&pool.0),
                    };
                    match whole {
                        Ok(()) => return Ok(Cpusets { pool, house: None }),
                        Err(error) => {
                            why.push(error);
                            // The first is as good as the next, where neither is a partition.
                            kept = kept.or(Some(pool));
                        }
                    }
                }
                let why = why.join("; ");
                let pool = kept.ok_or_else(|| why.clone())?;
                fallbacks.push(format!(
                    "other work is not kept off the pool's processors ({why}): it is counted only"
                ));
                Ok(Cpusets { pool, house: None })
            }
        }
    }
}

impl Cpusets {
    /// The pool's group.
    pub(super) fn pool(&self) -> &Path {
        &self.pool.0
    }

    /// Whether it is one of cgroup v2.
    pub(super) fn unified(&self) -> bool {
        self.house.is_none()
    }
}

impl Drop for Cpusets {
    fn drop(&mut self) {
        if let Some((_, before)) = &self.house {
            let _ = enter(before);
        }
    }
}

impl Folder {
    fn make(parent: &Path, name: &str) -> Result<Self, String> {
        let path = parent.join(name);
        match fs::create_dir(&path) {
            // That of a host's arbiter may be there yet, with its cells.
            Ok(()) => Ok(Self(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self(path)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        write(&self.0.join(file), text)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

fn split(own: &Path, parts: &Parts, fallbacks: &mut Vec<String>) -> Result<Cpusets, String> {
    let memory = fs::read_to_string(own.join("cpuset.mems")).map_err(|error| error.to_string())?;
    let make = |name: &str, cpus: &CoreSet| {
        let folder = Folder::make(own, name)?;
        folder.write("cpuset.cpus", &cpus.to_string())?;
        folder.write("cpuset.mems", memory.trim())?;
        Ok::<_, String>(folder)
    };
    let (pool, house) = (
        make(&parts.pool_name, &parts.pool)?,
        make(&parts.house_name, &parts.house)?,
    );
    if parts.alone {
        let alone = match parts.shared {
            true => Err("what serves shares them".to_owned()),
            false => pool.write("cpuset.cpu_exclusive", "1"),
        };
        if let Err(why) = alone {
            fallbacks.push(format!(
                "other cpusets may hold the pool's processors too ({why})"
            ));
        }
    }
    enter(&house.0)?;
    Ok(Cpusets {
        pool,
        house: Some((house, own.to_owned())),
    })
}

fn unified(parent: &Path, parts: &Parts, nested: bool) -> Result<Folder, String> {
    enable(parent, &["cpuset"])?;
    if nested {
        enable(parent, &["memory", "pids"])?;
    }
    let pool = Folder::make(parent, &parts.pool_name)?;
    pool.write("cpuset.cpus", &parts.pool.to_string())?;
    let effective = fs::read_to_string(pool.0.join("cpuset.cpus.effective")).unwrap_or_default();
    if effective.trim().parse() != Ok(parts.pool.clone()) {
        let (has, wanted) = (effective.trim(), &parts.pool);
        return Err(format!("{}: it may use `{has}` of {wanted}", pool.0.display()));
    }
    if nested {
        enable(&pool.0, &["memory", "pids"])?;
    }
    Ok(pool)
}

/// Makes a group a partition: a part of the host with a scheduler domain of its own, which balances the threads of one cell
/// over its cores.
fn partition(group: &Path) -> Result<(), String> {
    let file = group.join("cpuset.cpus.partition");
    write(&file, "root")?;
    let found = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    match found.trim() {
        "root" => Ok(()),
        // `root invalid (Parent is not a partition root)`
        found => {
            let why = found
                .chars()
                .filter(|letter| !letter.is_control())
                .take(100)
                .collect::<String>();
            let _ = fs::write(&file, "member");
            Err(format!("{}: {why}", file.display()))
        }
    }
}

fn enable(parent: &Path, controllers: &[&str]) -> Result<(), String> {
    let file = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    for name in controllers {
        if !enabled.split_whitespace().any(|there| there == *name) {
            write(&file, &format!("+{name}"))?;
        }
    }
    Ok(())
}

/// Moves this process, all threads of it, into a group.
fn enter(group: &Path) -> Result<(), String> {
    write(&group.join("cgroup.procs"), &std::process::id().to_string())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Removes a group with the empty groups in it.
fn remove(group: &Path) -> io::Result<()> {
    let _ = as_member(group);
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            let _ = fs::remove_dir(entry.path());
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_host_is_told_from_its_mounts() {
        let v1 = "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "3:cpuset:/a\n0::/b\n";
        let found = Hierarchy::from_texts(v1, own, |_| "cpuset".into());
        assert!(
            matches!(found, Some(Hierarchy::Split(path)) if path == Path::new("/sys/fs/cgroup/cpuset/a"))
        );
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let paths =
            |own: &str, controllers: &str| match Hierarchy::from_texts(v2, own, |_| controllers.into()) {
                Some(Hierarchy::Unified(paths)) => paths,
                _ => Vec::new(),
            };
        let top = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(
            paths("0::/x.slice\n", "cpuset cpu"),
            [top.join("x.slice"), top.clone()]
        );
        assert_eq!(paths("0::/\n", "cpuset cpu"), [top]);
        assert!(paths("0::/\n", "cpu memory").is_empty());
        assert!(Hierarchy::from_texts("", "", |_| String::new()).is_none());
    }
}
