//! What several machines of a run have stands once in its saved context.

use std::{fs::File, rc::Rc};

use hotcell_kernel::machine::{MachineError, Machines, Protection, SpaceId};

use super::{DATA, memory_file, profile};
use crate::{context::Run, machine::UnicornMachine, pool::Pool, shape::Shape};

const PAGES: u64 = 64;
const LENGTH: u64 = PAGES * 0x1000;
const COPIES: u32 = 8;

fn pool() -> Pool {
    let shape = Rc::new(Shape::new(&profile("x86_64")).expect("the profile suits"));
    Pool::new(move || UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User))
}

fn saved(pool: &Pool, file: &File) -> u64 {
    Run::new(Vec::new())
        .write(pool, file, 0, 64 << 20)
        .expect("written")
}

fn byte(pool: &mut Pool, space: u32, at: u64) -> Result<u8, MachineError> {
    let mut byte = [0];
    let machine = pool
        .get(SpaceId(space))
        .ok_or_else(|| MachineError("none".into()))?;
    machine
        .read(at, &mut byte)
        .map_err(|error| MachineError(error.to_string()))?;
    Ok(byte[0])
}

#[test]
fn memory_that_machines_share_is_saved_once_and_shared_again() -> Result<(), MachineError> {
    let mut before = pool();
    for space in 0..=COPIES {
        before.create(SpaceId(space), None)?;
    }
    let first = before.get(SpaceId(0)).expect("it is there");
    first.map(DATA, LENGTH, Protection::READ_WRITE)?;
    for page in 0..PAGES {
        let written = first.write(DATA + page * 0x1000, &[page as u8 + 1; 0x1000]);
        assert!(written.is_ok());
    }
    for space in 1..=COPIES {
        let lent = before.get(SpaceId(0)).expect("it is there").lend(DATA, LENGTH)?;
        before
            .get(SpaceId(space))
            .expect("it is there")
            .borrow(DATA, Protection::READ_WRITE, lent)?;
    }
    let file = memory_file(64 << 20);
    let length = saved(&before, &file);
    // Once as it is, once as it was at first.
    assert!(length < 3 * LENGTH, "{length} bytes, {LENGTH} of them shared");

    let mut after = pool();
    Run::read(&mut after, &file, 0, length, 64 << 20)?;
    let last = DATA + LENGTH - 1;
    for space in 0..=COPIES {
        assert_eq!(byte(&mut after, space, DATA)?, 1);
        assert_eq!(byte(&mut after, space, last)?, PAGES as u8);
    }
    let third = after.get(SpaceId(3)).expect("it is there");
    assert!(third.write(last, &[200]).is_ok());
    for space in 0..=COPIES {
        assert_eq!(byte(&mut after, space, last)?, 200, "one memory again");
    }
    Ok(())
}

#[test]
fn what_stood_in_memory_at_first_is_kept_once_for_all_copies() -> Result<(), MachineError> {
    let mut before = pool();
    before.create(SpaceId(0), None)?;
    let first = before.get(SpaceId(0)).expect("it is there");
    // Filled in the go that maps it, as a program's data are.
    first.map(DATA, LENGTH, Protection::READ_WRITE)?;
    assert!(first.write(DATA, &vec![7; LENGTH as usize]).is_ok());
    let file = memory_file(64 << 20);
    let alone = saved(&before, &file);
    for space in 1..=COPIES {
        before.create(SpaceId(space), Some(SpaceId(0)))?;
    }
    let together = saved(&before, &file);
    assert!(
        together < alone + LENGTH,
        "{alone} bytes of one machine, {together} of all"
    );
    let mut after = pool();
    Run::read(&mut after, &file, 0, together, 64 << 20)?;
    assert_eq!(saved(&after, &memory_file(64 << 20)), together, "nothing is lost");
    Ok(())
}
