//! An entry: who did what, when and why; and how it stands in a line.

use std::fmt;

use hotcell_schema::digest::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::chain::Wrong;
use super::text::{Name, Reason, Time, message};

/// Name of the format, in the first line.
pub const FORMAT: &str = "hotcell-audit";
/// Version of the format.
pub const VERSION: u32 = 1;
/// The first line, without its newline.
pub(super) const HEADER: &[u8] = br#"{"format":"hotcell-audit","version":1}"#;
/// Longest line in bytes, with its newline. The longest entry with every character of its texts escaped takes less.
pub const MAX_LINE: usize = 16 << 10;
/// What stands around an entry's digest, at the end of its line.
const BEFORE_DIGEST: &[u8] = br#","digest":""#;
const AFTER_DIGEST: &[u8] = br#""}"#;
/// Hexadecimal digits of a digest.
const DIGITS: usize = 64;

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Name, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// Which cells an act was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cells {
    /// All of a user.
    User(User),
    /// Those on a core.
    Core(u32),
    /// One, by its id.
    Id(Name),
}

impl fmt::Display for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "cells of {user}"),
            Self::Core(core) => write!(f, "cells on core {core}"),
            Self::Id(id) => write!(f, "cell {id}"),
        }
    }
}

/// What a user may not have more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// Cells at once.
    Cells,
    /// Cores held exclusively at once.
    ExclusiveCores,
    /// Bytes of memory of all cells.
    Memory,
    /// Seconds of CPU time.
    CpuSeconds,
    /// Seconds by the host's clock.
    WallSeconds,
    /// Bytes that cells gave out.
    OutputBytes,
    /// Bytes that are kept.
    StoredBytes,
}

impl Quota {
    /// What it is called, with its unit.
    const fn words(self) -> &'static str {
        match self {
            Self::Cells => "cells",
            Self::ExclusiveCores => "exclusive cores",
            Self::Memory => "bytes of memory",
            Self::CpuSeconds => "CPU seconds",
            Self::WallSeconds => "wall seconds",
            Self::OutputBytes => "bytes of output",
            Self::StoredBytes => "stored bytes",
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Act {
    /// A user may not run anything until unbanned.
    BanUser {
        /// The user.
        user: User,
    },
    /// A user may run cells again.
    UnbanUser {
        /// The user.
        user: User,
    },
    /// Cells were ended.
    KillCells {
        /// Which.
        of: Cells,
        /// How many there were.
        killed: u64,
    },
    /// Cells were made to stand still until somebody lets them go on.
    PauseCells {
        /// Which.
        of: Cells,
        /// How many there were.
        paused: u64,
    },
    /// Cells were let go on.
    ResumeCells {
        /// Which.
        of: Cells,
        /// How many there were.
        resumed: u64,
    },
    /// A core was taken out of exclusive use; who held it waits again.
    ReclaimCore {
        /// Its number.
        core: u32,
        /// How many cells on it were ended for it. Nothing ends them any longer: journals of before say so.
        #[serde(default, skip_serializing_if = "is_none")]
        killed: u64,
    },
    /// A core was given back to exclusive use.
    ReturnCore {
        /// Its number.
        core: u32,
    },
    /// The length of slices was changed.
    ChangeSlice {
        /// What it was, in microseconds.
        from_us: u64,
        /// What it is now, in microseconds.
        to_us: u64,
    },
    /// The host's arbiter began to work.
    ArbiterStarted {
        /// Its version.
        version: Name,
        /// Digest of the host manifest that it goes by, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<Digest>,
    },
    /// The host's arbiter ended in order. Where this is missing before the next start, it was killed.
    ArbiterEnded,
    /// A user asked for more, or took more, than the quota allows, and was stopped.
    QuotaExceeded {
        /// The user.
        user: User,
        /// Of what.
        quota: Quota,
        /// How much is allowed, in the quota's unit.
        limit: u64,
        /// How much it would have been.
        asked: u64,
    },
    /// A line that was being written when its writer was killed was cut off. Written by [`Audit::open`](super::Audit::open).
    TornLineCut {
        /// Its bytes.
        bytes: u64,
        /// Their digest; they are kept beside the journal, in a file that is named by its first 12 digits.
        digest: Digest,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BanUser { user } => write!(f, "banned {user}"),
            Self::UnbanUser { user } => write!(f, "unbanned {user}"),
            Self::KillCells { of, killed } => write!(f, "killed {of}: {killed}"),
            Self::PauseCells { of, paused } => write!(f, "paused {of}: {paused}"),
            Self::ResumeCells { of, resumed } => write!(f, "resumed {of}: {resumed}"),
            Self::ReclaimCore { core, killed: 0 } => write!(f, "took core {core} out of exclusive use"),
            Self::ReclaimCore { core, killed } => {
                write!(
                    f,
                    "took core {core} out of exclusive use; cells ended for it: {killed}"
                )
            }
            Self::ReturnCore { core } => write!(f, "gave core {core} back to exclusive use"),
            Self::ChangeSlice { from_us, to_us } => {
                write!(f, "changed the slice from {from_us} us to {to_us} us")
            }
            Self::ArbiterStarted { version, manifest } => {
                write!(f, "started the arbiter {version}")?;
                match manifest {
                    Some(manifest) => write!(f, " with the host manifest {}", manifest.short()),
                    None => f.write_str(" without a host manifest"),
                }
            }
            Self::ArbiterEnded => f.write_str("ended the arbiter"),
            Self::QuotaExceeded {
                user,
                quota,
                limit,
                asked,
            } => {
                let words = quota.words();
                write!(
                    f,
                    "stopped {user} at the quota of {limit} {words}: it would have been {asked}"
                )
            }
            Self::TornLineCut { bytes, digest } => {
                let digest = digest.short();
                write!(f, "cut off a torn line of {bytes} bytes, kept as .torn-{digest}")
            }
        }
    }
}

/// One line but the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number, from 1.
    pub sequence: u64,
    /// When, by the clock of whoever wrote it. Clocks are set: it may be before the entry before.
    pub time: Time,
    /// Who did it.
    pub by: User,
    /// What was done.
    pub act: Act,
    /// Why, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Digest of the entry before; of the first line, in the first entry.
    pub previous: Digest,
    /// Digest of everything above.
    pub digest: Digest,
}

impl fmt::Display for Entry {
    /// One line for people; nothing in it can do anything to a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.sequence, self.time, self.by, self.act)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Entry {
    /// Gives the entry its digest, and makes its line, with the newline.
    pub(super) fn sealed(mut self) -> Result<(Self, Vec<u8>), serde_json::Error> {
        let unsealed = serde_json::to_vec(&self)?;
        if let Some((digest, _)) = digests(&unsealed) {
            self.digest = digest;
        }
        let mut line = serde_json::to_vec(&self)?;
        line.push(b'\n');
        Ok((self, line))
    }

    /// Reads a line without its newline. The entry is what it was when it was sealed; whether it is in its place is another
    /// question.
    pub(super) fn read(line: &[u8]) -> Result<Self, Wrong> {
        let text = std::str::from_utf8(line).map_err(|_| Wrong::NotJson("it is not UTF-8".into()))?;
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            return Err(Wrong::NotJson(message(&error)));
        }
        let Some((digest, stated)) = digests(line) else {
            return Err(Wrong::Form("it does not end with a digest".into()));
        };
        if digest.to_string().as_bytes() != stated {
            return Err(Wrong::Changed);
        }
        let entry: Self = serde_json::from_str(text).map_err(|error| Wrong::Form(message(&error)))?;
        match serde_json::to_vec(&entry).is_ok_and(|canonical| canonical == line) {
            true => Ok(entry),
            false => Err(Wrong::Form("it is not in canonical form".into())),
        }
    }
}

/// The digest that a line should have, and what it says instead of it or in agreement.
fn digests(line: &[u8]) -> Option<(Digest, &[u8])> {
    let tail = BEFORE_DIGEST.len() + DIGITS + AFTER_DIGEST.len();
    let (body, tail) = line.split_at_checked(line.len().checked_sub(tail)?)?;
    let stated = tail.strip_prefix(BEFORE_DIGEST)?.strip_suffix(AFTER_DIGEST)?;
    Some((Digest::of(&[body, b"}"].concat()), stated))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of its kind: each byte takes six in JSON.
    fn longest<const MAX: usize>() -> super::super::Text<MAX> {
        "\u{1}".repeat(MAX).parse().unwrap()
    }

    #[test]
    fn the_longest_entry_fits_into_a_line() {
        let user = || User {
            uid: u32::MAX,
            name: Some(longest()),
        };
        let acts = [
            Act::KillCells {
                of: Cells::User(user()),
                killed: u64::MAX,
            },
            Act::QuotaExceeded {
                user: user(),
                quota: Quota::ExclusiveCores,
                limit: u64::MAX,
                asked: u64::MAX,
            },
            Act::ArbiterStarted {
                version: longest(),
                manifest: Some(Digest::of(b"")),
            },
        ];
        for act in acts {
            let entry = Entry {
                sequence: u64::MAX,
                time: "2026-11-22T15:00:00.123456789+01:00".parse().unwrap(),
                by: user(),
                act,
                reason: Some(longest()),
                previous: Digest::of(b""),
                digest: Digest::of(b""),
            };
            let (entry, line) = entry.sealed().unwrap();
            assert!(line.len() < MAX_LINE, "{}", line.len());
            assert_eq!(Entry::read(line.strip_suffix(b"\n").unwrap()).unwrap(), entry);
        }
    }

    #[test]
    fn the_first_line_says_format_and_version() {
        let first = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}");
        assert_eq!(first.as_bytes(), HEADER);
    }

    #[test]
    fn pauses_are_told_and_read_again() {
        let of = || {
            Cells::User(User {
                uid: 1501,
                name: None,
            })
        };
        for (act, written, told) in [
            (Act::PauseCells { of: of(), paused: 2 }, "pause-cells", "paused"),
            (
                Act::ResumeCells { of: of(), resumed: 2 },
                "resume-cells",
                "resumed",
            ),
        ] {
            let text = serde_json::to_string(&act).unwrap();
            assert!(text.starts_with(&format!("{{\"{written}\":")), "{text}");
            assert_eq!(serde_json::from_str::<Act>(&text).unwrap(), act);
            assert!(
                act.to_string().starts_with(told) && act.to_string().ends_with(": 2"),
                "{act}"
            );
        }
    }

    #[test]
    fn an_entry_is_told_in_one_harmless_line() {
        let entry = Entry {
            sequence: 3,
            time: "2026-11-22T15:00:00Z".parse().unwrap(),
            by: User { uid: 0, name: None },
            act: Act::KillCells {
                of: Cells::User(User {
                    uid: 1501,
                    name: Some("c\u{1b}i".parse().unwrap()),
                }),
                killed: 2,
            },
            reason: Some("loud\nfan".parse().unwrap()),
            previous: Digest::of(b""),
            digest: Digest::of(b""),
        };
        assert_eq!(
            entry.to_string(),
            "3 2026-11-22T15:00:00Z uid 0 killed cells of c\\u{1b}i (1501): 2: loud\\u{a}fan"
        );
    }
}
