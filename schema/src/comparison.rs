//! What two runs of one sample did, held against each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The comparison of two event streams by their behaviours: lines such as `file/written /etc/cron.d/x`, without what differs from run
/// to run (`json<comparison>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Always `hotcell-comparison`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// What was wired to `left`.
    pub left: Side,
    /// What was wired to `right`.
    pub right: Side,
    /// Behaviours that both have.
    pub same: u64,
    /// Behaviours that were left out because the settings say so, of either side.
    pub ignored: u64,
}

/// One of two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The stage type that ran it, for instance `unicorn/linux`.
    pub engine: String,
    /// The architecture.
    pub arch: String,
    /// What it alone did. Sorted.
    pub only: Vec<String>,
    /// What it alone has because the other's witness cannot see such things (the host's kernel sees no code written and run in memory
    /// of an emulator). Sorted; held against nobody.
    pub unseen_by_other: Vec<String>,
}

impl Comparison {
    /// Its name in a port's type.
    pub const PORT: &str = "comparison";

    /// Of the current version.
    pub fn new(left: Side, right: Side, same: u64, ignored: u64) -> Self {
        Self {
            format: "hotcell-comparison".into(),
            version: 1,
            left,
            right,
            same,
            ignored,
        }
    }
}
