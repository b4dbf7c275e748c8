//! Members as they come out of an archive: counted, hashed, and kept when they are wanted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

use hotcell_schema::digest::Digest;
use hotcell_schema::guest::Hex;
use hotcell_schema::unpack::{Alternative, ArchiveFolder, ArchiveLink, ArchiveMember, Unpack, UnpackLimits};
use sha2::{Digest as _, Sha256};

use super::{Fault, Give, Request, alternatives};

/// Permission bits, set-id and sticky among them.
const MODE: u32 = 0o7777;
/// How many first bytes of an ELF file are told: enough to name its architecture.
const HEAD: usize = 64;
/// Bytes of all names together: an index must fit into one message.
const MAX_NAMES: usize = 8 << 20;
/// Bytes that headers and padding may take beside the members.
const OVERHEAD: u64 = 512 << 20;

/// Why a member could not be taken.
pub(super) enum TakeError {
    /// Its bytes could not be had: what that means, the format knows.
    Read(io::Error),
    /// Anything else.
    Fault(Fault),
}

/// What an index tells.
#[derive(Default)]
pub(super) struct Found {
    pub(super) members: Vec<ArchiveMember>,
    pub(super) links: Vec<ArchiveLink>,
    pub(super) folders: Vec<ArchiveFolder>,
    pub(super) alternatives: Vec<Alternative>,
}

/// Takes members.
pub(super) struct Taker<'a> {
    limits: UnpackLimits,
    give: Give<'a>,
    /// Wanted members by number; absent: an index is wanted.
    wanted: Option<BTreeMap<u32, Digest>>,
    found: Found,
    /// Regular members so far.
    number: u32,
    /// Entries of whatever kind so far.
    entries: u32,
    names: usize,
    left: u64,
    /// Bytes of streams that may still be unpacked, members that nobody wants and headers included: one budget for all parts
    /// of an archive.
    streams: Rc<Cell<u64>>,
}

impl<'a> Taker<'a> {
    pub(super) fn new(request: &Request<'_>, give: Give<'a>) -> Self {
        let wanted = match request.want {
            Unpack::Index | Unpack::Content => None,
            Unpack::Members(wanted) => Some(
                wanted
                    .iter()
                    .map(|member| (member.number, member.digest))
                    .collect(),
            ),
        };
        Self {
            limits: request.limits,
            give,
            wanted,
            found: Found::default(),
            number: 0,
            entries: 0,
            names: 0,
            left: request.limits.bytes,
            streams: Rc::new(Cell::new(request.limits.bytes.saturating_add(OVERHEAD))),
        }
    }

    /// The budget of all streams of this archive.
    pub(super) fn streams(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.streams)
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.wanted.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// An entry begins, of whatever kind.
    pub(super) fn entry(&mut self) -> Result<(), Fault> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.limits.members {
            return Err(Fault::too_much(format!(
                "more than {} members",
                self.limits.members
            )));
        }
        Ok(())
    }

    /// Whether the next regular member must be read: those that nobody wants can be passed over with [`Taker::pass`].
    pub(super) fn wants_next(&self) -> bool {
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains_key(&self.number))
    }

    /// Whether any of the next so many regular members must be read.
    pub(super) fn wants_any(&self, count: usize) -> bool {
        let end = self
            .number
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted.range(self.number..end).next().is_some())
    }

    /// The next regular member is passed over.
    pub(super) fn pass(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    /// Whether links and folders are wanted.
    pub(super) fn is_index(&self) -> bool {
        self.wanted.is_none()
    }

    /// Takes a link of which the archive holds the text as content.
    pub(super) fn link_in(&mut self, name: &str, content: &mut dyn Read) -> Result<(), TakeError> {
        let most = u64::from(self.limits.name);
        let mut target = Vec::new();
        content
            .take(most.saturating_add(1))
            .read_to_end(&mut target)
            .map_err(TakeError::Read)?;
        let target = String::from_utf8_lossy(&target);
        self.link(name, &target, false).map_err(TakeError::Fault)
    }

    /// Takes a link.
    pub(super) fn link(&mut self, name: &str, target: &str, hard: bool) -> Result<(), Fault> {
        if self.is_index() {
            let name = self.name(name)?.to_owned();
            let target = match hard {
                true => self.name(target)?,
                false => self.bounded(target)?,
            };
            let target = target.to_owned();
            self.found.links.push(ArchiveLink { name, target, hard });
        }
        Ok(())
    }

    /// Takes a folder.
    pub(super) fn folder(&mut self, name: &str, mode: u32) -> Result<(), Fault> {
        if self.is_index() {
            let name = self.name(name)?.trim_end_matches('/').to_owned();
            let mode = mode & MODE;
            self.found.folders.push(ArchiveFolder { name, mode });
        }
        Ok(())
    }

    /// Takes the next regular member.
    pub(super) fn take(&mut self, name: &str, mode: u32, content: &mut dyn Read) -> Result<(), TakeError> {
        let number = self.number;
        self.number = self.number.saturating_add(1);
        match self.wanted.as_mut().map(|wanted| wanted.remove(&number)) {
            None => self.index(number, name, mode, content),
            Some(Some(digest)) => self.keep(digest, content),
            Some(None) => Ok(()),
        }
    }

    /// A name as the index has it.
    fn name<'n>(&mut self, name: &'n str) -> Result<&'n str, Fault> {
        self.bounded(name.trim_start_matches("./"))
    }

    /// A text that counts among the names.
    fn bounded<'n>(&mut self, text: &'n str) -> Result<&'n str, Fault> {
        self.names = self.names.saturating_add(text.len());
        if text.len() > self.limits.name as usize || self.names > MAX_NAMES {
            let what = format!(
                "a name of more than {} bytes, or {MAX_NAMES} bytes of names",
                self.limits.name
            );
            return Err(Fault::too_much(what));
        }
        Ok(text)
    }

    fn index(&mut self, number: u32, name: &str, mode: u32, content: &mut dyn Read) -> Result<(), TakeError> {
        let name = self.name(name).map_err(TakeError::Fault)?;
        let mut hash = Sha256::new();
        let mut head = Vec::new();
        let mut length = 0u64;
        let is_script = name == alternatives::SCRIPT;
        let mut script = Vec::new();
        self.each(content, &mut |bytes| {
            hash.update(bytes);
            head.extend(bytes.iter().take(HEAD.saturating_sub(head.len())));
            length = length.saturating_add(bytes.len() as u64);
            if is_script {
                script.extend(
                    bytes
                        .iter()
                        .take(alternatives::MAX_SCRIPT.saturating_sub(script.len())),
                );
            }
        })?;
        for alternative in alternatives::of(&script) {
            for link in std::iter::once(&alternative.master).chain(&alternative.slaves) {
                for text in [&link.link, &link.name, &link.path] {
                    self.bounded(text).map_err(TakeError::Fault)?;
                }
            }
            self.found.alternatives.push(alternative);
        }
        if !head.starts_with(b"\x7fELF") {
            head.clear();
        }
        self.found.members.push(ArchiveMember {
            number,
            name: name.to_owned(),
            digest: Digest::from_bytes(hash.finalize().into()),
            length,
            head: Hex(head),
            mode: mode & MODE,
        });
        Ok(())
    }

    fn keep(&mut self, digest: Digest, content: &mut dyn Read) -> Result<(), TakeError> {
        let mut kept = Vec::new();
        self.each(content, &mut |bytes| kept.extend_from_slice(bytes))?;
        if Digest::of(&kept) != digest {
            let reason = "a member is not what the index said";
            return Err(TakeError::Fault(Fault::damaged(reason)));
        }
        (self.give)(digest, &kept).map_err(|error| TakeError::Fault(Fault::Give(error)))
    }

    fn each(&mut self, content: &mut dyn Read, of: &mut dyn FnMut(&[u8])) -> Result<(), TakeError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TakeError::Read(error)),
            };
            self.left = match self.left.checked_sub(count as u64) {
                Some(left) => left,
                None => {
                    let what = format!("more than {} bytes, unpacked", self.limits.bytes);
                    return Err(TakeError::Fault(Fault::too_much(what)));
                }
            };
            of(buffer.get(..count).unwrap_or_default());
        }
    }

    /// The index; nothing where members were wanted. The error says what is missing.
    pub(super) fn finish(self) -> Result<Option<Found>, String> {
        match self.wanted {
            None => Ok(Some(self.found)),
            Some(wanted) if wanted.is_empty() => Ok(None),
            Some(wanted) => Err(format!("{} members of the index are not there", wanted.len())),
        }
    }
}
