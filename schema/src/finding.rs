//! What a rule or an inspection concluded, with the evidence that shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How serious a finding is. Ordered: `Info` is least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Unusual.
    Low,
    /// Suspicious.
    Medium,
    /// Malicious in most contexts.
    High,
    /// Malicious in every context.
    Critical,
}

impl Severity {
    /// All severities, least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name in manifests, rules and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A conclusion about one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable id of the rule or check, for instance `persistence-cron` or `elf/lying-section-header`.
    pub rule: String,
    /// A sentence for people.
    pub title: String,
    /// How serious.
    pub severity: Severity,
    /// ATT&CK technique ids (`T1053.003`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attack: Vec<String>,
    /// What proves it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// One piece of proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// `seq` of the event, in the events of the same sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// Offset in the file, for findings of static inspection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What is there, in words.
    pub text: String,
}

/// A list of findings as it is stored (port type `findings`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// Always `hotcell-findings`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// The findings, in a fixed order (rule, then evidence).
    pub findings: Vec<Finding>,
}

impl Findings {
    /// Findings of the current version, put into their fixed order.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (&a.rule, first_place(a)).cmp(&(&b.rule, first_place(b))));
        Self {
            format: "hotcell-findings".into(),
            version: 1,
            findings,
        }
    }
}

fn first_place(finding: &Finding) -> Option<(Option<u64>, Option<u64>)> {
    finding
        .evidence
        .first()
        .map(|evidence| (evidence.event, evidence.offset))
}
