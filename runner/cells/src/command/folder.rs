//! The folders of a seat, and how they are emptied whatever a command left in them.
//!
//! Everything here happens while no command runs: whatever a command started is dead, so nobody changes what is walked.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// A seat's folder: `root/`, which is the root of its commands where they have their own, and in it `work/` and `tmp/`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Folders below `root/` that are there for every command, whether the command may write into them, and their mode.
const PARTS: [(&str, bool); 4] = [
    ("work", false),
    ("work/inputs", false),
    ("work/outputs", true),
    ("tmp", true),
];
const MODE: u32 = 0o755;

impl Folder {
    /// Makes the folders; what commands may write belongs to `owner`.
    pub(super) fn make(path: &Path, owner: Option<u32>) -> io::Result<Self> {
        let folder = Self {
            path: path.to_owned(),
        };
        fs::create_dir(path)?;
        fs::create_dir(folder.root())?;
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        fs::set_permissions(folder.root(), Permissions::from_mode(MODE))?;
        for (part, writable) in PARTS {
            let part = folder.root().join(part);
            fs::create_dir(&part)?;
            fs::set_permissions(&part, Permissions::from_mode(MODE))?;
            if writable && let Some(owner) = owner {
                chown(&part, Some(owner), Some(owner))?;
            }
        }
        Ok(folder)
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

    /// Whether any user can get here: each folder above must let them through.
    pub(super) fn check_reachable(&self) -> io::Result<()> {
        for above in self.path.ancestors() {
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

    /// Makes everything as it was before the first command. `all`: also own files and inputs.
    pub(super) fn empty(&self, all: bool) -> io::Result<()> {
        for (part, _) in PARTS {
            let path = self.root().join(part);
            let facts = fs::symlink_metadata(&path)?;
            if facts.mode() & 0o7777 != MODE {
                fs::set_permissions(&path, Permissions::from_mode(MODE))?;
            }
        }
        clear(&self.work().join("outputs"))?;
        clear(&self.tmp())?;
        if all {
            clear(&self.work().join("inputs"))?;
            for entry in fs::read_dir(self.work())? {
                let entry = entry?;
                if entry.file_name() == "inputs" || entry.file_name() == "outputs" {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    clear(&entry.path())?;
                    fs::remove_dir(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
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
    if clear(path).is_ok() {
        let _ = fs::remove_dir(path);
    }
}

/// Removes everything in a folder, however deep: the content of a folder within it is moved up before that is removed, so
/// neither the stack nor the length of paths is a bound.
fn clear(top: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut found = false;
        for entry in fs::read_dir(top)? {
            found = true;
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(&path)?;
                continue;
            }
            if fs::remove_dir(&path).is_ok() {
                continue;
            }
            // Its user may have closed it, even to themselves.
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            for inner in fs::read_dir(&path)? {
                let inner = inner?;
                if !inner.file_type()?.is_dir() {
                    fs::remove_file(inner.path())?;
                    continue;
                }
                // A folder that is closed can be moved by root alone.
                fs::set_permissions(inner.path(), Permissions::from_mode(0o700))?;
                loop {
                    moved += 1;
                    let target = top.join(format!(".hotcell-moved-{moved}"));
                    if fs::symlink_metadata(&target).is_err() {
                        fs::rename(inner.path(), target)?;
                        break;
                    }
                }
            }
            fs::remove_dir(&path)?;
        }
        if !found {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whatever_lies_there_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", top.join("link")).unwrap();
        nix::unistd::mkfifo(&top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir_all(top.join("closed/within")).unwrap();
        fs::write(top.join("closed/within/file"), "x").unwrap();
        fs::set_permissions(top.join("closed/within"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(top.join("closed"), Permissions::from_mode(0o000)).unwrap();
        fs::create_dir_all(top.join(".hotcell-moved-1/a")).unwrap();
        clear(&top).unwrap();
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
}
