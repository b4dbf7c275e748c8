//! An event stream in columns, with every text once: small enough to stand in a page, quick enough to filter there.

use hotcell_schema::event::{Event, Task, What, Witness};
use indexmap::IndexSet;
use serde::Serialize;

use crate::words;

/// Greatest number of events in a page.
pub(super) const MAX_EVENTS: usize = 200_000;
/// Greatest number of bytes of different texts in a page.
const MAX_BYTES: usize = 24 << 20;

/// Columns of events. An event's place is its `seq`, except where `seqs` says otherwise.
#[derive(Serialize, Default)]
pub(super) struct Table {
    /// Events in the stream.
    total: u64,
    tasks: IndexSet<TaskKey>,
    kinds: IndexSet<String>,
    labels: IndexSet<String>,
    texts: IndexSet<String>,
    /// Per event: place in `kinds`, `labels`, `texts` and `tasks`.
    kind: Vec<usize>,
    label: Vec<usize>,
    text: Vec<usize>,
    task: Vec<usize>,
    /// Per event: virtual nanoseconds since the one before.
    time: Vec<i64>,
    /// Places of events that tell of an error.
    failed: Vec<usize>,
    /// Sequence numbers, only where they are not 0, 1, 2 …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seqs: Vec<u64>,
    #[serde(skip)]
    last: u64,
    #[serde(skip)]
    bytes: usize,
}

/// Process number, thread number and image.
#[derive(Serialize, PartialEq, Eq, Hash)]
struct TaskKey(u32, u32, String);

impl Table {
    /// Whether no more events are shown.
    pub(super) fn is_full(&self) -> bool {
        self.kind.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES
    }

    /// Counts one that is not shown.
    pub(super) fn leave_out(&mut self) {
        self.total += 1;
    }

    /// Takes one more event, unless the page is full.
    pub(super) fn add(&mut self, event: &Event) {
        let place = self.kind.len();
        if self.is_full() {
            self.leave_out();
            return;
        }
        self.total += 1;
        let Task { pid, tid, image, .. } = &event.task;
        let mut text = words::details(event);
        match event.witness {
            Witness::Engine => {}
            Witness::Plugin => text.push_str(" · seen by a plugin"),
            Witness::Kernel => text.push_str(" · seen by the host's kernel"),
            Witness::Tracer => text.push_str(" · seen by a tracer"),
            Witness::Agent => text.push_str(" · seen by an agent"),
        }
        let length = text.len();
        let (text, new) = self.texts.insert_full(text);
        if new {
            self.bytes += length;
        }
        self.text.push(text);
        self.kind
            .push(self.kinds.insert_full(event.what.kind().to_owned()).0);
        self.label.push(
            self.labels
                .insert_full(words::cut(&words::label(&event.what), 80))
                .0,
        );
        let image = words::cut(image, 200);
        self.task
            .push(self.tasks.insert_full(TaskKey(*pid, *tid, image)).0);
        // A number of JavaScript is exact up to 2^53; no honest stream comes near.
        let most = 1_i64 << 53;
        let step = i128::from(event.time) - i128::from(self.last);
        self.time
            .push(step.clamp(i128::from(-most), i128::from(most)) as i64);
        self.last = event.time;
        if failed(&event.what) {
            self.failed.push(place);
        }
        if self.seqs.is_empty() && event.seq != place as u64 {
            self.seqs = (0..place as u64).collect();
            self.seqs.push(event.seq);
        } else if !self.seqs.is_empty() {
            self.seqs.push(event.seq);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn shown(&self) -> u64 {
        self.kind.len() as u64
    }
}

fn failed(what: &What) -> bool {
    match what {
        What::Syscall(call) => call.errno.is_some(),
        What::File(file) => file.errno.is_some(),
        What::Network(network) => network.errno.is_some(),
        What::Fault(_) | What::Resource(_) => true,
        _ => false,
    }
}
