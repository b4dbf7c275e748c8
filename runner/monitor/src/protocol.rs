//! What a runner and its monitor say to each other: one JSON value in a line, a question and its answer.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::deny::Deny;
use serde::{Deserialize, Serialize};

use crate::story::Sample;

/// Longest line, in bytes.
pub const MAX_LINE: u64 = 4 << 20;

/// What a runner asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Load the kernel part: the first question.
    Begin {
        /// Profile of the host's own architecture: it names system calls and how they look.
        host: Box<ArchProfile>,
        /// Bytes of the ring between the kernel and the monitor: a power of two.
        ring: u32,
    },
    /// Watch what a process of the host will make.
    Watch(Box<Watch>),
    /// The cell has ended: finish its file.
    End {
        /// Its number.
        cell: u32,
    },
}

/// What is watched, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Watch {
    /// The process: its children are watched, not it.
    pub pid: i32,
    /// What its guest may not do.
    pub deny: Deny,
    /// What the guest begins with.
    pub sample: Sample,
    /// File that events are written to, one in a line. It must not be there yet.
    pub events: PathBuf,
    /// Most events that are written there.
    pub most: u64,
    /// Somebody reads the events while they are written: each stands in the file soon.
    pub live: bool,
    /// Where those are written that are more. Who reads it makes holes where he has read, for it is not to grow.
    pub more: Option<PathBuf>,
}

/// What the monitor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// A cell is watched: its number, below [`CELLS`].
    Watched(u32),
    /// A cell's file is finished.
    Ended(Ended),
    /// It cannot be done: why.
    Failed(String),
}

/// What is known of a cell that was watched to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ended {
    /// When the first event was, by the kernel's clock (`CLOCK_MONOTONIC`) in nanoseconds: events count from there.
    pub began: Option<u64>,
    /// Processes that the kernel ended for what they did.
    pub denied: u64,
    /// Events in the file.
    pub written: u64,
    /// Events that were more than allowed.
    pub dropped: u64,
    /// Those of them that came so fast that whoever reads along will never see them.
    pub unjudged: u64,
    /// Records for which the ring had no room: what they said is not known.
    pub lost: u64,
    /// How often it was made to stand still, until what it had done was read or judged.
    pub stood: u64,
    /// How long in all, in nanoseconds.
    pub stood_ns: u64,
    /// System calls that came back, also those that no event tells of.
    pub calls: u64,
    /// How often a task of the cell got a processor.
    pub switches: u64,
    /// Bytes that were mapped in all.
    pub mapped: u64,
    /// The largest mapping, in bytes.
    pub largest: u64,
}

/// How many cells can be watched at once (`CELLS` of `record.h`).
pub const CELLS: u32 = 256;

/// Says one thing.
pub fn say(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Hears one thing; `None`: the other side has gone.
pub fn hear<T: for<'de> Deserialize<'de>>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    io::Read::take(&mut *from, MAX_LINE).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line that is too long, or half",
        )),
    }
}
