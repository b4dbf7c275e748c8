//! What the guest does, told by its init where nobody outside can watch: ptrace(2).
//!
//! In: stops of the guest's tasks. Out: records, as the monitor's kernel part tells them (`hotcell_monitor::record`), each behind
//! its length. Which calls are told, how their arguments are read, and what is the emulator's own doing are the same there
//! (`monitor.bpf.c`): whoever watches, the events are the same. A task stands still until it was told of: nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;

use hotcell_monitor::calls::{ROWS, Row};
use hotcell_monitor::ending::{Ending, ending};
use hotcell_monitor::record::{self, Call, Head, Record};
use hotcell_schema::deny::Deny;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::reads::{Piece, TEXTS, early, is_missing, late, makes, number_at, read, text, writes};
use crate::trace_unsafe::{self as ptrace, At};

/// Most signals that were told when they were sent and have not arrived.
const MOST_SENT: usize = 4096;
/// `ERESTARTSYS`, `ERESTART_RESTARTBLOCK` and what lies between them and is none (include/linux/errno.h).
const BROKEN_OFF: std::ops::RangeInclusive<i64> = -516..=-512;
const NOT_BROKEN_OFF: i64 = -515;

/// What is known of the call that a task is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Within {
    #[default]
    NoCall,
    Heard,
    /// The emulator's own, or begun before the task was there.
    Unheard,
}

/// What is kept of a task (`struct kept`).
#[derive(Debug, Clone, Default)]
struct Kept {
    process: u32,
    within: Within,
    number: u32,
    arguments: [u64; 6],
    /// Texts were told when the call began.
    told: bool,
    /// The file that the call makes was not there.
    missing: bool,
    /// The call was broken off, and the kernel may begin it again.
    again: bool,
    begun: bool,
    helper: bool,
    fresh: bool,
    emulator: Option<(u64, u64)>,
    /// Flags of the clone that is under way.
    clones: u64,
    /// What it asks to be replaced by.
    wants: Vec<u8>,
    /// The signal that it is sending has arrived, and was told.
    arrived: bool,
    ended: bool,
}

/// Traces a cell's tasks.
pub(crate) struct Tracer {
    tasks: BTreeMap<u32, Kept>,
    /// Who has begun, and whose parent has not said so yet.
    unborn: BTreeSet<u32>,
    /// How the first threads of processes ended whose others live on.
    codes: BTreeMap<u32, u32>,
    /// Signals that were told when they were sent: to whom, and which.
    sent: BTreeSet<(u32, u32)>,
    rows: BTreeMap<u32, Row>,
    ending: Vec<Ending>,
    emulated: bool,
    to: BufWriter<io::PipeWriter>,
}

impl Tracer {
    /// Begins to trace a child, which does nothing yet. `deny`: what ends its processes.
    pub(crate) fn begin(first: Pid, emulated: bool, deny: &Deny, to: io::PipeWriter) -> Result<Self, String> {
        ptrace::seize(first.as_raw())
            .map_err(|error| format!("this host lets nobody be traced (ptrace): {error}"))?;
        let process = first.as_raw().cast_unsigned();
        let kept = Kept {
            process,
            within: Within::Unheard,
            ..Kept::default()
        };
        let mut tracer = Self {
            tasks: BTreeMap::from([(process, kept)]),
            unborn: BTreeSet::new(),
            codes: BTreeMap::new(),
            sent: BTreeSet::new(),
            rows: ROWS
                .iter()
                .map(|row| (row.call.id().cast_unsigned(), *row))
                .collect(),
            ending: ending(deny),
            emulated,
            to: BufWriter::with_capacity(1 << 16, to),
        };
        // Its parent is the first of the namespace.
        for (parent, child) in [(0, 1), (1, process)] {
            tracer.tell((parent, parent), &fork(child, child));
        }
        Ok(tracer)
    }

    /// Follows all of them to their end. `ended` hears how processes ended: number, and status as wait(2) has it.
    pub(crate) fn follow(mut self, mut ended: impl FnMut(u32, i32)) {
        loop {
            let told = match ptrace::wait(false) {
                Ok((0, _)) => {
                    // Who hears of it is not to wait for more.
                    let _ = self.to.flush();
                    ptrace::wait(true)
                }
                told => told,
            };
            match told {
                Err(Errno::EINTR) => {}
                Err(_) => break,
                Ok((task, status)) if libc::WIFSTOPPED(status) => self.stopped(task, status),
                Ok((task, status)) => {
                    // Who was killed may not have said so before.
                    self.ends(task, status.cast_unsigned());
                    self.tasks.remove(&task);
                    self.unborn.remove(&task);
                    ended(task, status);
                }
            }
        }
        let _ = self.to.flush();
    }

    fn tell(&mut self, (pid, tid): (u32, u32), record: &Record<'_>) {
        let head = Head {
            time: ptrace::now(),
            cell: 0,
            pid,
            tid,
        };
        let bytes = record::write(&head, record);
        // Who hears nothing any longer ends this process.
        let length = (bytes.len() as u32).to_le_bytes();
        let _ = self
            .to
            .write_all(&length)
            .and_then(|()| self.to.write_all(&bytes));
    }

    fn told_by(&self, task: u32) -> (u32, u32) {
        (self.tasks.get(&task).map_or(task, |kept| kept.process), task)
    }

    fn stopped(&mut self, task: u32, status: i32) {
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        if event == 0 && signal == libc::SIGTRAP | 0x80 {
            match ptrace::at(task) {
                At::Call(number, arguments) => self.begins(task, number, arguments),
                At::Back(result) => self.comes_back(task, result),
                At::Nothing => {}
            }
            return ptrace::go_on(task, 0);
        }
        match event {
            0 => {
                self.signalled(task, signal.cast_unsigned());
                return ptrace::go_on(task, signal);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Some(child) = number_of(ptrace::message(task)) {
                    self.born(task, child);
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                let former = number_of(ptrace::message(task)).unwrap_or(task);
                self.executed(task, former);
            }
            libc::PTRACE_EVENT_EXIT => {
                if let Some(code) = ptrace::message(task) {
                    self.ends(task, code as u32);
                }
            }
            // Of PTRACE_EVENT_STOP: a signal that stops, or the beginning of a task.
            _ if signal != libc::SIGTRAP => return ptrace::leave_stopped(task),
            _ => {
                if !self.tasks.contains_key(&task) {
                    self.unborn.insert(task);
                    return;
                }
            }
        }
        ptrace::go_on(task, 0);
    }

    fn begins(&mut self, task: u32, number: u64, arguments: [u64; 6]) {
        let number = number as u32;
        let Some(mut kept) = self.tasks.remove(&task) else {
            return;
        };
        self.begins_of(task, &mut kept, number, arguments);
        self.tasks.insert(task, kept);
    }

    fn begins_of(&mut self, task: u32, kept: &mut Kept, number: u32, arguments: [u64; 6]) {
        let who = (kept.process, task);
        let is = |call: libc::c_long| i64::from(number) == call;
        if kept.again && self.goes_on(who, kept, number, &arguments) {
            return;
        }
        kept.within = Within::Unheard;
        kept.clones = match () {
            () if is(libc::SYS_clone) => arguments[0],
            // Its flags are the first number of a structure.
            () if is(libc::SYS_clone3) => number_at(task, arguments[0]).unwrap_or(0),
            () => 0,
        };
        let path = match () {
            () if is(libc::SYS_execve) => Some(arguments[0]),
            () if is(libc::SYS_execveat) => Some(arguments[1]),
            () => None,
        };
        if let Some(path) = path {
            kept.wants = text(task, path).map_or_else(Vec::new, |(_, text)| text);
        }
        if !self.is_heard(kept, number, &arguments) {
            return;
        }
        kept.number = number;
        kept.arguments = arguments;
        kept.within = Within::Heard;
        kept.told = false;
        kept.missing = false;
        kept.arrived = false;
        let Some(row) = self.rows.get(&number).copied() else {
            return;
        };
        if !is(libc::SYS_clone) {
            kept.fresh = false;
        }
        if row.opens() {
            kept.missing = makes(row, &arguments) && is_missing(task, row, &arguments);
        }
        if !row.is_early() {
            return;
        }
        let pieces = early(task, row, &arguments);
        kept.told = !pieces.is_empty();
        let call = call(number, arguments, &pieces);
        let record = match row.ends() {
            true => Record::Call(Call { never: true, ..call }),
            false => Record::Began(call),
        };
        self.tell(who, &record);
    }

    /// Whether the call that begins is the one that was broken off: then nothing is told. Else a handler ran, and the program has
    /// seen that it was.
    fn goes_on(&mut self, who: (u32, u32), kept: &mut Kept, number: u32, arguments: &[u64; 6]) -> bool {
        kept.again = false;
        if i64::from(number) == libc::SYS_restart_syscall
            || number == kept.number && *arguments == kept.arguments
        {
            return true;
        }
        if self.rows.contains_key(&kept.number) {
            let result = -i64::from(libc::EINTR);
            let call = Call {
                result,
                ..call(kept.number, kept.arguments, &[])
            };
            self.tell(who, &Record::Call(call));
        }
        false
    }

    /// Whether what a task does is its program's doing, and not its emulator's.
    fn is_heard(&self, kept: &mut Kept, number: u32, arguments: &[u64; 6]) -> bool {
        if kept.begun && !kept.helper {
            return true;
        }
        if !self.emulated || kept.emulator.is_none() {
            return false;
        }
        // By itself it only reads: who does more was told to.
        let row = self.rows.get(&number);
        if row.is_some_and(|row| !row.only_reads() || row.opens() && writes(*row, arguments)) {
            kept.begun = true;
            kept.helper = false;
            return true;
        }
        // The last thing that QEMU does before its program begins is to take all signals (linux-user/signal.c).
        if !kept.helper && i64::from(number) == libc::SYS_rt_sigaction && arguments[0] == 64 {
            kept.begun = true;
        }
        false
    }

    fn comes_back(&mut self, task: u32, result: i64) {
        let Some(mut kept) = self.tasks.remove(&task) else {
            return;
        };
        if kept.within == Within::Heard && BROKEN_OFF.contains(&result) && result != NOT_BROKEN_OFF {
            kept.again = true;
        } else {
            let within = std::mem::take(&mut kept.within);
            if within == Within::Heard && !kept.helper {
                self.comes_back_of(task, &mut kept, result);
            }
        }
        self.tasks.insert(task, kept);
    }

    fn comes_back_of(&mut self, task: u32, kept: &mut Kept, result: i64) {
        let (who, number, arguments) = ((kept.process, task), kept.number, kept.arguments);
        // What the emulator's library asks for first when it makes a thread.
        if self.emulated && i64::from(number) == libc::SYS_clone3 && result == -i64::from(libc::ENOSYS) {
            return;
        }
        if result == 0 {
            self.sends(task, kept);
        }
        let Some(row) = self.rows.get(&number).copied() else {
            return;
        };
        let mut pieces = match row.is_early() && !kept.told {
            true => early(task, row, &arguments),
            false => Vec::new(),
        };
        late(task, row, &arguments, result, &mut pieces);
        let call = Call {
            result,
            created: row.opens() && result >= 0 && kept.missing,
            ..call(number, arguments, &pieces)
        };
        self.tell(who, &Record::Call(call));
        self.judge(task, kept, result);
    }

    /// A signal that was sent to one process is told with the call.
    fn sends(&mut self, task: u32, kept: &Kept) {
        let number = i64::from(kept.number);
        let signal = match number {
            libc::SYS_kill | libc::SYS_tkill | libc::SYS_rt_sigqueueinfo => kept.arguments[1],
            libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => kept.arguments[2],
            _ => return,
        } as u32;
        let to = kept.arguments[0] as u32;
        let to = if to == task {
            Some(kept.process)
        } else {
            self.tasks.get(&to).map(|kept| kept.process)
        };
        let Some(to) = to.filter(|_| signal != 0 && !kept.arrived) else {
            return;
        };
        if signal != libc::SIGKILL.cast_unsigned() && self.sent.len() < MOST_SENT {
            self.sent.insert((to, signal));
        }
        let record = Record::Signal {
            to,
            number: signal,
            code: 0,
        };
        self.tell((kept.process, task), &record);
    }

    /// Ends the process that made a call which ends those who make it: it was refused, and has done nothing.
    fn judge(&mut self, task: u32, kept: &Kept, result: i64) {
        let decides = self.ending.iter().find(|ending| {
            let argument = kept.arguments.get(ending.argument as usize).copied().unwrap_or(0);
            if ending.call.id().cast_unsigned() != kept.number {
                return false;
            }
            match ending.family {
                0 => result == -i64::from(libc::EPERM) && (ending.bits == 0 || argument & ending.bits != 0),
                family => {
                    let mut told = [0; 2];
                    result == -i64::from(libc::EACCES)
                        && read(task, argument, &mut told)
                        && u32::from(u16::from_ne_bytes(told)) == family
                }
            }
        });
        if let Some(rule) = decides.map(|ending| ending.rule) {
            let _ = kill(Pid::from_raw(kept.process.cast_signed()), Signal::SIGKILL);
            let number = kept.number;
            self.tell((kept.process, task), &Record::Killed { number, rule });
        }
    }

    fn born(&mut self, parent: u32, child: u32) {
        let Some(kept) = self.tasks.get_mut(&parent) else {
            return;
        };
        let thread = kept.clones & libc::CLONE_THREAD as u64 != 0;
        let mut own = Kept {
            process: if thread { kept.process } else { child },
            within: Within::Unheard,
            begun: kept.begun,
            emulator: kept.emulator,
            ..Kept::default()
        };
        if self.emulated {
            own.fresh = !thread;
            // QEMU makes a thread for itself when it begins, and when it has forked.
            own.helper = thread && (!kept.begun || kept.fresh);
            if own.helper {
                kept.within = Within::Unheard;
            }
            if thread {
                kept.fresh = false;
            }
        }
        let (who, helper, process) = ((kept.process, parent), own.helper, own.process);
        self.tasks.insert(child, own);
        if !helper {
            self.tell(who, &fork(process, child));
        }
        if self.unborn.remove(&child) {
            ptrace::go_on(child, 0);
        }
    }

    fn executed(&mut self, task: u32, former: u32) {
        // Whichever thread it was, it is the first now.
        let Some(mut kept) = self.tasks.remove(&former) else {
            return;
        };
        let file = fs::metadata(format!("/proc/{task}/exe")).ok();
        let file = file.map(|file| (file.dev(), file.ino()));
        if kept.emulator.is_none() {
            kept.emulator = file;
        }
        kept.begun = !self.emulated || file != kept.emulator;
        kept.fresh = false;
        kept.helper = false;
        let path = std::mem::take(&mut kept.wants);
        let who = (kept.process, task);
        self.tasks.insert(task, kept);
        self.tell(who, &Record::Exec { path: &path });
    }

    fn ends(&mut self, task: u32, code: u32) {
        let Some(kept) = self.tasks.get_mut(&task).filter(|kept| !kept.ended) else {
            return;
        };
        kept.ended = true;
        let mut kept = kept.clone();
        let process = kept.process;
        let last = !self
            .tasks
            .values()
            .any(|other| other.process == process && !other.ended);
        if task == process && !last {
            self.codes.insert(process, code);
        }
        if kept.helper && !last {
            return;
        }
        if std::mem::take(&mut kept.within) == Within::Heard {
            // Who ends himself does not come back.
            self.sends(task, &kept);
            let row = self.rows.get(&kept.number);
            if row.is_some_and(|row| !row.ends()) {
                let call = Call {
                    unfinished: true,
                    ..call(kept.number, [0; 6], &[])
                };
                self.tell((process, task), &Record::Call(call));
            }
        }
        let code = match last {
            true => self.codes.remove(&process).unwrap_or(code),
            false => code,
        };
        self.tell((process, task), &Record::Exit { code, leader: last });
    }

    /// A signal arrives: who sent it has said so, or sent it to many, or it is the kernel's.
    fn signalled(&mut self, task: u32, number: u32) {
        let Some((code, sender)) = ptrace::signal(task) else {
            return;
        };
        let (to, _) = self.told_by(task);
        let record = Record::Signal { to, number, code };
        if code > 0 || code == libc::SI_TIMER {
            return self.tell((to, task), &record);
        }
        if self.sent.remove(&(to, number)) {
            return;
        }
        // Nobody of the guest: nobody of whom something is told.
        let sends = |kept: &&mut Kept| kept.process == sender && kept.within == Within::Heard;
        if let Some(kept) = self.tasks.values_mut().find(sends) {
            kept.arrived = true;
        }
        self.tell((sender, sender), &record);
    }
}

fn number_of(message: Option<u64>) -> Option<u32> {
    message.and_then(|message| u32::try_from(message).ok())
}

fn fork<'a>(pid: u32, tid: u32) -> Record<'a> {
    let inner = (pid, tid);
    Record::Fork { pid, tid, inner }
}

fn call(number: u32, arguments: [u64; 6], pieces: &[Piece]) -> Call<'_> {
    let mut told = [None; TEXTS];
    for (piece, (argument, cut, bytes)) in told.iter_mut().zip(pieces) {
        *piece = Some((*argument, *cut, bytes.as_slice()));
    }
    Call {
        number,
        arguments,
        result: 0,
        unfinished: false,
        never: false,
        created: false,
        pieces: told,
    }
}
