//! Dumps of memory, where a manifest or somebody who looks at a running guest asks for them: ELF core files with a segment for each mapping, and each task's registers.

use std::io::{self, Read, Write};

use goblin::elf::header::ET_CORE;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::guest::text;
use hotcell_schema::job::Watch;

use crate::abi::Abi;
use crate::kernel::Kernel;
use crate::machine::{Machine, MachineError, Machines, Protection, SpaceId};
use crate::made::elf::{Head, Segment, begin};
use crate::made::notes;

/// Greatest number of dumps of a run, and of bytes in all of them.
const MAX_DUMPS: usize = 256;
const MAX_BYTES: u64 = 256 << 20;
/// Greatest number of segments of one.
const MAX_PARTS: usize = 4096;
/// Memory is looked at in pieces of so many bytes, as all page sizes are multiples of.
const PAGE: u64 = 4096;

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
        let core = self.core(id, pid, tid, machines)?;
        self.keep_dump(core, format!("{pid}-{call}"), machines);
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
                let core = self.core(*id, pid, self.current, machines)?;
                self.keep_dump(core, format!("{pid}-{}", Watch::END), machines);
            }
        }
        Ok(())
    }

    /// The core files of all processes that there are now, to be written while nothing runs. Nothing of the run is another
    /// afterwards.
    pub fn cores(&self, machines: &mut dyn Machines) -> Result<Vec<Core>, MachineError> {
        let mut cores = Vec::new();
        for process in self.processes.values().filter(|process| process.ended.is_none()) {
            cores.extend(self.core(process.space, process.pid, self.current, machines)?);
        }
        Ok(cores)
    }

    fn keep_dump(&mut self, core: Option<Core>, name: String, machines: &mut dyn Machines) {
        let Some(core) = core else { return };
        let Some(machine) = machines.get(core.space) else {
            return;
        };
        let mut file = Vec::new();
        let fits = self.made.dumps.has_room(core.length, MAX_DUMPS, MAX_BYTES);
        if !fits || core.write(machine, &mut file).is_err() {
            return self.limit("dumps", MAX_BYTES);
        }
        // A process has as many ends as programs.
        let taken = |name: &str| self.made.dumps.all.iter().any(|(other, _)| other == name);
        let names = (2..).map(|nth: usize| format!("{name}-{nth}.core"));
        let name = std::iter::once(format!("{name}.core"))
            .chain(names)
            .find(|name| !taken(name));
        self.made.dumps.add(name.unwrap_or_default(), file);
    }

    /// The core file of a process in an address space; `None`: there is no such space. `first`: the task that people look at
    /// first.
    fn core(
        &self,
        id: SpaceId,
        pid: u32,
        first: u32,
        machines: &mut dyn Machines,
    ) -> Result<Option<Core>, MachineError> {
        let notes = self.notes(id, pid, first, machines)?;
        let (Some(space), Some(machine)) = (self.spaces.get(&id), machines.get(id)) else {
            return Ok(None);
        };
        let mappings = space
            .mappings()
            .map(|(start, mapping)| (start, mapping.end - start, mapping.protection));
        let image = self.processes.get(&pid).map(|process| text(&process.image));
        let core = Core {
            pid,
            image: image.unwrap_or_default(),
            ..Core::of(&self.profile, id, machine, space.elf_flags, &notes, mappings)?
        };
        Ok(Some(core))
    }
}

/// A core file that can be written for as long as nothing runs: what stands before the memory, and which memory it has.
#[derive(Debug)]
pub struct Core {
    /// Which process it is of.
    pub pid: u32,
    /// The path of its program.
    pub image: String,
    /// Its address space.
    pub space: SpaceId,
    /// Bytes of the whole file.
    pub length: u64,
    /// Headers and notes.
    head: Vec<u8>,
    /// Memory, and where in the file it begins.
    segments: Vec<(u64, Segment)>,
}

impl Core {
    /// Of a machine without a kernel: its registers, and these ranges of its memory (start, length, protection).
    pub fn of_machine(
        profile: &ArchProfile,
        space: SpaceId,
        machine: &dyn Machine,
        ranges: impl Iterator<Item = (u64, u64, Protection)>,
    ) -> Result<Self, MachineError> {
        let notes = notes::of_machine(profile, &Abi::new(profile), machine)?;
        Ok(Self {
            pid: notes::ONLY_TASK,
            image: "code".to_owned(),
            ..Self::of(profile, space, machine, 0, &notes.unwrap_or_default(), ranges)?
        })
    }

    fn of(
        profile: &ArchProfile,
        space: SpaceId,
        machine: &dyn Machine,
        flags: u32,
        notes: &[u8],
        ranges: impl Iterator<Item = (u64, u64, Protection)>,
    ) -> Result<Self, MachineError> {
        let used = |at: u64, length: u64| look(machine, at, length).iter().any(|byte| *byte != 0);
        let segments: Vec<Segment> = ranges
            .filter(|(.., protection)| *protection != Protection::NONE)
            .take(MAX_PARTS)
            .map(|(address, memory, protection)| {
                let empty = Segment {
                    address,
                    memory,
                    file: 0,
                    protection,
                };
                Segment::of(address, memory, protection, used).unwrap_or(empty)
            })
            .collect();
        let kind = Head {
            kind: ET_CORE,
            entry: 0,
            flags,
        };
        let (head, offsets) = begin(profile, &kind, notes, &segments)
            .ok_or_else(|| MachineError("a core file that no ELF header can describe".to_owned()))?;
        let segments: Vec<(u64, Segment)> = offsets.into_iter().zip(segments).collect();
        let ends = segments.iter().map(|(offset, segment)| offset + segment.file);
        Ok(Self {
            pid: 0,
            image: String::new(),
            space,
            length: ends.fold(head.len() as u64, u64::max),
            head,
            segments,
        })
    }

    /// Writes the file. The machine is that of its address space, and as it was.
    pub fn write(&self, machine: &dyn Machine, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        let mut written = self.head.len() as u64;
        for (offset, segment) in &self.segments {
            io::copy(&mut io::repeat(0).take(offset.saturating_sub(written)), out)?;
            let mut done = 0;
            while done < segment.file {
                let page = look(
                    machine,
                    segment.address.saturating_add(done),
                    PAGE.min(segment.file - done),
                );
                out.write_all(&page)?;
                done += page.len() as u64;
            }
            written = offset.saturating_add(segment.file);
        }
        Ok(())
    }
}

/// Up to a page; zeros where nothing can be read.
fn look(machine: &dyn Machine, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length.min(PAGE) as usize];
    if machine.look(at, &mut bytes).is_err() {
        bytes.fill(0);
    }
    bytes
}
