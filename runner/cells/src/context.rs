//! Saved contexts as files: what is needed to go on with a job in another process, on another core, at another time.
//!
//! A file begins with the line `hotcell-context 1`, then has a line of JSON ([`Facts`]), the body as the engine wrote it, and
//! last the digest of all that stands between. The body is the engine's own and hostile: it is sealed and handed to a
//! confined cell, never read here. A context belongs to one build of an engine, one job and the bytes that the job names.

use std::io::{self, BufRead, BufReader, Read, Write};

use hotcell_schema::digest::Digest;
use hotcell_schema::job::Job;
use serde::{Deserialize, Serialize};

use crate::supervise::{Executable, SealedBlob};

/// Name of the format, and its version.
const FORMAT: &str = "hotcell-context";
const VERSION: u32 = 1;
/// Longest line of the head, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// The body is digested in pieces of so many bytes.
const PIECE: usize = 1 << 20;
/// Greatest length of a body in bytes.
const MAX_BODY: u64 = 64 << 30;

/// Whose context it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// The engine, for instance `hotcell-unicorn`.
    pub engine: String,
    /// What the engine says decides its results.
    pub identity: String,
    /// Digest of the engine's executable.
    pub executable: Digest,
    /// Digest of the job, as JSON.
    pub job: Digest,
    /// Digest of all bytes that the job names.
    pub payload: Digest,
    /// How many events were told before it.
    pub events: u64,
    /// Bytes of the body.
    pub length: u64,
}

impl Facts {
    /// Whether a context with these facts is of the engine, job and payload in `ours`.
    pub(crate) fn check(&self, ours: &Self) -> Result<(), ContextError> {
        let short = |digest: &Digest| digest.short();
        let pairs = [
            ("engine", self.engine.clone(), ours.engine.clone()),
            ("engine", self.identity.clone(), ours.identity.clone()),
            (
                "build of the engine",
                short(&self.executable),
                short(&ours.executable),
            ),
            ("job", short(&self.job), short(&ours.job)),
            ("payload", short(&self.payload), short(&ours.payload)),
        ];
        match pairs.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            Some((what, theirs, ours)) => Err(ContextError::Other { what, theirs, ours }),
            None => Ok(()),
        }
    }
}

/// What a context of a cell and its job is bound to.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) engine: String,
    pub(crate) identity: String,
    pub(crate) executable: Executable,
    /// The bytes that the job names.
    pub(crate) payload: Vec<SealedBlob>,
    /// Digest of the job.
    pub(crate) job: Digest,
}

impl Owner {
    /// As a context says it; of no length, before any event.
    pub(crate) fn facts(&self) -> io::Result<Facts> {
        let digests: io::Result<Vec<Digest>> = self
            .payload
            .iter()
            .map(|blob| stream_digest(&mut blob.reader()))
            .collect();
        let digests = digests?;
        Ok(Facts {
            engine: self.engine.clone(),
            identity: self.identity.clone(),
            executable: self.executable.digest()?,
            job: self.job,
            payload: Digest::of_parts(digests.iter().map(|digest| digest.as_bytes().as_slice())),
            events: 0,
            length: 0,
        })
    }
}

/// A context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file cannot be read or written.
    #[error("the saved context: {0}")]
    Io(#[from] io::Error),
    /// It is not a saved context.
    #[error("not a saved context: {0}")]
    Format(String),
    /// It is of a newer or older format.
    #[error("a saved context of version {0}; this program knows version {VERSION}")]
    Version(String),
    /// Its bytes are not those that were written.
    #[error("the saved context is damaged: its digest is {found}, not {expected}")]
    Damaged {
        /// As the file says.
        expected: String,
        /// As its bytes are.
        found: Digest,
    },
    /// It belongs to something else.
    #[error("the saved context is of another {what}: {theirs}, not {ours}; save one with this {what}")]
    Other {
        /// What differs.
        what: &'static str,
        /// The context's.
        theirs: String,
        /// What is there now.
        ours: String,
    },
}

/// A context that was read and checked.
#[derive(Debug)]
pub struct SavedContext {
    facts: Facts,
    body: SealedBlob,
}

impl SavedContext {
    /// Reads a context, and checks its digest.
    pub fn read(from: impl Read) -> Result<Self, ContextError> {
        let mut from = BufReader::new(from);
        let name = line(&mut from)?;
        match name.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' ')) {
            Some(version) if version.parse() == Ok(VERSION) => {}
            Some(version) => return Err(ContextError::Version(version.chars().take(20).collect())),
            None => return Err(ContextError::Format(format!("it does not begin with `{FORMAT}`"))),
        }
        let head = line(&mut from)?;
        let facts: Facts =
            serde_json::from_str(&head).map_err(|error| ContextError::Format(error.to_string()))?;
        if facts.length > MAX_BODY {
            return Err(ContextError::Format(format!("a body of {} bytes", facts.length)));
        }
        let mut hash = Pieces::new(&head);
        let body = SealedBlob::written(|blob| {
            hash.copy(&mut (&mut from).take(facts.length), blob)?;
            Ok(())
        })?;
        if body.length() != facts.length {
            return Err(ContextError::Format("it ends too early".into()));
        }
        let expected = line(&mut from)?;
        let found = hash.finish();
        if expected.parse() != Ok(found) {
            return Err(ContextError::Damaged { expected, found });
        }
        Ok(Self { facts, body })
    }

    /// Whose it is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The engine's part.
    pub(crate) fn body(&self) -> &SealedBlob {
        &self.body
    }
}

/// Writes a context whose body `body` gives.
pub(crate) fn write(to: &mut dyn Write, facts: &Facts, body: &mut dyn Read) -> Result<(), ContextError> {
    let head = serde_json::to_string(facts).map_err(io::Error::other)?;
    writeln!(to, "{FORMAT} {VERSION}\n{head}")?;
    let mut hash = Pieces::new(&head);
    if hash.copy(&mut body.take(facts.length), to)? != facts.length {
        return Err(ContextError::Format("the engine gave less than it said".into()));
    }
    writeln!(to, "{}", hash.finish())?;
    to.flush()?;
    Ok(())
}

/// The digest of a job, as a context names it.
pub(crate) fn job_digest(job: &Job) -> Result<Digest, ContextError> {
    let bytes = serde_json::to_vec(job).map_err(io::Error::other)?;
    Ok(Digest::of(&bytes))
}

/// The digest of what `bytes` gives, piece by piece.
pub(crate) fn stream_digest(bytes: &mut dyn Read) -> io::Result<Digest> {
    let mut hash = Pieces::new("");
    hash.copy(bytes, &mut io::sink())?;
    Ok(hash.finish())
}

/// The digest of a stream: of a head and the digests of its pieces.
struct Pieces(Vec<Digest>);

impl Pieces {
    fn new(head: &str) -> Self {
        Self(vec![Digest::of(head.as_bytes())])
    }

    /// Copies everything; gives how many bytes.
    fn copy(&mut self, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
        let mut piece = Vec::with_capacity(PIECE);
        let mut all = 0;
        loop {
            piece.clear();
            let read = from.take(PIECE as u64).read_to_end(&mut piece)?;
            if read == 0 {
                return Ok(all);
            }
            all += read as u64;
            self.0.push(Digest::of(&piece));
            to.write_all(&piece)?;
        }
    }

    fn finish(&self) -> Digest {
        Digest::of_parts(self.0.iter().map(|digest| digest.as_bytes().as_slice()))
    }
}

fn line(from: &mut impl BufRead) -> Result<String, ContextError> {
    let mut line = String::new();
    let mut bounded = from.take(MAX_LINE);
    bounded.read_line(&mut line).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => ContextError::Format("its head is no text".into()),
        _ => ContextError::Io(error),
    })?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(ContextError::Format("it ends within its head".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            engine: "engine".into(),
            identity: "engine 1".into(),
            executable: Digest::of(b"executable"),
            job: Digest::of(b"job"),
            payload: Digest::of(b"payload"),
            events: 7,
            length: 5,
        }
    }

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, &facts(), &mut &b"state and more"[..]).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = file();
        assert!(bytes.starts_with(b"hotcell-context 1\n"));
        let read = SavedContext::read(&bytes[..]).unwrap();
        assert_eq!(*read.facts(), facts());
        assert_eq!(read.body().length(), 5);
        read.facts().check(&facts()).unwrap();
    }

    #[test]
    fn one_changed_bit_anywhere_is_found() {
        let bytes = file();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(SavedContext::read(&changed[..]).is_err(), "byte {at}");
            assert!(SavedContext::read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_version_or_owner_is_refused_by_name() {
        let text = b"hotcell-context 2\n{}\n";
        let error = SavedContext::read(&text[..]).unwrap_err();
        assert!(
            matches!(&error, ContextError::Version(version) if version == "2"),
            "{error}"
        );
        let read = SavedContext::read(&file()[..]).unwrap();
        for (what, other) in [
            (
                "job",
                Facts {
                    job: Digest::of(b"x"),
                    ..facts()
                },
            ),
            (
                "payload",
                Facts {
                    payload: Digest::of(b"x"),
                    ..facts()
                },
            ),
            (
                "build of the engine",
                Facts {
                    executable: Digest::of(b"x"),
                    ..facts()
                },
            ),
            (
                "engine",
                Facts {
                    identity: "engine 2".into(),
                    ..facts()
                },
            ),
        ] {
            let error = read.facts().check(&other).unwrap_err();
            assert!(
                error.to_string().contains(&format!("of another {what}:")),
                "{error}"
            );
        }
    }
}
