//! A run as one piece of bytes: the kernel, every machine's registers, and the pages of memory that the run changed: neither
//! zero nor, where they were mapped from a blob of the job, still the blob's.
//!
//! The bytes lie in a memory file: a head, the state (postcard), and behind it, from a page's beginning on, pages of guest
//! memory in the order in which the state names them. Going on maps long runs of pages privately from the file, so that they
//! cost nothing until they are written; short ones are copied. Everything in the bytes is hostile: they may come from a
//! file that somebody wrote, and are read in a confined process only.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt, rc::Rc};

use hotcell_cells::cell_side::{CellError, Connection};
use hotcell_kernel::{
    Core,
    machine::{MachineError, SpaceId},
};
use serde::{Deserialize, Serialize};
use unicorn_engine::Prot;

use crate::{
    lengths::BlockLengths,
    machine::{Guest, UnicornMachine, failed},
    memory_unsafe::{self, AllShared, MAPPED_FROM, PAGE, SharedPart, Window},
    pool::Pool,
    saved::{Foreign, Saved},
    sources::{Origins, Part},
    written::{AllKept, Written},
};

/// First bytes of the head.
const MARK: [u8; 8] = *b"hcuctx06";
/// Bytes of the head: the mark, and three numbers (little-endian u64): bytes of the state, where pages begin, how many.
const HEAD: u64 = 32;
/// Greatest number of regions of one machine (the kernel allows fewer).
const MAX_REGIONS: usize = 20_000;
/// Greatest number of machines.
const MAX_MACHINES: usize = 4096;

/// Where a run begins.
pub(crate) enum Beginning {
    /// With the job's program.
    Program,
    /// With a context in a file of so many bytes, which does not change.
    Context(File, u64),
}

impl Beginning {
    /// Where the job of a connection begins.
    pub(crate) fn of(connection: &Connection) -> Result<Self, CellError> {
        Ok(match connection.context() {
            None => Self::Program,
            Some(context) => Self::Context(connection.blob_file(context)?, context.length),
        })
    }
}

/// All of a run but its pages.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    /// What drives the machines, in its own bytes: the kernel; or what was traced of raw code.
    pub(crate) state: Vec<u8>,
    /// The machine that is in the middle of a step.
    pub(crate) running: Option<u32>,
    /// Whether the step counts, and what was counted since the kernel was told.
    pub(crate) counting: bool,
    pub(crate) blocks: u64,
    pub(crate) instructions: u64,
    pub(crate) budget: u64,
    kept: AllKept,
    machines: Vec<State>,
}

/// One machine but its pages.
#[derive(Serialize, Deserialize)]
struct State {
    space: u32,
    registers: Foreign,
    resume: Option<u64>,
    executable: Vec<(u64, u64)>,
    counting: bool,
    written: Written<u32>,
    ran: bool,
    /// Start, length, protection; what other machines have too.
    regions: Vec<(u64, u64, u32, Option<SharedPart>)>,
    /// Runs of pages that are neither zero nor a blob's: start, how many.
    pages: Vec<(u64, u64)>,
    /// Which pages were filled from blobs.
    origins: Origins,
    /// Runs of these that were not changed since: start, and the part of the blob.
    blobs: Vec<(u64, Part)>,
}

fn wrong(what: &str) -> MachineError {
    MachineError(format!("the saved context: {what}"))
}

impl Run {
    /// What is to be said of a run apart from its machines.
    pub(crate) fn new(state: Vec<u8>) -> Self {
        Self {
            state,
            running: None,
            counting: false,
            blocks: 0,
            instructions: 0,
            budget: 0,
            kept: AllKept::default(),
            machines: Vec::new(),
        }
    }

    /// Writes it, with all machines, into a file at `start`, where there is `room`. Gives how many bytes.
    pub(crate) fn write(
        mut self,
        pool: &Pool,
        file: &File,
        start: u64,
        room: u64,
    ) -> Result<u64, MachineError> {
        let mut shared = AllShared::default();
        for (space, machine) in pool.machines() {
            let state = state(space, machine, &mut shared, &mut self.kept)?;
            self.machines.push(state);
        }
        let bytes = postcard::to_stdvec(&self).map_err(|error| wrong(&error.to_string()))?;
        let pages_at = HEAD.saturating_add(bytes.len() as u64).next_multiple_of(PAGE);
        let pages = self.machines.iter().flat_map(|state| &state.pages);
        let count = pages.map(|(_, count)| *count).fold(0u64, u64::saturating_add);
        let length = pages_at.saturating_add(count.saturating_mul(PAGE));
        if length > room {
            return Err(MachineError(format!(
                "a context of {length} bytes; there is room for {room}"
            )));
        }
        let full = || wrong("it does not fit");
        let mut window = Window::new(file, start, length)?;
        let mut head = MARK.to_vec();
        for number in [bytes.len() as u64, pages_at, count] {
            head.extend(number.to_le_bytes());
        }
        window.put(0, &head).ok_or_else(full)?;
        window.put(HEAD, &bytes).ok_or_else(full)?;
        let filled = HEAD.saturating_add(bytes.len() as u64);
        let rest = vec![0; (pages_at - filled) as usize];
        window.put(filled, &rest).ok_or_else(full)?;
        let mut at = pages_at;
        for (state, (_, machine)) in self.machines.iter().zip(pool.machines()) {
            let memory = &machine.uc.get_data().memory;
            for (start, count) in &state.pages {
                let bytes = memory.bytes(*start, count * PAGE).ok_or_else(full)?;
                window.put(at, bytes).ok_or_else(full)?;
                at = at.saturating_add(bytes.len() as u64);
            }
        }
        Ok(length)
    }

    /// Reads it from a file at `start`, where `length` bytes are its own, and makes the pool's machines as they were. They
    /// may have `room` bytes of memory together. The file must not change as long as they live.
    pub(crate) fn read(
        pool: &mut Pool,
        file: &File,
        start: u64,
        length: u64,
        room: u64,
    ) -> Result<Self, MachineError> {
        let read = |at: u64, into: &mut [u8]| {
            file.read_exact_at(into, start.saturating_add(at))
                .map_err(|error| wrong(&error.to_string()))
        };
        let mut head = [0; HEAD as usize];
        if length < HEAD {
            return Err(wrong("it is too short"));
        }
        read(0, &mut head)?;
        let (mark, numbers) = head.split_at(MARK.len());
        let mut numbers = numbers
            .chunks_exact(8)
            .filter_map(|number| Some(u64::from_le_bytes(number.try_into().ok()?)));
        let (Some(size), Some(pages_at), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(wrong("it is too short"));
        };
        let end = count
            .checked_mul(PAGE)
            .and_then(|pages| pages.checked_add(pages_at));
        if mark != MARK
            || HEAD.checked_add(size).is_none_or(|end| end > pages_at)
            || !pages_at.is_multiple_of(PAGE)
            || end != Some(length)
        {
            return Err(wrong("its head does not fit its length"));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| wrong("it is too long"))?];
        read(HEAD, &mut bytes)?;
        let mut run: Self = postcard::from_bytes(&bytes).map_err(|error| wrong(&error.to_string()))?;
        drop(bytes);
        if run.machines.len() > MAX_MACHINES {
            return Err(wrong("too many machines"));
        }
        let mut before = pool.take_machines();
        let mut pages = Pages {
            file,
            at: start.saturating_add(pages_at),
            left: count,
        };
        let mut room = room;
        let mut shared = AllShared::default();
        for state in std::mem::take(&mut run.machines) {
            let space = SpaceId(state.space);
            // One that is there already is used again: making one costs more than all else here.
            let machine = match before.remove(&space) {
                Some(machine) if machine.uc.get_data().counting == state.counting => machine,
                _ => pool.make()?,
            };
            let machine = state.give(machine, &mut pages, &mut shared, &run.kept, &mut room)?;
            if pool.put(space, machine) {
                return Err(wrong("two machines of one number"));
            }
        }
        Ok(run)
    }
}

/// What a machine is, and which of its pages it changed.
fn state(
    space: SpaceId,
    machine: &UnicornMachine<'static>,
    shared: &mut AllShared,
    kept: &mut AllKept,
) -> Result<State, MachineError> {
    const ZERO: [u8; PAGE as usize] = [0; PAGE as usize];
    let guest = machine.uc.get_data();
    let blocks: Vec<(u64, u64)> = guest.memory.blocks().collect();
    let ours = |begin: u64| {
        let before = blocks.partition_point(|(start, _)| *start <= begin);
        let block = before.checked_sub(1).and_then(|at| blocks.get(at));
        block.is_some_and(|(start, length)| begin - start < *length)
    };
    let mut regions = Vec::new();
    let mut pages: Vec<(u64, u64)> = Vec::new();
    let mut blobs: Vec<(u64, Part)> = Vec::new();
    let mut all = machine.uc.mem_regions().map_err(failed("listing memory"))?;
    all.sort_by_key(|region| region.begin);
    for region in all.into_iter().filter(|region| ours(region.begin)) {
        let length = (region.end - region.begin).saturating_add(1);
        let part = guest.memory.shared_part(region.begin, shared);
        regions.push((region.begin, length, region.perms, part));
        let bytes = guest
            .memory
            .bytes(region.begin, length)
            .ok_or_else(|| wrong("a region that is not in one piece"))?;
        for (at, page) in (region.begin..)
            .step_by(PAGE as usize)
            .zip(bytes.chunks(PAGE as usize))
        {
            // What several machines have is told by the first.
            if page == ZERO || part.is_some_and(|part| !shared.tell(part, at - region.begin)) {
                continue;
            }
            if let Some(part) = guest.origins.unchanged(&guest.sources, at, page) {
                match blobs.last_mut() {
                    Some((start, run))
                        if (run.blob, *start + run.length, run.offset + run.length)
                            == (part.blob, at, part.offset)
                            && *start >= region.begin =>
                    {
                        run.length += PAGE;
                    }
                    _ => blobs.push((at, part)),
                }
                continue;
            }
            match pages.last_mut() {
                // A run lies within one region.
                Some((start, count)) if *start + *count * PAGE == at && *start >= region.begin => *count += 1,
                _ => pages.push((at, 1)),
            }
        }
    }
    Ok(State {
        space: space.0,
        registers: Saved::whole(&machine.uc, &guest.first)?.foreign(),
        resume: guest.resume,
        executable: guest.executable.clone(),
        counting: guest.counting,
        written: guest.written.borrow().saved(kept),
        ran: guest.ran,
        regions,
        pages,
        origins: guest.origins.clone(),
        blobs,
    })
}

/// The pages of a file, one after the other.
struct Pages<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Pages<'_> {
    fn give(&mut self, guest: &mut Guest, start: u64, count: u64) -> Result<(), MachineError> {
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| wrong("more pages than it has"))?;
        let length = count.saturating_mul(PAGE);
        if count >= MAPPED_FROM {
            guest.memory.share(start, length, self.file, self.at)?;
        } else {
            guest.memory.fill(start, length, self.file, self.at)?;
        }
        self.at = self.at.saturating_add(length);
        Ok(())
    }
}

/// Runs of pages, each of some pages and behind the one before: so there are no more of them than pages.
fn ascending(runs: &[(u64, Part)]) -> Result<&[(u64, Part)], MachineError> {
    let mut free = 0;
    for (start, part) in runs {
        let end = start.checked_add(part.length);
        match end {
            Some(end) if *start >= free && end > *start && part.length.is_multiple_of(PAGE) => free = end,
            _ => return Err(wrong("runs of pages that overlap")),
        }
    }
    Ok(runs)
}

impl Guest {
    /// Fills memory from a part of a blob.
    fn give_blob(&mut self, start: u64, part: &Part) -> Result<(), MachineError> {
        let sources = Rc::clone(&self.sources);
        let (_, file) = sources
            .bytes(part)
            .ok_or_else(|| wrong("pages of a blob that the job does not have"))?;
        match part.length >= MAPPED_FROM * PAGE {
            true => self.memory.share(start, part.length, file, part.offset),
            false => self.memory.fill(start, part.length, file, part.offset),
        }
    }
}

impl State {
    /// Makes a machine be like this.
    fn give(
        self,
        mut machine: UnicornMachine<'static>,
        pages: &mut Pages<'_>,
        shared: &mut AllShared,
        kept: &AllKept,
        room: &mut u64,
    ) -> Result<UnicornMachine<'static>, MachineError> {
        let uc = &mut machine.uc;
        memory_unsafe::unmap_all(uc)?;
        uc.ctl_flush_tb().map_err(failed("dropping translations"))?;
        uc.ctl_flush_tlb().map_err(failed("dropping addresses"))?;
        if self.regions.len() > MAX_REGIONS {
            return Err(wrong("too many regions"));
        }
        for (start, length, protection, part) in &self.regions {
            *room = room
                .checked_sub(*length)
                .ok_or_else(|| wrong("more memory than the job may have"))?;
            let protection = Prot(*protection & Prot::ALL.0);
            match part {
                None => memory_unsafe::map(uc, *start, *length, protection)?,
                Some(part) => {
                    memory_unsafe::map_shared(uc, (*start, *length), protection, *part, shared, room)?;
                }
            }
        }
        for (start, count) in &self.pages {
            pages.give(uc.get_data_mut(), *start, *count)?;
        }
        let guest = machine.uc.get_data_mut();
        self.origins.check(&guest.sources)?;
        guest.origins = self.origins;
        for (start, part) in ascending(&self.blobs)? {
            guest.give_blob(*start, part)?;
        }
        machine.apply(&Saved::Foreign(self.registers))?;
        if self.counting {
            machine.count_blocks()?;
        }
        let guest = machine.uc.get_data_mut();
        guest.resume = self.resume;
        guest.executable = self.executable;
        let written = self.written.restored(kept);
        guest.written = RefCell::new(written.ok_or_else(|| wrong("bytes that it does not have"))?);
        guest.lengths = BlockLengths::new(&guest.shape);
        guest.ran = self.ran;
        // Unicorn reports no block that an instance runs first.
        guest.unreported = self.ran;
        guest.stop = None;
        guest.access = None;
        Ok(machine)
    }
}

/// Writes into a window from its beginning on.
struct Out {
    window: Window,
    at: u64,
}

impl io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.window
            .put(self.at, bytes)
            .ok_or(io::ErrorKind::StorageFull)?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file with room for contexts, used by halves: what memory is still mapped from is never written over.
pub(crate) struct Area {
    file: Rc<File>,
    half: u64,
    /// The context that was kept last: where it begins, and its length.
    kept: Option<(u64, u64)>,
    /// Where memory may be mapped from now: where it begins, and its length.
    mapped: Option<(u64, u64)>,
}

impl Area {
    /// An area of so many bytes in all.
    pub(crate) fn new(file: File, length: u64) -> Self {
        Self {
            file: Rc::new(file),
            half: (length / 2) & !(PAGE - 1),
            kept: None,
            mapped: None,
        }
    }

    /// Whether a context was kept.
    pub(crate) fn has_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Keeps a run. Gives where it begins and its length.
    pub(crate) fn keep(&mut self, run: Run, pool: &Pool) -> Result<(u64, u64), MachineError> {
        let start = match self.mapped {
            Some((0, _)) => self.half,
            _ => 0,
        };
        // What was kept in this half is gone from here on.
        self.kept = self.kept.filter(|(kept, _)| *kept != start);
        let length = run.write(pool, &self.file, start, self.half)?;
        self.kept = Some((start, length));
        Ok((start, length))
    }

    /// Writes core files, one behind the other, of `most` bytes together, where nothing stands that may be needed again.
    /// Gives where they begin.
    pub(crate) fn dump(&self, cores: &[Core], pool: &mut Pool, most: u64) -> Result<u64, MachineError> {
        let (start, free) = self.free();
        let room = free.min(most);
        let length = cores
            .iter()
            .fold(0, |all: u64, core| all.saturating_add(core.length));
        if length > room {
            return Err(MachineError(format!(
                "core files of {length} bytes; there is room for {room} (more with a greater `limits.memory`)"
            )));
        }
        let mut out = Out {
            window: Window::new(&self.file, start, length)?,
            at: 0,
        };
        for core in cores {
            let machine = pool.machine(core.space)?;
            core.write(&machine, &mut out)
                .map_err(|error| MachineError(format!("a core file: {error}")))?;
        }
        Ok(start)
    }

    /// The greatest part behind what stands in one of the halves: where it begins, and its length.
    fn free(&self) -> (u64, u64) {
        let free = |half: u64| {
            let here = [self.kept, self.mapped].into_iter().flatten();
            let used = here.filter(|(start, _)| *start == half).map(|(_, length)| length);
            let used = used.max().unwrap_or(0).next_multiple_of(PAGE).min(self.half);
            (half + used, self.half - used)
        };
        [0, self.half]
            .map(free)
            .into_iter()
            .max_by_key(|(_, length)| *length)
            .unwrap_or_default()
    }

    /// The run that was kept last, with its machines in the pool.
    pub(crate) fn load(&mut self, pool: &mut Pool, room: u64) -> Option<Result<Run, MachineError>> {
        let (start, length) = self.kept?;
        self.mapped = Some((start, length));
        Some(Run::read(pool, &Rc::clone(&self.file), start, length, room))
    }
}
