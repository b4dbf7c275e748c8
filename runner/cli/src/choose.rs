//! Which part of an experiment runs: `--only`, `--until`, `--rerun-failed`.

use std::collections::{HashMap, HashSet};

use hotcell_plan::{After, Instance, Plan, Wire};
use hotcell_run::Selection;
use hotcell_run::select::{Ended, not_well};
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{self, InstanceFacts};
use hotcell_store::Entry;

use crate::args::ChooseArgs;
use crate::exit::Failure;
use crate::names::Names;
use crate::runs::{self, Run, State};
use crate::ui;

/// The part that is asked for; `None`: everything.
pub(crate) fn choose(
    plan: &Plan,
    runs: &std::path::Path,
    args: &ChooseArgs,
) -> Result<Option<Selection>, Failure> {
    if args.only.is_empty() && args.until.is_empty() && !args.rerun_failed {
        return Ok(None);
    }
    let only = only(plan, &args.only)?;
    let until = until(plan, &args.until)?;
    let again = match args.rerun_failed {
        true => Some(failed(plan, runs)?),
        false => None,
    };
    let wanted = |index: usize, instance: &Instance| {
        only.as_ref().is_none_or(|only| only.contains(&index))
            && until
                .as_ref()
                .is_none_or(|until| until.contains(instance.stage.as_str()))
            && again.as_ref().is_none_or(|again| again.get(index) == Some(&true))
    };
    let asked = report::Selection {
        only: args.only.clone(),
        until: args.until.clone(),
        rerun_failed: args.rerun_failed,
        left_out: 0,
    };
    Ok(Some(Selection::new(plan, &wanted, asked)))
}

/// Indexes of the instances that patterns name.
fn only(plan: &Plan, patterns: &[String]) -> Result<Option<HashSet<usize>>, Failure> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let names = Names::new(plan);
    let mut found = HashSet::new();
    for pattern in patterns {
        let mut any = false;
        for (index, instance) in plan.instances.iter().enumerate() {
            if fits(pattern, &instance.stage)
                || fits(pattern, &instance.name)
                || fits(pattern, &names.of(instance))
            {
                any = true;
                found.insert(index);
            }
        }
        if !any {
            let stages = plan.stages.keys().map(String::as_str);
            let failure = Failure::usage(format!("--only {pattern} fits no stage and no instance"));
            return Err(match hotcell_plan::diagnostics::nearest(pattern, stages) {
                Some(nearest) => failure.help(format!("did you mean `{nearest}`?")),
                None => failure.help(
                    "`hotcell plan MANIFEST --all` shows all names; `*` stands for any characters, `?` for one",
                ),
            });
        }
    }
    Ok(Some(found))
}

/// Names of the stages up to the given ones, these included.
fn until<'a>(plan: &'a Plan, stages: &[String]) -> Result<Option<HashSet<&'a str>>, Failure> {
    if stages.is_empty() {
        return Ok(None);
    }
    let mut wanted: HashSet<&str> = HashSet::new();
    for stage in stages {
        let Some((name, _)) = plan.stages.get_key_value(stage) else {
            let failure = Failure::usage(format!("--until {stage}: there is no such stage"));
            let known: Vec<&str> = plan.stages.keys().map(String::as_str).collect();
            return Err(
                match hotcell_plan::diagnostics::nearest(stage, known.iter().copied()) {
                    Some(nearest) => failure.help(format!("did you mean `{nearest}`?")),
                    None => failure.help(format!("there are: {}", known.join(", "))),
                },
            );
        };
        wanted.insert(name);
    }
    // Stages stand after what they read: once from the end finds everything before.
    for (name, stage) in plan.stages.iter().rev() {
        if !wanted.contains(name.as_str()) {
            continue;
        }
        for instance in plan.instances.get(stage.instances()).unwrap_or_default() {
            wanted.extend(reads(plan, instance));
        }
    }
    Ok(Some(wanted))
}

/// Stages that an instance waits for.
fn reads<'a>(plan: &'a Plan, instance: &'a Instance) -> impl Iterator<Item = &'a str> {
    let stage_of = |index: &usize| plan.instances.get(*index).map(|instance| instance.stage.as_str());
    let wires = instance.inputs.values().flatten().chain(&instance.expands);
    let wires = wires.filter_map(move |wire| match wire {
        Wire::Sample(_) | Wire::Item => None,
        Wire::Output { instance, .. } => stage_of(instance),
        Wire::All { stage, .. } => Some(stage.as_str()),
        Wire::Same { point, .. } | Wire::Point { point, .. } => stage_of(point),
    });
    let needs = instance.needs.iter().filter_map(move |after| match after {
        After::Instance(index) => stage_of(index),
        After::Stage(stage) => Some(stage.as_str()),
    });
    let when = instance.when.iter().flat_map(|when| when.reads.values());
    let late = instance.late.iter().flat_map(|late| late.reads.values());
    wires.chain(needs).chain(when.chain(late).filter_map(stage_of))
}

/// What did not end well in the latest run of the experiment, finished or not. Where that was a run of a part, what it left
/// out counts as in the run before it, and so on.
fn failed(plan: &Plan, runs: &std::path::Path) -> Result<Vec<bool>, Failure> {
    let mut known: Vec<Option<Ended>> = vec![None; plan.instances.len()];
    let mut latest = None;
    for run in runs::all(runs).iter().rev() {
        let (found, whole) = match run.state {
            State::Running => continue,
            State::Finished => match finished(plan, run) {
                Some(found) => found,
                None => continue,
            },
            State::Interrupted => match interrupted(plan, run) {
                Some(found) => (found, true),
                None => continue,
            },
        };
        for (known, found) in known.iter_mut().zip(found) {
            *known = known.or(found);
        }
        latest.get_or_insert_with(|| run.id.clone());
        if whole {
            break;
        }
    }
    let Some(latest) = latest else {
        return Err(Failure::usage(format!(
            "there is no run of `{}` in {}",
            plan.name,
            runs.display()
        ))
        .help("run it without --rerun-failed first, or say where its runs are with --state DIR"));
    };
    // What no run had is new, or its run left it out for ever: it never ended well.
    let again = not_well(plan, &|index, _| {
        known.get(index).copied().flatten().unwrap_or(Ended::Badly)
    });
    let count = again.iter().filter(|again| **again).count();
    ui::say(&format!(
        "{count} of {} instances did not end well, up to {latest}",
        plan.instances.len()
    ));
    Ok(again)
}

/// By the facts of a finished run, and whether it was of the whole plan. What a point became is counted for the point.
fn finished(plan: &Plan, run: &Run) -> Option<(Vec<Option<Ended>>, bool)> {
    let facts = run.facts()?;
    if facts.experiment != plan.name {
        return None;
    }
    let whole = facts.selection.is_none();
    let points = points(plan, facts.instances.keys().map(String::as_str));
    let mut of_points: HashMap<usize, Ended> = HashMap::new();
    let ended_as = |of: &InstanceFacts| match of.status {
        Status::Ok | Status::Cached => Ended::Well,
        Status::Failed | Status::Interrupted | Status::Refused => Ended::Badly,
        Status::Skipped if of.not_begun => Ended::Badly,
        Status::Skipped => Ended::Skipped,
    };
    for (name, point) in &points {
        let child = facts.instances.get(*name).map(ended_as);
        let worst = of_points.entry(*point).or_insert(Ended::Well);
        if child == Some(Ended::Badly) {
            *worst = Ended::Badly;
        }
    }
    let ended = plan.instances.iter().enumerate().map(|(index, instance)| {
        let of = facts.instances.get(&instance.name).map(ended_as);
        match of_points.get(&index).copied().or(of) {
            // A point that became what it should, and that was nothing, is not told of.
            None if whole && plan.expansion_of(instance).is_some() => Some(Ended::Well),
            other => other,
        }
    });
    Some((ended.collect(), whole))
}

/// By the journal of a run that came to no result: everything that it does not call well.
fn interrupted(plan: &Plan, run: &Run) -> Option<Vec<Option<Ended>>> {
    if run.plan()?.name != plan.name {
        return None;
    }
    let mut known: HashMap<String, Status> = HashMap::new();
    for entry in run.journal() {
        if let Entry::Ended { instance, status, .. } = entry {
            known.insert(instance, status);
        }
    }
    let ended = plan.instances.iter().map(|instance| {
        Some(match known.get(&instance.name) {
            Some(Status::Ok | Status::Cached) => Ended::Well,
            Some(Status::Skipped) => Ended::Skipped,
            _ => Ended::Badly,
        })
    });
    Some(ended.collect())
}

/// The points to which names belong that are not in the plan: such a name says the values of the point, and one more.
fn points<'n>(plan: &Plan, names: impl Iterator<Item = &'n str>) -> Vec<(&'n str, usize)> {
    let known: HashSet<&str> = plan
        .instances
        .iter()
        .map(|instance| instance.name.as_str())
        .collect();
    let expanding: Vec<(usize, &Instance)> = plan
        .instances
        .iter()
        .enumerate()
        .filter(|(_, instance)| plan.expansion_of(instance).is_some())
        .collect();
    let mut found = Vec::new();
    for name in names.filter(|name| !known.contains(name)) {
        let child = parts(name);
        let point = expanding.iter().find(|(_, point)| {
            let point = parts(&point.name);
            point.0 == child.0 && point.1.iter().all(|value| child.1.contains(value))
        });
        found.extend(point.map(|(index, _)| (name, *index)));
    }
    found
}

/// The stage of a name, and its values.
fn parts(name: &str) -> (&str, Vec<&str>) {
    match name.split_once('[') {
        Some((stage, values)) => (
            stage,
            values.strip_suffix(']').unwrap_or(values).split(',').collect(),
        ),
        None => (name, Vec::new()),
    }
}

/// Whether a pattern fits all of a text: `*` stands for any characters, `?` for one, everything else for itself.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || text.get(from) == Some(wanted) => {
                at += 1;
                from += 1;
            }
            // Back to the last star, which takes one character more.
            _ => match star {
                Some((place, taken)) => {
                    at = place + 1;
                    from = taken + 1;
                    star = Some((place, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|left| *left == '*')
}

#[cfg(test)]
mod tests {
    use super::{fits, parts};

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text) in [
            ("run", "run"),
            ("r*", "run"),
            ("*", ""),
            ("run[sample=busybox-*]", "run[sample=busybox-3d9f2889]"),
            ("*a*b*", "xxaxxbxx"),
            ("?un", "run"),
            ("ü*", "übung"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("run", "runs"),
            ("r?", "run"),
            ("*a*b", "ba"),
            ("", "x"),
            ("[r]un", "run"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        // Not exponential.
        assert!(!fits(&"*a".repeat(40), &"a".repeat(39)));
    }

    #[test]
    fn names_have_parts() {
        assert_eq!(parts("run[a=1,b=2]"), ("run", vec!["a=1", "b=2"]));
        assert_eq!(parts("run"), ("run", vec![]));
    }
}
