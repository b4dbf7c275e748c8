//! The probes. Each tries the thing itself where it can; a file that is merely there proves little.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Probe, State};
use crate::args::Global;
use crate::places::Places;

/// Every probe, in the order in which a run meets what they probe.
pub(super) fn all(places: &Places, global: &Global) -> Vec<Probe> {
    let mut probes = vec![kernel(), store(places)];
    for (name, serves) in [
        ("hotcell-unicorn", "unicorn/payload, unicorn/linux"),
        ("hotcell-inspect", "inspect/elf"),
        ("hotcell-qemu", "qemu-user/linux, native/linux"),
        ("hotcell-monitor", "events of qemu-user/linux, native/linux"),
    ] {
        probes.push(executable(places, name, serves));
    }
    let (trial, layers) = super::trial::probe(places, global);
    probes.push(trial);
    probes.extend([seccomp(), landlock(&layers), user_namespaces(), cgroups()]);
    probes.extend([
        kvm(),
        qemu_user(),
        binfmt(),
        bpf(places),
        tracing(places),
        libvirt(),
    ]);
    probes
}

fn probe(name: &str, serves: &'static str, state: State, found: impl Into<String>, remedy: &str) -> Probe {
    let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
    Probe {
        name: name.into(),
        state,
        found: found.into(),
        serves,
        remedy,
    }
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn kernel() -> Probe {
    let release = read("/proc/sys/kernel/osrelease");
    let state = if release.is_some() {
        State::Ok
    } else {
        State::Missing
    };
    let found = release.map_or("no /proc/sys/kernel/osrelease".into(), |release| {
        format!("Linux {release}")
    });
    probe(
        "kernel",
        "everything",
        state,
        found,
        "hotcell runs on Linux with /proc mounted",
    )
}

/// Writes, reads and removes a file in the store.
fn store(places: &Places) -> Probe {
    let trial = || -> std::io::Result<()> {
        fs_err::create_dir_all(&places.store)?;
        let file = places.store.join(format!(".doctor-{}", std::process::id()));
        fs_err::write(&file, b"hotcell")?;
        let same = fs_err::read(&file)? == b"hotcell";
        fs_err::remove_file(&file)?;
        if same {
            Ok(())
        } else {
            Err(std::io::Error::other(
                "a file read back differs from what was written",
            ))
        }
    };
    let serves = "results and the cache";
    match trial() {
        Ok(()) => probe(
            "store",
            serves,
            State::Ok,
            format!("{} can be written", places.store.display()),
            "",
        ),
        Err(error) => probe(
            "store",
            serves,
            State::Missing,
            error.to_string(),
            "say where the store is with --store DIR or HOTCELL_STORE",
        ),
    }
}

/// Asks a cell executable who it is.
fn executable(places: &Places, name: &str, serves: &'static str) -> Probe {
    let path = places.libexec.join(name);
    let remedy = "build it (`make demo` does), or say where the cell executables are with HOTCELL_LIBEXEC";
    match Command::new(&path).arg("--identity").output() {
        Ok(output) if output.status.success() => {
            let identity = String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            probe(name, serves, State::Ok, identity, "")
        }
        Ok(output) => probe(
            name,
            serves,
            State::Missing,
            format!("{} ends with {}", path.display(), output.status),
            remedy,
        ),
        Err(error) => probe(
            name,
            serves,
            State::Missing,
            format!("{}: {error}", path.display()),
            remedy,
        ),
    }
}

fn seccomp() -> Probe {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = actions.split_whitespace().any(|action| action == "kill_process");
    let state = if has { State::Ok } else { State::Missing };
    let found = if has {
        format!("filters with {actions}")
    } else {
        "no seccomp filters".into()
    };
    probe(
        "seccomp",
        "confinement of cells",
        state,
        found,
        "use a kernel with CONFIG_SECCOMP_FILTER (4.14 or later)",
    )
}

/// Whether the trial cell could lock itself in.
fn landlock(layers: &[String]) -> Probe {
    let has = layers.iter().any(|layer| layer.starts_with("landlock"));
    let (state, found) = match has {
        true => (State::Ok, "the cell locked itself in"),
        false => (State::Limited, "the cell could not lock itself in"),
    };
    let remedy = "boot with `lsm=landlock,…` (kernel 5.13 or later); without it seccomp and namespaces keep cells from files";
    probe("landlock", "confinement of cells", state, found, remedy)
}

fn user_namespaces() -> Probe {
    let most: u64 = read("/proc/sys/user/max_user_namespaces")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let barred = read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0");
    let (state, found) = match (most, barred) {
        (0, _) => (State::Limited, "none allowed".to_owned()),
        (_, true) => (State::Limited, "only for root".to_owned()),
        (most, false) => (State::Ok, format!("up to {most}")),
    };
    probe(
        "user namespaces",
        "confinement of cells",
        state,
        found,
        "sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000",
    )
}

fn cgroups() -> Probe {
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let kind = |line: &&str, kind: &str| {
        line.split(" - ")
            .nth(1)
            .is_some_and(|rest| rest.split(' ').next() == Some(kind))
    };
    let v2 = mounts
        .lines()
        .find(|line| kind(line, "cgroup2"))
        .and_then(|line| line.split(' ').nth(4));
    let v1 = mounts.lines().filter(|line| kind(line, "cgroup")).count();
    let controllers = v2
        .and_then(|mount| read(&format!("{mount}/cgroup.controllers")))
        .unwrap_or_default();
    let (state, found) = match (v1, v2) {
        (0, None) => (State::Limited, "none mounted".to_owned()),
        (0, Some(_)) if controllers.is_empty() => (State::Limited, "v2 without controllers".to_owned()),
        (0, Some(_)) => (State::Ok, format!("v2 with {controllers}")),
        (count, None) => (State::Ok, format!("v1, {count} hierarchies")),
        (count, Some(_)) => (State::Ok, format!("hybrid, {count} v1 hierarchies")),
    };
    probe(
        "cgroups",
        "limits on memory and processes of cells",
        state,
        found,
        "mount cgroup2 on /sys/fs/cgroup",
    )
}

fn kvm() -> Probe {
    let has = Path::new("/dev/kvm").exists();
    let found = if has {
        "/dev/kvm is there (whether a guest runs is not known before one was booted)"
    } else {
        "no /dev/kvm"
    };
    probe(
        "kvm",
        "qemu-system/linux, in a later version",
        State::Unused,
        found,
        "",
    )
}

/// Emulators that need nothing of the host's own libraries: guests have a root of their own.
fn qemu_user() -> Probe {
    let mut found: Vec<String> = path_folders()
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("qemu-") && name.ends_with("-static"))
        .collect();
    found.sort();
    found.dedup();
    let serves = "qemu-user/linux";
    match found.len() {
        0 => probe(
            "qemu-user",
            serves,
            State::Limited,
            "no qemu-<arch>-static in PATH",
            "install what Debian calls qemu-user-static",
        ),
        many => probe(
            "qemu-user",
            serves,
            State::Ok,
            format!("{many} emulators, static"),
            "",
        ),
    }
}

/// Since Linux 6.7 a user namespace has emulators of its own.
fn binfmt() -> Probe {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (state, remedy) = match version >= (6, 7) {
        true => (State::Ok, ""),
        false => (State::Limited, "take a host with Linux 6.7 or later"),
    };
    let found = format!("Linux {}.{}: emulators of a user namespace", version.0, version.1);
    probe("binfmt", "qemu-user/linux", state, found, remedy)
}

/// Loads what watches guests into the kernel, and takes it out again.
fn bpf(places: &Places) -> Probe {
    let serves = "events of qemu-user/linux";
    let path = places.libexec.join("hotcell-monitor");
    let remedy = "run as root, or give `hotcell-monitor` the capabilities CAP_BPF and CAP_PERFMON (setcap); a kernel with /sys/kernel/btf is needed";
    match Command::new(&path).arg("--probe").output() {
        Ok(output) if output.status.success() => probe(
            "bpf",
            serves,
            State::Ok,
            "the monitor's programs can be loaded",
            "",
        ),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("it cannot be loaded").to_owned();
            probe("bpf", serves, State::Limited, said, remedy)
        }
        Err(error) => probe(
            "bpf",
            serves,
            State::Limited,
            format!("{}: {error}", path.display()),
            remedy,
        ),
    }
}

/// Has the cells' executable trace a child of its own: who watches where eBPF cannot.
fn tracing(places: &Places) -> Probe {
    let serves = "events of qemu-user/linux where the monitor's programs cannot be loaded";
    let path = places.libexec.join("hotcell-qemu");
    let remedy = "let processes trace their own children: kernel.yama.ptrace_scope below 3, a container whose seccomp profile has ptrace";
    let (state, found) = match Command::new(&path).arg("--probe").output() {
        Ok(output) if output.status.success() => {
            return probe("ptrace", serves, State::Ok, "a cell can trace its guest", "");
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            (
                State::Limited,
                said.lines().last().unwrap_or("nobody is traced").to_owned(),
            )
        }
        Err(error) => (State::Limited, format!("{}: {error}", path.display())),
    };
    probe("ptrace", serves, state, found, remedy)
}

fn libvirt() -> Probe {
    let sockets = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];
    let found = sockets.iter().find(|path| Path::new(path).exists());
    let found = found.map_or("no libvirt socket".to_owned(), |path| format!("{path} is there"));
    probe(
        "libvirt",
        "host manifests, in a later version",
        State::Unused,
        found,
        "",
    )
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}
