//! One program in a machine of namespaces (`tests/conformance/machine.py`), under another emulator than ours.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{ours::Case, verdict::Said};
use crate::{
    common::{Failure, remove_tree},
    python::{QILING, python},
};

/// Who runs it.
pub(super) enum Engine {
    /// This host's processor.
    Native,
    /// qemu-user, by what Debian calls the architecture: whatever the program starts runs under it too.
    Qemu,
    /// Qiling: the Python that has it.
    Qiling(PathBuf),
}

/// qemu-user's names of architectures, where they are not Debian's.
const QEMU: &[(&str, &str)] = &[
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("armhf", "arm"),
    ("armel", "arm"),
    ("ppc64el", "ppc64le"),
];
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(600);
/// The same under Qiling, which hangs where others end.
const QILING_LIMIT: Duration = Duration::from_secs(90);
/// Most bytes that a program may write into one file, its standard output among them.
const FILE_LIMIT: &str = "--fsize=268435456";
/// Most bytes of an output that are looked at.
const LOOKED_AT: u64 = 4 << 20;

/// Where programs run.
pub(super) struct Machines<'a> {
    /// The folder of the manifest.
    pub(super) place: &'a Path,
    /// Roots by architecture.
    pub(super) roots: &'a BTreeMap<String, PathBuf>,
    /// A folder for what comes and goes.
    pub(super) work: PathBuf,
}

impl Machines<'_> {
    /// Runs one.
    pub(super) fn run(&self, engine: &Engine, case: &Case) -> Result<Said, Failure> {
        let root = self
            .roots
            .get(&case.system)
            .ok_or("no root for this architecture")?;
        let lab = self.work.join(format!("{}-{}", case.program, case.system));
        remove_tree(&lab)?;
        fs::create_dir_all(lab.join("work"))?;
        let limit = match engine {
            Engine::Qiling(_) => QILING_LIMIT,
            Engine::Native | Engine::Qemu => LIMIT,
        };
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", &limit.as_secs().to_string()])
            .args(["prlimit", FILE_LIMIT, "unshare", "--user", "--map-root-user"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "python3"])
            .arg(self.place.join("machine.py"))
            .args([root, &case.script, &lab.join("work")]);
        match engine {
            Engine::Native => {}
            Engine::Qemu => {
                let named = QEMU.iter().find(|(debian, _)| *debian == case.system);
                let name = named.map_or(&*case.system, |(_, name)| name);
                command.arg("binfmt").arg(format!("/usr/bin/qemu-{name}-static"));
            }
            Engine::Qiling(python) => {
                command.arg(python).arg(self.place.join("qiling_one.py"));
            }
        }
        let stdin = match &case.stdin {
            Some(path) => File::open(path)?.into(),
            None => Stdio::null(),
        };
        let begun = Instant::now();
        let status = command
            .stdin(stdin)
            .stdout(File::create(lab.join("stdout"))?)
            .stderr(File::create(lab.join("stderr"))?)
            .status()?;
        let ended = match (status.code(), status.signal()) {
            _ if begun.elapsed() >= limit => format!("no end within {} s", limit.as_secs()),
            (Some(code), _) => format!("exited {code}"),
            (None, signal) => format!("signalled {}", signal.unwrap_or_default()),
        };
        let read = |name: &str| -> Result<String, Failure> {
            let mut bytes = Vec::new();
            File::open(lab.join(name))?
                .take(LOOKED_AT)
                .read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let said = Said {
            ended,
            stdout: read("stdout")?,
            stderr: read("stderr")?,
        };
        remove_tree(&lab)?;
        if let Some(why) = said.stderr.lines().find(|line| line.starts_with("machine: ")) {
            return Err(why.into());
        }
        Ok(said)
    }
}

/// qemu-user, where it is installed, and its version.
pub(super) fn qemu() -> (Result<Engine, String>, String) {
    match Command::new("qemu-aarch64-static").arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            (
                Ok(Engine::Qemu),
                line.replace("qemu-aarch64 version", "qemu-user"),
            )
        }
        Err(error) => (
            Err(format!("qemu-user-static is not installed here ({error})")),
            "qemu-user".into(),
        ),
    }
}

/// Qiling, where it can be installed.
pub(super) fn qiling(home: &Path) -> Result<Engine, String> {
    python(home, "qiling", QILING, &["setuptools<81"])
        .map(Engine::Qiling)
        .map_err(|error| error.to_string())
}
