//! What is watched, and when something has changed.
//!
//! Folders are watched, not files: an editor that writes a new file and renames it leaves nothing else of the old one. An event
//! only says that it is time to look: what counts is whether anything is not as it was when planning began. So a file that came
//! and went, or was saved as it was, is no change, and one change is told once, however many events it makes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hotcell_schema::digest::Digest;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::Failure;
use crate::places::Places;

/// Folders that are watched at most.
const MAX_FOLDERS: usize = 4_096;
/// Folders below the manifest that are watched at most where nothing could be planned, and how deep they stand.
const MAX_BELOW: usize = 512;
const MAX_DEPTH: usize = 8;
/// Entries of folders that are compared at most; with more, every event is a change.
const MAX_ENTRIES: usize = 200_000;
/// Longest text whose bytes are compared.
const MAX_TEXT: u64 = 1 << 20;
/// So long nothing must happen before a change is looked at: editors and `git` write several files.
const QUIET: Duration = Duration::from_millis(50);
/// So long it may take until nothing happens and nothing is being written.
const RESTLESS: Duration = Duration::from_secs(2);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Changed,
    Stopped,
}

/// An entry of a folder, as it was seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    length: u64,
    modified: (i64, i64),
    inode: u64,
    /// Of the bytes of a text.
    digest: Option<Digest>,
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        match (self.digest, other.digest) {
            (Some(one), Some(other)) => one == other,
            _ => (self.length, self.modified, self.inode) == (other.length, other.modified, other.inode),
        }
    }
}

/// The folders that are watched, and the signals.
pub(super) struct Watch {
    inotify: Inotify,
    signals: UnixStream,
    /// What hotcell writes itself.
    own: [PathBuf; 2],
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    /// Folders that are to be watched, whether they are there or not.
    wanted: BTreeSet<PathBuf>,
    /// Names of files that count, however they look.
    names: HashSet<OsString>,
    /// Texts that were read: saved as they were, they are the same.
    texts: HashSet<PathBuf>,
    /// What stood in the folders when planning began; absent where that is too much.
    before: Option<BTreeMap<PathBuf, Seen>>,
    /// Files that were made and are being written.
    writing: HashSet<PathBuf>,
}

impl Watch {
    pub(super) fn new(places: Places) -> Result<Self, Failure> {
        let (signals, told) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
        }
        Ok(Self {
            inotify: Inotify::init().map_err(|error| {
                Failure::host(format!("files cannot be watched: {error}"))
                    .help("raise fs.inotify.max_user_instances, or run `hotcell plan` by hand")
            })?,
            signals,
            own: [places.state, places.store],
            watched: BTreeMap::new(),
            wanted: BTreeSet::new(),
            names: HashSet::new(),
            texts: HashSet::new(),
            before: Some(BTreeMap::new()),
            writing: HashSet::new(),
        })
    }

    /// Watches the folders of texts and other files from now on, and no others; with `below`, also everything below the
    /// folders of the texts.
    pub(super) fn look_at(
        &mut self,
        texts: impl IntoIterator<Item = PathBuf>,
        files: impl IntoIterator<Item = PathBuf>,
        below: bool,
    ) {
        self.texts = texts.into_iter().map(|path| plain(&path).to_owned()).collect();
        let files: Vec<PathBuf> = files.into_iter().collect();
        let mut folders = BTreeSet::new();
        self.names.clear();
        for path in self.texts.iter().chain(&files) {
            let mut all = vec![folder_of(path)];
            // What a link points at can change where it stands.
            if path.is_symlink() {
                all.extend(path.canonicalize().ok().map(|real| folder_of(&real)));
            }
            folders.extend(all.into_iter().map(existing));
            self.names.extend(path.file_name().map(OsString::from));
        }
        if below {
            let roots: Vec<PathBuf> = self.texts.iter().map(|text| folder_of(text)).collect();
            folders.extend(self.below(roots));
        }
        self.wanted = folders.into_iter().take(MAX_FOLDERS).collect();
        self.again();
        // What was not looked at before is as it is now.
        let now = self.now();
        match (&mut self.before, now) {
            (Some(before), Some(now)) => {
                before.retain(|path, _| self.wanted.contains(&folder_of(path)));
                for (path, seen) in now {
                    let known = before.entry(path).or_insert(seen);
                    if known.is(&seen) {
                        *known = seen;
                    }
                }
            }
            (before, _) => *before = None,
        }
    }

    /// Everything is as it is meant to be: only what changes from now on counts.
    pub(super) fn remember(&mut self) {
        self.before = self.now();
    }

    /// Folders below others that are no links, and neither hidden nor hotcell's own.
    fn below(&self, roots: Vec<PathBuf>) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut left: Vec<(PathBuf, usize)> = roots.into_iter().map(|root| (root, 0)).collect();
        while let Some((folder, depth)) = left.pop() {
            if found.len() >= MAX_BELOW || !found.insert(folder.clone()) || depth == MAX_DEPTH {
                continue;
            }
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && counts(&self.names, &entry.file_name()) && !self.own.contains(&path) {
                    left.push((path, depth + 1));
                }
            }
        }
        found
    }

    /// What stands in the folders.
    fn now(&self) -> Option<BTreeMap<PathBuf, Seen>> {
        let own: Vec<PathBuf> = self
            .own
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        let mut all = BTreeMap::new();
        for folder in &self.wanted {
            let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let path = folder.join(&name);
                if !counts(&self.names, &name) || own.contains(&real.join(&name)) {
                    continue;
                }
                // A link to nothing is nothing.
                let Ok(facts) = path.metadata() else { continue };
                if all.len() == MAX_ENTRIES {
                    return None;
                }
                let seen = self.seen(&path, &facts);
                all.insert(path, seen);
            }
        }
        Some(all)
    }

    fn seen(&self, path: &Path, facts: &Metadata) -> Seen {
        if facts.is_dir() {
            return Seen {
                length: 0,
                modified: (0, 0),
                inode: facts.ino(),
                digest: None,
            };
        }
        let is_text = self.texts.contains(plain(path)) && facts.is_file() && facts.len() <= MAX_TEXT;
        let bytes = is_text.then(|| std::fs::read(path).ok()).flatten();
        Seen {
            length: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            inode: facts.ino(),
            digest: bytes.map(|bytes| Digest::of(&bytes)),
        }
    }

    /// Folders that were removed and made again are other folders to the kernel.
    fn again(&mut self) {
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        let gone = self
            .watched
            .keys()
            .filter(|folder| !self.wanted.contains(*folder));
        for folder in gone.cloned().collect::<Vec<_>>() {
            if let Some(watch) = self.watched.remove(&folder)
                && !self.watched.values().any(|other| *other == watch)
            {
                // The kernel may have let go of it before.
                let _ = self.inotify.watches().remove(watch);
            }
        }
        for folder in &self.wanted {
            // What is not there (any more) is seen in the folder above it.
            match self.inotify.watches().add(folder, mask) {
                Ok(watch) => _ = self.watched.insert(folder.clone(), watch),
                Err(_) => _ = self.watched.remove(folder),
            }
        }
    }

    /// Waits until something is not as it was, and then nothing happens for a moment.
    pub(super) fn changed(&mut self) -> Result<Event, Failure> {
        let mut first: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            let wait = match first {
                None => None,
                Some(first) => {
                    let restless = RESTLESS.saturating_sub(first.elapsed());
                    let quiet = QUIET.saturating_sub(last.elapsed());
                    Some(if self.is_writing() {
                        restless
                    } else {
                        quiet.min(restless)
                    })
                }
            };
            if wait.is_some_and(|wait| wait.is_zero()) {
                first = None;
                self.writing.clear();
                self.again();
                if self.differs() {
                    return Ok(Event::Changed);
                }
                continue;
            }
            // Not a millisecond too early: that would be a second round.
            let wait = wait.map(|wait| wait + Duration::from_millis(1));
            let timeout = wait.map_or(PollTimeout::NONE, |wait| {
                PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)
            });
            let mut fds = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(Failure::host(format!("waiting for changes: {error}"))),
                Ok(_) => {}
            }
            let mut byte = [0];
            if self.signals.read(&mut byte).is_ok() {
                return Ok(Event::Stopped);
            }
            if self.events()? {
                last = Instant::now();
                first.get_or_insert(last);
            }
        }
    }

    /// Whether anything is not as it was.
    fn differs(&self) -> bool {
        let (Some(before), Some(now)) = (&self.before, self.now()) else {
            return true;
        };
        let same = |(path, seen): (&PathBuf, &Seen)| before.get(path).is_some_and(|was| was.is(seen));
        before.len() != now.len() || !now.iter().all(same)
    }

    /// Whether a file that was made is still being written. What is no file of one name is never closed by its writer.
    fn is_writing(&mut self) -> bool {
        self.writing.retain(|path| {
            let facts = path.symlink_metadata();
            facts.is_ok_and(|facts| facts.is_file() && facts.nlink() == 1)
        });
        !self.writing.is_empty()
    }

    /// Takes all events that are there; whether one of them counts.
    fn events(&mut self) -> Result<bool, Failure> {
        let mut buffer = [0; 16 << 10];
        let mut any = false;
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    let folders: HashMap<&WatchDescriptor, &PathBuf> = self
                        .watched
                        .iter()
                        .map(|(folder, watch)| (watch, folder))
                        .collect();
                    for event in events {
                        let Some(name) = event.name else {
                            any = true;
                            continue;
                        };
                        if !counts(&self.names, name) {
                            continue;
                        }
                        any = true;
                        let Some(folder) = folders.get(&event.wd) else {
                            continue;
                        };
                        let path = folder.join(name);
                        match event.mask.contains(EventMask::CREATE) {
                            true => _ = self.writing.insert(path),
                            false => _ = self.writing.remove(&path),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A path as manifests write it.
fn plain(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: PathBuf) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    match there {
        Some(there) => there.to_owned(),
        None => PathBuf::from("."),
    }
}

/// Whether a change of a file of that name is of interest: editors leave swap files, backups and trial files, runs their
/// folder.
fn counts(names: &HashSet<OsString>, name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    let of_an_editor = text.starts_with(['.', '#'])
        || text.ends_with(['~', '#'])
        || text.ends_with(".swp")
        || text.ends_with("___jb_tmp___")
        || text.ends_with("___jb_old___")
        || text == "4913";
    names.contains(name) || !of_an_editor
}
