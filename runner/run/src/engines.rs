//! The cell executables, and who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use hotcell_cells::emulator;
use hotcell_cells::supervise::Executable;
use hotcell_plan::Plan;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::stage::{self, StageType};

use crate::monitor::{Monitor, Source};
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
    /// What else of this host runs guests: digests, or why there are none.
    emulators: Mutex<BTreeMap<PathBuf, Result<Digest, String>>>,
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
            emulators: Mutex::default(),
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

    /// The same, and guests on the host's kernel are watched by this, or not at all.
    pub fn watched_by(self, source: Option<Source>) -> Self {
        Self {
            monitor: self.monitor.with(source),
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
        let kind = kind(uses)?;
        let cell = match kind {
            stage::Engine::Unicorn => &self.unicorn,
            stage::Engine::Inspect => &self.inspect,
            stage::Engine::QemuUser | stage::Engine::Native => &self.qemu,
        };
        Some(
            cell.get_or_init(|| open(&self.libexec.join(kind.executable())))
                .as_ref()
                .map_err(String::as_str),
        )
    }

    /// What a stage type's engine contributes to the cache key of an instance: all that runs it, and all that tells what it did.
    pub fn key(&self, uses: &str, arch: Option<&ArchProfile>) -> Result<String, String> {
        let engine = match self.of(uses) {
            None => return Ok(hotcell_detect::IDENTITY.to_owned()),
            Some(engine) => engine?,
        };
        let mut key = format!("{} {}", engine.identity, engine.digest);
        if let Some(kind) = kind(uses).filter(|kind| kind.keeps_processes()) {
            let emulated = arch.filter(|_| kind == stage::Engine::QemuUser);
            let monitor = self.digest(self.monitor.executable());
            let monitor =
                monitor.map_err(|error| format!("the monitor cannot be used: {error}; {REMEDY}"))?;
            key.push_str(&format!(" {monitor}"));
            if let Some(source) = self.monitor.wanted() {
                key.push_str(&format!(" {}", source.as_str()));
            }
            if let Some(emulator) = emulated.map(emulator::find) {
                key.push_str(&format!(" {}", self.digest(emulator?)?));
            }
        }
        Ok(key)
    }

    /// What the engines of a plan's stages contribute to cache keys, by the first part of `uses`; the error says why one cannot be
    /// used. `given`: the profiles beside the plan's own.
    pub fn keys(&self, plan: &Plan, given: &[ArchProfile]) -> BTreeMap<String, Result<String, String>> {
        let mut keys: BTreeMap<String, Result<String, String>> = BTreeMap::new();
        // A program of the user's own is known by its files, and by what of it stands in the system.
        for (name, stage) in plan.stages.iter().filter(|(_, stage)| stage.uses != "command") {
            let first = stage.uses.split('/').next().unwrap_or(&stage.uses);
            let key = keys
                .entry(first.to_owned())
                .or_insert_with(|| self.key(&stage.uses, None));
            if !kind(&stage.uses).is_some_and(stage::Engine::keeps_processes) {
                continue;
            }
            let instances = plan.instances.iter().filter(|instance| instance.stage == *name);
            let archs: BTreeSet<Option<&str>> = instances.map(|instance| instance.arch.as_deref()).collect();
            // A file that is found only in the run can be of any architecture that this host has an emulator for.
            let any = stage.expansion.is_some() || archs.contains(&None);
            let profiles = given.iter().chain(plan.profiles.values());
            let profiles: BTreeMap<&str, &ArchProfile> =
                profiles.map(|profile| (profile.name.as_str(), profile)).collect();
            let wanted = profiles.into_values().filter(|profile| match any {
                true => emulator::find(profile).is_ok(),
                false => archs.contains(&Some(profile.name.as_str())),
            });
            for profile in wanted {
                let more = self.key(&stage.uses, Some(profile));
                *key = std::mem::replace(key, Ok(String::new()))
                    .and_then(|before| Ok(format!("{before}, {}", more?)));
            }
        }
        keys
    }

    fn digest(&self, path: PathBuf) -> Result<Digest, String> {
        let mut known = self.emulators.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = known.entry(path).or_insert_with_key(|path| {
            let read = fs_err::read(path).map_err(|error| error.to_string());
            read.map(|bytes| Digest::of(&bytes))
        });
        digest.clone()
    }
}

/// What runs the cells of a stage type.
fn kind(uses: &str) -> Option<stage::Engine> {
    StageType::find(uses)?.engine
}

/// What is to be done about an executable of the project's that is not there.
const REMEDY: &str =
    "build it beside `hotcell`, or say where it is with HOTCELL_LIBEXEC; `hotcell doctor` tells more";

fn open(path: &Path) -> Result<Engine, String> {
    let broken = |error: &dyn std::fmt::Display| {
        format!("the engine {} cannot be used: {error}; {REMEDY}", path.display())
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
