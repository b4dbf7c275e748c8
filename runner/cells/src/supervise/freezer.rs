//! The control group by which all processes of a cell stand still at once.
//!
//! In cgroup v2 every group can (`cgroup.freeze`, Documentation/admin-guide/cgroup-v2.rst), with controllers or without; in v1
//! those of the hierarchy `freezer` (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::own_folder;
use super::owner;

/// Where groups can be made that stand still as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freezers {
    pub(super) parent: PathBuf,
    unified: bool,
}

/// Such a group. All that its first process made is in one within it ([`super::Guests`]), and so is that one for as long as nobody
/// takes it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freezer {
    folder: PathBuf,
    unified: bool,
}

/// The name of the group within.
const WITHIN: &str = "guests";

/// How often, and how long each time, is waited until all of a group stands still: 200 milliseconds in all.
const MOST_LOOKS: u32 = 1000;
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// The hierarchies to look for: v2's, v1's.
const HIERARCHIES: [Option<&str>; 2] = [None, Some("freezer")];

impl Freezers {
    /// Where this process may have some, told from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(super) fn from_texts(mounts: &str, own: &str) -> Option<Self> {
        HIERARCHIES.iter().find_map(|controller| {
            let (parent, _) = own_folder(mounts, own, *controller)?;
            let unified = controller.is_none();
            Some(Self { parent, unified })
        })
    }

    pub(super) fn of_name(&self, name: &str) -> Freezer {
        Freezer {
            folder: self.parent.join(name),
            unified: self.unified,
        }
    }
}

impl Freezer {
    /// The group of a cell's process and of all that came of it; `None`: it is in none that is the cell's alone.
    ///
    /// # Errors
    ///
    /// If `/proc` does not show it.
    pub(crate) fn of(process: u32) -> io::Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let all = HIERARCHIES.iter().filter_map(|controller| {
            let (mut folder, _) = own_folder(&mounts, &groups, *controller)?;
            if folder.ends_with(WITHIN) {
                folder.pop();
            }
            let unified = controller.is_none();
            Some(Self { folder, unified })
        });
        let mut cells = all.filter(|freezer| {
            let name = freezer.folder.file_name().and_then(|name| name.to_str());
            name.is_some_and(owner::is_of_a_cell) && freezer.is_there()
        });
        Ok(cells.next())
    }

    /// A group of cgroup v2.
    pub(super) fn unified(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            unified: true,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The group within it: it stands still with this one, and by itself.
    pub(super) fn within(&self) -> Self {
        Self {
            folder: self.folder.join(WITHIN),
            unified: self.unified,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.state().is_file()
    }

    fn state(&self) -> PathBuf {
        self.folder.join(match self.unified {
            true => "cgroup.freeze",
            false => "freezer.state",
        })
    }

    /// Tells all of it to stand still, or to go on. What stands still can be ended in v2; in v1 it ends when it goes on.
    pub(crate) fn freeze(&self, still: bool) -> io::Result<()> {
        let word = match (self.unified, still) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        };
        fs::write(self.state(), word)
    }

    /// Whether all of it stands still.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        Ok(match self.unified {
            true => {
                let events = fs::read_to_string(self.folder.join("cgroup.events"))?;
                events.lines().any(|line| line == "frozen 1")
            }
            false => fs::read_to_string(self.state())?.trim() == "FROZEN",
        })
    }

    /// Lets go on what was told to end: in v2 it ends where it stands, in v1 when it goes on, before anything else.
    pub(crate) fn let_end(&self) {
        if !self.unified {
            let _ = self.within().freeze(false);
            let _ = self.freeze(false);
        }
    }

    /// Ends all of it but one, which it waits a moment for to stand still. In v1 they end when all of it goes on, before anything else.
    pub(crate) fn end_all_but(&self, one: Pid) {
        for _ in 0..MOST_LOOKS {
            if !matches!(self.is_frozen(), Ok(false)) {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        for pid in self.processes().unwrap_or_default() {
            if pid != one {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        if !self.unified {
            let _ = self.within().freeze(false);
        }
    }

    /// The threads in it, and in the group within.
    pub(crate) fn threads(&self) -> io::Result<Vec<Pid>> {
        self.all(match self.unified {
            true => "cgroup.threads",
            false => "tasks",
        })
    }

    /// The processes in it, and in the group within.
    pub(super) fn processes(&self) -> io::Result<Vec<Pid>> {
        self.all("cgroup.procs")
    }

    fn all(&self, file: &str) -> io::Result<Vec<Pid>> {
        let mut all = numbers(&self.folder.join(file))?;
        match numbers(&self.within().folder.join(file)) {
            Ok(within) => all.extend(within),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(all)
    }
}

/// The numbers in a file of a group.
pub(super) fn numbers(file: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(file)?;
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    // 0 stands for one that is not of this namespace.
    Ok(numbers.filter(|number| *number > 0).map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::end_and_remove;
    use super::*;

    const MOUNTS: &str = "\
40 31 0:37 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn any_group_of_v2_stands_still_and_in_v1_the_freezers() {
        let all = Freezers::from_texts(MOUNTS, "6:freezer:/a\n0::/b\n").unwrap();
        let name = |freezers: &Freezers| freezers.of_name("x").state().display().to_string();
        assert_eq!(name(&all), "/sys/fs/cgroup/unified/b/x/cgroup.freeze");
        let (old, _) = MOUNTS.split_once("\n").unwrap();
        let old = Freezers::from_texts(old, "6:freezer:/a\n").unwrap();
        assert_eq!(name(&old), "/sys/fs/cgroup/freezer/a/x/freezer.state");
        assert_eq!(Freezers::from_texts("", "6:freezer:/a\n0::/b\n"), None);
    }

    #[test]
    fn who_is_frozen_does_not_run_by_any_hierarchy_of_this_host() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        for controller in HIERARCHIES {
            let Some((parent, _)) = own_folder(&mounts, &own, controller) else {
                continue;
            };
            let unified = controller.is_none();
            let freezer = Freezers { parent, unified }.of_name(&owner::name(u32::from(unified) + 4_000_000));
            // Not every user may make groups.
            if fs::create_dir(freezer.folder()).is_err() {
                continue;
            }
            let mut spinner = std::process::Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
                .unwrap();
            let ticks = || {
                let stat = fs::read_to_string(format!("/proc/{}/schedstat", spinner.id())).unwrap();
                stat.split(' ').next().unwrap().parse::<u64>().unwrap()
            };
            let until = |what: &dyn Fn() -> bool| {
                let began = std::time::Instant::now();
                while !what() {
                    assert!(began.elapsed().as_secs() < 20, "{controller:?}");
                    std::thread::yield_now();
                }
            };
            let moved = fs::write(freezer.folder().join("cgroup.procs"), spinner.id().to_string());
            assert!(moved.is_ok(), "{controller:?}: {moved:?}");
            assert_eq!(Freezer::of(spinner.id()).unwrap().as_ref(), Some(&freezer));
            assert_eq!(
                freezer.threads().unwrap(),
                [Pid::from_raw(spinner.id().cast_signed())]
            );
            assert!(!freezer.is_frozen().unwrap());
            freezer.freeze(true).unwrap();
            until(&|| freezer.is_frozen().unwrap());
            let before = ticks();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert_eq!(ticks(), before, "{controller:?}");
            freezer.freeze(false).unwrap();
            until(&|| ticks() > before);
            // So does who is in the group within, by either, and goes on when both let it.
            let within = freezer.within();
            fs::create_dir(within.folder()).unwrap();
            fs::write(within.folder().join("cgroup.procs"), spinner.id().to_string()).unwrap();
            assert_eq!(Freezer::of(spinner.id()).unwrap().as_ref(), Some(&freezer));
            assert_eq!(
                freezer.processes().unwrap(),
                [Pid::from_raw(spinner.id().cast_signed())]
            );
            within.freeze(true).unwrap();
            until(&|| within.is_frozen().unwrap());
            freezer.freeze(true).unwrap();
            until(&|| freezer.is_frozen().unwrap());
            freezer.freeze(false).unwrap();
            let before = ticks();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert_eq!(ticks(), before, "{controller:?}");
            within.freeze(false).unwrap();
            until(&|| ticks() > before);
            // What a runner left that is no more ends although it stands still.
            within.freeze(true).unwrap();
            freezer.freeze(true).unwrap();
            until(&|| freezer.is_frozen().unwrap());
            assert!(end_and_remove(freezer.folder()), "{controller:?}");
            assert!(!freezer.folder().exists(), "{controller:?}");
            spinner.wait().unwrap();
        }
    }
}
