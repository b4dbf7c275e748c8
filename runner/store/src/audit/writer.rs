//! The one who writes a journal.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hotcell_schema::digest::Digest;

use super::chain::{self, AuditFault, Verified, verify};
use super::companion::{self, beside, place};
use super::entry::{Act, Entry, HEADER, MAX_LINE, User};
use super::text::{Reason, Time};
use crate::access::held;
use crate::{StoreError, trouble};

/// Who may hold the lock against someone who wants to write.
const WRITING: &str = "another process writes this audit journal; only one does at a time";
/// So much of a journal's end is read when it is opened: two lines, and a torn one.
const WINDOW: u64 = 3 * MAX_LINE as u64;

/// An audit journal that is open for writing. Nobody else can write it meanwhile.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    mode: u32,
    file: Held,
    /// Bytes of the file, all of them whole lines.
    end: u64,
    /// How it ends.
    last: Verified,
    /// What opening it put in the place of a torn line.
    cut: Option<Entry>,
}

/// The journal's file, locked as long as this lives.
#[derive(Debug)]
struct Held(fs_err::File);

impl Held {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let file = fs_err::OpenOptions::new().read(true).append(true).open(path)?;
        held(file.file().try_lock(), path.to_owned(), WRITING)?;
        Ok(Self(file))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing alone is not enough: a child that another thread is just starting has the file open too, until it runs its
        // own program.
        let _ = self.0.file().unlock();
    }
}

/// How a journal ends.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    /// The last entry.
    last: Verified,
    /// The one before, where there is one.
    before: Option<Verified>,
    /// What stands behind it, and is no entry.
    torn: Vec<u8>,
}

impl Audit {
    /// Opens the journal at a path to continue it, or makes it with a file mode (`0o600` unless others shall read it; the
    /// process's umask has no say). A torn last line is set aside and the journal says so, in the name of `by` at `now`.
    ///
    /// Only the end of the journal is read. Fails with [`StoreError::Busy`] where another writes it: nobody waits, for the
    /// other may be a service that lives as long as the host; and with [`StoreError::Audit`] where the journal does not end
    /// as its companion knows.
    pub fn open(path: &Path, mode: u32, by: &User, now: &Time) -> Result<Self, StoreError> {
        if !path.try_exists()? {
            Self::make(path, mode)?;
        }
        let file = Held::of(path)?;
        // Under the lock: who held it before may just have written.
        let known = companion::read(path)?;
        let tail = match Tail::of(file.0.file(), known)? {
            Some(tail) => tail,
            // Something is wrong; which line is the first can only be said from the beginning.
            None => {
                let named = match verify(BufReader::new(file.0.file())) {
                    Err(fault) => fault,
                    Ok(_) => AuditFault::Disturbed("it was changed"),
                };
                return Err(named.of(path));
            }
        };
        let length = file.0.metadata()?.len();
        let end = length.saturating_sub(tail.torn.len() as u64);
        let mut audit = Self {
            path: path.to_owned(),
            mode,
            file,
            end,
            last: tail.last,
            cut: None,
        };
        audit.undisturbed(length)?;
        audit.agree(known, tail.before)?;
        if !tail.torn.is_empty() {
            audit.set_aside(&tail.torn, by, now)?;
        }
        Ok(audit)
    }

    /// How the journal ends.
    pub const fn last(&self) -> Verified {
        self.last
    }

    /// The entry that opening the journal wrote in the place of a torn line.
    pub const fn cut(&self) -> Option<&Entry> {
        self.cut.as_ref()
    }

    /// Writes an entry. When this comes back it is on the disk. After an error nothing was recorded, and the next may be
    /// tried. Where the disk would not even let the entry be taken back, it may be there or not; where that can be seen, all
    /// others are refused ([`AuditFault::Disturbed`]) until the journal is opened again.
    pub fn append(
        &mut self,
        by: &User,
        now: &Time,
        act: Act,
        reason: Option<Reason>,
    ) -> Result<Entry, StoreError> {
        self.undisturbed(self.end)?;
        let (entry, line) = self.next(by, now, act, reason)?;
        let last = Verified::after(&entry);
        if let Err(error) = self.write(&line, &last) {
            // Where that fails too, the file is longer than it should be, and the next call finds it so.
            let taken_back = self.file.0.set_len(self.end);
            let _ = taken_back.and_then(|()| self.file.0.sync_data());
            return Err(error);
        }
        self.wrote(&line, last);
        Ok(entry)
    }

    /// Makes a journal without entries, whole or not at all, unless somebody else just did.
    fn make(path: &Path, mode: u32) -> Result<(), StoreError> {
        // Where the companion knows of entries, this is no new journal.
        if let Some(Verified {
            count: known @ 1.., ..
        }) = companion::read(path)?
        {
            return Err(AuditFault::Cut { count: 0, known }.of(path));
        }
        let mut file = tempfile::Builder::new()
            .prefix(".audit-")
            .tempfile_in(folder_of(path))?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.write_all(&[HEADER, b"\n"].concat())?;
        file.as_file().sync_data()?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                Err(trouble("make", path, &error.error))
            }
            _ => sync_folder(path),
        }
    }

    /// Holds the end against the companion, and brings the companion up to it.
    fn agree(&self, known: Option<Verified>, before: Option<Verified>) -> Result<(), StoreError> {
        if known == Some(self.last) {
            return Ok(());
        }
        // A writer that was killed between the two is one entry ahead. Whatever else: the whole chain is asked.
        if known.is_none() || known != before {
            let lines = BufReader::new(fs_err::File::open(&self.path)?.take(self.end));
            chain::against(lines, known, u64::MAX).map_err(|fault| fault.of(&self.path))?;
        }
        companion::write(&self.path, self.mode, &self.last)
    }

    /// Keeps what stands behind the last entry in a file of its own, and writes over it that this was done.
    fn set_aside(&mut self, torn: &[u8], by: &User, now: &Time) -> Result<(), StoreError> {
        let digest = Digest::of(torn);
        let kept = beside(&self.path, &format!(".torn-{}", digest.short()));
        place(&kept, self.mode, torn)?;
        sync_folder(&self.path)?;
        let bytes = torn.len() as u64;
        let (entry, line) = self.next(by, now, Act::TornLineCut { bytes, digest }, None)?;
        let last = Verified::after(&entry);
        // What is opened for appending writes nowhere else. Killed in here, the journal ends with the torn line as before, or
        // with the new entry and maybe a rest of the old line, which is set aside in its turn.
        let file = match fs_err::OpenOptions::new().write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!(
                    "{error}; where its attribute `append-only` is set, take it away once (chattr -a)"
                );
                return Err(io::Error::new(error.kind(), text).into());
            }
            file => file?,
        };
        self.same(&file.metadata()?)?;
        let end = self.end.saturating_add(line.len() as u64);
        file.file()
            .write_all_at(&line, self.end)
            .map_err(|error| trouble("write", &self.path, &error))?;
        file.set_len(end)?;
        file.sync_data()?;
        companion::write(&self.path, self.mode, &last)?;
        self.wrote(&line, last);
        self.cut = Some(entry);
        Ok(())
    }

    /// The next entry and its line.
    fn next(
        &self,
        by: &User,
        now: &Time,
        act: Act,
        reason: Option<Reason>,
    ) -> Result<(Entry, Vec<u8>), StoreError> {
        let full = || {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            trouble("number another entry of", &self.path, &error)
        };
        let entry = Entry {
            sequence: self.last.count.checked_add(1).ok_or_else(full)?,
            time: now.clone(),
            by: by.clone(),
            act,
            reason,
            previous: self.last.last,
            digest: self.last.last,
        };
        Ok(entry.sealed()?)
    }

    fn write(&mut self, line: &[u8], last: &Verified) -> Result<(), StoreError> {
        // One call to the system; a second only where the first found no room for all, to be told why.
        self.file.0.write_all(line)?;
        self.file.0.sync_data()?;
        companion::write(&self.path, self.mode, last)
    }

    fn wrote(&mut self, line: &[u8], last: Verified) {
        self.end = self.end.saturating_add(line.len() as u64);
        self.last = last;
    }

    /// Whether the path still leads to the file, and the file is as long as we left it.
    fn undisturbed(&self, length: u64) -> Result<(), StoreError> {
        let there = match fs_err::metadata(&self.path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AuditFault::Disturbed("it was moved away or removed").of(&self.path));
            }
            Err(error) => return Err(error.into()),
        };
        self.same(&there)?;
        match there.len() == length {
            true => Ok(()),
            false => {
                Err(AuditFault::Disturbed("it has another length than its writer gave it").of(&self.path))
            }
        }
    }

    /// Whether this is the file that we hold.
    fn same(&self, there: &Metadata) -> Result<(), StoreError> {
        let ours = self.file.0.metadata()?;
        match (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            true => Ok(()),
            false => Err(AuditFault::Disturbed("it was replaced by another file").of(&self.path)),
        }
    }
}

impl Tail {
    /// Reads the end of a journal. `None` where it is not one that a writer, whole or killed, leaves.
    fn of(file: &File, known: Option<Verified>) -> io::Result<Option<Self>> {
        let length = file.metadata()?.len();
        let mut first = [0; HEADER.len() + 1];
        if length < first.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut first, 0)?;
        if first.strip_suffix(b"\n") != Some(HEADER) {
            return Ok(None);
        }
        let start = length.saturating_sub(WINDOW).max(first.len() as u64);
        // No more than the window.
        let mut window = vec![0; (length - start) as usize];
        file.read_exact_at(&mut window, start)?;
        Ok(Self::in_window(&window, start == first.len() as u64, known))
    }

    /// The same, of the file's last bytes; whether they are all that follow the first line.
    fn in_window(window: &[u8], all: bool, known: Option<Verified>) -> Option<Self> {
        let (whole, torn) = match window.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => window.split_at_checked(at + 1)?,
            None => (&[][..], window),
        };
        if torn.len() > MAX_LINE {
            return None;
        }
        if let Some((last, before)) = last_of(whole, all) {
            let torn = torn.to_owned();
            return Some(Self { last, before, torn });
        }
        // A power cut can leave a line whose end is there and whose middle is not. It was never reported as written where the
        // companion knows the one before it as the last.
        let lines = whole.strip_suffix(b"\n")?;
        let at = lines
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let (earlier, _) = lines.split_at_checked(at)?;
        let (last, before) = last_of(earlier, all)?;
        let torn = window.strip_prefix(earlier)?;
        (Some(last) == known && torn.len() <= 2 * MAX_LINE).then(|| Self {
            last,
            before,
            torn: torn.to_owned(),
        })
    }
}

/// The entry in the last of whole lines, and the one before it; `None` where it is no entry. Without lines there is only the
/// first of the journal, where these are all that follow it.
fn last_of(lines: &[u8], all: bool) -> Option<(Verified, Option<Verified>)> {
    let Some(lines) = lines.strip_suffix(b"\n") else {
        return all.then(|| (Verified::beginning(), None));
    };
    let line = lines.rsplit(|byte| *byte == b'\n').next()?;
    let entry = Entry::read(line).ok()?;
    let before = Verified {
        count: entry.sequence.checked_sub(1)?,
        last: entry.previous,
    };
    Some((Verified::after(&entry), Some(before)))
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// What is in the journal's folder under a new name is so after a power cut too.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    Ok(fs_err::File::open(folder_of(path))?.sync_all()?)
}
