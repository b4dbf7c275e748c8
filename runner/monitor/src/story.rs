//! What a cell's records say, as events.
//!
//! In: records in the order in which the kernel told them. Out: events of the guest's own tasks, by the numbers that the guest
//! knows them by. The witness is the kernel: calls are the host's, made by the emulator for its program. What the emulator
//! does for itself was left out by the kernel part; mappings are its own too (guests map within memory that it has mapped), and
//! are told as calls only.

use std::collections::BTreeMap;

use hotcell_kernel::observed::{About, Base, Calls, Observed, Piece};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::deny::Denied;
use hotcell_schema::event::{
    Access, ArgValue, Event, File, FileOp, Process as ProcessEvent, ProcessOp, Signal, Syscall, Task, What,
    Witness,
};
use hotcell_schema::guest::text;
use serde::{Deserialize, Serialize};

use self::sockets::Sockets;
use crate::record::{Call, Head, Record};

/// Most descriptors of one process that are known by name, and processes at once.
const MOST: usize = 4096;

/// What is known of the guest before it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Path of its program.
    pub path: String,
    /// Its arguments, the first one included.
    pub argv: Vec<String>,
    /// Where it begins.
    pub cwd: String,
    /// Path of the emulator, which is the first thing that is executed.
    pub emulator: Option<String>,
}

/// A process, as far as its records tell.
#[derive(Debug, Clone, Default)]
struct Process {
    pid: u32,
    parent: u32,
    image: String,
    cwd: String,
    files: BTreeMap<i32, Opened>,
    sockets: Sockets,
    /// What it asked to be replaced by.
    wants: Option<(String, Vec<String>)>,
}

/// A file that a descriptor was opened for.
#[derive(Debug, Clone, Default)]
struct Opened {
    path: String,
    /// Bytes written by this descriptor.
    written: u64,
}

/// What was told when a call began.
#[derive(Debug, Default)]
struct Early {
    number: u32,
    /// Texts, and which argument each is.
    pieces: Vec<(u8, Vec<u8>)>,
}

/// Makes events of records.
#[derive(Debug)]
pub struct Story {
    calls: Calls,
    sample: Sample,
    witness: Witness,
    /// When the first record was told.
    began: Option<u64>,
    sequence: u64,
    /// By the host's numbers.
    processes: BTreeMap<u32, Process>,
    threads: BTreeMap<u32, u32>,
    /// Calls under way, by the host's number of the thread.
    early: BTreeMap<u32, Early>,
    started: bool,
    denied: u64,
}

impl Story {
    /// A story that has not begun. `calls`: those of the host's architecture.
    pub fn new(calls: Calls, sample: Sample) -> Self {
        Self {
            calls,
            sample,
            witness: Witness::Kernel,
            began: None,
            sequence: 0,
            processes: BTreeMap::new(),
            threads: BTreeMap::new(),
            early: BTreeMap::new(),
            started: false,
            denied: 0,
        }
    }

    /// The same, of the architecture that a profile describes.
    pub fn of_host(host: &ArchProfile, sample: Sample) -> Self {
        Self::new(Calls::new(host), sample)
    }

    /// The same, of records that somebody else than the kernel part tells.
    pub fn told_by(self, witness: Witness) -> Self {
        Self { witness, ..self }
    }

    /// When the first event was, by the kernel's clock (`CLOCK_MONOTONIC`), in nanoseconds.
    pub fn began(&self) -> Option<u64> {
        self.began
    }

    /// How many processes the kernel part ended for what they did.
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// How many events were made.
    pub fn events(&self) -> u64 {
        self.sequence
    }

    /// Makes what a record says into events.
    pub fn take(&mut self, head: &Head, record: &Record<'_>, tell: &mut impl FnMut(&Event)) {
        match record {
            Record::Fork { pid, tid, inner } => self.forked(head, (*pid, *tid), *inner, tell),
            Record::Exec { path } => self.executed(head, path, tell),
            Record::Began(call) => self.call_began(head, call),
            Record::Call(call) => self.called(head, call, tell),
            Record::Exit { code, leader } => self.exited(head, *code, *leader, tell),
            Record::Signal { number, code, .. } if self.is_the_kernels(*number, *code) => {}
            Record::Signal { to, number, .. } => {
                let to = self.processes.get(to).map_or(0, |process| process.pid);
                let (signal, to) = (signal_name(*number), to.cast_signed());
                self.tell(head, What::Signal(Signal { signal, to }), tell);
            }
            Record::Killed { rule, .. } => {
                self.denied += 1;
                let what = ProcessEvent {
                    // The kernel part was given them by their place.
                    denied: Denied::ALL.get(*rule as usize).copied(),
                    ..ProcessEvent::new(ProcessOp::Denied)
                };
                self.tell(head, What::Process(what), tell);
            }
        }
    }

    /// Whether a signal is how the kernel tells what other events tell: that a child has ended; that a process is ended for a
    /// limit or a rule; and, where programs run in an emulator, faults by which it finds code that it must translate anew.
    fn is_the_kernels(&self, number: u32, code: i32) -> bool {
        use nix::sys::signal::Signal;
        match Signal::try_from(number.cast_signed()) {
            Ok(Signal::SIGCHLD | Signal::SIGKILL) => code > 0,
            Ok(Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE | Signal::SIGTRAP) => {
                code > 0 && self.sample.emulator.is_some()
            }
            _ => false,
        }
    }

    fn tell(&mut self, head: &Head, what: What, tell: &mut impl FnMut(&Event)) {
        // What happens before the program is there is the keeper's doing.
        let process = self.processes.get(&head.pid);
        let Some(process) = process.filter(|process| !process.image.is_empty()) else {
            return;
        };
        let began = *self.began.get_or_insert(head.time);
        let event = Event {
            seq: self.sequence,
            time: head.time.saturating_sub(began),
            witness: self.witness,
            task: Task {
                pid: process.pid,
                tid: self.threads.get(&head.tid).copied().unwrap_or(process.pid),
                parent: process.parent,
                image: process.image.clone(),
            },
            what,
            raw: None,
        };
        self.sequence += 1;
        tell(&event);
    }

    fn forked(&mut self, head: &Head, child: (u32, u32), inner: (u32, u32), tell: &mut impl FnMut(&Event)) {
        let parent = self.processes.get(&head.pid).cloned();
        if self.threads.len() < 16 * MOST {
            self.threads.insert(child.1, inner.1);
        }
        if child.0 == child.1 && self.processes.len() < MOST {
            let parent = parent.unwrap_or_default();
            let mut process = Process {
                pid: inner.0,
                parent: parent.pid,
                wants: None,
                ..parent
            };
            for opened in process.files.values_mut() {
                opened.written = 0;
            }
            self.processes.insert(child.0, process);
        }
        let what = ProcessEvent {
            child: Some(inner.1),
            ..ProcessEvent::new(ProcessOp::Fork)
        };
        self.tell(head, What::Process(what), tell);
    }

    fn executed(&mut self, head: &Head, path: &[u8], tell: &mut impl FnMut(&Event)) {
        let path = text(path.strip_suffix(&[0]).unwrap_or(path));
        let first = !self.started;
        if first
            && self
                .sample
                .emulator
                .as_ref()
                .is_some_and(|emulator| *emulator != path)
        {
            return;
        }
        self.started = true;
        let process = self.processes.entry(head.pid).or_default();
        let (path, argv) = match first {
            true => {
                process.cwd.clone_from(&self.sample.cwd);
                (self.sample.path.clone(), self.sample.argv.clone())
            }
            false => process.wants.take().unwrap_or((path, Vec::new())),
        };
        process.image.clone_from(&path);
        let op = if first { ProcessOp::Start } else { ProcessOp::Exec };
        let what = ProcessEvent {
            path: Some(path),
            argv,
            ..ProcessEvent::new(op)
        };
        self.tell(head, What::Process(what), tell);
    }

    /// Texts that are told when a call begins are kept until it has come back.
    fn call_began(&mut self, head: &Head, call: &Call<'_>) {
        let pieces = call.pieces.iter().flatten();
        let pieces: Vec<_> = pieces
            .map(|(argument, _, bytes)| (*argument, bytes.to_vec()))
            .collect();
        let observed = self.observed(call, &pieces, None);
        if let Some((base, path)) = observed
            .paths
            .first()
            .filter(|_| observed.call.name.starts_with("execve"))
        {
            let path = self.absolute(head.pid, *base, path);
            let argv = observed.call.args.into_iter().find_map(|arg| match arg.value {
                ArgValue::Texts(argv) => Some(argv),
                _ => None,
            });
            if let Some(process) = self.processes.get_mut(&head.pid) {
                process.wants = Some((path, argv.unwrap_or_default()));
            }
        }
        if self.early.len() < 16 * MOST {
            let number = call.number;
            self.early.insert(head.tid, Early { number, pieces });
        }
    }

    fn observed(&self, call: &Call<'_>, early: &[(u8, Vec<u8>)], result: Option<i64>) -> Observed {
        let early = early
            .iter()
            .map(|(argument, bytes)| (*argument, bytes.as_slice()));
        let late = call
            .pieces
            .iter()
            .flatten()
            .map(|(argument, _, bytes)| (*argument, *bytes));
        let pieces: Vec<Piece<'_>> = early
            .chain(late)
            .map(|(argument, bytes)| Piece {
                argument: usize::from(argument),
                bytes,
            })
            .collect();
        self.calls
            .tell(u64::from(call.number), &call.arguments, &pieces, result)
    }

    fn called(&mut self, head: &Head, call: &Call<'_>, tell: &mut impl FnMut(&Event)) {
        let early = self.early.remove(&head.tid);
        let early = early.filter(|early| early.number == call.number);
        let pieces = early.unwrap_or_default().pieces;
        let ends = call.unfinished || call.never;
        let observed = self.observed(call, &pieces, (!ends).then_some(call.result));
        let first = call.arguments[0] as u32;
        self.tell(head, What::Syscall(observed.call.clone()), tell);
        if ends {
            return;
        }
        let succeeded = observed.call.errno.is_none();
        let about = match observed.call.name.as_str() {
            "open" | "openat" | "openat2" | "creat" => About::File(FileOp::Open),
            _ => observed.about,
        };
        match about {
            About::Nothing => {
                let process = self.processes.get_mut(&head.pid);
                let moved =
                    process.and_then(|process| process.sockets.moved(&observed.call, first.cast_signed()));
                if let Some(moved) = moved {
                    self.tell(head, What::Network(moved), tell);
                }
            }
            About::File(op) => {
                if let Some(file) = self.file(head.pid, op, &observed, call) {
                    self.tell(head, What::File(file), tell);
                }
            }
            About::Network(op) => {
                let fd = first.cast_signed();
                if let Some(process) = self.processes.get_mut(&head.pid) {
                    let network = process.sockets.tell(op, &observed.call, fd);
                    self.tell(head, What::Network(network), tell);
                }
            }
        }
        let Some(process) = self.processes.get_mut(&head.pid) else {
            return;
        };
        if !succeeded {
            if observed.call.name.starts_with("execve") {
                process.wants = None;
            }
            return;
        }
        let (fd, given) = (first.cast_signed(), call.result as i32);
        match observed.call.name.as_str() {
            "write" | "pwrite64" | "writev" => {
                if let Some(opened) = process.files.get_mut(&fd) {
                    opened.written = opened.written.saturating_add(call.result.unsigned_abs());
                }
            }
            "dup" | "dup2" | "dup3" => {
                if let Some(opened) = process.files.get(&fd).cloned() {
                    process.files.insert(given, Opened { written: 0, ..opened });
                }
                process.sockets.copy(fd, given);
            }
            "chdir" => {
                if let Some((base, path)) = observed.paths.first() {
                    let path = self.absolute(head.pid, *base, path);
                    if let Some(process) = self.processes.get_mut(&head.pid) {
                        process.cwd = path;
                    }
                }
            }
            "fchdir" => {
                if let Some(opened) = process.files.get(&fd) {
                    process.cwd = opened.path.clone();
                }
            }
            "close" => {
                process.sockets.close(fd);
                if let Some(opened) = process.files.remove(&fd) {
                    self.written(head, &opened, tell);
                }
            }
            _ => {}
        }
    }

    /// A file that was written is told when it is closed.
    fn written(&mut self, head: &Head, opened: &Opened, tell: &mut impl FnMut(&Event)) {
        if opened.written > 0 {
            let file = File {
                bytes: Some(opened.written),
                ..File::new(FileOp::Written, opened.path.as_str())
            };
            self.tell(head, What::File(file), tell);
        }
    }

    fn file(&mut self, pid: u32, op: FileOp, observed: &Observed, call: &Call<'_>) -> Option<File> {
        let mut paths = observed.paths.iter();
        let first = paths.next()?;
        let (path, to) = match op {
            // The text of a symbolic link is no path to resolve.
            FileOp::Symlink => {
                let link = paths.next()?;
                (self.absolute(pid, link.0, &link.1), Some(first.1.clone()))
            }
            _ => (
                self.absolute(pid, first.0, &first.1),
                paths.next().map(|second| self.absolute(pid, second.0, &second.1)),
            ),
        };
        let mode = matches!(op, FileOp::Mkdir | FileOp::Chmod)
            .then_some(observed.mode)
            .flatten();
        let opens = op == FileOp::Open;
        let access = opens.then(|| access(&observed.call));
        if opens
            && observed.call.errno.is_none()
            && let Some(process) = self
                .processes
                .get_mut(&pid)
                .filter(|process| process.files.len() < MOST)
        {
            let (path, fd) = (path.clone(), call.result as i32);
            process.sockets.close(fd);
            process.files.insert(fd, Opened { path, written: 0 });
        }
        let op = match call.created {
            true => FileOp::Create,
            false => op,
        };
        let mode = match call.created {
            true => observed.mode,
            false => mode,
        };
        Some(File {
            to,
            mode,
            access,
            errno: observed.call.errno.clone(),
            ..File::new(op, path)
        })
    }

    /// The absolute path that a path means, links not followed.
    fn absolute(&self, pid: u32, base: Base, path: &str) -> String {
        let process = self.processes.get(&pid);
        let start = match base {
            _ if path.starts_with('/') => "",
            Base::WorkingDirectory => process.map_or("", |process| process.cwd.as_str()),
            Base::Descriptor(fd) => process
                .and_then(|process| process.files.get(&fd))
                .map_or("", |opened| opened.path.as_str()),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in start.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    fn exited(&mut self, head: &Head, code: u32, leader: bool, tell: &mut impl FnMut(&Event)) {
        self.threads.remove(&head.tid).filter(|_| !leader);
        self.early.remove(&head.tid);
        if !leader {
            return;
        }
        let opened = self
            .processes
            .get_mut(&head.pid)
            .map(|process| std::mem::take(&mut process.files));
        for opened in opened.into_iter().flatten().map(|(_, opened)| opened) {
            self.written(head, &opened, tell);
        }
        // wait(2): the signal in the lower seven bits, or the code above the lowest eight.
        let what = match code & 0x7f {
            0 => ProcessEvent {
                code: Some((code >> 8 & 0xff) as i32),
                ..ProcessEvent::new(ProcessOp::Exit)
            },
            signal => ProcessEvent {
                signal: Some(signal_name(signal)),
                ..ProcessEvent::new(ProcessOp::Killed)
            },
        };
        self.tell(head, What::Process(what), tell);
        self.processes.remove(&head.pid);
    }
}

fn signal_name(number: u32) -> String {
    let signal = nix::sys::signal::Signal::try_from(number.cast_signed());
    signal.map_or_else(|_| format!("SIG{number}"), |signal| signal.as_str().to_owned())
}

/// How a call opens a file.
fn access(call: &Syscall) -> Access {
    let flags = call.args.iter().find_map(|arg| match &arg.value {
        ArgValue::Flags(flags) => Some(flags),
        _ => None,
    });
    let has = |name: &str| flags.is_some_and(|flags| flags.iter().any(|flag| flag == name));
    match (call.name.as_str(), has("O_WRONLY"), has("O_RDWR")) {
        ("creat", ..) | (_, true, _) => Access::Write,
        (_, _, true) => Access::ReadWrite,
        _ => Access::Read,
    }
}

mod sockets;
#[cfg(test)]
mod tests;
