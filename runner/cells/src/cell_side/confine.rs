//! A cell's confinement of itself, before it reads anything hostile.
//!
//! Layers, each on top of what the runner did around the process (namespaces, limits, closed descriptors):
//! limits that cannot be raised again, no core dump and no tracer, no new privileges, Landlock with nothing allowed (as
//! far as the kernel knows it), and a seccomp allow-list whose default is to kill the process.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::CellError;

/// What a kind of cell must still be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Whether memory may be made executable: an emulator that translates code needs it.
    pub executable_memory: bool,
    /// Whether threads may be made.
    pub threads: bool,
}

impl Profile {
    /// For `hotcell-unicorn`: translates guest code, runs in one thread.
    pub const fn unicorn() -> Self {
        Self {
            executable_memory: true,
            threads: false,
        }
    }

    /// For `hotcell-inspect`: only reads and computes.
    pub const fn inspect() -> Self {
        Self {
            executable_memory: false,
            threads: false,
        }
    }
}

/// Confines the calling process for good and names the layers that hold. It must have one thread only: the filter binds
/// the calling thread and those it makes later. Fails where a layer fails without which no hostile byte may be read.
pub fn confine_self(profile: &Profile) -> Result<Vec<String>, CellError> {
    let mut layers = Vec::new();
    let cannot = |layer: &str, error: &dyn std::fmt::Display| CellError::Confine(format!("{layer}: {error}"));

    prctl::set_dumpable(false).map_err(|error| cannot("dumpable", &error))?;
    for (limit, most) in [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_FSIZE, 0)] {
        setrlimit(limit, most, most).map_err(|error| cannot("limits", &error))?;
    }
    // No further descriptor beyond what is open and a few for duplicates of blobs.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| cannot("limits", &error))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard.min(1024))
        .map_err(|error| cannot("limits", &error))?;
    layers.push("rlimits".into());

    prctl::set_no_new_privs().map_err(|error| cannot("no-new-privs", &error))?;
    layers.push("no-new-privs".into());

    // Best effort: the crate leaves out what this kernel does not know. Seccomp below refuses the same things.
    match landlock_nothing() {
        Ok(RulesetStatus::FullyEnforced) => layers.push("landlock".into()),
        Ok(RulesetStatus::PartiallyEnforced) => layers.push("landlock-partial".into()),
        Ok(RulesetStatus::NotEnforced) | Err(_) => {}
    }

    let filters = seccomp_filters(profile).map_err(|error| cannot("seccomp", &error))?;
    for filter in filters {
        seccompiler::apply_filter(&filter).map_err(|error| cannot("seccomp", &error))?;
    }
    layers.push("seccomp".into());
    Ok(layers)
}

fn landlock_nothing() -> Result<RulesetStatus, landlock::RulesetError> {
    let newest = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Calls that are always allowed: memory, the inherited descriptors, time, signals of the own process, the end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// Calls that libraries try and do without: answered with ENOSYS instead of death.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_ioctl,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
];

fn seccomp_filters(profile: &Profile) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(seccompiler::Error::Backend)?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let mut absent: BTreeMap<i64, Vec<SeccompRule>> = ABSENT.iter().map(|call| (*call, Vec::new())).collect();

    // prctl is absent too, but for the one question that applying the second filter asks (and which takes only rights away).
    absent.insert(
        libc::SYS_prctl,
        vec![rule(&[(0, SeccompCmpOp::Ne, libc::PR_SET_NO_NEW_PRIVS as u64)])?],
    );
    // Memory: executable only where the profile says so.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let rules = match profile.executable_memory {
            true => Vec::new(),
            false => vec![rule(&[(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)])?],
        };
        allowed.insert(call, rules);
    }
    // Streams only: no descriptor is handed to the runner (sendmsg), and no out-of-band byte sent or taken, the part of the
    // kernel's Unix sockets that has been broken out through before (CVE-2025-38236).
    let only_quiet = SeccompCmpOp::MaskedEq(u64::from((!libc::MSG_NOSIGNAL).cast_unsigned()));
    allowed.insert(libc::SYS_sendto, vec![rule(&[(3, only_quiet, 0)])?]);
    let in_band = SeccompCmpOp::MaskedEq(libc::MSG_OOB as u64);
    allowed.insert(libc::SYS_recvfrom, vec![rule(&[(3, in_band.clone(), 0)])?]);
    allowed.insert(libc::SYS_recvmsg, vec![rule(&[(2, in_band, 0)])?]);
    // Advice on memory, but not to spoil its pages for all who share them: a cell that could not leave root would be heard.
    let harmless = SeccompCmpOp::Lt;
    allowed.insert(
        libc::SYS_madvise,
        vec![rule(&[(2, harmless, libc::MADV_HWPOISON as u64)])?],
    );
    // Descriptor flags and seals may be read, descriptors duplicated; no signals by F_SETOWN, no leases.
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GET_SEALS,
    ];
    let commands: Result<Vec<_>, _> = commands
        .iter()
        .map(|command| rule(&[(1, SeccompCmpOp::Eq, *command as u64)]))
        .collect();
    allowed.insert(libc::SYS_fcntl, commands?);
    // abort() signals the own process.
    let own = u64::from(std::process::id());
    allowed.insert(libc::SYS_tgkill, vec![rule(&[(0, SeccompCmpOp::Eq, own)])?]);
    if profile.threads {
        let flags = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u64;
        allowed.insert(
            libc::SYS_clone,
            vec![rule(&[(0, SeccompCmpOp::MaskedEq(flags), flags)])?],
        );
        for call in [libc::SYS_set_robust_list, libc::SYS_rseq] {
            absent.remove(&call);
            allowed.insert(call, Vec::new());
        }
    }
    // Of two filters the stricter answer holds: what the first answers, the second must let pass.
    for call in absent.keys() {
        allowed.insert(*call, Vec::new());
    }
    let build = |rules, otherwise, matching| -> Result<BpfProgram, seccompiler::Error> {
        SeccompFilter::new(rules, otherwise, matching, arch)
            .and_then(BpfProgram::try_from)
            .map_err(seccompiler::Error::Backend)
    };
    Ok(vec![
        build(
            absent,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?,
        // Applied last: it does not allow the call that applies filters.
        build(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}

/// A rule: every listed argument (index, comparison, value) as 32 bits.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(index, operator, value)| {
            SeccompCondition::new(*index, SeccompCmpArgLen::Dword, operator.clone(), *value)
        })
        .collect();
    conditions
        .and_then(SeccompRule::new)
        .map_err(seccompiler::Error::Backend)
}
