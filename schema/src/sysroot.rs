//! Files that a guest finds beside those that its persona makes: a sysroot, as a cell is given it.
//!
//! A cell gets two blobs: an index, which is JSON ([`RootEntry`] after [`RootEntry`]), and one with the content of all
//! files, each from the start of a page on, so that it can be mapped where it lies.

use serde::{Deserialize, Serialize};

use crate::job::Blob;

/// A sysroot among a job's blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysroot {
    /// A JSON list of [`RootEntry`].
    pub index: Blob,
    /// Content of all files.
    pub content: Blob,
}

impl Sysroot {
    /// Content of a file begins at a multiple of this.
    pub const ALIGNMENT: u64 = 4096;
    /// Greatest number of entries.
    pub const MAX_ENTRIES: usize = 100_000;
    /// Greatest length of all content together, in bytes.
    pub const MAX_CONTENT: u64 = 1 << 30;
    /// Greatest length of the index, in bytes.
    pub const MAX_INDEX: u64 = 64 << 20;
}

/// One name in a sysroot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEntry {
    /// Absolute guest path, without `.`, `..` or a slash at its end.
    pub path: String,
    /// What stands there.
    pub kind: RootKind,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    /// A folder, with its permission bits.
    Directory(u32),
    /// A symbolic link: the text that it holds.
    Link(String),
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Where its bytes begin in the content.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
}
