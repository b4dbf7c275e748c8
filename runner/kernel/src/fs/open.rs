//! Open files: descriptions shared by descriptors, and each process's table of descriptors.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::fs::lock::Locks;
use crate::fs::tree::{Device, Ino};
use crate::fs::walk::Seat;
use crate::fs::watch::{WatcherId, Watches};
use crate::net::SocketId;
use crate::sys::epoll::Epoll;
use crate::sys::timer::Timer;

/// Names an open file description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileId(pub(crate) u64);

/// Names a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PipeId(pub(crate) u64);

/// What an open file reads and writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// A regular file.
    File(Ino),
    /// A directory, listed when it was first read.
    Directory(Ino, Option<Arc<[Entry]>>),
    /// Text made when it was opened (`/proc`).
    Text(Ino, Arc<[u8]>),
    /// Memory of a process (`/proc/PID/mem`).
    Memory(Ino, u32),
    Device(Ino, Device),
    PipeRead(PipeId),
    PipeWrite(PipeId),
    /// A FIFO that was opened for both.
    Fifo(PipeId),
    /// What the job gives as standard input.
    Input(Bytes),
    /// Standard output, or error.
    Output {
        error: bool,
    },
    /// Opened with O_PATH.
    Path(Ino),
    Socket(SocketId),
    Epoll(Epoll),
    /// An eventfd.
    Event {
        count: u64,
        semaphore: bool,
        /// Counts what happened to it.
        activity: u64,
    },
    /// A timerfd.
    Timer(Timer),
    Inotify(WatcherId),
    /// A signalfd: the generic signals that it takes.
    Signals(u64),
    /// A process (pidfd).
    Process(u32),
}

impl Target {
    /// Of a pipe: which one, and whether it is read and written.
    pub(crate) fn ends(&self) -> Option<(PipeId, bool, bool)> {
        match self {
            Self::PipeRead(pipe) => Some((*pipe, true, false)),
            Self::PipeWrite(pipe) => Some((*pipe, false, true)),
            Self::Fifo(pipe) => Some((*pipe, true, true)),
            _ => None,
        }
    }

    /// Whether it is an end of a pipe.
    pub(crate) fn is_pipe(&self) -> bool {
        self.ends().is_some()
    }

    /// Whether it is something without a name that another open cannot reach.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(
            self,
            Self::Socket(_)
                | Self::Epoll(_)
                | Self::Event { .. }
                | Self::Timer(_)
                | Self::Inotify(_)
                | Self::Signals(_)
                | Self::Process(_)
        )
    }
}

/// One entry of a listed directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: u64,
    /// `DT_*`.
    pub(crate) kind: u8,
}

/// Bytes that all descriptions may keep together, and about how many each takes.
const MAX_KEPT: u64 = 64 << 20;
const EACH: u64 = 256;

/// An open file description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    pub(crate) target: Target,
    /// Generic `O_*` flags.
    pub(crate) flags: u64,
    pub(crate) offset: u64,
    /// Absolute path by which it was opened, for events and `/proc/PID/fd`.
    pub(crate) path: Vec<u8>,
    /// What was opened, and by which name.
    pub(crate) seat: Option<Seat>,
    /// Bytes written through it; `None`: not written.
    pub(crate) written: Option<u64>,
    references: u32,
}

impl OpenFile {
    pub(crate) fn new(target: Target, flags: u64, path: Vec<u8>) -> Self {
        Self {
            target,
            flags,
            offset: 0,
            path,
            seat: None,
            written: None,
            references: 0,
        }
    }

    /// The same, opened by a name.
    pub(crate) fn at(target: Target, flags: u64, path: Vec<u8>, seat: Seat) -> Self {
        Self {
            seat: Some(seat),
            ..Self::new(target, flags, path)
        }
    }

    /// About how many bytes it keeps: its path, a text, a listing.
    fn kept(&self) -> u64 {
        let content = match &self.target {
            Target::Text(_, text) => text.len(),
            Target::Directory(_, Some(listed)) => listed.iter().map(|entry| entry.name.len() + 64).sum(),
            _ => 0,
        };
        EACH + (self.path.len() + content) as u64
    }

    /// The inode it refers to.
    pub(crate) fn inode(&self) -> Option<Ino> {
        match self.target {
            Target::File(ino)
            | Target::Directory(ino, _)
            | Target::Text(ino, _)
            | Target::Memory(ino, _)
            | Target::Device(ino, _)
            | Target::Path(ino) => Some(ino),
            _ => None,
        }
    }
}

/// One descriptor.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) file: FileId,
    pub(crate) close_on_exec: bool,
}

/// A process's descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileTable {
    descriptors: BTreeMap<u32, Descriptor>,
    /// First number that none may have.
    most: u32,
}

/// RLIMIT_NOFILE: of a process that set none, and what nobody gets more of.
pub(crate) const SOFT_DESCRIPTORS: u32 = 1024;
pub(crate) const MAX_DESCRIPTORS: u32 = 4096;

impl Default for FileTable {
    fn default() -> Self {
        Self {
            descriptors: BTreeMap::new(),
            most: SOFT_DESCRIPTORS,
        }
    }
}

impl FileTable {
    /// From now on, no new descriptor has this number or a greater one.
    pub(crate) fn limit(&mut self, most: u64) {
        self.most = u32::try_from(most).unwrap_or(u32::MAX).min(MAX_DESCRIPTORS);
    }

    /// Whether a descriptor may have a number.
    pub(crate) fn allows(&self, fd: u32) -> bool {
        fd < self.most
    }

    pub(crate) fn get(&self, fd: u64) -> Result<Descriptor, Errno> {
        let fd = u32::try_from(fd & 0xffff_ffff).map_err(|_| Errno::EBADF)?;
        self.descriptors.get(&fd).copied().ok_or(Errno::EBADF)
    }

    pub(crate) fn get_mut(&mut self, fd: u64) -> Option<&mut Descriptor> {
        self.descriptors.get_mut(&(fd as u32))
    }

    /// The lowest free number from `least`.
    pub(crate) fn free(&self, least: u32) -> Result<u32, Errno> {
        (least..self.most)
            .find(|fd| !self.descriptors.contains_key(fd))
            .ok_or(Errno::EMFILE)
    }

    pub(crate) fn set(&mut self, fd: u32, descriptor: Descriptor) -> Option<Descriptor> {
        self.descriptors.insert(fd, descriptor)
    }

    pub(crate) fn remove(&mut self, fd: u64) -> Option<Descriptor> {
        self.descriptors.remove(&u32::try_from(fd & 0xffff_ffff).ok()?)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, Descriptor)> {
        self.descriptors.iter().map(|(fd, descriptor)| (*fd, *descriptor))
    }

    pub(crate) fn drain(&mut self) -> Vec<Descriptor> {
        std::mem::take(&mut self.descriptors).into_values().collect()
    }
}

/// A pipe's buffer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pipe {
    pub(crate) buffer: VecDeque<u8>,
    /// Bytes that fit in.
    pub(crate) capacity: usize,
    pub(crate) readers: u32,
    pub(crate) writers: u32,
    /// Readers and writers that ever were: whoever opens a FIFO waits for one of the others.
    pub(crate) ever: [u64; 2],
    /// Counts what happened to it.
    pub(crate) activity: u64,
    /// The FIFO that it is.
    fifo: Option<Ino>,
}

/// Bytes that are written to a pipe at once or not at all (`pipe(7)`).
pub(crate) const PIPE_BUF: usize = 4096;
/// Bytes that fit in a new pipe, the most a program may ask for (pipe-max-size), and those of all pipes together
/// (pipe-user-pages-soft): pipes that are made then hold a page (`pipe(7)`).
const PIPE_CAPACITY: usize = 65_536;
const PIPE_MAX: usize = 1 << 20;
const PIPES_SOFT: usize = 64 << 20;

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self {
            buffer: VecDeque::new(),
            capacity,
            readers: 0,
            writers: 0,
            ever: [0; 2],
            activity: 0,
            fifo: None,
        }
    }

    /// How many more bytes fit in.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.buffer.len())
    }
}

/// All open file descriptions and pipes, what is watched and what is locked.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenFiles {
    files: BTreeMap<FileId, OpenFile>,
    pipes: BTreeMap<PipeId, Pipe>,
    /// Pipes of FIFOs that are open.
    fifos: BTreeMap<Ino, PipeId>,
    pub(crate) watches: Watches,
    pub(crate) locks: Locks,
    next: u64,
    /// Bytes that all descriptions keep, and those that fit in all pipes.
    kept: u64,
    piped: usize,
}

/// What became of a description when a descriptor went away.
#[derive(Debug)]
pub(crate) enum Closed {
    /// Others still refer to it.
    Shared,
    /// It was the last one.
    Last(OpenFile),
}

impl OpenFiles {
    pub(crate) fn get(&self, id: FileId) -> Option<&OpenFile> {
        self.files.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: FileId) -> Option<&mut OpenFile> {
        self.files.get_mut(&id)
    }

    /// The files that hold a text which was made when they were opened.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (FileId, Ino)> {
        self.files.iter().filter_map(|(id, file)| match file.target {
            Target::Text(ino, _) => Some((*id, ino)),
            _ => None,
        })
    }

    /// Gives such a file another text.
    pub(crate) fn renew(&mut self, id: FileId, text: Vec<u8>) {
        if let Some(file) = self.files.get_mut(&id) {
            self.kept = self.kept.saturating_sub(file.kept());
            if let Target::Text(_, old) = &mut file.target {
                *old = text.into();
            }
            self.kept = self.kept.saturating_add(file.kept());
        }
    }

    /// A new description with one reference. ENFILE: there are too many, or they keep too much.
    pub(crate) fn add(&mut self, mut file: OpenFile) -> Result<FileId, Errno> {
        let kept = self.kept.saturating_add(file.kept());
        if kept > MAX_KEPT {
            return Err(Errno::ENFILE);
        }
        self.kept = kept;
        let id = FileId(self.next);
        self.next += 1;
        file.references = 1;
        if let Some((pipe, reads, writes)) = file.target.ends() {
            let pipe = self.pipe_at(pipe);
            pipe.readers += u32::from(reads);
            pipe.writers += u32::from(writes);
            pipe.ever[0] += u64::from(reads);
            pipe.ever[1] += u64::from(writes);
        }
        self.files.insert(id, file);
        Ok(id)
    }

    /// What a directory holds, for whoever reads on; `None`: it is read anew. ENOMEM: all keep too much.
    pub(crate) fn list(&mut self, id: FileId, entries: Option<Arc<[Entry]>>) -> Result<(), Errno> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(());
        };
        self.kept = self.kept.saturating_sub(file.kept());
        if let Target::Directory(_, listed) = &mut file.target {
            *listed = entries;
        }
        self.kept = self.kept.saturating_add(file.kept());
        if self.kept <= MAX_KEPT {
            return Ok(());
        }
        self.list(id, None).and(Err(Errno::ENOMEM))
    }

    /// Counts anew what is kept. For what was read from outside.
    pub(crate) fn count(&mut self) {
        self.kept = self.files.values().map(OpenFile::kept).sum();
        self.piped = self
            .pipes
            .values()
            .map(|pipe| pipe.capacity)
            .fold(0, usize::saturating_add);
    }

    /// One more reference.
    pub(crate) fn share(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.references += 1;
        }
    }

    /// One reference less.
    pub(crate) fn close(&mut self, id: FileId) -> Closed {
        let Some(file) = self.files.get_mut(&id) else {
            return Closed::Shared;
        };
        file.references = file.references.saturating_sub(1);
        if file.references > 0 {
            return Closed::Shared;
        }
        let Some(file) = self.files.remove(&id) else {
            return Closed::Shared;
        };
        self.kept = self.kept.saturating_sub(file.kept());
        if let Some((pipe, reads, writes)) = file.target.ends()
            && let Some(ends) = self.pipes.get_mut(&pipe)
        {
            ends.readers = ends.readers.saturating_sub(u32::from(reads));
            ends.writers = ends.writers.saturating_sub(u32::from(writes));
            ends.activity += 1;
            self.forget_idle(pipe);
        }
        Closed::Last(file)
    }

    /// Forgets a pipe that nobody has open.
    pub(crate) fn forget_idle(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get(&id)
            && pipe.readers == 0
            && pipe.writers == 0
        {
            if let Some(ino) = pipe.fifo {
                self.fifos.remove(&ino);
            }
            self.piped = self.piped.saturating_sub(pipe.capacity);
            self.pipes.remove(&id);
        }
    }

    /// What has this name has another one now.
    pub(crate) fn moved(&mut self, from: &Seat, directory: Ino, name: &[u8]) {
        let seats = self.files.values_mut().filter_map(|file| file.seat.as_mut());
        for seat in seats.filter(|seat| *seat == from) {
            seat.directory = directory;
            seat.name = name.to_vec();
        }
    }

    /// A new pipe without ends.
    pub(crate) fn new_pipe(&mut self) -> PipeId {
        let id = PipeId(self.next);
        self.next += 1;
        id
    }

    fn pipe_at(&mut self, id: PipeId) -> &mut Pipe {
        self.pipes.entry(id).or_insert_with(|| {
            let capacity = match self.piped.saturating_add(PIPE_CAPACITY) <= PIPES_SOFT {
                true => PIPE_CAPACITY,
                false => PIPE_BUF,
            };
            self.piped = self.piped.saturating_add(capacity);
            Pipe::new(capacity)
        })
    }

    /// Makes room in a pipe for so many bytes or more (F_SETPIPE_SZ).
    pub(crate) fn set_capacity(&mut self, id: PipeId, wanted: u64) -> Result<usize, Errno> {
        let pipe = self.pipes.get_mut(&id).ok_or(Errno::EBADF)?;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(PIPE_BUF);
        let capacity = wanted.checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        if capacity < pipe.buffer.len() {
            return Err(Errno::EBUSY);
        }
        let piped = self.piped.saturating_sub(pipe.capacity).saturating_add(capacity);
        if capacity > pipe.capacity && (capacity > PIPE_MAX || piped > PIPES_SOFT) {
            return Err(Errno::EPERM);
        }
        self.piped = piped;
        pipe.capacity = capacity;
        pipe.activity += 1;
        Ok(capacity)
    }

    /// The pipe of a FIFO.
    pub(crate) fn fifo(&mut self, ino: Ino) -> PipeId {
        if let Some(pipe) = self.fifos.get(&ino) {
            return *pipe;
        }
        let pipe = self.new_pipe();
        self.fifos.insert(ino, pipe);
        self.pipe_at(pipe).fifo = Some(ino);
        pipe
    }

    /// The pipe of a FIFO that is open.
    pub(crate) fn fifo_ref(&self, ino: Ino) -> Option<&Pipe> {
        self.pipes.get(self.fifos.get(&ino)?)
    }

    pub(crate) fn pipe(&mut self, id: PipeId) -> Option<&mut Pipe> {
        self.pipes.get_mut(&id)
    }

    pub(crate) fn pipe_ref(&self, id: PipeId) -> Option<&Pipe> {
        self.pipes.get(&id)
    }
}
