//! What a handler needs of the guest: words, memory, texts, paths, open files.

use crate::abi::errno::Errno;
use crate::abi::{Abi, quirks};
use crate::call::{Answer, Call, Fail, is_at_cwd};
use crate::fs::open::{Descriptor, FileId, OpenFile};
use crate::fs::tree::{Ino, StoreError};
use crate::fs::walk::{self, Place};
use crate::machine::Machine;
use crate::mapping::MapError;
use crate::space::AddressSpace;
use crate::table::Level;
use crate::task::{Process, Task};
use crate::view::{Memory, View};
use hotcell_schema::event::What;

impl Call<'_> {
    /// The call's N-th word.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.pending.words.get(index).copied().unwrap_or(0)
    }

    /// The N-th word as an `int`.
    pub(crate) fn int(&self, index: usize) -> i32 {
        (self.word(index) as u32).cast_signed()
    }

    /// The N-th word as a `long`.
    pub(crate) fn long(&self, index: usize) -> i64 {
        self.abi().signed(self.word(index))
    }

    pub(crate) fn abi(&self) -> &Abi {
        self.k.abi_of(self.pending)
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        let pid = self.pid;
        let root = self.k.tree.root;
        self.k
            .processes
            .entry(pid)
            .or_insert_with(|| Process::new(pid, 0, root, [0; 3], [0; 3]))
    }

    pub(crate) fn task(&mut self) -> &mut Task {
        let (tid, pid) = (self.tid, self.pid);
        self.k
            .tasks
            .entry(tid)
            .or_insert_with(|| Task::new(tid, pid, crate::machine::SpaceId(0)))
    }

    // Memory.

    /// Whether the guest itself could make this access: its mappings say so, not the machine, which also holds pages
    /// that are the processor's own.
    fn allowed(&self, address: u64, length: u64, write: bool) -> Result<(), Errno> {
        /// The page with the helpers of the kernel (Documentation/arch/arm/kernel_user_helpers.rst).
        const ARM_HELPERS: std::ops::Range<u64> = 0xffff_0000..0xffff_1000;
        let space = self.k.task_space(self.tid).ok_or(Errno::EFAULT)?;
        let helpers = || {
            self.abi().family == hotcell_schema::arch::AbiFamily::ArmEabi
                && !write
                && ARM_HELPERS.contains(&address)
                && length <= ARM_HELPERS.end - address
        };
        if space.allows(address, length, write) || helpers() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.allowed(address, bytes.len() as u64, true)?;
        self.machine.write(address, bytes).map_err(|_| Errno::EFAULT)
    }

    /// The guest's memory as this call may read it.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            abi: self.abi(),
            memory: self,
        }
    }

    /// Bytes of a bounded length.
    pub(crate) fn bytes(&self, address: u64, length: u64) -> Result<Vec<u8>, Errno> {
        self.view().bytes(address, length)
    }

    /// A text that ends with a zero byte.
    pub(crate) fn text(&self, address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
        self.view().text(address, limit)
    }

    /// A list of texts ended by a null pointer.
    pub(crate) fn texts(&self, address: u64) -> Result<Vec<Vec<u8>>, Errno> {
        self.view().texts(address)
    }

    pub(crate) fn get_u32(&self, address: u64) -> Result<u32, Errno> {
        self.view().get_u32(address)
    }

    pub(crate) fn get_u64(&self, address: u64) -> Result<u64, Errno> {
        self.view().get_u64(address)
    }

    /// A `long`, unsigned.
    pub(crate) fn get_word(&self, address: u64) -> Result<u64, Errno> {
        self.view().get_word(address)
    }

    /// A path.
    pub(crate) fn path(&self, index: usize) -> Result<Vec<u8>, Errno> {
        self.text(self.word(index), walk::PATH_MAX)
    }

    pub(crate) fn put_u32(&mut self, address: u64, value: u32) -> Result<(), Errno> {
        let bytes = if self.abi().big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.write(address, &bytes)
    }

    pub(crate) fn put_u64(&mut self, address: u64, value: u64) -> Result<(), Errno> {
        let bytes = if self.abi().big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.write(address, &bytes)
    }

    pub(crate) fn put_word(&mut self, address: u64, value: u64) -> Result<(), Errno> {
        if self.abi().wide {
            self.put_u64(address, value)
        } else {
            self.put_u32(address, value as u32)
        }
    }

    // Files.

    /// Walks a path from the directory descriptor at `at` (`None`: the working directory).
    pub(crate) fn walk(&mut self, at: Option<usize>, path: &[u8], follow: bool) -> Result<Place, Errno> {
        let from = self.base(at, path)?;
        walk::walk(&self.k.tree, &self.k.magic(self.pid), from, path, follow)
    }

    /// The directory that a path counts from.
    fn base(&mut self, at: Option<usize>, path: &[u8]) -> Result<Ino, Errno> {
        let cwd = self.process().cwd;
        match at {
            Some(index) if path.first() != Some(&b'/') && !is_at_cwd(self.word(index)) => {
                self.file(index)?.inode().ok_or(Errno::ENOTDIR)
            }
            _ => Ok(cwd),
        }
    }

    /// The absolute path that a path means, links not followed.
    pub(crate) fn absolute(&mut self, at: Option<usize>, path: &[u8]) -> Vec<u8> {
        let base = match self.base(at, path) {
            Ok(ino) => self.k.tree.path_of(ino),
            Err(_) => Vec::new(),
        };
        self.k.named(self.pid, &base, path)
    }

    pub(crate) fn descriptor(&mut self, index: usize) -> Result<Descriptor, Errno> {
        let fd = self.word(index);
        self.process().files.get(fd)
    }

    pub(crate) fn file_id(&mut self, index: usize) -> Result<FileId, Errno> {
        Ok(self.descriptor(index)?.file)
    }

    /// The open file of the descriptor in the N-th word.
    pub(crate) fn file(&mut self, index: usize) -> Result<&mut OpenFile, Errno> {
        let id = self.file_id(index)?;
        self.k.open.get_mut(id).ok_or(Errno::EBADF)
    }

    /// A typed event that follows the call.
    pub(crate) fn tell(&mut self, what: What) {
        let task = self.k.event_task(self.pid, self.tid);
        self.k.later.push((task, what));
    }

    /// Gives up: what is stored would be more than the job allows.
    pub(crate) fn stored<T>(&mut self, result: Result<T, StoreError>) -> Result<T, Fail> {
        result.map_err(|error| match error {
            StoreError::Errno(errno) => Fail::Errno(errno),
            StoreError::Limit => {
                let limit = self.k.limits.file_bytes;
                self.k.limit("file-bytes", limit);
                Fail::End
            }
        })
    }

    /// The same for memory.
    pub(crate) fn mapped<T>(&mut self, result: Result<T, MapError>) -> Result<T, Fail> {
        result.map_err(|error| match error {
            MapError::Errno(errno) => Fail::Errno(errno),
            MapError::Limit => {
                let limit = self.k.limits.memory;
                self.k.limit("memory", limit);
                Fail::End
            }
            MapError::Machine(error) => {
                self.k.failure = Some(error);
                Fail::End
            }
        })
    }

    /// Works on the address space and its machine at once.
    pub(crate) fn with_space<T>(
        &mut self,
        work: impl FnOnce(&mut AddressSpace, &mut dyn Machine, u64) -> Result<T, MapError>,
    ) -> Result<T, Fail> {
        let room = self.k.memory_room();
        let id = self.task().space;
        let result = match self.k.spaces.get_mut(&id) {
            Some(space) => work(space, &mut *self.machine, room),
            None => Err(MapError::Errno(Errno::ESRCH)),
        };
        self.mapped(result)
    }

    /// Sets the thread pointer by the architecture's means.
    pub(crate) fn set_thread_pointer(&mut self, value: u64) {
        self.machine.set_thread_pointer(value);
    }

    /// Redirects to the handler of another name: for calls that carry another call's number.
    pub(crate) fn become_call(&mut self, name: &str, words: [u64; 8]) -> Answer {
        let row = crate::table::table().by_name(name).ok_or(Errno::ENOSYS)?;
        self.pending.row = row;
        self.pending.words = words;
        self.pending.args = self.known_args();
        match (&row.level, row.handler) {
            (Level::Refused(errno, _), _) => Err(Fail::Errno(*errno)),
            (_, Some(handler)) => handler(self),
            _ => Err(Fail::Errno(Errno::ENOSYS)),
        }
    }

    /// The call of i386 `socketcall`.
    pub(crate) fn socket_call(&mut self) -> Answer {
        let index = (self.word(0) as usize).checked_sub(1).ok_or(Errno::EINVAL)?;
        let name = quirks::SOCKETCALLS.get(index).ok_or(Errno::EINVAL)?;
        let block = self.word(1);
        let mut words = [0; 8];
        let count = crate::table::table()
            .by_name(name)
            .map_or(0, |row| row.params.len());
        for (place, word) in words.iter_mut().take(count).enumerate() {
            *word = self.get_word(block.wrapping_add(place as u64 * self.abi().word()))?;
        }
        self.become_call(name, words)
    }
}

impl Memory for Call<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if into.is_empty() {
            return Ok(());
        }
        self.allowed(address, into.len() as u64, false)?;
        self.machine.read(address, into).map_err(|_| Errno::EFAULT)
    }
}
