//! A cell attacks from inside, behind all the walls that this host has and behind fewer: what it tries ends it, is refused or
//! has no effect, and its neighbours never notice.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Kept, PAYLOAD, behind, job, job_about};
use hotcell_cells::contract::{Cell, CellFault};
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{Ending, Interruption, ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::fault::FaultKind;

/// What becomes of an attack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    /// The filter of system calls ends the cell.
    Killed,
    /// The memory that it touches ends the cell.
    Crashed,
    /// The kernel says no.
    Refused,
    /// It is done, and nobody else can tell.
    Harmless,
}
use Holds::{Crashed, Harmless, Killed, Refused};

const ATTACKS: &[(&str, Holds)] = &[
    ("file:read", Killed),
    ("file:write", Killed),
    ("file:create", Killed),
    ("file:creat", Killed),
    ("file:own-memory", Killed),
    ("file:device", Killed),
    ("file:group", Killed),
    ("file:openat2", Killed),
    ("file:stat", Refused),
    ("file:handle", Killed),
    ("file:memory-file", Killed),
    ("file:unlink", Killed),
    ("file:link", Killed),
    ("file:mkdir", Killed),
    ("file:chmod", Killed),
    ("socket:inet", Killed),
    ("socket:inet6", Killed),
    ("socket:unix", Killed),
    ("socket:netlink", Killed),
    ("socket:vsock", Killed),
    ("socket:packet", Killed),
    ("socket:pair", Killed),
    ("socket:connect", Killed),
    ("socket:out-of-band", Killed),
    ("socket:take-out-of-band", Killed),
    ("socket:hand-over", Killed),
    ("socket:owner", Killed),
    ("process:fork", Killed),
    ("process:clone", Killed),
    ("process:clone-users", Killed),
    ("process:clone3", Refused),
    ("process:thread", Killed),
    ("process:exec", Killed),
    ("process:exec-payload", Killed),
    ("process:kill", Killed),
    ("process:kill-parent", Killed),
    ("process:kill-all", Killed),
    ("process:kill-group", Killed),
    ("process:tgkill", Killed),
    ("process:tkill", Killed),
    ("process:queue", Killed),
    ("process:pidfd", Killed),
    ("process:pidfd-signal", Killed),
    ("process:pidfd-take", Killed),
    ("process:trace", Killed),
    ("process:trace-me", Killed),
    ("process:read-memory", Killed),
    ("process:write-memory", Killed),
    ("process:compare", Killed),
    ("process:other-cores", Killed),
    ("process:real-time", Killed),
    ("process:nice", Killed),
    ("process:limits", Killed),
    ("process:outlive", Refused),
    ("process:dumpable", Refused),
    ("process:session", Killed),
    ("process:root", Killed),
    ("payload:write", Refused),
    ("payload:write-at", Killed),
    ("payload:store", Crashed),
    ("payload:map-writable", Refused),
    ("payload:map-private", Harmless),
    ("payload:unprotect", Refused),
    ("payload:punch", Refused),
    ("payload:poison", Killed),
    ("payload:take-offline", Killed),
    ("payload:truncate", Killed),
    ("payload:allocate", Killed),
    ("payload:splice", Killed),
    ("payload:copy", Killed),
    ("payload:unseal", Killed),
    ("payload:mode", Killed),
    ("payload:offset", Harmless),
    ("kernel:uring", Killed),
    ("kernel:bpf", Killed),
    ("kernel:perf", Killed),
    ("kernel:userfaults", Killed),
    ("kernel:keys", Killed),
    ("kernel:unshare", Killed),
    ("kernel:enter", Killed),
    ("kernel:mount", Killed),
    ("kernel:new-mount", Killed),
    ("kernel:root", Killed),
    ("kernel:module", Killed),
    ("kernel:filter", Killed),
    ("kernel:clock", Killed),
    ("kernel:timer", Killed),
    ("kernel:shared-memory", Killed),
    ("kernel:queue", Killed),
    ("kernel:lock-memory", Killed),
    ("kernel:executable-memory", Killed),
    ("kernel:terminal", Refused),
    #[cfg(target_arch = "x86_64")]
    ("kernel:x32", Killed),
];

const LIMITS: HostLimits = HostLimits {
    wall_ms: 120_000,
    cpu_s: 600,
    address_space: 128 << 30,
    memory: 2 << 30,
    descriptors: 256,
    tasks: 1,
    file_bytes: 0,
};

/// Everything that a job gives, for comparison.
fn given(cell: &mut ProcessCell, what: &str) -> String {
    let mut kept = Kept::default();
    let ending = cell.run(&job(what), &mut kept);
    assert!(matches!(ending, Ending::Done(_)), "{what}: {ending:?}");
    format!("{ending:?} {:?} {:?}", kept.events, kept.outputs)
}

/// What came of an attack, and the words for it.
fn tried(sandbox: &Sandbox, blob: &SealedBlob, attack: &str, target: i32) -> (Holds, String) {
    let mut cell = behind(sandbox, LIMITS, blob);
    let mut kept = Kept::default();
    let ending = cell.run(&job_about(attack, target), &mut kept);
    let kind = cell.post_mortem().map(|found| found.kind);
    match (ending, kind) {
        (Ending::Failed(why), Some(FaultKind::ForbiddenCall)) => (Killed, why),
        (Ending::Failed(why), Some(FaultKind::EngineCrash)) => (Crashed, why),
        (Ending::Done(_), None) => {
            let said = String::from_utf8(kept.outputs[0].2.clone()).unwrap();
            match said.starts_with("refused: ") {
                true => (Refused, said),
                false => (Harmless, said),
            }
        }
        other => panic!("{attack}: {other:?}"),
    }
}

/// All attacks, while two neighbours are there with the same payload: one that computes, and one that is attacked.
fn all_hold(sandbox: &Sandbox) {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let calm = given(&mut behind(sandbox, LIMITS, &blob), "steady");
    let mut target = behind(sandbox, LIMITS, &blob);
    target.start(&job("answer")).unwrap();
    let pid = target.process_id();
    let over = AtomicBool::new(false);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let mut runs = 0;
            while !over.load(Ordering::Relaxed) || runs == 0 {
                assert_eq!(given(&mut behind(sandbox, LIMITS, &blob), "steady"), calm);
                runs += 1;
            }
        });
        let tried = ATTACKS
            .iter()
            .map(|(attack, holds)| (attack, holds, tried(sandbox, &blob, attack, pid)));
        let wrong = tried
            .filter(|(_, holds, (found, _))| found != *holds)
            .map(|(attack, holds, found)| format!("{attack}: {found:?}, expected {holds:?}"))
            .collect();
        over.store(true, Ordering::Relaxed);
        neighbour.join().unwrap();
        wrong
    });
    assert_eq!(wrong, Vec::<String>::new(), "{:?}", sandbox.layers);
    target.pause().unwrap();
    target.resume().unwrap();
    target.force_stop().unwrap();

    let seen = fs::read(format!("/proc/self/fd/{}", blob.as_fd().as_raw_fd())).unwrap();
    assert_eq!(seen, PAYLOAD);
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", blob.as_fd().as_raw_fd())).unwrap();
    assert!(facts.starts_with("pos:\t0\n"), "{facts}");
    assert!(!Path::new("/tmp/hotcell-escaped").exists());
}

#[test]
fn attacks_fail_behind_all_walls() {
    all_hold(Sandbox::of_this_host());
}

#[test]
fn attacks_fail_without_namespaces() {
    all_hold(&Sandbox::of_this_host().clone().without_namespaces());
}

#[test]
fn attacks_fail_without_namespaces_and_groups() {
    let sandbox = Sandbox::of_this_host()
        .clone()
        .without_namespaces()
        .without_groups();
    assert!(
        sandbox.layers.iter().all(|layer| layer == "own-user"),
        "{sandbox:?}"
    );
    all_hold(&sandbox);
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The same with a runner that is not root, as whom this test starts itself.
#[test]
fn attacks_fail_under_a_runner_that_is_not_root() {
    if !is_root() {
        all_hold(Sandbox::of_this_host());
        all_hold(
            &Sandbox::of_this_host()
                .clone()
                .without_namespaces()
                .without_groups(),
        );
        return;
    }
    let (_folder, tests) = common::for_everybody();
    let output = Command::new("setpriv")
        .args(["--reuid=4711", "--regid=4711", "--clear-groups", "--"])
        .arg(tests)
        .args([
            "--exact",
            "attacks_fail_under_a_runner_that_is_not_root",
            "--nocapture",
        ])
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Calls that a cell can make, and those that are answered as if the kernel had none of them. Whoever lets cells do more
/// says so here too.
#[cfg(target_arch = "x86_64")]
mod calls {
    pub(super) const ALLOWED: &[libc::c_long] = &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_poll,
        libc::SYS_lseek,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_brk,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_pread64,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_sched_yield,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_getpid,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_exit,
        libc::SYS_gettimeofday,
        libc::SYS_sysinfo,
        libc::SYS_sigaltstack,
        libc::SYS_gettid,
        libc::SYS_time,
        libc::SYS_futex,
        libc::SYS_sched_getaffinity,
        libc::SYS_restart_syscall,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_exit_group,
        libc::SYS_ppoll,
        libc::SYS_getrandom,
    ];
    pub(super) const ABSENT: &[libc::c_long] = &[
        libc::SYS_ioctl,
        libc::SYS_prctl,
        libc::SYS_newfstatat,
        libc::SYS_set_robust_list,
        libc::SYS_statx,
        libc::SYS_rseq,
        libc::SYS_clone3,
    ];
}

/// Every system call there is, those of kernels to come included.
#[cfg(target_arch = "x86_64")]
#[test]
fn all_other_system_calls_end_a_cell() {
    let sandbox = Sandbox::of_this_host()
        .clone()
        .without_groups()
        .without_namespaces();
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    for call in (0..=480).chain([511, 512, 547, 1000, 0x7fff_ffff]) {
        let expected = match call {
            _ if calls::ALLOWED.contains(&call) => continue,
            _ if calls::ABSENT.contains(&call) => Refused,
            _ => Killed,
        };
        let (found, why) = tried(&sandbox, &blob, &format!("call:{call}"), 1);
        // Calls of the kernel's own probes, `uretprobe` and `uprobe`: new kernels let them pass every filter, and answer with
        // SIGILL and ENXIO where no probe is (uprobes.c, and `seccomp_uprobe_exception` in kernel/seccomp.c).
        let of_probes = matches!((call, found), (335, Crashed) | (336, Refused));
        assert!(
            found == expected || of_probes,
            "call {call}: {found:?}, expected {expected:?}: {why}"
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_old_table_of_system_calls_is_out_of_reach() {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let (found, why) = tried(Sandbox::of_this_host(), &blob, "kernel:old-table", 1);
    // A kernel without the table raises a fault of its own.
    assert!(matches!(found, Killed | Crashed), "{why}");
}

#[test]
fn descriptors_run_out_for_the_cell_alone() {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let mut cell = behind(Sandbox::of_this_host(), LIMITS, &blob);
    let mut kept = Kept::default();
    let ending = cell.run(&job("take-descriptors"), &mut kept);
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    let taken: u64 = String::from_utf8(kept.outputs[0].2.clone())
        .unwrap()
        .parse()
        .unwrap();
    assert!((200..=LIMITS.descriptors).contains(&taken), "{taken}");
}

#[test]
fn memory_of_the_kernel_counts_as_the_cell_s() {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let limits = HostLimits {
        memory: 48 << 20,
        ..LIMITS
    };
    let all = Sandbox::of_this_host();
    if all.layers.iter().any(|layer| layer == "memory-cgroup") {
        let mut cell = behind(all, limits, &blob);
        let ending = cell.run(&job("take-tables"), &mut Kept::default());
        assert!(
            matches!(ending, Ending::Interrupted(Interruption::Memory)),
            "{ending:?}"
        );
    } else {
        let why = format!("skipped: {:?}\n", all.fallbacks);
        std::io::stderr().write_all(why.as_bytes()).unwrap();
    }
    // Without groups, the address space bounds what tables there can be: a 512th of it.
    let limits = HostLimits {
        address_space: 8 << 30,
        ..LIMITS
    };
    let mut cell = behind(&all.clone().without_groups(), limits, &blob);
    let mut kept = Kept::default();
    let ending = cell.run(&job("take-tables"), &mut kept);
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
    let read: u64 = String::from_utf8(kept.outputs[0].2.clone())
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=4096).contains(&read), "{read}");
}

/// A line of what the kernel says of a cell's process.
fn status(cell: &ProcessCell, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", cell.process_id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .replace('\t', " ")
}

#[test]
fn a_cell_owns_nothing_and_is_the_first_to_end_for_memory() {
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    for sandbox in [
        Sandbox::of_this_host().clone(),
        Sandbox::of_this_host().clone().without_namespaces(),
    ] {
        let cell = behind(&sandbox, LIMITS, &blob);
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", cell.process_id())).unwrap();
        assert_eq!(score.trim(), "1000");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status(&cell, set), "0000000000000000", "{set}");
        }
        if is_root() {
            assert_eq!(status(&cell, "Uid:"), "65534 65534 65534 65534");
            assert_eq!(status(&cell, "Gid:"), "65534 65534 65534 65534");
            assert_eq!(status(&cell, "Groups:"), "");
        }
        assert_eq!(status(&cell, "CoreDumping:"), "0");
        assert_eq!(status(&cell, "Threads:"), "1");
    }
}

/// What holds if the filter of system calls did not: an id that owns nothing, namespaces, groups, limits, seals. The cell attacks
/// before it confines itself.
#[test]
fn the_walls_around_a_cell_hold_by_themselves() {
    let sandbox = Sandbox::of_this_host();
    let needed = ["own-user", "pid-namespace", "network-namespace"];
    if let Some(missing) = needed
        .iter()
        .find(|name| !sandbox.layers.iter().any(|layer| layer == *name))
    {
        let why = format!("skipped: no {missing} here: {:?}\n", sandbox.fallbacks);
        std::io::stderr().write_all(why.as_bytes()).unwrap();
        return;
    }
    const BEHIND: &[&str] = &[
        "process:kill",
        "process:kill-all",
        "process:tgkill",
        "process:tkill",
        "process:queue",
        "process:pidfd",
        "process:trace",
        "process:read-memory",
        "process:write-memory",
        "process:compare",
        "process:fork",
        "process:clone",
        "process:real-time",
        "process:nice",
        "process:limits",
        "process:root",
        "file:write",
        "file:device",
        "file:group",
        "file:unlink",
        "file:chmod",
        "file:handle",
        "socket:packet",
        "payload:write",
        "payload:write-at",
        "payload:map-writable",
        "payload:unprotect",
        "payload:punch",
        "payload:poison",
        "payload:take-offline",
        "payload:truncate",
        "payload:allocate",
        "payload:copy",
        "payload:unseal",
        "payload:mode",
        "kernel:mount",
        "kernel:enter",
        "kernel:root",
        "kernel:module",
        "kernel:clock",
        "kernel:lock-memory",
    ];
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare-cell");
    fs::copy(common::executable().path(), &bare).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let mut target = behind(sandbox, LIMITS, &blob);
    target.start(&job("answer")).unwrap();
    let script = format!("{} {port}\n{}", target.process_id(), BEHIND.join("\n"));
    let payload = SealedBlob::of(script.as_bytes()).unwrap();
    let made = ProcessCell::spawn(&Spec {
        executable: &Executable::open(&bare).unwrap(),
        blobs: &[&payload],
        limits: LIMITS,
        bounds: Bounds::default(),
        sandbox,
        stop: &StopSignal::new().unwrap(),
        cores: None,
    });
    let Err(CellFault::Failed(told)) = made else {
        panic!("{made:?}");
    };
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told.len(), BEHIND.len() + 1, "{told:?}");
    let through: Vec<&&str> = told.iter().filter(|line| !line.contains("=refused: ")).collect();
    assert_eq!(through, Vec::<&&str>::new());
    target.pause().unwrap();
    target.resume().unwrap();
    let seen = fs::read(format!("/proc/self/fd/{}", payload.as_fd().as_raw_fd())).unwrap();
    assert_eq!(seen, script.as_bytes());
}

/// An executable that only root may run does not make a cell root.
#[test]
fn a_private_executable_runs_as_nobody_too() {
    if !is_root() {
        std::io::stderr().write_all(b"skipped: not root\n").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let private = folder.path().join("test-cell");
    fs::copy(common::executable().path(), &private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let executable = Executable::open(&private).unwrap();
    assert_eq!(executable.read().unwrap(), fs::read(&private).unwrap());
    let blob = SealedBlob::of(PAYLOAD).unwrap();
    let spawned: Result<ProcessCell, CellFault> = ProcessCell::spawn(&Spec {
        executable: &executable,
        blobs: &[&blob],
        limits: LIMITS,
        bounds: Bounds::default(),
        sandbox: Sandbox::of_this_host(),
        stop: &StopSignal::new().unwrap(),
        cores: None,
    });
    let mut cell = spawned.unwrap();
    assert_eq!(status(&cell, "Uid:"), "65534 65534 65534 65534");
    let ending = cell.run(&job("well"), &mut Kept::default());
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
}
