//! `hotcell validate`: everything that is wrong with a manifest.

use crate::args::{Global, ManifestArgs};
use crate::exit::{Exit, Failure};
use crate::session::Planned;
use crate::ui;

pub(crate) fn run(args: &ManifestArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(planned) = Planned::from_manifest(args, global)? else {
        return Ok(Exit::Usage);
    };
    let plan = &planned.plan;
    ui::out(&format!(
        "{}: {} samples, {} stages, {} instances",
        plan.name,
        plan.samples.len(),
        plan.stages.len(),
        plan.instances.len()
    ));
    Ok(Exit::Ok)
}
