//! Processes: making, ending, waiting, usage.

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail, Fork};
use crate::deferred::Deferred;
use crate::exec::Execute;
use crate::fs::identity::Processors as _;
use crate::fs::watch::what;
use crate::life::CLONE_PIDFD;
use crate::sys::shared::Which;
use crate::task::Ended;
use crate::time::Used;

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_DETACHED: u64 = 0x40_0000;
/// New namespaces: refused.
const CLONE_NEW: u64 = 0x7e02_0000;

impl Call<'_> {
    /// The event of a call that does not come back, told before what follows from it.
    pub(crate) fn tell_now(&mut self) {
        let pending = self.pending.clone();
        let tid = self.tid;
        self.k.tell_call(tid, pending, None);
    }
}

/// Stands still before the end, where a tracer wants that; `true` once it may end.
fn before_end(c: &mut Call<'_>) -> bool {
    let (tid, status) = (c.tid, (c.word(0) & 0xff) << 8);
    if c.pending.progress == 0 && c.k.held_for_end(tid, status) {
        c.pending.progress = 1;
        return false;
    }
    true
}

pub(crate) fn exit_group(c: &mut Call<'_>) -> Answer {
    let code = c.word(0) as u8;
    c.write_back(Which::All)?;
    c.tell_now();
    c.k.end_process(c.pid, Ended::Exited(code));
    c.k.tell_later();
    Err(Fail::Gone)
}

/// Ends the task; the process too when it was the last. Its status is the first task's then (wait_task_zombie).
pub(crate) fn exit(c: &mut Call<'_>) -> Answer {
    if !before_end(c) {
        return Err(Fail::Wait);
    }
    let ended = Ended::Exited(c.word(0) as u8);
    let last = c.process().tasks.len() <= 1;
    if last {
        c.write_back(Which::All)?;
    }
    c.tell_now();
    let clear = c.task().clear_tid;
    let space = c.task().space;
    if clear != 0 && !last {
        let _ = c.put_u32(clear, 0);
        c.k.futex_wake(space, clear, 1);
    }
    c.k.end_task(c.tid, ended);
    if let Some(space) = c.k.spaces.get_mut(&space) {
        space.loaded = None;
    }
    if last {
        let first = c.process().first_gone;
        c.k.end_process(c.pid, first.map_or(ended, |(ended, _)| ended));
    }
    c.k.tell_later();
    Err(Fail::Gone)
}

/// fork, vfork and clone come here. A vfork's parent comes again until its child has left.
fn make(c: &mut Call<'_>, fork: Fork) -> Answer {
    if c.pending.progress != 0 {
        let child = c.pending.progress as u32;
        let released = c.k.processes.get(&child).is_none_or(|process| process.released);
        return if released {
            Ok(u64::from(child))
        } else {
            Err(Fail::Wait)
        };
    }
    if fork.flags & CLONE_NEW != 0 {
        return Err(Errno::EPERM.into());
    }
    let thread = fork.flags & CLONE_THREAD != 0;
    if thread && fork.flags & CLONE_VM == 0 {
        return Err(Errno::EINVAL.into());
    }
    if fork.flags & CLONE_PIDFD != 0 {
        if thread || fork.flags & CLONE_DETACHED != 0 {
            return Err(Errno::EINVAL.into());
        }
        c.process().files.free(0)?;
    }
    Err(Fail::Later(Deferred::Fork(fork)))
}

pub(crate) fn fork(c: &mut Call<'_>) -> Answer {
    make(c, Fork::default())
}

pub(crate) fn vfork(c: &mut Call<'_>) -> Answer {
    make(
        c,
        Fork {
            flags: CLONE_VFORK,
            ..Fork::default()
        },
    )
}

/// What is asked for where a 64-bit program asks as a 32-bit one: the descriptor that it names is not its own thread pointer.
fn without_thread_pointer(c: &Call<'_>, flags: u64) -> u64 {
    match c.pending.compat {
        true => flags & !CLONE_SETTLS,
        false => flags,
    }
}

/// clone: the thread pointer stands before the child's tid, except where the order is the other way.
pub(crate) fn clone(c: &mut Call<'_>) -> Answer {
    use hotcell_schema::arch::AbiFamily;
    let (flags, stack) = match c.abi().family {
        AbiFamily::S390x => (c.word(1), c.word(0)),
        _ => (c.word(0), c.word(1)),
    };
    let (thread_pointer, child_tid) = match c.abi().family {
        AbiFamily::X86_64 | AbiFamily::S390x => (c.word(4), c.word(3)),
        _ => (c.word(3), c.word(4)),
    };
    // One place cannot hold both.
    const BOTH: u64 = CLONE_PIDFD | CLONE_PARENT_SETTID;
    if flags & BOTH == BOTH {
        return Err(Errno::EINVAL.into());
    }
    let mut thread_pointer = thread_pointer;
    if c.abi().family == AbiFamily::I386 && flags & CLONE_SETTLS != 0 && c.pending.progress == 0 {
        // A struct user_desc.
        thread_pointer =
            u64::from(c.get_u32(thread_pointer.wrapping_add(crate::abi::quirks::USER_DESC_BASE))?);
    }
    let flags = without_thread_pointer(c, flags);
    make(
        c,
        Fork {
            flags,
            stack,
            thread_pointer,
            parent_tid: c.word(2),
            child_tid,
            pidfd: c.word(2),
        },
    )
}

pub(crate) fn clone3(c: &mut Call<'_>) -> Answer {
    let (at, size) = (c.word(0), c.word(1));
    if size < 64 {
        return Err(Errno::EINVAL.into());
    }
    let field = |c: &Call<'_>, index: u64| c.get_u64(at.wrapping_add(8 * index));
    let (flags, child_tid, parent_tid) = (field(c, 0)?, field(c, 2)?, field(c, 3)?);
    let (stack, stack_size, mut thread_pointer) = (field(c, 5)?, field(c, 6)?, field(c, 7)?);
    let stack = if stack == 0 {
        0
    } else {
        stack.wrapping_add(stack_size)
    };
    if c.abi().family == hotcell_schema::arch::AbiFamily::I386
        && flags & CLONE_SETTLS != 0
        && c.pending.progress == 0
    {
        thread_pointer =
            u64::from(c.get_u32(thread_pointer.wrapping_add(crate::abi::quirks::USER_DESC_BASE))?);
    }
    let flags = without_thread_pointer(c, flags);
    make(
        c,
        Fork {
            flags,
            stack,
            thread_pointer,
            parent_tid,
            child_tid,
            pidfd: field(c, 1)?,
        },
    )
}

fn exec(c: &mut Call<'_>, at: Option<usize>, path: usize, argv: usize) -> Answer {
    let name = c.path(path)?;
    let empty = name.is_empty();
    let (ino, real) = if empty && at.is_some() {
        let file = c.file(0)?;
        (file.inode().ok_or(Errno::EACCES)?, file.path.clone())
    } else {
        let place = c.walk(at, &name, true)?;
        let ino = place.inode()?;
        // Where it really stands: links followed, `/proc/self/exe` too.
        let real = if place.name.is_empty() {
            let own = c.process();
            if own.image_ino == Some(ino) {
                own.image.clone()
            } else {
                c.absolute(at, &name)
            }
        } else {
            crate::fs::walk::absolute(&c.k.tree.path_of(place.directory), &place.name)
        };
        (ino, real)
    };
    let executed = if empty { real.clone() } else { name };
    let argv_list = c.texts(c.word(argv))?;
    let env = c.texts(c.word(argv + 1))?;
    let argv_list = if argv_list.is_empty() {
        vec![Vec::new()]
    } else {
        argv_list
    };
    let cwd = c.process().cwd;
    let seat = match empty && at.is_some() {
        true => c.file(0)?.seat.clone(),
        false => c.walk(at, &executed, true)?.seat().ok(),
    };
    let asked = Execute {
        ino,
        path: real,
        executed,
        argv: argv_list,
        env,
    };
    c.settle(ino)?;
    let image = c.k.image(c.pid, cwd, asked).map_err(Errno::from)?;
    // Said before the old program is gone: what the stack's first quarter cannot hold.
    let word = c.abi().word();
    let size = |texts: &[Vec<u8>]| texts.iter().map(|text| text.len() as u64 + 1 + word).sum::<u64>();
    if size(&image.argv) + size(&image.env) + image.executed.len() as u64 + 4096 > crate::exec::STACK / 4 {
        return Err(Errno::E2BIG.into());
    }
    c.write_back(Which::All)?;
    if let Some(seat) = seat {
        c.k.notice(what::OPEN, &seat);
        c.k.notice(what::ACCESS, &seat);
    }
    Err(Fail::Later(Deferred::Exec(Box::new(image))))
}

pub(crate) fn execve(c: &mut Call<'_>) -> Answer {
    exec(c, None, 0, 1)
}

pub(crate) fn execveat(c: &mut Call<'_>) -> Answer {
    exec(c, Some(0), 1, 2)
}

// Usage.

pub(super) fn put_usage(c: &mut Call<'_>, at: u64, used: Used) -> Result<(), Errno> {
    let mut layout = Layout::new(c.abi());
    for time in [used.user, used.system] {
        layout = layout
            .word(time / 1_000_000_000)
            .word(time % 1_000_000_000 / 1000);
    }
    let layout = layout.word(2048);
    let word = c.abi().word() as usize;
    let bytes = layout.pad(13 * word).bytes;
    c.write(at, &bytes)
}

pub(crate) fn getrusage(c: &mut Call<'_>) -> Answer {
    let used = match c.int(0) {
        0 => c.process().used,
        1 => c.task().used,
        -1 => Used::default(),
        _ => return Err(Errno::EINVAL.into()),
    };
    put_usage(c, c.word(1), used)?;
    Ok(0)
}

// Small things of tasks.

pub(crate) fn set_tid_address(c: &mut Call<'_>) -> Answer {
    let at = c.word(0);
    c.task().clear_tid = at;
    Ok(u64::from(c.tid))
}

pub(crate) fn sched_yield(c: &mut Call<'_>) -> Answer {
    // The turn is over, and the call comes back at once: the next in order runs.
    if c.k.tasks.len() > 1 && c.pending.progress == 0 {
        c.pending.progress = 1;
        c.pending.deadline = Some(c.k.time.now);
        c.k.slice = 0;
        c.k.wake += 1;
        return Err(Fail::Wait);
    }
    Ok(0)
}

pub(crate) fn sched_getaffinity(c: &mut Call<'_>) -> Answer {
    let word = c.abi().word();
    let length = c.word(1);
    let words = c.k.persona.processor_words(8 * word as u32);
    let size = words.len() as u64 * word;
    if length < size || !length.is_multiple_of(word) {
        return Err(Errno::EINVAL.into());
    }
    let mut layout = Layout::new(c.abi());
    for mask in words {
        layout = layout.word(mask);
    }
    let bytes = layout.bytes;
    c.write(c.word(2), &bytes)?;
    Ok(size)
}

pub(crate) fn prctl(c: &mut Call<'_>) -> Answer {
    let argument = c.word(1);
    match c.word(0) as u32 {
        // PDEATHSIG
        1 => Ok(0),
        2 => {
            c.put_u32(argument, 0)?;
            Ok(0)
        }
        // DUMPABLE
        3 => Ok(c.process().dumpable),
        4 if argument <= 1 => {
            c.process().dumpable = argument;
            Ok(0)
        }
        // NAME
        15 => {
            let bytes = c.bytes(argument, 16).or_else(|_| c.text(argument, 16))?;
            let name: Vec<u8> = bytes
                .iter()
                .copied()
                .take(15)
                .take_while(|byte| *byte != 0)
                .collect();
            c.process().comm = name;
            Ok(0)
        }
        16 => {
            let mut name = c.process().comm.clone();
            name.resize(16, 0);
            c.write(argument, &name)?;
            Ok(0)
        }
        // SECCOMP, CAPBSET_READ
        21 => Ok(0),
        23 if argument <= 40 => Ok(1),
        // NO_NEW_PRIVS
        38 if argument == 1 => {
            c.process().no_new_privileges = true;
            Ok(0)
        }
        39 => Ok(u64::from(c.process().no_new_privileges)),
        _ => Err(Errno::EINVAL.into()),
    }
}
