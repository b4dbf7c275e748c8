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
    /// The space that ran last.
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
    fn create(&mut self, space: SpaceId, copy_of: Option<SpaceId>) -> Result<(), MachineError> {
        let mut machine = self.make()?;
        if let Some(parent) = copy_of {
            let parent = self.machine(parent)?;
            let (guest, theirs) = (machine.uc.get_data_mut(), parent.uc.get_data());
            guest.written.replace(theirs.written.borrow().inherited());
            guest.copying = true;
            // A copy holds the same, for as long as nobody changes it.
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use hotcell_kernel::machine::Protection;

    use super::*;
    use crate::{context::Run, shape::Shape, tests::profile};

    const CODE: u64 = 0x1000;
    const DATA: u64 = 0x2000;

    /// Memory with bytes that came with it: as a kernel gives it.
    fn fill(pool: &mut Pool, space: SpaceId, came: u8) {
        let machine = pool.get(space).expect("there");
        machine.map(CODE, 0x1000, Protection(5)).expect("mapped");
        machine.map(DATA, 0x1000, Protection(7)).expect("mapped");
        for at in [CODE, DATA] {
            machine.write(at, &[came; 16]).expect("written");
        }
    }

    /// Whether a block of these bytes would be told as written.
    fn told(pool: &mut Pool, space: SpaceId, at: u64, bytes: &[u8]) -> bool {
        let mut machine = pool.machine(space).expect("there");
        let guest = machine.uc.get_data_mut();
        guest.written.borrow().asks(at, bytes.len() as u64) && guest.is_first(at, bytes)
    }

    #[test]
    fn a_copy_knows_what_its_parent_does_and_a_new_program_nothing() {
        let shape = Rc::new(Shape::new(&profile("x86_64")).expect("the profile suits"));
        let mut pool =
            Pool::new(move || UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User));
        let [parent, other, copy, new] = [1, 2, 3, 4].map(SpaceId);
        pool.create(parent, None).expect("made");
        fill(&mut pool, parent, 7);
        // The last that ran is another with the same mappings.
        pool.create(other, None).expect("made");
        fill(&mut pool, other, 9);
        pool.machine(other)
            .expect("there")
            .uc
            .get_data_mut()
            .written
            .get_mut()
            .guest_ran();

        pool.create(copy, Some(parent)).expect("made");
        fill(&mut pool, copy, 7);
        pool.get(copy).expect("there").is_copied();
        assert!(
            !told(&mut pool, copy, DATA, &[7; 16]),
            "it came with the parent's memory"
        );
        // What is put there afterwards, before it runs, did not: a tracer's breakpoint, or its code.
        pool.get(copy)
            .expect("there")
            .write(CODE, &[8; 16])
            .expect("written");
        assert!(told(&mut pool, copy, CODE, &[8; 16]));
        assert!(!told(&mut pool, parent, CODE, &[7; 16]));

        pool.create(new, None).expect("made");
        fill(&mut pool, new, 5);
        assert!(!told(&mut pool, new, DATA, &[5; 16]));
    }

    #[test]
    fn who_looks_leaves_no_trace() {
        let shape = Rc::new(Shape::new(&profile("x86_64")).expect("the profile suits"));
        let mut pool =
            Pool::new(move || UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User));
        let spaces = [1, 2].map(SpaceId);
        for space in spaces {
            pool.create(space, None).expect("made");
            fill(&mut pool, space, 7);
        }
        let mut seen = [[0; 16]; 2];
        let [looked, read] = spaces;
        pool.machine(looked)
            .expect("there")
            .look(DATA, &mut seen[0])
            .expect("mapped");
        pool.machine(read)
            .expect("there")
            .read(DATA, &mut seen[1])
            .expect("mapped");
        assert_eq!(seen, [[7; 16]; 2]);
        // What is loaded goes on being loaded; what was read may be the guest's own.
        for space in spaces {
            pool.get(space)
                .expect("there")
                .write(DATA, &[8; 16])
                .expect("written");
        }
        assert!(!told(&mut pool, looked, DATA, &[8; 16]));
        assert!(told(&mut pool, read, DATA, &[8; 16]));
        assert!(
            pool.machine(looked)
                .expect("there")
                .look(0x9000, &mut [0; 4])
                .is_err()
        );
    }

    /// What a block at the first address has, of six bytes.
    fn instructions(pool: &Pool, space: SpaceId) -> u32 {
        let mut machine = pool.machine(space).expect("there");
        let mut lengths = std::mem::take(&mut machine.uc.get_data_mut().lengths);
        let count = lengths.of(&mut machine.uc, CODE, 6);
        machine.uc.get_data_mut().lengths = lengths;
        count
    }

    #[test]
    fn a_machine_that_goes_back_to_a_context_counts_its_code_anew() {
        let shape = Rc::new(Shape::new(&profile("x86_64")).expect("the profile suits"));
        let mut pool =
            Pool::new(move || UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User));
        let space = SpaceId(1);
        pool.create(space, None).expect("made");
        fill(&mut pool, space, 0);
        let put = |pool: &mut Pool, code: &[u8]| {
            let machine = pool.get(space).expect("there");
            machine.write(CODE, code).expect("written");
            pool.machine(space)
                .expect("there")
                .uc
                .get_data_mut()
                .lengths
                .forget(CODE);
        };
        // Four times nop and a jump; a long nop and the jump.
        put(&mut pool, &[0x90, 0x90, 0x90, 0x90, 0xeb, 0xfe]);
        assert_eq!(instructions(&pool, space), 5);
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("room");
        let length = Run::new(Vec::new())
            .write(&pool, &file, 0, 1 << 20)
            .expect("kept");
        put(&mut pool, &[0x0f, 0x1f, 0x40, 0x00, 0xeb, 0xfe]);
        assert_eq!(instructions(&pool, space), 2);
        Run::read(&mut pool, &file, 0, length, 1 << 20).expect("read");
        assert_eq!(instructions(&pool, space), 5);
    }
}
