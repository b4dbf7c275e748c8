//! What the cell's own tracer tells, as events for the runner.

use std::io::{self, PipeReader, Read as _};

use hotcell_cells::cell_side::{CellError, Connection};
use hotcell_cells::emulator;
use hotcell_monitor::record;
use hotcell_monitor::story::{Sample, Story};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::Witness;
use hotcell_schema::job::LinuxJob;

/// Makes events of records.
pub(crate) struct Told {
    from: Option<PipeReader>,
    story: Story,
    bytes: Vec<u8>,
}

impl Told {
    /// Of a job's guest. `host`: how calls of the host's architecture look.
    pub(crate) fn new(from: PipeReader, job: &LinuxJob, host: &ArchProfile) -> Self {
        let sample = Sample {
            path: job.path.clone(),
            argv: job.argv.clone(),
            cwd: job.cwd.clone().unwrap_or_else(|| job.persona.cwd.clone()),
            emulator: (!job.native).then(|| emulator::PLACE.to_owned()),
        };
        Self {
            from: Some(from),
            story: Story::of_host(host, sample).told_by(Witness::Tracer),
            bytes: Vec::new(),
        }
    }

    /// When the first event was, by the kernel's clock.
    pub(crate) fn began(&self) -> Option<u64> {
        self.story.began()
    }

    /// The end to wait at, while it is open.
    pub(crate) fn end(&self) -> Option<&PipeReader> {
        self.from.as_ref()
    }

    /// Takes what is there and tells the runner; to be called when something is.
    pub(crate) fn take(&mut self, connection: &mut Connection) -> Result<(), CellError> {
        let Some(from) = &mut self.from else {
            return Ok(());
        };
        let mut buffer = [0; 65536];
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            read => read.map_err(|error| CellError::Job(error.to_string()))?,
        };
        if count == 0 {
            self.from = None;
        }
        self.bytes.extend_from_slice(&buffer[..count]);
        let mut events = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let Some((bytes, behind)) = behind.split_at_checked(u32::from_le_bytes(*length) as usize) else {
                break;
            };
            rest = behind;
            if let Some((head, record)) = record::parse(bytes) {
                self.story
                    .take(&head, &record, &mut |event| events.push(event.clone()));
            }
        }
        self.bytes = rest.to_vec();
        connection.send_events(&events)?;
        connection.flush()
    }
}
