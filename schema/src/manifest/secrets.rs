//! Secrets: named in a manifest, never written out, read when a run needs them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Spanned;

/// A secret by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the secret: a key of `secrets`.
    pub secret: String,
}

/// Where a secret is read when a run needs it: one of these. One line feed at its end is cut off.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Secret {
    /// A file, from the folder of the document that says it. It may lead out of that folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Spanned<String>>,
    /// A program and its arguments, run without a shell; the secret is what it writes to standard output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<Spanned<String>>,
    /// The name of an environment variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"))]
    pub env: Option<String>,
}
