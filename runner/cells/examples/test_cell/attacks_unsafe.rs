//! What a sample that broke out of its emulator would try. Each attack tells whether it was refused; most do not live to tell.
#![allow(unsafe_code)]

use std::ffi::CStr;

use hotcell_cells::cell_side::CellError;

/// The page of the payload that attacks are about.
const PAGE: usize = 4096;
const FILE: &CStr = c"/etc/passwd";
const SHELL: &CStr = c"/bin/sh";
/// Where attacks would leave a file.
const LEFT: &CStr = c"/tmp/hotcell-escaped";

/// Tries one attack; `target` is the process id of a neighbour on the host, `payload` a sealed blob mapped read-only, whose
/// descriptor is 4.
pub(crate) fn attack(name: &str, target: i32, payload: &[u8]) -> Result<String, CellError> {
    let (kind, what) = name.split_once(':').unwrap_or((name, ""));
    // SAFETY: system calls with valid or deliberately wrong arguments; the memory they may change is the test's own, and
    // a process that survives one ends with it.
    let done = unsafe {
        match kind {
            // Any system call by its number, with arguments that do nothing.
            "call" => {
                let number = what.parse().map_err(|_| unknown(name))?;
                libc::syscall(number, 0, 0, 0, 0, 0, 0)
            }
            "file" => file(what).ok_or_else(|| unknown(name))?,
            "socket" => socket(what).ok_or_else(|| unknown(name))?,
            "process" => process(what, target).ok_or_else(|| unknown(name))?,
            "payload" => on_payload(what, payload).ok_or_else(|| unknown(name))?,
            "kernel" => kernel(what).ok_or_else(|| unknown(name))?,
            _ => return Err(unknown(name)),
        }
    };
    Ok(match done {
        -1 => format!("refused: {}", std::io::Error::last_os_error()),
        value => format!("done: {value}"),
    })
}

fn unknown(name: &str) -> CellError {
    CellError::Job(format!("no attack is named {name}"))
}

/// Files of the host.
///
/// # Safety
/// Only where the process may end for it.
unsafe fn file(what: &str) -> Option<libc::c_long> {
    // SAFETY: paths are constants, structures are locals.
    Some(unsafe {
        match what {
            "read" => libc::open(FILE.as_ptr(), libc::O_RDONLY).into(),
            "write" => libc::open(FILE.as_ptr(), libc::O_WRONLY).into(),
            "create" => libc::open(LEFT.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600).into(),
            "creat" => libc::creat(LEFT.as_ptr(), 0o600).into(),
            "own-memory" => libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDWR).into(),
            "device" => libc::open(c"/dev/kmsg".as_ptr(), libc::O_WRONLY).into(),
            // The group of a cell is the first thing that it would want to leave.
            "group" => libc::open(c"/sys/fs/cgroup/cgroup.procs".as_ptr(), libc::O_WRONLY).into(),
            "openat2" => {
                let how = [0u64; 3];
                libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, FILE.as_ptr(), how.as_ptr(), 24)
            }
            "stat" => {
                let mut out = std::mem::zeroed::<libc::stat>();
                libc::stat(FILE.as_ptr(), &mut out).into()
            }
            "handle" => {
                let handle = [0u32; 64];
                libc::syscall(libc::SYS_open_by_handle_at, 4, handle.as_ptr(), libc::O_RDONLY)
            }
            "memory-file" => libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0),
            "unlink" => libc::unlink(FILE.as_ptr()).into(),
            "link" => libc::symlink(FILE.as_ptr(), LEFT.as_ptr()).into(),
            "mkdir" => libc::mkdir(LEFT.as_ptr(), 0o700).into(),
            "chmod" => libc::chmod(FILE.as_ptr(), 0o777).into(),
            _ => return None,
        }
    })
}

/// Sockets, and the one that it has.
///
/// # Safety
/// Only where the process may end for it.
unsafe fn socket(what: &str) -> Option<libc::c_long> {
    let stream = libc::SOCK_STREAM;
    // SAFETY: numbers; buffers and headers are locals that live through the call.
    Some(unsafe {
        match what {
            "inet" => libc::socket(libc::AF_INET, stream, 0).into(),
            "inet6" => libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).into(),
            "unix" => libc::socket(libc::AF_UNIX, stream, 0).into(),
            "netlink" => libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0).into(),
            "vsock" => libc::socket(libc::AF_VSOCK, stream, 0).into(),
            "packet" => libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).into(),
            "pair" => {
                let mut pair = [0; 2];
                libc::socketpair(libc::AF_UNIX, stream, 0, pair.as_mut_ptr()).into()
            }
            "connect" => {
                let address = libc::sockaddr_un {
                    sun_family: libc::AF_UNIX as libc::sa_family_t,
                    sun_path: [0; 108],
                };
                libc::connect(3, (&raw const address).cast(), 110).into()
            }
            // The way by which Unix sockets were broken out of before.
            "out-of-band" => libc::send(3, b"x".as_ptr().cast(), 1, libc::MSG_OOB) as libc::c_long,
            "take-out-of-band" => {
                let mut byte = [0u8; 1];
                libc::recv(3, byte.as_mut_ptr().cast(), 1, libc::MSG_OOB) as libc::c_long
            }
            // Hands the runner a descriptor that it never asked for.
            "hand-over" => {
                let mut byte = [0u8; 1];
                let mut part = libc::iovec {
                    iov_base: byte.as_mut_ptr().cast(),
                    iov_len: 1,
                };
                let mut room = [0u64; 4];
                let mut message = std::mem::zeroed::<libc::msghdr>();
                message.msg_iov = &mut part;
                message.msg_iovlen = 1;
                message.msg_control = room.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(4) as usize;
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
                libc::CMSG_DATA(header).cast::<i32>().write_unaligned(4);
                libc::sendmsg(3, &message, 0) as libc::c_long
            }
            "owner" => libc::fcntl(3, libc::F_SETOWN, 1).into(),
            _ => return None,
        }
    })
}

/// Other processes, and more of its own.
///
/// # Safety
/// Only where the process may end for it.
unsafe fn process(what: &str, target: i32) -> Option<libc::c_long> {
    // SAFETY: numbers; what the calls read or write is on this stack. A child ends at once.
    Some(unsafe {
        let mut word = 0u64;
        let part = libc::iovec {
            iov_base: (&raw mut word).cast(),
            iov_len: 8,
        };
        match what {
            "fork" => match libc::fork() {
                0 => libc::_exit(0),
                pid => pid.into(),
            },
            "clone" => match libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
                0 => libc::_exit(0),
                pid => pid,
            },
            "clone-users" => match libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0) {
                0 => libc::_exit(0),
                pid => pid,
            },
            "clone3" => {
                let arguments = [0u64; 11];
                let size = std::mem::size_of_val(&arguments);
                libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size)
            }
            "thread" => match std::thread::Builder::new().spawn(|| {}) {
                Ok(_) => 0,
                Err(error) => {
                    *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EPERM);
                    -1
                }
            },
            "exec" => {
                let arguments = [SHELL.as_ptr(), std::ptr::null()];
                libc::execv(SHELL.as_ptr(), arguments.as_ptr()).into()
            }
            "exec-payload" => {
                let arguments = [SHELL.as_ptr(), std::ptr::null()];
                let none = std::ptr::null::<u8>();
                let flag = libc::AT_EMPTY_PATH;
                libc::syscall(
                    libc::SYS_execveat,
                    4,
                    c"".as_ptr(),
                    arguments.as_ptr(),
                    none,
                    flag,
                )
            }
            "kill" => libc::kill(target, libc::SIGKILL).into(),
            "kill-parent" => libc::kill(libc::getppid(), libc::SIGKILL).into(),
            "kill-all" => libc::kill(-1, libc::SIGKILL).into(),
            "kill-group" => libc::kill(0, libc::SIGKILL).into(),
            "tgkill" => libc::syscall(libc::SYS_tgkill, target, target, libc::SIGKILL),
            "tkill" => libc::syscall(libc::SYS_tkill, target, libc::SIGKILL),
            "queue" => libc::syscall(libc::SYS_rt_sigqueueinfo, target, libc::SIGKILL, &word),
            "pidfd" => libc::syscall(libc::SYS_pidfd_open, target, 0),
            // A descriptor that is none: the call itself must be out of reach.
            "pidfd-signal" => libc::syscall(libc::SYS_pidfd_send_signal, 4, libc::SIGKILL, 0, 0),
            "pidfd-take" => libc::syscall(libc::SYS_pidfd_getfd, 4, 0, 0),
            "trace" => libc::ptrace(libc::PTRACE_ATTACH, target, 0, 0),
            "trace-me" => libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0),
            "read-memory" => libc::process_vm_readv(target, &part, 1, &part, 1, 0) as libc::c_long,
            "write-memory" => libc::process_vm_writev(target, &part, 1, &part, 1, 0) as libc::c_long,
            "compare" => libc::syscall(libc::SYS_kcmp, target, target, 0, 0, 0),
            "other-cores" => {
                let mut all = std::mem::zeroed::<libc::cpu_set_t>();
                (0..1024).for_each(|cpu| libc::CPU_SET(cpu, &mut all));
                libc::sched_setaffinity(0, size_of_val(&all), &all).into()
            }
            "real-time" => {
                let most = libc::sched_param { sched_priority: 99 };
                libc::sched_setscheduler(0, libc::SCHED_FIFO, &most).into()
            }
            "nice" => libc::setpriority(libc::PRIO_PROCESS, 0, -20).into(),
            "limits" => {
                let limit = libc::rlimit {
                    rlim_cur: libc::RLIM_INFINITY,
                    rlim_max: libc::RLIM_INFINITY,
                };
                libc::setrlimit(libc::RLIMIT_FSIZE, &limit).into()
            }
            "outlive" => libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0).into(),
            "dumpable" => libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).into(),
            "session" => libc::setsid().into(),
            "root" => libc::setuid(0).into(),
            _ => return None,
        }
    })
}

/// The payload that other cells share.
///
/// # Safety
/// Only where the process may end for it.
unsafe fn on_payload(what: &str, payload: &[u8]) -> Option<libc::c_long> {
    let start = payload.as_ptr().cast_mut();
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the payload is mapped for at least a page; what writes to it is meant to end the process.
    Some(unsafe {
        match what {
            "write" => libc::write(4, b"x".as_ptr().cast(), 1) as libc::c_long,
            "write-at" => libc::pwrite(4, b"x".as_ptr().cast(), 1, 0) as libc::c_long,
            "store" => {
                start.write_volatile(b'x');
                0
            }
            "map-writable" => mapped(writable, libc::MAP_SHARED, 4),
            "map-private" => {
                match libc::mmap(std::ptr::null_mut(), PAGE, writable, libc::MAP_PRIVATE, 4, 0) {
                    libc::MAP_FAILED => -1,
                    own => {
                        own.cast::<u8>().write_volatile(b'x');
                        0
                    }
                }
            }
            "unprotect" => libc::mprotect(start.cast(), PAGE, writable).into(),
            "punch" => libc::madvise(start.cast(), PAGE, libc::MADV_REMOVE).into(),
            "poison" => libc::madvise(start.cast(), PAGE, libc::MADV_HWPOISON).into(),
            "take-offline" => libc::madvise(start.cast(), PAGE, libc::MADV_SOFT_OFFLINE).into(),
            "truncate" => libc::ftruncate(4, 0).into(),
            "allocate" => libc::fallocate(4, libc::FALLOC_FL_PUNCH_HOLE | 1, 0, 4096).into(),
            "splice" => libc::splice(0, std::ptr::null_mut(), 4, std::ptr::null_mut(), 1, 0) as libc::c_long,
            "copy" => libc::syscall(libc::SYS_copy_file_range, 0, 0, 4, 0, 1, 0),
            "unseal" => libc::fcntl(4, libc::F_ADD_SEALS, 0).into(),
            "mode" => libc::fchmod(4, 0o777).into(),
            // Moves the place at which a neighbour that shares the open file would read.
            "offset" => libc::lseek(4, 7, libc::SEEK_SET),
            _ => return None,
        }
    })
}

/// Doors of the kernel that no cell needs.
///
/// # Safety
/// Only where the process may end for it.
unsafe fn kernel(what: &str) -> Option<libc::c_long> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: numbers and constants; structures are locals.
    Some(unsafe {
        match what {
            "uring" => libc::syscall(libc::SYS_io_uring_setup, 1, 0),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, 0, 0),
            "perf" => {
                let attributes = [0u64; 16];
                libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
            }
            "userfaults" => libc::syscall(libc::SYS_userfaultfd, 0),
            "keys" => libc::syscall(libc::SYS_keyctl, 0, -3, 0, 0, 0),
            "unshare" => libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).into(),
            "enter" => libc::setns(4, 0).into(),
            "mount" => libc::mount(
                SHELL.as_ptr(),
                SHELL.as_ptr(),
                none,
                libc::MS_BIND,
                std::ptr::null(),
            )
            .into(),
            "new-mount" => libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
            "root" => libc::chroot(c"/tmp".as_ptr()).into(),
            "module" => libc::syscall(libc::SYS_finit_module, 4, none, 0),
            "filter" => libc::syscall(libc::SYS_seccomp, 1, 0, 0),
            "clock" => libc::clock_settime(libc::CLOCK_REALTIME, &std::mem::zeroed()).into(),
            "timer" => libc::syscall(libc::SYS_timer_create, 0, 0, 0),
            "shared-memory" => libc::shmget(libc::IPC_PRIVATE, PAGE, 0o600).into(),
            "queue" => libc::syscall(
                libc::SYS_mq_open,
                c"x".as_ptr(),
                libc::O_CREAT | libc::O_RDWR,
                0o600,
                0,
            ),
            "lock-memory" => libc::mlockall(libc::MCL_CURRENT).into(),
            "executable-memory" => mapped(
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
            ),
            "terminal" => libc::ioctl(2, libc::TIOCSTI, c"x".as_ptr()).into(),
            #[cfg(target_arch = "x86_64")]
            "x32" => libc::syscall(0x4000_0000 + libc::SYS_getpid),
            // getpid of the 32-bit table, whose numbers mean other calls.
            #[cfg(target_arch = "x86_64")]
            "old-table" => {
                let result: i64;
                std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result);
                result
            }
            _ => return None,
        }
    })
}

/// A new mapping: where it is, or -1.
unsafe fn mapped(protection: i32, flags: i32, descriptor: i32) -> libc::c_long {
    // SAFETY: a new mapping at an address that the kernel chooses.
    match unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, descriptor, 0) } {
        libc::MAP_FAILED => -1,
        start => start as libc::c_long,
    }
}

/// Takes descriptors until there are no more; how many there were.
pub(crate) fn take_descriptors() -> usize {
    let mut taken = 0;
    // SAFETY: duplicates of a descriptor that is open, which nothing else names.
    while unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 5) } >= 0 {
        taken += 1;
    }
    taken
}

/// Touches one page in every 2 MiB of as much address space as there is: memory of the kernel for page tables, and none of
/// its own.
pub(crate) fn take_tables() -> u64 {
    let chunk = 1usize << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let mut read = 0;
    loop {
        // SAFETY: a new mapping, of which bytes within its length are read.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), chunk, libc::PROT_READ, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return read;
            }
            libc::madvise(start, chunk, libc::MADV_NOHUGEPAGE);
            for place in (0..chunk).step_by(2 << 20) {
                read += 1 + u64::from(start.cast::<u8>().add(place).read_volatile());
            }
        }
    }
}

/// Closes the connection to the runner, behind its owner's back.
pub(crate) fn hang_up() {
    // SAFETY: whoever owns the descriptor is not used again.
    unsafe { libc::close(3) };
}

/// Reads where nothing is.
pub(crate) fn fault() {
    // SAFETY: none: this is the crash that a test asked for.
    unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
}

/// Writes all bytes to a descriptor.
pub(crate) fn write_all(descriptor: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are of a live slice.
        let written = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(1..) => bytes = bytes.get(written as usize..).unwrap_or_default(),
            _ => return,
        }
    }
}
