//! What is made of a run beside what the guest itself made: layers of code, dumps of memory, coverage, texts.

pub(crate) mod coverage;
mod dump;
mod elf;
mod layer;
mod notes;
pub use dump::Core;
pub use layer::Kept;
mod strings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hotcell_schema::digest::Digest;
use hotcell_schema::job::LeftFile;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::machine::SpaceId;
use crate::made::coverage::Coverage;
use crate::made::strings::Strings;

/// What was made so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Code that was written and run.
    layers: Files,
    dumps: Files,
    /// Calls before which a process was dumped already.
    dumped: BTreeSet<(u32, String)>,
    pub(crate) coverage: BTreeMap<SpaceId, Coverage>,
    /// Blocks in all of it.
    blocks: u64,
    pub(crate) strings: Strings,
}

/// Files of one port, in the order in which they were made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Files {
    all: Vec<(String, Bytes)>,
    bytes: u64,
}

impl Files {
    /// Whether there is room for a file of so many bytes.
    fn has_room(&self, bytes: u64, most: usize, most_bytes: u64) -> bool {
        self.all.len() < most && self.bytes.saturating_add(bytes) <= most_bytes
    }

    fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.all.push((name, Bytes::of(bytes)));
    }

    fn give(self, outputs: &mut Outputs, port: &'static str) -> Vec<LeftFile> {
        self.all
            .into_iter()
            .map(|(name, bytes)| outputs.add(port, name, 0o644, &bytes))
            .collect()
    }
}

/// Contents of the files that a run hands over, by port and digest.
#[derive(Debug, Default)]
pub struct Outputs(pub BTreeMap<(&'static str, Digest), Arc<[u8]>>);

impl Outputs {
    pub(crate) fn add(&mut self, port: &'static str, path: String, mode: u32, bytes: &[u8]) -> LeftFile {
        let digest = Digest::of(bytes);
        self.0.entry((port, digest)).or_insert_with(|| bytes.into());
        LeftFile {
            path,
            mode,
            length: bytes.len() as u64,
            digest,
        }
    }
}

/// All that was made, as a result names it.
pub(crate) struct Given {
    pub(crate) layers: Vec<LeftFile>,
    pub(crate) dumps: Vec<LeftFile>,
    pub(crate) coverage: Vec<LeftFile>,
    pub(crate) strings: Vec<u8>,
}

impl Made {
    /// Hands everything over.
    pub(crate) fn give(self, outputs: &mut Outputs) -> Given {
        let mut number = BTreeMap::<u32, u32>::new();
        let coverage = self.coverage.into_values().map(|coverage| {
            let nth = number.entry(coverage.pid).or_default();
            *nth += 1;
            let name = format!("{}-{nth}.drcov", coverage.pid);
            outputs.add("coverage", name, 0o644, &coverage.file())
        });
        let coverage = coverage.collect();
        Given {
            layers: self.layers.give(outputs, "layers"),
            dumps: self.dumps.give(outputs, "dumps"),
            coverage,
            strings: self.strings.text(),
        }
    }
}
