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
//! | this one | [`Commands`]: places for commands, kept for the next one |
//! | [`seat`] | [`Seat`]: the place of one command at a time |
//! | [`bounds`] | limits, and what an end means |
//! | [`walls`] | what this host lets us put around commands |
//! | [`collect`] | outputs: regular files only, within bounds |
//! | `area` | the folder of all seats |
//! | `folder` | the folders of a seat, and how they are filled and emptied whatever lies in them |
//! | `filter` | the system calls that are refused |
//! | `message`, `handover_unsafe` | what runner and warden say and give to each other |
//! | `step` | what can fail between a warden's birth and a command's `execve` |
//! | `warden_unsafe`, `root_unsafe`, `landlock_unsafe`, `birth_unsafe` | the warden: its walls, and the commands it starts |
//!
//! # What holds a command
//! - **Files**: a root of its own with the system's `/usr`, `/bin`, `/lib*`, `/etc` read-only, five devices, a `/proc` that
//!   shows only its own processes and nothing of the machine, `/work` and `/tmp`. `/work/outputs` and `/tmp` alone can be
//!   written into: a file system in memory, bounded in bytes and files; all other mounts are read-only, and Landlock says the
//!   same once more. What of the user's lies in folders of the system is hidden ([`Commands::new`]). No list of mounts names
//!   paths of the host. Without a mount namespace the paths are the host's: Landlock holds, and seccomp refuses to change
//!   modes, owners and times by path.
//! - **Network**: `socket` is refused, and of pairs all but streams; a network namespace without any interface, Landlock for
//!   TCP.
//! - **Kernel**: no new privileges; a list of refused calls, see `filter.rs`. Under root's runner each seat has a user of its
//!   own, out of a range that nobody uses (see [`walls`]), which commands see as `nobody`.
//! - **Processes**: a pid namespace. When the command ends, everything it started is killed at once and waited for. Each command
//!   is a fresh child of the warden, which none can reach: limits, priorities, processors are not carried over. Streams are new
//!   for each command.
//! - **Limits**: of memory and tasks by a control group, of CPU time, file size and descriptors for each process, of room and
//!   files; no core dumps. See [`CommandLimits`].
//!
//! # What it costs
//! `examples/commands.rs` runs `/bin/true` plainly, confined, and without one layer or another, in one run. On two cores of a
//! Linux 6.18 virtual machine, beside much other work, a confined one took a tenth more CPU time than a plain `posix_spawn`
//! (0.91-1.03 ms against 0.80-0.94 ms, runner, wardens and children together, not optimised), whether its stage asks for limits of
//! its own or not; no layer stood out.

mod area;
mod birth_unsafe;
pub mod bounds;
pub mod collect;
mod filter;
mod folder;
mod handover_unsafe;
mod landlock_unsafe;
mod message;
mod root_unsafe;
pub mod seat;
mod step;
pub mod walls;
mod warden_unsafe;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use bounds::{CommandLimits, End};
pub use seat::{CommandEnding, CommandSpec, Seat, Stream};
pub use walls::Means;

use crate::contract::CellFault;
use crate::supervise::Sandbox;
use area::Area;
use folder::Folder;
use walls::Walls;

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
/// Most places that wait for the next command: whoever runs commands with ever new limits gets new places.
const MOST_IDLE: usize = 64;

/// Everything commands of one run share. Dropped last, it removes its folder.
#[derive(Debug)]
pub struct Commands {
    means: Means,
    hidden: Vec<PathBuf>,
    /// What the first seat found out, for all later ones.
    walls: OnceLock<Walls>,
    finding: Mutex<()>,
    idle: Mutex<Vec<Seat>>,
    made: AtomicUsize,
    /// Removed after the seats in it.
    area: Area,
}

/// Makes an error that tells what was tried.
fn host(doing: &'static str) -> impl FnOnce(io::Error) -> CellFault {
    move |source| CellFault::Host { doing, source }
}

impl Commands {
    /// Commands that work in a new folder within `parent`, a folder for temporary files. Folders there that a runner left
    /// which is no more are removed. `hidden`: files and folders of the user that no command may read, wherever they lie.
    pub fn new(parent: &Path, hidden: &[PathBuf]) -> Result<Self, CellFault> {
        Self::with_means(parent, hidden, Means::default())
    }

    /// Commands as a host runs them that has less than this one.
    pub fn with_means(parent: &Path, hidden: &[PathBuf], means: Means) -> Result<Self, CellFault> {
        let area = Area::make(parent).map_err(host("making a folder for commands"))?;
        let mut hidden = hidden.to_vec();
        hidden.push(area.path().to_owned());
        Ok(Self {
            means,
            hidden,
            walls: OnceLock::new(),
            finding: Mutex::new(()),
            idle: Mutex::new(Vec::new()),
            made: AtomicUsize::new(0),
            area,
        })
    }

    /// A place for one command with these limits: one that was used before, or a new one.
    pub fn seat(&self, limits: &CommandLimits) -> Result<Seat, CellFault> {
        let idle = || {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let place = idle.iter().rposition(|seat| seat.fits(limits))?;
            Some(idle.swap_remove(place))
        };
        match idle() {
            Some(mut seat) => {
                seat.take(limits);
                Ok(seat)
            }
            None => self.new_seat(limits),
        }
    }

    /// Takes a place back. One that cannot be made as new is given up; the error says why.
    pub fn give_back(&self, mut seat: Seat) -> Result<(), CellFault> {
        let broken = seat.is_broken();
        if let Err(error) = seat.clean() {
            return match broken {
                // Whoever ran the command has been told.
                true => Ok(()),
                false => Err(host("emptying a command's folder")(error)),
            };
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let outdated = (idle.len() >= MOST_IDLE).then(|| idle.swap_remove(0));
        idle.push(seat);
        drop(idle);
        drop(outdated);
        Ok(())
    }

    fn new_seat(&self, limits: &CommandLimits) -> Result<Seat, CellFault> {
        let walls = match self.walls.get() {
            Some(walls) => walls,
            None => {
                let _one = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
                match self.walls.get() {
                    Some(walls) => walls,
                    None => {
                        let (walls, seat) = self.find_walls(limits)?;
                        let _ = self.walls.set(walls);
                        return Ok(seat);
                    }
                }
            }
        };
        let (seat, held) = self.seat_within(walls, limits)?;
        match walls.are_as(held) {
            true => Ok(seat),
            false => Err(host("making a warden for commands")(io::Error::other(
                "this host let us put less around it than around the first one; run again",
            ))),
        }
    }

    /// Tries what this host allows: first everything, then without a root of its own.
    fn find_walls(&self, limits: &CommandLimits) -> Result<(Walls, Seat), CellFault> {
        let sandbox = Sandbox::of_this_host();
        let mut walls = Walls::of(sandbox, self.means, &self.hidden, self.area.lot())
            .map_err(host("confining a command"))?;
        let (mut seat, held) = match self.seat_within(&walls, limits) {
            Err(CellFault::Host { source, .. })
                if step::is_of_root(&source) && walls.without_root(&source) =>
            {
                self.seat_within(&walls, limits)?
            }
            other => other?,
        };
        walls.note(held);
        seat.tell_walls(&walls);
        Ok((walls, seat))
    }

    fn seat_within(&self, walls: &Walls, limits: &CommandLimits) -> Result<(Seat, i32), CellFault> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let user = walls.user(number);
        let doing = "making a command's folder";
        if walls.open_paths() {
            self.area.open().map_err(host(doing))?;
        }
        let path = self.area.seat().map_err(host(doing))?;
        let folder = Folder::make(&path, user, walls.open_paths()).map_err(host(doing))?;
        let places = match walls.own_root {
            true => (WORK.to_owned(), "/tmp".to_owned()),
            false => (text(&folder.work())?, text(&folder.tmp())?),
        };
        if walls.open_paths() {
            folder.check_reachable().map_err(host(doing))?;
        }
        Seat::start(folder, walls, user, limits, places)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
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
