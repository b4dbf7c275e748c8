//! What tells which machine this is: files of `/etc`, `/proc/sys` and `/sys` that follow from the persona.

use std::fmt::Write as _;

use hotcell_schema::arch::{AbiFamily, ArchProfile};
use hotcell_schema::digest::Digest;
use hotcell_schema::persona::{Mount, Persona, TimeZone, User};

use crate::fs::root::{blame, directories, file};
use crate::fs::tree::{Kind, Tree};

/// Accounts of the system itself: name, number of account and group, home, shell.
const ACCOUNTS: &[(&str, u32, &str, &str)] = &[
    ("root", 0, "/root", "/bin/sh"),
    ("daemon", 1, "/usr/sbin", "/usr/sbin/nologin"),
    ("bin", 2, "/bin", "/usr/sbin/nologin"),
    ("sys", 3, "/dev", "/usr/sbin/nologin"),
    ("mail", 8, "/var/mail", "/usr/sbin/nologin"),
    ("www-data", 33, "/var/www", "/usr/sbin/nologin"),
];
const NOBODY: u32 = 65_534;
/// Groups without an account of their name.
const GROUPS: &[(&str, u32)] = &[("adm", 4), ("tty", 5), ("disk", 6)];
/// Day of the last change of all passwords, since 1970.
const CHANGED: u32 = 19_700;

/// File systems of a Debian with one disk.
const MOUNTS: &[[&str; 4]] = &[
    ["/dev/sda1", "/", "ext4", "rw,relatime,errors=remount-ro"],
    [
        "devtmpfs",
        "/dev",
        "devtmpfs",
        "rw,nosuid,relatime,size=1009376k,nr_inodes=252344,mode=755",
    ],
    ["proc", "/proc", "proc", "rw,nosuid,nodev,noexec,relatime"],
    ["sysfs", "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"],
];

/// What `/proc/sys` says on every machine. Values are those of a Debian 12.
const SETTINGS: &[(&str, &str)] = &[
    ("fs/file-max", "9223372036854775807"),
    ("fs/nr_open", "1048576"),
    ("fs/pipe-max-size", "1048576"),
    ("kernel/cap_last_cap", "40"),
    ("kernel/core_pattern", "core"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "0"),
    ("kernel/ngroups_max", "65536"),
    ("kernel/panic", "0"),
    ("kernel/pid_max", "32768"),
    ("kernel/printk", "4\t4\t1\t7"),
    ("kernel/random/entropy_avail", "256"),
    ("kernel/random/poolsize", "256"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/tainted", "0"),
    ("kernel/threads-max", "15649"),
    ("kernel/yama/ptrace_scope", "0"),
    ("vm/max_map_count", "65530"),
    ("vm/mmap_min_addr", "65536"),
    ("vm/overcommit_memory", "0"),
    ("vm/overcommit_ratio", "50"),
    ("vm/swappiness", "60"),
];

/// Files of `/sys/class/dmi/id` that only root may read.
const SECRET: &[&str] = &["board_serial", "chassis_serial", "product_serial", "product_uuid"];

/// Numbers of inodes kept for what the firmware says.
const FIRMWARE: u64 = 64;

/// What follows from a persona's number of processors, and their names.
pub(crate) trait Processors {
    /// How many there are.
    fn processors(&self) -> u32;
    /// A bit for each, in words of so many bits, the lowest first.
    fn processor_words(&self, bits: u32) -> Vec<u64>;
    /// The model's name on an architecture, where the persona has one.
    fn cpu_model(&self, arch: &str) -> Option<&str>;
}

impl Processors for Persona {
    fn processors(&self) -> u32 {
        self.cpus.clamp(1, 256)
    }

    fn processor_words(&self, bits: u32) -> Vec<u64> {
        let count = self.processors();
        let words = (0..count.div_ceil(bits)).map(|word| {
            let left = (count - word * bits).min(bits);
            u64::MAX >> (64 - left)
        });
        words.collect()
    }

    fn cpu_model(&self, arch: &str) -> Option<&str> {
        let own = self.cpu_models.get(arch).or(self.cpu_model.as_ref());
        own.map(String::as_str)
    }
}

/// A random UUID from 128 bits (RFC 9562, version 4).
pub(crate) fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}\n",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// 128 bits of this machine's own, for one use.
fn own_number(persona: &Persona, usage: &str) -> u128 {
    let parts = [
        persona.name.as_bytes(),
        persona.hostname.as_bytes(),
        usage.as_bytes(),
    ];
    let digest = Digest::of_parts(parts);
    let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    u128::from_be_bytes(first)
}

fn all_mounts(persona: &Persona) -> Vec<Mount> {
    if !persona.mounts.is_empty() {
        return persona.mounts.clone();
    }
    let mounts = MOUNTS.iter().map(|row| {
        let [source, at, kind, options] = row.map(str::to_owned);
        Mount {
            source,
            at,
            kind,
            options,
        }
    });
    mounts.collect()
}

/// `/proc/mounts`.
pub(crate) fn mounts(persona: &Persona) -> String {
    let lines = all_mounts(persona).into_iter().map(|mount| {
        let Mount {
            source,
            at,
            kind,
            options,
        } = mount;
        format!("{source} {at} {kind} {options} 0 0\n")
    });
    lines.collect()
}

/// `/proc/self/mountinfo`.
pub(crate) fn mount_info(persona: &Persona) -> String {
    let lines = (20u32..).zip(all_mounts(persona)).map(|(id, mount)| {
        let Mount {
            source,
            at,
            kind,
            options,
        } = mount;
        format!("{id} 1 8:1 / {at} {options} - {kind} {source} rw\n")
    });
    lines.collect()
}

/// Places what follows from the persona.
pub(super) fn place(tree: &mut Tree, persona: &Persona, arch: &ArchProfile) -> Result<(), String> {
    let mut put = |path: &str, text: &str, mode: u32| {
        file(tree, path, text.as_bytes().into(), mode)
            .map(|_| ())
            .map_err(blame(path))
    };
    let [passwd, shadow, group] = accounts(&persona.users);
    put("/etc/passwd", &passwd, 0o644)?;
    put("/etc/shadow", &shadow, 0o640)?;
    put("/etc/group", &group, 0o644)?;
    put(
        "/etc/machine-id",
        &format!("{:032x}\n", own_number(persona, "machine-id")),
        0o444,
    )?;
    for (path, value) in SETTINGS {
        put(&format!("/proc/sys/{path}"), &format!("{value}\n"), 0o644)?;
    }
    let boot = uuid(own_number(persona, "boot"));
    put("/proc/sys/kernel/random/boot_id", &boot, 0o444)?;
    processors(&mut put, persona)?;
    if let Some(zone) = &persona.time_zone {
        put("/etc/timezone", &format!("{}\n", zone.name), 0o644)?;
        let path = format!("/usr/share/zoneinfo/{}", zone.name);
        file(tree, &path, zone_file(zone).as_slice().into(), 0o644).map_err(blame(&path))?;
        link(tree, "/etc", "localtime", &path)?;
    }
    for user in &persona.users {
        let home = user.home();
        let ino = directories(tree, &home, 0o755).map_err(blame(&home))?;
        if let Some(inode) = tree.get_mut(ino) {
            (inode.uid, inode.gid) = (user.uid, user.uid);
        }
    }
    // The numbers of what comes after do not depend on the architecture.
    let after = tree.next + FIRMWARE;
    firmware(tree, persona, arch)?;
    tree.next = tree.next.max(after);
    Ok(())
}

/// What the firmware says of the machine: DMI on x86, the device tree's model elsewhere.
fn firmware(tree: &mut Tree, persona: &Persona, arch: &ArchProfile) -> Result<(), String> {
    let mut put = |path: &str, text: String, mode: u32| {
        let made = file(tree, path, text.as_bytes().into(), mode);
        made.map(|_| ()).map_err(blame(path))
    };
    if matches!(arch.abi.family, AbiFamily::X86_64 | AbiFamily::I386) {
        for (name, text) in &persona.dmi {
            let secret = SECRET.contains(&name.as_str());
            let path = format!("/sys/devices/virtual/dmi/id/{name}");
            put(&path, format!("{text}\n"), if secret { 0o400 } else { 0o444 })?;
        }
        if !persona.dmi.is_empty() {
            link(tree, "/sys/class/dmi", "id", "../../devices/virtual/dmi/id")?;
        }
    } else if let Some(board) = persona.boards.get(&arch.name) {
        put("/sys/firmware/devicetree/base/model", format!("{board}\0"), 0o444)?;
        link(tree, "/proc", "device-tree", "/sys/firmware/devicetree/base")?;
    }
    Ok(())
}

fn link(tree: &mut Tree, folder: &str, name: &str, to: &str) -> Result<(), String> {
    let ino = directories(tree, folder, 0o755).map_err(blame(folder))?;
    let kind = Kind::Symlink(to.as_bytes().to_vec());
    tree.add(ino, name.as_bytes(), kind, 0o777, (0, 0))
        .map(|_| ())
        .map_err(blame(name))
}

/// `/sys/devices/system/cpu`.
fn processors(
    put: &mut impl FnMut(&str, &str, u32) -> Result<(), String>,
    persona: &Persona,
) -> Result<(), String> {
    let count = persona.processors();
    let all = match count {
        1 => "0\n".to_owned(),
        _ => format!("0-{}\n", count - 1),
    };
    for name in ["online", "possible", "present"] {
        put(&format!("/sys/devices/system/cpu/{name}"), &all, 0o444)?;
    }
    put("/sys/devices/system/cpu/offline", "\n", 0o444)?;
    for cpu in 0..count {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        put(&format!("{folder}/core_id"), &format!("{cpu}\n"), 0o444)?;
        put(&format!("{folder}/physical_package_id"), "0\n", 0o444)?;
    }
    Ok(())
}

/// `/etc/passwd`, `/etc/shadow` and `/etc/group`.
fn accounts(users: &[User]) -> [String; 3] {
    let [mut passwd, mut shadow, mut group] = [const { String::new() }; 3];
    for (name, id, home, shell) in ACCOUNTS {
        let _ = writeln!(passwd, "{name}:x:{id}:{id}:{name}:{home}:{shell}");
        let _ = writeln!(shadow, "{name}:*:{CHANGED}:0:99999:7:::");
        let _ = writeln!(group, "{name}:x:{id}:");
    }
    for (name, id) in GROUPS {
        let _ = writeln!(group, "{name}:x:{id}:");
    }
    for user in users {
        let (name, id, about) = (&user.name, user.uid, &user.about);
        let shell = user.shell.as_deref().unwrap_or("/bin/sh");
        let password = user.password.as_deref().unwrap_or("*");
        let _ = writeln!(passwd, "{name}:x:{id}:{id}:{about}:{}:{shell}", user.home());
        let _ = writeln!(shadow, "{name}:{password}:{CHANGED}:0:99999:7:::");
        let _ = writeln!(group, "{name}:x:{id}:");
    }
    let _ = writeln!(
        passwd,
        "nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin"
    );
    let _ = writeln!(shadow, "nobody:*:{CHANGED}:0:99999:7:::");
    let _ = writeln!(group, "nogroup:x:{NOBODY}:");
    [passwd, shadow, group]
}

/// A time zone as a file (RFC 8536): one change long ago, after which the rule holds, and the rule.
fn zone_file(zone: &TimeZone) -> Vec<u8> {
    let header = |long: bool| {
        let mut bytes = b"TZif2".to_vec();
        bytes.resize(20, 0);
        // Indicators of UT and standard time, leap seconds, changes, types, letters.
        for count in [0u32, 0, 0, 1, 1, 4] {
            bytes.extend(count.to_be_bytes());
        }
        // The least time that a file may hold (RFC 8536, 3.2, "transition times").
        if long {
            bytes.extend((-(1i64 << 59)).to_be_bytes());
        } else {
            bytes.extend(i32::MIN.to_be_bytes());
        }
        // The change is to type 0: no offset, no summer time, named by the letters from 0.
        bytes.extend([0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"LMT\0");
        bytes
    };
    let mut bytes = header(false);
    bytes.extend(header(true));
    bytes.extend(format!("\n{}\n", zone.rule).bytes());
    bytes
}
