//! A file system that passes everything through to a folder, and says ENOSPC and EIO at random when it is told to.
//!
//! It is FUSE without libfuse: mounting needs root and `/dev/fuse`.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::Chance;

/// How long the kernel may believe what it was told.
const BELIEVED: Duration = Duration::from_secs(1);

/// A mounted file system with faults. Unmounted when it is dropped.
pub struct FaultyDisk {
    /// Where it is mounted.
    pub mounted: PathBuf,
    /// What it passes through to.
    pub backing: PathBuf,
    faults: Arc<Faults>,
    _session: BackgroundSession,
}

impl FaultyDisk {
    /// Mounts one, without faults at first; `None` with a word where that is not possible.
    pub fn mount(folder: &Path, seed: u64) -> Option<Self> {
        let (mounted, backing) = (folder.join("disk"), folder.join("backing"));
        fs::create_dir_all(&mounted).unwrap();
        fs::create_dir_all(&backing).unwrap();
        let faults = Arc::new(Faults {
            rate: AtomicU64::new(0),
            met: AtomicU64::new(0),
            chance: Mutex::new(Chance::new(seed)),
        });
        let disk = Disk {
            faults: Arc::clone(&faults),
            backing: backing.clone(),
            names: Mutex::default(),
            files: Mutex::default(),
            next: AtomicU64::new(1),
        };
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("hotcell-faults".into()),
            MountOption::DefaultPermissions,
        ];
        match fuser::spawn_mount(disk, &mounted, &config) {
            Ok(session) => Some(Self {
                mounted,
                backing,
                faults,
                _session: session,
            }),
            Err(error) => {
                eprintln!("skipped: a FUSE file system cannot be mounted here: {error}");
                None
            }
        }
    }

    /// From now on so many of 1,000 calls fail.
    pub fn fail(&self, of_1000: u64) {
        self.faults.rate.store(of_1000, Ordering::SeqCst);
    }

    /// How many calls have failed.
    pub fn met(&self) -> u64 {
        self.faults.met.load(Ordering::SeqCst)
    }
}

struct Faults {
    rate: AtomicU64,
    met: AtomicU64,
    chance: Mutex<Chance>,
}

impl Faults {
    /// Whether this call fails, and how.
    fn strike(&self, ways: &[Errno]) -> Result<(), Errno> {
        let rate = self.rate.load(Ordering::SeqCst);
        if rate == 0 {
            return Ok(());
        }
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        if chance.below(1000) >= rate {
            return Ok(());
        }
        self.met.fetch_add(1, Ordering::SeqCst);
        Err(ways[chance.below(ways.len() as u64) as usize])
    }
}

const WRITING: &[Errno] = &[Errno::ENOSPC, Errno::EIO];
const READING: &[Errno] = &[Errno::EIO];

struct Disk {
    faults: Arc<Faults>,
    backing: PathBuf,
    /// Where a node stands: its folder and its name there. The root stands nowhere.
    names: Mutex<HashMap<u64, (u64, OsString)>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
}

impl Disk {
    fn path(&self, node: INodeNo) -> Result<PathBuf, Errno> {
        let names = self.names.lock().unwrap();
        let (mut at, mut parts) = (node.0, Vec::new());
        while at != INodeNo::ROOT.0 {
            let (parent, name) = names.get(&at).ok_or(Errno::ENOENT)?;
            parts.push(name.clone());
            at = *parent;
        }
        let mut path = self.backing.clone();
        path.extend(parts.iter().rev());
        Ok(path)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    /// The node of a name in a folder, which is known from now on.
    fn node(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let facts = fs::symlink_metadata(self.child(parent, name)?)?;
        let mut names = self.names.lock().unwrap();
        names.insert(facts.ino(), (parent.0, name.to_owned()));
        Ok(attributes(&facts, facts.ino()))
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::SeqCst);
        self.files.lock().unwrap().insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        let files = self.files.lock().unwrap();
        files.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn make_file(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Result<(FileAttr, FileHandle), Errno> {
        self.faults.strike(WRITING)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode);
        let file = options.open(self.child(parent, name)?)?;
        Ok((self.node(parent, name)?, self.keep(file)))
    }

    fn read_file(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.faults.strike(READING)?;
        let file = self.file(handle)?;
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_file(&self, handle: FileHandle, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let file = self.file(handle)?;
        if let Err(fault) = self.faults.strike(WRITING) {
            // What a disk says it did not write, it may have written in part.
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(fault);
        }
        file.write_all_at(bytes, offset)?;
        Ok(bytes.len() as u32)
    }

    fn change(
        &self,
        node: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        modified: Option<TimeOrNow>,
    ) -> Result<FileAttr, Errno> {
        let path = self.path(node)?;
        if let Some(size) = size {
            self.faults.strike(WRITING)?;
            OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(modified) = modified {
            let time = match modified {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => SystemTime::now(),
            };
            File::open(&path)?.set_times(FileTimes::new().set_modified(time))?;
        }
        Ok(attributes(&fs::symlink_metadata(&path)?, node.0))
    }

    fn move_to(&self, parent: INodeNo, name: &OsStr, into: INodeNo, new: &OsStr) -> Result<(), Errno> {
        self.faults.strike(WRITING)?;
        let (from, to) = (self.child(parent, name)?, self.child(into, new)?);
        let node = fs::symlink_metadata(&from)?.ino();
        fs::rename(from, to)?;
        self.names.lock().unwrap().insert(node, (into.0, new.to_owned()));
        Ok(())
    }

    fn list(&self, node: INodeNo) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        self.faults.strike(READING)?;
        let mut all = vec![
            (node.0, FileType::Directory, ".".into()),
            (node.0, FileType::Directory, "..".into()),
        ];
        for entry in fs::read_dir(self.path(node)?)? {
            let entry = entry?;
            let facts = entry.metadata()?;
            all.push((facts.ino(), kind(&facts), entry.file_name()));
        }
        Ok(all)
    }
}

fn kind(facts: &fs::Metadata) -> FileType {
    FileType::from_std(facts.file_type()).unwrap_or(FileType::RegularFile)
}

fn attributes(facts: &fs::Metadata, node: u64) -> FileAttr {
    let time = |seconds: i64, nanos: i64| {
        SystemTime::UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap_or(0))
    };
    FileAttr {
        ino: INodeNo(node),
        size: facts.size(),
        blocks: facts.blocks(),
        atime: time(facts.atime(), facts.atime_nsec()),
        mtime: time(facts.mtime(), facts.mtime_nsec()),
        ctime: time(facts.ctime(), facts.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(facts),
        perm: (facts.mode() & 0o7777) as u16,
        nlink: u32::try_from(facts.nlink()).unwrap_or(1),
        uid: facts.uid(),
        gid: facts.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers a call with what came of it.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $well:expr) => {
        match (|| -> Result<_, Errno> { Ok($result) })() {
            Ok($value) => $well,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.node(parent, name)?, node => reply.entry(&BELIEVED, &node, Generation(0)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let facts = || -> Result<_, Errno> {
            match handle {
                Some(handle) => Ok(self.file(handle)?.metadata()?),
                None => Ok(fs::symlink_metadata(self.path(node)?)?),
            }
        };
        answer!(reply, facts()?, facts => reply.attr(&BELIEVED, &attributes(&facts, node.0)));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.change(node, mode, size, mtime)?, node => reply.attr(&BELIEVED, &node));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = || {
            self.faults.strike(WRITING)?;
            fs::DirBuilder::new()
                .mode(mode & !umask)
                .create(self.child(parent, name)?)?;
            self.node(parent, name)
        };
        answer!(reply, made()?, node => reply.entry(&BELIEVED, &node, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, fs::remove_file(self.child(parent, name)?)?, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, fs::remove_dir(self.child(parent, name)?)?, () => reply.ok());
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = || {
            self.faults.strike(WRITING)?;
            std::os::unix::fs::symlink(target, self.child(parent, name)?)?;
            self.node(parent, name)
        };
        answer!(reply, made()?, node => reply.entry(&BELIEVED, &node, Generation(0)));
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        answer!(reply, fs::read_link(self.path(node)?)?, target => {
            reply.data(target.as_os_str().as_encoded_bytes());
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        into: INodeNo,
        new: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.move_to(parent, name, into, new)?, () => reply.ok());
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = || -> Result<_, Errno> {
            self.faults.strike(READING)?;
            let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
            let file = OpenOptions::new()
                .read(true)
                .write(write)
                .open(self.path(node)?)?;
            Ok(self.keep(file))
        };
        // Nothing is cached: every read and write meets this file system.
        answer!(reply, opened()?, handle => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, self.make_file(parent, name, mode & !umask)?, (node, handle) => {
            reply.created(&BELIEVED, &node, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_file(handle, offset, size)?, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _kind: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write_file(handle, offset, bytes)?, written => reply.written(written));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().unwrap().remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        let synced = || {
            self.faults.strike(READING)?;
            Ok::<_, Errno>(self.file(handle)?.sync_all()?)
        };
        answer!(reply, synced()?, () => reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        answer!(reply, self.list(node)?, all => {
            for (index, (child, kind, name)) in all.into_iter().enumerate().skip(offset as usize) {
                if reply.add(INodeNo(child), index as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }
}

/// What the host says to a file system that is full for real.
pub struct TinyDisk {
    /// Where it is mounted.
    pub mounted: PathBuf,
}

impl TinyDisk {
    /// Mounts a file system in memory of so many bytes; `None` with a word where that is not possible.
    pub fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let mounted = folder.join("tiny");
        fs::create_dir_all(&mounted).unwrap();
        match tmpfs(&mounted, bytes, nix::mount::MsFlags::empty()) {
            Ok(()) => Some(Self { mounted }),
            Err(error) => {
                eprintln!("skipped: a file system cannot be mounted here: {error}");
                None
            }
        }
    }

    /// Makes it larger.
    pub fn grow(&self, bytes: u64) {
        tmpfs(&self.mounted, bytes, nix::mount::MsFlags::MS_REMOUNT).unwrap();
    }
}

fn tmpfs(at: &Path, bytes: u64, flags: nix::mount::MsFlags) -> io::Result<()> {
    let options = format!("size={bytes},mode=700");
    Ok(nix::mount::mount(
        Some("hotcell-tiny"),
        at,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )?)
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.mounted, nix::mount::MntFlags::MNT_DETACH);
    }
}
