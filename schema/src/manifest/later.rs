//! Parts of the manifest that later engines and host manifests read. They have their place now so that documents keep
//! their shape; a plan that would need them is refused with a clear word.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Size, Time};

/// Who may use which core.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Cores {
    /// The core of arbiter and runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4095))]
    pub control: Option<u32>,
    /// The core for loading, persisting, device emulation and inspection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4095))]
    pub chores: Option<u32>,
    /// The cores for guests: ranges and numbers, for instance `2-15` or `2-7,10,12-15`; `2-` means all from 2 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{1,4}(-([0-9]{1,4})?)?( ?, ?[0-9]{1,4}(-([0-9]{1,4})?)?)*$"))]
    pub pool: Option<String>,
    /// How long a cell runs before another has its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<Time>,
    /// The part of the pool that exclusive cells may hold, for instance `50%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(100|[1-9]?[0-9])%$"))]
    pub exclusive_max: Option<String>,
    /// How strictly cores are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Whether the arbiter runs before all that is not real-time; absent: `try`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_time: Option<RealTime>,
    /// What happens where the host has too few cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_small_host: Option<OnSmallHost>,
}

/// How strictly cores are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Cells are pinned.
    Affinity,
    /// Other work is kept off by cpusets.
    Cpuset,
    /// Cores are taken from the kernel's scheduler at boot.
    Isolated,
}

/// Whether the arbiter runs before all that is not real-time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RealTime {
    /// It runs like others.
    Off,
    /// Where the host lets it.
    Try,
    /// The run is refused where the host does not let it.
    Require,
}

/// What happens where the host has too few cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSmallHost {
    /// The plan is refused.
    Refuse,
    /// Cores are shared.
    Share,
}

/// A user of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// What the user may do.
    pub role: Role,
    /// User id on the host.
    #[schemars(range(max = 4_294_967_294u32))]
    pub uid: u32,
    /// What the user may take.
    #[serde(default)]
    pub quota: Quota,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Run experiments.
    User,
    /// Change the host.
    Admin,
}

/// What a user may take.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Quota {
    /// Cells at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<u32>,
    /// Cores held exclusively at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive_cores: Option<u32>,
    /// Memory of all cells at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Time on cores of all cells within a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Time>,
    /// Time that one cell may run; waiting for its turns is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<Time>,
    /// Bytes that the stages of one run may give out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Size>,
    /// Bytes that the user's store may have before a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Size>,
}

/// Which engines may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Engines {
    /// Names of stage types that run samples; absent: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// A guest's disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// How it is built, for instance `debian`; absent: it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// A ready image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name or alias of an arch profile.
    pub arch: String,
    /// Layers on top of each other: names or documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// A network of guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Who provides it, for instance `libvirt`.
    pub backend: String,
    /// How it is joined to the world, for instance `isolated`.
    pub mode: String,
    /// Its addresses, for instance `10.66.2.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

/// A machine to make guests of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Template {
    /// Kind of machine, for instance `virt`.
    pub kind: String,
    /// Name or alias of an arch profile.
    pub arch: String,
    /// Name of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Name of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Settings of this kind of machine.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub with: IndexMap<String, serde_json::Value>,
}
