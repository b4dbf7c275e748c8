//! The syscall table: one row per call holds its numbers, its arguments' shape, how honestly it is supported, what typed
//! event follows from it, and its handler ([`rows`]).

mod rows;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use hotcell_schema::arch::AbiFamily;
use hotcell_schema::event::{FileOp, NetworkOp, Support};

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::call::{Handler, Names};
pub(crate) use shape::{Kind, Param, Shown, show};

/// How honestly a call is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As Linux does it.
    Full,
    /// Without this.
    Partial(&'static str),
    /// Always answered with this error, and why.
    Refused(Errno, &'static str),
    /// Known by name only: ENOSYS.
    Missing,
}

impl Level {
    /// The error that it is always answered with.
    pub(crate) fn answer(&self) -> Option<&'static str> {
        match self {
            Self::Full | Self::Partial(_) => None,
            Self::Refused(errno, _) => Some(errno.name()),
            Self::Missing => Some(Errno::ENOSYS.name()),
        }
    }

    /// As events and results say it.
    pub(crate) fn told(&self) -> (Support, &'static str) {
        match self {
            Self::Full => (Support::Full, ""),
            Self::Partial(missing) => (Support::Partial, missing),
            Self::Refused(_, why) => (Support::Refused, why),
            Self::Missing => (Support::Missing, ""),
        }
    }
}

/// What typed event follows from a call's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None, or the handler tells it.
    None,
    /// A file event about the first path.
    File(FileOp),
    /// A network event.
    Network(NetworkOp),
}

/// Column of each family in a row's numbers.
pub(crate) const FAMILIES: [AbiFamily; 9] = [
    AbiFamily::X86_64,
    AbiFamily::I386,
    AbiFamily::ArmEabi,
    AbiFamily::Generic64,
    AbiFamily::MipsO32,
    AbiFamily::MipsN64,
    AbiFamily::Ppc32,
    AbiFamily::Ppc64,
    AbiFamily::S390x,
];

/// One call.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Its number in each family of [`FAMILIES`]; [`rows::X`] where there is none.
    numbers: [u32; 9],
    /// As it stands in the table.
    #[allow(dead_code)]
    shape: &'static str,
    pub(crate) params: Vec<Param>,
    pub(crate) level: Level,
    pub(crate) effect: Effect,
    pub(crate) handler: Option<Handler>,
}

impl Row {
    /// What is no system call, but has arguments like one. `None`: they cannot be read.
    pub(crate) fn described(name: &'static str, arguments: &'static str) -> Option<Self> {
        Some(Self {
            name,
            numbers: [rows::X; 9],
            shape: arguments,
            params: shape::parse(arguments)?,
            level: Level::Full,
            effect: Effect::None,
            handler: None,
        })
    }

    /// Its number in a family.
    pub(crate) fn number(&self, family: AbiFamily) -> Option<u64> {
        let column = FAMILIES.iter().position(|one| *one == family)?;
        self.numbers
            .get(column)
            .filter(|number| **number != rows::X)
            .map(|number| u64::from(*number))
    }

    /// The call's arguments from the raw words: 64-bit ones take two words on a 32-bit ABI.
    pub(crate) fn words(&self, abi: &Abi, raw: &[u64; 8]) -> [u64; 8] {
        let mut words = [0; 8];
        let mut at = 0;
        let word = |at: usize| raw.get(at).copied().unwrap_or(0);
        for (place, param) in words.iter_mut().zip(&self.params) {
            if param.kind == Kind::Offset && !abi.wide {
                if abi.aligned_pairs {
                    at += at % 2;
                }
                *place = abi.join(word(at), word(at + 1));
                at += 2;
            } else {
                *place = word(at);
                at += 1;
            }
        }
        words
    }
}

/// All rows, with an index for each family.
pub(crate) struct Table {
    rows: Vec<Row>,
    by_number: [HashMap<u64, usize>; 9],
    by_name: Names,
}

impl Table {
    /// The call of this number.
    pub(crate) fn find(&self, family: AbiFamily, number: u64) -> Option<&Row> {
        let column = FAMILIES.iter().position(|one| *one == family)?;
        self.rows.get(*self.by_number.get(column)?.get(&number)?)
    }

    /// The call of this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Row> {
        self.rows.get(*self.by_name.get(name)?)
    }

    /// All rows, by name.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut rows: Vec<Row> = rows::rows();
    rows.sort_by_key(|row| row.name);
    let mut by_number: [HashMap<u64, usize>; 9] = Default::default();
    let mut by_name = Names::new();
    for (index, row) in rows.iter().enumerate() {
        by_name.insert(row.name, index);
        for (column, number) in by_number.iter_mut().zip(row.numbers) {
            if number != rows::X {
                column.insert(u64::from(number), index);
            }
        }
    }
    Table {
        rows,
        by_number,
        by_name,
    }
});

/// The table.
pub(crate) fn table() -> &'static Table {
    &TABLE
}
