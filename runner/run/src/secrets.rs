//! Secrets: read when something first needs them, handed only to those who name them, never written.
//!
//! A library reads no environment: whoever runs a plan says how variables are read. Values are wiped when they are let go
//! of, have no text form, and are replaced by their names in whatever the runner writes ([`Secrets::redact`]).

mod forms;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hotcell_plan::Sources;
use hotcell_schema::manifest::{Manifest, Secret};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use zeroize::Zeroizing;

pub(crate) use forms::{Form, redact};

/// No secret is longer.
pub const MAX_SECRET: usize = 64 << 10;
/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// How long its output may stay open when it has ended: by something that has left its group.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The value of a secret. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone)]
pub struct SecretValue(Arc<Value>);

struct Value {
    bytes: Zeroizing<Vec<u8>>,
    forms: Vec<Form>,
}

impl SecretValue {
    fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        let forms = forms::of(&bytes);
        Self(Arc::new(Value { bytes, forms }))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The bytes as text, where they are.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0.bytes).ok()
    }

    /// How it can stand in what others write. A value that is too short to be told from any text has none.
    pub(crate) fn forms(&self) -> &[Form] {
        &self.0.forms
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Why a secret cannot be had. Never holds anything of its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret `{name}` cannot be read: {reason}")]
pub struct SecretError {
    /// Its name.
    pub name: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Where a secret is read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Command { argv: Vec<String>, folder: PathBuf },
    Env(String),
}

/// Reads a variable of the environment.
pub type Environment = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// What came of reading a secret.
type Asked = Result<SecretValue, SecretError>;

/// The secrets of a manifest.
pub struct Secrets {
    places: BTreeMap<String, Place>,
    environment: Box<Environment>,
    /// What was asked for: each is read once, whatever came of it.
    asked: Mutex<BTreeMap<String, Arc<OnceLock<Asked>>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            environment: Box::new(|_| None),
            asked: Mutex::default(),
        }
    }
}

impl Secrets {
    /// The secrets of a manifest; files and programs count from the folder of the document that names them.
    pub fn of(manifest: &Manifest, sources: &Sources, environment: Box<Environment>) -> Self {
        let places = manifest
            .secrets
            .iter()
            .filter_map(|(name, secret)| Some((name.clone(), place(secret, sources)?)));
        Self {
            places: places.collect(),
            environment,
            asked: Mutex::default(),
        }
    }

    /// The value of a secret. A program that asks a person is run once, whoever else needs its answer; who needs another
    /// secret does not wait for it.
    pub fn get(&self, name: &str) -> Result<SecretValue, SecretError> {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = Arc::clone(all.entry(name.to_owned()).or_default());
        drop(all);
        asked.get_or_init(|| self.read(name)).clone()
    }

    fn read(&self, name: &str) -> Asked {
        let fail = |reason: String| SecretError {
            name: name.to_owned(),
            reason,
        };
        let place = self
            .places
            .get(name)
            .ok_or_else(|| fail("the manifest does not declare it".into()))?;
        let mut bytes = match place {
            Place::File(path) => file(path),
            Place::Command { argv, folder } => command(argv, folder),
            Place::Env(variable) => (self.environment)(variable)
                .map(Zeroizing::new)
                .ok_or_else(|| format!("the environment variable {variable} is not set")),
        }
        .map_err(fail)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        match bytes.len() {
            0 => Err(fail("it is empty".into())),
            1..=MAX_SECRET => Ok(SecretValue::new(bytes)),
            _ => Err(fail(format!("it is longer than {MAX_SECRET} bytes"))),
        }
    }

    /// The text with `<secret NAME>` in the place of every value that was read so far and has at least 4 bytes, also where it
    /// stands encoded.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let values = asked
            .iter()
            .filter_map(|(name, asked)| Some((name.as_str(), asked.get()?.as_ref().ok()?)));
        let redacted = forms::redact(text.as_bytes(), 0, values);
        match redacted == text.as_bytes() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(String::from_utf8_lossy(&redacted).into_owned()),
        }
    }

    /// Files that hold secrets.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.places.values().filter_map(|place| match place {
            Place::File(path) => Some(path.clone()),
            _ => None,
        })
    }
}

fn place(secret: &Secret, sources: &Sources) -> Option<Place> {
    if let Some(file) = &secret.file {
        let folder = sources.folder(file.span.file).as_std_path();
        return Some(Place::File(folder.join(&file.value)));
    }
    if let Some(program) = secret.command.first() {
        let folder = sources.folder(program.span.file).as_std_path().to_owned();
        let argv = secret.command.iter().map(|word| word.value.clone()).collect();
        return Some(Place::Command { argv, folder });
    }
    secret.env.clone().map(Place::Env)
}

fn file(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 2));
    let read = fs_err::File::open(path).and_then(|file| bounded(file, &mut bytes));
    match read {
        Ok(()) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a little more than a secret may have, into memory that does not move: so no copy is left behind.
fn bounded(from: impl Read, into: &mut Vec<u8>) -> std::io::Result<()> {
    from.take(MAX_SECRET as u64 + 2).read_to_end(into).map(drop)
}

/// What a program writes to standard output. What it writes to standard error is nobody's but its user's. It leads a process
/// group, which ends with it: nothing that it started lives on, or holds its output open.
fn command(argv: &[String], folder: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = argv.split_first().ok_or("it has no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let mut stdout = child.stdout.take().ok_or("it has no output")?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    let (sender, receiver) = channel();
    let ended = sender.clone();
    // Each thread ends with the group at the latest: nobody who holds the output outlives it.
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 2));
        let read = bounded(&mut stdout, &mut bytes);
        let _ = sender.send(Told::Read(read.map(|()| bytes)));
        // Not before: who writes too much would end of that, and nobody know why.
        drop(stdout);
    });
    std::thread::spawn(move || {
        // Told, and left as it is: as long as it is not taken away, its number is nobody else's.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while let Err(Errno::EINTR) = waitid(Id::Pid(group), flags) {}
        let _ = ended.send(Told::Ended);
    });
    let deadline = Instant::now() + COMMAND_TIME;
    let (mut read, mut has_ended) = (None, false);
    let too_long = |read: &Option<std::io::Result<Zeroizing<Vec<u8>>>>| matches!(read, Some(Ok(bytes)) if bytes.len() > MAX_SECRET + 1);
    while !has_ended && !too_long(&read) {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Told::Read(told)) => read = Some(told),
            Ok(Told::Ended) => has_ended = true,
            Err(_) => break,
        }
    }
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait().map_err(|error| error.to_string())?;
    if too_long(&read) {
        return Err(format!("it is longer than {MAX_SECRET} bytes"));
    }
    if !has_ended {
        return Err(format!(
            "`{program}` took more than {} seconds",
            COMMAND_TIME.as_secs()
        ));
    }
    if !status.success() {
        return Err(format!("`{program}` ended with {status}"));
    }
    let left_open = || format!("something that `{program}` started keeps its output open");
    loop {
        match read {
            Some(Ok(bytes)) => return Ok(bytes),
            Some(Err(error)) => return Err(format!("the output of `{program}`: {error}")),
            None => match receiver.recv_timeout(LAST_WORDS) {
                Ok(Told::Read(told)) => read = Some(told),
                Ok(Told::Ended) => {}
                Err(_) => return Err(left_open()),
            },
        }
    }
}

/// What is told of a program.
enum Told {
    /// All that it wrote, or a byte more than a secret may have.
    Read(std::io::Result<Zeroizing<Vec<u8>>>),
    /// It has ended.
    Ended,
}

#[cfg(test)]
impl Secrets {
    /// One secret, which was read.
    pub(crate) fn one(name: &str, value: &'static str) -> Self {
        let secrets = Self {
            places: [(name.to_owned(), Place::Env(name.to_owned()))]
                .into_iter()
                .collect(),
            environment: Box::new(|_| Some(value.as_bytes().to_vec())),
            asked: Mutex::default(),
        };
        secrets.get(name).expect("a secret");
        secrets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(places: &[(&str, Place)]) -> Secrets {
        Secrets {
            places: places
                .iter()
                .map(|(name, place)| ((*name).to_owned(), place.clone()))
                .collect(),
            environment: Box::new(|name| (name == "SET").then(|| b"of the \"environment\"".to_vec())),
            asked: Mutex::default(),
        }
    }

    fn shell(script: &str) -> Place {
        Place::Command {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            folder: "/".into(),
        }
    }

    #[test]
    fn each_is_read_where_it_is_said_and_loses_one_line_feed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pw");
        std::fs::write(&path, "of a file\n\n").expect("a file");
        let secrets = secrets(&[
            ("file", Place::File(path.clone())),
            ("command", shell("echo of a program")),
            ("env", Place::Env("SET".into())),
        ]);
        let value = |name: &str| secrets.get(name).expect("a secret").text().map(str::to_owned);
        assert_eq!(value("file").as_deref(), Some("of a file\n"));
        assert_eq!(value("command").as_deref(), Some("of a program"));
        assert_eq!(value("env").as_deref(), Some("of the \"environment\""));
        // Read once.
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(value("file").as_deref(), Some("of a file\n"));
    }

    #[test]
    fn what_cannot_be_read_says_why_and_nothing_of_the_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = folder.path().join("long");
        std::fs::write(&long, vec![b'x'; MAX_SECRET + 1]).expect("a file");
        let secrets = secrets(&[
            ("absent", Place::File(folder.path().join("absent"))),
            ("long", Place::File(long)),
            ("unset", Place::Env("UNSET".into())),
            ("fails", shell("echo hunter2; echo hunter2 >&2; exit 3")),
            ("empty", shell("true")),
            ("endless", shell("cat /dev/zero")),
            (
                "nothing",
                Place::Command {
                    argv: vec!["/no/such".into()],
                    folder: "/".into(),
                },
            ),
        ]);
        for (name, says) in [
            ("absent", "No such file"),
            ("long", "longer than"),
            ("unset", "UNSET is not set"),
            ("fails", "exit status: 3"),
            ("empty", "empty"),
            ("endless", "longer than"),
            ("nothing", "cannot be started"),
            ("undeclared", "does not declare it"),
        ] {
            let error = secrets.get(name).expect_err(name).to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_slow_secret_keeps_nobody_from_another_and_is_read_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (begun, go) = (path("begun"), path("go"));
        for pipe in [&begun, &go] {
            let made = Command::new("mkfifo").arg(pipe).status().expect("mkfifo");
            assert!(made.success());
        }
        let times = path("times");
        let script = format!("echo x >> {times}; echo > {begun}; cat {go} > /dev/null; echo slow secret");
        let secrets = secrets(&[("slow", shell(&script)), ("env", Place::Env("SET".into()))]);
        std::thread::scope(|scope| {
            let slow = [0, 1].map(|_| scope.spawn(|| secrets.get("slow")));
            std::fs::read(&begun).expect("it has begun");
            // With one lock for all, this would wait for what is waited for below.
            let (told, heard) = channel();
            let secrets = &secrets;
            scope.spawn(move || {
                let env = secrets.get("env");
                let redacted = secrets.redact("slow secret").into_owned();
                let _ = told.send((env.is_ok(), redacted));
            });
            let heard = heard.recv_timeout(Duration::from_secs(20));
            std::fs::write(&go, "").expect("it goes on");
            assert_eq!(heard, Ok((true, "slow secret".to_owned())));
            for slow in slow {
                let value = slow.join().expect("no panic").expect("a secret");
                assert_eq!(value.text(), Some("slow secret"));
            }
        });
        assert_eq!(secrets.redact("slow secret"), "<secret slow>");
        assert_eq!(std::fs::read_to_string(times).expect("times"), "x\n");
    }

    #[test]
    fn what_a_program_starts_ends_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = folder.path().join("lock").display().to_string();
        // It holds the output open, and a lock: whoever waits for one of them would wait for ever.
        let script =
            format!("(flock 9 && sleep 1000) 9> {lock} & while flock -n {lock} true; do :; done; echo it");
        let secrets = secrets(&[("it", shell(&script))]);
        let begun = Instant::now();
        assert_eq!(secrets.get("it").expect("a secret").text(), Some("it"));
        assert!(begun.elapsed() < COMMAND_TIME / 2);
        let free = Command::new("flock").args(["-w", "20", &lock, "true"]).status();
        assert!(free.expect("flock").success());
    }

    #[test]
    fn values_are_replaced_by_names_longest_first() {
        let secrets = secrets(&[
            ("a", shell("printf hunter2")),
            ("b", shell("printf %s-and-more hunter2")),
            ("c", shell("printf abc")),
            ("env", Place::Env("SET".into())),
        ]);
        assert_eq!(secrets.redact("hunter2"), "hunter2", "not read yet");
        for name in ["a", "b", "c", "env"] {
            let value = secrets.get(name).expect("a secret");
            assert_eq!(format!("{value:?}"), "SecretValue(…)");
        }
        assert_eq!(
            secrets.redact("x hunter2-and-more hunter2 abc"),
            "x <secret b> <secret a> abc"
        );
        let json = serde_json::to_string("of the \"environment\"").expect("JSON");
        assert_eq!(secrets.redact(&json), "\"<secret env>\"");
        assert!(!format!("{secrets:?}").contains("hunter2-"));
    }
}
