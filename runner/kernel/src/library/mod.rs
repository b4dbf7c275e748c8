//! What a dynamically linked program calls in its libraries, with arguments.
//!
//! The driver tells when execution enters another mapping ([`Kernel::entered`]). A function was called if the place is what
//! one of the program's slots holds, and the return address is in the program. This holds for every architecture, however a
//! linker arranges the way there: a table of jumps, a call through the slot, a function that a loader chose among several
//! for this processor. A slot that is filled when its function is first called is read when the loader has done so.

mod functions;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::event::{self, What};
use hotcell_schema::guest::Address;
use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;
use crate::library::slots::{Slot, slots};
use crate::load::elf::Program;
use crate::machine::Machine;

/// Greatest number of places without a slot that are remembered: each costs a look at all slots.
const MAX_OTHERS: usize = 4096;

/// A program that is linked with libraries, in one address space.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Library {
    /// First address of the program and the first past it.
    program: (u64, u64),
    /// Slots that are not known to be filled.
    open: Vec<Slot>,
    /// Addresses of functions, and their names.
    known: BTreeMap<u64, String>,
    /// Where it has gone, though no slot says so: to its loader, for instance.
    others: BTreeSet<u64>,
}

impl Library {
    /// Of a program whose addresses count from a base; `None`: it calls nothing.
    pub(crate) fn of(file: &[u8], program: &Program, base: u64) -> Option<Self> {
        let first = program.segments.iter().map(|segment| segment.address).min()?;
        let end = program
            .segments
            .iter()
            .map(|segment| segment.address.saturating_add(segment.memory))
            .max()?;
        let mut open = slots(file);
        for slot in &mut open {
            slot.address = slot.address.wrapping_add(base);
        }
        (!open.is_empty()).then_some(Self {
            program: (first.wrapping_add(base), end.wrapping_add(base)),
            open,
            known: BTreeMap::new(),
            others: BTreeSet::new(),
        })
    }

    fn is_own(&self, address: u64) -> bool {
        (self.program.0..self.program.1).contains(&address)
    }
}

impl Kernel {
    /// Execution goes on at an address in another mapping than before. Gives the range in which this need not be told again.
    pub fn entered(&mut self, machine: &mut dyn Machine, at: u64) -> (u64, u64) {
        let nothing = (at, at.saturating_add(1));
        let Some(id) = self.tasks.get(&self.current).map(|task| task.space) else {
            return nothing;
        };
        let Some(mut library) = self.libraries.remove(&id) else {
            return (0, u64::MAX);
        };
        let range = self
            .spaces
            .get(&id)
            .map_or(nothing, |space| space.of_one_file(at));
        let from = self.returns_to(machine).filter(|from| library.is_own(*from));
        if let Some(from) = from.filter(|_| !library.is_own(at)) {
            let is_new = !library.known.contains_key(&at) && !library.others.contains(&at);
            if is_new && library.others.len() < MAX_OTHERS {
                self.read_slots(&mut library, machine);
            }
            match library.known.get(&at) {
                Some(name) => self.tell_library_call(machine, name, from),
                None if library.others.len() < MAX_OTHERS => {
                    library.others.insert(at);
                }
                None => {}
            }
        }
        self.libraries.insert(id, library);
        range
    }

    /// Which of the open slots are filled by now.
    fn read_slots(&self, library: &mut Library, machine: &dyn Machine) {
        let (own, known) = (library.program, &mut library.known);
        library.open.retain(|slot| {
            let value = self.word_at(machine, slot.address).map(|value| self.code(value));
            match value {
                // Before it is filled it leads back into the program.
                Some(value) if value != 0 && !(own.0..own.1).contains(&value) => {
                    known.entry(value).or_insert_with(|| slot.name.clone());
                    false
                }
                Some(_) => true,
                None => false,
            }
        });
    }

    /// An address of code without the bit that chooses an instruction set.
    fn code(&self, address: u64) -> u64 {
        let functions = self.profile.functions.as_ref();
        address & !functions.map_or(0, |functions| u64::from(functions.mode_bit))
    }

    fn word_at(&self, machine: &dyn Machine, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..self.abi.word() as usize)?;
        machine.read(address, bytes).ok()?;
        Some(match <[u8; 4]>::try_from(&*bytes) {
            Ok(bytes) => u64::from(self.abi.get_u32(bytes)),
            Err(_) => self.abi.get_u64(<[u8; 8]>::try_from(&*bytes).ok()?),
        })
    }

    /// At the first instruction of a function: where it returns to.
    fn returns_to(&self, machine: &dyn Machine) -> Option<u64> {
        let functions = self.registers.as_ref()?.functions.as_ref()?;
        let address = match functions.link {
            Some(link) => self.abi.cut(machine.get(link)),
            None => self.word_at(machine, self.abi.cut(machine.get(self.registers.as_ref()?.stack)))?,
        };
        Some(self.code(address))
    }

    fn tell_library_call(&mut self, machine: &mut dyn Machine, name: &str, from: u64) {
        let mut args = Vec::new();
        if let Some(row) = functions::find(name) {
            let raw = self.function_arguments(machine);
            args = self.about_to(machine, row, (0, false), &raw).args;
        }
        let what = event::Library {
            name: name.to_owned(),
            args,
            from: Address(from),
        };
        let task = self.event_task(self.pid_of(self.current), self.current);
        self.emit(task, What::Library(what));
    }

    /// The first words that a function is given.
    fn function_arguments(&self, machine: &dyn Machine) -> [u64; 8] {
        let mut words = [0; 8];
        let Some((registers, functions)) = self
            .registers
            .as_ref()
            .and_then(|registers| Some((registers, registers.functions.as_ref()?)))
        else {
            return words;
        };
        let stack = machine
            .get(registers.stack)
            .wrapping_add(functions.stack_arguments);
        let mut given = functions.arguments.iter();
        let mut behind = 0;
        for word in &mut words {
            *word = match given.next() {
                Some(register) => self.abi.cut(machine.get(*register)),
                None => {
                    let at = self.abi.cut(stack.wrapping_add(behind));
                    behind += self.abi.word();
                    self.word_at(machine, at).unwrap_or(0)
                }
            };
        }
        words
    }
}
