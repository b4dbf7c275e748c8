//! Core files of a cell: the memory of what runs in it, for people to look at.
//!
//! A cell writes them into the area of its contexts, one behind the other, and says their names and lengths. What it says is
//! hostile: a name that is read is a [`CoreName`] or refused, and where the files lie is checked against the area. The bytes
//! are only copied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::protocol::ProtocolError;

/// Greatest number of core files of a dump: all of them fit into one answer at the door.
pub const MAX_CORES: usize = 256;
/// Greatest length of a name in bytes.
const MAX_NAME: usize = 64;
/// How names end.
const SUFFIX: &str = ".core";
/// Characters of a program's name that are kept.
const MAX_IMAGE: usize = 32;

/// The name of a core file: a letter or digit, then also `.`, `_`, `+` and `-`, at last `.core`, 64 bytes at most. So it names
/// a file in the folder that it is put in, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoreName(String);

impl CoreName {
    /// The name for a process of this number, which runs the program at this path.
    pub fn of(pid: u32, image: &str) -> Self {
        let image = image.rsplit('/').next().unwrap_or_default();
        let plain = |letter| if is_plain(letter) { letter } else { '_' };
        let image: String = image.chars().take(MAX_IMAGE).map(plain).collect();
        Self(format!("{pid}-{image}{SUFFIX}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._+-".contains(letter)
}

/// A name of another form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no name of a core file")]
pub struct NoCoreName;

impl TryFrom<String> for CoreName {
    type Error = NoCoreName;

    fn try_from(name: String) -> Result<Self, NoCoreName> {
        let first = name
            .chars()
            .next()
            .is_some_and(|letter| letter.is_ascii_alphanumeric());
        let fits = name.len() <= MAX_NAME && name.ends_with(SUFFIX) && name.chars().all(is_plain);
        match first && fits {
            true => Ok(Self(name)),
            false => Err(NoCoreName),
        }
    }
}

impl From<CoreName> for String {
    fn from(name: CoreName) -> Self {
        name.0
    }
}

/// A core file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Core {
    /// Its name; none of a dump is there twice.
    pub name: CoreName,
    /// How many bytes it has.
    pub length: u64,
}

/// How many bytes core files have together, as a cell says; an error where there are too many, or two of one name.
pub(crate) fn check(cores: &[Core]) -> Result<u64, ProtocolError> {
    if cores.len() > MAX_CORES {
        let limit = MAX_CORES as u64;
        return Err(ProtocolError::TooMuch {
            what: "core files",
            limit,
        });
    }
    let names: BTreeSet<&CoreName> = cores.iter().map(|core| &core.name).collect();
    if names.len() != cores.len() {
        return Err(ProtocolError::Order("two core files of one name"));
    }
    let lengths = cores.iter().map(|core| core.length);
    Ok(lengths.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn core(name: &str, length: u64) -> Core {
        Core {
            name: CoreName::try_from(name.to_owned()).unwrap(),
            length,
        }
    }

    #[test]
    fn a_name_is_of_a_file_in_its_folder() {
        assert_eq!(CoreName::of(1000, "/bin/busybox").as_str(), "1000-busybox.core");
        assert_eq!(CoreName::of(7, "/tmp/a b\n../").as_str(), "7-.core");
        assert_eq!(CoreName::of(7, "a b\u{1b}é\\").as_str(), "7-a_b___.core");
        for wrong in [
            "",
            ".core",
            "../x.core",
            "a/b.core",
            "..core",
            "-x.core",
            "x.cor",
            "x\0.core",
            "é.core",
            "x\n.core",
        ] {
            assert_eq!(CoreName::try_from(wrong.to_owned()), Err(NoCoreName), "{wrong:?}");
        }
        let long = format!("{}.core", "x".repeat(60));
        assert!(CoreName::try_from(long).is_err());
    }

    proptest! {
        #[test]
        fn every_path_gives_a_name_that_can_be_read(pid: u32, image in ".{0,80}") {
            let name = CoreName::of(pid, &image);
            prop_assert_eq!(CoreName::try_from(name.as_str().to_owned()), Ok(name));
        }
    }

    #[test]
    fn lies_about_core_files_are_found() {
        assert_eq!(check(&[core("1-a.core", 5), core("2-a.core", 6)]).unwrap(), 11);
        let most = [core("1-a.core", u64::MAX), core("2-a.core", 6)];
        assert_eq!(check(&most).unwrap(), u64::MAX);
        assert!(check(&[core("1-a.core", 5), core("1-a.core", 6)]).is_err());
        let many: Vec<Core> = (0..=MAX_CORES)
            .map(|at| core(&format!("{at}-a.core"), 1))
            .collect();
        assert!(check(&many).is_err());
        assert!(check(&many[1..]).is_ok());
    }

    #[test]
    fn the_greatest_answer_fits_at_the_door() {
        let image = "x".repeat(100);
        let cores: Vec<Core> = (0..MAX_CORES)
            .map(|at| Core {
                name: CoreName::of(u32::MAX - at as u32, &image),
                length: u64::MAX,
            })
            .collect();
        let answer = serde_json::to_vec(&crate::door::Answer::Dumped(cores)).unwrap();
        assert!(
            answer.len() < crate::cores::service::wire::MAX_PACKET,
            "{}",
            answer.len()
        );
    }
}
