//! What a sample that broke out of its emulator would try. Each attack tells whether it was refused; most do not live to tell.
#![allow(unsafe_code)]

use std::ffi::CString;

use hotcell_cells::cell_side::CellError;

/// Tries one attack; `payload` is a sealed blob mapped read-only, whose descriptor is 4.
pub(crate) fn attack(name: &str, payload: &[u8]) -> Result<String, CellError> {
    let root = CString::new("/etc/passwd").unwrap_or_default();
    let shell = CString::new("/bin/sh").unwrap_or_default();
    let page = 4096;
    // SAFETY: system calls with valid or deliberately wrong arguments; the memory they may change is the test's own, and
    // a process that survives one ends with it.
    let done = unsafe {
        match name {
            "open" => libc::open(root.as_ptr(), libc::O_RDONLY).into(),
            "openat2" => {
                let how = [0u64; 3];
                libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, root.as_ptr(), how.as_ptr(), 24)
            }
            "stat" => {
                let mut out = std::mem::zeroed::<libc::stat>();
                libc::stat(root.as_ptr(), &mut out).into()
            }
            "socket" => libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into(),
            "fork" => match libc::fork() {
                0 => libc::_exit(0),
                pid => pid.into(),
            },
            "thread" => match std::thread::Builder::new().spawn(|| {}) {
                Ok(_) => 0,
                Err(error) => {
                    *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EPERM);
                    -1
                }
            },
            "clone3" => {
                let arguments = [0u64; 11];
                libc::syscall(
                    libc::SYS_clone3,
                    arguments.as_ptr(),
                    std::mem::size_of_val(&arguments),
                )
            }
            "exec" => {
                let arguments = [shell.as_ptr(), std::ptr::null()];
                libc::execv(shell.as_ptr(), arguments.as_ptr()).into()
            }
            "exec-payload" => {
                let arguments = [shell.as_ptr(), std::ptr::null()];
                libc::syscall(
                    libc::SYS_execveat,
                    4,
                    c"".as_ptr(),
                    arguments.as_ptr(),
                    std::ptr::null::<u8>(),
                    libc::AT_EMPTY_PATH,
                )
            }
            "ptrace" => libc::ptrace(libc::PTRACE_ATTACH, libc::getppid().max(1), 0, 0),
            "kill-parent" => libc::kill(libc::getppid(), libc::SIGKILL).into(),
            "kill-all" => libc::kill(-1, libc::SIGKILL).into(),
            "tgkill-other" => libc::syscall(
                libc::SYS_tgkill,
                libc::getpid() + 1,
                libc::getpid() + 1,
                libc::SIGKILL,
            ),
            "write-payload" => libc::write(4, b"x".as_ptr().cast(), 1) as libc::c_long,
            "map-payload-writable" => {
                let flags = libc::PROT_READ | libc::PROT_WRITE;
                match libc::mmap(std::ptr::null_mut(), page, flags, libc::MAP_SHARED, 4, 0) {
                    libc::MAP_FAILED => -1,
                    start => start as libc::c_long,
                }
            }
            "unprotect-payload" => {
                let start = payload.as_ptr().cast_mut().cast();
                libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE).into()
            }
            "truncate-payload" => libc::ftruncate(4, 0).into(),
            "executable-memory" => {
                let flags = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                match libc::mmap(std::ptr::null_mut(), page, flags, kind, -1, 0) {
                    libc::MAP_FAILED => -1,
                    start => start as libc::c_long,
                }
            }
            "raise-limit" => {
                let limit = libc::rlimit {
                    rlim_cur: libc::RLIM_INFINITY,
                    rlim_max: libc::RLIM_INFINITY,
                };
                libc::setrlimit(libc::RLIMIT_FSIZE, &limit).into()
            }
            "signal-owner" => libc::fcntl(3, libc::F_SETOWN, 1).into(),
            "unshare" => libc::unshare(libc::CLONE_NEWNS).into(),
            "mount" => libc::mount(
                shell.as_ptr(),
                shell.as_ptr(),
                std::ptr::null(),
                libc::MS_BIND,
                std::ptr::null(),
            )
            .into(),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, 0, 0),
            "io-uring" => libc::syscall(libc::SYS_io_uring_setup, 1, 0),
            "x32" => libc::syscall(0x4000_0000 + libc::SYS_getpid),
            "process-vm" => libc::syscall(libc::SYS_process_vm_readv, 1, 0, 0, 0, 0, 0),
            other => return Err(CellError::Job(format!("no attack is named {other}"))),
        }
    };
    Ok(match done {
        -1 => format!("refused: {}", std::io::Error::last_os_error()),
        value => format!("escaped: {value}"),
    })
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
