//! The system calls that a command may not make, as a seccomp program.
//!
//! Programs of the user's own are of every kind, so this is a list of what is refused, with an error that programs expect; a
//! call that is newer than the list is answered as a kernel without it would.

use libc::{c_long, sock_filter};

/// How a call is answered.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Always with this error.
    Refuse(i32),
    /// With this error when one of these bits is set in an argument.
    RefuseBits { argument: u32, bits: u32, errno: i32 },
    /// With this error unless each of these arguments has one of its values.
    RefuseUnless { all: &'static [Values], errno: i32 },
    /// With this error when one of these arguments has one of its values.
    RefuseWhere { any: &'static [Values], errno: i32 },
    /// With this error unless an argument is a null pointer.
    RefuseUnlessNull { argument: u32, errno: i32 },
}

/// An argument, and values of its lower half: those of which these calls know no upper one.
type Values = (u32, &'static [u32]);

use Rule::{Refuse, RefuseBits, RefuseUnless, RefuseUnlessNull, RefuseWhere};

/// Everything that makes a namespace.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `ioctl`s that put words into a terminal's mouth, and those that set flags of files, which outlive the program.
const IOCTLS: &[u32] = &[
    libc::TIOCSTI as u32,
    0x541C, // TIOCLINUX
    libc::FS_IOC_SETFLAGS as u32,
    0x401C_5820, // FS_IOC_FSSETXATTR
];

const fn stream(flags: i32) -> u32 {
    (libc::SOCK_STREAM | flags) as u32
}

/// Streams alone: a datagram socket of a pair can send to others than its peer.
const STREAMS: &[u32] = &[
    stream(0),
    stream(libc::SOCK_CLOEXEC),
    stream(libc::SOCK_NONBLOCK),
    stream(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK),
];

const RULES: &[(c_long, Rule)] = &[
    // The network. Pairs of connected sockets stay, many programs use them among their own processes.
    (libc::SYS_socket, Refuse(libc::EACCES)),
    (
        libc::SYS_socketpair,
        RefuseUnless {
            all: &[(0, &[libc::AF_UNIX as u32]), (1, STREAMS), (2, &[0])],
            errno: libc::EACCES,
        },
    ),
    (libc::SYS_bind, Refuse(libc::EACCES)),
    (libc::SYS_connect, Refuse(libc::EACCES)),
    (libc::SYS_listen, Refuse(libc::EACCES)),
    (libc::SYS_accept, Refuse(libc::EACCES)),
    (libc::SYS_accept4, Refuse(libc::EACCES)),
    // Namespaces, mounts, roots. clone3 takes its flags from memory, where no filter sees them: C libraries do without.
    (libc::SYS_clone3, Refuse(libc::ENOSYS)),
    (
        libc::SYS_clone,
        RefuseBits {
            argument: 0,
            bits: NEW_NAMESPACES,
            errno: libc::EPERM,
        },
    ),
    (libc::SYS_unshare, Refuse(libc::EPERM)),
    (libc::SYS_setns, Refuse(libc::EPERM)),
    (libc::SYS_mount, Refuse(libc::EPERM)),
    (libc::SYS_umount2, Refuse(libc::EPERM)),
    (libc::SYS_pivot_root, Refuse(libc::EPERM)),
    (libc::SYS_chroot, Refuse(libc::EPERM)),
    (libc::SYS_open_tree, Refuse(libc::EPERM)),
    (libc::SYS_move_mount, Refuse(libc::EPERM)),
    (libc::SYS_fsopen, Refuse(libc::EPERM)),
    (libc::SYS_fsconfig, Refuse(libc::EPERM)),
    (libc::SYS_fsmount, Refuse(libc::EPERM)),
    (libc::SYS_fspick, Refuse(libc::EPERM)),
    (libc::SYS_mount_setattr, Refuse(libc::EPERM)),
    (libc::SYS_swapon, Refuse(libc::EPERM)),
    (libc::SYS_swapoff, Refuse(libc::EPERM)),
    // Other processes.
    (libc::SYS_ptrace, Refuse(libc::EPERM)),
    (libc::SYS_process_vm_readv, Refuse(libc::EPERM)),
    (libc::SYS_process_vm_writev, Refuse(libc::EPERM)),
    (libc::SYS_process_madvise, Refuse(libc::EPERM)),
    (libc::SYS_pidfd_getfd, Refuse(libc::EPERM)),
    (libc::SYS_kcmp, Refuse(libc::EPERM)),
    (libc::SYS_move_pages, Refuse(libc::EPERM)),
    (libc::SYS_migrate_pages, Refuse(libc::EPERM)),
    // Parts of the kernel with a long history of holes that such programs do without.
    (libc::SYS_bpf, Refuse(libc::EPERM)),
    (libc::SYS_perf_event_open, Refuse(libc::EPERM)),
    (libc::SYS_userfaultfd, Refuse(libc::EPERM)),
    (libc::SYS_io_uring_setup, Refuse(libc::ENOSYS)),
    (libc::SYS_io_uring_enter, Refuse(libc::ENOSYS)),
    (libc::SYS_io_uring_register, Refuse(libc::ENOSYS)),
    (libc::SYS_keyctl, Refuse(libc::EPERM)),
    (libc::SYS_add_key, Refuse(libc::EPERM)),
    (libc::SYS_request_key, Refuse(libc::EPERM)),
    (libc::SYS_fanotify_init, Refuse(libc::EPERM)),
    (libc::SYS_fanotify_mark, Refuse(libc::EPERM)),
    (libc::SYS_name_to_handle_at, Refuse(libc::EPERM)),
    (libc::SYS_open_by_handle_at, Refuse(libc::EPERM)),
    (
        libc::SYS_ioctl,
        RefuseWhere {
            any: &[(1, IOCTLS)],
            errno: libc::EPERM,
        },
    ),
    // What outlives the program: System V objects, extended attributes.
    (libc::SYS_shmget, Refuse(libc::ENOSYS)),
    (libc::SYS_semget, Refuse(libc::ENOSYS)),
    (libc::SYS_msgget, Refuse(libc::ENOSYS)),
    (libc::SYS_mq_open, Refuse(libc::ENOSYS)),
    (libc::SYS_setxattr, Refuse(libc::EOPNOTSUPP)),
    (libc::SYS_lsetxattr, Refuse(libc::EOPNOTSUPP)),
    (libc::SYS_fsetxattr, Refuse(libc::EOPNOTSUPP)),
    (libc::SYS_removexattr, Refuse(libc::EOPNOTSUPP)),
    (libc::SYS_lremovexattr, Refuse(libc::EOPNOTSUPP)),
    (libc::SYS_fremovexattr, Refuse(libc::EOPNOTSUPP)),
    // The host itself.
    (libc::SYS_kexec_load, Refuse(libc::EPERM)),
    (libc::SYS_init_module, Refuse(libc::EPERM)),
    (libc::SYS_finit_module, Refuse(libc::EPERM)),
    (libc::SYS_delete_module, Refuse(libc::EPERM)),
    (libc::SYS_reboot, Refuse(libc::EPERM)),
    (libc::SYS_syslog, Refuse(libc::EPERM)),
    (libc::SYS_acct, Refuse(libc::EPERM)),
    (libc::SYS_quotactl, Refuse(libc::EPERM)),
    (libc::SYS_quotactl_fd, Refuse(libc::EPERM)),
    (libc::SYS_sethostname, Refuse(libc::EPERM)),
    (libc::SYS_setdomainname, Refuse(libc::EPERM)),
    (libc::SYS_settimeofday, Refuse(libc::EPERM)),
    (libc::SYS_clock_settime, Refuse(libc::EPERM)),
    (libc::SYS_clock_adjtime, Refuse(libc::EPERM)),
    (libc::SYS_adjtimex, Refuse(libc::EPERM)),
    (libc::SYS_vhangup, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_kexec_file_load, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_iopl, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_ioperm, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_modify_ldt, Refuse(libc::ENOSYS)),
];

// Calls that change another process, which would reach the warden, and through it the next command.
const PRIO_USER: u32 = 2;
const IOPRIO_WHO_USER: u32 = 3;

/// In a pid namespace the warden has the number 1, and its process group too. Everything of its user is it as well.
const NOT_THE_WARDEN: &[(c_long, Rule)] = &[
    (libc::SYS_prlimit64, not_first(&[(0, &[1])])),
    (libc::SYS_sched_setaffinity, not_first(&[(0, &[1])])),
    (libc::SYS_sched_setscheduler, not_first(&[(0, &[1])])),
    (libc::SYS_sched_setparam, not_first(&[(0, &[1])])),
    (libc::SYS_sched_setattr, not_first(&[(0, &[1])])),
    (libc::SYS_setpriority, not_first(&[(0, &[PRIO_USER]), (1, &[1])])),
    (
        libc::SYS_ioprio_set,
        not_first(&[(0, &[IOPRIO_WHO_USER]), (1, &[1])]),
    ),
];

const fn not_first(any: &'static [Values]) -> Rule {
    RefuseWhere {
        any,
        errno: libc::EPERM,
    }
}

/// Elsewhere the warden is one number among many: only the caller itself.
const ONLY_ITSELF: &[(c_long, Rule)] = &[
    (libc::SYS_prlimit64, only_itself(&[(0, &[0])])),
    (libc::SYS_sched_setaffinity, only_itself(&[(0, &[0])])),
    (libc::SYS_sched_setscheduler, only_itself(&[(0, &[0])])),
    (libc::SYS_sched_setparam, only_itself(&[(0, &[0])])),
    (libc::SYS_sched_setattr, only_itself(&[(0, &[0])])),
    (libc::SYS_setpriority, only_itself(&[(0, &[0, 1]), (1, &[0])])),
    (libc::SYS_ioprio_set, only_itself(&[(0, &[1, 2]), (1, &[0])])),
];

const fn only_itself(all: &'static [Values]) -> Rule {
    RefuseUnless {
        all,
        errno: libc::EPERM,
    }
}

/// `fchmodat2`, which has this number everywhere; not every C library names it.
const FCHMODAT2: c_long = 452;

/// Without a mount namespace paths are the host's, and Landlock knows no changes of what a file says of itself: by path there
/// are none. What is open may be changed, since Landlock decides what is opened.
const NO_CHANGES_BY_PATH: &[(c_long, Rule)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, Refuse(libc::EPERM)),
    (libc::SYS_fchmodat, Refuse(libc::EPERM)),
    (FCHMODAT2, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, Refuse(libc::EPERM)),
    (libc::SYS_fchownat, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utime, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utimes, Refuse(libc::EPERM)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_futimesat, Refuse(libc::EPERM)),
    (
        libc::SYS_utimensat,
        RefuseUnlessNull {
            argument: 1,
            errno: libc::EPERM,
        },
    ),
    (libc::SYS_truncate, Refuse(libc::EPERM)),
];

/// Where commands are the runner's own user, what they open to read may be that person's.
const NO_CHANGES_AT_ALL: &[(c_long, Rule)] = &[
    (libc::SYS_fchmod, Refuse(libc::EPERM)),
    (libc::SYS_fchown, Refuse(libc::EPERM)),
];

/// Where no pid namespace holds all that a command starts, its process group does: nobody may leave it.
const STAY_IN_GROUP: &[(c_long, Rule)] = &[
    (libc::SYS_setsid, Refuse(libc::EPERM)),
    (libc::SYS_setpgid, Refuse(libc::EPERM)),
];

/// The newest call that was looked at for the list above. Newer ones, and x32's, do not exist.
const NEWEST: c_long = libc::SYS_mseal;

/// `AUDIT_ARCH_…` of the host's own architecture: programs of another one are killed at their first call.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xC000_00F3;

// Offsets in `struct seccomp_data`; all these hosts are little-endian.
const NUMBER: u32 = 0;
const ARCH_FIELD: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What else holds a command, and what a filter must do in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// A pid namespace of its own.
    pub(super) own_pids: bool,
    /// A mount namespace, with a root of its own.
    pub(super) own_root: bool,
    /// A user that is not the runner's.
    pub(super) other_user: bool,
}

/// The program for every command.
pub(super) fn program(around: Around) -> Vec<sock_filter> {
    let mut rules = RULES.to_vec();
    rules.extend(match around.own_pids {
        true => NOT_THE_WARDEN,
        false => ONLY_ITSELF,
    });
    if !around.own_root {
        rules.extend(NO_CHANGES_BY_PATH);
        if !around.other_user {
            rules.extend(NO_CHANGES_AT_ALL);
        }
    }
    compile(&rules)
}

/// A second program, for commands without a pid namespace of their own, once they lead a process group.
pub(super) fn stay_in_group() -> Vec<sock_filter> {
    compile(STAY_IN_GROUP)
}

fn compile(rules: &[(c_long, Rule)]) -> Vec<sock_filter> {
    let mut code = vec![
        load(ARCH_FIELD),
        jump(libc::BPF_JEQ, ARCH, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        jump(libc::BPF_JGT, NEWEST as u32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for (call, rule) in rules {
        let mut block = Vec::new();
        match *rule {
            Refuse(errno) => block.push(refuse(errno)),
            RefuseBits {
                argument,
                bits,
                errno,
            } => block.extend([
                load(ARGUMENTS + 8 * argument),
                jump(libc::BPF_JSET, bits, 0, 1),
                refuse(errno),
                answer(libc::SECCOMP_RET_ALLOW),
            ]),
            RefuseUnless { all, errno } => {
                for (argument, values) in all {
                    block.push(load(ARGUMENTS + 8 * argument));
                    // Each value that fits goes on behind the refusal.
                    for (left, value) in (1..=values.len() as u8).rev().zip(*values) {
                        block.push(jump(libc::BPF_JEQ, *value, left, 0));
                    }
                    block.push(refuse(errno));
                }
                block.push(answer(libc::SECCOMP_RET_ALLOW));
            }
            RefuseWhere { any, errno } => {
                for (argument, values) in any {
                    block.push(load(ARGUMENTS + 8 * argument));
                    for value in *values {
                        block.push(jump(libc::BPF_JEQ, *value, 0, 1));
                        block.push(refuse(errno));
                    }
                }
                block.push(answer(libc::SECCOMP_RET_ALLOW));
            }
            RefuseUnlessNull { argument, errno } => block.extend([
                load(ARGUMENTS + 8 * argument),
                jump(libc::BPF_JEQ, 0, 0, 3),
                load(ARGUMENTS + 8 * argument + 4),
                jump(libc::BPF_JEQ, 0, 0, 1),
                answer(libc::SECCOMP_RET_ALLOW),
                refuse(errno),
            ]),
        }
        code.push(jump(libc::BPF_JEQ, *call as u32, 0, block.len() as u8));
        code.append(&mut block);
    }
    code.push(answer(libc::SECCOMP_RET_ALLOW));
    code
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(test: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, value, yes, no)
}

fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

fn refuse(errno: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA))
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the program answers to a call.
    fn run(code: &[sock_filter], arch: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &code[at];
            at += 1;
            let class = u32::from(step.code) & 0x07;
            if class == libc::BPF_LD {
                value = match step.k {
                    NUMBER => number,
                    ARCH_FIELD => arch,
                    // Upper halves are as the lower: enough to tell null.
                    offset => arguments[((offset - ARGUMENTS) / 8) as usize],
                };
            } else if class == libc::BPF_RET {
                return step.k;
            } else {
                let holds = match u32::from(step.code) & 0xF0 {
                    libc::BPF_JEQ => value == step.k,
                    libc::BPF_JGT => value > step.k,
                    libc::BPF_JSET => value & step.k != 0,
                    other => panic!("{other:#x}"),
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    const WELL: Around = Around {
        own_pids: true,
        own_root: true,
        other_user: true,
    };

    fn call(number: c_long, arguments: [u32; 6]) -> u32 {
        call_in(WELL, number, arguments)
    }

    fn call_in(around: Around, number: c_long, arguments: [u32; 6]) -> u32 {
        run(&program(around), ARCH, number as u32, arguments)
    }

    fn error(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno as u32
    }

    #[test]
    fn every_listed_call_is_refused_and_others_are_not() {
        for (number, rule) in RULES {
            let (arguments, errno) = match *rule {
                Refuse(errno) => ([0; 6], errno),
                RefuseBits { bits, errno, .. } => ([bits; 6], errno),
                RefuseUnless { errno, .. } => ([77; 6], errno),
                RefuseWhere { any, errno } => ([any[0].1[any[0].1.len() - 1]; 6], errno),
                RefuseUnlessNull { errno, .. } => ([1; 6], errno),
            };
            assert_eq!(call(*number, arguments), error(errno), "{number}");
        }
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_wait4, libc::SYS_mseal] {
            assert_eq!(call(number, [u32::MAX; 6]), libc::SECCOMP_RET_ALLOW, "{number}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let fork = libc::SIGCHLD as u32;
        assert_eq!(call(libc::SYS_clone, [fork; 6]), libc::SECCOMP_RET_ALLOW);
        let user = fork | libc::CLONE_NEWUSER as u32;
        assert_eq!(call(libc::SYS_clone, [user; 6]), error(libc::EPERM));
        let tcgets = [0, libc::TCGETS as u32, 0, 0, 0, 0];
        assert_eq!(call(libc::SYS_ioctl, tcgets), libc::SECCOMP_RET_ALLOW);
        let unix = libc::AF_UNIX as u32;
        assert_eq!(call(libc::SYS_socket, [unix; 6]), error(libc::EACCES));
        let pair = |family: u32, kind: i32| call(libc::SYS_socketpair, [family, kind as u32, 0, 0, 0, 0]);
        for flags in [0, libc::SOCK_CLOEXEC, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK] {
            assert_eq!(pair(unix, libc::SOCK_STREAM | flags), libc::SECCOMP_RET_ALLOW);
            for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET, libc::SOCK_RAW] {
                assert_eq!(pair(unix, kind | flags), error(libc::EACCES));
            }
        }
        assert_eq!(pair(libc::AF_TIPC as u32, libc::SOCK_STREAM), error(libc::EACCES));
    }

    #[test]
    fn nobody_reaches_the_warden() {
        let alone = Around {
            own_pids: false,
            ..WELL
        };
        for number in [
            libc::SYS_prlimit64,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            let of = |around, pid| call_in(around, number, [pid, 1, 1, 1, 1, 1]);
            assert_eq!(of(WELL, 0), libc::SECCOMP_RET_ALLOW);
            assert_eq!(of(WELL, 2), libc::SECCOMP_RET_ALLOW);
            assert_eq!(of(WELL, 1), error(libc::EPERM));
            assert_eq!(of(alone, 0), libc::SECCOMP_RET_ALLOW);
            assert_eq!(of(alone, 2), error(libc::EPERM));
        }
        // Priority: of a process, of a group, of a user; then of whom.
        for (number, [process, group, user]) in [
            (libc::SYS_setpriority, [0, 1, 2]),
            (libc::SYS_ioprio_set, [1, 2, 3]),
        ] {
            let of = |around, which, who| call_in(around, number, [which, who, 0, 0, 0, 0]);
            assert_eq!(of(WELL, process, 7), libc::SECCOMP_RET_ALLOW);
            for around in [WELL, alone] {
                assert_eq!(of(around, process, 0), libc::SECCOMP_RET_ALLOW);
                assert_eq!(of(around, process, 1), error(libc::EPERM));
                assert_eq!(of(around, group, 1), error(libc::EPERM));
                assert_eq!(of(around, user, 0), error(libc::EPERM));
            }
            assert_eq!(of(alone, process, 7), error(libc::EPERM));
        }
    }

    #[test]
    fn without_a_mount_namespace_nothing_is_changed_by_its_path() {
        let host = Around {
            own_root: false,
            ..WELL
        };
        let own = Around {
            other_user: false,
            ..host
        };
        let changes = NO_CHANGES_BY_PATH
            .iter()
            .chain(NO_CHANGES_AT_ALL)
            .map(|(number, _)| *number);
        for number in changes {
            let open = [libc::SYS_fchmod, libc::SYS_fchown].contains(&number);
            assert_eq!(call_in(WELL, number, [1; 6]), libc::SECCOMP_RET_ALLOW, "{number}");
            let by_path = if open {
                libc::SECCOMP_RET_ALLOW
            } else {
                error(libc::EPERM)
            };
            assert_eq!(call_in(host, number, [1; 6]), by_path, "{number}");
            assert_eq!(call_in(own, number, [1; 6]), error(libc::EPERM), "{number}");
        }
        // Of what is open.
        let times = call_in(own, libc::SYS_utimensat, [5, 0, 0, 0, 0, 0]);
        assert_eq!(times, libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn what_is_newer_or_foreign_does_not_exist() {
        assert_eq!(call(NEWEST + 1, [0; 6]), error(libc::ENOSYS));
        assert_eq!(call(0x4000_0000 | libc::SYS_read, [0; 6]), error(libc::ENOSYS));
        let foreign = run(&program(WELL), ARCH ^ 0x8000_0000, libc::SYS_read as u32, [0; 6]);
        assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn without_a_pid_namespace_nobody_leaves_the_group() {
        for number in [libc::SYS_setsid, libc::SYS_setpgid] {
            assert_eq!(call(number, [0; 6]), libc::SECCOMP_RET_ALLOW);
            let answer = run(&stay_in_group(), ARCH, number as u32, [0; 6]);
            assert_eq!(answer, error(libc::EPERM));
        }
    }
}
