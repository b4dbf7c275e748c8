//! Tests over the real emulator, for every architecture of the profiles.
//!
//! What this host or build cannot do is skipped with a line on standard error.
#![allow(clippy::print_stderr)]

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc};

use hotcell_cells::{
    cell_side::{CellError, Control},
    protocol::FromCell,
};
use hotcell_schema::{
    arch::ArchProfile,
    event::Event,
    guest::{Address, Hex},
    job::{Blob, MemoryIn, MemoryOut, PayloadJob, PayloadResult},
};

use crate::{
    context::Beginning,
    operate::{Operator, Outlet},
    sources::Sources,
};

mod clocks;
mod contexts;
mod faults;
mod linux;
mod machines;
mod operations;
mod payloads;
mod s390x;

/// The top folder of the project.
fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of memory of so many bytes.
fn memory_file(length: u64) -> std::fs::File {
    let name = c"contexts";
    let file =
        nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::empty()).expect("a memory file");
    let file = std::fs::File::from(file);
    file.set_len(length).expect("made longer");
    file
}

/// A shipped profile.
pub(crate) fn profile(name: &str) -> ArchProfile {
    let path = project().join(format!("arch-profiles/{name}.toml"));
    let text = std::fs::read_to_string(&path).expect("the profile is there");
    toml::from_str(&text).expect("the profile reads")
}

/// Keeps what happened.
#[derive(Default, Clone)]
struct Record(Rc<RefCell<Vec<Event>>>);

impl Outlet for Record {
    fn events(&mut self, events: Vec<Event>) -> Result<(), CellError> {
        self.0.borrow_mut().extend(events);
        Ok(())
    }

    fn control(&mut self) -> Result<Control, CellError> {
        Ok(Control::GoOn)
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn answer(&mut self, answer: &FromCell) -> Result<(), CellError> {
        panic!("nothing was asked: {answer:?}")
    }
}

impl Record {
    fn take(&self) -> Vec<Event> {
        self.0.take()
    }
}

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;

/// Runs raw code at [`CODE`], with a page of memory at [`DATA`].
fn run(
    arch: &str,
    code: &[u8],
    registers: &[(&str, u64)],
    change: impl FnOnce(&mut PayloadJob),
) -> PayloadResult {
    let job = job(arch, code, registers, change);
    let operator = Operator::new(Box::new(Record::default()), None);
    crate::payload::run(operator, &job, code, Sources::default(), Beginning::Program).expect("the job begins")
}

/// The job that [`run`] does.
fn job(
    arch: &str,
    code: &[u8],
    registers: &[(&str, u64)],
    change: impl FnOnce(&mut PayloadJob),
) -> PayloadJob {
    let mut job = PayloadJob {
        cell: "test".into(),
        arch: profile(arch),
        code: Blob {
            index: 0,
            length: code.len() as u64,
        },
        address: Address(CODE),
        until: None,
        registers: registers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Address(*value)))
            .collect(),
        memory: vec![MemoryIn {
            address: Address(DATA),
            length: 0x1000,
            bytes: Hex::default(),
        }],
        want_registers: Vec::new(),
        want_memory: vec![MemoryOut {
            address: Address(DATA),
            length: 8,
        }],
        instructions: 100_000,
        trace: 0,
    };
    change(&mut job);
    job
}

/// The bytes of a `.hex` file below `tests/guests/payload`.
fn code(name: &str) -> Vec<u8> {
    let path = project().join("tests/guests/payload").join(format!("{name}.hex"));
    hex::decode(std::fs::read_to_string(path).expect("the code is there").trim()).expect("hexadecimal")
}

/// What a register was at the end.
fn register(result: &PayloadResult, name: &str) -> u64 {
    let registers: &BTreeMap<String, Address> = &result.registers;
    registers.get(name).expect("the register was reported").0
}
