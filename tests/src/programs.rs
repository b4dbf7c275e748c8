//! The programs that tests run: ours, and samples.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

use crate::Lab;

/// The project's folder.
fn project() -> PathBuf {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().unwrap().to_owned()
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(project()).stdin(Stdio::null());
    command
}

/// The folder with `hotcell` and the executables beside it, built when nobody did.
pub fn executables() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = env::var_os("HOTCELL_BIN_DIR") {
            return folder.into();
        }
        let output = cargo()
            .args([
                "build",
                "-p",
                "hotcell-cli",
                "-p",
                "hotcell-unicorn",
                "-p",
                "hotcell-inspect",
                "-p",
                "hotcell-monitor",
                "-p",
                "hotcell-qemu",
            ])
            .args(["--message-format", "json"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the executables do not build");
        let mut folder = None;
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            if message["target"]["name"] == "hotcell"
                && let Some(path) = message["executable"].as_str()
            {
                folder = Path::new(path).parent().map(Path::to_owned);
            }
        }
        folder.expect("cargo names the executable")
    })
}

/// Debian's static busybox of one architecture.
#[derive(Debug, Clone)]
pub struct Busybox {
    /// Debian's name of the architecture.
    pub debian: &'static str,
    /// Ours.
    pub arch: &'static str,
    /// qemu-user's.
    pub qemu: &'static str,
    /// The program.
    pub path: PathBuf,
}

/// Debian's busybox for five architectures, or `None` with a word where they were not fetched.
pub fn busybox() -> Option<Vec<Busybox>> {
    let cache = env::var_os("HOTCELL_CACHE").map(PathBuf::from).or_else(|| {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(
            env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(home)?
                .join("hotcell"),
        )
    })?;
    let mut found = Vec::new();
    for (debian, arch, qemu) in [
        ("amd64", "x86_64", "x86_64"),
        ("arm64", "aarch64", "aarch64"),
        ("armhf", "arm", "arm"),
        ("armel", "arm", "arm"),
        ("mipsel", "mipsel", "mipsel"),
    ] {
        let path = cache.join("samples/debian-12").join(debian).join("busybox");
        if !path.is_file() {
            eprintln!("skipped: {} is not there (make samples)", path.display());
            return None;
        }
        found.push(Busybox {
            debian,
            arch,
            qemu,
            path,
        });
    }
    Some(found)
}

/// A guest program and what it must do.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// The target it was built for.
    pub target: String,
    /// Its arch profile; absent: there is none yet.
    pub profile: Option<String>,
    /// The program.
    pub path: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// `exited N` or `signalled SIGNAME`.
    pub outcome: String,
    /// What it writes, where that is fixed.
    pub stdout: Option<String>,
}

/// The guest programs, or `None` with a word where there is no compiler for them.
pub fn guests() -> Option<Vec<Guest>> {
    let folder = match env::var_os("HOTCELL_GUESTS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let output = cargo()
                .args(["run", "-q", "-p", "xtask", "--", "guests"])
                .output()
                .unwrap();
            if !output.status.success() {
                eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            String::from_utf8(output.stdout).unwrap().trim().into()
        }
    };
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let guests = index["guests"].as_array().unwrap().iter().map(|row| Guest {
        name: text(&row["guest"]).unwrap(),
        target: text(&row["target"]).unwrap(),
        profile: text(&row["profile"]),
        path: folder.join(row["path"].as_str().unwrap()),
        args: row["args"].as_array().unwrap().iter().filter_map(text).collect(),
        outcome: match row["signal"].as_str() {
            Some(signal) => format!("signalled {signal}"),
            None => format!("exited {}", row["exit"]),
        },
        stdout: text(&row["stdout"]),
    });
    Some(guests.collect())
}

/// A program under `qemu-<arch>`, or `None` with a word where that is not installed. `argv0` is what the program sees.
pub fn qemu(arch: &str, argv0: &str, program: &Path, args: &[String], folder: &Path) -> Option<Output> {
    let name = format!("qemu-{arch}");
    let output = Command::new(&name)
        .args(["-0", argv0])
        .arg(program)
        .args(args)
        .current_dir(folder)
        .env_clear()
        .envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LANG", "C"),
            ("HOME", "/root"),
        ])
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {name} is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

/// Whether commands get a root of their own on this host; `false` with a word on stderr. Within `chroot` they do not: its root
/// is no mount.
pub fn commands_have_own_root() -> bool {
    let lab = Lab::new();
    lab.write(
        "root.toml",
        "hotcell = 1\nname = \"root\"\n[stages.a]\nuses = \"command\"\nwith.run = [\"true\"]\n",
    );
    let run = lab.run("root.toml", &["--progress", "none"]);
    let has = run.facts.confinement.iter().any(|layer| layer == "private-root");
    if !has {
        eprintln!("skipped: {:?}", run.facts.fallbacks);
    }
    has
}
