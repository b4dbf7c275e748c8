//! Makes a cell process with namespaces and limits, and waits for it.
//!
//! `std::process` cannot make a process within new namespaces, so this is `clone` and `execveat` by hand. Between the two
//! the child is a copy of one thread of a program with many: it makes raw system calls only, allocates nothing, takes no lock.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::Exit;

/// Everything the child needs, prepared before it exists.
pub(super) struct Birth<'a> {
    /// The executable, open, above every target descriptor.
    pub(super) executable: BorrowedFd<'a>,
    /// Its argument 0.
    pub(super) name: CString,
    /// What becomes descriptors 0, 1, 2, …; all open above that range.
    pub(super) descriptors: &'a [OwnedFd],
    /// Files of control groups into which the child writes itself; above every target descriptor.
    pub(super) entrances: &'a [OwnedFd],
    /// `CLONE_NEW…` flags.
    pub(super) namespaces: libc::c_int,
    /// User and group to become.
    pub(super) user: Option<u32>,
    /// Whether to move into an own user namespace after becoming that user.
    pub(super) own_users: bool,
    /// Whether it ends before all others where memory is short.
    pub(super) first_to_end: bool,
    /// Resource limits, soft and hard alike.
    pub(super) limits: &'a [(libc::__rlimit_resource_t, u64)],
}

/// How a process ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) exit: Exit,
    pub(crate) cpu_s: f64,
    /// Greatest resident memory in KiB. The kernel counts the moment before `execve` in, when the child still was a copy
    /// of the runner: an upper bound.
    pub(crate) peak_kib: u64,
}

/// A duplicate of a descriptor at `least` or above, closed on exec.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, least: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor and touches no memory.
    let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just made this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Steps of the child, as they are told when one fails.
const STEPS: [&str; 9] = [
    "signal mask",
    "new session",
    "descriptors",
    "user and group",
    "user namespace",
    "parent-death signal",
    "limits",
    "execute",
    "control group",
];

/// Makes the process; returns its pid. An error names the step that failed.
pub(super) fn spawn(birth: &Birth<'_>) -> io::Result<libc::pid_t> {
    let (report, report_theirs) = pipe2(OFlag::O_CLOEXEC)?;
    let above = i32::try_from(birth.descriptors.len())
        .map_err(io::Error::other)?
        .saturating_add(16);
    let report_theirs = {
        let low = report_theirs;
        duplicate_above(low.as_fd(), above)?
    };
    let argv = [birth.name.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    let report_fd = report_theirs.as_raw_fd();

    let pid = clone_process(birth.namespaces, || {
        // SAFETY: this closure runs in the child made by `clone`, see the module's head; `child` keeps to its rules, and
        // all pointers (argv, envp, the slices of `birth`) were made before and stay valid in the copied memory.
        let (step, errno) = unsafe { child(birth, &argv, &envp) };
        let mut message = [0; 5];
        message[0] = step;
        message[1..].copy_from_slice(&errno.to_le_bytes());
        // SAFETY: writes five bytes of the child's stack to an open pipe, then ends the child without running any
        // destructor of the parent's copied state.
        unsafe {
            libc::write(report_fd, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    })?;
    drop(report_theirs);
    let mut message = Vec::new();
    let told = std::fs::File::from(report).take(5).read_to_end(&mut message);
    if matches!(told, Ok(0)) {
        return Ok(pid);
    }
    let _ = wait(pid);
    told?;
    let errno = message
        .get(1..5)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(libc::EIO, i32::from_le_bytes);
    let step = message
        .first()
        .and_then(|step| STEPS.get(usize::from(*step)))
        .unwrap_or(&"start");
    let error = io::Error::from_raw_os_error(errno);
    Err(io::Error::new(
        error.kind(),
        format!("making a cell process, {step}: {error}"),
    ))
}

/// Tries whether a process can be made this way; it ends at once.
pub(super) fn trial(namespaces: libc::c_int, user: Option<u32>, own_users: bool) -> io::Result<()> {
    let pid = clone_process(namespaces, || {
        // SAFETY: in the child, see the module's head: raw calls only, then the end.
        unsafe {
            let well = become_user(user).is_ok() && (!own_users || libc::unshare(libc::CLONE_NEWUSER) == 0);
            libc::_exit(i32::from(!well))
        }
    })?;
    match wait(pid)?.exit {
        Exit::Code(0) => Ok(()),
        exit => Err(io::Error::other(format!("trial process: {exit}"))),
    }
}

/// `fork` into new namespaces. `child` runs in the child with every signal blocked and ends with it.
pub(crate) fn clone_process(namespaces: libc::c_int, child: impl FnOnce()) -> io::Result<libc::pid_t> {
    // SAFETY: plain system calls over local signal sets. `clone` without CLONE_VM and with a null stack behaves as fork:
    // the child goes on with a copy of this stack. Signals are blocked, so no handler of the runner runs in the child.
    unsafe {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
        let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            child();
            libc::_exit(127)
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        match pid {
            1.. => Ok(pid as libc::pid_t),
            _ => Err(error),
        }
    }
}

/// The child's way to `execve`. Returns only when a step fails: its index in [`STEPS`] and the error number.
///
/// # Safety
/// Only in a child made by [`clone_process`]; see the module's head.
unsafe fn child(
    birth: &Birth<'_>,
    argv: &[*const libc::c_char; 2],
    envp: &[*const libc::c_char; 1],
) -> (u8, i32) {
    // SAFETY: raw system calls on numbers, and on memory prepared by the parent or on this stack.
    unsafe {
        let fail = |step: u8| (step, *libc::__errno_location());
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) != 0 {
            return fail(0);
        }
        if libc::setsid() < 0 {
            return fail(1);
        }
        // Where nothing else bounds memory, a cell that takes the host's last is the one that ends for it (proc(5)). To be
        // the first takes no right; without `/proc` the host decides.
        let score = match birth.first_to_end {
            true => libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY),
            false => -1,
        };
        if score >= 0 {
            libc::write(score, c"1000".as_ptr().cast(), 4);
            libc::close(score);
        }
        for entrance in birth.entrances {
            if libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                return fail(8);
            }
        }
        let mut target = 0;
        for descriptor in birth.descriptors {
            if libc::dup2(descriptor.as_raw_fd(), target) < 0 {
                return fail(2);
            }
            target += 1;
        }
        // Everything else goes at exec. Kernels before 5.11 do not know the flag: then one by one.
        if libc::syscall(
            libc::SYS_close_range,
            target,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) != 0
        {
            for number in target..65536 {
                libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        if become_user(birth.user).is_err() {
            return fail(3);
        }
        if birth.own_users && libc::unshare(libc::CLONE_NEWUSER) != 0 {
            return fail(4);
        }
        // After the change of user, which clears it.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
            return fail(5);
        }
        // Huge pages would be private and mostly empty: hundreds of cells share one host. Not every kernel has them.
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        for (resource, most) in birth.limits {
            let mut now = MaybeUninit::<libc::rlimit>::uninit();
            if libc::getrlimit(*resource, now.as_mut_ptr()) != 0 {
                return fail(6);
            }
            // A limit that is lower already stays.
            let most = (*most).min(now.assume_init().rlim_max);
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            if libc::setrlimit(*resource, &limit) != 0 {
                return fail(6);
            }
        }
        libc::syscall(
            libc::SYS_execveat,
            birth.executable.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        fail(7)
    }
}

/// Leaves all groups and becomes `user` (and the group of that number). Raw calls: libc's own would signal the threads
/// that this copy of the process only remembers.
///
/// # Safety
/// Only in a child made by [`clone_process`].
pub(crate) unsafe fn become_user(user: Option<u32>) -> Result<(), ()> {
    let Some(id) = user else { return Ok(()) };
    let none = std::ptr::null::<libc::gid_t>();
    // SAFETY: raw system calls on numbers; an empty list of groups needs no memory.
    let well = unsafe {
        libc::syscall(libc::SYS_setgroups, 0, none) == 0
            && libc::syscall(libc::SYS_setresgid, id, id, id) == 0
            && libc::syscall(libc::SYS_setresuid, id, id, id) == 0
    };
    match well {
        true => Ok(()),
        false => Err(()),
    }
}

/// Waits until the child ends.
pub(crate) fn wait(pid: libc::pid_t) -> io::Result<Reaped> {
    loop {
        if let Some(reaped) = wait_with(pid, 0)? {
            return Ok(reaped);
        }
    }
}

/// The child's end, if it has ended.
pub(super) fn wait_no_hang(pid: libc::pid_t) -> io::Result<Option<Reaped>> {
    wait_with(pid, libc::WNOHANG)
}

fn wait_with(pid: libc::pid_t, options: libc::c_int) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to locals of the right types, which the kernel fills.
    let ended = unsafe { libc::wait4(pid, &mut status, options, usage.as_mut_ptr()) };
    if ended < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    }
    if ended == 0 {
        return Ok(None);
    }
    // SAFETY: all-zero bytes are a valid rusage, and the kernel filled it in.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let exit = match libc::WIFSIGNALED(status) {
        true => Exit::Signal(libc::WTERMSIG(status)),
        false => Exit::Code(libc::WEXITSTATUS(status)),
    };
    Ok(Some(Reaped {
        exit,
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }))
}

/// Sets a limit of another process, soft and hard alike.
pub(super) fn limit_process(
    pid: libc::pid_t,
    resource: libc::__rlimit_resource_t,
    most: u64,
) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: reads one local structure; asks for no old value.
    match unsafe { libc::prlimit(pid, resource, &limit, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
