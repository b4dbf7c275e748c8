//! Notes of a core file: who ran there, each task's registers, which files were mapped (core(5); linux/elfcore.h, linux/elf.h).

use hotcell_schema::arch::{AbiFamily, ArchProfile};

use crate::abi::layout::Layout;
use crate::abi::signal::Sig;
use crate::abi::traced::{Fields, Standing, View};
use crate::abi::{Abi, Registers};
use crate::kernel::Kernel;
use crate::machine::{Machine, MachineError, Machines, SpaceId};
use crate::mapping::Backing;
use crate::space::AddressSpace;
use crate::task::{Ended, Task};
use crate::time::Used;

/// Kinds of notes (uapi/linux/elf.h).
const STATUS: u32 = 1;
const PROCESS: u32 = 3;
const FILES: u32 = 0x4649_4c45;
/// Bytes of a name and of arguments in `struct elf_prpsinfo`.
const NAME: usize = 16;
const ARGUMENTS: usize = 80;
/// Mapped files that are named at most.
const MAX_FILES: usize = 4096;

/// The machine in which registers of a task are looked at while its own holds another's: no address space has this number.
const SPARE: SpaceId = SpaceId(u32::MAX);

/// The number of what runs without a kernel.
pub(super) const ONLY_TASK: u32 = 1;

/// What a core file says of a task beside its registers.
#[derive(Debug, Default)]
struct Status {
    /// The signal that ended it.
    signal: u64,
    pending: u64,
    blocked: u64,
    tid: u32,
    parent: u32,
    group: u32,
    session: u32,
    used: Used,
}

/// A task that is in no system call.
const NOWHERE: Standing = Standing {
    call: None,
    entry: false,
    waits: false,
};

/// The only note of a machine without a kernel: its registers. `None` where Linux has no layout for them.
pub(super) fn of_machine(
    profile: &ArchProfile,
    abi: &Abi,
    machine: &dyn Machine,
) -> Result<Option<Vec<u8>>, MachineError> {
    let registers = Registers::resolve(profile, machine)?;
    let fields = Fields::new(View::Status, abi, &profile.name, machine);
    Ok(fields.map(|fields| {
        let registers = fields.read(abi, &registers, machine, NOWHERE);
        let mut notes = Vec::new();
        let status = Status {
            tid: ONLY_TASK,
            ..Status::default()
        };
        note(abi, &mut notes, STATUS, &status.bytes(abi, &registers));
        notes
    }))
}

fn note(abi: &Abi, notes: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    let head = Layout::new(abi).u32(5).u32(bytes.len() as u32).u32(kind);
    notes.extend(head.text("CORE", 8).bytes);
    notes.extend(bytes);
    notes.resize(notes.len().next_multiple_of(4), 0);
}

impl Status {
    /// `struct elf_prstatus`.
    fn bytes(&self, abi: &Abi, registers: &[u8]) -> Vec<u8> {
        let word = abi.word() as usize;
        // Signal, code and error; the current signal; what is pending and what is blocked.
        let layout = Layout::new(abi).low(self.signal).u32(0).u32(0);
        let layout = layout.u16(self.signal as u16).align(word);
        let layout = layout.word(self.pending).word(self.blocked);
        let layout = layout.u32(self.tid).u32(self.parent);
        let mut layout = layout.u32(self.group).u32(self.session);
        for time in [self.used.user, self.used.system, 0, 0] {
            layout = layout
                .word(time / 1_000_000_000)
                .word(time % 1_000_000_000 / 1000);
        }
        let mut bytes = layout.bytes;
        bytes.extend(registers);
        // No registers of the FPU.
        bytes.extend([0; 4]);
        bytes.resize(bytes.len().next_multiple_of(word), 0);
        bytes
    }
}

impl Kernel {
    /// All notes of a process in an address space; `first` is the task that people look at first. Of one whose tasks have
    /// gone, the registers are those that its machine holds. Nothing of the run is another afterwards.
    pub(super) fn notes(
        &self,
        id: SpaceId,
        pid: u32,
        first: u32,
        machines: &mut dyn Machines,
    ) -> Result<Vec<u8>, MachineError> {
        let all = self.all_held(id, pid, first, machines);
        machines.destroy(SPARE);
        let all = all?;
        let mut notes = Vec::new();
        for (index, (tid, registers)) in all.iter().enumerate() {
            let status = self.status(pid, *tid).bytes(&self.abi, registers);
            note(&self.abi, &mut notes, STATUS, &status);
            // Linux has it behind the first task's.
            if index == 0 {
                note(&self.abi, &mut notes, PROCESS, &self.process_note(pid));
                if let Some(space) = self.spaces.get(&id) {
                    note(&self.abi, &mut notes, FILES, &self.files(space));
                }
            }
        }
        Ok(notes)
    }

    /// The registers of all tasks of a process in an address space.
    fn all_held(
        &self,
        id: SpaceId,
        pid: u32,
        first: u32,
        machines: &mut dyn Machines,
    ) -> Result<Vec<(u32, Vec<u8>)>, MachineError> {
        let own = |task: &&Task| task.space == id && task.pid == pid;
        let mut tasks: Vec<&Task> = self.tasks.values().filter(own).collect();
        tasks.sort_by_key(|task| task.tid != first);
        let mut all = Vec::new();
        for task in tasks {
            if let Some(registers) = self.held(id, Some(task), machines)? {
                all.push((task.tid, registers));
            }
        }
        if all.is_empty()
            && let Some(registers) = self.held(id, None, machines)?
        {
            all.push((pid, registers));
        }
        Ok(all)
    }

    /// The registers of a task, or those that the machine of an address space holds.
    fn held(
        &self,
        id: SpaceId,
        task: Option<&Task>,
        machines: &mut dyn Machines,
    ) -> Result<Option<Vec<u8>>, MachineError> {
        let loaded = self.spaces.get(&id).and_then(|space| space.loaded);
        let aside = task.filter(|task| loaded != Some(task.tid));
        let place = match aside.and_then(|task| task.context.as_ref()) {
            Some(context) => {
                if machines.get(SPARE).is_none() {
                    machines.create(SPARE, None)?;
                }
                if let Some(spare) = machines.get(SPARE) {
                    spare.restore(context)?;
                }
                SPARE
            }
            None => id,
        };
        let (Some(machine), Some(registers)) = (machines.get(place), &self.registers) else {
            return Ok(None);
        };
        let standing = task.map_or(NOWHERE, |task| self.standing(task.tid));
        let fields = Fields::new(View::Status, &self.abi, &self.profile.name, machine);
        Ok(fields.map(|fields| fields.read(&self.abi, registers, machine, standing)))
    }

    fn status(&self, pid: u32, tid: u32) -> Status {
        let process = self.processes.get(&pid);
        let task = self.tasks.get(&tid);
        let [parent, group, session] =
            process.map_or([0; 3], |process| [process.parent, process.group, process.session]);
        let sets = task.map_or([0; 2], |task| [task.arrived.set(), task.mask]);
        let [pending, blocked] = sets.map(|set| Sig::set_of_guest(set, self.abi.family));
        Status {
            signal: match process.and_then(|process| process.ended) {
                Some(Ended::Killed(signal)) => signal.number(self.abi.family),
                _ => 0,
            },
            pending,
            blocked,
            tid,
            parent,
            group,
            session,
            used: task.map_or_else(Default::default, |task| task.used),
        }
    }

    /// `struct elf_prpsinfo`.
    fn process_note(&self, pid: u32) -> Vec<u8> {
        let word = self.abi.word() as usize;
        let process = self.processes.get(&pid);
        let nice = process.map_or(0, |process| process.nice).cast_unsigned();
        // It runs: state 0, which is R.
        let layout = Layout::new(&self.abi)
            .u8(0)
            .u8(b'R')
            .u8(0)
            .u8(nice)
            .align(word)
            .word(0);
        let (uid, gid) = process.map_or((0, 0), |process| (process.uid[0], process.gid[0]));
        // __kernel_uid_t has 16 bits on these.
        let layout = match self.abi.family {
            AbiFamily::I386 | AbiFamily::ArmEabi => layout.u16(uid as u16).u16(gid as u16),
            _ => layout.u32(uid).u32(gid),
        };
        let [parent, group, session] =
            process.map_or([0; 3], |process| [process.parent, process.group, process.session]);
        let mut bytes = layout.u32(pid).u32(parent).u32(group).u32(session).bytes;
        let mut put = |text: &[u8], size: usize| {
            let end = bytes.len() + size;
            bytes.extend(text.iter().take(size - 1));
            bytes.resize(end, 0);
        };
        let (name, arguments) = process.map_or_else(Default::default, |process| {
            (process.comm.clone(), process.argv.join(&b' '))
        });
        put(&name, NAME);
        put(&arguments, ARGUMENTS);
        bytes
    }

    /// Mapped files: how many, the size of a page; first address, the one past the end and the offset in pages of each; their
    /// paths (fs/binfmt_elf.c, fill_files_note).
    fn files(&self, space: &AddressSpace) -> Vec<u8> {
        let files: Vec<_> = space
            .mappings()
            .filter_map(|(start, mapping)| match &mapping.backing {
                Backing::File { path, offset, inode } if *inode != 0 => {
                    Some((start, mapping.end, offset / self.abi.page, path))
                }
                _ => None,
            })
            .take(MAX_FILES)
            .collect();
        let mut layout = Layout::new(&self.abi)
            .word(files.len() as u64)
            .word(self.abi.page);
        for (start, end, offset, _) in &files {
            layout = layout.word(*start).word(*end).word(*offset);
        }
        let mut bytes = layout.bytes;
        for (.., path) in files {
            bytes.extend(path.bytes().chain([0]));
        }
        bytes
    }
}
