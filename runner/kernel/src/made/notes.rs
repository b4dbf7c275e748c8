//! Notes of a core file: who ran there, each task's registers, which files were mapped (core(5); linux/elfcore.h, linux/elf.h).

use hotcell_schema::arch::AbiFamily;

use crate::abi::layout::Layout;
use crate::abi::signal::Sig;
use crate::abi::traced::{Fields, Standing, View};
use crate::kernel::Kernel;
use crate::machine::{MachineError, Machines, SpaceId};
use crate::space::{AddressSpace, Backing};
use crate::task::Ended;

/// Kinds of notes (uapi/linux/elf.h).
const STATUS: u32 = 1;
const PROCESS: u32 = 3;
const FILES: u32 = 0x4649_4c45;
/// Bytes of a name and of arguments in `struct elf_prpsinfo`.
const NAME: usize = 16;
const ARGUMENTS: usize = 80;
/// Mapped files that are named at most.
const MAX_FILES: usize = 4096;

impl Kernel {
    /// All notes of an address space. Of one whose tasks have gone, the registers are those that its machine holds.
    pub(super) fn notes(
        &mut self,
        id: SpaceId,
        machines: &mut dyn Machines,
    ) -> Result<Vec<u8>, MachineError> {
        let Some(pid) = self.spaces.get(&id).map(|space| space.pid) else {
            return Ok(Vec::new());
        };
        let tasks = self.tasks.values().filter(|task| task.space == id);
        let mut tids: Vec<u32> = tasks.map(|task| task.tid).collect();
        // The first is the one that people look at first.
        tids.sort_by_key(|tid| *tid != self.current);
        let mut all = Vec::new();
        for tid in tids {
            if let Some(registers) = self.registers_of(machines, tid, View::Status)? {
                all.push((tid, registers));
            }
        }
        if all.is_empty()
            && let (Some(machine), Some(registers)) = (machines.get(id), &self.registers)
            && let Some(fields) = Fields::new(View::Status, &self.abi, &self.profile.name, machine)
        {
            let nowhere = Standing {
                call: None,
                entry: false,
                waits: false,
            };
            all.push((pid, fields.read(&self.abi, registers, machine, nowhere)));
        }
        let mut notes = Vec::new();
        for (index, (tid, registers)) in all.iter().enumerate() {
            self.note(&mut notes, STATUS, &self.status(pid, *tid, registers));
            // Linux has it behind the first task's.
            if index == 0 {
                self.note(&mut notes, PROCESS, &self.process_note(pid));
                if let Some(space) = self.spaces.get(&id) {
                    self.note(&mut notes, FILES, &self.files(space));
                }
            }
        }
        Ok(notes)
    }

    fn note(&self, notes: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
        let head = Layout::new(&self.abi).u32(5).u32(bytes.len() as u32).u32(kind);
        notes.extend(head.text("CORE", 8).bytes);
        notes.extend(bytes);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }

    /// `struct elf_prstatus`.
    fn status(&self, pid: u32, tid: u32, registers: &[u8]) -> Vec<u8> {
        let process = self.processes.get(&pid);
        let signal = match process.and_then(|process| process.ended) {
            Some(Ended::Killed(signal)) => signal.number(self.abi.family),
            _ => 0,
        };
        let task = self.tasks.get(&tid);
        let [parent, group, session] =
            process.map_or([0; 3], |process| [process.parent, process.group, process.session]);
        let word = self.abi.word() as usize;
        // Signal, code and error; the current signal; what is pending and what is blocked.
        let layout = Layout::new(&self.abi).low(signal).u32(0).u32(0);
        let layout = layout.u16(signal as u16).align(word);
        let sets = task.map_or([0; 2], |task| [task.arrived.set(), task.mask]);
        let [pending, blocked] = sets.map(|set| Sig::set_of_guest(set, self.abi.family));
        let layout = layout.word(pending).word(blocked);
        let mut layout = layout.u32(tid).u32(parent).u32(group).u32(session);
        let used = task.map_or_else(Default::default, |task| task.used);
        for time in [used.user, used.system, 0, 0] {
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
