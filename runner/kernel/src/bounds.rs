//! Bounds on what a run hands over: events and files left behind.

use std::collections::BTreeSet;

use hotcell_schema::event::{self, Event, Resource, What, Witness};
use hotcell_schema::guest::text;
use hotcell_schema::job::UnsupportedCall;
use hotcell_schema::outcome::Outcome;

use crate::fs::tree::Ino;
use crate::kernel::Kernel;

/// Greatest number of files left behind, and of bytes in all their paths together and in one of them.
const MAX_LEFT: usize = 10_000;
const MAX_LEFT_PATHS: usize = 2 << 20;
const MAX_LEFT_PATH: usize = 4096;

/// Greatest number of unsupported calls told apart by number; more are counted as `syscall_other`.
const MAX_UNSUPPORTED: usize = 1024;
/// Bytes of all events together, about as they are written down.
const MAX_EVENT_BYTES: u64 = 1 << 30;

/// A limit that was met: its name and its value.
type Met = (&'static str, u64);

impl Kernel {
    /// The files left behind as far as the limits allow, by path as a report names it, and the limit that was met.
    pub(crate) fn left_within(&self) -> (Vec<(String, Ino)>, Option<Met>) {
        let mut kept = Vec::new();
        let mut seen = BTreeSet::new();
        let mut paths = 0;
        let mut content = 0u64;
        for (path, ino) in self.tree.left(MAX_LEFT + 1, MAX_LEFT_PATHS) {
            let path = text(&path);
            paths += path.len();
            if kept.len() >= MAX_LEFT || path.len() > MAX_LEFT_PATH || paths > MAX_LEFT_PATHS {
                return (kept, Some(("files", MAX_LEFT as u64)));
            }
            if seen.insert(ino) {
                let length = self.tree.bytes(ino).map_or(0, |bytes| bytes.len() as u64);
                content = content.saturating_add(length);
            }
            if content > self.limits.file_bytes {
                return (kept, Some(("file-bytes", self.limits.file_bytes)));
            }
            kept.push((path, ino));
        }
        (kept, None)
    }

    /// More files left behind than can be handed over is a limit met.
    pub(crate) fn bound_left(&mut self) {
        if !self.is_over()
            && let (_, Some((name, value))) = self.left_within()
        {
            self.limit(name, value);
        }
    }

    /// A limit was met: the run ends.
    pub(crate) fn limit(&mut self, name: &str, value: u64) {
        if self.end.is_none() {
            let pid = self.pid_of(self.current);
            let task = self.event_task(pid, self.current);
            self.end = Some(Outcome::Limit(name.to_owned()));
            self.send(
                task,
                What::Resource(Resource {
                    limit: name.to_owned(),
                    value,
                }),
            );
        }
    }

    /// The host's time for the run is over: it ends here, as by any other limit. When that was differs from run to run, so no
    /// event tells of it.
    pub fn out_of_wall_time(&mut self) {
        self.end.get_or_insert_with(Outcome::wall_time);
    }

    /// How many events were told.
    pub fn events(&self) -> u64 {
        self.sequence
    }

    /// Whether a limit was met: the machine is to stop and [`Kernel::next`] to be called, which says `Finished`.
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn over(&self) -> bool {
        self.is_over()
    }

    pub(crate) fn check_time(&mut self) {
        if self.time.now >= self.limits.virtual_time {
            self.limit("virtual-time", self.limits.virtual_time);
        }
    }

    /// Sends an event, unless the run has ended or this would be one too many.
    pub(crate) fn emit(&mut self, task: event::Task, what: What) {
        if self.end.is_some() {
            return;
        }
        if self.sequence.saturating_add(1) >= self.limits.events {
            self.limit("events", self.limits.events);
            return;
        }
        if self.event_bytes >= MAX_EVENT_BYTES {
            self.limit("event-bytes", MAX_EVENT_BYTES);
            return;
        }
        self.send(task, what);
    }

    fn send(&mut self, task: event::Task, what: What) {
        self.event_bytes = self.event_bytes.saturating_add(weight(&task, &what));
        let event = Event {
            seq: self.sequence,
            time: self.time.now,
            witness: Witness::Engine,
            task,
            what,
            raw: None,
        };
        self.sequence += 1;
        self.sink.event(event);
    }

    /// Sends the typed events that a call gave rise to.
    pub(crate) fn tell_later(&mut self) {
        for (task, what) in std::mem::take(&mut self.later) {
            self.emit(task, what);
        }
    }

    /// Notes that a call without full support was made.
    pub(crate) fn note_unsupported(&mut self, name: &str, support: event::Support, note: &str) {
        // Names of known calls are few; numbers without a name are as many as the guest likes.
        let full = self.unsupported.len() >= MAX_UNSUPPORTED
            && name.starts_with("syscall_")
            && !self.unsupported.contains_key(name);
        let name = if full { "syscall_other" } else { name };
        let entry = self
            .unsupported
            .entry(name.to_owned())
            .or_insert_with(|| UnsupportedCall {
                name: name.to_owned(),
                support,
                note: note.to_owned(),
                count: 0,
            });
        entry.count += 1;
    }
}

/// About how many bytes an event is when written down.
pub(crate) fn weight(task: &event::Task, what: &What) -> u64 {
    use event::ArgValue::{Address, Fd, Flags, Int, Name, Path, Socket, Text, Texts, Time};
    const EACH: usize = 200;
    let list = |texts: &[String]| texts.iter().map(|text| text.len() + 4).sum::<usize>();
    let option = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let own = match what {
        What::Syscall(event::Syscall { args, .. }) | What::Library(event::Library { args, .. }) => args
            .iter()
            .map(|arg| {
                let value = match &arg.value {
                    Int(_) | Address(_) | Fd(_) | Time(_) => 20,
                    Path(text) | Text(text) | Name(text) | Socket(text) => text.len(),
                    Texts(texts) | Flags(texts) => list(texts),
                };
                arg.name.len() + value + 30
            })
            .sum(),
        What::Process(process) => option(&process.path) + list(&process.argv),
        What::File(file) => file.path.len() + option(&file.to),
        What::Memory(memory) => option(&memory.file),
        What::Network(network) => [&network.local, &network.peer, &network.host, &network.request]
            .into_iter()
            .map(option)
            .sum(),
        _ => EACH,
    };
    (EACH + task.image.len() + own) as u64
}
