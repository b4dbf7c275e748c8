//! The cache key of an instance: what it reads, and nothing else.
//!
//! Components are kept with their names, so that `explain` can say which one changed.

use std::collections::BTreeMap;

use hotcell_plan::{Instance, Plan};
use hotcell_schema::digest::Digest;
use hotcell_schema::stage::{PortType, StageType};
use serde::Serialize;

/// Version of the way keys are made.
const VERSION: &str = "hotcell-key 1";

/// The key's components by name, each as a digest or a short text.
pub type Components = BTreeMap<String, String>;

/// Makes the components of an instance's key. `inputs` are the digests of what is wired to it, by port, in order.
pub fn components(
    plan: &Plan,
    instance: &Instance,
    inputs: &BTreeMap<String, Vec<Digest>>,
    engine: &str,
) -> Components {
    let mut components = Components::new();
    let mut add = |name: String, value: String| {
        components.insert(name, value);
    };
    add("engine".into(), engine.to_owned());
    add("with".into(), digest_of(&instance.with));
    if let Some(stage) = StageType::find(&instance.uses) {
        add("stage-type".into(), format!("{} {}", stage.name, stage.version));
        if stage.seeded {
            add("seed".into(), instance.seed.to_string());
        }
        if stage.limited {
            add("limits".into(), digest_of(&instance.limits.guest));
        }
        // An event stream's header names the instance.
        if stage.outputs.iter().any(|output| output.port == PortType::Events) {
            add("name".into(), instance.name.clone());
        }
    }
    for (port, digests) in inputs {
        for (index, digest) in digests.iter().enumerate() {
            add(format!("in.{port}.{index}"), digest.to_string());
        }
    }
    if let Some(profile) = instance.arch.as_ref().and_then(|name| plan.profiles.get(name)) {
        add("profile".into(), digest_of(profile));
    }
    if let Some(persona) = instance.persona.as_ref().and_then(|name| plan.personas.get(name)) {
        add("persona".into(), digest_of(persona));
    }
    if let Some(rules) = instance.rules.as_ref().and_then(|name| plan.rule_sets.get(name)) {
        add("rules".into(), rules.digest.to_string());
    }
    components
}

/// The key itself.
pub fn key(components: &Components) -> Digest {
    let parts = components
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    Digest::of_parts(std::iter::once(VERSION.as_bytes()).chain(parts))
}

/// Digest of a value's JSON, in which struct fields stand in their order and maps are sorted.
pub(crate) fn digest_of(value: &impl Serialize) -> String {
    // These types have string keys and no values that JSON lacks, so serialising them cannot fail; if it ever did, the
    // error's text would be the component, and the key would match nothing that succeeded.
    match serde_json::to_vec(value) {
        Ok(json) => Digest::of(&json).to_string(),
        Err(error) => error.to_string(),
    }
}
