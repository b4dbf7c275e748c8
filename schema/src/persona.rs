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
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Seconds since boot when the sample starts.
    pub uptime_s: u64,
    /// Unix time in seconds when the sample starts.
    pub epoch_s: i64,
    /// User and group the sample runs as.
    pub uid: u32,
    /// Group the sample runs as.
    pub gid: u32,
    /// Working directory.
    pub cwd: String,
    /// Environment, when the stage gives none.
    pub env: BTreeMap<String, String>,
    /// Further files: guest path to text. They come over the built-in ones (/etc/passwd, /etc/group, /etc/hosts …).
    pub files: BTreeMap<String, String>,
    /// Further empty directories.
    pub directories: Vec<String>,
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
            memory_mib: 2048,
            uptime_s: 86_400,
            epoch_s: 1_717_243_200,
            uid: 0,
            gid: 0,
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
