//! The part of an instance's report that is compared: with a golden, or with another run.

use std::borrow::Cow;

use hotcell_schema::diff::Change;
use hotcell_schema::golden::{Facts, FindingFact, OutputFact};
use hotcell_schema::manifest::GoldenPart;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{InstanceReport, OutputReport};
use hotcell_schema::stage::{PortType, StageType};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value as Json;

use crate::content::{self, Side};
use crate::contents::Contents;
use crate::{lines, structure};

/// Every part that can be compared.
pub const ALL: [GoldenPart; 5] = [
    GoldenPart::Outcome,
    GoldenPart::Behaviour,
    GoldenPart::Findings,
    GoldenPart::Unsupported,
    GoldenPart::Outputs,
];

/// Texts up to this length stand in the golden file itself.
const MAX_TEXT: u64 = 4 << 10;

/// Whether an instance gives something of a type: as its stage type has it, or as its own settings declare it. (Ports that a
/// manifest declares are known by the ending of their file.)
pub(crate) fn gives(instance: &InstanceReport, port: PortType) -> bool {
    let listed = StageType::find(&instance.uses)
        .is_some_and(|stage| stage.outputs.iter().any(|output| output.port == port));
    listed
        || match port {
            PortType::Events => event_outputs(instance).next().is_some(),
            PortType::Findings => !instance.findings.is_empty() || instance.outputs.contains_key("findings"),
            _ => false,
        }
}

/// The event streams that an instance gave.
pub(crate) fn event_outputs(instance: &InstanceReport) -> impl Iterator<Item = &OutputReport> {
    instance
        .outputs
        .values()
        .filter(|output| output.path.ends_with(PortType::Events.ending()))
}

/// The selected facts of an instance, or `None` when its stage has none of them or it did not run to its end.
pub fn of(instance: &InstanceReport, select: &[GoldenPart]) -> Option<Facts> {
    if instance.status != Status::Ok {
        return None;
    }
    let wants = |selected| select.contains(&selected);
    let facts = Facts {
        outcome: instance.outcome.clone().filter(|_| wants(GoldenPart::Outcome)),
        behaviour: (wants(GoldenPart::Behaviour) && gives(instance, PortType::Events))
            .then(|| instance.behaviour.clone()),
        findings: (wants(GoldenPart::Findings) && gives(instance, PortType::Findings))
            .then(|| instance.findings.iter().map(FindingFact::from).collect()),
        unsupported: (wants(GoldenPart::Unsupported) && gives(instance, PortType::Events)).then(|| {
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
                .map(|(port, output)| {
                    let fact = OutputFact {
                        digest: output.digest,
                        length: Some(output.length),
                        text: None,
                    };
                    (port.clone(), fact)
                })
                .collect()
        }),
    };
    (facts != Facts::default()).then_some(facts)
}

/// Puts short texts into the facts, so that a later change can be shown wherever the golden file is.
pub(crate) fn with_texts(mut facts: Facts, instance: &InstanceReport, contents: &dyn Contents) -> Facts {
    for (port, fact) in facts.outputs.iter_mut().flatten() {
        let Some(output) = instance
            .outputs
            .get(port)
            .filter(|output| output.length <= MAX_TEXT)
        else {
            continue;
        };
        let bytes = contents.output(output, MAX_TEXT);
        fact.text = bytes
            .as_deref()
            .and_then(content::as_text)
            .map(|text| text.split('\n').map(str::to_owned).collect());
    }
    facts
}

/// One side of a comparison of facts: what they are, and where the bytes behind them can be read.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The facts.
    pub facts: &'a Facts,
    /// The instance's report, where there is one (a golden has none).
    pub instance: Option<&'a InstanceReport>,
    /// Where bytes are read.
    pub contents: &'a dyn Contents,
}

impl<'a> Known<'a> {
    fn side(&self, port: &str, fact: &'a OutputFact) -> Side<'a> {
        let written = || {
            let text = fact.text.as_ref()?.join("\n").into_bytes();
            // A text that a person changed by hand is not what was compared.
            (hotcell_schema::digest::Digest::of(&text) == fact.digest).then_some(text)
        };
        let output = || {
            let output = self.instance?.outputs.get(port)?;
            (output.digest == fact.digest)
                .then(|| self.contents.output(output, content::MAX_BYTES))
                .flatten()
        };
        let kept = || {
            let length = fact.length.filter(|length| *length <= content::MAX_BYTES)?;
            self.contents.object(&fact.digest, length)
        };
        let bytes = written().or_else(output).or_else(kept);
        Side {
            digest: fact.digest,
            length: fact.length,
            bytes: bytes.map(Cow::Owned),
        }
    }
}

/// What differs from `old` to `new`.
pub fn changes(old: Known<'_>, new: Known<'_>) -> Vec<Change> {
    let (before, after) = (old.facts, new.facts);
    let mut changes = Vec::new();
    part(
        &mut changes,
        "outcome",
        &before.outcome,
        &after.outcome,
        |old, new| vec![Change::changed("outcome", old.to_string(), new.to_string())],
    );
    part(
        &mut changes,
        "behaviour",
        &before.behaviour,
        &after.behaviour,
        |old, new| in_lines("behaviour", old, new),
    );
    part(
        &mut changes,
        "findings",
        &before.findings,
        &after.findings,
        |old, new| structure::compare("findings", &json(old), &json(new)),
    );
    part(
        &mut changes,
        "unsupported",
        &before.unsupported,
        &after.unsupported,
        |old, new| in_lines("unsupported", old, new),
    );
    let told = |part: &str| changes.iter().any(|change| change.path.starts_with(part));
    let (behaviour, findings) = (told("behaviour"), told("findings"));
    part(
        &mut changes,
        "outputs",
        &before.outputs,
        &after.outputs,
        |was, is| outputs(&old, &new, was, is, (behaviour, findings)),
    );
    // Whatever the parts do not show (the place of an evidence) counts too: never call different facts the same.
    if changes.is_empty() && before != after {
        changes.push(Change::changed("facts", json(before), json(after)));
    }
    changes
}

/// A part of the facts that may be absent on one side: then it was not selected there.
fn part<T: PartialEq + Serialize>(
    changes: &mut Vec<Change>,
    path: &str,
    old: &Option<T>,
    new: &Option<T>,
    differ: impl FnOnce(&T, &T) -> Vec<Change>,
) {
    match (old, new) {
        (Some(old), Some(new)) if old != new => changes.extend(differ(old, new)),
        (Some(old), None) => changes.push(Change::removed(path, json(old))),
        (None, Some(new)) => changes.push(Change::added(path, json(new))),
        _ => {}
    }
}

fn json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

fn in_lines(path: &str, old: &[String], new: &[String]) -> Vec<Change> {
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    vec![Change::lines(path, lines::between(&old, &new))]
}

/// Outputs port by port. Events and findings that behaviours and findings tell of already are told by their digest.
fn outputs(
    old: &Known<'_>,
    new: &Known<'_>,
    was: &IndexMap<String, OutputFact>,
    is: &IndexMap<String, OutputFact>,
    (behaviour, findings): (bool, bool),
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (port, before) in was {
        let path = structure::key("outputs", port);
        let Some(after) = is.get(port) else {
            changes.push(Change::removed(path, before.digest.short()));
            continue;
        };
        if before == after {
            continue;
        }
        let file = new
            .instance
            .and_then(|instance| instance.outputs.get(port))
            .map_or("", |output| output.path.as_str());
        let told = (behaviour && file.ends_with(".jsonl")) || (findings && port == "findings");
        let (mut before, mut after) = (old.side(port, before), new.side(port, after));
        if told {
            (before.bytes, after.bytes) = (None, None);
        }
        changes.extend(content::compare(&path, file, &before, &after));
    }
    for (port, after) in is.iter().filter(|(port, _)| !was.contains_key(*port)) {
        changes.push(Change::added(
            structure::key("outputs", port),
            after.digest.short(),
        ));
    }
    changes
}
