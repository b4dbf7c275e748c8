//! The warden: a process that confines itself once, then starts one command after another, each born into its walls.
//!
//! A warden is a copy of one thread of the runner, made by `clone` into namespaces of its own, of which it is the first
//! process. Like every such copy it makes raw system calls only, allocates nothing and takes no lock: all memory it needs was
//! made before. What would cost each command a tenth of a millisecond and more (namespaces, mounts, Landlock, seccomp, a
//! smaller user) is done once here and inherited; a command costs little more than its own `execve`.
//!
//! When a command's process ends, the warden kills whatever else that command started and waits until nothing of it is left:
//! within a pid namespace by one signal to all, else by one signal to a process group that seccomp lets nobody leave.
//!
//! The copy holds the runner's memory. No command can read it: it is not dumpable, hidden in `/proc`, and no call that reads
//! another process's memory is allowed.
//!
//! # Safety
//! Every `unsafe fn` here may be called only in a process made by [`births::clone_process`], where no other thread is and
//! nobody else uses the memory that it is given.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use libc::{c_long, pid_t, sock_filter};

use super::message::{self, Answer, HEADER, Limit, MAX_MESSAGE, MAX_WORDS};
use crate::supervise::births;

/// Everything a warden needs, made before it exists.
#[derive(Debug)]
pub(super) struct Setup {
    /// `CLONE_NEW…` flags.
    pub(super) namespaces: c_int,
    /// Its own root, where it gets one.
    pub(super) root: Option<Root>,
    /// User and group to become.
    pub(super) user: Option<u32>,
    /// Where commands run: a path as the warden sees it.
    pub(super) work: CString,
    /// What Landlock allows, where the kernel has it.
    pub(super) landlock: Option<Landlock>,
    /// What Landlock takes from each command on top of that, so that it cannot signal its warden.
    pub(super) command_landlock: Option<Landlock>,
    /// The system calls that are refused.
    pub(super) filter: Vec<sock_filter>,
    /// Those that are refused to commands alone; empty where there are none.
    pub(super) command_filter: Vec<sock_filter>,
    /// Limits that are the same for every command.
    pub(super) limits: Vec<Limit>,
}

/// A root of its own: a folder with empty places over which the system's are bound.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: CString,
    /// Source, and place under `path`; read-only where it says so.
    pub(super) binds: Vec<(CString, CString, bool)>,
    /// Place of a new `/proc`.
    pub(super) proc: CString,
}

/// A Landlock ruleset to be.
#[derive(Debug)]
pub(super) struct Landlock {
    /// Version of the kernel's interface.
    pub(super) version: i32,
    /// File access that is handled: allowed only where a rule says so.
    pub(super) files: u64,
    /// Network access that is handled.
    pub(super) network: u64,
    /// Scopes.
    pub(super) scopes: u64,
    /// Paths as the warden sees them, and what is allowed beneath. What is not there is left out.
    pub(super) rules: Vec<(CString, u64)>,
}

/// Steps that can fail, as they are told.
const STEPS: [&str; 21] = [
    "descriptors",
    "private mounts",
    "its own root folder",
    "the system's folders in it",
    "changing to it",
    "its work folder",
    "user and group",
    "no new privileges",
    "limits",
    "Landlock",
    "watching for ends",
    "adopting orphans",
    "seccomp",
    "new session",
    "control group",
    "standard input",
    "limits of the command",
    "parent-death signal",
    "seccomp of the command",
    "Landlock of the command",
    "execute",
];

/// Name of a step in an [`Answer`].
pub(super) fn step_name(step: u32) -> &'static str {
    let index = (step as usize).checked_sub(1);
    index
        .and_then(|index| STEPS.get(index))
        .copied()
        .unwrap_or("start")
}

/// The step of an [`Answer`] from which on it was the command's own start.
pub(super) const FIRST_OF_COMMAND: u32 = 14;
/// The last step: the program itself.
pub(super) const EXECUTE: u32 = 21;
/// The steps that a warden without a root of its own does not take.
pub(super) const OF_ROOT: std::ops::RangeInclusive<u32> = 2..=5;

/// In the first answer's status: `/proc` is the namespace's own.
pub(super) const OWN_PROC: i32 = 1;

// Descriptors of the warden. The first three are the commands' too.
const INPUT: c_int = 0;
const SOCKET: c_int = 3;

/// Version of Landlock's interface in this kernel; 0: none.
pub(super) fn landlock_version() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: asks for a number, with no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<c_void>(),
            0_usize,
            VERSION,
        )
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// Memory of the warden, made before it exists and never freed by it.
struct Room {
    message: Vec<u8>,
    words: Vec<*const c_char>,
    stack: Vec<u128>,
}

/// Makes a warden. `descriptors`: what becomes 0, 1, 2 and the socket; all of them at 16 or above. It tells by its first
/// [`Answer`] how its setup ended.
pub(super) fn start(setup: &Setup, descriptors: &[OwnedFd; 4]) -> io::Result<pid_t> {
    let mut room = Room {
        message: vec![0; MAX_MESSAGE],
        words: vec![ptr::null(); MAX_WORDS + 3],
        stack: vec![0; 4096],
    };
    births::clone_process(setup.namespaces, || {
        // SAFETY: this is the child, see the module's head. Everything it uses was made above or by the caller.
        unsafe {
            let prepared = prepare(setup, descriptors);
            let (answer, signals) = match prepared {
                Ok((status, signals)) => (
                    Answer {
                        status,
                        ..Answer::default()
                    },
                    signals,
                ),
                Err(step) => (failed(step), -1),
            };
            tell(&answer);
            if signals < 0 {
                libc::_exit(1);
            }
            serve(setup, &mut room, signals)
        }
    })
}

/// Which step failed, with the error number of the call before.
unsafe fn failed(step: u32) -> Answer {
    Answer {
        step,
        // SAFETY: the address of this thread's error number.
        errno: unsafe { *libc::__errno_location() },
        ..Answer::default()
    }
}

unsafe fn tell(answer: &Answer) {
    let bytes = answer.to_bytes();
    // SAFETY: sends bytes of this stack. A runner that is gone is found out at the next message.
    unsafe { libc::send(SOCKET, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
}

/// Sets up the walls. Returns what holds and the descriptor on which ends of children are told; or the step that failed.
///
/// # Safety
/// Only in a process made by [`births::clone_process`].
unsafe fn prepare(setup: &Setup, descriptors: &[OwnedFd; 4]) -> Result<(i32, c_int), u32> {
    let check = |step: u32, result: c_long| match result {
        ..0 => Err(step),
        _ => Ok(result),
    };
    // SAFETY: raw system calls over numbers, strings that the parent made, and locals of this stack.
    unsafe {
        for (target, descriptor) in (0..).zip(descriptors) {
            check(1, libc::dup2(descriptor.as_raw_fd(), target).into())?;
        }
        libc::fcntl(SOCKET, libc::F_SETFD, libc::FD_CLOEXEC);
        if libc::syscall(libc::SYS_close_range, SOCKET + 1, libc::c_uint::MAX, 0) != 0 {
            for number in SOCKET + 1..65536 {
                libc::close(number);
            }
        }
        // Handlers of the runner would run in this copy, and what it ignores its commands would ignore.
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setsid();

        let mut holds = 0;
        if let Some(root) = &setup.root {
            holds |= enter(root)?;
        }
        check(6, libc::chdir(setup.work.as_ptr()).into())?;
        if setup.namespaces & libc::CLONE_NEWUTS != 0 {
            // The host's name is nothing to compute with.
            libc::sethostname(c"hotcell".as_ptr(), 7);
        }
        births::become_user(setup.user).map_err(|()| 7_u32)?;
        libc::umask(0o022);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        check(8, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        for limit in &setup.limits {
            check(9, set_limit(*limit).into())?;
        }
        if let Some(landlock) = &setup.landlock {
            restrict(landlock).map_err(|()| 10_u32)?;
        }
        let mut ends = MaybeUninit::uninit();
        libc::sigemptyset(ends.as_mut_ptr());
        libc::sigaddset(ends.as_mut_ptr(), libc::SIGCHLD);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let signals = check(11, libc::signalfd(-1, ends.as_ptr(), flags).into())? as c_int;
        if setup.namespaces & libc::CLONE_NEWPID == 0 {
            check(12, libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).into())?;
        }
        check(13, refuse_calls(&setup.filter))?;
        Ok((holds, signals))
    }
}

/// Applies a seccomp program to this process and those it makes.
unsafe fn refuse_calls(program: &[sock_filter]) -> c_long {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, and does not write to it.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) }
}

/// Makes the root of its own and goes there.
unsafe fn enter(root: &Root) -> Result<i32, u32> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: MountAttributes = MountAttributes {
        set: 1 | 2, // MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    const AT_RECURSIVE: c_int = 0x8000;
    let none = ptr::null::<c_char>();
    // SAFETY: raw system calls over strings that the parent made and a constant.
    unsafe {
        let mount = |source: *const c_char, target: *const c_char, flags| {
            libc::mount(source, target, none, flags, ptr::null())
        };
        if mount(none, c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE) != 0 {
            return Err(2);
        }
        if mount(root.path.as_ptr(), root.path.as_ptr(), libc::MS_BIND) != 0 {
            return Err(3);
        }
        for (source, place, read_only) in &root.binds {
            if mount(source.as_ptr(), place.as_ptr(), libc::MS_BIND | libc::MS_REC) != 0 {
                return Err(4);
            }
            if *read_only {
                // Landlock forbids writing too; a kernel without one of them has the other.
                libc::syscall(
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    place.as_ptr(),
                    AT_RECURSIVE,
                    &READ_ONLY,
                    mem::size_of::<MountAttributes>(),
                );
            }
        }
        let kind = c"proc".as_ptr();
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let options = c"hidepid=2".as_ptr();
        let own_proc = libc::mount(kind, root.proc.as_ptr(), kind, flags, options.cast()) == 0;
        if libc::chdir(root.path.as_ptr()) != 0
            || libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) != 0
            || libc::umount2(c".".as_ptr(), libc::MNT_DETACH) != 0
            || libc::chdir(c"/".as_ptr()) != 0
        {
            return Err(5);
        }
        Ok(if own_proc { OWN_PROC } else { 0 })
    }
}

/// A new ruleset's descriptor, closed on exec; negative: none.
unsafe fn new_ruleset(landlock: &Landlock) -> c_long {
    #[repr(C)]
    struct Ruleset {
        files: u64,
        network: u64,
        scopes: u64,
    }
    let ruleset = Ruleset {
        files: landlock.files,
        network: landlock.network,
        scopes: landlock.scopes,
    };
    let known: usize = match landlock.version {
        ..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: the kernel reads a structure of this stack.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &ruleset, known, 0) }
}

unsafe fn restrict(landlock: &Landlock) -> Result<(), ()> {
    #[repr(C, packed)]
    struct Beneath {
        allowed: u64,
        parent: i32,
    }
    const PATH_BENEATH: c_int = 1;
    // SAFETY: raw system calls over structures of this stack and strings that the parent made.
    unsafe {
        let rules = new_ruleset(landlock);
        if rules < 0 {
            return Err(());
        }
        for (path, allowed) in &landlock.rules {
            let parent = libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            if parent < 0 {
                continue;
            }
            let rule = Beneath {
                allowed: *allowed,
                parent,
            };
            let added = libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, &rule, 0);
            libc::close(parent);
            if added != 0 {
                return Err(());
            }
        }
        let restricted = libc::syscall(libc::SYS_landlock_restrict_self, rules, 0);
        libc::close(rules as c_int);
        match restricted {
            0 => Ok(()),
            _ => Err(()),
        }
    }
}

/// Sets a limit of this process; a hard limit that is lower already stays.
unsafe fn set_limit((resource, soft, hard): Limit) -> c_int {
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

/// What the runner sent.
enum Sent {
    /// A job of so many bytes, with descriptors.
    Job(usize, [c_int; MAX_DESCRIPTORS], usize),
    /// End the job.
    End,
    /// The runner is gone.
    Gone,
}

/// Standard input and two control groups.
const MAX_DESCRIPTORS: usize = 3;

unsafe fn receive(buffer: &mut [u8]) -> Sent {
    let mut control = [0_u64; 8];
    let mut descriptors = [-1; MAX_DESCRIPTORS];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the header is plain numbers and pointers, for which zero is a value; all of them point to locals or to the
    // buffer. The kernel fills the control message, which is read by libc's own macros within its length.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of_val(&control) as _;
        let length = libc::recvmsg(SOCKET, &mut header, libc::MSG_CMSG_CLOEXEC);
        let mut count = 0;
        let first = libc::CMSG_FIRSTHDR(&header);
        if length > 0 && !first.is_null() && (*first).cmsg_type == libc::SCM_RIGHTS {
            let bytes = ((*first).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = libc::CMSG_DATA(first).cast::<c_int>();
            count = (bytes / mem::size_of::<c_int>()).min(MAX_DESCRIPTORS);
            for (index, descriptor) in descriptors.iter_mut().enumerate().take(count) {
                *descriptor = data.add(index).read_unaligned();
            }
        }
        match usize::try_from(length) {
            Ok(length) if length >= HEADER => Sent::Job(length, descriptors, count),
            Ok(1..) => Sent::End,
            _ => Sent::Gone,
        }
    }
}

/// One job after another, until the runner is gone. The end of the warden is the end of all in its pid namespace.
unsafe fn serve(setup: &Setup, room: &mut Room, signals: c_int) -> ! {
    // SAFETY: see the functions called; all in the warden.
    unsafe {
        loop {
            match receive(&mut room.message) {
                Sent::Job(length, descriptors, count) => {
                    let answer = run(setup, room, length, &descriptors, count, signals);
                    for descriptor in descriptors.iter().take(count) {
                        libc::close(*descriptor);
                    }
                    tell(&answer);
                }
                // The job ended before this came.
                Sent::End => {}
                Sent::Gone => libc::_exit(0),
            }
        }
    }
}

/// What a newborn command reads, in the warden's memory.
struct Born<'a> {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    stdin: c_int,
    entrances: [c_int; MAX_DESCRIPTORS],
    limits: [Limit; message::MAX_LIMITS],
    die_with_warden: bool,
    filter: &'a [sock_filter],
    landlock: Option<&'a Landlock>,
    /// What went wrong: written by the child, read by the warden.
    failed: Answer,
}

/// Runs one command to the end of everything it started.
unsafe fn run(
    setup: &Setup,
    room: &mut Room,
    length: usize,
    descriptors: &[c_int; MAX_DESCRIPTORS],
    count: usize,
    signals: c_int,
) -> Answer {
    let bad = Answer {
        step: EXECUTE,
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
    if text.last() != Some(&0) || 1 + arguments + variables > MAX_WORDS {
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
        stdin: -1,
        entrances: [-1; MAX_DESCRIPTORS],
        limits: [(0, 0, 0); message::MAX_LIMITS],
        die_with_warden: !own_pids,
        filter: &setup.command_filter,
        landlock: setup.command_landlock.as_ref(),
        failed: Answer::default(),
    };
    let mut given = descriptors.iter().take(count);
    if has_stdin != 0 {
        born.stdin = given.next().copied().unwrap_or(-1);
    }
    for (slot, descriptor) in born.entrances.iter_mut().zip(given) {
        *slot = *descriptor;
    }
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
        if pid < 0 {
            return failed(FIRST_OF_COMMAND);
        }
        if !wait_for_end(pid, signals, &mut room.message) {
            // The runner is gone, and its warden goes.
            kill_all(own_pids, pid);
            libc::_exit(0);
        }
        // The process is still there as a name, so its group cannot be another's yet.
        kill_all(own_pids, pid);
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
            return FIRST_OF_COMMAND;
        }
        for entrance in born.entrances.iter().filter(|entrance| **entrance >= 0) {
            if libc::write(*entrance, c"0".as_ptr().cast(), 1) != 1 {
                return 15;
            }
        }
        if born.stdin >= 0 && libc::dup2(born.stdin, INPUT) < 0 {
            return 16;
        }
        for limit in born.limits.iter().filter(|limit| **limit != (0, 0, 0)) {
            if set_limit(*limit) != 0 {
                return 17;
            }
        }
        if born.die_with_warden && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
            return 18;
        }
        if let Some(landlock) = born.landlock
            && restrict(landlock).is_err()
        {
            return 20;
        }
        if !born.filter.is_empty() && refuse_calls(born.filter) != 0 {
            return 19;
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(born.program, born.arguments, born.environment);
        EXECUTE
    }
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
                let mut told = MaybeUninit::<libc::signalfd_siginfo>::uninit();
                let length = mem::size_of::<libc::signalfd_siginfo>();
                libc::read(signals, told.as_mut_ptr().cast(), length);
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
unsafe fn kill_all(own_pids: bool, pid: pid_t) {
    let whom = match own_pids {
        // Everyone in the pid namespace but the warden.
        true => -1,
        false => -pid,
    };
    // SAFETY: a plain system call.
    unsafe { libc::kill(whom, libc::SIGKILL) };
}
