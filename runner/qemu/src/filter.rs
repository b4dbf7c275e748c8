//! Which system calls are refused: first those that nobody in a cell needs, then those that only its first processes need.
//!
//! What a guest asks of Linux, QEMU asks of the host, so that a list of what is allowed would be most of Linux. Refused is
//! what reaches beyond the namespaces, what has been broken through before, and what a guest without privileges cannot do.

use std::collections::BTreeMap;

use hotcell_schema::deny::{Denied, Deny, When};
#[cfg(target_arch = "x86_64")]
use seccompiler::sock_filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use syscalls::Sysno;

/// Nobody's, from the keeper on: the kernel's own matters, and what is not bound to a namespace.
const NOBODYS: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Not the guest's: what would change its walls, or reach another process.
const NOT_THE_GUESTS: &[libc::c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// Namespaces that a clone must not ask for (`CLONE_NEW…`).
const NAMESPACES: libc::c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Calls, each with the rules of which one must hold; none: always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Families of sockets that know namespaces of networks, and that programs use (address_families(7)). Others are the host's
/// (`AF_VSOCK` reaches the machine that it runs in), or old doors into the kernel.
const FAMILIES: [libc::c_int; 5] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
];

/// Types of sockets, in the lowest four bits of their argument (`SOCK_TYPE_MASK`, include/linux/net.h): streams, datagrams, RDM,
/// packets in order, DCCP. Raw ones take a capability that no guest has.
const TYPES: [u64; 5] = [1, 2, 4, 5, 6];

/// What the sockets of IP may speak (include/uapi/linux/in.h): what their type is for, TCP, UDP. What is denied is asked of these
/// alone; the kernel may have others (UDP-Lite, SCTP, MPTCP, echoes of ICMP), and programs do without.
const PROTOCOLS: [libc::c_int; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];

/// Sockets of IP with other protocols.
fn other_protocols() -> Result<Rules, String> {
    let number = |argument, op, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value);
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in TYPES {
            let others = PROTOCOLS.map(|protocol| number(2, SeccompCmpOp::Ne, protocol as u64));
            let all = [
                number(0, SeccompCmpOp::Eq, family as u64),
                number(1, SeccompCmpOp::MaskedEq(0xf), kind),
            ];
            let all: Result<Vec<_>, _> = all.into_iter().chain(others).collect();
            rules.push(
                all.and_then(SeccompRule::new)
                    .map_err(|error| error.to_string())?,
            );
        }
    }
    Ok(BTreeMap::from([(libc::SYS_socket, rules)]))
}

/// For the keeper and all that it makes.
pub(crate) fn nobodys() -> Result<Vec<BpfProgram>, String> {
    let refused = NOBODYS.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![build(refused, libc::EPERM)?])
}

/// By which the kernel knows the one `execve` that makes the guest, where the guest may make none: numbers in the two registers
/// behind its arguments, which nobody but the filter reads. Whoever knew them is gone when it has been made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(pub(crate) [u64; 2]);

/// For the guest, on top of that. `deny`: what the manifest refuses it.
pub(crate) fn guests(deny: &Deny, key: Key) -> Result<Vec<BpfProgram>, String> {
    let mut refused: Rules = NOT_THE_GUESTS.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = single_bits(u64::from(NAMESPACES.cast_unsigned()))
        .map(|bit| rule(0, SeccompCmpOp::MaskedEq(bit), bit))
        .collect::<Result<_, _>>()?;
    let mut namespaces: Vec<SeccompRule> = namespaces;
    // Whoever traces it is to be told of all of it.
    let untraced = libc::CLONE_UNTRACED as u64;
    namespaces.push(rule(0, SeccompCmpOp::MaskedEq(untraced), untraced)?);
    refused.insert(libc::SYS_clone, namespaces);
    // Its flags lie in memory: libraries do without it where it is missing, not where it is refused.
    let mut absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (denied, _) in deny.each() {
        deny_one(denied, key, &mut refused, &mut absent)?;
    }
    let of_others: Result<Vec<_>, _> = FAMILIES
        .iter()
        .map(|family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *family as u64))
        .collect();
    let of_others = of_others
        .and_then(SeccompRule::new)
        .map_err(|error| error.to_string())?;
    let sockets = [libc::SYS_socket, libc::SYS_socketpair];
    let sockets = sockets
        .iter()
        .map(|call| (*call, vec![of_others.clone()]))
        .collect();
    // It stays on the cores that its cell was given, and is told that it moved.
    let pretended = BTreeMap::from([(libc::SYS_sched_setaffinity, Vec::new())]);
    Ok(vec![
        #[cfg(target_arch = "x86_64")]
        no_x32(),
        build(refused, libc::EPERM)?,
        build(absent, libc::ENOSYS)?,
        build(sockets, libc::EAFNOSUPPORT)?,
        build(other_protocols()?, libc::EPROTONOSUPPORT)?,
        build(pretended, 0)?,
        // The last one: after it there are no others. QEMU knows no such calls either, and a filter of the guest's own could have calls
        // come back with what it likes.
        build(own_filters()?, libc::EINVAL)?,
    ])
}

/// The same calls have other numbers for programs of x32, with bit 30 (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h),
/// in what the kernel takes for the same architecture: there are none.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> BpfProgram {
    let statement = |code: u32, jt: u8, k: u32| sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    vec![
        // The number, the first field of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0x4000_0000),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
    ]
}

/// How a program filters its own calls (seccomp(2), `PR_SET_SECCOMP` of prctl(2)).
fn own_filters() -> Result<Rules, String> {
    // The kernel looks at the lower half of the argument only.
    let by_prctl = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::PR_SET_SECCOMP.cast_unsigned()),
    )
    .and_then(|condition| SeccompRule::new(vec![condition]))
    .map_err(|error| error.to_string())?;
    Ok(BTreeMap::from([
        (libc::SYS_seccomp, Vec::new()),
        (libc::SYS_prctl, vec![by_prctl]),
    ]))
}

/// Refuses one thing, as far as numbers say whether a call is it. Where addresses do, the monitor's part in the kernel refuses.
fn deny_one(denied: Denied, key: Key, refused: &mut Rules, absent: &mut Rules) -> Result<(), String> {
    for call in denied.calls() {
        // The host's architecture does not have it.
        let Ok(number) = call.name.parse::<Sysno>() else {
            continue;
        };
        let rules = match call.when {
            When::Always if number == Sysno::execve => {
                let keys = (3..).zip(key.0);
                keys.map(|(argument, key)| rule(argument, SeccompCmpOp::Ne, key))
                    .collect::<Result<_, _>>()?
            }
            When::Always => Vec::new(),
            When::Bits(argument, bits) => single_bits(bits)
                .map(|bit| rule(argument, SeccompCmpOp::MaskedEq(bit), bit))
                .collect::<Result<_, _>>()?,
            When::BitsAt(..) => {
                absent.insert(i64::from(number.id()), Vec::new());
                continue;
            }
            When::Unix(_) | When::Address(_) | When::Message(_) => continue,
        };
        refused.insert(i64::from(number.id()), rules);
    }
    Ok(())
}

/// The bits of a number, each alone.
fn single_bits(bits: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(move |bit| bits & bit != 0)
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

fn build(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|error: seccompiler::BackendError| error.to_string())?;
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        arch,
    )
    .and_then(BpfProgram::try_from)
    .map_err(|error| error.to_string())
}

/// Applies filters to this process, for good.
pub(crate) fn apply(filters: &[BpfProgram]) -> Result<(), String> {
    filters
        .iter()
        .try_for_each(|filter| seccompiler::apply_filter(filter))
        .map_err(|error| format!("seccomp: {error}"))
}
