//! Which part of an experiment runs: `--only`, `--until`, `--rerun-failed`.

use std::collections::HashSet;

use hotcell_plan::{After, Instance, Plan, Wire};
use hotcell_run::Selection;
use hotcell_schema::report;

use crate::args::ChooseArgs;
use crate::exit::Failure;
use crate::history::Earlier;
use crate::names::Names;
use crate::runs::Subject;
use crate::ui;

/// The part that is asked for; `None`: everything.
pub(crate) fn choose(
    plan: &Plan,
    runs: &std::path::Path,
    manifest: Option<&str>,
    args: &ChooseArgs,
) -> Result<Option<Selection>, Failure> {
    if args.only.is_empty() && args.until.is_empty() && !args.rerun_failed {
        return Ok(None);
    }
    let only = only(plan, &args.only)?;
    let until = until(plan, &args.until)?;
    let again = match args.rerun_failed {
        true => Some(failed(plan, runs, manifest)?),
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
        if !any && let Some(point) = point_of(plan, pattern) {
            return Err(Failure::usage(format!(
                "--only {pattern} names items that only a run finds: the plan has no instance of that name"
            ))
            .help(format!("--only '{point}' takes all that it becomes")));
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

/// The name of a point that could become an instance of a name.
fn point_of<'a>(plan: &'a Plan, pattern: &str) -> Option<&'a str> {
    let (stage, _) = pattern.split_once('[')?;
    let mut points = plan.instances.iter();
    let point = points.find(|one| fits(stage, &one.stage) && plan.expansion_of(one).is_some());
    point.map(|point| point.name.as_str())
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

/// What did not end well when it was last to run.
fn failed(plan: &Plan, runs: &std::path::Path, manifest: Option<&str>) -> Result<Vec<bool>, Failure> {
    let subject = Subject {
        experiment: &plan.name,
        manifest,
    };
    let Some(earlier) = Earlier::of(runs, subject) else {
        let of = manifest
            .map(|manifest| format!(" ({manifest})"))
            .unwrap_or_default();
        return Err(Failure::usage(format!(
            "there is no run of `{}`{of} in {}",
            plan.name,
            runs.display()
        ))
        .help("run it without --rerun-failed first, or say where its runs are with --state DIR"));
    };
    let again = earlier.not_well(plan);
    let count = again.iter().filter(|again| **again).count();
    ui::say(&format!(
        "{count} of {} instances did not end well, up to {}",
        plan.instances.len(),
        earlier.latest()
    ));
    Ok(again)
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
    use super::fits;

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
}
