//! The bytes of a run's outputs, for those who compare them: from the run's folder, or from the store.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use hotcell_judge::contents::Contents;
use hotcell_schema::digest::Digest;
use hotcell_schema::report::OutputReport;
use hotcell_store::{Store, Stored};

/// A run's `result/`, and the store (read only) for what stands in no folder any more.
pub(crate) struct Files {
    result: PathBuf,
    store: Option<Store>,
}

impl Files {
    /// Reads outputs below `result`. A store that cannot be read is as none: changes are then told by their digests.
    pub(crate) fn new(result: PathBuf, store: &Path) -> Self {
        Self {
            result,
            store: Store::open_existing(store).ok().flatten(),
        }
    }
}

impl Contents for Files {
    fn output(&self, output: &OutputReport, limit: u64) -> Option<Vec<u8>> {
        read(&self.result, &output.path, limit)
    }

    fn object(&self, digest: &Digest, length: u64) -> Option<Vec<u8>> {
        let stored = Stored {
            digest: *digest,
            length,
        };
        self.store.as_ref()?.get(&stored).ok()?
    }
}

/// A file below `result/`. Who gave the report is not known: a path that leads elsewhere, by itself or by a link, is not
/// followed, and nothing but a plain file is read.
pub(crate) fn read(result: &Path, path: &str, limit: u64) -> Option<Vec<u8>> {
    let path = Path::new(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let root = result.canonicalize().ok()?;
    let file = root.join(path).canonicalize().ok()?;
    if !file.starts_with(&root) || !file.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut reader = fs_err::File::open(file).ok()?.take(limit.saturating_add(1));
    reader.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn only_plain_files_below_the_result_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let result = folder.path().join("result");
        fs_err::create_dir_all(result.join("stages")).unwrap();
        fs_err::write(result.join("stages/out"), "12345").unwrap();
        fs_err::write(folder.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), result.join("link")).unwrap();
        assert_eq!(read(&result, "stages/out", 5).as_deref(), Some(&b"12345"[..]));
        for path in [
            "../secret",
            "link",
            "stages",
            "gone",
            "/etc/passwd",
            "stages/../../secret",
            "",
        ] {
            assert_eq!(read(&result, path, 100), None, "{path}");
        }
        assert_eq!(read(&result, "stages/out", 4), None);
    }
}
