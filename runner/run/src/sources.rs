//! Archives and packages: the [`SourceReader`] that asks a confined process and keeps what it learned in the store.
//!
//! An archive's bytes go into a sealed memory file, piece by piece and nowhere else, its password into another; what comes back is an index or members, each
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
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_cells::intake::Sink;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::SealedBlob;
use hotcell_plan::{Archive, MAX_ARCHIVE, Origin, Package, Plan, Sample, SourceError, SourceReader, Wanted};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{
    ArchiveIndex, ArchiveLink, ArchiveMember, Unpack, UnpackLimits, UnpackRefusal, UnpackResult, WantedMember,
};
use hotcell_store::{Store, Stored};
use sha2::{Digest as _, Sha256};

use crate::engines::Engines;
use crate::secrets::Secrets;
use http::Http;
use unpacker::{IntoFile, IntoStore, Members, Pieces};

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
    /// When the command began, in seconds since 1970: suites of a mirror have an age.
    now: i64,
    indexes: Mutex<HashMap<Digest, Arc<ArchiveIndex>>>,
    /// The index of a mirror that was read last.
    latest: debian::Latest,
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
            now: 0,
            indexes: Mutex::default(),
            latest: debian::Latest::default(),
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
        now: i64,
    ) -> Self {
        Self {
            http: Some(http),
            now,
            ..Self::to_look(engines, secrets, stop, Some(store))
        }
    }

    fn index_of(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<Arc<ArchiveIndex>, SourceError> {
        let identity = self.engines.key("inspect/elf", None).map_err(SourceError::Host)?;
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
        let index = Arc::new(index);
        lock(&self.indexes).insert(key, Arc::clone(&index));
        Ok(index)
    }

    fn make_index(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<ArchiveIndex, SourceError> {
        let bytes = self.bytes(archive, path)?;
        let mut nothing = Pieces { take: &mut |_| () };
        let limits = UnpackLimits::INDEX;
        let result = self.unpack(archive, &bytes, Unpack::Index, limits, 0, &mut nothing)?;
        match result {
            UnpackResult::Index(index) => checked(index, &limits),
            _ => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }

    /// An archive's bytes, as they were when they were found, sealed. They are compared as they are copied.
    fn bytes(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<SealedBlob, SourceError> {
        if archive.length > MAX_ARCHIVE {
            let most = MAX_ARCHIVE >> 30;
            return Err(SourceError::TooMuch(format!("more than {most} GiB itself")));
        }
        let mut refused = None;
        let sealed = SealedBlob::written(|blob| {
            let mut copy = Compared::new(blob, archive.length);
            let why = match path {
                Some(path) => {
                    io::copy(&mut fs_err::File::open(path.as_std_path())?, &mut copy)?;
                    "it changed while it was read; run again"
                }
                None => {
                    let stored = Stored {
                        digest: archive.digest,
                        length: archive.length,
                    };
                    let store = self.store.as_ref().ok_or(io::ErrorKind::NotFound)?;
                    store.copy_to(&stored, &mut copy).map_err(io::Error::other)?;
                    "it was removed from the store, or damaged there; run again, and it is fetched again"
                }
            };
            if copy.digest() != archive.digest {
                refused = Some(why);
            }
            Ok(())
        });
        match refused {
            Some(why) => Err(SourceError::Host(why.into())),
            None => sealed.map_err(host),
        }
    }

    fn unpack(
        &self,
        archive: &Archive,
        bytes: &SealedBlob,
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
            UnpackResult::Refused(refusal) => Err(refused(refusal)),
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
        let (archive, path) = archive_of(plan, index)?;
        let known = self.index_of(archive, path.as_deref())?;
        let numbers = by_digest(&known);
        let own = numbers.get(&sample.digest).ok_or_else(other_archive)?;
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
        let digests = wanted.iter().map(|member| member.digest).collect();
        let mut sink = Members::new(IntoStore(store), digests);
        self.take(archive, path.as_deref(), &wanted, &mut sink)?;
        sink.finish().map_err(SourceError::Host)
    }

    fn take(
        &self,
        archive: &Archive,
        path: Option<&Utf8Path>,
        wanted: &[&ArchiveMember],
        sink: &mut dyn Sink,
    ) -> Result<(), SourceError> {
        let bytes = self.bytes(archive, path)?;
        let want = wanted.iter().map(|member| WantedMember {
            number: member.number,
            digest: member.digest,
        });
        let want = Unpack::Members(want.collect());
        let limits = UnpackLimits::MEMBERS;
        match self.unpack(archive, &bytes, want, limits, wanted.len() as u64, sink)? {
            UnpackResult::Sent => Ok(()),
            _ => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }

    /// Writes members of one archive of the plan into a file, each where `wanted` says.
    pub(crate) fn write_members(
        &self,
        plan: &Plan,
        index: usize,
        wanted: &BTreeMap<Digest, u64>,
        file: &File,
    ) -> Result<(), SourceError> {
        let (archive, path) = archive_of(plan, index)?;
        let known = self.index_of(archive, path.as_deref())?;
        let numbers = by_digest(&known);
        let members = wanted.keys().map(|digest| numbers.get(digest).copied());
        let members: Option<Vec<_>> = members.collect();
        let members = members.ok_or_else(other_archive)?;
        let mut sink = Members::new(IntoFile { file, wanted }, wanted.keys().copied().collect());
        self.take(archive, path.as_deref(), &members, &mut sink)?;
        sink.finish().map_err(SourceError::Host)
    }

    /// Unpacks one compressed text of a mirror.
    fn text(&self, bytes: &[u8], most: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), SourceError> {
        let asked = unpacker::Asked {
            bytes: &SealedBlob::of(bytes).map_err(host)?,
            password: None,
            want: Unpack::Content,
            limits: UnpackLimits {
                bytes: most,
                ..UnpackLimits::INDEX
            },
            outputs: 1,
        };
        let mut sink = Pieces { take };
        match unpacker::run(&self.engines, &self.stop, &asked, &mut sink)? {
            UnpackResult::Sent => Ok(()),
            UnpackResult::Refused(refusal) => Err(refused(refusal)),
            UnpackResult::Index(_) => Err(SourceError::Host(unpacker::WRONG_ANSWER.into())),
        }
    }
}

/// An archive of a plan, and its file.
fn archive_of(plan: &Plan, index: usize) -> Result<(&Archive, Option<Utf8PathBuf>), SourceError> {
    let archive = plan
        .archives
        .get(index)
        .ok_or_else(|| SourceError::Host("the plan names an archive it does not have".into()))?;
    let path = archive.path.as_ref().map(|path| plan.path(path));
    Ok((archive, path))
}

/// Members by what they hold; of those that hold the same, the first.
fn by_digest(index: &ArchiveIndex) -> HashMap<Digest, &ArchiveMember> {
    let members = index.members.iter().rev();
    members.map(|member| (member.digest, member)).collect()
}

fn other_archive() -> SourceError {
    SourceError::Damaged("it does not have a member that was found in it before".into())
}

/// What a refusal of the confined process means.
fn refused(refusal: UnpackRefusal) -> SourceError {
    match refusal {
        UnpackRefusal::NeedsPassword => SourceError::NeedsPassword,
        UnpackRefusal::WrongPassword => SourceError::WrongPassword,
        UnpackRefusal::Unsupported(what) => SourceError::Unsupported(plain(&what)),
        UnpackRefusal::Damaged(what) => SourceError::Damaged(plain(&what)),
        UnpackRefusal::TooMuch(what) => SourceError::TooMuch(plain(&what)),
    }
}

/// Copies bytes and computes their digest; more than were promised are an error.
struct Compared<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    left: u64,
}

impl<'a> Compared<'a> {
    fn new(out: &'a mut dyn Write, length: u64) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            left: length,
        }
    }

    fn digest(self) -> Digest {
        Digest::from_bytes(self.hash.finalize().into())
    }
}

impl Write for Compared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("it grew while it was read; run again"))?;
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl SourceReader for Archives {
    fn index(&self, archive: &Archive, path: Option<&Utf8Path>) -> Result<Arc<ArchiveIndex>, SourceError> {
        self.index_of(archive, path)
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
                let unpack = |bytes: &[u8], most, take: &mut dyn FnMut(&[u8])| self.text(bytes, most, take);
                let means = debian::Means {
                    http: http.as_ref(),
                    unpack: &unpack,
                    latest: &self.latest,
                    now: self.now,
                };
                debian::fetch(store, &means, wanted)
            }
            _ => Err(SourceError::NotFetched(debian::shown(wanted))),
        }
    }
}

/// The answer of a hostile process: within the bounds that it was given.
fn checked(index: ArchiveIndex, limits: &UnpackLimits) -> Result<ArchiveIndex, SourceError> {
    let count = index.members.len() <= limits.members as usize;
    let most = limits.name as usize;
    let count = count && index.links.len().saturating_add(index.folders.len()) <= limits.members as usize;
    let members = |member: &ArchiveMember| member.name.len() <= most && member.head.0.len() <= 64;
    let links = |link: &ArchiveLink| link.name.len() <= most && link.target.len() <= most;
    let names = index.members.iter().all(members)
        && index.links.iter().all(links)
        && index.folders.iter().all(|folder| folder.name.len() <= most);
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
