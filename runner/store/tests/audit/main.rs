//! The audit journal, from outside: what is written comes back, what is tampered with is found and named, and no crash, full
//! disk or second writer breaks the chain.

#![allow(clippy::unwrap_used)]

mod crash;
mod tamper;
mod write;

use std::path::{Path, PathBuf};

use hotcell_schema::digest::Digest;
use hotcell_store::audit::{
    Act, Audit, AuditFault, Cells, Entry, Quota, Reason, Time, User, Verified, Wrong,
};
use hotcell_store::{StoreError, audit};

const FIRST: &str = "{\"format\":\"hotcell-audit\",\"version\":1}\n";

fn root() -> User {
    User {
        uid: 0,
        name: Some("root".parse().unwrap()),
    }
}

fn ci() -> User {
    User {
        uid: 1501,
        name: None,
    }
}

fn now() -> Time {
    "2026-11-22T15:00:00Z".parse().unwrap()
}

/// One act of each kind that a caller writes.
fn acts() -> Vec<Act> {
    vec![
        Act::ArbiterStarted {
            version: "0.1.0".parse().unwrap(),
            manifest: Some(Digest::of(b"manifest")),
        },
        Act::ArbiterStarted {
            version: "0.1.0".parse().unwrap(),
            manifest: None,
        },
        Act::BanUser { user: ci() },
        Act::KillCells {
            of: Cells::User(ci()),
            killed: 3,
        },
        Act::KillCells {
            of: Cells::Core(7),
            killed: 1,
        },
        Act::KillCells {
            of: Cells::Id("run[sample=ab]".parse().unwrap()),
            killed: 0,
        },
        Act::ReclaimCore { core: 2, killed: 1 },
        Act::ReturnCore { core: 2 },
        Act::ChangeSlice {
            from_us: 10_000,
            to_us: 1_000,
        },
        Act::QuotaExceeded {
            user: ci(),
            quota: Quota::ExclusiveCores,
            limit: 2,
            asked: 3,
        },
        Act::UnbanUser { user: ci() },
        Act::ArbiterEnded,
    ]
}

/// A folder with the path of a journal in it.
struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        Self { folder, path }
    }

    fn open(&self) -> Result<Audit, StoreError> {
        open(&self.path)
    }

    /// With so many entries.
    fn with(entries: usize) -> Self {
        let place = Self::new();
        let mut audit = place.open().unwrap();
        for act in acts().into_iter().cycle().take(entries) {
            audit.append(&root(), &now(), act, None).unwrap();
        }
        place
    }

    fn bytes(&self) -> Vec<u8> {
        fs_err::read(&self.path).unwrap()
    }

    fn beside(&self, ending: &str) -> PathBuf {
        format!("{}{ending}", self.path.display()).into()
    }

    fn head(&self) -> Vec<u8> {
        fs_err::read(self.beside(".head")).unwrap()
    }

    fn put(&self, journal: &[u8], head: &[u8]) {
        fs_err::write(&self.path, journal).unwrap();
        fs_err::write(self.beside(".head"), head).unwrap();
    }

    fn entries(&self) -> Vec<Entry> {
        audit::entries(&self.bytes()[..]).map(Result::unwrap).collect()
    }

    fn names(&self) -> Vec<String> {
        let names = fs_err::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn open(path: &Path) -> Result<Audit, StoreError> {
    Audit::open(path, 0o600, &root(), &now())
}

fn ban(audit: &mut Audit) -> Result<Entry, StoreError> {
    audit.append(&root(), &now(), Act::BanUser { user: ci() }, None)
}

/// The journal's lines, each with its newline.
fn lines(journal: &[u8]) -> Vec<Vec<u8>> {
    journal
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Line and kind of what is wrong with a journal; `None` where it is sound.
fn wrong(journal: &[u8]) -> Option<(u64, Wrong)> {
    match audit::verify(journal) {
        Ok(_) => None,
        Err(AuditFault::Line {
            line,
            sequence,
            wrong,
        }) => {
            assert_eq!(sequence, (line > 1).then(|| line - 1));
            Some((line, wrong))
        }
        Err(other) => panic!("{other}"),
    }
}

/// A reason or a name of an administrator.
fn reason(text: &str) -> Option<Reason> {
    Some(text.parse().unwrap())
}

/// The fault that a call failed with.
fn fault<T: std::fmt::Debug>(result: Result<T, StoreError>) -> AuditFault {
    match result.unwrap_err() {
        StoreError::Audit { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// The journal in this place is sound, has so many entries, and its companion knows them.
fn sound(place: &Place, count: u64) -> Verified {
    let verified = audit::check(&place.path).unwrap();
    assert_eq!(verified.count, count);
    verified
}
