//! Stages, their limits, and what is expected of them.

use std::num::NonZeroU32;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::span::Spanned;
use super::units::{Size, Time};
use super::wiring::{Axis, OneOrMany};
use crate::finding::Severity;
use crate::stage::outcome_limits;

/// One stage: a stage type, and what it is applied to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stage {
    /// The stage type, for instance `unicorn/linux`.
    pub uses: Spanned<String>,
    /// Axes: the stage is done once for each combination of their values. Names of axes are lower-case letters, digits and
    /// `_`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9_]{0,31}$"}))]
    pub for_each: IndexMap<String, Spanned<Axis>>,
    /// Inputs: port name to `stages.<stage>.out.<port>`, `stages.<stage>[*].out.<port>`, or `${<axis>.file}`.
    #[serde(default, rename = "in", skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, OneOrMany<String>>,
    /// Stages that must be done before, without giving anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Spanned<String>>,
    /// An expression; where it is false, the instance is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Spanned<String>>,
    /// Settings of the stage type. Texts may hold `${expression}`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub with: IndexMap<String, Json>,
    /// Limits of each instance.
    #[serde(default)]
    pub limits: Limits,
    /// What each instance wants of the pool's cores, in a stage that runs samples; the manifest has `[cores]` then. Absent:
    /// one core, in turns with others. Changes nothing of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<StageCores>,
    /// How often an instance that the host interrupted is tried again.
    #[serde(default)]
    #[schemars(range(max = 10))]
    pub retries: u8,
    /// Greatest number of values of an axis that is expanded at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_items: Option<u32>,
    /// How deep an axis that goes over this stage's own outputs is expanded: 1 goes over what the other stages gave, 2 also
    /// over what was found in that, and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_depth: Option<u8>,
}

/// What an instance wants of the pool's cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StageCores {
    /// How many cores it has at once, all or none; 1 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub count: Option<u32>,
    /// It keeps its cores until it ends, and takes no turns. Exclusive cells hold at most `cores.exclusive-max` of the pool
    /// together, at most half. On a small host that shares its cores it takes turns where it cannot be had.
    #[serde(skip_serializing_if = "is_false")]
    pub exclusive: bool,
    /// The core that it wants, of several the first; only where it is exclusive. Absent: any of the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4095))]
    pub core: Option<u32>,
    /// Who is served first. Who waits rises, so nobody waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

impl StageCores {
    /// How many cores it wants at once.
    pub fn wanted(&self) -> NonZeroU32 {
        self.count.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// It in words: `2 cores, exclusive, core 3, high priority`.
    pub fn words(&self) -> String {
        let count = match self.wanted().get() {
            1 => "1 core".to_owned(),
            many => format!("{many} cores"),
        };
        let hold = match self.exclusive {
            true => "exclusive",
            false => "in turns",
        };
        let core = self.core.map(|core| format!("core {core}"));
        let priority = self
            .priority
            .map(|priority| format!("{} priority", priority.word()));
        let words = [Some(count), Some(hold.to_owned()), core, priority];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// When nobody else wants to run.
    Low,
    /// As most.
    #[default]
    Normal,
    /// Before the others.
    High,
}

impl Priority {
    /// The word of the document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Limits of one instance. Reaching a limit of the guest is an outcome of the sample, the same on every machine; reaching
/// a limit of the host ends its guest's run there (`wall`; `cpu` where the guest runs on the host's own Linux), or interrupts the
/// instance (`cpu` elsewhere).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Limits {
    /// Virtual time of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_time: Option<Time>,
    /// Events in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// System calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<u64>,
    /// Instructions. Counting them makes the guest slower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// Guest memory, all processes together: what is mapped, whether it is touched or not. Of a command: what all its processes use and what they have written, 2 GiB unless
    /// said otherwise; on a host without control groups, the data of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Processes and threads at once. Of a command: 1024 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// Bytes in all files the guest writes, standard output and error included. Of a command: in one file, and in all outputs
    /// together, 256 MiB unless said otherwise; outputs and temporary files may have twice as many together, and 16 MiB, in at
    /// most 100,000 files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<Size>,
    /// Time on the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall: Option<Time>,
    /// Processor time of the host: of all processes together where the kernel counts them, else of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Time>,
}

/// Signals that can end a program, beside `SIGRT_<n>`.
pub const SIGNALS: &[&str] = &[
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// What a text that is an outcome looks like.
fn outcome_pattern() -> String {
    format!(
        "^(exited( (25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]))?|signalled( (SIGRT_[0-9]{{1,2}}|{}))?|faulted(: .+)?\
         |limit( ({}))?|unsupported(: .+)?|completed)$",
        SIGNALS.join("|"),
        outcome_limits().join("|")
    )
}

/// What is expected of instances. Each one that `where` and `stage` choose must fulfil everything else that is said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Expectation {
    /// An expression over `sample`, `stage`, `uses` and the axes; absent: everything.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<Spanned<String>>,
    /// The stage it is about; absent: for `hits` every stage that gives findings, for the rest every stage that runs
    /// samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Spanned<String>>,
    /// Rules that hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hits: Option<Hits>,
    /// How the sample ended: a kind (`exited`, `signalled`, `faulted`, `limit`, `unsupported`, `completed`) or a whole
    /// outcome (`exited 0`, `signalled SIGSEGV`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = outcome_pattern()))]
    pub outcome: Option<String>,
    /// What the sample did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behaviour: Option<Presence>,
    /// What it wrote to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<TextExpectation>,
}

/// Rules that hit: ids of rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Hits {
    /// All of these hit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// None of these hit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub none: Vec<String>,
    /// At least one of these hits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// Every hit is less severe than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity_below: Option<Severity>,
}

/// Lines of behaviour (`file/written /etc/cron.d/x`) by pattern; `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Presence {
    /// Each of these patterns fits at least one line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub present: Vec<String>,
    /// None of these patterns fits a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TextExpectation {
    /// It is exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// It has each of these in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
}

/// Which parts of a result are compared with golden files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Golden {
    /// Parts that are compared; absent: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub select: Vec<GoldenPart>,
    /// Stages that are compared; absent: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Spanned<String>>,
}

/// A part of an instance's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoldenPart {
    /// How the sample ended.
    Outcome,
    /// What the sample did, in lines.
    Behaviour,
    /// What rules and inspection concluded.
    Findings,
    /// Calls that the engine does not fully support.
    Unsupported,
    /// Digests of all outputs.
    Outputs,
}
