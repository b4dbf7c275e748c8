//! The cell executables, and who they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hotcell_cells::supervise::Executable;
use hotcell_plan::Plan;
use hotcell_schema::digest::Digest;

use crate::monitor::Monitor;
use crate::stages::command::Programs;

/// Longest identity that is kept, in bytes.
const MAX_IDENTITY: usize = 400;

/// An engine that is there.
#[derive(Debug)]
pub struct Engine {
    /// Its executable, opened once: every cell of a run is made of the same bytes.
    pub executable: Executable,
    /// What it says of itself: name, version, patches. The same on every machine with the same build.
    pub identity: String,
    /// Digest of the executable: part of cache keys, never of a result.
    pub digest: Digest,
}

/// All engines, opened when they are first needed.
#[derive(Debug)]
pub struct Engines {
    libexec: PathBuf,
    unicorn: OnceLock<Result<Engine, String>>,
    inspect: OnceLock<Result<Engine, String>>,
    qemu: OnceLock<Result<Engine, String>>,
    programs: Programs,
    pub(crate) monitor: Monitor,
    /// Where files that go again are put; absent: where this host puts them.
    temporary: Option<PathBuf>,
}

impl Engines {
    /// Engines whose executables stand in a folder.
    pub fn new(libexec: &Path) -> Self {
        Self {
            libexec: libexec.to_owned(),
            unicorn: OnceLock::new(),
            inspect: OnceLock::new(),
            qemu: OnceLock::new(),
            programs: Programs::new(None),
            monitor: Monitor::new(libexec),
            temporary: None,
        }
    }

    /// The same, and programs of the user's own get their folders in `temporary`, a folder for temporary files.
    pub fn with_temporary(self, temporary: &Path) -> Self {
        Self {
            programs: Programs::new(Some(temporary)),
            temporary: Some(temporary.to_owned()),
            ..self
        }
    }

    /// What programs of the user's own share.
    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A folder of one's own for files that go again.
    pub(crate) fn folder(&self) -> std::io::Result<tempfile::TempDir> {
        match &self.temporary {
            Some(temporary) => tempfile::tempdir_in(temporary),
            None => tempfile::tempdir(),
        }
    }

    /// Programs of this host that a plan's commands run: path, and digest.
    pub fn program_pins(&self, plan: &Plan) -> BTreeMap<String, String> {
        self.programs.pins(plan)
    }

    /// The engine of a stage type; `None` for stage types that run in the runner itself. The error says what to do.
    pub fn of(&self, uses: &str) -> Option<Result<&Engine, &str>> {
        let (cell, name) = match uses.split_once('/')?.0 {
            "unicorn" => (&self.unicorn, "hotcell-unicorn"),
            "inspect" => (&self.inspect, "hotcell-inspect"),
            "qemu-user" => (&self.qemu, "hotcell-qemu"),
            _ => return None,
        };
        Some(
            cell.get_or_init(|| open(&self.libexec.join(name)))
                .as_ref()
                .map_err(String::as_str),
        )
    }

    /// What a stage type's engine contributes to cache keys.
    pub fn key(&self, uses: &str) -> Result<String, String> {
        match self.of(uses) {
            None => Ok(hotcell_detect::IDENTITY.to_owned()),
            Some(Ok(engine)) => Ok(format!("{} {}", engine.identity, engine.digest)),
            Some(Err(error)) => Err(error.to_owned()),
        }
    }
}

fn open(path: &Path) -> Result<Engine, String> {
    let remedy =
        "build it beside `hotcell`, or say where it is with HOTCELL_LIBEXEC; `hotcell doctor` tells more";
    let broken = |error: &dyn std::fmt::Display| {
        format!("the engine {} cannot be used: {error}; {remedy}", path.display())
    };
    let executable = Executable::open(path).map_err(|error| broken(&error))?;
    let bytes = executable.read().map_err(|error| broken(&error))?;
    let output = Command::new(path)
        .arg("--identity")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| broken(&error))?;
    if !output.status.success() {
        return Err(broken(&format!("--identity ended with {}", output.status)));
    }
    let said = output.stdout.get(..MAX_IDENTITY).unwrap_or(&output.stdout);
    let identity = String::from_utf8_lossy(said).trim().replace('\n', ", ");
    Ok(Engine {
        executable,
        identity,
        digest: Digest::of(&bytes),
    })
}
