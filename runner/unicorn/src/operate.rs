//! What the runner asks of a running job: done between two blocks, or between two instructions while one steps.
//!
//! Nothing of it changes what the guest does. A pause is a wait for the runner's next word. Stepping waits inside a hook, so
//! that blocks stay what they are and are counted once. A context is saved where a block begins: asked for in the middle of
//! one, it is saved at that block's end.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
};

use hotcell_cells::{
    cell_side::{CellError, Connection, Control},
    contract::Operation,
    dump::{Core, CoreName, MAX_CORES},
    protocol::{FromCell, ToCell},
};
use hotcell_kernel::{
    EventSink,
    machine::{MachineError, SpaceId},
};
use hotcell_schema::event::Event;
use unicorn_engine::Unicorn;

use crate::{
    context::{Area, Run},
    machine::{Counts, Guest, Stop, UnicornMachine, Watch},
    nudge_unsafe,
    pool::Pool,
};

/// Blocks in a slice that the runner asks for: as many as the kernel gives a task.
const SLICE: u64 = 20_000;

/// Room for core files beside the memory that a guest may have: their headers and notes.
const CORES_MORE: u64 = 64 << 20;

/// Where events go while a job runs, and what the runner wants meanwhile.
pub(crate) trait Outlet {
    /// Takes events, in order.
    fn events(&mut self, events: Vec<Event>) -> Result<(), CellError>;
    /// Hears the runner; waits while it wants nothing to run.
    fn control(&mut self) -> Result<Control, CellError>;
    /// Whether the runner wants nothing to run.
    fn is_paused(&self) -> bool;
    /// Answers the runner.
    fn answer(&mut self, answer: &FromCell) -> Result<(), CellError>;
}

impl Outlet for Connection {
    fn events(&mut self, events: Vec<Event>) -> Result<(), CellError> {
        self.send_events(&events)
    }

    fn control(&mut self) -> Result<Control, CellError> {
        Connection::control(self)
    }

    fn is_paused(&self) -> bool {
        Connection::is_paused(self)
    }

    fn answer(&mut self, answer: &FromCell) -> Result<(), CellError> {
        Connection::answer(self, answer)
    }
}

/// How a run goes on after the runner was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// As it was.
    GoOn,
    /// It is another now: in the middle of a step of this machine, or between two steps.
    Elsewhere(Option<SpaceId>),
}

/// Why a run did not come to its end.
pub(crate) enum Stopped {
    Machine(MachineError),
    Cell(CellError),
}

impl Stopped {
    pub(crate) fn into_cell_error(self) -> CellError {
        match self {
            Self::Machine(error) => CellError::Job(error.to_string()),
            Self::Cell(error) => error,
        }
    }
}

impl From<MachineError> for Stopped {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

impl From<CellError> for Stopped {
    fn from(error: CellError) -> Self {
        Self::Cell(error)
    }
}

/// A run that can be kept, and become another: what stands around its machines.
pub(crate) trait Resume {
    /// All of it but its machines, and how many events it has told.
    fn save(&self) -> Result<(Run, u64), MachineError>;
    /// Becomes a run whose machines are in the pool.
    fn become_run(&self, pool: &mut Pool, run: &Run) -> Result<(), Stopped>;
    /// Core files of what runs. Nothing of the run is another afterwards.
    fn cores(&self, pool: &mut Pool) -> Result<Vec<hotcell_kernel::Core>, MachineError>;
    /// Ends here, because the host's time for it is over: what runs next only finishes.
    fn finish(&self) -> Result<(), MachineError>;
    /// Bytes of memory that all machines may have together.
    fn memory(&self) -> u64;
}

/// Hears the runner while a job runs.
pub(crate) struct Operator {
    /// What ran, and how closely it is watched.
    pub(crate) counts: Rc<Counts>,
    /// Events that wait to be sent.
    pub(crate) events: Rc<RefCell<Vec<Event>>>,
    /// The runner.
    outlet: RefCell<Box<dyn Outlet>>,
    /// What it asked for in the middle of a block.
    pending: RefCell<Option<ToCell>>,
    /// Why a hook gave up.
    broken: RefCell<Option<CellError>>,
    /// Where contexts go.
    area: RefCell<Option<Area>>,
}

pub(crate) fn busy(what: &str) -> MachineError {
    MachineError(format!("{what} was asked for while it was at work"))
}

impl Operator {
    /// Begins to hear a runner, which may have given room for contexts.
    pub(crate) fn new(outlet: Box<dyn Outlet>, area: Option<Area>) -> Self {
        Self {
            counts: Rc::default(),
            events: Rc::default(),
            outlet: RefCell::new(outlet),
            pending: RefCell::new(None),
            broken: RefCell::new(None),
            area: RefCell::new(area),
        }
    }

    /// Where events are put that are to be sent.
    pub(crate) fn sink(&self) -> Box<dyn EventSink> {
        let events = Rc::clone(&self.events);
        Box::new(move |event: Event| events.borrow_mut().push(event))
    }

    /// Why a hook gave up, if one did.
    pub(crate) fn check(&self) -> Result<(), CellError> {
        self.broken.take().map_or(Ok(()), Err)
    }

    fn answer(&self, answer: &FromCell) -> Result<(), CellError> {
        self.send_events()?;
        self.outlet()?.answer(answer)
    }

    fn outlet(&self) -> Result<RefMut<'_, Box<dyn Outlet>>, CellError> {
        self.outlet
            .try_borrow_mut()
            .map_err(|_| CellError::Job("the connection was asked for while it was at work".to_owned()))
    }

    /// Sends what waits.
    pub(crate) fn send_events(&self) -> Result<(), CellError> {
        let waiting = self.events.take();
        match waiting.is_empty() {
            true => Ok(()),
            false => self.outlet()?.events(waiting),
        }
    }

    fn control(&self) -> Result<Control, CellError> {
        nudge_unsafe::heard();
        self.outlet()?.control()
    }

    /// Between two blocks: sends what waits, and does what the runner wants. `running`: the machine that is in the middle of
    /// a step.
    pub(crate) fn between(
        &self,
        run: &dyn Resume,
        pool: &mut Pool,
        running: Option<SpaceId>,
    ) -> Result<Next, Stopped> {
        self.send_events()?;
        if self.counts.watch.get() == Watch::Slice(0) {
            self.counts.watch.set(Watch::Free);
            let operation = Operation::RunOneSlice;
            self.answer(&FromCell::Did { operation })?;
        }
        // Between two steps of the kernel nothing has to be waited for: the next block is about to begin.
        if let Watch::Instruction(_) | Watch::Slice(_) = self.counts.watch.get() {
            return Ok(Next::GoOn);
        }
        self.counts.watch.set(Watch::Free);
        let mut next = Next::GoOn;
        loop {
            let asked = match self.pending.take() {
                Some(asked) => asked,
                None => match self.control()? {
                    Control::GoOn => return Ok(next),
                    Control::Stop => return Err(CellError::Stopped.into()),
                    Control::Asked(asked) => asked,
                },
            };
            let position = match next {
                Next::GoOn => running,
                Next::Elsewhere(running) => running,
            };
            match asked {
                ToCell::SaveContext => self.save(run, pool, position)?,
                ToCell::Dump => self.dump(run, pool)?,
                ToCell::LoadContext => {
                    if let Some(elsewhere) = self.load(run, pool)? {
                        next = elsewhere;
                    }
                }
                ToCell::Finish => {
                    run.finish()?;
                    let operation = Operation::Finish;
                    self.answer(&FromCell::Did { operation })?;
                    return Ok(Next::Elsewhere(None));
                }
                ToCell::RunOneInstruction | ToCell::RunOneSlice if self.begin_step(&asked)? => {
                    return Ok(next);
                }
                ToCell::RunOneInstruction | ToCell::RunOneSlice => {}
                other => {
                    if let Some(operation) = other.operation() {
                        let engine = "hotcell-unicorn".to_owned();
                        self.answer(&FromCell::Unsupported { engine, operation })?;
                    }
                }
            }
        }
    }

    /// Sets out to step, if the job is paused.
    fn begin_step(&self, asked: &ToCell) -> Result<bool, CellError> {
        if !self.outlet()?.is_paused() {
            let operation = asked.operation().unwrap_or(Operation::RunOneInstruction);
            let reason = "the cell runs; pause it first".to_owned();
            self.answer(&FromCell::Refused { operation, reason })?;
            return Ok(false);
        }
        self.counts.watch.set(match asked {
            ToCell::RunOneSlice => Watch::Slice(SLICE),
            _ => Watch::Instruction(false),
        });
        Ok(true)
    }

    /// Makes a machine that is about to run be watched as closely as is wanted, and no closer.
    pub(crate) fn attend(self: &Rc<Self>, machine: &mut UnicornMachine<'static>) -> Result<(), MachineError> {
        match self.counts.watch.get() {
            Watch::Free => machine.unhook(),
            Watch::Block | Watch::Slice(_) => machine.hook_blocks(),
            Watch::Instruction(_) => {
                machine.hook_blocks()?;
                let shared = Rc::clone(self);
                machine.hook_instructions(move |uc, address, _| shared.instruction(uc, address))
            }
        }
    }

    /// An instruction is about to run, unless the machine is told to stop here.
    pub(crate) fn instruction(&self, uc: &mut Unicorn<'_, Guest>, address: u64) {
        match self.counts.watch.get() {
            Watch::Instruction(false) => return self.counts.watch.set(Watch::Instruction(true)),
            Watch::Instruction(true) => {}
            Watch::Free | Watch::Block | Watch::Slice(_) => return,
        }
        if uc.get_data().stop.is_some() {
            return;
        }
        let stop = match self.step_done() {
            Ok(stop) => stop,
            Err(error) => {
                self.broken.replace(Some(error));
                true
            }
        };
        if stop {
            // What stands in the middle of a block is given up.
            uc.get_data_mut().resume = Some(address);
            UnicornMachine::of(uc).stop(Stop::Break);
        }
    }

    /// One instruction was run: tells so, and waits for what is next. Whether the run stops here.
    fn step_done(&self) -> Result<bool, CellError> {
        let operation = Operation::RunOneInstruction;
        self.answer(&FromCell::Did { operation })?;
        match self.control()? {
            Control::GoOn => self.counts.watch.set(Watch::Block),
            Control::Stop => return Err(CellError::Stopped),
            // This instruction is the one to run.
            Control::Asked(ToCell::RunOneInstruction) => {}
            Control::Asked(ToCell::RunOneSlice) => self.counts.watch.set(Watch::Slice(SLICE)),
            Control::Asked(asked) => {
                self.counts.watch.set(Watch::Block);
                let back = asked == ToCell::LoadContext;
                self.pending.replace(Some(asked));
                // With nothing to go back to it is refused, and the block must be run to its end.
                return Ok(back && self.area.borrow().as_ref().is_some_and(|area| area.has_kept()));
            }
        }
        Ok(false)
    }

    fn refuse(&self, operation: Operation, reason: impl ToString) -> Result<(), Stopped> {
        let reason = reason.to_string();
        Ok(self.answer(&FromCell::Refused { operation, reason })?)
    }

    fn save(&self, run: &dyn Resume, pool: &Pool, running: Option<SpaceId>) -> Result<(), Stopped> {
        let operation = Operation::SaveContext;
        self.send_events()?;
        let (mut run, events) = match run.save() {
            Ok(saved) => saved,
            Err(error) => return self.refuse(operation, error.0),
        };
        run.running = running.map(|space| space.0);
        let mut area = self.area.try_borrow_mut().map_err(|_| busy("the area"))?;
        let Some(area) = area.as_mut() else {
            return self.refuse(operation, "the runner gave no room for contexts");
        };
        match area.keep(run, pool) {
            Ok((start, length)) => Ok(self.answer(&FromCell::Saved {
                start,
                length,
                events,
            })?),
            Err(error) => self.refuse(operation, error.0),
        }
    }

    fn dump(&self, run: &dyn Resume, pool: &mut Pool) -> Result<(), Stopped> {
        let operation = Operation::Dump;
        self.send_events()?;
        let cores = match run.cores(pool) {
            Ok(cores) => cores,
            Err(error) => return self.refuse(operation, error.0),
        };
        if cores.is_empty() {
            return self.refuse(operation, "no program has begun yet; let it run for a moment");
        }
        if cores.len() > MAX_CORES {
            let reason = format!(
                "there are {} processes, and at most {MAX_CORES} are dumped",
                cores.len()
            );
            return self.refuse(operation, reason);
        }
        let area = self.area.try_borrow().map_err(|_| busy("the area"))?;
        let Some(area) = area.as_ref() else {
            return self.refuse(operation, "the runner gave no room for core files");
        };
        match area.dump(&cores, pool, run.memory().saturating_add(CORES_MORE)) {
            Ok(start) => {
                let told = cores.iter().map(|core| Core {
                    name: CoreName::of(core.pid, &core.image),
                    length: core.length,
                });
                let cores = told.collect();
                Ok(self.answer(&FromCell::Dumped { start, cores })?)
            }
            Err(error) => self.refuse(operation, error.0),
        }
    }

    /// Goes back to what was kept last.
    fn load(&self, run: &dyn Resume, pool: &mut Pool) -> Result<Option<Next>, Stopped> {
        let operation = Operation::LoadContext;
        let mut area = self.area.try_borrow_mut().map_err(|_| busy("the area"))?;
        let Some(kept) = area.as_mut().and_then(|area| area.load(pool, run.memory())) else {
            drop(area);
            self.refuse(operation, "no context was kept")?;
            return Ok(None);
        };
        drop(area);
        let running = self.take_over(run, pool, &kept?)?;
        self.answer(&FromCell::Did { operation })?;
        Ok(Some(Next::Elsewhere(running)))
    }

    /// Makes a run become one whose machines are in the pool. Gives the machine that is in the middle of a step.
    pub(crate) fn take_over(
        &self,
        run: &dyn Resume,
        pool: &mut Pool,
        kept: &Run,
    ) -> Result<Option<SpaceId>, Stopped> {
        run.become_run(pool, kept)?;
        self.counts.watch.set(Watch::Free);
        Ok(kept.running.map(SpaceId))
    }
}
