//! A run's folder.
//!
//! `result/` comes into being at once: it is written as `result.partial/` and renamed when it is complete. So a folder named
//! `result` is always a whole result.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Journal, StoreError};

/// A result that is being written.
const PARTIAL: &str = "result.partial";
/// How files are named that are being written.
const PART: &str = ".part-";

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    folder: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run. Where the id is taken, a number is added to it.
    pub fn create(runs: &Path, id: &str) -> Result<Self, StoreError> {
        fs_err::create_dir_all(runs)?;
        let mut number = 1u32;
        loop {
            let name = if number == 1 {
                id.to_owned()
            } else {
                format!("{id}-{number}")
            };
            let folder = runs.join(name);
            match fs_err::create_dir(&folder) {
                Ok(()) => return Ok(Self { folder }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 10_000 => {
                    number += 1
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The folder of a run that is there.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The run's id: the folder's name.
    pub fn id(&self) -> String {
        self.folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// `journal.jsonl`.
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal.jsonl")
    }

    /// Where the result stands once it is complete.
    pub fn result(&self) -> PathBuf {
        self.folder.join("result")
    }

    /// Removes what a run that is no more had begun to write. Gives how many files and folders; what a run that goes on
    /// writes, or one that has not begun its journal, stays.
    pub fn clear_abandoned(&self) -> u64 {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let begun = |entry: &std::fs::DirEntry| {
            let name = entry.file_name();
            name == PARTIAL || name.to_string_lossy().starts_with(PART)
        };
        let begun: Vec<PathBuf> = entries.filter(begun).map(|entry| entry.path()).collect();
        let journal = self.journal();
        if begun.is_empty() || !journal.is_file() || Journal::is_live(&journal) {
            return 0;
        }
        let removed = begun
            .iter()
            .filter(|path| match path.is_dir() && !path.is_symlink() {
                true => std::fs::remove_dir_all(path).is_ok(),
                false => std::fs::remove_file(path).is_ok(),
            });
        removed.count() as u64
    }

    /// Begins the result.
    pub fn begin_result(&self) -> Result<ResultWriter, StoreError> {
        let partial = self.folder.join(PARTIAL);
        if partial.exists() {
            fs_err::remove_dir_all(&partial)?;
        }
        fs_err::create_dir(&partial)?;
        Ok(ResultWriter {
            partial,
            result: self.result(),
        })
    }

    /// Writes a file beside the result, whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_with(name, |file| Ok(file.write_all(bytes)?))
    }

    /// The same; what is to be in the file is written piece by piece.
    pub fn write_with(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let file = self.part(name)?;
        let mut pieces = BufWriter::new(file);
        content(&mut pieces)?;
        let file = pieces.into_inner().map_err(|error| error.into_error())?;
        self.put(file, name)
    }

    fn part(&self, name: &str) -> Result<NamedTempFile, StoreError> {
        within(&self.folder, name)?;
        Ok(tempfile::Builder::new().prefix(PART).tempfile_in(&self.folder)?)
    }

    fn put(&self, file: NamedTempFile, name: &str) -> Result<(), StoreError> {
        readable(&file)?;
        file.persist(self.folder.join(name))
            .map_err(|error| error.error)?;
        Ok(())
    }
}

/// A path in a folder; the folders on its way are made.
fn within(folder: &Path, path: &str) -> Result<PathBuf, StoreError> {
    let path = folder.join(path);
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    Ok(path)
}

/// Temporary files are private; what a run leaves is for everyone whom the folder lets in.
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// A result that is being written.
#[derive(Debug)]
pub struct ResultWriter {
    partial: PathBuf,
    result: PathBuf,
}

impl ResultWriter {
    /// Writes one file of the result; `path` is relative and made by us, never by a sample.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(fs_err::write(within(&self.partial, path)?, bytes)?)
    }

    /// The same; what is to be in the file is written piece by piece.
    pub fn write_with(
        &self,
        path: &str,
        content: impl FnOnce(&mut dyn Write) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = within(&self.partial, path)?;
        let mut file = BufWriter::new(fs_err::File::create(path)?);
        content(&mut file)?;
        Ok(file.flush()?)
    }

    /// The result is complete: it appears under its name.
    pub fn publish(self) -> Result<(), StoreError> {
        Ok(fs_err::rename(&self.partial, &self.result)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_there_whole_or_not_at_all() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "x").unwrap();
        let result = run.begin_result().unwrap();
        result.write("stages/a/b/out.json", b"{}").unwrap();
        assert!(!run.result().exists());
        result.publish().unwrap();
        assert_eq!(
            fs_err::read(run.result().join("stages/a/b/out.json")).unwrap(),
            b"{}"
        );
    }

    #[test]
    fn pieces_of_the_dead_go_and_those_of_the_living_stay() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "x").unwrap();
        let _result = run.begin_result().unwrap();
        let pieces = [run.path().join("result.partial"), run.path().join(".part-1")];
        fs_err::write(&pieces[1], "half").unwrap();
        // Before its journal nothing tells whether it lives.
        assert_eq!(run.clear_abandoned(), 0);
        let journal = Journal::begin(&run.journal(), "x", hotcell_schema::digest::Digest::of(b"")).unwrap();
        assert_eq!(run.clear_abandoned(), 0);
        assert!(pieces.iter().all(|piece| piece.exists()));
        drop(journal);
        assert_eq!(run.clear_abandoned(), 2);
        assert!(!pieces.iter().any(|piece| piece.exists()) && run.journal().exists());
    }

    #[test]
    fn ids_never_collide() {
        let runs = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..3)
            .map(|_| RunFolder::create(runs.path(), "x").unwrap().id())
            .collect();
        assert_eq!(ids, ["x", "x-2", "x-3"]);
    }
}
