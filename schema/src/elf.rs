//! What static inspection found in a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts about an executable file (port `info` of `inspect/elf`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ElfInfo {
    /// Name of the arch profile that the header fits; absent: none.
    pub arch: Option<String>,
}
