//! What a person declares.
//!
//! [`Manifest`] is the whole document, the same in TOML and YAML, after includes, variants and `--set` were merged. Its
//! doc comments become the descriptions of the JSON schema (`schema/manifest.schema.json`) and so the reference that
//! editors show.
//!
//! | module | what is in it |
//! |---|---|
//! | [`span`] | places in documents, and values that keep theirs |
//! | [`units`] | durations and sizes |
//! | [`wiring`] | axes, and values that may be one or a list |
//! | [`samples`] | sources and sets of samples |
//! | [`secrets`] | secrets by name |
//! | [`stages`] | stages, limits, expectations, goldens |
//! | [`later`] | what later engines and host manifests read |

pub mod later;
pub mod samples;
pub mod secrets;
pub mod span;
pub mod stages;
pub mod units;
pub mod wiring;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use later::{Cores, Engines, Image, Network, Quota, Template, User};
pub use samples::{SampleSet, Source, SourceKind};
pub use secrets::{Secret, SecretRef};
pub use span::{Span, Spanned};
pub use stages::{
    Expectation, Golden, GoldenPart, Hits, Limits, Presence, Priority, Stage, StageCores, TextExpectation,
};
pub use units::{Size, Time};
pub use wiring::{Axis, OneOrMany};

/// Version of the manifest language that this program reads.
pub const VERSION: u32 = 1;

/// A manifest: an experiment, or a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of the manifest language: 1.
    #[schemars(range(min = 1, max = 1))]
    pub hotcell: u32,
    /// What kind of document this is.
    #[serde(default)]
    pub kind: Kind,
    /// Name of the experiment: lower-case letters, digits, `-`, `_` and `.`. Absent: the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub name: Option<String>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Seed of all chance. The seed of each instance is derived from it.
    #[serde(default)]
    pub seed: u64,
    /// Documents merged before this one, in order: tables merge deeply, lists and values replace. Paths count from this
    /// document's folder and stay inside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Spanned<String>>,
    /// Variables: `${vars.<name>}` in any text of the document becomes the value. A text that is one `${vars.<name>}` alone
    /// takes the value's type. Variables may use each other; `--set vars.<name>=…` changes one.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9_]{0,63}$"}))]
    pub vars: IndexMap<String, Json>,
    /// Where bytes come from.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9_-]{0,63}$"}))]
    pub sources: IndexMap<String, Source>,
    /// Sets of samples.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub samples: IndexMap<String, SampleSet>,
    /// Rules by their kind.
    #[serde(default)]
    pub rules: Rules,
    /// Stages.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub stages: IndexMap<String, Stage>,
    /// What is expected of the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expectation>,
    /// Which parts of the result are compared with golden files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// Named changes to this manifest, merged when asked for (`--variant`).
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub variants: IndexMap<String, IndexMap<String, Json>>,
    /// Secrets by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub secrets: IndexMap<String, Secret>,
    /// Machines to make guests of.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub templates: IndexMap<String, Template>,
    /// Disk images of guests.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub images: IndexMap<String, Image>,
    /// Networks of guests.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub networks: IndexMap<String, Network>,
    /// Who may use which core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Cores>,
    /// Users of the host.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub users: IndexMap<String, User>,
    /// Which engines may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engines: Option<Engines>,
}

/// Kinds of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Samples, stages and expectations.
    #[default]
    Experiment,
    /// What a host offers and to whom.
    Host,
}

/// Rules by their kind: globs of files, from the folder of the document that says them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Rules {
    /// hotcell's own behaviour rules, for stages `detect/rules` that name none themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behaviour: Vec<Spanned<String>>,
    /// Sigma rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sigma: Vec<Spanned<String>>,
    /// YARA rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub yara: Vec<Spanned<String>>,
}
