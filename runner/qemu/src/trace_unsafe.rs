//! ptrace(2), as far as a tracer of whole cells needs it. Signals are numbers: guests use those for which there are no names.
#![allow(unsafe_code)]

use std::mem;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, fork};

/// What a task that stands still was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// A call begins: number and arguments.
    Call(u64, [u64; 6]),
    /// A call has come back.
    Back(i64),
    /// None of these.
    Nothing,
}

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT
    // Who traces nobody any longer leaves nobody untraced.
    | libc::PTRACE_O_EXITKILL;

/// Traces a process and all that it will make, and has it stand still.
pub(crate) fn seize(process: i32) -> nix::Result<()> {
    // SAFETY: requests that take numbers only.
    unsafe {
        Errno::result(libc::ptrace(libc::PTRACE_SEIZE, process, 0, OPTIONS))?;
        Errno::result(libc::ptrace(libc::PTRACE_INTERRUPT, process, 0, 0))?;
    }
    Ok(())
}

/// Waits for any child or traced task: its number and its status as wait(2) has it. Without `patience`: 0 where nobody has
/// anything to tell.
pub(crate) fn wait(patience: bool) -> nix::Result<(u32, i32)> {
    let mut status = 0;
    let flags = libc::__WALL | if patience { 0 } else { libc::WNOHANG };
    // SAFETY: the kernel writes one number of this stack.
    let task = Errno::result(unsafe { libc::waitpid(-1, &mut status, flags) })?;
    Ok((task.cast_unsigned(), status))
}

/// Has a task go on until its next call begins or comes back, with a signal, or none.
pub(crate) fn go_on(task: u32, signal: i32) {
    // SAFETY: numbers only. Who has ended meanwhile is told by `wait`.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, task.cast_signed(), 0, signal) };
}

/// Leaves a task standing still for as long as who stopped it wants, and hears of it.
pub(crate) fn leave_stopped(task: u32) {
    // SAFETY: numbers only.
    unsafe { libc::ptrace(libc::PTRACE_LISTEN, task.cast_signed(), 0, 0) };
}

/// What the kernel says of the event for which a task stands still.
pub(crate) fn message(task: u32) -> Option<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one number of this stack.
    let told = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, task.cast_signed(), 0, &mut message) };
    (told == 0).then_some(message)
}

/// What a task that stands still was doing.
pub(crate) fn at(task: u32) -> At {
    // SAFETY: plain numbers, for which zero is a value. The kernel writes no more than the size that it is told, and says by `op`
    // which part of the union it has written.
    unsafe {
        let mut info: libc::ptrace_syscall_info = mem::zeroed();
        let size = mem::size_of_val(&info);
        if libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, task.cast_signed(), size, &mut info) <= 0 {
            return At::Nothing;
        }
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => At::Call(info.u.entry.nr, info.u.entry.args),
            libc::PTRACE_SYSCALL_INFO_EXIT => At::Back(info.u.exit.sval),
            _ => At::Nothing,
        }
    }
}

/// `si_code` of the signal that a task gets now, and who sent it, if somebody did.
pub(crate) fn signal(task: u32) -> Option<(i32, u32)> {
    // SAFETY: plain numbers, which the kernel writes; `si_pid` is only meaningful, not only valid, for signals that were sent.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let told = libc::ptrace(libc::PTRACE_GETSIGINFO, task.cast_signed(), 0, &mut info);
        (told == 0).then(|| (info.si_code, info.si_pid().cast_unsigned()))
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a structure of this stack.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether a process may trace its children on this host; the error says why not.
pub(crate) fn probe() -> Result<(), String> {
    // SAFETY: the process has one thread; the copy only waits for its end.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => loop {
            nix::unistd::pause();
        },
        Err(error) => return Err(format!("fork: {error}")),
    };
    let told = |error: Errno| format!("ptrace: {error}");
    let stands = seize(child.as_raw()).and_then(|()| wait(true)).map_err(told);
    let traced = stands.and_then(|(task, _)| match message(task) {
        Some(_) => Ok(()),
        None => Err(told(Errno::last())),
    });
    let _ = kill(child, Signal::SIGKILL);
    let _ = wait(true);
    traced
}
