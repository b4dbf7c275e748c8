//! `where` of expectations, tried on the instances that they are about: what cannot be evaluated is told by the plan.

use serde_json::Value as Json;

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};
use crate::expression::{Evaluator, ExpressionError};
use crate::plan::Plan;

/// Instances of a stage on which a condition is tried: those of one stage are alike.
const TRIED: usize = 1_000;

/// Tries each expectation that names its stage: of others, results say what they are about.
pub(super) fn check(shared: &Shared<'_>, plan: &Plan, problems: &mut Vec<Diagnostic>) {
    for expectation in &shared.manifest.expect {
        let (Some(stage), Some(filter)) = (&expectation.stage, &expectation.filter) else {
            continue;
        };
        // What is unknown in it is told already.
        let told = problems
            .iter()
            .flat_map(|problem| &problem.labels)
            .any(|label| label.span == filter.span);
        let Some(planned) = plan.stages.get(&stage.value).filter(|_| !told) else {
            continue;
        };
        let instances = plan.instances.get(planned.instances()).unwrap_or_default();
        // What a point becomes has values that nobody knows yet.
        let known = instances
            .iter()
            .filter(|instance| plan.expansion_of(instance).is_none());
        let problem = known.take(TRIED).find_map(|instance| {
            let context = plan.context(instance);
            let error = shared.evaluator.truth(filter, &context).err()?;
            let name = &instance.name;
            Some(match unknown(&shared.evaluator, filter, &context, &error) {
                Some(unknown) => Diagnostic::error(
                    Code::UnknownName,
                    filter.span,
                    format!("`{unknown}` is not known for {name}"),
                )
                .help("say it of every value of the axis, or ask first: `is defined`"),
                None => Diagnostic::error(
                    Code::Expression,
                    filter.span,
                    format!("the condition cannot be evaluated for {name}: {error}"),
                ),
            })
        });
        problems.extend(problem);
    }
}

/// The name that an expression asks for and that its context does not have, where that is what is wrong with it.
pub fn unknown(
    evaluator: &Evaluator,
    expression: &str,
    context: &Json,
    error: &ExpressionError,
) -> Option<String> {
    if !(error.0.contains("undefined") || error.0.contains("not defined")) {
        return None;
    }
    let paths = evaluator.paths(expression).ok()?;
    paths.into_iter().find(|path| {
        let found = path.split('.').try_fold(context, |value, step| value.get(step));
        found.is_none()
    })
}
