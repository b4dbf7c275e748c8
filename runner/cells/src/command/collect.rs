//! Outputs of a command: regular files within bounds, and nothing that only looks like one.
//!
//! What a command leaves is hostile: a link to a file outside, a pipe that nobody writes, a device, a folder that never
//! ends. It is collected when everything the command started is dead, and each file is reached name by name from the folder
//! of outputs that was opened before the first command ran, without following links.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat};

use super::folder::{each_name, open_within};

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

/// Opens the output `outputs/<name>`, or the file `within` it.
pub(super) fn file(outputs: BorrowedFd<'_>, name: &str, within: &str) -> Result<OutputFile, OutputFault> {
    let path = join(name, within);
    let (folder, name) = reach(outputs, &path)?;
    regular(folder.as_fd(), &name, shown(&path))
}

/// Paths of all regular files below `outputs/<name>`, from there, in order. Anything else there is a fault.
pub(super) fn names(outputs: BorrowedFd<'_>, name: &str) -> Result<Vec<String>, OutputFault> {
    let top = shown(name);
    let too_much = |what: &str, bound: usize| OutputFault::TooMuch {
        what: format!("the {what} in {top}"),
        bound: bound as u64,
    };
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    let mut count = 0;
    while let Some((within, depth)) = folders.pop() {
        let path = join(name, &within);
        if depth > MAX_DEPTH {
            return Err(too_much("depth of folders", MAX_DEPTH));
        }
        let (parent, last) = reach(outputs, &path)?;
        let facts = look(parent.as_fd(), &last, &path)?;
        if kind(&facts) != SFlag::S_IFDIR {
            return Err(OutputFault::Kind {
                path: shown(&path),
                found: kind_name(&facts),
                expected: "a folder",
            });
        }
        let folder = open_within(parent.as_fd(), &last).map_err(|error| host(&path, error))?;
        each_name::<Stop>(folder.as_fd(), |entry| {
            let name = entry
                .to_str()
                .map_err(|_| OutputFault::Name { folder: shown(&path) })?;
            let within = join(&within, name);
            count += 1;
            if within.len() > MAX_PATH {
                return Err(too_much("length of a path", MAX_PATH).into());
            }
            if count > MAX_FILES {
                return Err(too_much("number of files", MAX_FILES).into());
            }
            let path = join(&path, name);
            let facts = look(folder.as_fd(), entry, &path)?;
            match kind(&facts) {
                SFlag::S_IFDIR => folders.push((within, depth + 1)),
                SFlag::S_IFREG => found.push(within),
                _ => return Err(not_regular(&facts, shown(&path)).into()),
            }
            Ok(())
        })
        .map_err(|stop| match stop {
            Stop::Fault(fault) => fault,
            Stop::Host(error) => host(&path, error),
        })?;
    }
    found.sort();
    Ok(found)
}

/// Why the names of a folder were not read to their end.
enum Stop {
    Fault(OutputFault),
    Host(Errno),
}

impl From<OutputFault> for Stop {
    fn from(fault: OutputFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Host(error)
    }
}

fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// A path from the outputs as it is told: from the work folder.
fn shown(path: &str) -> String {
    join("outputs", path)
}

fn host(path: &str, error: Errno) -> OutputFault {
    match error {
        Errno::ENOENT => OutputFault::Missing,
        error => OutputFault::Host {
            path: shown(path),
            source: error.into(),
        },
    }
}

/// The folder in which a path ends, and its last name. Each name before it must be a folder itself, and no link to one.
fn reach(outputs: BorrowedFd<'_>, path: &str) -> Result<(OwnedFd, CString), OutputFault> {
    let mut folder = outputs.try_clone_to_owned().map_err(|source| OutputFault::Host {
        path: shown(path),
        source,
    })?;
    let mut so_far = String::new();
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        so_far = join(&so_far, name);
        // No name has a byte 0: such a file cannot be there.
        let plain = CString::new(name).map_err(|_| OutputFault::Missing)?;
        if name.is_empty() || name == "." || name == ".." {
            return Err(OutputFault::Missing);
        }
        if names.peek().is_none() {
            return Ok((folder, plain));
        }
        let facts = look(folder.as_fd(), &plain, &so_far)?;
        if kind(&facts) != SFlag::S_IFDIR {
            return Err(OutputFault::Kind {
                path: shown(&so_far),
                found: kind_name(&facts),
                expected: "a folder",
            });
        }
        folder = open_within(folder.as_fd(), &plain).map_err(|error| host(&so_far, error))?;
    }
    Err(OutputFault::Missing)
}

fn look(folder: BorrowedFd<'_>, name: &CStr, path: &str) -> Result<FileStat, OutputFault> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|error| host(path, error))
}

/// Opens a regular file.
fn regular(folder: BorrowedFd<'_>, name: &CStr, path: String) -> Result<OutputFile, OutputFault> {
    let host = |source: io::Error| OutputFault::Host {
        path: path.clone(),
        source,
    };
    let look = || match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(facts) => Ok(facts),
        Err(Errno::ENOENT) => Err(OutputFault::Missing),
        Err(error) => Err(host(error.into())),
    };
    let facts = look()?;
    if kind(&facts) != SFlag::S_IFREG {
        return Err(not_regular(&facts, path));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = match openat(folder, name, flags, Mode::empty()) {
        // Its user may have closed it to themselves.
        Err(Errno::EACCES) => {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            fchmodat(folder, name, mode, FchmodatFlags::NoFollowSymlink)
                .map_err(|error| host(error.into()))?;
            openat(folder, name, flags, Mode::empty())
        }
        opened => opened,
    };
    let file = File::from(opened.map_err(|error| host(error.into()))?);
    let facts = file.metadata().map_err(host)?;
    if !facts.is_file() {
        return Err(not_regular(&look()?, path));
    }
    Ok(OutputFile {
        path,
        executable: facts.permissions().mode() & 0o111 != 0,
        length: facts.len(),
        file,
    })
}

fn not_regular(facts: &FileStat, path: String) -> OutputFault {
    OutputFault::Kind {
        path,
        found: kind_name(facts),
        expected: "a regular file",
    }
}

fn kind(facts: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT
}

fn kind_name(facts: &FileStat) -> &'static str {
    match kind(facts) {
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFDIR => "a folder",
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "a regular file",
    }
}
