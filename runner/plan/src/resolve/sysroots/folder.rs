//! A folder of this host as a part of a root. It may be the root of this host, on which other things run meanwhile.

use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::manifest::Span;
use hotcell_schema::sysroot::Sysroot;

use super::{Names, too_large, too_many};
use crate::diagnostics::Diagnostic;
use crate::files::{self, FileError};
use crate::load;
use crate::plan::{Origin, RootKind, RootName};

/// What stands in a folder, on its own file system: another one that is mounted in it (`/proc`, `/sys`) is an empty folder. What
/// may not be read, or is gone when it is read, is left out, and named in `unread`. Permission bits are those that git
/// keeps: others differ from clone to clone.
pub(super) fn names(
    base: &Utf8Path,
    folder: &Utf8Path,
    span: Span,
    unread: &mut Vec<String>,
) -> Result<Names, Diagnostic> {
    // How much there is must be known before any of it is read.
    let (mut names, files) = listed(folder, span, unread)?;
    for (path, inside, mode) in files {
        if let Err(error) = std::fs::File::open(&path)
            && may_be_left_out(&error)
        {
            unread.push(path.into_string());
            continue;
        }
        let facts = files::facts(&path).map_err(|error| error.tell(span))?;
        let kind = RootKind::File {
            digest: facts.digest,
            length: facts.length,
            origin: Origin::File(files::relative(base, &path)),
        };
        names.insert(inside, RootName { mode, kind });
    }
    Ok(names)
}

/// A file: path on this host, path in the root, permission bits.
type Listed = (Utf8PathBuf, String, u32);

/// The names in a folder, and its files apart from them.
fn listed(
    folder: &Utf8Path,
    span: Span,
    unread: &mut Vec<String>,
) -> Result<(Names, Vec<Listed>), Diagnostic> {
    let refuse = |path: &Utf8Path, reason: String| {
        let path = path.to_owned();
        FileError::Read { path, reason }.tell(span)
    };
    let mut names = Names::new();
    let mut files = Vec::new();
    let mut bytes = 0u64;
    let entries = walkdir::WalkDir::new(folder).min_depth(1).same_file_system(true);
    for entry in entries.sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let at = error.path().and_then(Utf8Path::from_path).unwrap_or(folder);
                match error.io_error() {
                    Some(reason) if may_be_left_out(reason) && error.depth() > 0 => {
                        unread.push(at.to_string());
                        continue;
                    }
                    Some(reason) => return Err(refuse(at, load::reason(reason))),
                    None => return Err(refuse(at, error.to_string())),
                }
            }
        };
        if names.len() + files.len() >= Sysroot::MAX_ENTRIES {
            return Err(too_many(folder.as_str(), span));
        }
        let Ok(path) = Utf8PathBuf::from_path_buf(entry.path().to_owned()) else {
            let shown = Utf8PathBuf::from(entry.path().to_string_lossy().into_owned());
            return Err(refuse(&shown, "its name is no UTF-8".into()));
        };
        let Ok(inside) = path.strip_prefix(folder).map(|inside| format!("/{inside}")) else {
            continue;
        };
        let kind = entry.file_type();
        if kind.is_dir() {
            let (mode, kind) = (0o755, RootKind::Directory);
            names.insert(inside, RootName { mode, kind });
        } else if kind.is_symlink() {
            match path.read_link_utf8() {
                Ok(target) => {
                    let (mode, kind) = (0o777, RootKind::Link(target.into_string()));
                    names.insert(inside, RootName { mode, kind });
                }
                Err(error) if may_be_left_out(&error) => unread.push(path.into_string()),
                Err(error) => return Err(refuse(&path, load::reason(&error))),
            }
        } else if kind.is_file() {
            let Ok(facts) = entry.metadata() else {
                unread.push(path.into_string());
                continue;
            };
            bytes = bytes.saturating_add(facts.len());
            if bytes > Sysroot::MAX_CONTENT {
                return Err(too_large(folder.as_str(), span));
            }
            let executable = facts.permissions().mode() & 0o111 != 0;
            files.push((path, inside, if executable { 0o755 } else { 0o644 }));
        }
    }
    Ok((names, files))
}

fn may_be_left_out(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), PermissionDenied | NotFound)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_host_ends_where_others_are_mounted() {
        // `/proc` is on every host that builds this; `/` may be as large as it likes.
        match listed(Utf8Path::new("/"), Span::default(), &mut Vec::new()) {
            Ok((names, files)) => {
                assert_eq!(names["/proc"].kind, RootKind::Directory);
                let mut all = names.keys().chain(files.iter().map(|(_, inside, _)| inside));
                assert!(!all.any(|name| name.starts_with("/proc/")));
            }
            Err(problem) => assert!(problem.title.starts_with("/ has more than "), "{}", problem.title),
        }
    }

    #[test]
    fn what_is_too_large_is_told_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        // As long as all may be together, and nothing of it on the disk.
        let large = std::fs::File::create(path.join("a")).unwrap();
        large.set_len(Sysroot::MAX_CONTENT).unwrap();
        std::fs::write(path.join("b"), "one more").unwrap();
        let problem = names(path, path, Span::default(), &mut Vec::new()).unwrap_err();
        assert_eq!(problem.title, format!("{path} has more than 1024 MiB of files"));
        assert!(problem.help.is_some());
    }
}
