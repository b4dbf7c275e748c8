//! The settings (`with`) of a run's instances, as its folder holds them, and which of them changed: a key names their digest.

use std::collections::HashMap;
use std::path::Path;

use hotcell_report::words;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::runs;

/// Settings that are named of one instance.
const NAMED: usize = 4;
/// Longest value that is shown, in characters.
const SHOWN: usize = 60;

/// The settings of a run's instances by name. Instances that came while it ran are not in its plan.
#[derive(Debug, Default)]
pub(crate) struct Settings(HashMap<String, Json>);

impl Settings {
    /// Reads a run's plan; of a folder without one nothing is known.
    pub(crate) fn of(run: &Path) -> Self {
        #[derive(Deserialize)]
        struct Planned {
            name: String,
            #[serde(default)]
            with: Json,
        }
        #[derive(Deserialize)]
        struct Plan {
            instances: Vec<Planned>,
        }
        let plan: Option<Plan> = runs::read(&run.join("plan.json"));
        let instances = plan.map(|plan| plan.instances).unwrap_or_default().into_iter();
        Self(instances.map(|planned| (planned.name, planned.with)).collect())
    }

    /// The settings of an instance.
    pub(crate) fn get(&self, instance: &str) -> Option<&Json> {
        self.0.get(instance)
    }
}

/// Which settings differ, with both values: `run.1: "a" -> "b"`. Nothing where they are alike.
pub(crate) fn differences(old: &Json, new: &Json) -> Vec<String> {
    let mut found = Vec::new();
    walk("", Some(old), Some(new), &mut found);
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    found
}

fn walk(path: &str, old: Option<&Json>, new: Option<&Json>, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match (old, new) {
        (Some(Json::Object(old)), Some(Json::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                walk(&below(key), old.get(key), new.get(key), found);
            }
        }
        (Some(Json::Array(old)), Some(Json::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                walk(&below(&index.to_string()), old.get(index), new.get(index), found);
            }
        }
        (old, new) => {
            let shown = |side: Option<&Json>| match side {
                Some(value) => words::cut(&value.to_string(), SHOWN),
                None => "(none)".to_owned(),
            };
            let name = if path.is_empty() { "with" } else { path };
            found.push(format!("{name}: {} -> {}", shown(old), shown(new)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changed_is_named_with_both_values() {
        let old = json!({"run": ["sh", "-c", "a"], "env": {"X": "1"}, "same": [1]});
        let new = json!({"run": ["sh", "-c", "b", "c"], "env": {"Y": "1"}, "same": [1]});
        assert_eq!(
            differences(&old, &new),
            [
                "run.2: \"a\" -> \"b\"",
                "run.3: (none) -> \"c\"",
                "env.X: \"1\" -> (none)",
                "env.Y: (none) -> \"1\"",
            ]
        );
        assert_eq!(differences(&old, &old), [""; 0]);
        let many: Vec<u32> = (0..9).collect();
        assert_eq!(differences(&json!([]), &json!(many)).last().unwrap(), "5 more");
    }
}
