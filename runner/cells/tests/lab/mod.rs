//! What the tests of commands share: folders to run them in, and hosts that have less than this one.

#![allow(clippy::unwrap_used, dead_code, reason = "each test file uses a part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hotcell_cells::command::{
    CommandEnding, CommandLimits, CommandSpec, Commands, End, Means, PATH, Seat, Stream,
};
use hotcell_cells::process::Interruption;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::Exit;

/// A folder in which commands work.
pub(crate) struct Lab {
    pub(crate) commands: Commands,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) means: Means,
}

impl Lab {
    pub(crate) fn with(means: Means) -> Self {
        let folder = folder();
        let commands = Commands::with_means(folder.path(), &[], means).unwrap();
        Self {
            commands,
            folder,
            means,
        }
    }

    pub(crate) fn seat(&self) -> Seat {
        self.seat_with(limits())
    }

    pub(crate) fn seat_with(&self, limits: CommandLimits) -> Seat {
        self.commands.seat(&limits).unwrap()
    }
}

/// One that is open to the user that commands become.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

/// Everything that this host allows.
pub(crate) const ALL: Means = Means {
    namespaces: true,
    landlock: i32::MAX,
    groups: true,
    deep_mounts: true,
    scratch: true,
};
/// Hosts that have less.
pub(crate) const NO_NAMESPACES: Means = Means {
    namespaces: false,
    ..ALL
};
pub(crate) const NO_LANDLOCK: Means = Means { landlock: 0, ..ALL };
pub(crate) const LITTLE: Means = Means {
    groups: false,
    deep_mounts: false,
    scratch: false,
    ..ALL
};

/// Does a test with everything this host allows, and with what one has that has less.
pub(crate) fn everywhere(test: impl Fn(&Lab)) {
    for means in hosts(&[ALL, NO_NAMESPACES, NO_LANDLOCK, LITTLE]) {
        test(&Lab::with(means));
    }
}

/// Those hosts that this one can be taken for: without Landlock only where commands get a root of their own. Within `chroot`
/// nobody does: its root is no mount.
pub(crate) fn hosts(all: &[Means]) -> Vec<Means> {
    let own_root = has_own_root();
    let kept = all.iter().filter(|means| means.landlock > 0 || own_root);
    kept.copied().collect()
}

/// Whether commands get a root of their own on this host. Where they do not, that is said.
pub(crate) fn has_own_root() -> bool {
    let lab = Lab::with(ALL);
    let ending = sh(&mut lab.seat(), "true");
    let has = holds(&ending, "private-root");
    if !has {
        let why = format!("skipped in part: {:?}\n", ending.fallbacks);
        std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes()).unwrap();
    }
    has
}

/// How many seats there are.
pub(crate) fn seats(lab: &Lab) -> usize {
    let area = fs::read_dir(lab.folder.path()).unwrap().next().unwrap().unwrap();
    let entries = fs::read_dir(area.path()).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count()
}

pub(crate) fn holds(ending: &CommandEnding, layer: &str) -> bool {
    ending.layers.iter().any(|held| held == layer)
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn run(seat: &mut Seat, arguments: &[&str]) -> CommandEnding {
    let tmp = seat.tmp().to_owned();
    let environment: Vec<(String, String)> = [("PATH", PATH), ("TMPDIR", &tmp), ("GREETING", "hello")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let program = match arguments[0] {
        "sh" => "/bin/sh",
        "python3" => "/usr/bin/python3",
        "perl" => "/usr/bin/perl",
        other => other,
    };
    seat.run(
        &CommandSpec {
            program,
            arguments: &words(arguments),
            environment: &environment,
            stdin: None,
        },
        &StopSignal::new().unwrap(),
    )
    .unwrap()
}

pub(crate) fn limits() -> CommandLimits {
    CommandLimits {
        wall_ms: 60_000,
        ..CommandLimits::default()
    }
}

pub(crate) fn sh(seat: &mut Seat, script: &str) -> CommandEnding {
    run(seat, &["sh", "-c", script])
}

pub(crate) fn said(seat: &Seat, stream: Stream) -> String {
    let mut bytes = Vec::new();
    seat.copy_stream(stream, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
pub(crate) fn assert_code(seat: &Seat, ending: &CommandEnding, code: i32) {
    assert!(
        matches!(ending.end, End::Exit(Exit::Code(found)) if found == code),
        "{:?}; it said: {}",
        ending.end,
        String::from_utf8_lossy(&seat.error_end(4096))
    );
}

#[track_caller]
pub(crate) fn assert_interrupted(ending: &CommandEnding, why: Interruption) {
    assert!(
        matches!(&ending.end, End::Interrupted(found) if *found == why),
        "{ending:?}"
    );
}

/// The script must fail, whatever it tries.
#[track_caller]
pub(crate) fn assert_refused(seat: &mut Seat, script: &str) {
    let ending = sh(seat, script);
    assert!(
        matches!(ending.end, End::Exit(Exit::Code(code)) if code != 0),
        "{script}: {:?}; it said: {}",
        ending.end,
        said(seat, Stream::Out)
    );
}

pub(crate) fn walk(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path, name));
        } else if path.file_name().unwrap() == name {
            found.push(path);
        }
    }
    found
}
