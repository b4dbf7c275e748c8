//! The fault queue: what is known of cells that broke, `faults/<stage>/<instance>/` in the run's folder, for a person to look
//! at. Host facts: no part of the result, nothing reads it, and it is not compared.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use hotcell_cells::process::ProcessCell;
use hotcell_plan::Instance;
use hotcell_schema::fault::{CONTEXT, FILE, FaultRecord, LOG};
use hotcell_store::{RunFolder, StoreError};

use crate::given::Given;
use crate::secrets::Secrets;

/// Most records of a run; of further faults, `run.json` says the reason alone.
const MAX_RECORDS: u64 = 1_000;
/// Longest text of a record, in bytes: what a cell may say of itself, twice.
const MAX_WHAT: usize = 16 << 10;

/// A cell that broke: what is known of it, but for who it was.
#[derive(Debug, Clone)]
pub(crate) struct Broke {
    /// Its record; [`Faults::keep`] fills in the attempt.
    pub record: FaultRecord,
    /// The end of its error output.
    pub log: String,
}

/// Where records are kept, and how many more there may be.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    run: &'a RunFolder,
    room: AtomicU64,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(run: &'a RunFolder) -> Self {
        Self {
            run,
            room: AtomicU64::new(MAX_RECORDS),
        }
    }

    /// Keeps the last context that a broken cell saved; gives its name beside the record. `None`: it saved none, or it cannot
    /// be kept, or is more than the run may still give out.
    pub(crate) fn keep_context(
        &self,
        instance: &Instance,
        cell: &ProcessCell,
        given: &Given,
    ) -> Option<String> {
        let length = cell.kept_length()?;
        if self.room.load(Ordering::Relaxed) == 0 || !given.take_whole(length) {
            return None;
        }
        let path = format!("{}/{CONTEXT}", folder(instance));
        let kept = self.run.write_with(&path, |file| {
            let written = cell.write_context(file);
            written
                .map(|_| ())
                .map_err(|fault| StoreError::Io(io::Error::other(fault)))
        });
        kept.ok().map(|()| CONTEXT.to_owned())
    }

    /// Keeps what is known of an attempt; a later attempt's takes its place. Gives the record's path from the run's folder;
    /// `None`: there is no room for it. Values of secrets are replaced.
    pub(crate) fn keep(
        &self,
        instance: &Instance,
        attempt: u32,
        broke: Broke,
        secrets: Option<&Secrets>,
    ) -> Option<String> {
        let folder = folder(instance);
        let path = format!("{folder}/{FILE}");
        let known = attempt > 1 && self.run.path().join(&path).exists();
        if !known {
            let taken = |room: u64| room.checked_sub(1);
            self.room
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
                .ok()?;
        }
        let redacted = |text: &str| match secrets {
            Some(secrets) => secrets.redact(text).into_owned(),
            None => text.to_owned(),
        };
        let log = redacted(&broke.log);
        let mut record = FaultRecord {
            run: self.run.id(),
            attempt,
            what: redacted(&broke.record.what),
            ..broke.record
        };
        record.what.truncate(record.what.floor_char_boundary(MAX_WHAT));
        // Whoever cannot be shown what went wrong is still told by the reason; nothing hangs on a record.
        let written = match log.is_empty() {
            true => false,
            false => self.run.write(&format!("{folder}/{LOG}"), log.as_bytes()).is_ok(),
        };
        if !written {
            // That of the attempt before says nothing about this one.
            let _ = fs_err::remove_file(self.run.path().join(&folder).join(LOG));
        }
        if record.context.is_none() {
            let _ = fs_err::remove_file(self.run.path().join(&folder).join(CONTEXT));
        }
        record.log = written.then(|| LOG.to_owned());
        let mut text = serde_json::to_vec_pretty(&record).ok()?;
        text.push(b'\n');
        self.run.write(&path, &text).ok()?;
        Some(path)
    }
}

/// Where the record of an instance stands, from the run's folder.
fn folder(instance: &Instance) -> String {
    format!("faults/{}/{}", instance.stage, instance.slug)
}

#[cfg(test)]
mod tests {
    use hotcell_schema::fault::{FORMAT, FaultKind, FaultLimits, VERSION};

    use super::*;

    fn broke(what: &str, log: &str) -> Broke {
        Broke {
            record: FaultRecord {
                format: FORMAT.into(),
                version: VERSION,
                run: String::new(),
                instance: "run[x]".into(),
                uses: "unicorn/linux".into(),
                attempt: 0,
                kind: FaultKind::EngineCrash,
                what: what.into(),
                ended: None,
                engine: "test".into(),
                last_event: None,
                cpu_s: 0.0,
                peak_kib: 0,
                wall_s: 0.0,
                limits: FaultLimits::default(),
                confinement: Vec::new(),
                fallbacks: Vec::new(),
                log: None,
                context: None,
            },
            log: log.into(),
        }
    }

    fn instance(slug: &str) -> Instance {
        serde_json::from_value(serde_json::json!({
            "name": slug, "slug": slug, "stage": "run", "uses": "unicorn/linux", "axes": {}, "with": {}, "inputs": {},
            "seed": hotcell_schema::digest::Digest::of(b"x"),
        }))
        .unwrap()
    }

    #[test]
    fn records_are_bounded_and_those_of_later_attempts_take_the_place() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "x").unwrap();
        let faults = Faults::new(&run);
        faults.room.store(1, Ordering::Relaxed);
        let read = |path: &str| -> FaultRecord {
            serde_json::from_slice(&fs_err::read(run.path().join(path)).unwrap()).unwrap()
        };
        let path = faults
            .keep(&instance("a"), 1, broke("first", "its words"), None)
            .unwrap();
        assert_eq!(path, "faults/run/a/fault.json");
        let record = read(&path);
        assert_eq!((record.attempt, record.log.as_deref()), (1, Some("log")));
        assert_eq!((record.run.as_str(), record.what.as_str()), ("x", "first"));
        let log = run.path().join("faults/run/a/log");
        assert_eq!(fs_err::read(&log).unwrap(), b"its words");
        // There is room for one; that of the same instance needs none.
        assert_eq!(faults.keep(&instance("b"), 1, broke("", ""), None), None);
        assert!(!run.path().join("faults/run/b").exists());
        let long = "ä".repeat(MAX_WHAT);
        faults.keep(&instance("a"), 2, broke(&long, ""), None).unwrap();
        let record = read(&path);
        assert_eq!((record.attempt, record.log), (2, None));
        assert_eq!(record.what.len(), MAX_WHAT);
        assert!(!log.exists());
    }

    #[test]
    fn secrets_are_in_no_record_and_no_log() {
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::create(runs.path(), "x").unwrap();
        let secrets = Secrets::one("vault-pw", "correct horse");
        let said = broke("it said correct horse", "the password is correct horse");
        let path = Faults::new(&run)
            .keep(&instance("a"), 1, said, Some(&secrets))
            .unwrap();
        for file in [run.path().join(&path), run.path().join("faults/run/a/log")] {
            let text = fs_err::read_to_string(&file).unwrap();
            assert!(
                !text.contains("correct horse") && text.contains("vault-pw"),
                "{text}"
            );
        }
    }
}
