//! The audit journal of a sandbox host: what administrators did, and what was done in their name, line by line. Lines are
//! only ever added, and each holds the digest of the one before, so that a change of any is found.
//!
//! In: acts, by whom, when and why. Out: a file that [`verify`] and [`check`] judge, and [`entries`] lists.
//!
//! | file | what is in it |
//! |---|---|
//! | `entry` | an entry: who, what; how it stands in a line |
//! | `text` | short texts of people, and times, checked |
//! | `chain` | lines read, bounded, and held against each other; what can be wrong |
//! | `companion` | the small file beside the journal that knows how it ends |
//! | `writer` | the one who writes |
//!
//! # The format
//! JSON lines. The first is `{"format":"hotcell-audit","version":1}`; every other one is an [`Entry`], in at most
//! [`MAX_LINE`] bytes:
//! ```json
//! {"sequence":1,"time":"2026-11-22T15:00:00Z","by":{"uid":0,"name":"root"},"act":{"ban-user":{"user":{"uid":1501}}},"reason":"spam","previous":"…","digest":"…"}
//! ```
//! - Canonical form: the keys in this order, those that say nothing (`name`, `reason`) left out, no white space between
//!   tokens, texts escaped as `serde_json` does (`"`, `\` and what is below U+0020, nothing else), digests in small letters.
//!   A line in any other form is wrong, even if it means the same.
//! - `digest` is the SHA-256 of the line's own bytes without `,"digest":"…"` and without the newline: of the same object with
//!   all keys but that one.
//! - `previous` is the `digest` of the entry before; in the first entry, the SHA-256 of the first line without its newline.
//! - `sequence` counts from 1 without gaps, so entry N stands in line N + 1.
//!
//! # What the chain shows, and what it cannot
//! A line that was changed, removed, inserted or moved is found and named. Lines cut off the end leave a chain that is sound in
//! itself; so the writer keeps a companion (`<journal>.head`) with the last sequence and digest, and [`check`] holds the two
//! together. Nothing here is secret: whoever may write both files can cut both, or make a whole new chain, and nobody can see
//! it from the files. Against that only a digest helps that was noted elsewhere (printed, mailed, sent to a log host):
//! [`verify_against`] says whether the journal still has it.
//!
//! # Crashes
//! An entry is one write, flushed to the disk (`fdatasync`) before the companion is replaced, and the call comes back after
//! both: what was reported as written is there, and the companion is never ahead of the journal. When something fails (a full
//! disk), the entry is taken back, so that an error means that nothing was recorded. After `kill -9` or a power cut:
//! - The last entry is whole and the companion does not know of it: it counts, and the companion is brought up to it.
//! - The last line is torn; or it is damaged, and the companion knows that the one before it was the last to be reported:
//!   the next [`Audit::open`] copies the bytes to `<journal>.torn-<first 12 digits of their digest>` and puts an entry
//!   [`Act::TornLineCut`] in their place. That entry is written over them, so that no crash can lose the one without the other.
//!   Of a journal that has the file system's attribute `append-only` (`chattr +a`, which is no harm to any other use) it must
//!   be taken away for that.
//! - Anything else is no crash's doing, and the journal is not continued: [`Audit::open`] says what [`check`] says. To go on,
//!   put both files back, or move both away and begin a new journal.

mod chain;
mod companion;
mod entry;
mod text;
mod writer;

pub use chain::{AuditFault, Entries, Verified, Wrong, check, entries, verify, verify_against};
pub use entry::{Act, Cells, Entry, FORMAT, MAX_LINE, Quota, User, VERSION};
pub use text::{Name, NotATime, Reason, Text, TextLength, Time};
pub use writer::Audit;
