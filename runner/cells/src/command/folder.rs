//! The folders of a seat, and how they are filled and emptied whatever a command left in them.
//!
//! Each is held open from its making, and what lies in it is reached from there, name by name, without following links: a
//! command that puts a link in the place of a folder gains nothing. Filling and emptying happen while no command runs.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::bounds::MAX_FILES_AT_ONCE;

/// How a folder is opened: never by a link.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
const MODE: u32 = 0o755;
/// Most files and folders that are removed after one command.
const MOST_CLEARED: u64 = 1_000_000;
/// How long that may take.
const CLEARING_TIME: Duration = Duration::from_secs(60);

/// A seat's folder: `root/`, which is the root of its commands where they have their own, and in it `work/` and `tmp/`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    work: OwnedFd,
    inputs: OwnedFd,
    outputs: OwnedFd,
    tmp: OwnedFd,
    owner: Option<u32>,
    /// How many files the scratch has of its own, where outputs and temporary files are in one.
    scratch: Option<u64>,
    /// Whether there are own files or inputs to remove.
    filled: bool,
}

/// What is left of a command's folder, of files and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) blocks: u64,
    pub(super) files: u64,
}

impl Folder {
    /// Makes the folders; what commands may write belongs to `owner`. `open`: whether that user must get here by its path.
    pub(super) fn make(path: &Path, owner: Option<u32>, open: bool) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        if let (Some(owner), true) = (owner, open) {
            chown(path, None, Some(owner))?;
            fs::set_permissions(path, Permissions::from_mode(0o710))?;
        }
        let make = |part: &str, writable: bool| {
            let part = path.join(part);
            fs::create_dir(&part)?;
            let folder = nix::fcntl::open(&part, FOLDER, Mode::empty())?;
            fchmod(&folder, Mode::from_bits_truncate(MODE))?;
            if writable && let Some(owner) = owner {
                fchown(&folder, Some(owner), Some(owner))?;
            }
            Ok::<_, io::Error>(folder)
        };
        make("root", false)?;
        Ok(Self {
            path: path.to_owned(),
            work: make("root/work", false)?,
            inputs: make("root/work/inputs", false)?,
            outputs: make("root/work/outputs", true)?,
            tmp: make("root/tmp", true)?,
            owner,
            scratch: None,
            filled: false,
        })
    }

    /// From now on outputs and temporary files are in a file system of their own.
    pub(super) fn use_scratch(&mut self, outputs: OwnedFd, tmp: OwnedFd) -> io::Result<()> {
        let facts = fstatfs(&tmp)?;
        self.scratch = Some(facts.files().saturating_sub(facts.files_free()));
        self.outputs = outputs;
        self.tmp = tmp;
        Ok(())
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.path.join("root/work")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.path.join("root/tmp")
    }

    /// The folder of outputs, open.
    pub(super) fn outputs(&self) -> BorrowedFd<'_> {
        self.outputs.as_fd()
    }

    /// Whether any user can get here: each folder above the area must let them through.
    pub(super) fn check_reachable(&self) -> io::Result<()> {
        for above in self.path.ancestors().skip(1) {
            if fs::metadata(above)?.mode() & 0o001 == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{} is closed to the user that commands run as; set TMPDIR to a folder that is open, such as /var/tmp",
                        above.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A file without a name that takes a stream of one command. It stands where Landlock lets that command open it again, by
    /// `/dev/stdout`.
    pub(super) fn stream(&self) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = match openat(&self.tmp, c".", flags | OFlag::O_TMPFILE, mode) {
            Ok(file) => file,
            // Not every file system has files without names.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                let name = c".hotcell-stream";
                let file = openat(&self.tmp, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
                unlinkat(&self.tmp, name, UnlinkatFlags::NoRemoveDir)?;
                file
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::from(file);
        if let Some(owner) = self.owner {
            fchown(&file, Some(owner), Some(owner))?;
        }
        Ok(file)
    }

    /// Puts a file into the work folder, for a command to read.
    pub(super) fn put(&mut self, path: &str, executable: bool, bytes: &[u8]) -> io::Result<()> {
        let (folders, name) = self.place(path)?;
        let folder = self.folder(&folders)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(bytes)?;
        let mode = if executable { 0o555 } else { 0o444 };
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Makes a folder in the work folder.
    pub(super) fn put_folder(&mut self, path: &str) -> io::Result<()> {
        let (mut folders, name) = self.place(path)?;
        folders.push(name);
        self.folder(&folders).map(drop)
    }

    /// The names of a path within the work folder, if something may be put there.
    fn place<'p>(&mut self, path: &'p str) -> io::Result<(Vec<&'p OsStr>, &'p OsStr)> {
        let refused = |why: &str| {
            let text = format!("`{path}` cannot stand in a work folder: {why}");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        let names: Option<Vec<&OsStr>> = Path::new(path)
            .components()
            .map(|part| match part {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        let mut names = names.ok_or_else(|| refused("only paths below it can"))?;
        if names.first().is_some_and(|name| *name == "outputs") {
            return Err(refused("`outputs` is the program's"));
        }
        let name = names.pop().ok_or_else(|| refused("only paths below it can"))?;
        self.filled = true;
        Ok((names, name))
    }

    /// Opens a folder in the work folder; what is missing is made, for all users to read, whatever this process's mask.
    fn folder(&self, names: &[&OsStr]) -> io::Result<OwnedFd> {
        let (mut folder, names) = match names {
            [first, rest @ ..] if *first == "inputs" => (self.inputs.try_clone()?, rest),
            names => (self.work.try_clone()?, names),
        };
        for name in names {
            let made = match mkdirat(&folder, *name, Mode::from_bits_truncate(MODE)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(error) => return Err(error.into()),
            };
            folder = openat(&folder, *name, FOLDER, Mode::empty())?;
            if made {
                fchmod(&folder, Mode::from_bits_truncate(MODE))?;
            }
        }
        Ok(folder)
    }

    /// Opens a file of the work folder that was put there.
    pub(super) fn open(&self, path: &str) -> io::Result<OwnedFd> {
        let mut names: Vec<&OsStr> = Path::new(path).iter().collect();
        let name = names
            .pop()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let folder = self.folder(&names)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&folder, name, flags, Mode::empty())?)
    }

    /// Room that is left for outputs and temporary files, where it is bounded.
    pub(super) fn room(&self) -> Option<Left> {
        self.scratch?;
        let facts = fstatfs(&self.tmp).ok()?;
        Some(Left {
            blocks: facts.blocks_available(),
            files: facts.files_free(),
        })
    }

    /// Whether what a command wrote is more than so many bytes, or more files than a scratch has, where no file system of
    /// its own has kept it from that.
    pub(super) fn holds_more_than(&self, bytes: u64) -> io::Result<bool> {
        if self.scratch.is_some() {
            return Ok(false);
        }
        let (mut bytes, mut files) = (bytes, MAX_FILES_AT_ONCE);
        // Names of the folders in one, unless there is too much by then.
        let mut count = |folder: BorrowedFd<'_>| -> io::Result<Option<Vec<CString>>> {
            let mut folders = Vec::new();
            let mut more = false;
            each_name::<io::Error>(folder, |name| {
                let facts = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                // In units of 512 bytes, whatever the file system.
                let used = u64::try_from(facts.st_blocks).unwrap_or(0).saturating_mul(512);
                more |= bytes < used || files == 0;
                (bytes, files) = (bytes.saturating_sub(used), files.saturating_sub(1));
                if !more && SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                    folders.push(name.to_owned());
                }
                Ok(())
            })?;
            Ok((!more).then_some(folders))
        };
        for top in [&self.outputs, &self.tmp] {
            // Down and up again, since nobody moves what is looked at: depth costs neither descriptors nor long paths.
            let mut folder = top.try_clone()?;
            let Some(first) = count(folder.as_fd())? else {
                return Ok(true);
            };
            let mut levels = vec![first];
            while let Some(level) = levels.last_mut() {
                match level.pop() {
                    Some(name) => {
                        folder = open_within(folder.as_fd(), &name)?;
                        match count(folder.as_fd())? {
                            Some(folders) => levels.push(folders),
                            None => return Ok(true),
                        }
                    }
                    None => {
                        levels.pop();
                        if !levels.is_empty() {
                            folder = openat(&folder, c"..", FOLDER, Mode::empty())?;
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    /// Makes everything as it was before the first command.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        let mut budget = Budget::new(MOST_CLEARED);
        for folder in [&self.outputs, &self.tmp] {
            if fstat(folder)?.st_mode & 0o7777 != MODE {
                fchmod(folder, Mode::from_bits_truncate(MODE))?;
            }
        }
        // Where the file system is its own, it knows how many files there are.
        let untouched = match self.scratch {
            Some(own) => {
                let facts = fstatfs(&self.tmp)?;
                facts.files().saturating_sub(facts.files_free()) == own
            }
            None => false,
        };
        if !untouched {
            clear(self.outputs.as_fd(), &mut budget, &[])?;
            clear(self.tmp.as_fd(), &mut budget, &[])?;
        }
        if self.filled {
            self.filled = false;
            clear(self.inputs.as_fd(), &mut budget, &[])?;
            clear(self.work.as_fd(), &mut budget, &[c"inputs", c"outputs"])?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Whether a path is a folder of this user.
pub(super) fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir() && facts.uid() == geteuid().as_raw())
}

/// Removes a folder with all that is in it, as far as it can.
pub(super) fn remove(path: &Path) {
    let Ok(folder) = nix::fcntl::open(path, FOLDER, Mode::empty()) else {
        return;
    };
    if clear(folder.as_fd(), &mut Budget::new(MOST_CLEARED), &[]).is_ok() {
        let _ = fs::remove_dir(path);
    }
}

/// What emptying a folder may cost.
struct Budget {
    left: u64,
    most: u64,
    until: Instant,
}

impl Budget {
    fn new(most: u64) -> Self {
        Self {
            left: most,
            most,
            until: Instant::now() + CLEARING_TIME,
        }
    }

    fn spend(&mut self) -> io::Result<()> {
        let late = self.left.is_multiple_of(1024) && Instant::now() > self.until;
        self.left = self.left.saturating_sub(1);
        let text = match (self.left, late) {
            (0, _) => format!("a command left more than {} files and folders", self.most),
            (_, true) => format!(
                "what a command left could not be removed in {} seconds",
                CLEARING_TIME.as_secs()
            ),
            _ => return Ok(()),
        };
        Err(io::Error::other(text))
    }
}

/// Opens a folder within a folder, even if its user has closed it to themselves. Never by a link.
pub(super) fn open_within(folder: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let opened = match openat(folder, name, FOLDER, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(folder, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
            openat(folder, name, FOLDER, Mode::empty())?
        }
        opened => opened?,
    };
    if fstat(&opened)?.st_mode & 0o700 != 0o700 {
        fchmod(&opened, Mode::S_IRWXU)?;
    }
    Ok(opened)
}

/// Calls `each` with the name of everything in a folder; ends with the first error.
pub(super) fn each_name<E: From<Errno>>(
    folder: BorrowedFd<'_>,
    mut each: impl FnMut(&CStr) -> Result<(), E>,
) -> Result<(), E> {
    // A description of its own, so that reading begins at the beginning.
    let mut names = Dir::from_fd(openat(folder, c".", FOLDER, Mode::empty())?)?;
    for entry in names.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name)?;
        }
    }
    Ok(())
}

/// Whether something in a folder is a folder; links are not.
fn is_folder(folder: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    let facts = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Removes everything in a folder but what is `kept`, however deep: the content of a folder within it is moved up before that
/// is removed, so neither the stack nor the length of paths is a bound.
fn clear(top: BorrowedFd<'_>, budget: &mut Budget, kept: &[&CStr]) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut found = false;
        each_name::<io::Error>(top, |name| {
            if kept.contains(&name) {
                return Ok(());
            }
            found = true;
            budget.spend()?;
            if !is_folder(top, name)? {
                return Ok(unlinkat(top, name, UnlinkatFlags::NoRemoveDir)?);
            }
            if unlinkat(top, name, UnlinkatFlags::RemoveDir).is_ok() {
                return Ok(());
            }
            let inner = open_within(top, name)?;
            each_name::<io::Error>(inner.as_fd(), |within| {
                budget.spend()?;
                if !is_folder(inner.as_fd(), within)? {
                    return Ok(unlinkat(&inner, within, UnlinkatFlags::NoRemoveDir)?);
                }
                // A folder that is closed can be moved by root alone.
                fchmodat(&inner, within, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                loop {
                    moved += 1;
                    let target = CString::new(format!(".hotcell-moved-{moved}")).map_err(io::Error::other)?;
                    match renameat(&inner, within, top, target.as_c_str()) {
                        Ok(()) => return Ok(()),
                        Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => budget.spend()?,
                        Err(error) => return Err(error.into()),
                    }
                }
            })?;
            Ok(unlinkat(top, name, UnlinkatFlags::RemoveDir)?)
        })?;
        if !found {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> OwnedFd {
        nix::fcntl::open(path, FOLDER, Mode::empty()).unwrap()
    }

    fn clear_all(path: &Path, most: u64) -> io::Result<()> {
        clear(opened(path).as_fd(), &mut Budget::new(most), &[])
    }

    #[test]
    fn whatever_lies_there_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", top.join("link")).unwrap();
        nix::unistd::mkfifo(&top.join("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir_all(top.join("closed/within")).unwrap();
        fs::write(top.join("closed/within/file"), "x").unwrap();
        fs::set_permissions(top.join("closed/within"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(top.join("closed"), Permissions::from_mode(0o000)).unwrap();
        fs::create_dir_all(top.join(".hotcell-moved-1/a")).unwrap();
        fs::write(top.join(".hotcell-moved-2"), "x").unwrap();
        clear_all(&top, MOST_CLEARED).unwrap();
        assert_eq!(fs::read_dir(&top).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_folder_deeper_than_any_path_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        // Built from the inside out, since no path reaches its bottom.
        for _ in 0..3000 {
            fs::create_dir(folder.path().join("outer")).unwrap();
            fs::rename(&top, folder.path().join("outer/an-inner-folder")).unwrap();
            fs::rename(folder.path().join("outer"), &top).unwrap();
        }
        remove(&top);
        assert!(!top.exists());
    }

    #[test]
    fn emptying_has_a_bound_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..20 {
            fs::write(folder.path().join(number.to_string()), "x").unwrap();
        }
        let error = clear_all(folder.path(), 10).unwrap_err().to_string();
        assert!(error.contains("more than 10 files"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 11);
        clear_all(folder.path(), 100).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_leads_nowhere() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("precious"), "x").unwrap();
        let area = tempfile::tempdir().unwrap();
        let mut folder = Folder::make(&area.path().join("seat"), None, false).unwrap();
        // As a command of the runner's own user could, without Landlock.
        for (place, moved) in [("outputs", "o"), ("inputs", "i")] {
            let place = folder.work().join(place);
            fs::rename(&place, folder.work().join(moved)).unwrap();
            std::os::unix::fs::symlink(host.path(), &place).unwrap();
        }
        fs::rename(folder.tmp(), folder.root().join("t")).unwrap();
        std::os::unix::fs::symlink(host.path(), folder.tmp()).unwrap();
        folder.put("inputs/new", false, b"x").unwrap();
        folder.put("other", false, b"x").unwrap();
        assert!(matches!(
            super::super::collect::file(folder.outputs(), "precious", ""),
            Err(super::super::collect::OutputFault::Missing)
        ));
        folder.empty().unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
        assert!(!area.path().join("seat").exists());
    }
}
