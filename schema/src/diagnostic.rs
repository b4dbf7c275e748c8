//! What is wrong with a manifest, for programs: editors, code review, CI. `hotcell validate --json` writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the format.
pub const FORMAT: &str = "hotcell-diagnostics";
/// Version of the format.
pub const VERSION: u32 = 1;

/// Everything that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Diagnostics {
    /// Always `hotcell-diagnostics`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// In the order of their places. Empty: nothing is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Diagnostic {
    /// Its code; `hotcell help <code>` explains it.
    pub code: String,
    /// How serious it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: String,
    /// Places; the first one is the main one. Empty when the file itself cannot be read.
    pub labels: Vec<Label>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// How serious a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The manifest cannot be used.
    Error,
}

/// A place and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Label {
    /// The file, as it was named; `--set` for the command line, `shipped:…` for what is part of the program.
    pub file: String,
    /// Where it begins.
    pub start: Position,
    /// Where it ends: the first character after it.
    pub end: Position,
    /// What is there; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Byte from the start of the file.
    pub byte: u32,
}
