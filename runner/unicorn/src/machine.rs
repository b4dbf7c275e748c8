//! One Unicorn instance as the kernel's [`Machine`].

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use hotcell_kernel::machine::{AccessError, Context, Lent, Machine, MachineError, Protection, Reg, Trap};
use unicorn_engine::{Arch, HookType, Prot, RegisterARM, TlbEntry, TlbType, UcHookId, Unicorn, uc_error};

use crate::{
    blocks::Begins,
    identity,
    image_unsafe::Image,
    lengths::BlockLengths,
    memory_unsafe::{self, Blocks, Memory},
    nudge_unsafe,
    quirks::{self, Privilege, Quirk},
    registers,
    saved::Saved,
    shape::Shape,
    sources::{Origins, Sources},
    traps,
    written::{First, Written},
};

/// What goes with an instance through its hooks.
pub(crate) struct Guest {
    /// The architecture.
    pub(crate) shape: Rc<Shape>,
    /// Inside a hook: the address that execution goes on at.
    pub(crate) after: Option<u64>,
    /// The end address of raw code. Linux programs have none: exits are switched off for them.
    pub(crate) until: u64,
    /// Where the next run begins, when it is not the program counter's own value.
    pub(crate) resume: Option<u64>,
    /// Why the emulator was told to stop.
    pub(crate) stop: Option<Stop>,
    /// The invalid access that the memory hook saw last.
    pub(crate) access: Option<Trap>,
    /// Ranges that are or were executable (start, end), so that translations of them may exist.
    pub(crate) executable: Vec<(u64, u64)>,
    /// Whether blocks are counted: once begun, for good.
    pub(crate) counting: bool,
    /// The hooks that look at every block, and at every instruction, while they are there.
    pub(crate) hooks: (Option<UcHookId>, Option<UcHookId>),
    /// Who wants to hear of every block that begins.
    pub(crate) begins: Option<Rc<Begins>>,
    /// How many instructions blocks have.
    pub(crate) lengths: BlockLengths,
    /// Its memory.
    pub(crate) memory: Memory,
    /// The blobs of its job.
    pub(crate) sources: Rc<Sources>,
    /// What of its memory was filled from them.
    pub(crate) origins: Origins,
    /// The processor's state when it was made, as bytes.
    pub(crate) first: Rc<[u8]>,
    /// The registers when it was made.
    initial: Option<Rc<Saved>>,
    /// Whether it ever ran.
    pub(crate) ran: bool,
    /// Whether its first block must be looked at: it ran before, in another process; or all blocks are.
    pub(crate) unreported: bool,
    /// What ran, shared with the driver.
    pub(crate) counts: Rc<Counts>,
    /// Which memory the guest wrote.
    pub(crate) written: RefCell<Written>,
    /// Whether it is being given the memory of another machine, of which it knows already what was written.
    pub(crate) copying: bool,
}

/// What ran since the kernel was told last. Only counted once the kernel asks for it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Blocks.
    pub(crate) blocks: Cell<u64>,
    /// Instructions.
    pub(crate) instructions: Cell<u64>,
    /// Blocks that may still run before the kernel is asked.
    pub(crate) budget: Cell<u64>,
    /// What the runner wants to watch.
    pub(crate) watch: Cell<Watch>,
}

/// How closely a run is watched because the runner asked for it. What the guest does is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Watch {
    /// Not at all.
    #[default]
    Free,
    /// Until the next block begins.
    Block,
    /// So many blocks.
    Slice(u64),
    /// One instruction; whether it has begun.
    Instruction(bool),
}

/// Why the emulator was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The kernel wants to be asked what is next.
    Asked,
    /// Only to go on somewhere else.
    Jump,
    /// The budget of blocks is used up.
    Budget,
    /// The driver has something to do between two guest instructions.
    Break,
    /// An exception that is not a system call.
    Trap(Trap),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A hook stopped it for the kernel.
    Asked,
    /// The budget of blocks is used up.
    Budget,
    /// The driver's own break: run again without asking the kernel.
    Break,
    /// The processor cannot go on.
    Trap(Trap),
    /// Nobody asked for an end: it halted its processor, or came to the end address of raw code.
    Halted,
}

/// One instance. Cloning gives another handle of the same instance.
#[derive(Clone)]
pub(crate) struct UnicornMachine<'a> {
    pub(crate) uc: Unicorn<'a, Guest>,
}

/// The error for a call into the emulator that must not fail.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(uc_error) -> MachineError {
    move |error| MachineError(format!("{what}: {error:?}"))
}

impl<'a> UnicornMachine<'a> {
    /// A new instance without memory, its registers as the profile wants them.
    pub(crate) fn new(
        shape: &Rc<Shape>,
        counts: Rc<Counts>,
        privilege: Privilege,
    ) -> Result<Self, MachineError> {
        let guest = Guest {
            shape: Rc::clone(shape),
            after: None,
            until: 0,
            resume: None,
            stop: None,
            access: None,
            executable: Vec::new(),
            counting: false,
            hooks: (None, None),
            begins: None,
            lengths: BlockLengths::new(shape),
            memory: Memory::default(),
            sources: Rc::default(),
            origins: Origins::default(),
            first: Rc::from([]),
            initial: None,
            ran: false,
            unreported: false,
            counts,
            written: RefCell::default(),
            copying: false,
        };
        let mut uc =
            Unicorn::new_with_data(shape.arch, shape.mode, guest).map_err(failed("making an instance"))?;
        if let Some(model) = shape.cpu {
            uc.ctl_set_cpu_model(model)
                .map_err(failed("choosing the processor"))?;
        }
        for setup in &shape.setup {
            let value = match setup.value {
                Some(value) => value,
                None => {
                    uc.reg_read(setup.register)
                        .map_err(failed("reading a set-up register"))?
                        | setup.or
                }
            };
            uc.reg_write(setup.register, value)
                .map_err(failed("writing a set-up register"))?;
        }
        for quirk in shape.quirks.clone() {
            quirk.prepare(&mut uc, shape.order, privilege)?;
        }
        if shape.virtual_tlb {
            uc.ctl_set_tlb_type(TlbType::VIRTUAL)
                .map_err(failed("choosing the virtual TLB"))?;
            // By itself it fills in only what an access wants, so that loads and stores of one page would drive each other out.
            // What a mapping allows is asked behind it.
            uc.add_tlb_hook(1, 0, |_, address, _| {
                Some(TlbEntry {
                    paddr: address,
                    perms: Prot::ALL,
                })
            })
            .map_err(failed("hooking the virtual TLB"))?;
        }
        // No address ends a run: a jump to any is the guest's own doing.
        uc.ctl_exits_enable()
            .map_err(failed("switching the end address off"))?;
        uc.add_mem_hook(HookType::MEM_INVALID, 1, 0, |uc, kind, address, _, _| {
            let shape = &uc.get_data().shape;
            let trap = Trap {
                kind: traps::from_access(kind),
                address: Some(traps::address(shape.arch, shape.bits, address)),
            };
            uc.get_data_mut().access = Some(trap);
            false
        })
        .map_err(failed("hooking invalid accesses"))?;
        let first: Rc<[u8]> = Image::of(&uc)?.bytes().into();
        let initial = Saved::of(&uc, &first)?;
        let guest = uc.get_data_mut();
        guest.initial = Some(Rc::new(initial));
        guest.first = first;
        Ok(Self { uc })
    }

    /// A handle of the instance whose hook is being called.
    pub(crate) fn of(uc: &Unicorn<'a, Guest>) -> Self {
        Self { uc: uc.clone() }
    }

    /// Stops the emulator at the next possible moment, which is before any further guest instruction when called
    /// from a system call or block hook.
    pub(crate) fn stop(&mut self, why: Stop) {
        self.uc.get_data_mut().stop = Some(why);
        let _ = self.uc.emu_stop();
    }

    /// Runs from the program counter until the kernel must be asked.
    pub(crate) fn run(&mut self) -> Ended {
        loop {
            let begin = self.begin();
            let guest = self.uc.get_data_mut();
            guest.stop = None;
            guest.access = None;
            guest.written.get_mut().guest_ran();
            guest.ran = true;
            let until = guest.until;
            let hooked = guest.hooks.0.is_some();
            let result = {
                // Where blocks are hooked, the hook hears the runner.
                let _heard = if hooked {
                    nudge_unsafe::held()
                } else {
                    nudge_unsafe::stops(&self.uc)
                };
                self.uc.emu_start(begin, until, 0, 0)
            };
            let guest = self.uc.get_data_mut();
            guest.after = None;
            let nudged = !hooked && nudge_unsafe::asked();
            match (guest.stop.take(), result) {
                // The runner's nudge stopped it between two blocks. MIPS then may tell of an access that never was.
                (None, Ok(())) if nudged => return Ended::Break,
                (None, Err(_)) if nudged && guest.shape.arch == Arch::MIPS && guest.access.is_none() => {
                    return Ended::Break;
                }
                (Some(Stop::Jump), _) => {}
                (Some(Stop::Asked), _) => {
                    self.settle();
                    return Ended::Asked;
                }
                (Some(Stop::Budget), _) => {
                    self.settle();
                    return Ended::Budget;
                }
                (Some(Stop::Break), _) => {
                    self.settle();
                    return Ended::Break;
                }
                (Some(Stop::Trap(trap)), _) => {
                    self.settle();
                    return Ended::Trap(trap);
                }
                (None, Err(error)) => {
                    return Ended::Trap(
                        guest
                            .access
                            .take()
                            .unwrap_or_else(|| traps::from_error(guest.shape.arch, error)),
                    );
                }
                (None, Ok(())) => return Ended::Halted,
            }
        }
    }

    /// The address for `emu_start`, with the Thumb bit on ARM.
    fn begin(&mut self) -> u64 {
        let resume = self.uc.get_data_mut().resume.take();
        let shape = Rc::clone(&self.uc.get_data().shape);
        let address = resume.unwrap_or_else(|| self.uc.reg_read(shape.pc).unwrap_or(0));
        if shape.arch == Arch::ARM {
            address | u64::from(self.thumb())
        } else {
            address
        }
    }

    /// Writes a pending resume address into the program counter, so that saved registers hold it.
    fn settle(&mut self) {
        if self.uc.get_data().resume.is_some() {
            let address = self.begin();
            let pc = self.uc.get_data().shape.pc;
            let _ = self.uc.reg_write(pc, address);
        }
    }

    /// Whether an ARM processor is in its other instruction set; of another processor, no.
    pub(crate) fn thumb(&self) -> bool {
        // CPSR.T, bit 5 (ARM ARM, section B1.3.3).
        self.uc.get_data().shape.arch == Arch::ARM
            && self
                .uc
                .reg_read(RegisterARM::CPSR as i32)
                .is_ok_and(|value| value & 1 << 5 != 0)
    }

    /// Puts saved registers in place.
    pub(crate) fn apply(&mut self, saved: &Saved) -> Result<(), MachineError> {
        self.uc.get_data_mut().resume = None;
        let first = Rc::clone(&self.uc.get_data().first);
        saved.apply(&mut self.uc, &first)
    }

    /// Remembers that code may stand in a range.
    fn note_executable(&mut self, start: u64, end: u64) {
        let ranges = &mut self.uc.get_data_mut().executable;
        if ranges.iter().any(|(first, last)| *first <= start && end <= *last) {
            return;
        }
        // Too wide a range only costs time: beyond a few, all become one.
        if ranges.len() >= 64 {
            let first = ranges.iter().map(|(first, _)| *first).fold(start, u64::min);
            let last = ranges.iter().map(|(_, last)| *last).fold(end, u64::max);
            ranges.clear();
            ranges.push((first, last));
        } else {
            ranges.push((start, end));
        }
    }

    /// Remembers what a new mapping may hold.
    fn note_mapped(&mut self, start: u64, end: u64, protection: Protection) {
        if protection.has(Protection::EXECUTE) {
            self.note_executable(start, end);
        }
        let writable = protection.has(Protection::WRITE);
        let guest = self.uc.get_data_mut();
        if !guest.copying {
            guest.written.get_mut().mapped(start, end, writable);
        }
    }

    /// Forgets what was translated from a range. Unicorn does so by itself only for the guest's own stores.
    fn drop_translations(&mut self, start: u64, end: u64) {
        let guest = self.uc.get_data();
        if guest.executable.is_empty() || start >= end {
            return;
        }
        match guest.memory.views(start, end) {
            Some(views) => {
                self.drop_own_translations(start, end);
                for (start, end) in views {
                    self.drop_own_translations(start, end);
                }
            }
            None => {
                let _ = self.uc.ctl_flush_tb();
            }
        }
    }

    fn drop_own_translations(&mut self, start: u64, end: u64) {
        let touched = self
            .uc
            .get_data()
            .executable
            .iter()
            .any(|(first, last)| start < *last && *first < end);
        if !touched || start >= end {
            return;
        }
        // One call must not reach over the border of a region: it goes by Unicorn's own RAM addresses.
        for region in self.uc.mem_regions().unwrap_or_default() {
            let first = start.max(region.begin);
            let last = end.min(region.end.saturating_add(1));
            if first < last {
                let _ = self.uc.ctl_remove_cache(first, last);
            }
        }
    }

    /// Forgets what was translated from memory that other machines have too: they may have written there since it ran.
    pub(crate) fn drop_shared_translations(&mut self) {
        /// More regions than these are not worth to be told one by one.
        const FEW: usize = 64;
        let guest = self.uc.get_data();
        if !guest.memory.has_lent() {
            return;
        }
        let is_executable = |begin: u64, end: u64| {
            guest
                .executable
                .iter()
                .any(|(first, last)| begin < *last && *first <= end)
        };
        let mut regions = self.uc.mem_regions().unwrap_or_default();
        regions
            .retain(|region| is_executable(region.begin, region.end) && guest.memory.is_lent(region.begin));
        if regions.len() > FEW {
            let _ = self.uc.ctl_flush_tb();
            return;
        }
        for region in regions {
            let _ = self
                .uc
                .ctl_remove_cache(region.begin, region.end.saturating_add(1));
        }
    }

    /// Keeps what stands in memory that becomes writable.
    fn open(&mut self, start: u64, end: u64) {
        let gaps = self.uc.get_data_mut().written.get_mut().opened(start, end);
        let mut page = vec![0; 0x1000];
        for (first, last) in gaps {
            let mut at = first;
            while at < last {
                let length = (last - at).min(0x1000 - (at & 0xfff));
                if let Some(part) = page.get_mut(..length as usize)
                    && self.uc.mem_read(at, part).is_ok()
                {
                    self.uc.get_data_mut().written.get_mut().filled(at, part);
                }
                at += length;
            }
        }
    }

    /// Puts bytes into memory: whole pages that lie in a blob of the job are mapped, the others copied.
    pub(crate) fn fill(&mut self, address: u64, from: &[u8]) -> Result<(), MachineError> {
        let guest = self.uc.get_data();
        let planned = guest.origins.plan(&guest.sources, &guest.memory, address, from);
        let Some((mapped, part)) = planned else {
            return self.uc.mem_write(address, from).map_err(failed("writing memory"));
        };
        let start = address + mapped.start as u64;
        let before = from.get(..mapped.start).unwrap_or_default();
        let behind = from.get(mapped.end..).unwrap_or_default();
        for (at, part) in [(address, before), (address + mapped.end as u64, behind)] {
            self.uc.mem_write(at, part).map_err(failed("writing memory"))?;
        }
        self.uc.get_data_mut().share(start, part)
    }

    /// The end of an access, if its address does not wrap.
    fn end(address: u64, length: usize) -> Result<u64, AccessError> {
        let length = u64::try_from(length).map_err(|_| AccessError { address })?;
        address.checked_add(length).ok_or(AccessError { address })
    }
}

/// What a machine lends: memory, and what stood there at first.
struct Loan {
    blocks: Blocks,
    first: First,
}

fn range_end(start: u64, length: u64) -> Result<u64, MachineError> {
    start
        .checked_add(length)
        .ok_or_else(|| MachineError("a range past the end of memory".to_owned()))
}

fn unicorn_protection(arch: Arch, protection: Protection) -> Prot {
    let mut bits = Prot::NONE;
    if arch == Arch::S390X && protection.has(Protection::EXECUTE) && !identity::is_patched() {
        // The plain library fetches no instruction from memory that cannot be written (patch 0006).
        bits |= Prot::WRITE;
    }
    for (linux, unicorn) in [
        (Protection::READ, Prot::READ),
        (Protection::WRITE, Prot::WRITE),
        (Protection::EXECUTE, Prot::EXEC),
    ] {
        if protection.has(linux) {
            bits |= unicorn;
        }
    }
    bits
}

impl Machine for UnicornMachine<'_> {
    fn register(&self, name: &str) -> Option<Reg> {
        let number = registers::number(self.uc.get_data().shape.arch, name)?;
        u32::try_from(number).ok().map(Reg)
    }

    fn get(&self, register: Reg) -> u64 {
        i32::try_from(register.0)
            .ok()
            .and_then(|number| self.uc.reg_read(number).ok())
            .unwrap_or(0)
    }

    fn set(&mut self, register: Reg, value: u64) {
        if let Ok(number) = i32::try_from(register.0) {
            let _ = self.uc.reg_write(number, value);
        }
    }

    fn jump(&mut self, address: u64) {
        if self.uc.get_data().shape.arch == Arch::ARM {
            // The instruction set follows bit 0, as with BX.
            let number = RegisterARM::CPSR as i32;
            let old = self.uc.reg_read(number).unwrap_or(0);
            let new = old & !(1 << 5) | (address & 1) << 5;
            if new != old {
                let _ = self.uc.reg_write(number, new);
            }
        }
        let guest = self.uc.get_data_mut();
        let address = if guest.shape.arch == Arch::ARM {
            address & !1
        } else {
            address
        };
        guest.resume = Some(address);
        if guest.after.is_some() {
            guest.after = Some(address);
            if guest.stop.is_none() {
                self.stop(Stop::Jump);
            }
        } else {
            self.settle();
        }
    }

    fn program_counter(&self) -> u64 {
        let guest = self.uc.get_data();
        guest
            .after
            .or(guest.resume)
            .unwrap_or_else(|| self.uc.reg_read(guest.shape.pc).unwrap_or(0))
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError> {
        // What is written after this may be a copy of the guest's own memory (mremap), not of a file.
        self.uc.get_data().written.borrow_mut().guest_ran();
        self.look(address, into)
    }

    fn look(&self, address: u64, into: &mut [u8]) -> Result<(), AccessError> {
        Self::end(address, into.len())?;
        self.uc
            .mem_read(address, into)
            .map_err(|_| AccessError { address })
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        let end = Self::end(address, from.len())?;
        let guest = self.uc.get_data_mut();
        if !guest.copying {
            let part = guest.sources.find(from);
            guest.written.get_mut().write(address, from, part);
        }
        self.fill(address, from).map_err(|_| AccessError { address })?;
        self.drop_translations(address, end);
        Ok(())
    }

    fn map(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), MachineError> {
        let end = range_end(start, length)?;
        self.note_mapped(start, end, protection);
        let protection = unicorn_protection(self.uc.get_data().shape.arch, protection);
        memory_unsafe::map(&mut self.uc, start, length, protection)
    }

    fn lend(&mut self, start: u64, length: u64) -> Result<Lent, MachineError> {
        let end = range_end(start, length)?;
        // Whoever borrows it may write there.
        self.open(start, end);
        let guest = self.uc.get_data_mut();
        let blocks = guest.memory.lend(start, length);
        let blocks = blocks.ok_or_else(|| MachineError("lending memory that is not there".to_owned()))?;
        let first = guest.written.get_mut().first_of(start, end);
        let regions = blocks.lengths().collect();
        Ok(Lent {
            memory: Box::new(Loan { blocks, first }),
            regions,
        })
    }

    fn is_copied(&mut self) {
        self.uc.get_data_mut().copying = false;
    }

    fn borrow(&mut self, start: u64, protection: Protection, lent: Lent) -> Result<(), MachineError> {
        let other = |_| MachineError("memory of another kind of machine".to_owned());
        let Loan { blocks, first } = *lent.memory.downcast::<Loan>().map_err(other)?;
        let end = range_end(start, blocks.length())?;
        self.uc
            .get_data_mut()
            .written
            .get_mut()
            .borrowed(start, end, first);
        self.note_mapped(start, end, protection);
        let protection = unicorn_protection(self.uc.get_data().shape.arch, protection);
        memory_unsafe::borrow(&mut self.uc, start, protection, blocks)
    }

    fn unmap(&mut self, start: u64, length: u64) -> Result<(), MachineError> {
        let end = range_end(start, length)?;
        self.drop_translations(start, end);
        let guest = self.uc.get_data_mut();
        guest.written.get_mut().unmapped(start, end);
        guest.origins.forget(start, end);
        memory_unsafe::unmap(&mut self.uc, start, length)
    }

    fn protect(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), MachineError> {
        let end = range_end(start, length)?;
        if protection.has(Protection::EXECUTE) {
            self.note_executable(start, end);
        } else {
            self.drop_translations(start, end);
        }
        if protection.has(Protection::WRITE) {
            self.open(start, end);
        }
        let protection = unicorn_protection(self.uc.get_data().shape.arch, protection);
        self.uc
            .mem_protect(start, length, protection)
            .map_err(failed("protecting memory"))
    }

    fn save(&self) -> Result<Context, MachineError> {
        let saved = Saved::of(&self.uc, &self.uc.get_data().first)?;
        Ok(Context::Live(Box::new(saved)))
    }

    fn restore(&mut self, context: &Context) -> Result<(), MachineError> {
        match context {
            Context::Bytes(bytes) => self.apply(&Saved::from_bytes(bytes)?),
            live => {
                let other = || MachineError("a context of another kind of machine".to_owned());
                self.apply(live.live::<Saved>().ok_or_else(other)?)
            }
        }
    }

    fn reset_registers(&mut self) -> Result<(), MachineError> {
        match self.uc.get_data().initial.clone() {
            Some(saved) => self.apply(&saved),
            None => Err(MachineError("the machine is not ready".to_owned())),
        }
    }

    fn set_thread_pointer(&mut self, value: u64) {
        let shape = Rc::clone(&self.uc.get_data().shape);
        if shape.quirks.contains(&Quirk::X86Gdt) {
            quirks::set_thread_segment(&mut self.uc, value as u32);
        } else if let Some(number) = shape.thread_pointer {
            let _ = self.uc.reg_write(number, value);
        }
    }
}
