//! Outputs of a command: regular files within bounds, and nothing that only looks like one.
//!
//! What a command leaves is hostile: a link to a file outside, a pipe that nobody writes, a device, a folder that never
//! ends. It is collected when everything the command started is dead, and each file is opened without following links.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Most files of one output of the type `files`.
pub const MAX_FILES: usize = 10_000;
/// Deepest folder within such an output.
pub const MAX_DEPTH: usize = 32;
/// Longest path within such an output, in bytes.
pub const MAX_PATH: usize = 1024;

/// Why an output cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum OutputFault {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is something else.
    #[error("{path} is {found}, where {expected} is expected")]
    Kind {
        /// Its path from the work folder.
        path: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It is too much.
    #[error("{what} is more than the bound of {bound}")]
    TooMuch {
        /// What is too much.
        what: String,
        /// The bound.
        bound: u64,
    },
    /// A name within it is not text.
    #[error("a file name in {folder} is not UTF-8")]
    Name {
        /// The folder.
        folder: String,
    },
    /// The host could not read it.
    #[error("{path}: {source}")]
    Host {
        /// Its path from the work folder.
        path: String,
        /// What the host said.
        source: io::Error,
    },
}

/// A regular file that a command left.
#[derive(Debug)]
pub struct OutputFile {
    /// Path from the work folder.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// How many bytes it had when it was opened.
    pub length: u64,
    file: File,
}

impl OutputFile {
    /// Copies its bytes; as many as it had when it was opened, or an error.
    pub fn copy_to(self, target: &mut dyn Write) -> Result<u64, OutputFault> {
        let fault = |source| OutputFault::Host {
            path: self.path.clone(),
            source,
        };
        let copied = io::copy(&mut (&self.file).take(self.length), target).map_err(fault)?;
        let mut more = [0];
        if copied != self.length || (&self.file).read(&mut more).map_err(fault)? != 0 {
            return Err(fault(io::Error::other("it changed while it was read")));
        }
        Ok(copied)
    }
}

/// Opens the output `outputs/<name>` of the folder `work`, or the file `within` it.
pub(super) fn file(work: &Path, name: &str, within: &str) -> Result<OutputFile, OutputFault> {
    regular(work, join(&join("outputs", name), within))
}

/// Paths of all regular files below `outputs/<name>`, from there, in order. Anything else there is a fault.
pub(super) fn names(work: &Path, name: &str) -> Result<Vec<String>, OutputFault> {
    let top = join("outputs", name);
    let facts = look(work, &top)?;
    if !facts.is_dir() {
        return Err(OutputFault::Kind {
            found: kind(&facts),
            path: top,
            expected: "a folder",
        });
    }
    let too_much = |what: &str, bound: usize| OutputFault::TooMuch {
        what: format!("the {what} in {top}"),
        bound: bound as u64,
    };
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    let mut count = 0;
    while let Some((folder, depth)) = folders.pop() {
        let shown = join(&top, &folder);
        if depth > MAX_DEPTH {
            return Err(too_much("depth of folders", MAX_DEPTH));
        }
        let host = |source| OutputFault::Host {
            path: shown.clone(),
            source,
        };
        let path = work.join(&shown);
        // Its user may have closed it to themselves.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(host)?;
        for entry in fs::read_dir(&path).map_err(host)? {
            let name = entry.map_err(host)?.file_name();
            let name = name.to_str().ok_or_else(|| OutputFault::Name {
                folder: shown.clone(),
            })?;
            let within = join(&folder, name);
            count += 1;
            if within.len() > MAX_PATH {
                return Err(too_much("length of a path", MAX_PATH));
            }
            if count > MAX_FILES {
                return Err(too_much("number of files", MAX_FILES));
            }
            let path = join(&top, &within);
            let facts = look(work, &path)?;
            if facts.is_dir() {
                folders.push((within, depth + 1));
            } else if facts.is_file() {
                found.push(within);
            } else {
                return Err(not_regular(&facts, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

fn look(work: &Path, path: &str) -> Result<Metadata, OutputFault> {
    fs::symlink_metadata(work.join(path)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => OutputFault::Missing,
        _ => OutputFault::Host {
            path: path.to_owned(),
            source,
        },
    })
}

/// Opens a regular file.
fn regular(work: &Path, path: String) -> Result<OutputFile, OutputFault> {
    let facts = look(work, &path)?;
    if !facts.is_file() {
        return Err(not_regular(&facts, path));
    }
    let host = |source| OutputFault::Host {
        path: path.clone(),
        source,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let target = work.join(&path);
    let opened: OwnedFd = match open(&target, flags, Mode::empty()) {
        Ok(opened) => opened,
        // Its user may have closed it to themselves.
        Err(nix::errno::Errno::EACCES) => {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).map_err(host)?;
            open(&target, flags, Mode::empty()).map_err(|error| host(error.into()))?
        }
        Err(error) => return Err(host(error.into())),
    };
    let file = File::from(opened);
    let facts = file.metadata().map_err(host)?;
    if !facts.is_file() {
        return Err(not_regular(&facts, path));
    }
    Ok(OutputFile {
        path,
        executable: facts.permissions().mode() & 0o111 != 0,
        length: facts.len(),
        file,
    })
}

fn not_regular(facts: &Metadata, path: String) -> OutputFault {
    OutputFault::Kind {
        path,
        found: kind(facts),
        expected: "a regular file",
    }
}

fn kind(facts: &Metadata) -> &'static str {
    let kind = facts.file_type();
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a regular file"
    }
}
