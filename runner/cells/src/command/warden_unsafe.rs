//! The warden: a process that confines itself once, then starts one command after another, each born into its walls.
//!
//! A warden is a copy of one thread of the runner, made by `clone` into namespaces of its own, of which it is the first
//! process. Like every such copy it makes raw system calls only, allocates nothing and takes no lock: all memory it needs was
//! made before. What would cost each command a tenth of a millisecond and more (namespaces, mounts, Landlock, seccomp, a
//! smaller user, control groups) is done once here and inherited; a command costs little more than its own `execve`.
//!
//! The copy holds the runner's memory. No command can read it: it is not dumpable, hidden in `/proc`, and no call that reads
//! another process's memory is allowed. No command can change it either: each is a fresh child of it, and calls that set
//! limits, priorities or processors are refused where they would reach it.
//!
//! # Safety
//! Every `unsafe fn` here may be called only in a process made by [`births::clone_process`], where no other thread is and
//! nobody else uses the memory that it is given.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_long, pid_t, sock_filter};

use super::birth_unsafe::{self, Room};
use super::landlock_unsafe::{Landlock, restrict};
use super::message::{Answer, HEADER, Limit, MAX_DESCRIPTORS};
use super::root_unsafe::{Root, enter, leave_mounts};
use super::step::{self, holds};
use crate::supervise::births;

/// Everything a warden needs, made before it exists.
#[derive(Debug)]
pub(super) struct Setup {
    /// `CLONE_NEW…` flags.
    pub(super) namespaces: c_int,
    /// Files of control groups into which it writes itself, at 16 or above.
    pub(super) entrances: Vec<OwnedFd>,
    /// Whether to move into a cgroup namespace after that.
    pub(super) own_groups: bool,
    /// What to write into `uid_map` and `gid_map`, where the warden is made in a user namespace.
    pub(super) maps: Option<[CString; 2]>,
    /// Its own root, where it gets one.
    pub(super) root: Option<Root>,
    /// User and group to become.
    pub(super) user: Option<u32>,
    /// Whether nobody else is that user.
    pub(super) alone: bool,
    /// Whether to move into a user namespace after that, in which that user has no number.
    pub(super) own_users: bool,
    /// Where commands run: a path as the warden sees it.
    pub(super) work: CString,
    /// The folders that commands write into, as the warden sees them: those of a scratch are handed to the runner.
    pub(super) writable: [CString; 2],
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

/// Descriptor of the warden. The three before it are the commands' too.
pub(super) const SOCKET: c_int = 3;

/// Makes a warden. `descriptors`: what becomes 0, 1, 2 and the socket; all of them at 16 or above. It tells by its first
/// [`Answer`] how its setup ended.
pub(super) fn start(setup: &Setup, descriptors: &[OwnedFd; 4]) -> io::Result<pid_t> {
    let mut room = Room::new();
    births::clone_process(setup.namespaces, || {
        // SAFETY: this is the child, see the module's head. Everything it uses was made above or by the caller.
        unsafe {
            let prepared = prepare(setup, descriptors);
            match prepared {
                Ok(Prepared {
                    held,
                    signals,
                    writable,
                }) => {
                    let answer = Answer {
                        status: held,
                        ..Answer::default()
                    };
                    tell(&answer, &writable);
                    for folder in writable.into_iter().filter(|folder| *folder >= 0) {
                        libc::close(folder);
                    }
                    serve(setup, &mut room, signals)
                }
                Err(step) => {
                    tell(&failed(step), &[]);
                    libc::_exit(1)
                }
            }
        }
    })
}

/// Which step failed, with the error number of the call before.
pub(super) unsafe fn failed(step: u32) -> Answer {
    Answer {
        step,
        // SAFETY: the address of this thread's error number.
        errno: unsafe { *libc::__errno_location() },
        ..Answer::default()
    }
}

/// Tells the runner, and hands descriptors over; those that are negative are none.
unsafe fn tell(answer: &Answer, descriptors: &[c_int]) {
    let mut bytes = answer.to_bytes();
    let mut control = [0_u64; 4];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the header is plain numbers and pointers, for which zero is a value; all of them point to locals. The control
    // message is written by libc's own macros within its room, which holds two descriptors. A runner that is gone is found
    // out at the next message.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if descriptors.len() == 2 && descriptors.iter().all(|descriptor| *descriptor >= 0) {
            let length = mem::size_of_val(descriptors) as u32;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            let data = libc::CMSG_DATA(first).cast::<c_int>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                data.add(index).write_unaligned(*descriptor);
            }
        }
        libc::sendmsg(SOCKET, &header, libc::MSG_NOSIGNAL);
    }
}

/// A warden whose walls stand.
struct Prepared {
    /// What holds.
    held: i32,
    /// The descriptor on which ends of children are told.
    signals: c_int,
    /// The folders that commands write into, to be handed over; negative: the runner has them already.
    writable: [c_int; 2],
}

/// Sets up the walls; or tells the step that failed.
///
/// # Safety
/// Only in a process made by [`births::clone_process`].
unsafe fn prepare(setup: &Setup, descriptors: &[OwnedFd; 4]) -> Result<Prepared, u32> {
    let check = |step: u32, result: c_long| match result {
        ..0 => Err(step),
        _ => Ok(result),
    };
    // SAFETY: raw system calls over numbers, strings that the parent made, and locals of this stack.
    unsafe {
        for (target, descriptor) in (0..).zip(descriptors) {
            check(
                step::DESCRIPTORS,
                libc::dup2(descriptor.as_raw_fd(), target).into(),
            )?;
        }
        libc::fcntl(SOCKET, libc::F_SETFD, libc::FD_CLOEXEC);
        for entrance in &setup.entrances {
            if libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                return Err(step::GROUP);
            }
        }
        if libc::syscall(libc::SYS_close_range, SOCKET + 1, libc::c_uint::MAX, 0) != 0 {
            for number in SOCKET + 1..65536 {
                libc::close(number);
            }
        }
        if setup.own_groups {
            check(step::GROUP_NAMESPACE, libc::unshare(libc::CLONE_NEWCGROUP).into())?;
        }
        // Handlers of the runner would run in this copy, and what it ignores its commands would ignore.
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setsid();
        if let Some([users, groups]) = &setup.maps {
            // Without a number in its namespace it cannot make files in a file system of that namespace: then there is none.
            write_file(c"/proc/self/setgroups", c"deny");
            write_file(c"/proc/self/uid_map", users);
            write_file(c"/proc/self/gid_map", groups);
        }

        let (mut held, tree) = match &setup.root {
            Some(root) => enter(root)?,
            None => (0, -1),
        };
        if setup.namespaces & libc::CLONE_NEWUTS != 0 {
            // The host's name is nothing to compute with.
            libc::sethostname(c"hotcell".as_ptr(), 7);
        }
        // A process that lives in another root may not make a user namespace: then it leaves with the rights that one gives.
        let mut unseen = tree >= 0 && !setup.own_users && leave_mounts(tree);
        births::become_user(setup.user).map_err(|()| step::USER)?;
        if setup.own_users {
            check(step::USER_NAMESPACE, libc::unshare(libc::CLONE_NEWUSER).into())?;
            unseen = tree >= 0 && leave_mounts(tree);
        }
        match unseen {
            true => held |= holds::NO_MOUNTS,
            false if tree >= 0 => _ = libc::close(tree),
            false => {}
        }
        drop_capabilities();
        check(step::WORK, libc::chdir(setup.work.as_ptr()).into())?;
        let mut writable = [-1; 2];
        if held & holds::SCRATCH != 0 {
            for (path, folder) in setup.writable.iter().zip(&mut writable) {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
                *folder = libc::open(path.as_ptr(), flags);
                check(step::WORK, (*folder).into())?;
            }
        }
        libc::umask(0o022);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        check(
            step::NO_NEW_PRIVILEGES,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(),
        )?;
        for limit in &setup.limits {
            check(step::LIMITS, birth_unsafe::set_limit(*limit).into())?;
        }
        if let Some(landlock) = &setup.landlock {
            restrict(landlock).map_err(|()| step::LANDLOCK)?;
        }
        let mut ends = MaybeUninit::uninit();
        libc::sigemptyset(ends.as_mut_ptr());
        libc::sigaddset(ends.as_mut_ptr(), libc::SIGCHLD);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let signals = check(step::WATCHING, libc::signalfd(-1, ends.as_ptr(), flags).into())? as c_int;
        if setup.namespaces & libc::CLONE_NEWPID == 0 {
            let adopting = libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            check(step::ADOPTING, adopting.into())?;
        }
        if setup.namespaces & libc::CLONE_NEWPID != 0 {
            // The first process of a namespace is sent no signal for which it has no handler, unless it blocks it: then they
            // would heap up, on the account of all commands to come.
            libc::sigprocmask(libc::SIG_SETMASK, ends.as_ptr(), std::ptr::null_mut());
        }
        check(step::SECCOMP, birth_unsafe::refuse_calls(&setup.filter))?;
        Ok(Prepared {
            held,
            signals,
            writable,
        })
    }
}

unsafe fn write_file(path: &CStr, text: &CStr) {
    // SAFETY: raw system calls over strings that the parent made, and constants.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, text.as_ptr().cast(), text.to_bytes().len());
            libc::close(file);
        }
    }
}

/// Lets go of what a user namespace gave. Commands would lose it at their `execve` anyway.
unsafe fn drop_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    let header = Header {
        version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: the kernel reads two structures of this stack.
    unsafe { libc::syscall(libc::SYS_capset, &header, &none) };
}

/// What the runner sent.
pub(super) enum Sent {
    /// A job of so many bytes, with descriptors.
    Job(usize, [c_int; MAX_DESCRIPTORS], usize),
    /// End the job.
    End,
    /// The runner is gone.
    Gone,
}

pub(super) unsafe fn receive(buffer: &mut [u8]) -> Sent {
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
                    let answer = birth_unsafe::run(setup, room, length, &descriptors, count, signals);
                    for descriptor in descriptors.iter().take(count) {
                        libc::close(*descriptor);
                    }
                    tell(&answer, &[]);
                }
                // The job ended before this came.
                Sent::End => {}
                Sent::Gone => libc::_exit(0),
            }
        }
    }
}
