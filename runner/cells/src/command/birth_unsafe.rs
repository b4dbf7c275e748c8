//! How a warden brings a command into the world, and sees it and all it started out of it.
//!
//! When a command's process ends, the warden kills whatever else that command started and waits until nothing of it is left:
//! within a pid namespace by one signal to all, else by one signal to a process group that seccomp lets nobody leave.
//!
//! # Safety
//! Every `unsafe fn` here may be called only in a process made by
//! [`births::clone_process`](crate::supervise::births::clone_process), where no other thread is and nobody else uses the
//! memory that it is given.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ptr;

use libc::{c_long, pid_t, sock_filter};
use zeroize::Zeroize;

use super::landlock_unsafe::{Landlock, restrict};
use super::message::{self, Answer, HEADER, Limit, MAX_DESCRIPTORS, MAX_MESSAGE, MAX_WORDS};
use super::step;
use super::warden_unsafe::{SOCKET, Sent, Setup, failed, receive};

/// Memory of the warden, made before it exists and never freed by it.
pub(super) struct Room {
    pub(super) message: Vec<u8>,
    words: Vec<*const c_char>,
    stack: Vec<u128>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            message: vec![0; MAX_MESSAGE],
            words: vec![ptr::null(); MAX_WORDS + 3],
            stack: vec![0; 4096],
        }
    }
}

/// Sets a limit of this process; a hard limit that is lower already stays.
pub(super) unsafe fn set_limit((resource, soft, hard): Limit) -> c_int {
    let mut now = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel fills one local structure and reads another.
    unsafe {
        if libc::getrlimit(resource, now.as_mut_ptr()) != 0 {
            return -1;
        }
        let most = now.assume_init().rlim_max;
        let limit = libc::rlimit {
            rlim_cur: soft.min(most),
            rlim_max: hard.min(most),
        };
        libc::setrlimit(resource, &limit)
    }
}

/// Applies a seccomp program to this process and those it makes.
pub(super) unsafe fn refuse_calls(program: &[sock_filter]) -> c_long {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, and does not write to it.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) }
}

/// What a newborn command reads, in the warden's memory.
struct Born<'a> {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// What becomes 0, 1 and 2; the first may be none.
    streams: [c_int; MAX_DESCRIPTORS],
    limits: [Limit; message::MAX_LIMITS],
    die_with_warden: bool,
    filter: &'a [sock_filter],
    landlock: Option<&'a Landlock>,
    /// What went wrong: written by the child, read by the warden.
    failed: Answer,
}

/// Runs one command to the end of everything it started.
///
/// # Safety
/// Only in a warden, see the module's head.
pub(super) unsafe fn run(
    setup: &Setup,
    room: &mut Room,
    length: usize,
    descriptors: &[c_int; MAX_DESCRIPTORS],
    count: usize,
    signals: c_int,
) -> Answer {
    let bad = Answer {
        step: step::EXECUTE,
        errno: libc::EINVAL,
        ..Answer::default()
    };
    let Some(text) = room.message.get(..length) else {
        return bad;
    };
    let Some([arguments, variables, has_stdin, limits]) = message::counts(text) else {
        return bad;
    };
    let (arguments, variables) = (arguments as usize, variables as usize);
    let [out, err, input] = *descriptors;
    if count != 2 + usize::from(has_stdin != 0)
        || text.last() != Some(&0)
        || 1 + arguments + variables > MAX_WORDS
    {
        return bad;
    }
    // Pointers to the words: the program, the arguments and a null, the variables and a null.
    let Some(mut rest) = text.get(HEADER..) else {
        return bad;
    };
    let mut slots = room.words.iter_mut();
    for index in 0..1 + arguments + variables {
        let Some(end) = rest.iter().position(|byte| *byte == 0) else {
            return bad;
        };
        if index == 1 + arguments
            && let Some(slot) = slots.next()
        {
            *slot = ptr::null();
        }
        if let Some(slot) = slots.next() {
            *slot = rest.as_ptr().cast();
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    for slot in slots.by_ref().take(2) {
        *slot = ptr::null();
    }
    let Some((program, words)) = room.words.split_first() else {
        return bad;
    };
    let Some(environment) = words.get(arguments + 1..) else {
        return bad;
    };
    let own_pids = setup.namespaces & libc::CLONE_NEWPID != 0;
    let mut born = Born {
        program: *program,
        arguments: words.as_ptr(),
        environment: environment.as_ptr(),
        streams: [input, out, err],
        limits: [(0, 0, 0); message::MAX_LIMITS],
        die_with_warden: !own_pids,
        filter: &setup.command_filter,
        landlock: setup.command_landlock.as_ref(),
        failed: Answer::default(),
    };
    for (index, slot) in born.limits.iter_mut().enumerate().take(limits as usize) {
        *slot = message::limit(text, index).unwrap_or_default();
    }
    // SAFETY: the child runs `be_born` on a stack of its own in the warden's memory while the warden waits for its `execve` or
    // its end; `born`, the words and the stack live until then. The kinds of pointers match.
    unsafe {
        let top = room.stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let data = (&raw mut born).cast::<c_void>();
        let pid = libc::clone(be_born, top.cast(), flags, data);
        let begun = match pid {
            ..0 => Err(failed(step::SESSION)),
            _ => Ok(()),
        };
        // The words are the command's own by now. They may hold secrets.
        if let Some(text) = room.message.get_mut(..length) {
            text.zeroize();
        }
        if let Err(answer) = begun {
            return answer;
        }
        if !wait_for_end(pid, signals, &mut room.message) {
            // The runner is gone, and its warden goes.
            kill_all(setup, pid);
            libc::_exit(0);
        }
        // The process is still there as a name, so its group cannot be another's yet.
        kill_all(setup, pid);
        let mut answer = Answer::default();
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        loop {
            let ended = libc::wait4(-1, &mut status, 0, usage.as_mut_ptr());
            if ended < 0 {
                match *libc::__errno_location() {
                    libc::EINTR => continue,
                    _ => break,
                }
            }
            let used = usage.assume_init_ref();
            let nanoseconds =
                |time: libc::timeval| (time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64) * 1000;
            answer.cpu_ns += nanoseconds(used.ru_utime) + nanoseconds(used.ru_stime);
            answer.peak_kib = answer.peak_kib.max(used.ru_maxrss as u64);
            if ended == pid {
                answer.status = status;
            }
        }
        // Whatever ended, or said that it did, is told.
        while take_signal(signals) {}
        // Written by the child through its own pointer.
        let failed = (&raw const born.failed).read_volatile();
        answer.step = failed.step;
        answer.errno = failed.errno;
        answer
    }
}

/// The child's way to `execve`, in the warden's memory.
extern "C" fn be_born(data: *mut c_void) -> c_int {
    // SAFETY: `data` is the `Born` of the waiting warden, and nobody else uses it now. Raw system calls only.
    unsafe {
        let born = &mut *data.cast::<Born<'_>>();
        let step = be_born_steps(born);
        born.failed = failed(step);
        libc::_exit(127)
    }
}

/// Returns only when a step failed.
unsafe fn be_born_steps(born: &Born<'_>) -> u32 {
    // SAFETY: see `be_born`.
    unsafe {
        if libc::setsid() < 0 {
            return step::SESSION;
        }
        for (target, stream) in (0..).zip(born.streams) {
            if stream >= 0 && libc::dup2(stream, target) < 0 {
                return step::STREAMS;
            }
        }
        for limit in born.limits.iter().filter(|limit| **limit != (0, 0, 0)) {
            if set_limit(*limit) != 0 {
                return step::COMMAND_LIMITS;
            }
        }
        if born.die_with_warden && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
            return step::PARENT_DEATH;
        }
        if let Some(landlock) = born.landlock
            && restrict(landlock).is_err()
        {
            return step::COMMAND_LANDLOCK;
        }
        if !born.filter.is_empty() && refuse_calls(born.filter) != 0 {
            return step::COMMAND_SECCOMP;
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(born.program, born.arguments, born.environment);
        step::EXECUTE
    }
}

/// Takes a signal that waits. False: there is none.
unsafe fn take_signal(signals: c_int) -> bool {
    let mut told = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let length = mem::size_of::<libc::signalfd_siginfo>();
    // SAFETY: the kernel fills a local structure of that length.
    unsafe { libc::read(signals, told.as_mut_ptr().cast(), length) > 0 }
}

/// Waits until the command's first process ends, and kills it when the runner asks. False: the runner is gone.
unsafe fn wait_for_end(pid: pid_t, signals: c_int, buffer: &mut [u8]) -> bool {
    let mut watched = [SOCKET, signals].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: raw system calls over locals.
    unsafe {
        loop {
            let mut facts: libc::siginfo_t = mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let asked = libc::waitid(libc::P_PID, pid as libc::id_t, &mut facts, options);
            if asked != 0 || facts.si_pid() == pid {
                return true;
            }
            libc::poll(watched.as_mut_ptr(), 2, -1);
            let [socket, ends] = &watched;
            if ends.revents != 0 {
                take_signal(signals);
            }
            if socket.revents != 0 {
                match receive(buffer) {
                    Sent::Gone => return false,
                    _ => _ = libc::kill(pid, libc::SIGKILL),
                }
            }
        }
    }
}

/// Kills all that the command started, at once: no process escapes by forking meanwhile.
unsafe fn kill_all(setup: &Setup, pid: pid_t) {
    let own_pids = setup.namespaces & libc::CLONE_NEWPID != 0;
    // SAFETY: plain system calls.
    unsafe {
        if !own_pids {
            libc::kill(-pid, libc::SIGKILL);
        }
        // Everyone in the pid namespace, or everyone of this user, but the warden.
        if own_pids || setup.alone {
            libc::kill(-1, libc::SIGKILL);
        }
    }
}
