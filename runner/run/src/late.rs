//! What is known of an instance only when all before it has ended: settings that read results, and the architecture of a file
//! that a stage gave.

use std::borrow::Cow;

use hotcell_plan::Instance;

use crate::condition;
use crate::work::{Done, Input, Inputs, Shared};

/// Completes an instance. The error is how it ends instead.
pub(crate) fn complete<'i>(
    shared: &Shared<'_>,
    instance: &'i Instance,
    inputs: &Inputs<'_>,
) -> Result<Cow<'i, Instance>, Done> {
    let mut instance = Cow::Borrowed(instance);
    if let Some(late) = &instance.late {
        let expressions = shared.plan.late_expressions(&instance);
        let results = condition::results(shared, &late.reads, &expressions)?;
        let with = shared.plan.late_settings(&instance, results).map_err(|error| {
            Done::failed(
                format!("the settings cannot be filled in: {error}"),
                instance.name.clone(),
            )
        })?;
        let complete = instance.to_mut();
        complete.with = with;
        complete.late = None;
    }
    if instance.arch.is_none()
        && shared.plan.runs_code(&instance)
        && let Some(file @ Input::Stored(_)) = inputs.get("file").and_then(|wired| wired.first())
    {
        let bytes = shared.read(file)?;
        let profile = hotcell_plan::profiles::find_by_header(shared.options.profiles, &bytes);
        if let Some(profile) = profile {
            instance.to_mut().arch = Some(profile.name.clone());
        }
    }
    Ok(instance)
}
