//! One archive in one confined process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use hotcell_cells::contract::CellFault;
use hotcell_cells::intake::{Bounds, Sink};
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{HostLimits, Sandbox, SealedBlob};
use hotcell_plan::SourceError;
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, Job, JobResult};
use hotcell_schema::unpack::{Unpack, UnpackJob, UnpackLimits, UnpackResult};
use hotcell_store::{ObjectWriter, Store};

use super::host;
use crate::engines::Engines;
use crate::secrets::SecretValue;

/// The process lied.
pub(super) const WRONG_ANSWER: &str = "the confined process answered what it was not asked";
/// Memory of the process beside the archive itself: dictionaries, and one member.
const MEMORY: u64 = 3 << 30;

/// What one process is asked.
pub(super) struct Asked<'a> {
    pub bytes: &'a SealedBlob,
    pub password: Option<&'a SecretValue>,
    pub want: Unpack,
    pub limits: UnpackLimits,
    /// How many members it may send.
    pub outputs: u64,
}

pub(super) fn run(
    engines: &Engines,
    stop: &StopSignal,
    asked: &Asked<'_>,
    sink: &mut dyn Sink,
) -> Result<UnpackResult, SourceError> {
    let engine = match engines.of("inspect/elf") {
        Some(Ok(engine)) => engine,
        Some(Err(error)) => return Err(SourceError::Host(error.to_owned())),
        None => return Err(SourceError::NoReader),
    };
    let archive = asked.bytes;
    let password = asked
        .password
        .map(|password| SealedBlob::of(password.bytes()))
        .transpose()
        .map_err(host)?;
    let blobs: Vec<&SealedBlob> = std::iter::once(archive).chain(&password).collect();
    let length = archive.length();
    let spec = Spec {
        executable: &engine.executable,
        blobs: &blobs,
        limits: HostLimits {
            memory: MEMORY.saturating_add(length),
            address_space: (2 * MEMORY).saturating_add(length),
            ..HostLimits::default()
        },
        bounds: Bounds {
            events: 0,
            outputs: asked.outputs,
            output_bytes: asked.limits.bytes,
            ..Bounds::default()
        },
        sandbox: Sandbox::of_this_host(),
        stop,
        cores: None,
    };
    let mut cell = ProcessCell::spawn(&spec).map_err(|fault| match fault {
        CellFault::Interrupted(why) => SourceError::Host(why.to_string()),
        other => SourceError::Host(format!("the confined process could not be started: {other}")),
    })?;
    let job = Job::Unpack(UnpackJob {
        archive: Blob { index: 0, length },
        password: password.as_ref().map(|password| Blob {
            index: 1,
            length: password.length(),
        }),
        want: asked.want.clone(),
        limits: asked.limits,
    });
    let ending = cell.run(&job, sink);
    cell.finish();
    match ending {
        Ending::Done(result) => match *result {
            JobResult::Unpack(result) => Ok(result),
            _ => Err(SourceError::Host(WRONG_ANSWER.into())),
        },
        Ending::Interrupted(why) => Err(SourceError::Host(format!("it could not be read: {why}"))),
        Ending::Failed(why) => Err(SourceError::Host(format!("the confined process failed: {why}"))),
        Ending::Host(error) => Err(host(error)),
    }
}

fn no_events() -> io::Result<()> {
    Err(io::Error::other(WRONG_ANSWER))
}

/// Takes one text as it comes.
pub(super) struct Pieces<'a> {
    pub take: &'a mut dyn FnMut(&[u8]),
}

impl Sink for Pieces<'_> {
    fn events(&mut self, _: Vec<Event>) -> io::Result<()> {
        no_events()
    }
    fn output_begins(&mut self, _: &str, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.take)(bytes);
        Ok(())
    }
    fn output_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where members go.
pub(super) trait Place {
    /// A member that is being taken.
    type Open: io::Write;
    /// Begins to take a member.
    fn begin(&self) -> io::Result<Self::Open>;
    /// A member was taken whole; `false`: it is not what it should be.
    fn end(&self, open: Self::Open, digest: &Digest) -> io::Result<bool>;
}

/// Into the store, each under its digest.
pub(super) struct IntoStore<'a>(pub &'a Store);

impl Place for IntoStore<'_> {
    type Open = ObjectWriter;

    fn begin(&self) -> io::Result<ObjectWriter> {
        self.0.writer().map_err(io::Error::other)
    }

    fn end(&self, open: ObjectWriter, digest: &Digest) -> io::Result<bool> {
        let stored = open.finish_as(digest).map_err(io::Error::other)?;
        Ok(stored.is_some())
    }
}

/// Into one file, each at its offset.
pub(super) struct IntoFile<'a> {
    pub file: &'a File,
    pub wanted: &'a BTreeMap<Digest, u64>,
}

impl Place for IntoFile<'_> {
    type Open = Vec<u8>;

    fn begin(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn end(&self, open: Vec<u8>, digest: &Digest) -> io::Result<bool> {
        match self.wanted.get(digest) {
            Some(offset) if Digest::of(&open) == *digest => {
                self.file.write_all_at(&open, *offset).map(|()| true)
            }
            _ => Ok(false),
        }
    }
}

/// Takes members: only those that were asked for, and only when they are what they should be.
pub(super) struct Members<P: Place> {
    place: P,
    wanted: BTreeSet<Digest>,
    open: Option<(Digest, P::Open)>,
}

impl<P: Place> Members<P> {
    pub(super) fn new(place: P, wanted: BTreeSet<Digest>) -> Self {
        Self {
            place,
            wanted,
            open: None,
        }
    }

    /// Everything that was asked for is there.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.wanted.is_empty() {
            true => Ok(()),
            false => Err(WRONG_ANSWER.into()),
        }
    }
}

impl<P: Place> Sink for Members<P> {
    fn events(&mut self, _: Vec<Event>) -> io::Result<()> {
        no_events()
    }

    fn output_begins(&mut self, port: &str, name: &str, _: u64) -> io::Result<()> {
        let digest = name
            .parse::<Digest>()
            .ok()
            .filter(|digest| port == "members" && self.wanted.contains(digest))
            .ok_or_else(|| io::Error::other(WRONG_ANSWER))?;
        self.open = Some((digest, self.place.begin()?));
        Ok(())
    }

    fn output_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some((_, open)) => open.write_all(bytes),
            None => Ok(()),
        }
    }

    fn output_ends(&mut self) -> io::Result<()> {
        if let Some((digest, open)) = self.open.take() {
            match self.place.end(open, &digest)? {
                true => _ = self.wanted.remove(&digest),
                false => return Err(io::Error::other(WRONG_ANSWER)),
            }
        }
        Ok(())
    }
}
