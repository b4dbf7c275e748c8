//! What the runner asks of the process that reads archives, and its answer. Archives are as hostile as what is in them:
//! names are data, never paths, and everything is bounded.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::guest::Hex;
use crate::job::Blob;

/// An archive to read: zip, 7z, tar or a Debian package, told apart by their bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnpackJob {
    /// The archive.
    pub archive: Blob,
    /// Its password. In a memory file, so that no message and no log ever holds it.
    pub password: Option<Blob>,
    /// What is wanted of it.
    pub want: Unpack,
    /// Bounds.
    pub limits: UnpackLimits,
}

/// What is wanted of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// What is in it: every regular member, read to its end and forgotten.
    Index,
    /// The bytes of some members, each as an output `members` under its digest.
    Members(Vec<WantedMember>),
    /// The bytes are no archive but one compressed text (gz, xz, bz2, zst): what it unpacks to, as an output `members`
    /// under its digest.
    Content,
}

/// A member as the index told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedMember {
    /// [`ArchiveMember::number`].
    pub number: u32,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// Bounds on an archive. Reaching one ends the job with [`UnpackRefusal::TooMuch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackLimits {
    /// Members, of whatever kind.
    pub members: u32,
    /// Bytes of all members that are read, unpacked.
    pub bytes: u64,
    /// Bytes of one member's name.
    pub name: u32,
}

impl UnpackLimits {
    /// For an index.
    pub const INDEX: Self = Self {
        members: 100_000,
        bytes: 4 << 30,
        name: 4096,
    };
    /// For taking members out.
    pub const MEMBERS: Self = Self {
        bytes: 1 << 30,
        ..Self::INDEX
    };
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnpackResult {
    /// What is in it.
    Index(ArchiveIndex),
    /// Every wanted member was sent.
    Sent,
    /// It cannot be had.
    Refused(UnpackRefusal),
}

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveIndex {
    /// Always [`ArchiveIndex::FORMAT`].
    pub format: String,
    /// [`ArchiveIndex::VERSION`] of the writer.
    pub version: u32,
    /// Kind of archive.
    pub kind: ArchiveKind,
    /// Its regular members, in its own order. Names can stand twice, be empty or hold anything.
    pub members: Vec<ArchiveMember>,
    /// Its links, in its own order.
    pub links: Vec<ArchiveLink>,
    /// Its folders, in its own order.
    pub folders: Vec<ArchiveFolder>,
    /// Alternatives that a Debian package registers when it is installed, in its own order.
    pub alternatives: Vec<Alternative>,
}

impl ArchiveIndex {
    /// Name of the format.
    pub const FORMAT: &str = "hotcell-archive-index";
    /// Version of the format.
    pub const VERSION: u32 = 3;
}

/// Kinds of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveKind {
    /// ZIP.
    Zip,
    /// 7z.
    SevenZip,
    /// tar, also compressed.
    Tar,
    /// A Debian binary package.
    Debian,
}

/// A regular member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveMember {
    /// Its place among the archive's regular members.
    pub number: u32,
    /// Its name as the archive says it, without a leading `./`.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
    /// Its first 64 bytes when they begin an ELF file; else nothing.
    #[serde(default)]
    pub head: Hex,
    /// Permission bits; 0o755 where the archive does not say.
    pub mode: u32,
}

/// A link in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLink {
    /// Its name as the archive says it, without a leading `./`.
    pub name: String,
    /// What it says: for a hard link the name of another member.
    pub target: String,
    /// Whether it is a hard link, and so another name of a member.
    pub hard: bool,
}

/// What a Debian package offers under a name that several packages can have (update-alternatives(1)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// The name's own links.
    pub master: AlternativeLink,
    /// The greatest one of a name is taken.
    pub priority: i32,
    /// Links that come along with it.
    pub slaves: Vec<AlternativeLink>,
}

/// Links of an alternative: from where it is called by way of `/etc/alternatives/` to what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlternativeLink {
    /// From where it is called, an absolute path: `/usr/bin/awk`.
    pub link: String,
    /// Its name in `/etc/alternatives`: `awk`.
    pub name: String,
    /// What it is, an absolute path: `/usr/bin/mawk`.
    pub path: String,
}

/// A folder in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveFolder {
    /// Its name as the archive says it, without a leading `./` and the slash at its end.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
}

/// Why an archive cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnpackRefusal {
    /// It is encrypted, and no password was given.
    NeedsPassword,
    /// The password does not open it.
    WrongPassword,
    /// Its format or a method in it is not known; says which.
    Unsupported(String),
    /// It is cut off, or contradicts itself; says where.
    Damaged(String),
    /// A bound was met; says which.
    TooMuch(String),
}
