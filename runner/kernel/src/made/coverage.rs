//! Which code ran: blocks as the emulator translated them, in the format `drcov` (version 2) that DynamoRIO's tool of this
//! name made and disassemblers' plug-ins read.
//!
//! A block is told when it is translated, which is when it is about to run for the first time: this costs nothing while
//! code runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;
use crate::mapping::Backing;
use crate::space::AddressSpace;

/// Greatest number of blocks of all programs of a run.
const MAX_BLOCKS: u64 = 1_000_000;
/// Greatest number of modules of one program: the format has 16 bits for them.
const MAX_MODULES: usize = 4096;

/// What ran of one address space, which is one program: another begins with execve, and a copy with fork.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Coverage {
    pub(crate) pid: u32,
    modules: Vec<Module>,
    /// Module, offset from its base, length.
    blocks: BTreeSet<(u16, u32, u16)>,
}

/// A file that is mapped, or memory without a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Module {
    path: String,
    base: u64,
    end: u64,
}

impl Kernel {
    /// A block of code was translated and is about to run. Need only be told where the job's `watch` asks for coverage.
    pub fn translated(&mut self, start: u64, length: u64) {
        if !self.watch.coverage {
            return;
        }
        let Some(task) = self.tasks.get(&self.current) else {
            return;
        };
        let (id, pid) = (task.space, task.pid);
        let Some(space) = self.spaces.get(&id) else {
            return;
        };
        let coverage = self.made.coverage.entry(id).or_insert_with(|| Coverage {
            pid,
            modules: Vec::new(),
            blocks: BTreeSet::new(),
        });
        if coverage.add(space, start, length) {
            self.made.blocks += 1;
            if self.made.blocks >= MAX_BLOCKS {
                self.limit("coverage", MAX_BLOCKS);
            }
        }
    }
}

impl Coverage {
    /// Notes a block; whether it is new.
    fn add(&mut self, space: &AddressSpace, start: u64, length: u64) -> bool {
        let Some(module) = module(space, start) else {
            return false;
        };
        // A file may be mapped in several places, and a place may hold one after the other.
        let known = self
            .modules
            .iter()
            .rposition(|known| known.path == module.path && known.base == module.base);
        let index = match known {
            Some(index) => index,
            None if self.modules.len() < MAX_MODULES => {
                self.modules.push(module);
                self.modules.len() - 1
            }
            None => return false,
        };
        let base = self.modules.get(index).map_or(0, |module| module.base);
        let block = (
            u16::try_from(index).ok(),
            u32::try_from(start.wrapping_sub(base)).ok(),
            u16::try_from(length).ok(),
        );
        let (Some(index), Some(offset), Some(length)) = block else {
            return false;
        };
        self.blocks.insert((index, offset, length))
    }

    /// The file.
    pub(super) fn file(&self) -> Vec<u8> {
        let mut text = format!(
            "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov\nModule Table: version 2, count {}\n\
             Columns: id, base, end, entry, path\n",
            self.modules.len()
        );
        for (id, module) in self.modules.iter().enumerate() {
            let _ = writeln!(
                text,
                "{id:3}, {:#018x}, {:#018x}, {:#018x}, {}",
                module.base, module.end, 0, module.path
            );
        }
        let _ = writeln!(text, "BB Table: {} bbs", self.blocks.len());
        let mut file = text.into_bytes();
        for (module, offset, length) in &self.blocks {
            // drcov's bb_entry_t: little-endian on every architecture.
            file.extend(offset.to_le_bytes());
            file.extend(length.to_le_bytes());
            file.extend(module.to_le_bytes());
        }
        file
    }
}

/// The module that an address is in: the mappings of its file, one behind the other.
fn module(space: &AddressSpace, at: u64) -> Option<Module> {
    let (start, mapping) = space.find(at)?;
    let (base, end) = space.of_one_file(at);
    let path = match &mapping.backing {
        // A comma and a line feed would end the column and the line.
        Backing::File { path, .. } => {
            path.replace(|character: char| character == ',' || character.is_control(), "?")
        }
        _ => format!("[memory at {start:#x}]"),
    };
    Some(Module { path, base, end })
}
