//! What a plan asks of those who may read archives and fetch packages.
//!
//! Archives are hostile bytes and packages come over a network: this crate does neither. Whoever plans gives a
//! [`SourceReader`]; that of the executor asks a confined process and keeps what it learned in the store.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use camino::Utf8Path;
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::ArchiveIndex;
use serde::{Deserialize, Serialize};

use crate::plan::Archive;

/// Reads what only a confined process may read, and fetches what is not on this host.
pub trait SourceReader: Debug + Sync {
    /// What is in an archive, as the confined process tells it: names are data, and never paths on the host. `path` is its
    /// file; absent: it stands in the store.
    fn index(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<Arc<ArchiveIndex>, SourceError>;

    /// A Debian package whose files are then in the store.
    fn package(&self, wanted: &Wanted<'_>) -> Result<Package, SourceError>;
}

/// A Debian package that a manifest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name.
    pub package: &'a str,
    /// Its version; absent: the newest of the suite.
    pub version: Option<&'a str>,
    /// Its Debian architecture; absent: it is a source package.
    pub arch: Option<&'a str>,
    /// The suite, for instance `bookworm`.
    pub suite: &'a str,
    /// The mirror: `https://deb.debian.org/debian`.
    pub mirror: &'a str,
    /// Whether a suite that is no longer valid is refused.
    pub check_valid_until: bool,
    /// Digest of its `.deb` or `.dsc`, where one is pinned.
    pub sha256: Option<Digest>,
    /// Where it was fetched before, as a lock file says.
    pub url: Option<&'a str>,
    /// Whether it is asked what it needs.
    pub needs: bool,
}

/// A Debian package that was found: what a lock file pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Package {
    /// Name of the package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its Debian architecture; `source` for a source package.
    pub arch: String,
    /// Where its first file was fetched.
    pub url: String,
    /// Digest of its first file: the `.deb` or `.dsc`.
    pub sha256: Digest,
    /// All its files; for a source package the `.dsc` and what it names.
    pub files: Vec<PackageFile>,
    /// The packages that it needs itself, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
}

/// A file of a package. It stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// File name.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
}

/// Why a source gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nobody can read archives here.
    #[error("archives and packages cannot be read here: no reader was given")]
    NoReader,
    /// A secret could not be read; the text never holds its value.
    #[error("{0}")]
    Secret(String),
    /// The archive is encrypted, and its source names no password.
    #[error("it is encrypted, and its source names no password")]
    NeedsPassword,
    /// The password does not open it.
    #[error("the password does not open it")]
    WrongPassword,
    /// It is of no known format, or uses a method that is not known.
    #[error("{0}")]
    Unsupported(String),
    /// It contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It holds more than is allowed.
    #[error("it holds {0}")]
    TooMuch(String),
    /// It is not stored, and this command fetches nothing.
    #[error("not fetched yet: {0}")]
    NotFetched(String),
    /// It is not where it should be.
    #[error("{0}")]
    NotThere(String),
    /// Nothing vouches for what was fetched.
    #[error("{0}")]
    Unverified(String),
    /// The suite says itself that it is too old.
    #[error("the suite is valid until {0}, and that is past")]
    Expired(String),
    /// The host, the network or the confined process failed.
    #[error("{0}")]
    Host(String),
}

/// What is given to a plan beside the manifest and the profiles.
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    /// Reads archives, fetches packages.
    pub reader: &'a dyn SourceReader,
    /// Whether a listed sample that is nowhere is an error.
    pub require_samples: bool,
    /// Packages that a lock file pins, by the name of their source.
    pub pins: &'a BTreeMap<String, Package>,
}

impl Default for Supply<'_> {
    fn default() -> Self {
        static NO_PINS: BTreeMap<String, Package> = BTreeMap::new();
        Self {
            reader: &NoReader,
            require_samples: false,
            pins: &NO_PINS,
        }
    }
}

/// The reader of those who have none: folders are read all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReader;

impl SourceReader for NoReader {
    fn index(&self, _: &Archive, _: Option<&Utf8Path>) -> Result<Arc<ArchiveIndex>, SourceError> {
        Err(SourceError::NoReader)
    }

    fn package(&self, _: &Wanted<'_>) -> Result<Package, SourceError> {
        Err(SourceError::NoReader)
    }
}
