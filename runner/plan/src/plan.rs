//! The plan: every stage instance, what it reads, and what must be done before. Plain data, the same bytes for the same
//! manifest and inputs; written as `plan.json` and by `hotcell plan --json`.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::job::GuestLimits;
use hotcell_schema::manifest::{Cores, Expectation, Golden, StageCores};
use hotcell_schema::persona::Persona;
use hotcell_schema::stage::PortType;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::reader::Package;
use crate::with::With;

/// Name of the plan's format.
pub const FORMAT: &str = "hotcell-plan";
/// Version of the plan's format.
pub const VERSION: u32 = 2;

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The experiment's name.
    pub name: String,
    /// Digest of the manifest after includes, variants and `--set`: of its JSON.
    pub manifest: Digest,
    /// The experiment's seed.
    pub seed: u64,
    /// Folder that sample paths and rule paths count from: that of the manifest. Not part of the written plan.
    #[serde(skip)]
    pub folder: Utf8PathBuf,
    /// Samples in the manifest's order. The same bytes can be in several sets.
    pub samples: Vec<Sample>,
    /// Archives that samples stand in ([`Origin::Member`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// Packages that sources resolved to, by the name of the source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, Package>,
    /// Stages in an order in which each comes after what it reads.
    pub stages: IndexMap<String, PlannedStage>,
    /// Instances: stage by stage, in the order of the axes' values. Each comes after what it reads.
    pub instances: Vec<Instance>,
    /// Arch profiles that instances name ([`Instance::arch`]).
    pub profiles: BTreeMap<String, ArchProfile>,
    /// Personas that instances name ([`Instance::persona`]).
    pub personas: BTreeMap<String, Persona>,
    /// Sets of rule files that instances name ([`Instance::rules`]).
    pub rule_sets: BTreeMap<String, RuleSet>,
    /// Files of the user's own programs that instances name ([`Instance::files`]).
    pub file_sets: BTreeMap<String, FileSet>,
    /// Roots of guests that instances name ([`Instance::sysroot`]). One that is not there is not known before a run has
    /// fetched its packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysroots: BTreeMap<String, Sysroot>,
    /// What is expected of the result.
    pub expect: Vec<Expectation>,
    /// Which parts of the result are compared with golden files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// Which cores are asked for; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Cores>,
    /// What the instances of stages want of them, by the stage's name. Apart from the stages: it is no part of what they do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stage_cores: BTreeMap<String, StageCores>,
}

/// Bytes that are a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Digest of its bytes: its id.
    pub digest: Digest,
    /// Its set (`samples.<set>`).
    pub set: String,
    /// File name, without its folder.
    pub name: String,
    /// Where its bytes are.
    pub origin: Origin,
    /// Length in bytes; 0 when it is absent.
    pub length: u64,
    /// Arch profile that its ELF header fits; absent: no ELF file, or none fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Variant within the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Free label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Where the bytes of a sample are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file: its path from the plan's folder; see [`Plan::path`].
    File(Utf8PathBuf),
    /// A member of an archive, found in it by the sample's digest.
    Member {
        /// Index in [`Plan::archives`].
        archive: usize,
        /// The member's name as the archive says it: for people, never a path on the host.
        name: String,
    },
    /// The store, under the sample's digest: it was fetched.
    Object,
    /// Nowhere: it is listed, and its source does not have it. What is about it is skipped.
    Absent,
}

impl Origin {
    /// The origin in a line, for people.
    pub fn shown(&self, archives: &[Archive]) -> String {
        match self {
            Self::File(path) => path.to_string(),
            Self::Member { archive, name } => match archives.get(*archive) {
                // The name is as hostile as the archive.
                Some(archive) => format!("{}:{}", archive.name, name.replace(char::is_control, "\u{fffd}")),
                None => "?".into(),
            },
            Self::Object => "the store".into(),
            Self::Absent => "nowhere".into(),
        }
    }
}

/// An archive that samples stand in. Only a confined process reads what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
    /// Its name for people: the path that the manifest leads to, or the package.
    pub name: String,
    /// Path from the plan's folder; absent: it was fetched and stands in the store under its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Utf8PathBuf>,
    /// Name of the secret that is its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A stage and the place of its instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// The stage type.
    pub uses: String,
    /// Names of its axes, in order.
    pub axes: Vec<String>,
    /// Index of its first instance in [`Plan::instances`].
    pub first: usize,
    /// How many instances it has; they follow each other.
    pub count: usize,
    /// What it gives: output port to its type.
    pub outputs: IndexMap<String, PortType>,
    /// Limits of each instance.
    pub limits: PlannedLimits,
    /// How often an instance is tried again when the host interrupted it.
    pub retries: u8,
    /// The axis that is expanded at run time, where there is one. The stage's instances in the plan are then points: each
    /// becomes as many instances as there are items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<Expansion>,
}

/// An axis that is expanded at run time, over the files that other instances gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expansion {
    /// Name of the axis.
    pub axis: String,
    /// Output port of the stage itself over whose files the axis goes too, one level deeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
    /// Greatest number of items of one point.
    pub max_items: u32,
    /// Greatest number of levels; 1 where the axis does not go over the stage's own outputs.
    pub max_depth: u8,
}

impl PlannedStage {
    /// Indexes of its instances.
    pub fn instances(&self) -> std::ops::Range<usize> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// One thing to do: a stage with one value for each of its axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name: the stage and the values, `run[sample=<digest>]`.
    pub name: String,
    /// Its folder under `result/stages/<stage>/`. Unique in its stage.
    pub slug: String,
    /// The stage.
    pub stage: String,
    /// The stage type: a row of [`hotcell_schema::stage::STAGE_TYPES`].
    pub uses: String,
    /// Values of the axes, in the order of their names.
    pub axes: IndexMap<String, AxisValue>,
    /// `with`, read into the stage type's own struct and written again with every default: `with.read::<LinuxWith>()` and
    /// its like read it.
    pub with: With,
    /// The results that `with` still needs: it then holds `${}`, which are filled in at run time. Absent: `with` is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// Inputs: port to what is wired to it, in order.
    pub inputs: IndexMap<String, Vec<Wire>>,
    /// Instances that must be done before without giving anything (`needs`), beside those that give inputs and those that
    /// `when` reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<After>,
    /// Condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Seed of all chance in it: from the manifest's seed, the stage and the axes' values.
    pub seed: Digest,
    /// Name of the arch profile it runs on (a key of [`Plan::profiles`]): `with.arch`, or that of the sample wired to
    /// `file`. Absent: its stage type runs nothing, or it must be found from the bytes at run time
    /// ([`crate::profiles::Profiles::find_by_header`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Key of [`Plan::personas`], where the stage type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Key of [`Plan::rule_sets`], where the stage type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Key of [`Plan::file_sets`], where the stage type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Key of [`Plan::sysroots`], where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysroot: Option<String>,
    /// Key of [`Plan::sysroots`] of what the web servers of its internet give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<String>,
    /// The outputs whose files become the items of this point; empty for every other instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expands: Vec<Wire>,
}

/// What settings need before they are final.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Late {
    /// Instances whose results they read, by the name of their stage.
    pub reads: BTreeMap<String, usize>,
}

/// Value of an axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AxisValue {
    /// A sample: its index in [`Plan::samples`].
    Sample(usize),
    /// A value written out in the manifest.
    Literal(Json),
    /// A file that an earlier instance gave: a value of an axis that is expanded at run time.
    Item(Item),
}

/// A file that an earlier instance gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Digest of its bytes: its name as a value.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
    /// Path under which it was given, for instance that in the guest.
    pub path: String,
    /// How deep it was found: 1 for what other stages gave.
    pub depth: u8,
}

/// What is wired to an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    /// The file of a sample: its index in [`Plan::samples`].
    Sample(usize),
    /// An output of one instance.
    Output {
        /// Index in [`Plan::instances`].
        instance: usize,
        /// Output port.
        port: String,
    },
    /// An output of all instances of a stage, in their order (`[*]`).
    All {
        /// The stage.
        stage: String,
        /// Output port.
        port: String,
    },
    /// The file of the item that an instance of an expanded stage is about.
    Item,
    /// Of a point's instances, an output of the one with the same item.
    Same {
        /// The point: index in [`Plan::instances`].
        point: usize,
        /// Output port.
        port: String,
    },
    /// An output of all instances of a point.
    Point {
        /// The point: index in [`Plan::instances`].
        point: usize,
        /// Output port.
        port: String,
    },
}

/// What must be done before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// One instance: index in [`Plan::instances`].
    Instance(usize),
    /// All instances of a stage.
    Stage(String),
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// The expression as it is written.
    pub expression: String,
    /// Instances whose results it reads, by the name of their stage.
    pub reads: BTreeMap<String, usize>,
    /// Its value, when it reads no results and so is known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<bool>,
}

/// Limits of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlannedLimits {
    /// Of the guest: reaching one is an outcome.
    pub guest: GuestLimits,
    /// Wall time in nanoseconds: reaching it ends the guest's run, or interrupts the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<u64>,
    /// Processor time in nanoseconds: reaching it interrupts the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// What the manifest itself says, for programs of the user's own.
    #[serde(default, skip_serializing_if = "AskedLimits::is_empty")]
    pub asked: AskedLimits,
}

/// Limits that the manifest says for the processes of a program of the user's own. What it does not say has no default, since
/// these limits cost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskedLimits {
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// Bytes of one file, and of all outputs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

impl AskedLimits {
    /// Whether it says nothing.
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A set of rule files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// Digest of all names and contents.
    pub digest: Digest,
    /// Files in order. Their text is not part of the written plan.
    pub files: Vec<RuleFile>,
}

/// Files of the user's own that a program needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    /// Digest of all names and contents.
    pub digest: Digest,
    /// Files in the order of their names.
    pub files: Vec<OwnFile>,
}

/// A file of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFile {
    /// Name in the program's work folder: its path from the folder of the document that names it.
    pub name: String,
    /// Where it stands. Not part of the written plan.
    #[serde(skip)]
    pub path: Utf8PathBuf,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
    /// Whether it may be executed.
    #[serde(default)]
    pub executable: bool,
}

/// The root of a guest, from the sources that a stage names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysroot {
    /// Digest of all names and what stands there.
    pub digest: Digest,
    /// How many names it has.
    pub names: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Names by their absolute guest path. Not part of the written plan.
    #[serde(skip)]
    pub entries: BTreeMap<String, RootName>,
}

/// What stands at a path of a guest's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootName {
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: RootKind,
}

/// What a name of a guest's root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKind {
    /// A folder.
    Directory,
    /// A symbolic link: the text that it holds.
    Link(String),
    /// A file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Length in bytes.
        length: u64,
        /// Where they are.
        origin: Origin,
    },
}

/// A rule file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFile {
    /// Path from the plan's folder, or `shipped:<name>`.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its text. Not part of the written plan.
    #[serde(skip)]
    pub text: String,
}

impl Plan {
    /// Where the file of a path of this plan is ([`Origin::File`], [`Archive::path`]).
    pub fn path(&self, path: &Utf8Path) -> Utf8PathBuf {
        self.folder.join(path)
    }

    /// The file of a sample that is one.
    pub fn sample_file(&self, sample: &Sample) -> Option<Utf8PathBuf> {
        match &sample.origin {
            Origin::File(path) => Some(self.path(path)),
            _ => None,
        }
    }

    /// Whether an instance is about a sample that is listed and nowhere to be found.
    pub fn is_absent(&self, instance: &Instance) -> bool {
        let absent = |index: &usize| {
            let sample = self.samples.get(*index);
            sample.is_some_and(|sample| sample.origin == Origin::Absent)
        };
        let on_axes = instance.axes.values().filter_map(|value| match value {
            AxisValue::Sample(index) => Some(index),
            _ => None,
        });
        let wired = instance.inputs.values().flatten().filter_map(|wire| match wire {
            Wire::Sample(index) => Some(index),
            _ => None,
        });
        on_axes.chain(wired).any(absent)
    }

    /// The sample that an instance is about: that of its axis `sample`, or of its only sample axis.
    pub fn sample_of(&self, instance: &Instance) -> Option<&Sample> {
        let index_of = |value: &AxisValue| match value {
            AxisValue::Sample(index) => Some(*index),
            AxisValue::Literal(_) | AxisValue::Item(_) => None,
        };
        let index = instance
            .axes
            .get("sample")
            .and_then(index_of)
            .or_else(|| instance.axes.values().find_map(index_of))?;
        self.samples.get(index)
    }

    /// Axes of an instance as text, for reports: a sample by its digest.
    pub fn axis_texts(&self, instance: &Instance) -> IndexMap<String, String> {
        instance
            .axes
            .iter()
            .map(|(name, value)| (name.clone(), self.axis_text(value)))
            .collect()
    }

    /// A value of an axis as text: a sample by its digest, a text as it is, a table by its `name`, anything else as JSON.
    pub fn axis_text(&self, value: &AxisValue) -> String {
        match value {
            AxisValue::Sample(index) => self
                .samples
                .get(*index)
                .map(|sample| sample.digest.to_string())
                .unwrap_or_default(),
            AxisValue::Literal(value) => literal_text(value),
            AxisValue::Item(item) => item.digest.to_string(),
        }
    }
}

/// A literal value as text: a text as it is, a table by its `name`, anything else as JSON.
pub(crate) fn literal_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(table) => match table.get("name") {
            Some(Json::String(name)) => name.clone(),
            _ => Digest::of(value.to_string().as_bytes()).short(),
        },
        other => other.to_string(),
    }
}

impl Item {
    /// The item as expressions see it.
    pub fn context(&self) -> Json {
        serde_json::json!({
            "digest": self.digest,
            "path": self.path,
            "name": self.name(),
            "length": self.length,
            "depth": self.depth,
        })
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl Sample {
    /// The sample as expressions see it. What is not known is null.
    pub fn context(&self) -> Json {
        serde_json::json!({
            "digest": self.digest,
            "set": self.set,
            "name": self.name,
            "family": self.family,
            "variant": self.variant,
            "label": self.label,
            "arch": self.arch,
            "length": self.length,
        })
    }
}
