//! The guest's root as files: what it finds is read-only, what it writes goes elsewhere.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotcell_cells::emulator;
use hotcell_kernel::{Place, PlaceKind};
use nix::mount::{MsFlags, mount};

/// Where everything is mounted: any folder that every host has.
const HOUSE: &str = "/tmp";
/// Devices that a guest is given; others of the persona are left out.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// The places of a guest's root on this host, in the keeper's mount namespace.
#[derive(Debug)]
pub(crate) struct Root {
    /// What the guest finds: read-only below the overlay.
    pub(crate) lower: PathBuf,
    /// What it writes.
    pub(crate) upper: PathBuf,
    work: PathBuf,
    /// What is ours in it and not the guest's: [`emulator::FOLDER`].
    ours: PathBuf,
    /// Both together.
    pub(crate) whole: PathBuf,
    /// Files that cover those of `/proc`.
    proc: PathBuf,
    covered: Vec<PathBuf>,
    devices: Vec<String>,
}

fn told(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let text = format!("{doing} {}", path.display());
    move |error| format!("{text}: {error}")
}

fn of_nix(error: nix::errno::Errno) -> io::Error {
    error.into()
}

/// The path without its first slash.
fn relative(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

impl Root {
    /// Makes it of places. `room`: how many bytes the guest may write.
    pub(crate) fn build(places: &[Place], room: u64) -> Result<Self, String> {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .map_err(of_nix)
            .map_err(told("separating the mounts of", Path::new("/")))?;
        let tmpfs = |place: &Path, options: &str| {
            mount(
                Some("hotcell"),
                place,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some(options),
            )
            .map_err(of_nix)
            .map_err(told("mounting a file system in memory on", place))
        };
        let house = Path::new(HOUSE);
        tmpfs(house, "mode=755")?;
        let folder = |name: &str| {
            let path = house.join(name);
            fs::create_dir(&path).map_err(told("making", &path))?;
            Ok::<_, String>(path)
        };
        let scratch = folder("scratch")?;
        tmpfs(&scratch, &format!("mode=755,size={room},nr_inodes=200000"))?;
        let mut root = Self {
            lower: folder("lower")?,
            upper: scratch.join("upper"),
            work: scratch.join("work"),
            ours: folder("ours")?,
            whole: folder("root")?,
            proc: folder("proc")?,
            covered: Vec::new(),
            devices: Vec::new(),
        };
        for path in [&root.upper, &root.work] {
            fs::create_dir(path).map_err(told("making", path))?;
        }
        let mut folders = Vec::new();
        for place in places {
            root.put(place, &mut folders)?;
        }
        // At last: what is put into a folder changes its time, and a folder that nobody may write into takes nothing.
        for place in folders.iter().rev() {
            let path = root.lower.join(relative(&place.path));
            settle(&path, place).map_err(told("setting the mode of", &path))?;
        }
        Ok(root)
    }

    /// Adds an executable of ours, whose place is below [`emulator::FOLDER`]. It can be run and not be read.
    pub(crate) fn add(&self, place: &str, bytes: &[u8]) -> Result<(), String> {
        let below = place.strip_prefix(emulator::FOLDER).unwrap_or(place);
        let path = self.ours.join(relative(below.as_bytes()));
        fs::create_dir_all(self.lower.join(relative(emulator::FOLDER.as_bytes())))
            .and_then(|()| fs::write(&path, bytes))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o111)))
            .map_err(told("making", &path))
    }

    fn put<'p>(&mut self, place: &'p Place, folders: &mut Vec<&'p Place>) -> Result<(), String> {
        let below = relative(&place.path);
        let path = self.lower.join(below);
        let made = match &place.kind {
            PlaceKind::Directory => {
                folders.push(place);
                fs::create_dir(&path)
            }
            PlaceKind::Link(_) if place.path.starts_with(b"/proc/") => Ok(()),
            PlaceKind::Link(to) => symlink(OsStr::from_bytes(to), &path),
            PlaceKind::File(bytes) if place.path.starts_with(b"/proc/") => {
                let below = below.strip_prefix("proc").unwrap_or(below);
                let cover = self.proc.join(below);
                self.covered.push(below.to_owned());
                cover
                    .parent()
                    .map_or(Ok(()), fs::create_dir_all)
                    .and_then(|()| fs::write(&cover, &bytes[..]))
            }
            PlaceKind::File(bytes) => fs::write(&path, &bytes[..]).and_then(|()| settle(&path, place)),
            PlaceKind::Device => {
                let name = below.file_name().and_then(OsStr::to_str).unwrap_or_default();
                if !DEVICES.contains(&name) {
                    return Ok(());
                }
                self.devices.push(name.to_owned());
                fs::write(&path, b"")
            }
        };
        made.map_err(told("making", &path))
    }

    /// Mounts the whole, in the mount namespace of the guest's first process. Afterwards [`Root::whole`] can be gone to.
    pub(crate) fn mount(&self) -> Result<(), String> {
        let none = None::<&str>;
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr",
            self.lower.display(),
            self.upper.display(),
            self.work.display()
        );
        mount(
            Some("overlay"),
            &self.whole,
            Some("overlay"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .map_err(of_nix)
        .map_err(told("laying what the guest writes over", &self.whole))?;
        let ours = self.whole.join(relative(emulator::FOLDER.as_bytes()));
        if ours.is_dir() {
            // A mount of its own: whoever owns what is in it can change nothing of it, and neither name nor remove it.
            show(&self.ours, &ours, MsFlags::MS_NODEV)?;
        }
        for name in &self.devices {
            let place = self.whole.join("dev").join(name);
            // The nodes are the host's: whoever may write to one need not change its times.
            show(&Path::new("/dev").join(name), &place, MsFlags::MS_NOEXEC)?;
        }
        let proc = self.whole.join("proc");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), &proc, Some("proc"), flags, none)
            .map_err(of_nix)
            .map_err(told("mounting", &proc))?;
        for below in &self.covered {
            // What this kernel's own `/proc` lacks cannot be covered.
            let place = proc.join(below);
            if place.is_file() {
                show(
                    &self.proc.join(below),
                    &place,
                    MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                )?;
            }
        }
        Ok(())
    }
}

/// Binds a file or folder to a place, where it can be used and not be changed.
fn show(file: &Path, place: &Path, more: MsFlags) -> Result<(), String> {
    let none = None::<&str>;
    mount(Some(file), place, none, MsFlags::MS_BIND, none)
        // A bind takes its flags in a second step (mount(2)).
        .and_then(|()| keep(place, more))
        .map_err(of_nix)
        .map_err(told("binding", place))
}

/// Has a mount take no changes any longer.
fn keep(place: &Path, more: MsFlags) -> nix::Result<()> {
    let none = None::<&str>;
    let kept = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | more;
    mount(
        none,
        place,
        none,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | kept,
        none,
    )
}

/// Has the guest's `/proc` take no changes: what a process may set there of itself (when it ends where memory is short, where
/// it writes into its own memory) is no guest's to set. To be called by who is in the root.
pub(crate) fn keep_proc() -> nix::Result<()> {
    keep(Path::new("/proc"), MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)
}

fn settle(path: &Path, place: &Place) -> io::Result<()> {
    let modified = Duration::from_nanos(u64::try_from(place.modified).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH + modified;
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(path)?.set_times(times)?;
    fs::set_permissions(path, Permissions::from_mode(place.mode & 0o7777))
}
