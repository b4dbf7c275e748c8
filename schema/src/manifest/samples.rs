//! Where bytes come from, and which of them are samples.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secrets::SecretRef;
use super::span::Spanned;
use crate::digest::Digest;

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// What kind of place it is.
    pub kind: SourceKind,
    /// A folder, or a glob of archives, packages (`*.deb`) or source packages (`*.dsc`), from the folder of the document
    /// that says it. It may lead out of that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Spanned<String>>,
    /// Password of encrypted archives: a secret by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Name of a Debian package, which is fetched from the mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9+.-]{0,127}$"))]
    pub package: Option<String>,
    /// Names of several Debian packages, which are fetched from the mirror: their files are together those of the source, for
    /// instance of a guest's root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = "^[a-z0-9][a-z0-9+.-]{0,127}$")), length(max = 1000))]
    pub packages: Vec<Spanned<String>>,
    /// Whether `packages` come with what they need (`Depends`, `Pre-Depends`), and what those need: of alternatives the first
    /// that the suite has, at most 256 packages that are not named. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dependencies: bool,
    /// Version of the package; absent: the newest of the suite, pinned by `hotcell.lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9A-Za-z.+:~-]{1,128}$"))]
    pub version: Option<String>,
    /// Debian architecture of the package, for instance `armhf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,31}$"))]
    pub arch: Option<String>,
    /// Debian suite; absent: `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9./-]{0,63}$"))]
    pub suite: Option<String>,
    /// Debian mirror; absent: `https://deb.debian.org/debian`. An address without a user, a password or a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://[^ \"<>@?#]{1,500}$"))]
    pub mirror: Option<String>,
    /// Whether a suite whose `Release` says that it is no longer valid is refused; absent: true. A snapshot of a suite,
    /// `https://snapshot.debian.org/archive/debian/20240101T000000Z`, needs `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_valid_until: Option<bool>,
    /// Digest of the package's `.deb` or `.dsc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

impl Source {
    /// The suite of a Debian source that names none.
    pub const SUITE: &str = "stable";
    /// The mirror of a Debian source that names none.
    pub const MIRROR: &str = "https://deb.debian.org/debian";
}

/// Kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A folder of files. As a root of guests it ends where other file systems are mounted in it (`/proc`, `/sys`, `/dev`), which
    /// are empty folders there, and what may not be read is left out with a warning.
    Folder,
    /// Archives (zip, 7z, tar, deb), also encrypted: their members are the files.
    Archive,
    /// A Debian package, fetched by its name or given as `.deb`: what is in it are the files.
    Debian,
    /// A Debian source package, fetched by its name or given as `.dsc`: the `.dsc` and what it names are the files.
    DebianSource,
}

/// A set of samples: by `glob`, by `list`, or by `digests`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SampleSet {
    /// Files whose path fits a pattern (`*`, `?`, `[ab]`, `{a,b}`, `**` for any number of folders).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glob: Option<Spanned<String>>,
    /// A CSV file with a header line, or a JSONL file, with the columns `path`, `sha256`, `family`, `variant`, `label`.
    /// Each row has a path, a digest, or both. A row with a digest alone is found in the source by its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Spanned<String>>,
    /// Digests of files that are found in the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Spanned<Digest>>,
    /// Name of the source in which files are looked for; absent: the folder of the document that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Spanned<String>>,
    /// Family of every sample that does not say its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Variant of every sample that does not say its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Label of every sample that does not say its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
