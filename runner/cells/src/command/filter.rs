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
    /// With this error unless an argument has this value.
    RefuseUnless { argument: u32, value: u32, errno: i32 },
    /// With this error when an argument has one of these values.
    RefuseValues {
        argument: u32,
        values: &'static [u32],
        errno: i32,
    },
}

use Rule::{Refuse, RefuseBits, RefuseUnless, RefuseValues};

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

const RULES: &[(c_long, Rule)] = &[
    // The network. Pairs of connected sockets stay, many programs use them among their own processes.
    (libc::SYS_socket, Refuse(libc::EACCES)),
    (
        libc::SYS_socketpair,
        RefuseUnless {
            argument: 0,
            value: libc::AF_UNIX as u32,
            errno: libc::EACCES,
        },
    ),
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
        RefuseValues {
            argument: 1,
            values: IOCTLS,
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

/// The program for every command.
pub(super) fn program() -> Vec<sock_filter> {
    compile(RULES)
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
        let mut block = match *rule {
            Refuse(errno) => vec![refuse(errno)],
            RefuseBits {
                argument,
                bits,
                errno,
            } => vec![
                load(ARGUMENTS + 8 * argument),
                jump(libc::BPF_JSET, bits, 0, 1),
                refuse(errno),
                answer(libc::SECCOMP_RET_ALLOW),
            ],
            RefuseUnless {
                argument,
                value,
                errno,
            } => vec![
                load(ARGUMENTS + 8 * argument),
                jump(libc::BPF_JEQ, value, 1, 0),
                refuse(errno),
                answer(libc::SECCOMP_RET_ALLOW),
            ],
            RefuseValues {
                argument,
                values,
                errno,
            } => {
                let mut block = vec![load(ARGUMENTS + 8 * argument)];
                for value in values {
                    block.push(jump(libc::BPF_JEQ, *value, 0, 1));
                    block.push(refuse(errno));
                }
                block.push(answer(libc::SECCOMP_RET_ALLOW));
                block
            }
        };
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

    fn call(number: c_long, arguments: [u32; 6]) -> u32 {
        run(&program(), ARCH, number as u32, arguments)
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
                RefuseUnless { value, errno, .. } => ([value + 1; 6], errno),
                RefuseValues { values, errno, .. } => ([values[values.len() - 1]; 6], errno),
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
        let unix = [libc::AF_UNIX as u32; 6];
        assert_eq!(call(libc::SYS_socketpair, unix), libc::SECCOMP_RET_ALLOW);
        assert_eq!(call(libc::SYS_socket, unix), error(libc::EACCES));
        let tcgets = [0, libc::TCGETS as u32, 0, 0, 0, 0];
        assert_eq!(call(libc::SYS_ioctl, tcgets), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn what_is_newer_or_foreign_does_not_exist() {
        assert_eq!(call(NEWEST + 1, [0; 6]), error(libc::ENOSYS));
        assert_eq!(call(0x4000_0000 | libc::SYS_read, [0; 6]), error(libc::ENOSYS));
        let foreign = run(&program(), ARCH ^ 0x8000_0000, libc::SYS_read as u32, [0; 6]);
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
