//! What instances read less than they would, because a sample is not on this machine or could not be run: their results are no
//! changes.

use std::collections::{BTreeSet, HashMap};

use hotcell_plan::{Instance, Plan, Wire};

/// What is missing because samples are absent, in words, by the name of the instance that would read it. What is about the
/// sample itself is skipped, and says so itself.
pub(super) fn of_absent(plan: &Plan) -> HashMap<String, String> {
    gaps(plan, &|instance| plan.is_absent(instance), "is absent")
}

/// What is missing because the host's clock ended these instances.
pub(super) fn of_cut_short(plan: &Plan, cut: &BTreeSet<&str>) -> HashMap<String, String> {
    gaps(
        plan,
        &|instance| cut.contains(instance.name.as_str()),
        "had no wall time left",
    )
}

/// What is missing because samples could not be run, which these instances should have done.
pub(super) fn of_not_run(plan: &Plan, not_run: &BTreeSet<&str>) -> HashMap<String, String> {
    gaps(
        plan,
        &|instance| not_run.contains(instance.name.as_str()),
        "could not be run",
    )
}

fn gaps(plan: &Plan, lacks_sample: &dyn Fn(&Instance) -> bool, why: &str) -> HashMap<String, String> {
    let mut lacking: Vec<Option<&str>> = vec![None; plan.instances.len()];
    // The first such instance of each stage, or what one of its instances lacks.
    let mut by_stage: HashMap<&str, &str> = HashMap::new();
    for (index, instance) in plan.instances.iter().enumerate() {
        let before = |index: &usize| lacking.get(*index).copied().flatten();
        let by_wire = reads(instance).find_map(|wire| match wire {
            Wire::All { stage, .. } => by_stage.get(stage.as_str()).copied(),
            Wire::Output { instance, .. } => before(instance),
            Wire::Same { point, .. } | Wire::Point { point, .. } => before(point),
            Wire::Sample(_) | Wire::Item => None,
        });
        let when = instance.when.iter().flat_map(|when| when.reads.values());
        let late = instance.late.iter().flat_map(|late| late.reads.values());
        let lacks = match lacks_sample(instance) {
            true => Some(instance.name.as_str()),
            false => by_wire.or_else(|| when.chain(late).find_map(before)),
        };
        if let Some(what) = lacks {
            by_stage.entry(&instance.stage).or_insert(what);
        }
        if let Some(place) = lacking.get_mut(index) {
            *place = lacks;
        }
    }
    let each = plan.instances.iter().zip(&lacking);
    each.filter(|(instance, _)| !lacks_sample(instance))
        .filter_map(|(instance, lacks)| {
            let what = (*lacks)?;
            let told = format!("not all that it reads is there: the sample of `{what}` {why}");
            Some((instance.name.clone(), told))
        })
        .collect()
}

fn reads(instance: &Instance) -> impl Iterator<Item = &Wire> {
    instance.inputs.values().flatten().chain(&instance.expands)
}
