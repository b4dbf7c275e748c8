//! Archives and packages: the [`SourceReader`] that asks a confined process and keeps what it learned in the store.
//!
//! An archive's bytes go into a sealed memory file, its password into another; what comes back is an index or members, each
//! checked against its digest. An index is kept in the store as a memo under the archive's digest, the name of its password
//! and the unpacker's identity, where something may be written at all.
//!
//! | module | what it does |
//! |---|---|
//! | [`unpacker`] | one job in one confined process |
//! | [`debian`] | packages from a mirror: signature, indexes, digests |
//! | [`http`] | fetching |

pub mod debian;
pub mod http;
mod unpacker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8Path;
use hotcell_cells::stop::StopSignal;
use hotcell_plan::{Archive, Member, Origin, Package, Plan, Sample, SourceError, SourceReader, Wanted};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{
    ArchiveIndex, ArchiveMember, Unpack, UnpackLimits, UnpackRefusal, UnpackResult, WantedMember,
};
use hotcell_store::{Store, Stored};

use crate::engines::Engines;
use crate::secrets::Secrets;
use http::Http;
use unpacker::{IntoMemory, IntoStore};

/// No archive is larger: it is handed over in memory.
const MAX_ARCHIVE: u64 = 4 << 30;
/// Bytes of members that are taken out of an archive at once.
const BATCH: u64 = 256 << 20;
/// Name and version of the keys of indexes.
const INDEX_KEY: &[u8] = b"hotcell-archive-index 1";

/// Reads archives, fetches packages.
#[derive(Debug)]
pub struct Archives {
    engines: Engines,
    secrets: Arc<Secrets>,
    stop: StopSignal,
    /// What was stored before; absent where there is no store yet.
    store: Option<Store>,
    /// What may fetch. Absent: nothing is fetched and nothing written.
    http: Option<Box<dyn Http>>,
    indexes: Mutex<HashMap<Digest, Arc<Vec<ArchiveMember>>>>,
    /// One archive is unpacked at a time: members are taken out in batches.
    unpacking: Mutex<()>,
}

impl Archives {
    /// A reader that writes nothing and fetches nothing, for those who only look.
    pub fn to_look(engines: Engines, secrets: Arc<Secrets>, stop: StopSignal, store: Option<Store>) -> Self {
        Self {
            engines,
            secrets,
            stop,
            store,
            http: None,
            indexes: Mutex::default(),
            unpacking: Mutex::default(),
        }
    }

    /// A reader for a run: it keeps what it learns, and fetches what is not there.
    pub fn to_run(
        engines: Engines,
        secrets: Arc<Secrets>,
        stop: StopSignal,
        store: Store,
        http: Box<dyn Http>,
    ) -> Self {
        Self {
            http: Some(http),
            ..Self::to_look(engines, secrets, stop, Some(store))
        }
    }

    fn members(
        &self,
        archive: &Archive,
        path: Option<&Utf8Path>,
    ) -> Result<Arc<Vec<ArchiveMember>>, SourceError> {
        let identity = self.engines.key("inspect/elf").map_err(SourceError::Host)?;
        let secret = archive.secret.as_deref().unwrap_or_default();
        let key = Digest::of_parts([
            INDEX_KEY,
            archive.digest.as_bytes(),
            secret.as_bytes(),
            identity.as_bytes(),
        ]);
        if let Some(known) = lock(&self.indexes).get(&key) {
            return Ok(Arc::clone(known));
        }
        let stored = match &self.store {
            Some(store) => store.memo(&key).map_err(host)?,
            None => None,
        };
        let known = stored.and_then(|json| serde_json::from_slice::<ArchiveIndex>(&json).ok());
        let index = match known {
            Some(index) if index.version == ArchiveIndex::VERSION => index,
            _ => {
                let index = self.make_index(archive, path)?;
                if let (Some(store), Some(_)) = (&self.store, &self.http) {
                    let json = serde_json::to_vec(&index).map_err(host)?;
                    store.put_memo(&key, &json).map_err(host)?;
                }
                index
            }
        };
        let members = Arc::new(index.members);
        lock(&self.indexes).insert(key, Arc::clone(&members));
        Ok(members)
    }

    fn make_index(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<ArchiveIndex, SourceError> {
        let bytes = self.bytes(archive, path)?;
        let mut nothing = IntoMemory::default();
        let limits = UnpackLimits::INDEX;
        let result = self.unpack(archive, &bytes, Unpack::Index, limits, 0, &mut nothing)?;
        match result {
            UnpackResult::Index(index) => checked(index, &limits),
            _ => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }

    /// An archive's bytes, as they were when they were found.
    fn bytes(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<Vec<u8>, SourceError> {
        if archive.length > MAX_ARCHIVE {
            let most = MAX_ARCHIVE >> 30;
            return Err(SourceError::TooMuch(format!("more than {most} GiB itself")));
        }
        let Some(path) = path else {
            let stored = Stored {
                digest: archive.digest,
                length: archive.length,
            };
            let store = self.store.as_ref().ok_or(SourceError::NoReader)?;
            return store.get(&stored).map_err(host)?.ok_or_else(|| {
                SourceError::Host("it was removed from the store; run again, and it is fetched again".into())
            });
        };
        let bytes = fs_err::read(path.as_std_path()).map_err(host)?;
        match Digest::of(&bytes) == archive.digest {
            true => Ok(bytes),
            false => Err(SourceError::Host(
                "it changed while it was read; run again".into(),
            )),
        }
    }

    fn unpack(
        &self,
        archive: &Archive,
        bytes: &[u8],
        want: Unpack,
        limits: UnpackLimits,
        outputs: u64,
        sink: &mut dyn hotcell_cells::intake::Sink,
    ) -> Result<UnpackResult, SourceError> {
        let password = match &archive.secret {
            None => None,
            Some(name) => Some(
                self.secrets
                    .get(name)
                    .map_err(|error| SourceError::Secret(error.to_string()))?,
            ),
        };
        let asked = unpacker::Asked {
            bytes,
            password: password.as_ref(),
            want,
            limits,
            outputs,
        };
        match unpacker::run(&self.engines, &self.stop, &asked, sink)? {
            UnpackResult::Refused(refusal) => Err(match refusal {
                UnpackRefusal::NeedsPassword => SourceError::NeedsPassword,
                UnpackRefusal::WrongPassword => SourceError::WrongPassword,
                UnpackRefusal::Unsupported(what) => SourceError::Unsupported(plain(&what)),
                UnpackRefusal::Damaged(what) => SourceError::Damaged(plain(&what)),
                UnpackRefusal::TooMuch(what) => SourceError::TooMuch(plain(&what)),
            }),
            result => Ok(result),
        }
    }

    /// Bytes of a sample that is no file. They are in the store afterwards.
    pub(crate) fn sample(&self, store: &Store, plan: &Plan, sample: &Sample) -> Result<Vec<u8>, SourceError> {
        let stored = Stored {
            digest: sample.digest,
            length: sample.length,
        };
        if let Some(bytes) = store.get(&stored).map_err(host)? {
            return Ok(bytes);
        }
        let gone =
            || SourceError::Host("it was removed from the store; run again, and it is made again".into());
        let Origin::Member { archive, .. } = &sample.origin else {
            return Err(gone());
        };
        let _one = lock(&self.unpacking);
        // While this one waited, another may have taken it out.
        if let Some(bytes) = store.get(&stored).map_err(host)? {
            return Ok(bytes);
        }
        self.take_out(store, plan, *archive, sample)?;
        store.get(&stored).map_err(host)?.ok_or_else(gone)
    }

    /// Takes a sample out of its archive, and those that follow it there: a solid archive is decoded from its start.
    fn take_out(&self, store: &Store, plan: &Plan, index: usize, sample: &Sample) -> Result<(), SourceError> {
        let archive = plan
            .archives
            .get(index)
            .ok_or_else(|| SourceError::Host("the plan names an archive it does not have".into()))?;
        let path = archive.path.as_ref().map(|path| plan.path(path));
        let members = self.members(archive, path.as_deref())?;
        let numbers: HashMap<Digest, &ArchiveMember> = members
            .iter()
            .rev()
            .map(|member| (member.digest, member))
            .collect();
        let own = numbers.get(&sample.digest).ok_or_else(|| {
            SourceError::Damaged("it does not have a member that was found in it before".into())
        })?;
        let others = plan.samples.iter().filter_map(|other| match &other.origin {
            Origin::Member { archive, .. } if *archive == index => numbers.get(&other.digest),
            _ => None,
        });
        let after: BTreeMap<u32, &ArchiveMember> = others
            .filter(|member| member.number > own.number)
            .map(|member| (member.number, *member))
            .collect();
        let mut wanted = vec![*own];
        let mut total = own.length;
        for member in after.into_values() {
            total = total.saturating_add(member.length);
            if total > BATCH {
                break;
            }
            let stored = Stored {
                digest: member.digest,
                length: member.length,
            };
            if !store.has(&stored) {
                wanted.push(member);
            }
        }
        let bytes = self.bytes(archive, path.as_deref())?;
        let want = Unpack::Members(
            wanted
                .iter()
                .map(|member| WantedMember {
                    number: member.number,
                    digest: member.digest,
                })
                .collect(),
        );
        let limits = UnpackLimits::MEMBERS;
        let count = wanted.len() as u64;
        let mut sink = IntoStore::new(store, wanted.iter().map(|member| member.digest).collect());
        match self.unpack(archive, &bytes, want, limits, count, &mut sink)? {
            UnpackResult::Sent => sink.finish().map_err(SourceError::Host),
            _ => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }

    /// Unpacks one compressed text of a mirror.
    fn text(&self, bytes: &[u8], most: u64) -> Result<Vec<u8>, SourceError> {
        let asked = unpacker::Asked {
            bytes,
            password: None,
            want: Unpack::Content,
            limits: UnpackLimits {
                bytes: most,
                ..UnpackLimits::INDEX
            },
            outputs: 1,
        };
        let mut sink = IntoMemory::default();
        match unpacker::run(&self.engines, &self.stop, &asked, &mut sink)? {
            UnpackResult::Sent => Ok(sink.bytes),
            UnpackResult::Refused(refusal) => Err(SourceError::Damaged(format!("{refusal:?}"))),
            UnpackResult::Index(_) => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }
}

impl SourceReader for Archives {
    fn index(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<Arc<[Member]>, SourceError> {
        let members = self.members(archive, path)?;
        Ok(members
            .iter()
            .map(|member| Member {
                name: member.name.clone(),
                digest: member.digest,
                length: member.length,
                head: member.head.0.clone(),
            })
            .collect())
    }

    fn package(&self, wanted: &Wanted<'_>) -> Result<Package, SourceError> {
        let store = self.store.as_ref();
        if let Some(package) = store
            .map(|store| debian::stored(store, wanted))
            .transpose()?
            .flatten()
        {
            return Ok(package);
        }
        match (store, &self.http) {
            (Some(store), Some(http)) => {
                let unpack = |bytes: &[u8], most| self.text(bytes, most);
                debian::fetch(store, http.as_ref(), &unpack, wanted)
            }
            _ => Err(SourceError::NotFetched(debian::shown(wanted))),
        }
    }
}

/// The answer of a hostile process: within the bounds that it was given.
fn checked(index: ArchiveIndex, limits: &UnpackLimits) -> Result<ArchiveIndex, SourceError> {
    let count = index.members.len() <= limits.members as usize;
    let names = index
        .members
        .iter()
        .all(|member| member.name.len() <= limits.name as usize && member.head.0.len() <= 64);
    match count && names && index.format == ArchiveIndex::FORMAT && index.version == ArchiveIndex::VERSION {
        true => Ok(index),
        false => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
    }
}

/// A text of the confined process, fit for a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(300)
        .collect()
}

fn host(error: impl std::fmt::Display) -> SourceError {
    SourceError::Host(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
