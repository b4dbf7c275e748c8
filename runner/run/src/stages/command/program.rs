//! Programs of the user's own: which executable a stage means, who it is, and what all commands of a run share.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hotcell_cells::command::{Commands, PATH};
use hotcell_plan::{FileSet, Instance, Plan};
use hotcell_schema::command::CommandWith;
use hotcell_schema::digest::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::check::Schemas;
use crate::current::Ran;
use crate::secrets::Secrets;
use crate::work::{Done, Shared};

/// What decides the results of commands beside the program: raised when the environment, the folders or the walls change so
/// that a program can tell.
const ENVIRONMENT: &str = "hotcell-command 2";
/// Where an executable may be that is not the stage's own: folders that every command sees.
const SYSTEM: [&str; 5] = ["/usr/", "/bin/", "/sbin/", "/lib", "/nix/"];
/// Longest first line of a script, as Linux has it.
const MAX_SHEBANG: u64 = 256;

/// What was found out once, for the rest of a run.
pub(super) type Known<K, V> = Mutex<HashMap<K, V>>;

/// A file as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
    length: u64,
    /// When it changed last, in seconds and nanoseconds.
    changed: (i64, i64),
}

/// What commands of a run share: their walls, and what is known of their programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Where commands work, in a folder of their own.
    temporary: Option<PathBuf>,
    commands: OnceLock<Result<Commands, String>>,
    /// Identities by program and set of own files.
    found: Known<(String, Option<String>), Result<Arc<Program>, String>>,
    /// Digests of executables.
    digests: Known<FileId, Digest>,
    /// Own files that were read, by their set.
    own: Known<String, Arc<Vec<Own>>>,
    pub(super) schemas: Schemas,
}

/// An executable that was found.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where the command finds it.
    pub(super) place: Place,
    /// What it contributes to cache keys: its digest, and that of its interpreter.
    pub(crate) identity: String,
    /// What of it stands in the system, by path: the executable, and its interpreter.
    files: Vec<(PathBuf, Digest)>,
}

/// Where an executable is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the system: an absolute path.
    System(String),
    /// Among the stage's own files: a path in the work folder.
    Own(String),
}

/// An own file, ready to be put into work folders.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) name: String,
    pub(super) executable: bool,
    pub(super) bytes: Vec<u8>,
}

impl Programs {
    pub(crate) fn new(temporary: Option<&Path>) -> Self {
        Self {
            temporary: temporary.map(Path::to_owned),
            commands: OnceLock::new(),
            found: Mutex::default(),
            digests: Mutex::default(),
            own: Mutex::default(),
            schemas: Schemas::default(),
        }
    }

    /// The walls, made when they are first needed.
    pub(super) fn commands(&self, shared: &Shared<'_>) -> Result<&Commands, Done> {
        let made = self.commands.get_or_init(|| match &self.temporary {
            Some(folder) => Commands::new(folder, &hidden(shared)).map_err(|error| error.to_string()),
            None => Err("no folder for temporary files was given".into()),
        });
        made.as_ref()
            .map_err(|error| Done::failed("the host cannot run commands", error.clone()))
    }

    /// The executable that an instance means.
    pub(crate) fn program(&self, plan: &Plan, instance: &Instance) -> Result<Arc<Program>, String> {
        self.named(plan, &name_of(instance), instance.files.as_ref())
    }

    /// All programs that were asked for and are there.
    pub(crate) fn ran(&self) -> Vec<Ran> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ran: Vec<Ran> = found
            .iter()
            .filter_map(|((name, files), program)| {
                Some(Ran {
                    name: name.clone(),
                    files: files.clone(),
                    identity: program.as_ref().ok()?.identity.clone(),
                })
            })
            .collect();
        ran.sort();
        ran
    }

    /// Whether a program is who it was.
    pub(crate) fn is_still(&self, plan: &Plan, ran: &Ran) -> bool {
        let now = self.named(plan, &ran.name, ran.files.as_ref());
        now.is_ok_and(|program| program.identity == ran.identity)
    }

    /// The executable of that name, beside the own files of that key.
    fn named(&self, plan: &Plan, name: &str, files: Option<&String>) -> Result<Arc<Program>, String> {
        let key = (name.to_owned(), files.cloned());
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = found.get(&key) {
            return program.clone();
        }
        let set = files.and_then(|name| plan.file_sets.get(name));
        let program = self.find(name, set).map(Arc::new);
        found.insert(key, program.clone());
        program
    }

    /// The programs of this host that a plan's commands run, and interpreters of scripts: path and digest. What is not
    /// there is named with the reason.
    pub(crate) fn pins(&self, plan: &Plan) -> BTreeMap<String, String> {
        let mut pins = BTreeMap::new();
        let commands = plan
            .instances
            .iter()
            .filter(|instance| instance.uses == "command");
        for instance in commands {
            match self.program(plan, instance) {
                Ok(program) => {
                    let files = program.files.iter();
                    pins.extend(files.map(|(path, digest)| (path.display().to_string(), digest.to_string())));
                }
                Err(_) => {
                    // Never equal to one that is there.
                    pins.insert(name_of(instance), "not on this host".into());
                }
            }
        }
        pins
    }

    fn find(&self, name: &str, set: Option<&FileSet>) -> Result<Program, String> {
        let plain = name.trim_start_matches("./");
        let own = set.and_then(|set| set.files.iter().find(|file| file.name == plain));
        if let Some(file) = own {
            let mut identity = format!("{ENVIRONMENT} {}", file.digest);
            let mut files = Vec::new();
            if let Some(interpreter) = interpreter(file.path.as_std_path())? {
                let digest = self.digest(&interpreter)?;
                identity = format!("{identity} {digest}");
                files.push((interpreter, digest));
            }
            return Ok(Program {
                place: Place::Own(file.name.clone()),
                identity,
                files,
            });
        }
        let path = in_system(name)?;
        let digest = self.digest(&path)?;
        let mut identity = format!("{ENVIRONMENT} {digest}");
        let mut files = vec![(path.clone(), digest)];
        if let Some(interpreter) = interpreter(&path)? {
            let digest = self.digest(&interpreter)?;
            identity = format!("{identity} {digest}");
            files.push((interpreter, digest));
        }
        let place = path
            .to_str()
            .ok_or_else(|| format!("the path of `{name}` is not UTF-8"))?;
        Ok(Program {
            place: Place::System(place.to_owned()),
            identity,
            files,
        })
    }

    /// Digest of an executable, computed once as long as the file is the same.
    fn digest(&self, path: &Path) -> Result<Digest, String> {
        let fail = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = std::fs::File::open(path).map_err(fail)?;
        let facts = file.metadata().map_err(fail)?;
        let id = FileId {
            device: facts.dev(),
            inode: facts.ino(),
            length: facts.size(),
            changed: (facts.mtime(), facts.mtime_nsec()),
        };
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let known = digests().get(&id).copied();
        if let Some(digest) = known {
            return Ok(digest);
        }
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => hash.update(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        let digest = Digest::from_bytes(hash.finalize().into());
        digests().insert(id, digest);
        Ok(digest)
    }

    /// The bytes of a set of own files; read once, and checked against what was planned.
    pub(super) fn own(&self, plan: &Plan, instance: &Instance) -> Result<Arc<Vec<Own>>, Done> {
        let Some((name, set)) = instance
            .files
            .as_ref()
            .and_then(|name| Some((name, plan.file_sets.get(name)?)))
        else {
            return Ok(Arc::default());
        };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = own.get(name) {
            return Ok(Arc::clone(files));
        }
        let mut files = Vec::with_capacity(set.files.len());
        for file in &set.files {
            let path = &file.path;
            let cannot = |error: std::io::Error| {
                Done::failed("a file of the program cannot be read", error.to_string())
            };
            let bytes = fs_err::read(path).map_err(cannot)?;
            if Digest::of(&bytes) != file.digest {
                return Err(Done::failed(
                    "a file of the program changed while the run went on",
                    format!("{path} is not what it was when the run was planned; run again"),
                ));
            }
            files.push(Own {
                name: file.name.clone(),
                executable: file.executable,
                bytes,
            });
        }
        let files = Arc::new(files);
        own.insert(name.clone(), Arc::clone(&files));
        Ok(files)
    }
}

/// The program that an instance names; nothing where its settings are not final and name none yet.
fn name_of(instance: &Instance) -> String {
    #[derive(Deserialize)]
    struct Named {
        run: Vec<String>,
    }
    let named = instance.with.read::<Named>();
    let words = named.map(|named| named.run).unwrap_or_default();
    words.into_iter().next().unwrap_or_default()
}

/// What is the user's and not for commands, even where it lies in a folder that they see.
fn hidden(shared: &Shared<'_>) -> Vec<PathBuf> {
    let options = &shared.options;
    let secrets = options.secrets.into_iter().flat_map(Secrets::files);
    let runs = options.runs.map(Path::to_owned);
    let store = options.store.folder().to_owned();
    [store].into_iter().chain(runs).chain(secrets).collect()
}

/// Finds an executable of the system, as the command will: by its path, or on the fixed `PATH`.
fn in_system(name: &str) -> Result<PathBuf, String> {
    if name.starts_with('/') {
        let path = Path::new(name);
        return match (
            SYSTEM.iter().any(|folder| name.starts_with(folder)),
            path.is_file(),
        ) {
            (false, _) => Err(format!(
                "{name} is outside of the folders that a command sees (/usr, /bin, /sbin, /lib, /nix); put the program into the manifest's folder"
            )),
            (true, false) => Err(format!("there is no program {name} on this host")),
            (true, true) => Ok(path.to_owned()),
        };
    }
    if name.is_empty() || name.contains('/') {
        return Err(format!("there is no file `{name}` in the manifest's folder"));
    }
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    PATH.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(runs)
        .ok_or_else(|| {
            format!("there is no program `{name}` on this host (looked in {PATH}), and no file of that name beside the manifest")
        })
}

/// The interpreter that a script's first line names; through `env`, the program that it looks up.
fn interpreter(path: &Path) -> Result<Option<PathBuf>, String> {
    let mut first = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SHEBANG).read_to_end(&mut first))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(line) = first.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let Some(program) = words.next() else {
        return Ok(None);
    };
    let looked_up = Path::new(program).file_name().is_some_and(|name| name == "env");
    match words.find(|word| !word.starts_with('-')).filter(|_| looked_up) {
        Some(name) => in_system(name).map(Some),
        None => in_system(program).map(Some),
    }
    .map_err(|error| {
        format!(
            "{}, which begins with `#!{}`: {error}",
            path.display(),
            line.trim()
        )
    })
}

/// The arguments, argument 0 first.
pub(super) fn arguments(with: &CommandWith) -> Vec<String> {
    with.run.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(first: &str) -> tempfile::NamedTempFile {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "{first}\nrest").expect("written");
        file
    }

    #[test]
    fn the_interpreter_is_part_of_who_a_script_is() {
        let of = |line: &str| interpreter(script(line).path());
        assert_eq!(of("#!/bin/sh"), Ok(Some("/bin/sh".into())));
        assert_eq!(of("#! /bin/sh -eu"), Ok(Some("/bin/sh".into())));
        let env = of("#!/usr/bin/env -S sh -eu")
            .expect("a host with sh")
            .expect("a script");
        assert!(env.ends_with("sh"), "{env:?}");
        assert_eq!(of("no script"), Ok(None));
        assert!(of("#!/opt/no/such").is_err());
        assert!(of("#!/usr/bin/no-such").is_err_and(|error| error.contains("#!/usr/bin/no-such")));
    }

    #[test]
    fn programs_are_found_where_commands_see_them() {
        assert!(in_system("sh").is_ok_and(|path| path.is_absolute()));
        for (name, says) in [
            ("no-such-program", "looked in"),
            ("./tool", "in the manifest's folder"),
            ("/root/tool", "outside of the folders"),
            ("/usr/bin/no-such-program", "there is no program"),
            ("", "there is no file"),
        ] {
            let error = in_system(name).expect_err(name);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_executable_that_changes_is_another() {
        let programs = Programs::new(None);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "one").expect("written");
        let one = programs.digest(file.path()).expect("a digest");
        assert_eq!(one, Digest::of(b"one"));
        std::fs::write(file.path(), "three").expect("written");
        assert_eq!(programs.digest(file.path()), Ok(Digest::of(b"three")));
    }
}
