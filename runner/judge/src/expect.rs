//! The manifest's `expect`: what must hold for the instances that an expectation chooses.

use hotcell_schema::diff::Change;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Expectation, Hits, Presence, TextExpectation};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, Report};
use hotcell_schema::stage::{PortType, StageType};
use hotcell_schema::verdict::{Check, Verdict};
use serde_json::{Value as Json, json};

use crate::facts::gives;
use crate::{content, lines};

/// What judging needs of the rest of hotcell.
pub struct Context<'a> {
    /// Evaluates an expression of the manifest over the values given; an error says what is wrong with it.
    pub evaluate: &'a dyn Fn(&str, &Json) -> Result<bool, String>,
    /// The value of an axis of an instance, where it is one that the manifest writes out: a report has only its name.
    pub axis: &'a dyn Fn(&InstanceReport, &str) -> Option<Json>,
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
            let parts = Parts::of(expectation, instance);
            let wanted = expectation
                .stage
                .as_ref()
                .is_none_or(|stage| stage.value == instance.stage);
            if !wanted || !parts.any() {
                continue;
            }
            let verdict = match selects(expectation, report, instance, context) {
                Ok(false) => continue,
                Ok(true) => judge(expectation, parts, instance, context),
                Err(error) => Verdict::NotJudged(format!("its `where` cannot be evaluated: {error}")),
            };
            chosen += 1;
            checks.push(Check {
                name: name.clone(),
                subject: instance.name.clone(),
                short: report.short_name(instance),
                verdict,
            });
        }
        // Of a run of a part it need not: what it is about may have been left out.
        if chosen == 0 && report.selection.is_none() {
            let reason = "it chooses no instance of this run".to_owned();
            checks.push(Check {
                name,
                subject: String::new(),
                short: String::new(),
                verdict: Verdict::NotJudged(reason),
            });
        }
    }
    checks
}

/// The parts of an expectation that a stage type can answer. `hits` speaks of rules: of stages that judge, not of
/// inspection, unless `stage` names one that gives findings.
#[derive(Debug, Clone, Copy)]
struct Parts {
    hits: bool,
    outcome: bool,
    behaviour: bool,
    stdout: bool,
}

impl Parts {
    fn of(expectation: &Expectation, instance: &InstanceReport) -> Self {
        let stage_type = StageType::find(&instance.uses);
        let judges = gives(instance, PortType::Findings)
            && (expectation.stage.is_some() || instance.uses.starts_with("detect/"));
        let runs = gives(instance, PortType::Events);
        Self {
            hits: expectation.hits.is_some() && judges,
            outcome: expectation.outcome.is_some()
                && (runs || gives(instance, PortType::Json("payload-result"))),
            behaviour: expectation.behaviour.is_some() && runs,
            stdout: expectation.stdout.is_some()
                && stage_type.is_some_and(|stage| stage.output("stdout").is_some()),
        }
    }

    fn any(self) -> bool {
        self.hits || self.outcome || self.behaviour || self.stdout
    }
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
    let mut sets: Vec<(&str, Vec<&str>)> = Vec::new();
    for (axis, value) in &instance.axes {
        let value = match report.samples.get(value) {
            Some(sample) => {
                sets.push((axis, sample.all_sets().collect()));
                json!({
                    "id": value,
                    "digest": sample.digest,
                    "set": sample.set,
                    "name": sample.name,
                    "arch": sample.arch,
                    "family": sample.family,
                    "variant": sample.variant,
                    "label": sample.label,
                    "length": sample.length,
                })
            }
            None => match (context.axis)(instance, axis) {
                Some(value) => value,
                // A file that a run came upon: the report knows no more of it.
                None if value.parse::<Digest>().is_ok() => json!({ "digest": value }),
                None => json!(value),
            },
        };
        values.insert(axis.clone(), value);
    }
    values.insert("stage".into(), json!(instance.stage));
    values.insert("uses".into(), json!(instance.uses));
    // A sample can be in several sets: it is enough that one of them fits.
    let mut values = Json::Object(values);
    let combinations: usize = sets.iter().map(|(_, sets)| sets.len()).product();
    for number in 0..combinations {
        let mut rest = number;
        for (axis, sets) in &sets {
            let count = sets.len().max(1);
            if let Some(Json::Object(sample)) = values.get_mut(*axis) {
                sample.insert("set".into(), json!(sets.get(rest % count)));
            }
            rest /= count;
        }
        if (context.evaluate)(&filter.value, &values)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn judge(
    expectation: &Expectation,
    parts: Parts,
    instance: &InstanceReport,
    context: &Context<'_>,
) -> Verdict {
    if instance.status != Status::Ok {
        let reason = instance
            .reason
            .clone()
            .unwrap_or_else(|| "it did not run to its end".into());
        return Verdict::NotJudged(reason);
    }
    // Of a sample that could not be run, nothing but that can be judged: what it did not do is no merit.
    if let (Some(Outcome::Unsupported(reason)), false) = (&instance.outcome, parts.outcome) {
        return Verdict::NotJudged(format!("its sample could not be run: {reason}"));
    }
    if instance.is_cut_short() && !parts.outcome {
        return Verdict::NotJudged("its wall time was up before it ended".into());
    }
    let mut changes = Vec::new();
    if let Some(wanted) = expectation.outcome.as_ref().filter(|_| parts.outcome) {
        let outcome = instance.outcome.as_ref();
        let fits = outcome.is_some_and(|outcome| outcome.kind() == wanted || outcome.to_string() == *wanted);
        if !fits {
            let new = outcome.map_or("none".into(), ToString::to_string);
            changes.push(Change::changed("outcome", wanted.as_str(), new));
        }
    }
    if let Some(hits) = expectation.hits.as_ref().filter(|_| parts.hits) {
        judge_hits(hits, instance, &mut changes);
    }
    if let Some(behaviour) = expectation.behaviour.as_ref().filter(|_| parts.behaviour) {
        judge_behaviour(behaviour, instance, &mut changes);
    }
    if let Some(stdout) = expectation.stdout.as_ref().filter(|_| parts.stdout) {
        match (context.read)(instance, "stdout") {
            Some(bytes) => judge_text(stdout, &bytes, &mut changes),
            None => changes.push(Change::removed("stdout", "it cannot be read")),
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

/// Bytes are compared, text is shown.
fn judge_text(wanted: &TextExpectation, bytes: &[u8], changes: &mut Vec<Change>) {
    if let Some(equals) = wanted.equals.as_ref().filter(|equals| equals.as_bytes() != bytes) {
        let lines = content::as_text(bytes).map(|new| {
            let (old, new): (Vec<&str>, Vec<&str>) =
                (equals.split('\n').collect(), new.split('\n').collect());
            lines::between(&old, &new)
        });
        changes.push(match lines {
            Some(lines) if lines.len() > 2 => Change::lines("stdout.equals", lines),
            _ => {
                let new = hotcell_schema::guest::text_up_to(bytes, 400);
                Change::changed("stdout.equals", equals.as_str(), new)
            }
        });
    }
    let has =
        |part: &String| part.is_empty() || bytes.windows(part.len()).any(|window| window == part.as_bytes());
    let missing = wanted.contains.iter().filter(|part| !has(part));
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
