//! What a run would do, as `hotcell plan --json` says it. Nothing of it is written anywhere.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::StageCores;
use crate::outcome::Status;
use crate::report::Selection;

/// Name of the forecast's format.
pub const FORMAT: &str = "hotcell-forecast";
/// Version of the forecast's format.
pub const VERSION: u32 = 1;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The experiment's name.
    pub name: String,
    /// Digest of the manifest after includes, variants and `--set`.
    pub manifest: Digest,
    /// Cells at once.
    pub jobs: u32,
    /// On which cores: `any` where none are reserved.
    pub cores: String,
    /// What of the plan was chosen, where not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The run that this is compared with: the latest of this experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Stages in an order in which each comes after what it reads.
    pub stages: IndexMap<String, StageForecast>,
    /// What goes from stage to stage.
    pub edges: Vec<StageEdge>,
    /// Instances in the plan's order.
    pub instances: Vec<InstanceForecast>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StageForecast {
    /// The stage type.
    pub uses: String,
    /// How many instances are known.
    pub instances: u64,
    /// How many of them are stored.
    pub cached: u64,
    /// How many would run.
    pub run: u64,
    /// How many wait for something that would run.
    pub wait: u64,
    /// How many become others.
    pub expand: u64,
    /// How many end at once.
    pub end: u64,
    /// What each instance wants of the pool's cores, where the manifest says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<StageCores>,
}

/// What goes from one stage, or set of samples, to another stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct StageEdge {
    /// The stage, or `samples.<set>`.
    pub from: String,
    /// The stage that reads.
    pub to: String,
    /// What joins them.
    pub kind: EdgeKind,
    /// The output port that is read; absent for order alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The input port it is wired to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// What joins two stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeKind {
    /// An output, or a sample's file, is wired to an input.
    Data,
    /// An axis goes over the files of an output.
    Items,
    /// A condition or a setting reads the result.
    Result,
    /// Order alone (`needs`).
    Order,
}

/// What a run would do with an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceForecast {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub short: String,
    /// The stage.
    pub stage: String,
    /// What a run would do.
    pub does: Does,
    /// Why, in words.
    pub why: String,
    /// Components of the cache key that are not what they were in the run this is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// The cache key, where it can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// The first instance that must run before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many instances it becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// The status with which it ends at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// What a run would do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// Take what is stored.
    Cached,
    /// Run it.
    Run,
    /// Something it reads must run first; then it runs, or is found stored after all.
    Wait,
    /// Make one instance of each item.
    Expand,
    /// End it at once.
    End,
}

impl Does {
    /// The word of the JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Run => "run",
            Self::Wait => "wait",
            Self::Expand => "expand",
            Self::End => "end",
        }
    }
}
