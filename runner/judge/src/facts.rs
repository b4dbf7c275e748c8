//! The part of an instance's report that is compared: with a golden, or with another run.

use hotcell_schema::digest::Digest;
use hotcell_schema::finding::{Finding, Severity};
use hotcell_schema::manifest::GoldenPart;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::InstanceReport;
use hotcell_schema::stage::{PortType, StageType};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::change::{self, Change};

/// Every part that can be compared.
pub const ALL: [GoldenPart; 5] = [
    GoldenPart::Outcome,
    GoldenPart::Behaviour,
    GoldenPart::Findings,
    GoldenPart::Unsupported,
    GoldenPart::Outputs,
];

/// Facts about one instance. What is absent is not compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Digests of outputs by port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<IndexMap<String, Digest>>,
}

/// A finding without its evidence: the rule, its severity, and how often it hit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingFact {
    /// The rule's id.
    pub rule: String,
    /// Its severity.
    pub severity: Severity,
    /// What proves it, in words.
    pub evidence: Vec<String>,
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

impl std::fmt::Display for FindingFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.rule, self.severity.as_str())?;
        match self.evidence.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ": {one}"),
            [first, rest @ ..] => write!(f, ": {first} and {} more", rest.len()),
        }
    }
}

impl Facts {
    /// The selected facts of an instance, or `None` when its stage has none of them or it did not run to its end.
    pub fn of(instance: &InstanceReport, select: &[GoldenPart]) -> Option<Self> {
        if instance.status != Status::Ok {
            return None;
        }
        let gives = |port: PortType| {
            StageType::find(&instance.uses)
                .is_some_and(|stage| stage.outputs.iter().any(|output| output.port == port))
        };
        let wants = |selected| select.contains(&selected);
        let facts = Self {
            outcome: instance.outcome.clone().filter(|_| wants(GoldenPart::Outcome)),
            behaviour: (wants(GoldenPart::Behaviour) && gives(PortType::Events))
                .then(|| instance.behaviour.clone()),
            findings: (wants(GoldenPart::Findings) && gives(PortType::Findings))
                .then(|| instance.findings.iter().map(FindingFact::from).collect()),
            unsupported: (wants(GoldenPart::Unsupported) && gives(PortType::Events)).then(|| {
                instance
                    .unsupported
                    .iter()
                    .map(|call| call.name.clone())
                    .collect()
            }),
            outputs: (wants(GoldenPart::Outputs) && !instance.outputs.is_empty()).then(|| {
                instance
                    .outputs
                    .iter()
                    .map(|(port, output)| (port.clone(), output.digest))
                    .collect()
            }),
        };
        (facts != Self::default()).then_some(facts)
    }

    /// What differs from `old` to `self`.
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        change::value(
            &mut changes,
            "outcome",
            old.outcome.as_ref(),
            self.outcome.as_ref(),
            ToString::to_string,
        );
        let behaviour = |facts: &Self| facts.behaviour.clone().unwrap_or_default();
        change::set(&mut changes, "behaviour", &behaviour(old), &behaviour(self));
        let findings = |facts: &Self| -> Vec<String> {
            facts.findings.iter().flatten().map(ToString::to_string).collect()
        };
        change::set(&mut changes, "findings", &findings(old), &findings(self));
        let unsupported = |facts: &Self| facts.unsupported.clone().unwrap_or_default();
        change::set(&mut changes, "unsupported", &unsupported(old), &unsupported(self));
        let none = IndexMap::new();
        let (before, after) = (
            old.outputs.as_ref().unwrap_or(&none),
            self.outputs.as_ref().unwrap_or(&none),
        );
        for port in before
            .keys()
            .chain(after.keys().filter(|port| !before.contains_key(*port)))
        {
            let what = format!("outputs.{port}");
            change::value(
                &mut changes,
                &what,
                before.get(port),
                after.get(port),
                Digest::to_string,
            );
        }
        // Evidence beyond the first line, and order, count too: never call different facts the same.
        if changes.is_empty() && self != old {
            changes.push(Change {
                what: "facts".into(),
                old: serde_json::to_string(old).ok(),
                new: serde_json::to_string(self).ok(),
            });
        }
        changes
    }
}
