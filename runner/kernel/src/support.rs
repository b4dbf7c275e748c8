//! How far each system call is supported, for people: the same table that runs guests.

use hotcell_schema::arch::AbiFamily;
use hotcell_schema::event::Support;

use crate::table::{FAMILIES, table};

/// A system call and how far it is supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supported {
    /// Its name.
    pub name: &'static str,
    /// Its numbers, by the families of calling conventions that have it.
    pub numbers: Vec<(AbiFamily, u64)>,
    /// How far.
    pub support: Support,
    /// The error that it is always answered with, by name.
    pub answer: Option<&'static str>,
    /// What is missing, or why it is refused.
    pub note: &'static str,
}

impl Supported {
    /// Its number in a family.
    pub fn number(&self, family: AbiFamily) -> Option<u64> {
        let mut all = self.numbers.iter();
        all.find(|(one, _)| *one == family).map(|(_, number)| *number)
    }
}

/// All system calls that Linux has on any architecture, by name.
pub fn system_calls() -> Vec<Supported> {
    let rows = table().rows().iter();
    rows.map(|row| {
        let (support, note) = row.level.told();
        let numbers = FAMILIES
            .iter()
            .filter_map(|family| Some((*family, row.number(*family)?)));
        Supported {
            name: row.name,
            numbers: numbers.collect(),
            support,
            answer: row.level.answer(),
            note,
        }
    })
    .collect()
}
