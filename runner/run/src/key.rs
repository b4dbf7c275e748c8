//! The cache key of an instance: what it reads, and nothing else.
//!
//! Components are kept with their names, so that `explain` can say which one changed. What many instances share is
//! digested once in a run.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use hotcell_plan::with::With;
use hotcell_plan::{Instance, Plan, PlannedStage, Wire};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::stage::{PortType, StageType};
use serde::Serialize;

/// How a key is made of its components is the store's: whoever imports records computes their keys anew.
pub use hotcell_store::records::Components;

/// The components of a key while it is made: where something is stored, no more is needed of them than their digest.
/// Sorted by their names, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Parts<'_> {
    /// The key.
    pub(crate) fn key(&self) -> Digest {
        hotcell_store::records::key_of_sorted(self.0.iter().map(|(name, value)| (&**name, &**value)))
    }
}

impl From<Parts<'_>> for Components {
    fn from(parts: Parts<'_>) -> Self {
        let owned = parts.0.into_iter();
        owned
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect()
    }
}

/// Digests of what instances share.
#[derive(Debug)]
pub(crate) struct Memory {
    stages: HashMap<String, OfStage>,
    profiles: HashMap<String, String>,
    personas: HashMap<String, String>,
    /// Of all profiles together.
    all_profiles: OnceLock<String>,
    given: Vec<ArchProfile>,
}

/// What the instances of a stage share.
#[derive(Debug)]
struct OfStage {
    stage_type: Option<&'static StageType>,
    /// Its name and version.
    name: String,
    limits: String,
    /// Limits that were asked for.
    asked: String,
    /// The settings of its first instance; most stages have the same for all.
    with: Option<(With, String)>,
}

impl OfStage {
    fn new(plan: &Plan, stage: &PlannedStage) -> Self {
        let first = plan.instances.get(stage.first).filter(|_| stage.count > 0);
        let stage_type = StageType::find(&stage.uses);
        let name = stage_type.map(|stage_type| format!("{} {}", stage_type.name, stage_type.version));
        Self {
            stage_type,
            name: name.unwrap_or_default(),
            limits: digest_of(&stage.limits.guest),
            asked: digest_of(&(&stage.limits.asked, stage.limits.cpu)),
            with: first.map(|first| (first.with.clone(), digest_of(&first.with))),
        }
    }
}

impl Memory {
    pub(crate) fn new(plan: &Plan, profiles: &[ArchProfile]) -> Self {
        let stages = plan.stages.iter();
        let named = plan.profiles.iter();
        let personas = plan.personas.iter();
        Self {
            stages: stages
                .map(|(name, stage)| (name.clone(), OfStage::new(plan, stage)))
                .collect(),
            profiles: named
                .map(|(name, profile)| (name.clone(), digest_of(profile)))
                .collect(),
            personas: personas
                .map(|(name, persona)| (name.clone(), digest_of(persona)))
                .collect(),
            all_profiles: OnceLock::new(),
            given: profiles.to_vec(),
        }
    }

    /// Makes the components of an instance's key. `inputs` are the digests of what is wired to it, by port, in order.
    pub(crate) fn components<'k>(
        &'k self,
        plan: &Plan,
        instance: &Instance,
        inputs: &BTreeMap<&str, Vec<Digest>>,
        engine: String,
    ) -> Parts<'k> {
        let mut parts: Vec<(Cow<'k, str>, Cow<'k, str>)> = Vec::with_capacity(12);
        let mut add = |name: Cow<'k, str>, value: Cow<'k, str>| parts.push((name, value));
        let stage = self.stages.get(&instance.stage);
        add("engine".into(), engine.into());
        let shared = stage.and_then(|stage| stage.with.as_ref());
        let shared = shared.filter(|(with, _)| with.is_clone_of(&instance.with));
        add(
            "with".into(),
            shared.map_or_else(
                || digest_of(&instance.with).into(),
                |(_, digest)| digest.as_str().into(),
            ),
        );
        if let Some((stage, stage_type)) = stage.and_then(|stage| Some((stage, stage.stage_type?))) {
            add("stage-type".into(), stage.name.as_str().into());
            if stage_type.seeded {
                add("seed".into(), instance.seed.to_string().into());
            }
            if stage_type.is_limited() {
                add("limits".into(), stage.limits.as_str().into());
            }
            // An event stream's header names the instance.
            if stage_type
                .outputs
                .iter()
                .any(|output| output.port == PortType::Events)
            {
                add("name".into(), instance.name.clone().into());
            }
            // A program sees a file or a folder of files, and can meet the limits that were asked for.
            if stage_type.open {
                add("asked".into(), stage.asked.as_str().into());
                for (port, wires) in &instance.inputs {
                    add(format!("in.{port}").into(), shape(plan, wires).into());
                }
            }
            // Inspection is given all profiles: it names the architecture itself.
            if stage_type.name == "inspect/elf" {
                let all = self.all_profiles.get_or_init(|| digest_of(&self.given));
                add("profiles".into(), all.as_str().into());
            }
        }
        for (port, digests) in inputs {
            for (index, digest) in digests.iter().enumerate() {
                add(format!("in.{port}.{index}").into(), digest.to_string().into());
            }
        }
        if let Some(name) = &instance.arch {
            let given = || {
                self.given
                    .iter()
                    .find(|profile| profile.name == *name)
                    .map(digest_of)
            };
            let known = self.profiles.get(name).map(|digest| digest.as_str().into());
            if let Some(profile) = known.or_else(|| given().map(Cow::Owned)) {
                add("profile".into(), profile);
            }
        }
        if let Some(persona) = instance.persona.as_ref().and_then(|name| self.personas.get(name)) {
            add("persona".into(), persona.as_str().into());
        }
        if let Some(rules) = instance.rules.as_ref().and_then(|name| plan.rule_sets.get(name)) {
            add("rules".into(), rules.digest.to_string().into());
        }
        if let Some(files) = instance.files.as_ref().and_then(|name| plan.file_sets.get(name)) {
            add("files".into(), files.digest.to_string().into());
        }
        for (part, name) in [("sysroot", &instance.sysroot), ("web", &instance.web)] {
            if let Some(name) = name {
                let known = plan.sysroots.get(name);
                let digest = known.map_or_else(|| "not fetched".to_owned(), |root| root.digest.to_string());
                add(part.into(), digest.into());
            }
        }
        // Should two ever have the same name, the later one counts, as in a map.
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        parts.reverse();
        parts.dedup_by(|a, b| a.0 == b.0);
        parts.reverse();
        Parts(parts)
    }
}

/// What a program finds of an input: one thing or a folder of them, and of which type.
fn shape(plan: &Plan, wires: &[Wire]) -> String {
    let type_of = |stage: Option<&PlannedStage>, port: &str| {
        let port = stage.and_then(|stage| stage.outputs.get(port));
        port.map(ToString::to_string).unwrap_or_default()
    };
    match wires {
        [Wire::Sample(_) | Wire::Item] => "one file".to_owned(),
        [Wire::Output { instance, port }] => {
            let stage = plan
                .instances
                .get(*instance)
                .and_then(|before| plan.stage_of(before));
            format!("one {}", type_of(stage, port))
        }
        [Wire::All { stage, port }] => format!("all {}", type_of(plan.stages.get(stage), port)),
        _ => "list".to_owned(),
    }
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
