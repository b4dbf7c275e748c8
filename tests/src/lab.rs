//! A temporary folder in which `hotcell` runs, and what a run leaves.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hotcell_schema::{
    outcome::Status,
    report::{InstanceReport, Report, RunFacts},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::programs::executables;

/// A temporary folder with a store and a state of its own.
pub struct Lab {
    folder: TempDir,
    bin: PathBuf,
    /// Whose commands these are; absent: the caller's own.
    uid: Option<u32>,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            folder: TempDir::with_prefix("hotcell-test-").unwrap(),
            bin: executables().to_owned(),
            uid: None,
        }
    }

    /// An empty one with executables of its own, so that its processes can be told from all others by their path.
    pub fn with_own_executables() -> Self {
        let mut lab = Self::new();
        let bin = lab.path("bin");
        fs::create_dir(&bin).unwrap();
        for name in [
            "hotcell",
            "hotcell-unicorn",
            "hotcell-inspect",
            "hotcell-qemu",
            "hotcell-monitor",
        ] {
            fs::copy(lab.bin.join(name), bin.join(name)).unwrap();
        }
        lab.bin = bin;
        lab
    }

    /// An empty one of another user, with the same executables, which must be the lab's own. Only root can make it.
    pub fn of_user(&self, uid: u32) -> Self {
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(self.folder.path(), open).unwrap();
        let lab = Self {
            bin: self.bin.clone(),
            uid: Some(uid),
            ..Self::new()
        };
        chown(lab.folder.path(), Some(uid), None).unwrap();
        lab
    }

    /// The same, with a cell that breaks as its first argument says in the place of the emulator.
    pub fn with_breaking_cells() -> Self {
        let lab = Self::with_own_executables();
        // target/<profile>/deps/<a test> -> target/<profile>/examples/tests-test-cell
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let cell = profile.join("examples/tests-test-cell");
        fs::copy(&cell, lab.bin.join("hotcell-unicorn"))
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", cell.display()));
        lab
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders it stands in.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a manifest. JSON is YAML, so the name should end in `.yaml`.
    pub fn manifest(&self, name: &str, manifest: &Value) -> PathBuf {
        self.write(name, serde_json::to_string_pretty(manifest).unwrap())
    }

    /// `hotcell` with arguments, not started. Its own store and state, no colours, nothing of the caller's environment.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.bin.join("hotcell"));
        command
            .args(args)
            .args(["--color", "never"])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("HOTCELL_STORE", self.path("store"))
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
    }

    /// Runs `hotcell` with arguments.
    pub fn hotcell<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `hotcell` with arguments and expects an exit code. Returns standard output and standard error.
    pub fn expect<'a>(&self, code: i32, args: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let output = self.hotcell(args);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "exit code; stdout:\n{stdout}\nstderr:\n{stderr}"
        );
        (stdout, stderr)
    }

    /// `hotcell run MANIFEST` with further arguments, expected to end well.
    pub fn run(&self, manifest: &str, more: &[&str]) -> Run {
        self.expect(0, ["run", manifest].into_iter().chain(more.iter().copied()));
        self.latest()
    }

    /// Forgets which run is the latest good one: the next looks at everything, although nothing may have changed.
    pub fn forget_latest(&self) {
        match fs::remove_dir_all(self.path(".hotcell/latest")) {
            // A run that was killed when its result was there has not said so.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.unwrap(),
        }
    }

    /// The latest run of the state in its folder.
    pub fn latest(&self) -> Run {
        let runs = self.path(".hotcell/runs");
        let mut all: Vec<PathBuf> = fs::read_dir(&runs)
            .unwrap_or_else(|error| panic!("{}: {error}", runs.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("run.json").is_file() && !path.is_symlink())
            .collect();
        all.sort_by_key(|path| fs::metadata(path.join("run.json")).unwrap().modified().unwrap());
        Run::read(all.last().expect("a run"))
    }

    /// Processes that run an executable of this lab's own folder: process number and file name.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Ok(exe) = fs::read_link(entry.path().join("exe"))
                && exe.starts_with(&self.bin)
                && let Some(name) = exe.file_name()
            {
                found.push((pid, name.to_string_lossy().into_owned()));
            }
        }
        found
    }
}

/// A run, read back from its folder.
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// `result/report.json`.
    pub report: Report,
    /// `run.json`.
    pub facts: RunFacts,
}

impl Run {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        Self {
            report: serde_json::from_slice(&read("result/report.json")).unwrap(),
            facts: serde_json::from_slice(&read("run.json")).unwrap(),
            folder: folder.to_owned(),
        }
    }

    /// Panics unless another run gave the same files with the same bytes.
    pub fn assert_same_result(&self, other: &Self, when: &str) {
        let (first, second) = (self.result(), other.result());
        let names = |result: &BTreeMap<String, Vec<u8>>| result.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&first), names(&second), "{when}");
        for (name, bytes) in &first {
            assert!(bytes == &second[name], "{name} differs {when}");
        }
    }

    /// Instances of a stage.
    pub fn stage<'a>(&'a self, stage: &'a str) -> impl Iterator<Item = &'a InstanceReport> {
        self.report
            .instances
            .iter()
            .filter(move |instance| instance.stage == stage)
    }

    /// What an instance gave on a port.
    pub fn output(&self, instance: &InstanceReport, port: &str) -> Vec<u8> {
        let output = instance
            .outputs
            .get(port)
            .unwrap_or_else(|| panic!("{} has no output {port}: {:?}", instance.name, instance.reason));
        fs::read(self.folder.join("result").join(&output.path)).unwrap()
    }

    /// Why nobody could watch guests that run on this host's kernel, where nobody could: then a test of them says so, and ends.
    pub fn unwatched(&self) -> Option<String> {
        let cannot = [
            "lets no emulator be registered",
            "lets us make no namespaces",
            "a pair of interfaces (CONFIG_VETH)",
        ];
        let errors = self
            .facts
            .instances
            .values()
            .filter_map(|facts| facts.error.clone());
        let is_so = |why: &String| {
            cannot.iter().any(|cannot| why.contains(cannot))
                || !nix::unistd::geteuid().is_root() && why.contains("CAP_BPF")
        };
        errors.into_iter().find(is_so)
    }

    /// How many instances ended with each status, caching included.
    pub fn statuses(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for instance in self.facts.instances.values() {
            let name = serde_json::to_value(instance.status).unwrap();
            *count.entry(name.as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        count
    }

    /// The variant of the sample an instance is about.
    pub fn variant(&self, instance: &InstanceReport) -> String {
        let id = &instance.axes["sample"];
        self.report.samples[id].variant.clone().unwrap_or_default()
    }

    /// Every file of `result/` with its bytes.
    pub fn result(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(&self.folder.join("result"))
    }

    /// Whether every instance ran, now or before.
    pub fn all_ok(&self) -> bool {
        self.report
            .instances
            .iter()
            .all(|instance| instance.status == Status::Ok)
    }
}

/// Every file below a folder: path from it, and bytes.
pub fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
