//! `hotcell.lock`: what manifests of a folder were made of when they were locked.
//!
//! Every section is a map from what people call a thing to what it is. A pin is a digest, or a text that holds one.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the lock file's format.
pub const FORMAT: &str = "hotcell-lock";
/// Version of the lock file's format.
///
/// Version 2 pins programs that are not the manifest's own files, and all arch profiles where an inspection reads them.
/// Version 1 is read: what it did not pin is not compared.
pub const VERSION: u32 = 2;
/// Oldest version that is read.
pub const OLDEST: u32 = 1;

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Manifests by their file name; with variants: `bots.toml + ci`.
    #[serde(default)]
    pub manifests: BTreeMap<String, Lock>,
}

impl Default for LockFile {
    fn default() -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            manifests: BTreeMap::new(),
        }
    }
}

/// A map from what people call a thing to what it is.
pub type Pins = BTreeMap<String, String>;

/// What one manifest is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lock {
    /// `hotcell`: its version. `manifest`: digest of the manifest after includes, variants and `--set`.
    pub tools: Pins,
    /// The manifest and what it includes.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub documents: Pins,
    /// Samples: `<set>: <where it is>`.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub samples: Pins,
    /// Archives that samples stand in.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub archives: Pins,
    /// Packages that sources resolved to: version, architecture, digest.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub packages: Pins,
    /// Files of the user's own programs.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub files: Pins,
    /// Programs of this host that commands run, and interpreters of scripts, by their path. Absent: an entry of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programs: Option<Pins>,
    /// Roots of guests, by the sources that they are made of.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub sysroots: Pins,
    /// Rule files.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub rules: Pins,
    /// Personas.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub personas: Pins,
    /// Arch profiles.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub profiles: Pins,
    /// Engines: what they say of themselves, and the digest of their executable.
    #[serde(skip_serializing_if = "Pins::is_empty")]
    pub engines: Pins,
}

/// Something that is not as it was pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The section.
    pub section: String,
    /// What it is.
    pub name: String,
    /// What was pinned; absent: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// What is there now; absent: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

static NONE: Pins = Pins::new();

impl Lock {
    /// All sections with their names.
    pub fn sections(&self) -> [(&'static str, &Pins); 12] {
        [
            ("tools", &self.tools),
            ("documents", &self.documents),
            ("samples", &self.samples),
            ("archives", &self.archives),
            ("packages", &self.packages),
            ("files", &self.files),
            ("programs", self.programs.as_ref().unwrap_or(&NONE)),
            ("sysroots", &self.sysroots),
            ("rules", &self.rules),
            ("personas", &self.personas),
            ("profiles", &self.profiles),
            ("engines", &self.engines),
        ]
    }

    /// How many things are pinned.
    pub fn len(&self) -> usize {
        self.sections().iter().map(|(_, pins)| pins.len()).sum()
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that is not as it was pinned.
    pub fn differences(&self, found: &Self) -> Vec<Difference> {
        let mut all = Vec::new();
        for ((section, pinned), (_, found)) in self.sections().into_iter().zip(found.sections()) {
            let mut names: BTreeSet<&String> = pinned.keys().chain(found.keys()).collect();
            if self.programs.is_none() && ["programs", "profiles"].contains(&section) {
                names.retain(|name| pinned.contains_key(*name));
            }
            for name in names {
                let (before, now) = (pinned.get(name), found.get(name));
                if before != now {
                    all.push(Difference {
                        section: section.into(),
                        name: name.clone(),
                        pinned: before.cloned(),
                        found: now.cloned(),
                    });
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_compared() {
        let pins = |value: &str| Pins::from([("x".to_owned(), value.to_owned())]);
        let all = |value: &str| Lock {
            tools: pins(value),
            documents: pins(value),
            samples: pins(value),
            archives: pins(value),
            packages: pins(value),
            files: pins(value),
            programs: Some(pins(value)),
            sysroots: pins(value),
            rules: pins(value),
            personas: pins(value),
            profiles: pins(value),
            engines: pins(value),
        };
        assert_eq!(all("1").differences(&all("1")), []);
        let differences = all("1").differences(&all("2"));
        assert_eq!(differences.len(), 12);
        assert!(
            differences
                .iter()
                .all(|difference| difference.pinned.as_deref() == Some("1"))
        );
        let empty = Lock {
            programs: Some(Pins::new()),
            ..Lock::default()
        };
        assert_eq!(all("1").differences(&empty).len(), 12);
        assert_eq!(empty.differences(&all("1")).len(), 12);
    }
}
