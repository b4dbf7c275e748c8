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
    common::{Failure, fingerprint, remove_tree},
    python::{QILING, python},
};

/// Who runs it.
pub(super) enum Engine {
    /// This host's processor.
    Native,
    /// qemu-user, of this version: whatever the program starts runs under it too.
    Qemu(String),
    /// Qiling: the Python that has it.
    Qiling(PathBuf),
}

impl Engine {
    /// Its name and version.
    fn name(&self) -> String {
        match self {
            Self::Native => "this host".to_owned(),
            Self::Qemu(version) => version.clone(),
            Self::Qiling(_) => format!("Qiling {QILING}"),
        }
    }

    /// How long a program may take. Under Qiling some hang that end elsewhere.
    fn limit(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Native | Self::Qemu(_) => 1800,
            Self::Qiling(_) => 120,
        })
    }
}

/// What makes a machine, and what runs a program under Qiling: files beside the manifest.
const MACHINE: &str = "machine.py";
const QILING_ONE: &str = "qiling_one.py";
/// qemu-user's names of architectures, where they are not Debian's.
const QEMU: &[(&str, &str)] = &[
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("armhf", "arm"),
    ("armel", "arm"),
    ("ppc64el", "ppc64le"),
];
/// Most bytes that a program may write into one file, its standard output among them.
const FILE_LIMIT: &str = "--fsize=268435456";
/// Most bytes of an output that are looked at.
const LOOKED_AT: u64 = 4 << 20;

/// Where programs run.
pub(super) struct Machines<'a> {
    /// The folder of the manifest.
    place: &'a Path,
    /// Roots by architecture.
    roots: &'a BTreeMap<String, PathBuf>,
    /// A folder in the cache.
    home: PathBuf,
    /// What makes machines: what was said in others is not taken.
    recipe: Vec<Vec<u8>>,
}

impl<'a> Machines<'a> {
    pub(super) fn new(
        place: &'a Path,
        roots: &'a BTreeMap<String, PathBuf>,
        home: PathBuf,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(home.join("said"))?;
        let recipe = [MACHINE, QILING_ONE].map(|name| fs::read(place.join(name)));
        Ok(Self {
            place,
            roots,
            home,
            recipe: recipe.into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// What a program says, from the cache where it was asked the same before.
    pub(super) fn run(&self, engine: &Engine, case: &Case) -> Result<Said, Failure> {
        let root = self
            .roots
            .get(&case.system)
            .ok_or("no root for this architecture")?;
        let mut parts = self.recipe.clone();
        parts.push(engine.name().into());
        parts.push(engine.limit().as_secs().to_string().into());
        parts.push(root.as_os_str().as_encoded_bytes().to_vec());
        parts.push(fs::read(&case.script)?);
        if let Some(stdin) = &case.stdin {
            parts.push(fs::read(stdin)?);
        }
        let key = fingerprint(parts.iter().map(Vec::as_slice));
        let name = format!("{}-{}-{key}", case.program, case.system);
        let kept = self.home.join("said").join(&name);
        if let Ok(bytes) = fs::read(&kept)
            && let Ok([ended, stdout, stderr]) = serde_json::from_slice::<[String; 3]>(&bytes)
        {
            return Ok(Said {
                ended,
                stdout,
                stderr,
            });
        }
        eprintln!(
            "conformance: {} on {} under {}",
            case.program,
            case.system,
            engine.name()
        );
        let lab = self.home.join("work").join(&name);
        remove_tree(&lab)?;
        fs::create_dir_all(lab.join("work"))?;
        let said = self.run_in(engine, case, root, &lab);
        remove_tree(&lab)?;
        let said = said?;
        fs::write(
            kept,
            serde_json::to_vec(&[&said.ended, &said.stdout, &said.stderr])?,
        )?;
        Ok(said)
    }

    fn run_in(&self, engine: &Engine, case: &Case, root: &Path, lab: &Path) -> Result<Said, Failure> {
        let limit = engine.limit();
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", &limit.as_secs().to_string()])
            .args(["prlimit", FILE_LIMIT, "unshare", "--user", "--map-root-user"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "python3"])
            .arg(self.place.join(MACHINE))
            .args([root, &case.script, &lab.join("work")]);
        match engine {
            Engine::Native => {}
            // Its kernel would start the emulator with the emulator, and so on.
            Engine::Qemu(_) if case.native => {
                return Err("this host's own: it is what all are held against".into());
            }
            Engine::Qemu(_) => {
                let named = QEMU.iter().find(|(debian, _)| *debian == case.system);
                let name = named.map_or(&*case.system, |(_, name)| name);
                command.arg("binfmt").arg(format!("/usr/bin/qemu-{name}-static"));
            }
            Engine::Qiling(python) => {
                command.arg(python).arg(self.place.join(QILING_ONE));
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
        let top = lab.join("work/root").display().to_string();
        let said = Said {
            ended,
            stdout: read("stdout")?,
            // Where it ran is not why.
            stderr: read("stderr")?.replace(&top, ""),
        };
        match said.stderr.lines().find(|line| line.starts_with("machine: ")) {
            Some(why) => Err(why.into()),
            None => Ok(said),
        }
    }
}

/// qemu-user, where it is installed, and its version.
pub(super) fn qemu() -> (Result<Engine, String>, String) {
    match Command::new("qemu-aarch64-static").arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            let version = line.replace("qemu-aarch64 version", "qemu-user");
            (Ok(Engine::Qemu(version.clone())), version)
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
