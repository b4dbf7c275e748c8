//! Settings of `command` stages: a program of the user's own.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::What;
use crate::finding::Severity;
use crate::manifest::SecretRef;
use crate::respond::Action;

/// `with` of `command`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(extend("required" = ["run"]))]
pub struct CommandWith {
    /// The program and its arguments. `${inputs.<port>}` and `${outputs.<port>}` are paths of what is wired and of what is to
    /// be written. An element that names a file in the folder of the document that says it is taken along to the program's work
    /// folder.
    #[schemars(length(min = 1), extend("prefixItems" = [{"type": "string", "minLength": 1}]))]
    pub run: Vec<String>,
    /// Further files that the program needs: globs, from the document's folder.
    pub files: Vec<String>,
    /// Environment, beside the fixed small one: a text, or `{ secret = "<name>" }`.
    #[schemars(extend("propertyNames" = {"pattern": crate::stage::ENV_NAME}))]
    pub env: BTreeMap<String, EnvValue>,
    /// The input that it reads from standard input.
    pub stdin: Option<String>,
    /// Exit codes that count as done; absent: 0.
    pub success: Vec<u8>,
    /// What it gives, beside `stdout` and `stderr`: port to its type.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9-]{0,63}$"}))]
    pub outputs: BTreeMap<String, CommandOutput>,
    /// Its result may differ from run to run: goldens then hold facts instead of bytes.
    pub observed: bool,
    /// It also runs beside the guest whose events it reads, from the guest's start to its end, and what it finds there acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveWith>,
}

/// An analyser that runs beside a guest: `with.live` of `command`. It reads events from standard input, one in a line as they stand
/// in a file of events, and writes findings to standard output, one in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LiveWith {
    /// Kinds of the events that it reads; empty: all.
    #[serde(default)]
    pub on: Vec<EventKind>,
    /// Least severity of a finding that acts.
    #[serde(default = "least")]
    pub at: Severity,
    /// What is done about the guest when it finds such a thing.
    pub respond: Action,
}

fn least() -> Severity {
    Severity::Info
}

impl LiveWith {
    /// Whether it reads events of a kind.
    pub fn reads(&self, what: &What) -> bool {
        self.on.is_empty() || self.on.iter().any(|kind| kind.0 == what.kind())
    }
}

/// Kind of an event: `syscall`, `file` …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKind(pub String);

impl JsonSchema for EventKind {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EventKind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": What::KINDS})
    }
}

/// `inputs/<port>/index.json` where several things are wired to a port: where each came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputList {
    /// Always `hotcell-inputs`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// What is wired, in the order of the files.
    pub inputs: Vec<InputOrigin>,
}

impl Default for InputList {
    fn default() -> Self {
        Self {
            format: "hotcell-inputs".into(),
            version: 1,
            inputs: Vec::new(),
        }
    }
}

/// One of several things that are wired to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputOrigin {
    /// Name of the file (of a `files` output: the folder) beside the index.
    pub path: String,
    /// Digest of its bytes; of a `files` output: of the list.
    pub digest: Digest,
    /// The instance that gave it; absent for samples and items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The stage of that instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Values of that instance's axes: samples and items by their digests.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub axes: IndexMap<String, String>,
    /// Digest of the sample that it is, or that the instance is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Digest>,
}

/// Value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum EnvValue {
    /// The value itself.
    Text(String),
    /// A secret, by its name.
    Secret(SecretRef),
}

impl Serialize for EnvValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Secret(secret) => secret.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = EnvValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or `{ secret = \"name\" }`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EnvValue, E> {
                Ok(EnvValue::Text(text.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<EnvValue, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                SecretRef::deserialize(map).map(EnvValue::Secret)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// An output that a command declares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct CommandOutput {
    /// Its type: `file`, `files`, `events`, `findings`, `json`, or a JSON type that a stage type gives (`json<elf-info>`).
    #[serde(rename = "type")]
    pub port: OutputType,
    /// A JSON schema that it fulfils: a file in the document's folder. Only for `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Where the program leaves it.
    pub from: OutputPlace,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Type of an output that a command declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputType(pub crate::stage::PortType);

impl Default for OutputType {
    fn default() -> Self {
        Self(crate::stage::PortType::File)
    }
}

impl Serialize for OutputType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OutputType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::stage::PortType::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for OutputType {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutputType".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut names: Vec<String> = ["file", "files", "events", "findings", "json"]
            .map(String::from)
            .to_vec();
        let given = crate::stage::STAGE_TYPES
            .iter()
            .flat_map(|stage_type| stage_type.outputs);
        for name in given.map(|output| output.port.to_string()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        schemars::json_schema!({"type": "string", "enum": names, "default": "file"})
    }
}

/// Where a command leaves an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputPlace {
    /// The file `outputs/<port>` of its work folder; for `files`, the folder of that name.
    #[default]
    File,
    /// Its standard output.
    Stdout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_written() {
        let json = serde_json::json!({
            "run": ["python3", "analyse.py"],
            "env": {"MODE": "fast", "TOKEN": {"secret": "api"}},
            "outputs": {"info": {"type": "json<elf-info>"}, "table": {"type": "json", "schema": "table.json", "from": "stdout"}},
        });
        let with: CommandWith = serde_json::from_value(json).unwrap();
        assert_eq!(with.env["MODE"], EnvValue::Text("fast".into()));
        assert_eq!(
            with.outputs["info"].port.0,
            crate::stage::PortType::Json("elf-info")
        );
        let again: CommandWith = serde_json::from_value(serde_json::to_value(&with).unwrap()).unwrap();
        assert_eq!(again, with);
        for wrong in ["json<nothing>", "anything", ""] {
            let json = serde_json::json!({"outputs": {"x": {"type": wrong}}});
            assert!(serde_json::from_value::<CommandWith>(json).is_err(), "{wrong}");
        }
    }
}
