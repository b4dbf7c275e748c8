//! What each stage type does. A row of `hotcell_schema::stage::STAGE_TYPES` has its arm in [`run`].

pub(crate) mod cell;
pub(crate) mod command;
mod compare;
mod heard;
mod inspect;
mod linux;
mod past;
mod payload;
mod qemu_user;
mod respond;
pub(crate) mod rules;

use hotcell_plan::Instance;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::job::LeftFile;
use hotcell_schema::outcome::Status;
use hotcell_schema::stage::{Engine, StageType};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::work::{Done, Input, Inputs, Shared};

/// Runs an instance whose outputs are not stored. Both sides are an end; the error side has no outputs.
pub(crate) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    match instance.uses.as_str() {
        "inspect/elf" => inspect::run(shared, instance, inputs),
        "unicorn/payload" => payload::run(shared, instance, inputs),
        "unicorn/linux" => linux::run(shared, instance, inputs),
        "qemu-user/linux" | "native/linux" => qemu_user::run(shared, instance, inputs),
        "compare/behaviour" => compare::run(shared, instance, inputs),
        "detect/rules" => rules::run(shared, instance, inputs),
        "command" => command::run(shared, instance, inputs),
        other => Err(Done::without_outputs(
            Status::Refused,
            format!("this version cannot run `{other}`"),
        )),
    }
}

/// The settings of a stage type, which the planner wrote.
fn settings<T: DeserializeOwned>(instance: &Instance) -> Result<T, Done> {
    instance
        .with
        .read()
        .map_err(|error| Done::failed("the plan's settings cannot be read", error.to_string()))
}

/// The only thing wired to a port, if anything is.
fn only<'i, 'a>(inputs: &'i Inputs<'a>, port: &str) -> Option<&'i Input<'a>> {
    inputs.get(port)?.first()
}

/// The thing wired to a port that must be wired.
fn required<'i, 'a>(inputs: &'i Inputs<'a>, port: &str) -> Result<&'i Input<'a>, Done> {
    only(inputs, port)
        .ok_or_else(|| Done::failed("the plan lacks an input", format!("nothing is wired to `{port}`")))
}

/// The arch profile an instance runs on.
fn profile<'a>(shared: &Shared<'a>, instance: &Instance) -> Result<&'a ArchProfile, Done> {
    let refused = |reason: String| Done::without_outputs(Status::Refused, reason);
    let name = instance
        .arch
        .as_ref()
        .ok_or_else(|| refused("the file does not say its architecture (it is no ELF file); where it is a script, say which with `with.arch`, or with `--arch` where there is no manifest".into()))?;
    let profile = shared
        .profile(name)
        .ok_or_else(|| refused(format!("there is no arch profile `{name}`")))?;
    match engine(instance).map_or(Ok(()), |engine| engine.runs(profile)) {
        Ok(()) => Ok(profile),
        Err(why) => Err(refused(why)),
    }
}

/// What runs an instance's cells.
fn engine(instance: &Instance) -> Option<Engine> {
    StageType::find(&instance.uses)?.engine
}

/// Content of a `files` port.
#[derive(Serialize)]
struct FilesPort {
    format: &'static str,
    version: u32,
    files: Vec<LeftFile>,
}

impl FilesPort {
    fn new(files: Vec<LeftFile>) -> Self {
        Self {
            format: "hotcell-files",
            version: 1,
            files,
        }
    }
}

/// Stores a value as indented JSON with a final line feed.
fn put_json(shared: &Shared<'_>, value: &impl Serialize) -> Result<hotcell_store::Stored, Done> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| Done::failed("a result cannot be written as JSON", error.to_string()))?;
    json.push(b'\n');
    let taken = shared.given.take(json.len());
    taken.map_err(|error| crate::work::store_failed(error.into()))?;
    shared.options.store.put(&json).map_err(crate::work::store_failed)
}
