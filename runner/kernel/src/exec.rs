//! Starting programs: from a path to an image, from an image to a loaded address space.

use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::fs::tree::{Data, Ino, Kind};
use crate::fs::walk::{absolute, walk};
use crate::kernel::{Kernel, LoadError};
use crate::library::Library;
use crate::load::elf::{self, ElfError, Program, Segment};
use crate::load::stack::{self, at};
use crate::load::vdso;
use crate::machine::{Machine, MachineError, Machines, Protection, SpaceId};
use crate::mapping::{Backing, MapError, Wanted};
use crate::space::AddressSpace;
use crate::task::{Process, State, Task};
use serde::{Deserialize, Serialize};

/// A file of which segments are mapped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Executable {
    /// Absolute path.
    pub(crate) path: Vec<u8>,
    pub(crate) ino: Ino,
    pub(crate) bytes: Bytes,
    pub(crate) program: Program,
}

/// A program ready to be loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    /// The program.
    pub(crate) file: Executable,
    /// The loader that links it with its libraries; `None`: it needs none.
    pub(crate) loader: Option<Executable>,
    /// The name that was executed, for AT_EXECFN and `comm`.
    pub(crate) executed: Vec<u8>,
    /// Absolute path of what was executed: of a script its own, not its interpreter's.
    pub(crate) asked: Vec<u8>,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
}

/// Bytes of the stack.
pub(crate) const STACK: u64 = 8 << 20;
/// A line without blanks around it. A carriage return is none, and part of a name (fs/binfmt_script.c).
fn trim(line: &[u8]) -> &[u8] {
    let is_ink = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = line.iter().position(is_ink).unwrap_or(line.len());
    let end = line.iter().rposition(is_ink).map_or(start, |last| last + 1);
    line.get(start..end).unwrap_or_default()
}

/// Deepest chain of `#!` (fs/exec.c).
const MAX_INTERPRETERS: u32 = 4;

/// A file to be executed.
pub(crate) struct Execute {
    pub(crate) ino: Ino,
    /// Where it stands.
    pub(crate) path: Vec<u8>,
    /// The name that was executed.
    pub(crate) executed: Vec<u8>,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
}

/// Why a file cannot be executed.
pub(crate) enum ImageError {
    Errno(Errno),
    Elf(ElfError),
    /// What its `#!` line names.
    Interpreter(Vec<u8>, Errno),
}

impl From<Errno> for ImageError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<ImageError> for Errno {
    /// What execve says (fs/exec.c, fs/binfmt_elf.c).
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Errno(errno) | ImageError::Interpreter(_, errno) => errno,
            ImageError::Elf(ElfError::Interpreter { .. }) => Self::ENOENT,
            ImageError::Elf(_) => Self::ENOEXEC,
        }
    }
}

impl Kernel {
    /// The job's program.
    pub(crate) fn first_image(
        &self,
        path: &[u8],
        argv: Vec<Vec<u8>>,
        env: Vec<Vec<u8>>,
    ) -> Result<Image, LoadError> {
        let shown = hotcell_schema::guest::text;
        let file = |errno: Errno| LoadError::File(format!("{}: {}", shown(path), errno.name()));
        let root = self.tree.root;
        let place = walk(&self.tree, &self.magic(0), root, path, true);
        let ino = place.and_then(|place| place.inode()).map_err(file)?;
        let path = absolute(b"/", path);
        let asked = Execute {
            ino,
            executed: path.clone(),
            path,
            argv,
            env,
        };
        self.image(0, root, asked).map_err(|error| match error {
            ImageError::Errno(errno) => file(errno),
            ImageError::Elf(error) => LoadError::Elf(error),
            ImageError::Interpreter(name, errno) => LoadError::Interpreter(shown(&name), errno.name()),
        })
    }

    /// The loader that a program names.
    fn loader(&self, pid: u32, cwd: Ino, program: &Program) -> Result<Option<Executable>, ElfError> {
        let Some(name) = &program.interpreter else {
            return Ok(None);
        };
        let fault = |fault: String| ElfError::Interpreter {
            path: hotcell_schema::guest::text(name),
            fault,
        };
        let found = self.program(pid, cwd, name).ok();
        let found = found.and_then(|(ino, path)| Some((ino, path, self.file_bytes(ino)?)));
        let Some((ino, path, bytes)) = found else {
            return Err(fault(
                "is not among its files: give the stage a `sysroot` that has it".to_owned(),
            ));
        };
        let program = elf::parse(&bytes, &self.profile, &self.abi)
            .map_err(|error| fault(format!("cannot be run: {error}")))?;
        Ok(Some(Executable {
            path,
            ino,
            bytes,
            program,
        }))
    }

    /// What a program names as its loader or interpreter, and where that really stands: links followed.
    fn program(&self, pid: u32, cwd: Ino, name: &[u8]) -> Result<(Ino, Vec<u8>), Errno> {
        let place = walk(&self.tree, &self.magic(pid), cwd, name, true)?;
        let path = match place.name.is_empty() {
            true => self.named(pid, &self.tree.path_of(cwd), name),
            false => absolute(&self.tree.path_of(place.directory), &place.name),
        };
        Ok((place.inode()?, path))
    }

    fn file_bytes(&self, ino: Ino) -> Option<Bytes> {
        match &self.tree.get(ino)?.kind {
            Kind::File(Data::Shared(bytes)) => Some(bytes.clone()),
            Kind::File(Data::Own(bytes)) => Some(bytes.as_slice().into()),
            _ => None,
        }
    }

    /// The image that executing a file asks for, through `#!` lines.
    pub(crate) fn image(&self, pid: u32, cwd: Ino, asked: Execute) -> Result<Image, ImageError> {
        let Execute {
            mut ino,
            mut path,
            executed,
            mut argv,
            env,
        } = asked;
        // What an interpreter is told to read: in a chain of scripts the one before it.
        let mut name = executed.clone();
        let asked = path.clone();
        for _ in 0..=MAX_INTERPRETERS {
            let inode = self.tree.get(ino).ok_or(Errno::ENOENT)?;
            if inode.mode & 0o111 == 0 || !matches!(inode.kind, Kind::File(_)) {
                return Err(Errno::EACCES.into());
            }
            let bytes = self.file_bytes(ino).ok_or(Errno::EACCES)?;
            let Some(line) = bytes.strip_prefix(b"#!") else {
                let program = elf::parse(&bytes, &self.profile, &self.abi).map_err(ImageError::Elf)?;
                let loader = self.loader(pid, cwd, &program).map_err(ImageError::Elf)?;
                return Ok(Image {
                    file: Executable {
                        path,
                        ino,
                        bytes,
                        program,
                    },
                    loader,
                    executed,
                    asked,
                    argv,
                    env,
                });
            };
            let line = line.get(..line.len().min(254)).unwrap_or_default();
            let line = trim(line.split(|byte| *byte == b'\n').next().unwrap_or_default());
            let (interpreter, argument) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
                Some(at) => {
                    let (name, rest) = line.split_at(at);
                    (name, Some(trim(rest)))
                }
                None => (line, None),
            };
            if interpreter.is_empty() {
                return Err(Errno::ENOEXEC.into());
            }
            let mut new = vec![interpreter.to_vec()];
            new.extend(argument.map(<[u8]>::to_vec));
            new.push(std::mem::take(&mut name));
            new.extend(argv.into_iter().skip(1));
            argv = new;
            (ino, path) = self
                .program(pid, cwd, interpreter)
                .map_err(|errno| ImageError::Interpreter(interpreter.to_vec(), errno))?;
            name = interpreter.to_vec();
        }
        Err(Errno::ELOOP.into())
    }

    /// Makes the first process with its standard descriptors.
    pub(crate) fn make_first(&mut self, cwd: &str, image: &Image) {
        let pid = self.next_pid;
        self.next_pid += 1;
        self.tasks_ever = 1;
        let cwd = crate::fs::root::directories(&mut self.tree, cwd, 0o755).unwrap_or(self.tree.root);
        self.tree.hold(cwd);
        let (uid, gid) = (self.persona.uid, self.persona.gid);
        let mut process = Process::new(pid, 1, cwd, [uid; 3], [gid; 3]);
        self.standard_files(&mut process.files);
        process.describe(image);
        self.tree.hold(image.file.ino);
        self.processes.insert(pid, process);
        self.tasks.insert(pid, Task::new(pid, pid, SpaceId(0)));
        self.current = pid;
        let _ = crate::fs::root::add_process(&mut self.tree, pid, (uid, gid));
    }

    /// Loads an image into a new space and gives it to the process, whose other tasks are gone.
    pub(crate) fn load(
        &mut self,
        machines: &mut dyn Machines,
        id: SpaceId,
        pid: u32,
        image: Image,
    ) -> Result<(), MachineError> {
        machines.create(id, None)?;
        let Some(machine) = machines.get(id) else {
            return Err(MachineError("a new machine is missing".into()));
        };
        if self.registers.is_none() {
            self.registers = Some(crate::abi::Registers::resolve(&self.profile, machine)?);
        }
        let mut space = AddressSpace::new(self.abi.page, self.abi.page_down(self.abi.task_size), pid);
        if let Some(process) = self.processes.get(&pid) {
            space.most = process.most_addresses();
        }
        let outcome = self.load_into(&mut space, machine, pid, &image);
        space.loaded = Some(pid);
        space.elf_flags = image.file.program.flags;
        self.spaces.insert(id, space);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.space = id;
            let before = process.image_ino;
            process.describe(&image);
            // It can be opened by `/proc/PID/exe` also when it has no name any more.
            self.tree.hold(image.file.ino);
            if let Some(before) = before {
                self.tree.release(before);
            }
        }
        self.renew_texts(pid);
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.space = id;
            task.context = None;
            task.state = State::Runnable;
            task.pending = None;
        }
        match outcome {
            Ok(base) => {
                if self.watch.library_calls
                    && let Some(library) = Library::of(&image.file.bytes, &image.file.program, base)
                {
                    self.libraries.insert(id, library);
                }
                Ok(())
            }
            Err(MapError::Machine(error)) => Err(error),
            Err(MapError::Limit) => {
                self.limit("memory", self.limits.memory);
                Ok(())
            }
            // Past the point of no return Linux kills.
            Err(MapError::Errno(_)) => {
                self.kill_process(pid, crate::abi::signal::Sig::KILL);
                self.tell_later();
                Ok(())
            }
        }
    }

    /// Gives what the program's addresses count from.
    fn load_into(
        &mut self,
        space: &mut AddressSpace,
        machine: &mut dyn Machine,
        pid: u32,
        image: &Image,
    ) -> Result<u64, MapError> {
        let abi = self.abi.clone();
        let program = &image.file.program;
        let room = self.memory_room();
        let base = if program.relocatable {
            // Where Linux puts programs without ASLR: two thirds up (ELF_ET_DYN_BASE).
            (abi.task_size / 3 * 2) & !0x1f_ffff & !(abi.page - 1)
        } else {
            0
        };
        let mut end = 0;
        for segment in &program.segments {
            end = end.max(map_segment(
                space,
                machine,
                room,
                &abi,
                base,
                segment,
                &image.file,
            )?);
        }
        space.heap = (end, end);

        let top = abi.page_down(abi.task_size) - abi.page;
        let stack = abi.page_up(STACK).unwrap_or(STACK);
        let mut protection = Protection::READ_WRITE;
        if program.executable_stack {
            protection = Protection(7);
        }
        let room_left = room.saturating_sub(space.used());
        let wanted = Wanted::private(top - stack, stack, protection, Backing::Stack);
        space.map(machine, room_left, wanted)?;
        space.search_from = top - stack - (1 << 20);
        let mut begin = (base, program);
        if let Some(loader) = &image.loader {
            let at = loader.place(space, &abi)?;
            for segment in &loader.program.segments {
                map_segment(space, machine, room, &abi, at, segment, loader)?;
            }
            begin = (at, &loader.program);
        }
        let calls = self.map_calls(space, machine)?;

        let mut random = [0; 16];
        self.chance.programs.fill(&mut random);
        let entry = program.entry.wrapping_add(base);
        let (uid, gid) = self
            .processes
            .get(&pid)
            .map_or(([0; 3], [0; 3]), |process| (process.uid, process.gid));
        let mut auxv = calls;
        auxv.extend([
            (at::HWCAP, self.profile.abi.hwcap),
            (at::PAGESZ, abi.page),
            (at::CLKTCK, 100),
            (at::PHDR, program.headers.wrapping_add(base)),
            (at::PHENT, u64::from(program.header_size)),
            (at::PHNUM, u64::from(program.header_count)),
            (at::BASE, if image.loader.is_some() { begin.0 } else { 0 }),
            (at::FLAGS, 0),
            (at::ENTRY, entry),
            (at::UID, u64::from(uid[0])),
            (at::EUID, u64::from(uid[1])),
            (at::GID, u64::from(gid[0])),
            (at::EGID, u64::from(gid[1])),
            (at::SECURE, 0),
        ]);
        if self.profile.abi.hwcap2 != 0 {
            auxv.push((at::HWCAP2, self.profile.abi.hwcap2));
        }
        let first = stack::First {
            argv: &image.argv,
            env: &image.env,
            path: &image.executed,
            platform: self.profile.abi.platform.as_deref(),
            random,
            auxv,
        };
        let stack::Built {
            pointer,
            bytes,
            placed,
        } = stack::build(&abi, top, &first).ok_or(Errno::E2BIG)?;
        if bytes.len() as u64 > stack / 4 {
            return Err(Errno::E2BIG.into());
        }
        machine.write(pointer, &bytes).map_err(|_| Errno::EFAULT)?;
        if let Some(process) = self.processes.get_mut(&pid) {
            process.placed = placed;
        }

        machine.reset_registers()?;
        if let Some(registers) = &self.registers {
            let (base, program) = begin;
            registers.start(machine, &abi, program, base, pointer);
        }
        Ok(base)
    }

    /// Maps the kernel's shared object below all that is there, as Linux does without ASLR. What the program is told of it.
    fn map_calls(
        &self,
        space: &mut AddressSpace,
        machine: &mut dyn Machine,
    ) -> Result<Vec<(u64, u64)>, MapError> {
        let Some(object) = vdso::object(&self.profile, &self.abi, &self.persona.kernel_release) else {
            return Ok(Vec::new());
        };
        let length = self.abi.page_up(object.bytes.len() as u64).ok_or(Errno::ENOMEM)?;
        let start = space.free_range(0, length, u64::MAX).ok_or(Errno::ENOMEM)?;
        let room = self.memory_room().saturating_sub(space.used());
        let backing = Backing::File {
            path: "[vdso]".into(),
            offset: 0,
            inode: 0,
        };
        space.map(
            machine,
            room,
            Wanted::private(start, length, Protection(5), backing),
        )?;
        machine.write(start, &object.bytes).map_err(|_| Errno::ENOMEM)?;
        space.signal_return = start.wrapping_add(object.signal_return);
        let system_call = object.system_call.map(|at| (at::SYSINFO, start.wrapping_add(at)));
        Ok(system_call
            .into_iter()
            .chain([(at::SYSINFO_EHDR, start)])
            .collect())
    }
}

impl Executable {
    /// Where a loader's addresses count from: below the stack, as one piece.
    fn place(&self, space: &AddressSpace, abi: &crate::abi::Abi) -> Result<u64, Errno> {
        if !self.program.relocatable {
            return Ok(0);
        }
        let segments = &self.program.segments;
        let first = segments
            .iter()
            .map(|segment| abi.page_down(segment.address))
            .min();
        let last = segments
            .iter()
            .map(|segment| segment.address.saturating_add(segment.memory))
            .max();
        let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
        let length = abi.page_up(last.saturating_sub(first)).ok_or(Errno::ENOMEM)?;
        let start = space.free_range(0, length, u64::MAX).ok_or(Errno::ENOMEM)?;
        Ok(start.wrapping_sub(first))
    }
}

/// Maps one segment; gives the page after its end.
fn map_segment(
    space: &mut AddressSpace,
    machine: &mut dyn Machine,
    room: u64,
    abi: &crate::abi::Abi,
    base: u64,
    segment: &Segment,
    image: &Executable,
) -> Result<u64, MapError> {
    let address = base.checked_add(segment.address).ok_or(Errno::ENOMEM)?;
    let end = address
        .checked_add(segment.memory)
        .and_then(|end| abi.page_up(end))
        .ok_or(Errno::ENOMEM)?;
    // The space is not among the kernel's yet: what it has already is taken off here.
    let left = |space: &AddressSpace| room.saturating_sub(space.used());
    let mut start = abi.page_down(address);
    let protection = segment.protection;
    // Two segments may share pages: they get the access of both.
    while start < end
        && let Some((_, mapping)) = space.find(start)
    {
        let until = mapping.end.min(end);
        let both = Protection(protection.0 | mapping.protection.0);
        space.protect(machine, left(space), start, until - start, both)?;
        start = until;
    }
    if start < end {
        let file_end = address
            .checked_add(segment.file)
            .and_then(|end| abi.page_up(end))
            .unwrap_or(end)
            .clamp(start, end);
        let backing = Backing::File {
            path: String::from_utf8_lossy(&image.path).into(),
            offset: abi.page_down(segment.offset),
            inode: image.ino.0,
        };
        if file_end > start {
            let wanted = Wanted::private(start, file_end - start, protection, backing);
            space.map(machine, left(space), wanted)?;
        }
        if end > file_end {
            let wanted = Wanted::private(file_end, end - file_end, protection, Backing::Anonymous);
            space.map(machine, left(space), wanted)?;
        }
    }
    let from = usize::try_from(segment.offset).unwrap_or(usize::MAX);
    let to = from.saturating_add(usize::try_from(segment.file).unwrap_or(usize::MAX));
    let bytes = image.bytes.get(from..to).ok_or(Errno::ENOEXEC)?;
    machine.write(address, bytes).map_err(|_| Errno::ENOMEM)?;
    Ok(end)
}
