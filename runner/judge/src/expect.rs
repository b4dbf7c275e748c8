//! The manifest's `expect`: what must hold for the instances that an expectation chooses.

use hotcell_schema::manifest::{Expectation, Hits, Presence, TextExpectation};
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{InstanceReport, Report};
use hotcell_schema::stage::{PortType, StageType};
use serde_json::{Value as Json, json};

use crate::change::Change;
use crate::{Check, Verdict};

/// What judging needs of the rest of hotcell.
pub struct Context<'a> {
    /// Evaluates an expression of the manifest over the values given; an error says what is wrong with it.
    pub evaluate: &'a dyn Fn(&str, &Json) -> Result<bool, String>,
    /// The bytes of an output port of an instance, by the path in its report; bounded by the caller.
    pub read: &'a dyn Fn(&InstanceReport, &str) -> Option<Vec<u8>>,
}

/// Judges every expectation over every instance it is about.
pub fn check(expectations: &[Expectation], report: &Report, context: &Context<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (index, expectation) in expectations.iter().enumerate() {
        let name = match &expectation.filter {
            Some(filter) => format!("expect[{index}] where {}", filter.value),
            None => format!("expect[{index}]"),
        };
        let mut chosen = 0;
        for instance in &report.instances {
            if !is_about(expectation, instance) {
                continue;
            }
            let verdict = match selects(expectation, report, instance, context) {
                Ok(false) => continue,
                Ok(true) => judge(expectation, instance, context),
                Err(error) => Verdict::NotMet(vec![Change::added("where", error)]),
            };
            chosen += 1;
            checks.push(Check {
                name: name.clone(),
                subject: instance.name.clone(),
                verdict,
            });
        }
        if chosen == 0 {
            let reason = "it chooses no instance of this run".to_owned();
            checks.push(Check {
                name,
                subject: String::new(),
                verdict: Verdict::NotJudged(reason),
            });
        }
    }
    checks
}

/// Whether the stage is one that the expectation speaks of.
fn is_about(expectation: &Expectation, instance: &InstanceReport) -> bool {
    if let Some(stage) = &expectation.stage {
        return stage.value == instance.stage;
    }
    let gives = |port: PortType| {
        StageType::find(&instance.uses)
            .is_some_and(|stage| stage.outputs.iter().any(|output| output.port == port))
    };
    let of_a_run =
        expectation.outcome.is_some() || expectation.behaviour.is_some() || expectation.stdout.is_some();
    let runs_samples = gives(PortType::Events) || gives(PortType::Json("payload-result"));
    // Inspection gives findings too, but `hits` speaks of rules: a stage that judges events or facts.
    let judges = gives(PortType::Findings) && instance.uses.starts_with("detect/");
    (of_a_run && runs_samples) || (expectation.hits.is_some() && judges)
}

fn selects(
    expectation: &Expectation,
    report: &Report,
    instance: &InstanceReport,
    context: &Context<'_>,
) -> Result<bool, String> {
    let Some(filter) = &expectation.filter else {
        return Ok(true);
    };
    let mut values = serde_json::Map::new();
    for (axis, value) in &instance.axes {
        let value = match report.samples.get(value) {
            Some(sample) => json!({
                "id": value,
                "digest": sample.digest,
                "set": sample.set,
                "name": sample.name,
                "arch": sample.arch,
                "family": sample.family,
                "variant": sample.variant,
                "label": sample.label,
                "length": sample.length,
            }),
            None => json!(value),
        };
        values.insert(axis.clone(), value);
    }
    values.insert("stage".into(), json!(instance.stage));
    values.insert("uses".into(), json!(instance.uses));
    (context.evaluate)(&filter.value, &Json::Object(values))
}

fn judge(expectation: &Expectation, instance: &InstanceReport, context: &Context<'_>) -> Verdict {
    if instance.status != Status::Ok {
        let reason = instance
            .reason
            .clone()
            .unwrap_or_else(|| "it did not run to its end".into());
        return Verdict::NotJudged(reason);
    }
    let mut changes = Vec::new();
    if let Some(wanted) = &expectation.outcome {
        let outcome = instance.outcome.as_ref();
        let fits = outcome.is_some_and(|outcome| outcome.kind() == wanted || outcome.to_string() == *wanted);
        if !fits {
            let new = outcome.map_or("none".into(), ToString::to_string);
            changes.push(Change {
                what: "outcome".into(),
                old: Some(wanted.clone()),
                new: Some(new),
            });
        }
    }
    if let Some(hits) = &expectation.hits {
        judge_hits(hits, instance, &mut changes);
    }
    if let Some(behaviour) = &expectation.behaviour {
        judge_behaviour(behaviour, instance, &mut changes);
    }
    if let Some(stdout) = &expectation.stdout {
        match (context.read)(instance, "stdout") {
            Some(bytes) => judge_text(stdout, &hotcell_schema::guest::text(&bytes), &mut changes),
            None => changes.push(Change::removed(
                "stdout",
                "the stage has no output of this name, or it cannot be read",
            )),
        }
    }
    if changes.is_empty() {
        Verdict::Met
    } else {
        Verdict::NotMet(changes)
    }
}

fn judge_hits(hits: &Hits, instance: &InstanceReport, changes: &mut Vec<Change>) {
    let hit = |rule: &String| instance.findings.iter().any(|finding| finding.rule == *rule);
    changes.extend(
        hits.all
            .iter()
            .filter(|rule| !hit(rule))
            .map(|rule| Change::removed("hits.all", rule.as_str())),
    );
    changes.extend(
        hits.none
            .iter()
            .filter(|rule| hit(rule))
            .map(|rule| Change::added("hits.none", rule.as_str())),
    );
    if !hits.any.is_empty() && !hits.any.iter().any(hit) {
        changes.push(Change::removed("hits.any", hits.any.join(" or ")));
    }
    if let Some(severity) = hits.severity_below {
        let above = instance
            .findings
            .iter()
            .filter(|finding| finding.severity >= severity);
        changes.extend(above.map(|finding| {
            Change::added(
                "hits.severity-below",
                format!("{} ({})", finding.rule, finding.severity.as_str()),
            )
        }));
    }
}

fn judge_behaviour(wanted: &Presence, instance: &InstanceReport, changes: &mut Vec<Change>) {
    let found = |pattern: &str| instance.behaviour.iter().find(|line| fits(pattern, line));
    let missing = wanted.present.iter().filter(|pattern| found(pattern).is_none());
    changes.extend(missing.map(|pattern| Change::removed("behaviour.present", pattern.as_str())));
    let unwanted = wanted.absent.iter().filter_map(|pattern| found(pattern));
    changes.extend(unwanted.map(|line| Change::added("behaviour.absent", line.as_str())));
}

fn judge_text(wanted: &TextExpectation, text: &str, changes: &mut Vec<Change>) {
    if let Some(equals) = wanted.equals.as_ref().filter(|equals| *equals != text) {
        changes.push(Change {
            what: "stdout.equals".into(),
            old: Some(equals.clone()),
            new: Some(text.chars().take(400).collect()),
        });
    }
    let missing = wanted
        .contains
        .iter()
        .filter(|part| !text.contains(part.as_str()));
    changes.extend(missing.map(|part| Change::removed("stdout.contains", part.as_str())));
}

/// Whether a line fits a pattern in which `*` stands for any text. Linear in the line for each piece of the pattern.
fn fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(fits("file/written /etc/cron.d/*", "file/written /etc/cron.d/x"));
        assert!(fits("*cron*", "file/written /etc/cron.d/x"));
        assert!(fits("same", "same") && fits("*", "") && fits("a*b*c", "a-b-c") && fits("**", "x"));
        assert!(!fits("same", "same ") && !fits("a*b", "ba") && !fits("a*a", "a") && !fits("ab*bc", "abc"));
    }
}
