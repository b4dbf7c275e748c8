//! The first process of the guest's namespace: mounts, goes into the guest's root, starts the guest, reaps.
//!
//! It is a copy of the keeper, which has one thread only: it may do what any program may.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pivot_root, sethostname, setsid,
};

use hotcell_cells::emulator;
use hotcell_schema::arch::ElfIdentity;
use hotcell_schema::deny::Deny;

use crate::binfmt::{self, Secret};
use crate::filter::{self, Key};
use crate::rights;
use crate::root::{self, Root};
use crate::trace::Tracer;

/// Bytes of stack that a program may have (`_STK_LIM`, include/uapi/linux/resource.h).
const STACK: u64 = 8 << 20;

/// Descriptors (`INR_OPEN_CUR`, include/uapi/linux/fs.h).
const DESCRIPTORS: u64 = 1024;
/// Signals (`_NSIG`, include/uapi/asm-generic/signal.h).
const SIGNALS: libc::c_int = 64;

/// What the guest is to be.
#[derive(Debug)]
pub(crate) struct Guest {
    /// What runs its programs; absent: the host's own processor does.
    pub(crate) emulation: Option<Emulation>,
    /// What is executed first: the emulator, or the program itself.
    pub(crate) program: CString,
    /// Its arguments, argument 0 first.
    pub(crate) arguments: Vec<CString>,
    /// Its environment.
    pub(crate) environment: Vec<CString>,
    /// Where it begins.
    pub(crate) cwd: CString,
    /// The machine's name.
    pub(crate) hostname: String,
    /// Greatest length of a file in bytes.
    pub(crate) file_bytes: u64,
    /// What it may not do.
    pub(crate) deny: Deny,
    /// What tells its first `execve` from all others.
    pub(crate) key: Key,
}

/// What the kernel must know to run the guest's programs in the emulator.
#[derive(Debug)]
pub(crate) struct Emulation {
    /// What tells the emulator from other programs.
    pub(crate) secret: Secret,
    /// How executables of the architecture are recognised.
    pub(crate) elf: ElfIdentity,
}

/// Standard input, output, error.
pub(crate) type Streams = [OwnedFd; 3];

/// Starts it. What it tells on `report`: nothing until the guest has ended; then `status` as wait(2) has it, four
/// bytes; or a text that begins with `!`, why it could not be started. `records`: where it tells what the guest does, if it is to
/// watch.
pub(crate) fn start(
    root: &Root,
    guest: &Guest,
    streams: Streams,
    report: io::PipeWriter,
    records: Option<io::PipeWriter>,
) -> nix::Result<Pid> {
    // SAFETY: the process has one thread, so that the copy may allocate and lock.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let mut report = report;
            let code = match run(root, guest, streams, &mut report, records) {
                Ok(()) => 0,
                Err(why) => {
                    let _ = report.write_all(format!("!{why}").as_bytes());
                    1
                }
            };
            // SAFETY: ends this copy without what the keeper would do at its end.
            unsafe { libc::_exit(code) }
        }
    }
}

fn run(
    root: &Root,
    guest: &Guest,
    streams: Streams,
    report: &mut io::PipeWriter,
    records: Option<io::PipeWriter>,
) -> Result<(), String> {
    let told = |doing: &'static str| move |error: Errno| format!("{doing}: {error}");
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // The keeper goes on seeing what the guest writes where it is written.
    unshare(CloneFlags::CLONE_NEWNS).map_err(told("a mount namespace for the guest"))?;
    root.mount()?;
    sethostname(&guest.hostname).map_err(told("naming the machine"))?;
    let _held = match &guest.emulation {
        Some(emulation) => Some(register(root, emulation)?),
        None => None,
    };
    chdir(&root.whole).map_err(told("going into the root"))?;
    pivot_root(".", ".").map_err(told("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(told("leaving the host's root"))?;
    chdir("/").map_err(told("going into the root"))?;
    // What `/proc` shows of this process is the guest's to see, and no more (proc(5), PR_SET_DUMPABLE).
    prctl::set_dumpable(false).map_err(told("hiding from the guest"))?;
    let gate = |error: io::Error| format!("a gate: {error}");
    let (through, mut opens) = io::pipe().map_err(gate)?;
    let (mut at_it, comes) = io::pipe().map_err(gate)?;
    // SAFETY: one thread, see above.
    let first = match unsafe { fork() }.map_err(told("making the guest's process"))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((opens, at_it));
            let why = become_guest(guest, streams, (comes, through));
            let _ = report.write_all(format!("!{why}").as_bytes());
            // SAFETY: as above.
            unsafe { libc::_exit(127) }
        }
    };
    drop((streams, through, comes));
    // It can be traced from where it has come to the gate.
    at_it.read_to_end(&mut Vec::new()).map_err(gate)?;
    let tracer = match records {
        Some(records) => {
            let emulated = guest.emulation.is_some();
            let tracer = Tracer::begin(first, emulated, &guest.deny, records);
            if tracer.is_err() {
                let _ = kill(first, Signal::SIGKILL);
            }
            Some(tracer?)
        }
        None => None,
    };
    opens.write_all(&[1]).map_err(gate)?;
    drop(opens);
    match tracer {
        Some(tracer) => {
            tracer.follow(|process, status| {
                if process == first.as_raw().cast_unsigned() {
                    let _ = report.write_all(&status.to_le_bytes());
                }
            });
            Ok(())
        }
        None => reap(first, report),
    }
}

/// Has the kernel run the guest's programs in the emulator. What is registered lives as long as what is returned.
fn register(root: &Root, emulation: &Emulation) -> Result<fs::File, String> {
    let emulator = root.whole.join(emulator::PLACE.trim_start_matches('/'));
    let none = None::<&str>;
    let binfmt = root.whole.join("proc/sys/fs/binfmt_misc");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Without it the kernel would run the host's own architecture itself, and no other at all.
    mount(Some("binfmt_misc"), &binfmt, Some("binfmt_misc"), flags, none)
        .map_err(io::Error::from)
        .and_then(|()| {
            let lines = binfmt::lines(&emulation.elf, &emulator, emulation.secret);
            binfmt::register(&binfmt, &lines)
        })
        .map_err(|error| {
            format!(
                "this kernel lets no emulator be registered for the guest alone (Linux 6.7 does): {error}"
            )
        })?;
    // It lives as long as somebody holds it, and the guest need not see it.
    let held = fs::File::open(&binfmt).map_err(|error| error.to_string())?;
    umount2(&binfmt, MntFlags::MNT_DETACH).map_err(|error| format!("leaving binfmt_misc: {error}"))?;
    Ok(held)
}

/// Waits for all processes of the guest.
fn reap(first: Pid, report: &mut io::PipeWriter) -> Result<(), String> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one number of this stack.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        match pid {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Ok(()),
            pid if pid == first.as_raw() => {
                let _ = report.write_all(&status.to_le_bytes());
            }
            _ => {}
        }
    }
}

/// Becomes the guest; returns only when that fails: why.
fn become_guest(
    guest: &Guest,
    [input, output, error]: Streams,
    (comes, mut through): (io::PipeWriter, io::PipeReader),
) -> String {
    let steps = move || -> Result<(), String> {
        let told = |doing: &'static str| move |error: Errno| format!("{doing}: {error}");
        // Its parent may look into it, as it may itself (proc(5)). Whoever watches does so from here on.
        prctl::set_dumpable(true).map_err(told("a gate"))?;
        drop(comes);
        through
            .read_exact(&mut [0])
            .map_err(|error| format!("a gate: {error}"))?;
        setsid().map_err(told("a session"))?;
        dup2_stdin(&input).map_err(told("standard input"))?;
        dup2_stdout(&output).map_err(told("standard output"))?;
        dup2_stderr(&error).map_err(told("standard error"))?;
        // SAFETY: closes descriptors that nobody uses any more: this process executes another program, or ends.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        setrlimit(Resource::RLIMIT_FSIZE, guest.file_bytes, guest.file_bytes).map_err(told("limits"))?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(told("limits"))?;
        inherit_nothing().map_err(told("what is inherited"))?;
        // Where memory is short it ends before those who tell of it (proc(5)). Without `/proc` the host decides.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        root::keep_proc().map_err(told("keeping /proc"))?;
        chdir(guest.cwd.as_c_str()).map_err(told("the working directory"))?;
        drop_capabilities().map_err(told("capabilities"))?;
        rights::restrict(&guest.deny)?;
        let filters = filter::guests(&guest.deny, guest.key)?;
        filter::apply(&filters)?;
        execute(&guest.program, &guest.arguments, &guest.environment, guest.key)
            .map_err(told("running the program"))
    };
    steps().err().unwrap_or_default()
}

/// What a program inherits from who started it is what a fresh session has, whoever started the runner: signals, the mask of new
/// files' modes, the stack's limit.
fn inherit_nothing() -> nix::Result<()> {
    // Words: what is done (the default), and the signals that are blocked meanwhile (none); rt_sigaction(2).
    let default = [0_usize; 4];
    for number in 1..=SIGNALS {
        // SAFETY: the kernel reads four words of this stack; no handler of ours is taken away. It refuses SIGKILL and SIGSTOP.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &default, 0, 8) };
    }
    SigSet::empty().thread_set_mask()?;
    umask(Mode::from_bits_truncate(0o022));
    for (limit, soft) in [
        (Resource::RLIMIT_STACK, STACK),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
    ] {
        let (_, most) = getrlimit(limit)?;
        setrlimit(limit, most.min(soft), most)?;
    }
    Ok(())
}

/// execve(2), with the key in the registers behind its arguments, which the kernel leaves alone and a filter can ask for.
fn execute(path: &CStr, arguments: &[CString], environment: &[CString], Key(key): Key) -> nix::Result<()> {
    let list = |texts: &[CString]| -> Vec<*const libc::c_char> {
        let ends = std::iter::once(std::ptr::null());
        texts.iter().map(|text| text.as_ptr()).chain(ends).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: a text and two lists of texts that end with zero, which outlive the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            key[0],
            key[1],
        )
    })
    .map(drop)
}

/// Lets go of what the user namespace gave, for good: root of this namespace would get it back at its `execve`.
fn drop_capabilities() -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    // _LINUX_CAPABILITY_VERSION_3 (include/uapi/linux/capability.h).
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0_u32; 6];
    for capability in 0..64 {
        // SAFETY: numbers only. Those that the kernel does not have it refuses.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    // SAFETY: the kernel reads two structures of this stack.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, &none) }).map(drop)
}

/// What a status of wait(2) says.
pub(crate) fn status(raw: i32) -> Option<WaitStatus> {
    WaitStatus::from_raw(Pid::from_raw(1), raw).ok()
}

/// Waits for init itself.
pub(crate) fn ended(init: Pid) {
    let _ = waitpid(init, None);
}
