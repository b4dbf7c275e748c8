//! Debugging others: ptrace, process_vm_readv and process_vm_writev.

use hotcell_schema::event::{MemoryBy, Process as ProcessEvent, ProcessOp, What};

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::abi::siginfo::{SignalInfo, Told};
use crate::abi::signal::Sig;
use crate::abi::traced::{self, View};
use crate::call::{Answer, Call, Fail};
use crate::deferred::Deferred;
use crate::reach::{Reach, Transfer, Way};
use crate::trace::{Stop, Trace, Why, event, option};

/// Requests (uapi/linux/ptrace.h).
mod request {
    pub(super) const TRACE_ME: u64 = 0;
    pub(super) const PEEK_TEXT: u64 = 1;
    pub(super) const PEEK_DATA: u64 = 2;
    pub(super) const PEEK_USER: u64 = 3;
    pub(super) const POKE_TEXT: u64 = 4;
    pub(super) const POKE_DATA: u64 = 5;
    pub(super) const POKE_USER: u64 = 6;
    pub(super) const CONTINUE: u64 = 7;
    pub(super) const KILL: u64 = 8;
    pub(super) const GET_REGISTERS: u64 = 12;
    pub(super) const SET_REGISTERS: u64 = 13;
    pub(super) const ATTACH: u64 = 16;
    pub(super) const DETACH: u64 = 17;
    pub(super) const OLD_SET_OPTIONS: u64 = 21;
    pub(super) const SYSTEM_CALL: u64 = 24;
    pub(super) const SET_OPTIONS: u64 = 0x4200;
    pub(super) const GET_EVENT_MESSAGE: u64 = 0x4201;
    pub(super) const GET_SIGNAL_INFO: u64 = 0x4202;
    pub(super) const GET_REGISTER_SET: u64 = 0x4204;
    pub(super) const SET_REGISTER_SET: u64 = 0x4205;
    pub(super) const SEIZE: u64 = 0x4206;
    pub(super) const INTERRUPT: u64 = 0x4207;
    pub(super) const LISTEN: u64 = 0x4208;
}

/// The register set of the general registers (uapi/linux/elf.h).
const NT_PRSTATUS: u64 = 1;

pub(crate) fn ptrace(c: &mut Call<'_>) -> Answer {
    let asked = c.word(0) & 0xffff_ffff;
    let tid = c.word(1) as u32;
    match asked {
        request::TRACE_ME => return trace_me(c),
        request::ATTACH => return attach(c, tid, 0, false),
        request::SEIZE => {
            let options = c.word(3);
            if c.word(2) != 0 || options & !option::ALL != 0 {
                return Err(Errno::EIO.into());
            }
            return attach(c, tid, options, true);
        }
        _ => {}
    }
    let own = c.pid;
    let trace = c.k.traced(tid).filter(|trace| trace.tracer == own);
    let (seized, stop) = trace
        .map(|trace| (trace.seized, trace.stop))
        .ok_or(Errno::ESRCH)?;
    match asked {
        request::KILL => {
            let pid = c.k.pid_of(tid);
            c.k.post(pid, Sig::KILL);
            return Ok(0);
        }
        request::INTERRUPT if !seized => return Err(Errno::EIO.into()),
        request::INTERRUPT => {
            match stop {
                None => {
                    c.k.hold(tid, Why::Event(event::STOP));
                }
                // It says once more why it is there.
                Some(stop) if stop.listens => {
                    c.k.hold(tid, stop.why);
                }
                Some(_) => {}
            }
            return Ok(0);
        }
        _ => {}
    }
    let stop = stop.filter(|stop| !stop.listens).ok_or(Errno::ESRCH)?;
    if asked == request::LISTEN {
        // Where it was stopped with its process, or by PTRACE_INTERRUPT (kernel/ptrace.c).
        let at_stop = matches!(stop.why, Why::Group(_) | Why::Event(event::STOP));
        let trace = c.k.traced(tid).filter(|_| seized && at_stop).ok_or(Errno::EIO)?;
        trace.stop = Some(Stop {
            told: true,
            listens: true,
            ..stop
        });
        return Ok(0);
    }
    held(c, asked, tid, stop)
}

/// What can be asked of a task that stands still.
fn held(c: &mut Call<'_>, asked: u64, tid: u32, stop: Stop) -> Answer {
    let (address, data) = (c.word(2), c.word(3));
    let word = c.abi().word();
    match asked {
        request::PEEK_TEXT | request::PEEK_DATA => {
            Err(memory(c, tid, (address, word), Way::Read(vec![(data, word)])))
        }
        request::POKE_TEXT | request::POKE_DATA => {
            let bytes = Layout::new(c.abi()).word(data).bytes;
            Err(memory(c, tid, (address, word), Way::Write(bytes)))
        }
        request::PEEK_USER => {
            let from = place(c, address)?;
            Err(look(tid, View::User, from, word as usize, data))
        }
        request::POKE_USER => {
            let from = place(c, address)?;
            let bytes = Layout::new(c.abi()).word(data).bytes;
            Err(change(tid, View::User, from, bytes))
        }
        request::GET_REGISTERS | request::SET_REGISTERS => {
            let (size, _) = view(c, View::Plain).ok_or(Errno::EIO)?;
            if asked == request::GET_REGISTERS {
                return Err(look(tid, View::Plain, 0, size, data));
            }
            let bytes = c.bytes(data, size as u64)?;
            Err(change(tid, View::Plain, 0, bytes))
        }
        request::GET_REGISTER_SET | request::SET_REGISTER_SET => {
            let (size, _) = view(c, View::Status)
                .filter(|_| address == NT_PRSTATUS)
                .ok_or(Errno::EINVAL)?;
            let (base, room) = (c.get_word(data)?, c.get_word(data.wrapping_add(word))?);
            if room % word != 0 {
                return Err(Errno::EINVAL.into());
            }
            let length = room.min(size as u64);
            c.put_word(data.wrapping_add(word), length)?;
            if asked == request::GET_REGISTER_SET {
                return Err(look(tid, View::Status, 0, length as usize, base));
            }
            let bytes = c.bytes(base, length)?;
            Err(change(tid, View::Status, 0, bytes))
        }
        request::CONTINUE | request::SYSTEM_CALL | request::DETACH => {
            let signal = match data {
                0 => None,
                number => Some(Sig::from_number(number, c.abi().family).ok_or(Errno::EIO)?),
            };
            if asked == request::DETACH {
                c.k.detach(tid, signal);
            } else {
                c.k.release(tid, asked == request::SYSTEM_CALL, signal);
            }
            Ok(0)
        }
        request::SET_OPTIONS | request::OLD_SET_OPTIONS => {
            if data & !option::ALL != 0 {
                return Err(Errno::EINVAL.into());
            }
            if let Some(trace) = c.k.traced(tid) {
                trace.options = data;
            }
            Ok(0)
        }
        request::GET_EVENT_MESSAGE => {
            let message = c.k.traced(tid).map_or(0, |trace| trace.message);
            c.put_word(data, message)?;
            Ok(0)
        }
        request::GET_SIGNAL_INFO => signal_info(c, tid, stop, data),
        _ => Err(Errno::EIO.into()),
    }
}

/// A process asks its parent to trace it.
fn trace_me(c: &mut Call<'_>) -> Answer {
    if c.task().trace.is_some() {
        return Err(Errno::EPERM.into());
    }
    let parent = c.process().parent;
    c.task().trace = Some(Trace::new(parent, 0, false));
    Ok(0)
}

fn attach(c: &mut Call<'_>, tid: u32, options: u64, seized: bool) -> Answer {
    let own = c.pid;
    // The first process of the system is there, and nobody traces it.
    if tid == 1 {
        return Err(Errno::EPERM.into());
    }
    let task = c.k.tasks.get(&tid).ok_or(Errno::ESRCH)?;
    let pid = task.pid;
    if pid == own || task.trace.is_some() {
        return Err(Errno::EPERM.into());
    }
    c.may_reach(pid)?;
    let stopped = c.k.processes.get(&pid).is_some_and(|process| process.stopped);
    if let Some(task) = c.k.tasks.get_mut(&tid) {
        task.trace = Some(Trace::new(own, options, seized));
        if !seized && !stopped {
            task.arrived.add(Sig::STOP, SignalInfo::default());
        }
    }
    if stopped {
        c.k.hold(tid, Why::Group(Sig::STOP));
    }
    c.k.wake += 1;
    c.tell(What::Process(ProcessEvent {
        to: Some(pid),
        ..ProcessEvent::new(ProcessOp::Traced)
    }));
    Ok(0)
}

fn memory(c: &mut Call<'_>, tid: u32, there: (u64, u64), way: Way) -> Fail {
    c.reach_memory(Transfer {
        pid: c.k.pid_of(tid),
        there: vec![there],
        way,
        by: MemoryBy::Ptrace,
        file: None,
    })
}

fn look(tid: u32, view: View, from: usize, length: usize, to: u64) -> Fail {
    Fail::Later(Deferred::Reach(Box::new(Reach::Look {
        tid,
        view,
        from,
        length,
        to,
    })))
}

fn change(tid: u32, view: View, from: usize, bytes: Vec<u8>) -> Fail {
    Fail::Later(Deferred::Reach(Box::new(Reach::Change {
        tid,
        view,
        from,
        bytes,
    })))
}

fn view(c: &Call<'_>, view: View) -> Option<(usize, bool)> {
    traced::size(view, c.abi(), &c.k.profile.name)
}

/// Where a word of `struct user` stands.
fn place(c: &Call<'_>, address: u64) -> Result<usize, Errno> {
    let (size, numbered) = view(c, View::User).ok_or(Errno::EIO)?;
    let word = c.abi().word() as usize;
    let at = usize::try_from(address).map_err(|_| Errno::EIO)?;
    let at = if numbered {
        at.checked_mul(word).ok_or(Errno::EIO)?
    } else {
        at
    };
    if at % word == 0 && at < size {
        Ok(at)
    } else {
        Err(Errno::EIO)
    }
}

impl Stop {
    /// The status word of wait, above its lowest eight bits.
    pub(crate) fn status(self, trace: &Trace, number: impl Fn(Sig) -> u64) -> u32 {
        let trap = number(Sig::TRAP) as u32;
        match self.why {
            Why::Signal(signal) => number(signal) as u32,
            Why::Group(signal) if trace.seized => number(signal) as u32 | u32::from(event::STOP) << 8,
            Why::Group(signal) => number(signal) as u32,
            Why::Entry | Why::Exit if trace.options & option::SYSTEM_CALLS != 0 => trap | 0x80,
            Why::Entry | Why::Exit => trap,
            Why::Event(event) => trap | u32::from(event) << 8,
        }
    }
}

/// `siginfo` of the signal for which a task stands still.
fn signal_info(c: &mut Call<'_>, tid: u32, stop: Stop, at: u64) -> Answer {
    if matches!(stop.why, Why::Group(_)) {
        return Err(Errno::EINVAL.into());
    }
    let family = c.abi().family;
    let trace = c.k.traced(tid).ok_or(Errno::ESRCH)?;
    let (signal, info) = match stop.why {
        Why::Signal(signal) => (signal, trace.info),
        _ => {
            let code = stop.status(trace, |signal| signal.number(family)).cast_signed();
            let told = Told::Nothing;
            (Sig::TRAP, SignalInfo { code, told })
        }
    };
    let bytes = info.bytes(c.abi(), signal);
    c.write(at, &bytes)?;
    Ok(0)
}

/// process_vm_readv and process_vm_writev.
fn between(c: &mut Call<'_>, write: bool) -> Answer {
    let pid = c.word(0) as u32;
    if c.word(5) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let here = c.vector(c.word(1), c.word(2))?;
    let there = c.vector(c.word(3), c.word(4))?;
    let pid = c.k.tasks.get(&pid).map(|task| task.pid).ok_or(Errno::ESRCH)?;
    c.may_reach(pid)?;
    let own: u64 = here.iter().map(|(_, length)| length).sum();
    let mut room = own;
    let there = there
        .into_iter()
        .map(|(start, length)| {
            let length = length.min(room);
            room -= length;
            (start, length)
        })
        .collect();
    if own == room {
        return Ok(0);
    }
    let way = if write {
        let mut bytes = c.gather(&here)?;
        bytes.truncate(usize::try_from(own - room).unwrap_or(0));
        Way::Write(bytes)
    } else {
        Way::Read(here)
    };
    Err(c.reach_memory(Transfer {
        pid,
        there,
        way,
        by: MemoryBy::ProcessVm,
        file: None,
    }))
}

pub(crate) fn process_vm_readv(c: &mut Call<'_>) -> Answer {
    between(c, false)
}

pub(crate) fn process_vm_writev(c: &mut Call<'_>) -> Answer {
    between(c, true)
}
