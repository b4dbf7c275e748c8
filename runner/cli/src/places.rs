//! Where things are: the state folder, the store, the cell executables. The only place that reads the environment.

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hotcell_cells::cores::service::{MANIFEST, SOCKET};
use hotcell_run::monitor::Source;

use crate::args::Global;
use crate::exit::Failure;
use crate::runs::{self, Run, State};

/// Folders this run of hotcell works with.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Holds `runs/`.
    pub state: PathBuf,
    /// The content-addressed store.
    pub store: PathBuf,
    /// Holds the cell executables.
    pub libexec: PathBuf,
    /// Socket of the host's arbiter, where the host has one.
    pub arbiter: Option<PathBuf>,
}

impl Places {
    /// The folders for a manifest, or for the current folder where there is none.
    pub(crate) fn find(global: &Global, manifest: Option<&Path>) -> Result<Self, Failure> {
        let beside = manifest
            .and_then(Path::parent)
            .filter(|folder| !folder.as_os_str().is_empty());
        let state = match &global.state {
            Some(folder) => folder.clone(),
            None => beside.unwrap_or(Path::new(".")).join(".hotcell"),
        };
        Ok(Self {
            state,
            store: store(global)?,
            libexec: libexec()?,
            arbiter: arbiter(global),
        })
    }

    /// The folder with all runs.
    pub(crate) fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    /// The latest run with a result.
    fn latest(&self) -> Result<PathBuf, Failure> {
        let all = runs::all(&self.runs());
        let finished = all.iter().rev().find(|run| run.state == State::Finished);
        if let Some(run) = finished {
            return Ok(run.folder.clone());
        }
        Err(match all.last() {
            Some(run) => unfinished(&run.folder),
            None => Failure::usage(format!("there is no run in {}", self.runs().display()))
                .help("run an experiment first: hotcell run MANIFEST; or say where with --state DIR"),
        })
    }

    /// A run by its folder, its id, or the latest.
    pub(crate) fn run(&self, name: Option<&str>) -> Result<PathBuf, Failure> {
        match name {
            Some(name) if Path::new(name).join("result").is_dir() => Ok(PathBuf::from(name)),
            Some(name) => {
                let folder = self.runs().join(name);
                if folder.join("result").is_dir() {
                    return Ok(folder);
                }
                for folder in [folder, PathBuf::from(name)] {
                    if folder.join("journal.jsonl").is_file() {
                        return Err(unfinished(&folder));
                    }
                }
                let run = runs::find(&self.runs(), name).map_err(|failure| {
                    failure.help("`hotcell runs` lists them; or name the folder that holds `result/`")
                })?;
                match run.folder.join("result").is_dir() {
                    true => Ok(run.folder),
                    false => Err(unfinished(&run.folder)),
                }
            }
            None => self.latest(),
        }
    }
}

/// A run that has no result: how far it came.
fn unfinished(folder: &Path) -> Failure {
    let how = Run::at(folder).map(|run| run.how_far()).unwrap_or_default();
    Failure::usage(format!("{} has no result: {how}", folder.display()))
        .help("what was finished is stored: run the manifest again, and it goes on from there")
}

fn store(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(folder) = &global.store {
        return Ok(folder.clone());
    }
    // Not by the reader of arguments, which would then name it in every usage.
    if let Some(folder) = env::var_os("HOTCELL_STORE").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    cache().map(|cache| cache.join("store"))
}

/// Socket of the host's arbiter: the one that is named, or the usual one where the host has a manifest.
pub(crate) fn arbiter(global: &Global) -> Option<PathBuf> {
    let named = global.arbiter.clone().or_else(|| {
        env::var_os("HOTCELL_ARBITER")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    });
    named.or_else(|| Path::new(MANIFEST).exists().then(|| PathBuf::from(SOCKET)))
}

/// Folder for what lives as long as processes do, for its user alone.
pub(crate) fn runtime() -> Result<PathBuf, Failure> {
    let uid = nix::unistd::geteuid().as_raw();
    let folder = match env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
    {
        Some(folder) => folder.join("hotcell"),
        None => cache()?.join("run"),
    };
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&folder);
    made.map_err(|error| Failure::host(format!("{}: {error}", folder.display())))?;
    let facts = fs_err::symlink_metadata(&folder)?;
    // Whoever else can enter could ask about our cells.
    if !facts.is_dir() || facts.uid() != uid || facts.mode() & 0o077 != 0 {
        return Err(Failure::host(format!("{} is not only ours", folder.display()))
            .help("set XDG_RUNTIME_DIR to a folder of your own"));
    }
    Ok(folder)
}

/// hotcell's own folder among the user's caches.
fn cache() -> Result<PathBuf, Failure> {
    let folder = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // The others are the host's, and may be meant for programs that read them in another way.
    if let Some(cache) = env::var_os("HOTCELL_CACHE").filter(|cache| !cache.is_empty()) {
        let cache = PathBuf::from(cache);
        return match cache.is_absolute() {
            true => Ok(cache),
            false => Err(Failure::usage(format!(
                "HOTCELL_CACHE is `{}`, which is no absolute path",
                cache.display()
            ))
            .help("write the whole path, from `/` on")),
        };
    }
    // Where `HOME` is not set, the list of users tells it (getpwuid(3)): services and containers run without.
    let home = || folder("HOME").or_else(|| env::home_dir().filter(|home| home.is_absolute()));
    folder("XDG_CACHE_HOME")
        .or_else(|| home().map(|home| home.join(".cache")))
        .map(|cache| cache.join("hotcell"))
        .ok_or_else(|| {
            Failure::host(
                "no folder for the store: none of HOTCELL_CACHE, XDG_CACHE_HOME and HOME is an absolute path, and the list of users knows no home",
            )
            .help("say where with HOTCELL_CACHE, or with --store DIR or HOTCELL_STORE")
        })
}

/// Who watches guests on the host's kernel, where `HOTCELL_WATCHED_BY` says so; else the best that can.
pub(crate) fn watched_by() -> Result<Option<Source>, Failure> {
    match env::var("HOTCELL_WATCHED_BY") {
        Ok(name) if !name.is_empty() => name
            .parse()
            .map(Some)
            .map_err(|why: String| Failure::usage(format!("HOTCELL_WATCHED_BY: {why}"))),
        _ => Ok(None),
    }
}

/// Cell executables stand beside `hotcell` itself, unless `HOTCELL_LIBEXEC` says otherwise.
fn libexec() -> Result<PathBuf, Failure> {
    if let Some(folder) = env::var_os("HOTCELL_LIBEXEC") {
        return Ok(PathBuf::from(folder));
    }
    let own = env::current_exe()?;
    // The link is followed, so that `~/bin/hotcell -> …/target/release/hotcell` finds its cells.
    let own = own.canonicalize().unwrap_or(own);
    own.parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::host("the folder of the executable is unknown"))
}

/// Whether this runs in continuous integration (every common service sets `CI`).
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}
