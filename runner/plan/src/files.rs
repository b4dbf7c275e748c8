//! Files on disk: patterns, digests. Reads names and bytes only; nothing in a file is given meaning but the ELF header.

use std::collections::BTreeMap;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use globset::{GlobBuilder, GlobMatcher};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::Span;
use sha2::{Digest as _, Sha256};

use crate::diagnostics::{Code, Diagnostic};
use crate::profiles::HEADER;

/// Greatest number of files and folders that are looked at for one pattern.
pub(crate) const MAX_VISITED: usize = 2_000_000;
/// Greatest length of a sample in bytes: cells get it in memory.
pub const MAX_SAMPLE: u64 = 1 << 30;
/// Greatest length of an archive in bytes.
pub const MAX_ARCHIVE: u64 = 4 << 30;
/// The folder of runs: what is in it is made from samples, and is none.
const STATE: &str = ".hotcell";
/// Files of a folder that could not be read and are named.
const MAX_UNREAD: usize = 3;

/// What is known of a file's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub digest: Digest,
    pub length: u64,
    /// The first bytes, at most [`HEADER`].
    pub head: Vec<u8>,
}

/// Why a pattern or file could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    /// The pattern itself.
    #[error("`{pattern}` is no pattern: {reason}")]
    Pattern { pattern: String, reason: String },
    /// The pattern or a link leads out of the folder.
    #[error("`{0}` leads out of the folder")]
    Outside(String),
    /// Anything the system says.
    #[error("cannot read {path}: {reason}")]
    Read { path: Utf8PathBuf, reason: String },
    /// Too much to look at.
    #[error("more than {MAX_VISITED} files and folders stand below {0}")]
    TooMany(Utf8PathBuf),
}

impl FileError {
    /// The error as a diagnostic at a place.
    pub(crate) fn tell(&self, span: Span) -> Diagnostic {
        let code = match self {
            Self::Pattern { .. } => Code::WrongPattern,
            Self::Outside(_) => Code::OutsideFolder,
            Self::Read { .. } => Code::SampleFile,
            Self::TooMany(_) => Code::TooMany,
        };
        let diagnostic = Diagnostic::error(code, span, self.to_string());
        match self {
            Self::Outside(_) => diagnostic
                .help("name the folder as a source (`[sources.x] kind = \"folder\"`), and the source here"),
            Self::Pattern { .. } => {
                diagnostic.help("`*` and `?` stay within a folder, `**` stands for any number of folders")
            }
            _ => diagnostic,
        }
    }
}

/// A path as a plan holds it: from the plan's folder.
pub(crate) fn relative(folder: &Utf8Path, path: &Utf8Path) -> Utf8PathBuf {
    match path.strip_prefix(folder) {
        Ok(relative) => relative.to_owned(),
        Err(_) if folder == "." || path.is_absolute() => path.to_owned(),
        // Elsewhere than below the manifest's folder: joined to that folder, it must still be this file.
        Err(_) => path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned()),
    }
}

/// A folder for people.
pub(crate) fn shown(folder: &Utf8Path) -> &str {
    if folder == "." {
        "the current folder"
    } else {
        folder.as_str()
    }
}

/// Reads a file once: digest, length and first bytes.
pub(crate) fn facts(path: &Utf8Path) -> Result<Facts, FileError> {
    facts_within(path, MAX_SAMPLE)
}

/// The same of a file of at most so many bytes.
pub(crate) fn facts_within(path: &Utf8Path, most: u64) -> Result<Facts, FileError> {
    let refuse = |reason: String| FileError::Read {
        path: path.to_owned(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|error| refuse(crate::load::reason(&error)))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a file".into()));
    }
    let too_large = || refuse(format!("it is larger than {} GiB", most >> 30));
    if metadata.len() > most {
        return Err(too_large());
    }
    let mut file = std::fs::File::open(path)
        .map_err(|error| refuse(crate::load::reason(&error)))?
        .take(most.saturating_add(1));
    let mut hash = Sha256::new();
    let mut head = Vec::new();
    let mut length = 0u64;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(refuse(crate::load::reason(&error))),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hash.update(bytes);
        head.extend(bytes.iter().take(HEADER.saturating_sub(head.len())));
        length = length.saturating_add(count as u64);
    }
    // It grew while it was read.
    if length > most {
        return Err(too_large());
    }
    Ok(Facts {
        digest: Digest::from_bytes(hash.finalize().into()),
        length,
        head,
    })
}

/// All files below `folder` whose path fits the pattern, in the order of their paths. Files that are links are taken when
/// what they point at stands inside of the folder; folders that are links are not entered.
pub(crate) fn matching(folder: &Utf8Path, pattern: &str) -> Result<Vec<Utf8PathBuf>, FileError> {
    matching_and(folder, pattern, &mut Err)
}

/// The same; a folder that cannot be read is told among `unread`, and hides no other.
pub(crate) fn matching_readable(
    folder: &Utf8Path,
    pattern: &str,
    unread: &mut Vec<String>,
) -> Result<Vec<Utf8PathBuf>, FileError> {
    matching_and(folder, pattern, &mut |error| match error {
        FileError::Read { .. } => {
            unread.push(error.to_string());
            Ok(())
        }
        other => Err(other),
    })
}

/// The same; what cannot be taken is given to `trouble`, which may let it pass.
fn matching_and(
    folder: &Utf8Path,
    pattern: &str,
    trouble: &mut dyn FnMut(FileError) -> Result<(), FileError>,
) -> Result<Vec<Utf8PathBuf>, FileError> {
    if Utf8Path::new(pattern).is_absolute() || pattern.split('/').any(|part| part == "..") {
        return Err(FileError::Outside(pattern.to_owned()));
    }
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let matcher = matcher(pattern)?;
    let parts: Vec<&str> = pattern.split('/').collect();
    let literal = parts
        .iter()
        .take(parts.len().saturating_sub(1))
        .take_while(|part| !part.contains(['*', '?', '[', '{', '\\']))
        .count();
    let start: Utf8PathBuf = parts.iter().take(literal).collect();
    let depth = if pattern.contains("**") || pattern.contains('{') {
        usize::MAX
    } else {
        parts.len() - literal
    };
    let base = crate::load::join(folder, &start);
    let root = if base.as_str().is_empty() {
        Utf8Path::new(".")
    } else {
        base.as_path()
    };
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let real_folder = folder.canonicalize_utf8().map_err(|error| FileError::Read {
        path: folder.to_owned(),
        reason: crate::load::reason(&error),
    })?;
    if !root
        .canonicalize_utf8()
        .is_ok_and(|real| real.starts_with(&real_folder))
    {
        return Err(FileError::Outside(start.into_string()));
    }
    let mut found = Vec::new();
    for (visited, entry) in walkdir::WalkDir::new(root)
        .min_depth(1)
        .max_depth(depth)
        .sort_by_file_name()
        .into_iter()
        // Whoever names the folder itself means it.
        .filter_entry(|entry| entry.depth() == 0 || !entry.file_type().is_dir() || entry.file_name() != STATE)
        .enumerate()
    {
        if visited >= MAX_VISITED {
            return Err(FileError::TooMany(root.to_owned()));
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let at = error.path().and_then(Utf8Path::from_path).unwrap_or(root);
                trouble(FileError::Read {
                    path: at.to_owned(),
                    reason: error
                        .io_error()
                        .map_or_else(|| error.to_string(), crate::load::reason),
                })?;
                continue;
            }
        };
        let Ok(relative) = entry.path().strip_prefix(root.as_std_path()) else {
            continue;
        };
        let Some(relative) = Utf8Path::from_path(relative) else {
            continue;
        };
        let kind = entry.file_type();
        if kind.is_dir() || !matcher.is_match(start.join(relative)) {
            continue;
        }
        let path = crate::load::join(folder, &start.join(relative));
        if kind.is_symlink() {
            match path.canonicalize_utf8() {
                Ok(real) if !real.starts_with(&real_folder) => {
                    trouble(FileError::Outside(path.into_string()))?;
                    continue;
                }
                Ok(real) if real.is_file() => {}
                _ => continue,
            }
        } else if !kind.is_file() {
            continue;
        }
        found.push(path);
    }
    Ok(found)
}

pub(crate) fn matcher(pattern: &str) -> Result<GlobMatcher, FileError> {
    let refuse = |reason: String| FileError::Pattern {
        pattern: pattern.chars().take(100).collect(),
        reason,
    };
    if pattern.is_empty() || pattern.len() > 4096 {
        return Err(refuse("it is empty or too long".into()));
    }
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| refuse(error.kind().to_string()))
}

/// Files of a folder by digest, for lists that name digests alone. Read when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct ByDigest {
    folders: BTreeMap<Utf8PathBuf, Folder>,
}

/// The files of a folder, and what of it could not be read: that is none of a digest's fault which stands elsewhere.
#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<Digest, Utf8PathBuf>,
    unread: Vec<String>,
    more: usize,
}

impl ByDigest {
    /// The file with that digest below a folder.
    pub(crate) fn find(
        &mut self,
        folder: &Utf8Path,
        digest: Digest,
    ) -> Result<Option<Utf8PathBuf>, FileError> {
        if !self.folders.contains_key(folder) {
            let mut all = Folder::default();
            for path in matching_and(folder, "**", &mut |error| {
                all.skip(&error);
                Ok(())
            })? {
                match facts(&path) {
                    Ok(facts) => _ = all.files.entry(facts.digest).or_insert(path),
                    Err(error) => all.skip(&error),
                }
            }
            self.folders.insert(folder.to_owned(), all);
        }
        let found = self.folders.get(folder).and_then(|all| all.files.get(&digest));
        Ok(found.cloned())
    }

    /// What of a folder could not be read, in words; nothing where all of it could.
    pub(crate) fn unread(&self, folder: &Utf8Path) -> Option<String> {
        let all = self.folders.get(folder).filter(|all| !all.unread.is_empty())?;
        let named = all.unread.join("; ");
        Some(match all.more {
            0 => named,
            more => format!("{named}; and {more} more"),
        })
    }
}

impl Folder {
    fn skip(&mut self, error: &FileError) {
        match self.unread.len() < MAX_UNREAD {
            true => self.unread.push(error.to_string()),
            false => self.more += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_and_stay_inside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Utf8Path::from_path(folder.path())
            .expect("a UTF-8 path")
            .join("inside");
        for path in ["a.bin", "sub/b.bin", "sub/deep/c.bin", "sub/d.txt", ".hidden.bin"] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(&path, path.as_str()).expect("a file");
        }
        let names = |pattern: &str| -> Vec<String> {
            matching(&root, pattern)
                .expect("a pattern")
                .iter()
                .map(|path| path.strip_prefix(&root).expect("inside").to_string())
                .collect()
        };
        assert_eq!(names("*.bin"), [".hidden.bin", "a.bin"]);
        // What runs left behind is no sample, unless it is asked for.
        std::fs::create_dir_all(root.join("sub/.hotcell/runs")).expect("a folder");
        std::fs::write(root.join("sub/.hotcell/runs/r.bin"), "r").expect("a file");
        assert_eq!(names("**/r.bin"), Vec::<String>::new());
        assert_eq!(names("sub/.hotcell/**/*.bin"), ["sub/.hotcell/runs/r.bin"]);
        std::fs::remove_dir_all(root.join("sub/.hotcell")).expect("gone");
        assert_eq!(names("a.bin"), ["a.bin"]);
        assert_eq!(names("./sub/*"), ["sub/b.bin", "sub/d.txt"]);
        assert_eq!(names("sub/**/*.bin"), ["sub/b.bin", "sub/deep/c.bin"]);
        assert_eq!(names("{a,sub/b}.bin"), ["a.bin", "sub/b.bin"]);
        assert_eq!(names("nothing/*"), Vec::<String>::new());
        assert!(matches!(matching(&root, "../*"), Err(FileError::Outside(_))));
        assert!(matches!(matching(&root, "/etc/*"), Err(FileError::Outside(_))));
        assert!(matches!(matching(&root, "[a"), Err(FileError::Pattern { .. })));
        std::fs::write(root.join("../secret"), "s").expect("a file");
        std::os::unix::fs::symlink("../secret", root.join("link.bin")).expect("a link");
        assert!(matches!(matching(&root, "*.bin"), Err(FileError::Outside(_))));
    }

    #[test]
    fn facts_are_those_of_the_bytes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8Path::from_path(folder.path())
            .expect("a UTF-8 path")
            .join("x");
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).expect("a file");
        let facts = facts(&path).expect("facts");
        assert_eq!(facts.digest, Digest::of(&bytes));
        assert_eq!((facts.length, facts.head.as_slice()), (300_000, &bytes[..64]));
        assert!(super::facts(Utf8Path::from_path(folder.path()).expect("a UTF-8 path")).is_err());
        assert!(super::facts(Utf8Path::new("/dev/zero")).is_err());
    }
}
