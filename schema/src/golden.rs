//! Golden files: what an instance's result was when a person accepted it.
//!
//! `golden/<manifest>/<stage>/<instance>.<engine>.json`, beside the manifest (of variants in `golden/<manifest>@<variant>/`); in
//! git, read by people in a review. The file's name is for them: a golden is that of the instance whose full name it holds,
//! whatever the file of its sample is called now.
//!
//! A golden of an exact engine ([`Exact`]) holds its facts as they are. A golden of an observed engine ([`Observed`]) holds
//! what several runs had in common (`must`) and what only some of them had (`may`): a result that lacks a `must`, or has
//! anything that is neither, does not meet it.
//!
//! Order counts only within a task, and only where it was the same in every run: each task has a list `in-order`, whose
//! facts first happen in this order, and a list `any-order`. Lines of a command's standard output are facts of the instance
//! as a whole (`stdout/line`): those that every run had must be there, and others are no matter.
//!
//! Tasks are named by their place in the tree: `0` is the first process, `0.1` the second child that it made. No fact holds a
//! process number, a time, an ephemeral port or an address of memory.
//!
//! Version 1 had only exact goldens, without `mode`, and of outputs only digests. It is still read.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::outcome::Outcome;

/// Name of the format.
pub const FORMAT: &str = "hotcell-golden";
/// Version of the format.
pub const VERSION: u32 = 2;

/// The content of a golden file.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum GoldenFile {
    /// Of an exact engine.
    Exact(Exact),
    /// Of an observed engine.
    Observed(Observed),
}

/// Which kind of golden a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Of an engine that gives the same every time.
    #[default]
    Exact,
    /// Of an engine whose results differ from run to run.
    Observed,
}

/// A golden of an exact engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exact {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Always `exact`.
    #[serde(default)]
    pub mode: Mode,
    /// The instance's full name.
    pub instance: String,
    /// What its stage uses.
    pub engine: String,
    /// What was accepted.
    pub facts: Facts,
}

/// Facts about one instance. What is absent is not compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// How the sample ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it did, normalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behaviour: Option<Vec<String>>,
    /// What was concluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<FindingFact>>,
    /// Calls that the engine does not fully support, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<Vec<String>>,
    /// Outputs by port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<IndexMap<String, OutputFact>>,
}

/// A finding without the places of its evidence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingFact {
    /// The rule's id.
    pub rule: String,
    /// Its severity.
    pub severity: Severity,
    /// What proves it, in words.
    pub evidence: Vec<String>,
}

/// What an output port held.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputFact {
    /// Digest of its bytes: this is what is compared.
    pub digest: Digest,
    /// How many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// The lines of a short text, so that a change can be shown (and reviewed) where the bytes are no longer at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
}

/// What is shown does not matter, only what it is.
impl PartialEq for OutputFact {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// A golden of an observed engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Always `observed`.
    pub mode: Mode,
    /// The instance's full name.
    pub instance: String,
    /// What its stage uses.
    pub engine: String,
    /// How many runs it was learned from.
    pub runs: u32,
    /// What every run had.
    pub must: Vec<TaskMust>,
    /// What some runs had.
    pub may: Vec<TaskMay>,
}

/// What a task does in every run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskMust {
    /// The task's place in the tree; `instance`: the instance as a whole.
    pub task: String,
    /// Facts that first happen in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_order: Vec<Fact>,
    /// Facts whose place differs, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_order: Vec<Fact>,
}

/// What a task does in some runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskMay {
    /// The task's place in the tree; `instance`: the instance as a whole.
    pub task: String,
    /// The facts, sorted.
    pub facts: Vec<Fact>,
}

/// Something that a task did, without anything that chance or the host decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Kind and operation: `file/written`, `network/connect`, `process/exec` …
    pub kind: String,
    /// The program that the task ran.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// What it was done to: a path, a peer, a command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// `ok`, or the class of the failure: `ENOENT`, an exit code, a signal.
    pub result: String,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        if !self.resource.is_empty() {
            write!(f, " {}", self.resource)?;
        }
        if self.result != "ok" {
            write!(f, " ({})", self.result)?;
        }
        if !self.image.is_empty() {
            write!(f, " by {}", self.image)?;
        }
        Ok(())
    }
}

impl From<&Finding> for FindingFact {
    fn from(finding: &Finding) -> Self {
        let evidence = finding
            .evidence
            .iter()
            .map(|evidence| evidence.text.clone())
            .collect();
        Self {
            rule: finding.rule.clone(),
            severity: finding.severity,
            evidence,
        }
    }
}

/// Why a text is not a golden file.
#[derive(Debug, thiserror::Error)]
pub enum GoldenFormatError {
    /// It is not JSON of the right shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is something else, or of a version that is not read.
    #[error(
        "it is `{format}` version {version}; this version of hotcell reads `{FORMAT}` versions 1 to {VERSION}"
    )]
    Version {
        /// The format it names.
        format: String,
        /// The version it names.
        version: u32,
    },
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default)]
    mode: Mode,
}

/// Version 1: only exact, outputs by their digests alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExactV1 {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    instance: String,
    engine: String,
    facts: FactsV1,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsV1 {
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default)]
    behaviour: Option<Vec<String>>,
    #[serde(default)]
    findings: Option<Vec<FindingFact>>,
    #[serde(default)]
    unsupported: Option<Vec<String>>,
    #[serde(default)]
    outputs: Option<IndexMap<String, Digest>>,
}

impl From<ExactV1> for Exact {
    fn from(old: ExactV1) -> Self {
        let outputs = old.facts.outputs.map(|outputs| {
            outputs
                .into_iter()
                .map(|(port, digest)| (port, OutputFact::of(digest)))
                .collect()
        });
        Self::new(
            old.instance,
            old.engine,
            Facts {
                outcome: old.facts.outcome,
                behaviour: old.facts.behaviour,
                findings: old.facts.findings,
                unsupported: old.facts.unsupported,
                outputs,
            },
        )
    }
}

impl OutputFact {
    /// Of an output of which only the digest is known.
    pub fn of(digest: Digest) -> Self {
        Self {
            digest,
            length: None,
            text: None,
        }
    }
}

impl Exact {
    /// A golden of the current version.
    pub fn new(instance: impl Into<String>, engine: impl Into<String>, facts: Facts) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            mode: Mode::Exact,
            instance: instance.into(),
            engine: engine.into(),
            facts,
        }
    }
}

impl GoldenFile {
    /// Reads a golden file of this version or the one before.
    ///
    /// # Errors
    /// When the text is no golden file, or of another version.
    pub fn read(bytes: &[u8]) -> Result<Self, GoldenFormatError> {
        let head: Head = serde_json::from_slice(bytes)?;
        match (head.format.as_str(), head.version, head.mode) {
            (FORMAT, 1, _) => Ok(Self::Exact(serde_json::from_slice::<ExactV1>(bytes)?.into())),
            (FORMAT, VERSION, Mode::Exact) => Ok(Self::Exact(serde_json::from_slice(bytes)?)),
            (FORMAT, VERSION, Mode::Observed) => Ok(Self::Observed(serde_json::from_slice(bytes)?)),
            _ => Err(GoldenFormatError::Version {
                format: head.format.chars().take(80).collect(),
                version: head.version,
            }),
        }
    }

    /// The text of the file: JSON, with a line for each fact.
    ///
    /// # Errors
    /// Never for what [`GoldenFile::read`] gave or the runner made.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Exact(exact) => Ok(serde_json::to_string_pretty(exact)? + "\n"),
            Self::Observed(observed) => observed.text(),
        }
    }

    /// The instance it is of, by its full name.
    pub fn instance(&self) -> &str {
        match self {
            Self::Exact(exact) => &exact.instance,
            Self::Observed(observed) => &observed.instance,
        }
    }

    /// What that instance's stage used.
    pub fn engine(&self) -> &str {
        match self {
            Self::Exact(exact) => &exact.engine,
            Self::Observed(observed) => &observed.engine,
        }
    }
}

impl Observed {
    /// Pretty JSON would spread one fact over six lines, and a review over as many pages.
    fn text(&self) -> Result<String, serde_json::Error> {
        let json = |value: &str| serde_json::to_string(value);
        let list = |facts: &[Fact]| -> Result<String, serde_json::Error> {
            let lines: Vec<String> = facts
                .iter()
                .map(serde_json::to_string)
                .collect::<Result<_, _>>()?;
            Ok(format!("[\n        {}\n      ]", lines.join(",\n        ")))
        };
        let mut must = Vec::new();
        for task in &self.must {
            let mut parts = vec![format!("\"task\": {}", json(&task.task)?)];
            for (name, facts) in [("in-order", &task.in_order), ("any-order", &task.any_order)] {
                if !facts.is_empty() {
                    parts.push(format!("\"{name}\": {}", list(facts)?));
                }
            }
            must.push(format!("    {{\n      {}\n    }}", parts.join(",\n      ")));
        }
        let mut may = Vec::new();
        for task in &self.may {
            may.push(format!(
                "    {{\n      \"task\": {},\n      \"facts\": {}\n    }}",
                json(&task.task)?,
                list(&task.facts)?
            ));
        }
        let block = |tasks: Vec<String>| match tasks.len() {
            0 => "[]".to_owned(),
            _ => format!("[\n{}\n  ]", tasks.join(",\n")),
        };
        Ok(format!(
            "{{\n  \"format\": {},\n  \"version\": {},\n  \"mode\": \"observed\",\n  \"instance\": {},\n  \"engine\": {},\n  \"runs\": {},\n  \"must\": {},\n  \"may\": {}\n}}\n",
            json(&self.format)?,
            self.version,
            json(&self.instance)?,
            json(&self.engine)?,
            self.runs,
            block(must),
            block(may)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: &str, resource: &str, result: &str) -> Fact {
        Fact {
            kind: kind.into(),
            image: "/bin/\"bot\"\n".into(),
            resource: resource.into(),
            result: result.into(),
        }
    }

    #[test]
    fn both_kinds_are_read_as_they_are_written() {
        let exact = GoldenFile::Exact(Exact::new(
            "run",
            "unicorn/linux",
            Facts {
                outcome: Some(Outcome::Exited(1)),
                outputs: Some(
                    [("stdout".into(), OutputFact::of(Digest::of(b"x")))]
                        .into_iter()
                        .collect(),
                ),
                ..Facts::default()
            },
        ));
        let observed = GoldenFile::Observed(Observed {
            format: FORMAT.into(),
            version: VERSION,
            mode: Mode::Observed,
            instance: "run".into(),
            engine: "qemu-user/linux".into(),
            runs: 3,
            must: vec![TaskMust {
                task: "0".into(),
                in_order: vec![fact("file/open", "/etc/passwd", "ENOENT"), fact("a", "", "ok")],
                any_order: vec![fact("b", "\u{1b}[0m", "ok")],
            }],
            may: vec![TaskMay {
                task: "0.1".into(),
                facts: vec![fact("c", "", "ok")],
            }],
        });
        let nothing = GoldenFile::Observed(Observed {
            must: Vec::new(),
            may: Vec::new(),
            ..match &observed {
                GoldenFile::Observed(observed) => observed.clone(),
                GoldenFile::Exact(_) => unreachable!(),
            }
        });
        for golden in [exact, observed, nothing] {
            let text = golden.text().unwrap();
            assert_eq!(GoldenFile::read(text.as_bytes()).unwrap(), golden, "{text}");
            assert!(text.ends_with("}\n") && !text.contains('\u{1b}'));
        }
    }

    #[test]
    fn version_one_is_still_read() {
        let text = include_bytes!("../fixtures/golden-1.json");
        let GoldenFile::Exact(golden) = GoldenFile::read(text).unwrap() else {
            panic!("version 1 is exact")
        };
        assert_eq!(golden.version, VERSION);
        assert_eq!(golden.facts.outcome, Some(Outcome::Completed));
        assert_eq!(golden.facts.behaviour.as_ref().map(Vec::len), Some(2));
        assert_eq!(golden.facts.findings.as_ref().map(Vec::len), Some(1));
        assert_eq!(golden.facts.outputs.as_ref().map(IndexMap::len), Some(1));
    }

    #[test]
    fn other_formats_and_versions_are_named() {
        for (text, wanted) in [
            (r#"{"format": "x", "version": 1}"#, "`x` version 1"),
            (r#"{"format": "hotcell-golden", "version": 3}"#, "version 3"),
            ("{", "EOF"),
            (
                r#"{"format": "hotcell-golden", "version": 2, "instance": "a", "engine": "b", "facts": {"x": 1}}"#,
                "unknown field `x`",
            ),
        ] {
            let error = GoldenFile::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
