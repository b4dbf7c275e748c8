//! The store's lock, and the files that are being written.
//!
//! Runners hold the lock together; who collects holds it alone, so that nothing disappears that a runner has counted on.
//! Each process that writes has a folder of its own under `incoming/`, with a lock that it holds as long as it lives: the
//! next one removes the folders whose lock nobody holds, and no others, however old they are. Whoever makes such a folder, or
//! removes those of the dead, holds the lock `opening` for that moment: so what has no lock of its own yet is being made by
//! its holder, or was left by someone who was killed.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::{StoreError, trouble};

/// Who may hold the lock against someone who wants to work with the store.
const COLLECTING: &str = "`hotcell store gc` is at work on this store";
/// Who may hold the lock against someone who wants to collect.
const WORKING: &str = "others are at work with this store";

/// The store's lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

impl Hold {
    /// Together with others who work with the store.
    pub(crate) fn shared(folder: &Path, wait: bool) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let file = open(&path)?;
        let locked = match wait {
            true => file.lock_shared().map_err(TryLockError::Error),
            false => file.try_lock_shared(),
        };
        held(locked, path, COLLECTING)?;
        Ok(Self { _file: file })
    }

    /// Together with others, without writing anything: `None` where there is no lock, because nobody has worked here yet.
    pub(crate) fn existing(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble("open", &path, &error)),
        };
        held(file.try_lock_shared(), path, COLLECTING)?;
        Ok(Some(Self { _file: file }))
    }

    /// Alone.
    pub(crate) fn alone(folder: &Path, wait: bool) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let file = open(&path)?;
        let locked = match wait {
            true => file.lock().map_err(TryLockError::Error),
            false => file.try_lock(),
        };
        held(locked, path, WORKING)?;
        Ok(Self { _file: file })
    }
}

/// The right to make something in `incoming/`, and to remove what the dead left there; held for a moment.
#[derive(Debug)]
pub(crate) struct Opening {
    incoming: PathBuf,
    _file: File,
}

impl Opening {
    /// Waits for whoever is at it.
    pub(crate) fn of(store: &Path) -> Result<Self, StoreError> {
        let path = store.join("opening");
        let file = open(&path)?;
        held(file.lock().map_err(TryLockError::Error), path, COLLECTING)?;
        Ok(Self {
            incoming: store.join("incoming"),
            _file: file,
        })
    }

    /// The folder in which things are made.
    pub(crate) fn incoming(&self) -> &Path {
        &self.incoming
    }

    /// Removes what was left by processes that are no more.
    pub(crate) fn remove_dead(&self) -> Result<(), StoreError> {
        for entry in fs_err::read_dir(&self.incoming)? {
            let path = entry?.path();
            if is_dead(&path) {
                match path.is_dir() {
                    true => gone(fs_err::remove_dir_all(&path))?,
                    false => gone(fs_err::remove_file(&path))?,
                }
            }
        }
        Ok(())
    }
}

/// Whether nobody lives who wrote something in `incoming/`. What is no folder is being made only under the lock `opening`.
pub(crate) fn is_dead(path: &Path) -> bool {
    // A folder without its lock is one that was being made, or removed.
    let lock = File::open(path.join("lock")).ok();
    lock.is_none_or(|lock| lock.try_lock_shared().is_ok())
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|error| trouble("open", path, &error))
}

/// What came of asking for a lock.
pub(crate) fn held(
    locked: Result<(), TryLockError>,
    path: PathBuf,
    by: &'static str,
) -> Result<(), StoreError> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path, by }),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            let text = format!(
                "the file system of {} has no locks (flock), and hotcell needs them there: use another one",
                path.display()
            );
            Err(StoreError::Io(io::Error::new(error.kind(), text)))
        }
        Err(TryLockError::Error(error)) => Err(trouble("lock", &path, &error)),
    }
}

/// Where one process writes.
#[derive(Debug)]
pub(crate) struct Incoming {
    folder: PathBuf,
    _lock: File,
    opened: SystemTime,
    next: AtomicU64,
}

impl Incoming {
    /// Makes a folder of its own, and removes those of the dead.
    pub(crate) fn begin(store: &Path) -> Result<Self, StoreError> {
        let opening = Opening::of(store)?;
        opening.remove_dead()?;
        let fresh = tempfile::Builder::new()
            .prefix("writer-")
            .tempdir_in(opening.incoming())?;
        let path = fresh.path().join("lock");
        let lock = open(&path)?;
        lock.lock().map_err(|error| trouble("lock", &path, &error))?;
        let opened = lock.metadata()?.modified()?;
        Ok(Self {
            folder: fresh.keep(),
            _lock: lock,
            opened,
            next: AtomicU64::new(0),
        })
    }

    /// When it was made, by the file system's clock.
    pub(crate) fn opened(&self) -> SystemTime {
        self.opened
    }

    /// A new file.
    pub(crate) fn part(&self) -> io::Result<Part> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create_new(true);
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Part {
            file,
            path,
            placed: false,
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one who writes.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What another may have removed as well is gone, and that is all that is wanted.
fn gone(removed: io::Result<()>) -> Result<(), StoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A file that is being written. It is removed when it is dropped before it was placed.
#[derive(Debug)]
pub(crate) struct Part {
    file: fs_err::File,
    path: PathBuf,
    placed: bool,
}

impl Part {
    /// Gives it its name, whatever stood there.
    pub(crate) fn place(mut self, path: &Path) -> io::Result<()> {
        match fs_err::rename(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    fs_err::create_dir_all(folder)?;
                }
                fs_err::rename(&self.path, path)?;
            }
            renamed => renamed?,
        }
        self.placed = true;
        Ok(())
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed now is removed with its folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
