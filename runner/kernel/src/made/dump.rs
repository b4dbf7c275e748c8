//! Dumps of memory, where a manifest asks for them: ELF core files with a segment for each mapping, and each task's registers.

use goblin::elf::header::ET_CORE;
use hotcell_schema::job::Watch;

use crate::kernel::Kernel;
use crate::machine::{Machine, MachineError, Machines, Protection, SpaceId};
use crate::made::elf::{Head, Part, write};
use crate::made::layer::read;
use crate::space::AddressSpace;

/// Greatest number of dumps of a run, and of bytes in all of them.
const MAX_DUMPS: usize = 256;
const MAX_BYTES: u64 = 256 << 20;
/// Greatest number of segments of one.
const MAX_PARTS: usize = 4096;

impl Kernel {
    /// Whether a call's process is to be dumped before it is carried out: it is asked for, and the first such call of the process.
    pub(crate) fn dumps_before(&mut self, call: &str, pid: u32) -> bool {
        let asked = self.watch.dump.iter().any(|name| name == call);
        asked && self.made.dumped.insert((pid, call.to_owned()))
    }

    /// Dumps the process of a task that is about to make a call.
    pub(crate) fn dump_before(
        &mut self,
        tid: u32,
        call: &str,
        machines: &mut dyn Machines,
    ) -> Result<(), MachineError> {
        let Some((id, pid)) = self.tasks.get(&tid).map(|task| (task.space, task.pid)) else {
            return Ok(());
        };
        let running = std::mem::replace(&mut self.current, tid);
        self.dump(id, format!("{pid}-{call}"), machines)?;
        self.current = running;
        Ok(())
    }

    /// Before address spaces go away: their memory, if that is asked for.
    pub(crate) fn dump_ending(
        &mut self,
        ids: &[SpaceId],
        machines: &mut dyn Machines,
    ) -> Result<(), MachineError> {
        if !self.watch.dump.iter().any(|name| name == Watch::END) {
            return Ok(());
        }
        for id in ids {
            if let Some(pid) = self.spaces.get(id).map(|space| space.pid) {
                self.dump(*id, format!("{pid}-{}", Watch::END), machines)?;
            }
        }
        Ok(())
    }

    fn dump(&mut self, id: SpaceId, name: String, machines: &mut dyn Machines) -> Result<(), MachineError> {
        let notes = self.notes(id, machines)?;
        let (Some(space), Some(machine)) = (self.spaces.get(&id), machines.get(id)) else {
            return Ok(());
        };
        let room = MAX_BYTES.saturating_sub(self.made.dumps.bytes);
        let file = self.core(space, machine, &notes, room).filter(|file| {
            let bytes = file.len() as u64;
            self.made.dumps.has_room(bytes, MAX_DUMPS, MAX_BYTES)
        });
        let Some(file) = file else {
            self.limit("dumps", MAX_BYTES);
            return Ok(());
        };
        // A process has as many ends as programs.
        let taken = |name: &str| self.made.dumps.all.iter().any(|(other, _)| other == name);
        let names = (2..).map(|nth: usize| format!("{name}-{nth}.core"));
        let name = std::iter::once(format!("{name}.core"))
            .chain(names)
            .find(|name| !taken(name));
        self.made.dumps.add(name.unwrap_or_default(), file);
        Ok(())
    }

    /// A core file; `None`: it would have more than `room` bytes.
    fn core(&self, space: &AddressSpace, machine: &dyn Machine, notes: &[u8], room: u64) -> Option<Vec<u8>> {
        let mut parts = Vec::new();
        let mut bytes = notes.len() as u64;
        for (start, mapping) in space.mappings().take(MAX_PARTS) {
            if mapping.protection == Protection::NONE {
                continue;
            }
            let content = read(space, machine, start, mapping.end - start);
            let part = Part::of(start, &content, mapping.protection).unwrap_or(Part {
                address: start,
                memory: mapping.end - start,
                protection: mapping.protection,
                bytes: Vec::new(),
            });
            bytes = bytes.saturating_add(part.bytes.len() as u64);
            if bytes > room {
                return None;
            }
            parts.push(part);
        }
        let head = Head {
            kind: ET_CORE,
            entry: 0,
            flags: space.elf_flags,
        };
        write(&self.profile, &head, notes, &parts)
    }
}
