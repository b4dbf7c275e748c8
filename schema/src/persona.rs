//! The machine that a guest believes to run on.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A persona: what uname, /proc, /sys and /etc say. Files in `manifests/personas/*.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Persona {
    /// Its name, for instance `router`.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// NIS domain name.
    pub domain: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// Number of processors.
    pub cpus: u32,
    /// Model name in /proc/cpuinfo; absent: the architecture's own default.
    pub cpu_model: Option<String>,
    /// The same for an architecture, by the arch profile's name; before `cpu-model`.
    pub cpu_models: BTreeMap<String, String>,
    /// What the board is called where /proc/cpuinfo or the device tree names it, by the arch profile's name.
    pub boards: BTreeMap<String, String>,
    /// What the firmware of an x86 machine says of it: files of /sys/class/dmi/id. Other architectures have none.
    pub dmi: BTreeMap<String, String>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Seconds since boot when the sample starts.
    pub uptime_s: u64,
    /// Unix time in seconds when the sample starts.
    pub epoch_s: i64,
    /// Average load of one, five and fifteen minutes, in hundredths.
    pub load: [u16; 3],
    /// Who built the kernel, and with what, as /proc/version says it.
    pub kernel_builder: String,
    /// What the kernel was started with (/proc/cmdline).
    pub kernel_command_line: String,
    /// Mounted file systems; empty: those of a Debian with one disk.
    pub mounts: Vec<Mount>,
    /// Time zone; absent: UTC, and no /etc/localtime.
    pub time_zone: Option<TimeZone>,
    /// User and group the sample runs as.
    pub uid: u32,
    /// Group the sample runs as.
    pub gid: u32,
    /// People beside the system's own accounts: lines of /etc/passwd, /etc/shadow and /etc/group, and their homes.
    pub users: Vec<User>,
    /// Working directory.
    pub cwd: String,
    /// Environment, when the stage gives none.
    pub env: BTreeMap<String, String>,
    /// Further files: guest path to text. They come over the built-in ones (/etc/passwd, /etc/group, /etc/hosts …).
    pub files: BTreeMap<String, String>,
    /// Further empty directories.
    pub directories: Vec<String>,
}

/// Somebody who can log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Name of the account, and of its own group.
    pub name: String,
    /// Number of the account, and of its own group.
    pub uid: u32,
    /// Full name.
    #[serde(default)]
    pub about: String,
    /// Home folder; absent: below /home.
    #[serde(default)]
    pub home: Option<String>,
    /// Shell; absent: /bin/sh.
    #[serde(default)]
    pub shell: Option<String>,
    /// What /etc/shadow has as the password's hash; absent: no password fits.
    #[serde(default)]
    pub password: Option<String>,
}

impl User {
    /// The home folder.
    pub fn home(&self) -> String {
        self.home
            .clone()
            .unwrap_or_else(|| format!("/home/{}", self.name))
    }
}

/// A mounted file system, as /proc/mounts says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mount {
    /// What is mounted: a device, or a name.
    pub source: String,
    /// Where.
    pub at: String,
    /// Type of the file system.
    pub kind: String,
    /// Options.
    pub options: String,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TimeZone {
    /// Its name, for instance `Europe/Berlin`.
    pub name: String,
    /// Its rule, as TZ has it (POSIX.1-2017, 8.3), for instance `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub rule: String,
}

impl Default for Persona {
    fn default() -> Self {
        Self {
            name: "server".into(),
            hostname: "debian".into(),
            domain: "(none)".into(),
            kernel_release: "6.1.0-18-generic".into(),
            kernel_version: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)".into(),
            cpus: 2,
            cpu_model: None,
            cpu_models: BTreeMap::new(),
            boards: BTreeMap::new(),
            dmi: BTreeMap::new(),
            memory_mib: 2048,
            uptime_s: 86_400,
            epoch_s: 1_717_243_200,
            load: [3, 2, 0],
            kernel_builder: "(debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40)".into(),
            kernel_command_line: "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet".into(),
            mounts: Vec::new(),
            time_zone: None,
            uid: 0,
            gid: 0,
            users: vec![User {
                name: "user".into(),
                uid: 1000,
                about: "user".into(),
                home: None,
                shell: None,
                password: None,
            }],
            cwd: "/root".into(),
            env: [
                ("HOME", "/root"),
                ("LANG", "C"),
                (
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ),
                ("USER", "root"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            files: BTreeMap::new(),
            directories: Vec::new(),
        }
    }
}
