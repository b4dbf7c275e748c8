//! The machines of a run.

use std::collections::BTreeMap;

use hotcell_kernel::machine::{Machine, MachineError, Machines, SpaceId};

use crate::machine::UnicornMachine;

/// How a machine is made, with its hooks.
type Make = dyn Fn() -> Result<UnicornMachine<'static>, MachineError>;

/// All machines of a run.
pub(crate) struct Pool {
    make: Box<Make>,
    machines: BTreeMap<SpaceId, UnicornMachine<'static>>,
    /// The space that ran last: a new one may be its copy.
    pub(crate) last: Option<SpaceId>,
}

impl Pool {
    /// No machines, and how one is made.
    pub(crate) fn new(make: impl Fn() -> Result<UnicornMachine<'static>, MachineError> + 'static) -> Self {
        Self {
            make: Box::new(make),
            machines: BTreeMap::new(),
            last: None,
        }
    }

    /// A new machine, which is not in the pool.
    pub(crate) fn make(&self) -> Result<UnicornMachine<'static>, MachineError> {
        (self.make)()
    }

    /// Another handle of a machine.
    pub(crate) fn machine(&self, space: SpaceId) -> Result<UnicornMachine<'static>, MachineError> {
        let machine = self.machines.get(&space).cloned();
        machine.ok_or_else(|| MachineError(format!("there is no machine {}", space.0)))
    }

    /// All machines, in order.
    pub(crate) fn machines(&self) -> impl Iterator<Item = (SpaceId, &UnicornMachine<'static>)> {
        self.machines.iter().map(|(space, machine)| (*space, machine))
    }

    /// All machines, which are gone from the pool.
    pub(crate) fn take_machines(&mut self) -> BTreeMap<SpaceId, UnicornMachine<'static>> {
        std::mem::take(&mut self.machines)
    }

    /// Puts a machine in. Whether there was one.
    pub(crate) fn put(&mut self, space: SpaceId, machine: UnicornMachine<'static>) -> bool {
        self.machines.insert(space, machine).is_some()
    }
}

impl Machines for Pool {
    fn create(&mut self, space: SpaceId) -> Result<(), MachineError> {
        let mut machine = self.make()?;
        let last = self.last.and_then(|last| self.machines.get(&last));
        if let Some(parent) = last {
            let (guest, theirs) = (machine.uc.get_data_mut(), parent.uc.get_data());
            let written = theirs.written.borrow().inherited();
            guest.parent = Some((parent.mapped(), written));
            // A copy holds the same, for as long as nobody changes it. A new program takes its own in their place.
            guest.origins = theirs.origins.clone();
        }
        self.machines.insert(space, machine);
        Ok(())
    }

    fn destroy(&mut self, space: SpaceId) {
        self.machines.remove(&space);
    }

    fn get(&mut self, space: SpaceId) -> Option<&mut dyn Machine> {
        let machine = self.machines.get_mut(&space);
        machine.map(|machine| machine as &mut dyn Machine)
    }
}
