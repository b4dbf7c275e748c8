//! The built-in root: a believable small Debian, from the persona, with the job's own files over it.

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::persona::Persona;

use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::fs::identity;
use crate::fs::proc::{MACHINE_FILES, NET_FILES, PROCESS_FILES, ProcFile, ProcLink, ProcessFile};
use crate::fs::tree::{DEV_DEVICE, Data, Device, Ino, Kind, PROC_DEVICE, SYS_DEVICE, Tree};
use crate::fs::walk::MAX_LINKS;
use crate::fs::watch;
use crate::net::interfaces::{Links, card_text};

const DIRECTORIES: &[(&str, u32)] = &[
    ("/bin", 0o755),
    ("/boot", 0o755),
    ("/dev", 0o755),
    ("/dev/pts", 0o755),
    ("/dev/shm", 0o1777),
    ("/etc", 0o755),
    ("/etc/cron.d", 0o755),
    ("/etc/init.d", 0o755),
    ("/home", 0o755),
    ("/lib", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/sbin", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/sys/bus", 0o555),
    ("/sys/class", 0o555),
    ("/sys/devices", 0o555),
    ("/sys/firmware", 0o555),
    ("/tmp", 0o1777),
    ("/usr", 0o755),
    ("/usr/bin", 0o755),
    ("/usr/lib", 0o755),
    ("/usr/local", 0o755),
    ("/usr/local/bin", 0o755),
    ("/usr/local/sbin", 0o755),
    ("/usr/sbin", 0o755),
    ("/usr/share", 0o755),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/spool", 0o755),
    ("/var/spool/cron", 0o755),
    ("/var/tmp", 0o1777),
];

/// Where other file systems begin.
const MOUNTS: &[(&str, u64)] = &[("/dev", DEV_DEVICE), ("/proc", PROC_DEVICE), ("/sys", SYS_DEVICE)];

const DEVICES: &[(&str, Device, u32)] = &[
    ("console", Device::Console, 0o600),
    ("full", Device::Full, 0o666),
    ("kmsg", Device::Kmsg, 0o644),
    ("null", Device::Null, 0o666),
    ("random", Device::Random, 0o666),
    ("tty", Device::Tty, 0o666),
    ("urandom", Device::Urandom, 0o666),
    ("zero", Device::Zero, 0o666),
];

const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/etc/mtab", "../proc/self/mounts"),
    ("/proc/mounts", "self/mounts"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
];

const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"
NAME=\"Debian GNU/Linux\"
VERSION_ID=\"12\"
VERSION=\"12 (bookworm)\"
VERSION_CODENAME=bookworm
ID=debian
";

const FILE_SYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\n\text4\n";

/// Finds or makes the directories of a path, links followed; gives the last one.
pub(crate) fn directories(tree: &mut Tree, path: &str, mode: u32) -> Result<Ino, Errno> {
    if path.split('/').any(|part| part == "..") {
        return Err(Errno::EINVAL);
    }
    directories_from(tree, tree.root, path.as_bytes(), mode)
}

/// The same from a directory on. A link may lead upwards, but never out of the tree.
pub(crate) fn directories_from(tree: &mut Tree, from: Ino, path: &[u8], mode: u32) -> Result<Ino, Errno> {
    let mut links = MAX_LINKS;
    follow(tree, from, path, mode, &mut links)
}

fn follow(tree: &mut Tree, from: Ino, path: &[u8], mode: u32, links: &mut u32) -> Result<Ino, Errno> {
    let mut at = if path.first() == Some(&b'/') {
        tree.root
    } else {
        from
    };
    for part in path.split(|byte| *byte == b'/') {
        if matches!(part, b"" | b".") {
            continue;
        }
        if part == b".." {
            at = tree.parent(at);
            continue;
        }
        let Some(there) = tree.entries(at)?.get(part).copied() else {
            at = tree.add(at, part, Tree::directory(), mode, (0, 0))?;
            continue;
        };
        at = match tree.get(there).map(|inode| &inode.kind) {
            Some(Kind::Symlink(target)) => {
                *links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                let target = target.clone();
                follow(tree, at, &target, mode, links)?
            }
            _ => there,
        };
    }
    tree.entries(at).map(|_| at)
}

/// Puts a file into the root, over what was there.
pub(crate) fn file(tree: &mut Tree, path: &str, content: Bytes, mode: u32) -> Result<Ino, Errno> {
    let (directory, name) = path.rsplit_once('/').ok_or(Errno::EINVAL)?;
    if name.is_empty() || name == "." || name == ".." {
        return Err(Errno::EINVAL);
    }
    let directory = directories(tree, directory, 0o755)?;
    if let Some(there) = tree.entries(directory)?.get(name.as_bytes()).copied() {
        if tree.entries(there).is_ok() {
            return Err(Errno::EISDIR);
        }
        tree.remove_all(directory, name.as_bytes());
    }
    tree.add(
        directory,
        name.as_bytes(),
        Kind::File(Data::Shared(content)),
        mode & 0o7777,
        (0, 0),
    )
}

/// What an error of a persona's path says.
pub(super) fn blame(path: &str) -> impl FnOnce(Errno) -> String {
    let path = path.to_owned();
    move |errno| format!("persona: {path}: {}", errno.name())
}

/// Builds what every root has. Errors name the persona's path that is to blame.
pub(crate) fn build(tree: &mut Tree, persona: &Persona, arch: &ArchProfile) -> Result<(), String> {
    for (path, mode) in DIRECTORIES {
        let ino = directories(tree, path, *mode).map_err(blame(path))?;
        if let Some(inode) = tree.get_mut(ino) {
            inode.mode = *mode;
            if let Some((_, device)) = MOUNTS.iter().find(|(mount, _)| mount == path) {
                inode.device = *device;
            }
        }
    }
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        persona.hostname
    );
    let hostname = format!("{}\n", persona.hostname);
    let release = format!("{}\n", persona.kernel_release);
    let version = format!("{}\n", persona.kernel_version);
    let queued = format!("{}\n", watch::MAX_QUEUED);
    let instances = format!("{}\n", watch::MAX_INSTANCES);
    let watches = format!("{}\n", watch::MAX_WATCHES);
    let command_line = format!("{}\n", persona.kernel_command_line);
    let files: [(&str, &str, u32); 22] = [
        ("/proc/sys/fs/inotify/max_queued_events", &queued, 0o644),
        ("/proc/sys/fs/inotify/max_user_instances", &instances, 0o644),
        ("/proc/sys/fs/inotify/max_user_watches", &watches, 0o644),
        ("/etc/hosts", &hosts, 0o644),
        ("/etc/hostname", &hostname, 0o644),
        ("/etc/resolv.conf", "nameserver 192.0.2.53\n", 0o644),
        (
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
            0o644,
        ),
        ("/etc/os-release", OS_RELEASE, 0o644),
        ("/etc/issue", "Debian GNU/Linux 12 \\n \\l\n\n", 0o644),
        ("/etc/debian_version", "12.5\n", 0o644),
        ("/etc/shells", "/bin/sh\n", 0o644),
        (
            "/etc/crontab",
            "SHELL=/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
            0o644,
        ),
        ("/etc/profile", "export PATH\n", 0o644),
        ("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n", 0o644),
        ("/proc/filesystems", FILE_SYSTEMS, 0o444),
        ("/proc/modules", "", 0o444),
        ("/proc/cmdline", &command_line, 0o444),
        (
            "/proc/swaps",
            "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
            0o444,
        ),
        (
            "/proc/partitions",
            "major minor  #blocks  name\n\n   8        1   10485760 sda1\n",
            0o444,
        ),
        ("/proc/sys/kernel/osrelease", &release, 0o444),
        ("/proc/sys/kernel/ostype", "Linux\n", 0o444),
        ("/proc/sys/kernel/version", &version, 0o444),
    ];
    for (path, content, mode) in files {
        file(tree, path, content.as_bytes().into(), mode).map_err(blame(path))?;
    }
    identity::place(tree, persona, arch)?;
    let devices = directories(tree, "/dev", 0o755).map_err(blame("/dev"))?;
    for (name, device, mode) in DEVICES {
        tree.add(devices, name.as_bytes(), Kind::Device(*device), *mode, (0, 0))
            .map_err(blame(name))?;
    }
    for (path, to) in LINKS {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = directories(tree, directory, 0o755).map_err(blame(path))?;
        tree.add(
            directory,
            name.as_bytes(),
            Kind::Symlink(to.as_bytes().to_vec()),
            0o777,
            (0, 0),
        )
        .map_err(blame(path))?;
    }
    machine_files(tree).map_err(blame("/proc"))
}

/// What says which interfaces there are (`/sys/class/net`; Documentation/ABI/testing/sysfs-class-net).
pub(crate) fn plug_in(tree: &mut Tree, links: Links) -> Result<(), String> {
    for one in links.interfaces() {
        // Of the loopback nobody says whether it works.
        let (state, carrier) = if one.is_loopback() {
            ("unknown", "1")
        } else {
            ("up", "1")
        };
        let [received, packets, sent, sent_packets] = one.moved;
        let files = [
            ("address", card_text(one.card)),
            ("addr_len", "6".to_owned()),
            ("broadcast", card_text(one.everybody)),
            ("carrier", carrier.to_owned()),
            ("flags", format!("{:#x}", one.flags & 0xffff)),
            ("ifindex", one.index.to_string()),
            ("iflink", one.index.to_string()),
            ("mtu", one.mtu.to_string()),
            ("operstate", state.to_owned()),
            ("tx_queue_len", one.queue.to_string()),
            ("type", one.hardware.to_string()),
            ("statistics/rx_bytes", received.to_string()),
            ("statistics/rx_packets", packets.to_string()),
            ("statistics/tx_bytes", sent.to_string()),
            ("statistics/tx_packets", sent_packets.to_string()),
        ];
        for (name, content) in files {
            let path = format!("/sys/class/net/{}/{name}", one.name);
            let content = format!("{content}\n");
            file(tree, &path, content.as_bytes().into(), 0o444)
                .map_err(|errno| format!("{path}: {}", errno.name()))?;
        }
    }
    Ok(())
}

/// Adds the persona's own files.
pub(crate) fn furnish(tree: &mut Tree, persona: &Persona) -> Result<(), String> {
    // What lies in somebody's home is theirs.
    let owner = |path: &str| {
        let user = persona.users.iter().find(|user| {
            let rest = path.strip_prefix(&user.home());
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        user.map(|user| (user.uid, user.uid))
    };
    let mut owned = Vec::new();
    for path in &persona.directories {
        let ino = directories(tree, path, 0o755).map_err(blame(path))?;
        owned.extend(owner(path).map(|owner| (ino, owner)));
    }
    for (path, text) in &persona.files {
        let ino = file(tree, path, text.as_bytes().into(), mode_of(path)).map_err(blame(path))?;
        owned.extend(owner(path).map(|owner| (ino, owner)));
    }
    for (ino, (uid, gid)) in owned {
        if let Some(inode) = tree.get_mut(ino) {
            (inode.uid, inode.gid) = (uid, gid);
        }
    }
    Ok(())
}

/// Permission bits of a persona's file.
fn mode_of(path: &str) -> u32 {
    match path {
        "/etc/shadow" | "/etc/gshadow" => 0o640,
        _ if path.starts_with("/proc/") || path.starts_with("/sys/") => 0o444,
        _ => 0o644,
    }
}

fn machine_files(tree: &mut Tree) -> Result<(), Errno> {
    let proc = directories(tree, "/proc", 0o555)?;
    for (path, what) in MACHINE_FILES {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = directories_from(tree, proc, folder.as_bytes(), 0o555)?;
        tree.add(
            folder,
            name.as_bytes(),
            Kind::Proc(ProcFile::Machine(*what)),
            0o444,
            (0, 0),
        )?;
    }
    let net = directories(tree, "/proc/net", 0o555)?;
    for (name, what) in NET_FILES {
        let kind = Kind::Proc(ProcFile::Net(*what));
        tree.add(net, name.as_bytes(), kind, 0o444, (0, 0))?;
    }
    tree.add(
        proc,
        b"self",
        Kind::ProcLink(ProcLink::SelfProcess),
        0o777,
        (0, 0),
    )?;
    tree.add(
        proc,
        b"thread-self",
        Kind::ProcLink(ProcLink::SelfThread),
        0o777,
        (0, 0),
    )?;
    Ok(())
}

/// Makes `/proc/PID`.
pub(crate) fn add_process(tree: &mut Tree, pid: u32, owner: (u32, u32)) -> Result<(), Errno> {
    let proc = directories(tree, "/proc", 0o555)?;
    let name = pid.to_string();
    let own = tree.add(proc, name.as_bytes(), Tree::directory(), 0o555, owner)?;
    for (name, what) in PROCESS_FILES {
        let mode = match what {
            ProcessFile::Environment | ProcessFile::AuxiliaryVector => 0o400,
            ProcessFile::Memory => 0o600,
            _ => 0o444,
        };
        tree.add(
            own,
            name.as_bytes(),
            Kind::Proc(ProcFile::Process(pid, *what)),
            mode,
            owner,
        )?;
    }
    for (name, link) in [
        ("exe", ProcLink::Executable(pid)),
        ("cwd", ProcLink::WorkingDirectory(pid)),
        ("root", ProcLink::Root(pid)),
    ] {
        tree.add(own, name.as_bytes(), Kind::ProcLink(link), 0o777, owner)?;
    }
    tree.add(own, b"fd", Kind::ProcFds { pid, parent: own }, 0o500, owner)?;
    // All processes are in one network.
    let net = Kind::Symlink(b"../net".to_vec());
    tree.add(own, b"net", net, 0o777, owner)?;
    let tasks = tree.add(own, b"task", Tree::directory(), 0o555, owner)?;
    let task = tree.add(tasks, name.as_bytes(), Tree::directory(), 0o555, owner)?;
    for (name, what) in PROCESS_FILES
        .iter()
        .filter(|(name, _)| matches!(*name, "stat" | "status" | "comm" | "cmdline"))
    {
        tree.add(
            task,
            name.as_bytes(),
            Kind::Proc(ProcFile::Process(pid, *what)),
            0o444,
            owner,
        )?;
    }
    Ok(())
}

/// Removes `/proc/PID`; gives what was there.
pub(crate) fn remove_process(tree: &mut Tree, pid: u32) -> Vec<Ino> {
    let proc = directories(tree, "/proc", 0o555);
    proc.map_or_else(
        |_| Vec::new(),
        |proc| tree.remove_all(proc, pid.to_string().as_bytes()),
    )
}
