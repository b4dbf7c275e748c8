//! Reaching another process's memory and registers: what `ptrace`, `process_vm_readv` and `/proc/PID/mem` do, carried out between
//! two runs, when all machines are at hand.

use hotcell_schema::event::{
    Memory as MemoryEvent, MemoryBy, MemoryOp, Process as ProcessEvent, ProcessOp, What,
};
use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::abi::traced::{Fields, Standing, View};
use crate::call::{Call, Fail};
use crate::fs::open::FileId;
use crate::fs::tree::Ino;
use crate::kernel::Kernel;
use crate::machine::{MachineError, Machines, Protection, SpaceId};
use crate::mapping::{Backing, Part};
use crate::task::{Pending, State};
use crate::trace::Why;

/// Memory: address and length.
pub(crate) type Segment = (u64, u64);

/// What a call does to another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reach {
    Memory(Transfer),
    /// Puts registers of a task into the caller's memory.
    Look {
        tid: u32,
        view: View,
        /// First byte, and how many.
        from: usize,
        length: usize,
        to: u64,
    },
    /// A mapping of a part of a file that is in memory already: which file, offset and length.
    Map(Ino, u64, u64),
    /// The call itself, when shared mappings and files hold the same.
    Settled,
    /// Changes registers of a task, from this byte on.
    Change {
        tid: u32,
        view: View,
        from: usize,
        #[serde(with = "crate::state::raw")]
        bytes: Vec<u8>,
    },
}

/// Bytes that go from one memory to another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Whose memory it is, and where.
    pub(crate) pid: u32,
    pub(crate) there: Vec<Segment>,
    pub(crate) way: Way,
    /// `ptrace` moves all or nothing and answers 0, the others what they could. `process_vm_*` heeds protection, the others do not.
    pub(crate) by: MemoryBy,
    /// An open file whose position moves on.
    pub(crate) file: Option<FileId>,
}

/// Which way they go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    /// From there into the caller's memory.
    Read(Vec<Segment>),
    /// These bytes, there.
    Write(#[serde(with = "crate::state::raw")] Vec<u8>),
}

impl Kernel {
    /// Carries out what a call wants of another process, and ends the call.
    pub(crate) fn do_reach(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        mut pending: Pending,
        reach: Reach,
    ) -> Result<(), MachineError> {
        let result = match reach {
            Reach::Map(ino, offset, length) => {
                return self.map_lent(machines, tid, pending, (ino, offset, length));
            }
            Reach::Settled => return self.settled(machines, tid, pending),
            Reach::Memory(transfer) => self.transfer(machines, tid, &mut pending, &transfer)?,
            Reach::Look {
                tid: of,
                view,
                from,
                length,
                to,
            } => match self.registers_of(machines, of, view)? {
                Some(bytes) => {
                    let part = bytes.get(from..).unwrap_or_default();
                    let part = part.get(..length.min(part.len())).unwrap_or_default();
                    self.give(machines, tid, &mut pending, &[(to, part.len() as u64)], part)?
                        .map(|_| 0)
                }
                None => Err(Errno::EIO),
            },
            Reach::Change {
                tid: of,
                view,
                from,
                bytes,
            } => self.change_registers(machines, tid, (of, view), from, &bytes)?,
        };
        self.finish_deferred(machines, tid, pending, result)
    }

    /// Maps a part of a file, where the memory of some of it is there already.
    fn map_lent(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        mut pending: Pending,
        (ino, offset, length): (Ino, u64, u64),
    ) -> Result<(), MachineError> {
        let mut lent = Vec::new();
        for part in self.in_memory(ino, offset, length) {
            let machine = machines.get(part.space).ok_or_else(missing)?;
            let memory = machine.lend(part.address, part.length)?;
            lent.push(Part {
                start: part.offset - offset,
                length: part.length,
                lent: memory,
            });
        }
        self.load_registers(tid, machines)?;
        let Some(space) = self.tasks.get(&tid).map(|task| task.space) else {
            return Ok(());
        };
        let machine = machines.get(space).ok_or_else(missing)?;
        let running = std::mem::replace(&mut self.current, tid);
        let mut call = Call::of(self, machine, tid, &mut pending);
        let answer = crate::sys::memory::map(&mut call, offset, Some(lent));
        self.answered(machine, tid, pending, answer);
        self.current = running;
        Ok(())
    }

    /// Puts bytes into the memory of the task that calls.
    fn give(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: &mut Pending,
        segments: &[Segment],
        bytes: &[u8],
    ) -> Result<Result<u64, Errno>, MachineError> {
        let Some(space) = self.tasks.get(&tid).map(|task| task.space) else {
            return Ok(Err(Errno::ESRCH));
        };
        let machine = machines.get(space).ok_or_else(missing)?;
        Ok(Call::of(self, machine, tid, pending).scatter(segments, bytes))
    }

    fn transfer(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: &mut Pending,
        transfer: &Transfer,
    ) -> Result<Result<u64, Errno>, MachineError> {
        let nothing = match transfer.by {
            MemoryBy::Ptrace | MemoryBy::ProcMem => Errno::EIO,
            MemoryBy::ProcessVm => Errno::EFAULT,
        };
        let Some(space) = self
            .processes
            .get(&transfer.pid)
            .filter(|process| process.ended.is_none())
            .map(|process| process.space)
        else {
            // The memory of a process that has ended is empty.
            return Ok(if transfer.by == MemoryBy::ProcMem {
                Ok(0)
            } else {
                Err(Errno::ESRCH)
            });
        };
        let wanted: u64 = transfer.there.iter().map(|(_, length)| length).sum();
        let result = match &transfer.way {
            Way::Read(here) => {
                let bytes = self.read_there(machines, space, transfer)?;
                if bytes.is_empty() && wanted > 0 || exact(transfer.by) && (bytes.len() as u64) < wanted {
                    Err(nothing)
                } else {
                    self.give(machines, tid, pending, here, &bytes)?
                }
            }
            Way::Write(bytes) => {
                let done = self.write_there(machines, tid, space, transfer, bytes)?;
                if done == 0 && !bytes.is_empty() || exact(transfer.by) && (done as usize) < bytes.len() {
                    Err(nothing)
                } else {
                    Ok(done)
                }
            }
        };
        if let (Ok(moved), Some(file)) = (result, transfer.file)
            && let Some(file) = self.open.get_mut(file)
        {
            file.offset = file.offset.saturating_add(moved);
        }
        Ok(result.map(|moved| if exact(transfer.by) { 0 } else { moved }))
    }

    /// The end of what can be reached from `address` on in one mapping.
    fn reachable(&self, space: SpaceId, address: u64, write: bool, by: MemoryBy) -> Option<u64> {
        let (_, mapping) = self.spaces.get(&space)?.find(address)?;
        let allowed = if write {
            // Forced writing makes a private copy of a page; a shared one has none.
            mapping.protection.has(Protection::WRITE) || by != MemoryBy::ProcessVm && !mapping.shared
        } else {
            mapping.protection != Protection::NONE || by != MemoryBy::ProcessVm
        };
        allowed.then_some(mapping.end)
    }

    /// What can be read, up to the first byte that cannot.
    fn read_there(
        &mut self,
        machines: &mut dyn Machines,
        space: SpaceId,
        transfer: &Transfer,
    ) -> Result<Vec<u8>, MachineError> {
        let machine = machines.get(space).ok_or_else(missing)?;
        let mut all = Vec::new();
        for (start, length) in &transfer.there {
            let end = start.saturating_add(*length);
            let mut at = *start;
            while at < end {
                let Some(until) = self.reachable(space, at, false, transfer.by) else {
                    return Ok(all);
                };
                let mut part = vec![0; usize::try_from(until.min(end) - at).unwrap_or(0)];
                if machine.read(at, &mut part).is_err() {
                    return Ok(all);
                }
                all.append(&mut part);
                at = until.min(end);
            }
        }
        Ok(all)
    }

    /// Writes what can be written, up to the first byte that cannot, and tells of it.
    fn write_there(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        space: SpaceId,
        transfer: &Transfer,
        bytes: &[u8],
    ) -> Result<u64, MachineError> {
        let machine = machines.get(space).ok_or_else(missing)?;
        let own = self.pid_of(tid);
        let task = self.event_task(own, tid);
        let mut rest = bytes;
        let mut done = 0;
        for (start, length) in &transfer.there {
            let end = start.saturating_add((*length).min(rest.len() as u64));
            let mut at = *start;
            while at < end {
                let Some(until) = self.reachable(space, at, true, transfer.by) else {
                    return Ok(done);
                };
                let size = until.min(end) - at;
                let (part, more) = rest.split_at(usize::try_from(size).unwrap_or(0).min(rest.len()));
                if machine.write(at, part).is_err() {
                    return Ok(done);
                }
                if transfer.pid != own {
                    let mapping = self.spaces.get(&space).and_then(|space| space.find(at));
                    let file = mapping.and_then(|(_, mapping)| match &mapping.backing {
                        Backing::File { path, .. } => Some(path.to_string()),
                        _ => None,
                    });
                    let what = MemoryEvent {
                        protection: mapping.map(|(_, mapping)| mapping.protection.letters()),
                        file,
                        to: Some(transfer.pid),
                        by: Some(transfer.by),
                        ..MemoryEvent::new(MemoryOp::Injected, at, size)
                    };
                    self.later.push((task.clone(), What::Memory(what)));
                }
                done += size;
                rest = more;
                at = until.min(end);
            }
        }
        Ok(done)
    }

    /// Where a task stands, as its registers show it.
    pub(crate) fn standing(&self, tid: u32) -> Standing {
        let task = self.tasks.get(&tid);
        let waiting = task.and_then(|task| task.pending.as_ref());
        let trace = task.and_then(|task| task.trace.as_ref());
        let why = trace.and_then(|trace| Some(trace.stop?.why));
        Standing {
            call: match (waiting, why) {
                (Some(pending), _) => Some((pending.number, pending.words[0])),
                (None, Some(Why::Entry | Why::Exit | Why::Event(_))) => trace.map(|trace| trace.call),
                _ => None,
            },
            entry: why == Some(Why::Entry),
            waits: waiting.is_some(),
        }
    }

    /// A task's registers in one of the forms in which a tracer sees them; `None` where there is no such form.
    pub(crate) fn registers_of(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        view: View,
    ) -> Result<Option<Vec<u8>>, MachineError> {
        self.load_registers(tid, machines)?;
        let (Some(task), Some(registers)) = (self.tasks.get(&tid), &self.registers) else {
            return Ok(None);
        };
        let machine = machines.get(task.space).ok_or_else(missing)?;
        let fields = Fields::new(view, &self.abi, &self.profile.name, machine);
        Ok(fields.map(|fields| fields.read(&self.abi, registers, machine, self.standing(tid))))
    }

    fn change_registers(
        &mut self,
        machines: &mut dyn Machines,
        tracer: u32,
        (tid, view): (u32, View),
        from: usize,
        bytes: &[u8],
    ) -> Result<Result<u64, Errno>, MachineError> {
        let Some(mut all) = self.registers_of(machines, tid, view)? else {
            return Ok(Err(Errno::EIO));
        };
        let Some(part) = from.checked_add(bytes.len()).and_then(|to| all.get_mut(from..to)) else {
            return Ok(Err(Errno::EIO));
        };
        part.copy_from_slice(bytes);
        let standing = self.standing(tid);
        let (Some(task), Some(registers)) = (self.tasks.get_mut(&tid), &self.registers) else {
            return Ok(Err(Errno::ESRCH));
        };
        let machine = machines.get(task.space).ok_or_else(missing)?;
        let Some(fields) = Fields::new(view, &self.abi, &self.profile.name, machine) else {
            return Ok(Err(Errno::EIO));
        };
        let before = machine.program_counter();
        fields.write(&self.abi, registers, machine, standing, &all);
        let after = machine.program_counter();
        let pid = task.pid;
        // A call that waits is given up where the task is led elsewhere, and goes on where it is led back.
        if before != after
            && let Some(trace) = &mut task.trace
        {
            if let Some(pending) = task.pending.take() {
                trace.parked = Some((before, pending));
                task.state = State::Runnable;
            } else if let Some((_, pending)) = trace.parked.take_if(|(place, _)| *place == after) {
                task.state = State::Waiting {
                    tried_at: u64::MAX,
                    deadline: pending.deadline,
                };
                task.pending = Some(pending);
            }
        }
        let own = self.pid_of(tracer);
        let task = self.event_task(own, tracer);
        let what = ProcessEvent {
            to: Some(pid),
            ..ProcessEvent::new(ProcessOp::Steered)
        };
        self.later.push((task, What::Process(what)));
        Ok(Ok(0))
    }
}

fn exact(by: MemoryBy) -> bool {
    by == MemoryBy::Ptrace
}

fn missing() -> MachineError {
    MachineError("a machine is missing".into())
}

impl Call<'_> {
    /// Whether this process may look into another (ptrace(2), "Ptrace access mode checking").
    pub(crate) fn may_reach(&mut self, pid: u32) -> Result<(), Errno> {
        let uid = self.process().uid;
        let own = self.pid;
        let other = self.k.processes.get(&pid).ok_or(Errno::ESRCH)?;
        let same = other.uid == [uid[0]; 3] && other.dumpable == 1;
        if pid == own || uid[1] == 0 || same {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Bytes between memory of another process and this one's, later.
    pub(crate) fn reach_memory(&self, transfer: Transfer) -> Fail {
        Fail::Later(crate::deferred::Deferred::Reach(Box::new(Reach::Memory(
            transfer,
        ))))
    }
}
