//! What of an arbiter survives its death, in one small file that is always whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::policy::Used;
use crate::cores::locks::Holder;

const FORMAT: &str = "hotcell-arbiter";
const VERSION: u32 = 1;
/// Most bytes of the file: thousands of cells and bans.
const MOST: u64 = 4 << 20;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kept {
    /// The boot in which it was written: process ids mean nothing in another.
    pub boot: String,
    /// Cells that were admitted and not left.
    pub cells: Vec<Holder>,
    /// Who is banned, and why.
    pub banned: BTreeMap<u32, String>,
    /// What was used today.
    pub used: Used,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    kept: Kept,
}

/// The file.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    written: Option<Kept>,
}

impl KeptFile {
    /// Reads what an earlier arbiter kept; nothing, where there was none. `boot` says which boot this is.
    ///
    /// # Errors
    ///
    /// If the file is there and cannot be read, or is not of this format: then nothing of it is lost.
    pub fn open(path: &Path, boot: &str) -> io::Result<(Self, Kept)> {
        let mut kept = match File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MOST).read_to_string(&mut text)?;
                let wrong = |why: &str| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
                };
                let document: Document =
                    serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
                if (document.format.as_str(), document.version) != (FORMAT, VERSION) {
                    return Err(wrong("not what this version keeps; move it away to begin anew"));
                }
                document.kept
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        if kept.boot != boot {
            kept.cells.clear();
            boot.clone_into(&mut kept.boot);
        }
        let path = path.to_owned();
        Ok((Self { path, written: None }, kept))
    }

    /// Writes what is to be kept, if it is something else than last time. The old file is replaced at once or not at all.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the old one is still there.
    pub fn write(&mut self, kept: &Kept) -> io::Result<()> {
        if self.written.as_ref() == Some(kept) {
            return Ok(());
        }
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            kept: kept.clone(),
        };
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(&document)?)?;
        fs::rename(&next, &self.path)?;
        self.written = Some(kept.clone());
        Ok(())
    }
}

/// Which boot of the machine this is (`proc_sys_kernel(5)`, `random/boot_id`).
///
/// # Errors
///
/// If `/proc` does not say.
pub fn this_boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again_and_cells_only_in_the_same_boot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arbiter.json");
        let (mut file, mut kept) = KeptFile::open(&path, "one").unwrap();
        assert_eq!(kept.boot, "one");
        kept.cells.push(Holder::new(7, 9).unwrap());
        kept.banned.insert(1501, "spam".into());
        file.write(&kept).unwrap();
        assert_eq!(KeptFile::open(&path, "one").unwrap().1, kept);
        let (_, later) = KeptFile::open(&path, "two").unwrap();
        assert!(later.cells.is_empty());
        assert_eq!(later.banned, kept.banned);
    }

    #[test]
    fn a_file_of_something_else_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arbiter.json");
        for text in [
            "",
            "{}",
            r#"{"format":"hotcell-arbiter","version":2,"kept":{}}"#,
            r#"{"format":"x","version":1,"kept":{"boot":"","cells":[],"banned":{},"used":{"day":0,"cpu-time":{}}}}"#,
            r#"{"format":"hotcell-arbiter","version":1,"kept":{"boot":"","cells":[[0,1]],"banned":{},"used":{"day":0,"cpu-time":{}}}}"#,
        ] {
            fs::write(&path, text).unwrap();
            let error = KeptFile::open(&path, "one").unwrap_err();
            assert!(error.to_string().contains("arbiter.json"), "{error}");
        }
    }
}
