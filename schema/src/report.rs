//! The result of a run, without anything of the host; and the host's facts, apart.
//!
//! [`Report`] is `result/report.json`: hashed, compared, the same on every machine. [`RunFacts`] is `run.json`: times,
//! host and losses; never compared.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::job::UnsupportedCall;
use crate::outcome::{Outcome, Status};
use crate::respond::Response;

/// Name of the report format.
pub const FORMAT: &str = "hotcell-report";
/// Version of the report format.
pub const VERSION: u32 = 1;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The experiment's name.
    pub name: String,
    /// Digest of the manifest after includes and variants.
    pub manifest: Digest,
    /// The experiment's seed.
    pub seed: u64,
    /// Version of hotcell that made the result.
    pub hotcell: String,
    /// Names of the manifest's variants that were chosen, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// What of the plan was run, where not all of it: the rest is not in this report, and nothing is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// What ran: engine name to identity (version, digest).
    pub engines: IndexMap<String, String>,
    /// Samples by id, in the manifest's order.
    pub samples: IndexMap<String, SampleReport>,
    /// Every stage instance, in the plan's order.
    pub instances: Vec<InstanceReport>,
    /// The ATT&CK techniques that findings name, by id.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub attack: IndexMap<String, Technique>,
}

/// What of a plan was chosen to run, with everything it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Selection {
    /// Patterns of stages and instances (`--only`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// The last stages (`--until`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<String>,
    /// Whether it is what did not end well in the run before (`--rerun-failed`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub rerun_failed: bool,
    /// How many of the plan's instances were left out.
    pub left_out: u64,
}

impl Selection {
    /// What was asked for, in words.
    pub fn words(&self) -> String {
        let only = self.only.iter().map(|pattern| format!("--only {pattern}"));
        let until = self.until.iter().map(|stage| format!("--until {stage}"));
        let again = self.rerun_failed.then(|| "--rerun-failed".to_owned());
        let words: Vec<String> = only.chain(until).chain(again).collect();
        let left_out = match self.left_out {
            1 => "1 instance was left out".to_owned(),
            many => format!("{many} instances were left out"),
        };
        format!("{}; {left_out}", words.join(" "))
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An ATT&CK technique, named so that a reader of the report needs no other source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Technique {
    /// Its name, for instance `Scheduled Task/Job: Cron`.
    pub name: String,
    /// The tactics it serves, for instance `persistence`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tactics: Vec<String>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleReport {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Set of samples it belongs to (`samples.<set>`); where these are several, the first.
    pub set: String,
    /// All sets it belongs to, where these are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// File name, without its folder.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// Architecture, where inspection or the engine told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Family, as the manifest has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Variant within the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Free label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Greatest severity of all findings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

impl SampleReport {
    /// Every set that it belongs to.
    pub fn all_sets(&self) -> impl Iterator<Item = &str> {
        let first = self.sets.is_empty().then_some(&self.set);
        first.into_iter().chain(&self.sets).map(String::as_str)
    }

    /// Its sets for people.
    pub fn sets_in_words(&self) -> String {
        self.all_sets().collect::<Vec<_>>().join(", ")
    }
}

impl InstanceReport {
    /// Whether its sample could not be run here: its outputs are empty, and say nothing of the sample.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Unsupported(_)))
    }

    /// Whether the host's clock ended its sample: what it did until then differs from run to run.
    pub fn is_cut_short(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_of_wall_time)
    }
}

impl Report {
    /// The sample that an instance is about, if any: what it says itself; else the one of the axis `sample`; else the first of
    /// its axis values that is a sample's id.
    pub fn sample_of(&self, instance: &InstanceReport) -> Option<(&str, &SampleReport)> {
        let ids = instance
            .sample
            .iter()
            .chain(instance.axes.get("sample"))
            .chain(instance.axes.values());
        let mut known = ids.filter_map(|id| self.samples.get_key_value(id.as_str()));
        known.next().map(|(id, sample)| (id.as_str(), sample))
    }

    /// The instances that are about one sample, in the plan's order.
    pub fn instances_of<'a>(&'a self, sample: &'a str) -> impl Iterator<Item = &'a InstanceReport> {
        self.instances
            .iter()
            .filter(move |instance| self.sample_of(instance).is_some_and(|(id, _)| id == sample))
    }
}

/// One stage instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceReport {
    /// Name of the instance: the stage, and the values of its axes.
    pub name: String,
    /// The stage.
    pub stage: String,
    /// What the stage uses.
    pub uses: String,
    /// Axis values: axis name to value (a sample's id, or a literal).
    pub axes: IndexMap<String, String>,
    /// Id of the sample that it is about, where its axes alone would say another: the one whose file it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// Name of the arch profile, where the stage has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// How it ended for us; never `cached`.
    pub status: Status,
    /// Why it was skipped, refused, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sample's outcome, where the stage ran one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Outputs: port to what it holds.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, OutputReport>,
    /// Findings, where the stage has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Calls the engine does not fully support.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<UnsupportedCall>,
    /// What was done about the sample while it ran, and how soon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Response>,
    /// What the sample did, in behaviours: `file/written /etc/cron.d/x`. Sorted, each once: for matrices and goldens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behaviour: Vec<String>,
}

/// What an output port holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputReport {
    /// Path within `result/`.
    pub path: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
}

/// Facts of the host about a run (`run.json`): never hashed, never compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RunFacts {
    /// Always `hotcell-run`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The experiment's name; empty in files of before it was told here.
    #[serde(default)]
    pub experiment: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// Wall seconds it took.
    pub wall_s: f64,
    /// The host in a line: system, kernel, machine, processors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// How it was called: command, manifest, options; without values of secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub called: Vec<String>,
    /// Version of hotcell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hotcell: String,
    /// Variants that were chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// What of the plan was run, where not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Cells at once (`-j`).
    pub jobs: u32,
    /// How far processor cores were kept free of other work for it: `none`, or for instance `affinity`. What holds cells and
    /// commands is in `confinement`.
    pub isolation: String,
    /// What its cores did, where it had cores (`[cores]`); each turn is in `turns.jsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<CoresFacts>,
    /// Confinement layers of cells that hold on this host.
    pub confinement: Vec<String>,
    /// What could not be had here, and what was done instead.
    pub fallbacks: Vec<String>,
    /// Instances by name.
    pub instances: IndexMap<String, InstanceFacts>,
}

/// Facts about the cores of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CoresFacts {
    /// Seconds of the common slice.
    pub slice_s: f64,
    /// Turns that cells had.
    pub turns: u64,
    /// How often a core went from one cell to another.
    pub switches: u64,
    /// Seconds that a cell that shares its core was ready and had to wait, at the longest.
    pub longest_wait_s: f64,
    /// Seconds that it could have had to wait at the longest, by the rules of turns.
    pub promised_wait_s: f64,
    /// Each core that had a duty.
    pub each: Vec<CoreFacts>,
    /// What was seen of them while cells ran; absent: nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<CoreChecks>,
}

/// Facts about one core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CoreFacts {
    /// Its number.
    pub core: u32,
    /// What it was for: `control`, `chores`, `pool`.
    pub duties: Vec<String>,
    /// The part of the run in which a guest had it; absent: it was not for guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<f64>,
}

/// What was seen on the cores of a pool while cells ran, twice a second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CoreChecks {
    /// How often was looked.
    pub looks: u64,
    /// Threads of cells that were found on a processor that is not of their turn, or running without one.
    pub strays: u64,
    /// How the first of these were found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stray_threads: Vec<String>,
    /// Other threads that ran on the pool's processors, each counted once; kernel threads that are bound to one processor apart.
    /// Processors that have another duty too are not looked at.
    pub foreign: u64,
    /// What some of these call themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_names: Vec<String>,
}

/// Facts of the host about one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceFacts {
    /// How it ended, `cached` included.
    pub status: Status,
    /// It never began, because another instance failed before (`--fail-fast`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_begun: bool,
    /// Wall seconds.
    pub wall_s: f64,
    /// CPU seconds of the cell (user and system).
    pub cpu_s: f64,
    /// Peak resident memory of the cell in KiB.
    pub peak_kib: u64,
    /// Seconds in which its guest was made to stand still, because it did more than could be read or judged meanwhile.
    #[serde(default, skip_serializing_if = "is_no_time")]
    pub stood_s: f64,
    /// The cache key; absent when the instance ended before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Why it did not end well, as in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it did not end well, with host details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it was tried, where that was more than once (`retries`).
    #[serde(default, skip_serializing_if = "is_few")]
    pub attempts: u32,
    /// Where it lies what a program left that did not end well: a path from the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Where it stands what is known of its cell that broke, the latest of several: a path from the run's folder. The
    /// instance can have ended well all the same, in a later attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

fn is_no_time(seconds: &f64) -> bool {
    *seconds == 0.0
}

fn is_few(attempts: &u32) -> bool {
    *attempts < 2
}
