//! The cells that are watched: what their records say goes to their files.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hotcell_schema::event::Event;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::protocol::{CELLS, Ended};
use crate::record::{Head, Record};
use crate::still::{self, Still, Stood};
use crate::story::Story;

/// Bytes that wait to be written.
const BUFFER: usize = 1 << 18;
/// Most bytes of the disk that events take which nobody keeps and which were not judged yet.
const MORE: u64 = 64 << 20;
/// Of these so much waits when the cell is told to stand still, and when it goes on: the judge has something to do meanwhile.
const HIGH: u64 = MORE / 2;
const LOW: u64 = MORE / 4;

/// A cell that is watched.
#[derive(Debug)]
pub struct Watched {
    story: Story,
    out: BufWriter<File>,
    most: u64,
    live: bool,
    more: Option<More>,
    /// Events that are not kept.
    pub dropped: u64,
    /// Records of it that were taken.
    pub taken: u64,
    still: Still,
    failed: Option<io::Error>,
}

/// Where events go that are more than allowed, for whoever judges them: he takes back what he has read.
#[derive(Debug)]
struct More {
    out: BufWriter<File>,
    /// Whether whoever judges can give back: not every file system makes holes.
    gives_back: bool,
    full: bool,
    /// For how many there was no room.
    lost: u64,
}

impl More {
    fn new(path: &Path) -> io::Result<Self> {
        let out = writer(path)?;
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(Self {
            gives_back: fallocate(out.get_ref(), how, 0, 1).is_ok(),
            out,
            full: false,
            lost: 0,
        })
    }

    /// Looks how much waits: whether the cell is to stand still until it was judged, which does now or does not.
    fn look(&mut self, stands: bool) -> io::Result<bool> {
        let file = self.out.get_ref();
        // stat(2): in units of 512 bytes.
        let waits = file.metadata()?.blocks().saturating_mul(512);
        self.full = waits > MORE;
        let is_behind = self.gives_back && waits > if stands { LOW } else { HIGH };
        Ok(is_behind && is_read(file))
    }

    fn take(&mut self, event: &Event) -> io::Result<()> {
        match self.full {
            true => {
                self.lost += 1;
                Ok(())
            }
            false => line(&mut self.out, event),
        }
    }
}

/// Whether somebody reads along: he has it locked for as long as he does (flock(2)).
fn is_read(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(error) => matches!(error, TryLockError::WouldBlock),
    }
}

fn line(out: &mut BufWriter<File>, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *out, event)?;
    out.write_all(b"\n")
}

fn writer(path: &Path) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(BUFFER, File::create_new(path)?))
}

impl Watched {
    /// One of which nothing was told yet, and which `still` makes stand still. `events`: the file of the first `most`; `live`: whether
    /// it is read meanwhile; `more`: that of all others.
    ///
    /// # Errors
    ///
    /// If a file cannot be made.
    pub fn new(
        story: Story,
        still: Still,
        events: &Path,
        most: u64,
        live: bool,
        more: Option<&Path>,
    ) -> io::Result<Self> {
        Ok(Self {
            story,
            still,
            out: writer(events)?,
            most,
            live,
            more: more.map(More::new).transpose()?,
            dropped: 0,
            taken: 0,
            failed: None,
        })
    }

    /// Takes a record of it.
    pub fn take(&mut self, head: &Head, record: &Record<'_>) {
        self.taken += 1;
        let Self {
            story,
            out,
            most,
            more,
            dropped,
            failed,
            ..
        } = self;
        story.take(head, record, &mut |event| {
            keep(event, (out, more.as_mut(), *most), dropped, failed);
        });
    }

    /// Takes an event that was made of its records elsewhere.
    pub fn take_event(&mut self, event: &Event) {
        self.taken += 1;
        let files = (&mut self.out, self.more.as_mut(), self.most);
        keep(event, files, &mut self.dropped, &mut self.failed);
    }

    /// Makes it stand still, or go on: it has so many bytes unread in the ring, where there is so much room. To be asked after each
    /// turn.
    pub fn keep_up(&mut self, unread: u64, room: u64) {
        let stands = self.still.stands();
        let unjudged = match self.more.as_mut().map(|more| more.look(stands)) {
            None => false,
            Some(Ok(is_behind)) => is_behind,
            Some(Err(error)) => {
                self.failed.get_or_insert(error);
                false
            }
        };
        self.still
            .stand(unjudged || still::is_behind(stands, unread, room));
    }

    /// When its first event was, by the kernel's clock.
    pub fn began(&self) -> Option<u64> {
        self.story.began()
    }

    /// How many of its processes the kernel part ended for what they did.
    pub fn denied(&self) -> u64 {
        self.story.denied()
    }

    /// Whether somebody reads along.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Writes what is known, for whoever reads along.
    pub fn flush(&mut self) {
        flush(&mut self.out, self.more.as_mut(), &mut self.failed);
    }

    /// The same, as what is known of a cell that was told of without a kernel part.
    ///
    /// # Errors
    ///
    /// If events could not be written.
    pub fn end(self) -> io::Result<Ended> {
        let (dropped, taken) = (self.dropped, self.taken);
        let (_, unjudged, stood) = self.finish()?;
        Ok(Ended {
            written: taken.saturating_sub(dropped),
            dropped,
            unjudged,
            stood: stood.times,
            stood_ns: stood.ns,
            ..Ended::default()
        })
    }

    /// Lets it go on: events that are kept, those that could not even be judged, and how often it stood still.
    ///
    /// # Errors
    ///
    /// If events could not be written.
    pub fn finish(mut self) -> io::Result<(u64, u64, Stood)> {
        let stood = self.still.end();
        flush(&mut self.out, self.more.as_mut(), &mut self.failed);
        match self.failed {
            Some(error) => Err(error),
            None => Ok((
                self.story.events().min(self.most),
                self.more.map_or(0, |more| more.lost),
                stood,
            )),
        }
    }
}

/// Writes an event where it belongs.
fn keep(
    event: &Event,
    (out, more, most): (&mut BufWriter<File>, Option<&mut More>, u64),
    dropped: &mut u64,
    failed: &mut Option<io::Error>,
) {
    let is_kept = event.seq < most;
    *dropped += u64::from(!is_kept);
    let to = match more {
        _ if failed.is_some() => return,
        _ if is_kept => line(out, event),
        Some(more) => more.take(event),
        None => return,
    };
    *failed = to.err();
}

fn flush(out: &mut BufWriter<File>, more: Option<&mut More>, failed: &mut Option<io::Error>) {
    for out in [Some(out), more.map(|more| &mut more.out)].into_iter().flatten() {
        if let Err(error) = out.flush() {
            failed.get_or_insert(error);
        }
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub struct Cells {
    /// Those that are watched.
    pub held: BTreeMap<u32, Watched>,
    next: u32,
}

impl Cells {
    /// Nobody is watched any longer: who stands still goes on.
    pub fn let_go(&mut self) {
        self.held.clear();
    }

    /// A number that nobody has, and of which no task `lives`: all others come before one is given again.
    pub fn free(&mut self, lives: impl Fn(u32) -> bool) -> Option<u32> {
        let numbers = (0..CELLS).map(|after| self.next.wrapping_add(after) % CELLS);
        let free = numbers
            .filter(|number| !self.held.contains_key(number))
            .find(|number| !lives(*number))?;
        self.next = (free + 1) % CELLS;
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_after_all_others_and_when_its_last_task_has_ended() {
        let mut cells = Cells::default();
        let first: Vec<u32> = (0..CELLS).filter_map(|_| cells.free(|_| false)).collect();
        assert_eq!(first, (0..CELLS).collect::<Vec<_>>());
        // Those of 0 to 2 have not ended, though nobody watches them any longer.
        assert_eq!(cells.free(|number| number < 3), Some(3));
        assert_eq!(cells.free(|number| number < 3), Some(4));
        assert_eq!(cells.free(|_| true), None);
    }
}
