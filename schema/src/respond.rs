//! What is done about a guest while it runs: `respond` of behaviour rules, `with.respond` of `qemu-user/linux`, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::finding::Severity;

/// What a rule asks for when it holds while a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// All of the guest is ended. What it gave until then is kept.
    Kill,
    /// All of the guest stands still, until its wall time is up; then it ends without having gone on.
    Freeze,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kill, Self::Freeze];

    /// Its name in rules and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
        }
    }
}

/// Rules that are judged while a guest runs: `with.respond` of `qemu-user/linux`. Those that have a `respond` act when they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RespondWith {
    /// Least severity of a rule that may act.
    pub at: Severity,
    /// Globs of rule files, from the manifest's folder; empty: those of `rules.behaviour`, or the shipped ones (none of which acts).
    pub rules: Vec<String>,
}

impl Default for RespondWith {
    fn default() -> Self {
        Self {
            at: Severity::Info,
            rules: Vec::new(),
        }
    }
}

/// What was done about a guest, and how soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// Who decided: the id of a rule, or `deny.NAME` for what `with.deny` ends a process for.
    pub rule: String,
    /// What was done.
    pub action: Action,
    /// `seq` of the event that decided. What had happened before stands before it.
    pub event: u64,
    /// Nanoseconds from that event to the end of the last process that was ended; to the last event, where the guest was frozen.
    pub latency: u64,
    /// System calls of those who were to end that came back after the deciding one.
    pub calls_after: u64,
}
