//! What goes on, a JSON object in each line of standard error (`--log-format json`). Never stored or compared by hotcell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::Status;

/// Name of the log's format.
pub const FORMAT: &str = "hotcell-log";
/// Version of the log's format.
pub const VERSION: u32 = 1;

/// One line. What a line's kind does not speak of is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// When, RFC 3339.
    pub time: String,
    /// What the line is about.
    pub kind: LogKind,
    /// `started`, `ended`, `expanded`: the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// `started`, `ended`, `expanded`: its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
    /// `ended`: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// `ended`: how the sample ended, where one ran just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// `ended`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `ended`: how often it was tried, where that was more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// `ended`: where it lies what a program left that did not end well: a path from the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// `ended`: where it stands what is known of its cell that broke: a path from the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// `ended`: wall seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<f64>,
    /// `expanded`: how many instances came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// `summary`: instances by status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// `summary`: the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `diagnostic`: `error` or `warning`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// `diagnostic`: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `diagnostic`: the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `diagnostic`: the line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// `diagnostic`: the column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// `diagnostic`, `message`, `error`: what is to be said. `ended`: what went wrong, with host details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `diagnostic`, `error`: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// `error`: the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// An instance began.
    Started,
    /// An instance ended.
    Ended,
    /// An axis over what an instance gave has become further instances.
    Expanded,
    /// The run is over.
    Summary,
    /// Something is wrong with a document.
    Diagnostic,
    /// Something to know.
    #[default]
    Message,
    /// The command could not do its work.
    Error,
}

/// Instances by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// They ran.
    pub ok: u64,
    /// Their outputs were stored.
    pub cached: u64,
    /// Our machinery failed.
    pub failed: u64,
    /// The host, or a person, stopped them.
    pub interrupted: u64,
    /// They were not wanted, or what they read was not there.
    pub skipped: u64,
    /// This host, or what the sample is, did not allow them.
    pub refused: u64,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, status: Status) {
        let count = match status {
            Status::Ok => &mut self.ok,
            Status::Cached => &mut self.cached,
            Status::Failed => &mut self.failed,
            Status::Interrupted => &mut self.interrupted,
            Status::Skipped => &mut self.skipped,
            Status::Refused => &mut self.refused,
        };
        *count += 1;
    }

    /// Each count with its word, in the order in which people want to read them.
    pub fn words(&self) -> [(u64, &'static str); 6] {
        [
            (self.ok, "ok"),
            (self.cached, "cached"),
            (self.failed, "failed"),
            (self.interrupted, "interrupted"),
            (self.refused, "refused"),
            (self.skipped, "skipped"),
        ]
    }
}
