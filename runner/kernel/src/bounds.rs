//! Bounds on what a run hands over: events and files left behind.

use std::collections::BTreeSet;

use hotcell_schema::event::{self, What};
use hotcell_schema::guest::text;

use crate::fs::tree::Ino;
use crate::kernel::Kernel;

/// Greatest number of files left behind, and of bytes in all their paths together and in one of them.
const MAX_LEFT: usize = 10_000;
const MAX_LEFT_PATHS: usize = 2 << 20;
const MAX_LEFT_PATH: usize = 4096;

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
}

/// About how many bytes an event is when written down.
pub(crate) fn weight(task: &event::Task, what: &What) -> u64 {
    use event::ArgValue::{Address, Fd, Flags, Int, Name, Path, Socket, Text, Texts};
    const EACH: usize = 200;
    let list = |texts: &[String]| texts.iter().map(|text| text.len() + 4).sum::<usize>();
    let option = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let own = match what {
        What::Syscall(call) => call
            .args
            .iter()
            .map(|arg| {
                let value = match &arg.value {
                    Int(_) | Address(_) | Fd(_) => 20,
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
