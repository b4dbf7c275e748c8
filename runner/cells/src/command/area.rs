//! The folder of all seats of a run: for nobody else to look into, and removed with the run or by the next one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::folder;

/// Name of the folders, before what nobody can guess.
const PREFIX: &str = "hotcell-commands-";

/// A folder that is in use as long as its lock is held: another runner removes one that nobody holds.
#[derive(Debug)]
pub(super) struct Area {
    path: PathBuf,
    lot: u32,
    _lock: Flock<File>,
}

impl Area {
    /// Makes a new one, and removes those of runners that are no more.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        for _ in 0..100 {
            let [lot, ..] = random()?;
            let area = parent.join(format!("{PREFIX}{}", random_name()?));
            match fs::DirBuilder::new().mode(0o700).create(&area) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    let text = format!("{}: {error}", area.display());
                    return Err(io::Error::new(error.kind(), text));
                }
            }
            match lock(&area).and_then(|lock| Ok((fs::canonicalize(&area)?, lock))) {
                Ok((path, lock)) => {
                    return Ok(Self {
                        path,
                        lot,
                        _lock: lock,
                    });
                }
                // Another runner that looks for abandoned folders was faster than the lock.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {
                }
                Err(error) => return Err(io::Error::other(format!("{}: {error}", area.display()))),
            }
        }
        Err(io::Error::other(format!(
            "no folder for commands can be made in {}",
            parent.display()
        )))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A number that is this area's by chance.
    pub(super) fn lot(&self) -> u32 {
        self.lot
    }

    /// Lets users through who know where they go: only where commands have the host's paths.
    pub(super) fn open(&self) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))
    }

    /// A path for a new seat, which nobody can guess.
    pub(super) fn seat(&self) -> io::Result<PathBuf> {
        Ok(self.path.join(random_name()?))
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        folder::remove(&self.path);
    }
}

fn random() -> io::Result<[u32; 4]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *number = u32::from_le_bytes(*bytes);
    }
    Ok(numbers)
}

fn random_name() -> io::Result<String> {
    let numbers = random()?;
    Ok(numbers.map(|number| format!("{number:08x}")).concat())
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
            && let Ok(_held) = lock(&entry.path())
        {
            folder::remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_that_begin_at_once_keep_their_folders() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        let area = Area::make(parent.path()).unwrap();
                        assert!(area.path().join("lock").is_file());
                        std::thread::yield_now();
                        assert!(area.path().join("lock").is_file());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
